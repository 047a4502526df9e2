"""The sampling loop: from prompts to new tokens, one at a time, many texts side by side.

It works on token ids and knows nothing of text.  `kv_cache.py` keeps results, so that nothing is computed twice;
`sampling.py` turns logits into a token; `beam_search.py` is another loop, which looks for the most likely text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from generation.kv_cache import KVCache
from generation.sampling import Sampling, ban, draw, penalize, probabilities, tokens_seen
from model import Transformer


@dataclass
class Rules:
    """Which tokens may be written, and where a text ends.

    end: the id that ends a text; banned: ids that are never written.
    stopped: a function of a text's new ids; if it returns True, the text has ended too (the flag --stop).
    """

    end: int | None = None
    banned: tuple[int, ...] = ()
    stopped: Callable[[list[int]], bool] | None = None

    def forbidden(self, may_end: bool) -> list[int]:
        """Return the ids that must not come next: the banned ones, and the end of a text that may not end yet."""
        if may_end or self.end is None:
            return list(self.banned)
        return [*self.banned, self.end]

    def has_ended(self, ids: list[int]) -> bool:
        """Return whether a text's new ids end it."""
        return ids[-1] == self.end or (self.stopped is not None and self.stopped(ids))


NO_RULES = Rules()


@torch.inference_mode()
def generate(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, rules: Rules = NO_RULES,
    row_seeds: list[int] | None = None,
) -> Iterator[list[int | None]]:  # fmt: skip
    """Continue prompts; yield a list for every new position: one token id per row, None for rows that have ended.

    prompts: lists of ids, with lengths from 1 to the model's max_seq_len; they are continued side by side.
    row_seeds: a number, 0 or more, for each prompt (default: 0, 1, ...).  Each prompt has its own random generator,
    seeded with the sampling seed and this number, so its text does not depend on the prompts next to it.
    When a row reaches the end of the context, the cache drops its oldest half and computes the rest again.
    Raises ValueError for a prompt that is empty or longer than the context.
    """
    # 1. Draw all random numbers before the first token: (prompts, max_new_tokens)
    check_prompts(model, prompts)
    device = model.tokens.weight.device
    if row_seeds is None:
        row_seeds = range(len(prompts))
    random_numbers = numbers_for(sampling, row_seeds).to(device)

    # 2. Run the prompts through the network
    cache = KVCache(model, prompts)
    computed = list(range(len(prompts)))  # row r of the cache and the logits belongs to prompt computed[r]
    logits = cache.fill(computed)  # (rows, V), for the position after each prompt
    seen = None
    if sampling.repetition_penalty != 1:
        seen = tokens_seen(prompts, logits.size(-1), rules.forbidden(may_end=False), device)
    new_ids = [[] for _ in prompts]
    ended = set()  # the prompts whose text has ended
    for step in range(sampling.max_new_tokens):
        # 3. Turn the logits into a token for each row
        if seen is not None:
            logits = penalize(logits, seen, sampling.repetition_penalty)
        logits = ban(logits, rules.forbidden(may_end=step >= sampling.min_new_tokens))
        probs, candidates = probabilities(logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p)
        tokens = draw(probs, candidates, random_numbers[computed, step])

        # 4. Yield the new tokens, including the one that ends a text
        news = [None] * len(prompts)
        for prompt, token in zip(computed, tokens.tolist(), strict=True):
            if prompt not in ended:
                news[prompt] = token
                new_ids[prompt].append(token)
                if rules.has_ended(new_ids[prompt]):
                    ended.add(prompt)
        yield news
        if len(ended) == len(prompts) or step + 1 == sampling.max_new_tokens:
            return

        # 5. Drop the ended rows once they are half of all: moving the others costs time too
        unfinished = [row for row, prompt in enumerate(computed) if prompt not in ended]
        if len(unfinished) <= len(computed) // 2:
            cache.take(unfinished)
            computed = [computed[row] for row in unfinished]
            tokens = tokens[unfinished]
            seen = None if seen is None else seen[unfinished]

        # 6. Run the new tokens through the network
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens)


def numbers_for(sampling: Sampling, row_seeds) -> torch.Tensor:
    """Return random numbers in [0, 1), float32 (len(row_seeds), max_new_tokens), from one generator per row."""
    generators = [np.random.default_rng([sampling.seed, row_seed]) for row_seed in row_seeds]
    return torch.from_numpy(np.stack([g.random(sampling.max_new_tokens, np.float32) for g in generators]))


def check_prompts(model: Transformer, prompts: list[list[int]]) -> None:
    """Raise ValueError for a prompt that is empty or does not fit into the context."""
    context = model.config.max_seq_len
    lengths = [len(prompt) for prompt in prompts]
    if not all(0 < length <= context for length in lengths):
        raise ValueError(f"a prompt must have 1 to {context} tokens, not {lengths}")

"""The sampling loop: from prompts to new tokens, one at a time, many texts side by side.

It works on token ids and knows nothing of text.  Each part has a file of its own: `kv_cache.py` keeps what need not be
computed again, `sampling.py` turns logits into a token; `beam_search.py` is another loop, which looks for the likeliest
text.
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
    stopped: a function of a text's new ids; where it is true, the text has ended, too.
    """

    end: int | None = None
    banned: tuple[int, ...] = ()
    stopped: Callable[[list[int]], bool] | None = None

    def forbidden(self, may_end: bool) -> list[int]:
        return list(self.banned) if may_end or self.end is None else [*self.banned, self.end]

    def has_ended(self, ids: list[int]) -> bool:
        """Whether a text's new ids end it."""
        return ids[-1] == self.end or (self.stopped is not None and self.stopped(ids))


NO_RULES = Rules()


@torch.inference_mode()
def generate(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, rules: Rules = NO_RULES,
    keys: list[int] | None = None,
) -> Iterator[list[int | None]]:  # fmt: skip
    """Continue prompts, yielding for every new position a list with one token id a row, None for rows that have ended.

    prompts: lists of ids, of any lengths from 1 to the model's max_seq_len; they are continued side by side.
    keys: row r draws from a generator of its own, made of the seed and keys[r], numbers from 0 on (default: r), so
    that its text does not depend on the rows beside it.
    Past the context: when a row is full, its oldest half is dropped and the rest runs once more.
    Raises ValueError for a prompt that is empty or longer than the context.
    """
    # 1. All that is random is drawn before the first token: uniform (prompts, max_new_tokens)
    check_prompts(model, prompts)
    device = model.tokens.weight.device
    uniform = uniform_numbers(sampling, range(len(prompts)) if keys is None else keys).to(device)

    # 2. The prompts go through the network
    cache = KVCache(model, prompts)
    rows = list(range(len(prompts)))  # the prompts that are still computed
    logits = cache.fill(rows)  # (rows, V), of the position after each prompt
    seen = None
    if sampling.repetition_penalty != 1:
        seen = tokens_seen(prompts, logits.size(-1), rules.forbidden(may_end=False), device)
    texts = [[] for _ in prompts]  # the new ids of each
    ended = set()
    for step in range(sampling.max_new_tokens):
        # 3. From logits to a token, for each row
        if seen is not None:
            logits = penalize(logits, seen, sampling.repetition_penalty)
        logits = ban(logits, rules.forbidden(may_end=step >= sampling.min_new_tokens))
        chances, candidates = probabilities(
            logits, sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        )
        tokens = draw(chances, candidates, uniform[rows, step])

        # 4. A row that ends is yielded with its end, and then no more
        new = [None] * len(prompts)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in ended:
                new[row] = token
                texts[row].append(token)
                if rules.has_ended(texts[row]):
                    ended.add(row)
        yield new
        if len(ended) == len(prompts) or step + 1 == sampling.max_new_tokens:
            return

        # 5. Ended rows are left out once half of them have: moving the others costs more than computing a few in vain
        going_on = [place for place, row in enumerate(rows) if row not in ended]
        if len(going_on) <= len(rows) // 2:
            cache.take(going_on)
            rows = [rows[place] for place in going_on]
            tokens = tokens[going_on]
            seen = None if seen is None else seen[going_on]

        # 6. The new tokens go through the network
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens)


def uniform_numbers(sampling: Sampling, keys) -> torch.Tensor:
    """Float32 (len(keys), max_new_tokens) from 0 to 1, each row from a generator made of the seed and its key."""
    generators = [np.random.default_rng([sampling.seed, key]) for key in keys]
    return torch.from_numpy(np.stack([g.random(sampling.max_new_tokens, np.float32) for g in generators]))


def check_prompts(model: Transformer, prompts: list[list[int]]) -> None:
    """Raise ValueError for a prompt that does not fit into the context, or is empty."""
    context = model.config.max_seq_len
    lengths = [len(prompt) for prompt in prompts]
    if not all(0 < length <= context for length in lengths):
        raise ValueError(f"a prompt must have 1 to {context} tokens, not {lengths}")

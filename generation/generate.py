"""How the network writes: from prompts to new tokens, one at a time, many texts side by side.

It works on token ids and knows nothing of text.  In reading order: `Cache` keeps what would otherwise be computed again
for every token; `probabilities` and `draw` turn logits into a token; `generate` draws texts; `beam_search` looks for
the likeliest.  In the comments B is the rows, S the tokens that a row holds, H the heads, D the size of a head, V the
vocabulary.
"""

import numpy as np
import torch

from generation.kv_cache import Cache
from generation.sampling import draw, penalized, probabilities, tokens_seen


@torch.inference_mode()
def generate(
    model, prompts, max_new_tokens, *, end=None, banned=(), min_new_tokens=0, temperature=1.0, top_k=0, top_p=1.0,
    min_p=0.0, repetition_penalty=1.0, seed=0, keys=None, stopped=None, use_cache=True,
):  # fmt: skip
    """Continue prompts, yielding for every new position a list with one token id a row, None for rows that have ended.

    prompts: lists of ids, of any lengths from 1 to the model's max_seq_len; they are continued side by side.
    end: the id after which a row is over (it is yielded, not before min_new_tokens others); banned: ids never drawn.
    stopped: a function of a row's new ids; where it is true, the row is over, too.
    temperature, top_k, top_p, min_p: see `probabilities`; repetition_penalty: see `penalized`.
    seed, keys: row r draws from a generator of its own, made of seed and keys[r], numbers from 0 on (default: r), so
    that its text does not depend on the rows beside it.
    use_cache=False computes every position again for every token: slow, the same tokens, for checking.

    Past the context: when a row is full, the oldest half is dropped and the rest run once more.
    Raises ValueError for a prompt that is empty or longer than the context.
    """
    check_prompts(model, prompts)
    device, banned = model.tokens.weight.device, list(banned)
    never_early = banned if end is None else [*banned, end]
    generators = [np.random.default_rng([seed, key]) for key in (range(len(prompts)) if keys is None else keys)]
    uniform = np.stack([generator.random(max_new_tokens, np.float32) for generator in generators])
    uniform = torch.from_numpy(uniform).to(device)
    texts, over, rows = [[] for _ in prompts], set(), list(range(len(prompts)))  # rows: what is still computed
    cache = Cache(model, prompts)
    logits = cache.fill(rows)
    seen = tokens_seen(prompts, logits.size(-1), never_early, device) if repetition_penalty != 1 else None
    for step in range(max_new_tokens):
        if seen is not None:
            logits = penalized(logits, seen, repetition_penalty)
        logits[:, never_early if step < min_new_tokens else banned] = -torch.inf
        tokens = draw(*probabilities(logits, temperature, top_k, top_p, min_p), uniform[rows, step])
        new = [None] * len(prompts)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in over:
                new[row] = token
                texts[row].append(token)
        yield new
        ended = lambda row, token: token == end or (stopped is not None and stopped(texts[row]))
        over |= {row for row, token in enumerate(new) if token is not None and ended(row, token)}
        if len(over) == len(prompts) or step + 1 == max_new_tokens:
            return
        kept = [place for place, row in enumerate(rows) if row not in over]
        if len(kept) <= len(rows) // 2:  # fewer rows save more than moving them costs
            cache.take(kept)
            rows, tokens = [rows[place] for place in kept], tokens[kept]
            seen = None if seen is None else seen[kept]
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens) if use_cache else cache.recompute(tokens)


def check_prompts(model, prompts):
    context, lengths = model.config.max_seq_len, [len(prompt) for prompt in prompts]
    if not all(0 < length <= context for length in lengths):
        raise ValueError(f"a prompt must have 1 to {context} tokens, not {lengths}")

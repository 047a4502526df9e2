"""How the network writes: from prompts to new tokens, one at a time, many texts side by side.

It works on token ids and knows nothing of text.  In reading order: `Cache` keeps what would otherwise be computed again
for every token; `probabilities` and `draw` turn logits into a token; `generate` draws texts; `beam_search` looks for
the likeliest.  In the comments B is the rows, S the tokens that a row holds, H the heads, D the size of a head, V the
vocabulary.
"""

import math

import numpy as np
import torch


class Cache:
    """Texts that grow, and the keys and values of their tokens, so that a new token costs one position, not all.

    contexts: the ids that each row goes on from, lists.  keys, values: (layers, B, H, max_seq_len, D).
    Rows are independent: each has its own length, and a full row starts again with its newest half.
    """

    def __init__(self, model, contexts):
        config, weight = model.config, model.tokens.weight
        head_size = config.hidden_size // config.num_heads
        shape = config.num_layers, len(contexts), config.num_heads, config.max_seq_len, head_size
        self.model, self.contexts = model, [list(context) for context in contexts]
        dtype = torch.float32 if weight.device.type == "cpu" else weight.dtype  # a CPU reads them faster in float32
        self.keys, self.values = (torch.zeros(shape, device=weight.device, dtype=dtype) for _ in range(2))
        self.remember = None

    def layer(self, index):
        """What `Attention` calls with the new keys and values (B, H, T, D); it returns those to attend to."""
        return lambda k, v: self.remember(self.keys[index], self.values[index], k, v)

    def fill(self, rows):
        """Compute the keys and values of all that these rows hold; returns the logits (len(rows), V) after each."""
        device, contexts = self.keys.device, [self.contexts[row] for row in rows]
        ends = torch.tensor([len(context) - 1 for context in contexts], device=device)
        ids = torch.zeros(len(rows), int(ends.max()) + 1, dtype=torch.int64)  # padded on the right: never seen
        for row, context in enumerate(contexts):
            ids[row, : len(context)] = torch.tensor(context)

        def remember(keys, values, k, v):
            keys[rows, :, : k.size(2)], values[rows, :, : k.size(2)] = k.type_as(keys), v.type_as(values)
            return k, v

        self.remember = remember
        x = self.model.hidden(ids.to(device), cache=self)
        return self.model.logits(x[torch.arange(len(rows), device=device), ends])

    def step(self, tokens):
        """Add one token to every row; tokens int64 (B,).  Returns the logits (B, V) after it."""
        window = self.model.config.window_size
        if full := self.make_room():
            self.fill(full)
        lengths = [len(ids) for ids in self.contexts]
        longest, equal = max(lengths) + 1, len(set(lengths)) == 1
        positions = torch.tensor(lengths, device=tokens.device)[:, None]  # (B, 1)
        everyone = torch.arange(len(lengths), device=tokens.device)
        mask = None
        if not equal or (window is not None and longest > window):
            distance = positions - torch.arange(longest, device=tokens.device)  # (B, S)
            mask = ((distance >= 0) & (distance < (window or longest)))[:, None, None]

        def remember(keys, values, k, v):
            if equal:
                keys[:, :, lengths[0]], values[:, :, lengths[0]] = k[:, :, 0].type_as(keys), v[:, :, 0].type_as(values)
            else:
                keys[everyone, :, positions[:, 0]] = k[:, :, 0].type_as(keys)
                values[everyone, :, positions[:, 0]] = v[:, :, 0].type_as(values)
            return keys[:, :, :longest], values[:, :, :longest]

        self.remember = remember
        x = self.model.hidden(tokens[:, None], positions[:1] if equal else positions, mask, self)
        for ids, token in zip(self.contexts, tokens.tolist(), strict=True):
            ids.append(token)
        return self.model.logits(x[:, -1])

    def recompute(self, tokens):
        """The same as `step`, with every position computed again."""
        self.make_room()
        for ids, token in zip(self.contexts, tokens.tolist(), strict=True):
            ids.append(token)
        return self.fill(list(range(len(self.contexts))))

    def make_room(self):
        """Leave the rows that are full their newest half; returns which they are."""
        context = self.model.config.max_seq_len
        full = [row for row, ids in enumerate(self.contexts) if len(ids) == context]
        for row in full:
            self.contexts[row] = self.contexts[row][context // 2 :]
        return full

    def take(self, rows):
        """Let row r go on from what row rows[r] held: rows change places, are repeated, or left out."""
        used = max(len(ids) for ids in self.contexts)
        if len(rows) == len(self.contexts):
            self.keys[..., :used, :] = self.keys[:, rows, :, :used]
            self.values[..., :used, :] = self.values[:, rows, :, :used]
        else:
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.contexts = [list(self.contexts[row]) for row in rows]


def penalized(logits, seen, penalty):
    """Make tokens that a text holds less likely (Keskar et al. 2019): logits (B, V), seen bool (B, V) -> (B, V)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def tokens_seen(contexts, size, never, device):
    """Bool (B, V): which tokens each context holds; those of never, special ones, do not count."""
    seen = torch.zeros(len(contexts), size, dtype=torch.bool)
    for row, ids in enumerate(contexts):
        seen[row, ids] = True
    seen[:, never] = False
    return seen.to(device)


def probabilities(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """What a token is drawn from, of logits (B, V): chances float32 (B, K) and the tokens they belong to, int64 (B, K).

    temperature divides the logits; 0 leaves the likeliest token alone.  top_k > 0 leaves the k likeliest tokens
    (Fan et al. 2018), top_p < 1 the fewest likeliest ones that together have at least top_p (Holtzman et al. 2019),
    min_p > 0 those that are at least min_p times as likely as the likeliest (Nguyen et al. 2024), in this order.
    Tokens are in ascending order; None: all V of them.
    """
    size, tokens = logits.size(-1), None
    if temperature == 0:
        tokens = logits.argmax(-1, keepdim=True)
        return torch.ones_like(tokens, dtype=torch.float32), tokens
    if not top_k and top_p >= 1:
        chances = (logits.float() / temperature).softmax(-1)
    else:
        kept, tokens = logits.topk(min(top_k or size, size))  # likeliest first
        chances = (kept.float() / temperature).softmax(-1)
        if top_p < 1:
            chances = chances.masked_fill(chances.cumsum(-1) - chances >= top_p, 0.0)
        tokens, order = tokens.sort(-1)  # two that are almost as likely shall not change places for a rounding
        chances = chances.gather(-1, order)
    if min_p:
        chances = chances.masked_fill(chances < min_p * chances.amax(-1, keepdim=True), 0.0)
    return chances / chances.sum(-1, keepdim=True), tokens


def draw(chances, tokens, uniform):
    """Turn numbers uniform in [0, 1), one a row (B,), into tokens (B,); chances (B, K) and tokens: `probabilities`."""
    cumulative = chances.cumsum(-1)
    total = cumulative[:, -1:]
    below_total = torch.minimum(uniform[:, None] * total, total * (1 - 2**-23))
    drawn = torch.searchsorted(cumulative, below_total, right=True)
    drawn = drawn.clamp(max=cumulative.size(-1) - 1)  # weights can be so large that the chances are NaN
    return (drawn if tokens is None else tokens.gather(-1, drawn))[:, 0]


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


@torch.inference_mode()
def beam_search(
    model, prompts, max_new_tokens, num_beams, *, end=None, banned=(), min_new_tokens=0, repetition_penalty=1.0,
    stopped=None,
):  # fmt: skip
    """The likeliest continuations of prompts that a search with so many beams a prompt finds: lists of new ids.

    A text's score is the sum of the log-probabilities of its tokens, that of its end included (no bonus for length):
    each step keeps the num_beams likeliest beginnings that are not over; a text is found when none of them can become
    likelier than the likeliest that is over.  With as many beams as there are beginnings this is the likeliest of all.
    The other arguments are those of `generate`; the penalty changes what counts as likely.
    """
    check_prompts(model, prompts)
    device, banned = model.tokens.weight.device, list(banned)
    never_early = banned if end is None else [*banned, end]
    cache = Cache(model, prompts)
    logits = cache.fill(list(range(len(prompts))))
    size = logits.size(-1)
    seen = tokens_seen(prompts, size, never_early, device)
    texts, scores = [[[]] for _ in prompts], torch.zeros(len(prompts), 1)  # of the beams; scores (prompts, beams)
    best = [(-math.inf, [])] * len(prompts)  # the likeliest text that is over, of each prompt
    for step in range(max_new_tokens):
        if repetition_penalty != 1:
            logits = penalized(logits, seen, repetition_penalty)
        logits[:, never_early if step < min_new_tokens else banned] = -torch.inf
        longer = scores[..., None] + logits.float().log_softmax(-1).cpu().unflatten(0, scores.shape)
        candidates = longer.flatten(1).topk(min(2 * num_beams, longer[0].numel()))  # one end a beam at most, so enough
        going = []  # of each prompt its beams: score, which beam it was, new token
        for prompt, (values, places) in enumerate(zip(*(part.tolist() for part in candidates), strict=True)):
            beams = []
            for score, (beam, token) in zip(values, (divmod(place, size) for place in places), strict=True):
                ids = [*texts[prompt][beam], token]
                if token == end or (stopped is not None and stopped(ids)):
                    best[prompt] = max(best[prompt], (score, ids))
                elif len(beams) < num_beams and score > best[prompt][0]:  # what is less likely cannot catch up
                    beams.append((score, beam, token))
            going.append(beams + [(-math.inf, 0, places[0] % size)] * (num_beams - len(beams)))
        texts = [
            [[*of_prompt[beam], token] for _, beam, token in beams]
            for of_prompt, beams in zip(texts, going, strict=True)
        ]
        rows = [prompt * scores.size(1) + beam for prompt, beams in enumerate(going) for _, beam, _ in beams]
        tokens = torch.tensor([token for beams in going for _, _, token in beams], device=device)
        scores = torch.tensor([[score for score, _, _ in beams] for beams in going])
        if step + 1 == max_new_tokens or scores.max() == -math.inf:
            break
        cache.take(rows)
        seen = seen[rows].scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens)
    unfinished = [(of_prompt[0].item(), beams[0]) for of_prompt, beams in zip(scores, texts, strict=True)]
    return [max(pair)[1] for pair in zip(best, unfinished, strict=True)]


def check_prompts(model, prompts):
    context, lengths = model.config.max_seq_len, [len(prompt) for prompt in prompts]
    if not all(0 < length <= context for length in lengths):
        raise ValueError(f"a prompt must have 1 to {context} tokens, not {lengths}")

"""The likeliest text."""

import math

import torch

from generation.generate import check_prompts
from generation.kv_cache import Cache
from generation.sampling import penalized, tokens_seen


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

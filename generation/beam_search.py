"""Beam search: look for the most likely text instead of sampling."""

import math
from typing import NamedTuple

import torch

from generation.generate import NO_RULES, Rules, check_prompts
from generation.kv_cache import KVCache
from generation.sampling import Sampling, ban, penalize, tokens_seen
from model import Transformer


class Beam(NamedTuple):
    """The beginning of a text.  score: the sum of its tokens' log-probabilities; ids: its new tokens."""

    score: float
    ids: list[int]
    parent: int = 0  # which of the prompt's beams its last token was added to


@torch.inference_mode()
def beam_search(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, rules: Rules = NO_RULES
) -> list[list[int]]:  # fmt: skip
    """Return the most likely continuations that sampling.num_beams beams per prompt find, as lists of new ids.

    A text's score is the sum of the log-probabilities of its tokens, including its end (no bonus for length).  Each
    step keeps the num_beams most likely beginnings that have not ended.  The search ends when none of them can become
    more likely than the best finished text.  With as many beams as there are beginnings, it finds the most likely text
    of all.  The repetition penalty changes what counts as likely.  Raises ValueError as `generate` does.
    """
    check_prompts(model, prompts)
    device = model.tokens.weight.device
    cache = KVCache(model, prompts)
    logits = cache.fill(list(range(len(prompts))))  # (rows, V): one row per beam, those of a prompt side by side
    seen = tokens_seen(prompts, logits.size(-1), rules.forbidden(may_end=False), device)
    beams = [[Beam(0.0, [])] for _ in prompts]
    best = [Beam(-math.inf, []) for _ in prompts]  # the best finished text of each prompt
    for step in range(sampling.max_new_tokens):
        if sampling.repetition_penalty != 1:
            logits = penalize(logits, seen, sampling.repetition_penalty)
        logits = ban(logits, rules.forbidden(may_end=step >= sampling.min_new_tokens))
        log_probs = logits.float().log_softmax(-1).cpu().unflatten(0, (len(prompts), -1))  # (prompts, beams, V)
        width = log_probs.size(1)  # 1 in the first step
        for prompt in range(len(prompts)):
            longer = likeliest_continuations(beams[prompt], log_probs[prompt], 2 * sampling.num_beams)
            beams[prompt], best[prompt] = select(longer, best[prompt], sampling.num_beams, rules)
        unfinished = [beam for of_prompt in beams for beam in of_prompt]
        if step + 1 == sampling.max_new_tokens or all(beam.score == -math.inf for beam in unfinished):
            break
        rows = [prompt * width + beam.parent for prompt, of_prompt in enumerate(beams) for beam in of_prompt]
        tokens = torch.tensor([beam.ids[-1] for beam in unfinished], device=device)
        cache.take(rows)
        seen = seen[rows].scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens)
    return [max(ended, of_prompt[0]).ids for ended, of_prompt in zip(best, beams, strict=True)]


def likeliest_continuations(beams: list[Beam], log_probs: torch.Tensor, count: int) -> list[Beam]:
    """Return the most likely beams with one more token; log_probs (beams, V): those of a prompt's beams."""
    scores = torch.tensor([beam.score for beam in beams])[:, None] + log_probs
    values, places = scores.flatten().topk(min(count, scores.numel()))
    longer = []
    for score, place in zip(values.tolist(), places.tolist(), strict=True):
        parent, token = divmod(place, log_probs.size(-1))
        longer.append(Beam(score, [*beams[parent].ids, token], parent))
    return longer


def select(longer: list[Beam], best: Beam, num_beams: int, rules: Rules) -> tuple[list[Beam], Beam]:
    """Return (the most likely unfinished beams, the best finished text); longer: beams, the most likely first.

    Each beam can end in one way, with <eos>, so twice as many beams as are kept are enough.  With --stop texts there
    are more ways, and fewer beams may be left.
    """
    kept = []
    for beam in longer:
        if rules.has_ended(beam.ids):
            best = max(best, beam)
        elif len(kept) < num_beams and beam.score > best.score:  # a less likely beam cannot catch up
            kept.append(beam)
    hopeless = Beam(-math.inf, longer[0].ids, longer[0].parent)  # fills the remaining rows
    return kept + [hopeless] * (num_beams - len(kept)), best

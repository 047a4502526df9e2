"""The likeliest text that a search with several beams finds; nothing is drawn."""

import math
from typing import NamedTuple

import torch

from generation.generate import NO_RULES, Rules, check_prompts
from generation.kv_cache import KVCache
from generation.sampling import Sampling, ban, penalize, tokens_seen
from model import Transformer


class Beam(NamedTuple):
    """The beginning of a text.  score: the sum of its tokens' log-probabilities; ids: the new ones."""

    score: float
    ids: list[int]
    parent: int = 0  # which of its prompt's beams it was before its last token


@torch.inference_mode()
def beam_search(
    model: Transformer, prompts: list[list[int]], sampling: Sampling, rules: Rules = NO_RULES
) -> list[list[int]]:  # fmt: skip
    """The likeliest continuations of prompts that sampling.num_beams beams a prompt find: lists of new ids.

    A text's score is the sum of the log-probabilities of its tokens, that of its end included (no bonus for length):
    each step keeps the num_beams likeliest beginnings that have not ended; a text is found when none of them can become
    likelier than the likeliest that has.  With as many beams as there are beginnings this is the likeliest of all.
    The repetition penalty changes what counts as likely.  Raises ValueError as `generate` does.
    """
    check_prompts(model, prompts)
    device = model.tokens.weight.device
    cache = KVCache(model, prompts)
    logits = cache.fill(list(range(len(prompts))))  # (rows, V): a row is a beam, those of a prompt side by side
    seen = tokens_seen(prompts, logits.size(-1), rules.forbidden(may_end=False), device)
    beams = [[Beam(0.0, [])] for _ in prompts]
    best = [Beam(-math.inf, []) for _ in prompts]  # the likeliest text of each prompt that has ended
    for step in range(sampling.max_new_tokens):
        if sampling.repetition_penalty != 1:
            logits = penalize(logits, seen, sampling.repetition_penalty)
        logits = ban(logits, rules.forbidden(may_end=step >= sampling.min_new_tokens))
        chances = logits.float().log_softmax(-1).cpu().unflatten(0, (len(prompts), -1))  # (prompts, beams, V)
        width = chances.size(1)  # 1 in the first step
        for prompt in range(len(prompts)):
            longer = likeliest_continuations(beams[prompt], chances[prompt], 2 * sampling.num_beams)
            beams[prompt], best[prompt] = select(longer, best[prompt], sampling.num_beams, rules)
        going_on = [beam for of_prompt in beams for beam in of_prompt]
        if step + 1 == sampling.max_new_tokens or all(beam.score == -math.inf for beam in going_on):
            break
        rows = [prompt * width + beam.parent for prompt, of_prompt in enumerate(beams) for beam in of_prompt]
        tokens = torch.tensor([beam.ids[-1] for beam in going_on], device=device)
        cache.take(rows)
        seen = seen[rows].scatter_(1, tokens[:, None], True)
        logits = cache.step(tokens)
    return [max(ended, of_prompt[0]).ids for ended, of_prompt in zip(best, beams, strict=True)]


def likeliest_continuations(beams: list[Beam], chances: torch.Tensor, count: int) -> list[Beam]:
    """The likeliest beams with one token more, of a prompt's beams and log-probabilities (beams, V)."""
    scores = torch.tensor([beam.score for beam in beams])[:, None] + chances
    values, places = scores.flatten().topk(min(count, scores.numel()))
    longer = []
    for score, place in zip(values.tolist(), places.tolist(), strict=True):
        parent, token = divmod(place, chances.size(-1))
        longer.append(Beam(score, [*beams[parent].ids, token], parent))
    return longer


def select(longer: list[Beam], best: Beam, num_beams: int, rules: Rules) -> tuple[list[Beam], Beam]:
    """(the likeliest beams that have not ended, the likeliest text that has), of beams from the likeliest on.

    Each beam has at most one end, so that twice as many beams as are kept are enough.
    """
    kept = []
    for beam in longer:
        if rules.has_ended(beam.ids):
            best = max(best, beam)
        elif len(kept) < num_beams and beam.score > best.score:  # what is less likely cannot catch up
            kept.append(beam)
    hopeless = Beam(-math.inf, longer[0].ids, longer[0].parent)  # fills up the rows
    return kept + [hopeless] * (num_beams - len(kept)), best

"""From logits to a token."""

import dataclasses
from dataclasses import dataclass

import torch

from common.errors import UserError
from common.flags import flag

MAX_NEW_TOKENS = 200


@dataclass
class Sampling:
    """How a text is written; each field is a flag of the same name."""

    max_new_tokens: int | None = flag(
        None, f"tokens to write at most (default: {MAX_NEW_TOKENS})", first=True, type=int
    )
    min_new_tokens: int = flag(0, "no end before so many")
    temperature: float = flag(0.8, "below 1 safer, above 1 wilder, 0 always the likeliest token", first=True)
    top_k: int = flag(50, "draw from the k likeliest tokens; 0: all", first=True)
    top_p: float = flag(1.0, "draw from the fewest tokens that together have this probability", first=True)
    min_p: float = flag(0.0, "draw from tokens at least so probable; the likeliest one counts as 1")
    repetition_penalty: float = flag(1.0, "above 1: tokens that the text already has become less likely")
    num_beams: int = flag(1, "above 1: nothing is drawn; the likeliest text that so many beams find")
    stop: list[str] | None = flag(
        None, "end before this text, however early; may be given several times", action="append", metavar="TEXT"
    )
    seed: int = flag(42, "the same seed writes the same")

    def __post_init__(self):
        if self.max_new_tokens is None:
            self.max_new_tokens = max(MAX_NEW_TOKENS, self.min_new_tokens)
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("top_k", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UserError(
                f"--min_new_tokens {self.min_new_tokens} must lie between 0 and the tokens to write at most"
            )
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"--min_p must lie between 0 and 1, not {self.min_p}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(f"--repetition_penalty must be above 0, not {self.repetition_penalty}")
        if self.stop and not all(self.stop):
            raise UserError("--stop must be a text of at least one character")
        given = [item.name for item in dataclasses.fields(self) if getattr(self, item.name) != item.default]
        drawing = [name for name in ("temperature", "top_k", "top_p", "min_p") if name in given]
        if self.num_beams > 1 and drawing:
            raise UserError(f"--num_beams looks for the likeliest text and draws nothing; leave out --{drawing[0]}")


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

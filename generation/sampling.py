"""From logits to a token: penalty, temperature, top-k, top-p, min-p, and the draw.

In reading order: `Sampling`, the flags; then the functions that `generate` applies to the logits of each position, in
this order: `penalize`, `ban`, `probabilities`, `draw`.  B is the number of rows, V the size of the vocabulary, K the
number of tokens that are kept.
"""

import dataclasses
from dataclasses import dataclass

import torch

from common.errors import UserError
from common.flags import flag

MAX_NEW_TOKENS = 300  # most stories end earlier
DRAWING = ("temperature", "top_k", "top_p", "min_p")  # these make no sense without sampling


@dataclass
class Sampling:
    """How text is written; each field is a flag of the same name."""

    max_new_tokens: int | None = flag(
        None, f"write at most this many tokens (default: {MAX_NEW_TOKENS})", first=True, type=int
    )
    min_new_tokens: int = flag(0, "do not end before this many tokens")
    temperature: float = flag(0.8, "below 1 safer, above 1 wilder; 0: always the most likely token", first=True)
    top_k: int = flag(50, "sample from the k most likely tokens; 0: all", first=True)
    top_p: float = flag(1.0, "sample from the fewest tokens with this total probability", first=True)
    min_p: float = flag(0.0, "sample from tokens with at least this share of the highest probability")
    repetition_penalty: float = flag(1.0, "above 1: tokens already in the text become less likely")
    num_beams: int = flag(1, "above 1: search for the most likely text with this many beams")
    stop: list[str] | None = flag(
        None, "end before this text, however early; can be repeated", action="append", metavar="TEXT"
    )
    seed: int = flag(42, "the same seed gives the same text")

    def __post_init__(self):
        if self.max_new_tokens is None:
            self.max_new_tokens = max(MAX_NEW_TOKENS, self.min_new_tokens)
        for name, least in (("max_new_tokens", 1), ("num_beams", 1), ("top_k", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"--{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UserError(
                f"--min_new_tokens {self.min_new_tokens} must be between 0 and the maximum, {self.max_new_tokens}"
            )
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature must be 0 or more, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p must be above 0 and at most 1, not {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"--min_p must be between 0 and 1, not {self.min_p}")
        if not 0 < self.repetition_penalty < float("inf"):
            raise UserError(f"--repetition_penalty must be above 0, not {self.repetition_penalty}")
        if self.stop and not all(self.stop):
            raise UserError("--stop must be a text of at least one character")
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        drawing = [name for name in DRAWING if getattr(self, name) != defaults[name]]
        if self.num_beams > 1 and drawing:
            raise UserError(f"--num_beams searches for the most likely text without sampling; omit --{drawing[0]}")


def tokens_seen(texts: list[list[int]], vocab_size: int, never: list[int], device: torch.device) -> torch.Tensor:
    """Return which tokens are in each text, bool (B, V); never: special tokens, which do not count."""
    seen = torch.zeros(len(texts), vocab_size, dtype=torch.bool)
    for row, ids in enumerate(texts):
        seen[row, ids] = True
    seen[:, never] = False
    return seen.to(device)


def penalize(logits: torch.Tensor, seen: torch.Tensor, penalty: float) -> torch.Tensor:
    """Make tokens already in a text less likely (Keskar et al. 2019): logits (B, V), seen bool (B, V) -> (B, V)."""
    less_likely = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, less_likely, logits)


def ban(logits: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Make tokens impossible, in place: logits (B, V) -> the same."""
    logits[:, tokens] = -torch.inf
    return logits


def probabilities(
    logits: torch.Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits (B, V) into probabilities to sample from, float32 (B, K), and their tokens, int64 (B, K).

    temperature divides the logits; 0 keeps only the most likely token.  Then top_k > 0 keeps the k most likely tokens
    (Fan et al. 2018), top_p < 1 the fewest of them that together have at least this probability (Holtzman et al. 2019),
    and min_p > 0 those at least min_p times as likely as the most likely one (Nguyen et al. 2024).
    Each row's tokens are sorted by their ids.  Without top_k and top_p, all rows have the same tokens, 0 to V - 1, and
    only one row of tokens is returned, int64 (1, V).
    """
    # assignment: sampling, 10 points
    if temperature == 0:
        likeliest = logits.argmax(-1, keepdim=True)
        return torch.ones_like(likeliest, dtype=torch.float32), likeliest
    vocab_size = logits.size(-1)
    if top_k == 0 and top_p == 1:
        tokens = torch.arange(vocab_size, device=logits.device)[None]
        probs = (logits.float() / temperature).softmax(-1)
    else:
        kept, tokens = logits.topk(min(top_k or vocab_size, vocab_size))  # the most likely first
        probs = (kept.float() / temperature).softmax(-1)
        if top_p < 1:
            mass_before = probs.cumsum(-1) - probs  # the total probability of all more likely tokens
            probs = probs.masked_fill(mass_before >= top_p, 0.0)
        # Sorted by id: a rounding error may swap two tokens that are almost equally likely, and this must not change
        # which one `draw` chooses.
        tokens, order = tokens.sort(-1)
        probs = probs.gather(-1, order)
    if min_p:
        probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0.0)
    return probs / probs.sum(-1, keepdim=True), tokens


def draw(probs: torch.Tensor, tokens: torch.Tensor, random_numbers: torch.Tensor) -> torch.Tensor:
    """Choose a token for each row, (B,), with random numbers (B,) in [0, 1); probs, tokens: from `probabilities`.

    Inverse transform sampling: the first token whose cumulative probability is greater than the number.
    """
    # assignment: sampling, 5 points
    cumulative = probs.cumsum(-1)
    total = cumulative[:, -1:]  # 1, up to rounding
    # Stay just below the total: if rounding reached it, no token would be found.
    largest = total * (1 - 2**-23)
    numbers = torch.minimum(random_numbers[:, None] * total, largest)
    place = torch.searchsorted(cumulative, numbers, right=True)
    place = place.clamp(max=cumulative.size(-1) - 1)  # a broken model gives NaN, which has no place
    return tokens.expand(len(place), -1).gather(-1, place)[:, 0]

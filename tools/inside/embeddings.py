"""The vectors of tokens: which ones are close to each other, and a map of the most frequent words."""

import re

import torch
from scoring.measures import STOP_WORDS

from data import Tokenizer

NEIGHBOURS = 10
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "first", "second")
KINDS = ("name or start of a sentence", "number", "small word", "ends in -ed", "ends in -ing", "ends in -s", "other")


def nearest_tokens(vectors: torch.Tensor, tokens: list[int], usable: list[int]) -> dict[int, list[tuple[int, float]]]:
    """Return for each of these tokens the NEIGHBOURS closest of the usable ones, as (token, cosine similarity).

    vectors: the embeddings (V, C).
    """
    unit = torch.nn.functional.normalize(vectors.float(), dim=-1)
    candidates = torch.tensor(usable)
    cosines = unit[tokens] @ unit[candidates].T  # (tokens, usable)
    cosines[torch.tensor(tokens)[:, None] == candidates] = -torch.inf  # not the token itself
    values, places = cosines.topk(min(NEIGHBOURS, len(usable) - 1))
    return {
        token: list(zip(candidates[row].tolist(), value.tolist(), strict=True))
        for token, row, value in zip(tokens, places, values, strict=True)
    }


def principal_components(vectors: torch.Tensor, count: int = 2) -> tuple[torch.Tensor, list[float]]:
    """Return PCA's coordinates (N, count) of vectors (N, C), and the share of the variance that each explains."""
    centred = vectors.float() - vectors.float().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    shares = (s**2 / (s**2).sum()).tolist()
    return u[:, :count] * s[:count], shares[:count]


def is_word(text: str) -> bool:
    """Return whether a token is a whole word with the space before it."""
    return re.fullmatch(r" [A-Za-z]+", text) is not None


def kind_of(word: str) -> str:
    """Return one of KINDS for a word, by its spelling alone."""
    if word[0].isupper():
        return "name or start of a sentence"
    if word in NUMBERS:
        return "number"
    if word in STOP_WORDS:
        return "small word"
    for ending in ("ed", "ing", "s"):
        if word.endswith(ending):
            return f"ends in -{ending}"
    return "other"


def frequent_words(counts: torch.Tensor, tokenizer: Tokenizer, most: int) -> list[int]:
    """Return the most frequent tokens that are words.  counts (V): how often each token occurs."""
    by_frequency = counts.argsort(descending=True, stable=True).tolist()
    words = [token for token in by_frequency if counts[token] and is_word(tokenizer.decode([token]))]
    return words[:most]

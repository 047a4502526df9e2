"""The vectors of tokens: which ones are close to each other, and a map of the most frequent words."""

import re

import torch
from scoring.measures import STOP_WORDS

NEIGHBOURS = 10
ROWS = 1000  # compared with all tokens at a time
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "first", "second")
KINDS = ("name or start of a sentence", "number", "small word", "ends in -ed", "ends in -ing", "ends in -s", "other")


def nearest_tokens(vectors: torch.Tensor, tokens: list[int]) -> dict[int, list[tuple[int, float]]]:
    """Return for each of these tokens the NEIGHBOURS closest of the others, as (token, cosine similarity).

    vectors: the embeddings (V, C).
    """
    unit = torch.nn.functional.normalize(vectors[tokens].float(), dim=-1)
    nearest = {}
    for first in range(0, len(tokens), ROWS):
        rows = tokens[first : first + ROWS]
        cosines = unit[first : first + ROWS] @ unit.T  # (ROWS, tokens)
        cosines[range(len(rows)), range(first, first + len(rows))] = -torch.inf  # not the token itself
        values, places = cosines.topk(min(NEIGHBOURS, len(tokens) - 1))
        for token, row, value in zip(rows, places.tolist(), values.tolist(), strict=True):
            nearest[token] = [(tokens[place], cosine) for place, cosine in zip(row, value, strict=True)]
    return nearest


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

"""Token caches in memory, and what rows make of them."""

import numpy as np
from tiny import SPECIAL

from corpus.token_cache import TokenCache
from data import IGNORED

PAD = SPECIAL["<pad>"]
BOS = SPECIAL["<bos>"]
EOS = SPECIAL["<eos>"]


def cache_of(texts, dtype=np.uint16):
    """A TokenCache in memory; the bytes of its texts are 100, 101, ..."""
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    tokens = np.array([token for text in texts for token in text], dtype=dtype)
    return TokenCache(tokens, starts, np.arange(100, 100 + len(texts)))


def numbered_texts(*lengths):
    """Texts of the given lengths, `<bos>` and `<eos>` included, no other token of which occurs twice."""
    numbers = iter(range(len(SPECIAL), 1 << 20))
    return [[BOS, *(next(numbers) for _ in range(length - 2)), EOS] for length in lengths]


def texts_of(cache):
    return [cache.text(index).tolist() for index in range(len(cache))]


def predicted_of(rows, epoch=0):
    """The tokens that an epoch predicts, in order."""
    _, targets = rows.batch(epoch * rows.per_epoch, rows.per_epoch)
    return targets[targets != IGNORED].tolist()

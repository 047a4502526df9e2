"""Token caches in memory, and the tokens that rows predict."""

import numpy as np
from tiny import SPECIAL

from corpus.token_cache import TokenCache
from data import IGNORED

PAD = SPECIAL["<pad>"]
BOS = SPECIAL["<bos>"]
EOS = SPECIAL["<eos>"]


def cache_of(texts, dtype=np.uint16):
    """Return a TokenCache in memory; the sizes of its texts are set to 100, 101, ... bytes."""
    starts = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    tokens = np.array([token for text in texts for token in text], dtype=dtype)
    return TokenCache(tokens, starts, np.arange(100, 100 + len(texts)))


def numbered_texts(*lengths):
    """Return texts of the given lengths, `<bos>` and `<eos>` included.  No other token occurs twice."""
    numbers = iter(range(len(SPECIAL), 1 << 20))
    return [[BOS, *(next(numbers) for _ in range(length - 2)), EOS] for length in lengths]


def texts_of(cache):
    return [cache.text(index).tolist() for index in range(len(cache))]


def predicted_of(rows, epoch=0):
    """Return the tokens that an epoch predicts, in order."""
    _, targets = rows.batch(epoch * rows.per_epoch, rows.per_epoch)
    return targets[targets != IGNORED].tolist()

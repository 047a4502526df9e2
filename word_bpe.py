"""An older course's tokenizer: a BPE (Sennrich et al. 2016) over the characters of a word, whose end is a symbol.

Its texts are words with white space between them, so line breaks and rows of spaces do not come back, nor does a
character that its training stories did not have: it becomes <unk>.  It is here so that models that were trained with it
can still write and be tuned; `tools/import_model.py` makes its file.
"""

import json
from functools import lru_cache
from types import SimpleNamespace

END = "</w>"  # the symbol after a word's last character
WORDS_KEPT = 1 << 16  # words whose tokens are remembered


class WordBPE:
    """Stands where `data.Tokenizer` has a `tokenizers.Tokenizer`, with the methods that it calls."""

    TYPE = "WordBPE"  # in the tokenizer's JSON

    def __init__(self, vocab, merges):
        """vocab: {token: id}.  merges: pairs of tokens, the first to be merged first.

        Raises ValueError for others.  What merges make need not be a token: then it is unknown.
        """
        ids = list(vocab.values())
        if not ids or not all(type(i) is int and i >= 0 for i in ids) or len(set(ids)) < len(ids):
            raise ValueError("it has no tokens, or two with one id")
        pairs = [tuple(pair) for pair in merges]
        if not all(len(pair) == 2 and all(type(part) is str and part for part in pair) for pair in pairs):
            raise ValueError("a merge is not of two tokens")
        self.vocab, self.special = dict(vocab), set()
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.tokens = {i: token for token, i in vocab.items()}
        self.word_ids = lru_cache(WORDS_KEPT)(self.compute_word_ids)

    def get_vocab(self):
        return dict(self.vocab)

    def token_to_id(self, token):
        return self.vocab.get(token)

    def id_to_token(self, token):
        return self.tokens.get(token)

    def add_special_tokens(self, tokens):
        """Let these be special; those that are not there yet come after the last id."""
        for token in tokens:
            if token not in self.vocab:
                self.vocab[token] = max(self.vocab.values(), default=-1) + 1
                self.tokens[self.vocab[token]] = token
        self.special |= set(tokens)

    def no_padding(self):
        pass

    def no_truncation(self):
        pass

    def to_str(self):
        model = {"type": self.TYPE, "vocab": self.vocab, "merges": sorted(self.ranks, key=self.ranks.get)}
        return json.dumps({"model": model})

    def compute_word_ids(self, word):
        """A word's ids: of the neighbours that can be merged, those that come first in the merges, again and again."""
        symbols = [*word, END]
        while len(symbols) > 1:
            pair = min(zip(symbols, symbols[1:], strict=False), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if pair not in self.ranks:
                break
            merged, place = [], 0
            while place < len(symbols):
                together = tuple(symbols[place : place + 2]) == pair
                merged.append("".join(pair) if together else symbols[place])
                place += 2 if together else 1
            symbols = merged
        return [self.vocab.get(symbol, self.vocab["<unk>"]) for symbol in symbols]

    def encode_batch_fast(self, texts, add_special_tokens=False):
        return [SimpleNamespace(ids=[i for word in text.split() for i in self.word_ids(word)]) for text in texts]

    def decode(self, ids, skip_special_tokens=True):
        """A space before each word: a text goes on from another, whose last word is over."""
        tokens = [token for token in map(self.tokens.get, ids) if token and token not in self.special]
        text = "".join(token.removesuffix(END) + " " if token.endswith(END) else token for token in tokens)
        return " " + text.removesuffix(" ") if text else ""

"""Word swapping: makes dialogues new ones, so that a model that sees few of them learns to copy and not to recite.

Tuned on a few hundred dialogues, a model learns by heart what they are about: asked for a story of a goat, it tells one
of some animal that the dialogues name.  Here a word that both the user and the assistant say is replaced, everywhere in
the dialogue, by one that the foundation model holds for similar (Wang and Yang 2015): then only the question says which
word the answer must have.  Other words stay: what the assistant says alone must fit together.
"""

import re

import numpy as np

from corpus.splits import Mixture
from corpus.token_cache import TokenCache
from data import Tokenizer

NEIGHBOURS = 40  # similar words that may take a word's place, itself among them
COMMON = 0.1  # words in more than this share of the texts hold the sentences together, and stay
WORDS = (r" [a-z]{2,}", r" [A-Z][a-z]+")  # whole words; names stay names


class SimilarWords:
    """Replaces each uncommon word that user and assistant share with a probability, wherever it stands in the dialogue.

    neighbours: {token: array of the tokens that are most similar to it}.  continues: bool (V,), the tokens that
    continue a word, so that the token before is only its beginning, and stays.
    """

    def __init__(self, tokenizer: Tokenizer, cache: TokenCache | Mixture, vectors: np.ndarray, probability: float):
        """cache: the dialogues; vectors float (V, C): a trained model's embeddings."""
        self.probability = probability
        self.user = tokenizer.special["<user>"]
        self.assistant = tokenizer.special["<assistant>"]
        self.system = tokenizer.special["<system>"]
        words = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        self.continues = np.array([word[:1].isalpha() or word[:1] == "'" for word in words])
        texts_with = np.zeros(tokenizer.vocab_size, dtype=np.int64)  # how many texts have each token
        for index in range(len(cache)):
            texts_with[np.unique(cache.text(index))] += 1
        uncommon = texts_with <= COMMON * len(cache)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        self.neighbours = {}
        for pattern in WORDS:
            is_word = np.array([bool(re.fullmatch(pattern, word)) for word in words])
            candidates = np.flatnonzero(is_word & uncommon)
            candidate_vectors = vectors[candidates]
            for token in candidates[texts_with[candidates] > 0]:
                similarity = candidate_vectors @ vectors[token]
                nearest = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
                self.neighbours[int(token)] = candidates[nearest]

    def shared(self, ids: np.ndarray) -> list[int]:
        """The tokens of a dialogue's ids (its length,) that both the user and the assistant say."""
        is_mark = np.isin(ids, (self.user, self.assistant, self.system))
        speakers = np.append(self.system, ids[is_mark])  # of each turn; before the first one nobody speaks
        speaker = speakers[is_mark.cumsum()]  # of each token
        return np.intersect1d(ids[speaker == self.user], ids[speaker == self.assistant]).tolist()

    def swapped(self, ids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """A copy of a dialogue's ids (its length,) with other words."""
        changed = ids.copy()
        is_whole_word = np.append(~self.continues[ids[1:]], True)
        for token in self.shared(ids):
            if token in self.neighbours and generator.random() < self.probability:
                changed[(ids == token) & is_whole_word] = generator.choice(self.neighbours[token])
        return changed

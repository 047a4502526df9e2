"""Word swapping: a small data set of dialogues made to teach copying instead of a list of words.

A model that has seen few dialogues learns by heart what they are about: asked for a story of a goat, it tells one of
some animal that the training dialogues name.  Here a word that comes back in a dialogue is replaced, everywhere in it,
by one that the foundation model holds for similar: the dialogue stays one, but only what stands in the question says
which word the answer must have.  (Augmentation with neighbours in embedding space: Wang and Yang 2015.)
"""

import re

import numpy as np

NEIGHBOURS = 40  # similar words that may take a word's place, itself among them
COMMON = 0.1  # words in more than this share of the texts hold the sentences together, and stay
WORDS = (r" [a-z]{2,}", r" [A-Z][a-z]+")  # whole words; names stay names


class SimilarWords:
    """Replaces words that a text has more than once, each with a probability, in the whole text.

    neighbours: {token: array of the tokens that are most similar to it}.
    """

    def __init__(self, tokenizer, cache, vectors, probability):
        """cache: the texts (`data.TokenCache`); vectors float (V, C): a trained model's embeddings."""
        self.probability, self.neighbours = probability, {}
        texts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
        for index in range(len(cache)):
            texts[np.unique(cache.text(index))] += 1
        words = [tokenizer.decode([token]) for token in range(tokenizer.vocab_size)]
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
        for pattern in WORDS:
            like = [bool(re.fullmatch(pattern, word)) for word in words]
            tokens = np.flatnonzero(np.array(like) & (texts <= COMMON * len(cache)))
            for token in tokens[texts[tokens] > 0]:
                nearest = np.argsort(-(vectors[tokens] @ vectors[token]), kind="stable")[:NEIGHBOURS]
                self.neighbours[int(token)] = tokens[nearest]

    def swapped(self, ids, generator):
        """A copy of a text's ids (its length,) with other words; generator: `numpy.random.Generator`."""
        changed = ids.copy()
        tokens, counts = np.unique(ids, return_counts=True)
        for token in tokens[counts > 1].tolist():
            if token in self.neighbours and generator.random() < self.probability:
                changed[ids == token] = generator.choice(self.neighbours[token])
        return changed

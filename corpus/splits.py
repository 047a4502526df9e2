"""Which texts a run learns from: texts that are set aside for validation, and several data sets as one.

In reading order: `open_text`, from --dataset to both token caches; `split_weight`, which parses one --dataset;
`training_and_validation`, which sets texts aside; `Mixture`, several caches with weights.
"""

import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.console import log
from common.errors import UserError
from corpus.sources import Split, open_dataset
from corpus.token_cache import TokenCache


class SetAside(NamedTuple):
    """How many of the last training texts become the validation split of a data set that has none."""

    share: float
    most: int | None = None  # texts


STORIES_SET_ASIDE = SetAside(0.01)
DIALOGUES_SET_ASIDE = SetAside(0.05, 1000)


def open_text(
    args: Namespace, read: Callable[[Split, int | None], TokenCache], example: str = "sample_data/stories",
    set_aside: SetAside = STORIES_SET_ASIDE,
) -> tuple:  # fmt: skip
    """Return (training, validation) for all of --dataset, each a token cache or a Mixture of them.

    read(split, limit) makes a token cache; example: see `open_dataset`.
    """
    names, weights = names_and_weights(args.dataset)
    streaming = args.max_train_samples is not None
    found = [open_dataset(name, streaming, example) for name in names]
    caches = [
        training_and_validation(splits, read, args.max_train_samples, args.max_eval_samples, set_aside)
        for splits in found
    ]
    if len(names) == 1:
        return caches[0]
    train = Mixture([train for train, _ in caches], weights)
    validation = Mixture([validation for _, validation in caches], weights)  # with the same weights as in training
    for what, mixture in (("an epoch", train), ("validation", validation)):
        counts = zip(mixture.shares, mixture.parts, names, strict=True)
        log.info(f"{what}: " + ", ".join(f"{share:,} of {len(part):,} from {name}" for share, part, name in counts))
    return train, validation


def names_and_weights(datasets: list[str]) -> tuple[list[str], list[float] | None]:
    """Return (names, weights or None) of all of --dataset.

    Raises UserError for a name that is given twice, and if only some names have a weight.
    """
    pairs = [split_weight(text) for text in datasets]
    names = [name for name, _ in pairs]
    weights = [weight for _, weight in pairs]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"--dataset {twice} is given twice; to give it a larger share, give it once, with a weight")
    if None in weights and any(weights):
        bare = names[weights.index(None)]
        raise UserError(f"--dataset {bare} has no weight, but another one has; write {bare}=0.5, or no weights at all")
    return names, None if None in weights else weights


def split_weight(text: str) -> tuple[str, float | None]:
    """Return (name, weight or None) from --dataset NAME or NAME=WEIGHT; an existing path is always a name."""
    name, sign, end = text.rpartition("=")
    if Path(text).exists() or not sign:
        return text, None
    try:
        weight = float(end)
    except ValueError:
        raise UserError(f"--dataset {text}: no such file or folder; {end!r} is not a weight; write NAME=0.5") from None
    if not name or not 0 < weight < math.inf:
        raise UserError(f"--dataset {text}: a weight must be a number above 0, after a name; write NAME=0.5")
    return name, weight


def training_and_validation(
    splits: dict[str, Split], read: Callable[[Split, int | None], TokenCache], max_train: int | None = None,
    max_eval: int | None = None, set_aside: SetAside = STORIES_SET_ASIDE,
) -> tuple[TokenCache, TokenCache]:  # fmt: skip
    """Return the caches of both splits; without a validation split, set aside the last part of the training texts.

    read(split, limit) makes a cache (see `cache_stories`).  max_train, max_eval: the most texts to use.
    """
    train = read(splits["train"], max_train)
    if "validation" in splits:
        return train, read(splits["validation"], max_eval)
    name = splits["train"].name
    held_out = max(1, min(round(len(train) * set_aside.share), set_aside.most or len(train)))
    if held_out == len(train):
        raise UserError(f"{name} has only one text and no validation split; at least two texts are needed")
    log.info(f"{name}: no validation split: the last {held_out:,} of {len(train):,} texts are set aside for validation")
    first = len(train) - held_out
    return train.part(0, first), train.part(first, first + min(held_out, max_eval or held_out))


def validation_texts(
    splits: dict[str, Split], read: Callable[[Split, int | None], TokenCache], max_eval: int | None = None,
    set_aside: SetAside = STORIES_SET_ASIDE,
) -> TokenCache:  # fmt: skip
    """Return the validation part of `training_and_validation`; the training split is read only if it is needed."""
    if "validation" in splits:
        return read(splits["validation"], max_eval)
    _, validation = training_and_validation(splits, read, max_eval=max_eval, set_aside=set_aside)
    return validation


class Mixture:
    """Several TokenCaches as one; with weights, an epoch contains a part of each set's texts.

    A weight gives the share of an epoch's texts that comes from a set.  An epoch is as long as possible without
    repeating a text.  So the set that is the smallest for its weight is used whole in each epoch, and the others are
    spread over several epochs.  parts: the caches.  weights: one per cache; None: an epoch contains all texts.
    shares: how many texts of each set an epoch contains.
    """

    def __init__(self, parts: list[TokenCache], weights: list[float] | None = None):
        self.parts = parts
        self.sizes = np.concatenate([part.sizes for part in parts])
        counts = np.array([len(part) for part in parts])
        self.firsts = np.cumsum([0, *counts])
        if weights is None:
            self.shares = counts
        else:
            relative = np.maximum(np.array(weights) / max(weights), 1e-12)
            most = (counts / relative).min()  # texts for a relative weight of 1, so that every set has enough
            self.shares = np.clip((relative * most).round().astype(int), 1, counts)

    def __len__(self) -> int:
        return len(self.sizes)

    def lengths(self) -> np.ndarray:
        return np.concatenate([part.lengths() for part in self.parts])

    def text(self, index: int) -> np.ndarray:
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return self.parts[number].text(index - self.firsts[number])

    def chosen(self, seed: int, epoch: int) -> np.ndarray:
        """Return the numbers of the texts in an epoch.

        A set that is used whole keeps its own order.  From another set, an epoch gets the next texts in a fixed order
        that depends on the seed; after the last text, the first one follows.
        """
        chosen = []
        for number, (part, first, share) in enumerate(zip(self.parts, self.firsts, self.shares, strict=False)):
            order = np.arange(len(part))
            if share < len(part):
                order = np.random.default_rng([seed, number]).permutation(order)
            start = epoch * share % len(order)
            places = (start + np.arange(share)) % len(order)
            chosen.append(first + order[places])
        return np.concatenate(chosen)

    def fingerprint(self) -> list:
        """Return numbers that are the same for another mixture of the same texts."""
        return [[int(share), *part.fingerprint()] for share, part in zip(self.shares, self.parts, strict=True)]

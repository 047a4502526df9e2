"""Which texts a run learns from: what is set aside for validation, and several data sets as one.

In reading order: `open_text`, from --dataset to both token caches; `split_weight`, what one --dataset says;
`training_and_validation`, what is set aside; `Mixture`, several caches with weights.
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
    """What becomes the validation split of a data set that has none: the last part of the training texts."""

    share: float
    most: int | None = None  # texts


STORIES_SET_ASIDE = SetAside(0.01)
DIALOGUES_SET_ASIDE = SetAside(0.05, 1000)


def open_text(
    args: Namespace, read: Callable[[Split, int | None], TokenCache], example: str = "sample_data/stories",
    set_aside: SetAside = STORIES_SET_ASIDE,
) -> tuple:  # fmt: skip
    """Both splits of all of --dataset, (training, validation), each a token cache or a Mixture of them.

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
    validation = Mixture([validation for _, validation in caches], weights)  # measured as it is trained
    for what, mixture in (("an epoch", train), ("validation", validation)):
        counts = zip(mixture.shares, mixture.parts, names, strict=True)
        log.info(f"{what}: " + ", ".join(f"{share:,} of {len(part):,} from {name}" for share, part, name in counts))
    return train, validation


def names_and_weights(datasets: list[str]) -> tuple[list[str], list[float] | None]:
    """What all of --dataset say.  Raises UserError for a name that comes twice, and where some have no weight."""
    pairs = [split_weight(text) for text in datasets]
    names = [name for name, _ in pairs]
    weights = [weight for _, weight in pairs]
    if len(set(names)) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"--dataset {twice} is given twice; to let it count more, give it once, with a weight")
    if None in weights and any(weights):
        bare = names[weights.index(None)]
        raise UserError(f"--dataset {bare} has no weight, and another one has; write {bare}=0.5, or no weight at all")
    return names, None if None in weights else weights


def split_weight(text: str) -> tuple[str, float | None]:
    """(name, weight or None) of a --dataset NAME or NAME=WEIGHT; a path that exists is a name, whatever it holds."""
    name, sign, end = text.rpartition("=")
    if Path(text).exists() or not sign:
        return text, None
    try:
        weight = float(end)
    except ValueError:
        raise UserError(f"--dataset {text}: no such file or folder, and {end!r} is no weight; write NAME=0.5") from None
    if not name or not 0 < weight < math.inf:
        raise UserError(f"--dataset {text}: a weight must be a number above 0, after a name; write NAME=0.5")
    return name, weight


def training_and_validation(
    splits: dict[str, Split], read: Callable[[Split, int | None], TokenCache], max_train: int | None = None,
    max_eval: int | None = None, set_aside: SetAside = STORIES_SET_ASIDE,
) -> tuple[TokenCache, TokenCache]:  # fmt: skip
    """The caches of both splits; without a validation split, the last part of the training texts is set aside.

    read(split, limit) makes a cache (see `cache_stories`).  max_train, max_eval: at most so many texts.
    """
    train = read(splits["train"], max_train)
    if "validation" in splits:
        return train, read(splits["validation"], max_eval)
    name = splits["train"].name
    held_out = max(1, min(round(len(train) * set_aside.share), set_aside.most or len(train)))
    if held_out == len(train):
        raise UserError(f"{name} has only one text and no validation split; it takes at least two")
    log.info(f"{name}: no validation split: the last {held_out:,} of {len(train):,} texts are set aside for validation")
    first = len(train) - held_out
    return train.part(0, first), train.part(first, first + min(held_out, max_eval or held_out))


class Mixture:
    """Several TokenCaches as one; with weights, an epoch has a part of each set's texts.

    A weight is the share of an epoch's texts that comes from a set.  An epoch is as long as it can be without a text
    coming twice in it: the set that is the smallest for its weight is in each epoch whole, the others are gone through
    over the epochs.  parts: the caches.  weights: one a cache, or None: an epoch has all texts of all.
    shares: how many texts of each set an epoch has.
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
            most = (counts / relative).min()  # texts for a weight of 1 that every set has
            self.shares = np.clip((relative * most).round().astype(int), 1, counts)

    def __len__(self) -> int:
        return len(self.sizes)

    def lengths(self) -> np.ndarray:
        return np.concatenate([part.lengths() for part in self.parts])

    def text(self, index: int) -> np.ndarray:
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return self.parts[number].text(index - self.firsts[number])

    def chosen(self, seed: int, epoch: int) -> np.ndarray:
        """The texts that an epoch has, by number.

        A set that is whole in each epoch keeps its own order.  Of another one, an epoch has the next texts in an order
        that the seed makes once, and after the last text the first one comes again.
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
        """What another mixture of the same texts has in common with this one."""
        return [[int(share), *part.fingerprint()] for share, part in zip(self.shares, self.parts, strict=True)]

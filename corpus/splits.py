"""Which texts a run learns from: the flags for them, what is set aside for validation, and several data sets as one.

In reading order: `add_data_flags`; `weighted`, what --dataset says; `open_text`, from the flags to both token caches;
`Mixture`, several caches with weights.
"""

import math
from pathlib import Path

import numpy as np

from common.console import say
from common.errors import UserError
from corpus.sources import open_dataset

STORIES_SET_ASIDE = 0.01, None  # the share of the training texts, and how many at most
DIALOGUES_SET_ASIDE = 0.05, 1000


def weighted(name):
    """(name, weight or None) of a --dataset NAME or NAME=WEIGHT; a path that exists is a name, whatever it holds."""
    start, sign, end = name.rpartition("=")
    if Path(name).exists() or not sign:
        return name, None
    try:
        weight = float(end)
    except ValueError:
        raise UserError(f"--dataset {name}: no such file or folder, and {end!r} is no weight; write NAME=0.5") from None
    if not start or not 0 < weight < math.inf:
        raise UserError(f"--dataset {name}: a weight must be a number above 0, after a name; write NAME=0.5")
    return start, weight


def open_text(args, read, say=say, example="sample_data/stories", set_aside=STORIES_SET_ASIDE):
    """Both splits of all of --dataset, each a token cache or a Mixture of them.

    read(split, limit) makes a token cache; example: see `open_dataset`; set_aside: see `training_and_validation`.
    """
    names, weights = zip(*map(weighted, args.dataset), strict=True)
    if len({*names}) < len(names):
        twice = max(names, key=names.count)
        raise UserError(f"--dataset {twice} is given twice; to let it count more, give it once, with a weight")
    if None in weights and any(weights):
        bare = names[weights.index(None)]
        raise UserError(f"--dataset {bare} has no weight, and another one has; write {bare}=0.5, or no weight at all")
    limits, streaming = (args.max_train_samples, args.max_eval_samples), args.max_train_samples is not None
    found = [open_dataset(name, streaming, example) for name in names]
    trains, validations = zip(*(training_and_validation(s, read, *limits, set_aside, say) for s in found), strict=True)
    if len(names) == 1:
        return trains[0], validations[0]
    weights = None if None in weights else weights
    train, validation = Mixture(trains, weights), Mixture(validations, weights)  # measured as it is trained
    for what, mixture in (("an epoch", train), ("validation", validation)):
        counts = zip(mixture.shares, mixture.parts, names, strict=True)
        say(f"{what}: " + ", ".join(f"{share:,} of {len(part):,} from {name}" for share, part, name in counts))
    return train, validation


def training_and_validation(splits, read, max_train=None, max_eval=None, set_aside=STORIES_SET_ASIDE, say=say):
    """The caches of both splits; without a validation split, the last part of the training texts is set aside.

    read(split, limit) makes a cache (see `cache_stories`).  max_train, max_eval: at most so many texts.
    set_aside: which share of the training texts, and how many at most.
    """
    train = read(splits["train"], max_train)
    if "validation" in splits:
        return train, read(splits["validation"], max_eval)
    name, (share, most) = splits["train"].name, set_aside
    held_out = max(1, min(round(len(train) * share), most or len(train)))
    if held_out == len(train):
        raise UserError(f"{name} has only one text and no validation split; it takes at least two")
    say(f"{name}: no validation split: the last {held_out:,} of {len(train):,} texts are set aside for validation")
    first = len(train) - held_out
    return train.part(0, first), train.part(first, first + min(held_out, max_eval or held_out))


class Mixture:
    """Several TokenCaches as one; with weights, an epoch has a part of each set's texts.

    A weight is the share of an epoch's texts that comes from a set.  An epoch is as long as it can be without a text
    coming twice in it: the set that is the smallest for its weight is in each epoch whole, the others are gone through
    over the epochs.  parts: the caches.  weights: one a cache, or None: an epoch has all texts of all.
    shares: how many texts of each set an epoch has.
    """

    def __init__(self, parts, weights=None):
        self.parts, counts = parts, np.array([len(part) for part in parts])
        self.firsts = np.cumsum([0, *counts])
        self.sizes = np.concatenate([part.sizes for part in parts])
        weights = counts if weights is None else np.maximum(np.array(weights) / max(weights), 1e-12)
        self.shares = np.clip((weights * (counts / weights).min()).round().astype(int), 1, counts)

    def __len__(self):
        return len(self.sizes)

    def lengths(self):
        return np.concatenate([part.lengths() for part in self.parts])

    def text(self, index):
        number = int(np.searchsorted(self.firsts, index, side="right")) - 1
        return self.parts[number].text(index - self.firsts[number])

    def chosen(self, seed, epoch):
        """The texts that an epoch has, by number: of each set the next ones of a circle in random order."""
        chosen = []
        for number, (part, first, share) in enumerate(zip(self.parts, self.firsts, self.shares, strict=False)):
            circle = np.arange(len(part))
            if share < len(part):
                circle = np.roll(np.random.default_rng([seed, number]).permutation(circle), -epoch * share)
            chosen.append(first + circle[:share])
        return np.concatenate(chosen)

    def fingerprint(self):
        return [[int(share), *part.fingerprint()] for share, part in zip(self.shares, self.parts, strict=True)]

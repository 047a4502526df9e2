"""From text to batches: the tokenizer and its file, the token cache, the rows.

It knows nothing of the network or the training loop, and needs numpy and tokenizers alone.  In reading order:
`Tokenizer`; `cache_stories` and `cache_dialogues`, which turn what `sources.py` and `dialogues.py` read into a
`TokenCache` on disk; `Rows`, which cuts the cache into what the network trains on.
"""

import bisect
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from common.console import say
from common.errors import UserError
from common.files import read_plain_pickle, written_atomically
from common.text import clean, printed
from corpus.dialogues import reply_mask
from corpus.other_tokenizers import BYTE_LEVEL, BYTES, LARGEST_TOKENIZER, WordBPE, byte_level_alone

SPECIAL_TOKENS = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>"]
IGNORED = -100  # a target with this value is not predicted


class Tokenizer:
    """A byte-level BPE (Sennrich et al. 2016, Radford et al. 2019) with the course's seven special tokens.

    Every text comes back from encode and decode unchanged (an older course's `WordBPE` keeps its words alone).  Special
    tokens are put in by name, through `special`; in a text they are plain text, so what a user types can neither end a
    story nor change the speaker.
    never_written: the ids that no text has: those seven, and in one that others made its own special ones.
    """

    def __init__(self, backend):
        missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
        if missing:
            names = " ".join(missing)
            raise UserError(f"the tokenizer lacks the special tokens {names}; step 1's --from_pretrained adds them")
        self.backend = backend
        self.backend.add_special_tokens(SPECIAL_TOKENS)
        self.backend.encode_special_tokens = True
        self.backend.no_padding()
        self.backend.no_truncation()
        self.special = {token: backend.token_to_id(token) for token in SPECIAL_TOKENS}
        vocabulary = backend.get_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > 2 * len(vocabulary):  # each id takes a row of the model's largest matrix
            raise UserError(f"the tokenizer has {len(vocabulary):,} tokens and ids up to {self.vocab_size - 1:,}")
        self.never_written = self.check_texts(vocabulary)
        saved = json.loads(backend.to_str())
        content = [sorted(vocabulary.items()), saved["model"].get("merges", []), SPECIAL_TOKENS]
        cut = saved["model"].get("ignore_merges"), saved.get("pre_tokenizer", BYTE_LEVEL)
        if cut[0] or cut[1] != BYTE_LEVEL:  # the same tokens, and texts cut into them otherwise
            content += cut
        content = json.dumps(content)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()

    def check_texts(self, vocabulary):
        """Raise UserError if a text could be lost, or hold a special token; returns the ids that no text ever has."""
        if isinstance(self.backend, WordBPE):  # it says itself what it loses
            return sorted(self.special.values())
        if len(set(vocabulary.values())) < len(vocabulary):
            raise UserError("the tokenizer has two tokens of one id")
        if not BYTES.keys() <= vocabulary.keys():
            raise UserError("the tokenizer lacks tokens for some of the 256 bytes")
        added = self.backend.get_added_tokens_decoder()
        alone = [self.backend.decode([number], skip_special_tokens=False) for number in added]
        for (number, token), text, ids in zip(added.items(), alone, self.encode_batch(alone), strict=True):
            if token.special and number in ids:
                raise UserError(f"the tokenizer's special token {printed(token.content)} could be typed")
            if not token.special and text != token.content:
                raise UserError(f"the tokenizer's token {printed(token.content)} does not come back as it was")
        unused = set(range(self.vocab_size)).difference(vocabulary.values())
        return sorted(unused.union(number for number, token in added.items() if token.special))

    def encode(self, text):
        """A text's token ids, without special tokens around them."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts):
        """The same for a list of texts, on all cores."""
        encodings = self.backend.encode_batch_fast([clean(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids):
        """The text of ids, special tokens left out."""
        return self.backend.decode(ids, skip_special_tokens=True)

    def bytes_of(self, token):
        """The bytes that an id stands for; a character of several bytes may be spread over several ids."""
        text = self.backend.id_to_token(token)
        return bytes(BYTES[letter] for letter in text) if BYTES.keys() >= set(text) else text.encode()

    def stream(self, ids):
        """Yield text piece by piece while ids arrive; bytes that are not yet a character wait for the next ones."""
        before, waiting = [], []  # the token before says, in an older tokenizer, whether a word begins
        following = lambda: self.decode(before + waiting)[len(self.decode(before)) :]
        special = set(self.special.values())
        for token in ids:
            waiting.append(token)
            text = following()
            if not text.endswith("\ufffd"):
                yield text
                before, waiting = [i for i in waiting if i not in special][-1:] or before, []
        if waiting:
            yield following()

    def save(self, path):
        text, path = self.backend.to_str(), Path(path)
        content = {"format": "tinystories-bpe-tokenizer", "version": 1, "special_tokens": SPECIAL_TOKENS}
        content |= {"tokenizer": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as file:
            pickle.dump(content, file, protocol=4)


def train_tokenizer(texts, vocab_size):
    """Learn a byte-level BPE from an iterator of texts, which is read once and never held as a whole."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(map(clean, texts), trainer)
    return Tokenizer(backend)


def wrap_tokenizer(text, name):
    """A Tokenizer of what `open_pretrained` found: the same ids, and the special tokens that it lacks after the last.

    Raises UserError, with its name, where something else is found or the library would number added tokens anew.
    """
    try:
        content, backend = json.loads(text), tokenizers.Tokenizer.from_str(text)
        numbers = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
        if backend.get_vocab() != numbers:
            raise UserError("its ids do not follow each other, so they would change")
        backend.add_special_tokens(SPECIAL_TOKENS)
        return Tokenizer(backend)
    except Exception as error:  # tokenizers raises plain ones on what does not fit together
        reason = str(error).splitlines()[0][:160]
        raise UserError(f"--from_pretrained {name} cannot be taken over: {reason}") from None


def read_backend(text):
    """What computes the tokens of a tokenizer's JSON.  Raises ValueError for a kind that is not known."""
    content = json.loads(text)
    if content["model"].get("type") == WordBPE.TYPE:
        say("tokenizer: an older course's, of words: line breaks and rows of spaces in a text become one space")
        return WordBPE(content["model"]["vocab"], content["model"]["merges"])
    return tokenizers.Tokenizer.from_str(byte_level_alone(text))


def load_tokenizer(path):
    """Read the file that step 1 wrote, or a `tokenizer.json` that has the seven special tokens; runs no code in it.

    Raises UserError, naming the file, if it is missing, damaged or something else.
    """
    path, advice = Path(path), "train one with train_bpe_tokenizer_hf.py"
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; {advice}, or pass --tokenizer_path")
    if path.stat().st_size > LARGEST_TOKENIZER:
        raise UserError(f"{path} is no tokenizer file: it has {path.stat().st_size / 1e6:,.0f} MB; {advice}")
    content = path.read_bytes()
    try:
        if content[:1] == b"{":
            text = content.decode("utf-8")
        elif content[:1] != pickle.PROTO:
            raise UserError(f"{path} is no tokenizer file; {advice}, or pass --tokenizer_path another")
        else:
            saved = read_plain_pickle(content)
            if not isinstance(saved, dict) or saved.get("format") != "tinystories-bpe-tokenizer":
                raise UserError(f"{path} is not a tokenizer file of this course; {advice}")
            if saved.get("version") != 1:
                raise UserError(
                    f"{path} has version {printed(saved.get('version'))} of the tokenizer format, not 1; {advice}"
                )
            text = saved["tokenizer"]
            if saved.get("sha256", (found := hashlib.sha256(text.encode()).hexdigest())) != found:
                raise UserError(f"{path} is damaged: bytes in it have changed; {advice}")
        return Tokenizer(read_backend(text))
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except Exception as error:  # pickle and tokenizers raise nearly every kind on damaged bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a whole tokenizer file ({reason[:120]}); {advice}") from None


# Rows -----------------------------------------------------------------------------------------------------------------
class Rows:
    """Cuts a TokenCache or Mixture into the rows that the network is trained or evaluated on, epoch after epoch.

    packed: the texts of an epoch run on, one after the other, cut every `length` tokens; nothing is cut away and only
    an epoch's last row is padded.  Otherwise a text a row, padded or cut to `length`.
    seed: shuffle the texts, in each epoch anew; None: file order.
    replies_only: predict only what the assistant says; otherwise every token but `<bos>`.
    per_epoch: the rows of the first epoch, and of each one but where the texts of a Mixture with weights are packed.
    change: a function of a text's ids and a random generator, made of seed, epoch and place, that returns as many ids.
    Rows read the memory-mapped cache, so that an epoch never stands in memory.
    """

    def __init__(self, cache, length, special, packed=True, seed=None, replies_only=False, change=None):
        self.cache, self.length, self.special, self.packed = cache, length, special, packed
        self.seed, self.replies_only, self.change, self.epoch = seed, replies_only, change, None
        self.texts = len(cache.chosen(0, 0))  # in an epoch
        self.begins = [0]  # at which row each epoch begins, as far as it is known
        self.per_epoch = self.rows_before(1)
        self.bytes = int(cache.sizes[cache.chosen(0, 0)].sum())

    def rows_before(self, epoch):
        """How many rows the epochs before this one have together."""
        while len(self.begins) <= epoch:
            if self.packed:
                chosen = self.cache.chosen(self.seed or 0, len(self.begins) - 1)
                count = max(1, -(-(int(self.cache.lengths()[chosen].sum()) - 1) // self.length))
            else:
                count = self.texts
            self.begins.append(self.begins[-1] + count)
        return self.begins[epoch]

    def place(self, index):
        """(epoch, its row) of a row of the endless sequence of epochs."""
        while self.begins[-1] <= index:
            self.rows_before(len(self.begins))
        epoch = bisect.bisect_right(self.begins, index) - 1
        return epoch, index - self.begins[epoch]

    def arrange(self, epoch):
        """Lay out an epoch: `order`, the texts in the order they come; `ends`, where each ends in the packed stream."""
        self.order = self.cache.chosen(self.seed or 0, epoch)
        if self.seed is not None:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(self.order)
        self.ends = self.cache.lengths()[self.order].cumsum()
        self.epoch = epoch

    def text(self, place):
        """(ids, predicted) of the text at a place of the epoch's order, both (its length,)."""
        ids = self.cache.text(self.order[place])
        if self.change is not None:
            ids = self.change(ids, np.random.default_rng([self.seed or 0, self.epoch, place]))
        predicted = reply_mask(ids, self.special) if self.replies_only else ids != self.special["<bos>"]
        return ids, predicted

    def row(self, epoch, index):
        """(ids, predicted) of one row, each (at most length + 1,): inputs are [:-1], targets [1:]."""
        if epoch != self.epoch:
            self.arrange(epoch)
        if not self.packed:
            ids, predicted = self.text(index)
            return ids[: self.length + 1], predicted[: self.length + 1]
        first = index * self.length
        last = min(first + self.length + 1, int(self.ends[-1]))
        place, end = int(np.searchsorted(self.ends, first, side="right")), first
        pieces = []
        while end < last:
            ids, predicted = self.text(place)
            skipped = end - (int(self.ends[place]) - len(ids))
            piece = slice(skipped, skipped + last - end)
            pieces.append((ids[piece], predicted[piece]))
            place, end = place + 1, int(self.ends[place])
        return tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))

    def batch(self, first, count, multiple=1):
        """Rows first, ..., first + count - 1 of the endless sequence of epochs.

        Returns (inputs, targets), int64 (count, width): padding is `<pad>` in the inputs, IGNORED in the targets.
        width: that of the longest row, rounded up to a multiple, but never over `length`.
        """
        rows = [self.row(*self.place(index)) for index in range(first, first + count)]
        longest = max(len(ids) for ids, _ in rows) - 1
        width = min(self.length, -(-longest // multiple) * multiple)
        inputs = np.full((count, width), self.special["<pad>"], dtype=np.int64)
        targets = np.full((count, width), IGNORED, dtype=np.int64)
        for number, (ids, predicted) in enumerate(rows):
            inputs[number, : len(ids) - 1] = ids[:-1]
            targets[number, : len(ids) - 1] = np.where(predicted[1:], ids[1:].astype(np.int64), IGNORED)
        return inputs, targets

"""The tokenizer, and the way from tokens to training rows.

This module knows nothing of the network or the training loop, and does not need torch.  In reading order: `Tokenizer`;
`train_tokenizer`, which learns one; `load_tokenizer`, which reads one from its file; `Rows`, which cuts texts into the
rows that the network trains on.  The texts come from corpus/, and corpus/token_cache.py keeps their tokens on disk.
"""

import bisect
import hashlib
import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from common.console import log
from common.errors import UserError, one_line, reason_of
from common.files import LARGEST_JSON, read_plain_pickle, written_atomically
from common.numbers import ceil_div
from common.text import without_surrogates
from corpus.dialogues import reply_mask
from corpus.other_tokenizers import BYTE_LEVEL, BYTES, WordBPE, byte_level_only
from corpus.splits import Mixture
from corpus.token_cache import TokenCache

SPECIAL_TOKENS = ["<pad>", "<unk>", "<bos>", "<eos>", "<user>", "<assistant>", "<system>"]
IGNORED = -100  # a target with this value is not predicted; model.py has the same value
FORMAT = "tinystories-bpe-tokenizer"


# The tokenizer --------------------------------------------------------------------------------------------------------


class Tokenizer:
    """A byte-level BPE tokenizer (Sennrich et al. 2016, Radford et al. 2019) with the course's seven special tokens.

    A text that is encoded and decoded stays the same (with an older course's `WordBPE`, only its words do).  The
    programs add special tokens by their ids, from `special`.  If a user types the letters of a special token, they are
    plain text.  So a user can neither end a story nor change the speaker.
    never_written: the ids that no text contains: special tokens, also those of somebody else's tokenizer, and unused
    ids.
    """

    def __init__(self, backend: tokenizers.Tokenizer | WordBPE):
        missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
        if missing:
            names = " ".join(missing)
            raise UserError(f"the tokenizer lacks the special tokens {names}; add them with step 1's --from_pretrained")
        self.backend = backend
        self.backend.add_special_tokens(SPECIAL_TOKENS)
        self.backend.encode_special_tokens = True
        self.backend.no_padding()
        self.backend.no_truncation()
        self.special = {token: backend.token_to_id(token) for token in SPECIAL_TOKENS}
        vocabulary = backend.get_vocab()
        self.vocab_size = max(vocabulary.values()) + 1
        if self.vocab_size > 2 * len(vocabulary):  # each id needs a row in the model's largest matrix
            raise UserError(f"the tokenizer has {len(vocabulary):,} tokens, but ids up to {self.vocab_size - 1:,}")
        self.never_written = self.check_texts(vocabulary)
        self.fingerprint = fingerprint_of(backend, vocabulary)

    def check_texts(self, vocabulary: dict[str, int]) -> list[int]:
        """Return the ids that no text contains.

        Raises UserError if a text would change when it is encoded and decoded, or if it could contain a special token.
        """
        if isinstance(self.backend, WordBPE):  # `read_backend` logs what it loses
            return sorted(self.special.values())
        if len(set(vocabulary.values())) < len(vocabulary):
            raise UserError("the tokenizer has two tokens with the same id")
        if not BYTES.keys() <= vocabulary.keys():
            raise UserError("the tokenizer lacks tokens for some of the 256 bytes")
        added = self.backend.get_added_tokens_decoder()
        alone = [self.backend.decode([number], skip_special_tokens=False) for number in added]
        for (number, token), text, ids in zip(added.items(), alone, self.encode_batch(alone), strict=True):
            if token.special and number in ids:
                raise UserError(f"the tokenizer's special token {one_line(token.content)} could be typed by a user")
            if not token.special and text != token.content:
                raise UserError(f"the tokenizer does not decode its token {one_line(token.content)} to the same text")
        unused = set(range(self.vocab_size)).difference(vocabulary.values())
        return sorted(unused.union(number for number, token in added.items() if token.special))

    def encode(self, text: str) -> list[int]:
        """Return a text's token ids, without special tokens around them."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        texts = [without_surrogates(text) for text in texts]
        return [encoding.ids for encoding in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: list[int]) -> str:
        """Return the text of these ids, without special tokens."""
        return self.backend.decode(ids, skip_special_tokens=True)

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes that a token stands for; a character of several bytes may be split over several tokens."""
        text = self.backend.id_to_token(token)
        return bytes(BYTES[letter] for letter in text) if BYTES.keys() >= set(text) else text.encode()

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """Yield the text piece by piece as ids arrive; bytes of an incomplete character wait for the next ids."""
        special = set(self.special.values())
        before = []  # the last token that was yielded; in an older tokenizer it shows whether a new word begins
        waiting = []

        def text_of_waiting():
            return self.decode(before + waiting)[len(self.decode(before)) :]

        for token in ids:
            waiting.append(token)
            text = text_of_waiting()
            if not text.endswith("\ufffd"):
                yield text
                texts = [token for token in waiting if token not in special]
                before = texts[-1:] or before
                waiting = []
        if waiting:
            yield text_of_waiting()

    def save(self, path: str | Path) -> None:
        """Write the file that every later step reads: a pickle of plain types."""
        text = self.backend.to_str()
        content = {
            "format": FORMAT,
            "version": 1,
            "special_tokens": SPECIAL_TOKENS,
            "tokenizer": text,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with written_atomically(path) as file:
            pickle.dump(content, file, protocol=4)


def fingerprint_of(backend: tokenizers.Tokenizer | WordBPE, vocabulary: dict[str, int]) -> str:
    """Return a hash of everything that decides a text's ids: a model works only with its own tokenizer."""
    saved = json.loads(backend.to_str())
    content = [sorted(vocabulary.items()), saved["model"].get("merges", []), SPECIAL_TOKENS]
    ignore_merges = saved["model"].get("ignore_merges")
    pre_tokenizer = saved.get("pre_tokenizer", BYTE_LEVEL)
    if ignore_merges or pre_tokenizer != BYTE_LEVEL:  # other rules may cut texts into these tokens differently
        content += [ignore_merges, pre_tokenizer]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE from an iterator of texts, which is read once and never in memory as a whole."""
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
    backend.train_from_iterator(map(without_surrogates, texts), trainer)
    return Tokenizer(backend)


def wrap_tokenizer(text: str, name: str) -> Tokenizer:
    """Return a Tokenizer from what `open_pretrained` found: same ids, missing special tokens after the last.

    Raises UserError, with the name, if the tokenizer cannot be used or if its ids would change.
    """
    try:
        content = json.loads(text)
        backend = tokenizers.Tokenizer.from_str(text)
        numbers = content["model"]["vocab"] | {token["content"]: token["id"] for token in content["added_tokens"]}
        if backend.get_vocab() != numbers:
            raise UserError("its ids are not consecutive, so they would change")
        backend.add_special_tokens(SPECIAL_TOKENS)
        return Tokenizer(backend)
    except Exception as error:  # tokenizers raises plain Exceptions for parts that do not match
        raise UserError(f"--from_pretrained {name} cannot be used: {reason_of(error)}") from None


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Read the file from step 1, or a `tokenizer.json` that has the seven special tokens; runs no code in it.

    Raises UserError, naming the file, if it is missing, damaged or not a tokenizer.
    """
    path = Path(path)
    advice = "train one with train_bpe_tokenizer_hf.py"
    if path.is_dir():
        raise UserError(f"{path} is a folder; pass the tokenizer file in it with --tokenizer_path")
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; {advice}, or pass --tokenizer_path")
    if path.stat().st_size > LARGEST_JSON:
        raise UserError(f"{path} is not a tokenizer file: it has {path.stat().st_size / 1e6:,.0f} MB; {advice}")
    content = path.read_bytes()
    try:
        if content[:1] == b"{":
            text = content.decode("utf-8")
        elif content[:1] == pickle.PROTO:
            text = text_in_pickle(content, advice)
        else:
            raise UserError(f"{path} is not a tokenizer file; {advice}, or pass --tokenizer_path with another file")
        return Tokenizer(read_backend(text))
    except UserError as error:
        raise UserError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except Exception as error:  # pickle and tokenizers raise nearly every kind of error on damaged bytes
        raise UserError(f"{path} is not a complete tokenizer file ({reason_of(error, 120)}); {advice}") from None


def text_in_pickle(content: bytes, advice: str) -> str:
    """Return the tokenizer's JSON from a file of `Tokenizer.save`.  Raises UserError for anything else."""
    saved = read_plain_pickle(content)
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise UserError(f"it is not a tokenizer file of this course; {advice}")
    if saved.get("version") != 1:
        raise UserError(f"it has version {one_line(saved.get('version'))} of the tokenizer format, not 1; {advice}")
    text = saved["tokenizer"]
    found = hashlib.sha256(text.encode()).hexdigest()
    if saved.get("sha256", found) != found:
        raise UserError(f"it is damaged: bytes in it have changed; {advice}")
    return text


def read_backend(text: str) -> tokenizers.Tokenizer | WordBPE:
    """Return the object that encodes and decodes, from a tokenizer's JSON.  Raises UserError for an unknown kind."""
    content = json.loads(text)
    if content["model"].get("type") == WordBPE.TYPE:
        log.info("tokenizer: an older course's, for words: line breaks and repeated spaces in a text become one space")
        return WordBPE(content["model"]["vocab"], content["model"]["merges"])
    return tokenizers.Tokenizer.from_str(byte_level_only(text))


# Rows -----------------------------------------------------------------------------------------------------------------


class Rows:
    """Cuts texts into the rows that the network is trained or evaluated on, epoch after epoch.

    Packed: the texts of an epoch follow each other and are cut every `length` tokens (here 6).  The last token that a
    row predicts is the first token of the next row.  No token is lost, and only the last row of an epoch is padded:

        texts     <bos> Tom ran . <eos> <bos> Mia sat down and Tom sat down . <eos> <bos> ...
        row 0     <bos> Tom ran . <eos> <bos>  Mia
        row 1                            Mia sat down and Tom sat  down
        row 2                                                      down . <eos> <bos> ...

    Of the 7 tokens of a row, the inputs are the first 6, and the targets the last 6.

    Padded: each row is one text, truncated after `length` + 1 tokens:

        row 0     <bos> Tom ran . <eos> <pad> <pad>
        row 1     <bos> Mia sat down and Tom sat

    The targets <bos> and <pad> are IGNORED.  Tokens are read from the memory-mapped cache, so that an epoch is never in
    memory as a whole.
    """

    def __init__(
        self, cache: TokenCache | Mixture, length: int, special: dict[str, int], packed: bool = True,
        seed: int | None = None, replies_only: bool = False,
    ):  # fmt: skip
        """special: {special token: id}.

        seed: shuffle the texts, in each epoch differently; None: keep the order of the file.
        replies_only: predict only what the assistant says; otherwise every token except `<bos>`.
        """
        self.cache = cache
        self.length = length
        self.special = special
        self.packed = packed
        self.seed = seed
        self.replies_only = replies_only
        first_epoch = cache.chosen(0, 0)
        self.texts = len(first_epoch)  # per epoch
        self.bytes = int(cache.sizes[first_epoch].sum())
        self.epoch = None  # the epoch that `arrange` has prepared
        self.begins = [0]  # the row at which each epoch begins, as far as it is known
        self.per_epoch = self.rows_before(1)  # the same in every epoch, except for a packed, weighted Mixture

    def texts_cut(self) -> int:
        """Return how many texts of the first epoch lose their ends, because their rows are too short for them."""
        if self.packed:
            return 0
        lengths = self.cache.lengths()[self.cache.chosen(0, 0)]
        return int((lengths > self.length + 1).sum())

    def rows_before(self, epoch: int) -> int:
        """Return the number of rows in all epochs before this one."""
        while len(self.begins) <= epoch:
            count = self.texts
            if self.packed and len(self.begins) > 1 and self.texts == len(self.cache):
                count = self.begins[1]  # every epoch has all texts
            elif self.packed:
                chosen = self.cache.chosen(self.seed or 0, len(self.begins) - 1)
                tokens = int(self.cache.lengths()[chosen].sum())
                count = max(1, ceil_div(tokens - 1, self.length))
            self.begins.append(self.begins[-1] + count)
        return self.begins[epoch]

    def place(self, index: int) -> tuple[int, int]:
        """Return (epoch, row of that epoch) for a row of the endless sequence of epochs."""
        while self.begins[-1] <= index:
            self.rows_before(len(self.begins))
        epoch = bisect.bisect_right(self.begins, index) - 1
        return epoch, index - self.begins[epoch]

    def arrange(self, epoch: int) -> None:
        """Prepare an epoch: `order`, its texts in order; `ends`, where each of them ends in the packed stream."""
        self.order = self.cache.chosen(self.seed or 0, epoch)
        if self.seed is not None:
            self.order = np.random.default_rng([self.seed, epoch]).permutation(self.order)
        self.ends = self.cache.lengths()[self.order].cumsum()
        self.epoch = epoch

    def text(self, place: int) -> np.ndarray:
        """Return the ids of the text at a place in the epoch's order."""
        return self.cache.text(self.order[place])

    def targets(self, texts: list[np.ndarray]) -> np.ndarray:
        """Return the ids of these texts, one after the other, int64, with IGNORED where nothing is predicted."""
        ids = np.concatenate(texts).astype(np.int64)
        if self.replies_only:
            predicted = np.concatenate([reply_mask(text, self.special) for text in texts])
        else:
            predicted = ids != self.special["<bos>"]
        return np.where(predicted, ids, IGNORED)

    def rows_of(self, epoch: int, index: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return [(ids, targets), ...] for count rows of an epoch, from row index on; each is (at most length + 1,)."""
        if epoch != self.epoch:
            self.arrange(epoch)
        if not self.packed:
            texts = [self.text(place) for place in range(index, index + count)]
            return [(ids[: self.length + 1], self.targets([ids])[: self.length + 1]) for ids in texts]
        # All rows at once: a call of numpy takes longer than its work on one row.
        first = index * self.length
        last = min(first + count * self.length + 1, int(self.ends[-1]))
        place = int(np.searchsorted(self.ends, first, side="right"))  # the text that contains token `first`
        past = int(np.searchsorted(self.ends, last)) + 1  # the place after the text that contains the last token
        texts = [self.text(number) for number in range(place, past)]
        before = first - (int(self.ends[place]) - len(texts[0]))  # tokens of the first text that belong to earlier rows
        piece = slice(before, before + last - first)
        ids = np.concatenate(texts)[piece]
        targets = self.targets(texts)[piece]
        rows = [slice(start, start + self.length + 1) for start in range(0, count * self.length, self.length)]
        return [(ids[row], targets[row]) for row in rows]

    def batch(self, first: int, count: int, multiple: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return rows first, ..., first + count - 1 of the endless sequence of epochs.

        Returns (inputs, targets), int64 (count, width).  Padding is `<pad>` in the inputs, IGNORED in the targets.
        width: the length of the longest row, rounded up to a multiple of `multiple`, but at most `length`.
        """
        rows = []
        while len(rows) < count:
            epoch, index = self.place(first + len(rows))
            left_in_epoch = self.begins[epoch + 1] - self.begins[epoch] - index
            rows += self.rows_of(epoch, index, min(count - len(rows), left_in_epoch))
        longest = max(len(ids) for ids, _ in rows) - 1
        width = min(self.length, ceil_div(longest, multiple) * multiple)
        inputs = np.full((count, width), self.special["<pad>"], dtype=np.int64)
        targets = np.full((count, width), IGNORED, dtype=np.int64)
        for number, (ids, target) in enumerate(rows):
            inputs[number, : len(ids) - 1] = ids[:-1]
            targets[number, : len(ids) - 1] = target[1:]
        return inputs, targets

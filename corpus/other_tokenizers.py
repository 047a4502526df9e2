"""Tokenizers that others made: where to find them, and which of their parts are accepted.

Everything here is a `tokenizer.json` as a dict or text, and runs no code from strangers.  In reading order:
`open_pretrained`, which finds one (a file, a folder, the hub, tiktoken) and prepares it for the course's special
tokens; `byte_level_only`, which keeps the parts that leave every text unchanged; tiktoken's; `WordBPE`, an older
course's.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.errors import UserError, one_line, reason_of
from common.files import read_json
from corpus.encodings import decoded
from corpus.hub import HUB_SECONDS, hub_files, within

TIKTOKEN = "tiktoken:"
FILES = (["tokenizer.json"], ["vocab.json", "merges.txt"])  # the first list that is complete is used
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
LOSSLESS = ("ByteLevel", "Split", "Digits", "Punctuation")  # steps that cut a text without losing a character

# GPT-2's alphabet: the character that a vocabulary writes for a byte.  Some bytes are their own character, in Latin-1.
VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = {chr(byte): byte for byte in VISIBLE}
BYTES |= {chr(256 + place): byte for place, byte in enumerate(sorted({*range(256)} - {*VISIBLE}))}

ESCAPED = r"\\(?:[pP]\{\^?\w+\}|[dDsSwWnrtz]|\W)"
CLASS = r"\[(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\])*\])*\]"  # a class may contain another one
REPEATED = re.compile(r"[)}][*+{]")  # as in (a+)+ and a{1,30}+, whose search can take forever
COMMENT = re.compile(r"\(\?#|\(\?[a-z-]*x|\\[cCM]")  # also the flag x and control characters: [ in these opens no class


class NotTaken(UserError):
    """Raised for a tokenizer of another kind; the message gives the reason."""

    def __init__(self, reason: str):
        super().__init__(f"it cannot be used: {reason}")


# Where one is found ---------------------------------------------------------------------------------------------------


def open_pretrained(name: str) -> tuple[str, list[str]]:
    """Return (JSON text, remarks on what was left out) of an existing byte-level BPE; its ids stay the same.

    name: a `tokenizer.json`; a folder that contains one, or `vocab.json` and `merges.txt`; a model on the hub; or
    `tiktoken:` and an encoding.  Raises UserError if there is none, or if it cannot be used.
    """
    try:
        content = find_tokenizer(name)
    except UserError as error:
        raise UserError(str(error) if name in str(error) else f"--from_pretrained {name}: {error}") from None
    remarks = []
    try:
        if (content.get("normalizer") or {}).get("type") == "NFC":
            content["normalizer"] = None
            remarks.append("its normalizer (NFC), so that texts stay unchanged")
        around = content.get("post_processor") or {}
        around = [part["type"] for part in around.get("processors", [around]) if part and part["type"] != "ByteLevel"]
        if around:
            remarks.append(f"what its post-processor ({', '.join(around)}) adds around a text")
        fill_gaps(content)
        return byte_level_only(json.dumps(content)), remarks
    except UserError as error:
        raise UserError(f"--from_pretrained {name}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {reason_of(error, 80)}"
        raise UserError(f"--from_pretrained {name} is not a complete tokenizer.json ({reason})") from None


def find_tokenizer(name: str) -> dict:
    """Return the `tokenizer.json` that a name stands for."""
    path = Path(name)
    if name.startswith(TIKTOKEN):
        return from_tiktoken(tiktoken_encoding(name.removeprefix(TIKTOKEN)))
    if path.is_file():
        return read_json(path)
    if path.is_dir():
        return from_folder(path)
    if path.suffix == ".json" or path.is_absolute() or len(path.parts) > 2 or "\\" in name:
        raise UserError("there is no such file or folder")
    advice = "to work without the hub: --from_pretrained FOLDER, with its tokenizer.json in that folder"
    return from_files(hub_files(name, FILES, advice))


def from_folder(folder: Path) -> dict:
    """Return the tokenizer in a folder.  Raises UserError if there is none."""
    for names in FILES:
        if all((folder / name).is_file() for name in names):
            return from_files([folder / name for name in names])
    raise UserError("the folder has neither a tokenizer.json nor a vocab.json with its merges.txt")


def from_files(paths: list[Path]) -> dict:
    """Return the tokenizer in these files: a `tokenizer.json`, or `vocab.json` and `merges.txt`."""
    content = read_json(paths[0])
    return content if len(paths) == 1 else from_vocabulary(content, paths[1])


def from_vocabulary(vocabulary: dict[str, int], merges_path: Path) -> dict:
    """Make a tokenizer of GPT-2's two files; a token that is not a byte and has no merge is a special token."""
    if any(token.endswith("</w>") for token in vocabulary):
        raise NotTaken("it is not a byte-level BPE (its words end in </w>)")
    text = decoded(merges_path.read_bytes(), merges_path)
    lines = text.split("\n")  # a token may contain other line ends
    merges = [line.removesuffix("\r").split(" ") for line in lines if line.strip() and line[:8] != "#version"]
    made = {"".join(pair) for pair in merges}
    special = {token: number for token, number in vocabulary.items() if token not in made and token not in BYTES}
    return byte_level(vocabulary, merges, special, BYTE_LEVEL)


def byte_level(vocabulary: dict[str, int], merges: list, special: dict[str, int], pre_tokenizer: dict) -> dict:
    """Return a byte-level BPE as a `tokenizer.json`; vocabulary and special: {token: id}."""
    return {
        "added_tokens": [special_token(token, number) for token, number in special.items()],
        "pre_tokenizer": pre_tokenizer,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary | special, "merges": merges},
    }


def special_token(token: str, number: int) -> dict:
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": True} | plain


def fill_gaps(content: dict) -> None:
    """Add unused special tokens for ids without a token: the library numbers added tokens without gaps."""
    vocabulary = content["model"]["vocab"]
    added = content.setdefault("added_tokens", [])
    used = {*vocabulary.values(), *(token["id"] for token in added)}
    if max(used) >= 2 * len(used):  # each id needs a row in the model's largest matrix
        raise UserError(f"it has {len(used):,} tokens, but ids up to {max(used):,}")
    gaps = {*range(max(used))} - used
    if gaps:
        added.extend(special_token(f"<unused {number}>", number) for number in sorted(gaps))
        vocabulary |= {token["content"]: token["id"] for token in added}


# What is accepted -----------------------------------------------------------------------------------------------------


def byte_level_only(text: str) -> str:
    """Return a tokenizer's JSON with only what a byte-level BPE needs.  Raises UserError for another kind of tokenizer.

    Other parts would change texts, and some invalid parts would crash the library.
    """
    content = json.loads(text)
    model = content["model"]
    normalizer = content.get("normalizer")
    decoder = content.get("decoder")
    if model.get("type") != "BPE":
        raise NotTaken(f"its model is {one_line(model.get('type'))}, not a byte-level BPE")
    if normalizer:
        raise NotTaken(f"its normalizer ({one_line(normalizer.get('type'))}) changes texts")
    if not decoder or decoder["type"] != "ByteLevel":
        kind = one_line(decoder["type"]) if decoder else "missing"
        raise NotTaken(f"it is not a byte-level BPE (its decoder: {kind})")
    if any(model.get(name) for name in ("byte_fallback", "end_of_word_suffix")):
        raise NotTaken("it is not a byte-level BPE (its tokens are characters)")
    for token in content.get("added_tokens", []):
        if not token.get("special") and (token.get("lstrip") or token.get("rstrip")):
            raise NotTaken(f"its token {one_line(token['content'])} removes spaces")
    kept = {name: content[name] for name in ("version", "added_tokens") if name in content}
    names = ("type", "vocab", "merges", "ignore_merges")
    kept["model"] = {name: model[name] for name in names if name in model}
    kept["pre_tokenizer"] = checked_pre_tokenizer(content.get("pre_tokenizer"))
    kept["decoder"] = BYTE_LEVEL
    return json.dumps(kept)


def checked_pre_tokenizer(part: dict | None) -> dict:
    """Return the steps that cut a text before the merges: none loses a character, one turns text into bytes."""
    if not part:
        steps = []
    elif part["type"] == "Sequence":
        steps = part["pretokenizers"]
        part = {"type": "Sequence", "pretokenizers": steps}
    else:
        steps = [part]
    kinds = [step["type"] for step in steps]
    if kinds.count("ByteLevel") != 1:
        raise NotTaken(f"it is not a byte-level BPE (its pre-tokenizer: {one_line(', '.join(kinds))})")
    for step in steps:
        kind = step["type"]
        if kind not in LOSSLESS or step.get("behavior") == "Removed":
            raise NotTaken(f"its pre-tokenizer ({one_line(kind)}) changes texts")
        if kind == "ByteLevel" and step.get("add_prefix_space", True):
            raise NotTaken("it adds a space before each text (add_prefix_space)")
        expression = step.get("pattern", {}).get("Regex", "")
        shown = one_line(expression)
        if len(expression) > 2000:
            raise NotTaken(f"its regular expression {shown} is longer than 2,000 characters")
        bare = re.sub(rf"{ESCAPED}|{CLASS}", "x", expression)
        if REPEATED.search(bare) or COMMENT.search(bare):
            raise NotTaken(f"its regular expression {shown} repeats a group or has a comment: it may search forever")
    return part


# tiktoken -------------------------------------------------------------------------------------------------------------


def tiktoken_encoding(name: str) -> Any:
    """Return the `tiktoken.Encoding` with this name.  Raises UserError if there is none."""
    try:
        import tiktoken
    except ImportError:
        raise UserError(f'{TIKTOKEN}{name} needs the package tiktoken: pip install -e ".[tiktoken]"') from None
    if name not in tiktoken.list_encoding_names():
        raise UserError(f"tiktoken has no encoding {name}, only {', '.join(tiktoken.list_encoding_names())}")
    try:
        return within(3 * HUB_SECONDS, tiktoken.get_encoding, name)  # some megabytes
    except Exception as error:  # the network, the disk: each library raises its own kinds of errors
        reason = f"{type(error).__name__}: {reason_of(error)}"
        advice = "tiktoken looks for earlier downloads in the folder TIKTOKEN_CACHE_DIR"
        raise UserError(f"could not download {TIKTOKEN}{name} ({reason}); {advice}") from None


def from_tiktoken(encoding) -> dict:
    """Return a tokenizer that gives the same ids as a `tiktoken.Encoding`.

    tiktoken knows only the ranks of tokens.  A token's merge joins the two parts that the merges of lower ranks leave
    of its bytes.  If they leave more than two (in OpenAI's encodings this is not known to happen), the token is found
    only as a whole word.
    """
    ranks = encoding._mergeable_ranks
    letters = {byte: letter for letter, byte in BYTES.items()}

    def written(token):
        return "".join(letters[byte] for byte in token)

    longer = [token for token in sorted(ranks, key=ranks.get) if len(token) > 1]
    parts = [merged(token, ranks) for token in longer]
    merges = [[written(part) for part in pair] for pair in parts if len(pair) == 2]
    pattern = {"Regex": for_oniguruma(encoding._pat_str)}
    split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL | {"use_regex": False}]}
    vocabulary = {written(token): number for token, number in ranks.items()}
    content = byte_level(vocabulary, merges, encoding._special_tokens, steps)
    content["model"]["ignore_merges"] = len(merges) < len(longer)
    return content


def merged(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Return the parts of a token's bytes after all merges of lower ranks than its own."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while True:
        joined = [ranks.get(one + other, ranks[token]) for one, other in zip(parts, parts[1:], strict=False)]
        lowest = min(joined, default=ranks[token])
        if lowest >= ranks[token]:
            return parts
        place = joined.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def for_oniguruma(expression: str) -> str:
    """Translate a regular expression from tiktoken to the syntax of the library's engine.

    In that engine `x{1,3}+` would repeat the repetition, but tiktoken means that the repetition gives nothing back.
    And `$` would match at the end of each line.
    """
    own = rf"(?P<twice>(?:{ESCAPED}|{CLASS}|[^\\\[])\{{\d+(?:,\d*)?\}})\+|(?P<end>\$)|{ESCAPED}|{CLASS}"

    def translated(found):
        if found["twice"]:
            return f"(?>{found['twice']})"
        return r"\z" if found["end"] else found[0]

    return re.sub(own, translated, expression)


# An older course's ----------------------------------------------------------------------------------------------------


class WordBPE:
    """A BPE (Sennrich et al. 2016) over the characters of a word; a symbol marks the end of the word.

    Its texts are words with white space between them.  So line breaks and repeated spaces are lost, and a character
    that was not in its training stories becomes <unk>.  It is here so that models that were trained with it can still
    write and be fine-tuned; `tools/import_model.py` makes its file.  In `data.Tokenizer` it replaces a
    `tokenizers.Tokenizer`, and has the methods that are called there.
    """

    TYPE = "WordBPE"  # in the tokenizer's JSON
    END = "</w>"  # the symbol after a word's last character
    WORDS_KEPT = 1 << 16  # words whose ids are remembered

    def __init__(self, vocab: dict[str, int], merges: list):
        """vocab: {token: id}.  merges: pairs of tokens, the first to be merged first.

        Raises ValueError for anything else.  The result of a merge may be missing in vocab: then it is <unk>.
        """
        ids = list(vocab.values())
        if not ids or not all(type(i) is int and i >= 0 for i in ids) or len(set(ids)) < len(ids):
            raise ValueError("it has no tokens, or two with the same id")
        pairs = [tuple(pair) for pair in merges]
        if not all(len(pair) == 2 and all(type(part) is str and part for part in pair) for pair in pairs):
            raise ValueError("a merge is not a pair of tokens")
        self.vocab = dict(vocab)
        self.tokens = {i: token for token, i in vocab.items()}
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.special = set()
        self.word_ids: Callable[[str], list[int]] = lru_cache(self.WORDS_KEPT)(self.compute_word_ids)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.vocab)

    def token_to_id(self, token: str) -> int | None:
        return self.vocab.get(token)

    def id_to_token(self, token: int) -> str | None:
        return self.tokens.get(token)

    def add_special_tokens(self, tokens: list[str]) -> None:
        """Make these tokens special; those that are missing get ids after the last one."""
        for token in tokens:
            if token not in self.vocab:
                self.vocab[token] = max(self.vocab.values(), default=-1) + 1
                self.tokens[self.vocab[token]] = token
        self.special |= set(tokens)

    def no_padding(self) -> None:
        """Do nothing: it never pads."""

    def no_truncation(self) -> None:
        """Do nothing: it never truncates."""

    def to_str(self) -> str:
        model = {"type": self.TYPE, "vocab": self.vocab, "merges": sorted(self.ranks, key=self.ranks.get)}
        return json.dumps({"model": model})

    def compute_word_ids(self, word: str) -> list[int]:
        """Return a word's ids: again and again, merge the neighbours that come first in the merges."""
        symbols = [*word, self.END]
        while len(symbols) > 1:
            pair = min(zip(symbols, symbols[1:], strict=False), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if pair not in self.ranks:
                break
            symbols = merge_pair(symbols, pair)
        return [self.vocab.get(symbol, self.vocab["<unk>"]) for symbol in symbols]

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool = False) -> list[SimpleNamespace]:
        return [SimpleNamespace(ids=[i for word in text.split() for i in self.word_ids(word)]) for text in texts]

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Return the text of ids, with a space before each word: the text before it ends with a complete word."""
        tokens = [token for token in map(self.tokens.get, ids) if token and token not in self.special]
        text = "".join(token.removesuffix(self.END) + " " if token.endswith(self.END) else token for token in tokens)
        return " " + text.removesuffix(" ") if text else ""


def merge_pair(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Join each occurrence of a pair of neighbours, from left to right."""
    joined = []
    place = 0
    while place < len(symbols):
        if tuple(symbols[place : place + 2]) == pair:
            joined.append("".join(pair))
            place += 2
        else:
            joined.append(symbols[place])
            place += 1
    return joined

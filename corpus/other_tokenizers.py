"""Tokenizers that others made: where they are found, and what of one is let in.

Everything here is a `tokenizer.json` as a dict or text, and runs no code of a stranger's.  In reading order:
`byte_level_alone`, which leaves of it what brings every text back unchanged; `open_pretrained`, which finds one (a
file, a folder, the hub, tiktoken) and makes it ready for the course's special tokens.
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

from common.errors import UserError
from common.text import printed
from corpus.sources import HUB_SECONDS, decoded, hub_files, parsed, within

LARGEST_TOKENIZER = 100 << 20  # bytes of a file
TIKTOKEN = "tiktoken:"
VISIBLE = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves in Latin-1
BYTES = {chr(byte): byte for byte in VISIBLE}  # GPT-2's alphabet: the character that a vocabulary writes for a byte
BYTES |= {chr(256 + place): byte for place, byte in enumerate(sorted({*range(256)} - {*VISIBLE}))}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
ESCAPED = r"\\(?:[pP]\{\^?\w+\}|[dDsSwWnrtz]|\W)"
CLASS = r"\[(?:\\.|[^\[\]\\]|\[(?:\\.|[^\[\]\\])*\])*\]"  # one may stand in another
REPEATED = r"(?:[*+?]\+?|\{\d{1,2}(?:,\d{0,2})?\})?"
GROUPS = r"\((?:\?(?:i?:|[!=>]))?|\)\??"
EXPRESSION = re.compile(rf"(?:(?:{ESCAPED}|{CLASS}|[^\\\[\](){{}}*+?]){REPEATED}|{GROUPS})*", re.DOTALL)


# What is let in -------------------------------------------------------------------------------------------------------
def byte_level_alone(text):
    """A tokenizer's JSON, less what a byte-level BPE has no use for.  Raises UserError for another kind of tokenizer.

    Other parts would change texts, and the library ends in a panic of its own over some that a stranger could write.
    """
    content = json.loads(text)
    model, normalizer, decoder = content["model"], content.get("normalizer"), content.get("decoder")
    if model.get("type") != "BPE":
        raise UserError(f"it cannot be taken over: its model is {printed(model.get('type'))}, not a byte-level BPE")
    if normalizer:
        raise UserError(f"it cannot be taken over: its normalizer ({printed(normalizer.get('type'))}) changes texts")
    if not decoder or decoder["type"] != "ByteLevel":
        kind = printed(decoder["type"]) if decoder else "missing"
        raise UserError(f"it cannot be taken over: it is no byte-level BPE (its decoder: {kind})")
    if any(model.get(name) for name in ("byte_fallback", "end_of_word_suffix")):
        raise UserError("it cannot be taken over: it is no byte-level BPE (its tokens are characters)")
    for token in content.get("added_tokens", []):
        if not token.get("special") and (token.get("lstrip") or token.get("rstrip")):
            raise UserError(f"it cannot be taken over: its token {printed(token['content'])} takes away spaces")
    names = ("type", "vocab", "merges", "ignore_merges")
    kept = {"model": {name: model[name] for name in names if name in model}, "decoder": BYTE_LEVEL}
    kept |= {name: content[name] for name in ("version", "added_tokens") if name in content}
    return json.dumps(kept | {"pre_tokenizer": pre_tokenizer_alone(content.get("pre_tokenizer"))})


def pre_tokenizer_alone(part):
    """The steps that cut a text before the merges: ones that lose no character, and one that turns it into bytes."""
    steps = part["pretokenizers"] if part and part["type"] == "Sequence" else [part] if part else []
    kinds = [step["type"] for step in steps]
    if kinds.count("ByteLevel") != 1:
        raise UserError(
            f"it cannot be taken over: it is no byte-level BPE (its pre-tokenizer: {printed(', '.join(kinds))})"
        )
    for step in steps:
        kind, behavior = step["type"], step.get("behavior")
        if kind not in ("ByteLevel", "Split", "Digits", "Punctuation") or behavior == "Removed":
            raise UserError(f"it cannot be taken over: its pre-tokenizer ({printed(kind)}) changes texts")
        if kind == "ByteLevel" and step.get("add_prefix_space", True):
            raise UserError("it cannot be taken over: it puts a space before each text (add_prefix_space)")
        expression = step.get("pattern", {}).get("Regex")
        if expression is not None and not ends_soon(expression):
            raise UserError(f"it cannot be taken over: its expression {printed(expression)} may search for ever")
    return {"type": "Sequence", "pretokenizers": steps} if part["type"] == "Sequence" else part


def ends_soon(expression):
    """Whether a regular expression's search takes a time that hardly grows faster than the text.

    No group is repeated, nothing is repeated twice, and no alternative repeats more than two things without a limit.
    """
    bare = re.sub(rf"{ESCAPED}|{CLASS}", "x", expression)
    endless = max(len(re.findall(r"[*+]\+?|,\}", part)) for part in bare.split("|"))
    return len(expression) <= 2000 and EXPRESSION.fullmatch(expression) is not None and endless <= 2


# Where one is found ---------------------------------------------------------------------------------------------------
def open_pretrained(name):
    """(JSON text, remarks on what was left out) of an existing byte-level BPE, its ids as they were.

    name: a `tokenizer.json`, a folder that holds one, or `vocab.json` and `merges.txt`; a model of the hub; or
    `tiktoken:` and an encoding.  Raises UserError where there is none, or one that cannot be taken over.
    """
    try:
        content, remarks = found(name), []
    except UserError as error:
        raise UserError(str(error) if name in str(error) else f"--from_pretrained {name}: {error}") from None
    try:
        if (content.get("normalizer") or {}).get("type") == "NFC":
            content["normalizer"] = None
            remarks.append("its normalizer (NFC), so that every text stays as it is")
        around = content.get("post_processor") or {}
        around = [part["type"] for part in around.get("processors", [around]) if part and part["type"] != "ByteLevel"]
        if around:
            remarks.append(f"what its post-processor ({', '.join(around)}) puts around a text")
        fill_holes(content)
        return byte_level_alone(json.dumps(content)), remarks
    except UserError as error:
        raise UserError(f"--from_pretrained {name}: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"[:100]
        raise UserError(f"--from_pretrained {name} is no whole tokenizer.json ({reason})") from None


def found(name):
    """The `tokenizer.json` that a name stands for, as a dict."""
    path = Path(name)
    if name.startswith(TIKTOKEN):
        return from_tiktoken(tiktoken_encoding(name.removeprefix(TIKTOKEN)))
    if path.is_file():
        return read_json(path)
    if path.is_dir():
        return from_folder(path)
    if path.suffix == ".json" or path.is_absolute() or len(path.parts) > 2 or "\\" in name:
        raise UserError("there is no such file or folder")
    advice = "to go on without it: --from_pretrained FOLDER, one that holds its tokenizer.json"
    return from_files(hub_files(name, [["tokenizer.json"], ["vocab.json", "merges.txt"]], advice))


def read_json(path):
    """The object that a file holds."""
    if path.stat().st_size > LARGEST_TOKENIZER:
        raise UserError(f"{path} is no tokenizer file: it has {path.stat().st_size / 1e6:,.0f} MB")
    content = path.read_bytes()
    if content.lstrip()[:1] != b"{":
        raise UserError(f"{path} is no tokenizer.json")
    return parsed(decoded(content, path, "take a whole one"), path, "take a whole one")


def from_folder(folder):
    for names in (["tokenizer.json"], ["vocab.json", "merges.txt"]):
        if all((folder / name).is_file() for name in names):
            return from_files([folder / name for name in names])
    raise UserError("the folder has neither a tokenizer.json nor a vocab.json with its merges.txt")


def from_files(paths):
    """paths: that of a `tokenizer.json`, or those of `vocab.json` and `merges.txt`."""
    return read_json(paths[0]) if len(paths) == 1 else from_vocabulary(read_json(paths[0]), paths[1])


def from_vocabulary(vocabulary, merges_path):
    """GPT-2's two files as a tokenizer; what no merge makes and is no byte is a special token there."""
    if any(token.endswith("</w>") for token in vocabulary):
        raise UserError("it cannot be taken over: it is no byte-level BPE (its words end in </w>)")
    lines = decoded(merges_path.read_bytes(), merges_path, "take a whole one").split(
        "\n"
    )  # a token may hold other ends of lines
    merges = [line.removesuffix("\r").split(" ") for line in lines if line.strip() and line[:8] != "#version"]
    made = {"".join(pair) for pair in merges}
    special = {token: number for token, number in vocabulary.items() if token not in made and token not in BYTES}
    return byte_level(vocabulary, merges, special, BYTE_LEVEL)


def byte_level(vocabulary, merges, special, pre_tokenizer):
    """A byte-level BPE as a `tokenizer.json`; vocabulary and special: {token: id}."""
    return {
        "added_tokens": [special_token(token, number) for token, number in special.items()],
        "pre_tokenizer": pre_tokenizer,
        "decoder": BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary | special, "merges": merges},
    }


def special_token(token, number):
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": token, "special": True} | plain


def fill_holes(content):
    """Give ids that no token has to special tokens that nothing uses: the library numbers added tokens without gaps."""
    vocabulary, added = content["model"]["vocab"], content.setdefault("added_tokens", [])
    used = {*vocabulary.values(), *(token["id"] for token in added)}
    if max(used) >= 2 * len(used):  # each id takes a row of the model's largest matrix
        raise UserError(f"it has {len(used):,} tokens and ids up to {max(used):,}")
    if holes := {*range(max(used))} - used:
        added.extend(special_token(f"<unused {number}>", number) for number in sorted(holes))
        vocabulary |= {token["content"]: token["id"] for token in added}


# tiktoken -------------------------------------------------------------------------------------------------------------
def tiktoken_encoding(name):
    try:
        import tiktoken
    except ImportError:
        raise UserError(f'{TIKTOKEN}{name} needs the package tiktoken: pip install -e ".[tiktoken]"') from None
    if name not in tiktoken.list_encoding_names():
        raise UserError(f"tiktoken has no encoding {name}, only {', '.join(tiktoken.list_encoding_names())}")
    try:
        return within(3 * HUB_SECONDS, tiktoken.get_encoding, name)  # some megabytes
    except Exception as error:  # the network, the disk: each library below raises its own kinds
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:160]
        advice = "tiktoken keeps what it once downloaded where TIKTOKEN_CACHE_DIR says"
        raise UserError(f"could not download {TIKTOKEN}{name} ({reason}); {advice}") from None


def from_tiktoken(encoding):
    """A `tiktoken.Encoding` as a tokenizer that gives the same ids.

    tiktoken knows the ranks of tokens only; a token's merge is that of the two parts into which the lower ranks merge
    its bytes.  One that they leave in more parts (none in OpenAI's encodings is known) is found only as a whole word.
    """
    ranks, letters = encoding._mergeable_ranks, {byte: letter for letter, byte in BYTES.items()}
    written = lambda token: "".join(letters[byte] for byte in token)
    longer = [token for token in sorted(ranks, key=ranks.get) if len(token) > 1]
    parts = [merged(token, ranks) for token in longer]
    merges = [[written(part) for part in pair] for pair in parts if len(pair) == 2]
    split = {"type": "Split", "pattern": {"Regex": for_oniguruma(encoding._pat_str)}}
    steps = [split | {"behavior": "Isolated", "invert": False}, BYTE_LEVEL | {"use_regex": False}]
    vocabulary = {written(token): number for token, number in ranks.items()}
    content = byte_level(vocabulary, merges, encoding._special_tokens, {"type": "Sequence", "pretokenizers": steps})
    content["model"]["ignore_merges"] = len(merges) < len(longer)
    return content


def merged(token, ranks):
    """The parts into which the merges of lower ranks than its own put a token's bytes."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while True:
        joined = [ranks.get(one + other, ranks[token]) for one, other in zip(parts, parts[1:], strict=False)]
        lowest = min(joined, default=ranks[token])
        if lowest >= ranks[token]:
            return parts
        place = joined.index(lowest)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def for_oniguruma(expression):
    """A regular expression of tiktoken's in the syntax of the library's engine.

    There `x{1,3}+` would repeat the repetition, where tiktoken means that nothing is given back, and `$` would match at
    the end of each line.
    """
    own = rf"(?P<twice>(?:{ESCAPED}|{CLASS}|[^\\\[])\{{\d+(?:,\d*)?\}})\+|(?P<end>\$)|{ESCAPED}|{CLASS}"
    translate = lambda found: f"(?>{found['twice']})" if found["twice"] else r"\z" if found["end"] else found[0]
    return re.sub(own, translate, expression)


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

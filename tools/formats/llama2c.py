"""Read the files of llama2.c: a model's .bin, in its first ("legacy") float32 format, and a tokenizer's .bin.

`tools/import_model.py` uses it.  In reading order: `read_model`, which gives a model in the names of
transformers' Llama; `read_tokenizer`, which writes a vocabulary that merges by scores as a byte-level BPE.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError
from corpus.other_tokenizers import BYTE_LEVEL, BYTES, byte_level

HEADER = struct.Struct("<7i")
HEADER_NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
NEWER = 0x616B3432  # "ak42", with which the later formats begin
ZIP = b"PK\3\4"  # with which torch.save's files begin
# Its first three tokens: the names that they get.  <s> stands between two stories, and where it is written a text ends.
SPECIAL = {"<unk>": "<unk>", "<s>": "<eos>", "</s>": "</s>"}
FIRST_BYTE = len(SPECIAL)  # the id of <0x00>, which <0x01> and the other bytes follow
FIRST_PIECE = FIRST_BYTE + 256
LONGEST_PIECE = 1000  # bytes
LETTERS = {byte: letter for letter, byte in BYTES.items()}


# The model ------------------------------------------------------------------------------------------------------------


def is_llama2c(path: Path) -> bool:
    """Whether a path is a .bin that torch.save did not write."""
    if path.suffix != ".bin" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(ZIP)) != ZIP


def read_model(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """(fields of a config.json, weights) of a model, both as transformers' Llama has them.  Raises UserError."""
    header = read_header(path)
    shapes = shapes_in(header)
    expected = HEADER.size + 4 * sum(math.prod(shape) for shape in shapes.values())
    found = path.stat().st_size
    if found != expected:
        raise UserError(
            f"{path} is cut off or no model of llama2.c: it has {found:,} bytes, and its header "
            f"({in_words(header)}) stands for {expected:,}; copy it again"
        )
    parts = {}
    with open(path, "rb") as file:
        file.seek(HEADER.size)
        for name, shape in shapes.items():
            values = np.fromfile(file, "<f4", math.prod(shape)).astype(np.float32)
            parts[name] = torch.from_numpy(values).view(shape)
    head_size = header["dim"] // header["n_heads"]
    for name in ("self_attn.q_proj", "self_attn.k_proj"):
        parts[name] = halves_from_pairs(parts[name], head_size)
    fields = {
        "hidden_size": header["dim"],
        "intermediate_size": header["hidden_dim"],
        "num_hidden_layers": header["n_layers"],
        "num_attention_heads": header["n_heads"],
        "num_key_value_heads": header["n_kv_heads"],
        "max_position_embeddings": header["seq_len"],
        "tie_word_embeddings": "head" not in shapes,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
    }
    return fields, named_as_llama(parts, header["n_layers"])


def read_header(path: Path) -> dict[str, int]:
    """The sizes at a model's beginning.  Raises UserError if no model can have them."""
    with open(path, "rb") as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise UserError(f"{path} is no model of llama2.c: it has {len(start)} bytes; copy it again")
    header = dict(zip(HEADER_NAMES, HEADER.unpack(start), strict=True))
    if header["dim"] == NEWER:
        raise UserError(f"{path} has llama2.c's format {header['hidden_dim']}; export it again with --version 0")
    smallest = min(abs(number) if name == "vocab_size" else number for name, number in header.items())
    if smallest < 1 or header["dim"] % (2 * header["n_heads"]) or header["n_heads"] % header["n_kv_heads"]:
        raise UserError(f"{path} is no model of llama2.c: its header says {in_words(header)}; pass another file")
    return header


def in_words(header: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in header.items())


def shapes_in(header: dict[str, int]) -> dict[str, tuple]:
    """The shapes of a model's weights, in the order of the file."""
    size = header["dim"]
    inner = header["hidden_dim"]
    layers = header["n_layers"]
    vocab_size = abs(header["vocab_size"])
    head_size = size // header["n_heads"]
    shared = header["n_kv_heads"] * head_size  # of the keys and values that several heads share
    shapes = {
        "tokens": (vocab_size, size),
        "input_layernorm": (layers, size),
        "self_attn.q_proj": (layers, size, size),
        "self_attn.k_proj": (layers, shared, size),
        "self_attn.v_proj": (layers, shared, size),
        "self_attn.o_proj": (layers, size, size),
        "post_attention_layernorm": (layers, size),
        "mlp.gate_proj": (layers, inner, size),
        "mlp.down_proj": (layers, size, inner),
        "mlp.up_proj": (layers, inner, size),
        "norm": (size,),
        "cosines and sines": (2, header["seq_len"], head_size // 2),  # not used: they follow from the sizes
    }
    if header["vocab_size"] < 0:  # so a file says that the head has a matrix of its own
        shapes["head"] = (vocab_size, size)
    return shapes


def halves_from_pairs(weight: torch.Tensor, head_size: int) -> torch.Tensor:
    """Reorder the rows of queries or keys (layers, heads x head_size, C) for the rotary positions of `model.py`.

    llama2.c turns numbers 2i and 2i + 1 of a head together, and model.py numbers i and i + head_size / 2.
    """
    pairs = weight.unflatten(1, (-1, head_size // 2, 2))  # (layers, heads, pairs, 2, C)
    return pairs.transpose(2, 3).flatten(1, 3)


def named_as_llama(parts: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """The weights by the names of transformers' LlamaForCausalLM."""
    weights = {"model.embed_tokens.weight": parts["tokens"], "model.norm.weight": parts["norm"]}
    if "head" in parts:
        weights["lm_head.weight"] = parts["head"]
    for name, part in parts.items():
        if name.startswith(("self_attn", "mlp")) or name.endswith("_layernorm"):
            for layer in range(layers):
                weights[f"model.layers.{layer}.{name}.weight"] = part[layer]
    return weights


# The tokenizer --------------------------------------------------------------------------------------------------------


def read_tokenizer(path: Path, vocab_size: int) -> dict:
    """The tokenizer of a model with so many tokens, as a `tokenizer.json` with the same ids.  Raises UserError.

    llama2.c begins with a text's characters, writes those that are no token as their bytes, and merges the neighbours
    whose piece has the highest score, until no two are a piece.  So a merge here is each way to cut a piece into two
    pieces, ranked by the piece's score.  Three things differ:

    - llama2.c puts a space before each text.  Here a text stays as it is, so who wants its ids begins with a space.
    - A character of several bytes has to be merged from them, through parts that are no token of llama2.c.  The parts
      get the ids of bytes that are never written, as <0x61> where "a" is a token.  Where these run out, the character
      stays in its bytes.
    - Two pieces of one score are merged by their ids, not by their places.
    """
    scores, names = read_pieces(path, vocab_size)
    pieces = {name: number for number, name in enumerate(names) if number >= FIRST_PIECE}
    vocabulary = {written(piece.encode()): number for piece, number in pieces.items()}
    special = {SPECIAL[name.strip("\n")]: number for number, name in enumerate(names[:FIRST_BYTE])}
    never_written = {}  # bytes that are a piece, too
    for byte, letter in LETTERS.items():
        number = FIRST_BYTE + byte
        if letter in vocabulary:
            never_written[names[number]] = number
        else:
            vocabulary[letter] = number
    merges = merges_of_bytes(pieces, vocabulary, never_written)
    merges += merges_of_pieces(pieces, scores)
    if len(vocabulary.keys() | special.keys() | never_written.keys()) != vocab_size:
        raise UserError(f"{path}: two of its tokens are the same text; pass another tokenizer")
    whole_text = BYTE_LEVEL | {"use_regex": False}  # pieces decide where words end
    return byte_level(vocabulary, merges, special | never_written, whole_text)


def written(content: bytes) -> str:
    return "".join(LETTERS[byte] for byte in content)


def merges_of_bytes(pieces: dict[str, int], vocabulary: dict, never_written: dict) -> list[list[str]]:
    """The merges that make the characters of several bytes; the parts of these move from never_written to vocabulary.

    A character is merged from its end: other characters have its first bytes more often than its last ones.
    """
    merges = []
    characters = [piece.encode() for piece in pieces if len(piece) == 1 and not piece.isascii()]
    # Four bytes before three: else the last two of three could be taken from the middle of four.
    for character in sorted(characters, key=len, reverse=True):
        ends = [character[start:] for start in range(len(character) - 2, -1, -1)]
        new = [written(end) for end in ends if written(end) not in vocabulary]
        if len(new) > len(never_written):
            continue
        for part in new:
            _, number = never_written.popitem()
            vocabulary[part] = number
        merges += [[written(end[:1]), written(end[1:])] for end in ends]
    return merges


def merges_of_pieces(pieces: dict[str, int], scores: list[float]) -> list[list[str]]:
    """Each way to cut a piece into two pieces, those of the highest scores first."""
    merges = []
    for piece in sorted(pieces, key=lambda piece: -scores[pieces[piece]]):
        for place in range(1, len(piece)):
            one = piece[:place]
            other = piece[place:]
            if one in pieces and other in pieces:
                merges.append([written(one.encode()), written(other.encode())])
    return merges


def read_pieces(path: Path, vocab_size: int) -> tuple[list[float], list[str]]:
    """(scores, texts) of a tokenizer's tokens.  Raises UserError for a file that does not hold just so many."""
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; pass --tokenizer_path the .bin that the model was trained with")
    wrong = f"{path} is no tokenizer of llama2.c with the model's {vocab_size:,} tokens"
    if path.stat().st_size > 4 + vocab_size * (8 + LONGEST_PIECE):
        raise UserError(f"{wrong}: it has {path.stat().st_size:,} bytes; pass another")
    content = path.read_bytes()
    scores = []
    names = []
    place = 4  # after the length of the longest token
    try:
        for _ in range(vocab_size):
            score, length = struct.unpack_from("<fi", content, place)
            end = place + 8 + length
            if math.isnan(score) or not 1 <= length <= LONGEST_PIECE or end > len(content):
                raise ValueError
            scores.append(score)
            names.append(content[place + 8 : end].decode())
            place = end
    except (struct.error, ValueError):
        raise UserError(f"{wrong}: token {len(names)} is cut off or damaged; pass another") from None
    if place != len(content):
        raise UserError(f"{wrong}: it holds more after them; pass another")
    expected = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))]
    found = [name.strip("\n") for name in names[:FIRST_PIECE]]
    if found != expected:
        raise UserError(f"{wrong}: it does not begin with <unk>, <s>, </s> and the 256 bytes; pass another")
    return scores, names

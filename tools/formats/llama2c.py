"""Read the files of llama2.c: a model's .bin, in its first ("legacy") float32 format, and a tokenizer's .bin.

`tools/import_model.py` uses it.  In reading order: `read_model`, which returns weights with the names of transformers'
Llama; `read_tokenizer`, which converts a vocabulary with merge scores to a byte-level BPE.
"""

import math
import re
import struct
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError
from corpus.other_tokenizers import BYTE_LEVEL, BYTES, byte_level

HEADER = struct.Struct("<7i")
HEADER_NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
NEWER = 0x616B3432  # "ak42", the beginning of the later formats
ZIP = b"PK\3\4"  # the beginning of files from torch.save
# {its first three tokens: their new names}.  <s> comes between two stories, so a generated <s> ends the text.
SPECIAL = {"<unk>": "<unk>", "<s>": "<eos>", "</s>": "</s>"}
FIRST_BYTE = len(SPECIAL)  # the id of <0x00>; the other bytes follow in order
FIRST_PIECE = FIRST_BYTE + 256
LONGEST_PIECE = 1000  # bytes
LETTERS = {byte: letter for letter, byte in BYTES.items()}
NOT_ASCII = {bytes([byte]) for byte in range(128, 256)}


# The model ------------------------------------------------------------------------------------------------------------


def is_llama2c(path: Path) -> bool:
    """Return whether a path is a .bin that torch.save did not write."""
    if path.suffix != ".bin" or not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(ZIP)) != ZIP


def read_model(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Read a model; return (fields of a config.json, weights), as for transformers' Llama.  Raises UserError."""
    header = read_header(path)
    shapes = shapes_in(header)
    expected = HEADER.size + 4 * sum(math.prod(shape) for shape in shapes.values())
    found = path.stat().st_size
    if found != expected:
        raise UserError(
            f"{path} is truncated or not a model of llama2.c: it has {found:,} bytes, but by its header "
            f"({in_words(header)}) it should have {expected:,}; copy it again"
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
    """Read the sizes in the header of a model.  Raises UserError if they are impossible."""
    with open(path, "rb") as file:
        start = file.read(HEADER.size)
    if len(start) < HEADER.size:
        raise UserError(f"{path} is not a model of llama2.c: it has only {len(start)} bytes; copy it again")
    header = dict(zip(HEADER_NAMES, HEADER.unpack(start), strict=True))
    if header["dim"] == NEWER:
        raise UserError(f"{path} has llama2.c's format {header['hidden_dim']}; export it again with --version 0")
    smallest = min(abs(number) if name == "vocab_size" else number for name, number in header.items())
    if smallest < 1 or header["dim"] % (2 * header["n_heads"]) or header["n_heads"] % header["n_kv_heads"]:
        raise UserError(f"{path} is not a model of llama2.c: its header has {in_words(header)}; pass another file")
    return header


def in_words(header: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in header.items())


def shapes_in(header: dict[str, int]) -> dict[str, tuple]:
    """Return the shapes of a model's weights, in the order of the file."""
    size = header["dim"]
    inner = header["hidden_dim"]
    layers = header["n_layers"]
    vocab_size = abs(header["vocab_size"])
    head_size = size // header["n_heads"]
    shared = header["n_kv_heads"] * head_size  # size of the keys and values, which several heads may share
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
        "cosines and sines": (2, header["seq_len"], head_size // 2),  # not used: model.py computes them
    }
    if header["vocab_size"] < 0:  # a negative number means that the head has its own matrix
        shapes["head"] = (vocab_size, size)
    return shapes


def halves_from_pairs(weight: torch.Tensor, head_size: int) -> torch.Tensor:
    """Reorder the rows of queries or keys (layers, heads x head_size, C) for the rotary positions of `model.py`.

    llama2.c rotates the numbers 2i and 2i + 1 of a head as a pair; model.py rotates i and i + head_size / 2.
    """
    pairs = weight.unflatten(1, (-1, head_size // 2, 2))  # (layers, heads, pairs, 2, C)
    return pairs.transpose(2, 3).flatten(1, 3)


def named_as_llama(parts: dict[str, torch.Tensor], layers: int) -> dict[str, torch.Tensor]:
    """Return the weights with the names of transformers' LlamaForCausalLM."""
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
    """Convert the tokenizer of a model to a `tokenizer.json` with the same ids.  Raises UserError.

    llama2.c starts with the characters of a text; a character that is not a token becomes its bytes.  Then it merges
    the two neighbours that form the piece with the highest score, until no neighbours form a piece.  So the merges here
    are all ways to split a piece into two pieces, ordered by the score of the piece.  There are three differences:

    - llama2.c puts a space before each text.  Here it does not, so begin a text with a space to get the same ids.
    - A character of several bytes must be merged from its bytes, through parts that are not tokens of llama2.c.  These
      parts get the ids of bytes that never occur, for example <0x61> if "a" is a token.  If there are not enough such
      ids, the character stays split into bytes.
    - Of two pieces with the same score, the one with the lower id is merged first; in llama2.c, the one further left.

    In the files of `llama2c_writer.py`, the ASCII bytes are pieces themselves, and a piece can be part of a character.
    """
    scores, names = read_pieces(path, vocab_size)
    pieces = {}
    for number, name in enumerate(names):
        if number >= FIRST_PIECE or (number >= FIRST_BYTE and len(name) == 1):
            pieces[content_of(name)] = number
    vocabulary = {written(piece): number for piece, number in pieces.items()}
    special = {SPECIAL[name.strip("\n")]: number for number, name in enumerate(names[:FIRST_BYTE])}
    never_written = {}  # bytes that are also a piece
    for byte, letter in LETTERS.items():
        number = FIRST_BYTE + byte
        if vocabulary.setdefault(letter, number) != number:
            never_written[names[number]] = number
    characters = [name.encode() for name in names[FIRST_PIECE:] if len(name) == 1 and not name.isascii()]
    merges = merges_of_bytes(characters, vocabulary, never_written)
    known = {tuple(merge) for merge in merges}
    merges += [merge for merge in merges_of_pieces(pieces, scores) if tuple(merge) not in known]
    if len(vocabulary.keys() | special.keys() | never_written.keys()) != vocab_size:
        raise UserError(f"{path}: two of its tokens have the same text; pass another tokenizer")
    whole_text = BYTE_LEVEL | {"use_regex": False}  # the pieces decide where words end
    return byte_level(vocabulary, merges, special | never_written, whole_text)


def content_of(name: str) -> bytes:
    """Return the bytes of a piece; a byte that is not part of a whole character is written like <0xE2>."""
    return re.sub(rb"<0x([0-9A-F]{2})>", lambda byte: bytes.fromhex(byte[1].decode()), name.encode())


def written(content: bytes) -> str:
    return "".join(LETTERS[byte] for byte in content)


def merges_of_bytes(characters: list[bytes], vocabulary: dict, never_written: dict) -> list[list[str]]:
    """Return the merges that form characters of several bytes; move the ids of their parts to vocabulary.

    A character is merged from its end, because different characters share their first bytes more often than their last.
    """
    merges = []
    # Four bytes before three: else a merge for three bytes could match the middle of four.
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


def merges_of_pieces(pieces: dict[bytes, int], scores: list[float]) -> list[list[str]]:
    """Return all ways to split a piece into two pieces, those with the highest scores first."""
    merges = []
    parts = pieces.keys() | NOT_ASCII
    for piece in sorted(pieces, key=lambda piece: -scores[pieces[piece]]):
        for place in range(1, len(piece)):
            one = piece[:place]
            other = piece[place:]
            if one in parts and other in parts:
                merges.append([written(one), written(other)])
    return merges


def read_pieces(path: Path, vocab_size: int) -> tuple[list[float], list[str]]:
    """Read the tokens; return (scores, texts).  Raises UserError if there are not exactly vocab_size tokens."""
    if not path.is_file():
        raise UserError(f"no tokenizer file {path}; pass the .bin of the model's tokenizer with --tokenizer_path")
    wrong = f"{path} is not a llama2.c tokenizer with the model's {vocab_size:,} tokens"
    if path.stat().st_size > 4 + vocab_size * (8 + LONGEST_PIECE):
        raise UserError(f"{wrong}: it has {path.stat().st_size:,} bytes; pass another file")
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
        raise UserError(f"{wrong}: token {len(names)} is truncated or damaged; pass another file") from None
    if place != len(content):
        raise UserError(f"{wrong}: there is more data after them; pass another file")
    special = [name.strip("\n") for name in names[:FIRST_BYTE]]
    bytes_found = [name in names_of_byte(byte) for byte, name in enumerate(names[FIRST_BYTE:FIRST_PIECE])]
    if special != [*SPECIAL] or len(bytes_found) < 256 or not all(bytes_found):
        raise UserError(f"{wrong}: it does not begin with <unk>, <s>, </s> and the 256 bytes; pass another file")
    return scores, names


def names_of_byte(byte: int) -> list[str]:
    """Return what the token of a byte may be called: <0x61>, and in an export of this course also "a"."""
    names = [f"<0x{byte:02X}>"]
    if 0 < byte < 128:
        names.append(chr(byte))
    return names

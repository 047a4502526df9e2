"""Write the files of llama2.c: a model's .bin, in its first ("legacy") float32 format, and a tokenizer's .bin.

`tools/export_llama2c.py` uses it; llama2c.py reads the same two formats.  In reading order: `refuse_other_networks`;
`Pieces`, the tokens with their ids in llama2.c, from `pieces_of`; `write_model`; `write_tokenizer`; `encode`, which
gives the ids that llama2.c gives a text.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from export_to_hf import llama_weights

from common.errors import UserError, one_line
from common.files import written_atomically
from corpus.other_tokenizers import WordBPE
from data import SPECIAL_TOKENS, Tokenizer
from formats.llama2c import FIRST_BYTE, HEADER, LETTERS, shapes_in
from model import ModelConfig, Transformer

# The only network that llama2.c computes, by our names.
NETWORK = {
    "positions": "rotary", "norm": "rms", "mlp": "swiglu", "bias": False, "norm_epsilon": 1e-5, "rotary_base": 10_000.0,
}  # fmt: skip
BEGIN, END = 1, 2  # llama2.c's ids of <s> and </s>
FIRST = {"<unk>": "<unk>", "<bos>": "\n<s>\n", "<eos>": "\n</s>\n"}  # {our name: its name}, in the order of its ids


# The model ------------------------------------------------------------------------------------------------------------


def refuse_other_networks(config: ModelConfig, path: str) -> None:
    """Raise UserError, which names what is different, if llama2.c cannot compute this network."""
    wrong = {name: value for name, value in NETWORK.items() if getattr(config, name) != value}
    if wrong:
        has = ", ".join(f"{name} {getattr(config, name)}" for name in wrong)
        needs = ", ".join(f"{name} {value}" for name, value in wrong.items())
        raise UserError(
            f"{path} cannot be exported: its network has {has}, but llama2.c computes only {needs}; train one without "
            "these flags, with --arch llama, the default"
        )
    if config.window_size is not None and config.window_size < config.max_seq_len:
        raise UserError(
            f"{path} cannot be exported: it was trained with --window_size {config.window_size}, but llama2.c sees the "
            f"whole context of {config.max_seq_len}; train without --window_size"
        )


@torch.no_grad()
def write_model(path: Path, model: Transformer, order: list[int]) -> None:
    """Write a model; order: our id for each id of llama2.c, from `pieces_of`.

    llama2.c starts a text with the token 1, and stops at a generated token 1.  Here <bos> starts a text and <eos> ends
    it, and training never asks for <bos> after <eos>.  So row 1 of the embedding is that of <bos>, and row 1 of the
    head that of <eos>: the two matrices differ, and both are written.
    """
    head_order = order.copy()
    head_order[BEGIN] = order[END]
    head_order[END] = order[BEGIN]
    config = model.config
    header = {
        "dim": config.hidden_size,
        "hidden_dim": config.intermediate_size,
        "n_layers": config.num_layers,
        "n_heads": config.num_heads,
        "n_kv_heads": config.num_heads,
        "vocab_size": -len(order),  # a negative number means that the head has its own matrix
        "seq_len": config.max_seq_len,
    }
    middle = config.head_size // 2
    # Only old versions of llama2.c read these.  The first half of model.py's sines has another sign.
    angles = torch.stack((model.cos[:, middle:], model.sin[:, middle:]))
    weights = llama_weights(model)
    parts = {
        "tokens": model.tokens.weight[order],
        "norm": model.norm.weight,
        "cosines and sines": angles,
        "head": model.head_weight()[head_order],
    }
    with written_atomically(path) as file:
        file.write(HEADER.pack(*header.values()))
        for name, shape in shapes_in(header).items():
            if name in parts:
                part = parts[name]
            else:
                layers = [weights[f"model.layers.{layer}.{name}.weight"] for layer in range(config.num_layers)]
                part = torch.stack(layers)
            if name in ("self_attn.q_proj", "self_attn.k_proj"):
                part = pairs_from_halves(part, config.head_size)
            numbers = part.view(shape).numpy()
            file.write(np.ascontiguousarray(numbers, dtype="<f4").tobytes())


def pairs_from_halves(weight: torch.Tensor, head_size: int) -> torch.Tensor:
    """Reorder the rows of queries or keys (layers, heads x head_size, C); the inverse of `halves_from_pairs`."""
    halves = weight.unflatten(1, (-1, 2, head_size // 2))  # (layers, heads, 2, pairs, C)
    return halves.transpose(2, 3).flatten(1, 3)


# The tokenizer --------------------------------------------------------------------------------------------------------


@dataclass
class Pieces:
    """The tokens in the order of llama2.c's ids.

    order: our ids; texts: what llama2.c prints and looks up; scores: of two possible merges, the one whose result has
    the higher score comes first.
    """

    order: list[int]
    texts: list[str]
    scores: list[float]


def pieces_of(tokenizer: Tokenizer, path: str) -> Pieces:
    """Convert a tokenizer; path: its file, for messages.  Raises UserError if it is not a byte-level BPE as in step 1.

    llama2.c's ids begin with <unk>, <s>, </s> and the 256 bytes.  The other tokens follow in our order.
    """
    advice = "export a model with a tokenizer of step 1"
    if isinstance(tokenizer.backend, WordBPE):
        raise UserError(f"{path} is an older course's tokenizer, for words, which llama2.c cannot use; {advice}")
    numbers = tokenizer.backend.get_vocab()
    if len(numbers) < tokenizer.vocab_size:
        raise UserError(f"{path} has ids without a token, which llama2.c cannot use; {advice}")
    first = [tokenizer.special[name] for name in FIRST]
    first += [numbers[LETTERS[byte]] for byte in range(256)]
    order = first + sorted(set(numbers.values()).difference(first))
    special = tokenizer.backend.get_added_tokens_decoder()
    ranks = ranks_of_merges(tokenizer)
    texts = []
    scores = []
    for number in order:
        name = tokenizer.backend.id_to_token(number)
        if name in SPECIAL_TOKENS:
            texts.append(FIRST.get(name, name))
        elif number in special:  # somebody else's; its name could be that of a piece, like <0x61>
            texts.append(f"<special {number}>")
        elif name in ranks or len(name) == 1:
            texts.append(text_of(tokenizer.bytes_of(number)))
        else:
            raise UserError(
                f"{path} has the token {one_line(name)}, which no merge forms, so llama2.c cannot use it; {advice}"
            )
        scores.append(float(-ranks.get(name, 0)))
    if len(set(texts)) < len(texts):
        double = next(text for text in texts if texts.count(text) > 1)
        raise UserError(f"{path} has two tokens that llama2.c would write as {one_line(double)}; {advice}")
    return Pieces(order, texts, scores)


def ranks_of_merges(tokenizer: Tokenizer) -> dict[str, int]:
    """Return {token: rank of the first merge that forms it}."""
    ranks = {}
    for rank, (one, other) in enumerate(json.loads(tokenizer.backend.to_str())["model"]["merges"]):
        ranks.setdefault(one + other, rank)
    return ranks


def text_of(content: bytes) -> str:
    """Return a token's text: its characters, and bytes without a whole character in llama2.c's form, like <0xE2>.

    So all texts are valid UTF-8.  Many ports of llama2.c open no other tokenizer.
    """
    letters = content.decode(errors="surrogateescape")  # a byte 0xE2 that is not part of a character becomes U+DCE2
    text = ""
    for letter in letters:
        if "\udc80" <= letter <= "\udcff" or letter == "\0":  # a text in C ends at 0
            text += f"<0x{ord(letter) & 0xFF:02X}>"
        else:
            text += letter
    return text


def write_tokenizer(path: Path, pieces: Pieces) -> None:
    contents = [text.encode() for text in pieces.texts]
    with written_atomically(path) as file:
        file.write(struct.pack("<i", max(len(content) for content in contents)))
        for score, content in zip(pieces.scores, contents, strict=True):
            file.write(struct.pack("<fi", score, len(content)) + content)


def encode(text: str, pieces: Pieces) -> list[int]:
    """Return the ids that llama2.c gives a text, without <s>: the same steps as in its function `encode`."""
    numbers = {piece: number for number, piece in enumerate(pieces.texts)}
    ids = []
    if not text:
        return []
    for character in " " + text:
        if character in numbers:
            ids.append(numbers[character])
        else:
            ids += [FIRST_BYTE + byte for byte in character.encode()]
    while True:
        best = None  # (score, place, id) of the best merge; of equal ones, the first
        for place in range(len(ids) - 1):
            merged = numbers.get(pieces.texts[ids[place]] + pieces.texts[ids[place + 1]])
            if merged is not None and (best is None or pieces.scores[merged] > best[0]):
                best = (pieces.scores[merged], place, merged)
        if best is None:
            return ids
        _, place, merged = best
        ids[place : place + 2] = [merged]

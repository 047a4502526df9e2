"""Fill the page of export_web.py: one HTML file with a model in it, and the JavaScript that runs it.

In reading order: `web_page`, which fills the Jinja template web.html; `for_script`, everything but the weights, as
the worker reads it; `packed`, the weights as bytes.  web_model.js and web_writer.js compute, web_page.js shows.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np
import torch
from formats.quantized import FLOAT16, FORMATS, quantize

from corpus.other_tokenizers import BYTE_LEVEL, BYTES
from data import Tokenizer
from generation.sampling import Sampling
from model import Transformer
from pages.templates import TEMPLATES, as_json, hash_of, joined

BEGINNING = "Once upon a time, there was a"
ALIGNMENT = 4  # bytes: JavaScript reads float32 numbers only at multiples of this


@dataclass
class Page:
    """What the page shows.  kind: "story" or "chat", the tab that opens first; card: [(what, value)], at its foot."""

    title: str
    kind: str
    card: list[tuple[str, str]]


def web_page(page: Page, model: Transformer, tokenizer: Tokenizer, weights: str) -> str:
    """Return the page as HTML.  weights: "float16" or a key of FORMATS with one scale for each row."""
    tensors, content = packed(model, weights)
    script = joined(["helpers.js", "web_page.js"])
    settings = Sampling()
    return TEMPLATES.get_template("web.html").render(
        title=page.title,
        kind=page.kind,
        card=page.card,
        beginning=BEGINNING,
        settings=[
            ("temperature", "Temperature (0: greedy)", settings.temperature, 0, 2, 0.1),
            ("top-k", "Top-k (0: all)", settings.top_k, 0, tokenizer.vocab_size, 1),
            ("top-p", "Top-p (1: all)", settings.top_p, 0.05, 1, 0.05),
            ("seed", "Seed", settings.seed, 0, 2**32 - 1, 1),
            ("length", "Tokens at most", settings.max_new_tokens, 1, 2000, 1),
        ],
        style=joined(["base.css", "web.css"]),
        worker=joined(["web_model.js", "web_writer.js"]),
        script=script,
        script_hash=hash_of(script),
        has_worker=True,
        model=as_json(for_script(model, tokenizer) | {
            "tensors": tensors, "bytes": len(content), "is_chat": page.kind == "chat",
        }),
        weights=base64.b64encode(content).decode(),
    )  # fmt: skip


def for_script(model: Transformer, tokenizer: Tokenizer) -> dict:
    """Return the config and the tokenizer, with the names that web_model.js uses."""
    content = json.loads(tokenizer.backend.to_str())
    texts = [tokenizer.backend.id_to_token(token) for token in range(tokenizer.vocab_size)]
    for token in tokenizer.never_written:
        texts[token] = None
    return {
        "config": model.config.as_dict(),
        "special": tokenizer.special,
        "never_written": tokenizer.never_written,
        "tokenizer": {
            "tokens": texts,
            "letters": sorted(BYTES, key=BYTES.get),
            "merges": [" ".join(pair) for pair in content["model"]["merges"]],
            "cuts_words": content["pre_tokenizer"] == BYTE_LEVEL,
        },
    }


def packed(model: Transformer, weights: str) -> tuple[list[dict], bytes]:
    """Return (a description of each tensor, all tensors as bytes).

    An int8 matrix is its scales, float32 (rows,), and then its integers (rows, columns).
    """
    tensors = []
    content = bytearray()
    for name, tensor in model.state_dict().items():
        parts, number_format = parts_of(tensor, weights)
        tensors.append({
            "name": name, "format": number_format, "rows": len(tensor), "size": tensor.numel(), "start": len(content),
        })  # fmt: skip
        for part in parts:
            content += part.tobytes()
        content += bytes(-len(content) % ALIGNMENT)
    return tensors, bytes(content)


def parts_of(tensor: torch.Tensor, weights: str) -> tuple[list[np.ndarray], str]:
    """Return (the arrays to write for a tensor, the format of their numbers)."""
    if weights == FLOAT16:
        return [tensor.numpy().astype("<f2")], FLOAT16
    if tensor.dim() == 1:  # a norm or a bias
        return [tensor.numpy().astype("<f4")], "float32"
    integers, scales = quantize(tensor, FORMATS[weights])
    return [scales.numpy().astype("<f4"), integers.numpy()], weights

"""Tokenizers in the form that other programs use, and our wrapper around them."""

import json

import refusals
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from corpus.other_tokenizers import open_pretrained
from data import load_tokenizer, wrap_tokenizer

TEXTS = [
    "Once upon a time there was a little fox. 🦊 The fox wasn't little, it HADN'T been.",
    'Zoé said: "I don\'t know!"\r\n\n\n  The   fox did not know 1234567 things.\t\n',
    "שלום, the little fox said... مرحبا 你好 12 345 ١٢٣٤٥   \n \n x  ",
    "<|endoftext|> <eos> <user>hello<assistant> 'S 'Re \u2028\u00a0\u3000 ſ K",
]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)" + (
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def others(split=None, size=400, special=("<|begin|>", "<|endoftext|>")):
    """Return a byte-level BPE like those of other programs, its special tokens after the last id.

    split: a regular expression, in place of GPT-2's.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    cut = [pre_tokenizers.Split(tokenizers.Regex(split), "isolated")] if split else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cut, whole]) if cut else whole
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    backend.add_special_tokens(list(special))
    return backend


def saved(folder, backend, **changes):
    """Save a tokenizer.json with changed entries (model_...: those of its model), and return the path."""
    content = json.loads(backend.to_str())
    content["model"] |= {name[6:]: value for name, value in changes.items() if name.startswith("model_")}
    content |= {name: value for name, value in changes.items() if not name.startswith("model_")}
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return str(folder / "tokenizer.json")


def wrapped(name):
    return wrap_tokenizer(open_pretrained(str(name))[0], name)


def error_of(name):
    """Return the message with which a tokenizer is refused; it must contain the tokenizer's name."""
    message = refusals.error_of(wrapped, name)
    assert str(name) in message
    return message


def reloaded(tokenizer, folder):
    tokenizer.save(folder / "wrapped.pkl")
    return load_tokenizer(folder / "wrapped.pkl")


def as_text(backend, text):
    """Return the foreign tokenizer's ids of a text, with special tokens treated as plain text."""
    backend.encode_special_tokens = True
    return backend.encode(text, add_special_tokens=False).ids

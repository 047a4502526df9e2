"""A tiny network, prompts for it, and the texts that it generates."""

import pytest
import torch

from corpus.dialogues import render_dialogues
from data import SPECIAL_TOKENS
from generation.beam_search import beam_search
from generation.generate import Rules, generate
from generation.sampling import Sampling
from model import ModelConfig, Transformer

SPECIAL = {token: number for number, token in enumerate(SPECIAL_TOKENS)}
VOCAB = 29
CONTEXT = 12
SHAPE = {
    "vocab_size": VOCAB, "num_layers": 2, "hidden_size": 16, "num_heads": 2, "intermediate_size": 24,
    "max_seq_len": CONTEXT, "dropout": 0.0,
}  # fmt: skip
LONG = "Once upon a time, Tom had a cat. " * 20
TEXTS = ["Once upon a time, Tom had a cat. Ünï, €5!", "The dog ran away. Mia looked for it.", LONG]
both = pytest.mark.parametrize("arch", ["gpt2", "llama"])
with_and_without_window = pytest.mark.parametrize("window", [None, 1, 5])


def make_model(arch="llama", seed=0, **changes):
    """Return a tiny network, with weights so large that every token in the context affects its predictions."""
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(**SHAPE | {"arch": arch} | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def random_ids(*shape, seed=0):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def random_prompts(*lengths):
    return [random_ids(length, seed=length).tolist() for length in lengths]


def assert_same(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def render_dialogue(tokenizer, turns, max_tokens=None, open_ended=False):
    """Return (ids, dropped pairs, bytes of the replies) of one dialogue; see `render_dialogues`."""
    return render_dialogues(tokenizer, [turns], max_tokens, open_ended)[0][:3]


def how(count, options):
    """Return Sampling and Rules for these options; the default is to draw from the model's own probabilities."""
    rules = {name: options.pop(name) for name in ("end", "banned", "stopped") if name in options}
    drawn = {"temperature": 1.0, "top_k": 0}
    if options.get("num_beams", 1) > 1:
        drawn = {}
    return Sampling(**{"max_new_tokens": count} | drawn | options), Rules(**rules)


def write(model, prompts, count, row_seeds=None, **options):
    """Return the tokens that `generate` yields, as one list per row."""
    return [list(row) for row in zip(*generate(model, prompts, *how(count, options), row_seeds), strict=True)]


def search(model, prompts, count, beams, **options):
    """Return the texts that `beam_search` finds."""
    return beam_search(model, prompts, *how(count, options | {"num_beams": beams}))

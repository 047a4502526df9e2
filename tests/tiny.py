"""What several tests share: a tiny network, one dialogue as tokens."""

import pytest
import torch

from corpus.dialogues import render_dialogues
from model import ModelConfig, Transformer

VOCAB, CONTEXT = 29, 12
SHAPE = {
    "vocab_size": VOCAB,
    "num_layers": 2,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 24,
    "max_seq_len": CONTEXT,
    "dropout": 0.0,
}
both = pytest.mark.parametrize("arch", ["gpt2", "llama"])
with_and_without_window = pytest.mark.parametrize("window", [None, 1, 5])


def make_model(arch="llama", seed=0, **changes):
    """A tiny network whose weights are so large that every token it sees has a say in what it predicts."""
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
    """(ids, pairs dropped, bytes of what the assistant says) of one dialogue; see `render_dialogues`."""
    return render_dialogues(tokenizer, [turns], max_tokens, open_ended)[0][:3]

"""The network: what it computes, what each position can see, and its loss."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny import CONTEXT, SHAPE, VOCAB, assert_same, both, make_model, random_ids, with_and_without_window

import model as model_module
from model import IGNORED, CrossEntropy, ModelConfig, Transformer, attend

pytestmark = pytest.mark.usefixtures("no_gradients")


def another(ids, row, place):
    """Return the same ids with one token changed."""
    changed = ids.clone()
    changed[row, place] = (ids[row, place] + 1) % VOCAB
    return changed


# The shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_heads": 6}, "--num_heads 6 does not divide"),
        ({"hidden_size": 18, "num_heads": 2}, "--num_heads"),  # a head of 9 has no pairs to rotate
        ({"vocab_size": 0}, "--vocab_size"),
        ({"num_layers": 0}, "--num_layers"),
        ({"hidden_size": 0}, "--hidden_size"),
        ({"num_heads": 0}, "--num_heads"),
        ({"intermediate_size": -1}, "--intermediate_size"),
        ({"max_seq_len": 0}, "--max_seq_len"),
        ({"max_seq_len": 1}, "--max_seq_len"),  # no text could exceed it
        ({"num_layers": 1.5}, "--num_layers"),
        ({"window_size": 0}, "--window_size"),
        ({"window_size": -4}, "--window_size"),
        ({"dropout": -0.1}, "--dropout"),
        ({"dropout": 1.0}, "--dropout"),
        ({"dropout": math.nan}, "--dropout"),
        ({"arch": "rnn"}, "--arch"),
        ({"positions": "sinus"}, "--positions"),
        ({"norm": "batch"}, "--norm"),
        ({"mlp": "relu"}, "--mlp"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused_by_its_flag(changes, named):
    with pytest.raises(ValueError, match=named) as refusal:
        ModelConfig(**SHAPE | changes)
    assert "\n" not in str(refusal.value)


def test_learned_positions_allow_heads_of_odd_size():
    assert make_model("gpt2", hidden_size=18)(random_ids(1, CONTEXT)).shape == (1, CONTEXT, VOCAB)


def test_a_switch_overrides_the_bundle_and_keeps_the_rest_of_it():
    config = ModelConfig(**SHAPE, arch="gpt2", positions="rotary", bias=False, tie_embeddings=False)
    assert (config.positions, config.bias, config.tie_embeddings) == ("rotary", False, False)
    assert (config.norm, config.mlp) == ("layer", "gelu")
    assert not [name for name, _ in Transformer(config).named_parameters() if name.endswith("bias")]


def test_a_config_can_be_restored_from_its_dictionary():
    config = ModelConfig(**SHAPE, arch="gpt2", mlp="swiglu", window_size=3)
    assert ModelConfig(**config.as_dict()) == config


@both
def test_tied_embeddings_share_one_tensor_which_is_counted_once(arch):
    tied, untied = make_model(arch), make_model(arch, tie_embeddings=False)
    extra = untied.state_dict().keys() - tied.state_dict().keys()
    assert len(extra) == 1 and untied.state_dict()[extra.pop()].shape == (VOCAB, SHAPE["hidden_size"])
    in_layers, in_all = tied.num_parameters()
    assert untied.num_parameters() == (in_layers, in_all + VOCAB * SHAPE["hidden_size"])
    assert in_all == sum(tensor.numel() for tensor in tied.state_dict().values())

    ids, unused = random_ids(1, CONTEXT) % (VOCAB - 1), VOCAB - 1
    for model in (tied, untied):
        before = model(ids)[..., unused]
        model.tokens.weight[unused] += 1.0
        assert torch.equal(model(ids)[..., unused], before) == (model is untied)


@both
def test_in_a_new_network_all_tokens_are_about_equally_likely(arch):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SHAPE | {"vocab_size": 500}, arch=arch))
    ids = torch.randint(500, (8, CONTEXT + 1))[:, :CONTEXT]
    assert model(ids, ids.roll(-1, 1)).item() / ids.numel() == pytest.approx(math.log(500), abs=0.05)


# What it computes -----------------------------------------------------------------------------------------------------


def textbook_rotary(x):
    """Rotate x (T, D): the pair (j, j + D/2) at position t is a complex number, rotated by t x 10,000^(-2j / D)."""
    length, size = x.shape
    speeds = 10_000.0 ** (-2 * torch.arange(size // 2).double() / size)
    angles = torch.arange(length).double()[:, None] * speeds
    turned = torch.complex(x[:, : size // 2], x[:, size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=1)


def textbook_logits(model, ids):
    """Compute the logits (T, V) of one row with the formulas of GPT-2 and Llama, head by head, in float64."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    gpt2 = model.config.arch == "gpt2"
    size = model.config.hidden_size // model.config.num_heads
    future = torch.arange(len(ids)) > torch.arange(len(ids))[:, None]

    def linear(x, name):
        return x @ weights[name + ".weight"].T + (weights[name + ".bias"] if gpt2 else 0)

    def norm(x, name):
        if gpt2:
            centred = x - x.mean(1, keepdim=True)
            variance = (centred**2).mean(1, keepdim=True)
            return centred / (variance + 1e-5) ** 0.5 * weights[name + ".weight"] + weights[name + ".bias"]
        return x / ((x**2).mean(1, keepdim=True) + 1e-5) ** 0.5 * weights[name + ".weight"]

    def attention(q, k, v):
        if not gpt2:
            q, k = textbook_rotary(q), textbook_rotary(k)
        scores = (q @ k.T / size**0.5).masked_fill(future, -math.inf).exp()
        return scores / scores.sum(1, keepdim=True) @ v

    x = weights["tokens.weight"][ids]
    if gpt2:
        x = x + weights["positions.weight"][: len(ids)]
    for block in (f"blocks.{layer}." for layer in range(model.config.num_layers)):
        q, k, v = linear(norm(x, block + "norm1"), block + "attention.qkv").chunk(3, dim=1)
        heads = [attention(*parts) for parts in zip(q.split(size, 1), k.split(size, 1), v.split(size, 1), strict=True)]
        x = x + linear(torch.cat(heads, dim=1), block + "attention.output")
        y = linear(norm(x, block + "norm2"), block + "feed_forward.up")
        if gpt2:
            y = 0.5 * y * (1 + torch.tanh((2 / math.pi) ** 0.5 * (y + 0.044715 * y**3)))
        else:
            gate, values = y.chunk(2, dim=1)
            y = gate / (1 + torch.exp(-gate)) * values
        x = x + linear(y, block + "feed_forward.down")
    return norm(x, "norm") @ weights["tokens.weight"].T


@both
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_a_bundle_computes_the_textbook_formulas(arch, heads):
    model, ids = make_model(arch, num_heads=heads).double(), random_ids(1, CONTEXT)
    assert_same(model(ids)[0], textbook_logits(model, ids[0]))


@both
def test_the_loss_is_the_cross_entropy_of_the_targets_that_are_not_ignored(arch):
    model = make_model(arch)
    ids = random_ids(3, CONTEXT)
    targets = random_ids(3, CONTEXT, seed=1)
    targets[0, 4:] = targets[1, ::2] = IGNORED
    surprises = -model(ids).log_softmax(-1)
    kept = targets != IGNORED
    expected = surprises[kept].gather(1, targets[kept][:, None]).sum()
    assert_same(model(ids, targets), expected)
    assert model(ids, torch.full_like(ids, IGNORED)).item() == 0.0


@pytest.mark.parametrize(
    ("arch", "window", "tied"),
    [  # every pair of values from two columns occurs
        ("gpt2", None, True), ("gpt2", 1, False), ("gpt2", 5, True),
        ("llama", None, False), ("llama", 1, True), ("llama", 5, False),
    ],
)  # fmt: skip
def test_gradients_reach_every_parameter(arch, window, tied):
    model = make_model(arch, window_size=window, tie_embeddings=tied)
    ids = random_ids(2, CONTEXT)
    with torch.enable_grad():
        model(ids, ids.roll(-1, 1)).backward()
    # All position embeddings are in one tensor: check its rows below.
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not untouched
    if arch == "gpt2":
        assert model.positions.weight.grad.any(dim=1).all()


# What a position sees -------------------------------------------------------------------------------------------------


@both
@with_and_without_window
def test_no_position_sees_the_future(arch, window):
    model, ids = make_model(arch, window_size=window), random_ids(1, CONTEXT)
    before = model(ids)
    for place in range(CONTEXT):
        after = model(another(ids, 0, place))
        assert_same(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place], before[:, place], atol=1e-2)


@both
def test_every_position_sees_all_earlier_ones(arch):
    model, ids = make_model(arch), random_ids(1, CONTEXT)
    before = model(ids)[0]
    for place in range(CONTEXT):
        after = model(another(ids, 0, place))[0]
        assert all((after[later] - before[later]).abs().max() > 1e-3 for later in range(place, CONTEXT))


@both
@with_and_without_window
def test_no_row_sees_another(arch, window):
    model, ids = make_model(arch, window_size=window), random_ids(4, CONTEXT)
    together = model(ids)
    for row in range(4):
        assert_same(together[row], model(ids[row : row + 1])[0])


@both
@with_and_without_window
def test_padding_on_the_right_changes_nothing_for_the_tokens_before_it(arch, window):
    model, ids = make_model(arch, window_size=window), random_ids(2, CONTEXT)
    padded = ids.clone()
    padded[:, 5:] = 0
    assert_same(model(padded)[:, :5], model(ids[:, :5]))


@both
@pytest.mark.parametrize("window", [1, 2, 5, CONTEXT])
def test_a_window_contains_the_token_itself_and_those_right_before_it(arch, window):
    model, ids = make_model(arch, num_layers=1, window_size=window), random_ids(1, CONTEXT)
    before = model(ids)[0, -1]
    seen = [back for back in range(CONTEXT) if (model(another(ids, 0, -1 - back))[0, -1] - before).abs().max() > 1e-5]
    assert seen == list(range(window))


@both
def test_a_window_as_long_as_the_context_has_no_effect(arch):
    ids = random_ids(2, CONTEXT)
    assert_same(make_model(arch, window_size=CONTEXT)(ids), make_model(arch)(ids))


@both
def test_positions_beyond_the_context_are_an_error(arch):
    with pytest.raises(IndexError):
        make_model(arch)(random_ids(1, CONTEXT + 1))


# Dropout --------------------------------------------------------------------------------------------------------------


@both
def test_dropout_is_active_in_training_and_not_in_evaluation(arch):
    model, ids = make_model(arch, dropout=0.5), random_ids(2, CONTEXT)
    assert torch.equal(model(ids), make_model(arch)(ids))
    model.train()
    assert not torch.allclose(model(ids), model(ids), atol=1e-2)


@pytest.mark.parametrize("place", ["embeddings", "attention", "feed_forward"])
def test_dropout_applies_to_the_embeddings_and_to_additions_to_the_residual_stream(place):
    model = make_model("gpt2", dropout=0.5, num_layers=1, intermediate_size=16).train()
    for parameter in model.parameters():
        parameter.zero_()
    layer, identity = model.blocks[0], torch.eye(16)
    if place == "embeddings":
        model.tokens.weight.fill_(1.0)
    elif place == "attention":  # every value is 1, whatever the attention weights
        layer.attention.qkv.bias[-16:] = 1.0
        layer.attention.output.weight.copy_(identity)
    else:
        layer.feed_forward.up.bias.fill_(1.0)
        layer.feed_forward.down.weight.copy_(identity / F.gelu(torch.ones(1), approximate="tanh"))
    stream = []
    model.norm.register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0]))
    model(random_ids(40, CONTEXT))
    dropped = stream[0] == 0
    assert torch.allclose(stream[0][~dropped], torch.tensor(2.0))  # the kept ones are scaled up
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.03)


# The fast implementations of loss and attention -----------------------------------------------------------------------


@torch.enable_grad()
def loss_and_gradients(loss_of, dtype=torch.float32):
    """Return the loss of 50 positions, some ignored, and the gradients of hidden states and weight for half of it."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 32, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, 32, generator=generator, requires_grad=True)
    targets = torch.randint(VOCAB, (50,), generator=generator)
    targets[[0, 7, 8, 49]] = IGNORED
    half = dtype if dtype != torch.float32 else torch.bfloat16
    with torch.autocast("cpu", half, enabled=dtype != torch.float32):
        loss = loss_of(hidden, weight, targets)
    (0.5 * loss).backward()
    return loss.detach(), hidden.grad, weight.grad


def plain_cross_entropy(hidden, weight, targets):
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("positions", [1, 7, 50, 1000])
def test_the_loss_in_chunks_equals_the_plain_loss(positions, monkeypatch):
    monkeypatch.setattr(model_module, "CPU_LOGITS", positions * VOCAB)
    for mine, plain in zip(*map(loss_and_gradients, (CrossEntropy.apply, plain_cross_entropy)), strict=True):
        assert_same(mine, plain, 1e-4)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_the_loss_in_half_precision_sums_in_float32(dtype, rounding):
    for mine, plain in zip(
        loss_and_gradients(CrossEntropy.apply, dtype), loss_and_gradients(plain_cross_entropy), strict=True
    ):
        assert mine.dtype == torch.float32
        assert (mine - plain).norm() < rounding * plain.norm()


@torch.enable_grad()
def test_the_head_s_gradient_does_not_overflow_in_float16():
    """4,000 positions with one target each add 30; the largest float16 number is 65,504."""
    hidden = torch.full((4000, 2), 30.0, requires_grad=True)
    weight = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], requires_grad=True)
    targets = torch.ones(4000, dtype=torch.int64)
    with torch.autocast("cpu", torch.float16):
        CrossEntropy.apply(hidden, weight, targets).backward()
    expected = torch.tensor([[1.0, 1.0], [-1.0, -1.0]]) * 30 * 4000
    torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=0)


@torch.enable_grad()
def test_a_head_that_is_not_trained_gets_no_gradient():
    hidden, weight, targets = torch.randn(5, 4, requires_grad=True), torch.randn(VOCAB, 4), torch.arange(5)
    (of_hidden,) = torch.autograd.grad(CrossEntropy.apply(hidden, weight, targets), hidden)
    (expected,) = torch.autograd.grad(plain_cross_entropy(hidden, weight, targets), hidden)
    assert_same(of_hidden, expected, 1e-4)


@pytest.mark.parametrize(
    ("rows", "vocab_size", "on_cpu", "chunks"),
    [
        (16_384, 10_000, False, [4096] * 4), (16_385, 10_000, False, [3328, 3328, 3328, 3328, 3073]),
        (100, 50_257, False, [100]), (2048, 10_000, True, [205] * 9 + [203]), (3, 1 << 22, True, [1, 1, 1]),
        (0, 10_000, True, [0]),
    ],
)  # fmt: skip
def test_the_chunks_of_the_loss_are_even_and_on_a_gpu_multiples_of_128(rows, vocab_size, on_cpu, chunks):
    size = model_module.chunk_rows(rows, vocab_size, on_cpu)
    assert [len(chunk) for chunk in torch.zeros(rows).split(size)] == chunks
    assert on_cpu or size % 128 == 0


@torch.enable_grad()
def test_the_loss_of_logits_that_are_far_apart_is_finite():
    hidden = torch.tensor([[300.0]], requires_grad=True)
    loss = CrossEntropy.apply(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert loss == 600


@pytest.mark.parametrize("seen", ["causal", "masked", "a mask a row", "all"])
def test_attention_in_bfloat16_on_a_cpu_is_close_to_float32(seen):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=generator) for _ in range(3))
    shape = {"masked": (9, 9), "a mask a row": (2, 1, 9, 9)}.get(seen)
    mask = None if shape is None else (torch.rand(shape, generator=generator) < 0.5) | torch.eye(9, dtype=torch.bool)
    exact = attend(q, k, v, mask, seen == "causal")
    half = attend(*(t.bfloat16() for t in (q, k, v)), mask, seen == "causal")
    assert half.dtype == torch.bfloat16
    assert (half - exact).abs().max() < 0.03

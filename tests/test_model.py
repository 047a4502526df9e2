"""The network: what it computes, what each position may see, its cache, and how text is drawn from it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import model as model_module
from model import IGNORED, Cache, CrossEntropy, ModelConfig, Transformer, attend, draw, generate, probabilities

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
pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def make_model(arch="llama", **changes):
    """A tiny network whose weights are so large that every token it sees has a say in what it predicts."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SHAPE | {"arch": arch} | changes))
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def random_ids(*shape, seed=0):
    return torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(seed))


def random_prompts(*lengths):
    return [random_ids(length, seed=length).tolist() for length in lengths]


def another(ids, row, place):
    """The same ids, but for one token."""
    changed = ids.clone()
    changed[row, place] = (ids[row, place] + 1) % VOCAB
    return changed


def write(model, prompts, count, **options):
    """What generate yields, as one list a row."""
    return [list(row) for row in zip(*generate(model, prompts, count, **options), strict=True)]


def assert_same(one, other, tolerance=1e-5):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# The shape ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"num_heads": 6}, "--num_heads 6 does not divide"),
        ({"hidden_size": 18, "num_heads": 2}, "--num_heads"),  # a head of 9 has no pairs to turn
        ({"vocab_size": 0}, "--vocab_size"),
        ({"num_layers": 0}, "--num_layers"),
        ({"hidden_size": 0}, "--hidden_size"),
        ({"num_heads": 0}, "--num_heads"),
        ({"intermediate_size": -1}, "--intermediate_size"),
        ({"max_seq_len": 0}, "--max_seq_len"),
        ({"max_seq_len": 1}, "--max_seq_len"),  # nothing could be written past it
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


def test_learned_positions_take_heads_of_odd_size():
    assert make_model("gpt2", hidden_size=18)(random_ids(1, CONTEXT)).shape == (1, CONTEXT, VOCAB)


def test_a_switch_wins_over_the_bundle_and_leaves_the_rest_of_it():
    config = ModelConfig(**SHAPE, arch="gpt2", positions="rotary", bias=False, tie_embeddings=False)
    assert (config.positions, config.bias, config.tie_embeddings) == ("rotary", False, False)
    assert (config.norm, config.mlp) == ("layer", "gelu")
    assert not [name for name, _ in Transformer(config).named_parameters() if name.endswith("bias")]


def test_a_config_comes_back_from_its_dictionary():
    config = ModelConfig(**SHAPE, arch="gpt2", mlp="swiglu", window_size=3)
    assert ModelConfig(**config.as_dict()) == config


@both
def test_tied_embeddings_share_one_tensor_that_is_counted_once(arch):
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
def test_a_new_network_finds_all_tokens_about_equally_likely(arch):
    torch.manual_seed(0)
    model = Transformer(ModelConfig(**SHAPE | {"vocab_size": 500}, arch=arch))
    ids = torch.randint(500, (8, CONTEXT + 1))[:, :CONTEXT]
    assert model(ids, ids.roll(-1, 1)).item() / ids.numel() == pytest.approx(math.log(500), abs=0.05)


# What it computes -----------------------------------------------------------------------------------------------------


def textbook_rotary(x):
    """x (T, D): the pair (j, j + D/2) of position t is a complex number, turned by t x 10,000^(-2j / D)."""
    length, size = x.shape
    speeds = 10_000.0 ** (-2 * torch.arange(size // 2).double() / size)
    angles = torch.arange(length).double()[:, None] * speeds
    turned = torch.complex(x[:, : size // 2], x[:, size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((turned.real, turned.imag), dim=1)


def textbook_logits(model, ids):
    """The logits (T, V) of one row by the formulas of GPT-2 and Llama, head by head, in float64."""
    weights = {name: tensor.double() for name, tensor in model.state_dict().items()}
    gpt2, size = model.config.arch == "gpt2", model.config.hidden_size // model.config.num_heads
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
def test_a_bundle_computes_the_formulas_of_the_textbook(arch, heads):
    model, ids = make_model(arch, num_heads=heads).double(), random_ids(1, CONTEXT)
    assert_same(model(ids)[0], textbook_logits(model, ids[0]))


@both
def test_the_loss_is_the_cross_entropy_of_the_logits_where_a_target_is_not_ignored(arch):
    model, ids, targets = make_model(arch), random_ids(3, CONTEXT), random_ids(3, CONTEXT, seed=1)
    targets[0, 4:] = targets[1, ::2] = IGNORED
    surprises = -model(ids).log_softmax(-1)
    kept = targets != IGNORED
    expected = surprises[kept].gather(1, targets[kept][:, None]).sum()
    assert_same(model(ids, targets), expected)
    assert model(ids, torch.full_like(ids, IGNORED)).item() == 0.0


@both
@with_and_without_window
@pytest.mark.parametrize("tied", [True, False])
def test_gradients_reach_every_parameter(arch, window, tied):
    model, ids = make_model(arch, window_size=window, tie_embeddings=tied), random_ids(2, CONTEXT)
    with torch.enable_grad():
        model(ids, ids.roll(-1, 1)).backward()
    # The positions' are rows of one tensor: each has its own.
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
def test_every_position_sees_all_that_came_before_it(arch):
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
def test_a_window_holds_the_token_itself_and_those_next_before_it(arch, window):
    model, ids = make_model(arch, num_layers=1, window_size=window), random_ids(1, CONTEXT)
    before = model(ids)[0, -1]
    seen = [back for back in range(CONTEXT) if (model(another(ids, 0, -1 - back))[0, -1] - before).abs().max() > 1e-5]
    assert seen == list(range(window))


@both
def test_a_window_as_long_as_the_context_is_no_window(arch):
    ids = random_ids(2, CONTEXT)
    assert_same(make_model(arch, window_size=CONTEXT)(ids), make_model(arch)(ids))


@both
def test_there_is_no_position_beyond_the_context(arch):
    with pytest.raises(IndexError):
        make_model(arch)(random_ids(1, CONTEXT + 1))


# Dropout --------------------------------------------------------------------------------------------------------------


@both
def test_dropout_is_at_work_in_training_and_not_in_evaluation(arch):
    model, ids = make_model(arch, dropout=0.5), random_ids(2, CONTEXT)
    assert torch.equal(model(ids), make_model(arch)(ids))
    model.train()
    assert not torch.allclose(model(ids), model(ids), atol=1e-2)


@pytest.mark.parametrize("place", ["embeddings", "attention", "feed_forward"])
def test_dropout_is_on_the_embeddings_and_on_what_is_added_to_the_residual_stream(place):
    model = make_model("gpt2", dropout=0.5, num_layers=1, intermediate_size=16).train()
    for parameter in model.parameters():
        parameter.zero_()
    layer, identity = model.blocks[0], torch.eye(16)
    if place == "embeddings":
        model.tokens.weight.fill_(1.0)
    elif place == "attention":  # every value is 1, however attention weighs them
        layer.attention.qkv.bias[-16:] = 1.0
        layer.attention.output.weight.copy_(identity)
    else:
        layer.feed_forward.up.bias.fill_(1.0)
        layer.feed_forward.down.weight.copy_(identity / F.gelu(torch.ones(1), approximate="tanh"))
    stream = []
    model.norm.register_forward_pre_hook(lambda module, inputs: stream.append(inputs[0]))
    model(random_ids(40, CONTEXT))
    dropped = stream[0] == 0
    assert torch.allclose(stream[0][~dropped], torch.tensor(2.0))  # those that stay make up for those that go
    assert dropped.float().mean().item() == pytest.approx(0.5, abs=0.03)


# The cache ------------------------------------------------------------------------------------------------------------


@both
@with_and_without_window
@pytest.mark.parametrize("lengths", [(1, 4, 7), (3, 3, 3)])
def test_cached_logits_are_those_of_a_full_forward(arch, window, lengths):
    model, ids = make_model(arch, window_size=window), random_ids(3, CONTEXT)
    expected, cache, places = model(ids), Cache(model, 3), torch.tensor(lengths)
    logits = cache.fill([0, 1, 2], [row[:length].tolist() for row, length in zip(ids, lengths, strict=True)])
    while True:
        assert_same(logits, expected[range(3), places - 1])
        if places.max() == CONTEXT:
            break
        logits = cache.step(ids[range(3), places])
        places += 1


@both
def test_a_row_that_starts_again_leaves_the_others_alone(arch):
    model, ids = make_model(arch), random_ids(3, CONTEXT)
    expected, cache = model(ids), Cache(model, 3)
    cache.fill([0, 1, 2], ids[:, :6].tolist())
    assert_same(cache.fill([1], [ids[1, :2].tolist()]), expected[1:2, 1])
    assert_same(cache.step(ids[range(3), [6, 2, 6]]), expected[range(3), [6, 2, 6]])


@both
@with_and_without_window
@pytest.mark.parametrize("lengths", [(1, 7, CONTEXT), (4, 4, 4), (CONTEXT,)])
def test_cached_and_uncached_generation_give_the_same_tokens(arch, window, lengths):
    model, prompts = make_model(arch, window_size=window), random_prompts(*lengths)
    cached = write(model, prompts, 4 * CONTEXT)
    assert cached == write(model, prompts, 4 * CONTEXT, use_cache=False)
    assert all(len(set(row)) > 5 for row in cached)


@both
@with_and_without_window
def test_past_the_context_a_row_goes_on_from_its_newest_half(arch, window):
    model, (prompt,) = make_model(arch, window_size=window), random_prompts(5)
    seen, expected = list(prompt), []
    for _ in range(3 * CONTEXT):
        expected.append(model(torch.tensor([seen]))[0, -1].argmax().item())
        if len(seen) == CONTEXT:
            seen = seen[CONTEXT // 2 :]
        seen.append(expected[-1])
    assert write(model, [prompt], 3 * CONTEXT, temperature=0) == [expected]


@pytest.mark.parametrize("context", [2, 3])
def test_the_smallest_contexts_can_be_written_past(context):
    (text,) = write(make_model(max_seq_len=context), [[3]], 9)
    assert len(text) == 9


# The loss and attention in their fast forms ---------------------------------------------------------------------------


@torch.enable_grad()
def loss_and_gradients(loss_of, dtype=torch.float32):
    """The loss of 50 positions, some not predicted, times 0.5, and the gradients of both factors."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(50, 32, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, 32, generator=generator, requires_grad=True)
    targets = torch.randint(VOCAB, (50,), generator=generator)
    targets[[0, 7, 8, 49]] = IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        loss = loss_of(hidden, weight, targets)
    (0.5 * loss).backward()
    return loss.detach(), hidden.grad, weight.grad


def plain_cross_entropy(hidden, weight, targets):
    return F.cross_entropy(F.linear(hidden, weight).float(), targets, ignore_index=IGNORED, reduction="sum")


@pytest.mark.parametrize("positions", [1, 7, 50, 1000])
def test_the_loss_in_chunks_is_the_plain_loss(positions, monkeypatch):
    monkeypatch.setitem(model_module.CHUNK_LOGITS, "cpu", positions * VOCAB)
    for mine, plain in zip(*map(loss_and_gradients, (CrossEntropy.apply, plain_cross_entropy)), strict=True):
        assert_same(mine, plain, 1e-4)


def test_the_loss_in_bfloat16_sums_in_float32():
    for mine, plain in zip(
        loss_and_gradients(CrossEntropy.apply, torch.bfloat16), loss_and_gradients(plain_cross_entropy), strict=True
    ):
        assert mine.dtype == torch.float32
        assert (mine - plain).norm() < 0.02 * plain.norm()


@torch.enable_grad()
def test_the_loss_of_logits_far_apart_is_finite():
    hidden = torch.tensor([[300.0]], requires_grad=True)
    loss = CrossEntropy.apply(hidden, torch.tensor([[1.0], [-1.0]]), torch.tensor([1]))
    assert loss == 600


@pytest.mark.parametrize("seen", ["causal", "masked", "a mask a row", "all"])
def test_attention_in_bfloat16_on_a_cpu_is_attention(seen):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, generator=generator) for _ in range(3))
    shape = {"masked": (9, 9), "a mask a row": (2, 1, 9, 9)}.get(seen)
    mask = None if shape is None else (torch.rand(shape, generator=generator) < 0.5) | torch.eye(9, dtype=torch.bool)
    exact = attend(q, k, v, mask, seen == "causal")
    half = attend(*(t.bfloat16() for t in (q, k, v)), mask, seen == "causal")
    assert half.dtype == torch.bfloat16
    assert (half - exact).abs().max() < 0.03


def test_weights_in_bfloat16_write_from_a_cache_that_is_float32():
    model, prompts = make_model().bfloat16(), random_prompts(2, 5)
    assert Cache(model, 2).keys.dtype == torch.float32
    text = write(model, prompts, 3 * CONTEXT)
    assert len(text) == 2 and all(0 <= token < VOCAB for row in text for token in row)


# Drawing --------------------------------------------------------------------------------------------------------------


def spread(logits, **options):
    """The chances of all tokens (B, V), those that may not be drawn with 0."""
    chances, tokens = probabilities(logits, **options)
    return chances if tokens is None else torch.zeros_like(logits).scatter(-1, tokens, chances)


def random_logits(rows=50):
    return 3 * torch.randn(rows, VOCAB, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0}, {"temperature": 0.3}, {"top_k": 5}, {"top_p": 0.7}, {"top_k": 9, "top_p": 0.9}]
)
def test_probabilities_sum_to_1(options):
    chances = spread(random_logits(), **options)
    assert (chances >= 0).all()
    assert_same(chances.sum(-1), torch.ones(50))


def test_temperature_divides_the_logits_and_0_takes_the_likeliest_token():
    logits = random_logits()
    assert_same(spread(logits), logits.softmax(-1))
    assert_same(spread(logits, temperature=2.0), (logits / 2).softmax(-1))
    assert torch.equal(spread(logits, temperature=0), F.one_hot(logits.argmax(-1), VOCAB).float())


@pytest.mark.parametrize("k", [1, 4, VOCAB, VOCAB + 10])
def test_top_k_leaves_the_k_likeliest_tokens_in_their_proportions(k):
    logits = random_logits()
    chances, k = spread(logits, top_k=k), min(k, VOCAB)
    assert ((chances > 0).sum(-1) == k).all()
    kept = logits.softmax(-1).topk(k).values
    assert_same(chances.topk(k).values, kept / kept.sum(-1, keepdim=True))


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_leaves_the_fewest_tokens_that_have_at_least_p(p):
    logits = random_logits()
    for chances, full in zip(spread(logits, top_p=p), logits.softmax(-1), strict=True):
        kept = chances > 0
        assert full[kept].sum() >= p - 1e-6
        assert full[kept].sum() - full[kept].min() < p
        assert not kept.all() and full[kept].min() >= full[~kept].max()
        assert_same(chances[kept], full[kept] / full[kept].sum())


def test_draw_takes_tokens_as_often_as_they_are_likely():
    count, chances = 20_000, torch.tensor([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
    uniform = torch.from_numpy(np.random.default_rng(0).random(count, np.float32))
    drawn = torch.bincount(draw(chances.expand(count, -1), None, uniform), minlength=len(chances))
    spread = (count * chances * (1 - chances)).sqrt()
    assert ((drawn - count * chances).abs() <= 4 * spread).all()


@pytest.mark.parametrize("uniform", [0.0, float(np.nextafter(np.float32(1), np.float32(0)))])
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 3}, {"top_p": 0.6}])
def test_draw_never_takes_a_token_of_probability_0(uniform, options):
    logits = random_logits(500)
    logits[:, [0, 1, VOCAB - 1]] = -math.inf
    drawn = draw(*probabilities(logits, **options), torch.full((500,), uniform))
    assert (spread(logits, **options)[range(500), drawn] > 0).all()


# Writing --------------------------------------------------------------------------------------------------------------


def test_the_same_seed_writes_the_same_text_and_another_one_another():
    model, prompts = make_model(), random_prompts(2, 5)
    text = write(model, prompts, 30, seed=1)
    assert text == write(model, prompts, 30, seed=1)
    other = write(model, prompts, 30, seed=2)
    assert text[0] != other[0] and text[1] != other[1]
    same_prompt_twice = write(model, [prompts[0]] * 2, 30, seed=1)
    assert same_prompt_twice[0] != same_prompt_twice[1]


@both
@with_and_without_window
def test_the_text_of_a_row_does_not_depend_on_the_rows_beside_it(arch, window):
    model = make_model(arch, window_size=window)
    one, other, long, prompt = random_prompts(1, 6, CONTEXT, 4)
    alone = write(model, [one, prompt], 3 * CONTEXT)[1]
    assert alone == write(model, [other, prompt, long, one], 3 * CONTEXT)[1]
    assert alone == write(model, [prompt, prompt], 3 * CONTEXT)[1]


def test_temperature_top_k_and_top_p_are_heeded():
    model, prompts = make_model(), random_prompts(3, 3)
    likeliest = write(model, prompts, 20, temperature=0)
    assert likeliest == write(model, prompts, 20, top_k=1) == write(model, prompts, 20, top_p=1e-6)
    assert likeliest != write(model, prompts, 20)


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_banned_tokens_never_appear(temperature):
    model, prompts = make_model(), random_prompts(3, 3)
    free = set(sum(write(model, prompts, 40, temperature=temperature), []))
    banned = set(sorted(free)[::2])
    text = set(sum(write(model, prompts, 40, temperature=temperature, banned=banned), []))
    assert text and not text & banned


def test_a_row_is_over_after_its_end_and_the_writing_when_all_are():
    model, prompts = make_model(), random_prompts(2, 5, 7)
    endless = write(model, prompts, 60)
    end = next(token for token in range(VOCAB) if len({row.index(token) for row in endless if token in row}) == 3)
    lengths = [row.index(end) + 1 for row in endless]
    expected = [row[:n] + [None] * (max(lengths) - n) for row, n in zip(endless, lengths, strict=True)]
    assert write(model, prompts, 60, end=end) == expected


def test_min_new_tokens_delays_the_end():
    model, (prompt,) = make_model(), random_prompts(4)
    (text,) = write(model, [prompt], 20, temperature=0)
    end = text[0]
    assert write(model, [prompt], 20, temperature=0, end=end) == [[end]]
    (text,) = write(model, [prompt], 20, temperature=0, end=end, min_new_tokens=6)
    assert end not in text[:6] and len(text) > 6

    for parameter in model.parameters():  # now all tokens are equally likely, and the first allowed one is taken
        parameter.zero_()
    assert write(model, [prompt], 20, temperature=0, end=0, banned=[1], min_new_tokens=6) == [[2] * 6 + [0]]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_no_more_than_max_new_tokens_are_written(count):
    assert len(list(generate(make_model(), random_prompts(3), count))) == count


@pytest.mark.parametrize("length", [0, CONTEXT + 1])
def test_a_prompt_that_is_empty_or_longer_than_the_context_is_refused(length):
    with pytest.raises(ValueError, match=f"1 to {CONTEXT} tokens"):
        list(generate(make_model(), [[1, 2], [1] * length], 5))

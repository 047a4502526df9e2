"""formats/quantized.py: rounded weights are as near as their scale allows, and need as many bytes as it counts."""

import copy

import pytest
import torch
from formats.quantized import FLOAT16, FORMATS, Format, dequantize, quantize, round_weights
from tiny import make_model, random_ids

from model import IGNORED

formats = pytest.mark.parametrize("name", FORMATS)
SHAPES = [(3, 64), (5, 130), (4, 1), (2, 63), (1, 65)]  # with columns that are not a multiple of a group


def random_weight(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(shape[1]))


def scale_of_each_weight(scales, how, columns):
    """Return the scale of each weight (rows, columns): column c belongs to group c / group."""
    group = how.group or columns
    return torch.stack([scales[:, column // group] for column in range(columns)], dim=1)


@formats
@pytest.mark.parametrize("shape", SHAPES)
def test_a_rounded_weight_is_at_most_half_a_scale_away(name, shape):
    how = FORMATS[name]
    weight = random_weight(*shape)
    integers, scales = quantize(weight, how)
    rounded = dequantize(integers, scales, how)
    assert integers.shape == rounded.shape == shape and integers.dtype == torch.int8
    assert integers.abs().max() == how.largest
    error = (rounded - weight).abs()
    assert (error <= scale_of_each_weight(scales, how, shape[1]) * 0.50001).all()
    if shape[1] > 1:
        assert error.max() > 0  # it did round


@formats
def test_the_largest_weight_of_a_group_stays_what_it_is(name):
    how = FORMATS[name]
    weight = random_weight(3, 128)
    rounded = dequantize(*quantize(weight, how), how)
    for group in range(0, 128, how.group or 128):
        columns = slice(group, group + (how.group or 128))
        largest = weight[:, columns].abs().amax(1)
        torch.testing.assert_close(rounded[:, columns].abs().amax(1), largest)


def test_each_row_has_a_scale_with_8_bits_and_each_64_weights_with_4():
    weight = random_weight(5, 130)
    assert quantize(weight, FORMATS["int8"])[1].shape == (5, 1)
    assert quantize(weight, FORMATS["int4"])[1].shape == (5, 3)
    weight[:, :64] *= 1000
    rounded = dequantize(*quantize(weight, FORMATS["int4"]), FORMATS["int4"])
    assert (rounded[:, 64:] - weight[:, 64:]).abs().max() < 0.5  # another group's large weights do not matter


def test_the_example_in_the_docstring_is_right():
    weight = torch.tensor([[0.30, -0.11, 0.02, -0.48]])
    integers, scales = quantize(weight, Format(8))
    assert integers.tolist() == [[79, -29, 5, -127]] and scales.item() == pytest.approx(0.00378, abs=1e-5)


@formats
def test_rows_and_groups_of_zeros_stay_zeros(name):
    weight = random_weight(3, 128)
    weight[1] = 0
    weight[2, :64] = 0
    rounded = dequantize(*quantize(weight, FORMATS[name]), FORMATS[name])
    assert rounded.isfinite().all() and (rounded[weight == 0] == 0).all()


@formats
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_is_rounded_once_and_its_bytes_are_counted(name, tied):
    how = FORMATS[name]
    model = make_model(tie_embeddings=tied)
    before = copy.deepcopy(model)
    size = round_weights(model, name)
    expected = 0
    for (part, rounded), original in zip(model.named_parameters(), before.parameters(), strict=True):
        if original.dim() == 1:
            assert torch.equal(rounded, original), part  # norms stay
            expected += 4 * original.numel()
        else:
            rows, columns = original.shape
            assert torch.equal(rounded, dequantize(*quantize(original, how), how)), part
            expected += rows * columns * how.bits // 8 + 4 * rows * -(-columns // (how.group or columns))
    assert size == expected and size < 4 * model.num_parameters()[1] / 2
    assert (model.head_weight() is model.tokens.weight) == tied


@torch.no_grad()
def test_fewer_bits_change_the_loss_more():
    ids = random_ids(4, 12)
    targets = torch.cat((ids[:, 1:], torch.full((4, 1), IGNORED)), dim=1)
    original = make_model()(ids, targets)
    changes = []
    for name in (FLOAT16, "int8", "int4"):
        model = make_model()
        round_weights(model, name)
        changes.append((model(ids, targets) - original).abs().item())
    assert 0 < changes[0] < changes[1] < changes[2]


def test_16_bits_are_half_the_size():
    model = make_model()
    assert round_weights(model, FLOAT16) == 2 * model.num_parameters()[1]
    assert all(torch.equal(parameter, parameter.half().float()) for parameter in model.parameters())

"""The part rotary of an assignment: pairs of numbers are complex numbers that turn with the position."""

import cmath

import pytest
import torch

from model import rotary_table, rotate

LENGTH = 5
SIZE = 6
BASE = 100.0


def turn(position, pair):
    """Return the complex number of length 1 that rotates a pair at a position."""
    return cmath.exp(1j * position * BASE ** (-2 * pair / SIZE))


def rotated(numbers, position):
    """Rotate the numbers of a head, a list: number i and number i + D / 2 are one complex number."""
    half = len(numbers) // 2
    turned = [complex(numbers[pair], numbers[pair + half]) * turn(position, pair) for pair in range(half)]
    return [number.real for number in turned] + [number.imag for number in turned]


def table_by_hand():
    """Return cosines and sines (T, D) as the docstring of `rotary_table` describes them."""
    turns = [[turn(position, pair) for pair in range(SIZE // 2)] for position in range(LENGTH)]
    cos = [[number.real for number in row] * 2 for row in turns]
    sin = [[-number.imag for number in row] + [number.imag for number in row] for row in turns]
    return torch.tensor(cos), torch.tensor(sin)


def random_heads(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_the_table_has_the_cosines_and_the_sines_with_their_signs():
    cos, sin = rotary_table(SIZE, LENGTH, BASE)
    expected_cos, expected_sin = table_by_hand()
    assert cos.shape == sin.shape == (LENGTH, SIZE) and cos.dtype == sin.dtype == torch.float32
    torch.testing.assert_close(cos, expected_cos)
    torch.testing.assert_close(sin, expected_sin)


def test_rotate_multiplies_complex_numbers():
    x = random_heads(2, 3, LENGTH, SIZE)
    cos, sin = table_by_hand()
    result = rotate(x, cos[None, None], sin[None, None])
    for row in range(2):
        for head in range(3):
            for position in range(LENGTH):
                expected = rotated(x[row, head, position].tolist(), position)
                assert result[row, head, position].tolist() == pytest.approx(expected, abs=1e-5)


def test_rotate_keeps_the_number_format():
    cos, sin = table_by_hand()
    x = random_heads(1, 2, LENGTH, SIZE).bfloat16()
    assert rotate(x, cos[None, None], sin[None, None]).dtype == torch.bfloat16


def test_the_product_of_a_query_and_a_key_depends_only_on_their_distance():
    cos, sin = rotary_table(SIZE, LENGTH, BASE)
    q, k = (vector.expand(1, 1, LENGTH, SIZE) for vector in random_heads(2, SIZE))
    products = (rotate(q, cos, sin) @ rotate(k, cos, sin).mT)[0, 0]  # (T, T)
    for distance in range(1 - LENGTH, LENGTH):
        of_distance = products.diagonal(distance)
        torch.testing.assert_close(of_distance, of_distance[:1].expand_as(of_distance), rtol=1e-4, atol=1e-4)
    assert products.diagonal(1)[0] != pytest.approx(products.diagonal(0)[0].item(), abs=1e-3)

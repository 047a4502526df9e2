"""Computing ahead: results come in order and not too early; an error is raised when the result is used."""

import pytest

from common.prefetch import computed_ahead


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_results_computed_ahead_come_in_order_and_not_too_early(ahead, count):
    taken = []

    def items():
        for number in range(count):
            taken.append(number)
            yield number

    for number, result in enumerate(computed_ahead(lambda number: number * 10, items(), ahead)):
        assert result == number * 10
        assert len(taken) <= number + 1 + ahead
    assert len(taken) == count


def test_an_error_while_computing_ahead_is_raised_when_the_result_is_used():
    results = computed_ahead(lambda number: 1 // number, [2, 1, 0, 1])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)

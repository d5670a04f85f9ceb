"""Axes: where values lie (NumPy is the oracle), and that ticks are round, even and true."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lpsnet.report.charts import Axis

FINITE = st.floats(-1e9, 1e9, allow_subnormal=False).filter(lambda value: value == 0 or abs(value) > 1e-9)
POSITIVE = st.floats(1e-6, 1e9)


@given(st.lists(FINITE, min_size=1, max_size=20), st.booleans())
def test_every_value_has_its_place_and_ticks_are_true(values: list[float], with_zero: bool) -> None:
    with_zero = with_zero and min(values) >= 0
    axis = Axis.around(values, with_zero=with_zero).between(300, 20)
    for value in values:
        assert 20 - 1e-6 <= axis.at(value) <= 300 + 1e-6
        expected = np.interp(value, (axis.low, axis.high), (300, 20))
        assert axis.at(value) == pytest.approx(expected, abs=1e-6)
    assert not with_zero or axis.low == 0
    ticks = [value for value, _ in axis.ticks()]
    assert 2 <= len(ticks) <= 12
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0], rtol=1e-6)
    assert _leading(steps[0]) in (1, 2, 2.5, 5)
    room = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - room <= tick <= axis.high + room for tick in ticks)
    for value, text in axis.ticks():
        assert float(text.replace(",", "")) == pytest.approx(value, abs=max(1e-9, 1e-6 * steps[0]))


@given(st.lists(POSITIVE, min_size=1, max_size=20))
def test_ratios(values: list[float]) -> None:
    axis = Axis.ratios(values).between(0, 100)
    for value in values:
        expected = np.interp(math.log(value), (math.log(axis.low), math.log(axis.high)), (0, 100))
        assert axis.at(value) == pytest.approx(expected, abs=1e-6)
    ticks = [value for value, _ in axis.ticks()]
    assert len(ticks) >= 2
    assert ticks == sorted(ticks)


def test_ratios_over_decades_have_ticks_at_1_2_5() -> None:
    assert [text for _, text in Axis(0.9, 21.0, logarithmic=True).ticks()] == ["1", "2", "5", "10", "20"]


def test_an_end_that_nothing_lies_beyond_ends_the_axis() -> None:
    assert Axis.around([60.0, 99.0], top=100.0).high == 100.0
    assert Axis.around([60.0, 101.0], top=100.0).high > 101.0


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [5.0], [-3.0, -3.0]])
def test_few_values_make_an_axis_too(values: list[float]) -> None:
    axis = Axis.around(values)
    assert all(axis.low <= value <= axis.high for value in values if math.isfinite(value))
    assert len(axis.ticks()) >= 2


def _leading(step: float) -> float:
    """1, 2, 2.5 or 5 of a round step."""
    return round(step / 10 ** math.floor(math.log10(step) + 1e-9), 6)

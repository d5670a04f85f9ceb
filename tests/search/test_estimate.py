"""Medians and intervals against the binomial distribution, simulation and a drifting machine."""

import random
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.search.measurements import absolute, compared

times = st.floats(0.1, 100)


repetitions = st.integers(1, 4).flatmap(
    lambda designs: st.lists(st.lists(times, min_size=designs, max_size=designs), min_size=1, max_size=12)
)


@settings(deadline=None)
@given(repetitions, st.data())
def test_what_slows_a_whole_repetition_down_drops_out(rows: list[list[float]], data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.floats(0.5, 4), min_size=len(rows), max_size=len(rows)))
    slowed = [[time * factor for time in row] for row, factor in zip(rows, factors, strict=True)]
    before, after = compared(rows), compared(slowed)
    for one, other in zip(before, after, strict=True):
        for name in ("median_ms", "low_ms", "high_ms"):
            ratio, other_ratio = getattr(one, name) / before[0].median_ms, getattr(other, name) / after[0].median_ms
            assert ratio == pytest.approx(other_ratio)


def test_a_small_difference_under_a_large_drift_is_seen() -> None:
    """2 % between two networks, repetitions up to twice as slow: clear when compared, invisible in absolute times."""
    dice = random.Random(3)
    rows = []
    for _ in range(21):
        slower = dice.uniform(1, 2)
        rows.append([10 * slower * dice.uniform(0.997, 1.003), 10.2 * slower * dice.uniform(0.997, 1.003)])
    first, second = compared(rows)
    assert second.low_ms > first.high_ms
    assert second.median_ms / first.median_ms == pytest.approx(1.02, abs=0.003)
    alone_first, alone_second = absolute(rows)
    assert alone_second.low_ms < alone_first.high_ms


@settings(deadline=None)
@given(repetitions)
def test_against_plain_python(rows: list[list[float]]) -> None:
    columns = list(zip(*rows, strict=True))
    assert [it.median_ms for it in absolute(rows)] == pytest.approx([median(column) for column in columns])
    unit = median(columns[0])
    expected = [unit, *(unit * median([t / b for t, b in zip(c, columns[0], strict=True)]) for c in columns[1:])]
    found = compared(rows)
    assert [it.median_ms for it in found] == pytest.approx(expected)
    assert found[0].low_ms == found[0].high_ms == unit

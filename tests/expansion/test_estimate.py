"""Medians and intervals against the binomial distribution, simulation and a drifting machine."""

import random
from statistics import NormalDist, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.expansion.estimate import absolute, compared, median_interval

times = st.floats(0.1, 100)


@pytest.mark.parametrize(
    ("num_samples", "left_out"),
    [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5), (25, 7), (30, 9), (50, 17), (100, 39)],
)
def test_the_ranks_of_the_sign_test_table(num_samples: int, left_out: int) -> None:
    """The ranks of the 95 % interval of a median, from the usual tables of the sign test (r = left_out + 1)."""
    samples = [float(i) for i in range(num_samples)]
    random.Random(0).shuffle(samples)
    assert median_interval(samples) == (median(samples), float(left_out), float(num_samples - 1 - left_out))


def test_the_interval_holds_the_true_median_19_times_in_20() -> None:
    dice = random.Random(1)
    draws = [median_interval([dice.expovariate(1.0) for _ in range(21)]) for _ in range(4_000)]
    held = sum(low <= 0.693147 <= high for _, low, high in draws)
    assert held / 4_000 > 0.95 - 3 * (0.95 * 0.05 / 4_000) ** 0.5


def test_many_samples_are_near_the_normal_approximation() -> None:
    size = 3_000
    _, low, high = median_interval([float(i) for i in range(size)])
    assert low == pytest.approx(size / 2 - NormalDist().inv_cdf(0.975) * size**0.5 / 2, abs=2)
    assert high == size - 1 - low


passes = st.integers(1, 4).flatmap(
    lambda designs: st.lists(st.lists(times, min_size=designs, max_size=designs), min_size=1, max_size=12)
)


@settings(deadline=None)
@given(passes, st.data())
def test_what_slows_a_whole_pass_down_drops_out(rows: list[list[float]], data: st.DataObject) -> None:
    factors = data.draw(st.lists(st.floats(0.5, 4), min_size=len(rows), max_size=len(rows)))
    slowed = [[time * factor for time in row] for row, factor in zip(rows, factors, strict=True)]
    before, after = compared(rows), compared(slowed)
    for one, other in zip(before, after, strict=True):
        for name in ("median_ms", "low_ms", "high_ms"):
            ratio, other_ratio = getattr(one, name) / before[0].median_ms, getattr(other, name) / after[0].median_ms
            assert ratio == pytest.approx(other_ratio)


def test_a_small_difference_under_a_large_drift_is_seen() -> None:
    """2 % between two networks, passes up to twice as slow: clear when compared, invisible in absolute times."""
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
@given(passes)
def test_against_plain_python(rows: list[list[float]]) -> None:
    columns = list(zip(*rows, strict=True))
    assert [it.median_ms for it in absolute(rows)] == pytest.approx([median(column) for column in columns])
    unit = median(columns[0])
    expected = [unit, *(unit * median([t / b for t, b in zip(c, columns[0], strict=True)]) for c in columns[1:])]
    found = compared(rows)
    assert [it.median_ms for it in found] == pytest.approx(expected)
    assert found[0].low_ms == found[0].high_ms == unit

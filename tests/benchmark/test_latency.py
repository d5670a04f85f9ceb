"""Figures made of samples, against NumPy, exact binomial sums and samples whose median is known."""

import json
import math
import random
from statistics import NormalDist

import numpy as np
import pytest

from lpsnet.agent import median_interval
from lpsnet.benchmark.timing import Latency, compare
from lpsnet.errors import RunError


def latency(*turns: float | tuple[float, ...], run_id: str = "run") -> Latency:
    return Latency(tuple(turn if isinstance(turn, tuple) else (turn,) for turn in turns), run_id=run_id)


def exact(number: int, confidence: float) -> tuple[int, float]:
    """The largest k with P(k-th smallest <= median <= k-th largest) >= confidence, by counting subsets."""
    best, below = (1, 1 - 2 / 2**number), 0
    for k in range(1, number // 2 + 1):
        below += math.comb(number, k - 1)
        if 1 - 2 * below / 2**number >= confidence:
            best = (k, 1 - 2 * below / 2**number)
    return best


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_the_interval_is_that_of_the_binomial_distribution(confidence: float) -> None:
    for number in (*range(1, 60), 100, 301, 600):
        low, high, reached = median_interval(list(range(number, 0, -1)), confidence)
        rank, held = exact(number, confidence)
        assert (low, high) == (rank, number + 1 - rank)
        assert reached == pytest.approx(held, abs=1e-9)


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for number in (8, 25):
        draws = rng.exponential(size=(4000, number))  # lopsided, as latencies are; its median is ln 2
        intervals = [median_interval(draw.tolist(), 0.95) for draw in draws]
        held = np.mean([low <= math.log(2) <= high for low, high, _ in intervals])
        assert held == pytest.approx(intervals[0][2], abs=0.015)
        assert held >= 0.94


@pytest.mark.parametrize(
    ("num_samples", "left_out"),
    [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (15, 3), (20, 5), (25, 7), (30, 9), (50, 17), (100, 39)],
)
def test_the_ranks_of_the_sign_test_table(num_samples: int, left_out: int) -> None:
    """The ranks of the 95 % interval of a median, from the usual tables of the sign test (r = left_out + 1)."""
    samples = [float(i) for i in range(num_samples)]
    random.Random(0).shuffle(samples)
    low, high, _ = median_interval(samples, 0.95)
    assert (low, high) == (left_out, num_samples - 1 - left_out)


def test_many_samples_are_near_the_normal_approximation() -> None:
    size = 3_000
    low, high, _ = median_interval([float(i) for i in range(size)], 0.95)
    assert low == pytest.approx(size / 2 - NormalDist().inv_cdf(0.975) * size**0.5 / 2, abs=2)
    assert high == size - 1 - low


def test_few_rounds_admit_that_they_are_few() -> None:
    assert median_interval([3.0], 0.95) == (3.0, 3.0, 0.0)
    assert median_interval([3.0, 1.0, 2.0, 5.0, 4.0], 0.95) == (1.0, 5.0, 0.9375)
    assert latency(1.0, 2.0, 3.0).interval_confidence == 0.75
    assert latency(1.0, 2.0, 3.0).interval_ms == (1.0, 3.0)


def test_figures_are_numpys() -> None:
    rng = np.random.default_rng(1)
    turns = tuple(tuple(rng.lognormal(size=rng.integers(1, 5)).tolist()) for _ in range(40))
    samples = np.concatenate([np.array(turn) for turn in turns])
    figures = Latency(turns)
    assert figures.median_ms == pytest.approx(np.median(samples))
    assert figures.mean_ms == pytest.approx(samples.mean())
    assert figures.p90_ms == pytest.approx(np.percentile(samples, 90))
    assert figures.iqr_ms == pytest.approx(np.subtract(*np.percentile(samples, (75, 25))))
    assert figures.min_ms == samples.min()
    assert (figures.num_samples, figures.num_rounds) == (len(samples), 40)
    assert figures.samples_ms == tuple(samples)
    low, high = figures.interval_ms
    assert low <= figures.median_ms <= high


def test_the_interval_holds_the_median_of_all_samples() -> None:
    """The turns' medians are 9; that of all samples is 1."""
    figures = latency(9.0, 9.0, (1.0,) * 9, 9.0, 9.0)
    assert figures.median_ms == 1.0
    assert figures.interval_ms == (1.0, 9.0)


def test_json_keys_carry_their_units() -> None:
    figures = latency(1.0, (2.0, 3.0))
    text = json.loads(json.dumps(figures.to_dict()))
    assert text["median_ms"] == 2.0
    assert text["turns_ms"] == [[1.0], [2.0, 3.0]]
    assert text["median_interval_ms"] == [1.0, 2.5]
    assert text["run_id"] == "run"
    assert {key for key in text if not key.endswith("_ms")} == {
        "median_interval_confidence", "num_samples", "num_rounds", "num_discarded_rounds", "target_reached", "run_id",
    }  # fmt: skip
    assert "turns_ms" not in figures.to_dict(samples=False)


def test_a_latency_without_samples_is_none() -> None:
    for turns in ((), ((1.0,), ())):
        with pytest.raises(RunError, match="at least one sample"):
            Latency(turns)


def test_pairs_tell_apart_what_the_machine_blurs() -> None:
    """The machine is up to five times slower at times; A takes 10 % less than B throughout."""
    rng = np.random.default_rng(2)
    machine = rng.uniform(1, 5, 30)
    a = latency(*(9.0 * machine * rng.uniform(0.99, 1.01, 30)))
    b = latency(*(10.0 * machine * rng.uniform(0.99, 1.01, 30)))
    assert a.interval_ms[1] > b.interval_ms[0]  # by themselves they do not differ clearly
    verdict = compare(a, b)
    assert verdict.verdict == "A faster"
    assert verdict.ratio == pytest.approx(0.9, abs=0.01)
    assert verdict.interval[0] < verdict.ratio < verdict.interval[1] < 1
    assert compare(b, a).verdict == "B faster"
    assert compare(a, a).verdict == "cannot tell apart"


def test_noise_is_not_decided() -> None:
    rng = np.random.default_rng(3)
    decided = 0
    for _ in range(300):
        a, b = (latency(*rng.lognormal(0, 0.3, 20)) for _ in range(2))
        decided += compare(a, b).verdict != "cannot tell apart"
    assert decided / 300 < 0.08  # 5 % are expected at a confidence of 0.95


def test_too_few_rounds_decide_nothing() -> None:
    verdict = compare(latency(*[1.0] * 5), latency(*[2.0] * 5))
    assert (verdict.ratio, verdict.interval, verdict.confidence) == (0.5, (0.5, 0.5), 0.9375)
    assert verdict.verdict == "cannot tell apart"
    assert compare(latency(*[1.0] * 6), latency(*[2.0] * 6)).verdict == "A faster"
    assert json.loads(json.dumps(verdict.to_dict()))["ratio_interval"] == [0.5, 0.5]


def test_a_round_counts_once_however_many_calls_it_has() -> None:
    a, b = latency(*[(1.0, 1.0, 50.0)] * 8), latency(*[1.1] * 8)
    assert compare(a, b).num_rounds == 8
    assert compare(a, b).verdict == "A faster"


def test_what_was_not_measured_interleaved_is_not_compared() -> None:
    for other in (latency(*[1.0] * 8, run_id="another"), latency(*[1.0] * 7)):
        with pytest.raises(RunError, match="measured interleaved"):
            compare(latency(*[1.0] * 8), other)

"""What was measured of a network's speed, and whether one network is faster than another.

Calls within one turn of a measurement share the state the machine is in, so it is rounds that count as independent
observations (see `timing.py`): intervals come from the medians of turns, by their order alone (Conover 1999, Section
3.2), whatever the distribution.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Literal

import numpy as np

from lpsnet.errors import RunError

Verdict = Literal["A faster", "B faster", "cannot tell apart"]


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured of one callable, in milliseconds.

    Attributes:
        turns_ms: every sample, in the order taken, by round.
        confidence: asked of the interval.
        target_reached: whether an adaptive protocol came to its target; None for other protocols.
        num_discarded_rounds: rounds left out because the machine slept in them.
        run_id: the same for all that were measured in turn.
    """

    turns_ms: tuple[tuple[float, ...], ...] = field(repr=False)
    confidence: float = 0.95
    target_reached: bool | None = None
    num_discarded_rounds: int = 0
    run_id: str = ""

    def __post_init__(self) -> None:
        if not self.turns_ms or not all(self.turns_ms):
            raise RunError("a latency has at least one sample in every round")

    @property
    def samples_ms(self) -> tuple[float, ...]:
        return tuple(sample for turn in self.turns_ms for sample in turn)

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.turns_ms))

    @property
    def num_rounds(self) -> int:
        return len(self.turns_ms)

    @property
    def mean_ms(self) -> float:
        return fmean(self.samples_ms)

    @property
    def median_ms(self) -> float:
        return median(self.samples_ms)

    @property
    def p90_ms(self) -> float:
        """The time that nine calls in ten stay below."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def min_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def iqr_ms(self) -> float:
        """Spread: the interquartile range, between the quickest and the slowest quarter."""
        low, high = np.percentile(self.samples_ms, (25, 75))
        return float(high - low)

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Interval of the median; with less than six rounds its confidence is below 0.95, see `interval_confidence`."""
        low, high, _ = median_interval([median(turn) for turn in self.turns_ms], self.confidence)
        # the median of all samples is not quite that of the turns' medians
        return min(low, self.median_ms), max(high, self.median_ms)

    @property
    def interval_confidence(self) -> float:
        """The confidence that the number of rounds allows."""
        return _ranks(self.num_rounds, self.confidence)[1]

    def to_dict(self, *, samples: bool = True) -> dict[str, Any]:
        """Plain JSON values; without `samples` only the figures made of them."""
        figures: dict[str, Any] = {
            "median_ms": self.median_ms,
            "median_interval_ms": list(self.interval_ms),
            "median_interval_confidence": self.interval_confidence,
            "mean_ms": self.mean_ms,
            "p90_ms": self.p90_ms,
            "min_ms": self.min_ms,
            "iqr_ms": self.iqr_ms,
            "num_samples": self.num_samples,
            "num_rounds": self.num_rounds,
            "num_discarded_rounds": self.num_discarded_rounds,
            "target_reached": self.target_reached,
            "run_id": self.run_id,
        }
        return {**figures, "turns_ms": [list(turn) for turn in self.turns_ms]} if samples else figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """How A's latency relates to B's.

    Attributes:
        ratio: median over the rounds of A's time divided by B's; below 1 A is faster.
        interval: of that ratio.
        confidence: of the interval, as far as the number of rounds allows.
        num_rounds: pairs compared.
        verdict: "cannot tell apart" if the interval holds 1, or there were too few rounds for the confidence asked.
    """

    ratio: float
    interval: tuple[float, float]
    confidence: float
    num_rounds: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "ratio": self.ratio,
            "ratio_interval": list(self.interval),
            "confidence": self.confidence,
            "num_rounds": self.num_rounds,
            "verdict": self.verdict,
        }


def compare(a: Latency, b: Latency) -> Comparison:
    """Which of two latencies measured in turn is less, by the ratio within every round.

    Raises:
        RunError: they do not come from one call of `measure`: apart in time, they may differ by the machine alone.
    """
    if a.run_id != b.run_id or a.num_rounds != b.num_rounds:
        raise RunError("only latencies measured in turn can be compared: give both to one call of timing.measure")
    ratios = [median(one) / median(other) for one, other in zip(a.turns_ms, b.turns_ms, strict=True)]
    low, high, reached = median_interval(ratios, a.confidence)
    verdict: Verdict = "cannot tell apart"
    if reached >= a.confidence and not low <= 1 <= high:
        verdict = "A faster" if high < 1 else "B faster"
    return Comparison(median(ratios), (low, high), reached, len(ratios), verdict)


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Bounds of the median of what `values` are drawn from, and how sure they are.

    The k-th smallest and the k-th largest value, with the largest k for which they hold the median with the confidence
    asked. Few values cannot give much confidence, five 0.9375 at most: then they are the smallest and the largest.
    """
    rank, reached = _ranks(len(values), confidence)
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank], reached


@functools.lru_cache(maxsize=4096)
def _ranks(number: int, confidence: float) -> tuple[int, float]:
    """k of `median_interval` and its confidence: 1 - 2 P(X < k) for X binomial with `number` and 1/2."""
    log_term = -number * math.log(2)  # of P(X = 0)
    tail = math.exp(log_term)  # P(X < 1)
    rank = 1
    while rank < number // 2:
        log_term += math.log((number - rank + 1) / rank)
        if 2 * (tail + math.exp(log_term)) > 1 - confidence:
            break
        tail += math.exp(log_term)
        rank += 1
    return rank, max(0.0, 1 - 2 * tail)

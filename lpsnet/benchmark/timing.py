"""Timing networks so that the figures can be compared: samples, intervals, and which of two networks is faster.

The paper's latency is the mean over 20 s after 1 s of warm-up, one image at a time, the network alone (design-notes,
'What is timed'): `PROTOCOLS["paper"]`. But other work slows a machine down at times, by more than most networks differ.
So several networks are measured interleaved, in rounds (A B, B A, …), every sample is kept, and two networks are
compared by the ratio within each round, from which such times cancel out (`compare`).

A round has one turn per network: one call, or for fast networks as many as take the time of the slowest, up to a sixth
of the time that each is measured for. Calls within a turn share the machine's state, so only rounds are independent
observations: intervals come from the medians of turns, by rank (Conover 1999, Section 3.2), for any distribution.

Concurrent measurements would disturb each other: one waits until the other has finished, also across processes.
"""

import contextlib
import functools
import gc
import logging
import math
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, median_low
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lpsnet.errors import RunError
from lpsnet.io import one_at_a_time

_log = logging.getLogger(__name__)

Time = Annotated[float, Field(gt=1e-9, lt=1e12)]  # ms; checked when read from a file
Verdict = Literal["A faster", "B faster", "cannot tell apart"]
_OTHER_FIGURES = (  # of a latency in JSON, as its attributes are called
    *("mean_ms", "p90_ms", "min_ms", "iqr_ms", "num_samples", "num_rounds"),
    *("num_discarded_rounds", "target_reached", "run_id"),
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Samples of one callable, in milliseconds, and the figures that follow from them.

    Attributes:
        turns_ms: every sample, in order, by round.
        confidence: requested of the interval.
        target_reached: whether an adaptive protocol reached its target; None for other protocols.
        num_discarded_rounds: rounds discarded because the machine slept during them.
        run_id: the same for all callables measured interleaved.
    """

    turns_ms: tuple[Annotated[tuple[Time, ...], Field(min_length=1)], ...] = field(repr=False)
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
        """The 90th percentile."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def min_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def iqr_ms(self) -> float:
        """Spread: the interquartile range."""
        low, high = np.percentile(self.samples_ms, (25, 75))
        return float(high - low)

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Interval of the median; with less than six rounds its confidence is below 0.95, see `interval_confidence`."""
        low, high, _ = median_interval([median(turn) for turn in self.turns_ms], self.confidence)
        # the median of all samples may differ from that of the turns' medians
        return min(low, self.median_ms), max(high, self.median_ms)

    @property
    def interval_confidence(self) -> float:
        """The confidence that the number of rounds permits."""
        return _ranks(self.num_rounds, self.confidence)[1]

    def to_dict(self, *, samples: bool = True) -> dict[str, Any]:
        """JSON values; without `samples` only the figures."""
        figures: dict[str, Any] = {
            "median_ms": self.median_ms,
            "median_interval_ms": list(self.interval_ms),
            "median_interval_confidence": self.interval_confidence,
            **{key: getattr(self, key) for key in _OTHER_FIGURES},
        }
        return {**figures, "turns_ms": [list(turn) for turn in self.turns_ms]} if samples else figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """The latency of A relative to that of B.

    Attributes:
        ratio: median over the rounds of A's time divided by B's; below 1 A is faster.
        interval: of that ratio.
        confidence: of the interval, as the number of rounds permits.
        num_rounds: pairs compared.
        verdict: "cannot tell apart" if the interval contains 1, or the rounds are too few for the requested confidence.
    """

    ratio: float
    interval: tuple[float, float]
    confidence: float
    num_rounds: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = {"ratio": self.ratio, "ratio_interval": list(self.interval), "confidence": self.confidence}
        return {**values, "num_rounds": self.num_rounds, "verdict": self.verdict}


def compare(a: Latency, b: Latency) -> Comparison:
    """Which of two latencies measured interleaved is less, by the ratio within every round.

    Raises:
        RunError: they do not come from one call of `measure`: at other times the machine itself may differ.
    """
    if a.run_id != b.run_id or a.num_rounds != b.num_rounds:
        raise RunError("only latencies measured interleaved can be compared: give both to one call of timing.measure")
    ratios = [median(one) / median(other) for one, other in zip(a.turns_ms, b.turns_ms, strict=True)]
    low, high, reached = median_interval(ratios, a.confidence)
    verdict: Verdict = "cannot tell apart"
    if reached >= a.confidence and not low <= 1 <= high:
        verdict = "A faster" if high < 1 else "B faster"
    return Comparison(median(ratios), (low, high), reached, len(ratios), verdict)


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Bounds of the median of the distribution of `values`, and their confidence.

    The k-th smallest and the k-th largest value, with the largest k that has the requested confidence. Few values limit
    the confidence (five: 0.9375 at most): then the smallest and the largest.
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


LOCK_NAME = "lpsnet-measuring.lock"  # in the system's folder for temporary files
MAX_CALLS_PER_TURN = 10_000
CLOCK_TOLERANCE_NS = 50_000_000  # two clocks may differ by this in a round, or by 1 % of it; more counts as sleep
NUM_ROUNDS = 6  # at least, per measurement: fewer give no interval a confidence of 0.95
MAX_DISCARDED = 10  # discarded rounds before a measurement is given up, or as many as were kept


def _clock_that_never_stops() -> int:
    """Nanoseconds including sleep of the machine, which `perf_counter` excludes on Linux and macOS."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS, where the latter includes sleep
        if hasattr(time, name):
            return time.clock_gettime_ns(getattr(time, name))
    return time.time_ns()  # Windows: perf_counter includes sleep as well, so it is not detected


@dataclass(frozen=True, slots=True)
class Clock:
    """Sources of time: latencies are differences of `now_ns`; `always_ns` continues while the machine sleeps."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    always_ns: Callable[[], int] = _clock_that_never_stops


@dataclass(frozen=True, slots=True)
class TimingProtocol:
    """Durations of a measurement.

    Attributes:
        warm_up_s: each callable is first called, untimed, for this long and at least once.
        duration_s: each callable is timed for at least this long.
        turn_s: least length of a turn.
        target_percent: if set, rounds continue until the interval of every median is within this of it.
        max_duration_s: limit for that, in timed seconds per callable.
        confidence: of intervals.
    """

    warm_up_s: float = 1.0
    duration_s: float = 20.0
    turn_s: float = 0.02
    target_percent: float | None = None
    max_duration_s: float = 120.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.warm_up_s < 0 or min(self.duration_s, self.turn_s) <= 0 or not 0 < self.confidence < 1:
            raise RunError(f"a timing protocol has positive times and a confidence between 0 and 1; got {self}")
        if self.target_percent is not None and not (self.target_percent > 0 and self.duration_s <= self.max_duration_s):
            raise RunError(f"an adaptive protocol has a positive target and max_duration_s >= duration_s; got {self}")


PROTOCOLS: dict[str, TimingProtocol] = {
    "paper": TimingProtocol(),
    "quick": TimingProtocol(warm_up_s=0.3, duration_s=2.0),
    "adaptive": TimingProtocol(duration_s=2.0, target_percent=1.0, max_duration_s=30.0),
}


def measure(
    callables: Mapping[str, Callable[[], object]],
    *,
    protocol: TimingProtocol = PROTOCOLS["paper"],
    clock: Clock = Clock(),
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Latency]:
    """Time callables interleaved: every round calls each, and the order changes from round to round.

    Args:
        callables: by name; each call is one inference, and returns when it has finished.
        protocol: how long; `dataclasses.replace(PROTOCOLS["paper"], duration_s=5)` makes another.
        clock: source of time.
        on_progress: called with the part done, 0 to 1, after every round.

    Returns:
        By name, all with the same number of rounds.

    Raises:
        RunError: there is nothing to measure, the clock stands still, or the machine keeps falling asleep.
            Errors of a callable are raised unchanged.
    """
    if not callables:
        raise RunError("nothing to measure: no callable was given")
    with measuring_alone(), _no_garbage_collection():
        run = _Run(callables, protocol, clock)
        while not run.is_done():
            run.do_round()
            if on_progress is not None:
                on_progress(run.part_done())
    return run.latencies()


@contextlib.contextmanager
def measuring_alone() -> Iterator[None]:
    """Inside the block, no other process of this machine measures; `measure` uses it itself.

    Processes with different temporary folders, as in containers, do not wait for each other, nor those without one.
    """
    path = Path(tempfile.gettempdir()) / LOCK_NAME

    def warn() -> None:
        _log.warning("another process measures on this machine; waiting until it is done")

    with one_at_a_time(path, on_wait=warn):
        yield


class _Run:
    """One call of `measure`: the samples so far."""

    def __init__(self, callables: Mapping[str, Callable[[], object]], protocol: TimingProtocol, clock: Clock) -> None:
        self._callables, self._protocol, self._clock = callables, protocol, clock
        self._warm_up_ns = {name: self._warm_up(call) for name, call in callables.items()}
        self._turns_ns: dict[str, list[list[int]]] = {name: [] for name in callables}
        self._medians_ns: dict[str, list[float]] = {name: [] for name in callables}
        self._timed_ns = dict.fromkeys(callables, 0)
        self._num_started = 0
        self._num_discarded = 0

    def _warm_up(self, call: Callable[[], object]) -> float:
        """Call until the time is up; the median time of a call, in nanoseconds, at least 1."""
        samples: list[int] = []
        start = self._clock.now_ns()
        while not samples or self._clock.now_ns() - start < self._protocol.warm_up_s * 1e9:
            samples += self._time(call, 1)
        return max(1.0, median(samples))

    def _time(self, call: Callable[[], object], num_calls: int) -> list[int]:
        now_ns, samples = self._clock.now_ns, []
        for _ in range(num_calls):
            start = now_ns()
            call()
            samples.append(now_ns() - start)
        if min(samples) < 0 or sum(samples) == 0:
            raise RunError("the clock stands still or goes backwards; nothing can be measured with it")
        return samples

    def do_round(self) -> None:
        """A turn of every callable; discarded if the machine slept meanwhile."""
        now, always = self._clock.now_ns(), self._clock.always_ns()
        names = _order(list(self._callables), self._num_started)
        num_calls = self._calls_per_turn()
        turns = {name: self._time(self._callables[name], num_calls[name]) for name in names}
        passed, always_passed = self._clock.now_ns() - now, self._clock.always_ns() - always
        gc.collect()  # garbage of the calls: everything older is frozen
        self._num_started += 1
        if abs(always_passed - passed) > max(CLOCK_TOLERANCE_NS, passed // 100):
            self._discard()
            return
        for name, samples in turns.items():
            self._turns_ns[name].append(samples)
            self._medians_ns[name].append(median(samples))
            self._timed_ns[name] += sum(samples)

    def _calls_per_turn(self) -> dict[str, int]:
        """From medians of the last rounds: a single delay must not lengthen all turns."""
        call_ns = {
            name: max(1.0, median_low([first_ns, *self._medians_ns[name][-NUM_ROUNDS:]]))
            for name, first_ns in self._warm_up_ns.items()
        }
        slowest_ns = min(max(call_ns.values()), self._protocol.duration_s * 1e9 / NUM_ROUNDS)
        turn_ns = max(self._protocol.turn_s * 1e9, slowest_ns)
        return {name: max(1, min(MAX_CALLS_PER_TURN, round(turn_ns / single))) for name, single in call_ns.items()}

    def _discard(self) -> None:
        self._num_discarded += 1
        if self._num_discarded > max(MAX_DISCARDED, self._num_started - self._num_discarded):
            raise RunError(
                f"the machine slept, or its clock was set, in {self._num_discarded} of {self._num_started} rounds; "
                "keep it awake and measure again"
            )

    def _timed_s(self) -> float:
        return min(self._timed_ns.values()) / 1e9

    def part_done(self) -> float:
        if self.is_done():
            return 1.0
        adaptive = self._protocol.target_percent is not None
        return min(1.0, self._timed_s() / (self._protocol.max_duration_s if adaptive else self._protocol.duration_s))

    def is_done(self) -> bool:
        if self._timed_s() < self._protocol.duration_s:
            return False
        if self._protocol.target_percent is None:
            return True
        return self._timed_s() >= self._protocol.max_duration_s or all(map(self._is_precise, self._callables))

    def _is_precise(self, name: str) -> bool:
        target_percent = self._protocol.target_percent
        assert target_percent is not None
        values = self._medians_ns[name]
        low, high, reached = median_interval(values, self._protocol.confidence)
        centre = median(values)
        width = max(high - centre, centre - low)
        return reached >= self._protocol.confidence and width <= centre * target_percent / 100

    def latencies(self) -> dict[str, Latency]:
        run_id = uuid.uuid4().hex[:12]
        adaptive = self._protocol.target_percent is not None
        return {
            name: Latency(
                tuple(tuple(sample / 1e6 for sample in turn) for turn in turns),
                confidence=self._protocol.confidence,
                target_reached=self._is_precise(name) if adaptive else None,
                num_discarded_rounds=self._num_discarded,
                run_id=run_id,
            )
            for name, turns in self._turns_ns.items()
        }


def _order(names: list[str], index: int) -> list[str]:
    """The order of round `index`: each comes first equally often; every second cycle is reversed."""
    start = index % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if index // len(names) % 2 else rotated


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, then only on `gc.collect()`, and only new objects."""
    was_enabled, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()

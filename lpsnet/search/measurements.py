"""Lat(·) and Perf(·) of Section 3.4: types, latencies from interleaved measurements, scores from several seeds.

The search measures and trains by functions of these types, so that tests can replace them by tables.

Latency: a repetition times every design once, A B C …, and is divided by its own time of the first design, which
removes the drift of a shared machine. Score: the mean over a design's seeds; the spread of one training is the standard
deviation over seeds pooled over all designs trained more than once; a mean over n seeds has that over the root of n.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from statistics import fmean, median
from typing import Any, NamedTuple, Protocol, Self

from lpsnet.agent import median_interval
from lpsnet.errors import RunError
from lpsnet.search.operations import Design


@dataclass(frozen=True, slots=True)
class Latency:
    """Lat(N) in milliseconds: the median and the interval it lies in.

    Attributes:
        median_ms: the estimate; every equation uses it.
        low_ms, high_ms: the confidence interval around the estimate; in one call of a latency function, that of the
            comparison with the first design (see `compared`).

    Raises:
        RunError: the numbers are not finite, not positive or not in order.
    """

    median_ms: float
    low_ms: float
    high_ms: float

    def __post_init__(self) -> None:
        if not 0 < self.low_ms <= self.median_ms <= self.high_ms < math.inf:
            raise RunError(
                f"a latency is finite, above 0 ms and inside its interval; got {self.median_ms} ms "
                f"in [{self.low_ms}, {self.high_ms}]; measure it again"
            )

    @classmethod
    def exactly(cls, milliseconds: float) -> Self:
        """A latency with an interval of width 0."""
        return cls(milliseconds, milliseconds, milliseconds)

    def times(self, factor: float) -> Self:
        """All times multiplied by `factor`."""
        return type(self)(factor * self.median_ms, factor * self.low_ms, factor * self.high_ms)


@dataclass(frozen=True, slots=True)
class Score:
    """Perf(N).

    Attributes:
        miou: of the trained network, percent.
        spread: half the width of its interval, in percentage points; 0 if unknown.
        at_start: mIoU before training, with the weights inherited from the parent, percent; None if not evaluated.
        num_seeds: the number of trainings that `miou` is the mean of.

    Raises:
        RunError: a number is not finite or not a percentage.
    """

    miou: float
    spread: float = 0.0
    at_start: float | None = None
    num_seeds: int = 1

    def __post_init__(self) -> None:
        for name, value in (("miou", self.miou), ("spread", self.spread), ("at_start", self.at_start)):
            if value is not None and not 0 <= value <= 100:
                raise RunError(f"{name} of a score is a finite number of percent from 0 to 100; got {value}")


@dataclass(frozen=True, slots=True)
class Failure:
    """A training without a score, for instance because it diverged. Its network cannot be chosen."""

    reason: str


Outcome = Score | Failure


@dataclass(frozen=True, slots=True)
class Cost:
    """Size and memory of a design.

    Attributes:
        parameters: number of parameters of the deployed network.
        memory_mib: memory at inference, MiB.
    """

    parameters: int
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest network the search may choose; None for no limit.

    Attributes:
        latency_ms: median latency.
        parameters: number of parameters.
        memory_mib: memory at inference, MiB.
    """

    latency_ms: float | None = None
    parameters: int | None = None
    memory_mib: float | None = None

    def __post_init__(self) -> None:
        for name in ("latency_ms", "parameters", "memory_mib"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise RunError(f"the limit {name} is a finite number above 0; got {value}")

    @property
    def needs_cost(self) -> bool:
        """True if there is a limit on something other than latency."""
        return self.parameters is not None or self.memory_mib is not None

    def broken_by(self, cost: Cost) -> str:
        """The exceeded limit, in one line; empty if there is none."""
        if self.parameters is not None and cost.parameters > self.parameters:
            return f"{cost.parameters:,} parameters, limit {self.parameters:,}"
        if self.memory_mib is not None and cost.memory_mib > self.memory_mib:
            return f"{cost.memory_mib:.1f} MiB, limit {self.memory_mib:.1f} MiB"
        return ""


class LatencyFunction(Protocol):
    """Lat(·)."""

    def __call__(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """The latency of every design, measured interleaved: A B C, A B C, …

        Args:
            designs: all different; the others are compared with the first.
            effort: 0 is enough to find step sizes; higher numbers give narrower intervals and, on the same designs,
                add to earlier measurements.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """How a design is trained.

    Attributes:
        parent: the trained network to inherit weights from; None for the first network of a search.
        seed: 0 for the training that children inherit from; others repeat it with other random numbers.
        length: factor on the training length of the recipe.
        part: the training is scored after 1 / `part` of that length, and goes on from there if it is asked for with a
            smaller part.
    """

    parent: Design | None = None
    seed: int = 0
    length: int = 1
    part: int = 1


class PerformanceFunction(Protocol):
    """Perf(·)."""

    def __call__(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        """The outcome of every one of `designs`, all different, trained in any order or at once."""
        ...


CostFunction = Callable[[Design], Cost]


def exact(number: float) -> Fraction:
    """The decimal number as a fraction, 0.1 as 1/10, so that equal differences and ratios compare equal."""
    return Fraction(str(number))


class Control(NamedTuple):
    """A parent that is trained further, as its candidates are; they are compared with it."""

    design: Design


Trained = Design | Control


class SeedScores:
    """The outcomes of a search's trainings by design and seed; a control has its own."""

    def __init__(self) -> None:
        self._outcomes: dict[Trained, dict[int, Outcome]] = {}

    def __contains__(self, design: Trained) -> bool:
        return design in self._outcomes

    def add(self, design: Trained, seed: int, outcome: Outcome) -> None:
        """Add an outcome. The first of a design decides whether it counts as failed."""
        self._outcomes.setdefault(design, {})[seed] = outcome

    def num_tried(self, design: Trained) -> int:
        """The number of trainings of `design`, failed ones included."""
        return len(self._outcomes.get(design, {}))

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the pooled spread: of every design, the number of its scores less one."""
        return sum(max(0, len(self._mious(it)) - 1) for it in self._outcomes)

    @property
    def spread_of_one(self) -> float | None:
        """Pooled standard deviation of a single training's mIoU, in points; None until a design has two scores."""
        squares, freedom = 0.0, self.freedom
        for mious in map(self._mious, self._outcomes):
            if len(mious) > 1:
                mean = fmean(mious)
                squares += sum((miou - mean) ** 2 for miou in mious)
        return math.sqrt(squares / freedom) if freedom else None

    def outcome(self, design: Trained) -> Outcome:
        """The mean over the seeds of `design`, or its first outcome if that failed or the spread is unknown."""
        first, mious, spread = next(iter(self._outcomes[design].values())), self._mious(design), self.spread_of_one
        if isinstance(first, Failure) or spread is None:
            return first
        return Score(fmean(mious), min(100.0, spread / math.sqrt(len(mious))), first.at_start, len(mious))

    def _mious(self, design: Trained) -> list[float]:
        return [it.miou for it in self._outcomes[design].values() if isinstance(it, Score)]


CONFIDENCE = 0.95  # of intervals; with fewer than six repetitions they are [minimum, maximum]


def compared(repetitions: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency per design, compared with the first.

    Args:
        repetitions: one or more; each the times of all designs in ms, in the same order.

    Returns:
        For the first design its median, with an interval of width 0. For every other that median times the median of
        its quotient to the first, with the interval of the quotient.
    """
    first, *others = zip(*repetitions, strict=True)
    unit = median(first)
    quotients = ([time / base for time, base in zip(times, first, strict=True)] for times in others)
    return [Latency.exactly(unit), *(_latency(column, unit=unit) for column in quotients)]


def absolute(repetitions: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency per design: the median of its times and the interval of that median."""
    return [_latency(times) for times in zip(*repetitions, strict=True)]


def _latency(samples: Sequence[float], *, unit: float = 1.0) -> Latency:
    low, high, _ = median_interval(samples, CONFIDENCE)
    return Latency(*(unit * value for value in (median(samples), low, high)))


def normal_cdf(value: float) -> float:
    """The probability that a standard normal number is at most `value`."""
    return 0.5 * math.erfc(-value / math.sqrt(2))


def t_quantile(probability: float, freedom: int) -> float:
    """The number that Student's t with `freedom` degrees of freedom stays below with this probability.

    By bisection of its distribution function (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Args:
        probability: at least 0.5 and less than 1.
        freedom: 1 or more.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 0.5 + _t_within(middle, freedom) / 2 < probability else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _t_within(angle: float, freedom: int) -> float:
    """The probability that |t| is at most sqrt(freedom) tan(angle)."""
    odd, squared = freedom % 2, math.cos(angle) ** 2
    term, total = math.cos(angle) if odd else 1.0, 0.0
    for number in range(1, (freedom - odd) // 2 + 1):
        total += term
        term *= squared * ((2 * number) / (2 * number + 1) if odd else (2 * number - 1) / (2 * number))
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


class Busy(NamedTuple):
    """How the time of a search was used in which anything was trained or measured.

    Attributes:
        seconds: of that time.
        training, measuring, both: the shares of it in which something was trained, measured, and both at once.
    """

    seconds: float
    training: float
    measuring: float
    both: float

    def __str__(self) -> str:
        """`12.5 h: training 93 %, measuring 40 %, both at once 33 %`."""
        shares = f"training {self.training:.0%}, measuring {self.measuring:.0%}, both at once {self.both:.0%}"
        return f"{self.seconds / 3600:.2f} h: {shares.replace('%', ' %')}"


def busy(trainings: Iterable[tuple[str, Any]], measurements: Iterable[tuple[str, Any]]) -> Busy | None:
    """From the end (ISO 8601) and the seconds of each training and measurement; None if there are none of one kind."""
    trained, measured = ([_span(*it) for it in each if it[1]] for each in (trainings, measurements))
    training, measuring, either = map(_covered, (trained, measured, [*trained, *measured]))
    if not training or not measuring:
        return None
    return Busy(either, training / either, measuring / either, (training + measuring - either) / either)


def _span(at: str, seconds: float) -> tuple[float, float]:
    end = datetime.fromisoformat(at).timestamp()
    return end - seconds, end


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """The seconds in any of the spans."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total

"""What the search is told about a network, Lat(·) and Perf(·) of Section 3.4, and the functions that tell it.

The search itself measures and trains nothing. It is given functions of these types, so that tests give it tables and
runs give it an engine and a trainer.

How much of a score is luck: trainings repeated with other seeds, and what they say of all scores of a search.

A design's score is the mean over its seeds. The spread of one training is the standard deviation over seeds, pooled
over all designs that were trained more than once, since two or three scores of one design say little about it. A mean
over n seeds has that spread divided by the root of n. At equal latency, a lead is then decided when it exceeds the sum
of both spreads: twice the seed spread for two single trainings.

From passes of measurements in turn to latencies with intervals.

A pass times every design once, A B C …; a shared machine can be twice as slow in the next pass. What a step decides on
is how designs compare, so each pass is first divided by its own time of the first design: what slowed the whole pass
down drops out. Medians and intervals are of these quotients.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from statistics import fmean, median
from typing import NamedTuple, Protocol, Self

from lpsnet.benchmark.timing import median_interval
from lpsnet.errors import RunError
from lpsnet.search.operations import Design


@dataclass(frozen=True, slots=True)
class Latency:
    """Lat(N) in milliseconds: the median and the interval it lies in.

    Attributes:
        median_ms: the estimate; every equation uses it.
        low_ms, high_ms: the confidence interval, around the estimate; equal to it if nothing is uncertain. Decisions
            look at it, so within one call of a latency function it is that of the comparison (see `estimate.py`).

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
        """A latency without uncertainty."""
        return cls(milliseconds, milliseconds, milliseconds)

    def times(self, factor: float) -> Self:
        """The same on a machine that is slower by `factor`."""
        return type(self)(factor * self.median_ms, factor * self.low_ms, factor * self.high_ms)


@dataclass(frozen=True, slots=True)
class Score:
    """Perf(N).

    Attributes:
        miou: of the trained network, percent.
        spread: half the width of the interval that `miou` lies in, in points; 0 if it is not known.
        at_start: mIoU before training, with the weights taken over from the parent, percent; None if not evaluated.
        num_seeds: trainings that `miou` is the mean of (`seeds.py`).

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
    """A training that ended without a score, such as one that diverged. Its network cannot be chosen."""

    reason: str


Outcome = Score | Failure


@dataclass(frozen=True, slots=True)
class Cost:
    """What a design takes besides time.

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
        latency_ms: median latency. The largest of the budgets asked for, to stop there.
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
        """What `cost` exceeds, in words; empty if nothing."""
        if self.parameters is not None and cost.parameters > self.parameters:
            return f"{cost.parameters:,} parameters, limit {self.parameters:,}"
        if self.memory_mib is not None and cost.memory_mib > self.memory_mib:
            return f"{cost.memory_mib:.1f} MiB, limit {self.memory_mib:.1f} MiB"
        return ""


class LatencyFunction(Protocol):
    """Measures designs against each other."""

    def __call__(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        """The latency of every design, measured in turn: A B C, A B C, …

        Args:
            designs: all different; the first is the one the others are compared with.
            effort: 0 for a first look, enough to find step sizes; each higher number asks for narrower intervals, and
                on the same designs adds to what was measured before.
        """
        ...


@dataclass(frozen=True, slots=True)
class TrainingSpec:
    """How a design is trained.

    Attributes:
        parent: the trained network that weights may be taken over from; None for the first network of a search.
        seed: 0 for the training that children inherit from; others repeat it with other random numbers.
        length: how many times as long as usual.
    """

    parent: Design | None = None
    seed: int = 0
    length: int = 1


class PerformanceFunction(Protocol):
    """Trains and evaluates designs."""

    def __call__(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        """The outcome for every design, in any order and as many at a time as there is room for.

        Args:
            designs: all different.
            spec: how they are trained.
        """
        ...


CostFunction = Callable[[Design], Cost]


def exact(number: float) -> Fraction:
    """The number as it is written, 0.1 as 1/10: so that differences and ratios that tie on paper tie here too."""
    return Fraction(str(number))


class Control(NamedTuple):
    """A parent that was trained on, for its candidates to be compared with."""

    design: Design


Trained = Design | Control


class SeedScores:
    """The outcomes of a search's trainings, by design and seed; a control has scores of its own."""

    def __init__(self) -> None:
        self._outcomes: dict[Trained, dict[int, Outcome]] = {}

    def __contains__(self, design: Trained) -> bool:
        return design in self._outcomes

    def add(self, design: Trained, seed: int, outcome: Outcome) -> None:
        """Take note of an outcome. The first of a design decides whether it could be trained."""
        self._outcomes.setdefault(design, {})[seed] = outcome

    def num_tried(self, design: Trained) -> int:
        """Trainings of `design`, failed ones too."""
        return len(self._outcomes.get(design, {}))

    @property
    def spread_of_one(self) -> float | None:
        """Pooled standard deviation of a single training's mIoU, in points; None until a design has two scores."""
        squares, freedom = 0.0, 0
        for mious in map(self._mious, self._outcomes):
            if len(mious) > 1:
                mean = fmean(mious)
                squares += sum((miou - mean) ** 2 for miou in mious)
                freedom += len(mious) - 1
        return sqrt(squares / freedom) if freedom else None

    def outcome(self, design: Trained) -> Outcome:
        """The mean over the seeds of `design`, as far as its spread is known; a failure if the first one was."""
        first, mious, spread = next(iter(self._outcomes[design].values())), self._mious(design), self.spread_of_one
        if isinstance(first, Failure) or spread is None:
            return first
        return Score(fmean(mious), min(100.0, spread / sqrt(len(mious))), first.at_start, len(mious))

    def _mious(self, design: Trained) -> list[float]:
        return [it.miou for it in self._outcomes[design].values() if isinstance(it, Score)]


CONFIDENCE = (
    0.95  # of intervals; fewer than six passes cannot give it: then they reach from the smallest to the largest
)


def compared(repetitions: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency a design, compared with the first.

    Args:
        repetitions: one or more; each holds the time of every design in ms, the designs always in the same order.

    Returns:
        For the first design its median, as a point. For every other that median times the median of its quotient to
        the first, with the interval of the quotient.
    """
    first, *others = zip(*repetitions, strict=True)
    unit = median(first)
    quotients = ([time / base for time, base in zip(times, first, strict=True)] for times in others)
    return [Latency.exactly(unit), *(_latency(column, unit=unit) for column in quotients)]


def absolute(repetitions: Sequence[Sequence[float]]) -> list[Latency]:
    """One latency a design on its own: the median of its times and the interval of that median."""
    return [_latency(times) for times in zip(*repetitions, strict=True)]


def _latency(samples: Sequence[float], *, unit: float = 1.0) -> Latency:
    low, high, _ = median_interval(samples, CONFIDENCE)
    return Latency(*(unit * value for value in (median(samples), low, high)))

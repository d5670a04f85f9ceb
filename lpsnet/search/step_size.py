"""Equations 3 and 4: the target latency of a step, and how far each operation goes to meet it.

    L_T = max over the operations of Lat(N + delta)
    k   = argmin over k >= 1 of |Lat(N + k delta) - L_T|

Latency need not grow with k (engines have fast and slow widths, Figure 5), so every k up to a cap is looked at, unless
`patience` is given. Of two k that are equally near, the smaller is taken. k = 0, the parent itself, is never a step.

Equation 5: which candidate a step takes, and whether that is decided or lies inside the noise.

The paper divides the gain in mIoU by the gain in latency and says no more. What it leaves open is settled here:

- A candidate gains if its mIoU is above the parent's. One that does not gain is never taken, however fast: the quotient
  of two losses would be positive.
- A candidate that gains and is not slower than its parent is better in both; the quotient says nothing (it is negative
  or has no value). Such candidates come before all others; among them the highest mIoU wins.
- Otherwise the largest quotient wins.
- Ties go to the smaller latency, then to the order of the table of operations.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from lpsnet.errors import ArchitectureError
from lpsnet.search.measurements import CostFunction, Latency, LatencyFunction, Limits, Score, exact
from lpsnet.search.operations import Design, Operation, SearchNetwork


class StepSize(NamedTuple):
    """The network `parent + k · delta` for one k."""

    step_size: int
    network: SearchNetwork


@dataclass(frozen=True, slots=True)
class StepSizes:
    """An operation's possible step sizes, in rising order; the first is 1."""

    operation: Operation
    rungs: tuple[StepSize, ...]


@dataclass(frozen=True, slots=True)
class Excluded:
    """An operation that has no candidate in a step, and why, in words."""

    operation: Operation
    reason: str


@dataclass(frozen=True, slots=True)
class StepSizeChoice:
    """What Equations 3 and 4 say.

    Attributes:
        target_ms: L_T; None if no operation is left.
        chosen: the rung of every operation that has one, in the order of the possible_step_sizes.
        excluded: the operations that have none.
    """

    target_ms: float | None
    chosen: dict[Operation, StepSize]
    excluded: tuple[Excluded, ...]


def possible_step_sizes(
    parent: SearchNetwork,
    operations: Iterable[Operation],
    *,
    max_step_size: int,
    limits: Limits,
    cost: CostFunction | None = None,
) -> tuple[list[StepSizes], list[Excluded]]:
    """The step sizes each operation may take before latency is known, and the operations that may take none.

    A step size is out if the result is not a network, is the parent's own design, or breaks a limit on parameters or
    memory. An operation whose k = 1 is out is out: Equation 3 needs it.
    """
    found, excluded = [], []
    for operation in operations:
        rungs, reason = _rungs(parent, operation, max_step_size, limits, cost)
        if rungs and rungs[0].step_size == 1:
            found.append(StepSizes(operation, tuple(rungs)))
        else:
            excluded.append(Excluded(operation, reason))
    return found, excluded


def choose_step_sizes(
    parent: SearchNetwork,
    found: Sequence[StepSizes],
    *,
    latency: LatencyFunction,
    limit_ms: float | None = None,
    patience: int | None = None,
) -> StepSizeChoice:
    """Equations 3 and 4 for the operations in `found`.

    Args:
        parent: the network to expand.
        found: from `possible_step_sizes`.
        latency: called with effort 0, the parent's design first.
        limit_ms: step sizes above this latency are out; an operation whose k = 1 is out is out.
        patience: None measures every rung. A number measures rungs upwards and gives an operation up after so many in a
            row that lie, with their whole interval, further above the target than its nearest so far.
    """
    known = _Known(parent.design, latency)
    known.measure(_designs(found) if patience is None else [ladder.rungs[0].network.design for ladder in found])
    kept = [ladder for ladder in found if known.within(ladder.rungs[0], limit_ms)]
    excluded = [_too_slow(ladder, known, limit_ms) for ladder in found if ladder not in kept]
    if not kept:
        return StepSizeChoice(None, {}, tuple(excluded))
    target_ms = max(known.of(ladder.rungs[0]).median_ms for ladder in kept)
    if patience is not None:
        _climb(kept, known, target_ms, patience)
    chosen = {ladder.operation: _nearest(ladder, known, target_ms, limit_ms) for ladder in kept}
    return StepSizeChoice(target_ms, chosen, tuple(excluded))


class _Known:
    """Latencies of one step, brought to one scale: the parent is measured in every call and its first time is the unit.

    On a machine whose speed drifts, two calls can be compared by nothing else.
    """

    def __init__(self, parent: Design, latency: LatencyFunction) -> None:
        self._parent, self._latency = parent, latency
        self._found: dict[Design, Latency] = {}

    def measure(self, designs: Iterable[Design]) -> None:
        missing = [design for design in dict.fromkeys(designs) if design not in self._found]
        if not missing:
            return
        measured = self._latency([self._parent, *missing], effort=0)
        unit = self._found.setdefault(self._parent, measured[self._parent]).median_ms
        scale = unit / measured[self._parent].median_ms
        self._found.update({design: _scaled(measured[design], scale) for design in missing})

    def of(self, rung: StepSize) -> Latency:
        return self._found[rung.network.design]

    def has(self, rung: StepSize) -> bool:
        return rung.network.design in self._found

    def within(self, rung: StepSize, limit_ms: float | None) -> bool:
        return limit_ms is None or self.of(rung).median_ms <= limit_ms


def _climb(kept: Sequence[StepSizes], known: _Known, target_ms: float, patience: int) -> None:
    """Measure rungs upwards, one of every operation still open at a time."""
    opened = [_climber(ladder, known, target_ms, patience) for ladder in kept]
    while rungs := [rung for rung in (next(climber, None) for climber in opened) if rung is not None]:
        known.measure(rung.network.design for rung in rungs)


def _climber(ladder: StepSizes, known: _Known, target_ms: float, patience: int) -> Iterator[StepSize]:
    """The rungs to measure, each yielded before it is known and judged after."""
    nearest, hopeless = _distance(known.of(ladder.rungs[0]), target_ms), 0
    for rung in ladder.rungs[1:]:
        yield rung
        latency = known.of(rung)
        hopeless = hopeless + 1 if exact(latency.low_ms) - exact(target_ms) > nearest else 0
        nearest = min(nearest, _distance(latency, target_ms))
        if hopeless >= patience:
            return


def _nearest(ladder: StepSizes, known: _Known, target_ms: float, limit_ms: float | None) -> StepSize:
    """Equation 4."""
    rungs = [rung for rung in ladder.rungs if known.has(rung) and known.within(rung, limit_ms)]
    return min(rungs, key=lambda rung: (_distance(known.of(rung), target_ms), rung.step_size))


def _distance(latency: Latency, target_ms: float) -> Fraction:
    return abs(exact(latency.median_ms) - exact(target_ms))


def _rungs(
    parent: SearchNetwork, operation: Operation, max_step_size: int, limits: Limits, cost: CostFunction | None
) -> tuple[list[StepSize], str]:
    """The rungs, and why the first that is out is out."""
    rungs: list[StepSize] = []
    reason = ""
    for step_size in range(1, max_step_size + 1):
        try:
            network = operation.apply(parent, step_size)
        except ArchitectureError as error:
            return rungs, reason or str(error)
        objection = _objection(parent, network, limits, cost)
        reason = reason or objection
        if not objection:
            rungs.append(StepSize(step_size, network))
    return rungs, reason


def _objection(parent: SearchNetwork, network: SearchNetwork, limits: Limits, cost: CostFunction | None) -> str:
    if network.design == parent.design:
        return "leads to the same network"
    if cost is None or not limits.needs_cost:
        return ""
    return limits.broken_by(cost(network.design))


def _too_slow(ladder: StepSizes, known: _Known, limit_ms: float | None) -> Excluded:
    return Excluded(ladder.operation, f"{known.of(ladder.rungs[0]).median_ms:.3g} ms, limit {limit_ms:.3g} ms")


def _designs(found: Iterable[StepSizes]) -> list[Design]:
    return [rung.network.design for ladder in found for rung in ladder.rungs]


def _scaled(latency: Latency, scale: float) -> Latency:
    return Latency(latency.median_ms * scale, latency.low_ms * scale, latency.high_ms * scale)


class Measured(Protocol):
    """Anything with a latency and a score."""

    @property
    def latency(self) -> Latency:
        """Lat(N)."""
        ...

    @property
    def score(self) -> Score:
        """Perf(N)."""
        ...


@dataclass(frozen=True, slots=True)
class Decision:
    """What Equation 5 says about the candidates of a step.

    Attributes:
        chosen: index of the candidate to take; None if none gains.
        rivals: indices of the candidates that would be taken instead if the numbers were others inside their intervals.
        gain_in_doubt: True if the chosen candidate's gain over its parent is itself inside the intervals.
    """

    chosen: int | None
    rivals: tuple[int, ...]
    gain_in_doubt: bool

    @property
    def settled(self) -> bool:
        """True if no number inside the intervals would change the decision."""
        return not self.rivals and not self.gain_in_doubt


def decide(parent: Measured, candidates: Sequence[Measured]) -> Decision:
    """Equation 5 with the rules above; candidates are in the order of the table of operations."""
    merits = [_merit(_middle(parent), _middle(candidate)) for candidate in candidates]
    chosen = _largest(merits)
    if chosen is None:
        rivals = [index for index, candidate in enumerate(candidates) if _may_gain(parent, candidate)]
        return Decision(None, tuple(rivals), gain_in_doubt=False)
    winner = candidates[chosen]
    rivals = [index for index, it in enumerate(candidates) if index != chosen and _may_overtake(parent, winner, it)]
    return Decision(chosen, tuple(rivals), gain_in_doubt=not surely_gains(parent, winner))


def miou_per_ms(parent: Measured, candidate: Measured) -> float | None:
    """The quotient of Equation 5 in points of mIoU a millisecond; None where the latency does not grow."""
    before, after = _middle(parent), _middle(candidate)
    if after.latency <= before.latency:
        return None
    return float((after.miou - before.miou) / (after.latency - before.latency))


def surely_gains(parent: Measured, candidate: Measured) -> bool:
    """Whether the candidate's mIoU is above the parent's wherever both lie inside their intervals."""
    return _worst(candidate).miou > _best(parent).miou


class _Point(NamedTuple):
    miou: Fraction
    latency: Fraction


# Larger is better: (in front of its parent in both?, gain or quotient, minus the latency). None: no gain.
_Merit = tuple[bool, Fraction, Fraction] | None


def _merit(parent: _Point, candidate: _Point) -> _Merit:
    gain, delay = candidate.miou - parent.miou, candidate.latency - parent.latency
    if gain <= 0:
        return None
    return (True, gain, -candidate.latency) if delay <= 0 else (False, gain / delay, -candidate.latency)


def _largest(merits: Sequence[_Merit]) -> int | None:
    """Index of the best; the first of several that are equal."""
    best: int | None = None
    for index, merit in enumerate(merits):
        if _beats(merit, None if best is None else merits[best]):
            best = index
    return best


def _beats(merit: _Merit, other: _Merit) -> bool:
    return merit is not None and (other is None or merit > other)


def _middle(it: Measured) -> _Point:
    return _Point(exact(it.score.miou), exact(it.latency.median_ms))


def _best(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) + exact(it.score.spread), exact(it.latency.low_ms))


def _worst(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) - exact(it.score.spread), exact(it.latency.high_ms))


def _may_gain(parent: Measured, candidate: Measured) -> bool:
    return _best(candidate).miou > _worst(parent).miou


def _may_overtake(parent: Measured, winner: Measured, rival: Measured) -> bool:
    """True if the rival at its best beats the winner at its worst, for some parent inside the parent's intervals.

    The parent's numbers count for both at once. With the denominators cleared, the difference of two quotients is
    linear in the parent's mIoU and in its latency, so the ends of its intervals suffice, and with them the turning
    points where a rule changes: the winner stops gaining at its own mIoU, the rival stops being slower at its own
    latency.
    """
    best, worst = _best(rival), _worst(winner)
    mious = _ends(_worst(parent).miou, worst.miou, _best(parent).miou)
    latencies = _ends(_best(parent).latency, best.latency, _worst(parent).latency)
    corners = [_Point(miou, latency) for miou in mious for latency in latencies]
    return any(_beats(_merit(corner, best), _merit(corner, worst)) for corner in corners)


def _ends(low: Fraction, turning: Fraction, high: Fraction) -> tuple[Fraction, ...]:
    return (low, turning, high) if low < turning < high else (low, high)

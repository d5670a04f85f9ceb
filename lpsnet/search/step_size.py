"""Equations 3 to 5 (Section 3.4): target latency, step size of every operation, and the candidate that a step takes.

    L_T = max over the operations of Lat(N + delta)                     (3)
    k   = argmin over k >= 1 of |Lat(N + k delta) - L_T|                (4)
    choose the candidate with the largest gain in mIoU per gain in latency (5)

Latency need not grow with k (Figure 5), so every k up to a cap is measured, unless `patience` is given; of two equally
near k the smaller is taken. What Equation 5 leaves open: a candidate whose mIoU is not above its parent's is never
taken; one that gains and is not slower than its parent precedes all others, the highest mIoU first; ties go to the
smaller latency, then to the order of the operations.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol

from lpsnet.errors import ArchitectureError
from lpsnet.search.measurements import CostFunction, Latency, LatencyFunction, Limits, Score, exact
from lpsnet.search.operations import Design, Operation, SearchNetwork


class StepSize(NamedTuple):
    """One possible k of an operation, and the network `parent + k · delta`."""

    k: int
    network: SearchNetwork


@dataclass(frozen=True, slots=True)
class StepSizes:
    """The possible step sizes of an operation, in rising order; the first is 1."""

    operation: Operation
    sizes: tuple[StepSize, ...]


@dataclass(frozen=True, slots=True)
class Excluded:
    """An operation without a candidate in a step, and the reason."""

    operation: Operation
    reason: str


@dataclass(frozen=True, slots=True)
class StepSizeChoice:
    """The result of Equations 3 and 4.

    Attributes:
        target_ms: L_T; None if no operation is left.
        chosen: the step size of every operation that has one, in the order of the operations.
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
    """The step sizes that each operation may take before latencies are known, and the operations that have none.

    A step size is excluded if the result is not a network, is the parent's own design, or breaks a limit on parameters
    or memory. An operation without k = 1, which Equation 3 needs, is excluded.
    """
    found, excluded = [], []
    for operation in operations:
        sizes, reason = _allowed(parent, operation, max_step_size, limits, cost)
        if sizes and sizes[0].k == 1:
            found.append(StepSizes(operation, tuple(sizes)))
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
        limit_ms: step sizes above this latency are excluded, and operations whose k = 1 is above it.
        patience: None measures every step size. A number measures them upwards and stops after so many in a row that
            lie, with their whole interval, further above the target than the operation's nearest so far.
    """
    known = _Known(parent.design, latency)
    known.measure(size for each in found for size in (each.sizes if patience is None else each.sizes[:1]))
    kept = [each for each in found if known.within(each.sizes[0], limit_ms)]
    excluded = tuple(
        Excluded(each.operation, f"{known.of(each.sizes[0]).median_ms:.3g} ms, limit {limit_ms:.3g} ms")
        for each in found
        if each not in kept
    )
    if not kept:
        return StepSizeChoice(None, {}, excluded)
    target_ms = max(known.of(each.sizes[0]).median_ms for each in kept)
    if patience is not None:
        _measure_upwards(kept, known, target_ms, patience)
    chosen = {each.operation: _nearest(each, known, target_ms, limit_ms) for each in kept}
    return StepSizeChoice(target_ms, chosen, excluded)


class _Known:
    """Latencies of one step in one scale: every call measures the parent, whose first latency is the unit.

    This makes calls comparable on a machine whose speed drifts.
    """

    def __init__(self, parent: Design, latency: LatencyFunction) -> None:
        self._parent, self._latency = parent, latency
        self._found: dict[Design, Latency] = {}

    def measure(self, sizes: Iterable[StepSize]) -> None:
        designs = dict.fromkeys(size.network.design for size in sizes)
        missing = [design for design in designs if design not in self._found]
        if not missing:
            return
        measured = self._latency([self._parent, *missing], effort=0)
        unit = self._found.setdefault(self._parent, measured[self._parent]).median_ms
        scale = unit / measured[self._parent].median_ms
        self._found.update({design: measured[design].times(scale) for design in missing})

    def of(self, size: StepSize) -> Latency:
        return self._found[size.network.design]

    def within(self, size: StepSize, limit_ms: float | None) -> bool:
        """Whether it is measured and not above the limit."""
        return size.network.design in self._found and (limit_ms is None or self.of(size).median_ms <= limit_ms)


def _measure_upwards(kept: Sequence[StepSizes], known: _Known, target_ms: float, patience: int) -> None:
    """Measure the step sizes upwards, one of every operation that is not given up at a time."""
    pending = [_until_hopeless(each, known, target_ms, patience) for each in kept]
    while sizes := [size for size in (next(each, None) for each in pending) if size is not None]:
        known.measure(sizes)


def _until_hopeless(each: StepSizes, known: _Known, target_ms: float, patience: int) -> Iterator[StepSize]:
    """The step sizes to measure; each must be measured before the next is asked for."""
    nearest, hopeless = _distance(known.of(each.sizes[0]), target_ms), 0
    for size in each.sizes[1:]:
        yield size
        latency = known.of(size)
        hopeless = hopeless + 1 if exact(latency.low_ms) - exact(target_ms) > nearest else 0
        nearest = min(nearest, _distance(latency, target_ms))
        if hopeless >= patience:
            return


def _nearest(each: StepSizes, known: _Known, target_ms: float, limit_ms: float | None) -> StepSize:
    """Equation 4."""
    sizes = [size for size in each.sizes if known.within(size, limit_ms)]
    return min(sizes, key=lambda size: (_distance(known.of(size), target_ms), size.k))


def _distance(latency: Latency, target_ms: float) -> Fraction:
    return abs(exact(latency.median_ms) - exact(target_ms))


def _allowed(
    parent: SearchNetwork, operation: Operation, max_step_size: int, limits: Limits, cost: CostFunction | None
) -> tuple[list[StepSize], str]:
    """The step sizes, and why the first excluded one is."""
    sizes: list[StepSize] = []
    reason = ""
    for k in range(1, max_step_size + 1):
        try:
            network = operation.apply(parent, k)
        except ArchitectureError as error:
            return sizes, reason or str(error)
        objection = "leads to the same network" if network.design == parent.design else ""
        if not objection and cost is not None and limits.needs_cost:
            objection = limits.broken_by(cost(network.design))
        reason = reason or objection
        if not objection:
            sizes.append(StepSize(k, network))
    return sizes, reason


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
    """The result of Equation 5 for the candidates of a step.

    Attributes:
        chosen: index of the candidate to take; None if none gains.
        rivals: indices of the candidates that would be taken for other values inside the intervals.
        gain_in_doubt: whether the chosen candidate's gain over its parent lies inside the intervals.
    """

    chosen: int | None
    rivals: tuple[int, ...]
    gain_in_doubt: bool

    @property
    def settled(self) -> bool:
        """True if no values inside the intervals would change the decision."""
        return not self.rivals and not self.gain_in_doubt


def decide(parent: Measured, candidates: Sequence[Measured]) -> Decision:
    """Equation 5 with the rules above; the candidates are in the order of the operations."""
    merits = [_merit(_middle(parent), _middle(candidate)) for candidate in candidates]
    chosen = max((i for i, merit in enumerate(merits) if merit), key=lambda i: merits[i] or (), default=None)
    if chosen is None:
        rivals = [i for i, it in enumerate(candidates) if _best(it).miou > _worst(parent).miou]
        return Decision(None, tuple(rivals), gain_in_doubt=False)
    winner = candidates[chosen]
    rivals = [index for index, it in enumerate(candidates) if index != chosen and _may_overtake(parent, winner, it)]
    return Decision(chosen, tuple(rivals), gain_in_doubt=not surely_gains(parent, winner))


def better_half(parent: Measured, candidates: Sequence[Measured]) -> list[int]:
    """The indices of the better half of the candidates by Equation 5, rounded up, and of all that tie with its last.

    A tie: some values inside the measured intervals put the candidate in front of that one. Of two that do not gain the
    one with the higher mIoU is better, then the faster one.
    """
    points = [_middle(it) for it in candidates]
    merits = [_merit(_middle(parent), point) for point in points]
    keys = [
        (merit is not None, merit or (False, point.miou, -point.latency))
        for merit, point in zip(merits, points, strict=True)
    ]
    order = sorted(range(len(candidates)), key=lambda index: keys[index], reverse=True)
    half = order[: -(-len(order) // 2)]
    last = half[-1] if half else 0
    ties = [
        index
        for index in order[len(half) :]
        if keys[index] == keys[last] or _may_overtake(parent, candidates[last], candidates[index])
    ]
    return sorted([*half, *ties])


def miou_per_ms(parent: Measured, candidate: Measured) -> float | None:
    """The quotient of Equation 5 in points of mIoU per millisecond; None where the latency does not grow."""
    before, after = _middle(parent), _middle(candidate)
    if after.latency <= before.latency:
        return None
    return float((after.miou - before.miou) / (after.latency - before.latency))


def surely_gains(parent: Measured, candidate: Measured) -> bool:
    """Whether the candidate's mIoU is above the parent's for all values inside both intervals."""
    return _worst(candidate).miou > _best(parent).miou


class _Point(NamedTuple):
    miou: Fraction
    latency: Fraction


# Larger is better: (not slower than its parent?, gain or quotient, minus the latency). None: no gain.
_Merit = tuple[bool, Fraction, Fraction] | None


def _merit(parent: _Point, candidate: _Point) -> _Merit:
    gain, delay = candidate.miou - parent.miou, candidate.latency - parent.latency
    if gain <= 0:
        return None
    return (True, gain, -candidate.latency) if delay <= 0 else (False, gain / delay, -candidate.latency)


def _beats(merit: _Merit, other: _Merit) -> bool:
    return merit is not None and (other is None or merit > other)


def _middle(it: Measured) -> _Point:
    return _Point(exact(it.score.miou), exact(it.latency.median_ms))


def _best(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) + exact(it.score.spread), exact(it.latency.low_ms))


def _worst(it: Measured) -> _Point:
    return _Point(exact(it.score.miou) - exact(it.score.spread), exact(it.latency.high_ms))


def _may_overtake(parent: Measured, winner: Measured, rival: Measured) -> bool:
    """Whether the rival at its best beats the winner at its worst, for some parent inside the parent's intervals.

    With the denominators cleared, the difference of two quotients is linear in the parent's mIoU and in its latency.
    So the ends of its intervals suffice, and the points where a rule changes: the winner's mIoU, where it stops
    gaining, and the rival's latency, where it stops being slower.
    """
    best, worst = _best(rival), _worst(winner)
    mious = _ends(_worst(parent).miou, worst.miou, _best(parent).miou)
    latencies = _ends(_best(parent).latency, best.latency, _worst(parent).latency)
    corners = [_Point(miou, latency) for miou in mious for latency in latencies]
    return any(_beats(_merit(corner, best), _merit(corner, worst)) for corner in corners)


def _ends(low: Fraction, turning: Fraction, high: Fraction) -> tuple[Fraction, ...]:
    return (low, turning, high) if low < turning < high else (low, high)

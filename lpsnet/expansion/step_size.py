"""Equations 3 and 4: the target latency of a step, and how far each operation goes to meet it.

    L_T = max over the operations of Lat(N + delta)
    k   = argmin over k >= 1 of |Lat(N + k delta) - L_T|

Latency need not grow with k (engines have fast and slow widths, Figure 5), so every k up to a cap is looked at, unless
`patience` is given. Of two k that are equally near, the smaller is taken. k = 0, the parent itself, is never a step.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from lpsnet.errors import ArchitectureError
from lpsnet.expansion.measurements import CostFunction, Latency, LatencyFunction, Limits, exact
from lpsnet.expansion.operations import Design, Operation, SearchNetwork


class Rung(NamedTuple):
    """The network `parent + k · delta` for one k."""

    step_size: int
    network: SearchNetwork


@dataclass(frozen=True, slots=True)
class Ladder:
    """An operation's possible step sizes, in rising order; the first is 1."""

    operation: Operation
    rungs: tuple[Rung, ...]


@dataclass(frozen=True, slots=True)
class Excluded:
    """An operation that has no candidate in a step, and why, in words."""

    operation: Operation
    reason: str


@dataclass(frozen=True, slots=True)
class StepSizes:
    """What Equations 3 and 4 say.

    Attributes:
        target_ms: L_T; None if no operation is left.
        chosen: the rung of every operation that has one, in the order of the ladders.
        excluded: the operations that have none.
    """

    target_ms: float | None
    chosen: dict[Operation, Rung]
    excluded: tuple[Excluded, ...]


def ladders(
    parent: SearchNetwork,
    operations: Iterable[Operation],
    *,
    max_step_size: int,
    limits: Limits,
    cost: CostFunction | None = None,
) -> tuple[list[Ladder], list[Excluded]]:
    """The step sizes each operation may take before latency is known, and the operations that may take none.

    A step size is out if the result is not a network, is the parent's own design, or breaks a limit on parameters or
    memory. An operation whose k = 1 is out is out: Equation 3 needs it.
    """
    found, excluded = [], []
    for operation in operations:
        rungs, reason = _rungs(parent, operation, max_step_size, limits, cost)
        if rungs and rungs[0].step_size == 1:
            found.append(Ladder(operation, tuple(rungs)))
        else:
            excluded.append(Excluded(operation, reason))
    return found, excluded


def choose_step_sizes(
    parent: SearchNetwork,
    found: Sequence[Ladder],
    *,
    latency: LatencyFunction,
    limit_ms: float | None = None,
    patience: int | None = None,
) -> StepSizes:
    """Equations 3 and 4 for the operations in `found`.

    Args:
        parent: the network to expand.
        found: from `ladders`.
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
        return StepSizes(None, {}, tuple(excluded))
    target_ms = max(known.of(ladder.rungs[0]).median_ms for ladder in kept)
    if patience is not None:
        _climb(kept, known, target_ms, patience)
    chosen = {ladder.operation: _nearest(ladder, known, target_ms, limit_ms) for ladder in kept}
    return StepSizes(target_ms, chosen, tuple(excluded))


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

    def of(self, rung: Rung) -> Latency:
        return self._found[rung.network.design]

    def has(self, rung: Rung) -> bool:
        return rung.network.design in self._found

    def within(self, rung: Rung, limit_ms: float | None) -> bool:
        return limit_ms is None or self.of(rung).median_ms <= limit_ms


def _climb(kept: Sequence[Ladder], known: _Known, target_ms: float, patience: int) -> None:
    """Measure rungs upwards, one of every operation still open at a time."""
    opened = [_climber(ladder, known, target_ms, patience) for ladder in kept]
    while rungs := [rung for rung in (next(climber, None) for climber in opened) if rung is not None]:
        known.measure(rung.network.design for rung in rungs)


def _climber(ladder: Ladder, known: _Known, target_ms: float, patience: int) -> Iterator[Rung]:
    """The rungs to measure, each yielded before it is known and judged after."""
    nearest, hopeless = _distance(known.of(ladder.rungs[0]), target_ms), 0
    for rung in ladder.rungs[1:]:
        yield rung
        latency = known.of(rung)
        hopeless = hopeless + 1 if exact(latency.low_ms) - exact(target_ms) > nearest else 0
        nearest = min(nearest, _distance(latency, target_ms))
        if hopeless >= patience:
            return


def _nearest(ladder: Ladder, known: _Known, target_ms: float, limit_ms: float | None) -> Rung:
    """Equation 4."""
    rungs = [rung for rung in ladder.rungs if known.has(rung) and known.within(rung, limit_ms)]
    return min(rungs, key=lambda rung: (_distance(known.of(rung), target_ms), rung.step_size))


def _distance(latency: Latency, target_ms: float) -> Fraction:
    return abs(exact(latency.median_ms) - exact(target_ms))


def _rungs(
    parent: SearchNetwork, operation: Operation, max_step_size: int, limits: Limits, cost: CostFunction | None
) -> tuple[list[Rung], str]:
    """The rungs, and why the first that is out is out."""
    rungs: list[Rung] = []
    reason = ""
    for step_size in range(1, max_step_size + 1):
        try:
            network = operation.apply(parent, step_size)
        except ArchitectureError as error:
            return rungs, reason or str(error)
        objection = _objection(parent, network, limits, cost)
        reason = reason or objection
        if not objection:
            rungs.append(Rung(step_size, network))
    return rungs, reason


def _objection(parent: SearchNetwork, network: SearchNetwork, limits: Limits, cost: CostFunction | None) -> str:
    if network.design == parent.design:
        return "leads to the same network"
    if cost is None or not limits.needs_cost:
        return ""
    return limits.broken_by(cost(network.design))


def _too_slow(ladder: Ladder, known: _Known, limit_ms: float | None) -> Excluded:
    return Excluded(ladder.operation, f"{known.of(ladder.rungs[0]).median_ms:.3g} ms, limit {limit_ms:.3g} ms")


def _designs(found: Iterable[Ladder]) -> list[Design]:
    return [rung.network.design for ladder in found for rung in ladder.rungs]


def _scaled(latency: Latency, scale: float) -> Latency:
    return Latency(latency.median_ms * scale, latency.low_ms * scale, latency.high_ms * scale)

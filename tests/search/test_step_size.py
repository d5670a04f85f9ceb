"""Equations 3 and 4 with an engine whose speed drifts, and with patience."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.search.measurements import Cost, Latency, Limits
from lpsnet.search.operations import Design, Operation, SearchNetwork
from lpsnet.search.step_size import choose_step_sizes, possible_step_sizes

START = SearchNetwork.start("tiny")
DEPTH, WIDTH = Operation("depth", (0, 0, 0, 1, 1)), Operation("width", (0, 0, 0, 32, 32))


class Engine:
    """Latencies by operation and k; every call is slower than the one before by `drift`."""

    def __init__(self, depth: Sequence[float], width: Sequence[float], *, drift: float = 1.0) -> None:
        self.times = {START.design: 1.0}
        self.times |= {DEPTH.apply(START, k).design: time for k, time in enumerate(depth, start=1)}
        self.times |= {WIDTH.apply(START, k).design: time for k, time in enumerate(width, start=1)}
        self.drift, self.calls, self.half = drift, [], 0.0

    def __call__(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        assert effort == 0
        slower = self.drift ** len(self.calls)
        self.calls.append(list(designs))
        middles = {design: self.times[design] * slower for design in designs}
        return {it: Latency(ms, ms - self.half, ms + self.half) for it, ms in middles.items()}


def _step_sizes(engine: Engine, cap: int, **options: float | None) -> tuple[float | None, dict[Operation, int]]:
    found, excluded = possible_step_sizes(START, [DEPTH, WIDTH], max_step_size=cap, limits=Limits())
    assert not excluded
    sizes = choose_step_sizes(START, found, latency=engine, **options)
    return sizes.target_ms, {operation: size.k for operation, size in sizes.chosen.items()}


def test_every_step_size_is_measured_in_one_turn_with_the_parent() -> None:
    engine = Engine([1.5, 1.2, 1.1, 1.9], [2.0, 5.0, 4.0, 3.0])
    assert _step_sizes(engine, 4) == (2.0, {DEPTH: 4, WIDTH: 1})
    (only,) = engine.calls
    assert only[0] == START.design
    assert len(only) == 9


def test_patience_gives_an_operation_up_and_says_nothing_else() -> None:
    """Depth's k = 1 to 5: 0.5 0.2 0.3 0.4 0.9 from the target of 2.0. Hopeless above 2.0 by more than the nearest."""
    engine = Engine([1.5, 1.8, 2.3, 2.4, 1.1, 2.0], [2.0, 2.5, 2.5, 2.5, 2.5, 2.5])
    assert _step_sizes(engine, 6, patience=2) == (2.0, {DEPTH: 2, WIDTH: 1})
    measured = {design for call in engine.calls for design in call}
    assert DEPTH.apply(START, 4).design in measured
    assert DEPTH.apply(START, 5).design not in measured
    assert WIDTH.apply(START, 4).design not in measured
    assert _step_sizes(engine, 6, patience=3)[1] == {DEPTH: 6, WIDTH: 1}, (
        "a step below the target starts the count anew"
    )
    assert _step_sizes(engine, 6)[1] == {DEPTH: 6, WIDTH: 1}


def test_an_interval_that_reaches_down_is_not_hopeless() -> None:
    engine = Engine([1.5, 1.8, 2.3, 2.4, 1.1, 2.0], [2.0, 2.5, 2.5, 2.5, 2.5, 2.5])
    engine.half = 0.3
    assert _step_sizes(engine, 6, patience=2)[1] == {DEPTH: 6, WIDTH: 1}


def test_drift_between_turns_drops_out() -> None:
    """With every turn half as fast as the one before, the same step sizes, to the scale of the first turn."""
    steady, drifting = (Engine([1.1, 1.4, 2.05, 2.6], [2.0, 1.9, 2.2, 7.0], drift=drift) for drift in (1.0, 2.0))
    expected = (2.0, {DEPTH: 3, WIDTH: 1})
    assert _step_sizes(steady, 4, patience=4) == _step_sizes(drifting, 4, patience=4) == expected
    assert len(drifting.calls) == 4
    assert all(call[0] == START.design for call in drifting.calls)


def test_an_operation_needs_its_first_step_size() -> None:
    """Equation 3 asks for N + delta: an operation that breaks a limit there is out, even if a larger k would not."""

    def cost(design: Design) -> Cost:
        return Cost(parameters=10 if design == DEPTH.apply(START, 1).design else 1, memory_mib=1.0)

    limits = Limits(parameters=5)
    found, excluded = possible_step_sizes(START, [DEPTH, WIDTH], max_step_size=3, limits=limits, cost=cost)
    assert [each.operation for each in found] == [WIDTH]
    assert [(it.operation, it.reason) for it in excluded] == [(DEPTH, "10 parameters, limit 5")]


rising = st.lists(st.integers(0, 30), min_size=6, max_size=6).map(
    lambda steps: [1 + sum(steps[: k + 1]) / 10 for k in range(6)]
)


@settings(deadline=None)
@given(rising, rising, st.integers(1, 3))
def test_patience_changes_nothing_where_latency_grows(depth: list[float], width: list[float], patience: int) -> None:
    assert _step_sizes(Engine(depth, width), 6, patience=patience) == _step_sizes(Engine(depth, width), 6)


@pytest.mark.parametrize("limit_ms", [1.05, 1.3, 2.0, 3.0])
def test_a_limit_takes_step_sizes_away(limit_ms: float) -> None:
    depth, width = [1.1, 1.2, 2.5, 1.3], [1.9, 2.0, 2.9, 3.0]
    target, step_sizes = _step_sizes(Engine(depth, width), 4, limit_ms=limit_ms)
    within = {op: {k: t for k, t in enumerate(row, 1) if t <= limit_ms} for op, row in ((DEPTH, depth), (WIDTH, width))}
    kept = {op: row for op, row in within.items() if 1 in row}
    assert target == (max(row[1] for row in kept.values()) if kept else None)
    nearest: Callable[[dict[int, float]], int] = lambda row: min(row, key=lambda k: (round(abs(row[k] - target), 9), k))  # noqa: E731
    assert step_sizes == {op: nearest(row) for op, row in kept.items()}

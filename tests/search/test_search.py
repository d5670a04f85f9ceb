"""Algorithm 1 on landscapes made by hand: every rule of the search."""

from collections.abc import Sequence

import pytest
from expansion_landscapes import DEPTH, START, WIDTH, Landscape, hand_made

from lpsnet.architecture import Architecture
from lpsnet.errors import RunError
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.measurements import Cost, Failure, Latency, Limits, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork, table_1, today


def _one_step(made: tuple[Landscape, list[Operation], int], **options: object):
    landscape, operations, cap = made
    return expand(
        START,
        latency=landscape.latency,
        performance=landscape.performance,
        operations=operations,
        options=SearchOptions(num_steps=1, max_step_size=cap, **options),
    ).steps[0]


def test_a_step_worked_out_by_hand() -> None:
    """L_T = 2.0 (path). Depth: |1.2-2|, |1.9-2|, |2.3-2| -> k = 2. Width falls back at k = 2: 1.5, 1.1, 2.05 -> k = 3.

    Quotients from (1.0, 50): depth 4/0.9 = 4.44; width 5/1.05 = 4.76; path 4.5/1.0 = 4.5. Width is taken.
    """
    step = _one_step(
        hand_made(
            (1.0, 50.0),
            depth={1: (1.2, 99.0), 2: (1.9, 54.0), 3: (2.3, 99.0)},
            width={1: (1.5, 99.0), 2: (1.1, 99.0), 3: (2.05, 55.0)},
            path={1: (2.0, 54.5), 2: (3.0, 99.0), 3: (4.0, 99.0)},
        )
    )
    assert step.target_ms == 2.0
    assert [candidate.step_size for candidate in step.candidates] == [2, 3, 1]
    assert (step.chosen.operation, step.chosen.step_size) == (WIDTH, 3)
    assert step.decided


def test_the_parent_itself_is_never_a_step() -> None:
    """Every k >= 1 is far from the target, the parent is on it: k = 0 would win, and is not asked."""
    step = _one_step(
        hand_made((5.0, 50.0), depth={1: (9.0, 51.0), 2: (9.5, 52.0)}, width={1: (1.0, 50.5), 2: (0.5, 1.0)})
    )
    assert [candidate.step_size for candidate in step.candidates] == [1, 1]
    assert step.chosen.operation == WIDTH, "faster and better comes first"


def test_of_equally_near_step_sizes_the_smaller() -> None:
    """1.9 and 2.1 are 0.1 from 2.0 on paper, though not as floats (2.1 - 2.0 > 2.0 - 1.9)."""
    made = hand_made((1.0, 50.0), depth={1: (2.0, 51.0), 2: (9.0, 9.0)}, width={1: (1.9, 52.0), 2: (2.1, 53.0)})
    assert _one_step(made).candidates[1].step_size == 1
    made = hand_made((1.0, 50.0), depth={1: (2.0, 51.0), 2: (9.0, 9.0)}, width={1: (1.2, 52.0), 2: (2.0, 53.0)})
    assert _one_step(made).candidates[1].step_size == 2


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ({"depth": (2.0, 49.0), "width": (1.5, 50.1)}, WIDTH),  # slower and worse loses to any gain
        ({"depth": (2.0, 50.0), "width": (1.5, 49.0)}, None),  # no gain at all
        ({"depth": (0.5, 49.0), "width": (2.0, 50.0)}, None),  # faster and worse: the quotient would be +2
        ({"depth": (0.5, 40.0), "width": (2.0, 50.1)}, WIDTH),  # the same beside a small gain: +20 against +0.1
        ({"depth": (0.5, 50.0), "width": (2.0, 50.1)}, WIDTH),  # faster and equal is no gain either
        ({"depth": (0.9, 50.5), "width": (1.1, 60.0)}, DEPTH),  # in front in both beats any quotient
        ({"depth": (1.0, 50.5), "width": (1.1, 60.0)}, DEPTH),  # as fast and better: the quotient has no value
        ({"depth": (0.9, 50.5), "width": (1.0, 51.0)}, WIDTH),  # of two in front, the better one
        ({"depth": (1.0, 51.0), "width": (0.9, 51.0)}, WIDTH),  # and of equally good, the faster
        ({"depth": (1.2, 52.0), "width": (1.1, 51.0)}, WIDTH),  # equal quotients (10 on paper): the faster
        ({"depth": (1.1, 51.0), "width": (1.1, 51.0)}, DEPTH),  # equal in all: the table's order
    ],
)
def test_rules_of_choice(rows: dict[str, tuple[float, float]], chosen: Operation | None) -> None:
    step = _one_step(hand_made((1.0, 50.0), **{name: {1: point} for name, point in rows.items()}))
    assert (step.chosen.operation if step.chosen else None) == chosen
    assert step.decided


def test_the_search_stops_where_nothing_gains_and_says_so() -> None:
    landscape = Landscape(lambda design: float(sum(design.architecture.blocks)), lambda design: 50.0)
    reported: list[object] = []
    found = expand(START, latency=landscape.latency, performance=landscape.performance, on_step=reported.append)
    assert found.members == (found.start,)
    assert len(found.steps) == 1
    assert found.stop == "no candidate gains: the best has 50.00 mIoU, their parent 50.00"
    assert reported == list(found.steps)


def test_without_operations_or_steps() -> None:
    landscape = Landscape(lambda design: 1.0, lambda design: 50.0)
    found = expand(START, latency=landscape.latency, performance=landscape.performance, operations=[])
    assert found.stop.startswith("no operation leads to a network")
    options = SearchOptions(num_steps=0)
    found = expand(START, latency=landscape.latency, performance=landscape.performance, options=options)
    assert (found.steps, found.stop) == ((), "")
    assert found.start.score == Score(50.0)


def test_the_latency_limit_is_the_target_of_the_last_steps() -> None:
    """Depth takes 1 ms a block, width 10 at once. Under 6.5 ms width is out and L_T comes from depth."""
    rows = {"depth": {k: (1.0 + k, 50.0 + k) for k in (1, 2, 3)}, "width": {k: (10.0 * k, 90.0) for k in (1, 2, 3)}}
    free = _one_step(hand_made((1.0, 50.0), **rows))
    assert (free.target_ms, free.chosen.operation) == (10.0, WIDTH)
    step = _one_step(hand_made((1.0, 50.0), **rows), limits=Limits(latency_ms=6.5))
    assert (step.target_ms, step.chosen.operation, step.chosen.step_size) == (2.0, DEPTH, 1)
    assert [(it.operation, it.reason) for it in step.excluded] == [(WIDTH, "10 ms, limit 6.5 ms")]


def test_a_budget_is_never_exceeded_and_ends_the_search() -> None:
    landscape = Landscape(_blocks_and_channels, lambda design: min(99.0, _blocks_and_channels(design)))
    options = SearchOptions(num_steps=50, limits=Limits(latency_ms=20))
    found = expand(START, latency=landscape.latency, performance=landscape.performance, options=options)
    assert 18 < found.members[-1].latency.median_ms <= 20
    assert found.stop.startswith("no operation leads to a network that keeps the limits")
    assert len(found.steps) < 50


def _blocks_and_channels(design: Design) -> float:
    architecture = design.architecture
    return sum(architecture.blocks) + sum(architecture.widths) / 92 + float(sum(architecture.ratios))


def test_limits_on_parameters_and_memory() -> None:
    landscape = Landscape(_blocks_and_channels, lambda design: _blocks_and_channels(design))

    def cost(design: Design) -> Cost:
        return Cost(parameters=sum(design.architecture.widths), memory_mib=float(sum(design.architecture.blocks)))

    options = SearchOptions(num_steps=3, max_step_size=4, limits=Limits(parameters=160, memory_mib=9))
    found = expand(START, latency=landscape.latency, performance=landscape.performance, options=options, cost=cost)
    assert len(found.steps) == 3
    for design, _ in landscape.trained:
        assert cost(design).parameters <= 160
        assert cost(design).memory_mib <= 9
    reasons = {str(it.operation): it.reason for it in found.steps[0].excluded}
    assert reasons == {
        "width=4,8,16,32,32": "184 parameters, limit 160",  # 92 + 92
        "width=0,8,16,32,32": "180 parameters, limit 160",
        "width=0,0,16,32,32": "172 parameters, limit 160",
    }
    with pytest.raises(RunError, match="needs the function that counts them"):
        expand(START, latency=landscape.latency, performance=landscape.performance, options=options)


def test_another_block_as_an_operation() -> None:
    """The ghost block halves the time and gains: it is in front in both, and further steps keep it."""

    def milliseconds(design: Design) -> float:
        return _blocks_and_channels(design) * (0.5 if design.block == "ghost" else 1)

    operations = [*table_1(), Operation("block", value="ghost"), Operation("block", value="conv3x3")]
    landscape = Landscape(milliseconds, lambda it: _blocks_and_channels(it) + 3 * (it.block == "ghost"))
    found = expand(
        START,
        latency=landscape.latency,
        performance=landscape.performance,
        operations=operations,
        options=SearchOptions(num_steps=2),
    )
    assert [member.network.block for member in found.members] == ["conv3x3", "ghost", "ghost"]
    first, second = found.steps
    assert [(str(it.operation), it.reason) for it in first.excluded] == [("block=conv3x3", "leads to the same network")]
    assert [(str(it.operation), it.reason) for it in second.excluded] == [("block=ghost", "leads to the same network")]


def test_what_is_best_today_is_taken_first() -> None:
    """Detail gains 10 points for 0.5 ms (20 a ms), context 4 for 0.25 (16), a head 1 for 1; deeper is 3 for 1 (3).

    So the steps are detail, context, depth, …; a finer detail gains 3 for 2 (1.5), and the other context nothing.
    """
    detail, context = {16: (0.0, 0.0), 8: (0.5, 10.0), 4: (2.5, 13.0)}, {"none": (0.0, 0.0), "gate": (0.25, 4.0)}

    def point(design: Design) -> tuple[float, float]:
        it = design.architecture
        depth = sum(it.blocks) / 2 - 2.5
        parts = [detail[it.detail], context.get(it.context, (0.25, 3.0)), (depth, 3 * depth)]
        parts.append((1.0, 1.0) if it.head else (0.0, 0.0))
        return 1 + sum(ms for ms, _ in parts), 50 + sum(points for _, points in parts)

    landscape = Landscape(lambda design: point(design)[0], lambda design: point(design)[1])
    operations = (DEPTH, *today()[10:15])
    found = expand(
        START,
        latency=landscape.latency,
        performance=landscape.performance,
        operations=operations,
        options=SearchOptions(num_steps=3, max_step_size=4),
    )
    assert [str(step.chosen.operation) for step in found.steps] == ["detail=8", "context=gate", "depth=0,0,0,1,1"]
    assert [step.chosen.step_size for step in found.steps[:2]] == [1, 1]
    assert str(found.members[-1].design).endswith(";D=8;X=gate")
    assert "detail=8: leads to the same network" in [f"{it.operation}: {it.reason}" for it in found.steps[1].excluded]


def test_a_failed_training_takes_no_part() -> None:
    landscape, operations, cap = hand_made((1.0, 50.0), depth={1: (2.0, 99.0)}, width={1: (2.0, 51.0)})

    def performance(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        outcomes = dict(landscape.performance(designs, spec))
        deeper = DEPTH.apply(START).design
        return outcomes | ({deeper: Failure("the loss is not finite")} if deeper in outcomes else {})

    options = SearchOptions(num_steps=1, max_step_size=cap)
    found = expand(START, latency=landscape.latency, performance=performance, operations=operations, options=options)
    step = found.steps[0]
    assert step.chosen.operation == WIDTH
    assert [(it.operation, it.reason) for it in step.excluded] == [(DEPTH, "training failed: the loss is not finite")]

    def broken(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        return dict.fromkeys(designs, Failure("no"))

    with pytest.raises(RunError, match="could not be trained: no"):
        expand(START, latency=landscape.latency, performance=broken)


def test_options_that_make_no_sense() -> None:
    for options in ({"num_steps": -1}, {"max_step_size": 0}, {"patience": 0}, {"max_effort": 0}):
        with pytest.raises(RunError, match="at least"):
            SearchOptions(**options)
    least = {"num_steps": 0, "max_step_size": 1, "patience": 1, "max_effort": 1, "max_seeds": 1, "max_length": 1}
    options = SearchOptions(**least)
    assert {name: getattr(options, name) for name in least} == least
    for limits in ({"latency_ms": 0.0}, {"latency_ms": float("nan")}, {"parameters": -1}, {"memory_mib": float("inf")}):
        with pytest.raises(RunError, match="above 0"):
            Limits(**limits)


def test_numbers_that_cannot_be_decided_on() -> None:
    for value in (float("nan"), float("inf"), -0.1, 100.1):
        with pytest.raises(RunError, match="percent"):
            Score(value)
    for value in (float("nan"), float("inf"), 0.0, -1.0):
        with pytest.raises(RunError, match="above 0"):
            Latency.exactly(value)
    with pytest.raises(RunError, match="inside its interval"):
        Latency(1.0, 1.1, 1.2)


def test_the_search_needs_no_torch_and_other_starts_work() -> None:
    start = SearchNetwork((1, 2, 4, 7, 7), (16, 32, 64, 128, 128), ("1", "1/4"), "residual")
    landscape = Landscape(_blocks_and_channels, lambda design: min(100.0, _blocks_and_channels(design)))
    options = SearchOptions(num_steps=2, max_step_size=3)
    found = expand(start, latency=landscape.latency, performance=landscape.performance, options=options)
    assert len(found.steps[0].candidates) == 9, "two slots, two operations on the resolution"
    assert found.start.design == Design(Architecture((1, 2, 4, 7, 7), (16, 32, 64, 128, 128), (1, "1/4")), "residual")


def test_as_many_steps_as_table_4_by_default() -> None:
    assert SearchOptions().num_steps == 14


def test_the_start_is_reported_before_any_step() -> None:
    landscape = Landscape(lambda design: 1.0, lambda design: 50.0)
    reported: list[object] = []
    functions = {"latency": landscape.latency, "performance": landscape.performance}
    found = expand(START, **functions, on_start=reported.append, on_step=reported.append)
    assert reported == [found.start, *found.steps]

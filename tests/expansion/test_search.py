"""Algorithm 1 on landscapes made by hand: Table 4's walk, and every rule of the search."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import pytest
from expansion_landscapes import Landscape

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.errors import RunError
from lpsnet.expansion.family import Expansion
from lpsnet.expansion.measurements import Cost, Failure, Latency, Limits, Outcome, Score
from lpsnet.expansion.operations import Design, Operation, SearchNetwork, table_1
from lpsnet.expansion.search import SearchOptions, expand

# Table 4: latency in ms (1070Ti), mIoU in percent, of steps 0 to 14.
TABLE_4 = (
    (0.38, 24.1),
    (0.49, 41.4),
    (0.63, 53.4),
    (0.98, 57.8),
    (1.25, 60.1),
    (1.80, 62.3),
    (2.53, 64.6),
    (3.37, 66.1),
    (5.17, 69.5),
    (7.07, 70.8),
    (9.52, 71.4),
    (12.38, 72.0),
    (17.81, 73.0),
    (25.14, 74.2),
    (31.18, 74.8),
)
STEP_SIZES = (7, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1, 2, 1, 1)
DIMENSIONS = (
    *("depth", "width", "width", "resolution", "depth", "resolution", "resolution", "resolution"),
    *("width", "width", "resolution", "resolution", "width", "width"),
)
START = SearchNetwork.start("tiny")
CHOSEN = (2, 4, 3, 7, 0, 8, 7, 7, 5, 6, 7, 7, 4, 5)  # rows of Table 1, from 0


def _table_4_landscape() -> Landscape:
    """Latencies and scores in which Equations 3 to 5 lead along Table 4.

    Seen from step i - 1 with latency L, the next latency of Table 4 being L': the chosen operation reaches L' in k even
    steps, every other operation in one, so that L_T = L' and the step sizes are 1 but for the chosen. All other
    candidates gain half of what the chosen gains, in the same time. Table 4's own numbers go before those made here,
    and a later step's before an earlier one's.
    """
    table = {Design(get_architecture(f"step_{i}")): row for i, row in enumerate(TABLE_4)}
    made = {}
    network = START
    for i, (chosen, step_size) in enumerate(zip(CHOSEN, STEP_SIZES, strict=True), start=1):
        (before_ms, before), (after_ms, after) = TABLE_4[i - 1], TABLE_4[i]
        for row in sorted(range(10), key=lambda row: row == chosen):  # the chosen last: at step 6 it has a twin
            for k in range(1, 17):
                design = table_1()[row].apply(network, k).design
                stride = (after_ms - before_ms) / (step_size if row == chosen else 1)
                made[design] = round(before_ms + k * stride, 6), round(before + (after - before) / 2, 6)
        network = table_1()[chosen].apply(network, step_size)
    points = made | table
    return Landscape(lambda design: points[design][0], lambda design: points[design][1])


@cache
def _table_4_walk() -> tuple[Landscape, Expansion]:
    landscape = _table_4_landscape()
    return landscape, expand(START, latency=landscape.latency, performance=landscape.performance)


def test_the_search_walks_table_4() -> None:
    _, found = _table_4_walk()
    assert [member.design.architecture for member in found.members] == [
        get_architecture(f"step_{i}") for i in range(15)
    ]
    assert tuple(step.chosen.step_size for step in found.steps) == STEP_SIZES
    assert tuple(step.chosen.operation.dimension for step in found.steps) == DIMENSIONS
    assert [(it.latency.median_ms, it.score.miou) for it in found.members] == list(TABLE_4)
    assert found.stop == ""


def test_every_equation_of_the_walk() -> None:
    _, found = _table_4_walk()
    for i, step in enumerate(found.steps, start=1):
        (before_ms, before), (after_ms, after) = TABLE_4[i - 1], TABLE_4[i]
        assert step.target_ms == after_ms  # Equation 3: what the operations other than the chosen take with k = 1
        assert len(step.candidates) == 10
        for row, candidate in enumerate(step.candidates):  # Equation 4: exactly on the target
            twin_of_chosen = i == 6 and row == 9  # {0, 0, 1/8} x 2 makes the network of {0, 1/8, 0} x 2
            moved = row == CHOSEN[i - 1] or twin_of_chosen
            assert candidate.step_size == (STEP_SIZES[i - 1] if moved else 1)
            assert candidate.latency.median_ms == after_ms
            quotient = (candidate.score.miou - before) / (candidate.latency.median_ms - before_ms)  # Equation 5
            best = (after - before) / (after_ms - before_ms)
            assert quotient == pytest.approx(best if moved else best / 2)
    # By hand: step 1 gains 17.3 points in 0.11 ms, 157.3 a millisecond; step 14 gains 0.6 in 6.04 ms, 0.099.
    first, last = found.steps[0], found.steps[-1]
    assert (first.parent.score.miou, first.chosen.score.miou) == (24.1, 41.4)
    assert last.chosen.latency.median_ms - last.parent.latency.median_ms == pytest.approx(6.04)


def test_duplicates_are_trained_once_and_the_first_operation_is_named() -> None:
    landscape, found = _table_4_walk()
    trained = [design for design, _ in landscape.trained]
    assert len(trained) == len(set(trained))
    sixth = found.steps[5]
    assert sixth.candidates[8].design == sixth.candidates[9].design == sixth.chosen.design
    assert sixth.candidates[8].score == sixth.candidates[9].score
    assert str(sixth.chosen.operation) == "resolution=0,1/8,0"
    assert sixth.decided, "a network is no rival of itself"
    for _, designs in landscape.measured:
        assert len(designs) == len(set(designs)), "measured twice in one turn"


DEPTH, WIDTH, PATH = (Operation.parse(it) for it in ("depth=0,0,0,1,1", "width=0,0,0,32,32", "resolution=0,1/8,0"))
OPERATIONS = {"depth": DEPTH, "width": WIDTH, "path": PATH}


def _hand_made(
    start: tuple[float, float], **rows: Mapping[int, tuple[float, float]]
) -> tuple[Landscape, list[Operation], int]:
    """A landscape around START: for each operation, {k: (latency in ms, mIoU)}."""
    points = {START.design: start}
    for name, row in rows.items():
        points |= {OPERATIONS[name].apply(START, k).design: point for k, point in row.items()}
    landscape = Landscape(lambda design: points[design][0], lambda design: points[design][1])
    return landscape, [OPERATIONS[name] for name in rows], max(max(row) for row in rows.values())


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
        _hand_made(
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
        _hand_made((5.0, 50.0), depth={1: (9.0, 51.0), 2: (9.5, 52.0)}, width={1: (1.0, 50.5), 2: (0.5, 1.0)})
    )
    assert [candidate.step_size for candidate in step.candidates] == [1, 1]
    assert step.chosen.operation == WIDTH, "faster and better comes first"


def test_of_equally_near_step_sizes_the_smaller() -> None:
    """1.9 and 2.1 are 0.1 from 2.0 on paper, though not as floats (2.1 - 2.0 > 2.0 - 1.9)."""
    made = _hand_made((1.0, 50.0), depth={1: (2.0, 51.0), 2: (9.0, 9.0)}, width={1: (1.9, 52.0), 2: (2.1, 53.0)})
    assert _one_step(made).candidates[1].step_size == 1
    made = _hand_made((1.0, 50.0), depth={1: (2.0, 51.0), 2: (9.0, 9.0)}, width={1: (1.2, 52.0), 2: (2.0, 53.0)})
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
    step = _one_step(_hand_made((1.0, 50.0), **{name: {1: point} for name, point in rows.items()}))
    assert (step.chosen.operation if step.chosen else None) == chosen
    assert step.decided


def test_the_search_stops_where_nothing_gains_and_says_so() -> None:
    landscape = Landscape(lambda design: float(sum(design.architecture.blocks)), lambda design: 50.0)
    told: list[object] = []
    found = expand(START, latency=landscape.latency, performance=landscape.performance, on_step=told.append)
    assert found.members == (found.start,)
    assert len(found.steps) == 1
    assert found.stop == "no candidate gains: the best has 50.00 mIoU, their parent 50.00"
    assert told == list(found.steps)


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
    free = _one_step(_hand_made((1.0, 50.0), **rows))
    assert (free.target_ms, free.chosen.operation) == (10.0, WIDTH)
    step = _one_step(_hand_made((1.0, 50.0), **rows), limits=Limits(latency_ms=6.5))
    assert (step.target_ms, step.chosen.operation, step.chosen.step_size) == (2.0, DEPTH, 1)
    assert [(it.operation, it.reason) for it in step.excluded] == [(WIDTH, "10 ms, limit 6.5 ms")]


def test_a_budget_is_never_exceeded_and_ends_the_search() -> None:
    landscape = Landscape(_blocks_and_channels, lambda design: min(99.0, _blocks_and_channels(design)))
    options = SearchOptions(num_steps=50, limits=Limits(latency_ms=20))
    found = expand(START, latency=landscape.latency, performance=landscape.performance, options=options)
    assert 18 < found.members[-1].latency.median_ms <= 20
    assert found.stop.startswith("no operation leads to a network within the limits")
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

    operations = [*table_1(), Operation("block", block="ghost"), Operation("block", block="conv3x3")]
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


def test_parents_are_handed_to_the_trainer() -> None:
    landscape, found = _table_4_walk()
    parents = list(dict.fromkeys(parent for _, parent in landscape.trained))
    assert parents == [None, *(member.design for member in found.members[:-1])]


def test_a_failed_training_takes_no_part() -> None:
    landscape, operations, cap = _hand_made((1.0, 50.0), depth={1: (2.0, 99.0)}, width={1: (2.0, 51.0)})

    def performance(designs: Sequence[Design], *, parent: Design | None) -> dict[Design, Outcome]:
        outcomes = dict(landscape.performance(designs, parent=parent))
        deeper = DEPTH.apply(START).design
        return outcomes | ({deeper: Failure("the loss is not finite")} if deeper in outcomes else {})

    options = SearchOptions(num_steps=1, max_step_size=cap)
    found = expand(START, latency=landscape.latency, performance=performance, operations=operations, options=options)
    step = found.steps[0]
    assert step.chosen.operation == WIDTH
    assert [(it.operation, it.reason) for it in step.excluded] == [(DEPTH, "training failed: the loss is not finite")]

    def broken(designs: Sequence[Design], *, parent: Design | None) -> dict[Design, Outcome]:
        return dict.fromkeys(designs, Failure("no"))

    with pytest.raises(RunError, match="could not be trained: no"):
        expand(START, latency=landscape.latency, performance=broken)


def _noisy(
    width_of: Callable[[int], float], spread: float = 0.0
) -> tuple[list[int], Callable[..., Mapping[Design, Latency]], Callable[..., Mapping[Design, Outcome]]]:
    """Depth at 2.0 ms and 52 mIoU (quotient 2.0), width at 2.1 and 52.1 (1.91), the start at 1.0 and 50."""
    points = {START.design: (1.0, 50.0), DEPTH.apply(START).design: (2.0, 52.0), WIDTH.apply(START).design: (2.1, 52.1)}
    efforts: list[int] = []

    def latency(designs: Sequence[Design], *, effort: int) -> dict[Design, Latency]:
        efforts.append(effort)
        half = width_of(effort)
        return {it: Latency(points[it][0], points[it][0] - half, points[it][0] + half) for it in designs}

    def performance(designs: Sequence[Design], *, parent: Design | None) -> dict[Design, Outcome]:
        return {design: Score(points[design][1], spread) for design in designs}

    return efforts, latency, performance


@pytest.mark.parametrize(
    ("width_of", "spread", "doubt", "efforts"),
    [
        (lambda effort: 0.0, 0.0, "", [1, 0, 1]),
        (lambda effort: 0.5 / 10**effort, 0.0, "", [1, 0, 1, 2]),  # 0.05 ms leaves it open, 0.005 ms does not
        (lambda effort: 0.3, 0.0, "latency", [1, 0, 1, 2, 3]),  # measured as often as allowed, and said to be open
        (lambda effort: 0.3, 1.0, "score", [1, 0, 1]),  # no measuring helps against uncertain scores
    ],
)
def test_a_step_inside_the_noise_measures_more_and_says_so(
    width_of: Callable[[int], float], spread: float, doubt: str, efforts: list[int]
) -> None:
    asked, latency, performance = _noisy(width_of, spread)
    options = SearchOptions(num_steps=1, max_step_size=1)
    lines: list[str] = []
    found = expand(
        START,
        latency=latency,
        performance=performance,
        operations=[DEPTH, WIDTH],
        options=options,
        progress=lines.append,
    )
    step = found.steps[0]
    assert asked == efforts
    assert (step.doubt, step.decided) == (doubt, not doubt)
    assert [it.operation for it in step.rivals] == ([WIDTH] if doubt else [])
    assert step.chosen.operation == DEPTH, "the better estimate is taken all the same"
    assert sum("undecided" in line for line in lines) == len(efforts) - 3


def test_a_gain_inside_the_spread_is_not_decided() -> None:
    landscape, operations, _ = _hand_made((1.0, 50.0), depth={1: (2.0, 50.5)})

    def performance(designs: Sequence[Design], *, parent: Design | None) -> dict[Design, Outcome]:
        return {it: Score(score.miou, 0.3) for it, score in landscape.performance(designs, parent=parent).items()}

    options = SearchOptions(num_steps=1, max_step_size=1)
    step = expand(
        START, latency=landscape.latency, performance=performance, operations=operations, options=options
    ).steps[0]
    assert (step.chosen.operation, step.doubt, step.rivals) == (DEPTH, "score", ())


def test_candidates_and_parent_are_measured_in_turn() -> None:
    landscape, found = _table_4_walk()
    (_, start), *turns = landscape.measured
    assert start == [START.design]
    for step, (first, second) in zip(found.steps, zip(turns[::2], turns[1::2], strict=True), strict=True):
        assert [first[0], second[0]] == [0, 1]
        assert first[1][0] == second[1][0] == step.parent.design
        assert set(second[1]) == {step.parent.design, *(it.design for it in step.candidates)}


def _changing(times: Sequence[tuple[float, float, float]]) -> Callable[..., Mapping[Design, Latency]]:
    """Latencies of the start, depth and width, another row for every call."""
    rows = iter(times)

    def latency(designs: Sequence[Design], *, effort: int) -> dict[Design, Latency]:
        row = dict(zip((START.design, DEPTH.apply(START).design, WIDTH.apply(START).design), next(rows), strict=True))
        return {design: Latency(row[design], row[design] - 0.04, row[design] + 0.04) for design in designs}

    return latency


def test_candidates_are_compared_with_the_parent_of_their_own_turn() -> None:
    """The machine is half as fast when the candidates are decided on: 2/2 points a ms for depth, 3.5/4 for width.

    Against the 1.0 ms of the parent's first turn it would be 2/3 and 3.5/5, and width would be taken.
    """
    landscape, operations, _ = _hand_made((1.0, 50.0), depth={1: (2.0, 52.0)}, width={1: (3.0, 53.5)})
    latency = _changing([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (2.0, 4.0, 6.0)])
    options = SearchOptions(num_steps=1, max_step_size=1)
    found = expand(START, latency=latency, performance=landscape.performance, operations=operations, options=options)
    assert found.start.latency.median_ms == 1.0
    assert found.steps[0].parent.latency.median_ms == 2.0
    assert found.steps[0].chosen.operation == DEPTH


def test_a_candidate_that_turns_out_too_slow_is_not_taken() -> None:
    """Width is under the limit of 2.2 ms at first, above it in the second turn (not trained) or the third (trained)."""
    landscape, operations, _ = _hand_made((1.0, 50.0), depth={1: (2.0, 52.0)}, width={1: (2.1, 52.2)})
    options = SearchOptions(num_steps=1, max_step_size=1, limits=Limits(latency_ms=2.2))
    first = (1.0, 2.0, 2.1)
    for times, trained in (([first, first, (1.0, 2.0, 2.3)], False), ([*[first] * 3, (1.0, 2.0, 2.3)], True)):
        landscape.trained.clear()
        found = expand(
            START,
            latency=_changing(times),
            performance=landscape.performance,
            operations=operations,
            options=options,
        )
        (step,) = found.steps
        assert (step.chosen.operation, len(step.candidates)) == (DEPTH, 1)
        assert [(it.operation, it.reason) for it in step.excluded] == [(WIDTH, "2.3 ms, limit 2.2 ms")]
        assert (WIDTH.apply(START).design in [design for design, _ in landscape.trained]) == trained


def test_options_that_make_no_sense() -> None:
    for options in ({"num_steps": -1}, {"max_step_size": 0}, {"patience": 0}, {"max_effort": 0}):
        with pytest.raises(RunError, match="at least"):
            SearchOptions(**options)
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

"""Steps inside the noise, and machines whose speed changes between turns."""

from collections.abc import Callable, Mapping, Sequence

import pytest
from expansion_landscapes import DEPTH, START, WIDTH, hand_made

from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.measurements import Latency, Limits, Outcome, Score, TrainingSpec
from lpsnet.search.operations import Design


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

    def performance(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
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
        on_progress=lines.append,
    )
    step = found.steps[0]
    assert asked == efforts
    assert (step.doubt, step.decided) == (doubt, not doubt)
    assert [it.operation for it in step.rivals] == ([WIDTH] if doubt else [])
    assert step.chosen.operation == DEPTH, "the better estimate is taken all the same"
    assert sum("undecided" in line for line in lines) == len(efforts) - 3


def test_a_gain_inside_the_spread_is_not_decided() -> None:
    landscape, operations, _ = hand_made((1.0, 50.0), depth={1: (2.0, 50.5)})

    def performance(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        return {it: Score(score.miou, 0.3) for it, score in landscape.performance(designs, spec).items()}

    options = SearchOptions(num_steps=1, max_step_size=1)
    step = expand(
        START, latency=landscape.latency, performance=performance, operations=operations, options=options
    ).steps[0]
    assert (step.chosen.operation, step.doubt, step.rivals) == (DEPTH, "score", ())


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
    landscape, operations, _ = hand_made((1.0, 50.0), depth={1: (2.0, 52.0)}, width={1: (3.0, 53.5)})
    latency = _changing([(1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (2.0, 4.0, 6.0)])
    options = SearchOptions(num_steps=1, max_step_size=1)
    found = expand(START, latency=latency, performance=landscape.performance, operations=operations, options=options)
    assert found.start.latency.median_ms == 1.0
    assert found.steps[0].parent.latency.median_ms == 2.0
    assert found.steps[0].chosen.operation == DEPTH


def test_a_candidate_that_turns_out_too_slow_is_not_taken() -> None:
    """Width is under the limit of 2.2 ms at first, above it in the second turn (not trained) or the third (trained)."""
    landscape, operations, _ = hand_made((1.0, 50.0), depth={1: (2.0, 52.0)}, width={1: (2.1, 52.2)})
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

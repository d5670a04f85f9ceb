"""When a step is decided: against numbers drawn from inside the intervals."""

import random
from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.search.measurements import Latency, Score
from lpsnet.search.step_size import decide, miou_per_ms


@dataclass(frozen=True)
class Point:
    score: Score
    latency: Latency


def at(miou: float, milliseconds: float) -> Point:
    return Point(Score(miou), Latency.exactly(milliseconds))


def points(most_spread: int, most_width: int) -> st.SearchStrategy[Point]:
    return st.builds(
        lambda miou, spread, ms, below, above: Point(
            Score(miou / 10, spread / 10), Latency(ms / 10, (ms - below) / 10, (ms + above) / 10)
        ),
        st.integers(450, 560),
        st.integers(0, most_spread),
        st.integers(40, 80),
        st.integers(0, most_width),
        st.integers(0, most_width),
    )


def inside(point: Point, dice: random.Random) -> Point:
    """Numbers from inside the point's intervals, often from their ends."""
    latency, score = point.latency, point.score
    ms = dice.choice([latency.low_ms, latency.high_ms, dice.uniform(latency.low_ms, latency.high_ms)])
    shift = dice.choice([-1.0, 1.0, dice.uniform(-1, 1)])
    return at(round(score.miou + shift * score.spread, 6), ms)


@settings(max_examples=60, deadline=None)
@given(points(8, 10), st.lists(points(8, 10), min_size=1, max_size=4), st.integers())
def test_no_number_inside_the_intervals_makes_a_rival_that_is_not_named(
    parent: Point, candidates: list[Point], seed: int
) -> None:
    decision = decide(parent, candidates)
    dice = random.Random(seed)
    for _ in range(40):
        other = decide(inside(parent, dice), [inside(candidate, dice) for candidate in candidates])
        if decision.settled:
            assert other.chosen == decision.chosen
        elif other.chosen is None:
            assert decision.chosen is None or decision.gain_in_doubt
        elif other.chosen != decision.chosen:
            assert other.chosen in decision.rivals


@settings(max_examples=100, deadline=None)
@given(points(5, 8), points(5, 8), points(5, 8), st.integers())
def test_a_named_rival_can_win(parent: Point, first: Point, second: Point, seed: int) -> None:
    """Of two candidates, the rival wins for some numbers inside the intervals: searched for on a grid."""
    decision = decide(parent, [first, second])
    if decision.chosen is None or not decision.rivals:
        return
    (rival,) = decision.rivals
    winner, other = (first, second)[decision.chosen], (first, second)[rival]
    best = at(round(other.score.miou + other.score.spread, 6), other.latency.low_ms)
    worst = at(round(winner.score.miou - winner.score.spread, 6), winner.latency.high_ms)
    steps = [i / 10 for i in range(11)]
    grid = [
        at(
            round(parent.score.miou + (2 * a - 1) * parent.score.spread, 6),
            round(parent.latency.low_ms + b * (parent.latency.high_ms - parent.latency.low_ms), 6),
        )
        for a in steps
        for b in steps
    ]
    ends = [at(miou, ms) for miou in (worst.score.miou,) for ms in (best.latency.median_ms,)]
    ends += [at(worst.score.miou, it.latency.median_ms) for it in grid]
    ends += [at(it.score.miou, best.latency.median_ms) for it in grid]
    assert any(decide(it, [worst, best]).chosen == 1 for it in [*grid, *ends])


@settings(deadline=None)
@given(points(0, 0), st.lists(points(0, 0), max_size=5))
def test_exact_numbers_decide(parent: Point, candidates: list[Point]) -> None:
    assert decide(parent, candidates).settled


@settings(deadline=None)
@given(points(0, 0), st.lists(points(0, 0), min_size=1, max_size=5))
def test_nothing_chosen_is_beaten_in_both(parent: Point, candidates: list[Point]) -> None:
    decision = decide(parent, candidates)
    if decision.chosen is None:
        assert all(candidate.score.miou <= parent.score.miou for candidate in candidates)
        return
    chosen = candidates[decision.chosen]
    assert chosen.score.miou > parent.score.miou
    for other in candidates:
        faster = other.latency.median_ms < chosen.latency.median_ms
        assert not (
            faster and other.score.miou > chosen.score.miou and other.latency.median_ms > parent.latency.median_ms
        )


def test_the_parents_uncertainty_counts_for_all_at_once() -> None:
    """Two candidates of equal latency: whatever the parent's latency, the better one has the larger quotient."""
    parent = Point(Score(50.0, 1.0), Latency(1.0, 0.5, 1.5))
    assert decide(parent, [at(55.0, 2.0), at(55.1, 2.0)]).settled
    # Taken one at a time the intervals overlap by far: 5/0.5 = 10 for the first, 5.1/1.5 = 3.4 for the second.


def test_turning_points_inside_the_parents_interval() -> None:
    """At neither end of the parent's latency does the second win, but at 1.5 ms it is no longer slower than it."""
    parent = Point(Score(50.0), Latency(1.8, 1.0, 2.0))
    first, second = at(60.0, 1.6), at(52.0, 1.5)
    assert decide(at(50.0, 1.0), [first, second]).chosen == 0
    assert decide(at(50.0, 2.0), [first, second]).chosen == 0
    assert decide(at(50.0, 1.5), [first, second]).chosen == 1
    assert decide(parent, [first, second]).rivals == (1,)


def test_turning_points_inside_the_parents_score() -> None:
    """At 48 the first has by far the larger quotient, at 52 neither gains; at 51.2 only the second gains."""
    parent, first, second = Point(Score(50.0, 2.0), Latency.exactly(1.0)), at(51.0, 1.1), at(51.5, 5.0)
    assert [decide(at(miou, 1.0), [first, second]).chosen for miou in (48.0, 51.2, 52.0)] == [0, 1, None]
    assert decide(parent, [first, second]).rivals == (1,)


def test_a_stop_is_open_if_a_candidate_may_gain() -> None:
    parent, candidate = Point(Score(50.0, 0.5), Latency.exactly(1.0)), Point(Score(49.8, 0.1), Latency.exactly(2.0))
    decision = decide(parent, [candidate])
    assert (decision.chosen, decision.rivals, decision.settled) == (None, (0,), False)


def test_the_quotient_in_points_a_millisecond() -> None:
    assert miou_per_ms(at(24.1, 0.38), at(41.4, 0.49)) == float(
        Fraction(1730, 11)
    )  # Table 4, step 1: 17.3 points in 0.11 ms
    assert miou_per_ms(at(50.0, 1.0), at(49.0, 2.0)) == -1.0
    assert miou_per_ms(at(50.0, 1.0), at(51.0, 1.0)) is None

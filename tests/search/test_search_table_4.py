"""Algorithm 1 walks exactly Table 4 on a landscape made for it; every equation checked by hand."""

from functools import cache

import pytest
from expansion_landscapes import START, Landscape

from lpsnet.architecture import get_architecture
from lpsnet.search.algorithm import expand
from lpsnet.search.family import Expansion
from lpsnet.search.operations import Design, table_1

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


def test_parents_are_handed_to_the_trainer() -> None:
    landscape, found = _table_4_walk()
    parents = list(dict.fromkeys(parent for _, parent in landscape.trained))
    assert parents == [None, *(member.design for member in found.members[:-1])]


def test_candidates_and_parent_are_measured_interleaved() -> None:
    landscape, found = _table_4_walk()
    (_, start), *turns = landscape.measured
    assert start == [START.design]
    for step, (first, second) in zip(found.steps, zip(turns[::2], turns[1::2], strict=True), strict=True):
        assert [first[0], second[0]] == [0, 1]
        assert first[1][0] == second[1][0] == step.parent.design
        assert set(second[1]) == {step.parent.design, *(it.design for it in step.candidates)}

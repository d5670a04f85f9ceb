"""Scores over seeds, and the steps of a search that repeats trainings to distinguish a lead from luck."""

from collections.abc import Callable, Mapping, Sequence
from statistics import stdev

import pytest
from expansion_landscapes import DEPTH, PATH, START, WIDTH

from lpsnet.errors import RunError
from lpsnet.search import results as page
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.family import Step
from lpsnet.search.measurements import Failure, Latency, Outcome, Score, SeedScores, TrainingSpec
from lpsnet.search.operations import Design, table_1

DEEPER, WIDER, NEW_PATH = (it.apply(START).design for it in (DEPTH, WIDTH, PATH))


def _scores(**rows: Sequence[float]) -> SeedScores:
    scores = SeedScores()
    for design, mious in zip((DEEPER, WIDER, NEW_PATH), rows.values(), strict=False):
        for seed, miou in enumerate(mious):
            scores.add(design, seed, Score(miou, at_start=10.0 + seed))
    return scores


def test_one_score_has_no_spread() -> None:
    scores = _scores(deeper=[40.0], wider=[50.0])
    assert scores.spread_of_one is None
    assert scores.outcome(DEEPER) == Score(40.0, at_start=10.0)


def test_the_spread_is_pooled() -> None:
    """Two designs with sample variances 8 (one degree of freedom) and 1 (two): sqrt((8 + 2) / 3)."""
    scores = _scores(deeper=[40.0, 44.0], wider=[50.0, 51.0, 52.0], path=[60.0])
    assert stdev([40, 44]) ** 2 == pytest.approx(8)
    assert stdev([50, 51, 52]) ** 2 == pytest.approx(1)
    assert scores.spread_of_one == pytest.approx((10 / 3) ** 0.5)
    outcome = scores.outcome(WIDER)
    assert outcome == Score(51.0, outcome.spread, 10.0, 3)
    assert outcome.spread == pytest.approx((10 / 9) ** 0.5)
    assert scores.outcome(NEW_PATH).spread == pytest.approx((10 / 3) ** 0.5)


def test_failures_count_as_tried_and_the_first_decides() -> None:
    scores = _scores(deeper=[40.0, 42.0])
    scores.add(DEEPER, 2, Failure("diverged"))
    assert (scores.num_tried(DEEPER), scores.outcome(DEEPER).num_seeds) == (3, 2)
    scores.add(WIDER, 0, Failure("diverged"))
    scores.add(WIDER, 1, Score(99.0))
    assert scores.outcome(WIDER) == Failure("diverged")


class _Luck:
    """The start at 1 ms and 50 points, three candidates at 2 ms; what a score is depends on the seed."""

    def __init__(self, miou: Callable[[Design, int], float]) -> None:
        self._miou = miou
        self.asked: list[tuple[Design, int]] = []

    def latency(self, designs: Sequence[Design], *, effort: int) -> Mapping[Design, Latency]:
        return {it: Latency.exactly(1.0 if it == START.design else 2.0) for it in designs}

    def performance(self, designs: Sequence[Design], spec: TrainingSpec) -> Mapping[Design, Outcome]:
        assert spec.parent == (None if designs[0] == START.design else START.design)
        self.asked += [(design, spec.seed) for design in designs]
        return {design: Score(self._miou(design, spec.seed)) for design in designs}

    def step(self, max_seeds: int) -> Step:
        return expand(
            START,
            latency=self.latency,
            performance=self.performance,
            operations=[DEPTH, WIDTH, PATH],
            options=SearchOptions(num_steps=1, max_step_size=1, max_seeds=max_seeds),
        ).steps[0]


_MIOU = {START.design: 50.0, DEEPER: 56.0, WIDER: 55.0, NEW_PATH: 51.0}
_FIRST = [(START.design, 0)], [(DEEPER, 0), (WIDER, 0), (NEW_PATH, 0)]


def test_a_lead_beyond_the_spread_takes_one_repetition_of_each() -> None:
    """Seeds differ by 0.2: the spread of one is 0.14, of two 0.1, and the lead of 1 is clear."""
    luck = _Luck(lambda design, seed: _MIOU[design] + 0.2 * (seed % 2))
    step = luck.step(max_seeds=3)
    assert luck.asked == [*_FIRST[0], (START.design, 1), *_FIRST[1], (DEEPER, 1), (WIDER, 1)]
    assert (step.chosen.operation, step.decided) == (DEPTH, True)
    assert [it.score.num_seeds for it in step.candidates] == [2, 2, 1]
    assert step.chosen.score.spread == pytest.approx(0.2 / 2**0.5 / 2**0.5)
    assert (step.parent.score.num_seeds, step.parent.score.miou) == (2, pytest.approx(50.1))


def test_a_lead_inside_the_spread_takes_all_seeds_and_stays_undecided() -> None:
    """Seeds 0, 1, 2 give 0, -3, +3: a spread of 3 over three seeds, 1.7 for their mean, against a lead of 1."""
    luck = _Luck(lambda design, seed: _MIOU[design] + (0, -3, 3)[seed])
    step = luck.step(max_seeds=3)
    assert luck.asked[-2:] == [(DEEPER, 2), (WIDER, 2)]
    assert (step.doubt, step.chosen.operation) == ("score", DEPTH)
    assert WIDTH in [it.operation for it in step.rivals]
    assert [it.score.num_seeds for it in step.candidates] == [3, 3, 1]


def test_the_lucky_one_is_found_out() -> None:
    """Depth has 56 with seed 0 and 52 after that, width 55 always: the means are 54 and 55, then 53.3 and 55."""
    luck = _Luck(lambda design, seed: 52.0 if design == DEEPER and seed else _MIOU[design])
    step = luck.step(max_seeds=4)
    assert step.chosen.operation == WIDTH


def test_what_more_training_alone_gains_is_no_gain() -> None:
    """The parent's 50 points become 54 without any change: depth gains 2 beyond that, the others nothing."""
    mious = {START.design: 54.0, DEEPER: 56.0, WIDER: 53.9, NEW_PATH: 50.5}
    specs: list[tuple[Design, TrainingSpec]] = []

    def performance(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        specs.extend((design, spec) for design in designs)
        first = spec == TrainingSpec()
        return {it: Score(50.0 if first else mious[it], at_start=None if first else 50.0) for it in designs}

    def times(designs: Sequence[Design], *, effort: int) -> dict[Design, Latency]:
        ms = {START.design: 1.0, DEEPER: 2.0, WIDER: 1.5, NEW_PATH: 2.0}
        return {it: Latency.exactly(ms[it]) for it in designs}

    def step(control: bool) -> Step:
        options = SearchOptions(num_steps=1, max_step_size=1, control=control)
        operations = [DEPTH, WIDTH, PATH]
        found = expand(START, latency=times, performance=performance, operations=operations, options=options)
        return found.steps[0]

    assert step(control=False).chosen.operation == WIDTH, "3.9 points in 0.5 ms against 6 in 1.0"
    specs.clear()
    controlled = step(control=True)
    assert controlled.chosen.operation == DEPTH, "2 points in 1.0 ms against none"
    assert (controlled.parent.score.miou, controlled.parent.score.at_start) == (54.0, 50.0)
    assert (START.design, TrainingSpec(START.design)) in specs
    assert "54.0 mIoU, 50.0 before it was trained further as they were" in page._section(controlled)


def test_repeating_has_a_bound_when_every_leader_falls() -> None:
    """With a second seed every score is 40 points lower, so that others lead: they are repeated, and that was it."""
    every = [it.apply(START).design for it in table_1()]
    asked: list[tuple[Design, int]] = []

    def performance(designs: Sequence[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        asked.extend((design, spec.seed) for design in designs)
        first = {design: 90.0 - number for number, design in enumerate(dict.fromkeys(every))}
        return {it: Score(10.0 if it == START.design else first[it] - 40 * spec.seed) for it in designs}

    def latency(designs: Sequence[Design], *, effort: int) -> dict[Design, Latency]:
        return {it: Latency.exactly(1.0 if it == START.design else 2.0) for it in designs}

    said: list[str] = []
    options = SearchOptions(num_steps=1, max_step_size=1, max_seeds=2, max_effort=1)
    found = expand(START, latency=latency, performance=performance, options=options, on_progress=said.append)
    assert asked[:2] == [(START.design, 0), (START.design, 1)]
    assert found.start.step == 0
    assert sum(seed == 1 for _, seed in asked[2:]) == 2 * 2, "two leaders in each of two rounds"
    assert said[0] == f"step 0: measuring and training the start, {START}"
    assert said[1] == "step 1 of 1: step sizes for 10 operations"
    assert said[2].startswith("step 1: target ")
    assert said[3:] == ["step 1: 2 trainings with another seed, for the spread of the scores"] * 2


def test_one_seed_repeats_nothing() -> None:
    luck = _Luck(lambda design, seed: _MIOU[design])
    assert luck.step(max_seeds=1).decided
    assert luck.asked == [*_FIRST[0], *_FIRST[1]]
    with pytest.raises(RunError, match="max_seeds of a search is at least 1"):
        SearchOptions(max_seeds=0)


def test_the_page_says_how_far_the_lead_is_from_the_spread() -> None:
    """Seeds 0.2 apart: a spread of 0.14 for one training; means of 56.1 and 55.1."""
    luck = _Luck(lambda design, seed: _MIOU[design] + 0.2 * (seed % 2))
    text = page._section(luck.step(max_seeds=3))
    assert "Lead over the next: 1.00 points. A single training's spread over seeds: 0.14." in text
    assert "| 56.1 ± 0.1 | 2 |" in text
    once = page._section(_Luck(lambda design, seed: _MIOU[design]).step(max_seeds=1))
    assert "Lead over the next: 1.00 points. Scores of one seed" in once


def test_a_search_does_not_end_on_bad_luck() -> None:
    """No candidate gains with the first seed, one does with the second and third."""
    luck = _Luck(lambda design, seed: 50.0 if design == START.design else 49.9 if seed == 0 else 58.0)
    step = luck.step(max_seeds=3)
    assert step.chosen is not None
    assert (DEEPER, 1) in luck.asked

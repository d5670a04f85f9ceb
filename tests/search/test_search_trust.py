"""How far a choice can be trusted: the luck that it picks, and intervals for all its comparisons, by simulation."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from expansion_landscapes import DEPTH, PATH, START, WIDTH
from numpy.typing import NDArray

from lpsnet.report.search import read_expansion
from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.family import trusted
from lpsnet.search.journal import (
    FRESH_SEED,
    HELD_OUT,
    StepDecided,
    TrainingFinished,
    read_journal,
    steps_without_trust,
    unseen_scores,
)
from lpsnet.search.measurements import Latency, Outcome, Score, TrainingSpec, t_quantile
from lpsnet.search.operations import Design
from lpsnet.search.step_size import decide, expected_optimism, leads, trust

REAL = Path(__file__).parents[2] / "docs" / "results" / "2026-11-26-search"


@dataclass(frozen=True)
class It:
    """Measured."""

    latency: Latency
    score: Score


def it(ms: float, miou: float, spread: float = 0.0) -> It:
    return It(Latency.exactly(ms), Score(miou, spread))


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 31, 200])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.95, 0.995, 0.9995])
def test_quantiles_of_students_t(freedom: int, probability: float) -> None:
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-9)


def test_the_largest_of_ten_equal_ones() -> None:
    """1.5388 standard deviations, as tables of normal order statistics have it."""
    same = [it(2.0, 50.0, 0.2)] * 10
    assert expected_optimism(it(1.0, 40.0), same, 0) == pytest.approx(0.2 * 1.53875, rel=1e-3)


@pytest.mark.parametrize(
    ("delays", "mious"),
    [
        ([1.0, 1.0, 1.0], [51.0, 50.9, 50.4]),
        ([0.5, 1.0, 2.0, 4.0], [50.6, 51.0, 51.9, 50.1]),
        ([-0.1, 0.0, 0.7, 1.0], [50.2, 50.1, 50.9, 51.2]),
        ([-0.2, -0.1, 1.0], [51.0, 50.9, 51.5]),
        ([1.0], [50.2]),
    ],
)
def test_the_luck_of_the_winner_is_that_of_simulated_steps(delays: list[float], mious: list[float]) -> None:
    """Scores are drawn around the means that the docstring gives, and Equation 5 takes one of each row."""
    spread, rng, base = 0.4, np.random.default_rng(1), 50.0
    seen, cost = np.array(mious), np.array(delays)
    real = max(0.0, seen.var(ddof=1) - spread**2) if len(seen) > 1 else 1.0
    means = seen.mean() + (seen - seen.mean()) * real / (real + spread**2)
    luck = rng.normal(0.0, spread, (40_000, len(seen)))
    gains = means + luck - base
    merits = np.where(cost <= 0, 1e6 + gains, gains / np.where(cost <= 0, 1.0, cost))
    merits[gains <= 0] = -np.inf
    winner = merits.argmax(axis=1)
    picked = luck[np.arange(len(luck)), winner][merits.max(axis=1) > -np.inf]
    measured = [it(10.0 + d, m, spread) for d, m in zip(delays, mious, strict=True)]
    error = picked.std() / math.sqrt(len(picked))
    assert expected_optimism(it(10.0, base), measured, 0) == pytest.approx(picked.mean(), abs=4 * error)


def _simulated(means: NDArray[np.float64], spread: float, rng: np.random.Generator) -> tuple[float, float]:
    """A step as a search does it: the two leaders get a second and a third seed. The luck, and what was expected."""
    draws, seeds = means[:, None] + rng.normal(0, spread, (len(means), 3)), np.ones(len(means), int)

    def mean() -> NDArray[np.float64]:
        return np.array([row[:count].mean() for row, count in zip(draws, seeds, strict=True)])

    for most in (2, 3):
        leaders = np.argsort(mean())[-2:]
        seeds[leaders] = np.minimum(seeds[leaders] + 1, most)
    scores = mean()
    chosen = int(scores.argmax())
    measured = [it(2.0, 50 + score, spread / math.sqrt(count)) for score, count in zip(scores, seeds, strict=True)]
    return scores[chosen] - means[chosen], expected_optimism(it(1.0, 40.0), measured, chosen)


@pytest.mark.parametrize("step", [0.0, 0.025, 0.2])
def test_on_average_it_is_the_luck_of_steps_that_repeat_their_leaders(step: float) -> None:
    """Nine candidates whose means lie 0, 1/8 and 1 spread of a training apart."""
    rng, spread = np.random.default_rng(2), 0.2
    rows = np.array([_simulated(step * np.arange(9.0), spread, rng) for _ in range(100)])
    happened, expected = rows.mean(axis=0)
    assert abs(happened - expected) < spread / 3
    assert step or happened > spread / 2, "there is a curse"


def test_a_lead_by_hand() -> None:
    """Delays of 1 and 2 ms: the rival needs twice the gain, 2 x 3 - 5.5 = 0.5 above what it has.

    Variance: (2 x 0.3)² + ((1 - 2) x 0.4)² + 0.5². Two comparisons: Student's t at 1 - 0.05 / 2 with 3 degrees of
    freedom is 3.1824.
    """
    parent = it(1.0, 50.0, 0.4)
    gain, lead = leads(parent, [it(2.0, 53.0, 0.3), it(3.0, 55.5, 0.5)], 0, freedom=3)
    assert (gain.candidate, gain.points, lead.candidate) == (None, 3.0, 1)
    assert lead.points == pytest.approx(0.5)
    assert gain.half_width == pytest.approx(3.1824 * 0.5, rel=1e-4)
    assert lead.half_width == pytest.approx(3.1824 * math.sqrt(0.36 + 0.16 + 0.25), rel=1e-4)
    assert gain.is_clear
    assert not lead.is_clear


def test_latencies_stand_at_their_less_favourable_ends() -> None:
    """The chosen one may take 1.5 ms more than its parent, the rival 1 ms: it needs 2/3 of the gain."""
    chosen, rival = It(Latency(2.0, 1.8, 2.5), Score(53.0, 0.3)), It(Latency(3.0, 2.0, 4.0), Score(51.0, 0.3))
    assert leads(it(1.0, 50.0, 0.3), [chosen, rival], 0, freedom=3)[1].points == pytest.approx(50 + 2 - 51)


def test_a_rival_that_is_not_slower_than_the_parent_leads_as_soon_as_it_gains() -> None:
    parent, slow, fast = it(1.0, 50.0, 0.1), it(2.0, 53.0, 0.1), it(0.9, 49.5, 0.1)
    assert leads(parent, [slow, fast], 0, freedom=5)[1].points == pytest.approx(0.5)
    assert [lead.candidate for lead in leads(parent, [it(0.9, 51.0, 0.1), slow], 0, freedom=5)] == [None]


def test_equals_seldom_stand() -> None:
    """Six candidates without any difference, the spread estimated with five degrees of freedom.

    At most 5 % of such steps may stand; compared one by one, with the ends of the spreads, many more look decided.
    """
    rng, freedom, steps = np.random.default_rng(3), 5, 300
    stand = one_by_one = 0
    for _ in range(steps):
        spread = 0.2 * math.sqrt(rng.chisquare(freedom) / freedom)
        parent, members = it(1.0, 50.0, spread), [it(2.0, 52.0 + luck, spread) for luck in rng.normal(0, 0.2, 6)]
        found = decide(parent, members)
        assert found.chosen is not None
        stand += all(lead.is_clear for lead in leads(parent, members, found.chosen, freedom=freedom))
        one_by_one += found.settled
    assert stand <= 0.05 * steps
    assert one_by_one > 2 * stand


def test_a_decision_names_what_is_not_set_apart() -> None:
    """Only the first two are within the intervals; by their spreads alone all are apart."""
    parent, members = it(1.0, 50.0, 0.1), [it(2.0, 53.0, 0.1), it(2.0, 52.7, 0.1), it(2.0, 51.0, 0.1)]
    assert decide(parent, members).settled
    found = decide(parent, members, freedom=4)
    assert (found.chosen, found.rivals, found.gain_in_doubt) == (0, (1,), False)
    said = trust(parent, members, 0, ["a", "b", "c"], freedom=4)
    assert (said.nearest, said.comparisons, said.stands) == ("b", 3, False)
    assert str(said).startswith("does not stand: 0.30 ± 0.45 points over b, all 3 comparisons counted; optimism 0.0")


def test_without_a_spread_nothing_is_said() -> None:
    members = [it(2.0, 53.0), it(2.0, 52.0)]
    assert trust(it(1.0, 50.0), members, 0, ["a", "b"], freedom=0) is None
    assert expected_optimism(it(1.0, 50.0), members, 0) == 0.0


def _step(*, simultaneous: bool, old: bool = False):
    """Seeds 0.4 apart at the start, none elsewhere; depth leads by 0.5."""
    mious = {START.design: 50.0, **{op.apply(START).design: m for op, m in ((DEPTH, 53.0), (WIDTH, 52.5), (PATH, 51))}}
    asked: list[int] = []

    def performance(designs: list[Design], spec: TrainingSpec) -> dict[Design, Outcome]:
        asked.extend([spec.seed] * len(designs))
        return {one: Score(mious[one] + (0.4 * (spec.seed % 2) if one == START.design else 0)) for one in designs}

    def latency(designs: list[Design], *, effort: int) -> dict[Design, Latency]:
        return {one: Latency.exactly(1.0 if one == START.design else 2.0) for one in designs}

    found = expand(
        START,
        latency=latency,
        performance=performance,
        operations=[DEPTH, WIDTH, PATH],
        options=SearchOptions(num_steps=1, max_step_size=1, max_seeds=3, simultaneous=simultaneous),
        old_steps=[1] if old else [],
    )
    return found, asked


def test_intervals_for_all_comparisons_ask_for_more_seeds() -> None:
    """Spread 0.28 and 0.16 with one and three degrees of freedom: a lead of 0.5 is clear for one comparison only."""
    (alone, few), (all_at_once, many) = _step(simultaneous=False), _step(simultaneous=True)
    assert alone.steps[0].decided
    assert not alone.steps[0].trust.stands
    assert max(few) == 1
    assert max(many) == 2, "a third seed for the two leaders"
    assert all_at_once.steps[0].trust.freedom == 5
    assert all_at_once.steps[0].decided == all_at_once.steps[0].trust.stands
    assert _step(simultaneous=True, old=True)[1] == few, "a step of an earlier version stays as it was decided"


def test_a_step_that_was_not_written_gets_its_trust_from_its_rows() -> None:
    found, _ = _step(simultaneous=False)
    bare = replace(found, steps=tuple(replace(one, trust=None) for one in found.steps))
    assert trusted(bare) == found.steps


def test_journals_of_earlier_versions() -> None:
    """They load, their steps are written without the new key, and two of eight choices stand."""
    path = REAL / "journal.jsonl"
    steps = [one for one in read_journal(path) if isinstance(one, StepDecided)]
    assert steps_without_trust(steps) == set(range(1, 9))
    assert all("trust" not in one.model_dump_json() for one in steps)
    found = read_expansion(REAL).found
    assert [one.number for one in found.steps if one.trust and one.trust.stands] == [5, 7]
    assert found.steps[3].trust.optimism == pytest.approx(0.14, abs=0.005)


def test_scores_that_took_no_part_in_a_choice() -> None:
    """Fresh seeds, and the images held out over the seeds that the step saw; the next step's control is none of it."""
    found, _ = _step(simultaneous=False)
    step = found.steps[0]
    parent, taken = str(step.parent.design), str(step.chosen.design)

    def line(design: str, of: str | None, seed: int, miou: float, held_out: float) -> TrainingFinished:
        return TrainingFinished(design=design, parent=of, seed=seed, miou=miou, details={HELD_OUT: held_out})

    events = [
        *(line(parent, None, seed, 50.0, 40.0 + seed) for seed in (0, 1)),
        *(line(taken, parent, seed, 53.0, 42.0 + seed) for seed in (0, 1, 2)),
        *(line(taken, parent, FRESH_SEED + seed, 52.0 + seed, 90.0) for seed in (0, 1)),
        line(taken, taken, 0, 99.0, 99.0),
    ]
    unseen = unseen_scores(events, step)
    assert (unseen.fresh, unseen.num_fresh) == (52.5, 2)
    assert (unseen.held_out, unseen.parent_held_out) == (42.5, 40.5), "two seeds each: the step saw no third"
    assert unseen_scores(events[:0], step).fresh is None

"""Longer trainings against a proxy: the comparison itself, and a run that makes it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from expansion_landscapes import START
from expansion_tiny import REPETITIONS, RUN, TableDevice, train_in_no_time

from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.family import Member, Step
from lpsnet.search.journal import TrainingFinished, TrainingResult, read_journal
from lpsnet.search.measurements import Failure, Latency, Score
from lpsnet.search.operations import table_1
from lpsnet.search.results import RankingCheck, check_table
from lpsnet.search.run import run_expansion
from lpsnet.search.train import CandidateTask

scipy_stats = pytest.importorskip("scipy.stats")


def _step(mious: Sequence[float], *, spread: float = 0.0) -> Step:
    """Candidates of equal latency: the depth and width operations of Table 1."""
    members = tuple(
        Member(1, operation.apply(START), Latency.exactly(2.0), Score(miou, spread), operation, 1)
        for operation, miou in zip(table_1(), mious, strict=False)
    )
    parent = Member(0, START, Latency.exactly(1.0), Score(10.0))
    return Step(1, parent, 2.0, members, (), max(members, key=lambda it: it.score.miou))


def _check(before: Sequence[float], after: Sequence[float | None], *, spread: float = 0.0) -> RankingCheck:
    step = _step(before, spread=spread)
    outcomes = [Failure("diverged") if it is None else Score(it) for it in after]
    designs = (member.design for member in step.candidates)
    return RankingCheck.of(step, dict(zip(designs, outcomes, strict=True)), length=5)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([30, 31, 32, 33], [40, 41, 42, 43]),
        ([30, 31, 32, 33], [43, 42, 41, 40]),
        ([30, 34, 32, 31, 35, 33], [41, 40, 42, 46, 45, 44]),
    ],
)
def test_kendalls_tau_is_scipys(before: list[float], after: list[float]) -> None:
    check = _check(before, after)
    assert check.kendall_tau == pytest.approx(scipy_stats.kendalltau(before, after).statistic)
    opposite = sum((a - b) * (c - d) < 0 for (a, c), (b, d) in _pairs(list(zip(before, after, strict=True))))
    assert len(check.swapped) == opposite


def _pairs(values: list[tuple[float, float]]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    return [(a, b) for number, a in enumerate(values) for b in values[:number]]


def test_a_swap_within_the_spread_counts_less_and_the_choice_is_equation_5s() -> None:
    """33.0 and 32.5 change places with spreads of 0.3 each: their lead of 0.5 was never more than luck."""
    check = _check([30.0, 32.5, 33.0], [40.0, 44.0, 43.0], spread=0.3)
    assert (len(check.swapped), check.swapped_clearly, check.same_choice) == (1, [], False)
    assert check.choice.operation == table_1()[1]
    assert str(check) == (
        f"step 1, 5 times as long: {table_1()[1]} instead; Kendall's tau 0.33: 1 of 3 pairs change places, "
        "0 of them beyond the seed spread"
    )
    assert _check([30.0, 32.0, 33.0], [40.0, 44.0, 43.0], spread=0.3).swapped_clearly
    lines = check_table(check).splitlines()
    assert [line.split(" | ")[2:] for line in lines[2:]] == [
        ["32.50", "2", "44.00", "1 |"],
        ["33.00", "1", "43.00", "2 |"],
        ["30.00", "3", "40.00", "3 |"],
    ]


def test_failures_are_left_out() -> None:
    check = _check([30.0, 31.0, 32.0], [40.0, None, 42.0])
    assert [it.longer.miou for it in check.checked] == [40.0, 42.0]
    assert check.same_choice
    assert _check([30.0], [40.0]).kendall_tau is None


def test_a_run_trains_one_step_longer_and_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())
    tasks: list[CandidateTask] = []

    def train(task: CandidateTask) -> TrainingResult:
        tasks.append(task)
        return train_in_no_time(task)

    run = replace(RUN, options=SearchOptions(num_steps=2, max_step_size=2), check_step=1, check_length=5)
    for _ in range(2):
        result = run_expansion(run, tmp_path, device=TableDevice(tmp_path), train=train, repetitions=REPETITIONS)
    longer = [task for task in tasks if task.run.recipe.iterations == 5 * RUN.recipe.iterations]
    first = result.found.steps[0]
    assert [task.design for task in longer] == list(dict.fromkeys(it.design for it in first.candidates))
    assert len({task.folder for task in tasks}) == len(tasks)
    assert {task.parent for task in longer} == {tasks[0].folder / "model.safetensors"}
    assert result.check.swapped == [], "a score from the size alone: longer or not, the order is the same"
    assert result.check.same_choice
    assert result.to_dict()["ranking_check"]["length"] == 5
    assert "## The proxy's ranking, checked" in (tmp_path / "family" / "table.md").read_text()
    lines = [it for it in read_journal(tmp_path / "journal.jsonl") if isinstance(it, TrainingFinished)]
    assert sorted({it.length for it in lines}) == [1, 5]
    assert all(a.at <= b.at for a, b in pairwise(lines))


def test_a_check_of_the_step_that_ended_a_search_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing gains; the first longer training is killed, and its state is there when it is begun again."""
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())
    begun: list[bool] = []

    def train(task: CandidateTask) -> TrainingResult:
        is_longer = task.run.recipe.iterations == 5 * RUN.recipe.iterations
        if is_longer:
            begun.append((task.folder / "state.safetensors").exists())
        result = replace(train_in_no_time(task), outcome=Score(50.0))
        if is_longer and len(begun) == 1:
            raise KeyboardInterrupt
        return result

    run = replace(RUN, options=replace(RUN.options, num_steps=1), check_step=1, check_length=5)
    options = {"device": TableDevice(tmp_path), "train": train, "repetitions": REPETITIONS}
    with pytest.raises(KeyboardInterrupt):
        run_expansion(run, tmp_path, **options)
    result = run_expansion(run, tmp_path, **options)
    assert result.found.steps[0].chosen is None
    assert begun[:2] == [False, True]

"""Whether what was handed over is what is asked for now: after other options, fewer steps, and at any interruption."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from expansion_tiny import REPETITIONS, RUN, TableDevice, train_in_no_time

from lpsnet.errors import RunError
from lpsnet.report.search import Search, read_expansion
from lpsnet.search.journal import TrainingResult
from lpsnet.search.measurements import Score
from lpsnet.search.results import SearchResult
from lpsnet.search.run import ExpansionRun, run_expansion
from lpsnet.search.train import CandidateTask

pytestmark = pytest.mark.usefixtures("bare")
ONE_STEP = replace(RUN, options=replace(RUN.options, num_steps=1))
LONGER = replace(RUN, options=replace(RUN.options, max_length=3))


class Killed(BaseException):
    """Instead of a signal."""


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is exported, which takes longer than all the rest."""
    monkeypatch.setattr("lpsnet.search.results.export_onnx", lambda net, path, **options: path.touch())


def quickly(run: ExpansionRun, out: Path, train: Callable[[CandidateTask], TrainingResult] = train_in_no_time, **more):
    return run_expansion(run, out, device=TableDevice(out), train=train, repetitions=REPETITIONS, **more)


def no_gain(task: CandidateTask) -> TrainingResult:
    """Nothing gains in trainings of the usual length."""
    result = train_in_no_time(task)
    usual = task.run.recipe.iterations == RUN.recipe.iterations
    return replace(result, outcome=Score(1.0, at_start=1.0)) if task.parent and usual else result


def killed_at(number: int) -> Callable[[CandidateTask], TrainingResult]:
    """A trainer that is killed in its training of that number, from 1."""
    tasks: list[CandidateTask] = []

    def train(task: CandidateTask) -> TrainingResult:
        tasks.append(task)
        if len(tasks) == number:
            raise Killed
        return no_gain(task)

    return train


def kill_when(start: str) -> Callable[[str], None]:
    """For `on_progress`: killed at a line that begins so."""

    def on_progress(line: str) -> None:
        if line.startswith(start):
            raise Killed

    return on_progress


def figures(found: Search) -> list[tuple[int, float, float]]:
    return [(it.step, it.latency.median_ms, it.score.miou) for it in found.members]


def check_agrees(out: Path, result: SearchResult) -> None:
    """The page is about this result."""
    found = read_expansion(out)
    assert found.running == ()
    assert figures(found) == [(it.step, it.latency.median_ms, it.score.miou) for it in result.members]
    assert found.files == tuple(result.model(it).name for it in result.members)
    assert found.found is not None
    assert found.found.steps == result.found.steps


def models(out: Path) -> set[str]:
    return {path.name for path in (out / "family").iterdir() if path.suffix in (".onnx", ".safetensors")}


@pytest.mark.parametrize("number", [1, 3])
def test_a_search_resumed_past_its_stop_is_not_finished(tmp_path: Path, number: int) -> None:
    ended = quickly(RUN, tmp_path, no_gain)
    assert ended.found.stop
    check_agrees(tmp_path, ended)
    with pytest.raises(Killed):
        quickly(LONGER, tmp_path, killed_at(number))
    first, *_ = now = read_expansion(tmp_path).running
    assert first == "This search is not finished. Steps decided: 0 of 2, 2 left."
    assert now[1].startswith("Step 1: ")
    assert read_expansion(tmp_path).files == ()
    longer = quickly(LONGER, tmp_path, no_gain)
    assert len(longer.members) == 3
    check_agrees(tmp_path, longer)


def test_a_search_stopped_before_it_trained_again_says_that_it_was_started_again(tmp_path: Path) -> None:
    quickly(RUN, tmp_path, no_gain)
    with pytest.raises(Killed):
        quickly(LONGER, tmp_path, no_gain, on_progress=kill_when("resuming"))
    (said,) = read_expansion(tmp_path).running
    assert said.startswith("The search ended at step 1: no candidate gains")
    assert said.endswith("It was started again with other options, and has trained nothing since.")


BUDGET = replace(RUN, budgets_ms=(30.0,))
MORE = (
    replace(BUDGET, budgets_ms=(30.0, 1000.0)),
    replace(BUDGET, check_step=1, check_length=2),
    replace(BUDGET, options=replace(RUN.options, num_steps=3)),
)


@pytest.mark.parametrize("again", MORE)
@pytest.mark.parametrize("moment", ["resuming", "measuring the", "exporting"])
def test_a_command_that_asks_for_more_is_finished_when_its_result_is_written(
    tmp_path: Path, again: ExpansionRun, moment: str
) -> None:
    quickly(BUDGET, tmp_path)
    with pytest.raises(Killed):
        quickly(again, tmp_path, on_progress=kill_when(moment))
    assert read_expansion(tmp_path).running
    check_agrees(tmp_path, quickly(again, tmp_path))


@pytest.mark.parametrize("moment", ["resuming", "measuring the", "exporting"])
def test_the_same_command_leaves_a_finished_search_finished_wherever_it_is_killed(tmp_path: Path, moment: str) -> None:
    result = quickly(RUN, tmp_path)
    with pytest.raises(Killed):
        quickly(RUN, tmp_path, on_progress=kill_when(moment))
    check_agrees(tmp_path, result)


def test_a_result_killed_during_its_export_is_not_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every file it writes, and between its last and `family.json`."""
    quickly(ONE_STEP, tmp_path)

    def die(*words: object, **options: object) -> None:
        raise Killed

    for name in ("results.export_onnx", "run.write_models", "run.page"):
        with monkeypatch.context() as patched:
            patched.setattr(f"lpsnet.search.{name}", die)
            with pytest.raises(Killed):
                quickly(RUN, tmp_path)
        if name != "run.page":  # by then it is written
            assert "What is left is writing the result" in read_expansion(tmp_path).running[0]
    check_agrees(tmp_path, quickly(RUN, tmp_path))


def test_fewer_steps_than_were_made_are_handed_over_alone(tmp_path: Path) -> None:
    quickly(replace(RUN, budgets_ms=(30.0,)), tmp_path)
    own = tmp_path / "family" / "step_2_int8.onnx"
    own.touch()
    assert "step_2.onnx" in models(tmp_path)
    fewer = quickly(ONE_STEP, tmp_path)
    assert [it.step for it in fewer.members] == [0, 1]
    check_agrees(tmp_path, fewer)
    kept = {f"{kept_step}{suffix}" for kept_step in ("step_0", "step_1") for suffix in (".onnx", ".safetensors")}
    assert models(tmp_path) == {*kept, own.name}, "files of other steps go, what somebody made of them stays"
    more = quickly(RUN, tmp_path)
    assert len(more.members) == 3
    check_agrees(tmp_path, more)


def test_fewer_steps_killed_before_their_result_are_shown_alone(tmp_path: Path) -> None:
    quickly(RUN, tmp_path)
    with pytest.raises(Killed):
        quickly(ONE_STEP, tmp_path, on_progress=kill_when("measuring the"))
    found = read_expansion(tmp_path)
    assert [it.step for it in found.members] == [0, 1]
    assert "All steps are decided" in found.running[0]


def test_a_result_of_a_version_that_kept_no_plan_beside_it_counts(tmp_path: Path) -> None:
    result = quickly(RUN, tmp_path)
    (tmp_path / "family" / "plan.json").unlink()
    (tmp_path / "plan.json").write_text(json.dumps({"command": "lpsnet expand", "num_steps": 2, "budgets_ms": []}))
    check_agrees(tmp_path, result)


def test_a_command_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    result = quickly(RUN, tmp_path)
    plan = (tmp_path / "plan.json").read_bytes()
    with pytest.raises(RunError, match=r"step 1 took .* before, and now"):
        quickly(replace(RUN, budgets_ms=(0.001,)), tmp_path)
    assert (tmp_path / "plan.json").read_bytes() == plan
    check_agrees(tmp_path, result)

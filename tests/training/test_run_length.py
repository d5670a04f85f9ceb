"""Runs that end by the clock, are given more, keep their best weights, and are asked to end."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.errors import RunError
from lpsnet.inference.model_file import read_record
from lpsnet.training import loop
from lpsnet.training.run import Status
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

SCRIPT = Path(__file__).parent / "training_run.py"


def changed(**settings):
    return replace(RUN, recipe=RUN.recipe.with_overrides(settings))


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 1
        return self.now


def test_a_run_of_minutes_follows_the_clock(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())
    seen: list[Status] = []
    train(changed(minutes=1, schedule="cosine", warmup_iterations=0), tmp_path, on_progress=seen.append)
    rates = [status.learning_rate for status in seen]
    assert 5 < len(seen) < 60
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.95 * RUN.recipe.learning_rate
    assert rates[-1] < 0.05 * RUN.recipe.learning_rate
    folder = RunFolder(tmp_path)
    assert [int(row["iteration"]) for row in folder.read_log()] == [status.iteration for status in seen]
    assert read_record(folder.model).training["iterations"] == len(seen)
    assert json.loads(folder.run.read_text())["started"]["num_iterations"] is None


def test_a_resumed_run_of_minutes_counts_the_time_before(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "time", Clock())
    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)
    whole: list[Status] = []
    train(changed(minutes=1), tmp_path / "whole", on_progress=whole.append)

    def stop(status: Status) -> None:
        if status.iteration == len(whole) // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(changed(minutes=1), tmp_path / "parts", on_progress=stop)
    rest: list[Status] = []
    train(changed(minutes=1), tmp_path / "parts", on_progress=rest.append, resume=True)
    assert rest[0].iteration <= len(whole) // 2 + 1
    assert abs(rest[-1].iteration - len(whole)) <= 4


def test_a_finished_run_is_given_more(tmp_path: Path, caplog) -> None:
    train(changed(iterations=4), tmp_path, tensorboard=False)
    first = load_file(tmp_path / "model.safetensors")
    seen: list[Status] = []
    caplog.set_level("INFO")
    train(changed(iterations=8), tmp_path, resume=True, on_progress=seen.append, tensorboard=False)
    assert [status.iteration for status in seen] == [5, 6, 7, 8]
    assert seen[0].learning_rate == RUN.recipe.learning_rate_at(4, 8)
    assert "8 iterations instead of 4 iterations" in caplog.text
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["iterations"] == 8
    assert any(not torch.equal(value, first[name]) for name, value in load_file(tmp_path / "model.safetensors").items())
    with pytest.raises(RunError, match="longer already: 8"):
        train(changed(iterations=6), tmp_path, resume=True, tensorboard=False)
    assert json.loads((tmp_path / "run.json").read_text())["recipe"]["iterations"] == 8


def test_other_settings_still_refuse_to_resume(tmp_path: Path) -> None:
    train(changed(iterations=2), tmp_path, tensorboard=False)
    with pytest.raises(RunError, match="learning_rate"):
        train(changed(iterations=4, learning_rate=0.5), tmp_path, resume=True, tensorboard=False)


def scores_of(monkeypatch, mious: list[float]) -> None:
    """Evaluations that find these mIoUs, one after the other."""
    left, evaluate = list(mious), Segmentation.evaluate

    def fake(self, weights):
        score = evaluate(self, weights)
        miou = left.pop(0)
        return replace(score, figures={**score.figures, "miou": miou}, curves={"miou": miou})

    monkeypatch.setattr(Segmentation, "evaluate", fake)


@pytest.mark.parametrize(("keep_best", "kept"), [(True, 6), (False, 12)])
def test_the_best_or_the_last_weights_are_kept(tmp_path: Path, monkeypatch, keep_best: bool, kept: int) -> None:
    scores_of(monkeypatch, [10.0, 30.0, 20.0, 25.0])
    run = changed(iterations=12, evaluate_every=1, keep_best=keep_best)  # three steps an epoch
    train(run, tmp_path, tensorboard=False)
    assert [line["miou"] for line in RunFolder(tmp_path).read_evaluations()] == [10.0, 30.0, 20.0, 25.0]
    record = read_record(tmp_path / "model.safetensors")
    assert record.training["iterations"] == kept
    assert "finished" in record.training  # of the run, whenever its best weights were saved
    assert record.scores["val"]["miou"] == (30.0 if keep_best else 25.0)


def test_there_is_a_model_from_the_first_evaluation_on(tmp_path: Path) -> None:
    found: dict[int, bool] = {}

    def look(status: Status) -> None:
        found[status.iteration] = (tmp_path / "model.safetensors").exists()

    train(changed(iterations=9, evaluate_every=1), tmp_path, on_progress=look, tensorboard=False)
    assert found == {step: step >= 2 for step in range(1, 10)}  # a status comes up to one step late


def test_a_better_evaluation_of_an_earlier_process_counts(tmp_path: Path, monkeypatch) -> None:
    scores_of(monkeypatch, [30.0, 20.0, 25.0, 26.0, 30.0])
    run = changed(iterations=12, evaluate_every=1, keep_best=True)

    def stop(status: Status) -> None:
        if status.iteration == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path, on_progress=stop, tensorboard=False)
    result = train(run, tmp_path, resume=True, tensorboard=False)
    assert read_record(tmp_path / "model.safetensors").training["iterations"] == 3
    assert result.evaluation is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_end_a_run_writes_a_checkpoint_first_and_resumes_there(tmp_path: Path, number: int) -> None:
    code = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # ignored where this runs under nohup
    code += f"import sys; sys.argv = ['x', {str(tmp_path)!r}]; from lpsnet.training import loop; "
    code += f"exec(open({str(SCRIPT)!r}).read().replace('CHECKPOINT_SECONDS = 0', 'CHECKPOINT_SECONDS = 900'))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=SCRIPT.parent, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 5:
            process.send_signal(number)
            break
    last = [int(line) for line in process.stdout] or [5]
    assert process.wait() != 0
    seen: list[Status] = []
    train(RUN, tmp_path, resume=True, on_progress=seen.append, tensorboard=False)
    assert seen[0].iteration >= last[-1] > 4
    assert [int(row["iteration"]) for row in RunFolder(tmp_path).read_log()] == list(range(1, 25))


def test_stopped_in_an_evaluation_a_run_evaluates_when_it_resumes(tmp_path: Path, monkeypatch) -> None:
    evaluate = Segmentation.evaluate

    def stop(self, weights):
        raise KeyboardInterrupt

    run = changed(iterations=9, evaluate_every=1)
    monkeypatch.setattr(Segmentation, "evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path, tensorboard=False)
    monkeypatch.setattr(Segmentation, "evaluate", evaluate)
    train(run, tmp_path, resume=True, tensorboard=False)
    assert [line["iteration"] for line in RunFolder(tmp_path).read_evaluations()] == [3, 6, 9]


def test_adamw_resumes_exactly(tmp_path: Path) -> None:
    run = changed(iterations=6, optimiser="adamw", learning_rate=0.001)
    train(run, tmp_path / "whole", tensorboard=False)

    def stop(status: Status) -> None:
        if status.iteration == 4:
            raise KeyboardInterrupt

    loop_seconds, loop.EPOCH_CHECKPOINT_SECONDS = loop.EPOCH_CHECKPOINT_SECONDS, 0
    try:
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "parts", on_progress=stop, tensorboard=False)
    finally:
        loop.EPOCH_CHECKPOINT_SECONDS = loop_seconds
    train(run, tmp_path / "parts", resume=True, tensorboard=False)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


PATIENT = {"iterations": 30, "evaluate_every": 1, "keep_best": True, "patience": 2}  # three steps an epoch


def test_a_run_ends_when_its_patience_does_and_the_record_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    caplog.set_level("INFO")
    scores_of(monkeypatch, [10.0, 30.0, 20.0, 25.0, 25.0, 0.0, 0.0])  # the last two for the second list
    train(changed(**PATIENT), tmp_path, tensorboard=False)
    folder = RunFolder(tmp_path)
    assert [line["iteration"] for line in folder.read_evaluations()] == [3, 6, 9, 12]
    assert len(folder.read_log()) == 12
    record = read_record(folder.model)
    assert (record.training["iterations"], record.training["iterations_run"]) == (6, 12)
    assert record.training["ended"] == "patience: 2 evaluations without a better miou"
    assert record.scores["val"]["miou"] == 30.0
    assert "ended after 12 iterations: patience: 2 evaluations without a better miou" in caplog.text
    weights = load_file(folder.model)
    scores_of(monkeypatch, [25.0, 30.0])
    train(changed(**PATIENT), tmp_path, resume=True, tensorboard=False)  # it has ended, and stays so
    assert len(folder.read_log()) == 12
    assert all(torch.equal(value, weights[name]) for name, value in load_file(folder.model).items())


def test_a_run_that_gets_better_again_goes_on(tmp_path: Path, monkeypatch) -> None:
    scores_of(monkeypatch, [10.0, 5.0, 20.0, 5.0, 30.0])
    train(changed(**{**PATIENT, "iterations": 15}), tmp_path, tensorboard=False)
    record = read_record(tmp_path / "model.safetensors")
    assert (record.training["iterations"], record.training["ended"]) == (15, "at its full length")


def test_stopped_between_evaluations_it_ends_where_it_would_have(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)
    scores_of(monkeypatch, [30.0, 20.0, 25.0, 25.0, 30.0])

    def stop(status: Status) -> None:
        if status.iteration == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(changed(**PATIENT), tmp_path, on_progress=stop, tensorboard=False)
    train(changed(**PATIENT), tmp_path, resume=True, tensorboard=False)
    assert [line["iteration"] for line in RunFolder(tmp_path).read_evaluations()] == [3, 6, 9]


def test_without_patience_the_record_is_as_it_was(tmp_path: Path) -> None:
    train(changed(iterations=2), tmp_path, tensorboard=False)
    assert (
        not {"ended", "iterations_run", "teacher", "unlabelled"}
        & read_record(tmp_path / "model.safetensors").training.keys()
    )


def test_patience_without_evaluations_is_refused() -> None:
    with pytest.raises(RunError, match="evaluate_every=0 has none"):
        changed(patience=2, evaluate_every=0)

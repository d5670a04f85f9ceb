"""Steps are read late, and never one with a loss that is no number."""

import csv
from pathlib import Path

import pytest
import torch

from lpsnet.errors import RunError
from lpsnet.training import loop
from lpsnet.training.data import Score
from lpsnet.training.run_folder import FLUSH_ITERATIONS, RunFolder, RunLog, Step, Steps


def test_the_last_step_is_read_when_the_next_is_there_or_everything_is() -> None:
    steps = Steps(batch_size=4)
    seen: list[int] = []
    for iteration in range(1, 6):
        steps.add(iteration, torch.tensor(float(iteration)), 0.1)
        seen += [step.iteration for step in steps.read(everything=False)]
    assert seen == [1, 2, 3, 4]
    (last,) = steps.read(everything=True)
    assert (last.iteration, last.loss, last.learning_rate) == (5, 5.0, 0.1)
    assert steps.read(everything=True) == []


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_an_error(loss: float) -> None:
    steps = Steps(batch_size=4)
    steps.add(7, torch.tensor(loss), 0.1)
    with pytest.raises(RunError, match=r"^the loss is no longer finite at iteration 7; .* than 0.1 "):
        steps.read(everything=True)


def test_the_log_is_written_now_and_then_and_whole_at_the_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    log = RunLog(folder, tensorboard=False)
    for iteration in range(1, FLUSH_ITERATIONS + 3):
        log.add([Step(iteration, 0.5, 0.1, 3.0)], flush=False)
    assert len(folder.read_log()) == FLUSH_ITERATIONS
    log.add_score(Score("good", {"miou": 50.0}, {"miou": 50.0}, None), 4)
    log.close()
    with folder.log.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["iteration"]) for row in rows] == list(range(1, FLUSH_ITERATIONS + 3))
    assert rows[0] == {"iteration": "1", "loss": "0.5", "learning_rate": "0.1", "pictures_per_second": "3.00"}
    assert folder.read_evaluations() == [{"iteration": 4, "miou": 50.0}]
    assert not (tmp_path / "tensorboard").exists()


def test_the_same_curves_go_to_tensorboard(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(RunFolder(tmp_path), tensorboard=True)
    log.add([Step(1, 0.5, 0.1, 3.0), Step(2, 0.25, 0.05, 3.0)], flush=False)
    log.add_score(Score("good", {}, {"miou": 50.0}, None), 2)
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/learning_rate",
        "train/pictures_per_second",
        "val/miou",
    }
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 0.5), (2, 0.25)]


def test_more_processes_than_images_in_a_batch_are_refused() -> None:
    loop.check_shares({"recipe": {"batch_size": 8}}, 8)
    with pytest.raises(RunError, match="a batch of 8 images cannot be shared by 16 processes"):
        loop.check_shares({"recipe": {"batch_size": 8}}, 16)

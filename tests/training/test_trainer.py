"""A run as a whole: it learns, it resumes after being killed at any moment, and its folder is its own."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.errors import LpsnetError, RunError
from lpsnet.io import locked_folder
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.models.network import create_model
from lpsnet.training.run import MovingAverage, Status
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import train

SCRIPT = Path(__file__).parent / "training_run.py"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    train(RUN, out, tensorboard=False)
    return out


def losses(out: Path) -> dict[int, float]:
    with (out / "log.csv").open(newline="", encoding="utf-8") as file:
        return {int(row["iteration"]): float(row["loss"]) for row in csv.DictReader(file)}


def assert_same_run(out: Path, other: Path) -> None:
    assert losses(out) == losses(other)
    ours, theirs = load_file(out / "model.safetensors"), load_file(other / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def start(out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, SCRIPT, out, "--resume"], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kill_at", [(2, 11), pytest.param((5, 6, 19), marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_resumes_to_the_same_result(
    undisturbed: Path, tmp_path: Path, kill_at: tuple[int, ...]
) -> None:
    for iteration in kill_at:
        process = start(tmp_path)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= iteration:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait()
    train(RUN, tmp_path, resume=True, tensorboard=False)  # in another process than that which was killed
    assert sorted(losses(tmp_path)) == list(range(1, 25))
    assert_same_run(tmp_path, undisturbed)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(undisturbed: Path, tmp_path: Path) -> None:
    train(RUN, tmp_path / "same", tensorboard=False)
    assert_same_run(tmp_path / "same", undisturbed)
    train(replace(RUN, recipe=RUN.recipe.with_overrides({"seed": 1})), tmp_path / "other", tensorboard=False)
    assert losses(tmp_path / "other") != losses(undisturbed)


def test_loss_falls_and_the_record_holds_the_run(undisturbed: Path) -> None:
    curve = losses(undisturbed)
    assert sum(curve[i] for i in range(20, 25)) < 0.8 * sum(curve[i] for i in range(1, 6))
    network = load_checkpoint(undisturbed / "model.safetensors")
    assert network.architecture == RUN.architecture
    from lpsnet.inference.model_file import read_record

    record = read_record(undisturbed / "model.safetensors")
    assert record.input_size == (48, 64)
    assert record.training["recipe"] == RUN.recipe.model_dump(mode="json")
    assert record.training["iterations"] == 24
    assert 0 <= record.scores["val"]["miou"] <= 100


def test_a_folder_with_a_run_is_refused_without_resume(undisturbed: Path) -> None:
    with pytest.raises(RunError, match="already holds a run; resume it with --resume"):
        train(RUN, undisturbed)


def test_progress_is_reported_for_every_step_in_order_with_evaluations(tmp_path: Path) -> None:
    seen: list[Status] = []
    run = replace(RUN, recipe=RUN.recipe.with_overrides({"evaluate_every": 2, "iterations": 8}))
    result = train(run, tmp_path, on_progress=seen.append, tensorboard=False)
    assert [status.iteration for status in seen] == list(range(1, 9))
    assert {status.iteration: status.message[:9] for status in seen if status.message} == {6: "epoch 2: "}
    folder = RunFolder(tmp_path)
    assert [line["iteration"] for line in folder.read_evaluations()] == [6, 8]
    assert result.evaluation is not None
    assert folder.read_evaluations()[-1]["miou"] == result.evaluation.miou
    assert [float(row["loss"]) for row in folder.read_log()] == pytest.approx([s.loss for s in seen], rel=1e-6)


def test_a_run_of_an_older_version_resumes(undisturbed: Path, tmp_path: Path) -> None:
    """Its settings lack what has come since; its state has the tensors that it always had."""

    def stop(status: Status) -> None:
        if status.iteration == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(RUN, tmp_path, on_progress=stop, tensorboard=False)
    settings = json.loads((tmp_path / "run.json").read_text())
    del settings["recipe"]["schedule"]
    (tmp_path / "run.json").write_text(json.dumps(settings), encoding="utf-8")
    with safe_open(tmp_path / "state.safetensors", framework="pt") as file:
        assert set(file.metadata()) == {"lpsnet_training_state"}
        kinds = {name.partition(".")[0] for name in file.keys()}  # noqa: SIM118 — not a dictionary
    assert kinds == {"network", "average", "momentum"}
    train(RUN, tmp_path, resume=True, tensorboard=False)
    assert_same_run(tmp_path, undisturbed)


def test_killed_between_the_first_lines_of_the_log_and_the_first_checkpoint(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copy(undisturbed / "run.json", tmp_path)
    lines = (undisturbed / "log.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "log.csv").write_text("".join(lines[:4]), encoding="utf-8")
    train(RUN, tmp_path, resume=True, tensorboard=False)
    assert [row["iteration"] for row in RunFolder(tmp_path).read_log()] == [str(number) for number in range(1, 25)]
    assert_same_run(tmp_path, undisturbed)


def test_resuming_with_other_versions_is_logged(
    undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    train(RUN, tmp_path / "run", resume=True, tensorboard=False)
    assert not caplog.messages
    path = tmp_path / "run" / "run.json"
    settings = json.loads(path.read_text())
    settings["started"]["versions"] |= {"torch": "1.0", "python": "2.7"}
    path.write_text(json.dumps(settings), encoding="utf-8")
    train(RUN, tmp_path / "run", resume=True, tensorboard=False)
    (line,) = caplog.messages
    assert f"torch 1.0 then, {torch.__version__} now" in line
    assert "python 2.7 then" in line
    assert "numpy" not in line


def test_resume_with_other_data_is_refused(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    settings = json.loads(path.read_text())
    assert settings["started"]["inputs"]["train"].startswith("6 pictures (")
    settings["started"]["inputs"]["train"] = "7 pictures (0123abcd)"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(RunError, match=r"started on other data or weights: train: 7 pictures \(0123abcd\) then, 6 "):
        train(RUN, tmp_path / "run", resume=True, tensorboard=False)


def test_scenes_drawn_otherwise_are_other_data(undisturbed: Path, tmp_path: Path) -> None:
    """The words after `--data` are the same, and so are the names of the images."""
    shutil.copytree(undisturbed, tmp_path / "run")
    path = tmp_path / "run" / "run.json"
    settings = json.loads(path.read_text())
    inputs = settings["started"]["inputs"]
    inputs["train samples"] = "6 samples (0123abcd)"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(RunError, match=r"other data or weights: train samples: 6 samples \(0123abcd\) then, 6 samples"):
        train(RUN, tmp_path / "run", resume=True, tensorboard=False)
    del inputs["train samples"]  # of an older version
    path.write_text(json.dumps(settings), encoding="utf-8")
    train(RUN, tmp_path / "run", resume=True, tensorboard=False)


def test_data_that_is_not_there_leaves_no_run(tmp_path: Path) -> None:
    with pytest.raises(LpsnetError, match="unknown data set"):
        train(replace(RUN, data="nowhere:/x"), tmp_path, tensorboard=False)
    assert not (tmp_path / "run.json").exists()


def test_a_mistake_that_the_first_step_meets_leaves_no_run(tmp_path: Path) -> None:
    """The corrected command is taken in the same folder."""
    mistaken = replace(RUN, recipe=RUN.recipe.with_overrides({"crop_size": (1, 1)}))
    with pytest.raises(LpsnetError, match="32x32"):
        train(mistaken, tmp_path / "run", tensorboard=False)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    train(RUN, tmp_path / "run", tensorboard=False)
    assert (tmp_path / "run/model.safetensors").exists()


def test_resuming_with_other_settings_says_which(undisturbed: Path) -> None:
    other = replace(RUN, recipe=RUN.recipe.with_overrides({"learning_rate": 0.5}))
    with pytest.raises(RunError, match=r"recipe.learning_rate = 0.05, not 0.5"):
        train(other, undisturbed, resume=True)


def test_a_finished_run_resumes_to_the_same_model(undisturbed: Path) -> None:
    before = load_file(undisturbed / "model.safetensors")
    seen: list[Status] = []
    evaluations = (undisturbed / "evaluations.jsonl").read_text()
    train(RUN, undisturbed, resume=True, on_progress=seen.append, tensorboard=False)
    assert seen == []
    assert (undisturbed / "evaluations.jsonl").read_text() == evaluations
    assert all(torch.equal(value, before[name]) for name, value in load_file(undisturbed / "model.safetensors").items())


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with locked_folder(tmp_path), pytest.raises(RunError, match="in use by process"):
        train(RUN, tmp_path)


def test_a_recipe_that_presumes_pretraining_says_so(tmp_path: Path) -> None:
    run = replace(RUN, recipe=RUN.recipe.with_overrides({"init_required": True}))
    with pytest.raises(RunError, match="--init"):
        train(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_starting_from_a_checkpoint(undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lpsnet")
    run = replace(RUN, init=undisturbed / "model.safetensors", data="scenes:size=48x64,num_train=2,num_val=1,seed=9")
    recipe = RUN.recipe.with_overrides({"iterations": 1, "learning_rate": 1e-9})
    result = train(replace(run, recipe=recipe), tmp_path, tensorboard=False)
    assert caplog.messages == [f"{len(load_file(run.init))} tensors taken from {run.init}, skipped: none"]
    before, after = load_file(undisturbed / "model.safetensors"), load_file(result.model)
    for name, value in before.items():
        if name.endswith("weight"):
            assert torch.allclose(value, after[name], atol=1e-6), name


def test_the_plain_form_starts_from_one_with_branches(
    undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lpsnet")
    recipe = RUN.recipe.with_overrides({"form": "plain", "iterations": 1, "learning_rate": 1e-9, "ema_decay": 0})
    result = train(
        replace(RUN, recipe=recipe, init=undisturbed / "model.safetensors"),
        tmp_path / "run",
        tensorboard=False,
    )
    assert caplog.messages[0].endswith("skipped: none")
    net = load_checkpoint(result.model)
    assert net.form == "plain"
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        logits, before = net(image), load_checkpoint(undisturbed / "model.safetensors")(image)
    assert (logits - before).abs().mean() < 0.2 * before.std()  # statistics moved by a tenth of one batch's


def test_moving_average_by_hand() -> None:
    network = create_model("tiny", num_classes=2)
    average = MovingAverage.of(network, decay=0.9)
    name = "head.weight"
    expected = network.state_dict()[name].clone()
    for iteration in range(100):
        with torch.no_grad():
            network.head.weight.add_(1)
        average.update(network, iteration)
        decay = min(0.9, (1 + iteration) / (10 + iteration))
        expected = decay * expected + (1 - decay) * network.head.weight.detach()
    assert torch.allclose(average.values[name], expected, atol=1e-4)


def test_a_loss_that_explodes_stops_the_run_with_advice(tmp_path: Path) -> None:
    run = replace(RUN, recipe=RUN.recipe.with_overrides({"learning_rate": 1e30, "warmup_iterations": 0}))
    with pytest.raises(RunError, match="lower learning rate"):
        train(run, tmp_path)

"""Trainings of networks of other code. The oracle is the same training of the same network as one of ours."""

from dataclasses import replace
from pathlib import Path

import any_networks
import pytest
import torch
from safetensors.torch import load_file
from training_run import RUN

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError, NetworkError, RunError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.training import loop
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import train

SHORT = RUN.recipe.with_overrides({"iterations": 8, "form": "plain"})


def run_of(name: str, **changes: object) -> TrainingRun:
    return replace(RUN, architecture=None, network=any_networks.spec(name), recipe=SHORT.with_overrides(changes))


def log_of(out: Path) -> list[tuple[str, str]]:
    return [(row["iteration"], row["loss"]) for row in RunFolder(out).read_log()]


@pytest.mark.parametrize("changes", [{}, {"optimiser": "adamw", "ema_decay": 0.0, "learning_rate": 1e-3}])
def test_a_network_of_ours_as_other_code_trains_exactly_alike(changes: dict[str, object], tmp_path: Path) -> None:
    own = replace(RUN, architecture=get_architecture(any_networks.ARCH), recipe=SHORT.with_overrides(changes))
    ours = train(own, tmp_path / "ours", tensorboard=False)
    other = train(run_of("ours_aligned", **changes), tmp_path / "other", tensorboard=False)
    assert log_of(tmp_path / "ours") == log_of(tmp_path / "other")
    weights = load_file(ours.model)
    theirs = {name.removeprefix("module.net."): it for name, it in load_file(other.model).items()}
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    assert ours.evaluation is not None
    assert other.evaluation is not None
    assert other.evaluation.summary() == ours.evaluation.summary()


@pytest.mark.parametrize("name", ["transformer", "stride_32", "full_size", "unet", "tied", "dropping"])
def test_a_trained_network_gives_the_scores_in_its_record(name: str, tmp_path: Path) -> None:
    run = run_of(name, crop_size=(64, 64)) if name == "unet" else run_of(name)
    run = replace(run, data="scenes:size=64x64,num_train=6,num_val=2")
    result = train(run, tmp_path, tensorboard=False)
    record = read_record(result.model)
    assert record.network == f"any_networks.py:{name}"
    assert record.training["network"] == record.network
    assert "architecture" not in record.training
    assert record.form == record.training["recipe"]["form"] == "plain"
    again = evaluate(Segmenter(result.model), open_dataset(run.data).split("val"))
    assert again.miou == pytest.approx(record.scores["val"]["miou"], abs=0.5)
    assert len({loss for _, loss in log_of(tmp_path)}) == 8


def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, whose random numbers follow from the iteration, and tied weights in the checkpoint."""
    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)
    for name in ("dropping", "tied"):
        whole, stopped = tmp_path / f"{name}_whole", tmp_path / f"{name}_stopped"
        train(run_of(name), whole, tensorboard=False)

        def stop(status: loop.Status) -> None:
            if status.iteration == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            train(run_of(name), stopped, on_progress=stop, tensorboard=False)
        torch.rand(7)  # as another process would have other random numbers
        train(run_of(name), stopped, resume=True, tensorboard=False)
        assert log_of(whole) == log_of(stopped)
        ours, theirs = (load_file(folder / "model.safetensors") for folder in (whole, stopped))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_resume_is_refused_if_the_code_changed(tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text("from any_networks import plain as build\n")
    run = replace(run_of("plain"), network=f"{code}:build")
    train(run, tmp_path / "run", tensorboard=False)
    longer = replace(run, recipe=SHORT.with_overrides({"iterations": 10}))
    train(longer, tmp_path / "run", resume=True, tensorboard=False)
    code.write_text("from any_networks import plain as build  # changed\n")
    with pytest.raises(RunError, match="was started on other data or weights: network: "):
        train(longer, tmp_path / "run", resume=True, tensorboard=False)


def test_initial_weights_and_their_normalisation(tmp_path: Path) -> None:
    first = train(run_of("full_size"), tmp_path / "first", tensorboard=False)
    assert read_record(first.model).normalisation.std == (0.25, 0.25, 0.25)
    second = train(replace(run_of("full_size"), init=first.model), tmp_path / "second", tensorboard=False)
    assert read_record(second.model).training["init_tensors_skipped"] == {}
    assert log_of(tmp_path / "second")[0] != log_of(tmp_path / "first")[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a_tuple", "gave a tuple of 2"), ("failing", "fails on an image of 48x64"), ("raises", "cannot be built")],
)
def test_what_cannot_be_trained_is_said_before_the_folder_is_a_run(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=message):
        train(run_of(name), tmp_path, tensorboard=False)
    assert not RunFolder(tmp_path).run.exists()


def test_what_fails_in_training_only_is_said(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="in training; for 48x64 it gave a tuple of 2"):
        train(run_of("auxiliary"), tmp_path, tensorboard=False)


def test_a_run_has_one_kind_of_network() -> None:
    with pytest.raises(RunError, match="either an architecture or a network"):
        replace(RUN, network=any_networks.spec("plain"))
    with pytest.raises(LpsnetError, match="--network brings its own"):
        replace(run_of("plain"), encoder="efficientnet_lite0")

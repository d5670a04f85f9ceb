"""The plain loop and the trainer learn the same from the same samples, and are timed interleaved."""

import json
from pathlib import Path

import pytest
import torch

from lpsnet.architecture import Architecture
from lpsnet.errors import LpsnetError
from lpsnet.studies.training_speed import PlainLoop, Results, TrainingSpeed, compare_results, compare_speed
from lpsnet.training.config import get_recipe
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation

DATA = "scenes:size=48x64,num_train=4,num_val=2"
ARCHITECTURE = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
SMALL = {"batch_size": 2, "crop_size": (48, 64), "num_workers": 1, "warmup_iterations": 2}


def test_the_plain_loop_is_the_trainer_without_its_tricks(tmp_path: Path) -> None:
    changes = {**SMALL, "iterations": 8, "loss_stride": 1, "precision": "f32", "class_weights": "log"}
    run = TrainingRun(DATA, ARCHITECTURE, get_recipe("demo").with_overrides(changes))
    tasks = [Segmentation.of(run, torch.device("cpu")) for _ in range(2)]
    plain = PlainLoop(tasks[0])
    loop = Loop(tasks[1], make_accelerator(), folder=RunFolder(tmp_path))
    plain_losses = [loss.item() for loss in plain.steps()]
    losses = [loss.item() for loss, _ in loop.steps()]
    assert len(losses) == 8
    assert losses == pytest.approx(plain_losses, rel=1e-3)
    assert loop.state.average is not None
    for name, value in plain.weights.items():
        assert torch.allclose(value.double(), loop.state.average.values[name].double(), rtol=1e-2, atol=1e-3), name


def test_what_the_plain_loop_has_not() -> None:
    run = TrainingRun(DATA, ARCHITECTURE, get_recipe("demo").with_overrides(SMALL))
    with pytest.raises(LpsnetError, match="cross-entropy at the label's size"):
        PlainLoop(Segmentation.of(run, torch.device("cpu")))


def test_speed_is_compared_interleaved() -> None:
    speed = compare_speed(DATA, str(ARCHITECTURE), "demo", overrides=SMALL, num_pictures=3, steps=1, repeats=2)
    assert len(speed.plain_s) == len(speed.trainer_s) == 2
    assert all(seconds > 0 for seconds in (*speed.plain_s, *speed.trainer_s))
    values = json.loads(json.dumps(speed.to_dict()))
    assert values["run"]["recipe"]["loss_stride"] == 1
    assert values["pictures_per_turn"] == 2
    with pytest.raises(LpsnetError, match="at least 1"):
        compare_speed(DATA, str(ARCHITECTURE), "demo", repeats=0)


def test_figures_by_hand() -> None:
    speed = TrainingSpeed((4.0, 6.0, 20.0), (2.0, 3.0, 1.0), 8, {})
    assert speed.ratio == 3
    values = speed.to_dict()
    assert values["lowest_and_highest_ratio"] == [2, 20]
    assert (values["plain_pictures_per_second"], values["trainer_pictures_per_second"]) == (8 / 6, 4)
    results = Results((50.0, 52.0), (51.0, 52.0), {})
    assert (results.difference, results.spread) == (0.5, pytest.approx(2**0.5))


def test_results_are_compared_over_seeds() -> None:
    changes = {**SMALL, "iterations": 2, "precision": "f32"}
    results = compare_results(DATA, str(ARCHITECTURE), "demo", seeds=(0, 1), overrides=changes)
    assert results.plain == pytest.approx(results.trainer, abs=0.5)
    assert json.loads(json.dumps(results.to_dict()))["seeds"] == [0, 1]
    for seeds in ((0,), (1, 1)):
        with pytest.raises(LpsnetError, match="at least 2"):
            compare_results(DATA, str(ARCHITECTURE), "demo", seeds=seeds)

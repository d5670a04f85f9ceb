"""Trainings as runs of a study: each goes on from its last checkpoint when the study was stopped, and is kept for good.

Before the first of them, a few steps of each network are timed, to say how long all will take.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import select
from lpsnet.errors import DivergedError, RunError
from lpsnet.studies.network import StudyNetwork
from lpsnet.studies.study import Json, Known, Outcome, Place, Run
from lpsnet.training.config import Recipe
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

NUM_STEPS = 2  # timed, after one that is not
BACKWARD = 3  # times that a training step takes of a forward pass


def training_run(training: TrainingRun, known: Known, *, num_threads: int | None = None) -> Run:
    """The run of a training. What it takes is known once `pace_run` of the same network is.

    Its result: `miou` and `pixel_accuracy` in percent, `ious` by class, `model` (a file in the run's folder) and
    `seconds`; or `failed`, why there is no score, if the training diverged.
    """
    pace = known(pace_run(training, num_threads=num_threads))
    return Run(
        {"trained": training.settings()},
        partial(_train, training, num_threads),
        portable=True,
        seconds=None if pace is None else _expected_s(training, pace),
        apart=True,
        name=name_of(training),
    )


def _train(training: TrainingRun, num_threads: int | None, place: Place) -> dict[str, Json]:
    set_threads(num_threads)
    try:
        return _trained(training, place)
    except DivergedError as error:
        return {"failed": str(error)}


def pace_run(training: TrainingRun, *, num_threads: int | None = None) -> Run:
    """A run that times a few steps of a training, whatever its seed: `step_s`, and `picture_s`, scoring a picture."""
    recipe = training.recipe.with_overrides({"seed": 0, "epochs": 1})
    paced = replace(training, recipe=recipe)
    key = {"paced": paced.settings(), "num_threads": num_threads}

    def work(place: Place) -> dict[str, Json]:
        set_threads(num_threads)
        place.progress("timing a few training steps", 0.0)
        return _pace(paced)

    return Run(key, work, seconds=5.0)


def name_of(training: TrainingRun) -> str:
    """For people: block, interaction and seed."""
    return f"{training.block}, {training.interaction}, {training.architecture}, seed {training.recipe.seed}"


def scores_of(outcomes: Sequence[Outcome], network: StudyNetwork) -> list[float]:
    """mIoU in percent of all finished trainings of a network, by seed; failed ones are left out."""
    found = [outcome for outcome in outcomes if _is_of(outcome, network) and "miou" in outcome.result]
    return [o.result["miou"] for o in sorted(found, key=lambda outcome: outcome.key["trained"]["recipe"]["seed"])]


def _is_of(outcome: Outcome, network: StudyNetwork) -> bool:
    trained = outcome.key.get("trained")
    return trained is not None and all(trained[name] == value for name, value in network.to_dict().items())


def set_threads(num_threads: int | None) -> None:
    """Of what torch computes in this process; None leaves them as they are."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def _trained(training: TrainingRun, place: Place) -> dict[str, Json]:
    begun = time.monotonic()

    def tell(status: Status) -> None:
        place.progress(f"training {name_of(training)}", status.iteration / status.num_iterations)

    result = train(training, place.folder, resume=True, on_status=tell, tensorboard=False)
    if result.evaluation is None:
        raise RunError(f"data set {training.data!r} has no split val to score on")
    figures = result.evaluation.to_dict()
    return {
        **{name: figures[name] for name in ("miou", "pixel_accuracy", "ious", "num_images")},
        "model": result.model.name,
        "seconds": round(time.monotonic() - begun, 1),
    }


def _pace(training: TrainingRun) -> dict[str, Json]:
    accelerator = make_accelerator()
    task = Segmentation.of(replace(training, recipe=_without_weights(training.recipe)), accelerator.device)
    task = replace(task, pictures=select(task.pictures, 2 * training.recipe.batch_size))
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        steps = Loop(task, accelerator, folder=RunFolder(Path(folder))).steps()
        next(steps)[0].item()
        start = time.perf_counter()
        for _ in range(NUM_STEPS):
            next(steps)[0].item()
        step_s = (time.perf_counter() - start) / NUM_STEPS
        steps.close()
    height, width = training.input_size or task.pictures.image(0).shape[:2]
    crop_height, crop_width = training.recipe.crop_size
    share = height * width / (crop_height * crop_width)
    return {"step_s": step_s, "picture_s": step_s / training.recipe.batch_size * share / BACKWARD}


def _without_weights(recipe: Recipe) -> Recipe:
    """Long enough to time, and without class weights: counting them reads every label."""
    return recipe.with_overrides({"iterations": NUM_STEPS + 2, "class_weights": "none"})


def _expected_s(training: TrainingRun, pace: Mapping[str, Json]) -> float:
    dataset = open_dataset(training.data)
    num_steps = training.recipe.num_iterations(len(dataset.split(training.split)))
    num_scored = len(dataset.split("val")) if "val" in dataset.splits else 0
    return float(num_steps * pace["step_s"] + num_scored * pace["picture_s"])

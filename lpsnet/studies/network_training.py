"""How the networks of a study are trained: alike, by the study's scale and data.

Trainings as runs of a study: each goes on from its last checkpoint when the study was stopped, and is kept for good.

Before the first of them, a few steps of each network are timed, to say how long all will take.

A study that trains every network once, and the best with more seeds, so that the spread is known.
"""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import select
from lpsnet.errors import DivergedError, RunError
from lpsnet.studies.network_latency import StudyNetwork
from lpsnet.studies.study import Json, Known, Outcome, Place, Run, Settings, best_two
from lpsnet.training.config import RECIPES, Recipe
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

Size = tuple[int, int]  # height, width

# Where no data is given: generated scenes, to see a study work; they are not what the paper's figures are about
SCENES = "scenes:size=128x256,num_train=400,num_val=60"
NUM_EPOCHS = 20
HALVED_FROM = 256  # images at least as high are learnt and scored at half their size: a quarter of the time
PAPER_SIZE = (1024, 2048)  # of the images that the paper's latencies are for

# Section 4.2 but for what makes it short: few passes, small images as below, no second branch beside a convolution,
# every fourth row and column of the loss; a higher learning rate that rises at first, and scales for small images.
SMALL = RECIPES["paper_cityscapes"].with_overrides(
    {
        "name": "study_small",
        "source": "Section 4.2, made short",
        "epochs": NUM_EPOCHS,
        "form": "plain",
        "learning_rate": 0.03,
        "warmup_iterations": 50,
        "loss_stride": 4,
        "evaluate_every": 0,
    }
)
SMALL_SCALE = (0.75, 1.5)  # of images at the size that they are learnt at


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the networks of a study are trained, all alike.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        recipe: how.
        input_size: that they are scored at, in pixels; None for the images' own.
    """

    data: str
    recipe: Recipe
    input_size: Size | None = None

    def training(self, network: StudyNetwork, *, seed: int = 0) -> TrainingRun:
        """The training of a network, scored on val."""
        return TrainingRun(
            self.data,
            network.architecture,
            self.recipe.with_overrides({"seed": seed}),
            block=network.block,
            interaction=network.interaction,
            input_size=self.input_size,
        )


def data_of(settings: Settings, *, scenes: str = SCENES) -> str:
    """The data set of a study that trains on one; at small scale `scenes` where none is given.

    Raises:
        RunError: several are given, or none at paper scale.
    """
    if len(settings.data) > 1:
        raise RunError(f"this study trains on one data set; got {', '.join(settings.data)}")
    if not settings.data and settings.scale == "paper":
        raise RunError("at paper scale a study needs the images: --data cityscapes:PATH")
    return settings.data[0] if settings.data else scenes


def schedule_of(settings: Settings, data: str, *, paper: str = "paper_cityscapes", halved: bool = True) -> Schedule:
    """The paper's recipe; or at small scale whole images, at half their size where that is enough to see anything.

    Crops would not do: a network whose smallest path sees a last map of 2x2 in training, and another in use, is
    scored on what it has not learnt.

    Args:
        settings: with scale and, if they are not the recipe's, the number of epochs and the form.
        data: the data set, as `open_dataset` takes it.
        paper: the recipe at paper scale. It starts from scratch even where the paper's starts from ImageNet.
        halved: whether large images may be halved.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    if settings.scale == "paper":
        schedule = Schedule(data, RECIPES[paper].with_overrides({"evaluate_every": 0, "init_required": False}))
    else:
        height, width = picture_size(data)
        part = 2 if halved and height >= HALVED_FROM else 1
        size = (height // part, width // part)
        scale = tuple(bound / part for bound in SMALL_SCALE)
        recipe = SMALL.with_overrides({"crop_size": size, "scale": scale})
        schedule = Schedule(data, recipe, None if part == 1 else size)
    asked = {"epochs": settings.epochs, "form": settings.form}
    changes = {name: value for name, value in asked.items() if value is not None}
    return replace(schedule, recipe=schedule.recipe.with_overrides(changes)) if changes else schedule


def picture_size(data: str) -> Size:
    """(height, width) in pixels of the first image that a data set is trained on.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    height, width = open_dataset(data).split("train").image(0).shape[:2]
    return height, width


def latency_size(settings: Settings, data: str) -> Size:
    """The size that latencies are measured at: the one asked for, the paper's, or the images' own."""
    return settings.size or (PAPER_SIZE if settings.scale == "paper" else picture_size(data))


def describe_training(trained: Mapping[str, Any], *, paper: str = "paper_cityscapes") -> str:
    """How networks were trained, beside the paper's way (the recipe `paper`), in a sentence.

    Args:
        trained: the settings of one of the trainings, see `TrainingRun.settings`.
        paper: the recipe at paper scale.
    """
    data = trained["data"]
    size = "x".join(map(str, trained["input_size"] or ())) or "the images' own size"
    warning = "These are generated scenes: they show that the study works, no more. " if _is_generated(data) else ""
    return (
        f"{warning}Trained on {data}, from scratch, all networks alike, scored on val at "
        f"{size}: {_numbers(Recipe.from_values(trained['recipe']))}. "
        f"The paper (Section 4.2): {_numbers(RECIPES[paper])}."
    )


def _numbers(recipe: Recipe) -> str:
    length = f"{recipe.epochs:g} epochs" if recipe.epochs else f"{recipe.iterations:,} iterations"
    loss = "hard example mining" if recipe.loss == "ohem" else recipe.loss.replace("_", "-")
    return (
        f"{length}, batch {recipe.batch_size}, crops of {'x'.join(map(str, recipe.crop_size))}, scales "
        f"{recipe.scale[0]:g} to {recipe.scale[1]:g}, learning rate {recipe.learning_rate:g}, {loss}, "
        f"{recipe.form} form"
    )


def _is_generated(data: str) -> bool:
    return data.partition(":")[0] == "scenes"


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
    """A run that times a few steps of a training, whatever its seed: `step_s`, and `picture_s`, scoring an image."""
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
    task = replace(task, images=select(task.images, 2 * training.recipe.batch_size))
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        steps = Loop(task, accelerator, folder=RunFolder(Path(folder))).steps()
        next(steps)[0].item()
        start = time.perf_counter()
        for _ in range(NUM_STEPS):
            next(steps)[0].item()
        step_s = (time.perf_counter() - start) / NUM_STEPS
        steps.close()
    height, width = training.input_size or task.images.image(0).shape[:2]
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


NUM_SEEDS = 3  # of the two best, and of the paper's best


def training_plan(networks: Sequence[StudyNetwork], settings: Settings, known: Known, *, paper: str) -> list[Run]:
    """First how fast every network trains, then every network once, then more seeds for the two best and for `paper`.

    The last is the name of the network that is best in the paper. While it is not known which two are here, two that
    take longest stand for them: see `Study.plan`.
    """
    schedule = schedule_of(settings, data_of(settings))
    once = {network.name: schedule.training(network) for network in networks}
    paces = [pace_run(training, num_threads=settings.num_threads) for training in once.values()]
    first = {name: training_run(training, known, num_threads=settings.num_threads) for name, training in once.items()}
    chosen, is_known = _to_repeat(first, known, paper)
    more = [
        training_run(schedule.training(network, seed=seed), known, num_threads=settings.num_threads)
        for network in networks
        if network.name in chosen
        for seed in range(1, settings.num_seeds or NUM_SEEDS)
    ]
    if not is_known:  # they stand for others, and are not to be made beside what comes before them
        more = [replace(run, apart=False) for run in more]
    return [*paces, *first.values(), *more]


def _to_repeat(first: dict[str, Run], known: Known, paper: str) -> tuple[list[str], bool]:
    """The networks to be trained with more seeds, and whether they are known yet."""
    results = {name: known(run) for name, run in first.items()}
    if any(result is None for result in results.values()):
        return [*sorted(first, key=lambda name: -(first[name].seconds or 0.0))[:2], paper], False
    scores = {name: result["miou"] for name, result in results.items() if result and "miou" in result}
    return [*best_two(scores), *([paper] if paper in scores else [])], True

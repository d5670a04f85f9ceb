"""Trainings of the networks of a study: all with one recipe, chosen by the study's scale and data (Section 4.2).

An interrupted training resumes from its last checkpoint. Before the first one, a few steps of each network are timed,
so that the time left is known.
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
from lpsnet.data.split import select, usual_size
from lpsnet.errors import DivergedError, RunError
from lpsnet.plugins import find_network
from lpsnet.studies.network_latency import PAPER_SIZE, Peer, Size, StudyNetwork, describe_latency, latency_run
from lpsnet.studies.study import Json, Known, Outcome, Place, Run, Settings, best_two
from lpsnet.training.config import RECIPES, Recipe
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

# Where no data is given: generated scenes, which show that a study works but do not reproduce the paper's figures
SCENES = "scenes:size=128x256,num_train=400,num_val=60"
NUM_EPOCHS = 20
HALVED_FROM = 256  # images at least as high are trained and scored on at half their size, in a quarter of the time
NUM_TIMED_STEPS = 2  # after one that is not timed
BACKWARD = 3  # duration of a training step in forward passes
NUM_SEEDS = 3  # of the two best networks, and of the paper's best

# Section 4.2, shortened: few epochs, small images, plain form, loss on every fourth row and column; a higher learning
# rate with warm-up, and scales for small images.
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
SMALL_SCALE = (0.75, 1.5)  # relative to the size that images are trained at


@dataclass(frozen=True, slots=True)
class Schedule:
    """How all networks of a study are trained.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        recipe: of the training.
        input_size: (height, width) in pixels for scoring; None for the images' own.
    """

    data: str
    recipe: Recipe
    input_size: Size | None = None

    def at(self, learning_rate: float) -> "Schedule":
        """The same with another learning rate."""
        return replace(self, recipe=self.recipe.with_overrides({"learning_rate": learning_rate}))

    def training(self, network: StudyNetwork | Peer, *, seed: int = 0) -> TrainingRun:
        """The training of a network, scored on val."""
        recipe = self.recipe.with_overrides({"seed": seed})
        if isinstance(network, Peer):
            return TrainingRun(self.data, None, recipe, network=network.code, input_size=self.input_size)
        return TrainingRun(
            self.data,
            network.architecture,
            recipe,
            block=network.block,
            interaction=network.interaction,
            input_size=self.input_size,
        )


def data_of(settings: Settings, *, scenes: str = SCENES) -> str:
    """The data set of a study that trains on one; at small scale `scenes` by default.

    Raises:
        RunError: several are given, or none at paper scale.
    """
    if len(settings.data) > 1:
        raise RunError(f"this study trains on one data set; got {', '.join(settings.data)}")
    if not settings.data and settings.scale == "paper":
        raise RunError("at paper scale a study needs the images: --data cityscapes:PATH")
    return settings.data[0] if settings.data else scenes


def schedule_of(settings: Settings, data: str, *, paper: str = "paper_cityscapes", halved: bool = True) -> Schedule:
    """The paper's recipe; at small scale a short one on whole images, halved where they are large.

    Crops are too small then: the last map of the smallest path would be 2x2 in training and larger in use.

    Args:
        settings: with scale and, where they replace the recipe's, epochs and form.
        data: the data set, as `open_dataset` takes it.
        paper: the recipe at paper scale; it starts from random weights even where the paper's starts from ImageNet.
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
    """(height, width) in pixels of the first training image."""
    height, width = usual_size(open_dataset(data).split("train"))
    return height, width


def latency_size(settings: Settings, data: str) -> Size:
    """The size that latencies are measured at: that of the settings, the paper's, or the images' own."""
    return settings.size or (PAPER_SIZE if settings.scale == "paper" else picture_size(data))


def latencies(networks: Sequence[StudyNetwork | Peer], settings: Settings) -> Run:
    """`latency_run` with the classes, and at small scale the image size, of the data set."""
    data = data_of(settings)
    num_classes = open_dataset(data).label_space.num_classes
    return latency_run(networks, latency_size(settings, data), settings, num_classes=num_classes)


def differences(timed: Outcome, trained: Sequence[Outcome]) -> tuple[str, str]:
    """How the networks were trained and timed, here and in the paper."""
    return describe_training(trained[0].key["trained"]), describe_latency(timed)


def describe_training(trained: Mapping[str, Any], *, paper: str = "paper_cityscapes") -> str:
    """How networks were trained, here and in the paper.

    Args:
        trained: the settings of one of the trainings, see `TrainingRun.settings`.
        paper: the recipe at paper scale.
    """
    data = trained["data"]
    size = "x".join(map(str, trained["input_size"] or ())) or "the images' own size"
    is_generated = data.partition(":")[0] == "scenes"
    warning = "These are generated scenes: they show that the study works, no more. " if is_generated else ""
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


def training_run(training: TrainingRun, known: Known, *, num_threads: int | None = None) -> Run:
    """The run of a training; its duration is estimated once `pace_run` of the same network is done.

    Its result: `miou` and `pixel_accuracy` in percent, `ious` by class, `model` (a file in the run's folder) and
    `seconds`; or, if the training diverged, the reason as `failed`.
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


def pace_run(training: TrainingRun, *, num_threads: int | None = None) -> Run:
    """A run that times a few steps: `step_s` of training and `picture_s` of scoring. Seeds of a network share it."""
    recipe = training.recipe.with_overrides({"seed": 0, "epochs": 1})
    paced = replace(training, recipe=recipe)
    key = {"paced": paced.settings(), "num_threads": num_threads}

    def work(place: Place) -> dict[str, Json]:
        set_threads(num_threads)
        place.on_progress("timing a few training steps", 0.0)
        return _pace(paced)

    return Run(key, work, seconds=5.0)


def training_runs(trainings: Sequence[TrainingRun], known: Known, num_threads: int | None) -> list[Run]:
    """First the time of a few steps of every network, then the trainings."""
    paces = {run.slug: run for run in (pace_run(each, num_threads=num_threads) for each in trainings)}
    return [*paces.values(), *(training_run(each, known, num_threads=num_threads) for each in trainings)]


def name_of(training: TrainingRun) -> str:
    """As shown to users: the network, and how its training differs from others of the study."""
    built = f"{training.block}, {training.interaction}, {training.architecture}"
    network = find_network(training.network).name if training.network else built
    return f"{network}, learning rate {training.recipe.learning_rate:g}, seed {training.recipe.seed}"


def scores_of(outcomes: Sequence[Outcome], network: StudyNetwork) -> list[float]:
    """mIoU in percent of a network's trainings, ordered by seed; failed ones are left out."""
    found = {
        outcome.key["trained"]["recipe"]["seed"]: outcome.result["miou"]
        for outcome in outcomes
        if "miou" in outcome.result and network.to_dict().items() <= outcome.key.get("trained", {}).items()
    }
    return [found[seed] for seed in sorted(found)]


def set_threads(num_threads: int | None) -> None:
    """Set torch's number of threads in this process; None changes nothing."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)


def _train(training: TrainingRun, num_threads: int | None, place: Place) -> dict[str, Json]:
    set_threads(num_threads)
    start = time.monotonic()

    def on_progress(status: Status) -> None:
        place.on_progress(f"training {name_of(training)}", status.iteration / status.num_iterations)

    try:
        result = train(training, place.folder, resume=True, on_progress=on_progress, tensorboard=False)
    except DivergedError as error:
        return {"failed": str(error)}
    if result.evaluation is None:
        raise RunError(f"data set {training.data!r} has no split val to score on")
    figures = result.evaluation.to_dict()
    return {
        **{name: figures[name] for name in ("miou", "pixel_accuracy", "ious", "num_images")},
        "model": result.model.name,
        "seconds": round(time.monotonic() - start, 1),
    }


def _pace(training: TrainingRun) -> dict[str, Json]:
    accelerator = make_accelerator()
    # Long enough to time, and without class weights: counting them reads every label
    recipe = training.recipe.with_overrides({"iterations": NUM_TIMED_STEPS + 2, "class_weights": "none"})
    task = Segmentation.of(replace(training, recipe=recipe), accelerator.device)
    task = replace(task, images=select(task.images, 2 * training.recipe.batch_size))
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        steps = Loop(task, accelerator, folder=RunFolder(Path(folder))).steps()
        next(steps)[0].item()
        start = time.perf_counter()
        for _ in range(NUM_TIMED_STEPS):
            next(steps)[0].item()
        step_s = (time.perf_counter() - start) / NUM_TIMED_STEPS
        steps.close()
    height, width = training.input_size or usual_size(task.images)
    crop_height, crop_width = training.recipe.crop_size
    share = height * width / (crop_height * crop_width)
    return {"step_s": step_s, "picture_s": step_s / training.recipe.batch_size * share / BACKWARD}


def _expected_s(training: TrainingRun, pace: Mapping[str, Json]) -> float:
    dataset = open_dataset(training.data)
    num_steps = training.recipe.num_iterations(len(dataset.split(training.split)))
    num_scored = len(dataset.split("val")) if "val" in dataset.splits else 0
    return float(num_steps * pace["step_s"] + num_scored * pace["picture_s"])


def training_plan(networks: Sequence[StudyNetwork], settings: Settings, known: Known, *, paper: str) -> list[Run]:
    """Every network once, then more seeds for the two best and for `paper`, the name of the paper's best.

    While the two best are not known, the two that train longest are placeholders, see `Study.plan`.
    """
    schedule = schedule_of(settings, data_of(settings))
    once = training_runs([schedule.training(network) for network in networks], known, settings.num_threads)
    first = dict(zip((network.name for network in networks), once[-len(networks) :], strict=True))
    chosen, is_known = _to_repeat(first, known, paper)
    more = [
        training_run(schedule.training(network, seed=seed), known, num_threads=settings.num_threads)
        for network in networks
        if network.name in chosen
        for seed in range(1, settings.num_seeds or NUM_SEEDS)
    ]
    if not is_known:  # placeholders must not start beside the runs before them
        more = [replace(run, apart=False) for run in more]
    return [*once, *more]


def _to_repeat(first: dict[str, Run], known: Known, paper: str) -> tuple[list[str], bool]:
    """The networks to train with more seeds, and whether they are known yet."""
    results = {name: known(run) for name, run in first.items()}
    if any(result is None for result in results.values()):
        return [*sorted(first, key=lambda name: -(first[name].seconds or 0.0))[:2], paper], False
    scores = {name: result["miou"] for name, result in results.items() if result and "miou" in result}
    return [*best_two(scores), *([paper] if paper in scores else [])], True

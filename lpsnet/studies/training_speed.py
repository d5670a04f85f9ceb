"""Training speed: images per second of the trainer beside a plain loop that follows the same recipe; not in the paper.

The trainer computes in bf16 where the processor supports it, channels-last, with a fused loss, cached decoded images
and workers. The plain loop has none of that: float32, NCHW, every image decoded when it is needed, logits upsampled to
the label's size. Both start from the same weights and see the same samples, so `compare_results` can compare their
mIoU as well. For instance:

    python -c "from lpsnet.studies.training_speed import *; print(compare_speed('scenes', 'lpsnet_s', 'camvid_small'))"
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import select
from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.network_training import set_threads
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Run, Scale, Settings, Study
from lpsnet.training import loop, run_folder, segmentation
from lpsnet.training.config import get_recipe
from lpsnet.training.data import Augment, Batches, SampleOrder, Weights
from lpsnet.training.run import MovingAverage, TrainingRun, versions

PREFETCHED = 3  # batches that the trainer's workers are ahead, see `Batches`
ARCHITECTURE, RECIPE = "lpsnet_s", "camvid_small"
SCENES = "scenes:size=360x480,num_train=32,num_val=2"
REPEATS: dict[Scale, int] = {"small": 5, "paper": 15}


class PlainLoop:
    """A training of `task` from its first step; its model is trained in place, on the CPU.

    Raises:
        LpsnetError: the recipe needs what the plain loop lacks: OHEM, a stride of the loss, or frozen batch norm.
    """

    def __init__(self, task: segmentation.Segmentation) -> None:
        recipe = task.recipe
        more = recipe.aux_weight or recipe.class_mix or recipe.rare_class_crops or task.teacher is not None
        if recipe.loss != "cross_entropy" or recipe.loss_stride != 1 or recipe.freeze_batch_norm or more:
            raise LpsnetError("the plain loop supports only cross-entropy at the label's size and trained batch norm")
        self.task = task
        self.model = task.network.train()
        groups = ([p for p in self.model.parameters() if (p.ndim > 1) == wide] for wide in (True, False))
        decays = recipe.weight_decay, recipe.weight_decay if recipe.decay_norm else 0.0
        self.optimiser = torch.optim.SGD(
            [{"params": group, "weight_decay": decay} for group, decay in zip(groups, decays, strict=True)],
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
        )
        self.average = MovingAverage.of(self.model, recipe.ema_decay) if recipe.ema_decay else None
        self.num_iterations = recipe.num_iterations(len(task.images))

    def steps(self) -> Iterator[torch.Tensor]:
        """Perform a step for each item: its loss."""
        for iteration in range(self.num_iterations):
            for group in self.optimiser.param_groups:
                group["lr"] = self.task.recipe.learning_rate_at(iteration, self.num_iterations)
            loss = self._loss(*self._batch(iteration))
            self.optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if self.average is not None:
                self.average.update(self.model, iteration)
            yield loss.detach()

    @property
    def weights(self) -> Weights:
        """The current result: the moving average if the recipe has one."""
        return self.average.values if self.average is not None else self.model.state_dict()

    def _batch(self, iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = self.task.recipe
        batches = Batches(self.task.images, recipe.augmentation, recipe.batch_size, recipe.seed, 1, 0)
        order = SampleOrder(len(self.task.images), seed=recipe.seed)
        first = iteration * recipe.batch_size
        positions = range(first, first + recipe.batch_size)
        samples = [batches.sample(position, order.index(position)) for position in positions]
        images, labels = (np.stack(arrays) for arrays in zip(*samples, strict=True))
        normalisation = self.task.normalisation
        mean, std = (np.array(values, np.float32) for values in (normalisation.mean, normalisation.std))
        normalised = (images.astype(np.float32) / 255 - mean) / std
        return torch.from_numpy(normalised).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels).long()

    def _loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": self.model.align_corners}
        logits = torch.nn.functional.interpolate(self.model(images), size=labels.shape[1:], **options)
        return torch.nn.functional.cross_entropy(
            logits,
            labels,
            weight=self.task.criterion.class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.task.recipe.label_smoothing,
        )


@dataclass(frozen=True)
class TrainingSpeed:
    """Times of both loops, measured interleaved (A B A B …).

    Attributes:
        plain_s, trainer_s: seconds of each turn.
        num_pictures: images of each turn.
        settings: of the training, as JSON values.
    """

    plain_s: tuple[float, ...]
    trainer_s: tuple[float, ...]
    num_pictures: int
    settings: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """The trainer's images per second over the plain loop's, of the medians."""
        return statistics.median(self.plain_s) / statistics.median(self.trainer_s)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: times, medians, versions and machine."""
        ratios = [plain / ours for plain, ours in zip(self.plain_s, self.trainer_s, strict=True)]
        return {
            "ratio": self.ratio,
            "lowest_and_highest_ratio": [min(ratios), max(ratios)],
            "plain_pictures_per_second": self.num_pictures / statistics.median(self.plain_s),
            "trainer_pictures_per_second": self.num_pictures / statistics.median(self.trainer_s),
            "plain_s": list(self.plain_s),
            "trainer_s": list(self.trainer_s),
            "pictures_per_turn": self.num_pictures,
            **self.settings,
            "torch_threads": torch.get_num_threads(),
            "machine": describe_machine().identity,
            "versions": dict(versions()),
        }


def compare_speed(
    data: str,
    arch: str,
    recipe: str,
    *,
    overrides: Mapping[str, Any] | None = None,
    num_pictures: int = 32,
    steps: int = 2,
    repeats: int = 5,
) -> TrainingSpeed:
    """Train a few steps with the plain loop, then a few with the trainer, and repeat; the first turns are not counted.

    Before it is timed, the trainer sees each image once, so that all are decoded as from the second epoch on.

    Args:
        data, arch, recipe: as for `train`; the loss is computed at the label's size in both.
        overrides: changes to the recipe.
        num_pictures: images of the training split to use.
        steps: optimiser steps in a turn.
        repeats: counted turns of each.

    Raises:
        LpsnetError: a number is not positive; also the errors of `train`.
    """
    if min(num_pictures, steps, repeats) < 1:
        raise LpsnetError(f"images, steps and repeats are at least 1; got {num_pictures}, {steps}, {repeats}")
    warm_up = -(-num_pictures // get_recipe(recipe).with_overrides(overrides or {}).batch_size)
    length = {"iterations": warm_up + PREFETCHED + steps * (repeats + 2), "evaluate_every": 0}
    run = _run(data, arch, recipe, {**(overrides or {}), **length})
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = PlainLoop(_task(run, num_pictures)).steps(), _Trainer(_task(run, num_pictures), Path(folder))
        ours.turn(warm_up)
        times = [(_plain_turn(plain, steps), ours.turn(steps)) for _ in range(repeats + 1)][1:]
    plain_s, trainer_s = zip(*times, strict=True)
    return TrainingSpeed(plain_s, trainer_s, steps * run.recipe.batch_size, {"run": run.settings(), "steps": steps})


@dataclass(frozen=True)
class Results:
    """mIoU on val in percent of both loops, one per seed."""

    plain: tuple[float, ...]
    trainer: tuple[float, ...]
    settings: Mapping[str, Any]

    @property
    def difference(self) -> float:
        """The trainer's mean mIoU minus the plain loop's."""
        return statistics.mean(self.trainer) - statistics.mean(self.plain)

    @property
    def spread(self) -> float:
        """The larger standard deviation over seeds."""
        return max(statistics.stdev(self.plain), statistics.stdev(self.trainer))

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "plain_miou": list(self.plain),
            "trainer_miou": list(self.trainer),
            "difference": self.difference,
            "spread_over_seeds": self.spread,
            **self.settings,
        }


def compare_results(
    data: str, arch: str, recipe: str, *, seeds: Sequence[int], overrides: Mapping[str, Any] | None = None
) -> Results:
    """Train to the end with both loops, once per seed, and score on val.

    Arguments and errors as for `compare_speed`; at least two seeds, and data with a split val.
    """
    if len(set(seeds)) < 2:
        raise LpsnetError(f"a spread over seeds needs at least 2 of them; got {list(seeds)}")
    runs = [_run(data, arch, recipe, {**(overrides or {}), "evaluate_every": 0, "seed": seed}) for seed in seeds]
    settings = {"run": runs[0].settings(), "seeds": list(seeds)}
    return Results(tuple(map(_plain_miou, runs)), tuple(map(_trainer_miou, runs)), settings)


def _plain_miou(run: TrainingRun) -> float:
    task = _task(run, None)
    plain = PlainLoop(task)
    for _ in plain.steps():
        pass
    score = task.evaluate(plain.weights)
    if score is None:
        raise LpsnetError(f"data set {run.data!r} has no split val to score on")
    return score.details.miou


def _trainer_miou(run: TrainingRun) -> float:
    with tempfile.TemporaryDirectory() as folder:
        evaluation = segmentation.train(run, Path(folder), tensorboard=False).evaluation
    assert evaluation is not None, "the plain loop was scored on val"
    return evaluation.miou


def _run(data: str, arch: str, recipe: str, overrides: Mapping[str, Any]) -> TrainingRun:
    return TrainingRun(data, get_architecture(arch), get_recipe(recipe).with_overrides({**overrides, "loss_stride": 1}))


def _task(run: TrainingRun, num_pictures: int | None) -> segmentation.Segmentation:
    task = segmentation.Segmentation.of(run, torch.device("cpu"))
    return replace(task, images=select(task.images, num_pictures))


def _plain_turn(steps: Iterator[torch.Tensor], num_steps: int) -> float:
    start = time.perf_counter()
    for _ in range(num_steps):
        next(steps).item()
    return time.perf_counter() - start


class _Trainer:
    def __init__(self, task: segmentation.Segmentation, folder: Path) -> None:
        self._samples = _Counted(task.augmentation)
        self._batch_size = task.recipe.batch_size
        task = replace(task, augmentation=self._samples)
        self._steps = loop.Loop(task, loop.make_accelerator(), folder=run_folder.RunFolder(folder)).steps()
        self._num_steps = 0

    def turn(self, num_steps: int) -> float:
        """Seconds of some steps, until the workers are as far ahead as before, so that they are idle afterwards."""
        start = time.perf_counter()
        for _ in range(num_steps):
            next(self._steps)[0].item()
        self._num_steps += num_steps
        self._samples.wait_for((self._num_steps + PREFETCHED) * self._batch_size)
        return time.perf_counter() - start


class _Counted:
    def __init__(self, augmentation: Augment) -> None:
        self._augmentation = augmentation
        self._count = 0
        self._more = threading.Condition()

    def __call__(
        self, image: NDArray[np.uint8], labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        sample = self._augmentation(image, labels, rng)
        with self._more:
            self._count += 1
            self._more.notify_all()
        return sample

    def wait_for(self, count: int) -> None:
        with self._more:
            if not self._more.wait_for(lambda: self._count >= count, timeout=600):
                raise LpsnetError(
                    f"after 10 minutes {self._count} of {count} samples are prepared; is an image broken?"
                )


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: both loops, interleaved."""
    if len(settings.data) > 1:
        raise RunError(f"this study trains on one data set; got {', '.join(settings.data)}")
    data, repeats = (settings.data or (SCENES,))[0], REPEATS[settings.scale]
    key = {"sped": ARCHITECTURE, "recipe": RECIPE, "data": data, "repeats": repeats, "threads": settings.num_threads}

    def work(place: Place) -> dict[str, Json]:
        place.on_progress("training with both loops", 0.0)
        set_threads(settings.num_threads)
        return compare_speed(data, ARCHITECTURE, RECIPE, repeats=repeats).to_dict()

    return [Run(key, work, seconds=180.0)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for each loop."""
    result = outcomes[0].result
    rows = [
        {
            "loop": name,
            "pictures_per_second": result[f"{name}_pictures_per_second"],
            "turns_s": " ".join(f"{value:.2f}" for value in result[f"{name}_s"]),
        }
        for name in ("plain", "trainer")
    ]
    low, high = result["lowest_and_highest_ratio"]
    finding = f"The trainer processes {result['ratio']:.2f} times as many images a second, {low:.2f} to {high:.2f}."
    return Report(tuple(rows), (finding,), partial(_draw, rows), (5.0, 3.5))


def _draw(rows: Sequence[Any], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    rates = [row["pictures_per_second"] for row in rows]
    bars = axes.bar([row["loop"] for row in rows], rates, color=[GREY, COLOURS[0]])
    axes.bar_label(bars, fmt="%.2f")
    axes.set_ylabel("images a second")


STUDY = Study(
    name="training-speed",
    title="The trainer beside a plain loop",
    reference="Not in the paper.",
    differences=("Both follow one recipe from the same first weights over the same samples, interleaved.",),
    plan=plan,
    report=report,
    options=frozenset({"data", "num_threads"}),
)

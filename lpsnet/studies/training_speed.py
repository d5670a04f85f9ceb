"""How many pictures a second a training learns from, beside the plain loop that one would write first.

The trainer: bf16 where the processor computes in it, channels-last, the loss in bands (`training/upsampling.py`),
decoded pictures kept, workers. The plain loop (`plain_training.py`) has none of that. Both follow one recipe from the
same first weights over the same samples, so what they learn can be compared as well (`compare_results`).

Not a figure of the paper. For instance:

    python -c "from lpsnet.studies.training_speed import *; print(compare_speed('scenes', 'lpsnet_s', 'camvid_small'))"
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.split import select
from lpsnet.errors import LpsnetError
from lpsnet.studies.plain_training import PlainLoop
from lpsnet.training.config import get_recipe
from lpsnet.training.data import Augment
from lpsnet.training.loop import Loop, make_accelerator
from lpsnet.training.run import TrainingRun, versions
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation, train

PREFETCHED = 3  # batches that the trainer's workers are ahead, see `Batches`


@dataclass(frozen=True)
class TrainingSpeed:
    """Times of both loops, measured in turn (A B A B …).

    Attributes:
        plain_s, trainer_s: seconds of each turn, in their order.
        num_pictures: that each turn learns from.
        settings: what was trained, as JSON values.
    """

    plain_s: tuple[float, ...]
    trainer_s: tuple[float, ...]
    num_pictures: int
    settings: Mapping[str, Any]

    @property
    def ratio(self) -> float:
        """How many times as many pictures a second the trainer learns from, of the medians."""
        return statistics.median(self.plain_s) / statistics.median(self.trainer_s)

    def to_dict(self) -> dict[str, Any]:
        """The times and their medians as JSON values, with versions and machine."""
        return {
            "ratio": self.ratio,
            "lowest_and_highest_ratio": [min(self._ratios()), max(self._ratios())],
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

    def _ratios(self) -> list[float]:
        return [plain / ours for plain, ours in zip(self.plain_s, self.trainer_s, strict=True)]


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
    """Train a few steps with the plain loop, a few with the trainer, and so on; the first turn of each is not counted.

    Before it is timed, the trainer has seen each picture once: from the second epoch on it finds them decoded.

    Args:
        data: a data set, as for `train`; `arch` and `recipe` alike. The loss is taken at the label's size in both.
        overrides: changes to the recipe.
        num_pictures: of the training split take part.
        steps: optimiser steps in a turn.
        repeats: turns of each that count.

    Raises:
        LpsnetError: a number is not positive, or what `train` raises.
    """
    if min(num_pictures, steps, repeats) < 1:
        raise LpsnetError(f"pictures, steps and repeats are at least 1; got {num_pictures}, {steps}, {repeats}")
    warm_up = -(-num_pictures // get_recipe(recipe).with_overrides(overrides or {}).batch_size)
    length = {"iterations": warm_up + PREFETCHED + steps * (repeats + 2), "evaluate_every": 0}
    run = _run(data, arch, recipe, {**(overrides or {}), **length})
    with tempfile.TemporaryDirectory() as folder:
        plain, ours = _Plain(_task(run, num_pictures)), _Trainer(_task(run, num_pictures), Path(folder))
        ours.turn(warm_up)
        times = [(plain.turn(steps), ours.turn(steps)) for _ in range(repeats + 1)][1:]
    plain_s, trainer_s = zip(*times, strict=True)
    return TrainingSpeed(plain_s, trainer_s, steps * run.recipe.batch_size, {"run": run.settings(), "steps": steps})


@dataclass(frozen=True)
class Results:
    """What both loops learnt with the same seeds: mIoU on val in percent, one a seed."""

    plain: tuple[float, ...]
    trainer: tuple[float, ...]
    settings: Mapping[str, Any]

    @property
    def difference(self) -> float:
        """The trainer's mean mIoU minus the plain loop's."""
        return statistics.mean(self.trainer) - statistics.mean(self.plain)

    @property
    def spread(self) -> float:
        """The standard deviation over seeds, the larger of the two."""
        return max(statistics.stdev(self.plain), statistics.stdev(self.trainer))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
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
    """Train to the end with both loops, once for every seed, and score on val.

    Arguments and errors as for `compare_speed`; at least two seeds, and data with a split val.
    """
    if len(set(seeds)) < 2:
        raise LpsnetError(f"a spread over seeds needs at least 2 of them; got {list(seeds)}")
    runs = [_run(data, arch, recipe, {**(overrides or {}), "evaluate_every": 0, "seed": seed}) for seed in seeds]
    settings = {"run": runs[0].settings(), "seeds": list(seeds)}
    return Results(tuple(_learn_plainly(run) for run in runs), tuple(_learn(run) for run in runs), settings)


def _learn_plainly(run: TrainingRun) -> float:
    task = _task(run, None)
    loop = PlainLoop(task)
    for _ in loop.steps():
        pass
    score = task.evaluate(loop.weights)
    if score is None:
        raise LpsnetError(f"data set {run.data!r} has no split val to score on")
    return score.details.miou


def _learn(run: TrainingRun) -> float:
    with tempfile.TemporaryDirectory() as folder:
        evaluation = train(run, Path(folder), tensorboard=False).evaluation
    assert evaluation is not None, "there is a val: the plain loop was scored on it"
    return evaluation.miou


def _run(data: str, arch: str, recipe: str, overrides: Mapping[str, Any]) -> TrainingRun:
    return TrainingRun(data, get_architecture(arch), get_recipe(recipe).with_overrides({**overrides, "loss_stride": 1}))


def _task(run: TrainingRun, num_pictures: int | None) -> Segmentation:
    task = Segmentation.of(run, torch.device("cpu"))
    return replace(task, pictures=select(task.pictures, num_pictures))


class _Plain:
    def __init__(self, task: Segmentation) -> None:
        self._steps = PlainLoop(task).steps()

    def turn(self, num_steps: int) -> float:
        """Do some steps; the seconds they took."""
        start = time.perf_counter()
        for _ in range(num_steps):
            next(self._steps).item()
        return time.perf_counter() - start


class _Trainer:
    def __init__(self, task: Segmentation, folder: Path) -> None:
        self._samples = _Counted(task.augmentation)
        self._batch_size = task.recipe.batch_size
        task = replace(task, augmentation=self._samples)
        self._steps = Loop(task, make_accelerator(), folder=RunFolder(folder)).steps()
        self._num_steps = 0

    def turn(self, num_steps: int) -> float:
        """Do some steps; the seconds they took.

        The turn lasts until the workers are as far ahead as they were when it began, so that none of their work is
        done in the other's turn.
        """
        start = time.perf_counter()
        for _ in range(num_steps):
            next(self._steps)[0].item()
        self._num_steps += num_steps
        self._samples.wait_for((self._num_steps + PREFETCHED) * self._batch_size)
        return time.perf_counter() - start


class _Counted:
    """An augmentation that counts its samples."""

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
        """Until `count` samples are done."""
        with self._more:
            if not self._more.wait_for(lambda: self._count >= count, timeout=600):
                raise LpsnetError(
                    f"after 10 minutes {self._count} of {count} samples are prepared; is a picture broken?"
                )

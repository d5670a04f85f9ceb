"""A training run as a value: what is trained on what, its progress, its result, and the facts kept in its record."""

import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch

import lpsnet
from lpsnet.architecture import Architecture
from lpsnet.benchmark.machine import command_line, describe_machine
from lpsnet.data.dataset import Dataset, data_contents
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.inference.hub import bundled_name, sha256
from lpsnet.models.checkpoint import Initialisation
from lpsnet.training.config import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """What is trained on what.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        architecture: the network's triple.
        recipe: how it is trained.
        split: the training images, e.g. "train" or "train+val".
        block, interaction: of the network.
        init: a checkpoint whose weights the network starts from, where names and shapes agree.
        input_size: (height, width) the model is meant to run at; None takes the first training image's.
    """

    data: str
    architecture: Architecture
    recipe: Recipe
    split: str = "train"
    block: str = "conv3x3"
    interaction: str = "bilateral_b"
    init: Path | None = None
    input_size: tuple[int, int] | None = None

    def settings(self, folder: Path | None = None) -> dict[str, Any]:
        """The run as JSON values.

        Args:
            folder: the run's. Weights that lie in it go where it goes, and are named without it.
        """
        init = self.init
        if init is not None and folder is not None and init.resolve().parent == folder.resolve():
            init = Path(init.name)
        name = None if init is None else bundled_name(init) or str(init)
        return {
            "data": self.data,
            "split": self.split,
            "architecture": str(self.architecture),
            "block": self.block,
            "interaction": self.interaction,
            "init": name,
            "input_size": None if self.input_size is None else list(self.input_size),
            "recipe": self.recipe.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Status:
    """Where a run stands after an iteration.

    Attributes:
        iteration, num_iterations: finished optimiser steps, and all of them.
        loss: of this step.
        learning_rate: of this step.
        pictures_per_second: since the last checkpoint or start, all processes together.
        message: such as an evaluation's score; usually empty.
    """

    iteration: int
    num_iterations: int
    loss: float
    learning_rate: float
    pictures_per_second: float
    message: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves.

    Attributes:
        model: the checkpoint with its record.
        evaluation: of the model on the validation split; None if there is none, or if it was trained on.
    """

    model: Path
    evaluation: Evaluation | None


def versions() -> Mapping[str, str]:
    """Versions of the packages that take part in a training."""
    return {
        "lpsnet": lpsnet.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def version_changes(started: Mapping[str, Any]) -> str:
    """A warning if a resumed run was started with other versions than those here; "" if with the same.

    Args:
        started: the facts of its start, see `RunFolder.started`.
    """
    before = started.get("versions")
    before = before if isinstance(before, Mapping) else {}
    changed = [
        f"{name} {before[name]} then, {now} now" for name, now in versions().items() if before.get(name, now) != now
    ]
    if not changed:
        return ""
    return f"warning: this run was started with other versions, so its result may differ: {'; '.join(changed)}"


def circumstances() -> dict[str, Any]:
    """Of this process, as JSON values."""
    return {"machine": describe_machine().identity, "versions": versions(), "command": command_line()}


def now() -> str:
    """UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def training_inputs(dataset: Dataset, init: Path | None, *splits: str) -> dict[str, str]:
    """The classes, the images of the splits and the weights of `--init`, each as a short text to compare.

    Raises:
        DataError: no such split.
    """
    # what comes with the package has checksums of its own, and one file where there were two in earlier versions
    weights = {} if init is None or bundled_name(init) else {"init": sha256(init)[:8]}
    return {**data_contents(dataset, *splits), **weights}


def describe_initialisation(initialisation: Initialisation, path: Path) -> str:
    """One line: how many tensors came from the checkpoint at `path`; which parts did not, and why.

    For example: 412 tensors taken from a.safetensors, skipped: head (another class count), path 2 (another shape: 6)
    """
    counts = Counter(_part(name, reason) for name, reason in initialisation.skipped.items())
    skipped = ", ".join(part if part.startswith("head") else f"{part[:-1]}: {count})" for part, count in counts.items())
    return f"{len(initialisation.taken)} tensors taken from {path}, skipped: {skipped or 'none'}"


def _part(name: str, reason: str) -> str:
    first, _, rest = name.partition(".")
    missing = reason.startswith("not")
    if first == "head" and not missing:
        # shapes are classes x channels x 1 x 1, or classes; see `checkpoint.initialise_from`
        there, here = (shape.split()[0].split("x") for shape in reason.split(", "))
        return "head (another class count)" if there[0] != here[0] else "head (another width or number of paths)"
    why = "not in the checkpoint" if missing else "another shape"
    part = f"path {int(rest.split('.')[0]) + 1}" if first == "paths" else first
    return f"{part} ({why})"

"""The values of a run: what is trained on what, where it stands, and what it leaves."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpsnet.architecture import Architecture
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """What is trained on what.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        architecture: the network's triple.
        recipe: how it is trained.
        split: the training pictures, e.g. "train" or "train+val".
        block, interaction: of the network.
        init: a checkpoint whose weights the network starts from, where names and shapes agree.
        input_size: (height, width) the model is meant to run at; None takes the first training picture's.
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
        return {
            "data": self.data,
            "split": self.split,
            "architecture": str(self.architecture),
            "block": self.block,
            "interaction": self.interaction,
            "init": None if init is None else str(init),
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
        message: what else there is to say, such as an evaluation's score; most often empty.
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

"""How the networks of a study are trained: alike, by the study's scale and data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.studies.network import StudyNetwork
from lpsnet.studies.study import Settings
from lpsnet.training.config import RECIPES, Recipe
from lpsnet.training.run import TrainingRun

Size = tuple[int, int]  # height, width

# Where no data is given: generated scenes, to see a study work; they are not what the paper's figures are about
SCENES = "scenes:size=128x256,num_train=400,num_val=60"
NUM_EPOCHS = 20
HALVED_FROM = 256  # pictures at least as high are learnt and scored at half their size: a quarter of the time
PAPER_SIZE = (1024, 2048)  # of the pictures that the paper's latencies are for

# Section 4.2 but for what makes it short: few passes, small pictures as below, no second branch beside a convolution,
# every fourth row and column of the loss; a higher learning rate that rises at first, and scales for small pictures.
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
SMALL_SCALE = (0.75, 1.5)  # of pictures at the size that they are learnt at


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the networks of a study are trained, all alike.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        recipe: how.
        input_size: that they are scored at, in pixels; None for the pictures' own.
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
        raise RunError("at paper scale a study needs the pictures: --data cityscapes:PATH")
    return settings.data[0] if settings.data else scenes


def schedule_of(settings: Settings, data: str, *, paper: str = "paper_cityscapes", halved: bool = True) -> Schedule:
    """The paper's recipe; or at small scale whole pictures, at half their size where that is enough to see anything.

    Crops would not do: a network whose smallest path sees a last map of 2x2 in training, and another in use, is
    scored on what it has not learnt.

    Args:
        settings: with scale and, if they are not the recipe's, the number of epochs and the form.
        data: the data set, as `open_dataset` takes it.
        paper: the recipe at paper scale. It starts from scratch even where the paper's starts from ImageNet.
        halved: whether large pictures may be halved.

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
    """(height, width) in pixels of the first picture that a data set is trained on.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    height, width = open_dataset(data).split("train").image(0).shape[:2]
    return height, width


def latency_size(settings: Settings, data: str) -> Size:
    """The size that latencies are measured at: the one asked for, the paper's, or the pictures' own."""
    return settings.size or (PAPER_SIZE if settings.scale == "paper" else picture_size(data))


def describe_training(trained: Mapping[str, Any], *, paper: str = "paper_cityscapes") -> str:
    """How networks were trained, beside the paper's way (the recipe `paper`), in a sentence.

    Args:
        trained: the settings of one of the trainings, see `TrainingRun.settings`.
        paper: the recipe at paper scale.
    """
    data = trained["data"]
    size = "x".join(map(str, trained["input_size"] or ())) or "the pictures' own size"
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

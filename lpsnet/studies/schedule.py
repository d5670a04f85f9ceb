"""How the networks of a study are trained: one recipe for all of them, by the study's scale and data."""

from fractions import Fraction

from lpsnet.data.datasets import open_dataset
from lpsnet.errors import RunError
from lpsnet.studies.study import Settings
from lpsnet.training.recipe import RECIPES, Recipe

# Where no data is given: generated scenes, to see a study work; they are not what the paper's figures are about
SCENES = "scenes:size=128x256,num_train=400,num_val=60"
NUM_EPOCHS = 20
CROP = Fraction(9, 16)  # of a picture's height, of square crops; the paper's 768 of 1024 take twice as long
MIN_CROP = 32
PAPER_SIZE = (1024, 2048)  # of the pictures that the paper's latencies are for

# Section 4.2 but for what makes it short: few passes, smaller crops as below, no second branch beside a convolution,
# every fourth row and column of the loss; a higher learning rate that rises at first, and scales for small pictures.
SMALL = RECIPES["paper_cityscapes"].with_overrides(
    {
        "name": "study_small",
        "source": "Section 4.2, made short",
        "epochs": NUM_EPOCHS,
        "form": "plain",
        "learning_rate": 0.03,
        "warmup_iterations": 50,
        "scale": (0.5, 1.5),
        "loss_stride": 4,
        "evaluate_every": 0,
    }
)


def data_of(settings: Settings) -> str:
    """The data set of a study that trains on one.

    Raises:
        RunError: several are given, or none at paper scale.
    """
    if len(settings.data) > 1:
        raise RunError(f"this study trains on one data set; got {', '.join(settings.data)}")
    if not settings.data and settings.scale == "paper":
        raise RunError("at paper scale a study needs the pictures: --data cityscapes:PATH")
    return settings.data[0] if settings.data else SCENES


def recipe_of(settings: Settings, data: str, *, paper: str = "paper_cityscapes") -> Recipe:
    """The recipe for a data set; but for the paper's own, its crops are square and 9/16 as high as the pictures.

    Args:
        settings: with scale and, if it is not the recipe's, the number of epochs.
        data: the data set, as `open_dataset` takes it.
        paper: the recipe at paper scale. It starts from scratch even where the paper's starts from ImageNet.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    if settings.scale == "paper":
        recipe = RECIPES[paper].with_overrides({"evaluate_every": 0, "init_required": False})
    else:
        crop = max(MIN_CROP, int(CROP * picture_size(data)[0]))
        recipe = SMALL.with_overrides({"crop_size": (crop, crop)})
    return recipe if settings.epochs is None else recipe.with_overrides({"epochs": settings.epochs})


def picture_size(data: str) -> tuple[int, int]:
    """(height, width) in pixels of the first picture that a data set is trained on.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    height, width = open_dataset(data).split("train").image(0).shape[:2]
    return height, width


def latency_size(settings: Settings, data: str) -> tuple[int, int]:
    """The size that latencies are measured at: the one asked for, the paper's, or the pictures' own."""
    return settings.size or (PAPER_SIZE if settings.scale == "paper" else picture_size(data))


def describe_training(data: str, recipe: Recipe, *, paper: str = "paper_cityscapes") -> str:
    """How networks were trained, beside the paper's way (the recipe `paper`), in a sentence."""
    warning = "These are generated scenes: they show that the study works, no more. " if _is_generated(data) else ""
    return (
        f"{warning}Trained on {data}, from scratch, all networks alike, scored on val at the pictures' own size: "
        f"{_numbers(recipe)}. The paper (Section 4.2): {_numbers(RECIPES[paper])}."
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

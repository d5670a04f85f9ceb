"""Recipes of pre-training. The paper says 'ImageNet pre-training' and no more (Section 4.2)."""

import math
from typing import Any, Self

from pydantic import Field, model_validator

from lpsnet.data.augment import RandomResizedCrop
from lpsnet.errors import RunError
from lpsnet.models.network import MIN_INPUT
from lpsnet.training.recipe import find_recipe
from lpsnet.training.settings import LoopSettings


class PretrainingRecipe(LoopSettings):
    """How a network is trained to classify.

    Attributes:
        crop_size: (height, width) of every sample in pixels.
        area: bounds of the window that is cut out, as a share of the picture.
        aspect: bounds of its width over its height.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: strength of colour jitter, each a factor within 1 ± this.
        label_smoothing: share of the target spread evenly over the classes.
        val_share: of every class, set apart for scoring where the folder has no val.
        (others): see `LoopSettings`.
    """

    crop_size: tuple[int, int] = (224, 224)
    area: tuple[float, float] = (0.08, 1.0)  # area and aspect: Szegedy et al. 2015, 'Going Deeper with Convolutions'
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = Field(default=0.5, ge=0, le=1)
    brightness: float = Field(default=0.4, ge=0, lt=1)
    contrast: float = Field(default=0.4, ge=0, lt=1)
    saturation: float = Field(default=0.4, ge=0, lt=1)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    val_share: float = Field(default=0.05, ge=0, le=0.5)

    @model_validator(mode="after")
    def _check_windows(self) -> Self:
        if min(self.crop_size) < MIN_INPUT:
            raise RunError(f"crop_size is height and width from {MIN_INPUT} pixels up; got {self.crop_size}")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise RunError(f"area is (smallest, largest) share of the picture, above 0 and up to 1; got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise RunError(f"aspect is (smallest, largest) width over height, above 0; got {self.aspect}")
        return self

    @property
    def augmentation(self) -> RandomResizedCrop:
        """The transforms of a training sample."""
        return RandomResizedCrop(
            crop_size=self.crop_size,
            area=self.area,
            aspect=self.aspect,
            flip_probability=self.flip,
            strengths=(self.brightness, self.contrast, self.saturation),
        )


_ROWS: tuple[dict[str, Any], ...] = (
    {
        "name": "imagenet",
        "source": "RepVGG's numbers (Ding et al. 2021, Section 4.1); the paper gives none",
        "epochs": 120,
        "batch_size": 256,
        "learning_rate": 0.1,
        "schedule": "cosine",
        "weight_decay": 1e-4,
        "decay_norm": False,
        "evaluate_every": 5,
    },
    {
        "name": "pictures_small",
        "source": "for some thousand pictures and a machine without GPU",
        "epochs": 30,
        "batch_size": 32,
        "learning_rate": 0.05,
        "schedule": "cosine",
        "warmup_iterations": 100,
        "weight_decay": 1e-4,
        "decay_norm": False,
        "crop_size": (128, 128),
        "area": (0.25, 1.0),
        "ema_decay": 0.998,
        "evaluate_every": 5,
    },
)
PRETRAINING_RECIPES: dict[str, PretrainingRecipe] = {row["name"]: PretrainingRecipe(**row) for row in _ROWS}


def get_pretraining_recipe(name: str) -> PretrainingRecipe:
    """The pre-training recipe of that name, or the one in that YAML file.

    Raises:
        RunError: there is no such recipe or file, or the file does not hold a recipe.
    """
    return find_recipe(name, PRETRAINING_RECIPES, PretrainingRecipe)

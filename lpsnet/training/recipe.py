"""Recipes: every number of a training run as one value.

The paper's recipes (Section 4.2) and those for small machines are rows of `RECIPES`; a run may change any number with
`with_overrides`, and its record holds the recipe it really used.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lpsnet.data.transforms import Augmentation
from lpsnet.errors import LpsnetError, RunError, unknown_name

Size = tuple[int, int]


class Recipe(BaseModel):
    """How a network is trained. Sizes are (height, width) in pixels.

    Attributes:
        name: the recipe this one is, or was made from.
        source: where its numbers come from.
        iterations: optimiser steps of the run; exactly one of `iterations` and `epochs` is given.
        epochs: passes over the training pictures, in place of `iterations`.
        batch_size: pictures in one optimiser step, over all processes together.
        learning_rate: at the start; it falls by the 'poly' rule lr * (1 - t / T) ** poly_power.
        warmup_iterations: steps over which the learning rate rises linearly from 0 first.
        momentum, weight_decay, poly_power: of stochastic gradient descent, Section 4.2.
        decay_norm: whether weight decay also applies to batch norm and biases.
        crop_size: of every training sample.
        scale: bounds of the random scale of a picture before it is cropped.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: strength of colour jitter, each a factor within 1 ± this.
        loss: "cross_entropy", or "ohem" for online hard example mining.
        ohem_threshold: OHEM keeps pixels whose true class got a probability below this …
        ohem_min_kept: … and at least this share of the labelled pixels.
        class_weights: "none", or "log": 1 / ln(1.02 + frequency in this data set's training split) (ENet, 2016).
        loss_stride: 1 compares scores upsampled to the label's full size, the paper's way; 4 compares at a quarter of
            it, cheaper.
        label_smoothing: share of the target spread evenly over the classes.
        form: "reparameterised" (RepVGG branches, Section 4.2) or "plain".
        freeze_batch_norm: use and keep the statistics the network starts with.
        ema_decay: of the moving average of the weights that is evaluated and delivered; 0 means none.
        init_required: the recipe presumes weights to start from (ImageNet or another data set): `--init`.
        precision: arithmetic of the forward pass: "auto" is bf16 where the hardware computes in it, else f32.
        num_workers: threads that decode and augment pictures.
        cache_mib: memory for decoded pictures; 0 decodes every time.
        evaluate_every: epochs between evaluations on the validation split; 0 evaluates at the end only.
        seed: of weights, order and augmentation.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    source: str = ""
    iterations: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    warmup_iterations: int = Field(default=0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    poly_power: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    decay_norm: bool = True
    crop_size: Size = (768, 768)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    # Section 4.2 says 'color-jittering' without numbers; 0.5 is what the STDC and BiSeNet recipes use.
    brightness: float = Field(default=0.5, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ohem_threshold: float = Field(default=0.7, gt=0, lt=1)
    ohem_min_kept: float = Field(default=1 / 16, gt=0, le=1)
    class_weights: Literal["none", "log"] = "none"
    loss_stride: int = Field(default=1, ge=1, le=16)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    form: Literal["reparameterised", "plain"] = "reparameterised"
    freeze_batch_norm: bool = False
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    init_required: bool = False
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    num_workers: int = Field(default=2, ge=1, le=256)
    cache_mib: int = Field(default=4096, ge=0)
    evaluate_every: int = Field(default=10, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.iterations is None) == (self.epochs is None):
            raise RunError(f"recipe {self.name!r} needs exactly one of iterations and epochs")
        self.augmentation  # noqa: B018 — refuses crop sizes and scales that cannot be
        return self

    @property
    def augmentation(self) -> Augmentation:
        """The transforms of a training sample."""
        return Augmentation(
            crop_size=self.crop_size,
            scale=self.scale,
            flip_probability=self.flip,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation,
        )

    def num_iterations(self, num_pictures: int) -> int:
        """Optimiser steps of the run on a training split of `num_pictures`."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * num_pictures / self.batch_size))

    def learning_rate_at(self, iteration: int, num_iterations: int) -> float:
        """The learning rate of step `iteration` (from 0): linear warm-up, then the 'poly' rule of Section 4.2."""
        poly: float = self.learning_rate * (1 - iteration / num_iterations) ** self.poly_power
        return poly * min(1.0, (iteration + 1) / (self.warmup_iterations + 1))

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with some numbers changed; giving `epochs` takes `iterations` away and the other way round.

        Raises:
            RunError: a key is not part of a recipe, or its value is not possible.
        """
        if unknown := [key for key in overrides if key not in type(self).model_fields]:
            raise RunError(unknown_name("recipe setting", unknown[0], type(self).model_fields))
        values = {**self.model_dump(), **overrides}
        for key, other in (("epochs", "iterations"), ("iterations", "epochs")):
            if overrides.get(key) is not None and other not in overrides:
                values[other] = None
        return self.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The recipe with these values, e.g. from a run's record; errors as for `with_overrides`."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            message = first["msg"].removeprefix("Value error, ")
            raise RunError(f"recipe setting {key}: {message}" if key else message) from None


_STRONG = {"loss": "ohem", "init_required": True}

# One row a recipe. The paper's numbers: Section 4.2, 'training stage'.
_ROWS: tuple[dict[str, Any], ...] = (
    {"name": "paper_cityscapes", "source": "Section 4.2", "iterations": 90_000},
    {
        "name": "paper_cityscapes_strong",
        "source": "Section 4.2, 'more powerful training strategies'",
        "iterations": 180_000,
        "crop_size": (768, 1536),
        **_STRONG,
    },
    {
        "name": "paper_bdd100k",
        "source": "Section 4.2, BDD100K",
        "iterations": 180_000,
        "crop_size": (720, 1280),
        **_STRONG,
    },
    {
        "name": "paper_camvid",
        "source": "Section 4.2, CamVid",
        "iterations": 40_000,
        "batch_size": 12,
        "learning_rate": 0.03,
        "crop_size": (720, 960),
        **_STRONG,
    },
    {
        "name": "cityscapes_small",
        "source": "for 256x512 pictures and a machine without GPU",
        "epochs": 40,
        "batch_size": 8,
        "learning_rate": 0.02,
        "warmup_iterations": 100,
        "crop_size": (256, 512),
        "scale": (0.75, 2.0),
        "class_weights": "log",
        "loss_stride": 4,
        "ema_decay": 0.999,
        "evaluate_every": 5,
    },
    {
        "name": "camvid_small",
        "source": "for 360x480 pictures and a machine without GPU",
        "epochs": 60,
        "batch_size": 8,
        "learning_rate": 0.02,
        "warmup_iterations": 50,
        "crop_size": (360, 480),
        "scale": (0.75, 2.0),
        "class_weights": "log",
        "loss_stride": 4,
        "ema_decay": 0.998,
    },
    {
        "name": "demo",
        "source": "for generated scenes: about a minute on two cores",
        "epochs": 16,
        "batch_size": 8,
        "learning_rate": 0.05,
        "warmup_iterations": 20,
        "crop_size": (128, 256),
        "scale": (0.75, 1.5),
        "loss_stride": 4,
        "ema_decay": 0.98,
        "evaluate_every": 0,
    },
)
RECIPES: dict[str, Recipe] = {row["name"]: Recipe(**row) for row in _ROWS}


def get_recipe(name: str) -> Recipe:
    """The recipe of that name, or the one in that YAML file (`base:` names the recipe it changes).

    Raises:
        RunError: there is no such recipe or file, or the file does not hold a recipe.
    """
    if name in RECIPES:
        return RECIPES[name]
    if name.endswith((".yaml", ".yml")):
        return _read_recipe(Path(name))
    raise RunError(f"{unknown_name('recipe', name, RECIPES)}, or a YAML file")


def _read_recipe(path: Path) -> Recipe:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"cannot read the recipe {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise RunError(f"the recipe {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RunError(f"the recipe {path} must hold settings, one `name: value` a line")
    base = values.pop("base", None)
    try:
        if base is None:
            return Recipe.from_values({"name": path.stem, **values})
        if base not in RECIPES:
            raise RunError(unknown_name("recipe to start from (base)", base, RECIPES))
        return RECIPES[base].with_overrides({"name": path.stem, **values})
    except LpsnetError as error:
        raise RunError(f"{path}: {error}") from None


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` texts; a value is read as JSON, and as plain text where it is none.

    A size may be written `360x480`, a pair `0.5,2`.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key:
            raise RunError(f"--set takes key=value, got {setting!r}")
        overrides[key.strip()] = _read_value(text.strip())
    return overrides


def _read_value(text: str) -> Any:
    for separator in ("x", ","):
        parts = text.split(separator)
        if len(parts) == 2 and all(_is_number(part) for part in parts):
            return [json.loads(part) for part in parts]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _is_number(text: str) -> bool:
    try:
        return isinstance(json.loads(text), int | float)
    except (ValueError, RecursionError):
        return False

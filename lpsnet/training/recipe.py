"""Recipes: every number of a segmentation training as one value.

The paper's recipes (Section 4.2) and those for small machines are rows of `RECIPES`; a run may change any number with
`with_overrides`, and its record holds the recipe it really used.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from lpsnet.data.augment import Augmentation
from lpsnet.errors import DataError, LpsnetError, RunError, unknown_name
from lpsnet.io import read_yaml
from lpsnet.training.settings import LoopSettings

Size = tuple[int, int]
R = TypeVar("R", bound=LoopSettings)


class Recipe(LoopSettings):
    """How a network is trained to segment. Sizes are (height, width) in pixels.

    Attributes:
        crop_size: of every training sample.
        scale: bounds of the random scale of a picture before it is cropped.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: strength of colour jitter, each a factor within 1 ± this.
        hue: largest turn of the colours about the grey axis, degrees either way; 0 is off.
        rotation: largest turn of the image about the crop's centre, degrees either way; 0 is off.
        max_class_share: largest share of a crop's labelled pixels that one class may fill, as far as
            `CROP_ATTEMPTS` positions allow; 1 is off. Below 1, augmentation runs on the CPU.
        loss: "cross_entropy", "ohem" for online hard example mining, or "lovasz" for cross-entropy plus
            Lovász-softmax, which follows mIoU more closely and takes a sort of all pixels.
        ohem_threshold: OHEM keeps pixels whose true class got a probability below this …
        ohem_min_kept: … and at least this share of the labelled pixels.
        class_weights: "none", or "log": 1 / ln(1.02 + frequency in this data set's training split) (ENet, 2016).
        loss_stride: 1 compares scores upsampled to the label's full size, the paper's way; 4 compares every fourth
            pixel along rows and columns, a little cheaper.
        label_smoothing: share of the target spread evenly over the classes; makes the loss several times as costly.
        init_required: the recipe presumes weights to start from (ImageNet or another data set): `--init`.
        (others): see `LoopSettings`.
    """

    crop_size: Size = (768, 768)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    # Section 4.2 says 'color-jittering' without numbers; 0.5 is what the STDC and BiSeNet recipes use.
    brightness: float = Field(default=0.5, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue: float = Field(default=0.0, ge=0, le=180)
    rotation: float = Field(default=0.0, ge=0, le=180)
    max_class_share: float = Field(default=1.0, gt=0, le=1)
    loss: Literal["cross_entropy", "ohem", "lovasz"] = "cross_entropy"
    ohem_threshold: float = Field(default=0.7, gt=0, lt=1)
    ohem_min_kept: float = Field(default=1 / 16, gt=0, le=1)
    class_weights: Literal["none", "log"] = "none"
    loss_stride: int = Field(default=1, ge=1, le=16)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    init_required: bool = False

    @model_validator(mode="after")
    def _check_augmentation(self) -> Self:
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
            hue_degrees=self.hue,
            rotation_degrees=self.rotation,
            max_class_share=self.max_class_share,
        )

    @model_serializer(mode="wrap")
    def _without_unused(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are named only where they are used.

        Results of studies are found again by the JSON of their recipe, which therefore may not change.
        """
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}


_LATER = {"hue": 0.0, "rotation": 0.0, "max_class_share": 1.0}  # setting -> value that turns it off
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
    return find_recipe(name, RECIPES, Recipe)


def find_recipe(name: str, rows: Mapping[str, R], kind: type[R]) -> R:
    """`get_recipe` for recipes of any kind: one of `rows`, or a YAML file."""
    if name in rows:
        return rows[name]
    if name.endswith((".yaml", ".yml")):
        return _read_recipe(Path(name), rows, kind)
    raise RunError(f"{unknown_name('recipe', name, rows)}, or a YAML file")


def _read_recipe(path: Path, rows: Mapping[str, R], kind: type[R]) -> R:
    values = _read_settings(path)
    base = values.pop("base", None)
    try:
        if base is None:
            return kind.from_values({"name": path.stem, **values})
        if not isinstance(base, str) or base not in rows:
            raise RunError(unknown_name("recipe to start from (base)", base, rows))
        return rows[base].with_overrides({"name": path.stem, **values})
    except LpsnetError as error:
        raise RunError(f"{path}: {error}") from None


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        values = read_yaml(path, what="recipe")
    except DataError as error:
        raise RunError(str(error)) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise RunError(f"the recipe {path} must hold settings, one `name: value` a line")
    return values


def parse_overrides(settings: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` texts; a value is read as JSON, and as plain text where it is none.

    A size may be written `360x480`, a pair `0.5,2`.
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, sign, text = setting.partition("=")
        if not sign or not key:
            raise RunError(f"--set takes key=value, got {setting[:80]!r}")
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

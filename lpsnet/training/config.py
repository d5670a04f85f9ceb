"""Recipes: every setting of a training as one value, and the rows of `RECIPES` (Section 4.2 and small machines).

`LoopSettings` are the settings that the training loop needs for any task; `Recipe` adds those of segmentation.

`survey` looks at the data before a training, and `auto_recipe` is the recipe that follows (`--recipe auto`).
Found by trying on street scenes and road images; docs/how-to/fit.md gives the reasons. Everything can be set otherwise.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeVar, get_args

import numpy as np
import pydantic
from pydantic import Field

from lpsnet.data.augment import Augmentation
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.split import Split, select
from lpsnet.errors import DataError, LpsnetError, RunError, unknown_name, wanted
from lpsnet.io import read_yaml

_LATER: dict[str, Any] = {"hue": 0.0, "rotation": 0.0, "max_class_share": 1.0, "corruption": 0.0}
_LATER |= {"optimiser": "sgd", "minutes": None, "keep_best": False, "patience": 0}
_LATER |= {"rare_class_crops": 0.0, "class_mix": 0.0, "aux_weight": 0.0}  # setting -> value that turns it off,
_LATER |= {
    "frozen_stages": 0,
    "teacher_weight": 1.0,
    "teacher_temperature": 2.0,
    "unlabelled_share": 0.5,
}  # or without a teacher
LENGTHS = ("iterations", "epochs", "minutes")  # settings of which a recipe has one


class LoopSettings(pydantic.BaseModel):
    """Settings of the training loop, for any task.

    Attributes:
        name: the recipe this one is, or was made from.
        source: where its numbers come from.
        iterations: optimiser steps of the run; exactly one of `iterations`, `epochs` and `minutes` is given.
        epochs: in place of `iterations`.
        minutes: of training and its evaluations, in place of `iterations`: the schedule follows the clock, so that the
            run ends in time on any machine; two such runs differ. The last evaluation comes after it.
        batch_size: images in one optimiser step, over all processes together.
        learning_rate: at the start; it falls by `schedule`.
        schedule: "poly": lr * (1 - t / T) ** poly_power, Section 4.2; "cosine": lr * (1 + cos(pi t / T)) / 2.
        warmup_iterations: steps over which the learning rate rises linearly from 0 first.
        optimiser: "sgd", stochastic gradient descent as in Section 4.2, or "adamw" (Loshchilov and Hutter 2019).
        momentum, weight_decay, poly_power: of stochastic gradient descent, Section 4.2; AdamW has betas 0.9 and 0.999.
        decay_norm: whether weight decay also applies to batch norm and biases.
        form: "reparameterised" (RepVGG branches, Section 4.2) or "plain".
        freeze_batch_norm: use and keep the statistics the network starts with.
        ema_decay: of the moving average of the weights that is evaluated and saved; 0 means none.
        precision: arithmetic of the forward pass: "auto" is bf16 where the hardware computes in it, else f32.
        cuda_graph: on one GPU, run a step as one CUDA graph (`loop.GraphedStep`); not in f16, nor with OHEM.
        augment_on: "auto" augments on a GPU whose memory (`cache_mib`) holds images of one size; "workers" never.
        num_workers: threads that decode and augment images.
        cache_mib: memory for decoded images, on the device where they are augmented there; 0 decodes every time.
        evaluate_every: epochs between evaluations on the validation split, or, of a run of `minutes`, 1 for one after
            each eighth of it; 0 evaluates at the end only.
        keep_best: deliver the weights with the best evaluation, not the last ones; the record says which.
        patience: evaluations one after the other, none better than the best before, after which the training ends; the
            record says so. 0 never ends it early.
        seed: of weights, order and augmentation.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    source: str = ""
    iterations: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    minutes: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.01, gt=0, allow_inf_nan=False)
    schedule: Literal["poly", "cosine"] = "poly"
    warmup_iterations: int = Field(default=0, ge=0)
    optimiser: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    poly_power: float = Field(default=0.9, ge=0, allow_inf_nan=False)
    decay_norm: bool = True
    form: Literal["reparameterised", "plain"] = "reparameterised"
    freeze_batch_norm: bool = False
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["auto", "f32", "bf16", "f16"] = "auto"
    cuda_graph: bool = True
    augment_on: Literal["auto", "workers"] = "auto"
    num_workers: int = Field(default=2, ge=1, le=256)
    cache_mib: int = Field(default=4096, ge=0)
    evaluate_every: int = Field(default=10, ge=0)
    keep_best: bool = False
    patience: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @pydantic.model_validator(mode="after")
    def _check_length(self) -> Self:
        if sum(getattr(self, key) is not None for key in LENGTHS) != 1:
            raise RunError(f"recipe {self.name!r} needs exactly one of {', '.join(LENGTHS)}")
        if self.patience and not self.evaluate_every:
            raise RunError("patience counts evaluations, and evaluate_every=0 has none before the end; give both")
        return self

    @pydantic.model_serializer(mode="wrap")
    def _without_unused(self, serialise: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Settings that came later are named only where they are used.

        Results of studies are found again by the JSON of their recipe, which therefore may not change.
        """
        values: dict[str, Any] = serialise(self)
        return {key: value for key, value in values.items() if key not in _LATER or value != _LATER[key]}

    def num_iterations(self, num_pictures: int) -> int:
        """Optimiser steps of the run on a training split of `num_pictures`.

        Raises:
            RunError: the recipe's length is in minutes, so the number depends on the machine.
        """
        if self.iterations is not None:
            return self.iterations
        if self.epochs is None:
            raise RunError(f"recipe {self.name!r} ends by the clock; give it epochs or iterations here")
        return max(1, round(self.epochs * num_pictures / self.batch_size))

    def learning_rate_at(self, iteration: int, num_iterations: int) -> float:
        """The learning rate of step `iteration` (from 0): linear warm-up, then the schedule."""
        return self.learning_rate_after(iteration / num_iterations, iteration)

    def learning_rate_after(self, done: float, iteration: int) -> float:
        """The same after a share of the run, 0 to 1, that was `done` in `iteration` steps."""
        fall: float = (1 - done) ** self.poly_power if self.schedule == "poly" else (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * fall * min(1.0, (iteration + 1) / (self.warmup_iterations + 1))

    def with_overrides(self, overrides: Mapping[str, Any]) -> Self:
        """A copy with some numbers changed; giving `epochs` takes `iterations` away and the other way round.

        Raises:
            RunError: a key is not part of a recipe, or its value is not possible.
        """
        if unknown := [key for key in overrides if key not in type(self).model_fields]:
            raise RunError(unknown_name("recipe setting", unknown[0], type(self).model_fields))
        values = {**self.model_dump(), **overrides}
        if any(overrides.get(key) is not None for key in LENGTHS):
            values |= {key: None for key in LENGTHS if key not in overrides}
        return self.from_values(values)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """The recipe with these values, e.g. from a run's record; errors as for `with_overrides`."""
        try:
            return cls.model_validate(dict(values))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            if first["type"] == "literal_error" and key in cls.model_fields:
                allowed = get_args(cls.model_fields[key].annotation)
                raise RunError(unknown_name(f"{key} of a recipe", first["input"], allowed)) from None
            message = wanted(first)
            raise RunError(f"recipe setting {key}: {message}" if key else message) from None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Default values as JSON: the meaning of settings that a run of an earlier version does not have."""
        known = {name: field.default for name, field in cls.model_fields.items() if not field.is_required()}
        defaults: dict[str, Any] = json.loads(json.dumps(known))
        return defaults


Size = tuple[int, int]
R = TypeVar("R", bound=LoopSettings)


class Recipe(LoopSettings):
    """How a network is trained to segment. Sizes are (height, width) in pixels.

    Attributes:
        crop_size: of every training sample.
        scale: bounds of the random scale of an image before it is cropped.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: strength of colour jitter, each a factor within 1 ± this. Of channels other
            than RGB brightness and contrast change all alike, contrast about each channel's mean; saturation and hue
            change red, green and blue where the channels have these names, and else nothing.
        hue: largest turn of the colours about the grey axis, degrees either way; 0 is off.
        rotation: largest turn of the image about the crop's centre, degrees either way; 0 is off.
        max_class_share: largest share of a crop's labelled pixels that one class may fill, as far as
            `CROP_ATTEMPTS` positions allow; 1 is off. Below 1, augmentation runs on the CPU.
        corruption: probability that a sample gets one or two random corruptions of those that
            `evaluate --robustness` measures (dusk, noise, blur, fog, JPEG, …: `lpsnet.data.corruptions`), each of a
            random strength up to "strong"; 0 is off. Above 0, augmentation runs on the CPU.
        rare_class_crops: how often a crop's centre is a pixel of a class of the image that is drawn by the inverse of
            its frequency in the training split; 0 is off. Above 0, augmentation runs on the CPU.
        class_mix: how often a sample gets the pixels of half of the classes of another sample of its batch, with their
            labels (ClassMix, Olsson et al. 2021); 0 is off. With several processes, of their share of the batch.
        loss: "cross_entropy", "ohem" for online hard example mining, "lovasz" for cross-entropy plus
            Lovász-softmax, which follows mIoU more closely and takes a sort of all pixels, or "dice" for cross-entropy
            plus the Dice loss, which counts every class of a batch alike.
        ohem_threshold: OHEM keeps pixels whose true class got a probability below this …
        ohem_min_kept: … and at least this share of the labelled pixels.
        class_weights: "none", or "log": 1 / ln(1.02 + frequency in this data set's training split) (ENet, 2016).
        loss_stride: 1 compares logits upsampled to the label's full size, as the paper; 4 compares every fourth
            pixel along rows and columns, a little cheaper.
        label_smoothing: share of the target spread evenly over the classes; makes the loss several times as costly.
        aux_weight: weight of the loss of a second 1x1 head, on Stage 4 of the largest path (PSPNet, Zhao et al. 2017:
            0.4). It takes part in training alone: the model delivered does not have it. 0 is off.
        teacher_weight: with `--teacher`, of the distance to the teacher's logits (`losses.distillation`), beside the
            loss of the labelled pixels.
        teacher_temperature: by which both networks' logits are divided for it (Hinton et al. 2015); above 1 the teacher
            says more of the classes that it finds less likely.
        unlabelled_share: with `--unlabelled`, the share of every batch that is images without labels, at least one. An
            epoch is then still as many samples as there are labelled images, those without labels among them.
        init_required: the recipe presumes weights to start from (ImageNet or another data set): `--init`.
        frozen_stages: the first stages of every path, 0 to 4, that keep the weights and statistics they start with.
            They have the most pixels: with 2 of EfficientNet-Lite0's 5 a step on a CPU takes two thirds of the time.
        (others): see `LoopSettings`.
    """

    crop_size: Size = (768, 768)
    scale: tuple[float, float] = (0.5, 2.0)
    flip: float = Field(default=0.5, ge=0, le=1)
    # Section 4.2: 'color-jittering', without numbers; 0.5 is the value of the STDC and BiSeNet recipes.
    brightness: float = Field(default=0.5, ge=0, lt=1)
    contrast: float = Field(default=0.5, ge=0, lt=1)
    saturation: float = Field(default=0.5, ge=0, lt=1)
    hue: float = Field(default=0.0, ge=0, le=180)
    rotation: float = Field(default=0.0, ge=0, le=180)
    max_class_share: float = Field(default=1.0, gt=0, le=1)
    corruption: float = Field(default=0.0, ge=0, le=1)
    rare_class_crops: float = Field(default=0.0, ge=0, le=1)
    class_mix: float = Field(default=0.0, ge=0, le=1)
    loss: Literal["cross_entropy", "ohem", "lovasz", "dice"] = "cross_entropy"
    ohem_threshold: float = Field(default=0.7, gt=0, lt=1)
    ohem_min_kept: float = Field(default=1 / 16, gt=0, le=1)
    class_weights: Literal["none", "log"] = "none"
    loss_stride: int = Field(default=1, ge=1, le=16)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    aux_weight: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    teacher_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    teacher_temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    unlabelled_share: float = Field(default=0.5, gt=0, lt=1)
    init_required: bool = False
    frozen_stages: int = Field(default=0, ge=0, le=4)

    @pydantic.model_validator(mode="after")
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
            corruption=self.corruption,
            rare_class_crops=self.rare_class_crops,
        )

    def check_weights(self, *, given: bool) -> None:
        """Refuse a recipe that presumes weights to start from where none are given.

        Raises:
            RunError: it does.
        """
        if self.init_required and not given:
            raise RunError(
                f"recipe {self.name!r} starts from pre-trained weights: give them with --init or --encoder, "
                "or train from scratch with --set init_required=false"
            )

    @property
    def num_unlabelled(self) -> int:
        """Images without labels in a batch, if there are any: from 1 to all but one."""
        return min(self.batch_size - 1, max(1, round(self.unlabelled_share * self.batch_size)))


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
        "source": "for 256x512 images and a machine without GPU",
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
        "source": "for 360x480 images and a machine without GPU",
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
AUTO = "auto"  # the recipe that follows from the data (`auto_recipe`); not in the table, as it needs the data
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
        parts = [_json_or_text(part) for part in text.split(separator)]
        if len(parts) == 2 and all(isinstance(part, int | float) for part in parts):
            return parts
    return _json_or_text(text)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


MAX_CROP_PIXELS = 512 * 1024  # larger images are trained on crops
SMALL_CROP_PIXELS = 200 * 200
IMBALANCE = 5.0  # the most frequent class by the rarest, above which classes are weighted
CORRUPTION = 0.25  # from one short training each with and without (docs/results): less lost under corruptions
IMAGES_SEEN = 20_000  # in a training without a given length, as far as 10 to 100 epochs allow


NUM_SURVEYED = 64  # label files looked at before a training, spread evenly …
NUM_SAMPLED = 100  # … and for a recipe


@dataclass(frozen=True)
class Survey:
    """What some label files of a split hold, looked at before a training.

    Attributes:
        sizes: number of label files by (height, width).
        pixels: labelled pixels by class, K.
        num_read: label files.
    """

    sizes: Mapping[tuple[int, int], int]
    pixels: tuple[int, ...]
    num_read: int

    @property
    def usual_size(self) -> tuple[int, int]:
        """The most common (height, width); among equally common ones the largest."""
        return max(self.sizes, key=lambda size: (self.sizes[size], size))

    @property
    def imbalance(self) -> float:
        """The pixels of the most frequent class by those of the rarest that occurs."""
        present = [count for count in self.pixels if count]
        return max(present) / min(present)

    def remarks(self, split: Split, *, is_size_given: bool) -> list[str]:
        """What to know before the training, a line each."""
        some = f"{self.num_read} of {len(split)} label files looked at"
        remarks = []
        if len(self.sizes) > 1 and not is_size_given:
            height, width = self.usual_size
            most = f"{height}x{width} ({self.sizes[self.usual_size]} of {self.num_read})"
            several = f"images of {len(self.sizes)} sizes or more"
            remarks.append(f"{several}; the model is for the most common, {most}; --size sets another")
        absent = [name for name, count in zip(split.label_space.names, self.pixels, strict=True) if not count]
        if absent:
            remarks.append(
                f"{', '.join(map(repr, absent))} not in the {some}; a class that never occurs is never learnt"
            )
        return remarks


def survey(split: Split, *, count: int = NUM_SURVEYED) -> Survey:
    """Look at `count` label files, spread evenly; at more of them, until one holds a label, if these hold none.

    Raises:
        DataError: a label file cannot be read, or no pixel of the split has a label.
    """
    pixels, sizes = np.zeros(IGNORE_INDEX + 1, np.int64), Counter[tuple[int, int]]()
    some = select(split, count)
    samples = [(some, index) for index in range(len(some))]
    rest = [(split, index) for index in range(len(split))] if some is not split else []
    for number, (part, index) in enumerate([*samples, *rest]):
        if number >= len(samples) and pixels[:IGNORE_INDEX].any():
            break
        labels = part.labels(index)
        pixels += np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)
        sizes[labels.shape[0], labels.shape[1]] += 1
    if not pixels[:IGNORE_INDEX].any():
        raise DataError(f"no pixel of split {split.name!r} has a label: nothing to learn; see 'lpsnet data check'")
    return Survey(sizes, tuple(pixels[: split.label_space.num_classes].tolist()), sizes.total())


def auto_recipe(
    seen: Survey, num_images: int, *, minutes: float | None = None, pretrained: bool = False, is_rgb: bool = True
) -> Recipe:
    """The recipe for images like these.

    Args:
        seen: of the images to train on.
        num_images: how many there are.
        minutes: length of the training; None for a number of epochs that follows from the number of images.
        pretrained: whether the network starts with weights.
        is_rgb: whether they are of RGB, which corruptions are made for.
    """
    crop = crop_size(seen.usual_size)
    pixels = crop[0] * crop[1]
    batch_size = min(16 if pixels <= SMALL_CROP_PIXELS else 8, max(2, num_images))
    epochs = min(100.0, max(10.0, IMAGES_SEEN / num_images))
    return Recipe(
        name="auto",
        source="follows from the data",
        **({"minutes": minutes} if minutes else {"epochs": round(epochs, 1)}),
        batch_size=batch_size,
        optimiser="adamw",
        learning_rate=1e-3 if pretrained else 2e-3,
        weight_decay=0.01,
        decay_norm=False,
        schedule="cosine",
        warmup_iterations=20,
        form="plain",
        ema_decay=0.998,
        crop_size=crop,
        scale=(0.5, 2.0),
        loss="lovasz",
        class_weights="log" if seen.imbalance > IMBALANCE else "none",
        loss_stride=4 if pixels > SMALL_CROP_PIXELS else 1,
        corruption=CORRUPTION if is_rgb else 0.0,
        evaluate_every=1 if minutes else max(1, round(epochs / 8)),
        keep_best=True,
    )


def crop_size(size: tuple[int, int]) -> tuple[int, int]:
    """The image's own size, or for large images one of its shape with at most `MAX_CROP_PIXELS`, in steps of 32."""
    pixels = size[0] * size[1]
    if pixels <= MAX_CROP_PIXELS:
        return size
    factor = (MAX_CROP_PIXELS / pixels) ** 0.5
    height, width = (max(32, int(length * factor) // 32 * 32) for length in size)
    return height, width


def auto_reasons(recipe: Recipe, seen: Survey) -> list[str]:
    """What `auto_recipe` decided, and why, in words."""
    height, width = recipe.crop_size
    weighted = "weighted by class" if recipe.class_weights == "log" else "classes as they are"
    steps = f"training: crops of {height}x{width}, {recipe.batch_size} images a step, AdamW"
    steps += f", {recipe.corruption:.0%} of them under noise, blur, dusk, fog or JPEG" if recipe.corruption else ""
    ratio = f"the largest class has {seen.imbalance:.0f} times the smallest one's pixels"
    return [
        f"{steps}; the learning rate follows the clock, the weights with the best mIoU on val are delivered",
        f"loss: cross-entropy and Lovász-softmax, {weighted}; {ratio}",
    ]

"""Pre-training on classified images (Section 4.2: 'ImageNet pre-training', without details).

The network classifies by global average pooling over the concatenated last features and a linear layer
(design-notes, 'Pre-training'); the layer is dropped at the end. The result is a checkpoint for `train --init`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lpsnet.architecture import Architecture
from lpsnet.data.augment import RandomResizedCrop, centre_window
from lpsnet.data.dataset import file_contents, named_contents
from lpsnet.data.images import read_image
from lpsnet.data.labels import LabelSpace
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError, RunError
from lpsnet.inference.segmenter import opencv_threads
from lpsnet.io import expand_home
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import MIN_INPUT, Network, create_model
from lpsnet.record import Normalisation
from lpsnet.training.config import LoopSettings, find_recipe
from lpsnet.training.data import Score, Term, Weights
from lpsnet.training.loop import normalise, run_task
from lpsnet.training.run import Status
from lpsnet.training.run_folder import RunFolder

_LAYOUT = "ROOT/train/CLASS/*.jpg with ROOT/val/CLASS/*.jpg, or ROOT/CLASS/*.jpg"


class ClassifiedImage(NamedTuple):
    """An image, H x W x 3 uint8 RGB, and its class's number, an int64 array without dimensions."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ClassifiedImages:
    """Image files and the numbers of their classes; a file is read when it is asked for."""

    files: Sequence[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ClassifiedImage:
        """Read an image; DataError, naming the file, if that is not possible."""
        path, number = self.files[index]
        return ClassifiedImage(read_image(path), np.asarray(number, np.int64))


@dataclass(frozen=True)
class ImageFolder:
    """An opened folder.

    Attributes:
        classes: their names, in the order of their numbers.
        train, val: the images; val may be empty.
    """

    classes: tuple[str, ...]
    train: ClassifiedImages
    val: ClassifiedImages


def open_image_folder(root: str | Path, *, val_share: float, seed: int = 0) -> ImageFolder:
    """List the images of a folder; none is opened.

    Args:
        root: see the top of this file.
        val_share: where there is no folder val, this share of every class is set apart, drawn with `seed`.

    Raises:
        DataError: the folder is not laid out like that, has fewer than two classes, or a class is empty.
    """
    root = expand_home(root)
    if not root.is_dir():
        raise DataError(f"image folder {root} does not exist; it is laid out as {_LAYOUT}")
    base = root / "train" if (root / "train").is_dir() else root
    classes = tuple(sorted(folder.name for folder in base.iterdir() if _is_class(folder)))
    if len(classes) < 2:
        raise DataError(f"{base} holds {len(classes)} folders, one a class; at least 2 are needed, as {_LAYOUT}")
    val_root = root / "val" if base != root and (root / "val").is_dir() else None
    if val_root and (unknown := sorted({it.name for it in val_root.iterdir() if _is_class(it)} - set(classes))):
        raise DataError(f"{val_root} has a class that is not in train: {unknown[0]!r}; both need the same folders")
    train, val = [], []
    for number, name in enumerate(classes):
        files = find_images(base / name)
        apart: set[int] = set()
        if val_root is None:
            drawn = np.random.default_rng((seed, number)).permutation(len(files))[: round(val_share * len(files))]
            apart = set(drawn.tolist())
        elif (val_root / name).is_dir():
            val += [(path, number) for path in find_images(val_root / name)]
        if len(apart) == len(files):
            raise DataError(f"class {name!r} has no image to train on; put images there or remove its folder")
        train += [(path, number) for place, path in enumerate(files) if place not in apart]
        val += [(path, number) for place, path in enumerate(files) if place in apart]
    return ImageFolder(classes, ClassifiedImages(train), ClassifiedImages(val))


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


class PretrainingRecipe(LoopSettings):
    """How a network is trained to classify.

    Attributes:
        crop_size: (height, width) of every sample in pixels.
        area: bounds of the window that is cut out, as a share of the image.
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
            raise RunError(f"area is (smallest, largest) share of the image, above 0 and up to 1; got {self.area}")
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
        "source": "for some thousand images and a machine without GPU",
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


# The head that a network in a checkpoint must have: one class with logits of 0; a training that starts here skips it
NO_CLASSES = LabelSpace.from_names("pretraining", ("nothing yet",))


@dataclass(frozen=True)
class PretrainingRun:
    """What is pre-trained on what.

    Attributes:
        data: a folder, see `image_folder`.
        architecture: the network's triple.
        recipe: how it is trained.
        block, interaction: of the network.
    """

    data: str
    architecture: Architecture
    recipe: PretrainingRecipe
    block: str = "conv3x3"
    interaction: str = "bilateral_b"

    def settings(self) -> dict[str, Any]:
        """The run as JSON values."""
        return {
            "task": "classification",
            "data": self.data,
            "architecture": str(self.architecture),
            "block": self.block,
            "interaction": self.interaction,
            "recipe": self.recipe.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Accuracy:
    """How often the true class is the best scored one, or among the best five, in percent.

    `top5` is 100 where there are no more than five classes.
    """

    top1: float
    top5: float
    num_images: int

    def __str__(self) -> str:
        return f"{self.top1:.2f} % top-1, {self.top5:.2f} % top-5"


@dataclass(frozen=True)
class PretrainingResult:
    """What a finished run leaves: the checkpoint to start from, and its accuracy on val, if there is one."""

    model: Path
    accuracy: Accuracy | None


def pretrain(
    run: PretrainingRun,
    out: Path,
    *,
    resume: bool = False,
    on_progress: Callable[[Status], None] = lambda status: None,
    tensorboard: bool = True,
) -> PretrainingResult:
    """Pre-train a network and write it to `out`; arguments and errors as for `segmentation.train`."""
    score = run_task(
        lambda device: Classification.of(run, device),
        run.settings(),
        out,
        defaults=run.recipe.defaults(),
        resume=resume,
        on_progress=on_progress,
        tensorboard=tensorboard,
    )
    return PretrainingResult(RunFolder(out).model, None if score is None else score.details)


class Classifier(nn.Module):
    """A network that classifies images: global average pooling over its last features, then a linear layer.

    The network's own head takes no part. Forward: N x 3 x H x W, as for the network, to N x `num_classes` logits.
    """

    def __init__(self, network: Network, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Linear(network.head.in_channels, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        nn.init.zeros_(network.head.weight)
        network.head.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.network.features(images).mean((2, 3)))  # type: ignore[no-any-return]


@dataclass(frozen=True, eq=False)
class Classification:
    """A network learns to classify the images of a folder; see `Task`.

    Attributes:
        run: what is trained on what.
        device: of the training.
        folder: opened.
        model: the network with a classifier.
    """

    run: PretrainingRun
    device: torch.device
    folder: ImageFolder
    model: Classifier
    waits_for_device: ClassVar = False
    unlabelled: ClassVar = None
    class_mix: ClassVar = 0.0
    measure: ClassVar = "top1"

    @classmethod
    def of(cls, run: PretrainingRun, device: torch.device) -> Self:
        """Open the folder and build the network; DataError without images."""
        folder = open_image_folder(run.data, val_share=run.recipe.val_share, seed=run.recipe.seed)
        torch.manual_seed(run.recipe.seed)
        return cls(run, device, folder, _build(run, len(folder.classes)))

    @property
    def recipe(self) -> PretrainingRecipe:
        return self.run.recipe

    @property
    def images(self) -> ClassifiedImages:
        return self.folder.train

    @property
    def augmentation(self) -> RandomResizedCrop:
        return self.recipe.augmentation

    @property
    def normalisation(self) -> Normalisation:
        return Normalisation()

    @property
    def opening(self) -> str:
        num_train, num_val = len(self.folder.train), len(self.folder.val)
        return f"{len(self.folder.classes)} classes, {num_train} images to train on, {num_val} to score"

    @property
    def inputs(self) -> Mapping[str, str]:
        files = file_contents([path for path, _ in self.folder.train.files], "pictures")
        return {"classes": named_contents(self.folder.classes, "classes"), "train": files}

    def loss(self, outputs: Tensor, targets: Tensor, images: Tensor) -> list[Term]:
        total = F.cross_entropy(outputs.float(), targets, label_smoothing=self.recipe.label_smoothing, reduction="sum")
        return [(total, torch.full_like(total, len(targets)))]

    def evaluate(self, weights: Weights) -> Score[Accuracy] | None:
        """On the images set apart; None if there are none."""
        if not len(self.folder.val):
            return None
        accuracy = self._accuracy(self._with(weights))
        curves = {"top1": accuracy.top1, "top5": accuracy.top5}
        figures = {**curves, "num_images": accuracy.num_images, "crop_size": list(self.recipe.crop_size)}
        return Score(f"{accuracy} on val", figures, curves, accuracy)

    def save(self, weights: Weights, path: Path, facts: Mapping[str, Any], score: Score[Accuracy] | None) -> None:
        network = self._with(weights).network
        training = {**self.run.settings(), "num_classes": len(self.folder.classes), **facts}
        scores = {} if score is None else {"val": dict(score.figures)}
        record = default_record(network, label_space=NO_CLASSES)
        save_checkpoint(network, path, record=record.model_copy(update={"training": training, "scores": scores}))

    def _with(self, weights: Weights) -> Classifier:
        """A classifier with these weights, which it shares, in eval mode."""
        with torch.device("meta"):
            classifier = _build(self.run, len(self.folder.classes))
        classifier.load_state_dict(weights, assign=True)
        return classifier.eval()

    @torch.inference_mode()
    def _accuracy(self, classifier: Classifier) -> Accuracy:
        found = []
        for images, targets in self._val_batches():
            logits = classifier(normalise(images.to(self.device), self.normalisation)).cpu()
            best = logits.topk(min(5, logits.shape[1])).indices
            found.append(best == targets[:, None])
        hits = torch.cat(found)
        top1, top5 = (100 * float(hits[:, :count].any(1).double().mean()) for count in (1, 5))
        return Accuracy(top1, top5, len(hits))

    def _val_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        val, size = self.folder.val, self.recipe.batch_size

        def crop(index: int) -> tuple[Any, Any]:
            sample = val[index]
            return centre_window(sample.image, self.recipe.crop_size), sample.labels

        with opencv_threads(1), ThreadPoolExecutor(self.recipe.num_workers) as pool:
            for start in range(0, len(val), size):
                images, targets = zip(*pool.map(crop, range(start, min(start + size, len(val)))), strict=True)
                yield torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


def _build(run: PretrainingRun, num_image_classes: int) -> Classifier:
    network = create_model(
        run.architecture,
        num_classes=NO_CLASSES.num_classes,
        block=run.block,
        interaction=run.interaction,
        form=run.recipe.form,
    )
    return Classifier(network, num_image_classes)

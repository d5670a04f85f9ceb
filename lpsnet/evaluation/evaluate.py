"""Evaluation of any segmenter on any split: one confusion matrix, its scores, and the protocol they were measured with.

The protocol is that of Section 4.2: labels at the size of the label map, void pixels left out, one confusion matrix
over all images, no flip, no sliding window, no multi-scale. Whatever a segmenter adds (input size, engine, precision,
training, averaged views) is kept beside the figures.

Robustness, where it is asked for, is mIoU on the same images under every corruption of `lpsnet.data.corruptions`: an
image is read once, and segmented as it is and corrupted.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from lpsnet.data import corruptions
from lpsnet.data.formats.masks import OFFICIAL_IDS
from lpsnet.data.images import write_png
from lpsnet.data.labels import CITYSCAPES, IGNORE_INDEX, MAX_CLASSES, LabelSpace, check_same_classes
from lpsnet.errors import DataError, LpsnetError
from lpsnet.evaluation.metrics import BoundaryIoU, ConfusionMatrix, ImageCounts, Intervals, Labels, Matrix, scores
from lpsnet.io import inside, reason
from lpsnet.record import ModelRecord

if TYPE_CHECKING:
    from lpsnet.data.dataset import Sample, Split


Size = tuple[int, int]  # height, width
Image = NDArray[np.uint8]
Logits = NDArray[np.float32]

Segment = Callable[[Image], Labels]  # H x W x 3 uint8 RGB to H x W uint8 class ids

# Off unless a segmenter averages views (`windows.AveragingSegmenter`), as published figures often do
_PLAIN = {"flip": False, "multi_scale": False, "sliding_window": False}
_NO_PROTOCOL: Mapping[str, Any] = MappingProxyType({})
_LONG = (
    "confusion_matrix",
    "per_image",
    "iou_intervals",
    "colours",
    "command",
)  # of the JSON values; left out of a summary


def _check_percent(value: float) -> float:
    if not (math.isnan(value) or 0 <= value <= 100):
        raise ValueError("a percentage lies between 0 and 100")
    return value


# nan where there is nothing to divide by; null in JSON
Percent = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    AfterValidator(_check_percent),
    PlainSerializer(lambda value: None if math.isnan(value) else value),
]
CommandText = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Values(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ImageScore(_Values):
    """An image's name and its mIoU in percent; nan for an image without labels."""

    name: str
    miou: Percent


class CorruptionScore(_Values):
    """mIoU under a corruption of a strength, in percent.

    Attributes:
        corruption: its name in `CORRUPTIONS`, and `strength` that of the strength.
        value: the strength as a number, in the row's unit.
        miou: over all pixels of the images that were corrupted.
    """

    corruption: str
    strength: str
    value: float
    miou: Percent


class Robustness(_Values):
    """What corruptions cost, on some or all images of an evaluation.

    Attributes:
        num_images: that were corrupted, spread evenly over the split.
        seed: of noise, directions and places.
        clean_miou: of these images as they are, in percent.
        mean_miou: the mean over `scores`.
        scores: of every corruption at every strength, in the order of `CORRUPTIONS`.
    """

    num_images: int
    seed: int = 0
    clean_miou: Percent
    mean_miou: Percent
    scores: tuple[CorruptionScore, ...]


class Evaluation(_Values):
    """The scores of a segmenter on a split: also the JSON that `lpsnet evaluate --json` writes and reports read.

    All scores are in percent, nan where there is nothing to divide by, which JSON has as null; see `metrics.Scores`.

    Attributes:
        miou, pixel_accuracy, mean_accuracy, frequency_weighted_iou: over all pixels of all images.
        ious, accuracies: by class, in the order of the matrix.
        classes_missing: the classes neither in the truth nor predicted.
        num_images: in the split.
        colours: RGB bytes by class; empty in old files.
        confusion_matrix: K rows of K pixel counts; rows are the truth, columns the prediction.
        per_image: every image, in the split's order.
        protocol: how the scores were measured, as JSON values.
        miou_interval, iou_intervals: ends of 95 % intervals over draws of these images, see `metrics.ImageCounts`;
            None and empty where they were not counted: of fewer than ten images, and in files of old versions.
        boundary_miou, boundary_ious: see `metrics.BoundaryIoU`; nan and empty if they were not asked for.
        robustness: under corruptions; None if it was not asked for.
        command: that made it; may be empty.
    """

    miou: Percent
    pixel_accuracy: Percent
    mean_accuracy: Percent
    frequency_weighted_iou: Percent
    ious: dict[str, Percent] = Field(min_length=1, max_length=MAX_CLASSES)
    accuracies: dict[str, Percent]
    classes_missing: tuple[str, ...] = ()
    num_images: int
    colours: dict[str, tuple[Byte, Byte, Byte]] = Field(default_factory=dict)
    confusion_matrix: tuple[tuple[int, ...], ...]
    per_image: tuple[ImageScore, ...]
    protocol: dict[str, Any]
    miou_interval: tuple[Percent, Percent] | None = None
    iou_intervals: dict[str, tuple[Percent, Percent]] = Field(default_factory=dict)
    boundary_miou: Percent = math.nan
    boundary_ious: dict[str, Percent] = Field(default_factory=dict)
    robustness: Robustness | None = None
    command: CommandText = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = len(self.ious)
        if len(self.confusion_matrix) != count or any(len(row) != count for row in self.confusion_matrix):
            raise ValueError(f"the confusion matrix of {count} classes has {count} rows and columns")
        if any(not 0 <= pixels < 2**62 for row in self.confusion_matrix for pixels in row):
            raise ValueError("a confusion matrix holds numbers of pixels")
        if set(self.accuracies) != set(self.ious) or not set(self.boundary_ious) <= set(self.ious):
            raise ValueError("IoUs and accuracies are of the same classes")
        return self

    @classmethod
    def of(
        cls,
        space: LabelSpace,
        matrix: Matrix,
        per_image: Sequence[tuple[str, float]],
        protocol: Mapping[str, Any],
        boundary: BoundaryIoU | None = None,
        robustness: Robustness | None = None,
        intervals: Intervals | None = None,
    ) -> Self:
        """All scores that follow from a K x K confusion matrix.

        Args:
            space: the K classes.
            matrix: rows truth, columns prediction.
            per_image: names and mIoU in percent.
            protocol: JSON values.
            boundary: of the same images, if it was counted.
            robustness, intervals: likewise.
        """
        names, figures = space.names, asdict(scores(matrix))
        by_class = {key: dict(zip(names, figures.pop(key), strict=True)) for key in ("ious", "accuracies")}
        outlines: dict[str, Any] = {}
        if boundary is not None:
            ious = dict(zip(names, boundary.ious, strict=True))
            outlines = {"boundary_miou": boundary.miou, "boundary_ious": ious}
        if intervals is not None:
            outlines["miou_interval"] = intervals.miou
            outlines["iou_intervals"] = dict(zip(names, intervals.ious, strict=True))
        return cls(
            **figures,
            **by_class,
            classes_missing=tuple(name for name, iou in by_class["ious"].items() if math.isnan(iou)),
            num_images=len(per_image),
            colours=dict(zip(names, space.colours, strict=True)),
            confusion_matrix=matrix.tolist(),
            per_image=tuple(ImageScore(name=name, miou=miou) for name, miou in per_image),
            protocol=dict(protocol),
            robustness=robustness,
            **outlines,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in the order of the matrix."""
        return tuple(self.ious)

    @property
    def matrix(self) -> Matrix:
        """`confusion_matrix` as K x K int64."""
        return np.array(self.confusion_matrix, np.int64)

    def worst(self, count: int) -> list[ImageScore]:
        """The `count` images with the lowest mIoU, lowest first; those without labels are left out."""
        known = [image for image in self.per_image if not math.isnan(image.miou)]
        return sorted(known, key=lambda image: image.miou)[:count]

    def summary(self) -> dict[str, Any]:
        """`to_dict` without the confusion matrix, the single images, the colours and the command, for records."""
        return {key: value for key, value in self.to_dict().items() if key not in _LONG}

    def to_dict(self) -> dict[str, Any]:
        """JSON values; boundary IoU and robustness only if they were counted, the command only if there is one."""
        left_out = set() if self.boundary_ious else {"boundary_miou", "boundary_ious"}
        later = ("miou_interval", "iou_intervals", "robustness", "command")
        left_out |= {key for key in later if not getattr(self, key)}
        return self.model_dump(mode="json", exclude=left_out)


FEWEST_RESAMPLED = 10  # images that intervals are counted of; draws of fewer say little of others

# Images that are corrupted unless another number is asked for, and where time is short
ROBUSTNESS_IMAGES, FEWEST_ROBUSTNESS_IMAGES = 100, 8


@dataclass(frozen=True)
class RobustnessTest:
    """Which corruptions an evaluation counts too.

    Attributes:
        chosen: corruptions and strengths, see `corruptions.choose`; unless given, all at the middle strength.
        num_images: of the split, spread evenly; all if it has fewer.
        seed: of noise, directions and places.

    Raises:
        LpsnetError: there are no images.
    """

    chosen: corruptions.Chosen = field(default_factory=corruptions.choose)
    num_images: int = ROBUSTNESS_IMAGES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise LpsnetError(f"robustness is measured on 1 image or more; got {self.num_images}")

    @property
    def cells(self) -> list[tuple[str, str]]:
        """(corruption, strength) of every score."""
        return [(name, strength) for name in self.chosen.names for strength in self.chosen.strengths]

    def places(self, count: int) -> frozenset[int]:
        """Which of `count` images are corrupted."""
        return frozenset(number * count // self.num_images for number in range(self.num_images))

    def within(self, seconds: float, segment: Segment, image: Image) -> "RobustnessTest":
        """The same on as many images as these seconds allow, `FEWEST_ROBUSTNESS_IMAGES` or more.

        Args:
            seconds: for all of them.
            segment: the segmenter that will be evaluated.
            image: H x W x 3 uint8 RGB, which is timed.
        """
        began = time.perf_counter()
        for name, strength in self.cells:
            segment(corruptions.corrupt(name, image, strength))
        allowed = int(seconds / (time.perf_counter() - began))
        return replace(self, num_images=min(self.num_images, max(FEWEST_ROBUSTNESS_IMAGES, allowed)))


class _RobustnessCount:
    """The confusion matrices of a `RobustnessTest` while images come."""

    def __init__(self, test: RobustnessTest, num_images: int, num_classes: int) -> None:
        self._test, self._places = test, test.places(num_images)
        self._clean = ConfusionMatrix(num_classes)
        self._corrupted = {cell: ConfusionMatrix(num_classes) for cell in test.cells}

    def update(self, index: int, sample: "Sample", prediction: Labels, segment: Segment) -> None:
        """Count an image, if it is one that is corrupted; `prediction` is that of the image as it is."""
        if index not in self._places:
            return
        self._clean.update(sample.labels, prediction)
        for (name, strength), matrix in self._corrupted.items():
            image = corruptions.corrupt(name, sample.image, strength, index=index, seed=self._test.seed)
            matrix.update(sample.labels, segment(image))

    @property
    def result(self) -> Robustness:
        mious = [scores(matrix.matrix).miou for matrix in self._corrupted.values()]
        values = [corruptions.CORRUPTIONS[name].strength(strength) for name, strength in self._corrupted]
        return Robustness(
            num_images=len(self._places),
            seed=self._test.seed,
            clean_miou=scores(self._clean.matrix).miou,
            mean_miou=sum(mious) / len(mious),
            scores=tuple(
                CorruptionScore(corruption=name, strength=strength, value=value, miou=miou)
                for (name, strength), value, miou in zip(self._corrupted, values, mious, strict=True)
            ),
        )


def evaluate(
    segment: Segment,
    split: "Split",
    *,
    label_space: LabelSpace | None = None,
    protocol: Mapping[str, Any] = _NO_PROTOCOL,
    boundary: bool = False,
    robustness: RobustnessTest | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_prediction: "Callable[[Sample, Labels], None] | None" = None,
) -> Evaluation:
    """Segment every image of a split and score the label maps.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        split: images with labels.
        label_space: the classes of `segment`; they must be the split's. None skips the check.
        protocol: what the segmenter knows of how it was run, as JSON values, e.g. `Segmenter.protocol`; it is added
            to what is known here.
        boundary: count boundary IoU too, about 50 ms more for an image of 1024x2048.
        robustness: count mIoU under these corruptions too, each as costly as the image itself.
        on_progress: called with the number of images done and of all, after each.
        on_prediction: called with each sample and its label map, e.g. to write it to a file.

    Raises:
        DataError: the split is empty, the classes differ, or a label map does not fit its image's labels.
    """
    if len(split) == 0:
        raise DataError(f"split {split.name!r} holds no images, so there is nothing to evaluate")
    if label_space is not None:
        check_same_classes(label_space, split.label_space)
    counts = ConfusionMatrix(split.label_space.num_classes)
    outlines = BoundaryIoU(counts.num_classes) if boundary else None
    corrupted = _RobustnessCount(robustness, len(split), counts.num_classes) if robustness else None
    per_image, sizes, images = [], set(), ImageCounts()
    for done in range(1, len(split) + 1):
        sample = split[done - 1]
        prediction = segment(sample.image)
        own = _add(sample, prediction, counts, outlines)
        images.add(own)
        per_image.append((sample.name, scores(own).miou))
        sizes.add(sample.labels.shape)
        if corrupted is not None:
            corrupted.update(done - 1, sample, prediction, segment)
        if on_prediction is not None:
            on_prediction(sample, prediction)
        if on_progress is not None:
            on_progress(done, len(split))
    known = {
        "split": split.name,
        "num_images": len(split),
        "picture_sizes": sorted(map(list, sizes)),
        "num_classes": split.label_space.num_classes,
        "label_space": split.label_space.name,
    }
    measured = {**known, **_PLAIN, **protocol}
    robust = None if corrupted is None else corrupted.result
    drawn = images.resampled() if len(split) >= FEWEST_RESAMPLED else None
    return Evaluation.of(split.label_space, counts.matrix, per_image, measured, outlines, robust, drawn)


def _add(sample: "Sample", prediction: Labels, counts: ConfusionMatrix, outlines: BoundaryIoU | None) -> Matrix:
    """Count one image; returns its own confusion matrix."""
    try:
        own = counts.update(sample.labels, prediction)
    except DataError as error:
        raise DataError(f"{sample.name}: {error}") from None
    if outlines is not None:
        outlines.update(sample.labels, prediction)
    return own


_OF_THE_RUN = ("data", "split", "num_pictures", "iterations", "init", "teacher", "unlabelled")
_OF_THE_RECIPE = ("name", "seed", "epochs", "crop_size")


def training_protocol(record: ModelRecord) -> dict[str, Any]:
    """How the model was trained, as JSON values, as far as its record has it: data, split, images, weights to start
    from (`pretrained_from`, null for none), recipe and seed."""
    training = record.training
    recipe = training.get("recipe")
    recipe = recipe if isinstance(recipe, Mapping) else {}
    known: dict[str, Any] = {key: training[key] for key in _OF_THE_RUN if key in training}
    known |= {"recipe" if key == "name" else key: recipe[key] for key in _OF_THE_RECIPE if key in recipe}
    if "init" in known:
        known["pretrained_from"] = known.pop("init")
    return {"lpsnet_version": record.lpsnet_version, **known}


class PredictionFolder:
    """A folder of predicted label maps, `NAME.png` for each image, 8-bit grey.

    Args:
        folder: made where it is missing, with the folders that names have in them.
        label_space: the classes that are predicted.
        official_ids: write the official ids of Cityscapes in place of the class ids.

    Raises:
        DataError: official ids are wanted of classes that are not Cityscapes'.
    """

    def __init__(self, folder: Path, *, label_space: LabelSpace, official_ids: bool = False) -> None:
        if official_ids and label_space.names != CITYSCAPES.names:
            raise DataError(f"official ids are those of the Cityscapes classes; the model's are {label_space.name!r}")
        self.folder = folder
        self.num_written = 0
        self._table = official_id_table() if official_ids else None

    def write(self, name: str, labels: Labels) -> None:
        """Write the label map, H x W uint8 class ids, of the image called `name`.

        Raises:
            DataError: the folder cannot be written to.
        """
        path = inside(self.folder, f"{name}.png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"cannot make the folder {path.parent}: {reason(error, path.parent)}") from None
        write_png(path, labels if self._table is None else self._table[labels])
        self.num_written += 1


def official_id_table() -> Labels:
    """256 uint8: the official Cityscapes id of every train id, 0 ('unlabeled') for what is none."""
    table = np.zeros(IGNORE_INDEX + 1, np.uint8)
    for official, train_id in OFFICIAL_IDS.values():
        if train_id != IGNORE_INDEX:
            table[train_id] = official
    return table

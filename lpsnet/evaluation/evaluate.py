"""Evaluation of any segmenter on any split: one confusion matrix, its scores, and the protocol they were measured with.

The protocol is that of Section 4.2: labels at the size of the label map, void pixels left out, one confusion matrix
over all images, no flip, no sliding window, no multi-scale. Whatever a segmenter adds (input size, engine, precision,
training, averaged views) is kept beside the figures.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.formats.cityscapes import OFFICIAL_IDS
from lpsnet.data.images import write_png
from lpsnet.data.labels import CITYSCAPES, IGNORE_INDEX, LabelSpace, check_same_classes
from lpsnet.errors import DataError
from lpsnet.evaluation.metrics import BoundaryIoU, ConfusionMatrix, Labels, Matrix, Scores, scores
from lpsnet.io import inside
from lpsnet.record import ModelRecord

if TYPE_CHECKING:
    from lpsnet.data.dataset import Sample, Split


Image = NDArray[np.uint8]
Segment = Callable[[Image], Labels]  # H x W x 3 uint8 RGB to H x W uint8 class ids

# Off unless a segmenter averages views (`tta.py`), as published figures often do
_PLAIN = {"flip": False, "multi_scale": False, "sliding_window": False}
_NO_PROTOCOL: Mapping[str, Any] = MappingProxyType({})
_LONG = ("confusion_matrix", "per_image", "colours")  # of the JSON values; left out of a summary


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a segmenter on a split.

    Attributes:
        label_space: the classes, in the order of the matrix.
        matrix: K x K int64 pixel counts; rows are the truth, columns the prediction.
        scores: figures of the matrix, in percent.
        per_image: (name, mIoU in percent) of every image in the split's order; nan for an image without labels.
        boundary_ious: boundary IoU a class in percent, see `metrics.BoundaryIoU`; None if it was not asked for.
        boundary_miou: their mean.
        protocol: how the figures were got, as JSON values.
    """

    label_space: LabelSpace
    matrix: Matrix
    scores: Scores
    per_image: tuple[tuple[str, float], ...]
    protocol: Mapping[str, Any]
    boundary_ious: tuple[float, ...] | None = None
    boundary_miou: float | None = None

    @property
    def miou(self) -> float:
        """Mean intersection over union in percent."""
        return self.scores.miou

    @property
    def num_images(self) -> int:
        """The number of images in the split."""
        return len(self.per_image)

    def worst(self, count: int) -> list[tuple[str, float]]:
        """Names and mIoU in percent of the `count` images with the lowest mIoU, lowest first."""
        known = [entry for entry in self.per_image if not math.isnan(entry[1])]
        return sorted(known, key=lambda entry: entry[1])[:count]

    def summary(self) -> dict[str, Any]:
        """`to_dict` without the confusion matrix, the single images and the colours, for logs and records."""
        return {key: value for key, value in self.to_dict().items() if key not in _LONG}

    def to_dict(self) -> dict[str, Any]:
        """JSON values; figures are percent, and null where there is nothing to divide by."""
        names, figures = self.label_space.names, self.scores
        means = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
        result = {
            **{name: _known(getattr(figures, name)) for name in means},
            "ious": _by_name(names, figures.ious),
            "accuracies": _by_name(names, figures.accuracies),
            "classes_missing": [name for name, iou in zip(names, figures.ious, strict=True) if math.isnan(iou)],
            "num_images": self.num_images,
            "colours": dict(zip(names, map(list, self.label_space.colours), strict=True)),
            "confusion_matrix": self.matrix.tolist(),
            "per_image": [{"name": name, "miou": _known(miou)} for name, miou in self.per_image],
            "protocol": dict(self.protocol),
        }
        if self.boundary_ious is not None and self.boundary_miou is not None:
            result["boundary_miou"] = _known(self.boundary_miou)
            result["boundary_ious"] = _by_name(names, self.boundary_ious)
        return result


def evaluate(
    segment: Segment,
    split: "Split",
    *,
    label_space: LabelSpace | None = None,
    protocol: Mapping[str, Any] = _NO_PROTOCOL,
    boundary: bool = False,
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
    per_image, sizes = [], set()
    for done in range(1, len(split) + 1):
        sample = split[done - 1]
        prediction = segment(sample.image)
        per_image.append((sample.name, _add(sample, prediction, counts, outlines)))
        sizes.add(sample.labels.shape)
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
    return Evaluation(
        label_space=split.label_space,
        matrix=counts.matrix,
        scores=scores(counts.matrix),
        per_image=tuple(per_image),
        protocol={**known, **_PLAIN, **protocol},
        boundary_ious=outlines.ious if outlines else None,
        boundary_miou=outlines.miou if outlines else None,
    )


def _add(sample: "Sample", prediction: Labels, counts: ConfusionMatrix, outlines: BoundaryIoU | None) -> float:
    """Count one image; returns its mIoU in percent."""
    try:
        own = counts.update(sample.labels, prediction)
    except DataError as error:
        raise DataError(f"{sample.name}: {error}") from None
    if outlines is not None:
        outlines.update(sample.labels, prediction)
    return scores(own).miou


def _by_name(names: tuple[str, ...], values: tuple[float, ...]) -> dict[str, float | None]:
    return {name: _known(value) for name, value in zip(names, values, strict=True)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


_OF_THE_RUN = ("data", "split", "num_pictures", "iterations", "init")
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
            raise DataError(f"cannot make the folder {path.parent}: {error.strerror or error}") from None
        write_png(path, labels if self._table is None else self._table[labels])
        self.num_written += 1


def official_id_table() -> Labels:
    """256 uint8: the official Cityscapes id of every train id, 0 ('unlabeled') for what is none."""
    table = np.zeros(IGNORE_INDEX + 1, np.uint8)
    for official, train_id in OFFICIAL_IDS.values():
        if train_id != IGNORE_INDEX:
            table[train_id] = official
    return table

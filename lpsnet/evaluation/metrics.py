"""Scores of label maps: one confusion matrix over all pixels of all images, and every figure derived from it.

As in Section 4.2 of the paper: void pixels are left out, and the mean intersection over union (mIoU) is that of the
whole set of images, not the mean over images. Scores are in percent. Boundary IoU: see `BoundaryIoU`.
"""

import math
from dataclasses import dataclass
from typing import Final, Self, final

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import IGNORE_INDEX, MAX_CLASSES
from lpsnet.errors import DataError

Labels = NDArray[np.uint8]
Matrix = NDArray[np.int64]


def confusion_matrix(truth: Labels, prediction: Labels, *, num_classes: int) -> Matrix:
    """Count the pixels of one image by true class (row) and predicted class (column).

    Args:
        truth: H x W uint8 class ids, `IGNORE_INDEX` where there is no label; those pixels are not counted.
        prediction: H x W uint8 class ids, a class for every pixel.
        num_classes: K, 1 to 255.

    Returns:
        K x K int64.

    Raises:
        DataError: the two differ in size, are not two-dimensional uint8, or hold ids that are no class.
    """
    check_pair(truth, prediction, num_classes=num_classes)
    # 255 * 255 + 254 fits 16 bits, so the ignored pixels can go to a row of their own, and no masking is needed
    index = truth.astype(np.uint16)
    index *= np.uint16(num_classes)
    index += prediction
    counts = np.bincount(index.ravel(), minlength=(IGNORE_INDEX + 1) * num_classes).reshape(-1, num_classes)
    check_truth_ids(counts.sum(axis=1), num_classes=num_classes)
    return counts[:num_classes].astype(np.int64, copy=False)


def check_pair(truth: Labels, prediction: Labels, *, num_classes: int) -> None:
    """DataError unless both are H x W uint8 of one size and every predicted id is a class."""
    for kind, labels in (("labels", truth), ("prediction", prediction)):
        if labels.ndim != 2 or labels.dtype != np.uint8:
            raise DataError(f"{kind} must be H x W uint8; got {labels.dtype} of shape {labels.shape}")
    if truth.shape != prediction.shape:
        raise DataError(f"labels are {_size(truth)} pixels but the prediction is {_size(prediction)}; they must agree")
    if prediction.size and prediction.max() >= num_classes:
        raise DataError(f"prediction holds class id {prediction.max()}; ids are 0 to {num_classes - 1}")


def check_truth_ids(num_pixels: Matrix, *, num_classes: int) -> None:
    """DataError if a label map with this many pixels of each of 256 ids has one that is neither class nor ignored."""
    strange = np.flatnonzero(num_pixels[num_classes:IGNORE_INDEX]) + num_classes
    if strange.size:
        ids = ", ".join(map(str, strange[:8]))
        raise DataError(f"labels hold id {ids}; ids are 0 to {num_classes - 1}, and {IGNORE_INDEX} for no label")


@final
class ConfusionMatrix:
    """Adds up the confusion matrices of many images; rows are the truth, columns the prediction."""

    def __init__(self, num_classes: int) -> None:
        if not 1 <= num_classes <= MAX_CLASSES:
            raise DataError(f"a confusion matrix has 1 to {MAX_CLASSES} classes; got {num_classes}")
        self.num_classes: Final = num_classes
        self._matrix = np.zeros((num_classes, num_classes), np.int64)

    @property
    def matrix(self) -> Matrix:
        """A copy of the counts so far: K x K int64."""
        return self._matrix.copy()

    def update(self, truth: Labels, prediction: Labels) -> Matrix:
        """Add one image, see `confusion_matrix`; returns that image's own matrix."""
        added = confusion_matrix(truth, prediction, num_classes=self.num_classes)
        self._matrix += added
        return added

    def __iadd__(self, other: "ConfusionMatrix") -> Self:
        """Add the counts of another, e.g. of another process."""
        if other.num_classes != self.num_classes:
            raise DataError(f"cannot add counts of {other.num_classes} classes to counts of {self.num_classes}")
        self._matrix += other._matrix
        return self

    def __add__(self, other: "ConfusionMatrix") -> "ConfusionMatrix":
        total = ConfusionMatrix(self.num_classes)
        total += self
        total += other
        return total


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one confusion matrix, in percent; nan where there is nothing to divide by.

    Attributes:
        miou: mean of `ious`, classes with nan left out.
        ious: intersection over union a class; nan for a class neither in the truth nor predicted.
        accuracies: share of a class's true pixels that were found; nan for a class that is not in the truth.
        pixel_accuracy: share of all pixels with the right class.
        mean_accuracy: mean of `accuracies`, classes with nan left out.
        frequency_weighted_iou: mean of `ious` weighted by the classes' share of the true pixels.
    """

    miou: float
    ious: tuple[float, ...]
    accuracies: tuple[float, ...]
    pixel_accuracy: float
    mean_accuracy: float
    frequency_weighted_iou: float


def scores(matrix: Matrix) -> Scores:
    """Every figure of a K x K confusion matrix (rows truth, columns prediction)."""
    right = matrix.diagonal()
    true = matrix.sum(axis=1)
    union = true + matrix.sum(axis=0) - right
    ious = percent(right, union)
    accuracies = percent(right, true)
    return Scores(
        miou=known_mean(ious),
        ious=tuple(ious.tolist()),
        accuracies=tuple(accuracies.tolist()),
        pixel_accuracy=float(percent(right.sum(), true.sum())),
        mean_accuracy=known_mean(accuracies),
        # a class without true pixels has the weight 0; its nan must not spread
        frequency_weighted_iou=float(percent((true * np.nan_to_num(ious / 100)).sum(), true.sum())),
    )


def percent(part: NDArray[np.generic] | np.generic, whole: NDArray[np.generic] | np.generic) -> NDArray[np.float64]:
    """100 part / whole, element by element; nan where `whole` is 0."""
    part, divisor = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    share = np.full(divisor.shape, np.nan)
    np.divide(part, divisor, out=share, where=divisor > 0)
    return 100 * share


def known_mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not nan; nan if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


REPEATS, LEVEL = 1000, 0.95  # of `resampled`
_CHUNK = 1 << 22  # draws at a time, to bound the memory


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of scores over draws of the same images, in percent: (lower, upper) end; nan as the score is.

    Attributes:
        miou: of the mean IoU.
        ious: of every class.
    """

    miou: tuple[float, float]
    ious: tuple[tuple[float, float], ...]


class ImageCounts:
    """What IoUs are made of, image by image: a class's pixels in the truth, in the prediction and in both."""

    def __init__(self) -> None:
        self._counts: list[NDArray[np.int64]] = []

    def add(self, matrix: Matrix) -> None:
        """One image's own K x K confusion matrix."""
        self._counts.append(np.stack([matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)]))

    def resampled(self, *, repeats: int = REPEATS, level: float = LEVEL, seed: int = 0) -> Intervals:
        """Percentile intervals of the bootstrap over images (Efron 1979): images are drawn again, with repetition.

        They tell how much hangs on which images were at hand, not what another training would give. Images of one film
        are alike, and intervals from them are too narrow.
        """
        counts = np.stack(self._counts).astype(np.float64)
        num_images, _, num_classes = counts.shape
        rng, flat = np.random.default_rng(seed), counts.reshape(num_images, -1)
        rows = max(1, _CHUNK // num_images)
        sums = [
            rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=min(rows, repeats - start)) @ flat
            for start in range(0, repeats, rows)
        ]
        both, truth, predicted = np.concatenate(sums).reshape(repeats, 3, num_classes).swapaxes(0, 1)
        ious = percent(both, truth + predicted - both)
        mious = np.array([known_mean(row) for row in ious])
        return Intervals(_ends(mious, level), tuple(_ends(column, level) for column in ious.T))


def _ends(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    known = values[~np.isnan(values)]
    if not known.size:
        return math.nan, math.nan
    low, high = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def _size(labels: Labels) -> str:
    return "x".join(map(str, labels.shape))


DILATION = 0.02  # of the diagonal; Cheng et al., Section 5

Mask = NDArray[np.bool_]


@final
class BoundaryIoU:
    """Adds up the pixels near outlines over many images.

    (Cheng et al., 'Boundary IoU: Improving Object-Centric Image Segmentation Evaluation', CVPR 2021.) Of a class's mask
    only the pixels within a distance d of its outline count, in label and prediction. d is that of the paper: 3x3
    erosion repeated d times (chessboard distance), d = 2 % of the image's diagonal; the image's border is an outline.
    Where the paper is silent: counts are summed over all images before dividing, as for mIoU; a void pixel is left out,
    and where a mask meets void there is no outline.

    Args:
        num_classes: K.
        dilation: the distance d as a share of the image's diagonal, greater than 0 and at most 1; at least one pixel.
    """

    def __init__(self, num_classes: int, *, dilation: float = DILATION) -> None:
        if not 0 < dilation <= 1:
            raise DataError(
                f"the width of a boundary is a share of the diagonal, above 0 and at most 1; got {dilation}"
            )
        self.num_classes: Final = num_classes
        self.dilation: Final = dilation
        self._intersection = np.zeros(num_classes, np.int64)
        self._union = np.zeros(num_classes, np.int64)

    def update(self, truth: Labels, prediction: Labels) -> None:
        """Add one image: H x W uint8 each, as for `confusion_matrix`; raises the same DataError."""
        check_pair(truth, prediction, num_classes=self.num_classes)
        check_truth_ids(np.bincount(truth.ravel(), minlength=IGNORE_INDEX + 1), num_classes=self.num_classes)
        prediction = np.where(truth == IGNORE_INDEX, np.uint8(IGNORE_INDEX), prediction)
        distance = max(1, round(self.dilation * math.hypot(*truth.shape)))
        near_true, near_predicted = near_outline(truth, distance), near_outline(prediction, distance)
        both = self._classes(truth[near_true & near_predicted & (truth == prediction)])
        self._intersection += both
        self._union += self._classes(truth[near_true]) + self._classes(prediction[near_predicted]) - both

    @property
    def ious(self) -> tuple[float, ...]:
        """Boundary IoU of each class in percent; nan for a class neither in the truth nor predicted."""
        return tuple(percent(self._intersection, self._union).tolist())

    @property
    def miou(self) -> float:
        """The mean of `ious` in percent, classes with nan left out."""
        return known_mean(np.array(self.ious))

    def _classes(self, labels: Labels) -> Matrix:
        return np.bincount(labels.ravel(), minlength=self.num_classes)[: self.num_classes]


def near_outline(labels: Labels, distance: int) -> Mask:
    """Where a pixel of another class, or the image's border, is at most `distance` pixels away; H x W bool.

    A pixel is that near the outline of its own class's mask exactly if the square window around it holds two classes
    or reaches over the border: smallest and largest id in the window differ. So all classes need one erosion and one
    dilation together, not one each. Void pixels lie near no outline and make none.
    """
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    void = labels == IGNORE_INDEX
    smallest = cv2.erode(labels, window, borderType=cv2.BORDER_REPLICATE)  # the void is 255, above every class
    largest = cv2.dilate(np.where(void, np.uint8(0), labels), window, borderType=cv2.BORDER_REPLICATE)
    near = np.asarray(smallest != largest)
    near[:distance] = near[-distance:] = near[:, :distance] = near[:, -distance:] = True
    near[void] = False
    return near

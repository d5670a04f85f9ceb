"""Boundary IoU (Cheng et al., 'Boundary IoU: Improving Object-Centric Image Segmentation Evaluation', CVPR 2021).

Intersection over union of what lies near the outlines: of a class's mask only the pixels within a distance d of the
mask's outline count, in the truth and in the prediction alike. It tells apart networks whose large areas agree and
whose thin classes and edges do not. The distance is that of the paper: 3x3 erosion repeated d times (chessboard
distance), d = 2 % of the picture's diagonal, and the picture's border is an outline. Where the paper is silent:

- counts are added up over all pictures before dividing, as for mIoU;
- a void pixel is on no side: it is left out, and where a mask meets the void there is no outline.
"""

import math
from typing import Final, final

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError
from lpsnet.evaluation.metrics import Labels, Matrix, check_pair, check_truth_ids, known_mean, percent

DILATION = 0.02  # of the diagonal; Cheng et al., Section 5

Mask = NDArray[np.bool_]


@final
class BoundaryIoU:
    """Adds up the pixels near outlines over many pictures.

    Args:
        num_classes: K.
        dilation: the distance d as a share of the picture's diagonal, greater than 0 and at most 1; at least one pixel.
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
        """Add one picture: H x W uint8 each, as for `confusion_matrix`; raises the same DataError."""
        check_pair(truth, prediction, num_classes=self.num_classes)
        check_truth_ids(_count(truth), num_classes=self.num_classes)
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
        return _count(labels)[: self.num_classes]


def near_outline(labels: Labels, distance: int) -> Mask:
    """Where a pixel of another class, or the picture's border, is at most `distance` pixels away; H x W bool.

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


def _count(labels: Labels) -> Matrix:
    return np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1).astype(np.int64, copy=False)

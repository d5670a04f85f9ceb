"""Boundary IoU against its definition: a mask of its own for every class, eroded by a loop over pixels."""

import math

import numpy as np
import pytest

from lpsnet.errors import DataError
from lpsnet.evaluation.metrics import BoundaryIoU, near_outline


def _blobs(seed: int, size: tuple[int, int], num_classes: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, num_classes, (5, 6), dtype=np.uint8)
    labels = coarse[np.arange(size[0])[:, None] * 5 // size[0], np.arange(size[1]) * 6 // size[1]]
    return np.roll(labels, rng.integers(0, 4, 2), axis=(0, 1))


def _band(labels: np.ndarray, number: int, distance: int) -> set[tuple[int, int]]:
    """Pixels of a class within `distance` (chessboard) of a labelled pixel of another class or of the outside."""
    band = set()
    height, width = labels.shape
    for y, x in np.argwhere(labels == number):
        for v in range(y - distance, y + distance + 1):
            for u in range(x - distance, x + distance + 1):
                outside = not (0 <= v < height and 0 <= u < width)
                if outside or labels[v, u] not in (number, 255):
                    band.add((int(y), int(x)))
    return band


@pytest.mark.parametrize("with_void", [False, True])
@pytest.mark.parametrize("dilation", [0.02, 0.06, 0.2])
def test_ious_are_those_of_the_definition(with_void: bool, dilation: float) -> None:
    size, num_classes = (24, 31), 4
    distance = max(1, round(dilation * math.hypot(*size)))
    boundary = BoundaryIoU(num_classes, dilation=dilation)
    intersection, union = np.zeros(num_classes), np.zeros(num_classes)
    for seed in range(3):
        truth, prediction = _blobs(seed, size, num_classes), _blobs(seed, size, num_classes)
        prediction = np.roll(prediction, 1, axis=1)
        if with_void:
            truth[5:9, 3:20] = 255
            truth[12, 12] = 255
        boundary.update(truth, prediction)
        prediction[truth == 255] = 255
        for number in range(num_classes):
            true, predicted = _band(truth, number, distance), _band(prediction, number, distance)
            intersection[number] += len(true & predicted)
            union[number] += len(true | predicted)
    np.testing.assert_allclose(boundary.ious, 100 * intersection / union)
    assert boundary.miou == pytest.approx(np.mean(100 * intersection / union))


def test_a_shift_hurts_the_outline_more_than_the_area() -> None:
    truth = np.zeros((100, 100), np.uint8)
    truth[20:80, 20:80] = 1
    boundary = BoundaryIoU(2)
    boundary.update(truth, np.roll(truth, 2, axis=1))
    area_iou = 100 * (60 * 58) / (60 * 62)
    assert boundary.ious[1] < area_iou - 20


def test_the_same_labels_score_100_and_absent_classes_nothing() -> None:
    truth = _blobs(1, (20, 20), 3)
    boundary = BoundaryIoU(5)
    boundary.update(truth, truth)
    assert set(boundary.ious[:3]) == {100}
    assert all(math.isnan(iou) for iou in boundary.ious[3:])
    assert boundary.miou == 100


def test_one_class_is_near_its_outline_at_the_border_alone() -> None:
    near = near_outline(np.zeros((7, 9), np.uint8), 2)
    expected = np.ones((7, 9), bool)
    expected[2:-2, 2:-2] = False
    np.testing.assert_array_equal(near, expected)


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="share of the diagonal"):
        BoundaryIoU(2, dilation=0)
    with pytest.raises(DataError, match="labels hold id 7"):
        BoundaryIoU(2).update(np.full((2, 2), 7, np.uint8), np.zeros((2, 2), np.uint8))

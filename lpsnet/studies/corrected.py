"""Where one label map is right and another wrong: the regions that Figure 8 puts boxes around."""

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import IGNORE_INDEX

Labels = NDArray[np.uint8]  # H x W class ids, 255 for no label
Box = tuple[int, int, int, int]  # top, left, height, width in pixels

NUM_BOXES = 3
MIN_SHARE = 5e-4  # of the picture, below which a region is not shown
MARGIN = 2  # pixels around a box


def corrected_regions(before: Labels, after: Labels, truth: Labels) -> list[Box]:
    """Boxes around the largest connected regions where `after` is right and `before` wrong, largest first."""
    found = _regions(before, after, truth)
    large = [region for region in found if region[0] >= MIN_SHARE * truth.size]
    return [_widened(box, truth.shape) for _, box in large[:NUM_BOXES]]


def largest_gain(before: Labels, after: Labels, truth: Labels) -> int:
    """Pixels of the largest such region; 0 if there is none."""
    found = _regions(before, after, truth)
    return found[0][0] if found else 0


def accuracy(labels: Labels, truth: Labels) -> float:
    """Labelled pixels that are right, in percent; 0 where nothing is labelled."""
    known = truth != IGNORE_INDEX
    return 100 * float((labels == truth)[known].mean()) if known.any() else 0.0


def _regions(before: Labels, after: Labels, truth: Labels) -> list[tuple[int, Box]]:
    """(pixels, box) of all of them, largest first."""
    better = (after == truth) & (before != truth) & (truth != IGNORE_INDEX)
    count, _, stats, _ = cv2.connectedComponentsWithStats(better.astype(np.uint8), connectivity=8)
    boxes = [tuple(map(int, stats[number])) for number in range(1, count)]  # 0 is everything else
    regions = [(area, (top, left, height, width)) for left, top, width, height, area in boxes]
    return sorted(regions, key=lambda region: -region[0])


def _widened(box: Box, shape: tuple[int, ...]) -> Box:
    top, left, height, width = box
    first_row, first_column = max(0, top - MARGIN), max(0, left - MARGIN)
    end_row, end_column = min(shape[0], top + height + MARGIN), min(shape[1], left + width + MARGIN)
    return first_row, first_column, end_row - first_row, end_column - first_column

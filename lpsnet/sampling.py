"""Coordinates of bilinear resizing along one axis, in both corner conventions.

`align_corners` has PyTorch's meaning. True: the centres of the first and last pixels of source and target coincide, as
in the paper's network (Section 3.1). False: the outer edges of the first and last pixels coincide. Positions beyond the
first or last source pixel take that pixel's value.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def spacing(source: int, target: int, *, align_corners: bool) -> tuple[float, float]:
    """Distance between target pixels, and the position of the first, both in source pixels; not clipped.

    Args:
        source: pixels along the axis before resizing, at least 1.
        target: pixels after it, at least 1.
        align_corners: see the top of this file.
    """
    if align_corners:
        return ((source - 1) / (target - 1) if target > 1 else 0.0), 0.0
    step = source / target
    return step, step / 2 - 0.5


def cells(source: int, target: int, *, align_corners: bool) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The two source pixels next to each target pixel, and their weights; arguments as for `spacing`.

    Returns:
        The lower neighbour of every target pixel, 0 to max(source - 2, 0), and the weight w of the upper one, float32,
        0 to 1; the lower one has 1 - w. Both of length `target`.
    """
    step, first = spacing(source, target, align_corners=align_corners)
    return _cells(first + step * np.arange(target), source)


def interpolation_matrix(
    source: int, target: int, *, align_corners: bool, pixels: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Bilinear interpolation along one axis as a matrix, arguments as for `spacing`.

    Args:
        pixels: the target pixels, P numbers from 0 to target - 1; None for all.

    Returns:
        Weights, P x source float64, every row with at most two that are not 0 and the sum 1; and the lower neighbour of
        every pixel, as in `cells`.
    """
    step, _ = spacing(source, target, align_corners=align_corners)
    wanted = np.arange(target, dtype=np.float64) if pixels is None else pixels
    half = 0.0 if align_corners else 0.5
    # In PyTorch's order of operations, which may differ from that of `cells` in the last bit. Neither may change:
    # trained weights depend on this one, label maps on that one.
    places = (wanted + half) * step - half
    distances = np.abs(np.clip(places, 0, source - 1)[:, None] - np.arange(source))
    return np.maximum(1 - distances, 0), _cells(places, source)[0]


def _cells(places: NDArray[np.floating[Any]], source: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    places = np.clip(places, 0, source - 1)
    lower = np.minimum(places.astype(np.intp), max(source - 2, 0))
    return lower, (places - lower).astype(np.float32)

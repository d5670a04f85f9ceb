"""From class scores to the label of every pixel: bilinear upsampling, then the class with the largest score."""

import numpy as np
from numpy.typing import NDArray


def label_map(
    scores: NDArray[np.float32], size: tuple[int, int], *, align_corners: bool = True, num_threads: int | None = None
) -> NDArray[np.uint8]:
    """K x h x w float32 scores to H x W uint8 labels: the largest of the bilinearly resized scores."""
    rows = _weights(scores.shape[1], size[0], align_corners)
    columns = _weights(scores.shape[2], size[1], align_corners)
    wide = np.einsum("kyx,Xx->kyX", scores, columns, optimize=True)
    labels = np.empty(size, np.uint8)
    for y in range(size[0]):
        labels[y] = np.tensordot(rows[y], wide, axes=(0, 1)).argmax(axis=0)
    return labels


def _weights(length: int, target: int, align_corners: bool) -> NDArray[np.float32]:
    if align_corners:
        position = np.arange(target) * ((length - 1) / max(target - 1, 1))
    else:
        position = np.maximum((np.arange(target) + 0.5) * (length / target) - 0.5, 0)
    low = np.minimum(position.astype(np.intp), length - 1)
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros((target, length), np.float32)
    np.add.at(weights, (np.arange(target), low), 1 - (position - low))
    np.add.at(weights, (np.arange(target), high), position - low)
    return weights

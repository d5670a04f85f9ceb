"""How long the label map takes, beside torch's way: interpolate the scores to the picture's size, then argmax.

Not a figure of the paper, which leaves this step out of its latency. A user waits for it all the same.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.errors import LpsnetError, unknown_name
from lpsnet.inference.label_map import Logits, label_map

Labels = NDArray[np.uint8]
Kind = Literal["regions", "blobs", "noise"]

_BLOB_DEVIATION = 2.0  # of the Gaussian that smooths the blobs, in scores: about half the cells have a border in them


@dataclass(frozen=True, slots=True)
class Comparison:
    """Times of both ways on the same scores, measured in turn.

    Attributes:
        torch_ms, label_map_ms: one time a repeat, in order.
        num_different: pixels that differ; torch computes in float32 and errs at ties as well.
        num_pixels: pixels of the label map.
        torch_threads: threads both used; without its compiled loops `label_map` uses one.
    """

    torch_ms: tuple[float, ...]
    label_map_ms: tuple[float, ...]
    num_different: int
    num_pixels: int
    torch_threads: int

    @property
    def median_torch_ms(self) -> float:
        """Median time of interpolate and argmax."""
        return statistics.median(self.torch_ms)

    @property
    def median_label_map_ms(self) -> float:
        """Median time of `label_map`."""
        return statistics.median(self.label_map_ms)

    @property
    def ratio(self) -> float:
        """How many times as long torch takes, of the medians."""
        return self.median_torch_ms / self.median_label_map_ms


def compare(
    scores: Logits, size: tuple[int, int] = (1024, 2048), *, align_corners: bool = True, repeats: int = 9
) -> Comparison:
    """Time `label_map` and torch by turns (A B A B ...), after one round that is not counted.

    Args:
        scores: K x h x w float32.
        size: (H, W) of the label map.
        align_corners: the resize convention, as in `label_map`.
        repeats: rounds that are counted, at least 1.

    Raises:
        LpsnetError: no repeats, or scores or a size that `label_map` refuses.
    """
    if repeats < 1:
        raise LpsnetError(f"a comparison needs at least 1 repeat; got {repeats}")
    ours, theirs = [], []
    for _ in range(repeats + 1):
        labels, label_map_ms = _timed(
            lambda: label_map(scores, size, align_corners=align_corners, num_threads=torch.get_num_threads())
        )
        reference, torch_ms = _timed(lambda: _torch_label_map(scores, size, align_corners))
        ours.append(label_map_ms)
        theirs.append(torch_ms)
    num_different = int((labels != reference).sum())
    return Comparison(tuple(theirs[1:]), tuple(ours[1:]), num_different, labels.size, torch.get_num_threads())


def example_scores(
    kind: Kind, *, num_classes: int = 19, size: tuple[int, int] = (48, 96), seed: int = 0
) -> NDArray[np.float32]:
    """Made-up scores, K x h x w float32, the same for the same seed.

    `regions` are like a trained network's on a street: large regions, borders in one cell of five or six. `blobs` are
    smooth noise with borders in half of the cells. `noise` is white, the worst case: every cell has several classes.

    Raises:
        LpsnetError: no kind has that name.
    """
    if kind not in get_args(Kind):
        raise LpsnetError(unknown_name("kind of scores", kind, get_args(Kind)))
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((num_classes, *size), np.float32)
    if kind == "noise":
        return scores
    blobs = _smooth(scores, _BLOB_DEVIATION if kind == "blobs" else 4 * _BLOB_DEVIATION)
    blobs *= 3 / blobs.std()
    blobs += np.float32(0.1) * rng.standard_normal(blobs.shape, np.float32)
    return blobs


def _smooth(scores: Logits, deviation: float) -> Logits:
    return np.stack([cv2.GaussianBlur(plane, (0, 0), deviation) for plane in scores])


def _torch_label_map(scores: Logits, size: tuple[int, int], align_corners: bool) -> Labels:
    batch = torch.from_numpy(scores)[None]
    resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", align_corners=align_corners)
    labels: Labels = resized.argmax(1)[0].numpy()
    return labels


def _timed(function: Callable[[], Labels]) -> tuple[Labels, float]:
    start = time.perf_counter()
    labels = function()
    return labels, 1e3 * (time.perf_counter() - start)

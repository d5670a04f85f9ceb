"""Losses over logits and label maps: cross-entropy and online hard example mining (Section 4.2).

A loss comes as a sum and what it is to be divided by, so that several processes can divide by what all of them have
together; a batch without a labelled pixel then gives 0, never NaN.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.labels import IGNORE_INDEX


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a recipe asks of the loss.

    Attributes:
        kind: "cross_entropy" or "ohem".
        class_weights: one weight a class, float32, or None for equal weights.
        stride: scores are compared at the label's size divided by this.
        align_corners: of the upsampling of the scores; the network's convention.
        label_smoothing: share of the target spread evenly over the classes.
        ohem_threshold: pixels whose true class got less probability than this are hard.
        ohem_min_kept: at least this share of the labelled pixels is kept, the hardest.
    """

    kind: str = "cross_entropy"
    class_weights: Tensor | None = None
    stride: int = 1
    align_corners: bool = True
    label_smoothing: float = 0.0
    ohem_threshold: float = 0.7
    ohem_min_kept: float = 1 / 16

    def __call__(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the pixels that count, and the sum of their weights.

        Args:
            logits: N, K, h, w, any float type, at any size.
            labels: N, H, W integer class ids, `IGNORE_INDEX` where there is no label.

        Returns:
            Two scalars, float32. Without a labelled pixel both are 0 (and the gradient is 0).
        """
        labels = subsample(labels, self.stride).long()
        size = (labels.shape[1], labels.shape[2])
        scores = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=self.align_corners)
        if self.kind == "cross_entropy":
            total = self._cross_entropy(scores, labels, reduction="sum")
            return total, self._pixel_weights(labels).sum()
        losses = self._cross_entropy(scores, labels, reduction="none")
        hard = self._hard_pixels(losses.detach(), labels != IGNORE_INDEX)
        return losses[hard].sum(), self._pixel_weights(labels)[hard].sum()

    def _cross_entropy(self, scores: Tensor, labels: Tensor, *, reduction: str) -> Tensor:
        return F.cross_entropy(
            scores,
            labels,
            weight=self.class_weights,
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction=reduction,
        )

    def _pixel_weights(self, labels: Tensor) -> Tensor:
        labelled = labels != IGNORE_INDEX
        if self.class_weights is None:
            return labelled.float()
        return self.class_weights[labels.where(labelled, 0)] * labelled

    def _hard_pixels(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Labelled pixels whose loss exceeds -log(threshold), and the hardest ones up to the share to be kept."""
        candidates = losses[labelled]
        if candidates.numel() == 0:
            return labelled
        num_kept = max(1, math.ceil(self.ohem_min_kept * candidates.numel()))
        least_kept = candidates.kthvalue(candidates.numel() - num_kept + 1).values
        return labelled & (losses >= least_kept.clamp(max=-math.log(self.ohem_threshold)))


def subsample(labels: Tensor, stride: int) -> Tensor:
    """Label maps N, H, W at a `stride`-th of their size: the pixel nearest to each corner-aligned grid point."""
    if stride == 1:
        return labels
    for dim in (1, 2):
        length = labels.shape[dim]
        points = torch.linspace(0, length - 1, max(1, length // stride), device=labels.device)
        labels = labels.index_select(dim, points.round().long())
    return labels


def log_class_weights(pixel_counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Weights 1 / ln(1.02 + frequency), scaled to a mean of 1 over the pixels (ENet, Paszke et al. 2016, Section 5.2).

    Args:
        pixel_counts: K, labelled pixels of each class in the training split. A class that never occurs gets weight 0:
            it can take no part in the loss, and would otherwise only distort the scale of the others.
    """
    frequency = pixel_counts / max(1, pixel_counts.sum())
    weights = np.where(pixel_counts > 0, 1 / np.log(1.02 + frequency), 0.0)
    mean = float((weights * frequency).sum())
    return (weights / mean if mean else weights).astype(np.float32)

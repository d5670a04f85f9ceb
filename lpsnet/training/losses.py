"""Losses over logits and label maps: cross-entropy and online hard example mining (Section 4.2), and Lovász-softmax.

A loss comes as a sum and what it is to be divided by, so that several processes can divide by what all of them have
together; a batch without a labelled pixel then gives 0, never NaN.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.training.lovasz import lovasz_softmax
from lpsnet.training.upsampling import Upsampling, grid_points, pixel_losses, weighted_loss

MAX_SCORES_AT_ONCE = 1 << 28  # floats: 1 GiB, and as much again for the gradient


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a recipe asks of the loss.

    Attributes:
        kind: "cross_entropy", "ohem", or "lovasz": cross-entropy plus the Lovász-softmax loss (`lovasz.py`).
        class_weights: one weight a class, float32, or None for equal weights.
        stride: scores are compared at every pixel (1), or at every so many along rows and columns.
        align_corners: of the upsampling of the scores; the network's convention.
        label_smoothing: share of the target spread evenly over the classes. With it the upsampled scores are built,
            which takes several times as long.
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
        upsampling = Upsampling.between(
            (logits.shape[2], logits.shape[3]),
            (labels.shape[1], labels.shape[2]),
            stride=self.stride,
            align_corners=self.align_corners,
            dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32,
            device=logits.device,
        )
        labels = subsample(labels, self.stride)
        weights = self._pixel_weights(labels, logits.shape[1]).to(upsampling.rows.dtype)
        if self.label_smoothing or self.kind == "lovasz" or _is_for_all_at_once(logits, labels):
            return self._of_scores(upsampling(logits.to(weights.dtype)), labels, weights)
        classes = labels.masked_fill(labels >= logits.shape[1], 0)
        if self.kind == "ohem":
            losses = pixel_losses(logits, classes, upsampling)
            weights = weights * self._hard_pixels(losses, labels != IGNORE_INDEX)
        return weighted_loss(logits, classes, weights, upsampling), weights.sum()

    def _of_scores(self, scores: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same of scores at the labels' size, N, K, H, W, by torch."""
        losses = F.cross_entropy(
            scores,
            labels.long(),
            weight=None if self.class_weights is None else self.class_weights.to(scores.dtype),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        if self.kind == "ohem":
            plain = F.cross_entropy(scores.detach(), labels.long(), ignore_index=IGNORE_INDEX, reduction="none")
            hard = self._hard_pixels(plain, labels != IGNORE_INDEX)
            losses, weights = losses * hard, weights * hard
        total, weight = losses.sum(), weights.sum()
        if self.kind == "lovasz":
            total = total + lovasz_softmax(scores, labels) * weight
        return total, weight

    @property
    def waits_for_device(self) -> bool:
        """Whether the loss reads results back from a GPU, which a CUDA graph cannot."""
        return self.kind == "ohem"

    def _pixel_weights(self, labels: Tensor, num_classes: int) -> Tensor:
        """The weight of each pixel's class; 0 without a label, and NaN for what is no class, to be noticed."""
        table = torch.full((IGNORE_INDEX + 1,), torch.nan, device=labels.device)
        if self.class_weights is None:
            table[:num_classes].fill_(1)
        else:
            table[:num_classes].copy_(self.class_weights)
        table[IGNORE_INDEX:].fill_(0)
        return table.index_select(0, labels.reshape(-1).int()).view(labels.shape)

    def _hard_pixels(self, losses: Tensor, labelled: Tensor) -> Tensor:
        """Labelled pixels whose loss exceeds -log(threshold), and the hardest ones up to the share to be kept.

        Args:
            losses: -log of the true class's probability, whatever its weight: rare classes are not harder for it.
        """
        hard = labelled & (losses > -math.log(self.ohem_threshold))
        num_kept = max(1, math.ceil(self.ohem_min_kept * int(labelled.sum())))
        candidates = losses[labelled]
        if candidates.numel() == 0 or int(hard.sum()) >= num_kept:
            return hard
        least_kept = candidates.kthvalue(candidates.numel() - num_kept + 1).values
        return labelled & (losses >= least_kept)


def _is_for_all_at_once(logits: Tensor, labels: Tensor) -> bool:
    """Whether a GPU has the memory for the scores of a batch at the labels' size: it then is quicker than in bands."""
    return logits.device.type != "cpu" and logits.shape[1] * labels.numel() <= MAX_SCORES_AT_ONCE


def subsample(labels: Tensor, stride: int) -> Tensor:
    """Label maps N, H, W at a `stride`-th of their size: some of their pixels, see `grid_points`."""
    if stride == 1:
        return labels
    for dim in (1, 2):
        labels = labels.index_select(dim, _grid_points_on(labels.shape[dim], stride, labels.device))
    return labels


@functools.lru_cache(maxsize=64)
def _grid_points_on(length: int, stride: int, device: torch.device) -> Tensor:
    return grid_points(length, stride).to(device)


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

"""Losses against torch's own at full size, brute force for OHEM, and images without labels."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lpsnet.training.losses import Criterion, log_class_weights, subsample


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 4, 7, generator=generator)
    labels = torch.randint(0, 5, (2, 37, 53), generator=generator)
    labels[0, :9] = 255
    return logits, labels.to(torch.uint8)


def full_size(logits: torch.Tensor, labels: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    upsampled = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
    return F.cross_entropy(upsampled, labels.long(), ignore_index=255, weight=weight)


def test_cross_entropy_is_torchs_mean(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    total, weight = Criterion()(*pair)
    assert (total / weight).item() == pytest.approx(full_size(*pair).item(), rel=1e-6)


def test_class_weights_are_torchs(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    weights = torch.tensor([1.0, 2.0, 0.5, 0.0, 3.0])
    total, weight = Criterion(class_weights=weights)(*pair)
    assert (total / weight).item() == pytest.approx(full_size(*pair, weights).item(), rel=1e-6)


def test_stride_compares_on_a_grid_with_the_same_corners() -> None:
    labels = torch.arange(9 * 13).reshape(1, 9, 13)
    coarse = subsample(labels, 4)
    assert coarse.tolist() == [[[0, 6, 12], [104, 110, 116]]]


@pytest.mark.parametrize("kind", ["cross_entropy", "ohem"])
@pytest.mark.parametrize("stride", [1, 4])
def test_a_batch_without_labels_gives_zero_loss_and_zero_gradient(kind: str, stride: int) -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    total, weight = Criterion(kind=kind, stride=stride, class_weights=torch.ones(3))(logits, labels)
    total.backward()
    assert (total.item(), weight.item()) == (0, 0)
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


@pytest.mark.parametrize(("threshold", "share"), [(0.7, 0.05), (0.02, 0.3), (0.2, 0.01)])
def test_ohem_keeps_what_sorting_by_loss_keeps(
    pair: tuple[torch.Tensor, torch.Tensor], threshold: float, share: float
) -> None:
    logits, labels = pair
    upsampled = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
    losses = F.cross_entropy(upsampled, labels.long(), ignore_index=255, reduction="none")[labels != 255]
    ranked = sorted(losses.tolist(), reverse=True)
    hard = sum(loss > -math.log(threshold) for loss in ranked)
    kept = ranked[: max(hard, math.ceil(share * len(ranked)))]
    total, weight = Criterion(kind="ohem", ohem_threshold=threshold, ohem_min_kept=share)(logits, labels)
    assert weight == len(kept)
    assert total.item() == pytest.approx(sum(kept), rel=1e-5)


@pytest.mark.parametrize("kind", ["cross_entropy", "ohem"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("align_corners", [True, False])
def test_gradients_are_those_of_the_loss_written_out(
    pair: tuple[torch.Tensor, torch.Tensor], kind: str, smoothing: float, align_corners: bool
) -> None:
    logits, labels = pair[0].requires_grad_(), pair[1]
    weights = torch.tensor([1.0, 2.0, 0.5, 0.3, 3.0])
    upsampled = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=align_corners)
    losses = F.cross_entropy(
        upsampled, labels.long(), weight=weights, ignore_index=255, label_smoothing=smoothing, reduction="none"
    )
    if kind == "ohem":
        probabilities = upsampled.softmax(1).gather(1, labels.long().clamp(max=4)[:, None])[:, 0]
        losses = losses[(probabilities < 0.4) & (labels != 255)]
    total, _ = Criterion(
        kind=kind,
        class_weights=weights,
        align_corners=align_corners,
        label_smoothing=smoothing,
        ohem_threshold=0.4,
        ohem_min_kept=0.01,
    )(logits, labels)
    assert total.item() == pytest.approx(losses.sum().item(), rel=1e-5)
    (ours,), (theirs,) = torch.autograd.grad(total, logits), torch.autograd.grad(losses.sum(), logits)
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_ids_that_are_no_class_are_refused() -> None:
    labels = torch.tensor([[[0, 1], [7, 255]]], dtype=torch.uint8)
    total, _ = Criterion()(torch.zeros(1, 3, 2, 2), labels)
    assert total.isnan()


def test_log_weights_by_hand() -> None:
    weights = log_class_weights(np.array([900, 100, 0]))
    raw = [1 / math.log(1.02 + 0.9), 1 / math.log(1.02 + 0.1)]
    mean = 0.9 * raw[0] + 0.1 * raw[1]
    assert weights == pytest.approx([raw[0] / mean, raw[1] / mean, 0.0], rel=1e-6)
    assert log_class_weights(np.zeros(2, np.int64)) == pytest.approx([0, 0])

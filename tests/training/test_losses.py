"""Losses against torch's own at full size, brute force for OHEM, and images without labels."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lpsnet.training.losses import Criterion, dice_loss, log_class_weights, subsample


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


@pytest.mark.parametrize("kind", ["cross_entropy", "ohem", "lovasz", "dice"])
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


def test_dice_by_arithmetic() -> None:
    """Two classes of three occur, on four pixels of which one has no label."""
    probabilities = torch.tensor([[0.5, 0.25, 0.8, 0.1], [0.25, 0.5, 0.1, 0.1], [0.25, 0.25, 0.1, 0.8]]).double()
    logits = (probabilities.log() + torch.tensor([3.0, -1.0, 0.0, 7.0])).reshape(1, 3, 2, 2).requires_grad_()
    labels = torch.tensor([0, 1, 0, 255], dtype=torch.uint8).reshape(1, 2, 2)
    first = 1 - 2 * (0.5 + 0.8) / ((0.5 + 0.25 + 0.8) + 2)
    second = 1 - 2 * 0.5 / ((0.25 + 0.5 + 0.1) + 1)
    assert dice_loss(logits, labels).item() == pytest.approx((first + second) / 2)
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, labels), logits)


def test_dice_lies_in_its_bounds_for_extreme_logits() -> None:
    labels = torch.tensor([[[0, 1], [2, 255]]])
    right = 1e4 * F.one_hot(labels.clamp(max=2), 3).permute(0, 3, 1, 2).float()
    assert dice_loss(right, labels).item() == pytest.approx(0, abs=1e-6)
    wrong = right.roll(1, dims=1).requires_grad_()
    loss = dice_loss(wrong, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1)
    assert wrong.grad is not None
    assert torch.isfinite(wrong.grad).all()


@pytest.mark.parametrize("stride", [1, 4])
def test_the_criterion_adds_dice_to_the_mean_of_the_cross_entropy(
    pair: tuple[torch.Tensor, torch.Tensor], stride: int
) -> None:
    logits, labels = pair
    weights = torch.tensor([1.0, 2.0, 0.5, 0.1, 3.0])
    plain, weight = Criterion(stride=stride, class_weights=weights)(logits, labels)
    total, same = Criterion(kind="dice", stride=stride, class_weights=weights)(logits, labels)
    whole = F.interpolate(logits, size=labels.shape[1:], mode="bilinear", align_corners=True)
    expected = plain / weight + dice_loss(
        subsample(whole.flatten(0, 1), stride).unflatten(0, (2, 5)), subsample(labels, stride)
    )
    assert same.item() == pytest.approx(weight.item(), rel=1e-6)
    assert (total / same).item() == pytest.approx(expected.item(), rel=1e-5)

"""The loss in bands against torch's own at full size: values, gradients, and what it must never build."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import lpsnet.training.losses as upsampling
from lpsnet.training.losses import Upsampling, grid_points, pixel_losses, weighted_loss

SIZES = [((4, 7), (37, 53)), ((3, 5), (3, 5)), ((9, 8), (5, 3)), ((1, 1), (6, 7)), ((1, 4), (1, 9)), ((5, 2), (40, 1))]


@pytest.fixture(params=[1 << 17, 64])
def part(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Bands of a whole image, and of single rows."""
    monkeypatch.setattr(upsampling, "_PART", request.param)
    return int(request.param)


def example(
    source: tuple[int, int], target: tuple[int, int], *, classes: int = 5, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(2, classes, *source, generator=generator, dtype=torch.float64) * 4).to(dtype)
    labels = torch.randint(0, classes, (2, *target), generator=generator)
    weights = torch.rand(2, *target, generator=generator, dtype=torch.float64)
    weights[0, : target[0] // 3] = 0
    return logits.requires_grad_(), labels, weights


def reference(logits: Tensor, labels: Tensor, *, align_corners: bool) -> Tensor:
    """Losses of all pixels, by torch in float64."""
    upsampled = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(upsampled, labels, reduction="none")


def full(logits: Tensor, labels: Tensor, *, align_corners: bool, stride: int = 1, like: Tensor) -> Upsampling:
    source, target = (logits.shape[2], logits.shape[3]), (labels.shape[1], labels.shape[2])
    return Upsampling.between(
        source, target, stride=stride, align_corners=align_corners, dtype=like.dtype, device=like.device
    )


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_the_matrices_are_torchs_interpolation(
    source: tuple[int, int], target: tuple[int, int], align_corners: bool
) -> None:
    logits, labels, _ = example(source, target)
    ours = full(logits, labels, align_corners=align_corners, like=logits)(logits)
    theirs = F.interpolate(logits, size=target, mode="bilinear", align_corners=align_corners)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), SIZES)
def test_value_and_gradient_are_torchs(
    part: int, source: tuple[int, int], target: tuple[int, int], align_corners: bool
) -> None:
    logits, labels, weights = example(source, target)
    steps = full(logits, labels, align_corners=align_corners, like=logits)
    ours = weighted_loss(logits, labels, weights, steps)
    theirs = (reference(logits, labels, align_corners=align_corners) * weights).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    (our_gradient,) = torch.autograd.grad(3 * ours, logits)
    (their_gradient,) = torch.autograd.grad(3 * theirs, logits)
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-10, atol=1e-12)
    assert torch.allclose(
        pixel_losses(logits, labels, steps), reference(logits, labels, align_corners=align_corners), atol=1e-10
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_is_exact_to_1e_5(dtype: torch.dtype) -> None:
    logits, labels, weights = example((17, 23), (150, 201), classes=11, dtype=dtype)
    logits = logits.detach().to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):  # of no effect here
        ours = weighted_loss(
            logits, labels, weights.float(), full(logits, labels, align_corners=True, like=weights.float())
        )
    assert ours.dtype == torch.float32
    exact = logits.detach().double().requires_grad_()
    theirs = (reference(exact, labels, align_corners=True) * weights).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (gradient,), (exact_gradient,) = torch.autograd.grad(ours, logits), torch.autograd.grad(theirs, exact)
    assert gradient.dtype == dtype
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    rounding = 1e-5 if dtype == torch.float32 else 1e-2  # the gradient is handed on in the logits' type
    assert (gradient - exact_gradient).norm() < rounding * exact_gradient.norm()


def test_gradcheck() -> None:
    logits, labels, weights = example((3, 2), (5, 4), classes=3)
    steps = full(logits, labels, align_corners=True, like=logits)
    assert torch.autograd.gradcheck(lambda x: weighted_loss(x, labels, weights, steps), (logits,))


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_stride_picks_pixels_of_the_full_size(align_corners: bool) -> None:
    logits, labels, _ = example((4, 7), (37, 53))
    rows, columns = (grid_points(length, 4) for length in (37, 53))
    steps = full(logits, labels, align_corners=align_corners, stride=4, like=logits)
    ours = pixel_losses(logits, labels[:, rows][:, :, columns], steps)
    theirs = reference(logits, labels, align_corners=align_corners)[:, rows][:, :, columns]
    assert (len(rows), len(columns)) == (9, 13)
    assert torch.allclose(ours, theirs, atol=1e-10)


def test_logits_far_apart_neither_overflow_nor_vanish() -> None:
    logits, labels, weights = example((4, 7), (37, 53), dtype=torch.float32)
    logits = (logits.detach() * 200 + 1e4).requires_grad_()
    ours = weighted_loss(logits, labels, weights.float(), full(logits, labels, align_corners=True, like=logits))
    theirs = (reference(logits, labels, align_corners=True) * weights).sum()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(ours, logits)
    assert torch.isfinite(gradient).all()


def test_threads_change_no_bit_and_stay_as_they_were() -> None:
    logits, labels, weights = example((4, 7), (37, 53), dtype=torch.float32)
    steps = full(logits, labels, align_corners=True, like=logits)
    before = torch.get_num_threads()
    gradients = []
    try:
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            total = weighted_loss(logits, labels, weights.float(), steps)
            gradients.append(torch.autograd.grad(total, logits)[0])
            seen: list[int] = []
            thread = threading.Thread(target=lambda seen=seen: seen.append(torch.get_num_threads()))
            thread.start()
            thread.join()
            assert (torch.get_num_threads(), seen) == (num_threads, [num_threads])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*gradients)


class _Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation gave."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_full_size_logits_are_never_built() -> None:
    logits, labels, weights = example((12, 16), (192, 256), classes=8, dtype=torch.float32)
    steps = full(logits, labels, align_corners=True, like=logits)
    with _Largest() as seen:
        weighted_loss(logits, labels, weights.float(), steps).backward()
    assert 0 < seen.elements <= 1 << 17 < 8 * 192 * 256 < 2 * 8 * 192 * 256

"""Lovász-softmax against the definition: the Jaccard loss of growing sets of errors, written out."""

import numpy as np
import pytest
import torch

from lpsnet.training.losses import Criterion, lovasz_softmax


def jaccard_loss(mistakes: set[int], members: set[int]) -> float:
    """1 - |members and right| / |members or wrong|, of the set of pixels that are wrong about a class."""
    return 1 - len(members - mistakes) / len(members | mistakes) if members | mistakes else 0.0


def written_out(logits: np.ndarray, labels: np.ndarray) -> float:
    """Sum over sorted errors of error x (loss of the first i mistakes - loss of the first i - 1)."""
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pixels = [(n, y, x) for n, y, x in np.ndindex(labels.shape) if labels[n, y, x] != 255]
    losses = []
    for c in range(logits.shape[1]):
        members = {i for i, p in enumerate(pixels) if labels[p] == c}
        if not members:
            continue
        errors = [abs((labels[n, y, x] == c) - probabilities[n, c, y, x]) for n, y, x in pixels]
        order = np.argsort(errors)[::-1]
        total = 0.0
        for i, pixel in enumerate(order):
            step = jaccard_loss(set(order[: i + 1]), members) - jaccard_loss(set(order[:i]), members)
            total += errors[pixel] * step
        losses.append(total)
    return float(np.mean(losses)) if losses else 0.0


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 2 * torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 3, 5), generator=generator)  # class 3 never occurs
    labels[1, 0] = 255
    return logits, labels


def test_value_is_the_definitions(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    assert lovasz_softmax(logits, labels).item() == pytest.approx(written_out(logits.numpy(), labels.numpy()))


def test_gradient_is_that_of_finite_differences(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x, labels), logits.requires_grad_())


def test_bounds(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, labels = batch
    right = 50.0 * torch.nn.functional.one_hot(labels.clamp(max=3), 4).permute(0, 3, 1, 2).double()
    assert lovasz_softmax(right, labels).item() == pytest.approx(0, abs=1e-9)
    assert lovasz_softmax(-right, labels).item() == pytest.approx(1, abs=0.4)
    nothing = torch.full_like(labels, 255)
    logits = torch.zeros(2, 4, 3, 5, requires_grad=True)
    lovasz_softmax(logits, nothing).backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() == 0


def test_the_criterion_adds_it_to_the_mean_of_the_cross_entropy(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, labels = batch
    (plain, plain_weight), (both, weight) = Criterion()(logits, labels), Criterion(kind="lovasz")(logits, labels)
    assert weight == plain_weight
    expected = plain / plain_weight + lovasz_softmax(logits, labels)
    assert (both / weight).item() == pytest.approx(expected.item())

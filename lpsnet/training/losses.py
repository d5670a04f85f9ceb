"""Losses over logits: cross-entropy, online hard example mining (Section 4.2), Lovász-softmax, Dice, distillation.

A loss is returned as a sum and its divisor, so that several processes can divide by the total of all of them; a batch
without a labelled pixel gives 0, never NaN. Logits are not upsampled to the label's size as a whole, see
`weighted_loss`.
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lpsnet.data.labels import IGNORE_INDEX, plain_name
from lpsnet.errors import RunError
from lpsnet.inference.hub import recorded_name, sha256
from lpsnet.inference.model_file import read_record
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.models.reparameterise import fuse
from lpsnet.record import Normalisation
from lpsnet.sampling import interpolation_matrix
from lpsnet.training.config import Recipe
from lpsnet.training.loop import forward_type, normalise


def lovasz_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch taken as one set of pixels, in 0 to 1; 0 without a labelled pixel.

    A convex surrogate of 1 - IoU, averaged over the classes that occur (Berman et al. 2018, Algorithm 1): for each
    class the errors of all pixels are sorted, and each is weighted by what its pixel adds to the Jaccard loss of those
    before.

    Args:
        logits: N, K, H, W floating point.
        labels: N, H, W integer class ids, `IGNORE_INDEX` where there is no label.
    """
    num_classes = logits.shape[1]
    labelled = (labels != IGNORE_INDEX).reshape(1, -1)
    probabilities = logits.softmax(1).transpose(0, 1).reshape(num_classes, -1)
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    members = (labels.reshape(1, -1) == classes).to(logits.dtype)
    errors = (members - probabilities).abs() * labelled  # without a label an error of 0, at the end of the order
    errors, order = errors.sort(dim=1, descending=True)
    losses = (errors * _jaccard_steps(members.gather(1, order))).sum(1)
    present = members.sum(1) > 0
    return (losses * present).sum() / present.sum().clamp(min=1)


def _jaccard_steps(members: Tensor) -> Tensor:
    """What each pixel adds to the Jaccard loss of those before it: K, P for members K, P (1 or 0) in their order."""
    total = members.sum(1, keepdim=True)
    intersection = total - members.cumsum(1)
    union = total + (1 - members).cumsum(1)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]), 1)


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of a batch taken as one set of pixels, in 0 to 1; 0 without a labelled pixel.

    1 - 2 |P and Y| / (|P| + |Y|), averaged over the classes that occur; P are the labelled pixels, each as far as its
    probability of the class, Y those of the class (Milletari et al. 2016, without squares).

    Args:
        logits: N, K, H, W floating point.
        labels: N, H, W integer class ids, `IGNORE_INDEX` where there is no label.
    """
    num_classes = logits.shape[1]
    labelled = (labels != IGNORE_INDEX).reshape(1, -1)
    probabilities = logits.softmax(1).transpose(0, 1).reshape(num_classes, -1) * labelled
    classes = torch.arange(num_classes, device=labels.device)[:, None]
    members = (labels.reshape(1, -1) == classes).to(logits.dtype)
    count = members.sum(1)
    losses = 1 - 2 * (probabilities * members).sum(1) / (probabilities.sum(1) + count).clamp(min=1)
    present = count > 0
    return (losses * present).sum() / present.sum().clamp(min=1)


# kind of a `Criterion` -> what it adds to the mean of the cross-entropy
_ADDED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"lovasz": lovasz_softmax, "dice": dice_loss}


def distillation(logits: Tensor, target: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """How far a network's probabilities are from its teacher's: a sum over pixels, and their number.

    At each pixel temperature squared x KL(teacher, student) of the softmax of logits / temperature (Hinton et al. 2015,
    Section 2, where that square keeps the gradient's size).

    Args:
        logits: N, K, h, w of any float type; the gradient goes here.
        target: the teacher's, of the same shape.
        temperature: greater than 0.

    Returns:
        Two scalars, float32 (float64 for such logits).
    """
    kind = _computing_type(logits)
    own, given = ((it.to(kind) / temperature).log_softmax(1) for it in (logits, target))
    total = F.kl_div(own, given, reduction="sum", log_target=True) * temperature**2
    return total, torch.full_like(total, logits[:, 0].numel())


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network whose logits another one learns from.

    Attributes:
        network: in eval mode, on the device of the training; it does not learn.
        places: its channels that are the student's classes, in their order.
        normalisation: of its images.
        type: that it computes in where it may.
        facts: its name, the SHA-256 of its file, its terms and its classes that the student does not have.
    """

    network: Model
    places: Tensor
    normalisation: Normalisation
    type: torch.dtype
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path, recipe: Recipe, classes: Sequence[str], device: torch.device) -> Self:
        """The network in the checkpoint at `path` for a student of `classes`.

        Raises:
            LpsnetError: it cannot be loaded, or lacks one of the classes.
        """
        name, record = recorded_name(path), read_record(path)
        given = record.label_space.names
        known = {plain_name(name): place for place, name in enumerate(given)}
        if missing := [name for name in classes if plain_name(name) not in known]:
            others = ", ".join(name for name in given if plain_name(name) not in set(map(plain_name, classes)))
            raise RunError(
                f"the teacher {name} does not know {', '.join(map(repr, missing))} of the data, "
                f"and knows {others or 'nothing else'}; classes are compared by name"
            )
        places = [known[plain_name(name)] for name in classes]
        network = fuse(load_checkpoint(path)).requires_grad_(False)
        facts = {
            "model": name,
            "sha256": sha256(path),
            "licence": record.licence,
            "other_classes": [name for place, name in enumerate(given) if place not in places],
        }
        return cls(
            network.eval().to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
            torch.tensor(places, device=device),
            record.normalisation,
            forward_type(recipe, device),
            facts,
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """Its logits N x K x h x w of the size (h, w) for the student's classes, float32; images N, H, W, 3 uint8."""
        with torch.autocast(images.device.type, self.type, enabled=self.type != torch.float32, cache_enabled=False):
            logits = self.network(normalise(images, self.normalisation))
        logits = logits.index_select(1, self.places).float()
        corners = self.network.align_corners
        return F.interpolate(logits, size, mode="bilinear", align_corners=corners)


_PART = 1 << 17  # logits in a band on a CPU: 0.5 MB, half of a core's cache
_PART_ELSEWHERE = 1 << 25  # where starting an operation costs more than memory does


@dataclass(frozen=True, eq=False)
class Upsampling:
    """From logits of h x w to some of the pixels of an image of H x W, bilinearly.

    Attributes:
        rows: chosen rows of pixels x h, what every row of logits adds to each.
        columns: chosen columns of pixels x w.
        cells: for each chosen row of pixels, the upper of the two rows of logits it lies between; ascending.
    """

    rows: Tensor
    columns: Tensor
    cells: list[int]

    @classmethod
    @functools.lru_cache(maxsize=64)  # a training asks for the same one in every step
    def between(
        cls,
        source: tuple[int, int],
        target: tuple[int, int],
        *,
        stride: int,
        align_corners: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "Upsampling":
        """From `source` (h, w) to every `stride`-th pixel of `target` (H, W)."""
        rows, cells = _interpolation(source[0], target[0], stride, align_corners)
        columns, _ = _interpolation(source[1], target[1], stride, align_corners)
        return cls(rows.to(device, dtype), columns.to(device, dtype), cells)

    def __call__(self, logits: Tensor) -> Tensor:
        """N, K, h, w to N, K and the chosen pixels, all at once and differentiable."""
        return self.rows @ logits @ self.columns.T


def grid_points(length: int, stride: int) -> Tensor:
    """Which of `length` pixels stand for all at a `stride`-th of the size: evenly spread, both ends among them."""
    return torch.linspace(0, length - 1, max(1, length // stride), dtype=torch.float64).round().long()


def _interpolation(source: int, target: int, stride: int, align_corners: bool) -> tuple[Tensor, list[int]]:
    """The matrix of one axis, chosen pixels x source in float64, and the lower source of each pixel."""
    pixels = grid_points(target, stride).double().numpy()
    matrix, lower = interpolation_matrix(source, target, align_corners=align_corners, pixels=pixels)
    return torch.from_numpy(matrix), lower.tolist()


def pixel_losses(logits: Tensor, classes: Tensor, upsampling: Upsampling) -> Tensor:
    """The cross-entropy of every pixel, N, H, W float32 (float64 for such logits), without a gradient.

    Arguments as for `weighted_loss`.
    """
    losses = torch.empty(classes.shape, dtype=_computing_type(logits), device=logits.device)

    def fill(number: int) -> None:
        for band in _bands(logits[number], classes[number], upsampling):
            losses[number, band.pixels] = band.losses()[0]

    _for_each_image(fill, logits)
    return losses


def weighted_loss(logits: Tensor, classes: Tensor, weights: Tensor, upsampling: Upsampling) -> Tensor:
    """The sum over all pixels of weight x cross-entropy: a scalar, float32 (float64 for such logits).

    Logits at the label's size (19 x 768 x 768 floats are 45 MB an image) would go through memory five times. Here they
    exist a band of rows at a time, small enough for a core's cache: a band is upsampled, its loss added up, its
    gradient taken and brought back to h x w, then the next band takes its place. Bilinear upsampling is two small
    matrices, one for rows and one for columns. The gradient is taken in the forward pass: a loss is a sum, so the
    backward pass only adds a factor. On a CPU each thread takes whole images.

    Args:
        logits: N, K, h, w of any float type; the gradient goes here.
        classes: N, H, W integers, 0 to K - 1, for pixels of no weight too; H, W are what `upsampling` chooses.
        weights: N, H, W of the type of the result; no gradient.
        upsampling: from h, w to the pixels.
    """
    total: Tensor = _WeightedLoss.apply(logits, classes, weights, upsampling)  # type: ignore[no-untyped-call]
    return total


class _WeightedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, classes: Tensor, weights: Tensor, upsampling: Upsampling) -> Tensor:
        sums = torch.empty(len(logits), dtype=_computing_type(logits), device=logits.device)
        gradient = torch.empty_like(logits, dtype=sums.dtype) if ctx.needs_input_grad[0] else None

        def fill(number: int) -> None:
            part = None if gradient is None else gradient[number]
            sums[number] = _image_loss(logits[number], classes[number], weights[number], upsampling, part)

        _for_each_image(fill, logits)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return sums.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * factor).to(ctx.dtype), None, None, None


def _for_each_image(function: Callable[[int], None], logits: Tensor) -> None:
    """Call `function` for every image's number, on as many threads as torch may use, each with one of its own."""

    def call(number: int) -> None:  # what is switched off here is a thread's own
        with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
            function(number)

    num_threads = torch.get_num_threads()
    if logits.device.type != "cpu" or min(num_threads, len(logits)) == 1:
        for number in range(len(logits)):
            call(number)
        return
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(call, range(len(logits))))
    torch.set_num_threads(num_threads)  # for threads that start later; this one's never changed


def _image_loss(
    logits: Tensor, classes: Tensor, weights: Tensor, upsampling: Upsampling, gradient: Tensor | None
) -> Tensor:
    """An image's sum; its gradient is written to `gradient`, K, h, w, unless that is None."""
    total = weights.new_zeros(())
    collected: Tensor | None = None  # the gradient on rows of logits and columns of pixels: h, K W
    for band in _bands(logits, classes, upsampling):
        band_weights = weights[band.pixels]
        losses, sums = band.losses()
        total += (losses * band_weights).sum()
        if gradient is not None:
            if collected is None:
                collected = torch.zeros_like(band.rows_of_logits)
            collected[band.cells].addmm_(band.mixing.T, band.gradient(sums, band_weights))
    if gradient is not None and collected is not None:
        by_columns = collected.view(len(collected), len(logits), -1) @ upsampling.columns
        gradient.copy_(by_columns.transpose(0, 1))
    return total


@dataclass(frozen=True, eq=False, slots=True)
class _Band:
    """A band of rows of pixels of an image.

    Attributes:
        pixels, cells: its rows of pixels, and the rows of logits they lie between.
        mixing: rows of pixels x rows of logits.
        rows_of_logits: of the whole image, upsampled along columns: h, K W.
        scaled: rows, K, W: the logits in units of ln 2, since 2 ** x is quicker than e ** x. Overwritten twice.
        places: rows, W: where each pixel's own class is in `scaled`.
    """

    pixels: slice
    cells: slice
    mixing: Tensor
    rows_of_logits: Tensor
    scaled: Tensor
    places: Tensor

    def losses(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy of every pixel, rows, W, and the sum over classes of 2 ** `scaled`, which overwrites it."""
        self.scaled.sub_(self.scaled.amax(1, keepdim=True))
        own = self.scaled.view(-1).index_select(0, self.places.view(-1)).view(self.places.shape)
        sums = self.scaled.exp2_().sum(1)
        return (sums.log2() - own).mul_(math.log(2)), sums

    def gradient(self, sums: Tensor, weights: Tensor) -> Tensor:
        """Of the weighted losses by the logits, rows, K W; after `losses`, in the place of `scaled`."""
        self.scaled.mul_((weights / sums)[:, None])  # probability x weight
        self.scaled.view(-1).scatter_add_(0, self.places.view(-1), -weights.reshape(-1))
        return self.scaled.view(len(self.scaled), -1)


def _bands(logits: Tensor, classes: Tensor, upsampling: Upsampling) -> Iterator[_Band]:
    """The bands of an image from top to bottom; each is overwritten by the next."""
    num_classes, (num_rows, width) = len(logits), classes.shape
    part = _PART if logits.device.type == "cpu" else _PART_ELSEWHERE
    length = min(num_rows, max(1, part // (num_classes * width)))
    in_ln_2 = logits.to(_computing_type(logits)).transpose(0, 1) * math.log2(math.e)
    rows_of_logits = (in_ln_2 @ upsampling.columns.T).view(len(in_ln_2), -1)
    memory = rows_of_logits.new_empty(length, rows_of_logits.shape[1])
    pixel = torch.arange(length, device=logits.device)[:, None] * memory.shape[1]
    pixel = pixel + torch.arange(width, device=logits.device)
    for start in range(0, num_rows, length):
        pixels = slice(start, min(start + length, num_rows))
        cells = slice(upsampling.cells[start], upsampling.cells[pixels.stop - 1] + 2)
        mixing = upsampling.rows[pixels, cells]
        scaled = torch.mm(mixing, rows_of_logits[cells], out=memory[: len(mixing)])
        places = classes[pixels].long() * width + pixel[: len(mixing)]
        yield _Band(pixels, cells, mixing, rows_of_logits, scaled.view(-1, num_classes, width), places)


def _computing_type(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


MAX_LOGITS_AT_ONCE = 1 << 28  # floats: 1 GiB, and as much again for the gradient


@dataclass(frozen=True, eq=False)
class Criterion:
    """What a recipe asks of the loss.

    Attributes:
        kind: "cross_entropy", "ohem", "lovasz": cross-entropy plus `lovasz_softmax`, or "dice": plus `dice_loss`.
        class_weights: one weight a class, float32, or None for equal weights.
        stride: logits are compared at every pixel (1), or at every so many along rows and columns.
        align_corners: of the upsampling of the logits; the network's convention.
        label_smoothing: share of the target spread evenly over the classes. With it all logits are upsampled,
            which takes several times as long.
        ohem_threshold: pixels with a lower probability of the true class are hard.
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
            dtype=_computing_type(logits),
            device=logits.device,
        )
        labels = subsample(labels, self.stride)
        weights = self._pixel_weights(labels, logits.shape[1]).to(upsampling.rows.dtype)
        if self.label_smoothing or self.kind in _ADDED or _is_for_all_at_once(logits, labels):
            return self._at_full_size(upsampling(logits.to(weights.dtype)), labels, weights)
        classes = labels.masked_fill(labels >= logits.shape[1], 0)
        if self.kind == "ohem":
            losses = pixel_losses(logits, classes, upsampling)
            weights = weights * self._hard_pixels(losses, labels != IGNORE_INDEX)
        return weighted_loss(logits, classes, weights, upsampling), weights.sum()

    def _at_full_size(self, logits: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The same for logits at the labels' size, N, K, H, W, by torch."""
        losses = F.cross_entropy(
            logits,
            labels.long(),
            weight=None if self.class_weights is None else self.class_weights.to(logits.dtype),
            ignore_index=IGNORE_INDEX,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        if self.kind == "ohem":
            plain = F.cross_entropy(logits.detach(), labels.long(), ignore_index=IGNORE_INDEX, reduction="none")
            hard = self._hard_pixels(plain, labels != IGNORE_INDEX)
            losses, weights = losses * hard, weights * hard
        total, weight = losses.sum(), weights.sum()
        if (added := _ADDED.get(self.kind)) is not None:
            total = total + added(logits, labels) * weight
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
        """Labelled pixels with a loss, unweighted, above -log(threshold), and the hardest up to the share to keep."""
        hard = labelled & (losses > -math.log(self.ohem_threshold))
        num_kept = max(1, math.ceil(self.ohem_min_kept * int(labelled.sum())))
        candidates = losses[labelled]
        if candidates.numel() == 0 or int(hard.sum()) >= num_kept:
            return hard
        least_kept = candidates.kthvalue(candidates.numel() - num_kept + 1).values
        return labelled & (losses >= least_kept)


def _is_for_all_at_once(logits: Tensor, labels: Tensor) -> bool:
    """Whether a GPU has the memory for a batch's logits at the labels' size, which is quicker than in bands."""
    return logits.device.type != "cpu" and logits.shape[1] * labels.numel() <= MAX_LOGITS_AT_ONCE


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

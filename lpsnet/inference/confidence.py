"""How sure a network is of every pixel: the softmax of its logits at the size of the image, computed when asked for.

The logits at the size of the image (K x H x W) are never held whole: a few rows of pixels are interpolated, reduced to
two numbers a pixel and forgotten. The probability of the best class, and its margin over the second, follow from the
logits at the network's own size, which is all that a result has to keep.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lpsnet.inference.label_map import Logits
from lpsnet.sampling import cells

Indices = NDArray[np.intp]
Certainty = NDArray[np.float32]  # H x W, 0 to 1

_PART = 1 << 18  # logits per block: 1 MB


class LogitField(Protocol):
    """Logits at every pixel of an image, computed where they are asked for."""

    @property
    def num_classes(self) -> int:
        """K."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image in pixels."""

    def at(self, rows: Indices, columns: Indices) -> Logits:
        """The logits at the crossings of r rows and c columns of pixels, K x r x c float32, a new array."""


@dataclass(frozen=True)
class ResizedLogits:
    """The logits of a network for a whole image, resized bilinearly.

    Attributes:
        logits: K x h x w float32, at the network's output size.
        size: (H, W) of the image in pixels.
        align_corners: the convention of the resizing, see `sampling.py`.
    """

    logits: Logits
    size: tuple[int, int]
    align_corners: bool

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.logits)

    @cached_property
    def _cells(self) -> list[tuple[Indices, NDArray[np.float32]]]:
        lengths = zip(self.logits.shape[1:], self.size, strict=True)
        return [cells(own, target, align_corners=self.align_corners) for own, target in lengths]

    @cached_property
    def _relative(self) -> Logits:
        """Without the largest logit at each position, which no difference between classes depends on: keeps float32
        exact for logits with a large offset."""
        relative: Logits = self.logits - self.logits.max(axis=0)
        return relative

    def at(self, rows: Indices, columns: Indices) -> Logits:
        """K x r x c float32, less a number that all classes of a pixel share; see `LogitField`."""
        (row_cells, row_parts), (column_cells, column_parts) = self._cells
        height, width = self.logits.shape[1:]
        above, left = row_cells[rows], column_cells[columns]
        below, right = np.minimum(above + 1, height - 1), np.minimum(left + 1, width - 1)
        upper, lower = self._relative.take(above, axis=1), self._relative.take(below, axis=1)
        values = _between(upper, lower, row_parts[rows, None])
        return _between(values.take(left, axis=2), values.take(right, axis=2), column_parts[columns])


def _between(first: Logits, last: Logits, fraction: NDArray[np.float32]) -> Logits:
    """Linear interpolation from `first` to `last`, overwriting `last`."""
    last -= first
    last *= fraction
    last += first
    return last


@dataclass(frozen=True, eq=False)
class PixelLogits:
    """The logits of some rows and columns of an image's pixels: of the whole image, or of a crop of it.

    Attributes:
        field: of the whole image.
        rows, columns: the pixels, in the order of the crop.
    """

    field: LogitField
    rows: Indices
    columns: Indices

    @classmethod
    def of(cls, field: LogitField) -> Self:
        """Of the whole image."""
        return cls(field, *(np.arange(length) for length in field.size))

    def cropped(self, key: Any) -> Self:
        """Of a crop: one slice or two."""
        rows, columns = (*key, slice(None))[:2] if isinstance(key, tuple) else (key, slice(None))
        return replace(self, rows=self.rows[rows], columns=self.columns[columns])

    def certainty(self) -> tuple[Certainty, Certainty]:
        """The softmax probability of the best class at every pixel, and its margin over the second's, H x W each.

        With a single class both are 1.
        """
        shape = self.rows.size, self.columns.size
        probability, margin = np.empty(shape, np.float32), np.empty(shape, np.float32)
        step = max(1, _PART // max(1, self.field.num_classes * self.columns.size))
        for start in range(0, self.rows.size, step):
            part = slice(start, start + step)
            probability[part], margin[part] = best_and_margin(self.field.at(self.rows[part], self.columns))
        return probability, margin


def best_and_margin(logits: Logits) -> tuple[Certainty, Certainty]:
    """The largest softmax probability of K x r x c logits, and its distance to the second largest, r x c each.

    The logits are overwritten.
    """
    best = logits[0].copy()
    second = np.full(best.shape, -np.inf, np.float32)
    for own in logits[1:]:
        np.maximum(second, np.minimum(best, own), out=second)
        np.maximum(best, own, out=best)
    logits -= best
    total = np.exp(logits, out=logits).sum(axis=0)
    probability: Certainty = 1 / total
    margin: Certainty = (1 - np.exp(second - best)) * probability
    return probability, margin

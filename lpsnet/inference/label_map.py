"""From logits to the label of every pixel: bilinear resizing, then the class with the largest logit.

Ties: the lowest class id wins, in every implementation (`argmax` here, `lpsnet_labels` in `kernels.c`).

The logits at the size of the image (19 x 1024 x 2048 floats) are never computed. Between two neighbouring logits a
bilinear function is a straight line, and the maximum of several straight lines is convex. So a class that is largest at
both ends is largest in between, and the label changes only where lines cross. Labels are therefore computed

1. at the logits themselves (h x w);
2. on the rows of logits at every output column (h x W): only between two logits that differ in label;
3. at every output pixel (H x W): only in columns whose label differs between two rows of logits.

Where a third class is above the two at their crossing, the line is split there, repeatedly. The work is proportional to
the length of the borders between regions, not to pixels times classes. For an output hardly larger than the logits this
gains nothing, and every pixel is computed, a few rows at a time. The compiled loops (`kernels.py`) do the same row by
row.

How sure a network is of every pixel, the softmax of its logits at the size of the image, is computed when asked for, in
the same way without holding K x H x W numbers: a few rows of pixels are interpolated, reduced to the probability of the
best class and its margin over the second, and forgotten. The logits at the network's own size are all that a result has
to keep.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Labels
from lpsnet.data.labels import MAX_CLASSES
from lpsnet.errors import LpsnetError, NonFiniteScoresError
from lpsnet.inference.kernels import Kernels, find_kernels
from lpsnet.sampling import cells, spacing

Logits = NDArray[np.float32]  # K x h x w
Indices = NDArray[np.intp]
Certainty = NDArray[np.float32]  # H x W, 0 to 1
Fractions = NDArray[np.float32]

# A third class splits a line if it is higher than the crossing by more than this fraction of the logits' spread:
# ten times the rounding error of float32, so that rounding alone splits no line
_SLACK = np.float32(1e-6)
_TINY = np.float32(1e-30)  # avoids 0 / 0 where two classes are equal along a whole line
_PART = 1 << 17  # logits per block: 0.5 MB, which fits into a core's cache
_CERTAINTY_PART = 1 << 18  # the same where the softmax is computed: 1 MB
_FEW_PIXELS = 2  # pixels per logit, in height or width, below which computing every pixel is faster


def label_map(logits: Logits, size: tuple[int, int], *, align_corners: bool = True, num_threads: int = 1) -> Labels:
    """The class with the largest logit at every pixel, after bilinear resizing.

    Equal to the argmax of `torch.nn.functional.interpolate(logits, size, mode="bilinear")` in float64, except where
    the two best classes differ by less than 1e-5 of the largest difference between classes. Sizes may be larger or
    smaller than the logits'. Thread-safe.

    Args:
        logits: K x h x w float32, K from 1 to 255, finite; any strides; not modified.
        size: (H, W) in pixels.
        align_corners: True: the centres of the corner pixels coincide; False: the corners of the images do.
        num_threads: of the compiled loops; without them the calling thread does all.

    Returns:
        H x W uint8 class ids; of classes with equal logits the lowest.

    Raises:
        NonFiniteScoresError: the logits contain NaN or infinity, or differ by more than the range of float32.
        LpsnetError: the logits have another type or shape, or the size is not positive.
    """
    _check(logits, size)
    rows = _axis(logits.shape[1], size[0], align_corners)
    columns = _axis(logits.shape[2], size[1], align_corners)
    if kernels := find_kernels():
        return _compiled(kernels, logits, rows, columns, num_threads)
    relative = _relative(logits, np.empty(logits.shape, np.float32))
    if min(size[0] / logits.shape[1], size[1] / logits.shape[2]) < _FEW_PIXELS:
        return _labels_of_all(relative, rows, columns)
    return _labels_between_rows(relative, _labels_on_rows(relative, columns), rows, columns)


def _check(logits: Logits, size: tuple[int, int]) -> None:
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32:
        kind = logits.dtype if isinstance(logits, np.ndarray) else type(logits).__name__
        raise LpsnetError(f"logits are a NumPy array of float32, not {kind}")
    if logits.ndim != 3 or not logits.size or logits.shape[0] > MAX_CLASSES:
        raise LpsnetError(
            f"logits are K x h x w with K from 1 to {MAX_CLASSES} and h, w at least 1; got {logits.shape}"
        )
    if len(size) != 2 or not all(isinstance(length, int | np.integer) and length >= 1 for length in size):
        raise LpsnetError(f"the size of a label map is (height, width), whole numbers of at least 1; got {size}")


def _relative(logits: Logits, target: Logits) -> Logits:
    """Write to `target` the logits minus the maximum over classes, divided by the largest difference: -1 to 0.

    This changes no label and keeps float32 exact for logits with a large offset.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(logits, logits.max(axis=0), out=target)
    if spread := _check_spread(-target.min()):
        target /= spread
    return target


def _check_spread(spread: float) -> float:
    if not np.isfinite(spread):
        raise NonFiniteScoresError(
            "logits hold NaN, infinity or differences beyond float32; labels need finite logits; "
            "a network may overflow in f16: compute it in bf16 or f32"
        )
    return spread


class _Axis(NamedTuple):
    """Positions of output pixels between the logits of one axis. A cell is the interval between two logits.

    Attributes:
        cell: per pixel, the cell it lies in.
        fraction: per pixel, float32, its position in that cell, 0 to 1.
        start: per cell and one more, the first pixel at or past its first logit.
        lead: per cell, float64, the position of that pixel in its cell, in cells.
        step: cells from pixel to pixel.
    """

    cell: Indices
    fraction: Fractions
    start: Indices
    lead: NDArray[np.float64]
    step: float

    def pixel_after(self, cell: Indices, place: Fractions) -> Indices:
        """The first pixel at or past a position (0 to 1) in a cell; if there is none, the next cell's first pixel."""
        pixel = np.ceil((place - self.lead[cell]) / self.step).astype(np.intp)
        pixel += self.start[cell]
        return np.minimum(np.maximum(pixel, self.start[cell]), self.start[cell + 1])

    def first_pixels(self) -> NDArray[np.int32]:
        """Per cell, its first pixel, then the number of pixels; a single logit is a cell."""
        num_cells = max(1, self.start.size - 1)
        return np.append(self.start[:num_cells], self.cell.size).astype(np.int32)


def _axis(length: int, target: int, align_corners: bool) -> _Axis:
    cell, fraction = cells(length, target, align_corners=align_corners)
    step, origin = spacing(length, target, align_corners=align_corners)
    step = step or 1.0  # for a single pixel or logit, any number but 0, as `pixel_after` divides by it
    start = np.searchsorted(cell, np.arange(length))
    lead = origin + step * start.astype(np.float64) - np.arange(length)
    return _Axis(cell, fraction, start, lead, step)


def _compiled(kernels: Kernels, logits: Logits, rows: _Axis, columns: _Axis, num_threads: int) -> Labels:
    size = logits.itemsize
    if logits.strides[2] != size or any(stride % size for stride in logits.strides):
        logits = np.ascontiguousarray(logits)
    spread = _check_spread(kernels.spread(logits, num_threads=num_threads))
    if not spread:
        return np.zeros((rows.cell.size, columns.cell.size), np.uint8)
    return kernels.label_map(
        logits,
        spread,
        rows.first_pixels(),
        rows.fraction,
        columns.first_pixels(),
        columns.cell.astype(np.int32),
        columns.fraction,
        num_threads=num_threads,
    )


def _labels_of_all(logits: Logits, rows: _Axis, columns: _Axis) -> Labels:
    """H x W labels, by computing all logits of a few rows at a time."""
    height, width = logits.shape[1:]
    labels = np.empty((rows.cell.size, columns.cell.size), np.uint8)
    below, right = np.minimum(rows.cell + 1, height - 1), np.minimum(columns.cell + 1, width - 1)
    for part in _parts(len(labels), len(logits) * max(width, columns.cell.size)):
        upper, lower = logits.take(rows.cell[part], axis=1), logits.take(below[part], axis=1)
        values = _between(upper, lower, rows.fraction[part, None])
        values = _between(values.take(columns.cell, axis=2), values.take(right, axis=2), columns.fraction)
        labels[part] = values.argmax(axis=0)
    return labels


def _labels_on_rows(logits: Logits, columns: _Axis) -> Labels:
    """h x W labels: on the rows of logits, at every output column."""
    height, width = logits.shape[1:]
    nodes = logits.argmax(axis=0).astype(np.uint8)
    changes = np.zeros((height, columns.cell.size + 1), np.uint8)
    changes[:, 0] = nodes[:, 0]
    y, x = _where(nodes[:, :-1] != nodes[:, 1:])
    flat = logits.reshape(len(logits), -1)
    for part in _parts(y.size, len(logits)):
        row, cell = y[part], x[part]
        node = row * width + cell
        first, last = flat.take(node, axis=1), flat.take(node + 1, axis=1)
        for line, place, change in _crossings(first, last, nodes.take(node), nodes.take(node + 1)):
            at = row[line] * changes.shape[1] + columns.pixel_after(cell[line], place)
            np.bitwise_xor.at(changes.reshape(-1), at, change)
    return np.ascontiguousarray(np.bitwise_xor.accumulate(changes, axis=1)[:, :-1])


def _labels_between_rows(logits: Logits, on_rows: Labels, rows: _Axis, columns: _Axis) -> Labels:
    """H x W labels, from those on the rows of logits."""
    width = on_rows.shape[1]
    changes = np.zeros((rows.cell.size + 1, width), np.uint8)
    changes[0] = on_rows[0]
    y, x = _where(on_rows[:-1] != on_rows[1:])
    for part in _parts(y.size, len(logits)):
        cell, column = y[part], x[part]
        first, last = _column_ends(logits, cell, columns.cell[column], columns.fraction[column])
        at = cell * width + column
        for line, place, change in _crossings(first, last, on_rows.take(at), on_rows.take(at + width)):
            at_pixel = rows.pixel_after(cell[line], place) * width + column[line]
            np.bitwise_xor.at(changes.reshape(-1), at_pixel, change)
    return _accumulate_down(changes)[:-1]


def _column_ends(logits: Logits, row: Indices, cell: Indices, fraction: Fractions) -> tuple[Logits, Logits]:
    """K x n logits at n positions of the rows `row` and of the rows below them."""
    width = logits.shape[2]
    right = min(1, width - 1)
    flat = logits.reshape(len(logits), -1)
    nodes = row * width + cell, (row + 1) * width + cell
    upper, lower = (_between(flat.take(node, axis=1), flat.take(node + right, axis=1), fraction) for node in nodes)
    return upper, lower


def _between(first: Logits, last: Logits, fraction: Fractions) -> Logits:
    """Linear interpolation from `first` to `last`, overwriting `last`."""
    last -= first
    last *= fraction
    last += first
    return last


class _Lines(NamedTuple):
    """Pieces of n straight lines of K classes each.

    Attributes:
        number: index of the line that each piece belongs to.
        first, last: K x n logits at the two ends of the whole line.
        before, after: the labels at the two ends of the piece.
        low, high: the ends of the piece, 0 to 1 along the line.
    """

    number: Indices
    first: Logits
    last: Logits
    before: Labels
    after: Labels
    low: Fractions
    high: Fractions


def _crossings(
    first: Logits, last: Logits, before: Labels, after: Labels
) -> Iterator[tuple[Indices, Fractions, Labels]]:
    """Where the label changes along n lines, from `first` to `last` (K x n logits), labels `before` and `after` (n).

    Yields lines, positions on them (0 to 1), and the exclusive or of the labels on both sides of each position. A line
    may occur several times, in any order.
    """
    low, high = np.zeros(before.size, np.float32), np.ones(before.size, np.float32)
    lines = _Lines(np.arange(before.size), first, last, before, after, low, high)
    for splits_left in reversed(range(len(first))):
        place, values, height = _crossing(lines)
        split = values.max(axis=0) > height + _SLACK
        if not splits_left or not split.any():
            yield lines.number, place, lines.before ^ lines.after
            return
        done, again = ~split, np.flatnonzero(split)
        yield lines.number[done], place[done], lines.before[done] ^ lines.after[done]
        lines = _split(lines, again, place[again], values[:, again].argmax(axis=0).astype(np.uint8))


def _crossing(lines: _Lines) -> tuple[Fractions, Logits, Logits]:
    """Where the lines of the two labels cross, the logits of all classes there (K x n), and of the first of the two.

    The position is clipped to the piece, so that changes along a line stay in order despite rounding where three lines
    meet in a point; out of order, the exclusive or would give a wrong label.
    """
    all_lines = np.arange(lines.before.size)
    of_before = lines.before.astype(np.intp) * all_lines.size + all_lines
    of_after = lines.after.astype(np.intp) * all_lines.size + all_lines
    gap_first = lines.first.take(of_before) - lines.first.take(of_after)
    gap_last = lines.last.take(of_after) - lines.last.take(of_before)
    place: Fractions = np.clip(gap_first / np.maximum(gap_first + gap_last, _TINY), lines.low, lines.high)
    values = _between(lines.first, lines.last.copy(), place)
    return place, values, values.take(of_before)


def _split(lines: _Lines, chosen: Indices, place: Fractions, between: Labels) -> _Lines:
    """Split the chosen pieces at `place`, where the label is `between`."""
    twice = np.concatenate((chosen, chosen))
    return _Lines(
        number=lines.number[twice],
        first=lines.first.take(twice, axis=1),
        last=lines.last.take(twice, axis=1),
        before=np.concatenate((lines.before[chosen], between)),
        after=np.concatenate((between, lines.after[chosen])),
        low=np.concatenate((lines.low[chosen], place)),
        high=np.concatenate((place, lines.high[chosen])),
    )


def _accumulate_down(changes: Labels) -> Labels:
    """Cumulative exclusive or of the rows, in place; 50 times faster than `accumulate(axis=0)`."""
    combine = np.bitwise_xor
    above, *below = changes
    for row in below:
        combine(above, row, row)
        above = row
    return changes


def _where(mask: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """`np.nonzero`, four times as fast."""
    at = np.flatnonzero(mask)
    y = at // max(1, mask.shape[1])
    return y, at - y * mask.shape[1]


def _parts(length: int, num_logits: int) -> Iterator[slice]:
    """Blocks of `length` items of `num_logits` logits each."""
    size = max(1, _PART // num_logits)
    return (slice(start, start + size) for start in range(0, length, size))


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
        step = max(1, _CERTAINTY_PART // max(1, self.field.num_classes * self.columns.size))
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

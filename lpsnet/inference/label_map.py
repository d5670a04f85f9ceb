"""From class scores to the label of every pixel: bilinear resizing, then the class with the largest score.

The score map at the size of the image (19 x 1024 x 2048 floats) is never built. Between two neighbouring scores a
bilinear function is a straight line, and the largest of several straight lines is convex. So a class that is largest at
both ends is largest all the way, and the label changes only where lines cross. Labels are therefore found

1. at the scores themselves (h x w);
2. on the rows of scores at every output column (h x W): only between two scores that differ in label;
3. at every output pixel (H x W): only down the columns that differ in label between two rows of scores.

Where a third class is above the two at their crossing, the line is split there, until none is. The work is proportional
to the length of the borders between regions, not to pixels times classes. Where there are hardly more pixels than
scores that gains nothing, and every pixel is computed, a few rows at a time.

That is how NumPy does it. Where the compiled loops are there (`kernels.py`), they go the same way line by line.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import LpsnetError, NonFiniteScoresError
from lpsnet.inference.kernels import Kernels, find_kernels
from lpsnet.sampling import cells, spacing

Logits = NDArray[np.float32]
Labels = NDArray[np.uint8]
Indices = NDArray[np.intp]
Fractions = NDArray[np.float32]

MAX_CLASSES = 255  # a label map is uint8, and 255 means 'ignore'

# A third class splits a line if it is higher than the crossing by more than this share of the spread of the scores.
# Ten times what float32 arithmetic errs by, so that no line is split for rounding's sake.
_SLACK = np.float32(1e-6)
_TINY = np.float32(1e-30)  # keeps 0 / 0 away where two classes are equal all along a line
_PART = 1 << 17  # scores handled at a time: 0.5 MB, so that they stay in a core's cache
_FEW_PIXELS = 2  # pixels a score, in height or width, below which computing every pixel is quicker


def label_map(scores: Logits, size: tuple[int, int], *, align_corners: bool = True, num_threads: int = 1) -> Labels:
    """The class with the largest score at every pixel, of scores resized bilinearly.

    Equal to the argmax of `torch.nn.functional.interpolate(scores, size, mode="bilinear")` in float64, except where
    the two best classes differ by less than 1e-5 of the largest difference between classes. Sizes may be larger or
    smaller than the scores'. May be called from several threads at once.

    Args:
        scores: K x h x w float32, K from 1 to 255, finite; of any strides, left as they are.
        size: (H, W) in pixels.
        align_corners: True: the centres of the corner pixels coincide; False: the corners of the images do.
        num_threads: for the compiled loops; without them all is done on the calling thread.

    Returns:
        H x W uint8 class ids. Where classes have the same scores all around, the lowest of them.

    Raises:
        NonFiniteScoresError: the scores hold NaN or infinity, or differ by more than float32 holds.
        LpsnetError: the scores are of another type or shape, or the size is not positive.
    """
    _check(scores, size)
    rows = _axis(scores.shape[1], size[0], align_corners)
    columns = _axis(scores.shape[2], size[1], align_corners)
    if kernels := find_kernels():
        return _compiled(kernels, scores, rows, columns, num_threads)
    relative = _relative(scores, np.empty(scores.shape, np.float32))
    if min(size[0] / scores.shape[1], size[1] / scores.shape[2]) < _FEW_PIXELS:
        return _labels_of_all(relative, rows, columns)
    return _labels_between_rows(relative, _labels_on_rows(relative, columns), rows, columns)


def _check(scores: Logits, size: tuple[int, int]) -> None:
    if not isinstance(scores, np.ndarray) or scores.dtype != np.float32:
        kind = scores.dtype if isinstance(scores, np.ndarray) else type(scores).__name__
        raise LpsnetError(f"scores are a NumPy array of float32, not {kind}")
    if scores.ndim != 3 or not scores.size or scores.shape[0] > MAX_CLASSES:
        raise LpsnetError(
            f"scores are K x h x w with K from 1 to {MAX_CLASSES} and h, w at least 1; got {scores.shape}"
        )
    if len(size) != 2 or not all(isinstance(length, int | np.integer) and length >= 1 for length in size):
        raise LpsnetError(f"the size of a label map is (height, width), whole numbers of at least 1; got {size}")


def _relative(scores: Logits, target: Logits) -> Logits:
    """`target` with the scores minus the largest of their place, over the largest difference: -1 to 0, a 0 everywhere.

    It changes no label (what all classes share cancels out) and keeps float32 exact where scores have a large offset.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        np.subtract(scores, scores.max(axis=0), out=target)
    if spread := _check_spread(-target.min()):
        target /= spread
    return target


def _check_spread(spread: float) -> float:
    if not np.isfinite(spread):
        raise NonFiniteScoresError(
            "scores hold NaN, infinity or differences beyond float32; labels need finite scores; "
            "a network may overflow in f16: compute it in bf16 or f32"
        )
    return spread


class _Axis(NamedTuple):
    """Where output pixels lie between the scores of one axis. A cell lies between two scores.

    Attributes:
        cell: per pixel, the cell it lies in.
        fraction: per pixel, float32, how far it is between the two scores of its cell, 0 to 1.
        start: per cell and one more, the first pixel at or past its first score.
        lead: per cell, float64, where in its cell that pixel lies, in cells.
        step: cells from pixel to pixel.
    """

    cell: Indices
    fraction: Fractions
    start: Indices
    lead: NDArray[np.float64]
    step: float

    def pixel_after(self, cell: Indices, place: Fractions) -> Indices:
        """The first pixel at or past a place (0 to 1) in a cell; the next cell's first pixel if the cell has none."""
        pixel = np.ceil((place - self.lead[cell]) / self.step).astype(np.intp)
        pixel += self.start[cell]
        return np.minimum(np.maximum(pixel, self.start[cell]), self.start[cell + 1])

    def first_pixels(self) -> NDArray[np.int32]:
        """Per cell, the first pixel in it, and at the end the number of pixels; one score alone is a cell."""
        num_cells = max(1, self.start.size - 1)
        return np.append(self.start[:num_cells], self.cell.size).astype(np.int32)


def _axis(length: int, target: int, align_corners: bool) -> _Axis:
    cell, fraction = cells(length, target, align_corners=align_corners)
    step, origin = spacing(length, target, align_corners=align_corners)
    step = step or 1.0  # of one pixel or one score, where any distance will do but 0, which `pixel_after` divides by
    start = np.searchsorted(cell, np.arange(length))
    lead = origin + step * start.astype(np.float64) - np.arange(length)
    return _Axis(cell, fraction, start, lead, step)


def _compiled(kernels: Kernels, scores: Logits, rows: _Axis, columns: _Axis, num_threads: int) -> Labels:
    size = scores.itemsize
    if scores.strides[2] != size or any(stride % size for stride in scores.strides):
        scores = np.ascontiguousarray(scores)
    spread = _check_spread(kernels.spread(scores, num_threads=num_threads))
    if not spread:
        return np.zeros((rows.cell.size, columns.cell.size), np.uint8)
    return kernels.label_map(
        scores,
        spread,
        rows.first_pixels(),
        rows.fraction,
        columns.first_pixels(),
        columns.cell.astype(np.int32),
        columns.fraction,
        num_threads=num_threads,
    )


def _labels_of_all(scores: Logits, rows: _Axis, columns: _Axis) -> Labels:
    """H x W labels, by computing all scores of a few rows at a time."""
    height, width = scores.shape[1:]
    labels = np.empty((rows.cell.size, columns.cell.size), np.uint8)
    below, right = np.minimum(rows.cell + 1, height - 1), np.minimum(columns.cell + 1, width - 1)
    for part in _parts(len(labels), len(scores) * max(width, columns.cell.size)):
        upper, lower = scores.take(rows.cell[part], axis=1), scores.take(below[part], axis=1)
        values = _between(upper, lower, rows.fraction[part, None])
        values = _between(values.take(columns.cell, axis=2), values.take(right, axis=2), columns.fraction)
        labels[part] = values.argmax(axis=0)
    return labels


def _labels_on_rows(scores: Logits, columns: _Axis) -> Labels:
    """h x W labels: on the rows of scores, at every output column."""
    height, width = scores.shape[1:]
    nodes = scores.argmax(axis=0).astype(np.uint8)
    changes = np.zeros((height, columns.cell.size + 1), np.uint8)
    changes[:, 0] = nodes[:, 0]
    y, x = _where(nodes[:, :-1] != nodes[:, 1:])
    flat = scores.reshape(len(scores), -1)
    for part in _parts(y.size, len(scores)):
        row, cell = y[part], x[part]
        node = row * width + cell
        first, last = flat.take(node, axis=1), flat.take(node + 1, axis=1)
        for line, place, change in _crossings(first, last, nodes.take(node), nodes.take(node + 1)):
            at = row[line] * changes.shape[1] + columns.pixel_after(cell[line], place)
            np.bitwise_xor.at(changes.reshape(-1), at, change)
    return np.ascontiguousarray(np.bitwise_xor.accumulate(changes, axis=1)[:, :-1])


def _labels_between_rows(scores: Logits, on_rows: Labels, rows: _Axis, columns: _Axis) -> Labels:
    """H x W labels, from those on the rows of scores."""
    width = on_rows.shape[1]
    changes = np.zeros((rows.cell.size + 1, width), np.uint8)
    changes[0] = on_rows[0]
    y, x = _where(on_rows[:-1] != on_rows[1:])
    for part in _parts(y.size, len(scores)):
        cell, column = y[part], x[part]
        first, last = _column_ends(scores, cell, columns.cell[column], columns.fraction[column])
        at = cell * width + column
        for line, place, change in _crossings(first, last, on_rows.take(at), on_rows.take(at + width)):
            at_pixel = rows.pixel_after(cell[line], place) * width + column[line]
            np.bitwise_xor.at(changes.reshape(-1), at_pixel, change)
    return _accumulate_down(changes)[:-1]


def _column_ends(scores: Logits, row: Indices, cell: Indices, fraction: Fractions) -> tuple[Logits, Logits]:
    """K x n scores at n places of the rows `row` and of the rows below them."""
    width = scores.shape[2]
    right = min(1, width - 1)
    flat = scores.reshape(len(scores), -1)
    nodes = row * width + cell, (row + 1) * width + cell
    upper, lower = (_between(flat.take(node, axis=1), flat.take(node + right, axis=1), fraction) for node in nodes)
    return upper, lower


def _between(first: Logits, last: Logits, fraction: Fractions) -> Logits:
    """The scores that far (0 to 1) from `first` to `last`; written over `last`."""
    last -= first
    last *= fraction
    last += first
    return last


class _Lines(NamedTuple):
    """n straight lines of K classes each, and what is known of the label along them.

    Attributes:
        number: which line of those given at first; it comes again for every piece that is looked at.
        first, last: K x n scores at the two ends of the whole line.
        before, after: the labels at the two ends of the piece.
        low, high: the ends of the piece, 0 to 1 from end to end of the line.
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
    """Where the largest class changes along n straight lines per class, from `first` to `last` (K x n scores).

    `before` and `after` (n) are the labels at the two ends. Yields the line, the place on it (0 to 1), and the labels
    on both sides of the place, combined by exclusive or; a line may come several times, in any order.
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
    """Where the lines of the two labels cross, the scores of all classes there (K x n), and of the first of the two.

    The place is kept inside the piece, so that changes along a line stay in order, whatever rounding makes of three
    lines that meet in a point; out of order, the exclusive or would give labels that none of them has.
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
    """Two pieces for each of the chosen: up to the place, and from it on, with the label `between` there."""
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
    """Exclusive or of every row with all above it, in place. Row by row: `accumulate(axis=0)` is 50 times slower."""
    combine = np.bitwise_xor
    above, *below = changes
    for row in below:
        combine(above, row, row)
        above = row
    return changes


def _where(mask: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Rows and columns of what is true: `np.nonzero`, at a quarter of its time."""
    at = np.flatnonzero(mask)
    y = at // max(1, mask.shape[1])
    return y, at - y * mask.shape[1]


def _parts(length: int, num_scores: int) -> Iterator[slice]:
    """Slices of `length` items of `num_scores` scores each."""
    size = max(1, _PART // num_scores)
    return (slice(start, start + size) for start in range(0, length, size))

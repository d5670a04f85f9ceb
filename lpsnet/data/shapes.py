"""Shapes into label maps and back: polygons, ellipses, strokes and bitmaps of label files become class ids a pixel.

One rule for all formats: **a pixel belongs to a shape if its centre does.** Pixel (row 0, column 0) covers x and y from
0 to 1, so its centre is (0.5, 0.5). A centre exactly on an edge belongs to the shape to its right or below it, so that
two polygons that share an edge neither overlap nor leave a gap. What lies beyond the border of the image is cut off.
Rings of one polygon are filled by the even-odd rule: a ring inside another one is a hole. Later shapes cover earlier
ones.

The way back, `trace`, gives the outlines of label maps: polygons with holes along the borders of pixels, simplified to
a stated tolerance. Corners have whole coordinates: pixel (row 0, column 0) has the corners (0, 0) and (1, 1). Drawn
again, outlines that were not simplified give exactly the pixels that they were made from.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import MAX_PIXELS, Labels, read_mask
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError

Points = NDArray[np.float64]  # N x 2: x (to the right) and y (down), in pixels

MAX_COORDINATE = 1e6  # pixels; beyond it is no place in an image
_MAX_CROSSINGS = 2**23  # of a polygon's edges with rows of pixels


class Area(Protocol):
    """What a shape covers."""

    def paint(self, canvas: Labels, value: int) -> None:
        """Set the pixels of a contiguous H x W canvas that it covers to `value`."""

    def scaled(self, x: float, y: float) -> "Area":
        """The same with all coordinates multiplied."""


@dataclass(frozen=True, eq=False, slots=True)
class Polygon:
    """Closed rings, filled by the even-odd rule; a ring need not repeat its first point."""

    rings: tuple[Points, ...]

    def paint(self, canvas: Labels, value: int) -> None:
        """Fill it."""
        flat = canvas.ravel()  # a view: the canvas is contiguous
        crossings = _crossings(self.rings, *canvas.shape).tolist()
        for start, end in zip(crossings[::2], crossings[1::2], strict=True):
            flat[start:end] = value

    def scaled(self, x: float, y: float) -> "Polygon":
        """The same with all coordinates multiplied."""
        return Polygon(tuple(ring * (x, y) for ring in self.rings))


def _crossings(rings: Sequence[Points], height: int, width: int) -> NDArray[np.int64]:
    """Where edges pass to the left of pixel centres, as row * width + column, sorted; each row has an even number."""
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    # every edge downwards: one that is passed twice, as in a hole joined to its surroundings, cancels exactly
    is_down = starts[:, 1:] <= ends[:, 1:]
    upper, lower = np.where(is_down, starts, ends), np.where(is_down, ends, starts)
    # the rows whose centre is at or below the upper end and above the lower end
    first, last = (np.clip(np.ceil(ends[:, 1] - 0.5), 0, height).astype(np.int64) for ends in (upper, lower))
    counts = last - first
    total = int(counts.sum())
    if total > _MAX_CROSSINGS:
        raise DataError(f"a polygon of {len(starts)} points crosses rows {total} times; {_MAX_CROSSINGS} are possible")
    edge = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
    crossing = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    return np.sort(rows * width + columns)


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse by its centre and radii, rotated clockwise (as seen) about its centre."""

    x: float
    y: float
    radius_x: float
    radius_y: float
    degrees: float = 0.0

    def paint(self, canvas: Labels, value: int) -> None:
        """Fill it: centres inside or on the line."""
        reach = max(self.radius_x, self.radius_y)
        part, x, y = _window(canvas, self.x - reach, self.y - reach, self.x + reach, self.y + reach)
        if min(self.radius_x, self.radius_y) <= 0:
            return
        turn = np.deg2rad(self.degrees)
        across, down = x - self.x, y - self.y
        along = (across * np.cos(turn) + down * np.sin(turn)) / self.radius_x
        beside = (down * np.cos(turn) - across * np.sin(turn)) / self.radius_y
        part[along**2 + beside**2 <= 1] = value

    def scaled(self, x: float, y: float) -> "Ellipse":
        """The same with all coordinates multiplied; a rotated one only by equal factors."""
        assert x == y or self.degrees == 0, "a rotated ellipse stretched along one axis has other radii and angle"
        return Ellipse(self.x * x, self.y * y, self.radius_x * x, self.radius_y * y, self.degrees)


@dataclass(frozen=True, eq=False, slots=True)
class Stroke:
    """A line through points with a width in pixels and round ends; a single point is a disc."""

    points: Points
    width: float

    def paint(self, canvas: Labels, value: int) -> None:
        """Draw it: centres that are at most half the width away: rectangles along the lines, discs at the points."""
        reach = self.width / 2
        for start, end in pairwise(self.points):
            along = end - start
            length = float(np.hypot(*along))
            if length > 0:
                beside = np.array([-along[1], along[0]]) * (reach / length)
                Polygon((np.array([start + beside, end + beside, end - beside, start - beside]),)).paint(canvas, value)
        for x, y in self.points.tolist():
            Ellipse(x, y, reach, reach).paint(canvas, value)

    def scaled(self, x: float, y: float) -> "Stroke":
        """The same with all coordinates multiplied; the width stays, as it is in pixels."""
        return Stroke(self.points * (x, y), self.width)


@dataclass(frozen=True, eq=False, slots=True)
class Dots:
    """Discs of one diameter, in pixels, about points."""

    points: Points
    width: float

    def paint(self, canvas: Labels, value: int) -> None:
        """Draw them: centres that are at most half the diameter away."""
        for point in self.points:
            Stroke(point[None], self.width).paint(canvas, value)

    def scaled(self, x: float, y: float) -> "Dots":
        """The same with all coordinates multiplied; the diameter stays, as it is in pixels."""
        return Dots(self.points * (x, y), self.width)


def _window(
    canvas: Labels, left: float, top: float, right: float, bottom: float
) -> tuple[Labels, NDArray[np.float64], NDArray[np.float64]]:
    """The part of the canvas that a box touches, a view, with the x and y of its pixels' centres."""
    rows = [int(np.clip(np.floor(value), 0, canvas.shape[0])) for value in (top, bottom + 1)]
    columns = [int(np.clip(np.floor(value), 0, canvas.shape[1])) for value in (left, right + 1)]
    part = canvas[slice(*rows), slice(*columns)]
    x, y = np.arange(*columns, dtype=np.float64)[None] + 0.5, np.arange(*rows, dtype=np.float64)[:, None] + 0.5
    return part, x, y


@dataclass(frozen=True, eq=False, slots=True)
class Bitmap:
    """Pixels of a rectangle, run by run: `runs` counts not covered, covered, not covered, … pixels.

    Attributes:
        left, top: of the rectangle in the image, whole pixels; may lie outside of it.
        height, width: of the rectangle.
        runs: non-negative; their sum is height * width.
        by_columns: whether runs go down columns (COCO) or along rows.
    """

    left: int
    top: int
    height: int
    width: int
    runs: NDArray[np.int64]
    by_columns: bool = False

    def __post_init__(self) -> None:
        size = f"{self.height}x{self.width}"
        if min(self.height, self.width) < 1 or self.height * self.width > MAX_PIXELS:
            raise DataError(f"a bitmap of {size} pixels (height x width) is not possible")
        if max(abs(self.left), abs(self.top)) > MAX_COORDINATE:
            raise DataError(f"a bitmap at ({self.left}, {self.top}) is in no image")
        # floats do not overflow as whole numbers do
        if self.runs.min(initial=0) < 0 or self.runs.astype(np.float64).sum() != self.height * self.width:
            raise DataError(f"the run lengths of a bitmap of {size} (height x width) do not add up to its pixels")

    @classmethod
    def of(cls, mask: NDArray[np.bool_], *, left: int = 0, top: int = 0) -> "Bitmap":
        """The bitmap of an H x W array of what is covered."""
        return cls(left, top, mask.shape[0], mask.shape[1], encode_runs(mask.ravel()))

    def mask(self) -> NDArray[np.bool_]:
        """H x W of what is covered."""
        values = np.zeros(len(self.runs), bool)
        values[1::2] = True
        flat = np.repeat(values, self.runs)
        return flat.reshape(self.width, self.height).T if self.by_columns else flat.reshape(self.height, self.width)

    def paint(self, canvas: Labels, value: int) -> None:
        """Copy it; what lies outside of the canvas is cut off."""
        (top, bottom), (left, right) = (
            (max(start, 0), min(start + length, limit))
            for start, length, limit in zip((self.top, self.left), (self.height, self.width), canvas.shape, strict=True)
        )
        if top < bottom and left < right:
            covered = self.mask()[top - self.top : bottom - self.top, left - self.left : right - self.left]
            canvas[top:bottom, left:right][covered] = value

    def scaled(self, x: float, y: float) -> "Bitmap":
        """Itself: bitmaps are in pixels."""
        return self


def encode_runs(flat: NDArray[Any]) -> NDArray[np.int64]:
    """The lengths of runs of zeros and others in turn, beginning with zeros (maybe 0 of them)."""
    covered = np.concatenate(([False], flat != 0, [False]))
    changes = np.flatnonzero(covered[1:] != covered[:-1])
    runs = np.diff(np.concatenate(([0], changes, [len(flat)])))
    return runs if runs[-1] or len(runs) == 1 else runs[:-1]


@dataclass(frozen=True, slots=True)
class IdMask:
    """The pixels of a PNG whose number red + 256 green + 65536 blue is one of `ids` (COCO panoptic)."""

    path: Path
    ids: tuple[int, ...]

    def paint(self, canvas: Labels, value: int) -> None:
        """Copy it. `DataError` if the file cannot be read or is of another size."""
        numbers = _read_numbers(self.path, *self._state())
        if numbers.shape != canvas.shape:
            sizes = [f"{height}x{width}" for height, width in (numbers.shape, canvas.shape)]
            raise DataError(f"label file {self.path} is {sizes[0]} but its image {sizes[1]} (height x width)")
        canvas[np.isin(numbers, self.ids)] = value

    def _state(self) -> tuple[int, int]:
        """Size and time of change, by which another file of this name is told; zeros if there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def scaled(self, x: float, y: float) -> "IdMask":
        """Itself: it is in pixels."""
        return self


@lru_cache(maxsize=4)
def _read_numbers(path: Path, size: int, changed: int) -> NDArray[np.int32]:
    mask = read_mask(path, expand_palette=True)
    if mask.ndim != 3:
        raise DataError(f"label file {path} has one channel; a panoptic one has three")
    red, green, blue = (channel.astype(np.int32) for channel in cv2.split(mask))
    numbers: NDArray[np.int32] = red | green << 8 | blue << 16
    return numbers


class Shape(NamedTuple):
    """A class id, or `IGNORE_INDEX`, and where it is."""

    label: int
    area: Area


@dataclass(frozen=True, eq=False, slots=True)
class Drawing:
    """The labels of one image as shapes.

    Attributes:
        shapes: in the order in which they are drawn: later ones cover earlier ones.
        fill: the class id of the pixels that no shape covers; `IGNORE_INDEX` if they have no label.
        size: (height, width) in pixels as the label file states it; None if it does not.
        is_relative: whether coordinates are parts of the image's width and height, 0 to 1, instead of pixels.
        problem: why the label file could not be read; drawing it is an error then. "" if it could.
    """

    shapes: tuple[Shape, ...]
    fill: int = IGNORE_INDEX
    size: tuple[int, int] | None = None
    is_relative: bool = False
    problem: str = ""

    def draw(self, height: int, width: int) -> Labels:
        """The label map: height x width uint8 class ids, 255 for no label.

        Raises:
            DataError: the label file could not be read, or a shape cannot be drawn.
        """
        if self.problem:
            raise DataError(self.problem)
        canvas = np.full((height, width), self.fill, np.uint8)
        for label, area in self.shapes:
            (area.scaled(width, height) if self.is_relative else area).paint(canvas, label)
        return canvas

    def counted(self, height: int, width: int) -> tuple[Labels, int]:
        """The label map, and how many of its pixels no shape covers."""
        used = {shape.label for shape in self.shapes}
        free = next((value for value in range(256) if value not in used), None)
        if free is None:  # all 255 classes and "no label" occur
            covered = replace(self, shapes=tuple(Shape(1, shape.area) for shape in self.shapes), fill=0)
            return self.draw(height, width), int((covered.draw(height, width) == 0).sum())
        labels = replace(self, fill=free).draw(height, width)
        is_free = labels == free
        labels[is_free] = self.fill
        return labels, int(np.count_nonzero(is_free))

    def digest(self) -> str:
        """Of all that decides the label map, so that a run notices when labels change."""
        found = hashlib.blake2b(
            repr((self.fill, self.size, self.is_relative, bool(self.problem))).encode(), digest_size=8
        )
        for label, area in self.shapes:
            found.update(f"{label} {type(area).__name__}".encode())
            for value in (getattr(area, name) for name in type(area).__slots__):  # type: ignore[attr-defined]
                parts = value if isinstance(value, tuple) else (value,)
                for part in parts:
                    part = part.name if isinstance(part, Path) else part  # data sets may be moved
                    found.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
                    found.update(b"|")
        return found.hexdigest()


# Directions of border edges, clockwise about their pixel: along its top, right, bottom and left side, as
# (row, column) of the pixel ahead at the right hand, of the one ahead at the left hand, and of the edge's end.
_AHEAD_RIGHT = ((0, 1), (1, 0), (0, -1), (-1, 0))
_AHEAD_LEFT = ((-1, 1), (1, 1), (1, -1), (-1, -1))
_END = ((0, 1), (1, 1), (1, 0), (0, 0))


@dataclass(frozen=True, eq=False)
class Outline:
    """A connected region of one class (pixels that share a side).

    Attributes:
        label: the class id.
        exterior: N x 2 corners (x, y) in pixels, clockwise as seen; the first is not repeated.
        holes: the same for each hole, counter-clockwise.
        box: left, top, right, bottom of its pixels; right and bottom are exclusive.
        num_pixels: that it covers, before simplification.
        exact: all rings before simplification.
    """

    label: int
    exterior: Points
    holes: tuple[Points, ...]
    box: tuple[int, int, int, int]
    num_pixels: int
    exact: tuple[Points, ...]

    @property
    def rings(self) -> tuple[Points, ...]:
        """The exterior and the holes."""
        return (self.exterior, *self.holes)

    def mask(self) -> NDArray[np.bool_]:
        """The pixels of its box, bottom - top x right - left, that it covers, before simplification."""
        left, top, right, bottom = self.box
        canvas = np.zeros((bottom - top, right - left), np.uint8)
        Polygon(tuple(ring - (left, top) for ring in self.exact)).paint(canvas, 1)
        return canvas.astype(bool)


def trace(labels: Labels, *, tolerance: float = 0.0) -> list[Outline]:
    """The outlines of all regions of a label map, by class and then from the top.

    Args:
        labels: H x W uint8 class ids; pixels of `IGNORE_INDEX` belong to no region.
        tolerance: how far, in pixels, an outline may be from the border of its pixels (Douglas-Peucker); 0 is exact.
            Every ring is simplified by itself, so neighbours may overlap or leave gaps of up to twice the tolerance.
    """
    regions, classes = _regions(labels)
    rings: list[list[tuple[float, Points]]] = [[] for _ in classes]
    for region, corners in _rings(regions):
        rings[region].append((_signed_area(corners), corners))
    found = []
    for label, members in zip(classes, rings, strict=True):
        members.sort(key=lambda member: -member[0])  # the exterior turns clockwise: it alone has a positive area
        exterior, holes = members[0][1], [corners for _, corners in members[1:]]
        (left, top), (right, bottom) = exterior.min(0).astype(int).tolist(), exterior.max(0).astype(int).tolist()
        exact = (exterior, *holes)
        exterior, *holes = (simplify(ring, tolerance) for ring in exact)
        size = round(sum(area for area, _ in members))
        found.append(Outline(label, exterior, tuple(holes), (left, top, right, bottom), size, exact))
    return found


def simplify(ring: Points, tolerance: float) -> Points:
    """The ring with fewer points, none of whose lines is further than `tolerance` pixels from the points left out.

    A ring that would shrink to a line stays as it is.
    """
    if tolerance <= 0:
        return ring
    fewer = cv2.approxPolyDP(ring.astype(np.float32)[:, None], tolerance, True)[:, 0].astype(np.float64)
    return fewer if len(fewer) >= 3 else ring


def join_holes(outline: Outline) -> Points:
    """One ring for formats without holes: each hole is reached over a line that is passed twice, there and back.

    Filled by the even-odd rule of `shapes.py` it covers the same pixels; programs that also draw a polygon's edges show
    the line.
    """
    ring = outline.exterior
    for hole in outline.holes:
        apart = ((ring[:, None] - hole[None]) ** 2).sum(2) if len(ring) * len(hole) < 2**22 else None
        here, there = (0, 0) if apart is None else divmod(int(apart.argmin()), len(hole))
        turned = np.roll(hole, -there, axis=0)
        ring = np.concatenate([ring[: here + 1], turned, turned[:1], ring[here:]])
    return ring


def _regions(labels: Labels) -> tuple[NDArray[np.int32], list[int]]:
    """Region numbers a pixel (-1 for no label) with a border of -1 around, and the class of each region."""
    numbers = np.full((labels.shape[0] + 2, labels.shape[1] + 2), -1, np.int32)
    classes: list[int] = []
    for label in np.unique(labels).tolist():
        if label == IGNORE_INDEX:
            continue
        is_label = (labels == label).astype(np.uint8)
        count, parts = cv2.connectedComponents(is_label, connectivity=4, ltype=cv2.CV_32S)
        inner = numbers[1:-1, 1:-1]
        np.copyto(inner, parts + (len(classes) - 1), where=is_label.astype(bool))
        classes += [label] * (count - 1)
    return numbers, classes


def _rings(regions: NDArray[np.int32]) -> list[tuple[int, Points]]:
    """The region and the corners of every closed border, for regions with a border of -1 around them."""
    width = regions.shape[1]
    flat = regions.ravel()
    own = [np.flatnonzero((flat >= 0) & (flat != np.roll(flat, -_step(side, width)))) for side in range(4)]
    offsets = np.cumsum([0, *map(len, own)])
    number = np.full((4, flat.size), -1, np.int32)
    for side, pixels in enumerate(own):
        number[side, pixels] = offsets[side] + np.arange(len(pixels))
    following = np.concatenate([_following(flat, number, side, own[side], width) for side in range(4)])
    ends = np.concatenate([
        np.stack([pixels % width - 1 + _END[side][1], pixels // width - 1 + _END[side][0]], 1)
        for side, pixels in enumerate(own)
    ])  # fmt: skip
    sides = np.repeat(np.arange(4), [len(pixels) for pixels in own])
    is_corner = sides[following] != sides
    region = flat[np.concatenate(own)].tolist()
    return [(region[walk[0]], ends[[edge for edge in walk if is_corner[edge]]].astype(np.float64))
            for walk in _walks(following.tolist())]  # fmt: skip


def _step(side: int, width: int) -> int:
    """From a pixel to the neighbour across one of its sides, in flat indices."""
    return (-width, 1, width, -1)[side]


def _following(
    flat: NDArray[np.int32], number: NDArray[np.int32], side: int, pixels: NDArray[np.int64], width: int
) -> NDArray[np.int32]:
    """The edge after each edge along `side` of `pixels`: to the right if it can, so that regions meet at sides only."""
    right, left = (pixels + rows * width + columns for rows, columns in (_AHEAD_RIGHT[side], _AHEAD_LEFT[side]))
    turns_right = flat[right] != flat[pixels]
    is_straight = flat[left] != flat[pixels]
    straight_or_left = np.where(is_straight, number[side, right], number[(side - 1) % 4, left])
    found: NDArray[np.int32] = np.where(turns_right, number[(side + 1) % 4, pixels], straight_or_left)
    return found


def _walks(following: list[int]) -> list[list[int]]:
    """The cycles of a permutation."""
    seen = bytearray(len(following))
    found = []
    for start in range(len(following)):
        if seen[start]:
            continue
        walk, edge = [], start
        while not seen[edge]:
            seen[edge] = 1
            walk.append(edge)
            edge = following[edge]
        found.append(walk)
    return found


def _signed_area(corners: Points) -> float:
    x, y = corners.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)

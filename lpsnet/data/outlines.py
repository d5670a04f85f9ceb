"""The outlines of label maps: polygons with holes along the borders of pixels, simplified to a stated tolerance.

Corners have whole coordinates: pixel (row 0, column 0) has the corners (0, 0) and (1, 1). Drawn again by the rule of
`shapes.py`, outlines that were not simplified give exactly the pixels that they were made from.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Labels
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.shapes import Points, Polygon

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

"""Buildings of a generated street, as strokes."""

import math
from collections.abc import Sequence

import numpy as np

from lpsnet.data.scenes.canvas import BUILDING, VEGETATION, Colour, Place, Point, Stroke, board, pick, shade

_WALLS: Sequence[Colour] = (
    (176, 108, 84),
    (204, 188, 160),
    (150, 146, 140),
    (214, 206, 196),
    (140, 104, 78),
    (120, 128, 140),
    (196, 158, 110),
)
_ROOFS: Sequence[Colour] = ((120, 62, 48), (78, 74, 76), (96, 84, 70))
_GLASS: Colour = (52, 64, 78)

Interval = tuple[float, float]


def building(rng: np.random.Generator, *, face: float, ends: Interval, height: float, sunlight: float) -> list[Stroke]:
    """A block along the street: its front stands `face` metres right, between the two `ends` metres ahead.

    `sunlight` is the brightness of the front; the wall that faces the camera has 0.85.
    """
    near, far = ends
    outer = face + math.copysign(rng.uniform(8, 14), face)
    wall, glass = pick(rng, _WALLS), shade(_GLASS, rng.uniform(0.6, 2.2))
    floor, window, filled = rng.uniform(2.8, 3.6), rng.uniform(1.8, 3.2), rng.uniform(0.4, 0.65)
    strokes = _roof(rng, (face, outer), ends, height) if rng.random() < 0.5 else []
    num_floors = max(1, int(height / floor))
    rows = [((number + 0.3) * floor, (number + 0.75) * floor) for number in range(num_floors)]
    for start, stop, light in (((face, near), (outer, near), 0.85), ((face, near), (face, far), sunlight)):
        columns = _parts(max(1, int(math.dist(start, stop) / window)), filled)
        for wide, high, colour in (
            ([(0.0, 1.0)], [(0.0, height)], wall),
            ([(0.0, 1.0)], [(0.92 * floor, 1.02 * floor)], shade(wall, 0.75)),
            (columns, rows, glass),
        ):
            corners = _rectangles(start, stop, wide, high)
            strokes.append(Stroke(corners, shade(colour, light), BUILDING, len(corners) // 4))
    return strokes


def skyline(rng: np.random.Generator, ahead: float) -> list[Stroke]:
    """A row of far houses and trees across the whole view."""
    strokes, start = [], -200.0
    while start < 200:
        stop, height = start + rng.uniform(6, 30), rng.uniform(5, 16)
        if rng.random() < 0.5:
            peak = [(stop + 3, height * 0.5), ((start + stop) / 2, height * 0.8), (start - 3, height * 0.5)]
            green = pick(rng, ((70, 96, 60),))
            strokes.append(board((0, ahead), [(start, 0), (stop, 0), *peak], green, VEGETATION))
        else:
            outline = [(start, 0.0), (stop, 0.0), (stop, height), (start, height)]
            strokes.append(board((0, ahead), outline, pick(rng, _WALLS), BUILDING))
        start = stop
    return strokes


def _roof(rng: np.random.Generator, sides: Interval, ends: Interval, height: float) -> list[Stroke]:
    (face, outer), (near, far) = sides, ends
    ridge, top, colour = (face + outer) / 2, height + rng.uniform(2, 4), pick(rng, _ROOFS)
    slope: list[Point] = [(face, height, near), (face, height, far), (ridge, top, far), (ridge, top, near)]
    gable: list[Point] = [(face, height, near), (outer, height, near), (ridge, top, near)]
    return [Stroke(slope, colour, BUILDING), Stroke(gable, shade(colour, 0.8), BUILDING)]


def _parts(count: int, filled: float) -> list[Interval]:
    """The middle, a share `filled`, of each of `count` equal parts of 0 to 1."""
    return [((number + 0.5 - filled / 2) / count, (number + 0.5 + filled / 2) / count) for number in range(count)]


def _rectangles(start: Place, stop: Place, columns: Sequence[Interval], rows: Sequence[Interval]) -> list[Point]:
    """Upright rectangles on the wall from start to stop, four corners each, one for every row and column.

    Columns are intervals of 0 to 1 along the wall; rows are intervals in metres above the ground.
    """
    (x, z), (dx, dz) = start, (stop[0] - start[0], stop[1] - start[1])
    feet = [((x + a * dx, z + a * dz), (x + b * dx, z + b * dz)) for a, b in columns]
    return [
        corner
        for low, high in rows
        for (ax, az), (bx, bz) in feet
        for corner in ((ax, low, az), (bx, low, bz), (bx, high, bz), (ax, high, az))
    ]

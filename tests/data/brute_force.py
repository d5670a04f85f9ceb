"""Drawing by definition: every pixel's centre is compared with every shape in exact arithmetic, slowly."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

Ring = Sequence[tuple[float, float]]


def is_inside(x: Fraction, y: Fraction, rings: Sequence[Ring]) -> bool:
    """Even-odd: whether a ray to the left crosses an odd number of edges; an edge includes its upper end only."""
    crossings = 0
    for ring in rings:
        corners = [(Fraction(a), Fraction(b)) for a, b in ring]
        for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
            if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
                crossings += 1
    return crossings % 2 == 1


def polygon(rings: Sequence[Ring], height: int, width: int, *, shift: float = 0.0) -> np.ndarray:
    """H x W bool: whether the centre of each pixel, `shift` to the right, is inside."""
    half = Fraction(1, 2)
    plain = [[(float(x), float(y)) for x, y in ring] for ring in rings]
    return np.array(
        [[is_inside(c + half + Fraction(shift), r + half, plain) for c in range(width)] for r in range(height)]
    )


def near(points: Ring, reach: float, height: int, width: int) -> np.ndarray:
    """H x W bool: whether the centre of each pixel is at most `reach` from a line through the points."""
    found = np.zeros((height, width), bool)
    segments = list(pairwise(points)) or [(points[0], points[0])]
    for row in range(height):
        for column in range(width):
            centre = complex(column + 0.5, row + 0.5)
            for first, second in segments:
                a, b = complex(*first), complex(*second)
                steps = [a + (b - a) * k / 400 for k in range(401)]
                found[row, column] |= min(abs(centre - step) for step in steps) <= reach
    return found


def covered(*layers: tuple[int, np.ndarray], fill: int = 255) -> np.ndarray:
    """A label map of (class, covered pixels) layers, later ones on top."""
    labels = np.full(layers[0][1].shape, fill, np.uint8)
    for label, mask in layers:
        labels[mask] = label
    return labels

"""Shapes against exact arithmetic pixel by pixel, and pycocotools' polygons."""

import brute_force
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from lpsnet.data.shapes import Bitmap, Dots, Drawing, Ellipse, Polygon, Shape, Stroke, encode_runs
from lpsnet.errors import DataError

HEIGHT, WIDTH = 9, 11


def painted(area: object, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    canvas = np.zeros((height, width), np.uint8)
    area.paint(canvas, 1)  # type: ignore[attr-defined]
    return canvas.astype(bool)


def polygon(*rings: object) -> Polygon:
    return Polygon(tuple(np.array(ring, np.float64) for ring in rings))


# Whole, half and quarter pixels, on which centres lie on edges and corners
_quarters = st.integers(-12, 56).map(lambda value: value / 4)
_anywhere = st.floats(-3, 14, allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=150)
@given(st.lists(st.lists(st.tuples(_quarters, _quarters), min_size=1, max_size=7), min_size=1, max_size=3))
def test_polygons_are_the_pixels_whose_centres_are_inside(rings: list[list[tuple[float, float]]]) -> None:
    """Holes, self-crossings, points and lines, and what lies beyond the border, all in one rule."""
    assert (painted(polygon(*rings)) == brute_force.polygon(rings, HEIGHT, WIDTH)).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(st.tuples(_anywhere, _anywhere), min_size=1, max_size=7), min_size=1, max_size=2))
def test_polygons_anywhere(rings: list[list[tuple[float, float]]]) -> None:
    """But for centres that are less than a millionth of a pixel beside an edge, where rounding decides."""
    left, right = (brute_force.polygon(rings, HEIGHT, WIDTH, shift=shift) for shift in (-1e-6, 1e-6))
    assert (painted(polygon(*rings)) == left)[left == right].all()


def test_half_pixels_by_hand() -> None:
    """From x = 1.5 to 3.5: the centre 1.5 is on the left edge and in, 3.5 on the right edge and out; so for rows."""
    box = [(1.5, 0.5), (3.5, 0.5), (3.5, 2.5), (1.5, 2.5)]
    wanted = np.zeros((4, 5), bool)
    wanted[0:2, 1:3] = True
    assert (painted(polygon(box), 4, 5) == wanted).all()
    assert (painted(polygon([(1, 0), (3, 0), (3, 2), (1, 2)]), 4, 5) == wanted).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(_quarters | _anywhere, _quarters | _anywhere), min_size=2, max_size=5))
def test_neighbours_neither_overlap_nor_leave_a_gap(edge: list[tuple[float, float]]) -> None:
    """The image cut in two along a line from top to bottom: every pixel is in one of the two."""
    line = [
        (5.0, -1.0),
        *((x, y) for x, y in sorted(edge, key=lambda point: point[1]) if -1 < y < HEIGHT + 1),
        (5.0, 10.0),
    ]
    left = painted(polygon([*line, (-20, 10), (-20, -1)]))
    right = painted(polygon([*line, (40, 10), (40, -1)]))
    assert (left ^ right).all()


def test_a_hole_and_an_island_in_it() -> None:
    rings = [[(1, 1), (9, 1), (9, 8), (1, 8)], [(2, 2), (8, 2), (8, 7), (2, 7)], [(4, 4), (6, 4), (6, 6), (4, 6)]]
    assert painted(polygon(*rings)).sum() == 8 * 7 - 6 * 5 + 2 * 2


@pytest.mark.parametrize("number", [1e6, -1e6])
def test_far_beyond_the_border(number: float) -> None:
    assert painted(polygon([(-1e6, -1e6), (1e6, -1e6), (1e6, 1e6), (-1e6, 1e6)])).all()
    assert not painted(polygon([(number, number), (number + 5, number), (number, number + 5)])).any()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_differs_at_the_outline_alone() -> None:
    """It rounds corners to a fifth of a pixel and walks along edges; 40 random polygons of about 40 pixels across."""
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(40):
        turn = np.sort(rng.uniform(0, 2 * np.pi, 12))
        ring = 32 + rng.uniform(12, 30, (12, 1)) * np.column_stack([np.cos(turn), np.sin(turn)])
        own = painted(polygon(ring), 64, 64)
        theirs = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist()], 64, 64))).astype(bool)
        shares.append((own ^ theirs).sum() / own.sum())
        line = painted(Stroke(np.vstack([ring, ring[:1]]), 1.5), 64, 64)
        assert ((own ^ theirs) <= line).all()
    assert np.mean(shares) < 0.03


@settings(deadline=None, max_examples=40)
@given(_anywhere, _anywhere, st.floats(0.1, 6), st.floats(0.1, 6), st.floats(-400, 400))
def test_ellipses(x: float, y: float, radius_x: float, radius_y: float, degrees: float) -> None:
    """By the sum of the distances to the two foci."""
    long, short = max(radius_x, radius_y), min(radius_x, radius_y)
    turn = np.deg2rad(degrees + (0 if radius_x >= radius_y else 90))
    focus = np.sqrt(long**2 - short**2) * np.exp(1j * turn)
    centres = (np.arange(WIDTH) + 0.5)[None] + 1j * (np.arange(HEIGHT) + 0.5)[:, None]
    total = abs(centres - complex(x, y) - focus) + abs(centres - complex(x, y) + focus)
    is_sure = abs(total - 2 * long) > 1e-6
    assert (painted(Ellipse(x, y, radius_x, radius_y, degrees)) == (total < 2 * long))[is_sure].all()


@pytest.mark.parametrize("points", [[(2, 3), (8.5, 5)], [(1, 1), (9, 1), (4, 8)], [(5, 4)], [(-4, 4), (30, 4)]])
def test_strokes(points: list[tuple[float, float]]) -> None:
    own = painted(Stroke(np.array(points, np.float64), 3.0))
    assert (own >= brute_force.near(points, 1.49, HEIGHT, WIDTH)).all()
    assert (own <= brute_force.near(points, 1.51, HEIGHT, WIDTH)).all()


def test_dots_are_discs() -> None:
    own = painted(Dots(np.array([(2.0, 2.0), (8.0, 6.0)]), 4.0))
    wanted = brute_force.near([(2, 2)], 2, HEIGHT, WIDTH) | brute_force.near([(8, 6)], 2, HEIGHT, WIDTH)
    assert (own == wanted).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(-6, 12), st.integers(-6, 12), st.integers(1, 6), st.integers(1, 6), st.randoms(), st.booleans())
def test_bitmaps(left: int, top: int, height: int, width: int, random: object, by_columns: bool) -> None:
    mask = np.array([[random.random() < 0.5 for _ in range(width)] for _ in range(height)])  # type: ignore[attr-defined]
    runs = encode_runs((mask.T if by_columns else mask).ravel())
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    for row, column in np.argwhere(mask):
        if 0 <= top + row < HEIGHT and 0 <= left + column < WIDTH:
            wanted[top + row, left + column] = True
    assert (painted(Bitmap(left, top, height, width, runs, by_columns)) == wanted).all()
    assert (Bitmap.of(mask).mask() == mask).all()


@pytest.mark.parametrize("runs", [[5, 2], [3, -1, 2], [2**62, 2**62, 4], []])
def test_run_lengths_that_do_not_add_up(runs: list[int]) -> None:
    with pytest.raises(DataError, match="do not add up"):
        Bitmap(0, 0, 2, 2, np.array(runs, np.int64))


def test_order_fill_and_count() -> None:
    below, above = polygon([(0, 0), (6, 0), (6, 6), (0, 6)]), polygon([(3, 3), (9, 3), (9, 9), (3, 9)])
    for fill in (255, 0, 7):
        drawing = Drawing((Shape(0, below), Shape(255, above)), fill)
        labels, uncovered = drawing.counted(HEIGHT, WIDTH)
        wanted = brute_force.covered((0, painted(below)), (255, painted(above)), fill=fill)
        assert (labels == wanted).all()
        assert (drawing.draw(HEIGHT, WIDTH) == wanted).all()
        assert uncovered == (~(painted(below) | painted(above))).sum()


def test_uncovered_pixels_are_counted_when_all_values_occur() -> None:
    dots = tuple(
        Shape(label, Bitmap.of(np.ones((1, 1), bool), left=label % 20, top=label // 20)) for label in range(256)
    )
    labels, uncovered = Drawing(dots).counted(20, 20)
    assert uncovered == 400 - 256
    assert labels.ravel()[:256].tolist() == list(range(256))


def test_relative_coordinates_are_scaled() -> None:
    relative = Drawing((Shape(1, polygon([(0.25, 0.5), (0.75, 0.5), (0.75, 1), (0.25, 1)])),), is_relative=True)
    labels = relative.draw(4, 8)
    assert (labels[2:, 2:6] == 1).all()
    assert (labels == 1).sum() == 8


def test_the_digest_depends_on_all_that_is_drawn() -> None:
    one = polygon([(0, 0), (5, 0), (5, 5)])
    drawings = [
        Drawing((Shape(0, one),)),
        Drawing((Shape(1, one),)),
        Drawing((Shape(0, one),), 0),
        Drawing((Shape(0, one),), size=(4, 4)),
        Drawing((Shape(0, polygon([(0, 0), (5, 0), (5, 5.01)])),)),
        Drawing((Shape(0, Ellipse(1, 2, 3, 4)),)),
        Drawing((Shape(0, Ellipse(1, 2, 3, 4, 5)),)),
        Drawing((Shape(0, one), Shape(0, one))),
    ]
    assert len({drawing.digest() for drawing in drawings}) == len(drawings)
    assert Drawing((Shape(0, polygon([(0, 0), (5, 0), (5, 5)])),)).digest() == drawings[0].digest()


def test_a_polygon_that_would_take_all_memory_is_refused() -> None:
    zigzag = np.column_stack([np.zeros(1_000), np.tile([0.0, 10_000.0], 500)])
    with pytest.raises(DataError, match="crosses rows"):
        painted(Polygon((zigzag,)), 10_000, 2)

"""Outlines drawn again are the label map they were traced from; simplified ones stay within the tolerance."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lpsnet.data.shapes import Polygon, join_holes, simplify, trace
from lpsnet.data.synthetic import SceneSplit

_maps = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 254, 255])
)


def drawn(rings: object, shape: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros(shape, np.uint8)
    Polygon(tuple(rings)).paint(canvas, 1)  # type: ignore[arg-type]
    return canvas.astype(bool)


@settings(deadline=None, max_examples=200)
@given(_maps)
def test_every_pixel_is_in_one_outline_of_its_class(labels: np.ndarray) -> None:
    """And every outline is one region of pixels that share sides (OpenCV's components), its hole rings included."""
    times = np.zeros(labels.shape, int)
    for outline in trace(labels):
        inside = drawn(outline.rings, labels.shape)
        times += inside
        assert (labels[inside] == outline.label).all()
        assert inside.sum() == outline.num_pixels
        count, _, stats, _ = cv2.connectedComponentsWithStats(inside.astype(np.uint8), connectivity=4)
        left, top, width, height, _ = stats[1]
        assert count == 2
        assert outline.box == (left, top, left + width, top + height)
        around = np.pad(~inside, 1, constant_values=True).astype(np.uint8)
        assert len(outline.holes) == cv2.connectedComponents(around, connectivity=8)[0] - 2
        assert (outline.mask() == inside[top : top + height, left : left + width]).all()
        assert (drawn([join_holes(outline)], labels.shape) == inside).all()
        corners = np.concatenate(outline.rings)
        assert (corners == np.round(corners)).all()
    assert (times == (labels != 255)).all()


def test_a_ring_by_hand() -> None:
    labels = np.full((5, 6), 255, np.uint8)
    labels[1:4, 1:5] = 3
    labels[2, 2:4] = 255
    (outline,) = trace(labels)
    assert {tuple(corner) for corner in outline.exterior.tolist()} == {(1, 1), (5, 1), (5, 4), (1, 4)}
    assert len(outline.exterior) == 4
    (hole,) = outline.holes
    assert {tuple(corner) for corner in hole.tolist()} == {(2, 2), (4, 2), (4, 3), (2, 3)}
    assert (outline.label, outline.num_pixels, outline.box) == (3, 10, (1, 1, 5, 4))


def test_pixels_that_meet_at_a_corner_are_two_regions() -> None:
    assert len(trace(np.array([[1, 0], [0, 1]], np.uint8))) == 4


def test_nothing_labelled_gives_nothing() -> None:
    assert trace(np.full((4, 4), 255, np.uint8)) == []


@pytest.mark.parametrize("tolerance", [0.4, 1.0, 3.0])
def test_simplified_rings_stay_within_the_tolerance(tolerance: float) -> None:
    """Every corner left out is that near to a line of the simplified ring."""
    labels = SceneSplit(size=(128, 192), count=1, seed=1, name="x")[0].labels
    for outline in trace(labels):
        for ring in outline.rings:
            fewer = simplify(ring, tolerance)
            assert len(fewer) <= len(ring)
            a, b = fewer, np.roll(fewer, -1, axis=0)
            along = ((ring[:, None] - a) * (b - a)).sum(2) / np.maximum(((b - a) ** 2).sum(1), 1e-12)
            nearest = a + np.clip(along, 0, 1)[..., None] * (b - a)
            assert (np.sqrt(((ring[:, None] - nearest) ** 2).sum(2)).min(1) <= tolerance + 1e-5).all()


def test_simplification_removes_most_points_and_keeps_the_classes() -> None:
    labels = SceneSplit(size=(256, 512), count=1, seed=0, name="x")[0].labels
    exact, fewer = trace(labels), trace(labels, tolerance=1.0)
    assert sum(len(ring) for o in fewer for ring in o.rings) < 0.3 * sum(len(ring) for o in exact for ring in o.rings)
    again = np.full(labels.shape, 255, np.uint8)
    for outline in sorted(fewer, key=lambda outline: -outline.num_pixels):
        Polygon(outline.rings).paint(again, outline.label)
    assert (again == labels).mean() > 0.98

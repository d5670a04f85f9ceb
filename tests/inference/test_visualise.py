"""Colours, overlays and legends: against answers written by hand and a pixel at a time in Python."""

import numpy as np
import pytest

from lpsnet.data.labels import CAMVID, CITYSCAPES, IGNORE_INDEX, LabelSpace
from lpsnet.errors import DataError
from lpsnet.inference.result import colourise, legend, overlay, side_by_side

SPACE = LabelSpace(name="three", names=("red", "green", "blue"), colours=((200, 0, 0), (0, 200, 0), (0, 0, 200)))


def noise(*shape: int, high: int = 256) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape, dtype=np.uint8)


def test_colourise_by_hand() -> None:
    labels = np.array([[0, 1], [2, IGNORE_INDEX]], np.uint8)
    expected = [[[200, 0, 0], [0, 200, 0]], [[0, 0, 200], [0, 0, 0]]]
    np.testing.assert_array_equal(colourise(labels, SPACE), expected)


def test_colourise_each_class_of_a_real_space() -> None:
    labels = np.arange(19, dtype=np.uint8)[None]
    np.testing.assert_array_equal(colourise(labels, CITYSCAPES)[0], CITYSCAPES.colours)


def test_colourise_the_largest_space() -> None:
    """255 classes use every id but the one of unlabelled pixels."""
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.array([*LabelSpace.numbered(255).colours, (0, 0, 0)]).reshape(16, 16, 3)
    np.testing.assert_array_equal(colourise(labels, LabelSpace.numbered(255)), expected)


def test_overlay_by_hand() -> None:
    """A quarter of the colour and three quarters of the image; the unlabelled pixel is the image."""
    image = np.full((1, 2, 3), 100, np.uint8)
    labels = np.array([[0, IGNORE_INDEX]], np.uint8)
    result = overlay(image, labels, SPACE, opacity=0.25)
    np.testing.assert_array_equal(result, [[[125, 75, 75], [100, 100, 100]]])


@pytest.mark.parametrize("size", [(1, 1), (4, 1), (1, 4), (1, 3000)])
def test_the_smallest_images(size: tuple[int, int]) -> None:
    """OpenCV takes small arrays for something else: a number, or a colour."""
    image, labels = np.full((*size, 3), 100, np.uint8), np.zeros(size, np.uint8)
    np.testing.assert_array_equal(overlay(image, labels, SPACE, opacity=1.0), np.tile(SPACE.colours[0], (*size, 1)))
    labels[:] = IGNORE_INDEX
    np.testing.assert_array_equal(overlay(image, labels, SPACE, opacity=1.0), image)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.55, 1.0])
def test_overlay_pixel_by_pixel(opacity: float) -> None:
    image, labels = noise(13, 17, 3), noise(13, 17, high=4)
    labels[labels == 3] = IGNORE_INDEX
    before = image.copy(), labels.copy()
    result = overlay(image, labels, SPACE, opacity=opacity)
    for row, column in np.ndindex(13, 17):
        expected = image[row, column].astype(float)
        if labels[row, column] != IGNORE_INDEX:
            expected = (1 - opacity) * expected + opacity * np.array(SPACE.colours[labels[row, column]])
        assert np.abs(result[row, column] - expected).max() <= 0.51
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


def test_views_are_taken_as_they_are() -> None:
    """Mirrored and strided arrays give the same as their copies."""
    image, labels = noise(20, 30, 3)[::2, ::-1], noise(20, 30, high=3)[::2, ::-1]
    expected = overlay(image.copy(), labels.copy(), SPACE)
    np.testing.assert_array_equal(overlay(image, labels, SPACE), expected)


@pytest.mark.parametrize(
    ("image", "labels", "words"),
    [
        (noise(4, 4, 3), noise(4, 5, high=3), "4x4 and 4x5"),
        (noise(4, 4), noise(4, 4, high=3), "H x W x 3"),
        (noise(4, 4, 4), noise(4, 4, high=3), "H x W x 3"),
        (noise(4, 4, 3).astype(np.float32), noise(4, 4, high=3), "float32"),
        (noise(4, 4, 3), noise(4, 4, high=3).astype(np.int64), "int64"),
        (noise(4, 4, 3), noise(4, 4, 1, high=3), "H x W uint8"),
        (noise(4, 4, 3), np.full((4, 4), 3, np.uint8), r"\[3\]; 0 to 2 and 255"),
        (noise(0, 4, 3), noise(0, 4, high=3), "H x W"),
    ],
)
def test_wrong_input_is_named_in_one_line(image: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        overlay(image, labels, SPACE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("opacity", [-0.1, 1.1, float("nan")])
def test_opacity_is_a_share(opacity: float) -> None:
    with pytest.raises(DataError, match="opacity"):
        overlay(noise(2, 2, 3), noise(2, 2, high=3), SPACE, opacity=opacity)


def has_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(axis=2)


@pytest.mark.parametrize("width", [None, 64, 300, 1024])
@pytest.mark.parametrize("space", [SPACE, CAMVID, CITYSCAPES])
def test_legend_shows_every_colour_and_text_beside_it(space: LabelSpace, width: int | None) -> None:
    image = legend(space, width=width)
    assert image.dtype == np.uint8
    assert width is None or image.shape[1] == width
    assert (image[0] == 255).all()
    patches = [has_colour(image, colour) for colour in space.colours]
    assert min(patch.sum() for patch in patches) >= 4
    letters = (image.max(axis=2) < 150) & (np.ptp(image, axis=2) == 0) & ~np.any(patches, axis=0)
    assert letters.sum() > 5 * space.num_classes
    assert (image[:, -1] == 255).all()  # nothing is cut off


def test_legend_grows_with_its_text() -> None:
    small, large = legend(CAMVID, text_height=10), legend(CAMVID, text_height=30)
    assert large.shape[0] == 3 * small.shape[0]
    assert large.shape[1] == pytest.approx(3 * small.shape[1], rel=0.1)


def test_legend_uses_the_width_for_columns() -> None:
    assert (
        legend(CITYSCAPES, width=1500).shape[0] < legend(CITYSCAPES, width=500).shape[0] < legend(CITYSCAPES).shape[0]
    )


def test_legend_with_shares_and_foreign_names() -> None:
    """Shares need room; names that OpenCV's font cannot write still give a legend."""
    space = LabelSpace(name="foreign", names=("Straße", "чужой"), colours=((9, 9, 200), (200, 9, 9)))
    assert legend(space, shares=(0.5, float("nan"))).shape[1] > legend(space).shape[1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"shares": (0.1,)}, "3 shares"), ({"width": 0}, "width"), ({"text_height": 1}, "text_height")],
)
def test_wrong_legends_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        legend(SPACE, **settings)  # type: ignore[arg-type]


def test_side_by_side_by_hand() -> None:
    left, right = np.full((2, 3, 3), 1, np.uint8), np.full((2, 1, 3), 2, np.uint8)
    result = side_by_side(left, right, gap=2)
    assert result[:, :, 0].tolist() == [[1, 1, 1, 255, 255, 2]] * 2
    np.testing.assert_array_equal(side_by_side(left), left)
    for wrong in ((), (left, right[:1]), (left, right[:, :, 0])):
        with pytest.raises(DataError):
            side_by_side(*wrong)

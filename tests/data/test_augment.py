"""Augmentation: against slices, mirrors and repeats, cv2.resize, and a warp written with loops of NumPy."""

import colorsys
import math
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from lpsnet.data.augment import MEAN_COLOUR, Augmentation, colour_matrix
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError, LpsnetError

STILL = {"flip_probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose red is the column, whose green is the row, and labels that no two neighbours share."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack((columns, rows, rows * 0 + 50), axis=2).astype(np.uint8)
    return image, ((rows * 7 + columns) % 200).astype(np.uint8)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_scale_one_is_an_exact_slice_of_both() -> None:
    image, labels = pair(60, 90)
    augment = Augmentation(crop_size=(40, 50), scale=(1, 1), **STILL)
    corners = set()
    for seed in range(40):
        crop, crop_labels = augment(image, labels, rng(seed))
        left, top = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        corners.add((top, left))
        np.testing.assert_array_equal(crop, image[top : top + 40, left : left + 50])
        np.testing.assert_array_equal(crop_labels, labels[top : top + 40, left : left + 50])
    assert len(corners) > 30


def test_flip_is_an_exact_mirror_of_both() -> None:
    image, labels = pair(31, 47)
    augment = Augmentation(crop_size=(31, 47), scale=(1, 1), **{**STILL, "flip_probability": 1.0})
    crop, crop_labels = augment(image, labels, rng())
    np.testing.assert_array_equal(crop, image[:, ::-1])
    np.testing.assert_array_equal(crop_labels, labels[:, ::-1])


def test_half_of_the_samples_are_flipped() -> None:
    image, labels = pair(8, 8)
    augment = Augmentation(crop_size=(8, 8), scale=(1, 1), **{**STILL, "flip_probability": 0.5})
    generator = rng()
    flipped = [augment(image, labels, generator)[0][0, 0, 0] == 7 for _ in range(400)]
    assert 150 < sum(flipped) < 250


def test_scale_two_repeats_labels_and_agrees_with_resize() -> None:
    image, labels = pair(20, 30)
    augment = Augmentation(crop_size=(40, 60), scale=(2, 2), **STILL)
    crop, crop_labels = augment(image, labels, rng())
    np.testing.assert_array_equal(crop_labels, labels.repeat(2, axis=0).repeat(2, axis=1))
    expected = cv2.resize(image, (60, 40), interpolation=cv2.INTER_LINEAR)
    inside = (slice(1, -1), slice(1, -1))  # the outermost pixels blend with the surround
    assert np.abs(crop[inside].astype(int) - expected[inside]).max() <= 1


@pytest.mark.parametrize("scale", [0.5, 0.63, 0.9, 1.37, 1.9])
def test_image_agrees_with_resize_and_slice(scale: float) -> None:
    image, labels = pair(101, 143)
    height, width = round(101 * scale), round(143 * scale)
    augment = Augmentation(crop_size=(height, width), scale=(scale, scale), **STILL)
    crop, _ = augment(image, labels, rng())
    expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    assert np.abs(crop[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 1


@pytest.mark.parametrize("seed", range(20))
def test_labels_agree_with_a_nearest_warp_in_numpy(seed: int) -> None:
    """The oracle knows only the rule: the centre of a crop's pixel lies in one pixel of the image, or in none."""
    image, labels = pair(70, 110)
    crop_size = (64, 80)
    augment = Augmentation(crop_size=crop_size, **{**STILL, "flip_probability": 1.0})
    _, found = augment(image, labels, rng(seed))
    assert any(
        sure.mean() > 0.4 and ((found == expected) | ~sure).all()
        for expected, sure in candidates(labels, crop_size, seed)
    )


def candidates(labels: np.ndarray, crop_size: tuple[int, int], seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every mirrored crop of the labels at the scale drawn first, one a position, and where it is beyond doubt."""
    scale = rng(seed).uniform(0.5, 2.0)
    padded = np.pad(labels, ((0, 1), (0, 1)), constant_values=IGNORE_INDEX)  # index -1 is the surround
    rows, columns = (axis_choices(labels.shape[i], round(labels.shape[i] * scale), crop_size[i]) for i in range(2))
    for row, row_sure in rows:
        for column, column_sure in columns:
            yield padded[np.ix_(row, column[::-1])], np.outer(row_sure, column_sure[::-1])


def axis_choices(length: int, scaled: int, crop: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The source index of every pixel along an axis, for each offset; in doubt within 1/256 pixel of a boundary."""
    choices = []
    for offset in range(min(0, crop - scaled), max(0, crop - scaled) + 1):
        position = (np.arange(crop) - offset + 0.5) * length / scaled
        source = np.floor(position).astype(int)
        sure = np.abs(position - np.rint(position)) > 1 / 256  # OpenCV's positions are whole 1/1024s
        choices.append((np.where((source >= 0) & (source < length), source, -1), sure))
    return choices


@pytest.mark.parametrize("flip", [0.0, 1.0])
@pytest.mark.parametrize("scale", [0.7, 1.0, 1.6])
def test_image_and_labels_stay_aligned(scale: float, flip: float) -> None:
    """A vertical edge in the image lies where the labels change, to half a pixel."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[:, 37:] = 200
    labels = (image[:, :, 0] > 0).astype(np.uint8)
    augment = Augmentation(crop_size=(40, 50), scale=(scale, scale), **{**STILL, "flip_probability": flip})
    crop, crop_labels = augment(image, labels, rng(3))
    inside = crop_labels != IGNORE_INDEX
    sure = inside & ((crop[:, :, 0] < 60) | (crop[:, :, 0] > 140))
    assert sure.sum() > 0.9 * inside.sum()
    np.testing.assert_array_equal(crop[:, :, 0][sure] > 100, crop_labels[sure] == 1)


def test_smaller_image_lies_inside_the_crop() -> None:
    image, labels = pair(40, 40)
    augment = Augmentation(crop_size=(64, 50), scale=(0.5, 0.5), **{**STILL, "brightness": 0.5})
    places = set()
    for seed in range(30):
        crop, crop_labels = augment(image, labels, rng(seed))
        rows, columns = np.nonzero(crop_labels != IGNORE_INDEX)
        assert rows.max() - rows.min() == columns.max() - columns.min() == 19
        assert rows.size == 400
        assert (crop[crop_labels == IGNORE_INDEX] == MEAN_COLOUR).all()
        places.add((rows.min(), columns.min()))
    assert len(places) > 20


def test_larger_image_fills_the_crop() -> None:
    image, labels = pair(50, 70)
    augment = Augmentation(crop_size=(50, 70), scale=(1, 2))
    for seed in range(30):
        assert (augment(image, labels, rng(seed))[1] != IGNORE_INDEX).all()


def test_scales_are_uniform_in_their_range() -> None:
    image, labels = pair(100, 10)
    augment = Augmentation(crop_size=(400, 40), scale=(0.5, 2.0), **STILL)
    generator = rng()
    scales = [(augment(image, labels, generator)[1] != IGNORE_INDEX).any(axis=1).sum() / 100 for _ in range(600)]
    counts, _ = np.histogram(scales, bins=5, range=(0.5, 2.0))
    assert counts.sum() == 600
    assert counts.min() > 85  # 120 expected, standard deviation 10
    assert counts.max() < 155


def test_same_generator_state_gives_the_same_sample() -> None:
    image, labels = pair(50, 70)
    augment = Augmentation(crop_size=(32, 32), hue_degrees=10, rotation_degrees=5, max_class_share=0.5)
    first, second, third = (
        augment(image, labels, rng(5)),
        augment(image, labels, rng(5)),
        augment(image, labels, rng(6)),
    )
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert not np.array_equal(first[0], third[0])


def test_inputs_are_left_as_they_are() -> None:
    image, labels = pair(50, 70)
    copies = image.copy(), labels.copy()
    Augmentation(crop_size=(50, 70), scale=(1, 1))(image, labels, rng())
    np.testing.assert_array_equal(image, copies[0])
    np.testing.assert_array_equal(labels, copies[1])


def test_small_scales_average_instead_of_skipping_pixels() -> None:
    """One-pixel stripes, scaled to a quarter: their mean, not one of the two colours."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::2] = 200
    augment = Augmentation(crop_size=(8, 8), scale=(0.25, 0.25), **STILL)
    crop, _ = augment(image, np.zeros((64, 64), np.uint8), rng())
    assert np.abs(crop.astype(int) - 100).max() < 40


def test_quarter_turn() -> None:
    """A rotation about the crop's centre: the extreme angles are drawn by a generator that always returns an end."""

    class Ends(np.random.Generator):
        def uniform(self, low: float = 0.0, high: float = 1.0, size: object = None) -> float:
            return high

    image, labels = pair(20, 20)
    augment = Augmentation(crop_size=(20, 20), scale=(1, 1), rotation_degrees=90, **STILL)
    crop, crop_labels = augment(image, labels, Ends(np.random.PCG64(0)))
    np.testing.assert_array_equal(crop, np.rot90(image))
    np.testing.assert_array_equal(crop_labels, np.rot90(labels))


def test_class_share_avoids_crops_of_one_class() -> None:
    """Left three quarters one class: with the limit, most crops are moved to where both are seen."""
    image = np.zeros((40, 160, 3), np.uint8)
    labels = np.zeros((40, 160), np.uint8)
    labels[:, 120:] = 1
    settings = {"crop_size": (40, 40), "scale": (1.0, 1.0), **STILL}

    def mixed(max_class_share: float) -> int:
        augment = Augmentation(**settings, max_class_share=max_class_share)
        crops = (augment(image, labels, rng(seed))[1] for seed in range(60))
        return sum(0.25 <= crop.mean() <= 0.75 for crop in crops)

    assert mixed(1.0) < 20
    assert mixed(0.75) > 40


def test_class_share_ends_on_images_of_one_class_and_without_labels() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    augment = Augmentation(crop_size=(20, 20), max_class_share=0.75)
    for value in (0, IGNORE_INDEX):
        _, crop_labels = augment(image, np.full((40, 40), value, np.uint8), rng())
        assert set(np.unique(crop_labels)) <= {value, IGNORE_INDEX}


def test_jitter_is_off_at_zero_and_bounded_otherwise() -> None:
    image = np.full((10, 10, 3), 100, np.uint8)
    labels = np.zeros((10, 10), np.uint8)
    augment = Augmentation(crop_size=(10, 10), scale=(1, 1), brightness=0.2, contrast=0, saturation=0)
    values = [int(augment(image, labels, rng(seed))[0][0, 0, 0]) for seed in range(200)]
    assert min(values) in (80, 81, 82)
    assert max(values) in (118, 119, 120)


def apply(matrix: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    return matrix @ np.array([*colour, 1.0])


def test_colour_matrix_by_hand() -> None:
    """Brightness scales; contrast 0 gives the mean colour's grey; saturation 0 gives the pixel's luma."""
    colour = (200.0, 100.0, 50.0)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    mean_luma = 0.299 * 124 + 0.587 * 116 + 0.114 * 104
    np.testing.assert_allclose(apply(colour_matrix(1, 1, 1), colour), colour)
    np.testing.assert_allclose(apply(colour_matrix(0.5, 1, 1), colour), np.array(colour) / 2)
    np.testing.assert_allclose(apply(colour_matrix(1, 0, 1), colour), [mean_luma] * 3)
    np.testing.assert_allclose(apply(colour_matrix(1, 1, 0), colour), [luma] * 3)
    np.testing.assert_allclose(apply(colour_matrix(1, 1, 2), colour), 2 * np.array(colour) - luma)


def test_colour_matrix_by_its_parts() -> None:
    """All at once is one after the other."""
    colour = (200.0, 100.0, 50.0)
    steps = apply(colour_matrix(1.2, 1, 1), colour)
    for matrix in (colour_matrix(1, 0.7, 1), colour_matrix(1, 1, 1.4), colour_matrix(1, 1, 1, hue=0.3)):
        steps = apply(matrix, tuple(steps))
    np.testing.assert_allclose(apply(colour_matrix(1.2, 0.7, 1.4, hue=0.3), colour), steps)


def test_hue_turns_colours_and_keeps_greys() -> None:
    np.testing.assert_allclose(apply(colour_matrix(1, 1, 1, hue=1.0), (80, 80, 80)), [80, 80, 80])
    turned = apply(colour_matrix(1, 1, 1, hue=math.radians(120)), (90, 10, 20))
    np.testing.assert_allclose(turned, [20, 90, 10])  # a third of a turn permutes the channels
    hue_before, hue_after = (colorsys.rgb_to_hsv(*c)[0] for c in ((90, 10, 20), turned))
    assert (hue_after - hue_before) % 1 == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"crop_size": (0, 5)}, "crop_size"),
        ({"crop_size": (8.0, 8)}, "crop_size"),
        ({"scale": (2.0, 0.5)}, "scale"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (float("nan"), 1.0)}, "scale"),
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"contrast": -0.1}, "contrast"),
        ({"max_class_share": 0.0}, "max_class_share"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], name: str) -> None:
    with pytest.raises(DataError, match=name) as error:
        Augmentation(**{"crop_size": (8, 8), **settings})
    assert "\n" not in str(error.value)


def test_wrong_arrays_are_refused() -> None:
    image, labels = pair(20, 20)
    augment = Augmentation(crop_size=(8, 8))
    for bad in (
        (image[:, :, 0], labels),
        (image.astype(np.float32), labels),
        (image, labels[:-1]),
        (image[:0], labels[:0]),
    ):
        with pytest.raises(LpsnetError, match="uint8"):
            augment(*bad, rng())
    with pytest.raises(LpsnetError, match="int64"):
        augment(image, labels.astype(np.int64), rng())


def spots(height: int, width: int, **places: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image as of `pair`, with labels 0 but for one pixel of class 1 and one of class 2."""
    image, labels = pair(height, width)
    labels = np.zeros_like(labels)
    labels[places["one"]], labels[places["two"]] = 1, 2
    return image, labels


def test_a_rare_class_is_in_the_middle_of_the_crop_turned_and_flipped() -> None:
    image, labels = spots(90, 120, one=(40, 70), two=(45, 60))
    odds = {"rare_class_crops": 1.0, "class_odds": (0.0, 0.0, 1.0)}
    augment = Augmentation(crop_size=(31, 41), scale=(1, 1), rotation_degrees=90, **odds)
    for seed in range(30):
        _, crop_labels = augment(image, labels, rng(seed))
        assert 2 in crop_labels[14:18, 19:23]  # the crop's centre, 15.5 and 20.5 from its corner, and a pixel around


def test_a_rare_class_at_the_edge_is_in_a_crop_inside_the_image() -> None:
    image, labels = spots(60, 80, one=(0, 79), two=(59, 0))
    augment = Augmentation(crop_size=(20, 30), scale=(1, 1), rare_class_crops=1.0, class_odds=(0.0, 1.0, 0.0), **STILL)
    for seed in range(5):
        crop, crop_labels = augment(image, labels, rng(seed))
        np.testing.assert_array_equal(crop, image[:20, 50:])
        assert crop_labels[0, 29] == 1


def test_classes_are_drawn_by_their_odds_among_those_of_the_image() -> None:
    image, labels = spots(90, 120, one=(20, 30), two=(60, 90))  # no crop shows both
    augment = Augmentation(
        crop_size=(21, 21), scale=(1, 1), rare_class_crops=0.5, class_odds=(0.0, 1.0, 3.0, 99.0), **STILL
    )
    generator, counts = rng(), {1: 0, 2: 0}
    for _ in range(2000):
        _, crop_labels = augment(image, labels, generator)
        for value in counts:
            counts[value] += crop_labels[10, 10] == value
    assert counts[1] == pytest.approx(250, abs=50)
    assert counts[2] == pytest.approx(750, abs=75)


def test_without_a_label_or_a_rare_draw_crops_are_as_ever() -> None:
    image, labels = pair(60, 90)
    plain, rare = (Augmentation(crop_size=(40, 50), rare_class_crops=share) for share in (0.0, 1e-12))
    nothing = np.full_like(labels, IGNORE_INDEX)
    crop, crop_labels = rare(image, nothing, rng())
    assert crop.shape == (40, 50, 3)
    assert (crop_labels == IGNORE_INDEX).all()
    positions = {plain(image, labels, rng(seed))[1].tobytes() for seed in range(5)}
    assert len(positions) == 5

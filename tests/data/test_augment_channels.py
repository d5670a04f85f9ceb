"""Augmentation of other channels than RGB: against slices, mirrors and arithmetic."""

import cv2
import numpy as np
import pytest

from lpsnet.data.augment import Augmentation, colour_matrix
from lpsnet.data.channels import Channels
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError

SIX = ("blue", "green", "red", "edge", "nir", "swir")
FILL = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0)
STILL = {"flip_probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "scale": (1.0, 1.0)}
CHANNELS = {"channels": Channels(SIX, 16), "fill": FILL}


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([1000 * (channel + 1) + 31 * columns + 7 * rows for channel in range(6)], axis=2)
    return image.astype(np.uint16), ((rows * 7 + columns) % 200).astype(np.uint8)


def test_scale_one_is_an_exact_slice_or_mirror() -> None:
    image, labels = pair(50, 60)
    for flip, step in ((0.0, 1), (1.0, -1)):
        augment = Augmentation(crop_size=(50, 60), **{**STILL, "flip_probability": flip}, **CHANNELS)
        crop, crop_labels = augment(image, labels, np.random.default_rng(0))
        assert crop.dtype == np.uint16
        assert np.array_equal(crop, image[:, ::step])
        assert np.array_equal(crop_labels, labels[:, ::step])


def test_a_small_image_is_surrounded_by_its_mean() -> None:
    image, labels = pair(20, 30)
    crop, crop_labels = Augmentation(crop_size=(40, 50), **STILL, **CHANNELS)(image, labels, np.random.default_rng(1))
    outside = crop_labels == IGNORE_INDEX
    assert outside.sum() == 40 * 50 - 20 * 30
    assert np.array_equal(np.unique(crop[outside], axis=0), [FILL])


def test_each_channel_is_scaled_as_opencv_scales_one() -> None:
    image, labels = pair(40, 44)
    augment = Augmentation(crop_size=(80, 88), **{**STILL, "scale": (2.0, 2.0)}, **CHANNELS)
    crop, _ = augment(image, labels, np.random.default_rng(0))
    expected = np.stack([cv2.resize(image[..., channel], (88, 80)) for channel in range(6)], axis=-1)
    assert np.abs(crop[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 2


def recoloured(image: np.ndarray, **strength: float) -> np.ndarray:
    labels = np.zeros(image.shape[:2], np.uint8)
    augment = Augmentation(crop_size=image.shape[:2], **{**STILL, **strength}, **CHANNELS)
    return augment(image, labels, np.random.default_rng(5))[0].astype(float)


def test_brightness_and_contrast_change_all_channels_alike() -> None:
    image, _ = pair(30, 40)
    factors = recoloured(image, brightness=0.5) / image
    assert np.ptp(factors) < 0.002
    assert abs(factors.mean() - 1) > 0.05
    slopes = (recoloured(image, contrast=0.5) - FILL) / (image - np.array(FILL))
    assert np.ptp(slopes) < 0.002
    assert abs(slopes.mean() - 1) > 0.05


def test_saturation_and_hue_change_red_green_and_blue_alone() -> None:
    image, _ = pair(30, 40)
    for strength in ({"saturation": 0.8}, {"hue_degrees": 40.0}):
        changed = recoloured(image, **strength)
        assert np.array_equal(changed[..., 3:], image[..., 3:])
        assert np.abs(changed[..., :3] - image[..., :3]).max() > 50
        grey = np.repeat(image[..., :1], 6, axis=2)
        assert np.abs(recoloured(grey, **strength) - grey).max() <= 1
    seed = np.random.default_rng(5)
    seed.uniform(0, 1), seed.uniform(0, 1), seed.random(), seed.integers(0, 1), seed.integers(0, 1)  # scale … place
    seed.uniform(0, 1), seed.uniform(0, 1)  # brightness, contrast
    saturation = seed.uniform(0.2, 1.8)
    matrix = colour_matrix(1, 1, saturation)[:, :3]
    expected = image[..., [2, 1, 0]] @ matrix.T
    assert np.abs(recoloured(image, saturation=0.8)[..., [2, 1, 0]] - expected).max() <= 1
    names = {"channels": Channels(("a", "b", "c", "d", "e", "f"), 16), "fill": FILL}
    augment = Augmentation(crop_size=(30, 40), **{**STILL, "saturation": 0.8, "hue_degrees": 40.0}, **names)
    assert np.array_equal(augment(image, image[..., 0].astype(np.uint8), np.random.default_rng(5))[0], image)


def test_other_images_are_refused_and_gpus_leave_them_to_processors() -> None:
    augment = Augmentation(crop_size=(30, 40), **CHANNELS)
    with pytest.raises(DataError, match="H x W x 6 uint16"):
        augment(np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8), np.random.default_rng(0))
    assert not augment.is_affine
    assert Augmentation(crop_size=(30, 40)).is_affine

"""Windows of images whose colours show where a pixel comes from."""

import numpy as np
import pytest

from lpsnet.data.augment import RandomResizedCrop, centre_window
from lpsnet.errors import RunError
from lpsnet.training.classification import PRETRAINING_RECIPES, PretrainingRecipe, get_pretraining_recipe

LABEL = np.asarray(3, np.int64)
OFF = {"flip_probability": 0.0, "strengths": (0.0, 0.0, 0.0)}


def gradient(height: int, width: int) -> np.ndarray:
    """Red is the column, green the row."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return np.stack([columns, rows, np.full_like(rows, 9)], axis=2).astype(np.uint8)


def test_a_window_of_everything_is_the_image() -> None:
    image = gradient(48, 64)
    whole = RandomResizedCrop(crop_size=(48, 64), area=(1, 1), aspect=(4 / 3, 4 / 3), **OFF)
    crop, label = whole(image, LABEL, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, image)
    assert label is LABEL


def test_windows_keep_to_their_bounds_and_lie_everywhere() -> None:
    image = gradient(200, 250)
    window = RandomResizedCrop(crop_size=(64, 64), area=(0.1, 0.3), aspect=(0.5, 2.0), **OFF)
    rng = np.random.default_rng(0)
    shares, aspects, lefts = [], [], []
    for _ in range(300):
        crop, _ = window(image, LABEL, rng)
        width, height = (float(np.ptp(crop[..., channel].astype(int))) + 1 for channel in (0, 1))
        shares.append(width * height / (200 * 250))
        aspects.append(width / height)
        lefts.append(crop[..., 0].min())
    assert 0.08 < min(shares) < 0.12
    assert 0.26 < max(shares) < 0.32
    assert 0.45 < min(aspects) < 0.7
    assert 1.5 < max(aspects) < 2.2
    assert 0.85 < np.mean(np.array(aspects) > 1) / 0.5 < 1.15  # log-uniform: as many wide ones as tall ones
    assert min(lefts) < 5
    assert max(lefts) > 120


def test_where_no_window_fits_the_middle_is_shown() -> None:
    wide = RandomResizedCrop(crop_size=(32, 32), area=(1, 1), aspect=(1, 1), **OFF)
    crop, _ = wide(gradient(40, 200), LABEL, np.random.default_rng(0))
    assert 78 <= crop[..., 0].min() <= 82
    assert 118 <= crop[..., 0].max() <= 121


def test_flip_and_jitter() -> None:
    image = gradient(48, 64)
    mirror = RandomResizedCrop(
        crop_size=(48, 64), area=(1, 1), aspect=(4 / 3, 4 / 3), flip_probability=1.0, strengths=(0.0, 0.0, 0.0)
    )
    crop, _ = mirror(image, LABEL, np.random.default_rng(0))
    np.testing.assert_array_equal(crop, image[:, ::-1])
    bright = RandomResizedCrop(
        crop_size=(48, 64), area=(1, 1), aspect=(4 / 3, 4 / 3), flip_probability=0.0, strengths=(0.5, 0.0, 0.0)
    )
    means = [bright(image, LABEL, np.random.default_rng(seed))[0].mean() / image.mean() for seed in range(50)]
    assert 0.48 < min(means) < 0.6
    assert 1.4 < max(means) < 1.52


def test_the_same_generator_gives_the_same_sample() -> None:
    window = PRETRAINING_RECIPES["imagenet"].augmentation
    first, second = (window(gradient(90, 120), LABEL, np.random.default_rng(5))[0] for _ in range(2))
    assert first.shape == (224, 224, 3)
    np.testing.assert_array_equal(first, second)


def test_the_centre_window_by_hand() -> None:
    crop = centre_window(gradient(256, 300), (224, 224))  # 224 of 256 rows, at their own size
    np.testing.assert_array_equal(crop, gradient(256, 300)[16:240, 38:262])


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"crop_size": (16, 224)}, "32 pixels"),
        ({"area": (0, 1)}, "area"),
        ({"area": (0.5, 1.5)}, "area"),
        ({"aspect": (2, 1)}, "aspect"),
        ({"loss": "ohem"}, "unknown recipe setting"),
        ({"val_share": 0.9}, "val_share"),
    ],
)
def test_recipes_that_cannot_be(settings: dict[str, object], part: str) -> None:
    with pytest.raises(RunError, match=part):
        PRETRAINING_RECIPES["imagenet"].with_overrides(settings)


def test_recipes_by_name() -> None:
    recipe = get_pretraining_recipe("imagenet")
    assert isinstance(recipe, PretrainingRecipe)
    assert (recipe.schedule, recipe.epochs, recipe.batch_size, recipe.crop_size) == ("cosine", 120, 256, (224, 224))
    with pytest.raises(RunError, match="did you mean 'imagenet'"):
        get_pretraining_recipe("imagenett")

"""Corruptions: by arithmetic, against cv2's own JPEG, and on images made by hand."""

import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data import corruptions
from lpsnet.data.augment import Augmentation
from lpsnet.data.corruptions import CORRUPTIONS, STRENGTHS, corrupt, corrupt_randomly, disc, line, parse_corruptions
from lpsnet.errors import DataError, LpsnetError

NAMES = tuple(CORRUPTIONS)
DOCS = Path(__file__).parents[2] / "docs/how-to/robustness.md"


def photo(height: int = 48, width: int = 64) -> np.ndarray:
    """Something with edges and flat parts, no two channels alike."""
    rng = np.random.default_rng(7)
    small = rng.integers(30, 220, (18, 24, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST))


def grey(value: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(48, 64), (1, 1), (5, 300)])
def test_shape_and_type_are_kept_and_the_image_is_not_touched(name: str, size: tuple[int, int]) -> None:
    image = photo(*size)
    before = image.copy()
    for strength in STRENGTHS:
        changed = corrupt(name, image, strength)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        assert not np.shares_memory(changed, image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_stronger_is_further_away_and_neutral_is_near(name: str) -> None:
    image, row = photo(180, 240), CORRUPTIONS[name]
    far = [np.abs(corrupt(name, image, it).astype(int) - image).mean() for it in (row.neutral, *row.strengths)]
    assert far == sorted(far)
    rest = {
        "low_light": 2.5,
        "jpeg": 6.0,
    }  # a sensor's own noise is there at any light, half the colours at any quality
    assert far[0] < rest.get(name, 0.001)
    assert far[1] > 1.5 * max(far[0], 0.1)
    steps = np.diff([row.neutral, *row.strengths])
    assert (steps > 0).all() or (steps < 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_same_arguments_give_the_same_image(name: str) -> None:
    image = photo()
    first = corrupt(name, image, "middle", index=3, seed=1)
    np.testing.assert_array_equal(corrupt(name, image, "middle", index=3, seed=1), first)
    random = name in {"low_light", "shadow", "fog", "noise", "motion_blur"}
    others = [corrupt(name, image, "middle", index=4, seed=1), corrupt(name, image, "middle", index=3, seed=2)]
    assert [bool((other != first).any()) for other in others] == [random, random]


def test_gamma_by_arithmetic() -> None:
    for byte, gamma in ((128, 2.2), (51, 1.5), (200, 3.5)):
        assert np.unique(corrupt("dark", grey(byte), gamma)).tolist() == [round(255 * (byte / 255) ** gamma)]


def test_a_stop_is_twice_the_light() -> None:
    before = np.array([60, 100])
    image = np.repeat(np.repeat(before[None, :, None], 3, axis=2), 2, axis=0).astype(np.uint8)
    after = corrupt("over_exposure", image, 1.0)[0, :, 0]
    np.testing.assert_allclose((after / 255) ** 2.2, 2 * (before / 255) ** 2.2, rtol=0.02)
    assert corrupt("over_exposure", grey(200), 2.0).max() == 255


def test_warm_and_cool_are_gains_of_red_and_blue() -> None:
    gain = 2 ** (1.0 / 2.2)
    assert corrupt("warm", grey(100), 1.0)[0, 0].tolist() == [round(100 * gain), 100, round(100 / gain)]
    assert corrupt("cool", grey(100), 1.0)[0, 0].tolist() == [round(100 / gain), 100, round(100 * gain)]


def test_contrast_is_about_the_mean_of_each_channel() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0], image[1] = (40, 80, 200), (80, 180, 200)
    np.testing.assert_array_equal(corrupt("contrast", image, 0.5)[:, 0], [[50, 105, 200], [70, 155, 200]])


def test_noise_has_the_deviation_it_says() -> None:
    noisy = corrupt("noise", grey(128, (200, 300)), 0.08).astype(float)
    assert noisy.mean() == pytest.approx(128, abs=0.2)
    assert noisy.std() == pytest.approx(0.08 * 255, rel=0.01)


def test_low_light_has_shot_noise() -> None:
    """Light of mean N electrons and variance N + 16, told from bytes."""
    stops, byte = 2.0, 200
    seen = 4000 * (corrupt("low_light", grey(byte, (300, 300)), stops) / 255) ** 2.2
    electrons = 4000 * 2**-stops * (byte / 255) ** 2.2
    assert seen.mean() == pytest.approx(electrons, rel=0.01)
    assert seen.var() == pytest.approx(electrons + 16, rel=0.1)


def test_jpeg_is_that_of_cv2() -> None:
    image = photo()
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 15])
    assert done
    np.testing.assert_array_equal(corrupt("jpeg", image, "middle"), cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])


def test_a_bright_pixel_out_of_focus_is_a_disc_of_the_same_light() -> None:
    image = grey(0, (101, 101))
    image[50, 50] = 255
    found = corrupt("defocus", image, 3.5 / 101)[..., 0]
    y, x = np.nonzero(found)
    assert np.hypot(y - 50, x - 50).max() < 4
    inner = np.hypot(*np.mgrid[-50:51, -50:51]) <= 2.9
    assert np.ptp(found[inner]) == 0
    assert found[50, 50] == pytest.approx(255 / (math.pi * 3.5**2), rel=0.1)


def test_a_bright_pixel_in_motion_is_a_line_through_its_place() -> None:
    image = grey(0, (101, 101))
    image[50, 50] = 255
    for index in range(5):
        found = corrupt("motion_blur", image, 20 / 101, index=index)[..., 0].astype(float)
        assert found.sum() == pytest.approx(255, rel=0.1)
        y, x = (np.array(it) - 50.0 for it in np.nonzero(found))
        weights = found[found > 0]
        assert abs((x * weights).sum()) + abs((y * weights).sum()) < 0.6 * weights.sum(), "its middle stays"
        spread = np.linalg.eigvalsh(np.cov(np.stack([x, y]), aweights=weights))
        assert 12 * spread[1] == pytest.approx(20**2, rel=0.2), "the variance of an even line of length L is L^2 / 12"
        assert spread[0] < 0.5


def test_kernels_keep_the_light() -> None:
    for radius in (0.0, 0.3, 1.0, 2.7):
        assert disc(radius).sum() == pytest.approx(1)
    for length, angle in ((0.0, 0.3), (1.0, 2.0), (17.3, 1.0)):
        assert line(length, angle).sum() == pytest.approx(1)
    np.testing.assert_allclose(line(0.0, 1.0), np.pad([[1.0]], 1))
    horizontal = line(4.0, 0.0)
    assert horizontal[horizontal.shape[0] // 2].sum() == pytest.approx(1)


def test_a_shadow_is_a_band_that_is_darker_by_its_stops() -> None:
    image = grey(200, (120, 160))
    for index in range(10):
        found = corrupt("shadow", image, 2.0, index=index)[..., 0]
        dark = round(200 * 2 ** (-2 / 2.2))
        assert {int(found.min()), int(found.max())} == {dark, 200}
        assert 0.05 < (found == dark).mean() < 0.9
        assert ((found > dark) & (found < 200)).mean() < 0.15, "its edge is narrow"


def test_fog_mixes_with_grey_light() -> None:
    black, white = (corrupt("fog", grey(value), 0.5, index=2).astype(float) for value in (0, 255))
    share = black[..., 0] / 235
    assert share.min() >= 0.3 - 0.003
    assert share.max() <= 0.5 + 0.003
    np.testing.assert_allclose(white[..., 0], 255 * (1 - share) + 235 * share, atol=1)


def test_unknown_names_are_refused_with_the_allowed_ones() -> None:
    for call in (lambda: corrupt("jpg", photo(), "middle"), lambda: parse_corruptions("mild,jpg")):
        with pytest.raises(DataError, match=r"'jpg'; did you mean 'jpeg'\? Allowed: .*motion_blur"):
            call()
    with pytest.raises(DataError, match=r"strength of a corruption 'weak'. Allowed: middle, mild, strong"):
        corrupt("jpeg", photo(), "weak")
    with pytest.raises(DataError, match="strength 'fog'"):
        corruptions.choose(["fog"], ["fog"])


def test_words_are_corruptions_and_strengths() -> None:
    assert parse_corruptions("") == (NAMES, ("middle",))
    assert parse_corruptions("middle") == (NAMES, ("middle",))
    assert parse_corruptions("strong, mild") == (NAMES, ("mild", "strong"))
    assert parse_corruptions("jpeg,fog") == (("fog", "jpeg"), ("middle",))
    assert parse_corruptions("strong,jpeg") == (("jpeg",), ("strong",))


def test_training_draws_all_corruptions_at_strengths_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str, float]] = []

    def note(row: corruptions.Corruption, image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
        drawn.append((row.name, strength))
        return image

    monkeypatch.setattr(corruptions.Corruption, "__call__", note)
    for seed in range(600):
        before = len(drawn)
        corrupt_randomly(photo(), np.random.default_rng(seed))
        names = [name for name, _ in drawn[before:]]
        assert len(names) == len(set(names)) in (1, 2)
    assert 1.4 < len(drawn) / 600 < 1.6
    for name, row in CORRUPTIONS.items():
        strengths = [strength for it, strength in drawn if it == name]
        low, high = sorted((row.neutral, row.strengths[-1]))
        assert len(strengths) > 40
        assert not {*strengths} & {*row.strengths}, "an evaluation's strengths are not replayed"
        assert low <= min(strengths) < low + 0.2 * (high - low)
        assert high - 0.2 * (high - low) < max(strengths) <= high


def test_augmentation_with_corruptions() -> None:
    image, labels = photo(), np.arange(48 * 64, dtype=np.int64).reshape(48, 64).astype(np.uint8)
    plain = Augmentation(crop_size=(32, 40))
    always, half = (Augmentation(crop_size=(32, 40), corruption=share) for share in (1.0, 0.5))
    changed = 0
    for seed in range(200):
        crop, crop_labels = plain(image, labels, np.random.default_rng(seed))
        for augment in (always, half):
            corrupted, same = augment(image, labels, np.random.default_rng(seed))
            np.testing.assert_array_equal(same, crop_labels)
            assert (corrupted.shape, corrupted.dtype) == (crop.shape, np.uint8)
            again, _ = augment(image, labels, np.random.default_rng(seed))
            np.testing.assert_array_equal(again, corrupted)
        changed += bool((corrupted != crop).any())
    assert 70 < changed < 115, "about half of the samples"
    with pytest.raises(LpsnetError, match="corruption lies between 0 and 1"):
        Augmentation(crop_size=(32, 40), corruption=1.5)


def test_what_surrounds_a_small_image_stays_as_it_is() -> None:
    augment = Augmentation(crop_size=(96, 128), scale=(0.5, 0.5), corruption=1.0)
    for seed in range(20):
        crop, labels = augment(photo(), np.zeros((48, 64), np.uint8), np.random.default_rng(seed))
        assert np.unique(crop[labels == 255].reshape(-1, 3), axis=0).tolist() == [[124, 116, 104]]


def test_the_documentation_has_every_row() -> None:
    text = DOCS.read_text(encoding="utf-8")
    found = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", text, re.MULTILINE)
    wanted = [(name, ", ".join(f"{it:g}" for it in row.strengths), row.unit) for name, row in CORRUPTIONS.items()]
    assert [(name, strengths.strip(), unit.strip()) for name, strengths, unit in found] == wanted

"""Pictures brought to a network's input, against torch and NumPy in float64."""

import numpy as np
import pytest

from lpsnet.data.labels import CAMVID
from lpsnet.deployment.preparation import check_picture, normalise, prepare, resize
from lpsnet.errors import DataError
from lpsnet.record import ModelRecord, Normalisation

SIZES = [((37, 53), (60, 80)), ((37, 53), (20, 30)), ((1, 9), (4, 3)), ((5, 7), (1, 1)), ((9, 2), (9, 5))]


def _picture(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), SIZES[:2] + SIZES[4:])
def test_resizing_by_less_than_half_is_bilinear(
    source: tuple[int, int], target: tuple[int, int], align_corners: bool
) -> None:
    torch = pytest.importorskip("torch")
    image = _picture(*source)
    planes = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = torch.nn.functional.interpolate(planes, target, mode="bilinear", align_corners=align_corners)
    result = resize(image, target, align_corners=align_corners)
    assert result.dtype == np.uint8
    # rounding to bytes, and before OpenCV 5 places rounded to 1/32 of a pixel
    assert np.abs(result - expected[0].permute(1, 2, 0).numpy()).max() < 9
    assert np.abs(result - expected[0].permute(1, 2, 0).numpy()).mean() < 1


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_any_size_becomes_any_size(source: tuple[int, int], target: tuple[int, int]) -> None:
    for align_corners in (True, False):
        assert resize(_picture(*source), target, align_corners=align_corners).shape == (*target, 3)


def test_corners_stay_corners() -> None:
    image = _picture(37, 53)
    corners = np.ix_([0, -1], [0, -1])
    np.testing.assert_array_equal(resize(image, (60, 80), align_corners=True)[corners], image[corners])


def test_a_picture_of_that_size_is_not_copied() -> None:
    image = _picture(8, 9)
    assert resize(image, (8, 9), align_corners=True) is image


def test_shrinking_does_not_skip_thin_things() -> None:
    """A line one pixel wide leaves the same trace wherever it lies; bilinear sampling alone loses two of three."""
    traces = []
    for place in range(20, 40):
        image = np.zeros((61, 61, 3), np.uint8)
        image[:, place] = 255
        traces.append(resize(image, (21, 21), align_corners=True)[10].astype(int).sum())
    np.testing.assert_allclose(traces, 3 * 255 / 3, atol=3)


def test_shrinking_shifts_nothing() -> None:
    image = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(61, axis=0)
    result = resize(image, (31, 24), align_corners=True).astype(float)
    expected = np.linspace(0, 238, 24)
    assert np.abs(result[:, 2:-2, 0] - expected[2:-2]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (13, 17)])
def test_normalising_is_the_formula(size: tuple[int, int]) -> None:
    normalisation = Normalisation(mean=(0.1, 0.5, 0.6), std=(0.2, 0.3, 1.5))
    image = _picture(*size)
    for view in (image, image[::-1, :, ::-1], np.asfortranarray(image)):
        result = normalise(view, normalisation)
        expected = (view / 255 - np.array(normalisation.mean)) / np.array(normalisation.std)
        assert result.shape == (1, 3, *size)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        np.testing.assert_allclose(result[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_preparing_is_both() -> None:
    record = ModelRecord(architecture="tiny", label_space=CAMVID, align_corners=False)
    expected = normalise(resize(_picture(20, 30), (32, 40), align_corners=False), record.normalisation)
    np.testing.assert_array_equal(prepare(_picture(20, 30), record, size=(32, 40)), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("photo.png", "got str. Read a file"),
        (np.zeros((4, 4, 3), np.float32), "got float32; scale 0..1 by 255"),
        (np.zeros((4, 4, 3), np.uint16), "not yet normalised; got uint16"),
        (np.zeros((4, 4), np.uint8), "make grey RGB"),
        (np.zeros((4, 4, 4), np.uint8), "drop the transparency"),
        (np.zeros((3, 4, 4), np.uint8), "drop the transparency|channels last"),
        (np.zeros((3, 4, 5), np.uint8), "bring the channels last"),
        (np.zeros((1, 4, 4, 3), np.uint8), "one picture at a time"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_picture_is_told_what_to_do(image: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_picture(image)
    assert "\n" not in str(caught.value)

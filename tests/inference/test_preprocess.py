"""Images brought to what a network and its paths take, against torch and NumPy in float64."""

from fractions import Fraction

import cv2
import numpy as np
import pytest
from compiled import compiled_kernels, implementation  # noqa: F401 (tests run with the compiled loops, and without)

from lpsnet.architecture import path_size
from lpsnet.data.labels import CAMVID
from lpsnet.errors import DataError, ModelFileError
from lpsnet.inference import preprocess as preparation
from lpsnet.inference.preprocess import Workspace, check_image, prepare, prepare_paths
from lpsnet.record import ModelRecord, Normalisation

Size = tuple[int, int]

NORMALISATION = Normalisation(mean=(0.1, 0.5, 0.6), std=(0.2, 0.3, 1.5))
PLAIN = Normalisation(mean=(0, 0, 0), std=(1 / 255,) * 3)  # leaves bytes as they are
RATIOS = [Fraction(9, 8), Fraction(1), Fraction(3, 4), Fraction(1, 4)]

# OpenCV before 5 samples at multiples of 1/32 pixel; on noise that is up to 8 of 255
TOLERANCE = 0.1 if int(cv2.__version__.split(".")[0]) >= 5 else 9


def _record(normalisation: Normalisation = PLAIN, *, align_corners: bool = True) -> ModelRecord:
    return ModelRecord(
        architecture="tiny", label_space=CAMVID, normalisation=normalisation, align_corners=align_corners
    )


def _image(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


def _resized(nchw: np.ndarray, size: Size, align_corners: bool) -> np.ndarray:
    """1 x 3 x H x W by torch in float64, without averaging."""
    torch = pytest.importorskip("torch")
    resize = torch.nn.functional.interpolate
    result: np.ndarray = resize(torch.from_numpy(nchw), size, mode="bilinear", align_corners=align_corners).numpy()
    return result


def _planes(image: np.ndarray) -> np.ndarray:
    return image.transpose(2, 0, 1)[None].astype(np.float64)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("source", "target"), [((37, 53), (60, 80)), ((67, 93), (40, 50)), ((40, 41), (40, 63)), ((48, 64), (48, 64))]
)
def test_resizing_by_less_than_half_is_bilinear(source: Size, target: Size, align_corners: bool) -> None:
    image = _image(*source)
    result = prepare(image, _record(align_corners=align_corners), size=target)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_allclose(result, _resized(_planes(image), target, align_corners), atol=TOLERANCE)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), [((64, 96), None), ((65, 99), (65, 99)), ((50, 70), (64, 80))])
def test_paths_are_given_what_the_network_would_make_of_the_whole(
    source: Size, target: Size | None, align_corners: bool
) -> None:
    """Without averaging, however small the ratio."""
    image, record = _image(*source), _record(align_corners=align_corners)
    whole = _resized(_planes(image), target or source, align_corners)
    results = prepare_paths(image, record, size=target, ratios=RATIOS)
    for ratio, result in zip(RATIOS, results, strict=True):
        size = path_size(target or source, ratio)
        assert result.shape == (1, 3, *size)
        assert result.dtype == np.float32
        assert result.flags.c_contiguous
        np.testing.assert_allclose(result, _resized(whole, size, align_corners), atol=TOLERANCE)


def test_a_workspace_is_used_again_and_leaves_nothing_behind() -> None:
    workspace, record = Workspace(), _record()
    for size in ((50, 70), (50, 70), (64, 40)):
        for seed in (0, 1):
            image = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
            shared = prepare_paths(image, record, size=(60, 80), ratios=RATIOS, workspace=workspace)
            alone = prepare_paths(image, record, size=(60, 80), ratios=RATIOS)
            for result, expected in zip(shared, alone, strict=True):
                np.testing.assert_array_equal(result, expected)
            assert not any(np.shares_memory(result, expected) for result, expected in zip(shared, alone, strict=True))
    again = prepare_paths(image, record, size=(60, 80), ratios=RATIOS, workspace=workspace)
    assert all(result is before for result, before in zip(again, shared, strict=True))


@pytest.mark.parametrize("source", [(50, 70), (64, 80)])
def test_ratios_that_are_rounded_to_the_same_size_are_all_given_the_image(source: Size) -> None:
    image, record, workspace = _image(*source), _record(NORMALISATION), Workspace()
    ratios = [Fraction(101, 100), Fraction(1), Fraction(51, 101), Fraction(1, 2)]
    for _ in range(2):  # the second time in memory that holds numbers
        found = prepare_paths(image, record, size=(64, 80), ratios=ratios, workspace=workspace)
        assert [result.shape[2:] for result in found] == [(64, 80), (64, 80), (32, 40), (32, 40)]
        np.testing.assert_array_equal(found[0], prepare(image, record, size=(64, 80)))
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[2], found[3])
        found[1].fill(np.nan)


def test_the_path_of_ratio_one_is_given_the_whole() -> None:
    image, record = _image(50, 70), _record(NORMALISATION)
    for size in (None, (64, 80)):
        quarter, whole = prepare_paths(image, record, size=size, ratios=[Fraction(1, 4), Fraction(1)])
        np.testing.assert_array_equal(whole, prepare(image, record, size=size))
        (alone,) = prepare_paths(image, record, size=size, ratios=[Fraction(1, 4)])
        np.testing.assert_array_equal(quarter, alone)


@pytest.mark.parametrize(("source", "target"), [((64, 97), None), ((50, 71), (64, 80))])
def test_layouts_hold_the_same_numbers(source: Size, target: Size | None) -> None:
    """Channels last; and in bfloat16, where there are compiled loops, as torch rounds. One path is 1 pixel wide."""
    torch = pytest.importorskip("torch")
    image, record = _image(*source), _record(NORMALISATION)
    ratios = [*RATIOS, Fraction(1, 90)]
    nchw = prepare_paths(image, record, size=target, ratios=ratios)
    pixels = prepare_paths(image, record, size=target, ratios=ratios, layout="nhwc")
    for one, other in zip(nchw, pixels, strict=True):
        assert other.flags.c_contiguous
        np.testing.assert_allclose(other, one.transpose(0, 2, 3, 1), atol=1e-6)
    if preparation.find_kernels() is None:
        with pytest.raises(ModelFileError, match="need the compiled loops"):
            prepare_paths(image, record, size=(80, 96), ratios=ratios, layout="nhwc_bf16")
        return
    workspace = Workspace()
    for _ in range(2):  # in memory of its own, and in that of the last time
        halves = prepare_paths(image, record, size=target, ratios=ratios, layout="nhwc_bf16", workspace=workspace)
        for one, other in zip(pixels, halves, strict=True):
            expected = torch.from_numpy(one).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
            assert other.flags.c_contiguous
            np.testing.assert_array_equal(other, expected)


def test_rounding_to_bfloat16_is_to_the_nearest_and_then_to_even() -> None:
    """All upper halves of positive and negative numbers with eight lower halves each, against torch."""
    torch = pytest.importorskip("torch")
    upper = np.arange(0, 1 << 16, dtype=np.uint32)
    upper = upper[(upper & 0x7F80) != 0x7F80]  # finite
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1234, 0xABCD], np.uint32)
    numbers = ((upper[:, None] << 16) | lower).reshape(-1).view(np.float32)
    target = np.zeros(numbers.shape, np.uint16)
    compiled_kernels().round(numbers, target, num_threads=3)
    expected = torch.from_numpy(numbers).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(target, expected)


@pytest.mark.parametrize("source", [(1, 1), (1, 90), (70, 1), (33, 2), (300, 310)])
def test_any_size_becomes_any_size(source: Size) -> None:
    image = _image(*source)
    for align_corners in (True, False):
        for size in (None, (32, 32), (40, 77)):
            whole, small = prepare_paths(
                image, _record(align_corners=align_corners), size=size, ratios=[Fraction(1), Fraction(1, 40)]
            )
            expected = size or (max(32, source[0]), max(32, source[1]))
            assert whole.shape == (1, 3, *expected)
            assert small.shape == (1, 3, max(1, expected[0] // 40), max(1, expected[1] // 40))
            assert whole.min() >= image.min() - 1e-3  # an average of what is there
            assert whole.max() <= image.max() + 1e-3


def test_corners_stay_corners() -> None:
    image = _image(37, 53)
    result = prepare(image, _record(), size=(60, 80))[0]
    for y in (0, -1):
        for x in (0, -1):
            np.testing.assert_allclose(result[:, y, x], image[y, x], atol=1e-3)


def test_shrinking_does_not_skip_thin_things() -> None:
    """A line one pixel wide leaves the same trace wherever it lies; bilinear sampling alone loses two of three."""
    traces = []
    for place in range(20, 40):
        image = np.zeros((103, 103, 3), np.uint8)
        image[:, place] = 255
        traces.append(prepare(image, _record(), size=(35, 35))[0, :, 10].sum())
    np.testing.assert_allclose(traces, 3 * 255 / 3, rtol=0.01)


def test_shrinking_shifts_nothing() -> None:
    image = np.repeat(np.arange(0, 240, 2, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(81, axis=0)
    result = prepare(image, _record(), size=(41, 34))[0, 0]
    np.testing.assert_allclose(result[:, 2:-2], np.linspace(0, 238, 34)[None, 2:-2].repeat(41, axis=0), atol=0.2)


@pytest.mark.parametrize("size", [(32, 32), (32, 57), (45, 77)])
def test_normalising_is_the_formula(size: Size) -> None:
    image = _image(*size)
    for view in (image, image[::-1, :, ::-1], np.asfortranarray(image)):
        result = prepare(view, _record(NORMALISATION), size=None)
        expected = (view / 255 - np.array(NORMALISATION.mean)) / np.array(NORMALISATION.std)
        np.testing.assert_allclose(result[0], expected.transpose(2, 0, 1), rtol=1e-6, atol=1e-6)


def test_a_image_is_not_changed() -> None:
    image = _image(40, 50)
    image.flags.writeable = False
    prepare_paths(image, _record(), size=(64, 64), ratios=RATIOS)


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
        (np.zeros((1, 4, 4, 3), np.uint8), "one image at a time"),
        (np.zeros((0, 4, 3), np.uint8), "at least one pixel"),
    ],
)
def test_what_is_no_image_is_refused_with_advice(image: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        check_image(image)
    assert "\n" not in str(caught.value)

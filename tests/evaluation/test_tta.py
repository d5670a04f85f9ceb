"""Averages over views against torch's interpolation and softmax, and against windows counted pixel by pixel."""

from typing import Any

import cv2
import numpy as np
import pytest

from lpsnet.errors import LpsnetError
from lpsnet.inference.windows import AveragingSegmenter, Views, softmax, upsample, window_starts

torch = pytest.importorskip("torch")

NUM_CLASSES = 3


class ColourNetwork:
    """A stand-in for a network at an input size: the resized image's colours, at a quarter of the size, as logits."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.seen: list[tuple[int, ...]] = []

    def logits(self, image: np.ndarray) -> np.ndarray:
        self.seen.append(image.shape)
        size = self.size[1] // 4, self.size[0] // 4
        # colours to the right count for more, so that a mirrored image has other logits
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 40
        small *= np.linspace(0.5, 1.5, size[0], dtype=np.float32)[None, :, None]
        return np.ascontiguousarray(small.transpose(2, 0, 1))


@pytest.fixture
def image() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return cv2.resize(noise, (96, 64), interpolation=cv2.INTER_CUBIC)


def probabilities(logits: np.ndarray, size: tuple[int, int], *, align_corners: bool = True) -> np.ndarray:
    batch = torch.from_numpy(logits.copy())[None].double()
    resized = torch.nn.functional.interpolate(batch, size, mode="bilinear", align_corners=align_corners)
    return resized.softmax(1)[0].numpy()


def segmenter(views: Views, *, align_corners: bool = True, input_size: tuple[int, int] | None = None) -> Any:
    networks: dict[tuple[int, int], ColourNetwork] = {}
    made = AveragingSegmenter(
        lambda size: networks.setdefault(size, ColourNetwork(size)),
        views,
        input_size=input_size,
        align_corners=align_corners,
    )
    return made, networks


@pytest.mark.parametrize("align_corners", [True, False])
def test_one_view_is_the_plain_evaluation(image: np.ndarray, align_corners: bool) -> None:
    average, networks = segmenter(Views(), align_corners=align_corners)
    expected = probabilities(ColourNetwork((64, 96)).logits(image), (64, 96), align_corners=align_corners)
    np.testing.assert_allclose(average.probabilities(image), expected, atol=1e-5)
    labels = average(image)
    assert (labels.dtype, labels.shape) == (np.uint8, (64, 96))
    assert (labels == expected.argmax(0)).mean() > 0.999
    assert list(networks) == [(64, 96)]


def test_flip_and_scales_are_the_mean_of_all_views(image: np.ndarray) -> None:
    average, networks = segmenter(Views(flip=True, scales=(0.75, 1.0, 1.5)))
    expected = []
    for size in ((48, 72), (64, 96), (96, 144)):
        network = ColourNetwork(size)
        expected.append(probabilities(network.logits(image), (64, 96)))
        expected.append(probabilities(network.logits(image[:, ::-1]), (64, 96))[:, :, ::-1])
    np.testing.assert_allclose(average.probabilities(image), np.mean(expected, axis=0), atol=1e-5)
    assert list(networks) == [(48, 72), (64, 96), (96, 144)]


def test_windows_are_averaged_pixel_by_pixel(image: np.ndarray) -> None:
    average, networks = segmenter(Views(window=(40, 40), stride=(20, 32)))
    total, count = np.zeros((NUM_CLASSES, 64, 96)), np.zeros((64, 96))
    for top in (0, 20, 24):
        for left in (0, 32, 56):
            part = slice(top, top + 40), slice(left, left + 40)
            total[:, *part] += probabilities(ColourNetwork((40, 40)).logits(image[part]), (40, 40))
            count[part] += 1
    assert count.min() == 1
    np.testing.assert_allclose(average.probabilities(image), total / count, atol=1e-5)
    assert list(networks) == [(40, 40)]


def test_windows_lie_in_the_scaled_image(image: np.ndarray) -> None:
    average, networks = segmenter(Views(window=(64, 64), stride=(64, 64), scales=(2.0,)), input_size=(64, 96))
    assert np.allclose(average.probabilities(image).sum(0), 1, atol=1e-5)
    (network,) = networks.values()
    assert network.size == (64, 64)
    assert set(network.seen) == {(32, 32, 3)}  # of an image that is 128x192 at this scale
    assert len(network.seen) == 6


def test_windows_larger_than_the_image_are_the_image(image: np.ndarray) -> None:
    windowed, _ = segmenter(Views(window=(500, 500)))
    whole, _ = segmenter(Views())
    np.testing.assert_array_equal(windowed.probabilities(image), whole.probabilities(image))


@pytest.mark.parametrize(
    ("length", "window", "step", "starts"),
    [(10, 10, 5, [0]), (10, 4, 3, [0, 3, 6]), (10, 4, 4, [0, 4, 6]), (11, 4, 3, [0, 3, 6, 7]), (5, 4, 4, [0, 1])],
)
def test_windows_start_where_they_should(length: int, window: int, step: int, starts: list[int]) -> None:
    assert window_starts(length, window, step) == starts


def test_large_logits_give_probabilities() -> None:
    logits = np.array([[[1e4, -1e4]], [[1e4, 1e4]]], np.float32)
    np.testing.assert_allclose(softmax(logits.copy())[:, 0], [[0.5, 0], [0.5, 1]])


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("source", "target"), [((3, 4), (17, 9)), ((5, 6), (3, 2)), ((1, 1), (4, 1))])
def test_upsampling_is_torchs(source: tuple[int, int], target: tuple[int, int], align_corners: bool) -> None:
    logits = np.random.default_rng(0).standard_normal((2, *source)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None], target, mode="bilinear", align_corners=align_corners
    )[0].numpy()
    np.testing.assert_allclose(upsample(logits, target, align_corners=align_corners), theirs, atol=1e-5)


def test_the_protocol_names_what_was_done() -> None:
    assert Views().protocol == {"flip": False, "multi_scale": False, "sliding_window": False}
    protocol = Views(flip=True, scales=(0.5, 1), window=(48, 96)).protocol
    assert protocol["flip"] is True
    assert protocol["multi_scale"] == [0.5, 1]
    assert protocol["sliding_window"] == {"size": [48, 96], "stride": [32, 64]}
    assert "probabilities" in protocol["averaged"]
    assert Views().is_plain
    assert not Views(flip=True).is_plain


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scales": ()}, "scales"),
        ({"scales": (0.0,)}, "scales"),
        ({"scales": (float("nan"),)}, "scales"),
        ({"window": (16, 64)}, "32 pixels"),
        ({"stride": (16, 64)}, "size too"),
        ({"window": (64, 64), "stride": (65, 64)}, "stride lies between"),
        ({"window": (64, 64), "stride": (0, 64)}, "stride lies between"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LpsnetError, match=message):
        Views(**settings)

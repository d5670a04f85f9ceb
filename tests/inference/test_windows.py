"""Sliding windows: beside every pixel averaged one by one, and beside the plain result."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.image_rows import WholeRows, open_rows
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError
from lpsnet.inference import windows as module
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.windows import Windows, segment_rows
from lpsnet.record import ModelRecord

torch = pytest.importorskip("torch")
MIX = np.random.default_rng(5).normal(0, 3, (5, 3)).astype(np.float32)


def network(align_corners: bool = True) -> Segmenter:
    """Five classes by the colour around a pixel and by the place in the image, so that windows disagree."""

    def logits(batch: np.ndarray) -> np.ndarray:
        height, width = batch.shape[2] // 8, batch.shape[3] // 8
        small = np.stack([cv2.resize(channel, (width, height), interpolation=cv2.INTER_AREA) for channel in batch[0]])
        found = np.einsum("kc,chw->khw", MIX, small) + np.linspace(0, 2, width) * np.arange(5)[:, None, None] / 4
        return (found + np.linspace(-1, 1, height)[:, None] * (np.arange(5) % 2)[:, None, None])[None].astype(
            np.float32
        )

    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(5), align_corners=align_corners)
    return Segmenter.from_session(FakeSession(logits), record)


def picture(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(height).integers(0, 256, (height // 12 + 2, width // 12 + 2, 3), dtype=np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def starts(length: int, window: int, overlap: int) -> list[int]:
    """As few as cover it, spread evenly."""
    count = 1
    while count * window - (count - 1) * overlap < length:
        count += 1
    return [round(i * (length - window) / (count - 1)) if count > 1 else 0 for i in range(count)]


def averaged(segment: Segmenter, image: np.ndarray, window: tuple[int, int], overlap: int) -> np.ndarray:
    """All logits at full size, in float64."""
    (height, width), down, across = image.shape[:2], min(window[0], len(image)), min(window[1], image.shape[1])
    total, weights = np.zeros((5, height, width)), np.zeros((height, width))
    taper = [[min(1, (min(i, n - 1 - i) + 1) / (overlap + 1)) for i in range(n)] for n in (down, across)]
    share = np.outer(*taper)
    for top in starts(height, down, overlap):
        for left in starts(width, across, overlap):
            logits = segment.logits(np.ascontiguousarray(image[top : top + down, left : left + across]))
            whole = torch.nn.functional.interpolate(
                torch.from_numpy(logits)[None].double(), (down, across), mode="bilinear",
                align_corners=segment.record.align_corners,
            )[0].numpy()  # fmt: skip
            total[:, top : top + down, left : left + across] += whole * share
            weights[top : top + down, left : left + across] += share
    return total / weights


CASES = [
    ((150, 210), (64, 80), 16),
    ((150, 210), (64, 80), 40),  # three windows show some pixels
    ((150, 210), (64, 80), 0),
    ((40, 300), (64, 64), 31),  # smaller than the window along one axis
    ((129, 131), (64, 64), 1),
]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("size", "window", "overlap"), CASES)
def test_equal_to_every_pixel_averaged(
    size: tuple[int, int], window: tuple[int, int], overlap: int, align_corners: bool
) -> None:
    segment, image = network(align_corners), picture(*size)
    result, expected = segment.windows(image, window, overlap), averaged(segment, image, window, overlap)
    order = np.sort(expected, axis=0)
    clear = order[-1] - order[-2] > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(result.labels[clear], expected.argmax(axis=0)[clear])
    odds = np.exp(expected - expected.max(axis=0))
    np.testing.assert_allclose(result.confidence, 1 / odds.sum(axis=0), atol=1e-5)
    crop = np.s_[30:, 100:20:-3]
    np.testing.assert_allclose(result[crop].margin, result.margin[crop], atol=1e-6)


@pytest.mark.parametrize("window", [(90, 130), (720, 960)])
def test_one_window_is_the_plain_result(window: tuple[int, int]) -> None:
    segment, image = network(), picture(90, 130)
    plain, result = segment(image), segment.windows(image, window, 20)
    np.testing.assert_array_equal(result.labels, plain.labels)
    np.testing.assert_allclose(result.confidence, plain.confidence, atol=1e-6)


def test_blocks_of_one_row_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    segment, image = network(), picture(150, 210)
    whole = segment.windows(image, (64, 80), 16)
    monkeypatch.setattr(module, "_PART", 1)
    np.testing.assert_array_equal(segment.windows(image, (64, 80), 16).labels, whole.labels)


def test_parts_from_a_file_are_those_of_the_image(tmp_path: Path) -> None:
    segment, image = network(), picture(203, 210)
    whole, path = segment.windows(image, (64, 80), 16), tmp_path / "a.tif"
    cv2.imwrite(str(path), image[..., ::-1], (cv2.IMWRITE_TIFF_ROWSPERSTRIP, 24))
    row = 0
    with open_rows(path) as rows:
        for top, part in segment_rows(segment, rows, Windows((64, 80), 16)):
            assert top == row
            row += len(part)
            np.testing.assert_array_equal(part.labels, whole.labels[top:row])
            np.testing.assert_array_equal(part.image, image[top:row])
            np.testing.assert_allclose(part.confidence, whole.confidence[top:row], atol=1e-6)
    assert row == 203


def test_no_more_than_two_bands_are_read_ahead() -> None:
    """Memory: rows are asked for once a band, from the top."""
    image, asked = picture(400, 80), []

    class Asked(WholeRows):
        def read(self, top: int, bottom: int) -> np.ndarray:
            asked.append((top, bottom))
            return super().read(top, bottom)

    for top, part in segment_rows(network(), Asked(image), Windows((64, 80), 16)):
        assert asked[-1][0] <= top + len(part)
        assert len(part.logits.field.bands) <= 2
    assert len(asked) == len(set(asked)) == len(starts(400, 64, 16))


@pytest.mark.parametrize(("size", "overlap"), [((16, 64), 0), ((64, 64), 64), ((64, 64), -1)])
def test_what_cannot_be_is_refused(size: tuple[int, int], overlap: int) -> None:
    with pytest.raises(LpsnetError, match=r"overlap|window"):
        network().windows(picture(90, 90), size, overlap)


def test_the_overlap_has_a_default() -> None:
    assert Windows.of((720, 960)) == Windows((720, 960), 64)
    assert Windows.of((64, 96)) == Windows((64, 96), 16)

"""Confidence and margin: beside torch's softmax of logits at full size, and by hand."""

import pickle

import numpy as np
import pytest

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError
from lpsnet.inference import label_map
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.label_map import PixelLogits, ResizedLogits
from lpsnet.inference.result import Segmentation
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord

torch = pytest.importorskip("torch")


def expected(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> tuple[np.ndarray, np.ndarray]:
    """All logits at full size, in float64."""
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None].double(), size, mode="bilinear", align_corners=align_corners
    )
    best = torch.softmax(whole, 1)[0].topk(min(2, len(logits)), dim=0).values.numpy()
    return best[0], best[0] - (best[1] if len(best) > 1 else 0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((11, 9, 12), (72, 96)),
        ((19, 7, 5), (53, 47)),
        ((2, 1, 1), (5, 3)),
        ((3, 40, 50), (20, 30)),
        ((1, 4, 4), (8, 8)),
    ],
)
def test_equal_to_the_softmax_at_full_size(shape: tuple, size: tuple[int, int], align_corners: bool) -> None:
    logits = np.random.default_rng(sum(shape)).normal(0, 3, shape).astype(np.float32)
    probability, margin = PixelLogits.of(ResizedLogits(logits, size, align_corners)).certainty()
    for ours, theirs in zip((probability, margin), expected(logits, size, align_corners), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_bands_of_one_row_and_a_large_offset_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 6, 8)).astype(np.float32)
    whole = PixelLogits.of(ResizedLogits(logits, (48, 64), True)).certainty()
    monkeypatch.setattr(label_map, "_CERTAINTY_PART", 1)
    for one, other in zip(whole, PixelLogits.of(ResizedLogits(logits, (48, 64), True)).certainty(), strict=True):
        np.testing.assert_array_equal(one, other)
    shifted = PixelLogits.of(ResizedLogits(logits + np.float32(4096), (48, 64), True)).certainty()
    np.testing.assert_allclose(shifted[0], whole[0], rtol=0, atol=2e-3)  # 4096 + x keeps x to 2**-12


def test_two_equal_classes_by_hand() -> None:
    logits = np.zeros((3, 2, 2), np.float32)
    logits[2] = -np.log(2)  # probabilities 2/5, 2/5, 1/5
    probability, margin = PixelLogits.of(ResizedLogits(logits, (4, 6), True)).certainty()
    np.testing.assert_allclose(probability, 0.4, atol=1e-6)
    np.testing.assert_allclose(margin, 0, atol=1e-6)


@pytest.fixture
def result() -> Segmentation:
    logits = np.random.default_rng(3).normal(0, 3, (1, 4, 8, 10)).astype(np.float32)
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(4), input_size=(32, 40))
    segment = Segmenter.from_session(FakeSession(lambda _: logits), record)
    return segment(np.zeros((61, 75, 3), np.uint8))


def test_a_result_has_the_probability_of_its_own_label(result: Segmentation) -> None:
    assert result.confidence.shape == result.margin.shape == (61, 75)
    field = result._logits.field
    logits = field.at(np.arange(61), np.arange(75))
    odds = np.exp(logits - logits.max(axis=0))
    own = np.take_along_axis(odds, result.labels[None].astype(int), 0)[0] / odds.sum(axis=0)
    np.testing.assert_allclose(result.confidence, own, atol=1e-5)
    assert result.confidence is result.confidence  # kept after the first use


@pytest.mark.parametrize("key", [np.s_[5:20, 10:], np.s_[5:20], np.s_[:, ::-1], np.s_[::2, 1::3], np.s_[5:5]])
def test_a_crop_has_the_crop_of_it(result: Segmentation, key: object) -> None:
    np.testing.assert_array_equal(result[key].confidence, result.confidence[key])
    np.testing.assert_array_equal(result[key].margin, result.margin[key])


def test_copies_keep_it(result: Segmentation) -> None:
    for twin in (result.copy(), pickle.loads(pickle.dumps(result))):
        np.testing.assert_array_equal(twin.confidence, result.confidence)


def test_without_logits_it_is_refused(result: Segmentation) -> None:
    for unknown in (Segmentation(result.labels, result.image, result.label_space), result.T):
        with pytest.raises(DataError, match="not known"):
            _ = unknown.confidence
    with pytest.raises(DataError, match="logits are for"):
        Segmentation(result.labels[1:], result.image[1:], result.label_space, result._logits.field)

"""The proof of an export, with sessions whose distance from the network is known."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lpsnet.data.labels import IGNORE_INDEX, LabelSpace  # noqa: E402
from lpsnet.data.split import Sample  # noqa: E402
from lpsnet.errors import DataError, ModelFileError  # noqa: E402
from lpsnet.export.verify import ODD_SIZES, Bounds, compare_miou, verify  # noqa: E402
from lpsnet.inference.engines import FakeSession  # noqa: E402
from lpsnet.inference.segmenter import Segmenter  # noqa: E402
from lpsnet.models.network import create_model  # noqa: E402
from lpsnet.record import ModelRecord  # noqa: E402

torch.manual_seed(0)
NET = create_model("tiny", num_classes=3).eval()
RECORD = ModelRecord(architecture="tiny", label_space=LabelSpace.numbered(3))


@torch.inference_mode()
def _network_logits(image: np.ndarray) -> np.ndarray:
    logits: np.ndarray = NET(torch.from_numpy(image)).numpy().copy()
    return logits


def _off(image: np.ndarray) -> np.ndarray:
    """One score is off by a thousandth of the range."""
    logits = _network_logits(image)
    logits[0, 1, 0, 0] += 0.001 * np.ptp(logits)
    return logits


def test_the_network_itself_passes() -> None:
    checks = verify(NET, FakeSession(_network_logits), record=RECORD, sizes=[(40, 50)])
    assert [(check.image, check.size) for check in checks] == [("noise", (40, 50)), ("smooth", (40, 50))]
    assert {(check.score_difference, check.label_agreement) for check in checks} == {(0, 100)}


def test_every_image_is_compared_at_every_size() -> None:
    session = FakeSession(_network_logits)
    image = np.zeros((10, 20, 3), np.uint8)
    verify(NET, session, record=RECORD, sizes=[(40, 50), (33, 47)], images=[image])
    assert session.shapes == 3 * [((1, 3, 40, 50),)] + 3 * [((1, 3, 33, 47),)]


def test_the_difference_is_a_share_of_the_range() -> None:
    checks = verify(NET, FakeSession(_off), record=RECORD, sizes=[(64, 64)], bounds=Bounds(0.0011, 50))
    assert [check.score_difference for check in checks] == pytest.approx([0.001, 0.001], rel=1e-2)
    with pytest.raises(ModelFileError, match=r"differs by 0.001 of the range .* \(at most 0.0009 is allowed\)"):
        verify(NET, FakeSession(_off), record=RECORD, sizes=[(64, 64)], bounds=Bounds(0.0009, 50))


def test_labels_alone_can_fail_a_file() -> None:
    def swapped(image: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(_network_logits(image)[:, ::-1])

    with pytest.raises(ModelFileError, match="% of the pixels the same label"):
        verify(NET, FakeSession(swapped), record=RECORD, sizes=[(64, 64)], bounds=Bounds(1e9, 99.9))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_finite_fail(value: float) -> None:
    def broken(image: np.ndarray) -> np.ndarray:
        logits = _network_logits(image)
        logits[0, 0, 0, 0] = value
        return logits

    with pytest.raises(ModelFileError, match="not the network"):
        verify(NET, FakeSession(broken), record=RECORD, sizes=[(64, 64)], bounds=Bounds(1e30, 0))


def test_logits_of_another_shape_fail() -> None:
    session = FakeSession(lambda image: _network_logits(image)[..., 1:])
    with pytest.raises(ModelFileError, match="logits of shape"):
        verify(NET, session, record=RECORD, sizes=[(64, 64)])


def _shifted(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.roll(_network_logits(image), 1, axis=1))


def test_elsewhere_another_bound_holds() -> None:
    """A class taken for another at every pixel: random images and odd sizes may be so, the user's own may not."""

    bounds = Bounds(1e9, 99.9, elsewhere=0)
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    verify(NET, FakeSession(_shifted), record=RECORD, sizes=[(64, 64)], bounds=bounds)
    verify(NET, FakeSession(_shifted), record=RECORD, sizes=ODD_SIZES[:1], images=[image], bounds=bounds)
    with pytest.raises(ModelFileError, match=r"on image 1 at 64x64, .*\(at least 99.9 %\)"):
        verify(NET, FakeSession(_shifted), record=RECORD, sizes=[(64, 64)], images=[image], bounds=bounds)


class _Labelled:
    """One image, whose labels are those of the network in its left half, and the next class in its right."""

    name, names = "val", ("a",)
    label_space = RECORD.label_space

    def __init__(self) -> None:
        self.image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        own = Segmenter.from_session(FakeSession(_network_logits), RECORD)(self.image)
        self.truth = np.where(np.arange(64) < 32, own, (own + 1) % 3).astype(np.uint8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample("a", self.image, self.truth)


def _miou(truth: np.ndarray, labels: np.ndarray) -> float:
    shares = [
        ((truth == k) & (labels == k)).sum() / ((truth == k) | (labels == k)).sum()
        for k in range(3)
        if ((truth == k) | (labels == k)).any()
    ]
    return 100 * float(np.mean(shares))


def test_miou_is_compared_before_and_after() -> None:
    split = _Labelled()
    labels = Segmenter.from_session(FakeSession(_network_logits), RECORD)(split.image)
    check = compare_miou(NET, FakeSession(_shifted), split, record=RECORD, size=None, most_lost=100)  # type: ignore[arg-type]
    assert (check.split, check.num_pictures) == ("val", 1)
    assert check.before == pytest.approx(_miou(split.truth, labels), abs=1e-4)
    assert check.after == pytest.approx(_miou(split.truth, (labels + 1) % 3), abs=1e-4)
    assert check.to_dict()["lost"] == check.before - check.after


def test_miou_lost_past_the_bound_fails_a_file() -> None:
    split = _Labelled()
    split.truth = Segmenter.from_session(FakeSession(_network_logits), RECORD)(split.image)
    with pytest.raises(ModelFileError, match=r"0.00 mIoU on val where the network has 100.00: 100.00 points lost"):
        compare_miou(NET, FakeSession(_shifted), split, record=RECORD, size=None, most_lost=1)  # type: ignore[arg-type]
    split.truth = np.full_like(split.truth, IGNORE_INDEX)
    with pytest.raises(DataError, match="no labelled pixel"):
        compare_miou(NET, FakeSession(_shifted), split, record=RECORD, size=None, most_lost=1)  # type: ignore[arg-type]

"""The segmenter's result: an ordinary array, beside a plain one that is put through the same."""

import copy
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.images import read_image
from lpsnet.data.labels import LabelSpace
from lpsnet.data.shapes import Polygon
from lpsnet.errors import DataError
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.result import MAX_NOTEBOOK_WIDTH, Segmentation, overlay
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord

SPACE = LabelSpace(name="three", names=("red", "green", "blue"), colours=((200, 0, 0), (0, 200, 0), (0, 0, 200)))


@pytest.fixture
def plain() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (40, 50), dtype=np.uint8)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)


@pytest.fixture
def result(plain: np.ndarray, image: np.ndarray) -> Segmentation:
    return Segmentation(plain.copy(), image, SPACE)


def test_a_segmenter_gives_one() -> None:
    logits = np.zeros((1, 3, 4, 5), np.float32)
    logits[:, 1] = 1
    record = ModelRecord(architecture=None, label_space=SPACE, input_size=(32, 40))
    image = np.zeros((64, 80, 3), np.uint8)
    result = Segmenter.from_session(FakeSession(lambda _: logits), record)(image)
    assert type(result) is Segmentation
    assert result.image is image
    assert result.shares == {"red": 0.0, "green": 1.0, "blue": 0.0}


ORDINARY = {
    "sum": lambda a: a.sum(),
    "max": lambda a: a.max(axis=0),
    "mean": np.mean,
    "plus": lambda a: a + 1,
    "from the left": lambda a: np.float32(0.5) * a,
    "equals": lambda a: a == 1,
    "two of them": lambda a: a * a,
    "where": lambda a: np.where(a == 2, 9, a),
    "bincount": lambda a: np.bincount(a.ravel(), minlength=3),
    "unique": np.unique,
    "stack": lambda a: np.stack([a, a]),
    "concatenate": lambda a: np.concatenate([a, a[:3]]),
    "pixel": lambda a: a[3, 4],
    "row": lambda a: a[3],
    "row of columns": lambda a: a[3, 2:9],
    "mask": lambda a: a[a > 0],
    "positions": lambda a: a[[1, 2], [3, 4]],
    "new axis": lambda a: a[None],
    "reduce": lambda a: np.add.reduce(a),
    "iterate": lambda a: next(iter(a)),
    "pad": lambda a: np.pad(a, 2),
    "resize": lambda a: cv2.resize(a, (9, 9), interpolation=cv2.INTER_NEAREST),
    "table": lambda a: np.arange(30).reshape(3, 10)[a],
}


@pytest.mark.parametrize("name", ORDINARY)
def test_what_an_array_gives_it_gives(result: Segmentation, plain: np.ndarray, name: str) -> None:
    ours, theirs = ORDINARY[name](result), ORDINARY[name](plain)
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


OWN_FORMS = {"T": lambda a: a.T, "reshape": lambda a: a.reshape(-1), "astype": lambda a: a.astype(np.int32)}


@pytest.mark.parametrize("name", OWN_FORMS)
def test_other_forms_belong_to_no_image(result: Segmentation, plain: np.ndarray, name: str) -> None:
    form = OWN_FORMS[name](result)
    np.testing.assert_array_equal(form, OWN_FORMS[name](plain))
    assert type(form + 1) is np.ndarray
    for use in (lambda: form.overlay(), lambda: form.shares, lambda: form.save("x")):
        with pytest.raises(DataError, match="belongs to no image"):
            use()
    assert form._repr_png_() is None
    assert type(pickle.loads(pickle.dumps(form))) is np.ndarray


def test_changes_in_place_stay(result: Segmentation, plain: np.ndarray, image: np.ndarray) -> None:
    result[plain == 2] = 0
    result += 1
    result[0, 0] = 0
    expected = np.where(plain == 2, 0, plain) + 1
    expected[0, 0] = 0
    np.testing.assert_array_equal(result, expected)
    assert type(result) is Segmentation
    assert result.image is image
    np.testing.assert_array_equal(result.labels, expected)


@pytest.mark.parametrize(
    "key", [np.s_[5:20, 10:], np.s_[5:20], np.s_[:, ::-1], np.s_[::2, 1::3], np.s_[:], np.s_[-9:-2, :7]]
)
def test_a_crop_is_the_result_of_the_cropped_image(
    result: Segmentation, plain: np.ndarray, image: np.ndarray, key: object
) -> None:
    crop = result[key]
    assert type(crop) is Segmentation
    np.testing.assert_array_equal(crop.labels, plain[key])
    np.testing.assert_array_equal(crop.image, image[key])
    np.testing.assert_array_equal(crop.overlay(), overlay(image[key], plain[key], SPACE))
    assert crop.labels.base is not None  # a view, as of any array
    crop[0, 0] = 7
    assert 7 in result


def test_an_empty_crop_has_no_shares(result: Segmentation) -> None:
    empty = result[5:5]
    assert empty.shares == {"red": 0.0, "green": 0.0, "blue": 0.0}
    assert empty._repr_png_() is None


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda a: a.copy(), *(
    (lambda a, p=protocol: pickle.loads(pickle.dumps(a, p))) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
)])  # fmt: skip
def test_copies_keep_the_image(result: Segmentation, image: np.ndarray, again: object) -> None:
    for part in (result, result[3:30, 5:40]):
        twin = again(part)
        assert type(twin) is Segmentation
        assert not np.shares_memory(twin, part)
        np.testing.assert_array_equal(twin, part)
        np.testing.assert_array_equal(twin.image, part.image)
        assert twin.label_space == SPACE


def test_shares_by_hand(image: np.ndarray) -> None:
    labels = np.zeros((40, 50), np.uint8)
    labels[:10] = 2
    assert Segmentation(labels, image, SPACE).shares == {"red": 0.75, "green": 0.0, "blue": 0.25}
    labels[:20, :25] = 255  # no class
    assert sum(Segmentation(labels, image, SPACE).shares.values()) == 0.75


def test_overlay_and_legend(result: Segmentation, plain: np.ndarray, image: np.ndarray) -> None:
    np.testing.assert_array_equal(result.overlay(opacity=0.3), overlay(image, plain, SPACE, opacity=0.3))
    tall = result.overlay(legend=True)
    assert tall.shape[0] > 40
    np.testing.assert_array_equal(tall[:40], result.overlay())
    with pytest.raises(DataError, match="opacity"):
        result.overlay(opacity=2)


@pytest.mark.parametrize("name", ["sub/street", "sub/street.png", "sub/street.JPG"])
def test_save_writes_what_segment_writes(
    result: Segmentation, plain: np.ndarray, image: np.ndarray, tmp_path: Path, name: str
) -> None:
    files = result.save(tmp_path / name)
    assert [file.name for file in files] == ["street.labels.png", "street.overlay.png"]
    assert {file.parent for file in files} == {tmp_path / "sub"}
    np.testing.assert_array_equal(cv2.imread(str(files[0]), cv2.IMREAD_UNCHANGED), plain)
    np.testing.assert_array_equal(read_image(files[1]), overlay(image, plain, SPACE))


def test_a_name_with_dots_is_kept_whole(result: Segmentation, tmp_path: Path) -> None:
    assert result.save(str(tmp_path / "frame.0001"))[0].name == "frame.0001.labels.png"


def test_notebooks_show_a_image(result: Segmentation, plain: np.ndarray) -> None:
    shown = cv2.imdecode(np.frombuffer(result._repr_png_(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert shown.shape[1] == 50
    np.testing.assert_array_equal(shown[:40], result.overlay())
    wide = Segmentation(np.tile(plain, (1, 60)), np.zeros((40, 3000, 3), np.uint8), SPACE)
    assert cv2.imdecode(np.frombuffer(wide._repr_png_(), np.uint8), cv2.IMREAD_COLOR).shape[1] == MAX_NOTEBOOK_WIDTH
    line = Segmentation(np.zeros((1, 20_000), np.uint8), np.zeros((1, 20_000, 3), np.uint8), SPACE)
    assert cv2.imdecode(np.frombuffer(line._repr_png_(), np.uint8), cv2.IMREAD_COLOR).shape[1] == MAX_NOTEBOOK_WIDTH


def test_what_does_not_fit_is_refused(plain: np.ndarray, image: np.ndarray) -> None:
    for labels, other in (
        (plain[1:], image),
        (plain, image[..., 0]),
        (plain.astype(int), image),
        (plain[None], image),
    ):
        with pytest.raises(DataError, match="label map is H x W uint8"):
            Segmentation(labels, other, SPACE)


def test_polygons_drawn_again_are_the_label_map(result: Segmentation, plain: np.ndarray) -> None:
    found = result.polygons()
    assert list(found) == ["red", "green", "blue"]
    again = np.full(plain.shape, 255, np.uint8)
    for number, name in enumerate(found):
        for outline in found[name]:
            Polygon(outline.rings).paint(again, number)
    np.testing.assert_array_equal(again, plain)
    assert list(Segmentation(np.full((4, 5), 2, np.uint8), np.zeros((4, 5, 3), np.uint8), SPACE).polygons()) == ["blue"]
    with pytest.raises(DataError, match="tolerance"):
        result.polygons(tolerance=-1)


def test_polygons_are_simplified_within_the_tolerance(image: np.ndarray) -> None:
    y, x = np.mgrid[:40, :50]
    labels = ((x - 25) ** 2 + (y - 20) ** 2 < 200).astype(np.uint8)
    (exact,) = Segmentation(labels, image, SPACE).polygons()["green"]
    (simple,) = Segmentation(labels, image, SPACE).polygons(tolerance=1.5)["green"]
    assert len(simple.exterior) < len(exact.exterior) / 2
    apart = [cv2.pointPolygonTest(simple.exterior.astype(np.float32), corner, True) for corner in exact.exterior]
    assert np.abs(apart).max() <= 1.5 + 1e-4

"""COCO's run lengths against pycocotools; Label Studio's against streams written down by hand and its own package's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from lpsnet.data.formats.coco import coco_bitmap, coco_text
from lpsnet.data.formats.labelstudio import brush_mask, brush_rle
from lpsnet.errors import DataError

_masks = arrays.arrays(bool, st.tuples(st.integers(1, 30), st.integers(1, 30)))


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'


@settings(deadline=None, max_examples=200)
@given(_masks)
def test_coco_as_pycocotools(mask: np.ndarray) -> None:
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert coco_text(mask) == theirs
    assert (coco_bitmap(mask.shape, theirs).mask() == mask).all()
    runs = coco_bitmap(mask.shape, theirs).runs.tolist()
    assert (coco_bitmap(mask.shape, runs).mask() == mask).all()
    assert (coco.decode(coco.frPyObjects({"size": list(mask.shape), "counts": runs}, *mask.shape)) == mask).all()


def test_coco_large_runs() -> None:
    mask = np.zeros((1500, 2000), bool)
    mask[3:1490, 1:1999] = True
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    assert coco_text(mask) == theirs
    assert (coco_bitmap(mask.shape, theirs).mask() == mask).all()


@pytest.mark.parametrize(
    "counts", ["o", "0o", "\x7f", "é", "ooooooooo0", "05", [5, 10**7], [1, 2**70], "P" * 9, "0" * 3 + "~", [4, 1]]
)
def test_coco_texts_that_are_none(counts: object) -> None:
    with pytest.raises(DataError) as caught:
        coco_bitmap((2, 2), counts)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=100)
@given(_masks)
def test_brushes_there_and_back(mask: np.ndarray) -> None:
    assert (brush_mask(*mask.shape, brush_rle(mask)) == mask).all()


# By label_studio_sdk 2.1.2: encode_rle of a 2 x 3 brush, RGBA with all channels 255 at (0, 1), (0, 2) and (1, 0), and
# of a 1 x 2 brush whose bytes all differ, which are not repeated
_BY_THE_SDK = (
    [0, 0, 0, 24, 57, 27, 252, 96, 22, 255, 231, 0, 0],
    [0, 0, 0, 8, 57, 27, 248, 0, 32, 1, 0, 6, 0, 0, 0, 160, 3, 0, 14, 0, 64],
)


def test_brushes_as_label_studio_writes_them() -> None:
    first, second = _BY_THE_SDK
    assert brush_mask(2, 3, first).tolist() == [[False, True, True], [True, False, False]]
    assert brush_mask(1, 2, second).tolist() == [[False, True]]


def bits(*fields: tuple[int, int]) -> list[int]:
    """Bytes of (number of bits, value) fields."""
    text = "".join(f"{value:0{count}b}" for count, value in fields)
    text += "0" * (-len(text) % 8)
    return [int(text[start : start + 8], 2) for start in range(0, len(text), 8)]


_HEAD = ((32, 8), (5, 7), (4, 2), (4, 3), (4, 7), (4, 15))  # 8 values of 8 bits; runs of 3, 4, 8 or 16 bits


def test_a_brush_bit_by_bit() -> None:
    """1 x 2 pixels: four zeros repeated (kind 0, length 4 - 1), then four values one by one, alpha 9 last."""
    stream = bits(*_HEAD, (1, 1), (2, 0), (3, 3), (8, 0), (1, 0), (2, 1), (4, 3), (8, 0), (8, 0), (8, 0), (8, 9))
    assert brush_mask(1, 2, stream).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("rle", "expected"),
    [
        ([], "not bytes"),
        ([300], "not bytes"),
        ([-1], "not bytes"),
        ([0, 0], "cut off"),
        (bits(*_HEAD), "cut off"),
        (bits((32, 2**32 - 1), *_HEAD[1:]), "are for 4294967295 bytes"),
        (bits(*_HEAD, (1, 1), (2, 3), (16, 9), (8, 1)), "longer than its image"),
    ],
)
def test_brushes_that_are_none(rle: list[int], expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        brush_mask(1, 2, rle)


def test_a_brush_of_no_size() -> None:
    with pytest.raises(DataError, match="not possible"):
        brush_mask(10**6, 10**6, [0])

"""Label decoders against translations pixel by pixel, and what they refuse."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import write_image, write_palette_png

from lpsnet.data.decode import LabelDecoder, ranges
from lpsnet.errors import DataError

RED, GREEN, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 0)


@settings(deadline=None, max_examples=30)
@given(
    id_map=st.dictionaries(st.integers(0, 65535), st.sampled_from([0, 1, 5, 254, 255]), min_size=1, max_size=20),
    wide=st.booleans(),
    seed=st.integers(0, 99),
)
def test_ids_are_translated_pixel_by_pixel(id_map: dict[int, int], wide: bool, seed: int) -> None:
    if not wide:
        id_map = {number % 256: label for number, label in id_map.items()}
    mask = np.random.default_rng(seed).choice(list(id_map), (5, 8)).astype(np.uint16 if wide else np.uint8)
    labels = LabelDecoder.index(id_map)(mask)
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[id_map[int(value)] for value in row] for row in mask]


@settings(deadline=None, max_examples=20)
@given(
    colour_map=st.dictionaries(
        st.tuples(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255)),
        st.integers(0, 254),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 99),
)
def test_colours_are_translated_pixel_by_pixel(colour_map: dict[tuple[int, int, int], int], seed: int) -> None:
    mask = np.random.default_rng(seed).choice(np.array(list(colour_map), np.uint8), (4, 6))
    labels = LabelDecoder.colours(colour_map)(mask)
    assert labels.tolist() == [[colour_map[tuple(pixel)] for pixel in row] for row in mask.tolist()]


def test_unknown_ids_are_named_with_their_pixels(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.array([[0, 1, 9], [9, 7, 255]], np.uint8))
    with pytest.raises(DataError) as caught:
        LabelDecoder.index({0: 0, 1: 1, 2: 2, 255: 255}).read(path)
    expected = f"label file {path} holds ids that no class has: 7 (1 pixel), 9 (2 pixels); allowed: 0..2, 255"
    assert str(caught.value) == expected


def test_unknown_16_bit_ids_are_named() -> None:
    with pytest.raises(DataError, match=r"40000 \(1 pixel\)"):
        LabelDecoder.index({0: 0})(np.array([[0, 40000]], np.uint16))


def test_many_unknown_ids_are_shortened() -> None:
    with pytest.raises(DataError, match=r"8 \(1 pixel\) and 91 more; allowed: 0$"):
        LabelDecoder.index({0: 0})(np.arange(100, dtype=np.uint8).reshape(10, 10))


def test_unknown_colours_are_named_with_their_pixels() -> None:
    mask = np.array([[RED, GREEN], [BLACK, BLACK]], np.uint8)
    with pytest.raises(
        DataError, match=r"file x holds colours that no class has: \(0, 0, 0\) \(2 pixels\); allowed: the 2"
    ):
        LabelDecoder.colours({RED: 0, GREEN: 1})(mask, source="x")


def test_others_can_mean_no_label() -> None:
    assert LabelDecoder.index({3: 0}, ignore_others=True)(np.array([[3, 4]], np.uint8)).tolist() == [[0, 255]]
    mask = np.array([[RED, GREEN]], np.uint8)
    assert LabelDecoder.colours({RED: 0}, ignore_others=True)(mask).tolist() == [[0, 255]]


def test_ids_saved_as_grey_rgb_are_ids() -> None:
    ids = np.array([[0, 1], [2, 1]], np.uint8)
    decoder = LabelDecoder.index({0: 5, 1: 6, 2: 7})
    assert decoder(np.dstack([ids] * 3)).tolist() == [[5, 6], [7, 6]]


def test_colours_for_ids_and_ids_for_colours_are_refused() -> None:
    with pytest.raises(DataError, match="file x holds colours, where ids are expected"):
        LabelDecoder.index({0: 0})(np.array([[RED]], np.uint8), source="x")
    with pytest.raises(DataError, match="file x holds ids, where colours are expected"):
        LabelDecoder.colours({RED: 0})(np.array([[1]], np.uint8), source="x")


def test_palette_files_serve_both(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2]], np.uint8)
    path = write_palette_png(tmp_path / "a.png", indices, [BLACK, RED, GREEN])
    assert LabelDecoder.index({0: 255, 1: 0, 2: 1}).read(path).tolist() == [[255, 0, 1]]
    assert LabelDecoder.colours({BLACK: 255, RED: 1, GREEN: 0}).read(path).tolist() == [[255, 1, 0]]


def test_census_counts_known_and_unknown() -> None:
    ids = LabelDecoder.index({0: 1, 4: 1, 255: 255}).census(np.array([[0, 4, 255, 9]], np.uint8))
    assert ids == ({1: 2, 255: 1}, {9: 1})
    colours = LabelDecoder.colours({RED: 3}).census(np.array([[RED, RED, BLACK]], np.uint8))
    assert colours == ({3: 2}, {BLACK: 1})


def test_maps_that_cannot_be_are_refused() -> None:
    with pytest.raises(DataError, match="id 65536 cannot stand"):
        LabelDecoder.index({65536: 0})
    with pytest.raises(DataError, match="class id 256 is not possible"):
        LabelDecoder.index({0: 256})
    with pytest.raises(DataError, match=r"\(0, 0, 256\) is not a colour"):
        LabelDecoder.colours({(0, 0, 256): 0})
    with pytest.raises(DataError, match="at least one colour"):
        LabelDecoder.colours({})


def test_a_decoder_is_a_value() -> None:
    decoder = LabelDecoder.index({1: 0, 0: 1})
    assert decoder == LabelDecoder.index({0: 1, 1: 0})
    assert hash(decoder) == hash(pickle.loads(pickle.dumps(decoder)))


def test_ranges() -> None:
    assert ranges([2, 0, 1, 5, 7, 8]) == "0..2, 5, 7..8"

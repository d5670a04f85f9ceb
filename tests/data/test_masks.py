"""Label files are read as the numbers they hold, whatever the format does to numbers."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import packed_rows, png_bytes, write_image, write_palette_png

from lpsnet.data.decode import LabelDecoder
from lpsnet.data.images import read_image, read_mask
from lpsnet.errors import DataError

COLOURS = [(10, 20, 30), (200, 100, 50), (0, 255, 0), (1, 2, 3)]


@pytest.fixture
def rgb() -> np.ndarray:
    """A small image in which no two channels are alike."""
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def test_a_mask_gives_the_numbers_in_the_file(tmp_path: Path) -> None:
    ids = np.array([[0, 7, 255], [1, 2, 3]], np.uint8)
    wide = ids.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_mask(write_image(tmp_path / "a.png", ids)), ids)
    np.testing.assert_array_equal(read_mask(write_image(tmp_path / "a.tiff", ids)), ids)
    read = read_mask(write_image(tmp_path / "b.png", wide))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, wide)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [True, False])
def test_masks_of_few_bits_give_indices(tmp_path: Path, depth: int, palette: bool) -> None:
    indices = np.random.default_rng(depth).integers(0, 2**depth, (7, 13), dtype=np.uint8)
    path = tmp_path / "a.png"
    if palette:
        colours = np.random.default_rng(0).integers(0, 256, (2**depth, 3)).tolist()
        write_palette_png(path, indices, colours, depth=depth)
        np.testing.assert_array_equal(read_mask(path, expand_palette=True), np.array(colours, np.uint8)[indices])
    else:
        path.write_bytes(png_bytes(packed_rows(indices, depth), size=(7, 13), depth=depth, colour_type=0))
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, indices)


def test_transparency_does_not_change_ids(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2, 3]], np.uint8)
    for depth in (2, 8):
        rows = packed_rows(ids, depth)
        path = tmp_path / f"{depth}.png"
        path.write_bytes(png_bytes(rows, size=(1, 4), depth=depth, colour_type=0, transparency=b"\0\2"))
        np.testing.assert_array_equal(LabelDecoder.index({0: 0, 1: 1, 2: 2, 3: 3}).read(path), ids)


def test_a_colour_mask_is_rgb_and_loses_alpha(tmp_path: Path, rgb: np.ndarray) -> None:
    np.testing.assert_array_equal(read_mask(write_image(tmp_path / "a.png", rgb)), rgb)
    rgba = np.dstack([rgb, rgb[..., :1]])
    np.testing.assert_array_equal(read_mask(write_image(tmp_path / "b.png", rgba)), rgb)


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_more_channels_of_16_bits_are_refused(tmp_path: Path, colour_type: int, channels: int) -> None:
    """Ids in equal channels and colours times 257 look the same; divided by 257, every id would be 0."""
    ids = np.repeat(np.arange(12, dtype=">u2").reshape(3, 4, 1), channels, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in ids)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(rows, size=(3, 4), depth=16, colour_type=colour_type))
    for expand_palette in (False, True):
        with pytest.raises(DataError, match="channels of 16 bits; ids of 8 or 16 bits in one channel"):
            read_mask(path, expand_palette=expand_palette)


def bmp_bytes(indices: np.ndarray, colours: list[tuple[int, int, int]]) -> bytes:
    """An 8 bit BMP file: rows from the bottom up, each filled to a multiple of four bytes."""
    height, width = indices.shape
    palette = b"".join(bytes((blue, green, red, 0)) for red, green, blue in colours)
    rows = b"".join(bytes(row) + b"\0" * (-width % 4) for row in indices[::-1].tolist())
    start = 14 + 40 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 0, len(rows), 0, 0, len(colours), 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


def test_a_bmp_mask_gives_indices(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
    path = tmp_path / "a.bmp"
    path.write_bytes(bmp_bytes(indices, COLOURS))
    np.testing.assert_array_equal(read_mask(path), indices)
    np.testing.assert_array_equal(read_image(path), np.array(COLOURS, np.uint8)[indices])


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_masks_in_lossy_formats_are_refused(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", rgb)
    with pytest.raises(DataError, match="changes ids; save labels as PNG"):
        read_mask(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp", "palette"])
def test_damaged_bytes_give_a_image_or_our_error(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    path = tmp_path / "a.png"
    if suffix == "palette":
        whole = write_palette_png(path, np.zeros((3, 5), int), COLOURS, depth=2).read_bytes()
    else:
        whole = write_image(tmp_path / f"whole{suffix}", rgb).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(100):
        data = np.frombuffer(whole, np.uint8).copy()
        places = rng.integers(0, min(len(data), 60), 3)  # the headers are where damage misleads most
        data[places] = rng.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        for read in (read_image, read_mask):
            with contextlib.suppress(DataError):
                assert read(path, max_pixels=10_000).size

"""Images and label files: damaged, cut off, claiming what they are not."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import tifffile
from damage import Draw, damaged
from fuzzing import Target
from hypothesis import strategies as st
from sample_images import images, label_files

from lpsnet.data.channels import bands_header, read_bands
from lpsnet.data.decode import LabelDecoder
from lpsnet.data.images import MAX_PIXELS_VARIABLE, inspect_image, read_image, read_mask
from lpsnet.errors import DataError

_IMAGES = tuple(images().values())
_LABELS = tuple(label_files().values())
MAX_PIXELS = 10_000_000  # of fuzzed files: a damaged size may be anything up to the limit, which is for real images


def _read(data: bytes, folder: Path) -> None:
    path = folder / "picture"
    path.write_bytes(data)
    image = read_image(path, max_pixels=MAX_PIXELS)
    header = inspect_image(path)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert sorted(image.shape[:2]) == sorted((header.height, header.width))  # EXIF may have turned it


def _read_bands(data: bytes, folder: Path) -> None:
    path = folder / "bands"
    path.write_bytes(data)
    with mock.patch.dict(os.environ, {MAX_PIXELS_VARIABLE: str(MAX_PIXELS)}):
        image = read_bands(path)
        size, bits = bands_header(path)
    assert image.shape[:2] == size
    assert image.dtype == {8: np.uint8, 16: np.uint16}[bits]
    assert 1 <= image.shape[2] <= 16


def _multispectral() -> tuple[bytes, ...]:
    """TIFF files of 5 channels of 16 bits, as tifffile writes them."""
    image, found = np.random.default_rng(0).integers(0, 4096, (20, 24, 5)).astype(np.uint16), []
    for options in ({}, {"compression": "lzw"}, {"compression": "zlib", "predictor": True, "tile": (16, 16)}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, image, photometric="minisblack", planarconfig="contig", **options)
        found.append(buffer.getvalue())
    return tuple(found)


def _read_labels(data: bytes, folder: Path) -> None:
    path = folder / "labels.png"
    path.write_bytes(data)
    decoder = LabelDecoder.index({0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 255: 255})
    mask = read_mask(path, max_pixels=MAX_PIXELS)
    labels = decoder(mask, source=path)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 1, 2, 3, 4, 255}
    np.testing.assert_array_equal(labels, mask if mask.ndim == 2 else mask[..., 0])  # this map leaves ids as they are


def _cut_off(case: tuple[bytes, int], folder: Path) -> None:
    """What is cut off is refused, or nothing that matters was: the image is the same."""
    data, length = case
    whole, part = folder / "whole", folder / "part"
    whole.write_bytes(data)
    part.write_bytes(data[:length])
    try:
        image = read_image(part)
    except DataError:
        return
    np.testing.assert_array_equal(image, read_image(whole))


def _flipped_png(case: tuple[bytes, int, int], folder: Path) -> None:
    """PNG has checksums: a flipped bit is noticed, or it is in what does not matter."""
    data, position, bit = case
    whole, part = folder / "whole", folder / "part"
    whole.write_bytes(data)
    spoilt = bytearray(data)
    spoilt[position] ^= 1 << bit
    part.write_bytes(spoilt)
    try:
        image = read_image(part, max_pixels=MAX_PIXELS)
    except DataError:
        return
    np.testing.assert_array_equal(image, read_image(whole))


def _claims(case: tuple[int, int, int, int], folder: Path) -> None:
    """A PNG of 57 bytes that claims any size: never allocated above the limit."""
    width, height, depth, colour = case
    path = folder / "bomb.png"
    path.write_bytes(claiming_png(width, height, depth, colour))
    image = read_image(path, max_pixels=MAX_PIXELS)
    assert image.shape[:2] == (height, width)


def claiming_png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A well-formed PNG that claims this size and holds one row's worth of zeros at most."""
    rows = zlib.compress(b"\0" * 64)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", rows),
        (b"IEND", b""),
    ]
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@st.composite
def _cuts(draw: Draw) -> tuple[bytes, int]:
    data = draw(st.sampled_from(_IMAGES))
    return data, draw(st.integers(0, len(data) - 1))


@st.composite
def _flips(draw: Draw) -> tuple[bytes, int, int]:
    data = draw(st.sampled_from([data for name, data in images().items() if name.endswith(".png")]))
    return data, draw(st.integers(0, len(data) - 1)), draw(st.integers(0, 7))


def _data_check(case: tuple[bytes, bytes], folder: Path) -> None:
    """The data check reads any file."""
    from lpsnet.data.check import check_dataset

    for name, data in (("images/train/a.png", case[0]), ("masks/train/a.png", case[1])):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    (folder / "d.yaml").write_text("names: [a, b, c, d, e]\n")
    check_dataset(folder / "d.yaml")


_SIZES: Any = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1])
_CLAIMS = st.tuples(_SIZES, _SIZES, st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([0, 2, 3, 4, 6]))
_PAIRS = st.tuples(damaged(_IMAGES), damaged(_LABELS))

TARGETS = (
    Target("picture", damaged(_IMAGES), _read, many=4_000, few=60),
    Target("bands", damaged((*_multispectral(), *_IMAGES)), _read_bands, many=2_500, few=40),
    Target("image cut off", _cuts(), _cut_off, many=1_500, few=40),
    Target("png with a flipped bit", _flips(), _flipped_png, many=1_500, few=40),
    Target("image of a claimed size", _CLAIMS, _claims, many=500),
    Target("label file", damaged(_LABELS), _read_labels, many=2_500, few=40),
    Target("data_check", _PAIRS, _data_check, many=1_000, few=10),
)

"""Rows of TIFF files by their strips and tiles, beside the whole image decoded at once."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from tiff_files import tiff_bytes

from lpsnet.data.image_rows import TiffRows, WholeRows, open_rows
from lpsnet.data.images import read_image
from lpsnet.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = cv2.resize(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8), (187, 131))


def saved(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "TIFF", **options)
    return stream.getvalue()


def written(*parameters: int) -> bytes:
    return cv2.imencode(".tif", PIXELS[..., ::-1], parameters)[1].tobytes()


_STRIPS = (cv2.IMWRITE_TIFF_ROWSPERSTRIP, 24)
KINDS = {
    "no compression, strips": tiff_bytes(PIXELS, strip=50),
    "no compression, one strip": tiff_bytes(PIXELS),
    "big endian": tiff_bytes(PIXELS, strip=50, order=">"),
    "Deflate, tiles": tiff_bytes(PIXELS, tile=64, compression=8),
    "Deflate, tiles, predictor, big endian": tiff_bytes(PIXELS, tile=48, compression=8, predictor=True, order=">"),
    "no compression, tiles": tiff_bytes(PIXELS, tile=32),
    "alpha": tiff_bytes(np.dstack([PIXELS, PIXELS[..., :1]]), strip=30, extra=(2,)),
    "grey": tiff_bytes(PIXELS[..., :1], strip=30, photometric=1, compression=8),
    "white is 0": tiff_bytes(PIXELS[..., :1], tile=64, photometric=0),
    "16 bits": tiff_bytes(RNG.integers(0, 65536, (50, 60, 3)), bits=16, tile=32, compression=8),
    "1 bit": tiff_bytes((PIXELS[..., :1] > 128).astype(int), bits=1, photometric=1, strip=7),
    "palette": tiff_bytes(PIXELS[..., :1], photometric=3, strip=20, palette=RNG.integers(0, 65536, (256, 3))),
    "LZW": written(cv2.IMWRITE_TIFF_COMPRESSION, 5, *_STRIPS),
    "LZW, predictor": written(cv2.IMWRITE_TIFF_COMPRESSION, 5, cv2.IMWRITE_TIFF_PREDICTOR, 2, *_STRIPS),
    "PackBits": written(cv2.IMWRITE_TIFF_COMPRESSION, 32773, *_STRIPS),
    "JPEG": saved(compression="jpeg", quality=90, tiffinfo={278: 32}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_those_of_the_whole_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(KINDS[kind])
    whole = read_image(path)
    height = len(whole)
    with open_rows(path) as rows:
        assert isinstance(rows, TiffRows), rows.note
        assert rows.size == whole.shape[:2]
        for top, bottom in ((0, 1), (0, 40), (33, 90), (20, 21), (height - 1, height), (0, height)):
            np.testing.assert_array_equal(rows.read(top, min(bottom, height)), whole[top:bottom])


def test_big_tiff(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(saved(compression="tiff_lzw", big_tiff=True, tiffinfo={278: 16}))
    with open_rows(path) as rows:
        np.testing.assert_array_equal(rows.read(5, 100), PIXELS[5:100])
        assert isinstance(rows, TiffRows)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("apart", tiff_bytes(PIXELS, planar=True, strip=30)),
        ("orientation", tiff_bytes(PIXELS, strip=30, orientation=6)),
        ("single strip", tiff_bytes(PIXELS, compression=8)),
        ("only TIFF", cv2.imencode(".png", PIXELS)[1].tobytes()),
    ],
)
def test_what_is_not_read_by_parts_is_read_whole_and_says_so(tmp_path: Path, kind: str, data: bytes) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(data)
    with open_rows(path) as rows:
        assert isinstance(rows, WholeRows)
        assert kind in rows.note
        np.testing.assert_array_equal(rows.read(3, 20), read_image(path)[3:20])


def test_only_the_needed_strips_are_read(tmp_path: Path) -> None:
    """The other strips are destroyed."""
    path = tmp_path / "image.tif"
    data = bytearray(tiff_bytes(PIXELS, strip=10, compression=8))
    whole = cv2.imdecode(np.frombuffer(bytes(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    path.write_bytes(data)
    with open_rows(path) as rows:
        for piece in rows._pieces:
            if not 40 <= piece.top < 70:
                data[piece.offset : piece.offset + piece.length] = b"\xff" * piece.length
    path.write_bytes(data)
    with open_rows(path) as rows:
        np.testing.assert_array_equal(rows.read(45, 70), whole[45:70])


def test_a_tile_that_was_never_written_is_black(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    data = bytearray(tiff_bytes(PIXELS, tile=64))
    (place,) = struct.unpack_from("<I", data, data.index(struct.pack("<HHI", 325, 4, 9)) + 8)
    struct.pack_into("<I", data, place, 0)
    path.write_bytes(data)
    expected = PIXELS.copy()
    expected[:64, :64] = 0
    with open_rows(path) as rows:
        np.testing.assert_array_equal(rows.read(0, 131), expected)


@pytest.mark.parametrize("length", [0, 3, 8, 200, 24_000])
def test_a_file_that_is_cut_off_is_an_error_in_one_line(tmp_path: Path, length: int) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_bytes(PIXELS, strip=30)[:length])
    with pytest.raises(DataError) as error, open_rows(path) as rows:
        rows.read(0, 131)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("tag", "number"), [(257, 2**32 - 1), (256, 2**32 - 1), (278, 1), (322, 2**31), (324, 0)])
@pytest.mark.parametrize("options", [{"strip": 30}, {}, {"tile": 64}, {"strip": 30, "compression": 8}])
def test_sizes_that_cannot_be_are_an_error_at_once(tmp_path: Path, tag: int, number: int, options: dict) -> None:
    """Neither memory nor time for what a damaged file claims."""
    data = bytearray(tiff_bytes(PIXELS, **options))
    place = data.find(struct.pack("<HHI", tag, 4, 1))
    if place < 0:
        pytest.skip("a file without this tag")
    struct.pack_into("<I", data, place + 8, number)
    path = tmp_path / "image.tif"
    path.write_bytes(data)
    with pytest.raises(DataError) as error, open_rows(path) as rows:
        rows.read(0, 131)
    assert "\n" not in str(error.value)


def test_a_band_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_bytes(PIXELS, strip=10))
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "5000")
    with open_rows(path) as rows:
        np.testing.assert_array_equal(rows.read(100, 120), PIXELS[100:120])
        with pytest.raises(DataError, match="5,000"):
            rows.read(0, 131)

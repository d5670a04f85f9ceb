"""Rows of an image without the rest of it: TIFF files are read strip by strip or tile by tile, others whole.

Every strip or tile is made a small TIFF file of its own and decoded as any image is (`images.py`), so the pixels are
those of `read_image`, for every compression that OpenCV knows (none, LZW, Deflate, PackBits, JPEG, …) and for BigTIFF.
Not supported, and decoded whole: TIFF files with channels stored apart, with an orientation, of old-style JPEG, or
compressed in a single strip; and all other formats.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np

from lpsnet.data import tiff_directory as tiff
from lpsnet.data.images import Image, image_of, pixel_limit, read_image
from lpsnet.errors import DataError

_NO_COMPRESSION, _OLD_JPEG = 1, 6
_ROWS = 64  # of uncompressed pixels read at once
# What decoding a strip depends on: bits, compression, colours, fill order, channels, planes, options of fax
# compression, predictor, palette, extra channels, kind of numbers, tables of JPEG, subsampling and range of colours
_COPIED = (258, 259, 262, 266, 277, 284, 292, 293, 317, 320, 338, 339, 347, 530, 531, 532)


class ImageRows(Protocol):
    """An image of which rows are read.

    Attributes:
        size: (height, width) in pixels.
        note: why all of it is in memory, in a line; empty if it is not.
    """

    size: tuple[int, int]
    note: str

    def read(self, top: int, bottom: int) -> Image:
        """The rows from `top` to `bottom`, exclusive: (bottom - top) x W x 3 uint8 RGB.

        Raises:
            DataError: the file is damaged there.
        """


class WholeRows:
    """Rows of an image in memory; see `ImageRows`."""

    def __init__(self, image: Image, note: str = "") -> None:
        self._image, self.note = image, note
        self.size = image.shape[0], image.shape[1]

    def read(self, top: int, bottom: int) -> Image:
        """A view of the image."""
        return self._image[top:bottom]


class _Piece(NamedTuple):
    """A strip or tile: its place in the image and in the file, in pixels and bytes. Tiles may reach beyond the edge."""

    top: int
    left: int
    height: int
    width: int
    offset: int
    length: int


class TiffRows:
    """Rows of a TIFF file; see `ImageRows`. The decoded pieces of the last call are kept, as the next may need them."""

    note = ""

    def __init__(self, file: BinaryIO, path: Path, directory: tiff.Directory, pieces: list[_Piece]) -> None:
        self._file, self._path, self._directory, self._pieces = file, path, directory, pieces
        self.size = directory.number(tiff.HEIGHT), directory.number(tiff.WIDTH)
        self._decoded: dict[_Piece, Image] = {}

    def read(self, top: int, bottom: int) -> Image:
        """The rows, decoded from the strips or tiles that hold them."""
        width = self.size[1]
        if (bottom - top) * width > pixel_limit():
            raise DataError(f"{bottom - top} rows of {self._path} have more than {pixel_limit():,} pixels")
        found = np.zeros((bottom - top, width, 3), np.uint8)
        needed = [piece for piece in self._pieces if piece.top < bottom and piece.top + piece.height > top]
        self._decoded = {piece: image for piece, image in self._decoded.items() if piece in needed}
        for piece in needed:
            if piece not in self._decoded:
                self._decoded[piece] = self._decode(piece)
            first, last = max(top, piece.top), min(bottom, piece.top + piece.height)
            right = min(width, piece.left + piece.width)
            part = self._decoded[piece][first - piece.top : last - piece.top, : right - piece.left]
            found[first - top : last - top, piece.left : right] = part
        return found

    def _decode(self, piece: _Piece) -> Image:
        size = piece.height, piece.width
        if piece.length == 0:  # a tile that was never written: GDAL's sparse files
            return np.zeros((*size, 3), np.uint8)
        self._file.seek(piece.offset)
        data = self._file.read(piece.length)
        if len(data) < piece.length:
            raise DataError(f"{self._path} is cut off: the file ends before the image does")
        image = image_of(tiff.write_strip(self._directory, _COPIED, size, data), self._path)
        if image.shape[:2] != size:
            raise DataError(f"{self._path} is damaged at row {piece.top}: a part of it has another size than it claims")
        return image


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[ImageRows]:
    """The rows of an image file.

    Raises:
        DataError: as `read_image`.
    """
    if not tiff.is_tiff(path):
        yield WholeRows(read_image(path), f"{path} is decoded whole: only TIFF files are read by parts")
        return
    with path.open("rb") as file:
        directory = tiff.read_directory(file, path)
        if problem := _whole(directory):
            yield WholeRows(read_image(path), f"{path} is decoded whole: {problem}")
            return
        yield TiffRows(file, path, directory, _pieces(directory, path))


def _whole(directory: tiff.Directory) -> str:
    """Why a TIFF file is decoded whole; empty if it is not."""
    is_tiled = tiff.TILE_OFFSETS in directory.values
    compression, height = directory.number(tiff.COMPRESSION, 1), directory.number(tiff.HEIGHT)
    one_strip = not is_tiled and directory.number(tiff.ROWS_PER_STRIP, height) >= height
    for applies, reason in (
        (
            directory.number(tiff.PLANAR, 1) != 1 and directory.number(tiff.NUM_CHANNELS, 1) > 1,
            "its channels are apart",
        ),
        (directory.number(tiff.ORIENTATION, 1) != 1, "it has an orientation"),
        (compression == _OLD_JPEG, "it is compressed by old-style JPEG"),
        (one_strip and compression != _NO_COMPRESSION, "it is compressed in a single strip"),
    ):
        if applies:
            return reason
    return ""


def _pieces(directory: tiff.Directory, path: Path) -> list[_Piece]:
    height, width = directory.number(tiff.HEIGHT), directory.number(tiff.WIDTH)
    is_tiled = tiff.TILE_OFFSETS in directory.values
    rows, columns = (
        (directory.number(tiff.TILE_HEIGHT), directory.number(tiff.TILE_WIDTH))
        if is_tiled
        else (min(directory.number(tiff.ROWS_PER_STRIP, height), height), width)
    )
    tags = (tiff.TILE_OFFSETS, tiff.TILE_LENGTHS) if is_tiled else (tiff.STRIP_OFFSETS, tiff.STRIP_LENGTHS)
    offsets, lengths = directory.numbers(tags[0]), directory.numbers(tags[1])
    if min(height, width, rows, columns) < 1:
        raise DataError(f"{path} is a damaged TIFF file: it claims a size of {width} x {height} pixels")
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    if len(offsets) != len(places) or len(lengths) != len(places):
        raise DataError(f"{path} is a damaged TIFF file: it has {len(offsets)} strips or tiles; {len(places)} fit it")
    sizes = [(rows if is_tiled else min(rows, height - top), columns) for top, _ in places]
    pieces = [
        _Piece(*place, *size, offset, length)
        for place, size, offset, length in zip(places, sizes, offsets, lengths, strict=True)
    ]
    if not is_tiled and directory.number(tiff.COMPRESSION, 1) == _NO_COMPRESSION:
        return [part for piece in pieces for part in _split(piece)]
    return pieces


def _split(strip: _Piece) -> Iterator[_Piece]:
    """An uncompressed strip as several of fewer rows."""
    in_row = strip.length // strip.height
    for first in range(0, strip.height, _ROWS):
        count = min(_ROWS, strip.height - first)
        yield _Piece(strip.top + first, 0, count, strip.width, strip.offset + first * in_row, count * in_row)

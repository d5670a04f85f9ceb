"""Rows of an image without the rest of it: TIFF files are read by strips or tiles, PNG files are written row by row.

Every strip or tile is made a small TIFF file of its own and decoded as any image is (`images.py`), so the pixels are
those of `read_image`, for every compression that OpenCV knows (none, LZW, Deflate, PackBits, JPEG, …) and for BigTIFF.
Not supported, and decoded whole: TIFF files with channels stored apart, with an orientation, of old-style JPEG, or
compressed in a single strip; and all other formats.

In this order: the tags of TIFF files, rows that are read, rows that are written.
"""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np

from lpsnet.data.image_headers import PNG_SIGNATURE
from lpsnet.data.images import Image, Mask, image_of, pixel_limit, read_image
from lpsnet.errors import DataError
from lpsnet.io import atomic_path

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION = 256, 257, 258, 259, 262, 274
STRIP_OFFSETS, NUM_CHANNELS, ROWS_PER_STRIP, STRIP_LENGTHS, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_LENGTHS = 322, 323, 324, 325

# type -> letter of `struct`; ASCII and undefined are bytes
LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q"}
_MAX_ENTRIES = 4096
_MAX_BYTES = 2**26  # of one tag: the places of 8 million tiles


@dataclass(frozen=True)
class Directory:
    """Tags of a TIFF file.

    Attributes:
        order: "<" or ">", as `struct` names byte orders.
        values: by tag, the type and the bytes of its numbers, in the file's order.
    """

    order: str
    values: dict[int, tuple[int, bytes]]

    def numbers(self, tag: int) -> tuple[Any, ...]:
        """The numbers of a tag, none if the file does not have it or it holds none."""
        kind, data = self.values.get(tag, (1, b""))
        if kind not in LETTERS:
            return ()
        layout = LETTERS[kind]
        return struct.unpack(f"{self.order}{len(data) // struct.calcsize(layout)}{layout}", data)

    def number(self, tag: int, default: int = 0) -> int:
        """The first number of a tag."""
        found = self.numbers(tag)
        return int(found[0]) if found else default


def is_tiff(path: Path) -> bool:
    """Whether a file begins as TIFF files do."""
    try:
        with path.open("rb") as file:
            return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
    except OSError:
        return False


def read_directory(file: BinaryIO, path: Path) -> Directory:
    """The first directory of an open file; `path` is named in messages.

    Raises:
        DataError: it is no TIFF file, or is cut off or damaged.
    """
    try:
        return _read(file, path)
    except (struct.error, OSError, OverflowError):
        raise DataError(f"{path} is a damaged TIFF file: its directory cannot be read") from None


def _read(file: BinaryIO, path: Path) -> Directory:
    file.seek(0)
    start = file.read(16)
    order, is_big = ("<" if start[:2] == b"II" else ">"), b"+" in start[:4]
    # layouts: position of the directory, number of entries, an entry's tag, type and count; bytes for its value
    place, count, entry, room = ("Q", "Q", "HHQ", 8) if is_big else ("I", "H", "HHI", 4)
    (position,) = struct.unpack_from(order + place, start, 8 if is_big else 4)
    (num_entries,) = struct.unpack(order + count, _bytes(file, position, struct.calcsize(order + count)))
    if num_entries > _MAX_ENTRIES:
        raise DataError(f"{path} is a damaged TIFF file: its directory has {num_entries} entries")
    head = struct.calcsize(order + entry)
    table = _bytes(file, position + struct.calcsize(order + count), num_entries * (head + room))
    values: dict[int, tuple[int, bytes]] = {}
    for at in range(0, len(table), head + room):
        tag, kind, number = struct.unpack_from(order + entry, table, at)
        size = number * struct.calcsize(LETTERS.get(kind, "Q"))
        if size > _MAX_BYTES or tag in values:
            raise DataError(f"{path} is a damaged TIFF file: tag {tag} is too long, or there twice")
        data = table[at + head : at + head + room]
        if size > room:
            (place_of,) = struct.unpack(order + place, data)
            data = _bytes(file, place_of, size)
        values[tag] = (kind, data[:size])
    return Directory(order, values)


def _bytes(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    data = file.read(size)
    if len(data) < size:
        raise struct.error("the file ends too early")
    return data


def write_strip(directory: Directory, tags: tuple[int, ...], size: tuple[int, int], pixels: bytes) -> bytes:
    """A classic TIFF file of one strip or tile of another one.

    Args:
        directory: of the other file.
        tags: copied from it.
        size: (height, width) of the strip.
        pixels: its bytes, as they are in the other file.
    """
    order = directory.order
    values = {tag: directory.values[tag] for tag in tags if tag in directory.values}
    numbers = {WIDTH: size[1], HEIGHT: size[0], ROWS_PER_STRIP: size[0], STRIP_OFFSETS: 8, STRIP_LENGTHS: len(pixels)}
    values |= {tag: (4, struct.pack(order + "I", number)) for tag, number in numbers.items()}
    start = 8 + len(pixels) + len(pixels) % 2
    after = start + 2 + 12 * len(values) + 4
    entries, more = b"", b""
    for tag, (kind, data) in sorted(values.items()):
        count = len(data) // struct.calcsize(LETTERS.get(kind, "Q"))
        if len(data) <= 4:
            value = data.ljust(4, b"\0")
        else:
            value = struct.pack(order + "I", after + len(more))
            more += data + b"\0" * (len(data) % 2)
        entries += struct.pack(order + "HHI", tag, kind, count) + value
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    table = struct.pack(order + "H", len(values)) + entries + struct.pack(order + "I", 0)
    return head + pixels + b"\0" * (len(pixels) % 2) + table + more


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

    def __init__(self, file: BinaryIO, path: Path, directory: Directory, pieces: list[_Piece]) -> None:
        self._file, self._path, self._directory, self._pieces = file, path, directory, pieces
        self.size = directory.number(HEIGHT), directory.number(WIDTH)
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
        image = image_of(write_strip(self._directory, _COPIED, size, data), self._path)
        if image.shape[:2] != size:
            raise DataError(f"{self._path} is damaged at row {piece.top}: a part of it has another size than it claims")
        return image


@contextlib.contextmanager
def open_rows(path: Path) -> Iterator[ImageRows]:
    """The rows of an image file.

    Raises:
        DataError: as `read_image`.
    """
    if not is_tiff(path):
        yield WholeRows(read_image(path), f"{path} is decoded whole: only TIFF files are read by parts")
        return
    with path.open("rb") as file:
        directory = read_directory(file, path)
        if problem := _whole(directory):
            yield WholeRows(read_image(path), f"{path} is decoded whole: {problem}")
            return
        yield TiffRows(file, path, directory, _pieces(directory, path))


def _whole(directory: Directory) -> str:
    """Why a TIFF file is decoded whole; empty if it is not."""
    is_tiled = TILE_OFFSETS in directory.values
    compression, height = directory.number(COMPRESSION, 1), directory.number(HEIGHT)
    one_strip = not is_tiled and directory.number(ROWS_PER_STRIP, height) >= height
    for applies, reason in (
        (
            directory.number(PLANAR, 1) != 1 and directory.number(NUM_CHANNELS, 1) > 1,
            "its channels are apart",
        ),
        (directory.number(ORIENTATION, 1) != 1, "it has an orientation"),
        (compression == _OLD_JPEG, "it is compressed by old-style JPEG"),
        (one_strip and compression != _NO_COMPRESSION, "it is compressed in a single strip"),
    ):
        if applies:
            return reason
    return ""


def _pieces(directory: Directory, path: Path) -> list[_Piece]:
    height, width = directory.number(HEIGHT), directory.number(WIDTH)
    is_tiled = TILE_OFFSETS in directory.values
    rows, columns = (
        (directory.number(TILE_HEIGHT), directory.number(TILE_WIDTH))
        if is_tiled
        else (min(directory.number(ROWS_PER_STRIP, height), height), width)
    )
    tags = (TILE_OFFSETS, TILE_LENGTHS) if is_tiled else (STRIP_OFFSETS, STRIP_LENGTHS)
    offsets, lengths = directory.numbers(tags[0]), directory.numbers(tags[1])
    if min(height, width, rows, columns) < 1:
        raise DataError(f"{path} is a damaged TIFF file: it claims a size of {width} x {height} pixels")
    count = -(-height // rows) * -(-width // columns)
    if len(offsets) != count or len(lengths) != count:
        raise DataError(f"{path} is a damaged TIFF file: it has {len(offsets)} strips or tiles; {count} fit it")
    if rows * columns > pixel_limit() and (is_tiled or directory.number(COMPRESSION, 1) != _NO_COMPRESSION):
        raise DataError(f"{path} has strips or tiles of {columns} x {rows} pixels, more than {pixel_limit():,}")
    places = [(top, left) for top in range(0, height, rows) for left in range(0, width, columns)]
    sizes = [(rows if is_tiled else min(rows, height - top), columns) for top, _ in places]
    pieces = [
        _Piece(*place, *size, offset, length)
        for place, size, offset, length in zip(places, sizes, offsets, lengths, strict=True)
    ]
    if not is_tiled and directory.number(COMPRESSION, 1) == _NO_COMPRESSION:
        if any(piece.length < piece.height for piece in pieces):
            raise DataError(f"{path} is a damaged TIFF file: a strip has fewer bytes than rows")
        return [part for piece in pieces for part in _split(piece)]
    return pieces


def _split(strip: _Piece) -> Iterator[_Piece]:
    """An uncompressed strip as several of fewer rows."""
    in_row = strip.length // strip.height
    for first in range(0, strip.height, _ROWS):
        count = min(_ROWS, strip.height - first)
        yield _Piece(strip.top + first, 0, count, strip.width, strip.offset + first * in_row, count * in_row)


# PNG files written row by row, for images that are not in memory as a whole (PNG specification, third edition).

_GREY, _RGB = 0, 2  # colour types
_DIFFERENCES = 1  # filter: every byte less the one of the pixel at its left
_LEVEL = 1  # of zlib; OpenCV's


class _PngRows:
    """A PNG file that rows are added to; its height is written when it ends."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._kind: tuple[int, ...] = ()  # width, bits, colour type
        self._height = 0
        self._compressor = zlib.compressobj(_LEVEL, strategy=zlib.Z_RLE)

    def add(self, rows: Mask) -> None:
        is_colour = rows.ndim == 3
        kind = rows.shape[1], 8 * rows.dtype.itemsize, _RGB if is_colour else _GREY
        if self._height == 0:
            self._kind = kind
            self._file.write(PNG_SIGNATURE)
            self._header()
        if kind != self._kind:
            raise DataError(f"{self._path}: rows of width, bits and colours {kind} after others of {self._kind}")
        self._height += len(rows)
        step = (3 if is_colour else 1) * rows.dtype.itemsize
        stored = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">")).view(np.uint8).reshape(len(rows), -1)
        lines = np.empty((len(rows), 1 + stored.shape[1]), np.uint8)
        lines[:, 0], lines[:, 1 : 1 + step] = _DIFFERENCES, stored[:, :step]
        np.subtract(stored[:, step:], stored[:, :-step], out=lines[:, 1 + step :])  # bytes wrap, as the filter wants
        self._chunk(b"IDAT", self._compressor.compress(lines.data))

    def end(self) -> None:
        if self._height == 0:
            raise DataError(f"cannot write {self._path}: it has no rows")
        self._chunk(b"IDAT", self._compressor.flush())
        self._chunk(b"IEND", b"")
        self._file.seek(len(PNG_SIGNATURE))
        self._header()

    def _header(self) -> None:
        width, bits, colour_type = self._kind
        self._chunk(b"IHDR", struct.pack(">IIBBBBB", width, self._height, bits, colour_type, 0, 0, 0))

    def _chunk(self, kind: bytes, content: bytes) -> None:
        if content or kind != b"IDAT":
            self._file.write(struct.pack(">I", len(content)) + kind + content)
            self._file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


@contextlib.contextmanager
def png_writer(path: Path) -> Iterator[Callable[[Mask], None]]:
    """Write a PNG file from the top down.

    Yields a function that adds rows: r x W uint8 or uint16 (grey), or r x W x 3 uint8 RGB, always of one kind and
    width. The file appears, complete, when the block ends without an error.

    Raises:
        DataError: no row was added, or one of another kind.
        RunError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        rows = _PngRows(file, path)
        yield rows.add
        rows.end()

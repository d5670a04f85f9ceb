"""PNG files written row by row, for images that are not in memory as a whole (PNG specification, third edition)."""

import contextlib
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lpsnet.data.image_headers import PNG_SIGNATURE
from lpsnet.data.images import Mask
from lpsnet.errors import DataError
from lpsnet.io import atomic_path

_GREY, _RGB = 0, 2  # colour types
_DIFFERENCES = 1  # filter: every byte less the one of the pixel at its left
_LEVEL = 1  # of zlib; OpenCV's


class _Rows:
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
        rows = _Rows(file, path)
        yield rows.add
        rows.end()

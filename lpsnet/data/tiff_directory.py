"""The first directory of a TIFF file, classic or BigTIFF, read without the pixels: tags and their numbers.

`image_headers.py` checks whole files in memory before they are decoded; this is for files too large for that, and for
the tags of GeoTIFF.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lpsnet.errors import DataError

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

"""What the first bytes of a picture file claim, read before anything is decoded.

A few hundred bytes tell the format, the size in pixels and whether the file is whole. That is enough to refuse a text
file named .png, a download that broke off, or a small file that claims terabytes, in one line and at no cost; decoders
answer the same files with a half-grey picture, with `None`, or by taking all the memory there is.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

ALLOWED_FORMATS = "PNG, JPEG, BMP, TIFF and WebP pictures"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PNG_CONTENT = {0: "grey", 2: "colour", 3: "palette", 4: "grey+alpha", 6: "colour+alpha"}  # by colour type
_JPEG_CONTENT = {1: "grey", 3: "colour", 4: "CMYK"}  # by number of components

_JPEG_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # SOF0 .. SOF15
_JPEG_SCAN = 0xDA
_BMP_HEADERS = {struct.pack("<I", size) for size in (40, 52, 56, 64, 108, 124)}  # the header sizes of Windows
_BMP_START = 54  # bytes of the file's header and the shortest of these
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_PHOTOMETRIC, _TIFF_PALETTE = 256, 257, 262, 3


class BrokenPictureError(Exception):
    """The bytes are no picture that can be read; the message says why, without the name of the file."""


class Header(NamedTuple):
    """What a file claims.

    Attributes:
        format: "PNG", "JPEG", "BMP", "TIFF" or "WebP".
        width: columns, before any EXIF rotation.
        height: rows, before any EXIF rotation.
        bit_depth: bits a sample for PNG, bits a pixel for BMP; 0 where the format has others or it is not read.
        palette: whether the pixels are indices into a table of colours (read for PNG, BMP and TIFF).
        content: "grey", "colour", "palette" or "CMYK", "+alpha" after it; "" where it is not read.
    """

    format: str
    width: int
    height: int
    bit_depth: int = 0
    palette: bool = False
    content: str = ""


def read_header(data: bytes) -> Header:
    """The header of a whole picture file.

    Raises:
        BrokenPictureError: no known format, no pixels, or the file ends before the picture does.
    """
    if not data:
        raise BrokenPictureError("has no bytes")
    for recognised, reader in _READERS:
        if recognised(data):
            try:
                header = reader(data)
            except (struct.error, IndexError):
                raise _truncated() from None
            if header.width < 1 or header.height < 1:
                raise BrokenPictureError(f"claims a size of {header.width} x {header.height} pixels")
            return header
    raise BrokenPictureError("is not a picture that can be read, whatever its name says")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The chunks (type, content) of a PNG file up to and with IEND.

    All checksums are compared: decoders pass over a damaged chunk that they can do without, and with it, say, over the
    rotation in the EXIF data.

    Raises:
        BrokenPictureError: the file ends before IEND, or a chunk is damaged.
    """
    position, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise _truncated()
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        if position + 12 + length > len(data):
            raise _truncated()
        content = data[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, position + 8 + length)
        if zlib.crc32(content, zlib.crc32(kind)) != checksum:
            raise BrokenPictureError(f"is damaged: the checksum of a part of it is wrong, at byte {position}")
        yield kind, content
        position += 12 + length


def _truncated() -> BrokenPictureError:
    return BrokenPictureError("is cut off: the file ends before the picture does")


def _png(data: bytes) -> Header:
    chunks = png_chunks(data)
    kind, values = next(chunks)
    if kind != b"IHDR":
        raise BrokenPictureError("is a PNG file without a header")
    width, height, bit_depth, colour_type = struct.unpack_from(">IIBB", values)
    for _ in chunks:  # walks to IEND, so that a file that was cut off is noticed
        pass
    content = _PNG_CONTENT.get(colour_type, "")
    return Header("PNG", width, height, bit_depth, content == "palette", content)


def _jpeg(data: bytes) -> Header:
    """The size is in the start-of-frame segment; a whole file has an end marker (FF D9) after the last scan."""
    header, position = None, 2
    while True:
        while data[position] == 0xFF and data[position + 1] == 0xFF:  # fill bytes
            position += 1
        if data[position] != 0xFF:
            raise BrokenPictureError("is a damaged JPEG file")
        marker = data[position + 1]
        (length,) = struct.unpack_from(">H", data, position + 2)
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            header = Header("JPEG", width, height, content=_JPEG_CONTENT.get(data[position + 9], ""))
        if marker == _JPEG_SCAN:
            break
        position += 2 + length
    if header is None:
        raise BrokenPictureError("is a damaged JPEG file")
    # Compressed data never holds FF D9, so one after the scan's start is the end, whatever was appended after it.
    if data.find(b"\xff\xd9", position) < 0:
        raise _truncated()
    return header


def _bmp(data: bytes) -> Header:
    if len(data) < _BMP_START:
        raise _truncated()
    width, height = struct.unpack_from("<ii", data, 18)
    (bits,) = struct.unpack_from("<H", data, 28)
    return Header("BMP", width, abs(height), bits, bits <= 8)  # a negative height means rows from the top


def _tiff(data: bytes) -> Header:
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    if version != 42:
        raise BrokenPictureError("is a BigTIFF file, which is not read")
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, directory)
    tags = {}
    for number in range(count):
        tag, kind = struct.unpack_from(order + "HH", data, directory + 2 + 12 * number)
        code = "I" if kind == 4 else "H"
        (tags[tag],) = struct.unpack_from(order + code, data, directory + 10 + 12 * number)
    palette = tags.get(_TIFF_PHOTOMETRIC) == _TIFF_PALETTE
    return Header("TIFF", tags.get(_TIFF_WIDTH, 0), tags.get(_TIFF_HEIGHT, 0), palette=palette)


def _webp(data: bytes) -> Header:
    (length,) = struct.unpack_from("<I", data, 4)
    if len(data) < 8 + length:
        raise _truncated()
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (length & 0x3FFF for length in struct.unpack_from("<HH", data, 26))
    return Header("WebP", width, height)


_READERS: list[tuple[Callable[[bytes], bool], Callable[[bytes], Header]]] = [
    (lambda data: data.startswith(PNG_SIGNATURE), _png),
    (lambda data: data.startswith(b"\xff\xd8\xff"), _jpeg),
    (lambda data: data.startswith(b"BM") and data[14:18] in _BMP_HEADERS, _bmp),
    (lambda data: data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")), _tiff),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp),
]

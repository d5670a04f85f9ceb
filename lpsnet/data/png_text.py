"""EXIF data in text chunks of PNG, as ImageMagick wrote it before PNG had a chunk for it.

Viewers turn such pictures; OpenCV does not look there. Pillow does, but knows one of the two names only and, where
there is no EXIF data before the pixels, decodes the picture first.
"""

import struct
import zlib

from lpsnet.data.broken_picture import BrokenPictureError
from lpsnet.data.tiff import exif_orientation

_KEYWORDS = (b"Raw profile type exif", b"Raw profile type APP1")
_MAX_TEXT = 2**18  # EXIF data has up to 64 KiB, as two digits a byte and with line breaks; the rest is not needed


def text_orientation(kind: bytes, content: bytes) -> int:
    """The orientation (1 to 8) that a PNG chunk of this type and content tells in a text; 1 (upright) if it tells none.

    The text is a line break, a name, the length, and the bytes in hexadecimal digits.
    """
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return 1
    keyword, _, text = content.partition(b"\0")
    if keyword not in _KEYWORDS:
        return 1
    try:
        digits = "".join(_plain(kind, text).decode("ascii").split()[2:])
        exif = bytes.fromhex(digits[: len(digits) // 2 * 2])
        return exif_orientation(exif.removeprefix(b"Exif\0\0"))
    except (zlib.error, ValueError, BrokenPictureError, struct.error):
        return 1  # no viewer can make more of it


def _plain(kind: bytes, text: bytes) -> bytes:
    """Without what stands before the text (by type of chunk) and decompressed."""
    compressed = kind == b"zTXt" or (kind == b"iTXt" and text[:1] == b"\1")
    if kind == b"zTXt":
        text = text[1:]  # the compression method
    elif kind == b"iTXt":
        text = text[2:].split(b"\0", 2)[-1]  # two flags, language and translated keyword
    return zlib.decompressobj().decompress(text, _MAX_TEXT) if compressed else text[:_MAX_TEXT]

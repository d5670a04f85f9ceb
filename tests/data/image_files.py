"""Image files written byte by byte, of kinds that OpenCV does not write; the formats' definitions are the oracle."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np


def png_bytes(
    rows: bytes, *, size: tuple[int, int], depth: int, colour_type: int, palette: bytes = b"", transparency: bytes = b""
) -> bytes:
    """A PNG file with these unfiltered rows (each begins with a zero byte); size is height, width."""
    height, width = size
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))]
    chunks += [(b"PLTE", palette)] if palette else []
    chunks += [(b"tRNS", transparency)] if transparency else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(kind, content) for kind, content in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed_rows(values: np.ndarray, depth: int) -> bytes:
    """Rows of PNG samples of 1, 2, 4 or 8 bits, the first pixel in the highest bits, each row on a whole byte."""
    rows = b""
    for row in values:
        bits = "".join(format(int(value), f"0{depth}b") for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    return rows


def write_palette_png(path: Path, indices: np.ndarray, colours: list[tuple[int, int, int]], *, depth: int = 8) -> Path:
    """A PNG whose pixels are indices into `colours`; the first colour is transparent."""
    palette = bytes(level for colour in colours for level in colour)
    size = indices.shape[0], indices.shape[1]
    rows = packed_rows(indices, depth)
    path.write_bytes(png_bytes(rows, size=size, depth=depth, colour_type=3, palette=palette, transparency=b"\0"))
    return path


def write_image(path: Path, rgb: np.ndarray) -> Path:
    """Any format OpenCV writes; RGB, RGBA or grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
    array = rgb if rgb.ndim == 2 else cv2.cvtColor(rgb, order[rgb.shape[2]])
    assert cv2.imwrite(str(path), array)
    return path


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG file with an EXIF segment that holds one entry, the orientation (tag 0x0112, a 16 bit number)."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 0)
    content = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def cmyk_jpeg(levels: tuple[int, int, int, int]) -> bytes:
    """An 8 x 8 JPEG of one colour in four components, stored inverted as Adobe does; levels are multiples of 8 + 128.

    Each component is one block with a DC coefficient c alone: level = 128 + c / 8. The quantiser is 64, so that
    c = 64 q and level = 128 + 8 q. The Huffman code for a DC difference of s bits is s itself in 4 bits (s up to 11),
    and the only AC code, one bit 0, ends the block.
    """
    quantiser = b"\xff\xdb" + struct.pack(">HB", 67, 0) + bytes([64]) * 64
    components = b"".join(bytes((number, 0x11, 0)) for number in (1, 2, 3, 4))
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 8 + 12, 8, 8, 8, 4) + components
    dc = b"\xff\xc4" + struct.pack(">HB", 3 + 16 + 12, 0x00) + bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))
    ac = b"\xff\xc4" + struct.pack(">HB", 3 + 16 + 1, 0x10) + bytes([1] + [0] * 15) + b"\0"
    scan = b"\xff\xda" + struct.pack(">HB", 6 + 8, 4) + b"".join(bytes((n, 0)) for n in (1, 2, 3, 4)) + b"\0\x3f\0"
    adobe = b"\xff\xee" + struct.pack(">H", 14) + b"Adobe\0\x64\0\0\0\0\0"
    bits = ""
    for level in levels:
        q = (level - 128) // 8
        length = abs(q).bit_length()
        magnitude = q if q >= 0 else q + 2**length - 1
        bits += format(length, "04b") + (format(magnitude, f"0{length}b") if length else "") + "0"
    bits += "1" * (-len(bits) % 8)
    data = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    return b"\xff\xd8" + adobe + quantiser + frame + dc + ac + scan + data + b"\xff\xd9"

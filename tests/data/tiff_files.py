"""TIFF files written tag by tag, of kinds that neither OpenCV nor Pillow writes; TIFF 6.0 is the oracle."""

import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np

SHORT, LONG = 3, 4
_CODES = {SHORT: "H", LONG: "I", 6: "b", 8: "h", 9: "i", 13: "I"}  # those that tests use, by the type's number
_COMPRESS: dict[int, Callable[[bytes], bytes]] = {1: bytes, 8: zlib.compress, 32946: zlib.compress}

Entry = tuple[int, int, Sequence[int]]  # tag, type, values


def tiff_bytes(
    samples: np.ndarray,
    *,
    bits: int = 8,
    photometric: int = 2,
    planar: bool = False,
    extra: Sequence[int] = (),
    sample_format: int | None = None,
    orientation: int | None = None,
    compression: int = 1,
    predictor: bool = False,
    tile: int | None = None,
    strip: int | None = None,
    order: str = "<",
    palette: np.ndarray | None = None,
    more: Sequence[Entry] = (),
) -> bytes:
    """A TIFF file of one page.

    Args:
        samples: H x W x C numbers as they shall be stored, unsigned, signed or float as `sample_format` says.
        bits: of a sample: 1, 2, 4, 8, 16, 32 or 64.
        photometric: 0 white is 0, 1 black is 0, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 CIE L*a*b*.
        planar: one channel after the other.
        extra: what the channels beyond the colours are: 0 unknown, 1 alpha multiplied in, 2 alpha.
        sample_format: 1 unsigned, 2 signed, 3 float; left out if None.
        orientation: 1 to 8; left out if None.
        compression: 1 none, 8 and 32946 Deflate.
        predictor: whether differences between neighbours in a row are stored (8 and 16 bits).
        tile: the side of square tiles; None for strips.
        strip: rows a strip; None for one strip.
        order: "<" or ">".
        palette: 2**bits x 3 of 16 bits.
        more: further entries; they may repeat those above.
    """
    height, width, channels = samples.shape
    planes = [samples[..., channel : channel + 1] for channel in range(channels)] if planar else [samples]
    parts = [
        _COMPRESS[compression](_packed(part, bits, sample_format, order, predictor))
        for plane in planes
        for part in (_tiles(plane, tile) if tile else _strips(plane, strip or height))
    ]
    entries: list[Entry] = [
        (256, LONG, [width]),
        (257, LONG, [height]),
        (258, SHORT, [bits] * channels),
        (259, SHORT, [compression]),
        (262, SHORT, [photometric]),
        (277, SHORT, [channels]),
        (284, SHORT, [2 if planar else 1]),
    ]
    sizes = [len(part) for part in parts]
    if tile:
        entries += [(322, LONG, [tile]), (323, LONG, [tile]), (324, LONG, [0] * len(parts)), (325, LONG, sizes)]
    else:
        entries += [(273, LONG, [0] * len(parts)), (278, LONG, [strip or height]), (279, LONG, sizes)]
    entries += [(274, SHORT, [orientation])] if orientation else []
    entries += [(317, SHORT, [2])] if predictor else []
    entries += [(320, SHORT, palette.T.ravel().tolist())] if palette is not None else []
    entries += [(338, SHORT, extra)] if extra else []
    entries += [(339, SHORT, [sample_format] * channels)] if sample_format else []
    return _file(sorted([*entries, *more], key=lambda entry: entry[0]), parts, order)


def _file(entries: list[Entry], parts: list[bytes], order: str) -> bytes:
    """The header, the directory, the pixels, and last the values that do not fit into the directory."""
    start = 8 + 2 + 12 * len(entries) + 4
    places = [start + sum(map(len, parts[:number])) for number in range(len(parts))]
    pixels = b"".join(parts)
    directory, values = b"", b""
    for tag, kind, numbers in entries:
        numbers = places if tag in (273, 324) else numbers
        content = struct.pack(f"{order}{len(numbers)}{_CODES[kind]}", *numbers)
        if len(content) > 4:
            place = start + len(pixels) + len(values)
            values += content
            content = struct.pack(order + "I", place)
        directory += struct.pack(order + "HHI", tag, kind, len(numbers)) + content.ljust(4, b"\0")
    signature = b"II*\0" if order == "<" else b"MM\0*"
    head = signature + struct.pack(order + "IH", 8, len(entries))
    return head + directory + bytes(4) + pixels + values


def _strips(plane: np.ndarray, rows: int) -> list[np.ndarray]:
    return [plane[top : top + rows] for top in range(0, len(plane), rows)]


def _tiles(plane: np.ndarray, side: int) -> list[np.ndarray]:
    height, width = plane.shape[:2]
    filled = np.pad(plane, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        filled[top : top + side, left : left + side]
        for top in range(0, filled.shape[0], side)
        for left in range(0, filled.shape[1], side)
    ]


def _packed(samples: np.ndarray, bits: int, sample_format: int | None, order: str, predictor: bool) -> bytes:
    if bits < 8:
        rows = samples.reshape(len(samples), -1)
        digits = rows[..., None].astype(np.int64) >> np.arange(bits - 1, -1, -1) & 1
        return np.packbits(digits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()
    kind = {None: "u", 1: "u", 2: "i", 3: "f", 4: "u"}[sample_format]
    stored = samples.astype(f"{order}{kind}{bits // 8}")
    if predictor:
        stored[:, 1:] -= stored[:, :-1].copy()
    return stored.tobytes()

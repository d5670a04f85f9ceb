"""Run lengths as label programs write them, to and from `shapes.Bitmap`: COCO's counts and texts, Label Studio's bytes.

Everything is checked before it is expanded, as a file may claim any number of pixels.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import MAX_PIXELS
from lpsnet.data.shapes import Bitmap, encode_runs
from lpsnet.errors import DataError

# COCO's text: each count is a signed number in groups of 5 bits, lowest first, one character from "0" (48) up a group;
# bit 5 says that more groups follow. From the fourth count on, it is the difference to the one two before.
_OFFSET, _MORE, _SIGN, _BITS = 48, 32, 16, 5


def coco_bitmap(size: Sequence[int], counts: str | Sequence[int]) -> Bitmap:
    """The bitmap of a COCO run-length encoding, compressed (text) or not.

    Args:
        size: height and width of the image in pixels.
        counts: runs down the columns, beginning with pixels that are not covered.

    Raises:
        DataError: the counts are no run lengths of that size.
    """
    runs = _decode_text(counts) if isinstance(counts, str) else np.array(counts, np.float64)
    if np.abs(runs).max(initial=0) > MAX_PIXELS:
        raise DataError("a run length is larger than any image")
    return Bitmap(0, 0, size[0], size[1], runs.astype(np.int64), by_columns=True)


def _decode_text(text: str) -> NDArray[np.int64]:
    if not text.isascii():
        raise DataError("the text of run lengths has characters that are not ASCII")
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - _OFFSET
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= 2 * _MORE or (codes.size and codes[-1] & _MORE):
        raise DataError("the text of run lengths is damaged or cut off")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate(([0], ends[:-1] + 1)) if ends.size else ends
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max(initial=0) > 6:  # 35 bits
        raise DataError("a run length is larger than any image")
    values = np.add.reduceat((codes & _MORE - 1) << _BITS * place, starts) if starts.size else codes
    negative = codes[ends] & _SIGN != 0
    values = values - np.where(negative, 1 << _BITS * (ends - starts + 1), 0)
    # undo the differences: sums over every other count, from the second and the third on
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def coco_text(mask: NDArray[np.bool_]) -> str:
    """COCO's compressed counts of an H x W array of what is covered."""
    runs = encode_runs(mask.T.ravel())
    values = runs.copy()
    values[3:] -= runs[1:-2]
    characters = []
    for value in values.tolist():
        more = True
        while more:
            group = value & _MORE - 1
            value >>= _BITS
            more = value != (-1 if group & _SIGN else 0)
            characters.append(group | (_MORE if more else 0))
    return bytes(code + _OFFSET for code in characters).decode()


# Label Studio's brush: the bytes of an RGBA image, whose alpha is the label, as a stream of bits: 32 for the number of
# values, 5 for the bits a value less 1, four times 4 for the bits of run lengths less 1. Then for each run: 1 bit,
# whether one value is repeated; 2 for which of the four sizes its length, less 1, is written in; the value, or all.
_CHANNELS = 4
_SIZES = (3, 4, 8, 16)  # bits of run lengths, as its own encoder has them


def brush_mask(height: int, width: int, rle: Sequence[int]) -> NDArray[np.bool_]:
    """H x W of what a Label Studio brush covers: where alpha is not 0.

    Raises:
        DataError: the numbers are no such stream, or are for another number of pixels.
    """
    if height * width > MAX_PIXELS:
        raise DataError(f"a brush of {height}x{width} pixels (height x width) is not possible")
    if not rle or min(rle) < 0 or max(rle) > 255:
        raise DataError("the run lengths of a brush are not bytes, 0 to 255")
    bits = _Bits(bytes(rle))
    count, word, sizes = bits.read(32), bits.read(5) + 1, [bits.read(4) + 1 for _ in range(4)]
    if count != height * width * _CHANNELS:
        raise DataError(f"the run lengths of a brush are for {count} bytes; {height}x{width} has {height * width * 4}")
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        is_repeated = bits.read(1)
        end = place + 1 + bits.read(sizes[bits.read(2)])
        if end > count:
            raise DataError("the run lengths of a brush are longer than its image")
        if is_repeated:
            values[place:end] = bits.read(word) & 255
        else:
            values[place:end] = [bits.read(word) & 255 for _ in range(end - place)]
        place = end
    alpha: NDArray[np.uint8] = values[_CHANNELS - 1 :: _CHANNELS].reshape(height, width)
    covered: NDArray[np.bool_] = alpha != 0
    return covered


class _Bits:
    """Numbers of any number of bits from bytes, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def read(self, count: int) -> int:
        """The next number; `DataError` at the end."""
        first, end = self._place >> 3, self._place + count
        if end > 8 * len(self._data):
            raise DataError("the run lengths of a brush are cut off")
        window = int.from_bytes(self._data[first : (end + 7) >> 3])
        self._place = end
        return window >> (-end % 8) & (1 << count) - 1


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's run lengths of an H x W array of what is covered: all four channels are 255 there, else 0."""
    runs = encode_runs(mask.ravel()) * _CHANNELS
    longest = 1 << _SIZES[-1]
    bits = [f"{mask.size * _CHANNELS:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for number, run in enumerate(runs.tolist()):
        value = f"{255 * (number % 2):08b}"
        for length in [longest] * (run // longest) + [run % longest] * (run % longest > 0):
            kind = next(index for index, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value}")
    text = "".join(bits)
    return list(int(text + "0" * (-len(text) % 8), 2).to_bytes((len(text) + 7) // 8))

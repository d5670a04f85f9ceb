"""Decoding label files, which hold a data set's own ids or colours, to label maps of class ids (see `labels.py`).

A value that has no class is an error with its count of pixels, as training on a wrongly read mask costs a whole run.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Labels, Mask, read_mask
from lpsnet.data.labels import IGNORE_INDEX, MAX_CLASSES, Colour
from lpsnet.errors import DataError

MAX_ID = 65_535  # ids in files have 8 or 16 bits
_UNKNOWN = 256  # in the tables below: a value without a class
_SHOWN = 8  # values named in one message


class Census(NamedTuple):
    """What one label file holds.

    Attributes:
        labels: pixels by class id, `IGNORE_INDEX` for those without a label.
        unknown: pixels by value, an id or an (r, g, b), that has no class.
    """

    labels: dict[int, int]
    unknown: dict[Any, int]


@dataclass(frozen=True)
class LabelDecoder:
    """How the values of label files are decoded to class ids. Created by `index` and `colours`.

    Attributes:
        ids: (id in the file, class id or `IGNORE_INDEX`) pairs, for files that hold ids.
        rgb: ((r, g, b), class id or `IGNORE_INDEX`) pairs, for files that hold colours.
        ignore_others: whether other values become `IGNORE_INDEX`; otherwise they are an error.
    """

    ids: tuple[tuple[int, int], ...] = ()
    rgb: tuple[tuple[Colour, int], ...] = ()
    ignore_others: bool = False

    @classmethod
    def index(cls, id_map: Mapping[int, int], *, ignore_others: bool = False) -> Self:
        """A decoder for files that hold one id a pixel.

        Args:
            id_map: id in the file (0 .. 65535) -> class id (0 .. 254), or `IGNORE_INDEX` for no label.
            ignore_others: ids that are not in the map mean no label; otherwise they are an error.
        """
        bad = [number for number in id_map if not 0 <= number <= MAX_ID]
        if bad:
            raise DataError(f"id {bad[0]} cannot stand in a label file; 0 to {MAX_ID} are possible")
        _check_classes(id_map.values())
        return cls(ids=tuple(sorted(id_map.items())), ignore_others=ignore_others)

    @classmethod
    def colours(cls, colour_map: Mapping[Colour, int], *, ignore_others: bool = False) -> Self:
        """A decoder for files that hold an RGB colour a pixel.

        Args:
            colour_map: (r, g, b), each 0 .. 255 -> class id (0 .. 254), or `IGNORE_INDEX` for no label.
            ignore_others: colours that are not in the map mean no label; otherwise they are an error.
        """
        bad = [rgb for rgb in colour_map if len(rgb) != 3 or not all(0 <= level <= 255 for level in rgb)]
        if bad:
            raise DataError(f"{bad[0]} is not a colour; three levels from 0 to 255 are")
        if not colour_map:
            raise DataError("a decoder for colours needs at least one colour")
        _check_classes(colour_map.values())
        return cls(rgb=tuple(sorted(colour_map.items())), ignore_others=ignore_others)

    def read(self, path: str | Path) -> Labels:
        """Read a label file: H x W uint8 of class ids, 255 for no label.

        Raises:
            DataError: the file cannot be read, or holds a value that has no class.
        """
        return self(read_mask(path, expand_palette=bool(self.rgb)), source=path)

    def __call__(self, mask: Mask, *, source: object = "mask") -> Labels:
        """Decode the result of `read_mask` (H x W ids or H x W x 3 RGB) to H x W uint8 class ids, 255 for no label.

        Raises:
            DataError: naming `source` and the values that have no class, with their number of pixels.
        """
        return self._decode_colours(mask, source) if self.rgb else self._decode_ids(mask, source)

    def census(self, mask: Mask, *, source: object = "mask") -> Census:
        """Count the pixels of a label file by class, and those of values that have none.

        Raises:
            DataError: the file holds colours where ids are expected, or the reverse.
        """
        if self.rgb:
            packed = _pack(_coloured(mask, source))
            labels = _colour_table(self.rgb, self._other)[packed]
            codes, counts = np.unique(packed[labels == _UNKNOWN], return_counts=True)
            values: list[Any] = [_unpack(code) for code in codes.tolist()]
        else:
            every = count_ids(_ids(mask, source))
            present = np.flatnonzero(every)
            table = _id_table(self.ids, self._other)[present]
            known: Counter[int] = Counter()
            for label, count in zip(table.tolist(), every[present].tolist(), strict=True):
                known[label] += count
            known.pop(_UNKNOWN, None)
            codes = present[table == _UNKNOWN]
            return Census(dict(sorted(known.items())), dict(zip(codes.tolist(), every[codes].tolist(), strict=True)))
        pixels = np.bincount(labels.ravel(), minlength=_UNKNOWN)[:_UNKNOWN].tolist()
        of_classes = {label: count for label, count in enumerate(pixels) if count}
        return Census(of_classes, dict(zip(values, counts.tolist(), strict=True)))

    @property
    def _other(self) -> int:
        return IGNORE_INDEX if self.ignore_others else _UNKNOWN

    def _decode_ids(self, mask: Mask, source: object) -> Labels:
        mask = _ids(mask, source)
        table = _id_table(self.ids, self._other)
        if not self.ignore_others and (table[np.flatnonzero(count_ids(mask))] == _UNKNOWN).any():
            raise self._refusal(mask, source)
        small = table.astype(np.uint8)
        labels: Labels = cv2.LUT(mask, small[:256]) if mask.dtype == np.uint8 else small[mask]
        return labels

    def _decode_colours(self, mask: Mask, source: object) -> Labels:
        labels = _colour_table(self.rgb, self._other)[_pack(_coloured(mask, source))]
        if not self.ignore_others and labels.max(initial=0) == _UNKNOWN:
            raise self._refusal(mask, source)
        return labels.astype(np.uint8)

    def _refusal(self, mask: Mask, source: object) -> DataError:
        found = self.census(mask, source=source).unknown
        what = "colours" if self.rgb else "ids"
        known = f"the {len(self.rgb)} colours of the map" if self.rgb else ranges(number for number, _ in self.ids)
        return DataError(f"label file {source} holds {what} that no class has: {list_counts(found)}; allowed: {known}")


_MAX_COUNTED = 2**24  # pixels that OpenCV's histogram, of float32 numbers, counts exactly


def count_ids(ids: Mask) -> NDArray[np.int64]:
    """The pixels of each id of H x W uint8 or uint16: 256 or 65,536 numbers; ten times as fast as `bincount`."""
    size = 256 if ids.dtype == np.uint8 else MAX_ID + 1
    counts, step = np.zeros(size, np.int64), max(1, _MAX_COUNTED // max(1, ids.shape[1]))
    for top in range(0, ids.shape[0], step):
        counts += cv2.calcHist([ids[top : top + step]], [0], None, [size], [0, size]).ravel().astype(np.int64)
    return counts


def mask_values(mask: Mask) -> tuple[bool, Counter[Any]]:
    """Whether the result of `read_mask` holds colours, and its pixels by (r, g, b) or id."""
    ids = _single_channel(mask)
    codes, counts = np.unique(_pack(mask) if ids is None else ids, return_counts=True)
    values: list[Any] = codes.tolist() if ids is not None else [_unpack(code) for code in codes.tolist()]
    return ids is None, Counter(dict(zip(values, counts.tolist(), strict=True)))


def _single_channel(mask: Mask) -> Mask | None:
    """H x W ids, also if they are saved as RGB with three equal channels; None for colours."""
    if mask.ndim == 2:
        return mask
    red, green, blue = cv2.split(mask)
    return red if np.array_equal(red, green) and np.array_equal(red, blue) else None


def _ids(mask: Mask, source: object) -> Mask:
    ids = _single_channel(mask)
    if ids is None:
        raise DataError(f"label file {source} holds colours, where ids are expected; describe it with colour_map")
    return ids


def list_counts(found: Mapping[Any, int]) -> str:
    """Values with their number of pixels, the first few of them: "7 (120 pixels), 9 (1 pixel)"."""
    shown = (f"{value} ({count} pixel{'s' * (count != 1)})" for value, count in list(found.items())[:_SHOWN])
    return ", ".join(shown) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def ranges(numbers: Iterable[int]) -> str:
    """The numbers as text: 0, 1, 2, 5 -> "0..2, 5"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}..{high}" for low, high in runs)


def _coloured(mask: Mask, source: object) -> Mask:
    if mask.ndim != 3:
        raise DataError(f"label file {source} holds ids, where colours are expected; describe it without colour_map")
    return mask


def _check_classes(classes: Iterable[int]) -> None:
    bad = [number for number in classes if not (0 <= number < MAX_CLASSES or number == IGNORE_INDEX)]
    if bad:
        raise DataError(f"class id {bad[0]} is not possible; 0 to {MAX_CLASSES - 1} are, and {IGNORE_INDEX} (no label)")


@lru_cache(maxsize=8)
def _id_table(ids: tuple[tuple[int, int], ...], other: int) -> NDArray[np.uint16]:
    table = np.full(MAX_ID + 1, other, np.uint16)
    for number, label in ids:
        table[number] = label
    return table


@lru_cache(maxsize=2)
def _colour_table(rgb: tuple[tuple[Colour, int], ...], other: int) -> NDArray[np.uint16]:
    """An entry for each of the 2**24 colours (32 MiB): several times as fast as a search."""
    table = np.full(2**24, other, np.uint16)
    for (red, green, blue), label in rgb:
        table[red << 16 | green << 8 | blue] = label
    return table


def _pack(mask: Mask) -> NDArray[np.int32]:
    """H x W x 3 RGB bytes -> H x W of red * 65536 + green * 256 + blue."""
    red, green, blue = (channel.astype(np.int32) for channel in cv2.split(mask))
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _unpack(code: int) -> Colour:
    return code >> 16, code >> 8 & 255, code & 255

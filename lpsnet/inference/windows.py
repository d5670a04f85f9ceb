"""Images larger than a network's input or than memory: overlapping windows, blended where they meet.

Windows of one size cover the image, spread evenly, with at least the given overlap. Where several windows show a pixel,
their **logits** are averaged, with weights that fall linearly towards the border of a window over the overlap (a
taper); where one window shows it, its label is the one that the window has alone. So a window as large as the image
gives the plain result.

Logits stay at the network's own output size (`label_map.py`) and are resized and averaged for the pixels of overlaps
alone, a few rows at a time. Memory is that of a band of windows as wide as the image: its pixels, labels and logits, of
two bands where they meet.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.image_rows import ImageRows, WholeRows
from lpsnet.data.images import Image, Labels
from lpsnet.errors import LpsnetError
from lpsnet.inference.label_map import Indices, Logits, PixelLogits, ResizedLogits, label_map
from lpsnet.inference.preprocess import MIN_INPUT
from lpsnet.inference.result import Segmentation
from lpsnet.record import ModelRecord

DEFAULT_OVERLAP = 64  # pixels; a quarter of a small window
_PART = 1 << 18  # logits that are averaged at once


class Network(Protocol):
    """What is run on windows: a `Segmenter`."""

    @property
    def record(self) -> ModelRecord:
        """Of its model."""

    def logits(self, image: Image) -> Logits:
        """K x h x w float32, of an image, H x W x 3 uint8 RGB."""


@dataclass(frozen=True)
class Windows:
    """How an image is cut.

    Attributes:
        size: (height, width) of a window in pixels; of an image that is smaller, its own.
        overlap: of neighbouring windows in pixels, at least.

    Raises:
        LpsnetError: a size or the overlap is out of range.
    """

    size: tuple[int, int]
    overlap: int

    def __post_init__(self) -> None:
        if min(self.size) < MIN_INPUT:
            raise LpsnetError(f"a window is height and width from {MIN_INPUT} pixels up; got {self.size}")
        if not 0 <= self.overlap < min(self.size):
            raise LpsnetError(f"an overlap is from 0 to less than the window's {min(self.size)}; got {self.overlap}")

    @classmethod
    def of(cls, size: tuple[int, int], overlap: int | None = None) -> "Windows":
        """Windows of that size; without an overlap, `DEFAULT_OVERLAP` or a quarter of the window if that is less."""
        return cls(size, min(DEFAULT_OVERLAP, min(size) // 4) if overlap is None else overlap)


@dataclass(frozen=True)
class _Axis:
    """The windows along one axis of an image: `length` pixels, windows of `size`, with `overlap` at least."""

    length: int
    size: int
    overlap: int

    @classmethod
    def of(cls, length: int, window: int, overlap: int) -> "_Axis":
        return cls(length, min(window, length), min(overlap, min(window, length) - 1))

    @cached_property
    def starts(self) -> list[int]:
        """The first pixel of every window."""
        room = self.length - self.size
        count = math.ceil(room / (self.size - self.overlap))
        return [0, *(round(number * room / count) for number in range(1, count + 1))]

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Of the pixels of a window: 1 inside, falling to the border over the overlap; above 0 everywhere."""
        place = np.arange(1, self.size + 1)
        weights: NDArray[np.float32] = np.minimum(np.minimum(place, place[::-1]) / (self.overlap + 1), 1)
        return weights.astype(np.float32)

    @cached_property
    def intervals(self) -> list[tuple[int, int, list[int]]]:
        """Runs of pixels that the same windows show: first, last (exclusive), and the windows' numbers."""
        edges = sorted({edge for start in self.starts for edge in (start, start + self.size)})
        return [
            (first, last, [number for number, start in enumerate(self.starts) if start <= first < start + self.size])
            for first, last in pairwise(edges)
        ]

    def shown(self, number: int, pixels: Indices) -> slice:
        """Which of these pixels, in ascending or descending order, a window shows, as places in `pixels`."""
        start = self.starts[number]
        inside = np.flatnonzero((pixels >= start) & (pixels < start + self.size))
        return slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)


class _Band(NamedTuple):
    """The windows in one row: their part of the image, h x W x 3, and of each its logits and its own label map."""

    image: Image
    logits: list[ResizedLogits]
    labels: list[Labels]


@dataclass(frozen=True, eq=False)
class BlendedLogits:
    """The averaged logits of windows; see `LogitField`.

    Attributes:
        rows, columns: the windows along both axes.
        bands: by the number of a window in `rows`, the logits of all windows beside each other there.
    """

    rows: _Axis
    columns: _Axis
    bands: Mapping[int, list[ResizedLogits]]

    @property
    def num_classes(self) -> int:
        """K."""
        return next(iter(self.bands.values()))[0].num_classes

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the whole image in pixels."""
        return self.rows.length, self.columns.length

    def at(self, rows: Indices, columns: Indices) -> Logits:
        """K x r x c float32, less a number that all classes of a pixel share; see `LogitField`.

        Rows and columns ascend or descend, and are shown by the bands there are.
        """
        total = np.zeros((self.num_classes, rows.size, columns.size), np.float32)
        weight = np.zeros((rows.size, columns.size), np.float32)
        across = [(number, self.columns.shown(number, columns)) for number in range(len(self.columns.starts))]
        for band, members in self.bands.items():
            down = self.rows.shown(band, rows)
            own_rows = rows[down] - self.rows.starts[band]
            for number, place in across:
                if own_rows.size == 0 or place.start == place.stop:
                    continue
                own_columns = columns[place] - self.columns.starts[number]
                share = self.rows.weights[own_rows, None] * self.columns.weights[own_columns]
                total[:, down, place] += members[number].at(own_rows, own_columns) * share
                weight[down, place] += share
        total /= weight
        return total


def segment_rows(network: Network, image: ImageRows, windows: Windows) -> Iterator[tuple[int, Segmentation]]:
    """The label map of an image from the top to the bottom, in parts as wide as the image.

    Args:
        network: a `Segmenter`.
        image: its rows, from `open_rows`.
        windows: how it is cut.

    Yields:
        The first row of every part, and the part, with its own pixels and logits.

    Raises:
        DataError: the image cannot be read.
        ModelFileError: as a call of the segmenter.
    """
    rows, columns = _axes(image.size, windows)
    bands: dict[int, _Band] = {}
    for top, bottom, needed in rows.intervals:
        bands = {number: bands.get(number) or _band(network, image, rows, columns, number) for number in needed}
        start = rows.starts[needed[0]]
        field = BlendedLogits(rows, columns, {number: band.logits for number, band in bands.items()})
        labels = _labels(field, bands, top, bottom)
        pixels = PixelLogits(field, np.arange(top, bottom), np.arange(columns.length))
        shown = bands[needed[0]].image[top - start : bottom - start]
        yield top, Segmentation(labels, shown, network.record.label_space, pixels)


def segment_windows(network: Network, image: Image, windows: Windows) -> Segmentation:
    """The label map of an image in memory, H x W x 3 uint8 RGB; as `segment_rows`. All windows' logits are kept."""
    labels = np.empty(image.shape[:2], np.uint8)
    bands: dict[int, list[ResizedLogits]] = {}
    for top, part in segment_rows(network, WholeRows(image), windows):
        labels[top : top + len(part)] = part.labels
        assert isinstance(part.logits.field, BlendedLogits)
        bands |= part.logits.field.bands
    field = BlendedLogits(*_axes((image.shape[0], image.shape[1]), windows), bands)
    return Segmentation(labels, image, network.record.label_space, field)


def _axes(size: tuple[int, int], windows: Windows) -> tuple[_Axis, _Axis]:
    """Along the rows and the columns of an image of that size."""
    down, across = (_Axis.of(*each, windows.overlap) for each in zip(size, windows.size, strict=True))
    return down, across


def _band(network: Network, image: ImageRows, rows: _Axis, columns: _Axis, number: int) -> _Band:
    top = rows.starts[number]
    shown, size = image.read(top, top + rows.size), (rows.size, columns.size)
    members, labels = [], []
    for left in columns.starts:
        window = np.ascontiguousarray(shown[:, left : left + columns.size])
        logits = network.logits(window)
        align_corners = network.record.align_corners
        members.append(ResizedLogits(logits, size, align_corners))
        labels.append(label_map(logits, size, align_corners=align_corners))
    return _Band(shown, members, labels)


def _labels(field: BlendedLogits, bands: Mapping[int, _Band], top: int, bottom: int) -> Labels:
    """The labels of the rows from `top` to `bottom`, which the same bands show."""
    found = np.empty((bottom - top, field.columns.length), np.uint8)
    for left, right, numbers in field.columns.intervals:
        if len(bands) == len(numbers) == 1:
            ((band, members),) = bands.items()
            first, start = top - field.rows.starts[band], left - field.columns.starts[numbers[0]]
            own = members.labels[numbers[0]]
            found[:, left:right] = own[first : first + bottom - top, start : start + right - left]
            continue
        step, columns = max(1, _PART // (field.num_classes * (right - left))), np.arange(left, right)
        for row in range(top, bottom, step):
            pixels = np.arange(row, min(row + step, bottom))
            found[row - top : row - top + pixels.size, left:right] = field.at(pixels, columns).argmax(axis=0)
    return found

"""Images larger than a network's input or than memory: overlapping windows, blended where they meet.

Windows of one size cover the image, spread evenly, with at least the given overlap. Where several windows show a pixel,
their **logits** are averaged, with weights that fall linearly towards the border of a window over the overlap (a
taper); where one window shows it, its label is the one that the window has alone. So a window as large as the image
gives the plain result.

Logits stay at the network's own output size (`label_map.py`) and are resized and averaged for the pixels of overlaps
alone, a few rows at a time. Memory is that of a band of windows as wide as the image: its pixels, labels and logits, of
two bands where they meet.

Test-time augmentation (`AveragingSegmenter`) averages mirrored images, other scales and windows. It is off by default,
and slow. The paper does without it (Section 4.2); published figures of others often use it, so a fair comparison may
need it. The logits of every view are resized to the part of the image that it shows and become **probabilities**
(softmax); at a pixel the probabilities of all views that show it are averaged.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, final

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.image_rows import ImageRows, WholeRows
from lpsnet.data.images import Image, Labels
from lpsnet.errors import LpsnetError
from lpsnet.inference.label_map import Indices, Logits, PixelLogits, ResizedLogits, label_map
from lpsnet.inference.preprocess import MIN_INPUT
from lpsnet.inference.result import Segmentation
from lpsnet.record import ModelRecord
from lpsnet.sampling import interpolation_matrix

DEFAULT_OVERLAP = 64  # pixels; a quarter of a small window
_PART = 1 << 18  # logits that are averaged at once
MIN_SCALE, MAX_SCALE = 0.1, 8.0
MIN_WINDOW = 32  # pixels; networks take no less
STRIDE_SHARE = 2 / 3  # of a window, how far apart windows are unless that is given

Size = tuple[int, int]  # height, width


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
        yield top, Segmentation(labels, shown, network.record.label_space, pixels, network.record.image_channels)


def segment_windows(network: Network, image: Image, windows: Windows) -> Segmentation:
    """The label map of an image in memory, H x W x 3 uint8 RGB; as `segment_rows`. All windows' logits are kept."""
    labels = np.empty(image.shape[:2], np.uint8)
    bands: dict[int, list[ResizedLogits]] = {}
    for top, part in segment_rows(network, WholeRows(image), windows):
        labels[top : top + len(part)] = part.labels
        assert isinstance(part.logits.field, BlendedLogits)
        bands |= part.logits.field.bands
    field = BlendedLogits(*_axes((image.shape[0], image.shape[1]), windows), bands)
    return Segmentation(labels, image, network.record.label_space, field, network.record.image_channels)


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


@dataclass(frozen=True)
class Views:
    """Which views of an image are averaged.

    Attributes:
        flip: whether every view is also used mirrored left to right.
        scales: factors on the size that the network runs at.
        window: (height, width) of the windows that a scaled image is cut into, in its pixels; None shows it whole.
        stride: how far apart windows are, down and across, at most their size; None: two thirds of it.

    Raises:
        LpsnetError: a number is out of range.
    """

    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    window: Size | None = None
    stride: Size | None = None

    def __post_init__(self) -> None:
        if not self.scales or not all(MIN_SCALE <= scale <= MAX_SCALE for scale in self.scales):
            raise LpsnetError(f"scales lie between {MIN_SCALE} and {MAX_SCALE:g}; got {self.scales}")
        if self.window is None:
            if self.stride is not None:
                raise LpsnetError("a stride is that of windows; give their size too")
            return
        if min(self.window) < MIN_WINDOW:
            raise LpsnetError(f"a window is height and width from {MIN_WINDOW} pixels up; got {self.window}")
        if not all(1 <= step <= length for step, length in zip(self.steps, self.window, strict=True)):
            raise LpsnetError(f"a stride lies between 1 and the window's size, {self.window}; got {self.stride}")

    @property
    def steps(self) -> Size:
        """The stride in use; (0, 0) without windows."""
        if self.window is None:
            return 0, 0
        return self.stride or (math.ceil(STRIDE_SHARE * self.window[0]), math.ceil(STRIDE_SHARE * self.window[1]))

    @property
    def is_plain(self) -> bool:
        """Whether the only view is the image itself: the paper's evaluation."""
        return self == Views()

    @property
    def protocol(self) -> dict[str, Any]:
        """What was done, as JSON values."""
        window = None if self.window is None else {"size": list(self.window), "stride": list(self.steps)}
        return {
            "flip": self.flip,
            "multi_scale": list(self.scales) if self.scales != (1.0,) else False,
            "sliding_window": window or False,
            **({} if self.is_plain else {"averaged": "probabilities at the image's size"}),
        }


_Part = tuple[slice, slice]  # rows and columns of an image


@final
class AveragingSegmenter:
    """Segments an image by the mean of several views of it. Call it as a segmenter.

    Args:
        network_at: the network at an input size (height, width); called once for every view.
        views: what is averaged.
        input_size: that the network runs at for scale 1; None for every image's own.
        align_corners: the bilinear convention of resizing logits to the image's size, from the model's record.
    """

    def __init__(
        self, network_at: Callable[[Size], Network], views: Views, *, input_size: Size | None, align_corners: bool
    ) -> None:
        self._network_at, self._views = network_at, views
        self._input_size, self._align_corners = input_size, align_corners

    def __call__(self, image: Image) -> NDArray[np.uint8]:
        """The class of every pixel, H x W uint8, of an image, H x W x 3 uint8 RGB.

        Where two classes are equally probable, the lower one.
        """
        labels: NDArray[np.uint8] = self.probabilities(image).argmax(axis=0).astype(np.uint8)
        return labels

    def probabilities(self, image: Image) -> Logits:
        """The mean probability of every class at every pixel, K x H x W float32."""
        total: Logits | None = None
        count = np.zeros(image.shape[:2], np.float32)
        for part, logits in self._logits(image):
            height, width = count[part].shape
            probabilities = softmax(upsample(logits, (height, width), align_corners=self._align_corners))
            if total is None:
                total = np.zeros((len(logits), *image.shape[:2]), np.float32)
            total[:, *part] += probabilities
            count[part] += 1
        assert total is not None, "there is at least one scale and one window"
        total /= count
        return total

    def _logits(self, image: Image) -> Iterator[tuple[_Part, Logits]]:
        """Every view's part of the image and its logits."""
        own_size = image.shape[0], image.shape[1]
        for scale in self._views.scales:
            height, width = (max(MIN_WINDOW, round(scale * length)) for length in self._input_size or own_size)
            for part, input_size in self._parts((height, width), own_size):
                shown = image[part]
                network = self._network_at(input_size)
                yield part, network.logits(np.ascontiguousarray(shown))
                if self._views.flip:
                    yield part, network.logits(np.ascontiguousarray(shown[:, ::-1]))[:, :, ::-1]

    def _parts(self, size: Size, image: Size) -> Iterator[tuple[_Part, Size]]:
        """Parts of an image that is run at `size`, each with the size that the network runs at for it."""
        if self._views.window is None:
            yield (slice(0, image[0]), slice(0, image[1])), size
            return
        window = min(self._views.window[0], size[0]), min(self._views.window[1], size[1])
        steps = self._views.steps
        for top in window_starts(size[0], window[0], steps[0]):
            for left in window_starts(size[1], window[1], steps[1]):
                rows = _scaled(top, window[0], image[0] / size[0])
                yield (rows, _scaled(left, window[1], image[1] / size[1])), window


def window_starts(length: int, window: int, step: int) -> list[int]:
    """Where windows begin that cover `length` pixels: `step` apart, but the last at the very end."""
    return [*range(0, length - window, step), length - window]


def _scaled(start: int, length: int, factor: float) -> slice:
    first = round(start * factor)
    return slice(first, max(first + 1, round((start + length) * factor)))


def upsample(logits: Logits, size: Size, *, align_corners: bool) -> Logits:
    """Logits, K x h x w float32, at another size, bilinearly: K x H x W float32."""
    rows, columns = (
        interpolation_matrix(*lengths, align_corners=align_corners)[0].astype(np.float32)
        for lengths in zip(logits.shape[1:], size, strict=True)
    )
    return np.asarray(rows @ logits @ columns.T, np.float32)


def softmax(logits: Logits) -> Logits:
    """Probabilities of K x H x W logits; overwrites them."""
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits

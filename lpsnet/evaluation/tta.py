"""Test-time augmentation: mirrored images, other scales and windows, averaged. Off by default, and slow.

The paper evaluates without any of it (Section 4.2); published figures of others often use it, so a fair comparison may
need it. The logits of every view are resized to the part of the image that it shows and become probabilities
(softmax); at a pixel the probabilities of all views that show it are averaged.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import LpsnetError
from lpsnet.sampling import interpolation_matrix

Size = tuple[int, int]  # height, width
Image = NDArray[np.uint8]
Logits = NDArray[np.float32]

MIN_SCALE, MAX_SCALE = 0.1, 8.0
MIN_WINDOW = 32  # pixels; networks take no less
STRIDE_SHARE = 2 / 3  # of a window, how far apart windows are unless that is given


class Network(Protocol):
    """A network that images of any size are resized for: a `Segmenter` with an input size."""

    def logits(self, image: Image) -> Logits:
        """K x h x w float32, of an image, H x W x 3 uint8 RGB."""


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

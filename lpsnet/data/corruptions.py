"""Corruptions: what cameras in the field do to images, a row each, for measuring robustness and for augmentation.

Every corruption keeps the size of an image and where things are in it, so that label maps stay as they are. Lengths are
shares of the image's shorter side, as networks see images resized to one size; noise and JPEG are those of the file's
own pixels.

Sources: "ImageNet-C" rows have numbers of Hendrycks & Dietterich 2019 (arXiv:1903.12261), the severities stand beside
them. They were made for photos of one object at 224x224. For noise and contrast severities 1 to 3 of 5 are taken, which
leave something to segment, and blur is less than theirs: at 8 pixels of 224 no pole is left. "own" rows are in
photographic units: a stop doubles or halves the light, and bytes follow light by a gamma of 2.2.
"""

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Image
from lpsnet.errors import DataError, unknown_name

STRENGTHS = ("mild", "middle", "strong")
GAMMA = 2.2  # of bytes: light = (byte / 255) ** GAMMA

_FULL_WELL, _READ_NOISE = 4000, 4  # electrons of a white pixel at normal exposure, and of noise: a small sensor
_LEVELS = 4096  # of its 12-bit converter
_FOG = 235.0  # byte of the air's own light
_PENUMBRA = 0.02  # width of a shadow's edge, of the shorter side

Floats = NDArray[np.float32]
_Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Corruption:
    """A row of `CORRUPTIONS`.

    Attributes:
        name: of the row.
        change: the corrupted image, of an image, a strength in `unit` and a random generator.
        neutral: the strength that leaves an image as it is, or nearly so.
        strengths: mild, middle and strong, in this order from `neutral` away.
        unit: of the strengths.
        meaning: in the field, in a line.
        source: of the strengths.
    """

    name: str
    change: Callable[[Image, float, _Rng], Image]
    neutral: float
    strengths: tuple[float, float, float]
    unit: str
    meaning: str
    source: str = "own"

    def strength(self, name: str) -> float:
        """The strength called "mild", "middle" or "strong"."""
        return self.strengths[STRENGTHS.index(name)]

    def __call__(self, image: Image, strength: float | str, rng: _Rng) -> Image:
        """The corrupted image, H x W x 3 uint8 RGB, a new array.

        Args:
            image: H x W x 3 uint8 RGB.
            strength: in `unit`, or its name.
            rng: of noise, directions and places; the same state gives the same image.
        """
        return self.change(image, self.strength(strength) if isinstance(strength, str) else strength, rng)


def _light(stops: float) -> float:
    """The factor on bytes for so many stops of light."""
    return float(2 ** (stops / GAMMA))


def _by_table(image: Image, table: NDArray[np.floating]) -> Image:
    """Every byte replaced: 256 values for all channels, or 256 x 3."""
    rounded = np.rint(table).clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, rounded if table.ndim == 1 else rounded[None]), np.uint8)


def _dark(image: Image, gamma: float, rng: _Rng) -> Image:
    return _by_table(image, 255 * (np.arange(256) / 255) ** gamma)


def _over_exposure(image: Image, stops: float, rng: _Rng) -> Image:
    return _by_table(image, np.arange(256) * _light(stops))


def _warm(image: Image, stops: float, rng: _Rng) -> Image:
    """Red is lifted and blue lowered; negative stops make it cool."""
    return _by_table(image, np.arange(256)[:, None] * np.array([_light(stops), 1.0, _light(-stops)]))


def _cool(image: Image, stops: float, rng: _Rng) -> Image:
    return _warm(image, -stops, rng)


def _contrast(image: Image, factor: float, rng: _Rng) -> Image:
    """About the mean of each channel."""
    mean = np.array(cv2.mean(image)[:3])
    return _by_table(image, mean + factor * (np.arange(256)[:, None] - mean))


def _low_light(image: Image, stops: float, rng: _Rng) -> Image:
    """Fewer photons: darker, with shot noise (normal with the variance of Poisson's) and the sensor's own."""
    electrons = _FULL_WELL * 2.0**-stops * (np.arange(256) / 255) ** GAMMA
    deviations = np.sqrt(electrons + _READ_NOISE**2)
    caught = np.take(electrons.astype(np.float32), image)
    caught += np.take(deviations.astype(np.float32), image) * rng.standard_normal(image.shape, np.float32)
    caught *= (_LEVELS - 1) / _FULL_WELL
    developed = np.rint(255 * (np.arange(_LEVELS) / (_LEVELS - 1)) ** (1 / GAMMA)).astype(np.uint8)
    return np.take(developed, caught.clip(0, _LEVELS - 1).astype(np.int16))


def _noise(image: Image, deviation: float, rng: _Rng) -> Image:
    noisy = rng.standard_normal(image.shape, np.float32)
    noisy *= 255 * deviation
    noisy += image
    return np.asarray(np.rint(noisy, out=noisy).clip(0, 255), np.uint8)


def _shadow(image: Image, stops: float, rng: _Rng) -> Image:
    """A band of less light across the image, a quarter to a half as wide as the image's diagonal."""
    height, width = image.shape[:2]
    angle, top, left = (rng.uniform(*bounds) for bounds in ((0, 2 * math.pi), (0.25, 0.75), (0.25, 0.75)))
    band = rng.uniform(0.25, 0.5) * math.hypot(height, width)
    rows = math.sin(angle) * (np.arange(height, dtype=np.float32)[:, None] - top * height)
    far = rows + math.cos(angle) * (np.arange(width, dtype=np.float32) - left * width)  # from one edge, in pixels
    edge = max(1.0, _PENUMBRA * min(height, width))
    share = (far / edge + 0.5).clip(0, 1) * ((band - far) / edge + 0.5).clip(0, 1)
    return np.asarray(np.rint(image * (1 - share * (1 - _light(-stops)))[..., None]), np.uint8)


def _fog(image: Image, density: float, rng: _Rng) -> Image:
    """The image mixed with grey light, in clouds: a share between 0.6 and 1 of `density` at each pixel."""
    height, width = image.shape[:2]
    coarse, fine = (rng.random((cells, cells), np.float32) for cells in (3, 6))
    clouds = (2 * _grown(coarse, (width, height)) + _grown(fine, (width, height))) / 3
    share = (density * (0.6 + 0.4 * clouds))[..., None]
    return np.rint(image * (1 - share) + _FOG * share).astype(np.uint8)


def _grown(grid: Floats, size: tuple[int, int]) -> Floats:
    return np.asarray(cv2.resize(grid, size, interpolation=cv2.INTER_LINEAR), np.float32)


def _defocus(image: Image, radius: float, rng: _Rng) -> Image:
    return _filtered(image, disc(radius * min(image.shape[:2])))


def _motion(image: Image, length: float, rng: _Rng) -> Image:
    return _filtered(image, line(length * min(image.shape[:2]), rng.uniform(0, math.pi)))


def _filtered(image: Image, kernel: Floats) -> Image:
    return np.asarray(cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def disc(radius: float) -> Floats:
    """The kernel of a lens out of focus: a disc of `radius` pixels with a soft edge, of sum 1, k x k for an odd k."""
    reach = math.ceil(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (radius + 0.5 - np.hypot(y, x)).clip(0, 1)
    return np.asarray(kernel / kernel.sum(), np.float32)


def line(length: float, angle: float) -> Floats:
    """The kernel of an even motion over `length` pixels at `angle` (radians, x to y), of sum 1, k x k for an odd k."""
    reach = math.ceil(length / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    along = np.linspace(-length / 2, length / 2, 8 * reach + 1)  # at least 4 points a pixel, each shared by 4 pixels
    y, x = reach + along * math.sin(angle), reach + along * math.cos(angle)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for down, right in np.ndindex(2, 2):
        np.add.at(kernel, (top + down, left + right), np.abs(1 - down - (y - top)) * np.abs(1 - right - (x - left)))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _jpeg(image: Image, quality: float, rng: _Rng) -> Image:
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, round(quality))
    )
    assert done, "OpenCV writes JPEG"
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None, "and reads it"
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)


_SIDE = "of the shorter side"
# fmt: off
_ROWS = (
    Corruption("dark", _dark, 1.0, (1.5, 2.2, 3.5), "gamma", "dusk or a wrong gamma: darks are crushed"),
    Corruption("low_light", _low_light, 0.0, (2, 3, 4), "stops", "less light on a small sensor: darker and noisy"),
    Corruption("over_exposure", _over_exposure, 0.0, (1, 2, 3), "stops", "too much light: brights are clipped"),
    Corruption("shadow", _shadow, 0.0, (1, 2, 3), "stops", "the shadow of a building across the image"),
    Corruption("contrast", _contrast, 1.0, (0.4, 0.3, 0.2), "factor", "haze, backlight, a dirty window",
               "ImageNet-C, severities 1 to 3"),
    Corruption("fog", _fog, 0.0, (0.3, 0.5, 0.7), "share of grey light", "fog in clouds, the same at any distance"),
    Corruption("warm", _warm, 0.0, (0.5, 1.0, 1.5), "stops", "white balance: red up, blue down, e.g. sodium lamps"),
    Corruption("cool", _cool, 0.0, (0.5, 1.0, 1.5), "stops", "white balance: blue up, red down, e.g. shade"),
    Corruption("noise", _noise, 0.0, (0.08, 0.12, 0.18), "deviation, white is 1", "a sensor at high gain",
               "ImageNet-C, severities 1 to 3"),
    Corruption("defocus", _defocus, 0.0, (0.004, 0.008, 0.016), _SIDE, "a lens out of focus: radius of a point's disc"),
    Corruption("motion_blur", _motion, 0.0, (0.015, 0.03, 0.06), _SIDE, "the camera moves: length of a point's trace"),
    Corruption("jpeg", _jpeg, 100.0, (25, 15, 7), "quality", "strong compression, e.g. of a radio link",
               "ImageNet-C, severities 1, 3 and 5"),
)
# fmt: on
CORRUPTIONS: dict[str, Corruption] = {row.name: row for row in _ROWS}

MAX_AT_ONCE = 2  # corruptions of one training image


def corrupt(name: str, image: Image, strength: float | str, *, index: int = 0, seed: int = 0) -> Image:
    """An image under a named corruption, the same for the same arguments.

    Args:
        name: in `CORRUPTIONS`.
        image: H x W x 3 uint8 RGB.
        strength: "mild", "middle", "strong", or a number in the row's unit.
        index: of the image in its split: noise and directions differ between images, not between strengths.
        seed: other numbers give other noise.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: there is no such corruption or strength, or the image has other channels.
    """
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        raise DataError(f"corruptions are those of RGB cameras of 8 bits; got an image {image.shape} {image.dtype}")
    if name not in CORRUPTIONS:
        raise DataError(unknown_name("corruption", name, CORRUPTIONS))
    if isinstance(strength, str) and strength not in STRENGTHS:
        raise DataError(unknown_name("strength of a corruption", strength, STRENGTHS))
    rng = np.random.default_rng((seed, index, zlib.crc32(name.encode())))
    return CORRUPTIONS[name](image, strength, rng)


def corrupt_randomly(image: Image, rng: np.random.Generator) -> Image:
    """One or two different corruptions one after the other, for augmentation; H x W x 3 uint8 RGB to the same.

    Strengths are uniform from that without effect to `strong`, so that those of an evaluation are never met again but
    by chance; noise, directions and places are random as well.
    """
    count = int(rng.integers(1, MAX_AT_ONCE + 1))
    for place in rng.choice(len(_ROWS), count, replace=False):
        row = _ROWS[place]
        low, high = sorted((row.neutral, row.strengths[-1]))
        image = row(image, rng.uniform(low, high), rng)
    return image


class Chosen(NamedTuple):
    """Corruptions and strengths, by name, each in the order of the table."""

    names: tuple[str, ...]
    strengths: tuple[str, ...]


def parse_corruptions(text: str) -> Chosen:
    """What a text with commas names: corruptions (else all of them) and strengths (else "middle").

    Raises:
        DataError: a word is neither.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    strengths = [word for word in words if word in STRENGTHS]
    return choose([word for word in words if word not in STRENGTHS], strengths)


def choose(names: Iterable[str] = (), strengths: Iterable[str] = ()) -> Chosen:
    """`Chosen`, checked; all corruptions, and the middle strength, where none is given.

    Raises:
        DataError: there is no such corruption or strength.
    """
    wanted, strong = list(names), list(strengths)
    for asked, known, what in (
        (wanted, (*CORRUPTIONS, *STRENGTHS), "corruption or strength"),
        (strong, STRENGTHS, "strength"),
    ):
        if unknown := [word for word in asked if word not in known]:
            raise DataError(unknown_name(what, unknown[0], known))
    return Chosen(
        tuple(name for name in CORRUPTIONS if name in wanted or not wanted),
        tuple(name for name in STRENGTHS if name in (strong or ["middle"])),
    )

"""Augmentation of training images: random scale, crop, flip and colours (Section 4.2), and corruptions.

For segmentation (`Augmentation`), the paper gives colour jittering, horizontal flip, scaling from 0.5x to 2.0x and the
crop's size. Scale, crop, flip and rotation are one affine warp of the image and one of the labels; the colour jitter is
one 3 x 4 matrix on the crop's bytes, as brightness, contrast and saturation are affine in RGB. Of other channels
brightness and contrast change all, saturation and hue those called red, green and blue. What cameras in the field add
(dusk, noise, blur, fog, …: `corruptions.py`) is not in the paper, and off unless asked for.

For ImageNet pre-training, which the paper does not detail, `RandomResizedCrop` and `centre_window` are the usual crops
for training and evaluation since Szegedy et al. 2015.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.channels import RGB, RGB_NAMES, Channels
from lpsnet.data.corruptions import corrupt_randomly
from lpsnet.data.images import Image, Labels
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError
from lpsnet.sampling import spacing

MEAN_COLOUR = (124, 116, 104)  # ImageNet's mean RGB in bytes: what surrounds an image smaller than the crop
MAX_CROP = 16_384  # pixels a side; OpenCV's warp works up to 32,767
MIN_SCALE, MAX_SCALE = 0.05, 20.0
CROP_ATTEMPTS = 10  # crops looked at when one class may not fill more than `max_class_share`

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601

Matrix = NDArray[np.float64]


class _Placement(NamedTuple):
    """Where the scaled image lies: its size, and its top left corner in the crop (negative where it is cut off)."""

    height: int
    width: int
    top: int
    left: int


class Warp(NamedTuple):
    """Everything that is random about one sample of an image, if it is one warp and one colour matrix.

    Attributes:
        matrix: 3 x 3, (x, y, 1) of the image to (x, y, 1) of the crop, pixels counted from 0 at their centres.
        inside: rows and columns of the crop whose colours change: those that show the image.
        colours: 3 x 4, see `colour_matrix`; None leaves the colours as they are.
    """

    matrix: Matrix
    inside: tuple[slice, slice]
    colours: Matrix | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """The augmentation of a training image and its labels; a call with a random generator gives one random sample.

    The image is scaled to a whole number of pixels with one factor, uniform in `scale` as in the implementations the
    paper compares with (the paper gives only the range). If it is larger than the crop, the crop lies inside it; if it
    is smaller, it lies inside the crop, surrounded by `MEAN_COLOUR` and `IGNORE_INDEX`; all positions equally likely.

    Attributes:
        crop_size: (height, width) of every sample, in pixels.
        scale: smallest and largest factor.
        flip_probability: how often the sample is mirrored left to right.
        brightness: the bytes are multiplied by a factor uniform in 1 - brightness to 1 + brightness (never below 0);
            0 is off. Contrast (about the mean colour's luma) and saturation (about each pixel's luma) alike.
        contrast: see brightness.
        saturation: see brightness.
        hue_degrees: the colours are rotated about the grey axis by up to this angle, either way; 0 is off.
        rotation_degrees: the image is rotated about the crop's centre by up to this angle, either way; 0 is off.
        max_class_share: largest share of a crop's labelled pixels that one class may have; if none of `CROP_ATTEMPTS`
            positions meets it, the last one is used. 1 is off.
        corruption: how often one or two random corruptions follow (`corruptions.corrupt_randomly`); 0 is off.
        rare_class_crops: how often the crop's centre is a pixel of a class of the image, drawn by `class_odds`, as near
            as a crop inside the image allows; all pixels of the class equally likely. 0 is off.
        class_odds: how much more likely a class is drawn than another, by class id, such as 1 / frequency; without
            them all classes of an image are equally likely.
        channels: of the images. Brightness and contrast (about `fill`, channel by channel) change all of them with the
            same factors, saturation and hue red, green and blue, if there are these three.
        fill: what surrounds an image smaller than the crop, a number for each channel: usually the mean.

    Raises:
        DataError: a number is outside its range.
    """

    crop_size: tuple[int, int]
    scale: tuple[float, float] = (0.5, 2.0)
    flip_probability: float = 0.5
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue_degrees: float = 0.0
    rotation_degrees: float = 0.0
    max_class_share: float = 1.0
    corruption: float = 0.0
    rare_class_crops: float = 0.0
    class_odds: tuple[float, ...] = ()
    channels: Channels = RGB
    fill: tuple[float, ...] = MEAN_COLOUR

    def __post_init__(self) -> None:
        whole = all(isinstance(length, int) and 1 <= length <= MAX_CROP for length in self.crop_size)
        if len(self.crop_size) != 2 or not whole:
            raise DataError(f"crop_size is height and width in pixels, 1 to {MAX_CROP}; got {self.crop_size}")
        if len(self.scale) != 2 or not MIN_SCALE <= self.scale[0] <= self.scale[1] <= MAX_SCALE:
            raise DataError(f"scale is (smallest, largest), within {MIN_SCALE} to {MAX_SCALE:g}; got {self.scale}")
        for name, largest in _RANGES.items():
            if not 0 <= getattr(self, name) <= largest:
                raise DataError(f"{name} lies between 0 and {largest:g}; got {getattr(self, name)}")
        if self.max_class_share == 0:
            raise DataError("max_class_share is greater than 0; 1 turns it off")

    def __call__(self, image: Image, labels: Labels, rng: np.random.Generator) -> tuple[Image, Labels]:
        """One random sample of an image.

        Args:
            image: H x W x 3 uint8 RGB, or H x W x C of `channels`.
            labels: H x W uint8 class ids, `IGNORE_INDEX` for no label.
            rng: the only source of randomness; the same state gives the same sample.

        Returns:
            The crop, crop_size x C of the image's type, and its labels, crop_size uint8.

        Raises:
            DataError: the arrays are not an image and its label map.
        """
        if not self.channels.is_rgb:
            image = self.channels.check(image)
        elif image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise DataError(f"an image is H x W x 3 uint8; got {image.shape} {image.dtype}")
        if labels.shape != image.shape[:2] or labels.dtype != np.uint8:
            wanted = f"labels of an image of {image.shape[:2]} are {image.shape[:2]} uint8"
            raise DataError(f"{wanted}; got {labels.shape} {labels.dtype}")
        scale, turn = self._draw_turn(rng)
        odds = self._draw_odds(labels, rng)
        for _ in range(CROP_ATTEMPTS if self.max_class_share < 1 else 1):
            if odds is None:
                placement = self._place(image.shape[:2], scale, rng)
            else:
                placement = self._place_at(_draw_pixel(labels, odds, rng), image.shape[:2], scale)
            matrix = turn @ _matrix(image.shape[:2], placement)
            crop_labels = _warp(labels, matrix, self.crop_size, cv2.INTER_NEAREST, IGNORE_INDEX)
            if self.max_class_share == 1 or _largest_share(crop_labels) <= self.max_class_share:
                break
        if not self.channels.is_rgb:
            crop = self._warp_bands(image, scale, matrix)
            inside = _inside(placement, self.crop_size, matrix)
            crop[inside] = self._recoloured(crop[inside], *self._draw_factors(rng))
            return crop, crop_labels
        crop = _warp(_prefiltered(image, scale), matrix, self.crop_size, cv2.INTER_LINEAR, MEAN_COLOUR)
        inside = _inside(placement, self.crop_size, matrix)
        if (colours := self._draw_colours(rng)) is not None:
            crop[inside] = cv2.transform(crop[inside], colours)
        if self.corruption and rng.random() < self.corruption:
            crop[inside] = corrupt_randomly(np.ascontiguousarray(crop[inside]), rng)
        return crop, crop_labels

    def _warp_bands(self, image: Image, scale: float, matrix: Matrix) -> Image:
        """The crop, warped channel by channel: OpenCV has borders of 4 channels at most."""
        bands = (np.ascontiguousarray(image[..., channel]) for channel in range(image.shape[2]))
        options = matrix, self.crop_size, cv2.INTER_LINEAR
        return np.stack(
            [_warp(_prefiltered(band, scale), *options, fill) for band, fill in zip(bands, self.fill, strict=True)], -1
        )

    def _recoloured(self, image: Image, factors: list[float], angle: float) -> Image:
        """Other channels with brightness, contrast, saturation and hue changed; see `channels`."""
        if factors == [1, 1, 1] and not angle:
            return image
        brightness, contrast, saturation = factors
        pivot = np.array(self.fill, np.float32) * np.float32(1 - contrast)
        changed = image * np.float32(brightness * contrast) + pivot
        if set(RGB_NAMES) <= set(self.channels.names):
            rgb = list(self.channels.shown)
            changed[..., rgb] = changed[..., rgb] @ colour_matrix(1, 1, saturation, hue=angle)[:, :3].T.astype(
                np.float32
            )
        return np.asarray(changed.round().clip(0, self.channels.max_value), image.dtype)

    @property
    def is_affine(self) -> bool:
        """Whether a sample is one warp and one colour matrix that do not depend on the image's pixels (see `draw`)."""
        by_pixels = self.max_class_share < 1 or self.rare_class_crops or self.corruption
        return not by_pixels and _box(self.scale[0]) <= 1 and self.channels.is_rgb

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Warp:
        """What a call would do to an image of `size` (height, width), to do it on another device; needs `is_affine`."""
        assert self.is_affine, "a call does more than one warp"
        scale, turn = self._draw_turn(rng)
        placement = self._place(size, scale, rng)
        matrix = turn @ _matrix(size, placement)
        return Warp(matrix, _inside(placement, self.crop_size, matrix), self._draw_colours(rng))

    def _draw_turn(self, rng: np.random.Generator) -> tuple[float, Matrix]:
        """The scale, and the rotation and flip of the scaled crop: 3 x 3."""
        scale = rng.uniform(*self.scale)
        turn = _rotation(self.crop_size, rng.uniform(-1, 1) * self.rotation_degrees)
        if rng.random() < self.flip_probability:
            turn = np.array([[-1.0, 0, self.crop_size[1] - 1], [0, 1, 0], [0, 0, 1]]) @ turn
        return scale, turn

    def _place(self, size: tuple[int, ...], scale: float, rng: np.random.Generator) -> _Placement:
        height, width = (max(1, round(length * scale)) for length in size)
        slack = (self.crop_size[0] - height, self.crop_size[1] - width)
        top, left = (int(rng.integers(min(0, extra), max(0, extra) + 1)) for extra in slack)
        return _Placement(height, width, top, left)

    def _draw_odds(self, labels: Labels, rng: np.random.Generator) -> NDArray[np.float64] | None:
        """How likely each class is to have the crop's centre, 255; None where any position may be the crop's."""
        if not self.rare_class_crops or rng.random() >= self.rare_class_crops:
            return None
        odds = np.ones(IGNORE_INDEX)
        odds[: len(self.class_odds)] = self.class_odds
        odds *= np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)[:IGNORE_INDEX] > 0
        return odds / odds.sum() if odds.any() else None

    def _place_at(self, pixel: tuple[int, int], size: tuple[int, ...], scale: float) -> _Placement:
        """The placement that brings a pixel (row, column) of the image nearest to the crop's centre."""
        scaled = [max(1, round(length * scale)) for length in size]
        corner = []
        for place, length, old, crop in zip(pixel, scaled, size, self.crop_size, strict=True):
            wanted = round(crop / 2 - (place + 0.5) * length / old)
            corner.append(min(max(wanted, min(0, crop - length)), max(0, crop - length)))
        return _Placement(scaled[0], scaled[1], corner[0], corner[1])

    def _draw_factors(self, rng: np.random.Generator) -> tuple[list[float], float]:
        """Of brightness, contrast and saturation, and the angle of the hue in radians."""
        factors = [max(0.0, rng.uniform(1 - x, 1 + x)) for x in (self.brightness, self.contrast, self.saturation)]
        return factors, math.radians(rng.uniform(-1, 1) * self.hue_degrees)

    def _draw_colours(self, rng: np.random.Generator) -> Matrix | None:
        factors, angle = self._draw_factors(rng)
        return colour_matrix(*factors, hue=angle) if factors != [1, 1, 1] or angle else None


# field -> largest value allowed; the smallest is 0
_RANGES = dict.fromkeys(("flip_probability", "max_class_share", "corruption", "rare_class_crops"), 1.0)
_RANGES |= dict.fromkeys(("brightness", "contrast", "saturation"), 5.0)
_RANGES |= dict.fromkeys(("hue_degrees", "rotation_degrees"), 180.0)


def colour_matrix(brightness: float, contrast: float, saturation: float, *, hue: float = 0.0) -> Matrix:
    """The 3 x 4 matrix that takes (R, G, B, 1) to the changed colour: brightness first, then contrast, saturation, hue.

    Args:
        brightness: factor on the bytes.
        contrast: factor on the distance to the luma of `MEAN_COLOUR`.
        saturation: factor on the distance to the pixel's own luma; 0 gives grey.
        hue: angle in radians about the grey axis.
    """
    linear = _turn_about_grey(hue) @ (saturation * np.eye(3) + (1 - saturation) * _LUMA) * contrast * brightness
    pivot = float(_LUMA @ MEAN_COLOUR) * (1 - contrast)  # a grey, which saturation and hue leave as it is
    return np.column_stack((linear, np.full(3, pivot)))


def _turn_about_grey(angle: float) -> Matrix:
    """Rodrigues' rotation about the axis (1, 1, 1)."""
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn: Matrix = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return turn


def _matrix(size: tuple[int, ...], placement: _Placement) -> Matrix:
    """3 x 3, image to crop: a bilinear resize to the placement's size, then a shift to its top left corner."""
    (y, top), (x, left) = (spacing(*lengths, align_corners=False) for lengths in zip(placement[:2], size, strict=True))
    return np.array([[x, 0, left + placement.left], [0, y, top + placement.top], [0, 0, 1]])


def _rotation(crop_size: tuple[int, int], degrees: float) -> Matrix:
    if degrees == 0:
        return np.eye(3)
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    y, x = (crop_size[0] - 1) / 2, (crop_size[1] - 1) / 2
    return np.array([[cosine, sine, x - cosine * x - sine * y], [-sine, cosine, y + sine * x - cosine * y], [0, 0, 1]])


def _warp(
    array: Image, matrix: Matrix, size: tuple[int, int], method: int, fill: float | tuple[int, int, int]
) -> Image:
    options: dict[str, Any] = {"borderMode": cv2.BORDER_CONSTANT, "borderValue": fill}
    options["flags"] = method | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(array, np.linalg.inv(matrix)[:2], size[::-1], **options))


def _prefiltered(image: Image, scale: float) -> Image:
    """The image, averaged over the pixels that bilinear sampling (2 x 2 pixels) would skip at scales below 1/2."""
    box = _box(scale)
    return image if box <= 1 else np.asarray(cv2.blur(image, (box, box)))


def _box(scale: float) -> int:
    """Odd, so that pixel centres stay; nearest to 1 / scale - 1, as bilinear sampling itself averages over one more."""
    return 2 * round(0.5 / scale) - 1


def _inside(placement: _Placement, crop_size: tuple[int, int], matrix: Matrix) -> tuple[slice, slice]:
    """The rows and columns of the crop that show the image; all of them if the image is rotated."""
    if matrix[0, 1] != 0:
        return slice(None), slice(None)
    top, left = max(0, placement.top), max(0, placement.left)
    bottom = min(crop_size[0], placement.top + placement.height)
    right = min(crop_size[1], placement.left + placement.width)
    if matrix[0, 0] < 0:
        left, right = crop_size[1] - right, crop_size[1] - left
    return slice(top, bottom), slice(left, right)


def _draw_pixel(labels: Labels, odds: NDArray[np.float64], rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel of a class drawn by `odds`."""
    places = np.flatnonzero(labels.ravel() == rng.choice(len(odds), p=odds))
    row, column = divmod(int(places[rng.integers(len(places))]), labels.shape[1])
    return row, column


def _largest_share(labels: Image) -> float:
    """The share of the labelled pixels that the most frequent class has; 0 if none is labelled."""
    counts = np.bincount(labels[::2, ::2].ravel(), minlength=256)[:IGNORE_INDEX]
    return float(counts.max() / max(1, counts.sum()))


_ATTEMPTS = 10  # to draw a window that fits into the image
CENTRE_SHARE = 0.875  # of an image's sides, used in evaluation: the usual 224 of 256


@dataclass(frozen=True, slots=True)
class RandomResizedCrop:
    """A random window of an image, resized to the crop's size, randomly mirrored and with random colours.

    Attributes:
        crop_size: (height, width) of every sample in pixels.
        area: bounds of the window, as a share of the image.
        aspect: bounds of its width over its height.
        flip_probability: how often the sample is mirrored left to right.
        strengths: of brightness, contrast and saturation, each changed by a factor within 1 ± this.
    """

    crop_size: tuple[int, int]
    area: tuple[float, float]
    aspect: tuple[float, float]
    flip_probability: float
    strengths: tuple[float, float, float]

    def __call__(self, image: Image, labels: NDArray[Any], rng: np.random.Generator) -> tuple[Image, NDArray[Any]]:
        """One random sample.

        Args:
            image: H x W x 3 uint8 RGB.
            labels: returned unchanged.
            rng: the only source of randomness.

        Returns:
            crop_size x 3 uint8 RGB, and `labels`.
        """
        top, left, height, width = self._window(image.shape[:2], rng)
        crop = _resized(image[top : top + height, left : left + width], self.crop_size)
        if rng.random() < self.flip_probability:
            crop = np.ascontiguousarray(crop[:, ::-1])
        brightness, contrast, saturation = (rng.uniform(1 - strength, 1 + strength) for strength in self.strengths)
        if any(self.strengths):
            crop = np.asarray(cv2.transform(crop, colour_matrix(brightness, contrast, saturation)))
        return crop, labels

    def _window(self, size: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width; the middle of the image if no window drawn fits."""
        for _ in range(_ATTEMPTS):
            area = size[0] * size[1] * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            height, width = max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))
            if height <= size[0] and width <= size[1]:
                top, left = (int(rng.integers(0, slack + 1)) for slack in (size[0] - height, size[1] - width))
                return top, left, height, width
        return _middle(size, self.crop_size, share=1)


def centre_window(image: Image, crop_size: tuple[int, int]) -> Image:
    """The part of an image that is classified in evaluation: its middle, crop_size x 3 uint8."""
    top, left, height, width = _middle(image.shape[:2], crop_size, share=CENTRE_SHARE)
    return _resized(image[top : top + height, left : left + width], crop_size)


def _middle(size: tuple[int, ...], crop_size: tuple[int, int], *, share: float) -> tuple[int, int, int, int]:
    """Top, left, height, width of a share of the largest window in the middle that has the crop's shape."""
    scale = share * min(size[0] / crop_size[0], size[1] / crop_size[1])
    height, width = (max(1, round(scale * length)) for length in crop_size)
    return (size[0] - height) // 2, (size[1] - width) // 2, height, width


def _resized(image: Image, size: tuple[int, int]) -> Image:
    shrinks = image.shape[0] > size[0] and image.shape[1] > size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, size[::-1], interpolation=method)
    return resized

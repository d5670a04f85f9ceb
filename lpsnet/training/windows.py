"""Windows of a picture for classification: a random one to learn from, the middle one to be scored by.

Where Section 4.2 says no more than 'ImageNet pre-training', this is the usual way since Szegedy et al. 2015.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.transforms import colour_matrix

Image = NDArray[np.uint8]

ATTEMPTS = 10  # at a window that fits into the picture
CENTRE_SHARE = 0.875  # of a picture's sides, what is shown when it is scored: 224 of 256, as everybody does


@dataclass(frozen=True, slots=True)
class RandomWindow:
    """A random window of a picture, brought to the crop's size, at times mirrored, its colours changed.

    Attributes:
        crop_size: (height, width) of every sample in pixels.
        area: bounds of the window, as a share of the picture.
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
            labels: handed through.
            rng: all randomness comes from here.

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
        """Top, left, height and width; the whole picture's middle where nothing drawn fits."""
        for _ in range(ATTEMPTS):
            area = size[0] * size[1] * rng.uniform(*self.area)
            aspect = math.exp(rng.uniform(math.log(self.aspect[0]), math.log(self.aspect[1])))
            height, width = max(1, round(math.sqrt(area / aspect))), max(1, round(math.sqrt(area * aspect)))
            if height <= size[0] and width <= size[1]:
                room = size[0] - height, size[1] - width
                top, left = (int(rng.integers(0, slack + 1)) for slack in room)
                return top, left, height, width
        return _middle(size, self.crop_size, share=1)


def centre_window(image: Image, crop_size: tuple[int, int]) -> Image:
    """What is shown of a picture when it is scored: its middle, crop_size x 3 uint8."""
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

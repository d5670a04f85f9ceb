"""One generated scene: sky, street, light and camera noise, from a generator and a size."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.scenes.canvas import (
    BUILDING,
    CAR,
    PAVEMENT,
    PERSON,
    POLE,
    ROAD,
    SKY,
    VEGETATION,
    Camera,
    Canvas,
    pick,
    shade,
)
from lpsnet.data.scenes.street import paint_street
from lpsnet.errors import DataError

MIN_SIDE, MAX_SIDE = 32, 4096  # pixels

Floats = NDArray[np.float32]

# How rough each class looks: relative deviation of brightness, in patches of a few pixels and from pixel to pixel.
_ROUGHNESS = {
    SKY: (0.0, 0.0),
    BUILDING: (0.04, 0.03),
    ROAD: (0.03, 0.06),
    PAVEMENT: (0.05, 0.05),
    VEGETATION: (0.16, 0.14),
    CAR: (0.02, 0.01),
    PERSON: (0.05, 0.03),
    POLE: (0.03, 0.02),
}


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A street scene and its labels.

    Args:
        rng: all randomness comes from here; generators in the same state give the same street at every size.
        size: (height, width) in pixels, each 32 to 4096.

    Returns:
        The picture, H x W x 3 uint8 RGB, and its label map, H x W uint8 ids of `SCENES`. The bonnet of the camera's own
        car, where there is one, is `IGNORE_INDEX`.

    Raises:
        DataError: the size is out of bounds.
    """
    check_size(size)
    canvas = _open_canvas(rng, size)
    _paint_sky(canvas, rng)
    paint_street(canvas, rng)
    if rng.random() < 0.5:
        _paint_bonnet(canvas, rng)
    *channels, labels = cv2.split(canvas.pixels)
    return _photograph(channels, labels, rng), labels


def check_size(size: tuple[int, int]) -> None:
    """Refuse a (height, width) that no scene has, with a `DataError`."""
    if len(size) != 2 or not all(isinstance(length, int) and MIN_SIDE <= length <= MAX_SIDE for length in size):
        raise DataError(f"the size of a scene is height and width in pixels, {MIN_SIDE} to {MAX_SIDE}; got {size}")


def _open_canvas(rng: np.random.Generator, size: tuple[int, int]) -> Canvas:
    height, width = size
    camera = Camera(
        focal=(height * width) ** 0.5 * rng.uniform(0.95, 1.25),
        centre=width * rng.uniform(0.35, 0.65),
        horizon=height * rng.uniform(0.38, 0.5),
        height=rng.uniform(1.3, 1.7),
    )
    haze = pick(rng, ((196, 206, 216), (214, 208, 196)), spread=0.08)
    return Canvas(np.zeros((height, width, 4), np.uint8), camera, haze, visibility=rng.uniform(80, 400))


def _paint_sky(canvas: Canvas, rng: np.random.Generator) -> None:
    """From the sky's colour above to the haze at the horizon, with clouds."""
    height, width = canvas.size
    rows = min(height, int(canvas.camera.horizon) + 2)
    top, white = pick(rng, ((86, 140, 212), (120, 168, 220), (168, 180, 192))), rng.uniform(205, 245)
    fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None] ** rng.uniform(0.7, 1.6)
    clouds = _patches(rng, (rows, width), (5, 7)) + 0.5 * _patches(rng, (rows, width), (12, 20))
    clear = 1 - np.clip(0.8 * clouds + rng.uniform(-0.7, 0.4), 0, 0.85)
    for channel in range(3):
        sky = top[channel] + (canvas.haze[channel] - top[channel]) * fade
        canvas.pixels[:rows, :, channel] = (sky - white) * clear + white
    canvas.pixels[:rows, :, 3] = SKY


def _patches(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> Floats:
    """Smooth noise of deviation about 1: random numbers on a grid of `cells`, interpolated."""
    grid = rng.standard_normal(cells, np.float32)
    return np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_LINEAR))


def _paint_bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
    height, width = canvas.size
    middle, rise, half = (
        width * rng.uniform(0.45, 0.55),
        height * rng.uniform(0.03, 0.09),
        width * rng.uniform(0.45, 0.6),
    )
    turn = np.linspace(0, np.pi, 24)
    colour = shade(pick(rng, ((40, 42, 48), (120, 30, 30), (150, 154, 160))), rng.uniform(0.6, 1.0))
    outline = np.column_stack((middle + half * np.cos(turn), height - rise * np.sin(turn) ** 0.7))
    canvas.paint_pixels(
        np.vstack((outline, [(middle - half, height + 2), (middle + half, height + 2)])), colour, IGNORE_INDEX
    )


def _photograph(
    channels: Sequence[NDArray[np.uint8]], labels: NDArray[np.uint8], rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The picture as a camera sees it: rough surfaces, the light's brightness and tint, slight blur, sensor noise."""
    size = (labels.shape[0], labels.shape[1])
    gains = rng.uniform(0.65, 1.15) * rng.uniform(0.94, 1.06, 3)
    blur, noise = rng.uniform(0.3, 0.7), rng.uniform(1.0, 5.0)
    coarse, fine = (_lookup(labels, number) for number in range(2))
    light = 1 + coarse * _patches(rng, size, (size[0] // 4 + 1, size[1] // 4 + 1)) + fine * _grain(rng, size)
    grain = _grain(rng, size)
    seen = []
    for channel, gain in zip(channels, gains, strict=True):
        lit = cv2.GaussianBlur(cv2.multiply(channel, light, dtype=cv2.CV_32F), (3, 3), blur)
        seen.append(cv2.addWeighted(lit, float(gain), grain, noise, 0, dtype=cv2.CV_8U))
    return np.asarray(cv2.merge(seen))


def _lookup(labels: NDArray[np.uint8], number: int) -> Floats:
    table = np.zeros(256, np.float32)
    for label, roughness in _ROUGHNESS.items():
        table[label] = roughness[number]
    return np.asarray(cv2.LUT(labels, table))


def _grain(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Noise of deviation 1 from pixel to pixel: two random bytes, as normal deviates take five times as long."""
    first, second = (rng.integers(0, 256, size, np.uint8) for _ in range(2))
    return np.asarray(cv2.subtract(first, second, dtype=cv2.CV_32F)) * np.float32(1 / 104.5)

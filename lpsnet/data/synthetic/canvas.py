"""Painting generated scenes: an image and its label map in one array, seen through a pinhole camera.

Every stroke colours the image and the label map in one call of OpenCV, without antialiasing, so that a pixel's colour
and label always belong to the same object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lpsnet.data.labels import LabelSpace

# "Pole" includes the lamps, signs and lights on it. Signs alone would be half a percent of the pixels.
SKY, BUILDING, ROAD, PAVEMENT, VEGETATION, CAR, PERSON, POLE = range(8)

_COLOURS = {
    "sky": (70, 130, 180),
    "building": (70, 70, 70),
    "road": (128, 64, 128),
    "pavement": (244, 35, 232),
    "vegetation": (107, 142, 35),
    "car": (0, 0, 142),
    "person": (220, 20, 60),
    "pole": (153, 153, 153),
}
SCENES = LabelSpace.from_names("scenes", _COLOURS, list(_COLOURS.values()))

Colour = tuple[float, float, float]  # RGB, 0 to 255
Point = tuple[float, float, float]  # right, up, ahead: metres from the road under the camera
Place = tuple[float, float]  # right, ahead: metres on the ground

_LARGEST = 30_000  # pixels; coordinates are clipped to this, as OpenCV's fills use 16 bits and a fraction


class Stroke(NamedTuple):
    """One or more shapes of one colour and class.

    Attributes:
        corners: of one polygon, or of several that do not overlap, concatenated; of a disc, its centre.
        colour: without haze.
        label: class id of `SCENES`.
        num_polygons: how many polygons there are, all with as many corners.
        radius: metres, for a disc that faces the camera; 0 for polygons.
    """

    corners: Sequence[Point]
    colour: Colour
    label: int
    num_polygons: int = 1
    radius: float = 0.0


def board(place: Place, outline: Sequence[tuple[float, float]], colour: Colour, label: int) -> Stroke:
    """A polygon that faces the camera; its outline is in metres right of and above a place on the ground."""
    right, ahead = place
    return Stroke([(right + x, up, ahead) for x, up in outline], colour, label)


def disc(place: Place, up: float, radius: float, colour: Colour, label: int) -> Stroke:
    """A disc that faces the camera, its centre `up` metres above a place on the ground."""
    return Stroke([(place[0], up, place[1])], colour, label, radius=radius)


def flat(start: float, stop: float, near: float, far: float) -> list[Point]:
    """A rectangle on the ground: metres right from start to stop, ahead from near to far."""
    return [(start, 0, near), (stop, 0, near), (stop, 0, far), (start, 0, far)]


def palette(text: str) -> list[Colour]:
    """Colours written as hexadecimal RGB with spaces between: "be1a1e 1c3682"."""
    return [(code >> 16, code >> 8 & 255, code & 255) for code in (int(word, 16) for word in text.split())]


def shade(colour: Colour, factor: float) -> Colour:
    """The colour multiplied by `factor`, at most 255."""
    red, green, blue = colour
    return min(255.0, red * factor), min(255.0, green * factor), min(255.0, blue * factor)


def pick(rng: np.random.Generator, palette: Sequence[Colour], *, spread: float = 0.15) -> Colour:
    """One of the colours, up to `spread` lighter or darker and a quarter of that off in each channel."""
    which, whole, *parts = rng.random(5).tolist()
    colour, light = palette[int(which * len(palette))], 1 + spread * (2 * whole - 1)
    tints = [light * (1 + spread / 4 * (2 * part - 1)) for part in parts]
    return min(255.0, colour[0] * tints[0]), min(255.0, colour[1] * tints[1]), min(255.0, colour[2] * tints[2])


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera that looks along the street, level.

    Attributes:
        focal: focal length in pixels.
        centre: column of the street's vanishing point.
        horizon: row of the horizon.
        height: metres of the camera above the road.
    """

    focal: float
    centre: float
    horizon: float
    height: float

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """N x 3 points in metres to N x 2 pixels, column first."""
        points = np.asarray(points, np.float64)
        scale = self.focal / points[:, 2]
        columns = self.centre + points[:, 0] * scale
        return np.column_stack((columns, self.horizon + (self.height - points[:, 1]) * scale))

    def nearest(self, num_rows: int) -> float:
        """Metres ahead at which an image of `num_rows` rows first sees the road."""
        return self.focal * self.height / max(1.0, num_rows - self.horizon)


@dataclass(frozen=True, slots=True)
class Canvas:
    """An image and its label map being painted; later strokes cover earlier ones.

    Attributes:
        pixels: H x W x 4 uint8, RGB and class id.
        camera: how points in metres fall on the image.
        haze: the colour that things take on with distance.
        visibility: metres over which a thing keeps 1/e of its colour.
    """

    pixels: NDArray[np.uint8]
    camera: Camera
    haze: Colour
    visibility: float

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def paint(self, strokes: Sequence[Stroke]) -> None:
        """Paint the strokes in their order; all are projected at once, which is much faster."""
        corners = np.array(list(chain.from_iterable(stroke.corners for stroke in strokes)))
        points = _whole(self.camera.project(corners))
        ends = list(accumulate(len(stroke.corners) for stroke in strokes))
        distances = np.minimum.reduceat(corners[:, 2], [0, *ends[:-1]])
        radii = (self.camera.focal / distances * [stroke.radius for stroke in strokes]).round().astype(int).tolist()
        for stroke, end, radius, ink in zip(strokes, ends, radii, self._inks(strokes, distances), strict=True):
            spots = points[end - len(stroke.corners) : end]
            if stroke.radius:
                cv2.circle(self.pixels, spots[0].tolist(), radius, ink, cv2.FILLED, cv2.LINE_8)
            elif stroke.num_polygons == 1:
                cv2.fillPoly(self.pixels, [spots], ink, cv2.LINE_8)
            else:
                cv2.fillPoly(self.pixels, list(spots.reshape(stroke.num_polygons, -1, 2)), ink, cv2.LINE_8)

    def paint_pixels(self, outline: ArrayLike, colour: Colour, label: int) -> None:
        """Fill one polygon given in pixels: N x 2, column first."""
        cv2.fillPoly(self.pixels, [_whole(np.asarray(outline))], (*colour, label), cv2.LINE_8)

    def darken(self, shadows: Sequence[Sequence[Point]], strength: float) -> None:
        """Darken polygons, with soft edges; labels stay. `strength` 1 gives black."""
        mask = np.zeros(self.size, np.uint8)
        points = _whole(self.camera.project(list(chain.from_iterable(shadows))))
        start = 0
        for shadow in shadows:  # one call each: fillPoly leaves out where polygons of one call overlap
            cv2.fillPoly(mask, [points[start : start + len(shadow)]], 255)
            start += len(shadow)
        light = cv2.convertScaleAbs(cv2.blur(mask, (3, 3)), alpha=-strength, beta=255)
        whole = np.full_like(light, 255)  # leaves the class ids as they are
        cv2.multiply(self.pixels, cv2.merge([light, light, light, whole]), dst=self.pixels, scale=1 / 255)

    def _inks(self, strokes: Sequence[Stroke], distances: NDArray[np.float64]) -> list[list[float]]:
        """Colour, with haze by distance, and class id of every stroke."""
        clear = np.exp(-distances / self.visibility)[:, None]
        colours = np.array([stroke.colour for stroke in strokes]) * clear + np.array(self.haze) * (1 - clear)
        inks: list[list[float]] = np.column_stack((colours, [stroke.label for stroke in strokes])).tolist()
        return inks


def _whole(points: NDArray[np.float64]) -> NDArray[np.int32]:
    return np.clip(np.rint(points), -_LARGEST, _LARGEST).astype(np.int32, order="C")

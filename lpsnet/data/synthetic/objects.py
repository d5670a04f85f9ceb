"""Generated scenes: painting strokes, and the objects of a street: trees, cars, persons, lamp posts, signs and
buildings.

Each function takes a place in metres (right, ahead) and draws shapes and colours from the generator.

A scene is an image and its label map in one array, seen through a pinhole camera. Every stroke colours both in one call
of OpenCV, without antialiasing, so that a pixel's colour and label always belong to the same object.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

import lpsnet.data.synthetic.objects as canvas  # not from the package, which imports this module
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


_BARK: Sequence[Colour] = ((88, 66, 48), (104, 92, 78))
_LEAVES: Sequence[Colour] = ((64, 104, 40), (84, 122, 48), (48, 88, 50), (120, 124, 46))
_PAINTS: Sequence[Colour] = palette("be1a1e 1c3682 e1e1e4 18181c 787c80 c4a028 1e603e")
_CLOTHES: Sequence[Colour] = palette("a8202a 203c8c ebe8e2 28282e d69628 467848 82468c")
_SKIN: Sequence[Colour] = ((232, 190, 160), (196, 148, 112), (128, 88, 62))
_METAL: Sequence[Colour] = ((70, 74, 76), (110, 112, 110), (52, 66, 58))
_GLASS: Colour = (40, 50, 62)
_TYRE: Colour = (22, 22, 24)
_WHEEL = [(0.34 * math.sin(turn), 0.34 + 0.34 * math.cos(turn)) for turn in np.linspace(0, 2 * math.pi, 10, False)]

Outline = list[tuple[float, float]]


def _box(left: float, right: float, low: float, high: float) -> Outline:
    return [(left, low), (right, low), (right, high), (left, high)]


def tree(rng: np.random.Generator, place: Place, size: float) -> list[Stroke]:
    """A trunk and a crown of leaves, about `size` metres high."""
    stem, crown = size * rng.uniform(0.3, 0.4), size * rng.uniform(0.22, 0.32)
    thick, middle = size * 0.025, stem + crown
    bark, leaf = pick(rng, _BARK), pick(rng, _LEAVES)
    strokes = [
        board(place, _box(-thick, thick, 0, middle), bark, canvas.VEGETATION),
        disc(place, middle, 0.75 * crown, shade(leaf, 0.7), canvas.VEGETATION),
    ]
    leaves = rng.random((12, 3)).tolist()
    for turn, reach, radius in leaves[:: 1 if place[1] < 30 else 2]:
        away = crown * (0.35 + 0.55 * reach)
        right, up = away * math.cos(2 * math.pi * turn), away * math.sin(2 * math.pi * turn)
        light = 0.9 + 0.3 * up / crown + 0.3 * (radius - 0.5)
        spot = (place[0] + right, place[1])
        strokes.append(disc(spot, middle + up, crown * (0.2 + 0.25 * radius), shade(leaf, light), canvas.VEGETATION))
    return strokes


@dataclass(frozen=True, slots=True)
class _Body:
    """A car's measures in metres: half its width at the waist and at the roof, its length, and the heights of both."""

    van: bool
    half: float
    half_roof: float
    length: float
    waist: float
    roof: float
    paint: Colour


def car(rng: np.random.Generator, place: Place) -> list[Stroke]:
    """A car or van along the street; `place` is the middle of the end that the camera sees."""
    van, half, length = bool(rng.random() < 0.2), rng.uniform(0.85, 0.95), rng.uniform(3.8, 4.8)
    roof = rng.uniform(1.9, 2.3) if van else rng.uniform(1.4, 1.6)
    body = _Body(van, half, half * (0.95 if van else 0.78), length, 1.15 if van else 0.95, roof, pick(rng, _PAINTS))
    lamps: Colour = (255, 245, 210) if rng.random() < 0.5 else (200, 20, 24)
    # The camera sees the side of a car only if the car is not straight ahead.
    return [*(_flank(body, place) if abs(place[0]) > half else []), *_tail(body, place, lamps)]


def _tail(body: _Body, place: Place, lamps: Colour) -> list[Stroke]:
    half, top, waist = body.half, body.half_roof, body.waist
    low, high = waist + 0.05, body.roof - 0.12
    parts: list[tuple[Outline, Colour]] = [
        (_box(-half, 0.25 - half, 0, 0.4), _TYRE),
        (_box(half - 0.25, half, 0, 0.4), _TYRE),
        (_box(-half, half, 0.25, waist), body.paint),
        ([(-half, waist), (half, waist), (top, body.roof), (-top, body.roof)], body.paint),
        ([(-0.86 * half, low), (0.86 * half, low), (0.85 * top, high), (-0.85 * top, high)], _GLASS),
        (_box(-half, half, 0.25, 0.42), shade(body.paint, 0.5)),
        (_box(-0.26, 0.26, 0.48, 0.6), (225, 225, 215)),
        (_box(-half, 0.3 - half, 0.65, 0.85), lamps),
        (_box(half - 0.3, half, 0.65, 0.85), lamps),
    ]
    return [board(place, outline, colour, canvas.CAR) for outline, colour in parts]


def _flank(body: _Body, place: Place) -> list[Stroke]:
    """The side facing the camera, leaning inwards above the waist; outlines are metres ahead and up."""
    near, far, waist, roof = place[1], place[1] + body.length, body.waist, body.roof
    slant, low, high = 0.2 if body.van else 0.5, waist + 0.05, roof - 0.12
    cabin = [(near, 0.8 * waist), (far - 2 * slant, 0.8 * waist), (far - 2 * slant, waist)]
    glass = [(near + 0.4, low), (far - 3 * slant, low), (far - 4.2 * slant, high), (near + 0.4, high)]
    paint = shade(body.paint, 0.75)
    parts: list[tuple[Outline, Colour]] = [
        ([(near, 0.25), (far, 0.25), (far, 0.9 * waist), (near, waist)], paint),
        ([*cabin, (far - 4 * slant, roof), (near, roof), (near, waist)], paint),
        (glass, _GLASS),
        *(([(centre + ahead, up) for ahead, up in _WHEEL], _TYRE) for centre in (near + 0.8, far - 0.8)),
    ]

    def right(up: float) -> float:
        lean = max(0.0, (up - waist) / (roof - waist)) * (body.half - body.half_roof)
        return place[0] - math.copysign(body.half - lean, place[0])

    return [Stroke([(right(up), up, ahead) for ahead, up in outline], colour, canvas.CAR) for outline, colour in parts]


def person(rng: np.random.Generator, place: Place) -> list[Stroke]:
    """A person who stands or walks, 1.6 to 1.9 metres tall."""
    size, stride, wide, lean = rng.uniform((0.9, 0.05, 0.22, -0.04), (1.08, 0.3, 0.3, 0.04)).tolist()
    coat, trousers, skin = pick(rng, _CLOTHES), shade(pick(rng, _CLOTHES), 0.55), pick(rng, _SKIN)
    parts: list[tuple[Outline, Colour]] = [
        ([(-stride - 0.09, 0), (0.11 - stride, 0), (0.13, 0.9), (-0.13, 0.9)], shade(trousers, 0.8)),
        ([(stride - 0.09, 0), (stride + 0.11, 0), (0.13, 0.9), (-0.13, 0.9)], trousers),
        ([(-wide, 1.45), (-wide - 0.12, 0.85), (0.02 - wide, 0.85)], shade(coat, 0.8)),
        ([(wide, 1.45), (wide + 0.12, 0.85), (wide - 0.02, 0.85)], shade(coat, 0.8)),
        ([(-0.8 * wide, 0.8), (0.8 * wide, 0.8), (wide, 1.46), (lean, 1.52), (-wide, 1.46)], coat),
    ]
    strokes = [
        board(place, [(size * x, size * up) for x, up in outline], colour, canvas.PERSON) for outline, colour in parts
    ]
    head = (place[0] + lean * size, place[1])
    hair = [(size * x, size * up) for x, up in ((-0.13, 1.66), (0.13, 1.66), (0.08, 1.77), (-0.08, 1.77))]
    return [
        *strokes,
        disc(head, 1.63 * size, 0.13 * size, skin, canvas.PERSON),
        board(head, hair, (50, 38, 30), canvas.PERSON),
    ]


def lamp_post(rng: np.random.Generator, place: Place) -> list[Stroke]:
    """A post with an arm over the road."""
    height, thick = rng.uniform(5, 7.5), rng.uniform(0.09, 0.14)
    arm, metal = -math.copysign(rng.uniform(0.8, 1.6), place[0]), pick(rng, _METAL)
    outlines = [
        _box(-thick, thick, 0, height),
        [(0, height), (arm, height + 0.3), (arm, height + 0.15), (0, height - 0.2)],
        _box(-2 * thick, 2 * thick, 0, 0.8),
    ]
    return [board(place, outline, metal, canvas.POLE) for outline in outlines]


_RED, _BLUE, _WHITE, _YELLOW = (196, 24, 30), (28, 72, 170), (238, 238, 234), (236, 190, 30)
_PLATES: Sequence[tuple[Colour, Colour]] = ((_RED, _WHITE), (_BLUE, _BLUE), (_WHITE, _YELLOW))  # rim, face
_SHAPES: Sequence[Outline] = ([(-1, -0.8), (1, -0.8), (0, 1)], [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)])


def sign(rng: np.random.Generator, place: Place) -> list[Stroke]:
    """A traffic sign on a post, round, triangular or square; or a traffic light."""
    height, radius = rng.uniform(2.3, 3.0), rng.uniform(0.36, 0.5)
    shape, plate = int(rng.integers(4)), _PLATES[int(rng.integers(3))]
    post = board(place, _box(-0.06, 0.06, 0, height), (120, 122, 122), canvas.POLE)
    if shape == 3:
        return [post, *_traffic_light(place, height, lit=int(rng.integers(3)))]
    if shape == 2:
        return [post, *(disc(place, height, r * radius, c, canvas.POLE) for r, c in zip((1, 0.68), plate, strict=True))]
    outlines = ([(r * x, height + r * up) for x, up in _SHAPES[shape]] for r in (radius, 0.68 * radius))
    return [post, *(board(place, outline, c, canvas.POLE) for outline, c in zip(outlines, plate, strict=True))]


def _traffic_light(place: Place, height: float, *, lit: int) -> list[Stroke]:
    strokes = [board(place, _box(-0.24, 0.24, height - 0.6, height + 0.6), (26, 28, 28), canvas.POLE)]
    for number, colour in enumerate(((230, 40, 36), (240, 180, 40), (60, 220, 110))):
        lamp = shade(colour, 1 if number == lit else 0.3)
        strokes.append(disc(place, height + 0.38 * (1 - number), 0.15, lamp, canvas.POLE))
    return strokes


_WALLS: Sequence[Colour] = palette("b06c54 ccbca0 96928c d6cec4 8c684e 78808c c49e6e")
_ROOFS: Sequence[Colour] = ((120, 62, 48), (78, 74, 76), (96, 84, 70))
_WINDOW_GLASS: Colour = (52, 64, 78)

Interval = tuple[float, float]


def building(rng: np.random.Generator, *, face: float, ends: Interval, height: float, sunlight: float) -> list[Stroke]:
    """A block along the street: its front stands `face` metres right, between the two `ends` metres ahead.

    `sunlight` is the brightness of the front; the wall that faces the camera has 0.85.
    """
    near, far = ends
    outer = face + math.copysign(rng.uniform(8, 14), face)
    wall, glass = pick(rng, _WALLS), shade(_WINDOW_GLASS, rng.uniform(0.6, 2.2))
    floor, window, filled = rng.uniform(2.8, 3.6), rng.uniform(1.8, 3.2), rng.uniform(0.4, 0.65)
    strokes = _roof(rng, (face, outer), ends, height) if rng.random() < 0.5 else []
    num_floors = max(1, int(height / floor))
    rows = [((number + 0.3) * floor, (number + 0.75) * floor) for number in range(num_floors)]
    for start, stop, light in (((face, near), (outer, near), 0.85), ((face, near), (face, far), sunlight)):
        columns = _parts(max(1, int(math.dist(start, stop) / window)), filled)
        for wide, high, colour in (
            ([(0.0, 1.0)], [(0.0, height)], wall),
            ([(0.0, 1.0)], [(0.92 * floor, 1.02 * floor)], shade(wall, 0.75)),
            (columns, rows, glass),
        ):
            corners = _rectangles(start, stop, wide, high)
            strokes.append(Stroke(corners, shade(colour, light), canvas.BUILDING, len(corners) // 4))
    return strokes


def skyline(rng: np.random.Generator, ahead: float) -> list[Stroke]:
    """A row of far houses and trees across the whole view."""
    strokes, start = [], -200.0
    while start < 200:
        stop, height = start + rng.uniform(6, 30), rng.uniform(5, 16)
        if rng.random() < 0.5:
            peak = [(stop + 3, height * 0.5), ((start + stop) / 2, height * 0.8), (start - 3, height * 0.5)]
            green = pick(rng, ((70, 96, 60),))
            strokes.append(board((0, ahead), [(start, 0), (stop, 0), *peak], green, canvas.VEGETATION))
        else:
            outline = [(start, 0.0), (stop, 0.0), (stop, height), (start, height)]
            strokes.append(board((0, ahead), outline, pick(rng, _WALLS), canvas.BUILDING))
        start = stop
    return strokes


def _roof(rng: np.random.Generator, sides: Interval, ends: Interval, height: float) -> list[Stroke]:
    (face, outer), (near, far) = sides, ends
    ridge, top, colour = (face + outer) / 2, height + rng.uniform(2, 4), pick(rng, _ROOFS)
    slope: list[Point] = [(face, height, near), (face, height, far), (ridge, top, far), (ridge, top, near)]
    gable: list[Point] = [(face, height, near), (outer, height, near), (ridge, top, near)]
    return [Stroke(slope, colour, canvas.BUILDING), Stroke(gable, shade(colour, 0.8), canvas.BUILDING)]


def _parts(count: int, filled: float) -> list[Interval]:
    """The middle, a share `filled`, of each of `count` equal parts of 0 to 1."""
    return [((number + 0.5 - filled / 2) / count, (number + 0.5 + filled / 2) / count) for number in range(count)]


def _rectangles(start: Place, stop: Place, columns: Sequence[Interval], rows: Sequence[Interval]) -> list[Point]:
    """Upright rectangles on the wall from start to stop, four corners each, one for every row and column.

    Columns are intervals of 0 to 1 along the wall; rows are intervals in metres above the ground.
    """
    (x, z), (dx, dz) = start, (stop[0] - start[0], stop[1] - start[1])
    feet = [((x + a * dx, z + a * dz), (x + b * dx, z + b * dz)) for a, b in columns]
    return [
        corner
        for low, high in rows
        for (ax, az), (bx, bz) in feet
        for corner in ((ax, low, az), (bx, low, bz), (bx, high, bz), (ax, high, az))
    ]

"""Generated street scenes: ground, skyline and objects, then sky, light and camera noise; and splits of them.

A scene is planned in metres, painted from far to near (`objects`) and made to look photographed.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.channels import RGB, Channels
from lpsnet.data.images import Image, Labels
from lpsnet.data.labels import IGNORE_INDEX, LabelSpace
from lpsnet.data.split import Opened, Sample
from lpsnet.data.synthetic import objects
from lpsnet.data.synthetic.objects import SCENES, Camera, Canvas, Colour, Place, Point, Stroke, flat, pick, shade
from lpsnet.errors import DataError, unknown_name

__all__ = ["SCENES", "SceneSplit", "draw_scene", "open_scenes"]


_END = 90.0  # metres ahead where the sides of the street end
_FAR = 400.0  # metres ahead where the ground ends
_SKYLINE = 160.0

_GRASS: Sequence[Colour] = ((96, 118, 62), (122, 116, 74))
_PAVING: Sequence[Colour] = ((156, 150, 144), (170, 156, 142), (140, 142, 148))
_ASPHALT: Sequence[Colour] = ((86, 86, 90), (104, 102, 100), (74, 76, 82))


@dataclass(frozen=True, slots=True)
class _Thing:
    """An object: metres ahead of its nearest point, its strokes, and its shadow on the ground."""

    ahead: float
    strokes: list[Stroke]
    shadow: list[Point]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Metres right of the camera, for the left side (-1) and the right (1): kerb, outer end of the pavement.

    Attributes:
        kerbs: where the road ends.
        ends: where the pavements end.
        sunlight: brightness of the fronts on either side.
        near: metres ahead of the nearest point that is painted.
    """

    kerbs: dict[int, float]
    ends: dict[int, float]
    sunlight: dict[int, float]
    near: float

    @property
    def middle(self) -> float:
        """Metres right of the road's middle line."""
        return (self.kerbs[-1] + self.kerbs[1]) / 2


def paint_street(scene: Canvas, rng: np.random.Generator) -> None:
    """Paint all but the sky."""
    plan = _plan(rng, 0.7 * scene.camera.nearest(scene.size[0]))
    scene.paint([*objects.skyline(rng, _SKYLINE), *_ground(rng, plan), *_markings(rng, plan)])
    beside = [thing for side in (-1, 1) for thing in _blocks(rng, plan, side)]
    within = [*_traffic(rng, plan), *_people(rng, plan)]
    within += [thing for side in (-1, 1) for thing in _kerbside(rng, plan, side)]
    shadows = [thing.shadow for thing in beside + within]
    scene.darken([*shadows, _shade_of_blocks(rng, plan)], rng.uniform(0.3, 0.55))
    # The camera is between the blocks, so they never hide objects on the street and are painted first.
    things = [thing for group in (beside, within) for thing in sorted(group, key=lambda thing: -thing.ahead)]
    scene.paint([stroke for thing in things for stroke in thing.strokes])


def _plan(rng: np.random.Generator, near: float) -> _Plan:
    width, offset = rng.uniform(7, 12), rng.uniform(0.25, 0.6)
    kerbs = {-1: -width * offset, 1: width * (1 - offset)}
    ends = {side: kerb + side * rng.uniform(2, 4) for side, kerb in kerbs.items()}
    bright, dim = rng.uniform(0.95, 1.15), rng.uniform(0.55, 0.8)
    return _Plan(kerbs, ends, {-1: bright, 1: dim} if rng.random() < 0.5 else {-1: dim, 1: bright}, near)


def _ground(rng: np.random.Generator, plan: _Plan) -> list[Stroke]:
    grass, paving, asphalt = pick(rng, _GRASS), pick(rng, _PAVING), pick(rng, _ASPHALT)
    strokes = [
        Stroke(flat(-_FAR, _FAR, plan.near, _FAR), grass, objects.VEGETATION),
        Stroke(flat(plan.ends[-1], plan.ends[1], plan.near, _FAR), paving, objects.PAVEMENT),
    ]
    joints = np.arange(plan.near, 40.0, rng.uniform(1.2, 2.0)).tolist()
    for side in (-1, 1):
        kerb, end = plan.kerbs[side], plan.ends[side]
        corners = [corner for ahead in joints for corner in flat(kerb, end, ahead, ahead + 0.06)]
        strokes.append(Stroke(corners, shade(paving, 0.85), objects.PAVEMENT, len(joints)))
        strokes.append(Stroke(flat(kerb, kerb + 0.25 * side, plan.near, _FAR), shade(paving, 1.2), objects.PAVEMENT))
    return [*strokes, Stroke(flat(plan.kerbs[-1], plan.kerbs[1], plan.near, _FAR), asphalt, objects.ROAD)]


def _markings(rng: np.random.Generator, plan: _Plan) -> list[Stroke]:
    """The line in the middle, solid or dashed, sometimes lines along the kerbs and a zebra crossing."""
    paint, period = shade((214, 214, 208), rng.uniform(0.75, 1.1)), rng.uniform(5, 9)
    dashes = [(start, start + 0.45 * period) for start in np.arange(rng.uniform(0, period), 80, period) + plan.near]
    if rng.random() < 0.25:
        dashes = [(plan.near, _END)]
    areas = [[flat(plan.middle - 0.08, plan.middle + 0.08, *ends) for ends in dashes]]
    if rng.random() < 0.5:
        lines = (plan.kerbs[side] - 0.5 * side for side in (-1, 1))
        areas.append([flat(line - 0.06, line + 0.06, plan.near, _END) for line in lines])
    crossing = rng.uniform(7, 20)
    if rng.random() < 0.35:
        stripes = np.arange(plan.kerbs[-1] + 0.5, plan.kerbs[1] - 0.6, 1.1).tolist()
        areas.append([flat(start, start + 0.55, crossing, crossing + 3) for start in stripes])
    return [Stroke([corner for one in area for corner in one], paint, objects.ROAD, len(area)) for area in areas]


def _blocks(rng: np.random.Generator, plan: _Plan, side: int) -> list[_Thing]:
    """Buildings along one side, with gaps in which trees grow."""
    things: list[_Thing] = []
    tall, ahead = rng.uniform(6, 16), rng.uniform(-8, 4)
    while ahead < _END:
        face = plan.ends[side] + side * rng.uniform(0, 1.5)
        near, far = max(ahead, plan.near), ahead + rng.uniform(8, 20)
        height, looks = tall * rng.uniform(0.7, 1.3), plan.sunlight[side]
        if rng.random() < 0.3:
            places = [(face + side * rng.uniform(1, 7), max(5.0, rng.uniform(ahead, far))) for _ in range(2)]
            things += [_tree(rng, place, rng.uniform(3, 8)) for place in places]
        elif far > plan.near + 0.5:
            strokes = objects.building(rng, face=face, ends=(near, far), height=height, sunlight=looks)
            things.append(_Thing(near, strokes, flat(face, face - 0.8 * side, near, far)))
        ahead = far + (rng.uniform(1, 4) if rng.random() < 0.3 else 0)
    return things


def _kerbside(rng: np.random.Generator, plan: _Plan, side: int) -> list[_Thing]:
    """Trees, lamp posts and signs in a row along one kerb."""
    row = plan.kerbs[side] + side * rng.uniform(0.5, 0.9)
    things = [_standing(objects.lamp_post(rng, place), place) for place in _row(rng, row, rng.uniform(12, 22), 60)]
    if rng.random() < 0.6:
        places = _row(rng, row + side * 0.5, rng.uniform(8, 15), 60)
        things += [_tree(rng, place, rng.uniform(5, 8)) for place in places]
    places = [(row, rng.uniform(6, 22)) for _ in range(int(rng.integers(0, 3)))]
    return things + [_standing(objects.sign(rng, place), place) for place in places]


def _row(rng: np.random.Generator, right: float, step: float, end: float) -> list[Place]:
    return [(right, ahead) for ahead in np.arange(6 + step * rng.random(), end, step).tolist()]


def _traffic(rng: np.random.Generator, plan: _Plan) -> list[_Thing]:
    """Cars parked along the kerbs, and cars in the lanes."""
    places: list[Place] = []
    for side in (-1, 1):
        ahead = rng.uniform(4.5, 14)
        while ahead < 50:
            if rng.random() < 0.55:
                places.append((plan.kerbs[side] - 1.1 * side, ahead))
            ahead += rng.uniform(5.5, 9)
    for _ in range(int(rng.integers(0, 4))):
        lane = plan.middle + (1.6 if rng.random() < 0.6 else -1.6)
        places.append((lane + rng.uniform(-0.3, 0.3), rng.uniform(7, 40)))
    return [_Thing(z, objects.car(rng, (x, z)), flat(x - 1.1, x + 1.1, z - 0.4, z + 4.6)) for x, z in places]


def _people(rng: np.random.Generator, plan: _Plan) -> list[_Thing]:
    """Persons on the pavements, sometimes one on the road."""
    things = []
    for _ in range(int(rng.integers(2, 9))):
        side = 1 if rng.random() < 0.5 else -1
        bounds = plan.kerbs.values() if rng.random() < 0.2 else (plan.kerbs[side], plan.ends[side])
        place = (rng.uniform(min(bounds), max(bounds)), 4.5 + 16 * rng.random() ** 1.5)
        things.append(_standing(objects.person(rng, place), place))
    return things


def _tree(rng: np.random.Generator, place: Place, size: float) -> _Thing:
    right, ahead = place
    shadow = flat(right - size / 4, right + size / 4, ahead - size / 5, ahead + size / 5)
    return _Thing(ahead, objects.tree(rng, place, size), shadow)


def _standing(strokes: list[Stroke], place: Place) -> _Thing:
    right, ahead = place
    return _Thing(ahead, strokes, flat(right - 0.3, right + 0.6, ahead - 0.2, ahead + 0.3))


def _shade_of_blocks(rng: np.random.Generator, plan: _Plan) -> list[Point]:
    """The strip in the shadow of the blocks on the dim side: from none to all of the street's width."""
    side = -1 if plan.sunlight[-1] < plan.sunlight[1] else 1
    start, width = plan.ends[side], plan.ends[1] - plan.ends[-1]
    share = max(0.02, rng.uniform(-0.5, 1.0))
    return flat(start, start - math.copysign(width * share, side), plan.near, _END)


MIN_SIDE, MAX_SIDE = 32, 4096  # pixels
_Floats = NDArray[np.float32]

# How rough each class looks: relative deviation of brightness, in patches of a few pixels and from pixel to pixel.
_ROUGHNESS = {
    objects.SKY: (0.0, 0.0),
    objects.BUILDING: (0.04, 0.03),
    objects.ROAD: (0.03, 0.06),
    objects.PAVEMENT: (0.05, 0.05),
    objects.VEGETATION: (0.16, 0.14),
    objects.CAR: (0.02, 0.01),
    objects.PERSON: (0.05, 0.03),
    objects.POLE: (0.03, 0.02),
}


def draw_scene(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Image, Labels]:
    """A street scene and its labels.

    Args:
        rng: the only source of randomness; generators in the same state give the same street at every size.
        size: (height, width) in pixels, each 32 to 4096.

    Returns:
        The image, H x W x 3 uint8 RGB, and its label map, H x W uint8 ids of `SCENES`. The bonnet of the camera's own
        car, if there is one, is `IGNORE_INDEX`.

    Raises:
        DataError: the size is out of bounds.
    """
    check_size(size)
    scene = _open_canvas(rng, size)
    _paint_sky(scene, rng)
    paint_street(scene, rng)
    if rng.random() < 0.5:
        _paint_bonnet(scene, rng)
    *channels, labels = cv2.split(scene.pixels)
    return _photograph(channels, labels, rng), labels


def check_size(size: tuple[int, int]) -> None:
    """Raise a `DataError` if a (height, width) is out of bounds."""
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


def _paint_sky(scene: Canvas, rng: np.random.Generator) -> None:
    """From the sky's colour above to the haze at the horizon, with clouds."""
    height, width = scene.size
    rows = min(height, int(scene.camera.horizon) + 2)
    top, white = pick(rng, ((86, 140, 212), (120, 168, 220), (168, 180, 192))), rng.uniform(205, 245)
    fade = np.linspace(0, 1, rows, dtype=np.float32)[:, None] ** rng.uniform(0.7, 1.6)
    clouds = _patches(rng, (rows, width), (5, 7)) + 0.5 * _patches(rng, (rows, width), (12, 20))
    clear = 1 - np.clip(0.8 * clouds + rng.uniform(-0.7, 0.4), 0, 0.85)
    for channel in range(3):
        sky = top[channel] + (scene.haze[channel] - top[channel]) * fade
        scene.pixels[:rows, :, channel] = (sky - white) * clear + white
    scene.pixels[:rows, :, 3] = objects.SKY


def _patches(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> _Floats:
    """Smooth noise of deviation about 1: random numbers on a grid of `cells`, interpolated."""
    grid = rng.standard_normal(cells, np.float32)
    return np.asarray(cv2.resize(grid, size[::-1], interpolation=cv2.INTER_LINEAR))


def _paint_bonnet(scene: Canvas, rng: np.random.Generator) -> None:
    height, width = scene.size
    middle, rise = width * rng.uniform(0.45, 0.55), height * rng.uniform(0.03, 0.09)
    half = width * rng.uniform(0.45, 0.6)
    turn = np.linspace(0, np.pi, 24)
    colour = shade(pick(rng, ((40, 42, 48), (120, 30, 30), (150, 154, 160))), rng.uniform(0.6, 1.0))
    outline = np.column_stack((middle + half * np.cos(turn), height - rise * np.sin(turn) ** 0.7))
    below = [(middle - half, height + 2), (middle + half, height + 2)]
    scene.paint_pixels(np.vstack((outline, below)), colour, IGNORE_INDEX)


def _photograph(channels: Sequence[NDArray[np.uint8]], labels: Labels, rng: np.random.Generator) -> Image:
    """The image as a camera sees it: rough surfaces, the light's brightness and tint, slight blur, sensor noise."""
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


def _lookup(labels: Labels, number: int) -> _Floats:
    table = np.zeros(256, np.float32)
    for label, roughness in _ROUGHNESS.items():
        table[label] = roughness[number]
    return np.asarray(cv2.LUT(labels, table))


def _grain(rng: np.random.Generator, size: tuple[int, int]) -> _Floats:
    """Pixel noise of deviation 1: difference of two random bytes, five times as fast as normal deviates."""
    first, second = (rng.integers(0, 256, size, np.uint8) for _ in range(2))
    return np.asarray(cv2.subtract(first, second, dtype=cv2.CV_32F)) * np.float32(1 / 104.5)


MAX_SEED = 2**32 - 1
MAX_SCENES = 1_000_000


@dataclass(frozen=True, slots=True)
class SceneSplit:
    """Street scenes, each made from (seed, name of the split, index) alone: the same on every run and machine.

    Splits of one seed with different names have no scene in common; a longer split begins with the scenes of a shorter
    one; the size changes how finely a street is drawn, not which.

    Attributes:
        size: (height, width) of every scene, in pixels.
        count: number of scenes, from 1.
        seed: 0 to 2**32 - 1.
        name: what the split is called, e.g. "train".

    Raises:
        DataError: a number is out of bounds, or the name is empty.
    """

    _: KW_ONLY
    size: tuple[int, int]
    count: int
    seed: int
    name: str

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 1 <= self.count <= MAX_SCENES:
            raise DataError(f"a split has 1 to {MAX_SCENES} scenes; got {self.count}")
        if not 0 <= self.seed <= MAX_SEED:
            raise DataError(f"the seed of scenes is 0 to {MAX_SEED}; got {self.seed}")
        if not self.name:
            raise DataError("a split of scenes needs a name, e.g. 'train'; scenes differ by it")

    @property
    def label_space(self) -> LabelSpace:
        """The classes of all generated scenes, `SCENES`."""
        return SCENES

    @property
    def channels(self) -> Channels:
        """RGB of 8 bits."""
        return RGB

    @property
    def names(self) -> Sequence[str]:
        """scene_00000, scene_00001, …"""
        return tuple(map(_name, range(self.count)))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        """Draw a scene; negative indices count from the end."""
        if not -self.count <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        index %= self.count
        # The bytes of the name come last, so that different triples give different sequences.
        rng = np.random.default_rng((self.seed, index, *self.name.encode()))
        return Sample(_name(index), *draw_scene(rng, self.size))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(self.count))

    def image(self, index: int) -> Image:
        """The image: H x W x 3 uint8 RGB."""
        return self[index].image

    def labels(self, index: int) -> Labels:
        """The labels: H x W uint8 class ids, 255 for no label."""
        return self[index].labels


def _name(index: int) -> str:
    return f"scene_{index:05d}"


# As a data set: `scenes:size=128x256,num_train=200,num_val=50,seed=0`, each of which may be left out

TERMS = "trained on generated scenes: no terms of others"
_DEFAULTS = {"size": "128x256", "num_train": "200", "num_val": "50", "seed": "0"}


def open_scenes(text: str) -> Opened:
    """The splits "train" and "val" of the settings after `scenes:`.

    Raises:
        DataError: a setting is unknown, given twice or out of range.
    """
    given: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in _DEFAULTS:
            raise DataError(unknown_name("setting of 'scenes'", key, _DEFAULTS))
        if key in given:
            raise DataError(f"'{key}' is given twice in 'scenes': {given[key]} and {value}; give it once")
        given[key] = value
    settings = {**_DEFAULTS, **given}
    size, seed = _parse_size(settings["size"]), _parse_number("seed", settings["seed"], lowest=0)
    counts = {name: _parse_number(f"num_{name}", settings[f"num_{name}"], lowest=1) for name in ("train", "val")}
    return Opened(
        SCENES, {name: SceneSplit(size=size, count=count, seed=seed, name=name) for name, count in counts.items()}
    )


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise DataError(f"'size={text}' in 'scenes' is not usable; HEIGHTxWIDTH is allowed, e.g. size=128x256")
    return int(match[1]), int(match[2])


def _parse_number(key: str, text: str, *, lowest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
        raise DataError(f"'{key}={text}' in 'scenes' is not usable; a whole number from {lowest} is allowed")
    return int(text)

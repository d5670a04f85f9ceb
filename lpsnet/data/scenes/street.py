"""The plan of a generated street: ground, skyline, and what stands where, painted from far to near."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpsnet.data.scenes.buildings import building, skyline
from lpsnet.data.scenes.canvas import (
    PAVEMENT,
    ROAD,
    VEGETATION,
    Canvas,
    Colour,
    Place,
    Point,
    Stroke,
    flat,
    pick,
    shade,
)
from lpsnet.data.scenes.things import car, lamp_post, person, sign, tree

_END = 90.0  # metres ahead where the sides of the street end
_FAR = 400.0  # metres ahead where the ground ends
_SKYLINE = 160.0

_GRASS: Sequence[Colour] = ((96, 118, 62), (122, 116, 74))
_PAVING: Sequence[Colour] = ((156, 150, 144), (170, 156, 142), (140, 142, 148))
_ASPHALT: Sequence[Colour] = ((86, 86, 90), (104, 102, 100), (74, 76, 82))


@dataclass(frozen=True, slots=True)
class _Thing:
    """What is painted as one: metres ahead of its nearest point, its strokes, and its shadow on the ground."""

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


def paint_street(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint all but the sky."""
    plan = _plan(rng, 0.7 * canvas.camera.nearest(canvas.size[0]))
    canvas.paint([*skyline(rng, _SKYLINE), *_ground(rng, plan), *_markings(rng, plan)])
    beside = [thing for side in (-1, 1) for thing in _blocks(rng, plan, side)]
    within = [*_traffic(rng, plan), *_people(rng, plan)]
    within += [thing for side in (-1, 1) for thing in _kerbside(rng, plan, side)]
    shadows = [thing.shadow for thing in beside + within]
    canvas.darken([*shadows, _shade_of_blocks(rng, plan)], rng.uniform(0.3, 0.55))
    # The camera is between the blocks, so they never hide what is on the street: all of them first.
    things = (*sorted(beside, key=_distance), *sorted(within, key=_distance))
    canvas.paint([stroke for thing in things for stroke in thing.strokes])


def _distance(thing: _Thing) -> float:
    return -thing.ahead


def _plan(rng: np.random.Generator, near: float) -> _Plan:
    width, offset = rng.uniform(7, 12), rng.uniform(0.25, 0.6)
    kerbs = {-1: -width * offset, 1: width * (1 - offset)}
    ends = {side: kerb + side * rng.uniform(2, 4) for side, kerb in kerbs.items()}
    bright, dim = rng.uniform(0.95, 1.15), rng.uniform(0.55, 0.8)
    return _Plan(kerbs, ends, {-1: bright, 1: dim} if rng.random() < 0.5 else {-1: dim, 1: bright}, near)


def _ground(rng: np.random.Generator, plan: _Plan) -> list[Stroke]:
    grass, paving, asphalt = pick(rng, _GRASS), pick(rng, _PAVING), pick(rng, _ASPHALT)
    strokes = [
        Stroke(flat(-_FAR, _FAR, plan.near, _FAR), grass, VEGETATION),
        Stroke(flat(plan.ends[-1], plan.ends[1], plan.near, _FAR), paving, PAVEMENT),
    ]
    joints = np.arange(plan.near, 40.0, rng.uniform(1.2, 2.0)).tolist()
    for side in (-1, 1):
        kerb, end = plan.kerbs[side], plan.ends[side]
        corners = [corner for ahead in joints for corner in flat(kerb, end, ahead, ahead + 0.06)]
        strokes.append(Stroke(corners, shade(paving, 0.85), PAVEMENT, len(joints)))
        strokes.append(Stroke(flat(kerb, kerb + 0.25 * side, plan.near, _FAR), shade(paving, 1.2), PAVEMENT))
    return [*strokes, Stroke(flat(plan.kerbs[-1], plan.kerbs[1], plan.near, _FAR), asphalt, ROAD)]


def _markings(rng: np.random.Generator, plan: _Plan) -> list[Stroke]:
    """The line in the middle, solid or dashed, now and then lines along the kerbs and a zebra crossing."""
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
    return [Stroke([corner for one in area for corner in one], paint, ROAD, len(area)) for area in areas]


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
            strokes = building(rng, face=face, ends=(near, far), height=height, sunlight=looks)
            things.append(_Thing(near, strokes, flat(face, face - 0.8 * side, near, far)))
        ahead = far + (rng.uniform(1, 4) if rng.random() < 0.3 else 0)
    return things


def _kerbside(rng: np.random.Generator, plan: _Plan, side: int) -> list[_Thing]:
    """Trees, lamp posts and signs in a row along one kerb."""
    row = plan.kerbs[side] + side * rng.uniform(0.5, 0.9)
    things = [_standing(lamp_post(rng, place), place) for place in _row(rng, row, rng.uniform(12, 22), 60)]
    if rng.random() < 0.6:
        places = _row(rng, row + side * 0.5, rng.uniform(8, 15), 60)
        things += [_tree(rng, place, rng.uniform(5, 8)) for place in places]
    places = [(row, rng.uniform(6, 22)) for _ in range(int(rng.integers(0, 3)))]
    return things + [_standing(sign(rng, place), place) for place in places]


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
    return [_Thing(z, car(rng, (x, z)), flat(x - 1.1, x + 1.1, z - 0.4, z + 4.6)) for x, z in places]


def _people(rng: np.random.Generator, plan: _Plan) -> list[_Thing]:
    """Persons on the pavements, now and then one on the road."""
    things = []
    for _ in range(int(rng.integers(2, 9))):
        side = 1 if rng.random() < 0.5 else -1
        bounds = plan.kerbs.values() if rng.random() < 0.2 else (plan.kerbs[side], plan.ends[side])
        place = (rng.uniform(min(bounds), max(bounds)), 4.5 + 16 * rng.random() ** 1.5)
        things.append(_standing(person(rng, place), place))
    return things


def _tree(rng: np.random.Generator, place: Place, size: float) -> _Thing:
    right, ahead = place
    shadow = flat(right - size / 4, right + size / 4, ahead - size / 5, ahead + size / 5)
    return _Thing(ahead, tree(rng, place, size), shadow)


def _standing(strokes: list[Stroke], place: Place) -> _Thing:
    right, ahead = place
    return _Thing(ahead, strokes, flat(right - 0.3, right + 0.6, ahead - 0.2, ahead + 0.3))


def _shade_of_blocks(rng: np.random.Generator, plan: _Plan) -> list[Point]:
    """The strip that lies in the shadow of the blocks on the dim side: none of the street's width up to all of it."""
    side = -1 if plan.sunlight[-1] < plan.sunlight[1] else 1
    start, width = plan.ends[side], plan.ends[1] - plan.ends[-1]
    share = max(0.02, rng.uniform(-0.5, 1.0))
    return flat(start, start - math.copysign(width * share, side), plan.near, _END)

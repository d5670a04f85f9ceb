"""Label spaces: the names and colours of the classes of a network or data set.

In memory every label map is H x W uint8 of class ids 0 .. num_classes - 1, with `IGNORE_INDEX` for pixels without a
label. Other ids or colours in a data set's files are converted when a file is read (`decode.py`).
"""

import colorsys
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self
from unicodedata import category

from lpsnet.errors import DataError

IGNORE_INDEX = 255  # in every label map in memory: no label; excluded from loss and scores
MAX_CLASSES = 255  # ids 0 to 254, so that a label map stays one byte a pixel

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class LabelSpace:
    """The classes of a data set or a network, in the order of their ids.

    Attributes:
        name: of the space, e.g. "cityscapes".
        names: one per class, all different.
        colours: one RGB triple (0 to 255) per class, for overlays and legends.

    Raises:
        DataError: there are too few or too many classes, a name twice or with a control character, or a colour missing
            or out of range, or a class has no name.
    """

    name: str
    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise DataError(f"label space {self.name!r} has {len(self.names)} classes; 1 to {MAX_CLASSES} are possible")
        if len(self.colours) != len(self.names):
            raise DataError(f"label space {self.name!r} has {len(self.names)} names but {len(self.colours)} colours")
        if len(set(self.names)) != len(self.names):
            raise DataError(f"label space {self.name!r} uses a class name twice")
        if not all(name.strip() for name in self.names):
            raise DataError(f"label space {self.name!r} has a class without a name; give every class one")
        if unprintable := [name for name in (self.name, *self.names) if any(category(c) in ("Cc", "Cs") for c in name)]:
            raise DataError(f"the name {unprintable[0]!r} of a label space or a class has a control character in it")
        if any(not 0 <= channel <= 255 for colour in self.colours for channel in colour):
            raise DataError(f"label space {self.name!r} has a colour outside 0 to 255")

    @property
    def num_classes(self) -> int:
        """The number of classes, without "no label"."""
        return len(self.names)

    @classmethod
    def from_names(cls, name: str, names: Iterable[str], colours: Sequence[Colour] | None = None) -> Self:
        """A label space with these class names; without `colours`, evenly spread hues are used."""
        names = tuple(names)
        return cls(name=name, names=names, colours=tuple(colours) if colours else _spread_colours(len(names)))

    @classmethod
    def numbered(cls, num_classes: int) -> Self:
        """For networks without class names: `class_0`, `class_1`, …"""
        return cls.from_names("numbered", (f"class_{number}" for number in range(num_classes)))


def _spread_colours(count: int) -> tuple[Colour, ...]:
    """`count` colours with hues a golden ratio apart, so that consecutive ones differ clearly."""

    def colour(number: int) -> Colour:
        value = 0.95 if number % 2 == 0 else 0.7
        red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, 0.75, value)
        return round(red * 255), round(green * 255), round(blue * 255)

    return tuple(colour(number) for number in range(count))


def _table(name: str, rows: dict[str, Colour]) -> LabelSpace:
    return LabelSpace(name, tuple(rows), tuple(rows.values()))


# The 19 training classes of Cityscapes (Cordts et al. 2016) in the order of their train ids, with the official colours.
CITYSCAPES = _table(
    "cityscapes",
    {
        "road": (128, 64, 128),
        "sidewalk": (244, 35, 232),
        "building": (70, 70, 70),
        "wall": (102, 102, 156),
        "fence": (190, 153, 153),
        "pole": (153, 153, 153),
        "traffic light": (250, 170, 30),
        "traffic sign": (220, 220, 0),
        "vegetation": (107, 142, 35),
        "terrain": (152, 251, 152),
        "sky": (70, 130, 180),
        "person": (220, 20, 60),
        "rider": (255, 0, 0),
        "car": (0, 0, 142),
        "truck": (0, 0, 70),
        "bus": (0, 60, 100),
        "train": (0, 80, 100),
        "motorcycle": (0, 0, 230),
        "bicycle": (119, 11, 32),
    },
)

# The 11 classes of CamVid (Brostow et al. 2008) as grouped by SegNet, in the order of its label files, its colours.
CAMVID = _table(
    "camvid",
    {
        "sky": (128, 128, 128),
        "building": (128, 0, 0),
        "pole": (192, 192, 128),
        "road": (128, 64, 128),
        "pavement": (60, 40, 222),
        "tree": (128, 128, 0),
        "sign": (192, 128, 128),
        "fence": (64, 64, 128),
        "car": (64, 0, 128),
        "pedestrian": (64, 64, 0),
        "bicyclist": (0, 128, 192),
    },
)

# BDD100K (Yu et al. 2018) is labelled with the train ids of Cityscapes.
BDD100K = replace(CITYSCAPES, name="bdd100k")

LABEL_SPACES: dict[str, LabelSpace] = {space.name: space for space in (CITYSCAPES, CAMVID, BDD100K)}


def plain_name(name: str) -> str:
    """A class's name in small letters and digits alone: "Traffic sign" and "traffic_sign" are one."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def check_same_classes(model: LabelSpace, data: LabelSpace) -> None:
    """DataError, naming the difference, unless a model and a data set have the same class names in the same order."""
    if model.names == data.names:
        return
    what = f"the model's classes ({model.name}) are not the data set's ({data.name})"
    if len(model.names) != len(data.names):
        what += f": {len(model.names)} classes against {len(data.names)}"
    for which, own, others in (("only the model", model, data), ("only the data set", data, model)):
        if alone := [name for name in own.names if name not in others.names]:
            what += f"; {which} has {', '.join(alone[:6])}{', …' if len(alone) > 6 else ''}"
    if set(model.names) == set(data.names):
        place = next(i for i, pair in enumerate(zip(model.names, data.names, strict=True)) if pair[0] != pair[1])
        what += f": the order differs, id {place} is {model.names[place]!r} and {data.names[place]!r}"
    raise DataError(f"{what}. Evaluate with a model trained on these classes")

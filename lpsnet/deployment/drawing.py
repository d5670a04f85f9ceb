"""What can be written of a segmented picture or frame: a table of names, each a way to draw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.deployment.overlay import MAX_TEXT_HEIGHT, colourise, legend, overlay, side_by_side
from lpsnet.errors import LpsnetError, unknown_name

Picture = NDArray[np.uint8]  # H x W x 3 RGB, or H x W class ids

DEFAULT_PRODUCTS = ("labels", "overlay")
PART = "part"  # in the names of what is not the whole of its source
_FONT_SHARE = 60  # a picture's height by that of a capital letter in its legend
_MIN_TEXT_HEIGHT = 9  # pixels


@dataclass(frozen=True, slots=True)
class Style:
    """How pictures are drawn.

    Attributes:
        label_space: names and colours of the classes.
        opacity: of the colours over the picture, 0 to 1.
        legend: whether a legend stands below, which makes pictures higher.
    """

    label_space: LabelSpace
    opacity: float = 0.55
    legend: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise LpsnetError(f"opacity lies between 0 and 1; got {self.opacity}")


Draw = Callable[[Picture, Picture, Style], Picture]  # the picture and its labels


def _ids(image: Picture, labels: Picture, style: Style) -> Picture:
    return np.asarray(labels)


def _overlay(image: Picture, labels: Picture, style: Style) -> Picture:
    return overlay(image, labels, style.label_space, opacity=style.opacity)


def _colours(image: Picture, labels: Picture, style: Style) -> Picture:
    return colourise(labels, style.label_space)


def _side_by_side(image: Picture, labels: Picture, style: Style) -> Picture:
    return side_by_side(image, _overlay(image, labels, style))


# name -> how it is drawn; the name stands in the files' names, STEM.NAME.png
PRODUCTS: dict[str, Draw] = {
    "labels": _ids,
    "overlay": _overlay,
    "colours": _colours,
    "side-by-side": _side_by_side,
}


def check_products(names: Sequence[str]) -> tuple[str, ...]:
    """The names in their order, each once.

    Raises:
        LpsnetError: one is not in `PRODUCTS`, or there is none.
    """
    for name in names:
        if name not in PRODUCTS:
            raise LpsnetError(unknown_name("result to write", name, PRODUCTS))
    if not names:
        raise LpsnetError(f"nothing to write was asked for; there are {', '.join(PRODUCTS)}")
    return tuple(dict.fromkeys(names))


def draw(product: str, image: Picture, labels: Picture, style: Style) -> Picture:
    """A product of `PRODUCTS`: H x W class ids for `labels`, else H x W x 3 uint8 RGB, with the legend if asked for."""
    drawn = PRODUCTS[product](image, labels, style)
    if not style.legend or drawn.ndim == 2:
        return drawn
    return np.vstack([drawn, _legend(style.label_space, drawn.shape[1], image.shape[0])])


def is_product(path: Path) -> bool:
    """Whether a file is called like one that was written here, so that a second run leaves it out."""
    _, *marks = path.stem.lower().removesuffix(f".{PART}").split(".")
    return bool(marks) and marks[-1] in PRODUCTS


@lru_cache(maxsize=8)
def _legend(label_space: LabelSpace, width: int, height: int) -> Picture:
    """The legend below a picture; its height is even, as videos like it."""
    text_height = min(MAX_TEXT_HEIGHT, max(_MIN_TEXT_HEIGHT, height // _FONT_SHARE))
    drawn = legend(label_space, width=width, text_height=text_height)
    return np.pad(drawn, ((0, drawn.shape[0] % 2), (0, 0), (0, 0)), constant_values=255)

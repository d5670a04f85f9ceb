"""Reading a chart as a person does: values by the ticks beside them, without the code that drew it."""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

Element = ElementTree.Element


def parse(svg: str) -> Element:
    """The chart as a tree without namespaces; an error if it is not well-formed."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def of_class(root: Element, css: str) -> list[Element]:
    """Elements that have this class among theirs."""
    return [it for it in root.iter() if css in it.get("class", "").split()]


def numbers(element: Element, *names: str) -> tuple[float, ...]:
    return tuple(float(element.attrib[name]) for name in names)


def path_points(element: Element) -> list[tuple[float, float]]:
    """The corners of a path of straight lines."""
    pairs = re.findall(r"(-?[\d.]+) (-?[\d.]+)", element.attrib["d"])
    return [(float(x), float(y)) for x, y in pairs]


def tips(root: Element) -> list[str]:
    return [it.text or "" for it in root.iter("title")]


@dataclass(frozen=True)
class Scale:
    """Pixels and the values written beside them."""

    pixels: tuple[float, ...]
    values: tuple[float, ...]

    def value(self, pixel: float) -> float:
        slope, offset = np.polyfit(self.pixels, self.values, 1)
        return float(slope * pixel + offset)

    @property
    def tolerance(self) -> float:
        """What a third of a pixel is worth."""
        return abs(float(np.polyfit(self.pixels, self.values, 1)[0])) / 3


def x_scale(root: Element) -> Scale:
    texts = [it for it in of_class(root, "tick") if "middle" in it.attrib["class"] and it.get("transform") is None]
    return _scale(texts, "x", shift=0.0)


def y_scale(root: Element) -> Scale:
    return _scale([it for it in of_class(root, "tick") if "end" in it.attrib["class"].split()], "y", shift=-4.0)


def _scale(texts: list[Element], axis: str, *, shift: float) -> Scale:
    found = {}
    for text in texts:
        if re.fullmatch(r"-?[\d,]+(\.\d+)?", text.text or ""):
            found[float(text.attrib[axis]) + shift] = float((text.text or "").replace(",", ""))
    assert len(found) >= 2, "an axis has at least two ticks"
    return Scale(tuple(found), tuple(found.values()))

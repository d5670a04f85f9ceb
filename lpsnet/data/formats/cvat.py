"""CVAT's XML 'CVAT for images 1.1': one file for all images of a task or project.

- Shapes: polygon, box (also rotated), ellipse and mask; polyline and points need `line_width`. Tags, cuboids and
  skeletons cover no pixels.
- Order: `z_order`, then the order of the file; later shapes cover earlier ones.
- Holes: only in masks. Half pixels: x and y are measured from the corner of the first pixel.
- Splits: the attribute `subset` of an image, as exports of a project have it. Classes: the labels of the task.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np

from lpsnet.data import annotations, convert, shapes
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.images import MAX_PIXELS
from lpsnet.data.labels import Colour
from lpsnet.data.shapes import Area, Bitmap, Ellipse, Outline, Points, Polygon, Stroke
from lpsnet.errors import DataError

_FILE = "annotations.xml"


def recognises(path: Path) -> bool:
    """Whether a file is CVAT's XML, or a folder holds one."""
    return any(_is_cvat(file) for file in (sorted(path.glob("*.xml")) if path.is_dir() else [path]))


def _is_cvat(path: Path) -> bool:
    text = annotations.head(path)
    return b"<annotations>" in text and (b"<image " in text or b"<meta>" in text)


def describe(path: Path) -> Description:
    """The description of a file, or of those in a folder.

    Raises:
        DataError: there is none.
    """
    files = sorted(file for file in path.glob("*.xml") if _is_cvat(file)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"no XML file of CVAT's in {path}")
    return annotations.describe_files("cvat", files)


def read(found: Description, root: Path) -> annotations.Reading:
    """All images of the label files.

    Raises:
        DataError: a file is damaged, is of CVAT's format for videos, or has a shape that is not read.
    """
    finder = annotations.ImageFinder(found, root)
    reading = annotations.Reading([], [])
    for split, file in annotations.label_files(found, root, ".xml"):
        tree = _parse(file)
        if tree.find("track") is not None:
            raise DataError(f"{file} is 'CVAT for video'; export the task as 'CVAT for images 1.1'")
        for label in tree.iter("label"):
            name, colour = label.findtext("name"), parse_colour(label.findtext("color") or "")
            reading.names += [name] if name else []
            reading.colours |= {name: colour} if name and colour else {}
        for image in tree.iter("image"):
            reading.images.append(_marked(image, split, file, finder, found))
    used = {mark.label for marked in reading.images for mark in marked.marks if mark.label is not None}
    reading.names = list(dict.fromkeys([*reading.names, *sorted(used)]))
    return reading


def _parse(file: Path) -> ElementTree.Element:
    data = annotations.read_bytes(file)
    if b"<!DOCTYPE" in data[:4096] or b"<!ENTITY" in data:
        raise DataError(f"{file} defines entities, which CVAT's files do not; it was not read")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file} is no XML: {error}") from None


def parse_colour(text: str) -> Colour | None:
    """The colour of a text such as #ff8000; None if it is none."""
    if len(text) != 7 or not text.startswith("#"):
        return None
    try:
        red, green, blue = bytes.fromhex(text[1:])
    except ValueError:
        return None
    return red, green, blue


def _marked(
    image: ElementTree.Element, split: str, file: Path, finder: annotations.ImageFinder, found: Description
) -> annotations.Marked:
    name = image.get("name") or ""
    where = f"{file}: image {name!r}"
    size = (int(_number(image.attrib, "height", where)), int(_number(image.attrib, "width", where)))
    if min(size) < 1:
        raise DataError(f"{where} is {size[0]}x{size[1]} (height x width)")
    subset = annotations.split_word(image.get("subset") or "")
    own = subset if subset != WHOLE else split
    ordered = sorted(image, key=lambda shape: _number(shape.attrib, "z_order", where, default=0))
    marks = [_mark(shape, where, found) for shape in ordered]
    return annotations.Marked(name, finder.find(name, file, split=own), file, tuple(marks), size, own)


def _mark(shape: ElementTree.Element, where: str, found: Description) -> annotations.Mark:
    label = shape.get("label")
    if label is None:
        raise DataError(f"{where} has a {shape.tag} without a label")
    kind = {"polyline": "line", "points": "point"}.get(shape.tag, shape.tag)
    area = _AREAS.get(shape.tag)
    try:
        return annotations.Mark(label, kind, area and area(shape.attrib, f"a {shape.tag}", found.line_width or 0.0))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _number(values: Mapping[str, str], key: str, where: str, *, default: float | None = None) -> float:
    text = values.get(key)
    if text is None and default is not None:
        return default
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not abs(number) <= shapes.MAX_COORDINATE:
        raise DataError(f"{where} has {key}={str(text)[:40]!r}, where a number of pixels is expected")
    return number


def _points(values: Mapping[str, str], where: str) -> Points:
    try:
        flat = np.array([pair.split(",") for pair in (values.get("points") or "").split(";")], np.float64)
    except ValueError:
        raise DataError(f"{where} has points that are no pairs 'x,y;x,y'") from None
    if flat.ndim != 2 or flat.shape[1] != 2 or not (np.abs(flat) <= shapes.MAX_COORDINATE).all():
        raise DataError(f"{where} has points that are no pairs 'x,y;x,y' of numbers of pixels")
    return flat


def _polygon(values: Mapping[str, str], where: str, _: float) -> Area:
    return Polygon((_points(values, where),))


def _box(values: Mapping[str, str], where: str, _: float) -> Area:
    x0, y0, x1, y1 = (_number(values, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    corners = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return Polygon((rotated(corners, ((x0 + x1) / 2, (y0 + y1) / 2), _number(values, "rotation", where, default=0)),))


def rotated(points: Points, centre: tuple[float, float], degrees: float) -> Points:
    """The points rotated clockwise (as seen) about a centre."""
    if not degrees:
        return points
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned: Points = (points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    return turned


def _ellipse(values: Mapping[str, str], where: str, _: float) -> Area:
    x, y, radius_x, radius_y = (_number(values, key, where) for key in ("cx", "cy", "rx", "ry"))
    return Ellipse(x, y, radius_x, radius_y, _number(values, "rotation", where, default=0))


def _line(values: Mapping[str, str], where: str, width: float) -> Area:
    return Stroke(_points(values, where), width)


def _dots(values: Mapping[str, str], where: str, width: float) -> Area:
    return shapes.Dots(_points(values, where), width)


def _mask(values: Mapping[str, str], where: str, _: float) -> Area:
    left, top, width, height = (int(_number(values, key, where)) for key in ("left", "top", "width", "height"))
    try:
        runs = np.array([int(run) for run in (values.get("rle") or "").split(",")], np.float64)
    except (ValueError, OverflowError):
        raise DataError(f"{where} has run lengths that are no whole numbers") from None
    if (np.abs(runs) > MAX_PIXELS).any():
        raise DataError(f"{where} has a run length larger than any image")
    return Bitmap(left, top, height, width, runs.astype(np.int64))


_AREAS: dict[str, Any] = {
    "polygon": _polygon,
    "box": _box,
    "ellipse": _ellipse,
    "polyline": _line,
    "points": _dots,
    "mask": _mask,
}


def write(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
    """`annotations.xml`: polygons, and masks where a region has holes; the split is the image's `subset`.

    Returns:
        Remarks, a line each.
    """
    named = zip(target.space.names, target.space.colours, strict=True)
    labels = "".join(
        f"<label><name>{_text(name)}</name><color>#{bytes(colour).hex()}</color><type>any</type><attributes></attributes>"
        "</label>\n"
        for name, colour in named
    )
    images = "".join(_image(number, sample, target) for number, sample in enumerate(samples))
    meta = f"<meta>\n<project>\n<labels>\n{labels}</labels>\n</project>\n</meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>'
    target.write(_FILE, f"{head}\n{meta}\n{images}</annotations>\n")
    return ["regions with holes are masks, all others are polygons"]


def _text(name: str) -> str:
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _image(number: int, sample: convert.Converted, target: convert.Target) -> str:
    name = sample.file.relative_to(target.images / sample.split).as_posix()
    height, width = sample.size
    inside = "".join(_shape(outline, target.space.names[outline.label], order)
                     for order, outline in enumerate(sample.outlines))  # fmt: skip
    values = f'id="{number}" name={quoteattr(name)} subset={quoteattr(sample.split)} width="{width}" height="{height}"'
    return f"<image {values}>\n{inside}</image>\n"


def _shape(outline: Outline, name: str, order: int) -> str:
    start = f'label={quoteattr(name)} source="manual" occluded="0"'
    if not outline.holes:
        points = ";".join(f"{x:.2f},{y:.2f}" for x, y in outline.exterior.tolist())
        return f'<polygon {start} points="{points}" z_order="{order}"></polygon>\n'
    left, top, right, bottom = outline.box
    runs = ", ".join(map(str, shapes.encode_runs(outline.mask().ravel()).tolist()))
    box = f'left="{left}" top="{top}" width="{right - left}" height="{bottom - top}"'
    return f'<mask {start} rle="{runs}" {box} z_order="{order}"></mask>\n'

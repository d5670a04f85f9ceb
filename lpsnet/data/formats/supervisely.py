"""Supervisely's projects: `meta.json` with the classes; in every data set `ann/NAME.jpg.json` beside `img/NAME.jpg`.

- Objects: polygon (with holes), bitmap, rectangle; line and point need `line_width`. Cuboids and graphs cover nothing.
- Order: that of the objects; later ones cover earlier ones.
- Half pixels: x and y are measured from the corner of the first pixel, as projects of today have them.
- Splits: a data set, or an image's tag, that is called train, val or test. Classes: those of `meta.json`, in order.
"""

import base64
import binascii
import zlib
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from pydantic import TypeAdapter
from typing_extensions import TypedDict

from lpsnet.data import annotations
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.formats.cvat import parse_colour
from lpsnet.data.images import MAX_PIXELS, decode_bits
from lpsnet.data.shapes import Area, Bitmap, Dots, Points, Polygon, Stroke
from lpsnet.errors import DataError

_META, _ANN, _IMG = "meta.json", "ann", "img"


class _Points(TypedDict):
    exterior: list[tuple[annotations.Coordinate, annotations.Coordinate]]
    interior: NotRequired[list[list[tuple[annotations.Coordinate, annotations.Coordinate]]]]


class _Bitmap(TypedDict):
    data: str
    origin: tuple[annotations.Coordinate, annotations.Coordinate]


class _Object(TypedDict):
    classTitle: str
    geometryType: NotRequired[str]
    points: NotRequired[_Points]
    bitmap: NotRequired[_Bitmap | None]


class _Size(TypedDict):
    height: annotations.Length
    width: annotations.Length


class _Tag(TypedDict):
    name: NotRequired[str]


class _File(TypedDict):
    size: _Size
    objects: list[_Object]
    tags: NotRequired[list[_Tag]]


class _Class(TypedDict):
    title: str
    color: NotRequired[str]


class _Meta(TypedDict):
    classes: list[_Class]


_FILE_KIND, _META_KIND = TypeAdapter(_File), TypeAdapter(_Meta)


def recognises(path: Path) -> bool:
    """Whether a folder is a project: it has `meta.json` and data sets with `ann`."""
    return (path / _META).is_file() and any(_ann_folders(path))


def _ann_folders(root: Path) -> list[Path]:
    return sorted(folder for folder in root.rglob(_ANN) if folder.is_dir() and (folder.parent / _IMG).is_dir())


def describe(path: Path) -> Description:
    """The description of a project.

    Raises:
        DataError: it is none.
    """
    if not path.is_dir() or not recognises(path):
        raise DataError(f"{path} is no project of Supervisely's: it has no {_META}, or no folders {_ANN} and {_IMG}")
    return Description(format="supervisely")


def read(found: Description, root: Path) -> annotations.Reading:
    """All images that have a label file.

    Raises:
        DataError: a file is damaged, or has an object that is not read.
    """
    meta = annotations.read_json(root / _META, _META_KIND)
    reading = annotations.Reading([item["title"] for item in meta["classes"]], [])
    for item in meta["classes"]:
        if (colour := parse_colour(item.get("color") or "")) is not None:
            reading.colours[item["title"]] = colour
    folders = _ann_folders(root)
    for folder in folders:
        images = folder.parent / _IMG
        for file in annotations.files_in(folder, ".json"):
            # the label file's name, which cannot lead out of its folder, is the image's with .json
            image = images / file.relative_to(folder).with_suffix("")
            reading.images.append(_read_file(file, image, folder.parent.relative_to(root), found))
    reading.images = annotations.named_by_place(reading.images) if reading.images else []
    labelled = {marked.image.name for marked in reading.images}
    without = sum(path.name not in labelled for folder in folders for path in (folder.parent / _IMG).iterdir())
    reading.remarks += [f"{without} images have no label file and are left out"] if without else []
    return reading


def _read_file(file: Path, image: Path, folder: Path, found: Description) -> annotations.Marked:
    """The image of a label file; a damaged one is a problem of that image, so that the others can be read."""
    try:
        content = annotations.read_json(file, _FILE_KIND)
        marks = tuple(_mark(item, file, found) for item in content["objects"])
    except DataError as error:
        split = annotations.split_word(folder.as_posix())
        return annotations.Marked(image.name, image, file, (), None, split, problem=str(error))
    size = content["size"]["height"], content["size"]["width"]
    return annotations.Marked(image.name, image, file, marks, size, _split(content, folder))


def _split(content: _File, folder: Path) -> str:
    words = {annotations.split_word(tag.get("name", "")) for tag in content.get("tags", [])} - {WHOLE}
    return words.pop() if len(words) == 1 else annotations.split_word(folder.as_posix())


def _mark(item: _Object, file: Path, found: Description) -> annotations.Mark:
    kind = item.get("geometryType") or ("bitmap" if item.get("bitmap") else "polygon")
    if kind not in _AREAS:
        return annotations.Mark(item["classTitle"], kind, None)
    try:
        return annotations.Mark(item["classTitle"], _KINDS.get(kind, kind), _AREAS[kind](item, found.line_width or 0.0))
    except KeyError as error:
        raise DataError(f"{file}: a {kind} of class {item['classTitle']!r} has no {error}") from None
    except DataError as error:
        raise DataError(f"{file}: a {kind} of class {item['classTitle']!r}: {error}") from None


def _points(values: Any) -> Points:
    if not values:
        raise DataError("it has no points")
    return np.array(values, np.float64)


def _polygon(item: Any, _: float) -> Area:
    return Polygon(tuple(map(_points, [item["points"]["exterior"], *item["points"].get("interior", [])])))


def _rectangle(item: Any, _: float) -> Area:
    corners = _points(item["points"]["exterior"])
    if len(corners) != 2:
        raise DataError(f"it has {len(corners)} corners; it needs two")
    (x0, y0), (x1, y1) = corners
    return Polygon((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))


def _bitmap(item: Any, _: float) -> Area:
    """PNG, compressed once more."""
    bitmap = item["bitmap"] or {}
    try:
        data = base64.b64decode(bitmap["data"].encode("ascii", "replace"), validate=True)
        png = zlib.decompressobj().decompress(data, MAX_PIXELS)
    except (binascii.Error, zlib.error):
        raise DataError("its data is not a compressed PNG in base64") from None
    left, top = (int(value) for value in bitmap["origin"])
    return Bitmap.of(decode_bits(png, "its data"), left=left, top=top)


def _line(item: Any, width: float) -> Area:
    return Stroke(_points(item["points"]["exterior"]), width)


def _dots(item: Any, width: float) -> Area:
    return Dots(_points(item["points"]["exterior"]), width)


_KINDS = {"polyline": "line"}
_AREAS: dict[str, Any] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "bitmap": _bitmap,
    "line": _line,
    "polyline": _line,
    "point": _dots,
}

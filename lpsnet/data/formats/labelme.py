"""labelme's JSON: one file an image, `NAME.json` beside `NAME.jpg` or with the path to it in `imagePath`.

- Shapes: polygon, rectangle (also rotated), circle and mask; line, linestrip and point need `line_width`.
- Order: that of the file, later shapes cover earlier ones, as in labelme's own label maps.
- The label `__ignore__` means no label, as in labelme's examples.
- Holes: only in masks. Half pixels: labelme shows x and y from the corner of the first pixel; its own label maps add
  the outline of a polygon, about half a pixel on every side, which is not done here.
- Classes: those of `labels.txt` in their order if there is one, else the labels found, by name. Images without a JSON
  file are left out.
"""

import base64
import binascii
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pydantic import TypeAdapter
from typing_extensions import NotRequired, TypedDict  # noqa: UP035 — pydantic refuses typing's below 3.12

from lpsnet.data import annotations, convert
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.images import decode_bits
from lpsnet.data.shapes import Area, Bitmap, Dots, Ellipse, Outline, Points, Polygon, Stroke
from lpsnet.errors import DataError

IGNORED = "__ignore__"
_LABELS = "labels.txt"
_LOOKED_AT = 20  # files of a folder, to see whether they are labelme's


class _Shape(TypedDict):
    label: str
    points: list[tuple[annotations.Coordinate, annotations.Coordinate]]
    shape_type: NotRequired[str | None]
    mask: NotRequired[str | None]


class _File(TypedDict):
    shapes: list[_Shape]
    imagePath: str
    imageData: NotRequired[str | None]
    imageHeight: NotRequired[annotations.Length | None]
    imageWidth: NotRequired[annotations.Length | None]


_FILE = TypeAdapter(_File)


def recognises(path: Path) -> bool:
    """Whether a file is labelme's JSON, or one of the first in a folder is."""
    files = annotations.files_in(path, ".json")[:_LOOKED_AT] if path.is_dir() else [path]
    return any(_is_labelme(file) for file in files)


def _is_labelme(path: Path) -> bool:
    text = annotations.head(path)
    return b'"shapes"' in text and (b'"imagePath"' in text or b'"shape_type"' in text)


def describe(path: Path) -> Description:
    """The description of a folder of label files (or of one), by split if folders are named after splits.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return Description(format="labelme", annotations=path.name)
    files = [file for file in annotations.files_in(path, ".json") if _is_labelme(file)]
    if not files:
        raise DataError(f"no JSON files of labelme's in {path}")
    folders = {file.parent.relative_to(path) for file in files}
    splits: dict[str, set[str]] = {}
    for folder in sorted(folders):
        named = [index for index, part in enumerate(folder.parts) if annotations.split_word(part) != WHOLE]
        place = Path(*folder.parts[: named[0] + 1]) if named else folder
        splits.setdefault(annotations.split_word(place.name), set()).add(place.as_posix())
    if WHOLE in splits:
        return Description(format="labelme")
    return Description(format="labelme", annotations={name: sorted(places) for name, places in splits.items()})


def read(found: Description, root: Path) -> annotations.Reading:
    """All images that have a label file.

    Raises:
        DataError: a file is damaged, or has a shape that is not read.
    """
    finder = annotations.ImageFinder(found, root)
    reading = annotations.Reading([], [], ignored=frozenset({IGNORED}))
    others = 0
    for split, file in annotations.label_files(found, root, ".json"):
        if not _is_labelme(file) and finder.named_like(file) is None:
            others += 1
            continue
        reading.images.append(_read_file(file, split, found, finder))
    used = Counter(mark.label for marked in reading.images for mark in marked.marks if mark.label is not None)
    listed = _listed(root)
    reading.names = [*listed, *sorted(set(used) - set(listed))]
    reading.images = annotations.named_by_place(reading.images)
    without = len(set(finder.paths) - {marked.image for marked in reading.images})
    reading.remarks += [f"{without} images have no label file and are left out"] if without else []
    reading.remarks += [f"{others} JSON files are not labelme's and are left out"] if others else []
    return reading


def _read_file(file: Path, split: str, found: Description, finder: annotations.ImageFinder) -> annotations.Marked:
    """The image of a label file; if this is damaged, the one of its name, so that the others can be read."""
    try:
        content = annotations.read_json(file, _FILE)
        marks = tuple(_mark(shape, found, file) for shape in content["shapes"])
    except DataError as error:
        if (beside := finder.named_like(file)) is None:
            raise
        return annotations.Marked(beside.name, beside, file, (), None, split, problem=str(error))
    size = content.get("imageHeight"), content.get("imageWidth")
    known = (size[0], size[1]) if size[0] and size[1] else None
    image, problem = finder.find(content["imagePath"], file, split=split), ""
    if not image.is_file() and (beside := finder.named_like(file)) is not None:
        image = beside  # both were renamed: labelme, too, has an image and its label file side by side
    elif not image.is_file() and content.get("imageData"):
        problem = f"image {image} of {file} does not exist; 'imageData' in the label file is a copy of it: save it so"
    return annotations.Marked(content["imagePath"], image, file, marks, known, split, problem=problem)


def _listed(root: Path) -> list[str]:
    """The labels of `labels.txt`, without labelme's own words for "no label"."""
    file = root / _LABELS
    if not file.is_file():
        return []
    try:
        lines = annotations.read_bytes(file).decode().splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{file} is not a text file with a label a line") from None
    return list(dict.fromkeys(line for line in lines if line.strip() and line != IGNORED))


def _mark(shape: _Shape, found: Description, file: Path) -> annotations.Mark:
    kind = shape.get("shape_type") or "polygon"
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if kind not in _AREAS:
        return annotations.Mark(shape["label"], kind, None)
    count, area = _AREAS[kind]
    if len(points) < abs(count) or (count > 0 and len(points) > count):
        wanted = f"{count}" if count > 0 else f"{-count} or more"
        raise DataError(f"{file}: a {kind} labelled {shape['label']!r} has {len(points)} points; it needs {wanted}")
    if kind == "mask":
        return annotations.Mark(shape["label"], kind, _bitmap(points, shape.get("mask"), file))
    name = {"line": "line", "linestrip": "line", "point": "point", "points": "point"}.get(kind, kind)
    return annotations.Mark(shape["label"], name, area(points, found.line_width or 0.0))


def _rectangle(points: Points, _: float) -> Area:
    if len(points) > 2:
        return Polygon((points,))
    (x0, y0), (x1, y1) = points
    return Polygon((np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]),))


def _circle(points: Points, _: float) -> Area:
    (x, y), rim = points.tolist()
    radius = float(np.hypot(rim[0] - x, rim[1] - y))
    return Ellipse(x, y, radius, radius)


# How many points a kind has (-n: n or more), and the area of its points and the line width
_AREAS: dict[str, tuple[int, Any]] = {
    "polygon": (-1, lambda points, _: Polygon((points,))),
    "rectangle": (-2, _rectangle),
    "oriented_rectangle": (4, _rectangle),
    "circle": (2, _circle),
    "line": (2, Stroke),
    "linestrip": (-1, Stroke),
    "point": (-1, Dots),
    "mask": (-1, None),
}


def _bitmap(points: Points, text: str | None, file: Path) -> Bitmap:
    """A PNG at the first of two corners; labelme takes the whole part of its x and y."""
    try:
        data = base64.b64decode((text or "").encode("ascii", "replace"), validate=True)
    except binascii.Error:
        raise DataError(f"{file}: a mask is not base64") from None
    left, top = np.trunc(points[0]).astype(int).tolist()
    return Bitmap.of(decode_bits(data, file), left=left, top=top)


def write(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
    """A JSON file beside each image: polygons, and masks where a region has holes; `labels.txt` with the classes.

    Returns:
        Remarks, a line each.
    """
    for sample in samples:
        if sample.labels is None:
            continue
        values: dict[str, Any] = {
            "version": "5.5.0",
            "flags": {},
            "shapes": [_shape(outline, target.space.names[outline.label]) for outline in sample.outlines],
            "imagePath": sample.file.name,
            "imageData": None,
            "imageHeight": sample.size[0],
            "imageWidth": sample.size[1],
        }
        file = sample.file.with_suffix(".json").relative_to(target.folder)
        target.write(file.as_posix(), json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False))
    target.write(_LABELS, "".join(f"{name}\n" for name in (IGNORED, *target.space.names)))
    return ["regions with holes are masks, all others are polygons"]


def _shape(outline: Outline, name: str) -> dict[str, Any]:
    shape: dict[str, Any] = {"label": name, "points": outline.exterior.tolist(), "group_id": None, "description": ""}
    shape |= {"shape_type": "polygon", "flags": {}, "mask": None}
    if outline.holes:
        left, top, right, bottom = outline.box
        encoded = cv2.imencode(".png", outline.mask().astype(np.uint8))[1].tobytes()
        shape |= {"points": [[left, top], [right - 1, bottom - 1]], "shape_type": "mask"}
        shape["mask"] = base64.b64encode(encoded).decode()
    return shape

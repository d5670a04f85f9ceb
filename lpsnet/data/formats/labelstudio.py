"""Label Studio's JSON export: a list of tasks with their annotations.

- Results: polygonlabels, brushlabels (run lengths, or a mask as PNG), rectanglelabels and ellipselabels (also rotated),
  or the shapes without labels that results of the same id name; keypointlabels and vectorlabels need `line_width`.
- Order: that of the results; later ones cover earlier ones.
- Holes: only in brushes. Half pixels: x and y are percent of width and height, 0 and 100 the outer borders.
- A task with several annotations counts by the one marked as ground truth, or else by the last; skipped ones and tasks
  without annotations are left out. Predictions are not read.
- Classes: those of `label_config.xml` beside the export, in order, else the labels found, by name. Splits: `split` in a
  task's data.
"""

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NotRequired
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter
from typing_extensions import TypedDict

from lpsnet.data import annotations, convert
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.formats.cvat import parse_colour, rotated
from lpsnet.data.images import IMAGE_SUFFIXES, MAX_PIXELS, decode_bits
from lpsnet.data.labels import Colour
from lpsnet.data.shapes import Area, Bitmap, Dots, Ellipse, Outline, Polygon, Stroke, encode_runs
from lpsnet.errors import DataError

_FILE, _CONFIG = "tasks.json", "label_config.xml"
_LABELS = "labels"  # the result, and the end of every key that holds labels


class _Value(TypedDict, total=False):
    points: list[tuple[annotations.Coordinate, annotations.Coordinate]]
    vertices: list[dict[str, Any]]
    x: annotations.Coordinate
    y: annotations.Coordinate
    width: annotations.Coordinate
    height: annotations.Coordinate
    radiusX: annotations.Coordinate
    radiusY: annotations.Coordinate
    rotation: annotations.Coordinate | None
    format: str
    rle: list[Annotated[int, Field(ge=0, le=255)]]
    imageDataURL: str
    polygonlabels: list[str]
    brushlabels: list[str]
    bitmasklabels: list[str]
    rectanglelabels: list[str]
    ellipselabels: list[str]
    keypointlabels: list[str]
    vectorlabels: list[str]
    labels: list[str]


class _Result(TypedDict):
    type: str
    id: NotRequired[str]
    value: NotRequired[_Value]
    original_width: NotRequired[annotations.Length]
    original_height: NotRequired[annotations.Length]
    image_rotation: NotRequired[float | None]


class _Annotation(TypedDict):
    result: list[_Result]
    was_cancelled: NotRequired[bool | None]
    ground_truth: NotRequired[bool | None]


class _Task(TypedDict):
    data: dict[str, Any]
    annotations: NotRequired[list[_Annotation]]
    file_upload: NotRequired[str | None]
    id: NotRequired[int | str]


_TASKS = TypeAdapter(list[_Task])


def recognises(path: Path) -> bool:
    """Whether a file is Label Studio's JSON export, or a folder holds one."""
    return any(_is_export(file) for file in (sorted(path.glob("*.json")) if path.is_dir() else [path]))


def _is_export(path: Path) -> bool:
    text = annotations.head(path)
    is_list = text.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[")
    return is_list and b'"data"' in text and (b'"annotations"' in text or b'"from_name"' in text)


def describe(path: Path) -> Description:
    """The description of a file, or of those in a folder.

    Raises:
        DataError: there is none.
    """
    files = sorted(file for file in path.glob("*.json") if _is_export(file)) if path.is_dir() else [path]
    if not files:
        raise DataError(f"no JSON export of Label Studio's in {path}")
    return annotations.describe_files("labelstudio", files)


def read(found: Description, root: Path) -> annotations.Reading:
    """All images of the tasks that have an annotation.

    Raises:
        DataError: a file is damaged, or a task has no image or a result that is not read.
    """
    finder = annotations.ImageFinder(found, root)
    reading = annotations.Reading([], [])
    counts: Counter[str] = Counter()
    for split, file in annotations.label_files(found, root, ".json"):
        listed = _config_labels(file.parent / _CONFIG)
        reading.names += listed
        reading.colours |= {name: colour for name, colour in listed.items() if colour is not None}
        for task in annotations.read_json(file, _TASKS):
            chosen = _chosen(task, counts)
            if chosen is not None:
                reading.images.append(_marked(task, chosen, split, file, finder, found))
    reading.images = annotations.named_by_place(reading.images) if reading.images else []
    used = {mark.label for marked in reading.images for mark in marked.marks if mark.label is not None}
    reading.names = list(dict.fromkeys([*reading.names, *sorted(used)]))
    reading.remarks += [f"{count} {text}" for text, count in counts.items()]
    return reading


def _config_labels(file: Path) -> dict[str, Colour | None]:
    """The labels of a labelling configuration with their colours; none if there is no such file."""
    if not file.is_file():
        return {}
    data = annotations.read_bytes(file)
    if b"<!ENTITY" in data:
        raise DataError(f"{file} defines entities; it was not read")
    try:
        tree = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"{file} is no XML: {error}") from None
    found = ((label.get("value"), label.get("background") or "") for label in tree.iter("Label"))
    return {name: parse_colour(colour) for name, colour in found if name}


def _chosen(task: _Task, counts: Counter[str]) -> _Annotation | None:
    usable = [item for item in task.get("annotations", []) if not item.get("was_cancelled")]
    if not usable:
        counts["tasks without an annotation are left out"] += 1
        return None
    true = [item for item in usable if item.get("ground_truth")]
    if len(usable) > 1:
        counts["tasks have several annotations: the one marked as ground truth, or the last, is taken"] += 1
    return (true or usable)[-1]


def _marked(
    task: _Task, chosen: _Annotation, split: str, file: Path, finder: annotations.ImageFinder, found: Description
) -> annotations.Marked:
    name = _image_name(task, file)
    where = f"{file}: image {name!r}"
    results = chosen["result"]
    sizes = {(item["original_height"], item["original_width"])
             for item in results if "original_height" in item and "original_width" in item}  # fmt: skip
    if len(sizes) > 1:
        raise DataError(f"{where} has results for images of different sizes")
    if any(item.get("image_rotation") for item in results):
        raise DataError(
            f"{where} was rotated in Label Studio; its labels are those of the rotated image: rotate it back"
        )
    size = next(iter(sizes), None)
    labels = {item.get("id"): _labels_of(item.get("value", {})) for item in results if item["type"] == _LABELS}
    marks = [mark for item in results if (mark := _mark(item, labels, size, where, found)) is not None]
    own = annotations.split_word(str(task["data"].get("split") or ""))
    own = own if own != WHOLE else split
    return annotations.Marked(name, finder.find(name, file, split=own), file, tuple(marks), size, own)


def _image_name(task: _Task, file: Path) -> str:
    """The image's path or address in a task's data: `image`, or the only value that ends like an image."""
    values = [value for value in task["data"].values() if isinstance(value, str)]
    named = [value for value in values if value.partition("?")[0].lower().endswith(IMAGE_SUFFIXES) or "?d=" in value]
    first = task["data"].get("image")
    address = first if isinstance(first, str) else named[0] if len(named) == 1 else task.get("file_upload")
    if not address:
        raise DataError(f"{file}: task {task.get('id')} has no image in its data")
    path = address.partition("?d=")[2] or address.partition("?")[0]
    return unquote(path.partition("://")[2] or path)


def _labels_of(value: Mapping[str, Any]) -> list[str]:
    return next((value[key] for key in value if key.endswith(_LABELS) and value[key]), [])


def _mark(
    item: _Result, labels: Mapping[str | None, list[str]], size: tuple[int, int] | None, where: str, found: Description
) -> annotations.Mark | None:
    kind = item["type"].removesuffix(_LABELS)
    value = item.get("value", {})
    if kind in ("", "choices", "textarea", "rating", "number", "relation", "taxonomy", "datetime", "pairwise"):
        return None  # says something about the image or a region, and covers nothing
    named = _labels_of(value) or labels.get(item.get("id"), [])
    if len(named) != 1:
        raise DataError(f"{where} has a {kind} with {len(named)} labels; a region has one")
    if kind not in _AREAS:
        return annotations.Mark(named[0], _KINDS.get(kind, kind), None)
    if size is None:
        raise DataError(f"{where} has a {kind} without original_width and original_height")
    try:
        return annotations.Mark(
            named[0], _KINDS.get(kind, kind), _AREAS[kind](value, size, found.line_width or 0.0, where)
        )
    except KeyError as error:
        raise DataError(f"{where} has a {kind} without {error}") from None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _pixels(points: Any, size: tuple[int, int]) -> Any:
    """From percent to pixels."""
    return np.array(points, np.float64).reshape(-1, 2) * (size[1] / 100, size[0] / 100)


def _polygon(value: Any, size: tuple[int, int], _: float, where: str) -> Area:
    points = _pixels(value["points"], size)
    if not len(points):
        raise DataError("a polygon has no points")
    return Polygon((points,))


def _rectangle(value: Any, size: tuple[int, int], _: float, where: str) -> Area:
    x, y, width, height = (value[key] for key in ("x", "y", "width", "height"))
    corners = _pixels([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], size)
    return Polygon((rotated(corners, (corners[0, 0], corners[0, 1]), value.get("rotation") or 0.0),))


def _ellipse(value: Any, size: tuple[int, int], _: float, where: str) -> Area:
    (x, y), (radius_x, radius_y) = _pixels(
        [(value["x"], value["y"]), (value["radiusX"], value["radiusY"])], size
    ).tolist()
    return Ellipse(x, y, radius_x, radius_y, value.get("rotation") or 0.0)


def _brush(value: Any, size: tuple[int, int], _: float, where: str) -> Area:
    if "imageDataURL" in value:
        try:
            data = base64.b64decode(
                value["imageDataURL"].partition("base64,")[2].encode("ascii", "replace"), validate=True
            )
        except binascii.Error:
            raise DataError("a mask is not base64") from None
        return Bitmap.of(decode_bits(data, "its mask"))
    if value.get("format", "rle") != "rle":
        raise DataError(f"a brush has the format {value['format'][:40]!r}; 'rle' is read")
    return Bitmap.of(brush_mask(*size, value["rle"]))


def _keypoint(value: Any, size: tuple[int, int], width: float, where: str) -> Area:
    return Dots(_pixels([(value["x"], value["y"])], size), width)


def _vector(value: Any, size: tuple[int, int], width: float, where: str) -> Area:
    try:
        points = [(float(item["x"]), float(item["y"])) for item in value["vertices"]]
    except (TypeError, ValueError):
        raise DataError("a vector has vertices without x and y") from None
    if not points or not np.isfinite(points).all():
        raise DataError("a vector has no vertices with numbers")
    return Stroke(_pixels(points, size), width)


_KINDS = {"keypoint": "point", "vector": "line", "bitmask": "brush"}
_AREAS: dict[str, Any] = {
    "polygon": _polygon,
    "rectangle": _rectangle,
    "ellipse": _ellipse,
    "brush": _brush,
    "bitmask": _brush,
    "keypoint": _keypoint,
    "vector": _vector,
}


def write(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
    """`tasks.json`, polygons, and brushes where a region has holes, and `label_config.xml` for the project's set-up.

    Returns:
        Remarks, a line each.
    """
    tasks = [_task(number, sample, target) for number, sample in enumerate(samples, start=1)]
    target.write(_FILE, json.dumps(tasks, ensure_ascii=False, allow_nan=False))
    named = list(zip(target.space.names, target.space.colours, strict=True))
    labels = "".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>\n' for name, colour in named
    )
    parts = "".join(f'  <{tag} name="{name}" toName="image">\n{labels}  </{tag}>\n' for tag, name in _CONTROLS)
    target.write(_CONFIG, f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{parts}</View>\n')
    setting = f"set the project up with {_CONFIG}; images are paths for local files, below Label Studio's document root"
    return ["regions with holes are brushes, all others are polygons", setting]


_CONTROLS = (("PolygonLabels", "polygon"), ("BrushLabels", "brush"))


def _task(number: int, sample: convert.Converted, target: convert.Target) -> dict[str, Any]:
    path = PurePosixPath(sample.file.relative_to(target.folder).as_posix())
    data = {"image": f"/data/local-files/?d={path}", "split": sample.split}
    if sample.labels is None:
        return {"id": number, "data": data, "annotations": []}
    results = [_result(f"{number}-{place}", outline, sample, target) for place, outline in enumerate(sample.outlines)]
    return {"id": number, "data": data, "annotations": [{"result": results, "was_cancelled": False}]}


def _result(identity: str, outline: Outline, sample: convert.Converted, target: convert.Target) -> dict[str, Any]:
    height, width = sample.size
    labels = [target.space.names[outline.label]]
    kind, control = "polygonlabels", "polygon"
    value: dict[str, Any] = {"points": (outline.exterior * (100 / width, 100 / height)).tolist(), "closed": True}
    if outline.holes:
        kind, control = "brushlabels", "brush"
        value = {"format": "rle", "rle": brush_rle(_whole(outline, sample.size))}
    return {
        "id": re.sub(r"\W", "-", identity),
        "type": kind,
        "from_name": control,
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": value | {kind: labels},
    }


def _whole(outline: Outline, size: tuple[int, int]) -> Any:
    left, top, right, bottom = outline.box
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = outline.mask()
    return mask


# Run lengths. A brush: the bytes of an RGBA image, whose alpha is the label, as a stream of bits: 32 for the number of
# values, 5 for the bits a value less 1, four times 4 for the bits of run lengths less 1. Then for each run: 1 bit,
# whether one value is repeated; 2 for which of the four sizes its length, less 1, is written in; the value, or all.
_CHANNELS = 4
_SIZES = (3, 4, 8, 16)  # bits of run lengths, as its own encoder has them


def brush_mask(height: int, width: int, rle: Sequence[int]) -> NDArray[np.bool_]:
    """H x W of what a Label Studio brush covers: where alpha is not 0.

    Raises:
        DataError: the numbers are no such stream, or are for another number of pixels.
    """
    if height * width > MAX_PIXELS:
        raise DataError(f"a brush of {height}x{width} pixels (height x width) is not possible")
    if not rle or min(rle) < 0 or max(rle) > 255:
        raise DataError("the run lengths of a brush are not bytes, 0 to 255")
    bits = _Bits(bytes(rle))
    count, word, sizes = bits.read(32), bits.read(5) + 1, [bits.read(4) + 1 for _ in range(4)]
    if count != height * width * _CHANNELS:
        raise DataError(f"the run lengths of a brush are for {count} bytes; {height}x{width} has {height * width * 4}")
    values = np.zeros(count, np.uint8)
    place = 0
    while place < count:
        is_repeated = bits.read(1)
        end = place + 1 + bits.read(sizes[bits.read(2)])
        if end > count:
            raise DataError("the run lengths of a brush are longer than its image")
        if is_repeated:
            values[place:end] = bits.read(word) & 255
        else:
            values[place:end] = [bits.read(word) & 255 for _ in range(end - place)]
        place = end
    alpha: NDArray[np.uint8] = values[_CHANNELS - 1 :: _CHANNELS].reshape(height, width)
    covered: NDArray[np.bool_] = alpha != 0
    return covered


class _Bits:
    """Numbers of any number of bits from bytes, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def read(self, count: int) -> int:
        """The next number; `DataError` at the end."""
        first, end = self._place >> 3, self._place + count
        if end > 8 * len(self._data):
            raise DataError("the run lengths of a brush are cut off")
        window = int.from_bytes(self._data[first : (end + 7) >> 3])
        self._place = end
        return window >> (-end % 8) & (1 << count) - 1


def brush_rle(mask: NDArray[np.bool_]) -> list[int]:
    """Label Studio's run lengths of an H x W array of what is covered: all four channels are 255 there, else 0."""
    runs = encode_runs(mask.ravel()) * _CHANNELS
    longest = 1 << _SIZES[-1]
    bits = [f"{mask.size * _CHANNELS:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for number, run in enumerate(runs.tolist()):
        value = f"{255 * (number % 2):08b}"
        for length in [longest] * (run // longest) + [run % longest] * (run % longest > 0):
            kind = next(index for index, size in enumerate(_SIZES) if length <= 1 << size)
            bits.append(f"1{kind:02b}{length - 1:0{_SIZES[kind]}b}{value}")
    text = "".join(bits)
    return list(int(text + "0" * (-len(text) % 8), 2).to_bytes((len(text) + 7) // 8))

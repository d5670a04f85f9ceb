"""COCO's JSON: polygons and run lengths of objects (`instances_train2017.json`), and panoptic labels with PNGs.

- `segmentation` is a list of polygons, which are added together, or `{"size": [h, w], "counts": …}`, compressed or not.
- Order: that of `annotations`; crowds (`iscrowd`) have no label and lie beneath everything else.
- Several files of one split are added together, image by image, in the order of the files.
- Holes: only in run-length encodings. Half pixels: x and y are measured from the corner of the first pixel.
- Panoptic: `segments_info` gives the category of each number in the PNGs of the folder beside the JSON.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict  # of pydantic; below Python 3.12 it refuses that of typing

from lpsnet.data import annotations, convert, shapes
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.images import MAX_PIXELS
from lpsnet.data.shapes import MAX_COORDINATE, Bitmap, IdMask, Polygon, encode_runs
from lpsnet.errors import DataError

_Id = int | str


class _Rle(TypedDict):
    size: tuple[annotations.Length, annotations.Length]
    counts: str | list[Annotated[int, Field(ge=0)]]


# An array at once: floats of their own would take four times the memory
_Ring = Annotated[list[annotations.Coordinate], AfterValidator(lambda values: np.array(values, np.float64))]


class _Segment(TypedDict, total=False):
    id: Annotated[int, Field(ge=0, lt=2**24)]
    category_id: _Id
    iscrowd: int


class _Annotation(TypedDict, total=False):
    image_id: _Id
    category_id: _Id
    segmentation: _Rle | list[_Ring] | None
    iscrowd: int | None
    bbox: list[float]
    file_name: str  # panoptic
    segments_info: list[_Segment]


class _Category(TypedDict, total=False):
    id: _Id
    name: str
    color: tuple[int, int, int]


class _Image(TypedDict, total=False):
    id: _Id
    file_name: str
    width: annotations.Length
    height: annotations.Length


class _File(TypedDict):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


_FILE = TypeAdapter(_File)
_KINDS = ("instances_", "panoptic_", "stuff_")
_NO_SHAPES = ("captions_", "person_keypoints_", "image_info_")  # COCO's own files of other tasks, beside the instances


def recognises(path: Path) -> bool:
    """Whether a file is COCO's JSON, or a folder holds one at the usual places."""
    return bool(_files(path)) if path.is_dir() else _is_coco(path)


def describe(path: Path) -> Description:
    """The description of a file, or of the files in a folder, by split.

    Raises:
        DataError: there is none, or several kinds that name the same images.
    """
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise DataError(f"no JSON file of COCO's in {path}, its folder 'annotations' or folders named after splits")
    kinds = {
        file.name.partition("_")[0] for file in files if file.name.startswith(("instances_", "panoptic_", "stuff_"))
    }
    if len(kinds) > 1:
        listed = ", ".join(file.name for file in files)
        raise DataError(f"{path} has labels of several kinds ({listed}); name one of them: coco:{files[0]}")
    root = path if path.is_dir() else path.parent
    splits = defaultdict(list)
    for file in files:
        split = annotations.split_word(file.stem)
        split = annotations.split_word(file.parent.name) if split == WHOLE and file.parent != root else split
        splits[split].append(file.relative_to(root).as_posix())
    places: Any = splits[WHOLE] if list(splits) == [WHOLE] else dict(splits)
    return Description(format="coco", annotations=places)


def _files(root: Path) -> list[Path]:
    """Label files in a folder, in `annotations`, or one a folder that is named after a split."""
    inside = (folder for folder in root.iterdir() if folder.is_dir())
    folders = [
        root,
        *sorted(it for it in inside if it.name == "annotations" or annotations.split_word(it.name) != WHOLE),
    ]
    found = [path for folder in folders for path in sorted(folder.glob("*.json"))]
    return [path for path in found if not path.name.startswith((".", *_NO_SHAPES)) and _is_coco(path)]


def _is_coco(path: Path) -> bool:
    text = annotations.head(path)
    keys = (b'"categories"', b'"annotations"', b'"image_id"', b'"file_name"', b'"segments_info"')
    return text.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{") and sum(key in text for key in keys) >= 2


def read(found: Description, root: Path) -> annotations.Reading:
    """All images of the label files.

    Raises:
        DataError: a file is damaged, refers to an image or a category that it does not have, or has an annotation
            that is no region.
    """
    files = annotations.label_files(found, root, ".json")
    finder = annotations.ImageFinder(found, root)
    reading = annotations.Reading([], [])
    joined: dict[tuple[str, Path], annotations.Marked] = {}
    for split, file in files:
        for marked in _read_file(file, split, finder, reading):
            key = (split, marked.image)
            other = joined.get(key)
            if other is not None and other.file != file and other.name == marked.name and other.size == marked.size:
                joined[key] = other._replace(marks=other.marks + marked.marks)
            elif other is not None:
                raise DataError(
                    f"{other.name!r} in {other.file} and {marked.name!r} in {file} are both labels of image "
                    f"{marked.image}, by other names or sizes; keep one of them"
                )
            else:
                joined[key] = marked
    reading.images = list(joined.values())
    reading.names = list(dict.fromkeys(reading.names))
    return reading


def _read_file(
    file: Path, split: str, finder: annotations.ImageFinder, reading: annotations.Reading
) -> list[annotations.Marked]:
    content = annotations.read_json(file, _FILE)
    categories = {
        _key(item, "id", file, "category"): _key(item, "name", file, "category") for item in content["categories"]
    }
    if len(categories) < len(content["categories"]):
        raise DataError(f"{file}: two categories have the same id")
    reading.names += categories.values()
    reading.colours |= {item["name"]: item["color"] for item in content["categories"] if _is_colour(item.get("color"))}
    marks: dict[_Id, list[annotations.Mark]] = defaultdict(list)
    for number, annotation in enumerate(content["annotations"]):
        where = f"{file}, annotation {number}"
        marks[_key(annotation, "image_id", file, f"annotation {number}")] += _marks(annotation, categories, where, file)
    found, numbers = [], set()
    for image in content["images"]:
        name, number = _key(image, "file_name", file, "image"), _key(image, "id", file, "image")
        if number in numbers:
            raise DataError(f"{file}: two images have the id {number!r}")
        numbers.add(number)
        own = tuple(marks.pop(number, ()))
        size = _size(image, own, f"{file}: image {name!r}")
        found.append(annotations.Marked(name, finder.find(name, file, split=split), file, own, size, split))
    if marks:
        raise DataError(f"{file} has annotations of image {next(iter(marks))!r}, which is not among its images")
    return found


def _size(image: _Image, marks: Iterable[annotations.Mark], where: str) -> tuple[int, int] | None:
    """(height, width) as the image states it, and its run lengths, which must agree; None if neither does."""
    height, width = image.get("height"), image.get("width")
    known = (height, width) if height and width else None
    for area in (mark.area for mark in marks):
        if isinstance(area, Bitmap):
            known = known or (area.height, area.width)
            if known != (area.height, area.width):
                sizes = f"{area.height}x{area.width}, but the image is {known[0]}x{known[1]} (height x width)"
                raise DataError(f"{where} has run lengths for {sizes}")
    return known


def _is_colour(value: Any) -> bool:
    return value is not None and all(0 <= level <= 255 for level in value)


def _key(item: Any, key: str, file: Path, what: str) -> Any:
    if key not in item:
        raise DataError(f"{file}: {what} has no {key!r}")
    return item[key]


def _marks(annotation: _Annotation, categories: dict[_Id, str], where: str, file: Path) -> Iterable[annotations.Mark]:
    try:
        if "segments_info" in annotation:
            return _panoptic_marks(annotation, categories, file)
        return _object_marks(annotation, _category(annotation, categories), file)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _category(item: Any, categories: dict[_Id, str]) -> str:
    number = item.get("category_id")
    if number not in categories:
        raise DataError(f"category {number!r} is not among the file's {len(categories)} categories")
    return categories[number]


def _object_marks(annotation: _Annotation, label: str, file: Path) -> list[annotations.Mark]:
    name = None if annotation.get("iscrowd") else label
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return [annotations.Mark(name, "mask", coco_bitmap(segmentation["size"], segmentation["counts"]))]
    if segmentation:
        rings = [annotations.to_points(ring, file, "a polygon") for ring in segmentation]
        return [annotations.Mark(name, "polygon", Polygon((ring,))) for ring in rings]
    box = annotation.get("bbox")
    if not box:
        return [annotations.Mark(name, "polygon", Polygon((np.zeros((0, 2)),)))]  # covers nothing, and is counted
    if len(box) != 4 or not (np.abs(box) <= MAX_COORDINATE).all():
        raise DataError(f"a bbox has four numbers, x, y, width and height; got {str(box)[:60]}")
    return [annotations.Mark(label, "bbox", _box(*box))]


def _box(x: float, y: float, width: float, height: float) -> Polygon:
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return Polygon((np.array(corners, np.float64),))


def _panoptic_marks(annotation: _Annotation, categories: dict[_Id, str], file: Path) -> list[annotations.Mark]:
    name = _key(annotation, "file_name", file, "annotation")
    place = file.with_suffix("") / Path(name.replace("\\", "/")).name  # the JSON of the same name has its folder
    if not place.is_file():
        beside = file.parent / place.name
        place = beside if beside.is_file() else place
    groups: dict[str | None, set[int]] = defaultdict(set)
    for segment in annotation["segments_info"]:
        label = _category(segment, categories)
        groups[None if segment.get("iscrowd") else label].add(_key(segment, "id", file, "segment"))
    return [annotations.Mark(label, "mask", IdMask(place, tuple(sorted(numbers)))) for label, numbers in groups.items()]


def write(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
    """`annotations/instances_SPLIT.json`: polygons, and run-length encodings where a region has holes.

    Returns:
        Remarks, a line each.
    """
    named = zip(target.space.names, target.space.colours, strict=True)
    categories = [
        {"id": number, "name": name, "supercategory": "", "color": colour}
        for number, (name, colour) in enumerate(named, start=1)
    ]
    images: dict[str, list[Any]] = defaultdict(list)
    found: dict[str, list[Any]] = defaultdict(list)
    for sample in samples:
        number = len(images[sample.split]) + 1
        height, width = sample.size
        name = sample.file.relative_to(target.images / sample.split).as_posix()
        images[sample.split].append({"id": number, "file_name": name, "height": height, "width": width})
        for outline in sample.outlines:
            found[sample.split].append(
                {"id": len(found[sample.split]) + 1, "image_id": number, "iscrowd": 0} | _annotation(outline, sample)
            )
    for split, members in images.items():
        values = {"info": {"description": target.space.name}, "licenses": [], "images": members,
                  "annotations": found[split], "categories": categories}  # fmt: skip
        target.write(f"annotations/instances_{split}.json", json.dumps(values, allow_nan=False))
    return ["regions with holes are run-length encoded, all others are polygons"]


def _annotation(outline: shapes.Outline, sample: convert.Converted) -> dict[str, Any]:
    left, top, right, bottom = outline.box
    segmentation: Any = [outline.exterior.ravel().tolist()]
    if outline.holes:
        whole = np.zeros(sample.size, bool)
        whole[top:bottom, left:right] = outline.mask()
        segmentation = {"size": list(sample.size), "counts": coco_text(whole)}
    return {
        "category_id": outline.label + 1,
        "segmentation": segmentation,
        "area": outline.num_pixels,
        "bbox": [left, top, right - left, bottom - top],
    }


# Run lengths. COCO's text: each count is a signed number in groups of 5 bits, lowest first, one character from "0" (48)
# up a group; bit 5 says that more groups follow. From the fourth count on, it is the difference to the one two before.
_OFFSET, _MORE, _SIGN, _BITS = 48, 32, 16, 5


def coco_bitmap(size: Sequence[int], counts: str | Sequence[int]) -> Bitmap:
    """The bitmap of a COCO run-length encoding, compressed (text) or not.

    Args:
        size: height and width of the image in pixels.
        counts: runs down the columns, beginning with pixels that are not covered.

    Raises:
        DataError: the counts are no run lengths of that size.
    """
    runs = _decode_text(counts) if isinstance(counts, str) else np.array(counts, np.float64)
    if np.abs(runs).max(initial=0) > MAX_PIXELS:
        raise DataError("a run length is larger than any image")
    return Bitmap(0, 0, size[0], size[1], runs.astype(np.int64), by_columns=True)


def _decode_text(text: str) -> NDArray[np.int64]:
    if not text.isascii():
        raise DataError("the text of run lengths has characters that are not ASCII")
    codes = np.frombuffer(text.encode(), np.uint8).astype(np.int64) - _OFFSET
    if codes.min(initial=0) < 0 or codes.max(initial=0) >= 2 * _MORE or (codes.size and codes[-1] & _MORE):
        raise DataError("the text of run lengths is damaged or cut off")
    ends = np.flatnonzero(codes & _MORE == 0)
    starts = np.concatenate(([0], ends[:-1] + 1)) if ends.size else ends
    place = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    if place.max(initial=0) > 6:  # 35 bits
        raise DataError("a run length is larger than any image")
    values = np.add.reduceat((codes & _MORE - 1) << _BITS * place, starts) if starts.size else codes
    negative = codes[ends] & _SIGN != 0
    values = values - np.where(negative, 1 << _BITS * (ends - starts + 1), 0)
    # undo the differences: sums over every other count, from the second and the third on
    values[1::2], values[2::2] = np.cumsum(values[1::2]), np.cumsum(values[2::2])
    return values


def coco_text(mask: NDArray[np.bool_]) -> str:
    """COCO's compressed counts of an H x W array of what is covered."""
    runs = encode_runs(mask.T.ravel())
    values = runs.copy()
    values[3:] -= runs[1:-2]
    characters = []
    for value in values.tolist():
        more = True
        while more:
            group = value & _MORE - 1
            value >>= _BITS
            more = value != (-1 if group & _SIGN else 0)
            characters.append(group | (_MORE if more else 0))
    return bytes(code + _OFFSET for code in characters).decode()

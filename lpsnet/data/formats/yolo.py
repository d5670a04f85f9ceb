"""YOLO's segmentation labels: a text file an image, a polygon a line: `CLASS x1 y1 x2 y2 …`, parts of width and height.

The `data.yaml` of ultralytics, Roboflow or CVAT says where the images are and what the classes are called; a text file
has its image's path with the last `images` replaced by `labels`. Without a YAML file, `classes.txt` or `obj.names`
names the classes.

- Order: that of the lines, later ones cover earlier ones.
- Holes: none in the format; a ring that goes to a hole and back the same way covers what a hole would leave.
- Half pixels: 0 and 1 are the outer borders of the image.
- An image without a text file has no objects. A line of five numbers is a box, which covers no known pixels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml

from lpsnet.data import annotations, description, outlines, pairing
from lpsnet.data.convert import Converted, Target
from lpsnet.data.description import Description
from lpsnet.data.formats import ultralytics
from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.data.shapes import Points, Polygon
from lpsnet.errors import DataError
from lpsnet.io import read_yaml

_NAMES = ("classes.txt", "obj.names")
_LOWEST, _HIGHEST = -1.0, 2.0  # coordinates; shapes reach beyond the border, but pixels are no parts of an image


def recognises(path: Path) -> bool:
    """Whether a YAML file, or the one in a folder, has text labels for ultralytics, or a folder has them alone."""
    file = description.yaml_file(path)
    if file is None:
        return path.is_dir() and _is_laid_out(path) and _has_lines(path)
    if not file.is_file():
        return False
    values = read_yaml(file, what="description")
    return isinstance(values, dict) and _is_listing(values) and ultralytics.has_text_labels(values, file.parent)


def _is_listing(values: dict[str, Any]) -> bool:
    return "train" in values or "val" in values


def _is_laid_out(root: Path) -> bool:
    """Whether a folder without a YAML file has the names of classes, or the usual folders and no masks."""
    folders = [(root / name).is_dir() for name in ("images", "labels", "masks")]
    return any((root / name).is_file() for name in _NAMES) or folders == [True, True, False]


def _has_lines(root: Path) -> bool:
    label = ultralytics.text_labels(root)
    return label is not None and annotations.head(label)[:1].isdigit()


def describe(path: Path) -> Description:
    """The description of a YAML file, or of a folder.

    Raises:
        DataError: the file names no images or classes.
    """
    file = description.yaml_file(path)
    if file is None or not file.is_file():
        return _describe_folder(path)
    values = read_yaml(file, what="description")
    try:
        if not isinstance(values, dict):
            raise DataError("it is no description of a data set")
        root, images = ultralytics.listed_images(values, file.parent)
        found = {"format": "yolo", "path": str(root.absolute()), "images": images, "names": values.get("names")}
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    return description.parse(found, file)


def _describe_folder(root: Path) -> Description:
    names = next((root / name for name in _NAMES if (root / name).is_file()), None)
    listed = [words[0] for words in pairing.read_list(names)] if names is not None else None
    splits = pairing.expand_splits(root, "images/{split}")
    if not any(root.joinpath("images").glob("*.*")) and splits:
        named = {annotations.split_word(name): place for name, place in splits.items()}
        return Description(format="yolo", names=listed, images=named if len(named) == len(splits) else splits)
    return Description(format="yolo", names=listed, images="images" if (root / "images").is_dir() else ".")


def read(found: Description, root: Path) -> annotations.Reading:
    """All images that the description names.

    Raises:
        DataError: a text file is damaged, or names a class that there is none of.
    """
    names = found.class_names()
    if not names:
        raise DataError("YOLO's text files name no classes; give them with 'names', or in classes.txt")
    reading = annotations.Reading(names, [])
    images = found.images if isinstance(found.images, dict) else description.image_places(found.images, root)
    texts = _texts(found, root)
    without = 0
    for split, places in images.items():
        for place in [places] if isinstance(places, str) else places:
            for key, image in pairing.collect(root, place, suffixes=IMAGE_SUFFIXES, ending=""):
                file = texts.get(image.stem) if texts is not None else _label_file(image)
                marks = tuple(_marks(file, names)) if file is not None and file.is_file() else ()
                without += file is None or not file.is_file()
                place_of = file or image.with_suffix(".txt")
                reading.images.append(
                    annotations.Marked(f"{key}{image.suffix}", image, place_of, marks, None, split, is_relative=True)
                )
    reading.remarks += [f"{without} images have no text file: no objects, as for YOLO"] if without else []
    return reading


def _texts(found: Description, root: Path) -> dict[str, Path] | None:
    """The text files by stem if `annotations` says where they are; None if they are where ultralytics looks."""
    if found.annotations is None:
        return None
    files = [file for _, file in annotations.label_files(found, root, ".txt")]
    stem, count = Counter(file.stem for file in files).most_common(1)[0] if files else ("", 0)
    if count > 1:
        raise DataError(f"'annotations' has {count} text files named {stem}.txt; name their folders one by one")
    return {file.stem: file for file in files}


def _label_file(image: Path) -> Path:
    """Where ultralytics looks, or beside the image."""
    if "images" in PurePath(image).parts:
        there = Path(ultralytics.replaced(str(image), "labels")).with_suffix(".txt")
        return there if there.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


def _marks(file: Path, names: list[str]) -> Iterator[annotations.Mark]:
    try:
        lines = annotations.read_bytes(file).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{file} is not a text file of numbers") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _mark(line.split(), f"{file}, line {number}", names)


def _mark(words: list[str], where: str, names: list[str]) -> annotations.Mark:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        raise DataError(f"{where} has words that are no numbers") from None
    if not np.isfinite(values).all() or values[1:].min(initial=0) < _LOWEST or values[1:].max(initial=0) > _HIGHEST:
        raise DataError(f"{where} has coordinates that are not parts of the image's width and height, 0 to 1")
    if not (0 <= values[0] < len(names) and values[0] == int(values[0])):
        raise DataError(f"{where} names class {words[0]}; there are {len(names)}, 0 to {len(names) - 1}")
    label = names[int(values[0])]
    if len(values) == 5:
        x, y, width, height = values[1:].tolist()
        corners = [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
        return annotations.Mark(label, "detection box", Polygon((_corners(*corners),)))
    if len(values) < 7 or len(values) % 2 == 0:
        raise DataError(f"{where} has {len(values)} numbers; a polygon has a class and three pairs of x and y or more")
    return annotations.Mark(label, "polygon", Polygon((values[1:].reshape(-1, 2),)))


def _corners(first: tuple[float, float], second: tuple[float, float]) -> Points:
    (x0, y0), (x1, y1) = first, second
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def write(target: Target, samples: Iterable[Converted]) -> list[str]:
    """`labels/SPLIT/NAME.txt` for each image, and `data.yaml`.

    Returns:
        Remarks, a line each.
    """
    for sample in samples:
        if sample.labels is None:
            continue
        height, width = sample.size
        lines = []
        for outline in sample.outlines:
            ring = outlines.join_holes(outline) / (width, height)
            lines.append(" ".join([str(outline.label), *(f"{value:.9g}" for value in ring.ravel().tolist())]) + "\n")
        target.write(f"labels/{sample.split}/{sample.name}.txt", "".join(lines))
    values: dict[str, Any] = {split: f"images/{split}" for split in target.splits}
    values["names"] = dict(enumerate(target.space.names))
    target.write("data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return ["the format has no holes: a line there and back joins each hole to the outline around it"]

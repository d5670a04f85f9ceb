"""Data sets of ultralytics' semantic task: a YAML file with `train` and `val`, and masks beside the images.

    path: streets                            # from the YAML's folder, or from the current folder
    train: images/train                      # a folder, a list file, or several
    val: images/val
    masks_dir: masks                         # replaces "images" in an image's path to give its mask's path
    names: {0: road, 1: car}
    label_mapping: {7: 0, 26: 1, 0: ignore_label}   # id in the masks -> class

Other keys (`nc`, …) are ignored.

And labels of YOLO: a text file an image, a polygon a line: `CLASS x1 y1 x2 y2 …`, parts of width and height, 0 to 1.

The `data.yaml` of ultralytics, Roboflow or CVAT says where the images are and what the classes are called; a text file
has its image's path with the last `images` replaced by `labels`. Without a YAML file, `classes.txt` or `obj.names`
names the classes.

- Order: that of the lines, later ones cover earlier ones.
- Holes: none in the format; a ring that goes to a hole and back the same way covers what a hole would leave.
- Half pixels: 0 and 1 are the outer borders of the image.
- An image without a text file has no objects. A line of five numbers is a box, which covers no known pixels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import dropwhile
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import yaml

from lpsnet.data import annotations, convert, description, pairing, shapes
from lpsnet.data.decode import ranges
from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import LIST_SUFFIX, find_images, read_list, resolve
from lpsnet.data.shapes import Points, Polygon
from lpsnet.errors import DataError
from lpsnet.io import expand_home, read_yaml

SPLITS = ("train", "val", "test")
_IMAGES, _MASKS, POLYGONS = "images", "masks", "labels"
_IGNORED = "ignore_label"


def recognises(path: Path) -> bool:
    """Whether a YAML file, or the one in a folder, is one of ultralytics': ours have no key `train` or `val`."""
    file = description.yaml_file(path)
    values = read_yaml(file, what="description") if file else None
    return isinstance(values, dict) and ("train" in values or "val" in values)


def describe(path: Path) -> description.Description:
    """The description of an ultralytics YAML file, or of the one in a folder.

    Raises:
        DataError: an image's path has no "images" that a mask's path could be made from.
    """
    file = description.yaml_file(path)
    assert file is not None, "recognises"
    try:
        values = translate(read_yaml(file, what="description"), file.parent)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    return description.parse(values, file)


def translate(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The values of a `Description` for those of an ultralytics YAML file in `folder`."""
    root, listed = listed_images(values, folder)
    masks_dir = str(values.get("masks_dir") or _MASKS)
    images = {name: list(_images(root, members)) for name, members in listed.items()}
    wanted = {name: sorted({_mask_place(place, masks_dir) for place in members}) for name, members in images.items()}
    masks = {name: [place for place in members if (root / place).is_dir()] for name, members in wanted.items()}
    if not any(masks.values()):
        first = next((place for members in wanted.values() for place in members), None)
        if first is None:
            raise DataError(f"{' and '.join(map(repr, listed))}: no images are listed")
        raise DataError(f"folder {root / first} does not exist; 'masks_dir' names the folder that masks are in")
    places = {"images": images, "masks": {name: found for name, found in masks.items() if found}}
    return {"path": str(root.absolute())} | places | _classes(values)


def text_labels(root: Path) -> Path | None:
    """A text file under `root` that is named like an image: a polygon or box label. None if there is none."""
    stems = {path.stem for path in find_images(root)}
    return next((path for path in sorted(root.rglob("*.txt")) if path.stem in stems), None)


def listed_images(values: dict[str, Any], folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """The root, and the places of images by split, of an ultralytics YAML file in `folder`; list files stay."""
    listed = {name: _as_list(values[name], name) for name in SPLITS if values.get(name)}
    if not listed:
        raise DataError("'train' and 'val' name no images; give each a folder, a list file .txt, or several of them")
    root = _root(values, folder, [place for members in listed.values() for place in members])
    return root, {name: [_below(root, place) for place in members] for name, members in listed.items()}


def _below(root: Path, place: str) -> str:
    """The place; if it does not exist, without the "../" that Roboflow writes before it, or by the last parts of one
    that is absolute, of another machine; if these do not exist either, as it is."""
    path = PurePosixPath(pairing.forward(place))
    parts = path.parts[1:] if path.is_absolute() else [*dropwhile(lambda part: part == "..", path.parts)]
    fewest = 2 if path.is_absolute() else len(parts)
    shorter = ["/".join(parts[-count:]) for count in range(len(parts), fewest - 1, -1)]
    return next((each for each in (place, path.as_posix(), *shorter) if (root / each).exists()), place)


def has_text_labels(values: dict[str, Any], folder: Path) -> bool:
    """Whether the labels of a YAML file in `folder` are text files, not masks."""
    if values.get("masks_dir"):
        return False
    try:
        root, listed = listed_images(values, folder)
    except DataError:
        return False
    folders = [place for members in listed.values() for place in members if not place.endswith(LIST_SUFFIX)]
    inside = [place for place in folders if _IMAGES in PurePath(place).parts]
    if any(find_images(root / replaced(place, _MASKS), suffixes=MASK_SUFFIXES) for place in inside):
        return False
    texts = [root / replaced(place, POLYGONS) for place in inside]
    return any(True for place in texts for _ in place.rglob("*.txt")) or text_labels(root) is not None


def _as_list(value: Any, key: str) -> list[str]:
    places = value if isinstance(value, list) else [value]
    if not all(isinstance(place, str) for place in places):
        raise DataError(f"{key!r} is a folder, a list file .txt, or several of them; got {value!r}")
    return [place.removeprefix("./") for place in places]


def _root(values: dict[str, Any], folder: Path, places: list[str]) -> Path:
    """The folder of the images: `path` from the YAML's folder or from the current one, or the YAML's folder itself."""
    path = expand_home(str(values.get("path") or "."))
    tries = [folder / path, Path.cwd() / path, folder]
    found = next((root for root in tries if places and (root / _below(root, places[0])).exists()), None)
    if found is None:
        looked = " or ".join(dict.fromkeys(str(root / place) for root in tries[:2] for place in places[:1]))
        raise DataError(f"the images of 'train' do not exist: looked for {looked}; change 'path'")
    return found


def _images(root: Path, places: list[str]) -> Iterator[str]:
    """The places as they are; a list file becomes the images in it."""
    for place in places:
        if place.endswith(LIST_SUFFIX):
            yield from (str(resolve(root, root / place, words[0])) for words in read_list(root / place))
        else:
            yield place


def _mask_place(place: str, masks_dir: str) -> str:
    """The folder of the masks of a folder of images, or of one image."""
    folder = replaced(place, masks_dir)
    return str(PurePath(folder).parent) if PurePath(place).suffix.lower() in IMAGE_SUFFIXES else folder


def replaced(place: str, folder: str) -> str:
    """The path with the last "images" in it replaced."""
    parts = list(PurePath(place).parts)
    if _IMAGES not in parts:
        raise DataError(f"{place!r} has no folder {_IMAGES!r} in it, which 'masks_dir' would replace")
    last = len(parts) - 1 - parts[::-1].index(_IMAGES)
    return PurePath(*parts[:last], folder, *parts[last + 1 :]).as_posix()


def _classes(values: dict[str, Any]) -> dict[str, Any]:
    names = values.get("names") or []
    if isinstance(names, dict):
        names = [names[number] for number in sorted(_by_number(names, "names"))]
    elif not isinstance(names, list):
        raise DataError(f"'names' is a list of class names, or a map from number to name; got {names!r}")
    if len(names) == 1:  # a single class is 1 in the masks, its background 0
        names = ["background", *names]
    mapping = values.get("label_mapping")
    if not mapping:
        return {"names": names}
    table = {number: number for number in range(len(names))} | _by_number(mapping, "label_mapping")
    ignored = {number for number, label in table.items() if label in (_IGNORED, IGNORE_INDEX, None)}
    ids = {number: label for number, label in table.items() if number not in ignored}
    return {"names": names, "ids": ids, "ignore": sorted(number for number in ignored if number >= 0)}


def _by_number(value: Any, key: str) -> dict[int, Any]:
    if not isinstance(value, dict) or not all(type(number) is int for number in value):
        raise DataError(f"{key!r} is a map whose keys are whole numbers; got {str(value)[:80]}")
    return value


# Polygons

_NAMES = ("classes.txt", "obj.names")
_LOWEST, _HIGHEST = -1.0, 2.0  # coordinates; shapes reach beyond the border, but pixels are no parts of an image


def recognises_polygons(path: Path) -> bool:
    """Whether a YAML file, or the one in a folder, has text labels for ultralytics, or a folder has them alone."""
    file = description.yaml_file(path)
    if file is None:
        return path.is_dir() and _is_laid_out(path) and _has_lines(path)
    if not file.is_file():
        return False
    values = read_yaml(file, what="description")
    return isinstance(values, dict) and _is_listing(values) and has_text_labels(values, file.parent)


def _is_listing(values: dict[str, Any]) -> bool:
    return "train" in values or "val" in values


def _is_laid_out(root: Path) -> bool:
    """Whether a folder without a YAML file has the names of classes, or the usual folders and no masks."""
    folders = [(root / name).is_dir() for name in ("images", "labels", "masks")]
    return any((root / name).is_file() for name in _NAMES) or folders == [True, True, False]


def _has_lines(root: Path) -> bool:
    label = text_labels(root)
    return label is not None and annotations.head(label)[:1].isdigit()


def describe_polygons(path: Path) -> description.Description:
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
        root, images = listed_images(values, file.parent)
        found = {"format": "yolo", "path": str(root.absolute()), "images": images, "names": values.get("names")}
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    return description.parse(found, file)


def _describe_folder(root: Path) -> description.Description:
    names = next((root / name for name in _NAMES if (root / name).is_file()), None)
    listed = pairing.read_lines(names) if names is not None else None
    splits = pairing.expand_splits(root, "images/{split}")
    if not any(root.joinpath("images").glob("*.*")) and splits:
        named = {annotations.split_word(name): place for name, place in splits.items()}
        return description.Description(
            format="yolo", names=listed, images=named if len(named) == len(splits) else splits
        )
    return description.Description(format="yolo", names=listed, images="images" if (root / "images").is_dir() else ".")


def read_polygons(found: description.Description, root: Path) -> annotations.Reading:
    """All images that the description names.

    Raises:
        DataError: a text file is damaged, or names a class that there is none of.
    """
    names = found.names if isinstance(found.names, dict) else dict(enumerate(found.class_names()))
    if not names:
        raise DataError("YOLO's text files name no classes; give them with 'names', or in classes.txt")
    reading = annotations.Reading(found.class_names(), [])
    images = found.images if isinstance(found.images, dict) else description.image_places(found.images, root)
    texts = _texts(found, root)
    without = 0
    for split, places in images.items():
        for place in [places] if isinstance(places, str) else places:
            for key, image in pairing.collect(root, place, suffixes=IMAGE_SUFFIXES, ending=""):
                file = texts.get(image.stem) if texts is not None else _label_file(image)
                marks, problem = _read_lines(file, names)
                without += file is None or not file.is_file()
                place_of = file or image.with_suffix(".txt")
                reading.images.append(
                    annotations.Marked(
                        f"{key}{image.suffix}", image, place_of, marks, None, split, is_relative=True, problem=problem
                    )
                )
    reading.remarks += [f"{without} images have no text file: no objects, as for YOLO"] if without else []
    return reading


def _texts(found: description.Description, root: Path) -> dict[str, Path] | None:
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
        there = Path(replaced(str(image), POLYGONS)).with_suffix(".txt")
        return there if there.is_file() else image.with_suffix(".txt")
    return image.with_suffix(".txt")


def _read_lines(file: Path | None, names: Mapping[int, str]) -> tuple[tuple[annotations.Mark, ...], str]:
    """The marks of a text file, and what is wrong with it, so that the others can be read."""
    if file is None or not file.is_file():
        return (), ""
    try:
        return tuple(_marks(file, names)), ""
    except DataError as error:
        return (), str(error)


def _marks(file: Path, names: Mapping[int, str]) -> Iterator[annotations.Mark]:
    try:
        lines = annotations.read_bytes(file).decode("ascii").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{file} is not a text file of numbers") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _mark(line.split(), f"{file}, line {number}", names)


def _mark(words: list[str], where: str, names: Mapping[int, str]) -> annotations.Mark:
    try:
        values = np.array(words, np.float64)
    except ValueError:
        raise DataError(f"{where} has words that are no numbers") from None
    if not np.isfinite(values).all() or values[1:].min(initial=0) < _LOWEST or values[1:].max(initial=0) > _HIGHEST:
        raise DataError(f"{where} has coordinates that are not parts of the image's width and height, 0 to 1")
    if values[0] not in names:
        raise DataError(f"{where} names class {words[0]}; there are {len(names)}, {ranges(names)}")
    label = names[int(values[0])]
    if len(values) == 5:
        x, y, width, height = values[1:].tolist()
        corners = [(x - width / 2, y - height / 2), (x + width / 2, y + height / 2)]
        return annotations.Mark(label, "bbox", Polygon((_corners(*corners),)))
    if len(values) < 7 or len(values) % 2 == 0:
        raise DataError(f"{where} has {len(values)} numbers; a polygon has a class and three pairs of x and y or more")
    return annotations.Mark(label, "polygon", Polygon((values[1:].reshape(-1, 2),)))


def _corners(first: tuple[float, float], second: tuple[float, float]) -> Points:
    (x0, y0), (x1, y1) = first, second
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def write_polygons(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
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
            ring = shapes.join_holes(outline) / (width, height)
            lines.append(" ".join([str(outline.label), *(f"{value:.9g}" for value in ring.ravel().tolist())]) + "\n")
        target.write(f"labels/{sample.split}/{sample.name}.txt", "".join(lines))
    values: dict[str, Any] = {split: f"images/{split}" for split in target.splits}
    values["names"] = dict(enumerate(target.space.names))
    target.write("data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return ["the format has no holes: a line there and back joins each hole to the outline around it"]

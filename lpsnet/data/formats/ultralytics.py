"""Data sets of ultralytics' semantic task: a YAML file with `train` and `val`, and masks beside the images.

    path: streets                            # from the YAML's folder, or from the current folder
    train: images/train                      # a folder, a list file, or several
    val: images/val
    masks_dir: masks                         # replaces "images" in an image's path to give its mask's path
    names: {0: road, 1: car}
    label_mapping: {7: 0, 26: 1, 0: ignore_label}   # id in the masks -> class

Other keys (`nc`, …) are ignored.
"""

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from lpsnet.data import description
from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import LIST_SUFFIX, find_images, read_list, resolve
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
    return {"path": str(root)} | places | _classes(values)


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
    """The place without the "../" that Roboflow writes before it, if it exists without."""
    shorter = place.removeprefix("../")
    return shorter if not (root / place).exists() and (root / shorter).exists() else place


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

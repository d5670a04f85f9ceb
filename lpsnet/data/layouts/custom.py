"""The files that a description (`description.py`) names, as splits."""

from pathlib import Path, PurePosixPath

from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from lpsnet.data.labels import LabelSpace
from lpsnet.data.layouts.description import Description, Places
from lpsnet.data.layouts.pairing import Found, Keyed, build_splits, read_list
from lpsnet.data.layouts.places import LIST_SUFFIX, SPLIT, collect, expand_splits, resolve
from lpsnet.data.splits import FileSplit
from lpsnet.errors import DataError
from lpsnet.io import expand_home

WHOLE = "all"  # the only split of a description whose places have no splits


def build_parts(description: Description, folder: Path, space: LabelSpace) -> list[FileSplit]:
    """The splits of a description that stands in `folder`.

    Raises:
        DataError: the places it names are not there, or do not fit together.
    """
    root = folder / expand_home(description.path)
    if not root.is_dir():
        raise DataError(f"'path': folder {root} does not exist")
    if description.lists is not None:
        found, known = _listed(description, root)
    else:
        found, known = _placed(description, root), set()
    _check_found(found, description)
    found = _exclude(found, description.exclude)
    return build_splits(space, description.decoder(), found, unlisted={*known, *description.exclude})


def _placed(description: Description, root: Path) -> dict[str, Found]:
    """The files of each split where every split has places of its own (or there is one split only)."""
    images = _image_places(description.images, root)
    masks = _mask_places(description.masks, root, list(images))
    found = {name: _gather(description, root, places, masks[name]) for name, places in images.items()}
    # Pictures and label files may share a folder or a pattern of folders: what is a label file is no picture.
    taken = {path for files in found.values() for _, path in files.masks}
    for name, files in found.items():
        found[name] = files._replace(images=[(key, path) for key, path in files.images if path not in taken])
    if isinstance(description.images, str):
        found = {name: files for name, files in found.items() if files.images or name == WHOLE}
    if not found:
        raise DataError("there are no pictures; look at 'images' and 'image_suffix'")
    return _divide(description, found)


def _image_places(value: Places, root: Path) -> dict[str, list[str]]:
    if isinstance(value, dict):
        return {name: _as_list(places) for name, places in value.items()}
    if SPLIT not in value:
        return {WHOLE: [value]}
    places = expand_splits(root, value)
    if not places:
        raise DataError(f"'images': nothing like {root / value} exists")
    return {name: [place] for name, place in places.items()}


def _mask_places(value: Places, root: Path, splits: list[str]) -> dict[str, list[str]]:
    """Places of label files by split, an empty list for a split without labels."""
    if isinstance(value, dict):
        extra = [name for name in value if name not in splits]
        if extra:
            raise DataError(f"'masks' has split {extra[0]!r}, which 'images' has not; it has {', '.join(splits)}")
        return {name: _as_list(value.get(name, [])) for name in splits}
    if SPLIT not in value:
        return {name: [value] for name in splits}
    places = expand_splits(root, value)
    return {name: [places[name]] if name in places else [] for name in splits}


def _as_list(places: str | list[str]) -> list[str]:
    return [places] if isinstance(places, str) else list(places)


def _gather(description: Description, root: Path, image_places: list[str], mask_places: list[str]) -> Found:
    ending = _stem_ending(description.mask_suffix)
    images: Keyed = []
    masks: Keyed = []
    for place in image_places:
        keyed = collect(root, place, suffixes=IMAGE_SUFFIXES, ending=_stem_ending(description.image_suffix))
        images += keyed
        masks += _second_column(root, place, keyed)
    if not masks:
        for place in mask_places:
            masks += collect(root, place, suffixes=MASK_SUFFIXES, ending=ending)
    return Found(images, masks, root / (mask_places[0] if mask_places else ""), ending)


def _stem_ending(suffix: str) -> str:
    """`mask_suffix` may be written with the file's suffix, "_L.png" for "_L"."""
    return suffix[: -len(Path(suffix).suffix)] if Path(f"x{suffix}").suffix.lower() in IMAGE_SUFFIXES else suffix


def _second_column(root: Path, place: str, images: Keyed) -> Keyed:
    """The label files that a list file names after its pictures."""
    list_file = root / expand_home(place)
    if list_file.suffix != LIST_SUFFIX:
        return []
    rows = read_list(list_file)
    return [
        (key, resolve(root, list_file, words[1]))
        for (key, _), words in zip(images, rows, strict=True)
        if len(words) == 2
    ]


def _divide(description: Description, found: dict[str, Found]) -> dict[str, Found]:
    """Carry out `val_fraction`: neighbours in name order stay together, as frames of one video should."""
    fraction = description.val_fraction
    if fraction is None:
        return found
    if list(found) != [WHOLE]:
        raise DataError("'val_fraction' divides one folder, but 'images' has splits already")
    files = found[WHOLE]
    images = sorted(files.images)
    if len(images) < 2:
        raise DataError(f"'val_fraction' needs two pictures or more to divide; there are {len(images)}")
    count = min(max(round(len(images) * fraction), 1), len(images) - 1)
    parts = {"train": images[:-count], "val": images[-count:]}
    return {name: files._replace(images=members) for name, members in parts.items()}


def _listed(description: Description, root: Path) -> tuple[dict[str, Found], set[str]]:
    """The files of each split where list files choose from shared folders, and the keys that no list has."""
    if not (isinstance(description.images, str) and isinstance(description.masks, str)) or description.val_fraction:
        raise DataError("with 'lists', 'images' and 'masks' are one folder each, and there is no 'val_fraction'")
    for key, place in (("images", description.images), ("masks", description.masks)):
        if SPLIT in place:
            raise DataError(f"with 'lists', {key!r} is a folder that all splits share; got {place!r}")
    files = _gather(description, root, [description.images], [description.masks])
    lists = description.lists if isinstance(description.lists, dict) else expand_splits(root, description.lists or "")
    if not lists:
        raise DataError(f"'lists': nothing like {root / str(description.lists)} exists, or it has no {SPLIT} in it")
    chosen = {name: files._replace(images=_choose(root / place, dict(files.images))) for name, place in lists.items()}
    return chosen, {key for key, _ in files.images}


def _choose(list_file: Path, images: dict[str, Path]) -> Keyed:
    chosen = []
    for words in read_list(list_file):
        entry = PurePosixPath(words[0])
        spellings = (words[0], words[0].removesuffix(entry.suffix), entry.name, entry.stem)
        key = next((spelling for spelling in spellings if spelling in images), None)
        if key is None:
            raise DataError(f"list {list_file} names {words[0]!r}, which is not among the {len(images)} pictures")
        chosen.append((key, images[key]))
    return chosen


def _exclude(found: dict[str, Found], names: list[str]) -> dict[str, Found]:
    excluded = set(names)
    unknown = excluded - {key for files in found.values() for key, _ in files.images}
    if unknown:
        raise DataError(f"'exclude' lists {min(unknown)!r}, which is the name of no picture")
    return {
        name: files._replace(images=[(key, path) for key, path in files.images if key not in excluded])
        for name, files in found.items()
    }


def _check_found(found: dict[str, Found], description: Description) -> None:
    """A description whose files are not found would otherwise be a data set without pictures or without labels."""
    if description.masks != {} and not any(files.masks for files in found.values()):
        raise DataError("there are no label files (PNG, BMP or TIFF); look at 'masks' and 'mask_suffix'")
    paired = {name: _paired(files) for name, files in found.items()}
    used = set().union(*paired.values())
    for name, files in found.items():
        if not files.images:
            raise DataError(f"split {name!r} has no pictures; look at 'images' and 'image_suffix'")
        # Label files that serve another split are a folder that splits share, in which this one has none.
        if files.masks and not any(path in used for _, path in files.masks):
            raise DataError(_mismatch(name, files))


def _paired(files: Found) -> set[Path]:
    masks = dict(files.masks)
    return {masks[key] for key, _ in files.images if key in masks}


def _mismatch(name: str, files: Found) -> str:
    key, path = files.images[0]
    wanted = f"picture {path} would need {files.expected / key}{files.ending}.png"
    return f"no label file of split {name!r} has the name of a picture: {wanted}; look at 'mask_suffix'"

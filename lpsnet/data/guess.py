"""Guessing how a folder of images and label files is laid out.

Images and label files are distinguished by their contents: a label file has few different values and a lossless format.
They belong together if their folders differ in one part only and their stems are equal except for an ending.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpsnet.data.decode import mask_values
from lpsnet.data.description import WHOLE, Description, is_described
from lpsnet.data.images import MASK_SUFFIXES, read_mask
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

_FEW = 64  # values in a label file; a photograph has more
_SAMPLED = 3  # files read to distinguish images from label files
_VAL_FRACTION = 0.2  # if the folder has no splits
_MAX_CLASSES = 254
_SPLIT = re.compile(r"(train|val|test)(ing|idation|id)?(?![a-z])|(train|val|test)(?=annot|image|img|mask|label)", re.I)
_MASK_WORDS = re.compile(r"mask|label|annot|ann_|seg|gt|_L$|truth", re.I)


@dataclass(frozen=True)
class _Match:
    """A folder of images with its folder of label files (maybe the same); paths from the root."""

    images: Path
    masks: Path
    image_suffix: str
    mask_suffix: str
    pairs: tuple[tuple[Path, Path], ...]


# The folders of images and masks of mmsegmentation, ultralytics and ADE20K
_KNOWN = (("img_dir", "ann_dir"), ("images", "masks"), ("images", "annotations"))
_TRAIN = ("train", "training")


def is_known_folder(root: Path) -> bool:
    """Whether a folder has a description or a usual layout, so that training on it needs no guess."""
    pairs = [(root / images / train, root / masks / train) for images, masks in _KNOWN for train in _TRAIN]
    return is_described(root) or any(images.is_dir() and masks.is_dir() for images, masks in pairs)


def guess_description(root: Path) -> Description:
    """A description of a folder without one; classes are named after their values.

    Raises:
        DataError: no images and label files that belong together were found.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in find_images(root):
        folders[path.parent.relative_to(root)].append(path)
    matches = [match for match in (_best_match(name, folders) for name in folders) if match is not None]
    if not matches:
        raise DataError(f"no images with label files of the same names were found in {root}; write a description")
    suffixes = Counter((match.image_suffix, match.mask_suffix) for match in matches).most_common(1)[0][0]
    matches = [match for match in matches if (match.image_suffix, match.mask_suffix) == suffixes]
    values = _places(matches) | _values(mask for match in matches for _, mask in match.pairs)
    values |= {key: text for key, text in zip(("image_suffix", "mask_suffix"), suffixes, strict=True) if text}
    return Description.model_validate(values)


def _best_match(images: Path, folders: dict[Path, list[Path]]) -> _Match | None:
    """The folder with the most label files for the images of `images`."""
    near = [masks for masks in folders if _differing_part(images, masks) is not None]
    matches = [match for masks in near for match in _matches(images, masks, folders)]
    matches = [match for match in matches if _is_likely(match)]
    return max(matches, key=lambda match: len(match.pairs), default=None)


def _differing_part(first: Path, second: Path) -> int | None:
    """The index of the only part in which two paths of equal length differ; -1 if they are equal, None if in more."""
    if len(first.parts) != len(second.parts):
        return None
    different = [index for index, (a, b) in enumerate(zip(first.parts, second.parts, strict=True)) if a != b]
    return None if len(different) > 1 else (different or [-1])[0]


def _matches(images: Path, masks: Path, folders: dict[Path, list[Path]]) -> list[_Match]:
    """Pairings of two folders by equal stems, without or with endings on one or both sides."""
    labels = {path.stem: path for path in folders[masks] if path.suffix.lower() in MASK_SUFFIXES}
    first = folders[images][0].stem
    found = []
    for image_suffix in {"", _last_word(first)}:
        key = first.removesuffix(image_suffix)
        for mask_suffix in {stem.removeprefix(key) for stem in labels if key and stem.startswith(key)}:
            pairs = []
            for path in folders[images]:
                mask = labels.get(path.stem.removesuffix(image_suffix) + mask_suffix)
                if mask is not None and mask != path and path.stem.endswith(image_suffix):
                    pairs.append((path, mask))
            if pairs:
                found.append(_Match(images, masks, image_suffix, mask_suffix, tuple(pairs)))
    return found


def _last_word(stem: str) -> str:
    """The ending of a stem from its last "_": "a_leftImg8bit" -> "_leftImg8bit"."""
    return stem[stem.rindex("_") :] if "_" in stem[1:] else ""


def _is_likely(match: _Match) -> bool:
    sample = match.pairs[:_SAMPLED]
    if not all(_has_few_values(mask) for _, mask in sample):
        return False
    named = _MASK_WORDS.search(f"{match.masks}{match.mask_suffix}")
    return named is not None or not all(_has_few_values(image) for image, _ in sample)


def _has_few_values(path: Path) -> bool:
    try:
        return len(mask_values(read_mask(path))[1]) <= _FEW
    except DataError:
        return False


def _places(matches: list[_Match]) -> dict[str, Any]:
    """`images` and `masks` of a description, by split if folders are named after splits."""
    images: dict[str, list[str]] = defaultdict(list)
    masks: dict[str, list[str]] = defaultdict(list)
    for match in matches:
        part = _split_part(match.images)
        split = _split_name(match.images.parts[part]) if part >= 0 else WHOLE
        depth = max(part, _differing_part(match.images, match.masks) or 0) + 1
        for places, path in ((images[split], match.images), (masks[split], match.masks)):
            place = Path(*path.parts[:depth]).as_posix()
            if place not in places:
                places.append(place)
    if list(images) == [WHOLE] and len(images[WHOLE]) == 1:
        whole = {"images": images[WHOLE][0], "masks": masks[WHOLE][0]}
        return whole | ({"val_fraction": _VAL_FRACTION} if sum(len(match.pairs) for match in matches) > 1 else {})
    return {"images": dict(images), "masks": dict(masks)}


def _split_part(path: Path) -> int:
    return next((index for index, part in enumerate(path.parts) if _SPLIT.match(part)), -1)


def _split_name(part: str) -> str:
    match = _SPLIT.match(part)
    assert match is not None
    return (match[1] or match[3]).lower()


def _values(masks: Iterable[Path]) -> dict[str, Any]:
    """Names for all values in the label files; unreadable files and those of the rarer kind are ignored."""
    found: dict[bool, Counter[Any]] = {False: Counter(), True: Counter()}
    files: Counter[bool] = Counter()
    for path in masks:
        try:
            are_colours, values = mask_values(read_mask(path))
        except DataError:
            continue
        files[are_colours] += 1
        found[are_colours].update(values)
    are_colours = files[True] > files[False]
    if len(found[are_colours]) > _MAX_CLASSES:
        raise DataError(
            f"the label files hold {len(found[are_colours])} different values; up to {_MAX_CLASSES} are possible"
        )
    return class_map(found[are_colours], are_colours=are_colours)


def class_map(values: Iterable[Any], *, are_colours: bool) -> dict[str, Any]:
    """The keys of a description for label values whose classes have no names yet."""
    found = sorted(values)
    if are_colours:
        return {"colour_map": {"colour_{}_{}_{}".format(*colour): list(colour) for colour in found}}
    if len(found) > 2 and found[-1] == IGNORE_INDEX:  # with two or more other ids, 255 means no label
        found = found[:-1]
    return {"names": {number: f"class_{number}" for number in found}}

"""Guessing how a folder of images and label files is laid out.

Images and label files are distinguished by their contents: a label file has few different values and a lossless format.
They belong together if their folders differ in one part only, are of the same split, and their stems are equal except
for an ending. What `lpsnet segment` wrote is never taken for labels; of several folders of label files one is
suggested, with a doubt that stops a training.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

from lpsnet.data.decode import mask_values
from lpsnet.data.description import WHOLE, Description, is_described
from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, read_mask
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import find_images, normal
from lpsnet.errors import DataError

_FEW = 64  # values in a label file; a photograph has more
_SAMPLED = 3  # files read to distinguish images from label files
_NAMES_SAMPLED = 16  # names in which endings are looked for
_VAL_FRACTION = 0.2  # if the folder has no splits
_MAX_CLASSES = 254
_SPLIT = re.compile(r"(train|val|test)(ing|idation|id)?((?![a-z])|(?=annot|image|img|mask|label))", re.I)
_MASK_WORDS = re.compile(r"mask|label|annot|ann_|seg|gt|_L$|truth", re.I)
_RUN = ("run.json", "log.csv")  # a folder with one of these holds a run's results


class Guess(NamedTuple):
    """A description that was guessed, and why it may be wrong: a line each; empty if nothing else was possible."""

    description: Description
    doubts: tuple[str, ...]


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


def guess_description(root: Path) -> Guess:
    """A description of a folder without one; classes are named after their values.

    Raises:
        DataError: no images and label files that belong together were found.
    """
    folders: dict[Path, list[Path]] = defaultdict(list)
    for path in find_images(root):
        folders[path.parent.relative_to(root)].append(path)
    folders = {name: paths for name, paths in folders.items() if not any((root / name / run).is_file() for run in _RUN)}
    candidates = {name: found for name in folders if (found := _likely_matches(name, folders))}
    if not candidates:
        raise DataError(f"no images with label files of the same names were found in {root}; write a description")
    suffixes = _usual_suffixes(candidates)
    doubts = [line for found in candidates.values() if (line := _doubt(found, root, suffixes))]
    matches = [max(found, key=lambda match: _preference(match, suffixes)) for found in candidates.values()]
    matches = [match for match in matches if (match.image_suffix, match.mask_suffix) == suffixes]
    values = _places(matches, _unlabelled(matches, folders)) | _values(
        mask for match in matches for _, mask in match.pairs
    )
    values |= {key: text for key, text in zip(("image_suffix", "mask_suffix"), suffixes, strict=True) if text}
    return Guess(Description.model_validate(values), tuple(doubts))


def _usual_suffixes(candidates: Mapping[Path, list[_Match]]) -> tuple[str, str]:
    """The endings of images and of label files that most images have."""
    counts: Counter[tuple[str, str]] = Counter()
    for found in candidates.values():
        for match in found:
            counts[match.image_suffix, match.mask_suffix] += len(match.pairs)
    return max(counts, key=lambda both: (counts[both], -len(both[0] + both[1]), both))


def _preference(match: _Match, suffixes: tuple[str, str]) -> tuple[bool, int, int, str]:
    """The largest is the likeliest: usual endings, most images, the shortest name."""
    is_usual = (match.image_suffix, match.mask_suffix) == suffixes
    return is_usual, len(match.pairs), -len(str(match.masks)), str(match.masks)


def _doubt(found: list[_Match], root: Path, suffixes: tuple[str, str]) -> str:
    """Why the label files chosen for a folder of images may be the wrong ones; empty if there are no others."""
    best = max(found, key=lambda match: _preference(match, suffixes))
    taken = {mask for _, mask in best.pairs}
    others = [match for match in found if not taken.issuperset(mask for _, mask in match.pairs)]
    if not others:
        return ""
    found = [best, *sorted(others, key=lambda match: _preference(match, suffixes), reverse=True)]
    counts = ", ".join(
        f"{match.masks.as_posix()}/*{match.mask_suffix}{match.pairs[0][1].suffix} ({len(match.pairs)})"
        for match in found
    )
    total = f"the images of {root / found[0].images} have several kinds of label files: {counts}"
    return f"{total}; say which in a description: `masks`, `mask_suffix` (suggested: the first)"


def _likely_matches(images: Path, folders: dict[Path, list[Path]]) -> list[_Match]:
    """What may be the label files of the images of a folder: in which folder, with which ending."""
    near = [masks for masks in folders if _differing_part(images, masks) is not None]
    near = [masks for masks in near if _splits_of(images) == _splits_of(masks)]
    return [match for masks in near for match in _matches(images, masks, folders) if _is_likely(match)]


def _splits_of(path: Path) -> list[str]:
    return [_split_name(part) for part in path.parts if _SPLIT.match(part)]


def _unlabelled(matches: list[_Match], folders: dict[Path, list[Path]]) -> list[Path]:
    """Folders of images without label files that are laid out as those with them, of another split."""
    used = {match.images for match in matches} | {match.masks for match in matches}
    known = {_without_split(match.images) for match in matches if _splits_of(match.images)}
    rest = [name for name in folders if name not in used and _splits_of(name) and _without_split(name) in known]
    return [name for name in rest if not _have_few_values(folders[name])]


def _without_split(path: Path) -> tuple[str, ...]:
    return tuple(_SPLIT.sub("", part, count=1) if _SPLIT.match(part) else part for part in path.parts)


def _differing_part(first: Path, second: Path) -> int | None:
    """The index of the only part in which two paths of equal length differ; -1 if they are equal, None if in more."""
    if len(first.parts) != len(second.parts):
        return None
    different = [index for index, (a, b) in enumerate(zip(first.parts, second.parts, strict=True)) if a != b]
    return None if len(different) > 1 else (different or [-1])[0]


def _matches(images: Path, masks: Path, folders: dict[Path, list[Path]]) -> list[_Match]:
    """Pairings of two folders by equal stems, without or with endings on one or both sides."""
    labels = {normal(path.stem): path for path in folders[masks] if path.suffix.lower() in MASK_SUFFIXES}
    found: list[_Match] = []
    for image_suffix, mask_suffix in sorted(_endings(folders[images], labels)):
        pairs = []
        for path in folders[images]:
            mask = labels.get(normal(path.stem).removesuffix(image_suffix) + mask_suffix)
            mask = labels.get(normal(path.name)) if mask is None and not mask_suffix else mask
            if mask is not None and mask != path and path.stem.endswith(image_suffix):
                pairs.append((path, mask))
        if pairs:
            found.append(_Match(images, masks, image_suffix, mask_suffix, tuple(pairs)))
    return [match for match in found if not _is_by_chance(match, found, folders[images])]


def _is_by_chance(match: _Match, found: list[_Match], images: list[Path]) -> bool:
    """Whether an ending only looks like one: "0" after "1" is that of "10", "0_gt" that of "10_gt"."""
    ending = match.mask_suffix
    rivals = (len(other.pairs) for other in found if other.mask_suffix != ending and ending.endswith(other.mask_suffix))
    is_rare = len(match.pairs) <= max(rivals, default=0) or 2 * len(match.pairs) <= len(images)
    return ending[:1].isalnum() and is_rare


def _endings(images: list[Path], labels: Mapping[str, Path]) -> set[tuple[str, str]]:
    """The endings of images and label files that some images have; one image may lack its label file."""
    sample = [normal(path.stem) for path in images[:: max(1, len(images) // _NAMES_SAMPLED)]]
    words = Counter(map(_last_word, sample))
    usual = {"", *(word for word, count in words.items() if 2 * count > len(sample))}  # not the number of an image
    found = {("", "")}
    for stem, image_suffix in product(sample, usual):
        key = stem.removesuffix(image_suffix)
        found |= {(image_suffix, label[len(key) :]) for label in labels if key and label.startswith(key)}
    return {both for both in found if both[1].lower() not in IMAGE_SUFFIXES}  # a.jpg.png of a.jpg has no ending


def _last_word(stem: str) -> str:
    """The ending of a stem from its last "_": "a_leftImg8bit" -> "_leftImg8bit"."""
    return stem[stem.rindex("_") :] if "_" in stem[1:] else ""


def _is_likely(match: _Match) -> bool:
    if not _have_few_values(mask for _, mask in match.pairs):
        return False
    if not _have_few_values(image for image, _ in match.pairs):
        return True
    masks, images = (_MASK_WORDS.search(name) is not None for name in _names(match))
    return masks and not images


def _names(match: _Match) -> tuple[str, str]:
    """What tells the label files of a match from its images, and the reverse: parts of folders, and endings."""
    part = _differing_part(match.images, match.masks)
    own = (match.masks.parts[part], match.images.parts[part]) if part is not None and part >= 0 else ("", "")
    return f"{own[0]}{match.mask_suffix}", f"{own[1]}{match.image_suffix}"


def _have_few_values(paths: Iterable[Path]) -> bool:
    """Whether the first files that can be read as label files have few values; False if there are none."""
    judged = (few for path in paths if (few := _has_few_values(path)) is not None)
    sample = list(islice(judged, _SAMPLED))
    return bool(sample) and all(sample)


def _has_few_values(path: Path) -> bool | None:
    """None for a damaged file; an image of a format that changes numbers has many."""
    if path.suffix.lower() not in MASK_SUFFIXES:
        return False
    try:
        return len(mask_values(read_mask(path))[1]) <= _FEW
    except DataError:
        return None


def _places(matches: list[_Match], unlabelled: list[Path]) -> dict[str, Any]:
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
    for name in unlabelled:
        part = _split_part(name)
        place = Path(*name.parts[: max(part, _last_difference(matches)) + 1]).as_posix()
        if place not in images[_split_name(name.parts[part])]:
            images[_split_name(name.parts[part])].append(place)
    if list(images) == [WHOLE] and len(images[WHOLE]) == 1:
        whole = {"images": images[WHOLE][0], "masks": masks[WHOLE][0]}
        return whole | ({"val_fraction": _VAL_FRACTION} if sum(len(match.pairs) for match in matches) > 1 else {})
    return {"images": dict(images), "masks": dict(masks)}


def _last_difference(matches: list[_Match]) -> int:
    return max((_differing_part(match.images, match.masks) or 0 for match in matches), default=0)


def _split_part(path: Path) -> int:
    return next((index for index, part in enumerate(path.parts) if _SPLIT.match(part)), -1)


def _split_name(part: str) -> str:
    match = _SPLIT.match(part)
    assert match is not None
    return match[1].lower()


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

"""Guessing how a folder of images and label files is laid out.

Images and label files are distinguished by their contents: a label file has few different values and a lossless format.
They belong together if their folders differ in one part only, are of the same split, and their stems are equal except
for an ending. What `lpsnet segment` wrote is never taken for labels; of several folders of label files one is
suggested, with a doubt that stops a training. Names of classes are taken from a table beside the label files
(`class_dict.csv`, `label_colors.txt`, Roboflow's `_classes.csv`, CVAT's `labelmap.txt`).
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from lpsnet.data.decode import list_counts, mask_values
from lpsnet.data.description import WHOLE, Description, is_described
from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, read_mask
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.data.pairing import find_images, normal, walk
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
    """A description that was guessed.

    Attributes:
        description: the guess.
        doubts: why it may be wrong, a line each; empty if nothing else was possible.
        remarks: what was decided, a line each.
        strays: what looks like an accident in the values of the label files, a line each.
    """

    description: Description
    doubts: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()


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
        raise DataError(_why_nothing(root, folders))
    suffixes = _usual_suffixes(candidates)
    doubts = [line for found in candidates.values() if (line := _doubt(found, root, suffixes))]
    matches = [max(found, key=lambda match: _preference(match, suffixes)) for found in candidates.values()]
    matches = [match for match in matches if (match.image_suffix, match.mask_suffix) == suffixes]
    are_colours, counts = _values(mask for match in matches for _, mask in match.pairs)
    named = _named_values(root, matches, are_colours=are_colours)
    values = _places(matches, _unlabelled(matches, folders)) | class_map(counts, are_colours=are_colours, named=named)
    values |= {key: text for key, text in zip(("image_suffix", "mask_suffix"), suffixes, strict=True) if text}
    if not are_colours and (doubt := _doubt_of_255(counts)) and not named.values:
        doubts.append(doubt)
    remarks, strays = (each(counts, named, are_colours=are_colours) for each in (_remarks, _strays))
    return Guess(Description.model_validate(values), tuple(doubts), remarks, strays)


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
    """The index of the only part in which two paths of equal length differ; -1 if they are equal, None if in more.

    Two words for one split ("train" and "training") are no difference.
    """
    if len(first.parts) != len(second.parts):
        return None
    pairs = enumerate(zip(first.parts, second.parts, strict=True))
    different = [index for index, (a, b) in pairs if a != b and not _are_one_split(a, b)]
    return None if len(different) > 1 else (different or [-1])[0]


def _are_one_split(first: str, second: str) -> bool:
    return all(map(_SPLIT.fullmatch, (first, second))) and _split_name(first) == _split_name(second)


def _matches(
    images: Path, masks: Path, folders: dict[Path, list[Path]], suffixes: tuple[str, ...] = MASK_SUFFIXES
) -> list[_Match]:
    """Pairings of two folders by equal stems, without or with endings on one or both sides."""
    labels = {normal(path.stem): path for path in folders[masks] if path.suffix.lower() in suffixes}
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
    has_splits = any(_split_part(match.images) >= 0 for match in matches)
    for match in matches:
        part = _split_part(match.images)
        split = _split_name(match.images.parts[part]) if part >= 0 else WHOLE
        depth = max(part, _differing_part(match.images, match.masks) or 0) + 1
        if part < 0 and has_splits:  # "dev" beside "train" is a split by its own name, not all that is above both
            split, depth = match.images.name or WHOLE, len(match.images.parts)
        for places, path in ((images[split], match.images), (masks[split], match.masks)):
            place = Path(*path.parts[:depth]).as_posix()
            if place not in places:
                places.append(place)
    for name in unlabelled:
        part = _split_part(name)
        place = Path(*name.parts[: max(part, _last_difference(matches)) + 1]).as_posix()
        if place not in images[_split_name(name.parts[part])]:
            images[_split_name(name.parts[part])].append(place)
    divided = {"val_fraction": _VAL_FRACTION} if sum(len(match.pairs) for match in matches) > 1 else {}
    if list(images) != [WHOLE]:
        return {"images": dict(images), "masks": dict(masks)}
    if len(images[WHOLE]) > 1:
        return {"images": dict(images), "masks": dict(masks), **divided}
    return {"images": images[WHOLE][0], "masks": masks[WHOLE][0], **divided}


def _last_difference(matches: list[_Match]) -> int:
    return max((_differing_part(match.images, match.masks) or 0 for match in matches), default=0)


def _split_part(path: Path) -> int:
    return next((index for index, part in enumerate(path.parts) if _SPLIT.match(part)), -1)


def _split_name(part: str) -> str:
    match = _SPLIT.match(part)
    assert match is not None
    return match[1].lower()


def _values(masks: Iterable[Path]) -> tuple[bool, Counter[Any]]:
    """Whether the label files hold colours, and their pixels by value; unreadable and rarer kinds are left out."""
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
    return are_colours, found[are_colours]


class Named(NamedTuple):
    """Names of label values, and the file that has them."""

    values: Mapping[Any, str] = {}
    file: Path = Path()


_UNNAMED = Named()


def class_map(values: Iterable[Any], *, are_colours: bool, named: Named = _UNNAMED) -> dict[str, Any]:
    """The keys of a description for label values, whose classes may have no names yet."""
    found = sorted(values)
    if not are_colours and _is_no_label(found):
        found.remove(IGNORE_INDEX)
    found = [*named.values, *(value for value in found if value not in named.values)]
    if not are_colours:
        return {"names": {number: named.values.get(number, f"class_{number}") for number in found}}
    colour_map: dict[str, Any] = {}
    for colour in found:
        own = named.values.get(colour, "colour_{}_{}_{}".format(*colour))
        colour_map[own] = list(colour) if own not in colour_map else [*_listed(colour_map[own]), list(colour)]
    return {"colour_map": colour_map}


def _listed(value: list[Any]) -> list[Any]:
    """One colour or several, as several."""
    return value if isinstance(value[0], list) else [value]


# 255


_SMALL = 64  # ids that number classes; grey levels for people to look at are larger


def _is_no_label(found: list[int]) -> bool:
    """Whether 255 means no label: beside two or more others, unless all are grey levels with equal steps up to 255."""
    return len(found) > 2 and found[-1] == IGNORE_INDEX and not _are_grey_levels(found)


def _are_grey_levels(found: list[int]) -> bool:
    """0, 127, 255 or 0, 85, 170, 255: classes painted to be told apart, not numbered."""
    steps = [high - low for low, high in pairwise(found)]
    return found[-2] >= _SMALL and max(steps) - min(steps) <= 2


def _doubt_of_255(found: Counter[Any]) -> str:
    """Why it is unknown what 255 means; empty if it is known, or does not occur."""
    others = sorted(number for number in found if number != IGNORE_INDEX)
    is_known = not _is_no_label(sorted(found)) or others[-1] < _SMALL or 2 * len(others) > others[-1]
    if is_known:
        return ""
    listed = ", ".join(map(str, [*others[:6], *["…"] * (len(others) > 6)]))
    return (
        f"the label files hold {listed} and 255, which may be a class or mean no label (suggested: no label); say it "
        "in a description: `names: {255: NAME, …}` makes it a class, and without that it means no label"
    )


def _remarks(found: Counter[Any], named: Named, *, are_colours: bool) -> tuple[str, ...]:
    remarks = []
    if not are_colours and _is_no_label(sorted(found)) and IGNORE_INDEX not in named.values:
        share = 100 * found[IGNORE_INDEX] / found.total()
        line = f"255 in the label files ({share:.1f} % of their pixels) means no label; if it is a class, name it: "
        remarks.append(line + "`names: {…, 255: NAME}`")
    if named.values:
        remarks.append(f"the classes have the names in {named.file}")
    return tuple(remarks)


_STRAY = 2e-4  # of all pixels: fewer are likelier an accident than a class


def _strays(found: Counter[Any], named: Named, *, are_colours: bool) -> tuple[str, ...]:
    """What compression, smooth edges and resizing leave: values of very few pixels, or without a name."""
    what, key = ("colours", "colour_map") if are_colours else ("ids", "names")
    total = found.total()
    if named.values:
        rare = [value for value in found if value not in named.values and (are_colours or value != IGNORE_INDEX)]
        why = f"have no name in {named.file}"
    else:
        rare = [value for value in found if found[value] < _STRAY * total]
        why = f"have less than {100 * _STRAY:g} % of the pixels each"
    if not rare or len(found) - len(rare) < 2:
        return ()
    listed = list_counts({value: found[value] for value in sorted(rare, key=lambda value: (found[value], value))})
    line = (
        f"{len(rare)} of {len(found)} {what} in the label files {why} ({listed}): left by resizing, smooth edges or "
        f"compression? Take them out of '{key}' and write 'ignore: others', so that they mean no label"
    )
    return (line,)


# Names


_TABLES = ("_classes.csv", "class_dict.csv", "class_dict.txt", "classes.csv", "label_colors.txt", "label_colours.txt",
           "labelmap.txt", "label_map.csv", "colormap.csv")  # fmt: skip
_NUMBER = r"\s*(\d{1,5})\s*"
_NAME_FIRST = re.compile(rf"(.*?\S)\s*[,;:\t]{_NUMBER}[,;\s]{_NUMBER}[,;\s]{_NUMBER}(?:[:,;].*)?")
_COLOUR_FIRST = re.compile(rf"{_NUMBER}[,;\s]{_NUMBER}[,;\s]{_NUMBER}[,;\s]\s*(\S.*?)")
_ID_FIRST = re.compile(rf"{_NUMBER}[,;\t]\s*(\S.*?)")


def _named_values(root: Path, matches: list[_Match], *, are_colours: bool) -> Named:
    """What a table of class names says, in the root or beside the label files; empty if there is none."""
    folders = dict.fromkeys(place for match in matches for place in (root / match.masks, (root / match.masks).parent))
    places = [root, *(folder for folder in folders if folder != root.parent)]
    for file in (folder / name for name in _TABLES for folder in places):
        rows = _rows(file) if file.is_file() else []
        table = [found for row in rows if (found := _row(row, are_colours=are_colours)) is not None]
        if table and len(table) >= len(rows) - 1 and len(dict(table)) == len(table):  # the first may be a heading
            return Named(dict(table), file)
    return _UNNAMED


def _rows(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _row(row: str, *, are_colours: bool) -> tuple[Any, str] | None:
    """Value and name; None for another kind of line."""
    if not are_colours:
        match = _ID_FIRST.fullmatch(row)
        return (int(match[1]), match[2].strip("\"' ")) if match and not _COLOUR_FIRST.fullmatch(row) else None
    if match := _COLOUR_FIRST.fullmatch(row):
        levels, name = match.groups()[:3], match[4]
    elif match := _NAME_FIRST.fullmatch(row):
        levels, name = match.groups()[1:], match[1]
    else:
        return None
    colour = tuple(map(int, levels))
    return (colour, name.strip("\"' ")) if max(colour) <= 255 else None


# Nothing found

_OTHER_LABELS = (".json", ".xml", ".txt", ".csv", ".npy", ".npz", ".mat")


def _why_nothing(root: Path, folders: dict[Path, list[Path]]) -> str:
    """Why there are no images with label files, as far as names and a look into some files tell."""
    others = Counter(path.suffix.lower() for path in walk(root) if path.suffix.lower() in _OTHER_LABELS)
    listed = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    advice = f"{f' (but {listed}, of no layout that is read)' if others else ''}; write a description"
    if not folders:
        return f"there are no images ({', '.join(IMAGE_SUFFIXES)}) in {root}{advice}"
    found = [
        match
        for images, masks in product(folders, folders)
        if _differing_part(images, masks) is not None and _splits_of(images) == _splits_of(masks)
        for match in _matches(images, masks, folders, IMAGE_SUFFIXES)
    ]
    by_names = [[_MASK_WORDS.search(name) is not None for name in _names(match)[::-1]] for match in found]
    found = [match for match, named in zip(found, by_names, strict=True) if named == [False, True]]
    if not found:
        line = f"no images with label files of the same names were found in {root}"
        return next((f"{line}: {why}" for why in _differing_beginnings(folders)), f"{line}{advice}")
    best = max(found, key=lambda match: _preference(match, ("", "")))
    return f"no images with label files were found in {root}: {_why_not([mask for _, mask in best.pairs[:_SAMPLED]])}"


def _differing_beginnings(folders: dict[Path, list[Path]]) -> Iterator[str]:
    """Folders whose names are equal but for their beginnings: img_001.jpg and mask_001.png."""
    rests = {}
    for folder, paths in folders.items():
        stems = [path.stem for path in paths]
        common = os.path.commonprefix(stems) if len(stems) > 1 else ""  # noqa: RUF071 - letters, not parts of paths
        common = common.rstrip("0123456789")
        rests[folder] = sorted(stem.removeprefix(common) for stem in stems)
    for first, second in product(folders, folders):
        if first < second and rests[first] == rests[second]:
            names = f"{folders[first][0].name} of {first.as_posix()}, {folders[second][0].name} of {second.as_posix()}"
            yield (
                f"names begin differently in two folders ({names}); write list files with an image and its label file "
                "a line, and a description that names them: `images: {train: train.txt, val: val.txt}`, `masks: {}`"
            )


def _why_not(paths: list[Path]) -> str:
    """Why files that are named like label files are none."""
    counts = {}
    for path in paths:
        if path.suffix.lower() not in MASK_SUFFIXES:
            return f"{path} is of a format that changes ids; save labels as PNG"
        try:
            counts[path] = len(mask_values(read_mask(path))[1])
        except DataError as error:
            return str(error)
    most = max(paths, key=lambda path: counts[path])
    why = "more than classes have: left by compression, resizing or smooth edges?"
    return (
        f"{most} holds {counts[most]} different values, {why} Write a description, with 'ignore: others' if they were"
    )

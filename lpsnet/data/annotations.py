"""Data sets labelled with shapes: what the readers in `formats` have in common.

A reader turns the files of a label program into `Marked` images: each with its image file and its marks, shapes that
carry a label in the file's own words. Here marks become class ids (`labels`, `ignore` and `background` of the
description), images are found and divided into splits, and what cannot be placed is refused, or counted and reported.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from lpsnet.data import description as describing
from lpsnet.data import pairing
from lpsnet.data.decode import LabelDecoder
from lpsnet.data.description import WHOLE, Description
from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.data.labels import IGNORE_INDEX, Colour, LabelSpace
from lpsnet.data.shapes import MAX_COORDINATE, Area, Drawing, Points, Polygon, Shape
from lpsnet.data.split import FileSplit
from lpsnet.errors import DataError, unknown_name
from lpsnet.io import expand_home, refuse_streams

T = TypeVar("T")

Coordinate = Annotated[float, Field(ge=-MAX_COORDINATE, le=MAX_COORDINATE, allow_inf_nan=False)]
Length = Annotated[int, Field(ge=1, le=MAX_COORDINATE)]  # of an image's side

VAL_FRACTION = 0.2  # of the images, the last by name, if nothing says which are for validation
_SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
                "test": "test", "testing": "test"}  # fmt: skip
_BLACK = (0, 0, 0)

# Kinds of marks that need a word of the user's: what to do about them
_NEEDS = {
    "line": "line_width=PIXELS gives it a width",
    "point": "line_width=PIXELS gives it a diameter",
    "bbox": "it says where an object is, not which pixels it covers; draw=bbox fills it",
}
_CANNOT = "it covers no pixels that could be drawn"


class Mark(NamedTuple):
    """One shape of a label file.

    Attributes:
        label: in the file's words; None for a region that is ignored, beneath all other shapes.
        kind: of the shape, e.g. "polygon", as messages, `draw` and `skip` name it.
        area: what it covers; None for a kind that covers no pixels.
    """

    label: str | None
    kind: str
    area: Area | None


class Marked(NamedTuple):
    """One image as label files describe it.

    Attributes:
        name: of the image in the label file, with "/" between folders.
        image: the image file.
        file: the label file.
        marks: in the order in which they are drawn: later ones cover earlier ones.
        size: (height, width) in pixels as the file states it; None if it does not.
        split: as the file or its place says; `WHOLE` if nothing does.
        is_relative: whether coordinates are parts of the image's width and height.
        problem: why the label file could not be read; reading this sample is an error then. "" if it could.
    """

    name: str
    image: Path
    file: Path
    marks: tuple[Mark, ...]
    size: tuple[int, int] | None = None
    split: str = WHOLE
    is_relative: bool = False
    problem: str = ""


@dataclass
class Reading:
    """What a reader found.

    Attributes:
        names: the labels, in the order of their classes.
        images: all that are labelled.
        colours: of labels, where the files have them.
        ignored: labels that mean no label, by the format's convention.
        remarks: what was left out or decided, a line each.
    """

    names: list[str]
    images: list[Marked]
    colours: dict[str, Colour] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    remarks: list[str] = field(default_factory=list)


Reader = Callable[[Description, Path], Reading]  # of a description in a folder


class Built(NamedTuple):
    """A data set made of a `Reading`: as `Dataset` has them."""

    space: LabelSpace
    parts: list[FileSplit]
    description: Description
    remarks: tuple[str, ...]


def build_marked(found: Description, folder: Path, read: Reader, default_name: str) -> Built:
    """The classes and splits of a description whose labels are shapes.

    Raises:
        DataError: files cannot be read, hold what no class has or cannot be drawn, or images cannot be placed.
    """
    root = folder / expand_home(found.path)
    if not root.is_dir():
        raise DataError(f"'path': folder {root} does not exist")
    reading = read(found, root)
    if not reading.images:
        raise DataError(f"no labelled images of the format {found.format!r} were found in {root}")
    if all(marked.problem for marked in reading.images):
        raise DataError(reading.images[0].problem)
    space, table = _classes(found, reading, default_name)
    splits, found = _splits(found, root, reading)
    placing = _Placing(found, table, found.ignore == "others")
    drawings: dict[Path, dict[Path, Drawing]] = defaultdict(dict)  # by image and label file
    for marked in reading.images:
        drawings[marked.image][marked.file] = placing.drawing(marked)
    parts = [_drawn(part, drawings) for part in pairing.build_splits(space, _PLAIN, splits, unlisted=found.exclude)]
    return Built(space, parts, found, (*reading.remarks, *_elsewhere(found, root, reading), *placing.remarks()))


def _elsewhere(found: Description, root: Path, reading: Reading) -> Iterable[str]:
    """Images of the same names may lie beside the folder of the labels by chance: where they were found is said."""
    base = os.path.abspath(root)  # noqa: PTH100 - keeps links
    outside = [marked.image for marked in reading.images if marked.image.exists() and not _is_below(marked.image, base)]
    if outside and "images" not in found.model_fields_set:
        folders = list(dict.fromkeys(map(str, (path.parent for path in outside))))
        more = f" and {len(folders) - 1} more folders" if len(folders) > 1 else ""
        yield (
            f"there are no images in {root}: {len(outside)} of the names in the label files were found beside it, in "
            f"{folders[0]}{more}; 'images' says where to look"
        )


def _is_below(path: Path, base: str) -> bool:
    return Path(os.path.abspath(path)).is_relative_to(base)  # noqa: PTH100 - keeps links


_PLAIN = LabelDecoder.index({IGNORE_INDEX: IGNORE_INDEX})  # label maps are drawn, not decoded


def _drawn(part: FileSplit, drawings: Mapping[Path, Mapping[Path, Drawing]]) -> FileSplit:
    """The split with its drawings: an image that several splits have is drawn by each one's own label file."""
    own = (drawings[pair.image] for pair in part.pairs)
    pairs = tuple(
        pair._replace(drawing=files.get(pair.mask or Path()) or next(iter(files.values())))
        for pair, files in zip(part.pairs, own, strict=True)
    )
    return FileSplit(part.name, part.label_space, part.decoder, pairs)


# Classes


def _classes(found: Description, reading: Reading, default_name: str) -> tuple[LabelSpace, dict[str, int]]:
    """The label space, and the class id (or `IGNORE_INDEX`) of every label that may occur."""
    listed = [] if isinstance(found.ignore, str) else found.ignore
    ignored = {*reading.ignored, *(entry for entry in listed if isinstance(entry, str))}
    renamed = found.labels or {}
    names = found.class_names() or list(
        dict.fromkeys(renamed.get(name, name) for name in reading.names if name not in ignored)
    )
    if found.background is not None and found.background not in names:
        names = [found.background, *names]
    if not names:
        raise DataError("the label files name no classes; give them with 'names'")
    if unknown := [name for name in renamed.values() if name not in names]:
        raise DataError(f"'labels': {unknown_name('class', unknown[0], names)}")
    places = {name: number for number, name in enumerate(names)}
    table = dict.fromkeys(ignored, IGNORE_INDEX) | places | {name: places[other] for name, other in renamed.items()}
    space = LabelSpace.from_names(found.name or default_name, names)
    colours = [_colour(found, reading, name, plain) for name, plain in zip(names, space.colours, strict=True)]
    return LabelSpace(space.name, space.names, tuple(colours)), table


def _colour(found: Description, reading: Reading, name: str, plain: Colour) -> Colour:
    if isinstance(found.colours, dict):
        return found.colours.get(name, plain)
    if found.colours:
        names = found.class_names()
        if len(found.colours) != len(names):
            raise DataError(f"'colours' has {len(found.colours)} entries for {len(names)} classes; give one for each")
        return found.colours[names.index(name)] if name in names else plain
    return _BLACK if name == found.background else reading.colours.get(name, plain)


@dataclass
class _Placing:
    """From marks to shapes; counts what is left out."""

    found: Description
    table: Mapping[str, int]
    ignore_others: bool
    left_out: Counter[str] = field(default_factory=Counter)

    def drawing(self, marked: Marked) -> Drawing:
        """The drawing of an image's marks: ignored regions first."""
        beneath = [mark for mark in marked.marks if mark.label is None]
        ordered = [*beneath, *(mark for mark in marked.marks if mark.label is not None)] if beneath else marked.marks
        shapes = [shape for mark in ordered if (shape := self._shape(mark, marked)) is not None]
        fill = IGNORE_INDEX if self.found.background is None else self.table[self.found.background]
        return Drawing(tuple(shapes), fill, marked.size, marked.is_relative, marked.problem)

    def _shape(self, mark: Mark, marked: Marked) -> Shape | None:
        if mark.kind in self.found.skip:
            self.left_out[f"shapes of kind {mark.kind!r} are left out, as 'skip' says"] += 1
            return None
        label = IGNORE_INDEX if mark.label is None else self._class_id(mark.label, marked)
        needs = _NEEDS.get(mark.kind, _CANNOT)
        is_drawn = mark.kind not in _NEEDS or mark.kind in self.found.draw
        if mark.kind in ("line", "point"):
            is_drawn = self.found.line_width is not None
        if mark.area is None or not is_drawn:
            remedy = f"{needs}; skip={mark.kind} leaves such shapes out (after the path, or in a description)"
            raise DataError(f"{marked.file}: image {marked.name!r} has a {mark.kind} labelled {mark.label!r}: {remedy}")
        if isinstance(mark.area, Polygon) and max(map(len, mark.area.rings)) < 3:
            self.left_out["polygons have fewer than three points and cover nothing"] += 1
        return Shape(label, mark.area)

    def _class_id(self, label: str, marked: Marked) -> int:
        if label in self.table:
            return self.table[label]
        if not self.ignore_others:
            known = unknown_name("label", label, self.table)
            remedy = "'labels' maps labels to classes, 'ignore' lists those that mean no label"
            raise DataError(f"{marked.file}: image {marked.name!r}: {known}; {remedy}")
        self.left_out[f"shapes labelled {label!r} mean no label, as 'ignore' says"] += 1
        return IGNORE_INDEX

    def remarks(self) -> list[str]:
        """What was left out, with counts."""
        return [f"{count} {text}" for text, count in self.left_out.items()]


# Splits


def split_word(text: str) -> str:
    """The split that a name speaks of: "instances_val2017" -> "val"; `WHOLE` if none or several."""
    words = {_SPLIT_WORDS[word] for word in re.findall(r"[a-z]+", text.lower()) if word in _SPLIT_WORDS}
    return words.pop() if len(words) == 1 else WHOLE


def describe_files(format: str, files: Sequence[Path]) -> Description:
    """The description of label files of one folder; by split where each file's name speaks of another one."""
    splits = {split_word(file.stem): file.name for file in files}
    if len(files) > 1 and len(splits) == len(files) and WHOLE not in splits:
        return Description(format=format, annotations=splits)
    return Description(format=format, annotations=[file.name for file in files])


def _splits(found: Description, root: Path, reading: Reading) -> tuple[dict[str, pairing.Found], Description]:
    """The files by split, and the description with the share for validation if that was decided here."""
    groups: dict[str, list[Marked]] = defaultdict(list)
    for marked in _distinct(reading.images):
        groups[marked.split].append(marked)
    splits = {name: _found(members, root) for name, members in groups.items()}
    if found.lists is not None:
        return describing.exclude_named(_listed(found, root, splits), found.exclude), found
    splits = describing.exclude_named(splits, found.exclude)
    if list(splits) == [WHOLE] and len(splits[WHOLE].images) > 1:
        if found.val_fraction is None:
            found = found.model_copy(update={"val_fraction": VAL_FRACTION})
            share = f"the last {VAL_FRACTION:.0%} of the images by name are split 'val'"
            reading.remarks.append(f"the labels name no splits: {share} (val_fraction, lists)")
        splits = describing.divide(found, splits)
    return splits, found


def _distinct(images: Sequence[Marked]) -> Iterable[Marked]:
    """The images; `DataError` if two labels are for one image file, of which one would be lost."""
    seen: dict[tuple[str | Path, Path], Marked] = {}
    for marked in images:
        others = [seen.setdefault((place, marked.image), marked) for place in (marked.split, marked.file)]
        if other := next((other for other in others if other is not marked), None):
            files = f"{other.name!r} in {other.file} and {marked.name!r} in {marked.file}"
            raise DataError(f"{files} are both labels of image {marked.image}; keep one of them")
    return images


def _found(members: Sequence[Marked], root: Path) -> pairing.Found:
    keyed = [("/".join(_name_parts(str(Path(marked.name).with_suffix("")))), marked) for marked in members]
    images = [(key, marked.image) for key, marked in keyed]
    return pairing.Found(images, [(key, marked.file) for key, marked in keyed], root)


def _listed(found: Description, root: Path, splits: Mapping[str, pairing.Found]) -> dict[str, pairing.Found]:
    every = [pair for files in splits.values() for pair in files.images]
    images = dict(every)
    if len(images) < len(every):
        twice = Counter(key for key, _ in every).most_common(1)[0][0]
        raise DataError(f"'lists' choose images by their names, but several are named {twice!r}")
    masks = [pair for files in splits.values() for pair in files.masks]
    lists = found.lists if isinstance(found.lists, dict) else pairing.expand_splits(root, found.lists or "")
    if not lists:
        raise DataError(f"'lists': nothing like {root / str(found.lists)} exists, or it has no {pairing.SPLIT} in it")
    chosen = {name: describing.choose(root / place, images) for name, place in lists.items()}
    return {name: pairing.Found(members, masks, root) for name, members in chosen.items()}


# Files


def label_files(found: Description, root: Path, suffix: str) -> list[tuple[str, Path]]:
    """The label files with their splits: those that `annotations` names, and those in folders that it names.

    Raises:
        DataError: a place does not exist.
    """
    places = found.annotations if found.annotations is not None else "."
    if isinstance(places, str) and pairing.SPLIT in places:
        places = dict(pairing.expand_splits(root, places))
        if not places:
            raise DataError(f"'annotations': nothing like {root / str(found.annotations)} exists")
    named = places if isinstance(places, dict) else {WHOLE: places}
    files = []
    for split, members in named.items():
        for place in [members] if isinstance(members, str) else members:
            target = root / expand_home(place)
            if not target.exists():
                raise DataError(f"'annotations': {target} does not exist")
            files += [(split, path) for path in (files_in(target, suffix) if target.is_dir() else [target])]
    return files


def files_in(folder: Path, suffix: str) -> list[Path]:
    """The files with a suffix in a folder and its folders, sorted, without hidden ones."""
    found = (path for path in folder.rglob(f"*{suffix}") if not path.name.startswith(".") and path.is_file())
    return sorted(found)


def head(path: Path, count: int = 2**16) -> bytes:
    """The first and the last bytes of a file, to see what it is; b"" if it cannot be read."""
    try:
        refuse_streams(path)
        with path.open("rb") as file:
            first = file.read(count)
            file.seek(max(count, path.stat().st_size - count))
            return first + file.read(count)
    except OSError:
        return b""


def read_bytes(path: Path) -> bytes:
    """The content of a label file. `DataError` if it cannot be read."""
    try:
        refuse_streams(path)
        return path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None


def read_json(path: Path, kind: TypeAdapter[T]) -> T:
    """The JSON in a file as a value of `kind`; keys that it does not name are passed over.

    Raises:
        DataError: the file cannot be read, is no JSON, or holds other values; the message says where.
    """
    try:
        return kind.validate_json(read_bytes(path))
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        deepest = max(found, key=lambda item: len(item["loc"]))  # where one of several kinds is allowed, the likeliest
        where = ".".join(key for key in map(str, deepest["loc"]) if re.fullmatch(r"[a-zA-Z]\w*|\d+", key))
        raise DataError(f"{path}{', at ' + where[:200] if where else ''}: {deepest['msg'][:300]}") from None


def to_points(values: Any, path: Path, what: str) -> Points:
    """N x 2 from pairs, or from x, y, x, y, …

    Raises:
        DataError: numbers that do not pair up.
    """
    flat = np.asarray(values, np.float64).ravel()
    if flat.size % 2 or not flat.size:
        raise DataError(f"{path}: {what} has {flat.size} numbers, which are no pairs of x and y")
    return flat.reshape(-1, 2)


def named_by_place(images: Sequence[Marked]) -> list[Marked]:
    """The images named by their paths from the deepest folder that holds all images of their split."""
    folders: dict[str, list[str]] = defaultdict(list)
    for marked in images:
        folders[marked.split].append(os.path.abspath(marked.image.parent))  # noqa: PTH100 - keeps links
    bases = {split: os.path.commonpath(members) for split, members in folders.items()}
    paths = [Path(os.path.abspath(marked.image)).relative_to(bases[marked.split]) for marked in images]  # noqa: PTH100
    return [marked._replace(name=path.as_posix()) for marked, path in zip(images, paths, strict=True)]


class ImageFinder:
    """Finds the image that a label file names, among the image files of some folders; no other file is ever opened."""

    def __init__(self, found: Description, root: Path) -> None:
        """Looks in the folders that `images` names; by default in `root`, and beside it if that has none."""
        named = _image_folders(found, root)
        self._folders = named or [root, root.parent]
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._by_letters: dict[str, list[Path]] = defaultdict(list)  # in lower case
        for folder in named or [root]:
            if not folder.is_dir():
                raise DataError(f"'images': folder {folder} does not exist")
            self._add(pairing.find_images(folder))
        if not named and not self._by_name:
            self._add(_images_beside(root))

    def _add(self, paths: Iterable[Path]) -> None:
        for path in paths:
            kept = Path(os.path.abspath(path))  # noqa: PTH100 - keeps links
            self._by_name[_folded(path.name)].append(kept)
            self._by_letters[_folded(path.name).casefold()].append(kept)

    def _below(self, path: Path) -> tuple[str, ...]:
        """The folders of an image below the one that was looked in."""
        folder = next(Path(base) for it in self._folders if path.is_relative_to(base := os.path.abspath(it)))  # noqa: PTH100
        return path.parent.relative_to(folder).parts

    @property
    def paths(self) -> list[Path]:
        """All images, sorted."""
        return sorted({path for members in self._by_name.values() for path in members})

    def named_like(self, file: Path) -> Path | None:
        """The image beside a label file with its stem; None if there is none, or several."""
        names = (f"{file.stem}{suffix}" for suffix in IMAGE_SUFFIXES)
        beside = Path(os.path.abspath(file.parent))  # noqa: PTH100 - keeps links
        found = [path for name in names for path in self._by_name.get(_folded(name), []) if path.parent == beside]
        return found[0] if len(found) == 1 else None

    def find(self, name: str, file: Path, *, split: str = WHOLE) -> Path:
        """The image `name` of a label file: of those with its last part, the one whose folders agree best.

        A name that is absolute, of another machine, or leads out of the folders counts by its last parts. Where no
        image has the name, one that differs in upper and lower case alone is it (a.JPG of a.jpg). For an image that
        does not exist, where it was looked for.

        Raises:
            DataError: several images would do.
        """
        parts = _name_parts(name)
        if not parts or "\0" in name:
            raise DataError(f"{file}: {name[:80]!r} is no name of an image")
        last = _folded(parts[-1])
        members = list(dict.fromkeys(self._by_name.get(last) or self._by_letters.get(last.casefold(), [])))
        rules: tuple[Callable[[Path], int], ...] = (
            lambda path: _shared_end(path.parts, (*parts[:-1], path.name)),
            lambda path: split != WHOLE and any(split_word(part) == split for part in self._below(path)),
            lambda path: len(os.path.commonpath([path, os.path.abspath(file)])),  # noqa: PTH100
        )
        for rule in rules if len(members) > 1 else ():
            best = max(map(rule, members))
            members = [path for path in members if rule(path) == best]
        if len(members) > 1:
            listed = " and ".join(map(str, members[:2]))
            raise DataError(f"{file}: image {name!r} may be {listed}; say where to look: images")
        return members[0] if members else self._folders[0] / parts[-1]


_OF_IMAGES = re.compile(
    r"(images?|imgs?|photos?|pictures?|jpegimages|frames?|rgb|raw)([-_ ].*|\d*)|(train|val|valid|test)\d*",
    re.IGNORECASE,
)


def _images_beside(root: Path) -> Iterable[Path]:
    """The images beside a folder of labels, in the folders there, and deeper in those that are named after images.

    What else lies there may be other data sets, or all of a disk.
    """
    beside = Path(os.path.abspath(root)).parent  # noqa: PTH100 - keeps links
    for folder in [beside, *sorted(it for it in beside.iterdir() if it.is_dir() and not it.name.startswith("."))]:
        if folder != beside and _OF_IMAGES.fullmatch(folder.name):
            yield from pairing.find_images(folder)
        else:
            own = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES)
            yield from (path for path in own if not path.name.startswith(".") and not pairing.is_result(path))


def _name_parts(name: str) -> list[str]:
    """The parts of an image's name, of any system, without those that would lead out of a folder."""
    return [part for part in PurePosixPath(name.replace("\\", "/")).parts if part.strip("/") not in ("", "..", ".")]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _shared_end(path: Sequence[str], parts: Sequence[str]) -> int:
    pairs = zip(reversed(path), reversed(parts), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if _folded(a) != _folded(b)), min(len(path), len(parts)))


def _image_folders(found: Description, root: Path) -> list[Path]:
    if "images" not in found.model_fields_set:
        return []
    places = found.images if isinstance(found.images, dict) else {WHOLE: found.images}
    if isinstance(found.images, str) and pairing.SPLIT in found.images:
        places = dict(pairing.expand_splits(root, found.images))
    listed = [place for value in places.values() for place in ([value] if isinstance(value, str) else value)]
    return [root / expand_home(place) for place in dict.fromkeys(listed)]

"""Data sets: the text after `--data` becomes splits of images and label maps (paper Section 4.1 for the presets).

    camvid:PATH, cityscapes:PATH, bdd100k:PATH    the presets
    FILE.yaml           a data set of one's own, described in a few lines (`description.py`), or a file for ultralytics
    FOLDER              one with a `data.yaml` in it, or laid out as for mmsegmentation or ultralytics (`guess.py`)
    coco:PATH, yolo:PATH, …       shapes, drawn into label maps: a folder or a file, maybe followed by options, keys of
                        the description: coco:PATH,background=ground,val_fraction=0.1. `coco:` may be left out, as the
                        files say what they are.
    scenes, scenes:…    generated street scenes: size=128x256,num_train=200,num_val=50,seed=0

`FORMATS` lists all of them. Opening a data set lists files; images are read when they are used. `data_contents`
summarises what a data set holds, so that a resumed run notices when the same text stands for other data.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lpsnet.data import annotations, convert, description, guess, synthetic
from lpsnet.data.description import Description
from lpsnet.data.formats import coco, cvat, labelme, labelstudio, masks, supervisely, ultralytics
from lpsnet.data.labels import LabelSpace
from lpsnet.data.split import FileSplit, JoinedSplit, Opened, Sample, Split
from lpsnet.errors import DataError, unknown_name
from lpsnet.io import expand_home

__all__ = ["Dataset", "Sample", "Split", "open_dataset"]


class Format(NamedTuple):
    """One kind of data set.

    Attributes:
        name: as in `--data NAME:…`.
        open: from the path (or the settings) of a data set to a description of image and mask files or, if there
            are no such files, to the splits themselves.
        recognises: whether a path without a format's name in front holds this format.
        takes: what `--data NAME:…` takes after the colon; "" where the name cannot be given.
        terms: what may be done with weights trained on it: the terms that its publishers ask users to accept.
        read: for label files with shapes: from a description in a folder to the shapes of every image.
        write: of data sets in this format (`lpsnet data convert`); None if it is only read.
    """

    name: str
    open: Callable[[Any], Description | Opened | guess.Guess]
    recognises: Callable[[Path], bool]
    takes: Literal["", "folder", "path", "settings"] = ""
    terms: str = ""
    read: annotations.Reader | None = None
    write: convert.Write | None = None


# In the order in which a path is compared with them. To add a format: one file in `formats`, one row here.
FORMATS = (
    Format(
        "yolo",
        ultralytics.describe_polygons,
        ultralytics.recognises_polygons,
        "path",
        read=ultralytics.read_polygons,
        write=ultralytics.write_polygons,
    ),
    Format("ultralytics", ultralytics.describe, ultralytics.recognises),
    Format("description", description.load_description, description.is_described),
    Format("cityscapes", masks.describe_cityscapes, masks.recognises_cityscapes, "folder", masks.CITYSCAPES_TERMS),
    Format("bdd100k", masks.describe_bdd100k, masks.recognises_bdd100k, "folder", masks.BDD100K_TERMS),
    Format("camvid", masks.describe_camvid, masks.recognises_camvid, "folder", masks.CAMVID_TERMS),
    Format("kitti", masks.describe_kitti, masks.recognises_kitti, "folder", masks.KITTI_TERMS),
    Format("ade20k", masks.describe_ade20k, masks.recognises_ade20k, "folder", masks.ADE20K_TERMS),
    Format("mapillary", masks.describe_mapillary, masks.recognises_mapillary, "folder", masks.MAPILLARY_TERMS),
    Format("voc", masks.describe_voc, masks.recognises_voc, "folder", masks.VOC_TERMS),
    Format("coco", coco.describe, coco.recognises, "path", read=coco.read, write=coco.write),
    Format("labelme", labelme.describe, labelme.recognises, "path", read=labelme.read, write=labelme.write),
    Format("cvat", cvat.describe, cvat.recognises, "path", read=cvat.read, write=cvat.write),
    Format(
        "labelstudio",
        labelstudio.describe,
        labelstudio.recognises,
        "path",
        read=labelstudio.read,
        write=labelstudio.write,
    ),
    Format("supervisely", supervisely.describe, supervisely.recognises, "path", read=supervisely.read),
    Format("scenes", synthetic.open_scenes, lambda path: False, "settings", synthetic.TERMS),
    Format("guess", guess.guess_description, Path.is_dir),  # by file names and contents: any folder
)
NAMED = {row.name: row for row in FORMATS if row.takes}
READERS = {row.name: row.read for row in FORMATS if row.read}
WRITERS: dict[str, convert.Write] = {"masks": convert.write_masks}
WRITERS |= {row.name: row.write for row in FORMATS if row.write}
_PATHS = ("folder", "path")
_ALLOWED = (*sorted(f"{row.name}:PATH" for row in FORMATS if row.takes in _PATHS), "FILE.yaml", "scenes")


@dataclass(frozen=True)
class Dataset:
    """An opened data set.

    Attributes:
        spec: the text it was opened with.
        label_space: the classes.
        parts: the splits by name, as found on the disk.
        description: the same as a YAML file would describe it; None if its samples are not image and mask files.
        root: the folder that the description's paths start from.
        remarks: what was decided or left out when its label files were read, a line each.
        doubts: why a guess at its layout may be wrong, a line each; nothing is trained on it before that is settled.
        strays: values of its label files that look like an accident, a line each.
    """

    spec: str
    label_space: LabelSpace
    parts: Mapping[str, Split] = field(repr=False)
    description: Description | None = field(default=None, repr=False)
    root: Path = Path()
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    strays: tuple[str, ...] = ()

    @property
    def terms(self) -> str:
        """Terms of weights trained on it, in a sentence; "" if unknown."""
        named = NAMED.get(self.spec.partition(":")[0])
        return named.terms if named else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about labels drawn from shapes, or of a layout that was guessed; a line each."""
        if self.description is None or self.description.format not in READERS:
            return (*self.remarks, *self.strays)
        name = self.description.background
        rule = f"are {name!r}" if name is not None else "have no label (background: NAME makes them a class)"
        return (*self.remarks, f"pixels that no shape covers {rule}")

    @property
    def splits(self) -> list[str]:
        """The names of the splits."""
        return list(self.parts)

    def split(self, text: str) -> Split:
        """One split ("train") or several joined ("train+val").

        Raises:
            DataError: no such split, one named twice, or two of its images have the same name.
        """
        wanted = [name.strip() for name in text.split("+")]
        for name in wanted:
            if name not in self.parts:
                raise DataError(f"{unknown_name('split', name, self.parts)}, in data set {self.spec!r}")
        if len(set(wanted)) < len(wanted):
            raise DataError(f"split {text!r} names a part twice")
        for name in wanted:
            _check_names(self.parts[name])
        found = tuple(self.parts[name] for name in wanted)
        return found[0] if len(found) == 1 else JoinedSplit(found)


def open_dataset(text: str | Path) -> Dataset:
    """Open a data set by its `--data` text (see the top of this file).

    Raises:
        DataError: the text is none of the allowed, a path in it does not exist, or the files are not laid out as
            the preset or the description requires.
    """
    text = str(text)
    if "\0" in text:
        raise DataError(f"data set {text!r} has a null character in its name, which no path has")
    if not text:
        raise DataError("the data set has an empty name; `.` is the current folder")
    try:
        return _open(text)
    except OSError as error:  # a name too long, a folder that may not be read
        raise DataError(f"data set {text!r}: {error.strerror or error}: {error.filename}") from None


def _open(text: str) -> Dataset:
    kind, colon, rest = text.partition(":")
    is_named = kind in NAMED and (colon or NAMED[kind].takes == "settings" or not expand_home(text).exists())
    if is_named:
        named = NAMED[kind]
        if named.takes == "path":
            return _open_labels(text, named, rest)
        place = _existing_folder(kind, rest) if named.takes == "folder" else rest
        return build_dataset(text, named.open(place), Path(place))
    path = expand_home(text)
    has_shapes = not description.is_yaml(path) and label_format(path) is not None
    if has_shapes or description.is_yaml(path) or (path.is_dir() and guess.is_known_folder(path)):
        found = open_path(text, path)
        if found.doubts:
            raise DataError(f"data set {text!r}: {found.doubts[0]}")
        return found
    if path.is_dir():
        advice = f"name its layout ({', '.join(_ALLOWED)}), or let 'lpsnet data check {text}' suggest a description"
        raise DataError(f"data set {text!r} is a folder; {advice}")
    if not colon and path.parent != Path() and not path.exists():
        raise DataError(f"data set {text!r}: there is no such folder or file; allowed: {', '.join(_ALLOWED)}")
    if not colon and path.exists():
        raise DataError(f"data set {text!r} is a file of no kind that is read; allowed: {', '.join(_ALLOWED)}")
    is_drive = len(kind) == 1  # a path on Windows
    missing = "" if colon else f"no folder or file is called {text!r}; "
    raise DataError(f"{missing}{unknown_name('data set', text if is_drive else kind, _ALLOWED)}")


def needs_description(text: str) -> bool:
    """Whether this is a folder that only a guess opens, so that `--data` refuses it without a description."""
    path = expand_home(text)
    is_named = ":" in text and text.partition(":")[0] in NAMED
    return not is_named and path.is_dir() and label_format(path) is None and not guess.is_known_folder(path)


_LISTS = ("names", "skip", "draw", "ignore", "exclude", "channels", "extra_images")
_OPTION = re.compile(r",([a-z_]+)=")


def _open_labels(spec: str, row: Format, text: str) -> Dataset:
    """The data set of `NAME:PATH,KEY=VALUE,…`: the format's description of the path with these keys replaced."""
    place, *rest = _OPTION.split(text)
    options: dict[str, Any] = dict(zip(rest[::2], rest[1::2], strict=True))
    path = expand_home(place)
    if not place or not path.exists():
        raise DataError(f"data set {spec!r}: {place or 'the path'} does not exist; give {row.name}:FOLDER or FILE")
    if path.is_dir() or row.recognises(path):
        found = row.open(path)
    else:
        raise DataError(f"data set {spec!r}: {path} is not of the format {row.name!r}")
    assert isinstance(found, Description)
    if options:
        values = found.model_dump(exclude_unset=True) | {key: _option(key, value) for key, value in options.items()}
        found = description.parse(values, path)
    root = path if path.is_dir() else path.parent
    return build_dataset(spec, found, root, default_name=path.stem)


def _option(key: str, value: str) -> Any:
    """The value of an option; those that are lists have "+" between their entries."""
    if key == "channels" and value.isdecimal():
        return int(value)
    return value.split("+") if key in _LISTS and value != "others" else value


def label_format(path: Path) -> Format | None:
    """The format of label files with shapes that a path holds, by what is in them; None if it holds none.

    Raises:
        DataError: it holds several.
    """
    if not path.exists():
        return None
    try:
        found = [row for row in FORMATS if row.read is not None and row.recognises(path)]
    except OSError as error:  # a folder that may not be read
        raise DataError(f"data set {str(path)!r}: {error.strerror or error}: {error.filename}") from None
    ways = " or ".join(f"{row.name}:{path}" for row in found)
    if len(found) > 1:
        raise DataError(f"data set {str(path)!r} holds labels of several formats; name one: {ways}")
    if found and path.is_dir() and guess.is_known_folder(path) and not description.is_described(path):
        raise DataError(
            f"data set {str(path)!r} holds masks and other labels; name these: {ways}, or describe the masks"
        )
    return found[0] if found else None


def open_path(spec: str, path: Path) -> Dataset:
    """The data set in a YAML file or a folder, by the first format that recognises it, even if that is a guess.

    Raises:
        DataError: as `open_dataset`.
    """
    found = next(row for row in FORMATS if row.recognises(path)).open(path)
    if path.is_dir():
        return build_dataset(spec, found, path)
    return build_dataset(spec, found, path.parent, default_name=path.stem)


def build_dataset(
    spec: str, found: Description | Opened | guess.Guess, root: Path, *, default_name: str = ""
) -> Dataset:
    """The data set of a description in folder `root`, or of splits.

    Raises:
        DataError: the places that the description names do not exist, or do not fit together.
    """
    if isinstance(found, Opened):
        return Dataset(spec, found.label_space, found.parts)
    if isinstance(found, guess.Guess):
        whole = build_dataset(spec, found.description, root, default_name=default_name)
        return replace(whole, doubts=found.doubts, remarks=found.remarks, strays=found.strays)
    try:
        if found.format in READERS:
            built = annotations.build_marked(found, root, READERS[found.format], default_name or root.name)
            drawn = description.with_channels(found, root, built.parts)
            made: dict[str, Split] = {part.name: part for part in sorted(drawn, key=_usual_order)}
            return Dataset(spec, built.space, made, built.description, root, built.remarks)
        space = found.label_space(default_name or root.name)
        parts = description.with_channels(found, root, description.build_parts(found, root, space))
    except DataError as error:
        raise DataError(f"data set {spec!r}: {error}") from None
    splits: dict[str, Split] = {part.name: part for part in sorted(parts, key=_usual_order)}
    return Dataset(spec, space, splits, found, root)


def _usual_order(split: FileSplit) -> tuple[int, str]:
    usual = ("train", "val", "test")
    return usual.index(split.name) if split.name in usual else len(usual), split.name


def _existing_folder(kind: str, text: str) -> Path:
    if not text:
        raise DataError(f"data set {kind!r} needs the folder it is in: {kind}:PATH")
    root = expand_home(text)
    if not root.is_dir():
        raise DataError(f"data set '{kind}:{text}': folder {root} does not exist; give the folder {kind} is in")
    return root


def _check_names(split: Split) -> None:
    name, count = Counter(split.names).most_common(1)[0] if len(split) else ("", 0)
    if count > 1:
        raise DataError(f"split {split.name!r} has {count} images named {name!r}; rename or remove all but one")
    for pair in split.pairs if isinstance(split, FileSplit) else ():
        pair.refuse_rivals()


_SAMPLES = " samples"  # after a split's name
_NUM_SAMPLES = 8  # read of a split that is not made of files


def data_contents(dataset: Dataset, *splits: str) -> dict[str, str]:
    """What a run on these splits depends on, as short texts that can be compared.

    Args:
        dataset: opened.
        splits: as `Dataset.split` takes them.

    Returns:
        `classes`, in their order, and for each split how many images it has, with a digest of their names, their file
        sizes in bytes and how their label files are read. No file is opened: replacing an image by another one of
        exactly its size is not noticed. For parts that are not made of files, `NAME samples` is a digest of the
        pixels and labels of a few samples instead.

    Raises:
        DataError: no such split.
    """
    found = {name: dataset.split(name) for name in splits}
    contents = {"classes": named_contents(dataset.label_space.names, "classes", shown=True)}
    for name, split in found.items():
        parts = split.parts if isinstance(split, JoinedSplit) else (split,)
        lines = [line for part in parts for line in _part_lines(part)]
        contents[name] = f"{len(split)} pictures ({_digest(lines)})"  # as runs of earlier versions wrote it
        # Under its own key, which earlier versions do not have: a missing key is assumed equal
        if drawn := [part for part in parts if not isinstance(part, FileSplit)]:
            samples = [_sample_line(part, index) for part in drawn for index in _spread(len(part))]
            contents[f"{name}{_SAMPLES}"] = f"{len(samples)} samples ({_digest(samples)})"
    return contents


def changed_contents(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The keys in which two `data_contents` differ; digests of samples that `then` does not have are assumed equal."""
    return [
        key for key in {**then, **now} if then.get(key) != now.get(key) and (key in then or not key.endswith(_SAMPLES))
    ]


def file_contents(paths: Iterable[Path], what: str) -> str:
    """How many files there are, with a digest of their names (the last two parts) and sizes."""
    return named_contents([f"{'/'.join(path.parts[-2:])} {_size(path)}" for path in paths], what)


def named_contents(names: Sequence[str], what: str, *, shown: bool = False) -> str:
    """How many names there are, with a digest of all in their order: `2 classes (1c0a5bd1)`, `shown` with the names."""
    text = f"{len(names)} {what} ({_digest(list(names))})"
    return f"{text}: {', '.join(names)}" if shown else text


def _spread(length: int) -> list[int]:
    """At most `_NUM_SAMPLES` indices below `length`, the first and the last among them."""
    count = min(length, _NUM_SAMPLES)
    return sorted({round(number * (length - 1) / max(1, count - 1)) for number in range(count)})


def _sample_line(split: Split, index: int) -> str:
    """Name, sizes and a digest; a sample that cannot be read is reported by the training."""
    try:
        name, *arrays = split[index]
    except DataError as error:
        return f"{split.names[index]}: {error}"
    pixels = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return f"{name} {[array.shape for array in arrays]} {pixels}"


def _part_lines(split: Split) -> list[str]:
    if not isinstance(split, FileSplit):
        return [split.name, *split.names]
    pairs = [f"{pair.name} {_size(pair.image)} {_size(pair.mask)}" for pair in split.pairs]
    if not split.channels.is_rgb:
        pairs += [str(split.channels), *(f"{_size(path)}" for pair in split.pairs for path in pair.extra)]
    drawings = (pair.drawing.digest() for pair in split.pairs if pair.drawing is not None)
    return [split.name, repr(split.decoder), *pairs, *drawings]


def _size(path: Path | None) -> int:
    """In bytes; -1 for a missing file, which is reported when it is read."""
    try:
        return -1 if path is None else path.stat().st_size
    except OSError:
        return -1


def _digest(lines: list[str]) -> str:
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:8]

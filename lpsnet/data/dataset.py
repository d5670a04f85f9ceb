"""Data sets: the text after `--data` becomes splits of images and label maps (paper Section 4.1 for the presets).

`open_dataset` lists files and reads a description; no image is opened before it is asked for.

    camvid:PATH         CamVid, as distributed with SegNet or in the original release
    cityscapes:PATH     Cityscapes in the official layout, or a folder of pairs
    bdd100k:PATH        BDD100K, the 10,000 images with semantic labels
    FILE.yaml           a data set of one's own, described in a few lines (`layouts/description.py`), or for ultralytics
    FOLDER              one with a `data.yaml` in it, or laid out as for mmsegmentation or ultralytics (`guess.py`)
    scenes, scenes:…    generated street scenes (`scenes`): size=128x256,num_train=200,num_val=50,seed=0

What a data set holds, in short texts to compare: the words after `--data` may stand for something else later.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lpsnet.data.description import Description, build_parts, load_description
from lpsnet.data.formats import bdd100k, camvid, cityscapes
from lpsnet.data.guess import describe_folder, is_known_folder
from lpsnet.data.labels import LabelSpace
from lpsnet.data.split import FileSplit, JoinedSplit, Sample, Split
from lpsnet.errors import DataError, unknown_name
from lpsnet.io import expand_home

__all__ = ["Dataset", "Sample", "Split", "open_dataset"]

PRESETS: dict[str, Callable[[Path], Description]] = {
    "bdd100k": bdd100k.describe,
    "camvid": camvid.describe,
    "cityscapes": cityscapes.describe,
}
# What may be done with weights learnt from a preset's images: the terms that its publishers ask users to accept
TERMS: dict[str, str] = {
    "bdd100k": "trained on BDD100K: its licence allows education, research and not-for-profit use",
    "camvid": "trained on CamVid: for research, not for commercial use",
    "cityscapes": "trained on Cityscapes: for research, not for commercial use",
    "scenes": "trained on generated scenes: no terms of others",
}
_YAML_SUFFIXES = (".yaml", ".yml")
_ALLOWED = (*(f"{name}:PATH" for name in PRESETS), "FILE.yaml", "scenes")
_SCENE_DEFAULTS = {"size": "128x256", "num_train": "200", "num_val": "50", "seed": "0"}


@dataclass(frozen=True)
class Dataset:
    """An opened data set.

    Attributes:
        spec: the text it was opened with.
        label_space: the classes.
        parts: the splits by name, as found on the disk.
        description: what a YAML file would say of it; None for scenes.
        root: the folder that the description stands in.
    """

    spec: str
    label_space: LabelSpace
    parts: Mapping[str, Split] = field(repr=False)
    description: Description | None = field(default=None, repr=False)
    root: Path = Path()

    @property
    def terms(self) -> str:
        """Terms of weights learnt from it, in a sentence; "" where nothing is known of them."""
        return TERMS.get(self.spec.partition(":")[0], "")

    @property
    def splits(self) -> list[str]:
        """The names of the splits there are."""
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
            the preset or the description says.
    """
    text = str(text)
    if "\0" in text:
        raise DataError(f"data set {text!r} has a null character in its name, which no path has")
    try:
        return _open(text)
    except OSError as error:  # a name too long, a folder that may not be read
        raise DataError(f"data set {text!r}: {error.strerror or error}: {error.filename}") from None


def _open(text: str) -> Dataset:
    if not text:
        raise DataError("the data set has an empty name; `.` is the current folder")
    kind, _, rest = text.partition(":")
    if kind == "scenes":
        return _scenes(text, rest)
    if kind in PRESETS:
        root = _root(kind, rest)
        return described_dataset(text, PRESETS[kind](root), root)
    if text.lower().endswith(_YAML_SUFFIXES):
        path = expand_home(text)
        return described_dataset(text, load_description(path), path.parent, default_name=path.stem)
    return _open_folder(text, kind)


def described_dataset(spec: str, description: Description, root: Path, *, default_name: str = "") -> Dataset:
    """The data set that a description in folder `root` describes.

    Raises:
        DataError: the places it names are not there, or do not fit together.
    """
    try:
        space = description.label_space(default_name or root.name)
        parts = build_parts(description, root, space)
    except DataError as error:
        raise DataError(f"data set {spec!r}: {error}") from None
    splits: dict[str, Split] = {part.name: part for part in sorted(parts, key=_usual_order)}
    return Dataset(spec, space, splits, description, root)


def _usual_order(split: FileSplit) -> tuple[int, str]:
    usual = ("train", "val", "test")
    return usual.index(split.name) if split.name in usual else len(usual), split.name


def _open_folder(text: str, kind: str) -> Dataset:
    root = expand_home(text)
    if root.is_dir() and is_known_folder(root):
        return described_dataset(text, describe_folder(root), root)
    raise _refusal(text, kind)


def _refusal(text: str, kind: str) -> DataError:
    if expand_home(text).is_dir():
        advice = f"name its layout ({', '.join(_ALLOWED)}), or let 'lpsnet data check {text}' suggest a description"
        return DataError(f"data set {text!r} is a folder; {advice}")
    is_drive = len(kind) == 1  # a path on Windows
    return DataError(unknown_name("data set", text if is_drive else kind, _ALLOWED))


def _root(kind: str, text: str) -> Path:
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


def _scenes(spec: str, text: str) -> Dataset:
    from lpsnet.data.synthetic import SCENES, SceneSplit

    given: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in _SCENE_DEFAULTS:
            raise DataError(unknown_name("setting of 'scenes'", key, _SCENE_DEFAULTS))
        if key in given:
            raise DataError(f"'{key}' is given twice in 'scenes': {given[key]} and {value}; give it once")
        given[key] = value
    settings = {**_SCENE_DEFAULTS, **given}
    size, seed = _parse_size(settings["size"]), _parse_number("seed", settings["seed"], lowest=0)
    counts = {name: _parse_number(f"num_{name}", settings[f"num_{name}"], lowest=1) for name in ("train", "val")}
    parts = {name: SceneSplit(size=size, count=count, seed=seed, name=name) for name, count in counts.items()}
    return Dataset(spec, SCENES, parts)


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise DataError(f"'size={text}' in 'scenes' is not usable; HEIGHTxWIDTH is allowed, e.g. size=128x256")
    return int(match[1]), int(match[2])


def _parse_number(key: str, text: str, *, lowest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
        raise DataError(f"'{key}={text}' in 'scenes' is not usable; a whole number from {lowest} is allowed")
    return int(text)


_SAMPLES = " samples"  # behind a split's name
_NUM_SAMPLES = 8  # looked at in a split that is not made of files


def data_contents(dataset: Dataset, *splits: str) -> dict[str, str]:
    """What a run on these splits depends on, by what it is.

    Args:
        dataset: opened.
        splits: as `Dataset.split` takes them.

    Returns:
        `classes`, in their order, and for each split how many images it has, with a digest of their names, of the
        sizes of their files in bytes and of how their label files are read. No file is opened: an image in whose place
        there is another of just its size goes unnoticed. A split that is not made of files has no sizes. Of such parts,
        `NAME samples` is a digest of the pixels and labels of a few samples, so that scenes of another size or seed,
        or other data in a split of the caller's own, are noticed.

    Raises:
        DataError: no such split.
    """
    found = {name: dataset.split(name) for name in splits}
    contents = {"classes": named_contents(dataset.label_space.names, "classes", shown=True)}
    for name, split in found.items():
        contents[name] = _split_contents(split)
        # In a key of its own: runs of older versions know the one above, and what they do not say is assumed equal
        if drawn := [part for part in _parts(split) if not isinstance(part, FileSplit)]:
            contents[f"{name}{_SAMPLES}"] = _samples_contents(drawn)
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


def _split_contents(split: Split) -> str:
    lines = [line for part in _parts(split) for line in _part_lines(part)]
    return f"{len(split)} pictures ({_digest(lines)})"  # as runs of earlier versions have it


def _samples_contents(splits: Sequence[Split]) -> str:
    places = [(split, index) for split in splits for index in _spread(len(split))]
    return f"{len(places)} samples ({_digest([_sample_line(*place) for place in places])})"


def _spread(length: int) -> list[int]:
    """At most `_NUM_SAMPLES` indices below `length`, the first and the last among them."""
    count = min(length, _NUM_SAMPLES)
    return sorted({round(number * (length - 1) / max(1, count - 1)) for number in range(count)})


def _sample_line(split: Split, index: int) -> str:
    """Name, sizes and a digest; a sample that cannot be read is reported where the training reads it."""
    try:
        name, *arrays = split[index]
    except DataError as error:
        return f"{split.names[index]}: {error}"
    pixels = [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return f"{name} {[array.shape for array in arrays]} {pixels}"


def _parts(split: Split) -> tuple[Split, ...]:
    return split.parts if isinstance(split, JoinedSplit) else (split,)


def _part_lines(split: Split) -> Iterable[str]:
    if not isinstance(split, FileSplit):
        return [split.name, *split.names]
    pairs = (f"{pair.name} {_size(pair.image)} {_size(pair.mask)}" for pair in split.pairs)
    return [split.name, repr(split.decoder), *pairs]


def _size(path: Path | None) -> int:
    """In bytes; -1 for a file that is not there, which is told where it is read."""
    try:
        return -1 if path is None else path.stat().st_size
    except OSError:
        return -1


def _digest(lines: list[str]) -> str:
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:8]

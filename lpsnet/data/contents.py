"""What a data set holds, in short texts to compare: the words after `--data` may stand for something else later."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lpsnet.data.datasets import Dataset
from lpsnet.data.splits import FileSplit, JoinedSplit, Split
from lpsnet.errors import DataError

_SAMPLES = " samples"  # behind a split's name
_NUM_SAMPLES = 8  # looked at in a split that is not made of files


def data_contents(dataset: Dataset, *splits: str) -> dict[str, str]:
    """What a run on these splits depends on, by what it is.

    Args:
        dataset: opened.
        splits: as `Dataset.split` takes them.

    Returns:
        `classes`, in their order, and for each split how many pictures it has, with a digest of their names, of the
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
    return f"{len(split)} pictures ({_digest(lines)})"


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

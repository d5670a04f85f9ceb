"""What a data set holds, in short texts to compare: the words after `--data` may stand for something else later."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from lpsnet.data.datasets import Dataset
from lpsnet.data.splits import FileSplit, JoinedSplit, Split


def data_contents(dataset: Dataset, *splits: str) -> dict[str, str]:
    """What a run on these splits depends on, by what it is.

    Args:
        dataset: opened.
        splits: as `Dataset.split` takes them.

    Returns:
        `classes`, in their order, and for each split how many pictures it has, with a digest of their names, of the
        sizes of their files in bytes and of how their label files are read. No picture is opened: one in whose place
        there is another of just its size goes unnoticed.

    Raises:
        DataError: no such split.
    """
    found = {name: dataset.split(name) for name in splits}
    return {
        "classes": named_contents(dataset.label_space.names, "classes", shown=True),
        **{name: _split_contents(split) for name, split in found.items()},
    }


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


def _parts(split: Split) -> tuple[Split, ...]:
    return split.parts if isinstance(split, JoinedSplit) else (split,)


def _part_lines(split: Split) -> Iterable[str]:
    if not isinstance(split, FileSplit):  # generated, and all that can change stands in the words of --data
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

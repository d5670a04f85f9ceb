"""Places where a description says that files are: a folder, a pattern, or a list file; and `{split}` in their names."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lpsnet.data.layouts.pairing import Keyed, find_keyed, key_of, read_list
from lpsnet.errors import DataError
from lpsnet.io import expand_home

SPLIT = "{split}"
LIST_SUFFIX = ".txt"


def expand_splits(root: Path, template: str) -> dict[str, str]:
    """The splits for which a place with `{split}` in it exists under `root`, each with its place.

    "images/{split}/*.png" gives {"train": "images/train/*.png", "val": "images/val/*.png"} if the two folders exist.
    """
    parts = Path(template).parts
    if not any(SPLIT in part for part in parts):
        return {}
    last = max(index for index, part in enumerate(parts) if SPLIT in part)
    start = os.path.abspath(root / Path(*parts[: last + 1]))  # noqa: PTH100 - resolve() would follow links
    pattern = glob.escape(start).replace(SPLIT, "*")
    expression = re.escape(start).replace(re.escape(SPLIT), r"(?P<split>[^/\\]+)", 1)
    expression = expression.replace(re.escape(SPLIT), "(?P=split)")
    is_list = start.endswith(LIST_SUFFIX)
    paths = [path for path in glob.glob(pattern) if is_list or Path(path).is_dir()]  # noqa: PTH207 - an absolute pattern
    names = {match["split"] for match in (re.fullmatch(expression, path) for path in paths) if match}
    return {name: template.replace(SPLIT, name) for name in sorted(names)}


def collect(root: Path, place: str, *, suffixes: Sequence[str], ending: str) -> Keyed:
    """The files of a place whose suffix is among `suffixes` and whose stem ends with `ending`, with their keys.

    Raises:
        DataError: the folder or the list file does not exist.
    """
    target = root / expand_home(place)
    if target.suffix == LIST_SUFFIX:
        return list_keys([resolve(root, target, words[0]) for words in read_list(target)], ending)
    if glob.has_magic(place):
        paths = (Path(text) for text in glob.glob(str(target), recursive=True))  # noqa: PTH207 - may be absolute
        chosen = sorted(path for path in paths if path.suffix.lower() in suffixes and path.stem.endswith(ending))
        return [(_pattern_key(path, target, ending), path) for path in chosen]
    if target.is_file() and target.suffix.lower() in suffixes:
        return [(key_of(target, target.parent, ending=ending), target)]
    if not target.is_dir():
        raise DataError(f"folder {target} does not exist")
    return find_keyed(target, ending=ending, suffixes=suffixes)


def list_keys(paths: Sequence[Path], ending: str) -> Keyed:
    """Listed files with their keys, which start below the deepest folder that all of them are in."""
    if not paths:
        return []
    base = Path(os.path.commonpath([path.parent for path in paths]))
    return [(key_of(path, base, ending=ending), path) for path in paths]


def resolve(root: Path, list_file: Path, text: str) -> Path:
    """A path in a list as an absolute one: from the root of the data set, or else from the folder of the list.

    An absolute path from another machine, as `/SegNet/CamVid/train/X.png` in CamVid's lists, counts by its end.
    """
    path = Path(text)
    tries = [root / path, list_file.parent / path, root.joinpath(*path.parts[-2:])]
    chosen = next((candidate for candidate in tries if candidate.exists()), tries[2 if path.is_absolute() else 0])
    absolute = os.path.abspath(chosen)  # noqa: PTH100 - takes out ".." without following links
    return Path(absolute[1:] if absolute.startswith("//") else absolute)  # which POSIX tells from "/", and nobody else


def _pattern_key(path: Path, pattern: Path, ending: str) -> str:
    """The parts of the path that the pattern leaves open: `*/image/*.png` and `*/mask/*.png` give equal keys."""
    magic = [glob.has_magic(part) for part in pattern.parts]
    if "**" in pattern.parts:
        return key_of(path, Path(*pattern.parts[: magic.index(True)]), ending=ending)
    parts = (*path.parent.parts, path.stem.removesuffix(ending))
    return "/".join(part for part, is_open in zip(parts, magic, strict=True) if is_open)

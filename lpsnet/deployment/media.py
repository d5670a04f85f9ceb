"""What `lpsnet segment` is given: pictures, videos and cameras, by files, folders, globs and numbers."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.deployment.drawing import is_product
from lpsnet.errors import DataError
from lpsnet.io import expand_home

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
Kind = Literal["picture", "video", "camera"]
_SUFFIXES: dict[Kind, tuple[str, ...]] = {"picture": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}


class Medium(NamedTuple):
    """Something to segment.

    Attributes:
        path: its file; for a camera its number as text.
        stem: the path below the output folder, without suffix, that its results take.
        kind: what it is.
    """

    path: Path
    stem: Path
    kind: Kind


def find_media(sources: Sequence[str]) -> list[Medium]:
    """The pictures and videos that files, folders (with all below them) and globs name, and cameras by their numbers.

    Without repeats, in a stable order. Folders and globs leave out what an earlier run wrote, and hidden files.

    Raises:
        DataError: a source names nothing that exists, or two would write the same results.
    """
    found: dict[Path, Medium] = {}
    for text in sources:
        if not text:
            raise DataError("a source has an empty name; `.` is the current folder")
        media = list(_expand(text))
        if not media:
            allowed = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            raise DataError(
                f"{text!r} names no picture, video or camera; give files, folders or globs of {allowed}, or a "
                "camera's number"
            )
        for medium in media:
            found.setdefault(medium.path.resolve(), medium)
    _check_results(found.values())
    return list(found.values())


def _check_results(media: Iterable[Medium]) -> None:
    taken: dict[tuple[Path, bool], Path] = {}
    for medium in media:
        key = medium.stem, medium.kind == "picture"
        if (other := taken.setdefault(key, medium.path)) != medium.path:
            raise DataError(f"{other} and {medium.path} would both write {medium.stem}.labels; segment them apart")


def _expand(text: str) -> Iterator[Medium]:
    path = expand_home(text)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if kind := _kind(file):
                yield Medium(file, file.relative_to(path).with_suffix(""), kind)
    elif path.exists():
        yield Medium(path, Path(path.stem), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture")
    elif text.isdecimal():
        yield Medium(Path(text), Path(f"camera_{text}"), "camera")
    else:
        for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 — Path.glob takes no absolute pattern
            if kind := _kind(Path(name)):
                yield Medium(Path(name), Path(Path(name).stem), kind)


def _kind(path: Path) -> Kind | None:
    """What a file of a folder is by its name; None if it is nothing to segment."""
    if is_product(path) or path.name.startswith(".") or not path.is_file():
        return None
    return next((kind for kind, suffixes in _SUFFIXES.items() if path.suffix.lower() in suffixes), None)

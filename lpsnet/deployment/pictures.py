"""Segmenting picture files: what `lpsnet segment` does with files, folders and globs.

Every picture gives `STEM.labels.png`, class ids as 8-bit grey, and `STEM.overlay.png`, the picture under its classes'
colours. Pictures from folders keep their place below the output folder, so that equal names do not collide.
"""

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import read_image, write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.deployment.overlay import overlay
from lpsnet.errors import DataError, LpsnetError
from lpsnet.files import expand_home

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_OWN_OUTPUT = (".labels.png", ".overlay.png")  # left out of folders, so that a second run does not segment the first's

Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class Source(NamedTuple):
    """A picture to segment: its file, and the path below the output folder, without suffix, that its results take."""

    path: Path
    stem: Path


@dataclass(frozen=True)
class Outcome:
    """What became of one picture.

    Attributes:
        source: the picture.
        labels, overlay: the files written; None if it could not be segmented.
        problem: why not, in one line; empty if all went well.
    """

    source: Path
    labels: Path | None = None
    overlay: Path | None = None
    problem: str = ""


def find_pictures(sources: Sequence[str]) -> list[Source]:
    """The pictures that files, folders (with all below them) and globs name, without repeats, in a stable order.

    Raises:
        DataError: a source names nothing that exists, or two pictures would write the same results.
    """
    found: dict[Path, Source] = {}
    for text in sources:
        matches = list(_expand(text))
        if not matches:
            raise DataError(f"{text!r} names no picture; give files, folders or globs of {', '.join(PICTURE_SUFFIXES)}")
        for source in matches:
            found.setdefault(source.path.resolve(), source)
    taken: dict[Path, Path] = {}
    for source in found.values():
        if (other := taken.setdefault(source.stem, source.path)) != source.path:
            raise DataError(f"{other} and {source.path} would both write {source.stem}.labels.png; segment them apart")
    return list(found.values())


def segment_pictures(
    segment: Segment, sources: Iterable[Source], out: Path, *, label_space: LabelSpace, opacity: float = 0.55
) -> Iterator[Outcome]:
    """Segment pictures one by one and write their results below `out`; one that cannot be read does not stop the rest.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        sources: from `find_pictures`.
        out: folder of the results, made where it is missing.
        label_space: the classes' colours.
        opacity: of the colours over the picture, 0 to 1.

    Raises:
        LpsnetError: results cannot be written; no later picture could be written either.
    """
    for source in sources:
        try:
            image = read_image(source.path)
            labels = segment(image)
        except LpsnetError as error:
            yield Outcome(source.path, problem=str(error))
            continue
        labels_path, overlay_path = (out / f"{source.stem}{suffix}" for suffix in _OWN_OUTPUT)
        write_png(labels_path, labels)
        write_png(overlay_path, overlay(image, labels, label_space, opacity=opacity))
        yield Outcome(source.path, labels_path, overlay_path)


def _expand(text: str) -> Iterator[Source]:
    path = expand_home(text)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if _is_picture(file):
                yield Source(file, file.relative_to(path).with_suffix(""))
    elif path.exists():
        yield Source(path, Path(path.stem))
    else:
        for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 — Path.glob takes no absolute pattern
            if _is_picture(Path(name)):
                yield Source(Path(name), Path(Path(name).stem))


def _is_picture(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(PICTURE_SUFFIXES) and not name.endswith(_OWN_OUTPUT) and path.is_file()

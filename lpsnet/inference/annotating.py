"""Label maps as annotations that label programs open again: a start that people correct instead of drawing anew.

Every format has a folder of its own with copies of the images, laid out as `lpsnet data convert` writes data sets, so
it can be opened, uploaded, or used as `--data` once it is corrected. The images are its split `train`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from lpsnet.data import convert, images
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, RunError
from lpsnet.inference.outputs import FORMATS
from lpsnet.inference.result import MAX_TOLERANCE
from lpsnet.io import atomic_path, inside

SPLIT = "train"
DEFAULT_TOLERANCE = 1.0  # pixels: few enough points to move by hand


class _Kept(NamedTuple):
    """An image that was segmented: its file, its name without suffix, its size, and a file with its label map."""

    source: Path
    name: str
    size: tuple[int, int]
    labels: Path


class Annotations:
    """Label maps of a run, kept in a temporary folder until they are written. Use it in a `with` block.

    Args:
        out: every format is written to `OUT/FORMAT`.
        formats: names in `FORMATS`.
        space: the classes.
        tolerance: how far, in pixels, an outline may be from the border of its pixels; 0 is exact.
        overwrite: whether files of an earlier run, which may have been corrected since, are replaced.
        link: whether images are symbolic links instead of copies.

    Raises:
        RunError: a folder has files already.
        DataError: the tolerance is out of range.
    """

    def __init__(
        self,
        out: Path,
        formats: Sequence[str],
        space: LabelSpace,
        *,
        tolerance: float = DEFAULT_TOLERANCE,
        overwrite: bool = False,
        link: bool = False,
    ) -> None:
        if not 0 <= tolerance <= MAX_TOLERANCE:
            raise DataError(f"a tolerance is 0 to {MAX_TOLERANCE} pixels; got {tolerance}")
        self._folders = {name: Path(os.path.abspath(out / name)) for name in formats}  # noqa: PTH100 - keeps links
        for folder in self._folders.values():
            if not overwrite and folder.is_dir() and any(folder.iterdir()):
                advice = "give another folder, or --overwrite to replace those of the same names"
                raise RunError(f"{folder} has annotations already, which may have been corrected; {advice}")
        self.formats = tuple(formats)
        self._space, self._tolerance, self._link = space, tolerance, link
        self._kept: list[_Kept] = []

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="lpsnet-")
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    def add(self, source: Path, name: str, labels: images.Labels) -> None:
        """Keep the label map, H x W uint8, of an image; `name` has "/" between folders and no suffix."""
        if self._folders:
            file = Path(self._temporary.name) / f"{len(self._kept)}.png"
            images.write_png(file, np.asarray(labels))
            self._kept.append(_Kept(source, name, (labels.shape[0], labels.shape[1]), file))

    def write(self) -> tuple[dict[str, Path], list[str]]:
        """Write all that was added.

        Returns:
            The folder of each format, and what is to be known about them, a line each.

        Raises:
            RunError: a folder cannot be written to.
        """
        remarks: list[str] = []
        for name, folder in self._folders.items() if self._kept else ():
            target = convert.Target(folder, self._space, (SPLIT,))
            remarks += [f"{name}: {remark}" for remark in FORMATS[name].write(target, self._samples(name, target))]
        return dict(self._folders) if self._kept else {}, remarks

    def _samples(self, form: str, target: convert.Target) -> Iterator[convert.Converted]:
        for kept in self._kept:
            file = kept.source
            if FORMATS[form].copies_images:
                file = inside(target.images / SPLIT, f"{kept.name}{kept.source.suffix}")
                _place(kept.source, file, link=self._link)
            labels = images.read_mask(kept.labels)
            yield convert.Converted(SPLIT, kept.name, file, kept.size, labels.astype(np.uint8), self._tolerance)


def _place(source: Path, file: Path, *, link: bool) -> None:
    """The image at another place: a copy, or a symbolic link."""
    with atomic_path(file) as temporary:
        if not link:
            shutil.copyfile(source, temporary)
            return
    try:
        file.unlink()
        file.symlink_to(os.path.abspath(source))  # noqa: PTH100 - keeps links
    except OSError as error:
        raise RunError(f"cannot link {file}: {error.strerror or error}; copy the images instead") from None

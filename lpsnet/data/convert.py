"""Writing a data set in another label format: every image is copied, its label map traced and written by the format.

`FORMATS` in `dataset.py` names the formats that can be written: each has a `Write` function in its file. Label maps are
what is converted, so every format that is read becomes any that is written; where shapes overlapped, the ones on top
are left. Pixels without a label are left uncovered.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from lpsnet.data import shapes
from lpsnet.data.images import Labels, write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.data.shapes import Outline
from lpsnet.data.split import FileSplit, Split
from lpsnet.errors import DataError, RunError
from lpsnet.io import atomic_path, inside, write_text


@dataclass(frozen=True)
class Target:
    """Where a data set is written to.

    Attributes:
        folder: of the new data set, an absolute path.
        space: its classes.
        splits: the names of its splits.
    """

    folder: Path
    space: LabelSpace
    splits: tuple[str, ...]

    @property
    def images(self) -> Path:
        """The folder of all images, with a folder for each split."""
        return self.folder / "images"

    def write(self, name: str, text: str) -> None:
        """Write a text file in the folder."""
        write_text(inside(self.folder, name), text)


@dataclass(frozen=True)
class Converted:
    """One image on its way.

    Attributes:
        split: it belongs to.
        name: in the data set, with "/" between folders.
        file: the copied image.
        size: (height, width) in pixels, as the image is read.
        labels: H x W uint8 class ids, 255 for no label; None if the split has no labels.
        tolerance: of the outlines, in pixels.
    """

    split: str
    name: str
    file: Path
    size: tuple[int, int]
    labels: Labels | None
    tolerance: float

    @cached_property
    def outlines(self) -> list[Outline]:
        """Of all regions, the largest first: where outlines overlap after simplification, the smaller is on top."""
        found = [] if self.labels is None else shapes.trace(self.labels, tolerance=self.tolerance)
        return sorted(found, key=lambda outline: -outline.num_pixels)


Write = Callable[[Target, Iterable[Converted]], list[str]]  # gives remarks, a line each


def convert(
    splits: list[Split],
    space: LabelSpace,
    write: Write,
    folder: Path,
    *,
    tolerance: float = 0.0,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write a data set in another format.

    Args:
        splits: of the data set.
        space: its classes.
        write: of the format.
        folder: written to; images go to `images/SPLIT`.
        tolerance: how far, in pixels, an outline may be from the border of its pixels; 0 is exact.
        overwrite: write into a folder that has files, and replace those of the same names.
        on_progress: called after every image with the number done and the total.

    Returns:
        What is to be known about the result, a line each.

    Raises:
        RunError: the folder has files already, or cannot be written to.
        DataError: a sample cannot be read.
    """
    if tolerance < 0 or tolerance > 1000:
        raise DataError(f"a tolerance is 0 to 1000 pixels; got {tolerance}")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise RunError(
            f"{folder} has files already; give another folder, or --overwrite to replace those of the same names"
        )
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    target = Target(absolute, space, tuple(split.name for split in splits))
    return write(target, _samples(target, splits, tolerance, on_progress))


def _samples(
    target: Target, splits: list[Split], tolerance: float, on_progress: Callable[[int, int], None] | None
) -> Iterator[Converted]:
    total, done = sum(map(len, splits)), 0
    for split in splits:
        for index, name in enumerate(split.names):
            yield _sample(target, split, index, name, tolerance)
            done += 1
            if on_progress is not None:
                on_progress(done, total)


def _sample(target: Target, split: Split, index: int, name: str, tolerance: float) -> Converted:
    is_labelled = not isinstance(split, FileSplit) or split.pairs[index].mask is not None
    labels = split[index].labels if is_labelled else None
    if not isinstance(split, FileSplit):
        image = split.image(index)
        file = inside(target.images / split.name, f"{name}.png")
        write_png(file, image)
        return Converted(split.name, name, file, (image.shape[0], image.shape[1]), labels, tolerance)
    source = split.pairs[index].image
    file = inside(target.images / split.name, f"{name}{source.suffix}")
    size = (labels.shape[0], labels.shape[1]) if labels is not None else split.image(index).shape[:2]
    with atomic_path(file) as temporary:
        shutil.copyfile(source, temporary)
    return Converted(split.name, name, file, (size[0], size[1]), labels, tolerance)


def write_masks(target: Target, samples: Iterable[Converted]) -> list[str]:
    """`masks/SPLIT/NAME.png`, one class id a pixel and 255 for no label, and `data.yaml`."""
    for sample in samples:
        if sample.labels is not None:
            write_png(inside(target.folder / "masks" / sample.split, f"{sample.name}.png"), sample.labels)
    colours = dict(zip(target.space.names, map(list, target.space.colours), strict=True))
    values = {"name": target.space.name, "names": list(target.space.names), "colours": colours}
    target.write("data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None))
    return ["ids are those of the classes in data.yaml, 255 means no label"]

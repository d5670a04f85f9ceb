"""Pictures of classes in folders named after the classes, for pre-training: the layout of ImageNet and of most others.

`ROOT/train/CLASS/*.jpg` and `ROOT/val/CLASS/*.jpg`; or `ROOT/CLASS/*.jpg`, of which a share is set apart as val.
Classes are numbered in the order of their names; pictures may lie in folders within their class's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import read_image
from lpsnet.data.pairing import find_pictures
from lpsnet.errors import DataError
from lpsnet.io import expand_home

Files = list[tuple[Path, int]]  # with the numbers of their classes

_LAYOUT = "ROOT/train/CLASS/*.jpg with ROOT/val/CLASS/*.jpg, or ROOT/CLASS/*.jpg"


class ClassifiedPicture(NamedTuple):
    """A picture, H x W x 3 uint8 RGB, and its class's number, an int64 array without dimensions."""

    image: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ClassifiedPictures:
    """Picture files and the numbers of their classes; a file is read when it is asked for."""

    files: Sequence[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ClassifiedPicture:
        """Read a picture; DataError, naming the file, if that is not possible."""
        path, number = self.files[index]
        return ClassifiedPicture(read_image(path), np.asarray(number, np.int64))


@dataclass(frozen=True)
class ImageFolder:
    """An opened folder.

    Attributes:
        classes: their names, in the order of their numbers.
        train, val: the pictures; val may be empty.
    """

    classes: tuple[str, ...]
    train: ClassifiedPictures
    val: ClassifiedPictures


def open_image_folder(root: str | Path, *, val_share: float, seed: int = 0) -> ImageFolder:
    """List the pictures of a folder; none is opened.

    Args:
        root: see the top of this file.
        val_share: where there is no folder val, this share of every class is set apart, drawn with `seed`.

    Raises:
        DataError: the folder is not laid out like that, has fewer than two classes, or a class is empty.
    """
    root = expand_home(root)
    if not root.is_dir():
        raise DataError(f"picture folder {root} does not exist; it is laid out as {_LAYOUT}")
    base = root / "train" if (root / "train").is_dir() else root
    classes = tuple(sorted(folder.name for folder in base.iterdir() if _is_class(folder)))
    if len(classes) < 2:
        raise DataError(f"{base} holds {len(classes)} folders, one a class; at least 2 are needed, as {_LAYOUT}")
    if base != root and (root / "val").is_dir():
        _check_val(root / "val", classes)
        val = [_list(root / "val" / name, number) for number, name in enumerate(classes)]
        return _joined(classes, [_list(base / name, number) for number, name in enumerate(classes)], val)
    train, val = [], []
    for number, name in enumerate(classes):
        files = _list(base / name, number)
        apart = set(np.random.default_rng((seed, number)).permutation(len(files))[: round(val_share * len(files))])
        train.append([file for place, file in enumerate(files) if place not in apart])
        val.append([file for place, file in enumerate(files) if place in apart])
    return _joined(classes, train, val)


def _joined(classes: tuple[str, ...], train: list[Files], val: list[Files]) -> ImageFolder:
    for name, files in zip(classes, train, strict=True):
        if not files:
            raise DataError(f"class {name!r} has no picture to train on; put pictures there or remove its folder")
    return ImageFolder(classes, ClassifiedPictures(_flat(train)), ClassifiedPictures(_flat(val)))


def _flat(parts: list[Files]) -> Files:
    return [file for part in parts for file in part]


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _check_val(folder: Path, classes: tuple[str, ...]) -> None:
    unknown = sorted({entry.name for entry in folder.iterdir() if _is_class(entry)} - set(classes))
    if unknown:
        raise DataError(f"{folder} has a class that is not in train: {unknown[0]!r}; both need the same folders")


def _list(folder: Path, number: int) -> Files:
    return [(path, number) for path in find_pictures(folder)] if folder.is_dir() else []

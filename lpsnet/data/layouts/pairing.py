"""Finding the files of a split and bringing pictures and label files together by what their names share."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lpsnet.data.decoding import LabelDecoder
from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.data.labels import LabelSpace
from lpsnet.data.splits import FileSplit, Pair
from lpsnet.errors import DataError
from lpsnet.io import refuse_streams

Keyed = list[tuple[str, Path]]  # (what a picture and its label file share, file)


class Found(NamedTuple):
    """The files of one split before they are paired.

    Attributes:
        images: the pictures.
        masks: the label files.
        expected: the folder that label files are expected in, to name one that is missing.
        ending: what a label file's stem has after the key.
    """

    images: Keyed
    masks: Keyed
    expected: Path
    ending: str = ""


def find_pictures(folder: Path, *, ending: str = "", suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The picture files in `folder` and the folders in it whose stem ends with `ending`, in the order of their names.

    Hidden files, which some systems leave beside every picture, are passed over.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith("."))
    return sorted(path for path in found if path.stem.endswith(ending))


def find_keyed(folder: Path, *, ending: str = "", suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Keyed:
    """As `find_pictures`, with their keys."""
    paths = find_pictures(folder, ending=ending, suffixes=suffixes)
    return [(key_of(path, folder, ending=ending), path) for path in paths]


def key_of(path: Path, base: Path, *, ending: str = "") -> str:
    """What a picture and its label file share: the path from `base` without suffix and `ending`, with "/"."""
    if not path.name:
        raise DataError(f"{path} is a folder, where the path of a picture is expected")
    return path.relative_to(base).with_suffix("").as_posix().removesuffix(ending)


def build_splits(
    space: LabelSpace, decoder: LabelDecoder, found: Mapping[str, Found], *, unlisted: Collection[str] = ()
) -> list[FileSplit]:
    """Splits of files that are paired by equal keys.

    Where a picture has no label file, the pair names the file that was expected; where no picture of a split has one,
    the split is one without labels. A label file that no pair uses is kept as spare by the first split that found it.

    Args:
        space: the classes.
        decoder: what the label files hold.
        found: the files of each split.
        unlisted: keys of pictures that are there but in no split on purpose; their label files are not spare.
    """
    pairs = {name: _pair(files) for name, files in found.items()}
    seen = {pair.mask for members in pairs.values() for pair in members}
    splits = []
    for name, files in found.items():
        spare = tuple(path for key, path in files.masks if path not in seen and key not in unlisted)
        seen.update(spare)
        splits.append(FileSplit(name, space, decoder, tuple(pairs[name]), spare))
    return splits


def _pair(files: Found) -> list[Pair]:
    masks = dict(files.masks)
    if not any(key in masks for key, _ in files.images):
        return [Pair(key, path, None) for key, path in files.images]
    return [Pair(key, path, masks.get(key, files.expected / f"{key}{files.ending}.png")) for key, path in files.images]


def read_list(path: Path) -> list[list[str]]:
    """The lines of a list file, each a picture or a picture and its label file; blank lines are passed over.

    Raises:
        DataError: the file cannot be read or a line has more than two words.
    """
    try:
        refuse_streams(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"cannot read the list {path}: it is not a text file") from None
    rows = [line.split() for line in lines]
    for number, words in enumerate(rows, start=1):
        if len(words) > 2:
            raise DataError(f"{path}, line {number} has {len(words)} words; a picture and its label file are allowed")
    return [words for words in rows if words]

"""Finding the files of a split in the places of a description, and pairing images and label files by their names.

A place is a folder, a pattern or a list file, and may have `{split}` in its name.
"""

import glob
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lpsnet.data.decode import LabelDecoder
from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.data.labels import LabelSpace
from lpsnet.data.split import FileSplit, Pair
from lpsnet.errors import DataError
from lpsnet.io import expand_home, refuse_streams

SPLIT, NAME = "{split}", "{name}"
Keyed = list[tuple[str, Path]]  # (key: the part of the path that an image and its label file share, file)


class Found(NamedTuple):
    """The files of one split before they are paired.

    Attributes:
        images: the images.
        masks: the label files.
        expected: the folder that label files are expected in, for the message about a missing one.
        ending: of a label file's stem, after the key.
        is_part: of one folder that was divided: an image lacks its label file even if no image of the part has one.
    """

    images: Keyed
    masks: Keyed
    expected: Path
    ending: str = ""
    is_part: bool = False


def extra_file(root: Path, place: str, name: str, split: str) -> Path:
    """A further file of the image called `name`: the place with `{name}` and `{split}` filled in, or in this folder.

    In a folder the file has the image's name and any suffix of an image; if there is none, the path of a PNG file.
    """
    target = root / expand_home(place.replace(SPLIT, split).replace(NAME, name))
    if NAME in place:
        return target
    tries = [target / f"{name}{suffix}" for own in IMAGE_SUFFIXES for suffix in (own, own.upper())]
    return next((path for path in tries if path.is_file()), tries[0])


def find_images(folder: Path, *, ending: str = "", suffixes: Sequence[str] = IMAGE_SUFFIXES) -> list[Path]:
    """The image files in `folder` and its subfolders whose stem ends with `ending`, sorted by path.

    Links are followed, to each folder once. Hidden files and folders, which some systems write beside every image, are
    left out, and what `lpsnet segment` wrote, unless `ending` names it.
    """
    found = (path for path in walk(folder) if path.suffix.lower() in suffixes and path.stem.endswith(ending))
    return sorted(path for path in found if RESULT.search(ending) or not is_result(path))


RESULT = re.compile(r"\.(labels|overlay|colours|side-by-side|confidence|margin)$")  # ends the stem of a result


def is_result(path: Path) -> bool:
    """Whether a file is named as `lpsnet segment` names what it writes."""
    return path.suffix == ".png" and RESULT.search(path.stem) is not None


def walk(folder: Path) -> Iterator[Path]:
    """The files in `folder` and its subfolders that are not hidden, with links followed, to each folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def find_keyed(folder: Path, *, ending: str = "", suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Keyed:
    """As `find_images`, with their keys."""
    paths = find_images(folder, ending=ending, suffixes=suffixes)
    return [(key_of(path, folder, ending=ending), path) for path in paths]


def key_of(path: Path, base: Path, *, ending: str = "") -> str:
    """The key of an image or label file: the path from `base` without suffix and `ending`, with "/"."""
    if not path.name:
        raise DataError(f"{path} is a folder, where the path of an image is expected")
    return normal(path.relative_to(base).with_suffix("").as_posix()).removesuffix(normal(ending))


def normal(name: str) -> str:
    """A name in Unicode's composed form: macOS and archives made there write letters and their accents apart."""
    return unicodedata.normalize("NFC", name)


def build_splits(
    space: LabelSpace, decoder: LabelDecoder, found: Mapping[str, Found], *, unlisted: Collection[str] = ()
) -> list[FileSplit]:
    """Splits of files that are paired by equal keys.

    If an image has no label file, its pair names the file expected; if no image of a split has one, the split has no
    labels. Label files without an image become spare masks of the first split in which they were found.

    Several label files of one image are kept as its `rivals`; nothing is chosen among them.

    Args:
        space: the classes.
        decoder: of the label files.
        found: the files of each split.
        unlisted: keys of images that are left out on purpose; their label files are not spare.
    """
    pairs = {name: _pair(files) for name, files in found.items()}
    seen = {path for members in pairs.values() for pair in members for path in (pair.mask, *pair.rivals)}
    splits = []
    for name, files in found.items():
        spare = tuple(path for key, path in files.masks if path not in seen and key not in unlisted)
        seen.update(spare)
        splits.append(FileSplit(name, space, decoder, tuple(pairs[name]), spare))
    return splits


def _pair(files: Found) -> list[Pair]:
    """An image's label file has its key, or its key with its suffix (`a.jpg.png` of `a.jpg`)."""
    masks: dict[str, list[Path]] = defaultdict(list)
    for key, path in files.masks:
        masks[key] += [] if path in masks[key] else [path]
    counts = Counter(key for key, _ in files.images)
    pairs, num_labelled = [], 0
    for key, path in files.images:
        found = masks.get(key, []) + masks.get(f"{key}{path.suffix}", [])
        is_own = counts[key] > 1 and found == masks.get(f"{key}{path.suffix}")  # two images, each with its label file
        num_labelled += bool(found)
        mask = found[0] if found else files.expected / f"{key}{files.ending}.png"
        pairs.append(Pair(f"{key}{path.suffix}" if is_own else key, path, mask, rivals=tuple(found[1:])))
    return pairs if num_labelled or files.is_part else [Pair(key, path, None) for key, path in files.images]


_SUFFIX = "|".join(re.escape(suffix) for suffix in IMAGE_SUFFIXES)
_TWO_FILES = re.compile(rf"(.+?(?:{_SUFFIX})[\"']?)(?:\s*[,;]\s*|\s+)(\S.*(?:{_SUFFIX})[\"']?)", re.IGNORECASE)


_HEADING = re.compile(r"""["']?((image|img|mask|label|annotation|gt|file|name|path|id)s?[\s,;_"'-]*)+""", re.IGNORECASE)


def read_list(path: Path) -> list[list[str]]:
    """The lines of a list file, each an image or an image and its label file, without blank ones and remarks (#).

    A first line of words such as "image" and "label", before names with a suffix, is a heading. Names may have blanks:
    a line with two suffixes of images (with blanks, a comma or a semicolon between them), or a tab, holds two files;
    one that ends with such a suffix, or has more than two words, one. Quotes around a name are no part of it.

    Raises:
        DataError: the file cannot be read.
    """
    lines = [line for line in read_lines(path) if not line.startswith("#")]
    is_heading = len(lines) > 1 and _HEADING.fullmatch(lines[0]) and Path(_files_of(lines[1])[0]).suffix
    return [_files_of(line) for line in (lines[1:] if is_heading else lines)]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without blank ones and the blanks around them. `DataError` if it cannot be read."""
    try:
        refuse_streams(path)
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"cannot read the list {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"cannot read the list {path}: it is not a text file") from None
    return [line.strip() for line in lines if line.strip()]


def _files_of(line: str) -> list[str]:
    if "\t" in line:
        return [_unquoted(word.strip()) for word in line.split("\t")][:2]
    if two := _TWO_FILES.fullmatch(line):
        return [_unquoted(two[1]), _unquoted(two[2])]
    line = _unquoted(line)
    words = line.split()
    return [line] if Path(line).suffix.lower() in IMAGE_SUFFIXES or len(words) > 2 else words


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] and name[0] in "\"'" else name


def forward(place: str) -> str:
    """A path written on Windows, with "/" between its parts; a drive is left out, which makes it an absolute path."""
    if "\\" not in place and not _DRIVE.match(place):
        return place
    return _DRIVE.sub("/", place.replace("\\", "/"))


_DRIVE = re.compile(r"[A-Za-z]:[/\\]+")


LIST_SUFFIX = ".txt"


def expand_splits(root: Path, template: str) -> dict[str, str]:
    """Split -> place, for a place with `{split}` in it, of the splits that exist under `root`.

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
    """Listed files with their keys, which start from the deepest folder that contains all of them."""
    if not paths:
        return []
    base = Path(os.path.commonpath([path.parent for path in paths]))
    return [(key_of(path, base, ending=ending), path) for path in paths]


def resolve(root: Path, list_file: Path, text: str) -> Path:
    """A path in a list as an absolute one: from the root of the data set, or else from the folder of the list.

    A path from elsewhere, as `/SegNet/CamVid/train/X.png` in CamVid's lists or `data/images/train/X.png` in CVAT's,
    counts by its last parts; so does one of Windows.
    """
    as_written = [root / text, list_file.parent / text]
    path = Path(text if any(each.exists() for each in as_written) else forward(text))
    tries = [root / path, list_file.parent / path]
    shorter = [root.joinpath(*path.parts[-count:]) for count in range(len(path.parts) - 1, 1, -1)]
    missing = shorter[-1] if path.is_absolute() and shorter else tries[0]
    tried = [*tries, *shorter]
    tried += [Path(change(str(each))) for each in tries for change in (normal, _taken_apart)]
    chosen = next((candidate for candidate in tried if candidate.exists()), missing)
    absolute = os.path.abspath(chosen)  # noqa: PTH100 - takes out ".." without following links
    return Path(absolute[1:] if absolute.startswith("//") else absolute)  # to POSIX not the same as "/"


def _taken_apart(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def _pattern_key(path: Path, pattern: Path, ending: str) -> str:
    """The parts of the path that match wildcards: `*/image/*.png` and `*/mask/*.png` give equal keys."""
    magic = [glob.has_magic(part) for part in pattern.parts]
    if "**" in pattern.parts:
        return key_of(path, Path(*pattern.parts[: magic.index(True)]), ending=ending)
    parts = (*path.parent.parts, normal(path.stem).removesuffix(normal(ending)))
    return "/".join(normal(part) for part, is_open in zip(parts, magic, strict=True) if is_open)

"""The description of a data set, as in a short YAML file, and the splits of the image and mask files that it names.

The shortest one, for `images/train`, `images/val`, `masks/train`, `masks/val` with ids 0, 1, 2 in the masks and 255 for
no label:

    names: [road, car, person]

All keys are attributes of `Description`. The formats in `formats` make one from what their folder holds.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lpsnet.data import pairing
from lpsnet.data.channels import RGB, Channels, bands_header
from lpsnet.data.decode import LabelDecoder
from lpsnet.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from lpsnet.data.labels import IGNORE_INDEX, Colour, LabelSpace
from lpsnet.data.pairing import LIST_SUFFIX, SPLIT, Found, Keyed, expand_splits, find_images, read_list
from lpsnet.data.split import FileSplit, Pair
from lpsnet.errors import DataError, unknown_name, wanted
from lpsnet.io import expand_home, read_yaml

_Level = Annotated[int, Field(ge=0, le=255)]
_Rgb = tuple[_Level, _Level, _Level]
Places = str | dict[str, str | list[str]]


class Description(BaseModel):
    """The keys of a YAML file. All are optional except `names` (or `colour_map`, which has names too).

    `images` and `masks` are a place with `{split}` in it, or a map from split to a place or several. A place is a
    folder (with the folders in it), a pattern with `*`, or a list file `.txt` with a path a line (and the label file
    after it, if wanted). An image and its label file belong together if their paths from their folders are equal (for a
    pattern: the parts that match wildcards) except for the suffix, `image_suffix` and `mask_suffix`. Where images of
    several places have equal paths, so must have the places: `images/cam1` goes with `masks/cam1`, or else the first
    with the first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: str = Field(".", description="the folder that all other paths start from, relative to this file")
    name: str | None = Field(None, description="what the classes together are called; default the file's name")
    names: list[str] | dict[int, str] | None = Field(
        None, description="a list of class names, or a map from id in the label files to class name (quote yes, no, 1)"
    )
    colours: list[_Rgb] | dict[str, _Rgb] | None = Field(
        None, description="[red, green, blue] for each class, as a list or by name; used to draw, not to read"
    )
    images: Places = Field("images/{split}", description="a place with {split} in it, or a map from split to places")
    masks: Places = Field("masks/{split}", description="a place with {split} in it, or a map from split to places")
    lists: str | dict[str, str] | None = Field(
        None, description="list files with an image a line, {split}.txt or a map, when the splits share a folder"
    )
    image_suffix: str = Field("", description="what an image's stem has after the name it shares with the label file")
    mask_suffix: str = Field("", description="what a label file's stem has after the name it shares with the image")
    channels: list[str] | Annotated[int, Field(strict=True)] | None = Field(
        None, description="names of the images' channels, or how many, 1 to 16; without it images are RGB of 8 bits"
    )
    extra_images: str | list[str] = Field(
        [],
        description="with channels: further files of each image, whose channels follow: folders, or paths with {name}",
    )
    val_fraction: float | None = Field(
        None, gt=0, lt=1, description="a number between 0 and 1: the last part of one folder, by name, becomes 'val'"
    )
    ids: list[int] | dict[int, int | str] | None = Field(
        None, description="the id in the label files for each class, as a list, or a map from id to class name"
    )
    colour_map: dict[str, _Rgb | list[_Rgb]] | None = Field(
        None, description="a map from class name to the [red, green, blue] (or several) it has in the label files"
    )
    ignore: Literal["others"] | list[int | _Rgb | str] = Field(
        [], description="a list of ids, [red, green, blue] or (with a format) labels that mean no label, or 'others'"
    )
    reduce_zero_label: bool = Field(
        False, description="true if 0 in the label files means no label and the first class is 1"
    )
    format: Literal["masks", "coco", "labelme", "yolo", "cvat", "labelstudio", "supervisely"] = Field(
        "masks", description="masks, or the format of label files with shapes, which are drawn into label maps"
    )
    annotations: str | list[str] | dict[str, str | list[str]] | None = Field(
        None, description="with a format: its label files or their folders, or a map from split to these"
    )
    labels: dict[str, str] | None = Field(
        None, description="with a format: a map from label in the files to class name, to merge or rename"
    )
    background: str | None = Field(
        None, description="with a format: the class of pixels that no shape covers; without it they have no label"
    )
    line_width: float | None = Field(
        None, gt=0, le=1000, description="with a format: the width of lines, and the diameter of points, in pixels"
    )
    draw: list[Literal["bbox"]] = Field(
        [], description="with a format: [bbox] to fill boxes of objects without a region"
    )
    skip: list[str] = Field([], description="with a format: kinds of shapes to leave out, e.g. point")
    exclude: list[str] = Field(
        [], description="a list of images to leave out, by their name in the data set: path without suffix, with /"
    )

    @classmethod
    def of(cls, space: LabelSpace, **values: Any) -> Self:
        """A description of files labelled with the classes of `space`."""
        return cls(name=space.name, names=list(space.names), colours=list(space.colours), **values)

    def class_names(self) -> list[str]:
        """The class names in the order of the class ids."""
        if isinstance(self.names, dict):
            return [self.names[number] for number in sorted(self.names)]
        return self.names or list(self.colour_map or {})

    def label_space(self, default_name: str) -> LabelSpace:
        """The classes with their colours."""
        names = self.class_names()
        if not names:
            raise DataError("'names' is missing; give a list of class names")
        return LabelSpace.from_names(self.name or default_name, names, self._drawn_colours(names))

    def decoder(self) -> LabelDecoder:
        """The decoder of the label files."""
        return self._colour_decoder(self.colour_map) if self.colour_map else self._id_decoder()

    def _drawn_colours(self, names: list[str]) -> list[Colour] | None:
        table = self.colours
        if table is None and self.colour_map:
            _check_covers("colour_map", self.colour_map, names)
            return [_colours_of(self.colour_map[name])[0] for name in names]
        if isinstance(table, dict):
            _check_covers("colours", table, names)
            return [table[name] for name in names]
        return table

    def _colour_decoder(self, colour_map: dict[str, _Rgb | list[_Rgb]]) -> LabelDecoder:
        if self.ids is not None or self.reduce_zero_label:
            key = "reduce_zero_label" if self.ids is None else "ids"
            raise DataError(f"{key!r} and 'colour_map' exclude each other; label files hold either ids or colours")
        names = self.class_names()
        _check_covers("colour_map", colour_map, names)
        rows = [(rgb, names.index(name)) for name, value in colour_map.items() for rgb in _colours_of(value)]
        rows += [(rgb, IGNORE_INDEX) for rgb in self._ignored() if isinstance(rgb, tuple)]
        _check_once("colour", [rgb for rgb, _ in rows])
        if any(isinstance(entry, int) for entry in self._ignored()):
            raise DataError("'ignore' lists ids, but with 'colour_map' label files hold colours")
        return LabelDecoder.colours(dict(rows), ignore_others=self.ignore == "others")

    def _id_decoder(self) -> LabelDecoder:
        ignored = [number for number in self._ignored() if isinstance(number, int)]
        if len(ignored) < len(self._ignored()):
            raise DataError("'ignore' lists colours, but without 'colour_map' label files hold ids")
        ignored += [0] if self.reduce_zero_label else []
        table = self._class_ids()
        both = [number for number in ignored if number in table]
        if both:
            raise DataError(f"id {both[0]} is in 'ignore' and also has a class")
        table = {IGNORE_INDEX: IGNORE_INDEX} | dict.fromkeys(ignored, IGNORE_INDEX) | table
        return LabelDecoder.index(table, ignore_others=self.ignore == "others")

    def _ignored(self) -> list[int | _Rgb]:
        if isinstance(self.ignore, str):
            return []
        if words := [entry for entry in self.ignore if isinstance(entry, str)]:
            raise DataError(f"'ignore' lists the label {words[0]!r}, but label files hold ids or colours")
        return [entry for entry in self.ignore if not isinstance(entry, str)]

    def _class_ids(self) -> dict[int, int]:
        """Id in the label files -> class id."""
        names = self.class_names()
        if self.reduce_zero_label:
            if self.ids is not None or isinstance(self.names, dict):
                raise DataError("'reduce_zero_label' goes with a list of 'names', without ids")
            return {number: index for index, number in enumerate(range(1, len(names) + 1))}
        if self.ids is None:
            numbers = sorted(self.names) if isinstance(self.names, dict) else range(len(names))
            return {number: index for index, number in enumerate(numbers)}
        if isinstance(self.ids, list):
            if len(self.ids) != len(names):
                raise DataError(f"'ids' has {len(self.ids)} entries for {len(names)} classes; give one for each")
            _check_once("id", self.ids)
            return {number: index for index, number in enumerate(self.ids)}
        return {number: _class_id(value, names) for number, value in self.ids.items()}


# The YAML file in which exporters of labels describe a folder
_NAMES_IN_FOLDER = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")


def is_yaml(path: Path) -> bool:
    """Whether a path is named like a YAML file; it need not exist."""
    return path.name.lower().endswith((".yaml", ".yml"))


def yaml_file(path: Path) -> Path | None:
    """The YAML file that `path` is, or the one in the folder that it is; None if there is none."""
    inside = (path / name for name in _NAMES_IN_FOLDER)
    return path if is_yaml(path) else next((file for file in inside if file.is_file()), None)


def is_described(path: Path) -> bool:
    """Whether a path is a YAML file or a folder with one."""
    return yaml_file(path) is not None


def load_description(path: Path) -> Description:
    """Read and check a YAML file, or the one in a folder.

    Raises:
        DataError: the file cannot be read, is no YAML, or holds what no description has; the message names the key.
    """
    file = yaml_file(path) or path
    return parse(read_yaml(file, what="description"), file)


def parse(values: object, path: Path) -> Description:
    """The description with these values, read from `path`.

    Raises:
        DataError: they are not those of a description; the message names the key.
    """
    if not isinstance(values, dict):
        raise DataError(f"{path} is no description of a data set; allowed keys: {', '.join(Description.model_fields)}")
    for key in values:
        if key not in Description.model_fields:
            raise DataError(f"{path}: {unknown_name('key', key, Description.model_fields)}")
    try:
        return Description.model_validate(
            {**values, **{key: _forward(values[key]) for key in _PLACES if key in values}}
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        allowed = Description.model_fields[key].description
        raise DataError(f"{path}: {key!r} is not usable ({wanted(first)}); allowed: {allowed}") from None


_PLACES = ("path", "images", "masks", "lists", "annotations", "extra_images")  # the keys that hold paths


def _forward(value: Any) -> Any:
    """Paths as they are written on Windows, with "/"."""
    if isinstance(value, dict):
        return {key: _forward(place) for key, place in value.items()}
    if isinstance(value, list):
        return [_forward(place) for place in value]
    return value.replace("\\", "/") if isinstance(value, str) else value


def _colours_of(value: _Rgb | list[_Rgb]) -> list[_Rgb]:
    return value if isinstance(value, list) else [value]


def _check_covers(key: str, table: dict[str, Any], names: list[str]) -> None:
    for name in table:
        if name not in names:
            raise DataError(f"{key!r}: {unknown_name('class', name, names)}")
    missing = [name for name in names if name not in table or table[name] == []]
    if missing:
        raise DataError(f"{key!r} has no colour for class {missing[0]!r}; give one for each class")


def _check_once(what: str, values: list[Any]) -> None:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise DataError(f"{what} {twice[0]} is given two meanings")


def _class_id(value: int | str, names: list[str]) -> int:
    if isinstance(value, int):
        if not 0 <= value < len(names):
            possible = f"0 to {len(names) - 1} are possible; ids without a label go into 'ignore'"
            raise DataError(f"'ids' names class {value}; {possible}")
        return value
    if value not in names:
        raise DataError(f"'ids': {unknown_name('class', value, names)}")
    return names.index(value)


_FOR_SHAPES = ("annotations", "labels", "background", "line_width", "draw", "skip")
WHOLE = "all"  # the only split, if the places have no splits


def build_parts(description: Description, folder: Path, space: LabelSpace) -> list[FileSplit]:
    """The splits of a description in `folder`.

    Raises:
        DataError: the places it names do not exist, or do not fit together.
    """
    root = folder / expand_home(description.path)
    if not root.is_dir():
        raise DataError(f"'path': folder {root} does not exist")
    if wrong := [key for key in _FOR_SHAPES if getattr(description, key)]:
        raise DataError(f"{wrong[0]!r} goes with a 'format' of shapes; masks have a value for every pixel")
    if description.lists is not None:
        found, known = _listed(description, root)
    else:
        found, known = _placed(description, root), set()
    _check_found(found, description)
    return pairing.build_splits(space, description.decoder(), found, unlisted={*known, *description.exclude})


def with_channels(description: Description, root: Path, parts: Sequence[FileSplit]) -> list[FileSplit]:
    """The splits with the channels of a description; a file that is a further one of an image is no image itself.

    The first image that can be looked into says whether all have 8 or 16 bits.

    Raises:
        DataError: the description has further files without channels, or more or fewer names than are possible.
    """
    places = _as_list(description.extra_images)
    if description.channels is None:
        if places:
            raise DataError("'extra_images' goes with 'channels': names of all channels, those of further files last")
        return list(parts)
    if wrong := [place for place in places if SPLIT in place and [part.name for part in parts] == [WHOLE]]:
        raise DataError(f"'extra_images': {wrong[0]!r} has {SPLIT} in it, but the images have no splits")
    base = root / expand_home(description.path)
    extra = {
        pair.image: tuple(pairing.extra_file(base, place, pair.name, part.name) for place in places)
        for part in parts
        for pair in part.pairs
    }
    taken = {path for image, paths in extra.items() for path in paths if path != image}
    pairs = [[it._replace(extra=extra[it.image]) for it in part.pairs if it.image not in taken] for part in parts]
    channels = _channels(description.channels, next(filter(None, pairs), []))
    if channels == RGB and not places:
        return list(parts)
    return [replace(part, pairs=tuple(own), channels=channels) for part, own in zip(parts, pairs, strict=True)]


_NUM_TRIED = 8  # images looked into until one can be read


def _channels(value: list[str] | int, pairs: Sequence[Pair]) -> Channels:
    names = Channels.numbered(value).names if isinstance(value, int) else tuple(value)
    for pair in pairs[:_NUM_TRIED]:
        with suppress(DataError):
            return Channels(names, max(bands_header(path)[1] for path in (pair.image, *pair.extra)))
    return Channels(names)


def _placed(description: Description, root: Path) -> dict[str, Found]:
    """The files of each split if every split has its own places (or there is only one split)."""
    images = image_places(description.images, root)
    masks = _mask_places(description.masks, root, list(images))
    found = {name: _gather(description, root, places, masks[name]) for name, places in images.items()}
    # Images and label files may share a folder or a pattern: label files are not images.
    taken = {path for files in found.values() for _, path in files.masks}
    for name, files in found.items():
        found[name] = files._replace(images=[(key, path) for key, path in files.images if path not in taken])
    if isinstance(description.images, str):
        found = {name: files for name, files in found.items() if files.images or name == WHOLE}
    if not found:
        raise DataError("there are no images; look at 'images' and 'image_suffix'")
    return divide(description, exclude_named(found, description.exclude))


def image_places(value: Places, root: Path) -> dict[str, list[str]]:
    """Places of images by split. `DataError` if there is nothing like a place with `{split}` in it."""
    if isinstance(value, dict):
        return {name: _as_list(places) for name, places in value.items()}
    if SPLIT not in value:
        return {WHOLE: [value]}
    places = expand_splits(root, value)
    if not places:
        raise DataError(f"'images': nothing like {root / value} exists")
    return {name: [place] for name, place in places.items()}


def _mask_places(value: Places, root: Path, splits: list[str]) -> dict[str, list[str]]:
    """Places of label files by split, an empty list for a split without labels."""
    if isinstance(value, dict):
        extra = [name for name in value if name not in splits]
        if extra:
            raise DataError(f"'masks' has split {extra[0]!r}, which 'images' does not have; it has {', '.join(splits)}")
        return {name: _as_list(value.get(name, [])) for name in splits}
    if SPLIT not in value:
        return {name: [value] for name in splits}
    places = expand_splits(root, value)
    return {name: [places[name]] if name in places else [] for name in splits}


def _as_list(places: str | list[str]) -> list[str]:
    return [places] if isinstance(places, str) else list(places)


def _gather(description: Description, root: Path, image_places: list[str], mask_places: list[str]) -> Found:
    ending = _stem_ending(description.mask_suffix)
    image_ending = _stem_ending(description.image_suffix)
    images = [pairing.collect(root, place, suffixes=IMAGE_SUFFIXES, ending=image_ending) for place in image_places]
    masks = [_second_column(root, place, keyed) for place, keyed in zip(image_places, images, strict=True)]
    sources = image_places if any(masks) else mask_places
    if not any(masks):
        masks = [pairing.collect(root, place, suffixes=MASK_SUFFIXES, ending=ending) for place in mask_places]
    if len(images) == len(masks) > 1 and _overlap(images):
        heads = _heads(image_places)
        same = _heads(sources)
        images = _with_heads(heads, images)
        masks = _with_heads(same if set(same) == set(heads) else heads, masks)
    expected = root / (mask_places[0] if mask_places else "")
    return Found([*chain.from_iterable(images)], [*chain.from_iterable(masks)], expected, ending)


def _overlap(places: list[Keyed]) -> bool:
    """Whether images of two places have the same key."""
    keys = [{key for key, _ in keyed} for keyed in places]
    return len(set().union(*keys)) < sum(map(len, keys))


def _heads(places: list[str]) -> list[str]:
    """What tells places apart: "cam1", "cam2" of "images/cam1", "images/cam2"; their numbers if nothing does."""
    paths = [PurePosixPath(place) for place in places]
    parts = [(path.parent if path.suffix.lower() in IMAGE_SUFFIXES else path.with_suffix("")).parts for path in paths]
    longest = max(map(len, parts))
    differ = [index for index in range(longest) if len({each[index : index + 1] for each in parts}) > 1]
    heads = ["/".join(each[index] for index in differ if index < len(each)) for each in parts]
    return heads if len(set(heads)) == len(heads) else [str(number) for number in range(1, len(places) + 1)]


def _with_heads(heads: list[str], keyed: list[Keyed]) -> list[Keyed]:
    return [[(f"{head}/{key}", path) for key, path in members] for head, members in zip(heads, keyed, strict=True)]


def _stem_ending(suffix: str) -> str:
    """`mask_suffix` may be given with the file's suffix: "_L.png" for "_L"."""
    return suffix[: -len(Path(suffix).suffix)] if Path(f"x{suffix}").suffix.lower() in IMAGE_SUFFIXES else suffix


def _second_column(root: Path, place: str, images: Keyed) -> Keyed:
    """The label files that a list file names after its images."""
    list_file = root / expand_home(place)
    if list_file.suffix != LIST_SUFFIX:
        return []
    rows = read_list(list_file)
    return [
        (key, pairing.resolve(root, list_file, words[1]))
        for (key, _), words in zip(images, rows, strict=True)
        if len(words) == 2
    ]


def divide(description: Description, found: dict[str, Found]) -> dict[str, Found]:
    """Apply `val_fraction`; neighbours by name, often frames of one video, stay in one split."""
    fraction = description.val_fraction
    if fraction is None:
        return found
    if list(found) != [WHOLE]:
        raise DataError("'val_fraction' divides one folder, but 'images' has splits already")
    files = found[WHOLE]
    images = sorted(files.images)
    if len(images) < 2:
        raise DataError(f"'val_fraction' needs two images or more to divide; there are {len(images)}")
    count = min(max(round(len(images) * fraction), 1), len(images) - 1)
    parts = {"train": images[:-count], "val": images[-count:]}
    return {name: files._replace(images=members, is_part=bool(files.masks)) for name, members in parts.items()}


def _listed(description: Description, root: Path) -> tuple[dict[str, Found], set[str]]:
    """The files of each split if list files choose from shared folders, and the keys of all images in these."""
    if not (isinstance(description.images, str) and isinstance(description.masks, str)) or description.val_fraction:
        raise DataError("with 'lists', 'images' and 'masks' are one folder each, and there is no 'val_fraction'")
    for key, place in (("images", description.images), ("masks", description.masks)):
        if SPLIT in place:
            raise DataError(f"with 'lists', {key!r} is a folder that all splits share; got {place!r}")
    files = _gather(description, root, [description.images], [description.masks])
    lists = description.lists if isinstance(description.lists, dict) else expand_splits(root, description.lists or "")
    if not lists:
        raise DataError(f"'lists': nothing like {root / str(description.lists)} exists, or it has no {SPLIT} in it")
    chosen = {name: files._replace(images=choose(root / place, dict(files.images))) for name, place in lists.items()}
    return exclude_named(chosen, description.exclude), {key for key, _ in files.images}


def choose(list_file: Path, images: dict[str, Path]) -> Keyed:
    """The images that a list file names by path or name, with or without suffix; `DataError` for an unknown one."""
    chosen = []
    for words in read_list(list_file):
        texts = (" ".join(words), words[0])  # names may have blanks
        lines = [pairing.normal(each) for text in texts for each in (text, pairing.forward(text))]
        spellings = [name for line in lines for name in _last_parts(PurePosixPath(line))]
        key = next((spelling for spelling in spellings if spelling in images), None)
        if key is None:
            raise DataError(f"list {list_file} names {words[0]!r}, which is not among the {len(images)} images")
        chosen.append((key, images[key]))
    return chosen


def _last_parts(path: PurePosixPath) -> list[str]:
    """A path without and with its suffix, whole and by fewer and fewer of its last parts, as it is elsewhere."""
    parts = [part for part in path.parts if part not in ("/", ".")]
    shorter = [PurePosixPath(*parts[-count:]) for count in range(len(parts), 0, -1)]
    return [name for each in shorter for name in (str(each), str(each.with_suffix("")))]


def exclude_named(found: dict[str, Found], names: list[str]) -> dict[str, Found]:
    """Without the images of these names; `DataError` if there is no such image."""
    excluded = set(map(pairing.normal, names))
    unknown = excluded - {key for files in found.values() for key, _ in files.images}
    if unknown:
        raise DataError(f"'exclude' lists {min(unknown)!r}, which is the name of no image")
    return {
        name: files._replace(images=[(key, path) for key, path in files.images if key not in excluded])
        for name, files in found.items()
    }


def _lossy(found: dict[str, Found]) -> str:
    """A file where label files are expected that is of a format that changes ids, in words; "" if there is none."""
    images = {path for files in found.values() for _, path in files.images}
    there = (path for files in found.values() if files.expected.is_dir() for path in find_images(files.expected))
    lossy = next((path for path in there if path not in images and path.suffix.lower() not in MASK_SUFFIXES), None)
    return f"{lossy} is of a format that changes ids: save labels as PNG; or " if lossy else ""


def _check_found(found: dict[str, Found], description: Description) -> None:
    """Raise if files are missing that the description names: the data set would have no images or labels."""
    if description.masks != {} and not any(files.masks for files in found.values()):
        raise DataError(
            f"there are no label files (PNG, BMP or TIFF); {_lossy(found)}look at 'masks' and 'mask_suffix'"
        )
    masks = {name: dict(files.masks) for name, files in found.items()}
    used = {
        masks[name].get(spelling)
        for name, files in found.items()
        for key, path in files.images
        for spelling in (key, f"{key}{path.suffix}")
    }
    for name, files in found.items():
        if not files.images:
            raise DataError(f"split {name!r} has no images; look at 'images' and 'image_suffix'")
        # Label files of another split are in a shared folder, in which this split may have none.
        if files.masks and used.isdisjoint(masks[name].values()):
            key, path = files.images[0]
            wanted = f"image {path} would need {files.expected / key}{files.ending}.png"
            raise DataError(
                f"no label file of split {name!r} has the name of an image: {wanted}; look at 'mask_suffix'"
            )

"""Writing a data set in another label format: every image is copied, its label map traced and written by the format.

`FORMATS` in `dataset.py` names the formats that can be written: each has a `Write` function in its file. Label maps are
what is converted, so every format that is read becomes any that is written; where shapes overlapped, the ones on top
are left. Pixels without a label are left uncovered.

Two formats are written here: masks, and GeoJSON, which is only written, never read.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from lpsnet.data import image_rows, shapes
from lpsnet.data.channels import RGB, Channels, require_rgb
from lpsnet.data.images import Labels, write_png
from lpsnet.data.labels import IGNORE_INDEX, LabelSpace
from lpsnet.data.shapes import Outline, Points
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
        channels: of the images.
        num_extra: further files of each image.
    """

    folder: Path
    space: LabelSpace
    splits: tuple[str, ...]
    channels: Channels = RGB
    num_extra: int = 0

    @property
    def extra_images(self) -> list[str]:
        """The folders of the further files, as a description names them."""
        return [f"extra_{number}/{{split}}" for number in range(1, self.num_extra + 1)]

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
    tile: tuple[int, int] | None = None,
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
        tile: (height, width) in pixels that images are cut into, as `NAME_TOP_LEFT.png`; None copies them as they are.
            Those at the far edges reach into their neighbours, so that all have this size; smaller images are one
            tile, and tiles without a labelled pixel are left out. TIFF files are read from the top down.
        overwrite: write into a folder that has files, and replace those of the same names.
        on_progress: called after every image with the number done and the total.

    Returns:
        What is to be known about the result, a line each.

    Raises:
        RunError: the folder has files already, or the data set itself, or cannot be written to.
        DataError: a sample cannot be read, or is to be cut into tiles and not RGB.
    """
    if tile is not None:
        for split in splits:
            require_rgb(split.channels, "tiles are cut from RGB images")
    if not 0 <= tolerance <= 1000:
        raise DataError(f"a tolerance is 0 to 1000 pixels; got {tolerance}")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder")
    if source := next((path for path in _sources(splits) if path.resolve().is_relative_to(folder.resolve())), None):
        raise RunError(
            f"{folder} holds the data set itself, such as {source}, which would be replaced; give another one"
        )
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise RunError(
            f"{folder} has files already; give another folder, or --overwrite to replace those of the same names"
        )
    absolute = Path(os.path.abspath(folder))  # noqa: PTH100 - keeps links
    channels = next((split.channels for split in splits), RGB)
    pairs = [pair for split in splits if isinstance(split, FileSplit) for pair in split.pairs[:1]]
    target = Target(
        absolute,
        space,
        tuple(split.name for split in splits),
        channels,
        max((len(it.extra) for it in pairs), default=0),
    )
    cut = None if tile is None else _Tiles(tile)
    remarks = write(target, _samples(target, splits, tolerance, on_progress, cut))
    remarks += [] if cut is None else cut.remarks
    if channels.is_rgb or write is write_masks:
        return remarks
    options = f",channels={'+'.join(channels.names)}" + f",extra_images={'+'.join(target.extra_images)}" * bool(
        target.num_extra
    )
    return [*remarks, f"images of {channels} are copied as they are; --data takes them with {options} after the path"]


def _sources(splits: list[Split]) -> Iterator[Path]:
    """The files that are read."""
    pairs = (pair for split in splits if isinstance(split, FileSplit) for pair in split.pairs)
    yield from (path for pair in pairs for path in (pair.image, pair.mask, *pair.extra) if path is not None)


def _samples(
    target: Target,
    splits: list[Split],
    tolerance: float,
    on_progress: Callable[[int, int], None] | None,
    cut: "_Tiles | None",
) -> Iterator[Converted]:
    total, done = sum(map(len, splits)), 0
    for split in splits:
        for index, name in enumerate(split.names):
            if cut is None:
                yield _sample(target, split, index, name, tolerance)
            else:
                yield from cut.of(target, split, index, name, tolerance)
            done += 1
            if on_progress is not None:
                on_progress(done, total)


@dataclass
class _Tiles:
    """Images cut into tiles of a size, and how many there were: kept ones, and names of those without a label."""

    size: tuple[int, int]
    num_kept: int = 0
    left_out: list[str] = field(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        kept = f"{self.num_kept} tiles were cut, of {self.size[0]}x{self.size[1]} where the image is as large"
        if not self.left_out:
            return [kept]
        return [kept, f"{len(self.left_out)} tiles without a labelled pixel were left out, such as {self.left_out[0]}"]

    def of(self, target: Target, split: Split, index: int, name: str, tolerance: float) -> Iterator[Converted]:
        """The tiles of an image, whose label map is held whole."""
        labels = split.labels(index) if _is_labelled(split, index) else None
        with _rows(split, index) as rows:
            if labels is not None and labels.shape != rows.size:
                sizes = f"{rows.size[0]}x{rows.size[1]} but its labels {labels.shape[0]}x{labels.shape[1]}"
                raise DataError(f"image {name} is {sizes} (height x width); both must have the same size")
            for top in _tile_starts(rows.size[0], self.size[0]):
                bottom = min(top + self.size[0], rows.size[0])
                band = rows.read(top, bottom)
                for left in _tile_starts(rows.size[1], self.size[1]):
                    own, columns = f"{name}_{top}_{left}", slice(left, left + self.size[1])
                    part = None if labels is None else np.ascontiguousarray(labels[top:bottom, columns])
                    if part is not None and (part == IGNORE_INDEX).all():
                        self.left_out.append(own)
                        continue
                    file, image = inside(target.images / split.name, f"{own}.png"), band[:, columns]
                    write_png(file, np.ascontiguousarray(image))
                    self.num_kept += 1
                    yield Converted(split.name, own, file, (image.shape[0], image.shape[1]), part, tolerance)


def _is_labelled(split: Split, index: int) -> bool:
    return not isinstance(split, FileSplit) or split.pairs[index].mask is not None


def _tile_starts(length: int, tile: int) -> list[int]:
    """Where tiles begin that cover a length, the last one at its end."""
    return sorted({*range(0, max(1, length - tile + 1), tile), max(0, length - tile)})


def _rows(split: Split, index: int) -> AbstractContextManager[image_rows.ImageRows]:
    if isinstance(split, FileSplit):
        return image_rows.open_rows(split.pairs[index].image)
    return nullcontext(image_rows.WholeRows(split.image(index)))


def _sample(target: Target, split: Split, index: int, name: str, tolerance: float) -> Converted:
    labels = split[index].labels if _is_labelled(split, index) else None
    if not isinstance(split, FileSplit):
        image = split.image(index)
        file = inside(target.images / split.name, f"{name}.png")
        write_png(file, image)
        return Converted(split.name, name, file, (image.shape[0], image.shape[1]), labels, tolerance)
    source = split.pairs[index].image
    file = inside(target.images / split.name, f"{name}{source.suffix}")
    size = (labels.shape[0], labels.shape[1]) if labels is not None else split.image(index).shape[:2]
    copies = [(source, file)]
    for place, extra in zip(target.extra_images, split.pairs[index].extra, strict=False):
        folder = target.folder / place.format(split=split.name)
        copies.append((extra, inside(folder, f"{name}{extra.suffix}")))
    for path, copy in copies:
        with atomic_path(copy) as temporary:
            shutil.copyfile(path, temporary)
    return Converted(split.name, name, file, (size[0], size[1]), labels, tolerance)


def write_masks(target: Target, samples: Iterable[Converted]) -> list[str]:
    """`masks/SPLIT/NAME.png`, one class id a pixel and 255 for no label, and `data.yaml`."""
    for sample in samples:
        if sample.labels is not None:
            write_png(inside(target.folder / "masks" / sample.split, f"{sample.name}.png"), sample.labels)
    colours = dict(zip(target.space.names, map(list, target.space.colours), strict=True))
    values: dict[str, object] = {"name": target.space.name, "names": list(target.space.names), "colours": colours}
    if not target.channels.is_rgb:
        values["channels"] = list(target.channels.names)
        values |= {"extra_images": target.extra_images} if target.num_extra else {}
    target.write("data.yaml", yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None))
    return ["ids are those of the classes in data.yaml, 255 means no label"]


# Where the pixels of a GeoTIFF are on a map, by its tags ModelTiepoint, ModelPixelScale and ModelTransformation. The
# corner of the first pixel is (0, 0), as for all outlines here. Files whose raster type is PixelIsPoint give places of
# pixel centres, which is taken into account (OGC GeoTIFF 1.1, GTRasterTypeGeoKey).

_SCALE, _TIEPOINTS, _MATRIX, _KEYS = 33550, 33922, 34264, 34735
_RASTER_TYPE, _GEOGRAPHIC, _PROJECTED = 1025, 2048, 3072  # keys in _KEYS
_POINT, _USER_DEFINED = 2, 32767


@dataclass(frozen=True)
class Georeference:
    """From pixels to map coordinates: an affine map and the system of coordinates.

    Attributes:
        x: a, b, c of a * column + b * row + c, the map's x (east, longitude).
        y: the same of its y (north, latitude).
        epsg: the number of the system of coordinates in the EPSG's register; None if the file names none.
    """

    x: tuple[float, float, float]
    y: tuple[float, float, float]
    epsg: int | None

    @property
    def is_mirrored(self) -> bool:
        """Whether what is clockwise in the image is counter-clockwise on the map, numerically: for y upwards it is."""
        return self.x[0] * self.y[1] - self.x[1] * self.y[0] < 0

    def to_map(self, points: Points) -> Points:
        """N x 2 points (x, y) in pixels as N x 2 map coordinates."""
        (ax, bx, cx), (ay, by, cy) = self.x, self.y
        column, row = points[:, 0], points[:, 1]
        return np.stack([ax * column + bx * row + cx, ay * column + by * row + cy], 1)


def read_georeference(path: Path) -> Georeference | None:
    """The georeference of a TIFF file; None for other files and for TIFF files without one.

    Raises:
        DataError: the file has one that is not read (control points alone, a rotation in EXIF data beside it).
    """
    if not image_rows.is_tiff(path):
        return None
    with path.open("rb") as file:
        directory = image_rows.read_directory(file, path)
    found = _affine(directory, path)
    if found is None:
        return None
    if directory.number(image_rows.ORIENTATION, 1) != 1:
        raise DataError(f"{path} has map coordinates and an orientation, which is not read; save it upright")
    keys = _keys(directory)
    if keys.get(_RASTER_TYPE) == _POINT:
        found = tuple((a, b, c - (a + b) / 2) for a, b, c in found)
    code = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC, _USER_DEFINED))
    return Georeference(found[0], found[1], None if code in (0, _USER_DEFINED) else code)


def _affine(directory: image_rows.Directory, path: Path) -> tuple[tuple[float, float, float], ...] | None:
    matrix, scale, ties = (directory.numbers(tag) for tag in (_MATRIX, _SCALE, _TIEPOINTS))
    if len(matrix) == 16:
        found = tuple((float(row[0]), float(row[1]), float(row[3])) for row in (matrix[:4], matrix[4:8]))
    elif len(scale) >= 2 and len(ties) >= 6:
        column, row, _, x, y, _ = ties[:6]
        found = ((scale[0], 0.0, x - column * scale[0]), (0.0, -scale[1], y + row * scale[1]))
    elif ties:
        raise DataError(f"{path} has map coordinates by control points alone, which are not read; warp it to a grid")
    else:
        return None
    if not np.isfinite(found).all() or found[0][0] * found[1][1] == found[0][1] * found[1][0]:
        raise DataError(f"{path} has map coordinates that all lie on a line, or are no numbers")
    return found


def _keys(directory: image_rows.Directory) -> dict[int, int]:
    """The geo keys that hold a number."""
    numbers = directory.numbers(_KEYS)
    rows = [numbers[at : at + 4] for at in range(4, len(numbers) - 3, 4)]
    return {int(key): int(value) for key, place, count, value in rows if place == 0 and count == 1}


def write_geojson(target: Target, samples: Iterable[Converted]) -> list[str]:
    """`NAME.geojson` for each image, for maps and for programs that read polygons: a feature for each region.

    - Coordinates are those of the map for a georeferenced TIFF file, in its own system, which `crs` names as QGIS and
      GDAL read it; else pixels, x to the right and y down from the image's corner. `coordinates` says which: "map" or
      "pixels". The georeference is read from `Converted.file`.
    - Holes are the further rings of a polygon. The exterior turns counter-clockwise by the numbers (RFC 7946, 3.1.6).
    - Only written, not read.

    Returns:
        Remarks, a line each.
    """
    remarks, num_mapped, count = list[str](), 0, 0
    for sample in samples:
        reference, problem = _reference(sample)
        remarks += [f"{problem}; pixel coordinates were written"] if problem else []
        num_mapped, count = num_mapped + (reference is not None), count + 1
        features = [_feature(outline, reference, target) for outline in sample.outlines]
        values: dict[str, Any] = {"type": "FeatureCollection", "name": sample.name}
        values |= {"coordinates": "pixels" if reference is None else "map"}
        if reference is not None and reference.epsg is not None:
            name = f"urn:ogc:def:crs:EPSG::{reference.epsg}"
            values["crs"] = {"type": "name", "properties": {"name": name}}
        text = json.dumps(values | {"features": features}, ensure_ascii=False, allow_nan=False)
        target.write(f"{sample.name}.geojson", text)
    return [*remarks, f"coordinates are those of the map for {num_mapped} of {count} images, else pixels"]


def _reference(sample: Converted) -> tuple[Georeference | None, str]:
    """The georeference of an image, and why it has none though its file has tags for one."""
    try:
        return read_georeference(sample.file), ""
    except DataError as error:
        return None, str(error)


def _feature(outline: Outline, reference: Georeference | None, target: Target) -> dict[str, Any]:
    red, green, blue = target.space.colours[outline.label]
    return {
        "type": "Feature",
        "properties": {
            "class": target.space.names[outline.label],
            "class_id": outline.label,
            "num_pixels": outline.num_pixels,
            "fill": f"#{red:02x}{green:02x}{blue:02x}",
        },
        "geometry": {"type": "Polygon", "coordinates": [_ring(ring, reference) for ring in outline.rings]},
    }


def _ring(ring: Points, reference: Georeference | None) -> list[list[float]]:
    if reference is not None:
        ring = reference.to_map(ring)
        ring = ring[::-1] if reference.is_mirrored else ring
    corners: list[list[float]] = ring.tolist()
    return [*corners, corners[0]]

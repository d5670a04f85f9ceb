"""GeoJSON, one file an image: a feature for each region, for maps and for programs that read polygons.

- Coordinates are those of the map for a georeferenced TIFF file, in its own system, which `crs` names as QGIS and GDAL
  read it; else pixels, x to the right and y down from the image's corner. `coordinates` says which: "map" or "pixels".
- Holes are the further rings of a polygon. The exterior turns counter-clockwise by the numbers (RFC 7946, 3.1.6).
- Only written, not read.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lpsnet.data import convert, image_rows
from lpsnet.data.shapes import Outline, Points
from lpsnet.errors import DataError

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


def write(target: convert.Target, samples: Iterable[convert.Converted]) -> list[str]:
    """`NAME.geojson` for each image; its georeference is read from `Converted.file`.

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


def _reference(sample: convert.Converted) -> tuple[Georeference | None, str]:
    """The georeference of an image, and why it has none though its file has tags for one."""
    try:
        return read_georeference(sample.file), ""
    except DataError as error:
        return None, str(error)


def _feature(outline: Outline, reference: Georeference | None, target: convert.Target) -> dict[str, Any]:
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

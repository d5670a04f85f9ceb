"""Where the pixels of a GeoTIFF are on a map, by its tags ModelTiepoint, ModelPixelScale and ModelTransformation.

The corner of the first pixel is (0, 0), as for all outlines here. Files whose raster type is PixelIsPoint give places
of pixel centres, which is taken into account (OGC GeoTIFF 1.1, GTRasterTypeGeoKey).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lpsnet.data import tiff_directory as tiff
from lpsnet.data.shapes import Points
from lpsnet.errors import DataError

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
    if not tiff.is_tiff(path):
        return None
    with path.open("rb") as file:
        directory = tiff.read_directory(file, path)
    found = _affine(directory, path)
    if found is None:
        return None
    if directory.number(tiff.ORIENTATION, 1) != 1:
        raise DataError(f"{path} has map coordinates and an orientation, which is not read; save it upright")
    keys = _keys(directory)
    if keys.get(_RASTER_TYPE) == _POINT:
        found = tuple((a, b, c - (a + b) / 2) for a, b, c in found)
    code = keys.get(_PROJECTED, keys.get(_GEOGRAPHIC, _USER_DEFINED))
    return Georeference(found[0], found[1], None if code in (0, _USER_DEFINED) else code)


def _affine(directory: tiff.Directory, path: Path) -> tuple[tuple[float, float, float], ...] | None:
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


def _keys(directory: tiff.Directory) -> dict[int, int]:
    """The geo keys that hold a number."""
    numbers = directory.numbers(_KEYS)
    rows = [numbers[at : at + 4] for at in range(4, len(numbers) - 3, 4)]
    return {int(key): int(value) for key, place, count, value in rows if place == 0 and count == 1}

"""GeoJSON, one file an image: a feature for each region, for maps and for programs that read polygons.

- Coordinates are those of the map for a georeferenced TIFF file, in its own system, which `crs` names as QGIS and GDAL
  read it; else pixels, x to the right and y down from the image's corner. `coordinates` says which: "map" or "pixels".
- Holes are the further rings of a polygon. The exterior turns counter-clockwise by the numbers (RFC 7946, 3.1.6).
- Only written, not read.
"""

import json
from collections.abc import Iterable
from typing import Any

from lpsnet.data import convert
from lpsnet.data.georeference import Georeference, read_georeference
from lpsnet.data.outlines import Outline
from lpsnet.data.shapes import Points
from lpsnet.errors import DataError


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

"""The tags of GeoTIFF by arithmetic, and GeoJSON in map coordinates drawn again."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from tiff_files import tiff_bytes

from lpsnet.data.convert import Converted, Target, read_georeference, write_geojson
from lpsnet.data.shapes import Polygon
from lpsnet.data.synthetic import SCENES, draw_scene
from lpsnet.errors import DataError

IMAGE, LABELS = draw_scene(np.random.default_rng(0), (60, 90))


def painted(path: Path, size: tuple[int, int], to_pixels=lambda ring: ring) -> np.ndarray:
    labels = np.full(size, 255, np.uint8)
    for feature in json.loads(path.read_text())["features"]:
        rings = [to_pixels(np.array(ring)) for ring in feature["geometry"]["coordinates"]]
        assert all((ring[0] == ring[-1]).all() for ring in rings)
        Polygon(tuple(ring[:-1] for ring in rings)).paint(labels, feature["properties"]["class_id"])
    return labels


DOUBLE = 12
SCALE = (33550, DOUBLE, [0.5, 0.25, 0.0])
TIE = (33922, DOUBLE, [2.0, 4.0, 0.0, 500_000.0, 6_000_000.0, 0.0])
UTM = (34735, 3, [1, 1, 0, 2, 1024, 0, 1, 1, 3072, 0, 1, 32633])
POINT = (34735, 3, [1, 1, 0, 2, 1025, 0, 1, 2, 2048, 0, 1, 4326])
TURNED = (34264, DOUBLE, [0.0, 2.0, 0.0, 10.0, 3.0, 0.0, 0.0, 20.0, 0, 0, 1, 0, 0, 0, 0, 1])


def geotiff(path: Path, *tags: tuple, **options: object) -> Path:
    """A TIFF file with tags of doubles, which the writer of other tests has not."""
    data = bytearray(tiff_bytes(IMAGE, more=[
        (tag, kind if kind == 3 else 4, values if kind == 3 else [0] * 2 * len(values)) for tag, kind, values in tags
    ], **options))  # fmt: skip
    for tag, kind, values in tags:
        if kind == DOUBLE:
            place = data.index(struct.pack("<HHI", tag, 4, 2 * len(values)))
            data[place : place + 8] = struct.pack("<HHI", tag, DOUBLE, len(values))
            (at,) = struct.unpack_from("<I", data, place + 8)
            struct.pack_into(f"<{len(values)}d", data, at, *values)
    path.write_bytes(data)
    return path


def written(path: Path, labels: np.ndarray) -> list[str]:
    target = Target(path.parent, SCENES, ("train",))
    return write_geojson(target, [Converted("train", path.stem, path, (60, 90), labels, 0.0)])


def test_geotiff_by_hand(tmp_path: Path) -> None:
    by_scale = read_georeference(geotiff(tmp_path / "a.tif", SCALE, TIE, UTM))
    assert by_scale.epsg == 32633
    # pixel corner (2, 4) is at the tie point; x grows by 0.5 a column, y falls by 0.25 a row
    np.testing.assert_allclose(by_scale.to_map(np.array([(2, 4), (0, 0), (4.0, 8)])), [
        (500_000, 6_000_000), (499_999, 6_000_001), (500_001, 5_999_999)
    ])  # fmt: skip
    by_centres = read_georeference(geotiff(tmp_path / "b.tif", SCALE, TIE, POINT))
    assert by_centres.epsg == 4326
    np.testing.assert_allclose(by_centres.to_map(np.array([(2.5, 4.5)])), [(500_000, 6_000_000)])
    by_matrix = read_georeference(geotiff(tmp_path / "c.tif", TURNED))
    assert by_matrix.epsg is None
    np.testing.assert_allclose(by_matrix.to_map(np.array([(1.0, 5)])), [(20, 23)])  # 2 * 5 + 10, 3 * 1 + 20
    assert read_georeference(geotiff(tmp_path / "d.tif")) is None


@pytest.mark.parametrize("tags", [(SCALE, TIE, UTM), (TURNED,)])
def test_geojson_on_the_map_drawn_again(tmp_path: Path, tags: tuple) -> None:
    path = geotiff(tmp_path / "photos.tif", *tags)
    labels, reference = LABELS, read_georeference(path)
    assert "1 of 1" in written(path, labels)[0]
    matrix = np.array([reference.x, reference.y])

    def to_pixels(ring: np.ndarray) -> np.ndarray:
        return np.round(np.linalg.solve(matrix[:, :2], (ring - matrix[:, 2]).T).T, 6)

    file = tmp_path / "photos.geojson"
    np.testing.assert_array_equal(painted(file, labels.shape, to_pixels), labels)
    values = json.loads(file.read_text())
    assert values["coordinates"] == "map"
    assert values.get("crs", {}).get("properties") == (
        {"name": "urn:ogc:def:crs:EPSG::32633"} if SCALE in tags else None
    )
    for feature in values["features"]:  # counter-clockwise by the numbers, RFC 7946
        x, y = np.array(feature["geometry"]["coordinates"][0]).T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_control_points_alone_give_pixels_and_a_word(tmp_path: Path) -> None:
    path = geotiff(tmp_path / "a.tif", TIE)
    with pytest.raises(DataError, match="control points alone"):
        read_georeference(path)
    assert "control points alone" in written(path, LABELS)[0]
    assert json.loads((tmp_path / "a.geojson").read_text())["coordinates"] == "pixels"

"""Annotations of segmented images: read again, pixel for pixel; GeoJSON drawn again by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import read_image, write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.data.shapes import Polygon
from lpsnet.data.synthetic import SCENES, draw_scene
from lpsnet.errors import DataError, RunError
from lpsnet.inference.outputs import FORMATS, Annotations, Style
from lpsnet.inference.pipeline import find_sources, segment_images

SCENE_LABELS = {
    name: draw_scene(np.random.default_rng(seed), (60, 90))[1] for seed, name in enumerate(("a", "sub/b.c"))
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, name in enumerate(SCENE_LABELS):
        write_png(tmp_path / f"photos/{name}.png", draw_scene(np.random.default_rng(seed), (60, 90))[0])
    return tmp_path / "photos"


def annotate(photos: Path, out: Path, *formats: str, **options: object) -> list[str]:
    """Images segmented by a segmenter that knows the labels of the scenes."""
    known = {read_image(photos / f"{name}.png").tobytes(): labels for name, labels in SCENE_LABELS.items()}
    with Annotations(out, formats, SCENES, **options) as notes:  # type: ignore[arg-type]
        sources = find_sources([str(photos)])
        segment = lambda image: known[image.tobytes()]  # noqa: E731
        list(segment_images(segment, sources, out, outputs=formats, style=Style(SCENES), annotations=notes))
        return notes.write()[1]


@pytest.mark.parametrize("form", sorted(set(FORMATS) - {"geojson"}))
def test_labels_come_back_exactly(photos: Path, tmp_path: Path, form: str) -> None:
    annotate(photos, tmp_path / "out", form, tolerance=0)
    data = open_dataset(f"{form}:{tmp_path / 'out' / form}")
    assert data.label_space.names == SCENES.names
    found = {sample.name: sample for split in data.splits for sample in data.split(split)}
    assert len(found) == 2
    for name, labels in SCENE_LABELS.items():
        (key,) = [key for key in found if key.endswith(name.rpartition("/")[2])]
        np.testing.assert_array_equal(found[key].labels, labels)
        np.testing.assert_array_equal(found[key].image, read_image(photos / f"{name}.png"))


def test_geojson_in_pixels_drawn_again(photos: Path, tmp_path: Path) -> None:
    annotate(photos, tmp_path / "out", "geojson", tolerance=0)
    assert not (tmp_path / "out/geojson/images").exists()
    for name, labels in SCENE_LABELS.items():
        file = tmp_path / f"out/geojson/{name}.geojson"
        values, again = json.loads(file.read_text()), np.full(labels.shape, 255, np.uint8)
        for feature in values["features"]:
            rings = [np.array(ring[:-1]) for ring in feature["geometry"]["coordinates"]]
            Polygon(tuple(rings)).paint(again, feature["properties"]["class_id"])
        np.testing.assert_array_equal(again, labels)
        assert values["coordinates"] == "pixels"


def test_what_may_have_been_corrected_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    annotate(photos, tmp_path / "out", "labelme")
    corrected = tmp_path / "out/labelme/images/train/a.json"
    corrected.write_text("{}")
    with pytest.raises(RunError, match="already, which may have been corrected"):
        annotate(photos, tmp_path / "out", "labelme")
    assert corrected.read_text() == "{}"
    annotate(photos, tmp_path / "out", "labelme", overwrite=True)
    assert json.loads(corrected.read_text())["shapes"]


def test_links_in_place_of_copies(photos: Path, tmp_path: Path) -> None:
    annotate(photos, tmp_path / "out", "coco", link=True)
    assert (tmp_path / "out/coco/images/train/a.png").readlink() == photos / "a.png"


def test_a_tolerance_makes_fewer_points(photos: Path, tmp_path: Path) -> None:
    counts = []
    for tolerance in (0, 2):
        annotate(photos, tmp_path / str(tolerance), "geojson", tolerance=tolerance)
        counts.append(len((tmp_path / f"{tolerance}/geojson/a.geojson").read_text()))
    assert counts[1] < 0.75 * counts[0]
    with pytest.raises(DataError, match="tolerance"):
        Annotations(tmp_path, [], SCENES, tolerance=-1)


def test_nothing_segmented_writes_nothing(tmp_path: Path) -> None:
    with Annotations(tmp_path, ["coco"], LabelSpace.numbered(2)) as notes:
        assert notes.write() == ({}, [])
    assert list(tmp_path.iterdir()) == []


def test_annotations_of_an_earlier_run_are_not_segmented(photos: Path, tmp_path: Path) -> None:
    annotate(photos, photos / "out", "labelme")
    skipped = find_sources([str(photos)], skip=[photos / "out/labelme"])
    assert sorted(source.stem.as_posix() for source in skipped) == ["a", "sub/b.c"]
    assert len(find_sources([str(photos / "out/labelme")], skip=[photos / "out/labelme"])) == 2


def test_confidence_as_files(tmp_path: Path) -> None:
    from lpsnet.inference.engines import FakeSession
    from lpsnet.inference.segmenter import Segmenter
    from lpsnet.record import ModelRecord

    logits = np.random.default_rng(3).normal(0, 3, (1, 4, 8, 10)).astype(np.float32)
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(4), input_size=(32, 40))
    segment = Segmenter.from_session(FakeSession(lambda _: logits), record)
    write_png(tmp_path / "a.png", np.zeros((61, 75, 3), np.uint8))
    names, style = ("confidence", "margin"), Style(segment.label_space, legend=True)
    (outcome,) = segment_images(segment, find_sources([str(tmp_path)]), tmp_path / "o", outputs=names, style=style)
    result = segment(np.zeros((61, 75, 3), np.uint8))
    for name, expected in (("confidence", result.confidence), ("margin", result.margin)):
        assert outcome.files[name].name == f"a.{name}.png"
        written = cv2.imread(str(outcome.files[name]), cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint16
        np.testing.assert_allclose(written / 65535, expected, atol=0.5001 / 65535)

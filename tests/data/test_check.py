"""The data check on data sets with one problem each; the expected findings are written by hand."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import with_exif_orientation, write_image, write_palette_png

from lpsnet.data import dataset
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.decode import LabelDecoder
from lpsnet.data.inspection import KINDS, MAX_VALUES, Diagnosis, inspect_pair
from lpsnet.data.split import Opened, Pair, Sample
from lpsnet.data.synthetic import SCENES, SceneSplit
from lpsnet.errors import DataError

HEALTHY = "names: [road, car]"


def image(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def labels(*values: int) -> np.ndarray:
    """12 x 16 ids: the first of the values everywhere, and the others on a pixel each."""
    array = np.full((12, 16), values[0], np.uint8)
    array[0, : len(values)] = values
    return array


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A healthy data set: two splits of three images, labelled with 0, 1 and 255."""
    for number, split in enumerate(("train", "val")):
        for index in range(3):
            name = f"{split[0]}{index}.png"
            write_image(tmp_path / "images" / split / name, image(10 * number + index))
            write_image(tmp_path / "masks" / split / name, labels(0, 1, 255))
    (tmp_path / "data.yaml").write_text(HEALTHY)
    return tmp_path


def check(folder: Path, text: str = HEALTHY) -> Diagnosis:
    (folder / "data.yaml").write_text(text)
    diagnosis = check_dataset(folder / "data.yaml")
    json.dumps(diagnosis.to_dict())
    assert all("\n" not in finding.message for finding in diagnosis.findings)
    assert all(finding.kind in KINDS for finding in diagnosis.findings)
    return diagnosis


def found(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """(kind, last part of the file) of each finding."""
    return [(finding.kind, Path(finding.file).name) for finding in diagnosis.findings]


def reopened(diagnosis: Diagnosis, folder: Path) -> Dataset:
    """The data set of the suggested description, saved elsewhere; every sample of it can be read."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    path = folder / "elsewhere" / "suggested.yaml"
    path.write_text(diagnosis.suggested_yaml)
    dataset = open_dataset(path)
    for name in dataset.splits:
        split = dataset.split(name)
        for index in range(len(split)):
            assert split[index].labels.shape == split[index].image.shape[:2]
    return dataset


def names(dataset: Dataset) -> list[str]:
    return [name for split in dataset.splits for name in dataset.split(split).names]


def test_a_healthy_data_set(folder: Path) -> None:
    seen = []
    diagnosis = check_dataset(folder / "data.yaml", on_progress=lambda done, total: seen.append((done, total)))
    assert diagnosis.findings == []
    assert diagnosis.ok
    assert seen == [(number, 6) for number in range(1, 7)]
    counts = diagnosis.counts["train"]
    assert (counts.num_pictures, counts.num_labelled, counts.sizes) == (3, 3, {"12x16": 3})
    assert counts.class_pixels == {"road": 3 * (12 * 16 - 2), "car": 3}
    assert counts.ignored_pixels == 3
    assert counts.class_percent["car"] == pytest.approx(100 / 191)
    assert counts.ignored_percent == pytest.approx(100 / 192)
    assert names(reopened(diagnosis, folder)) == ["t0", "t1", "t2", "v0", "v1", "v2"]


def test_to_dict_is_json_with_units(folder: Path) -> None:
    (folder / "masks" / "val" / "v1.png").unlink()
    values = json.loads(json.dumps(check(folder).to_dict()))
    assert values["ok"] is False
    assert values["findings"][0]["kind"] == "missing_mask"
    assert values["findings"][0]["severity"] == "error"
    assert values["splits"]["val"]["num_labelled"] == 2
    assert values["splits"]["val"]["class_percent"]["road"] == pytest.approx(100 * 190 / 191)


def test_missing_pairs(folder: Path) -> None:
    (folder / "masks" / "train" / "t1.png").unlink()
    (folder / "images" / "val" / "v2.png").unlink()
    diagnosis = check(folder)
    assert found(diagnosis) == [("missing_mask", "t1.png"), ("missing_image", "v2.png")]
    assert str(folder / "masks" / "train" / "t1.png") in diagnosis.findings[0].message
    assert names(reopened(diagnosis, folder)) == ["t0", "t2", "v0", "v1"]


def test_sizes_that_differ(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "t1.png", np.zeros((12, 17), np.uint8))
    diagnosis = check(folder)
    assert found(diagnosis) == [("size_differs", "t1.png")]
    assert "t1.png is 12x16" in diagnosis.findings[0].message
    assert "12x17 (height x width)" in diagnosis.findings[0].message
    assert "t1" not in names(reopened(diagnosis, folder))


def test_ids_without_a_class(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "t1.png", labels(0, 7, 7, 9))
    diagnosis = check(folder)
    assert found(diagnosis) == [("unknown_values", "t1.png")]
    assert diagnosis.findings[0].message.endswith("t1.png holds ids that no class has: 7 (2 pixels), 9 (1 pixel)")
    dataset = reopened(diagnosis, folder)
    assert names(dataset) == ["t0", "t1", "t2", "v0", "v1", "v2"]
    assert dataset.split("train")[1].labels[0, :5].tolist() == [0, 255, 255, 255, 0]


def test_very_many_values_without_a_class_are_not_listed(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "t1.png", np.arange(192, dtype=np.uint8).reshape(12, 16))
    diagnosis = check(folder)
    assert "ignore: others" in diagnosis.suggested_yaml
    assert reopened(diagnosis, folder).split("train")[1].labels[0, :3].tolist() == [0, 1, 255]


def test_one_colour_mask_among_ids(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "t1.png", image(0))
    diagnosis = check(folder)
    assert found(diagnosis) == [("colours_for_ids", "t1.png")]
    assert "t1" not in names(reopened(diagnosis, folder))


def paint(folder: Path, colours: list[tuple[int, int, int]]) -> None:
    """Every label file in colours: the first of them everywhere, and the others on a pixel each."""
    for path in (folder / "masks").rglob("*.png"):
        array = np.full((12, 16, 3), colours[0], np.uint8)
        array[0, : len(colours)] = colours
        write_image(path, array)


def test_all_masks_in_the_colours_of_the_classes(folder: Path) -> None:
    paint(folder, [(128, 64, 128), (0, 0, 142), (0, 0, 0)])
    diagnosis = check(folder, f"{HEALTHY}\ncolours: [[128, 64, 128], [0, 0, 142]]")
    assert found(diagnosis)[:6] == [("colours_for_ids", f"{name}.png") for name in ("t0", "t1", "t2", "v0", "v1", "v2")]
    dataset = reopened(diagnosis, folder)
    assert dataset.label_space.names == ("road", "car")
    assert dataset.split("val")[2].labels[0, :4].tolist() == [0, 1, 255, 0]


def test_all_masks_in_unknown_colours(folder: Path) -> None:
    paint(folder, [(9, 0, 0), (0, 8, 0)])
    dataset = reopened(check(folder), folder)
    assert dataset.label_space.names == ("colour_0_8_0", "colour_9_0_0")
    assert dataset.split("val")[2].labels[0, :3].tolist() == [1, 0, 1]


def test_ids_where_colours_are_promised(folder: Path) -> None:
    text = "colour_map: {road: [128, 64, 128], car: [0, 0, 142]}\nignore: [[0, 0, 0]]"
    diagnosis = check(folder, text)
    assert found(diagnosis)[:2] == [("ids_for_colours", "t0.png"), ("ids_for_colours", "t1.png")]
    dataset = reopened(diagnosis, folder)
    assert dataset.label_space.names == ("road", "car")
    assert dataset.split("val")[0].labels[0, :4].tolist() == [0, 1, 255, 0]


def test_images_without_a_label_and_absent_classes(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "t1.png", labels(255))
    for index in range(3):
        write_image(folder / "masks" / "val" / f"v{index}.png", labels(1))
    diagnosis = check(folder, "names: [road, car, tram]")
    assert found(diagnosis) == [("unlabelled_picture", "t1.png"), ("absent_class", "val"), ("absent_class", "all")]
    assert diagnosis.findings[1].message == "class 'road' never occurs in split 'val'"
    assert diagnosis.findings[2].message == "class 'tram' never occurs"
    assert diagnosis.ok


def test_255_for_a_class_is_told(folder: Path) -> None:
    """Binary masks as most programs write them, 0 and 255, beside a list of two names."""
    for path in (folder / "masks").rglob("*.png"):
        write_image(path, np.resize(np.array([0, 255], np.uint8), (12, 16)))
    (folder / "two.yaml").write_text("names: [ground, crack]")
    told = {item.kind: item.message for item in check_dataset(folder / "two.yaml").findings}
    wanted = "class 'crack' never occurs; 255 in the label files means no label: if it is this class, write "
    assert told["absent_class"] == wanted + "`names: {0: ground, 255: crack}`"
    (folder / "two.yaml").write_text("names: {0: ground, 255: crack}")
    assert not {"absent_class", "one_class"} & {item.kind for item in check_dataset(folder / "two.yaml").findings}


def test_unreadable_files(folder: Path) -> None:
    (folder / "images" / "train" / "t0.png").write_text("not an image")
    mask = folder / "masks" / "train" / "t1.png"
    mask.write_bytes(mask.read_bytes()[:-20])
    diagnosis = check(folder)
    assert found(diagnosis) == [("unreadable", "t0.png"), ("unreadable", "t1.png")]
    assert "masks" in diagnosis.findings[1].file
    assert names(reopened(diagnosis, folder)) == ["t2", "v0", "v1", "v2"]


def test_duplicate_names(folder: Path) -> None:
    write_image(folder / "images" / "train" / "t1.bmp", image(77))
    diagnosis = check(folder)
    assert found(diagnosis) == [("duplicate_name", "t1.bmp")]
    assert "split 'train' has 2 images named 't1'" in diagnosis.findings[0].message
    assert names(reopened(diagnosis, folder)) == ["t0", "t2", "v0", "v1", "v2"]


def test_the_same_image_in_two_splits_and_twice_in_one(folder: Path) -> None:
    shutil.copy(folder / "images" / "train" / "t0.png", folder / "images" / "val" / "v1.png")
    shutil.copy(folder / "images" / "train" / "t2.png", folder / "images" / "train" / "t1.png")
    diagnosis = check(folder)
    assert found(diagnosis) == [("shared_picture", "v1.png"), ("repeated_picture", "t2.png")]
    assert "t0.png of split 'train'" in diagnosis.findings[0].message


def test_unusual_images_are_counted_with_what_becomes_of_them(folder: Path) -> None:
    train = folder / "images" / "train"
    write_image(train / "t0.png", image(1)[..., 0])
    write_image(train / "t1.png", np.dstack([image(2), image(3)[..., :1]]))
    write_image(train / "t2.png", image(4).astype(np.uint16) * 257)
    val = folder / "images" / "val"
    write_palette_png(val / "v0.png", np.zeros((12, 16), int), [(1, 2, 3)])
    write_image(val / "v1.png", image(5)[..., 0])
    write_image(val / "v2.png", image(6)[..., 0])
    diagnosis = check(folder)
    assert [finding.message.split(";")[0] for finding in diagnosis.findings] == [
        "1 of 3 images of split 'train' are grey",
        "1 of 3 images of split 'train' are RGB with transparency",
        "1 of 3 images of split 'train' are of 16 bits a channel",
        "1 of 3 images of split 'val' are palette images",
        "2 of 3 images of split 'val' are grey",
    ]
    assert "they are read as three equal channels" in diagnosis.findings[0].message
    assert {finding.kind for finding in diagnosis.findings} == {"converted_pictures"}
    assert diagnosis.ok


def test_a_image_that_is_turned_by_its_exif_data(folder: Path) -> None:
    path = write_image(folder / "images" / "train" / "t0.jpg", image(1))
    path.write_bytes(with_exif_orientation(path.read_bytes(), 6))
    (folder / "images" / "train" / "t0.png").unlink()
    diagnosis = check(folder)
    assert found(diagnosis) == [("size_differs", "t0.png"), ("converted_pictures", "t0.jpg")]
    assert "remove the EXIF data" in diagnosis.findings[0].message


def test_a_split_without_labels(folder: Path) -> None:
    shutil.rmtree(folder / "masks" / "val")
    diagnosis = check(folder)
    assert found(diagnosis) == [("unlabelled_split", "val")]
    assert diagnosis.counts["val"].num_labelled == 0
    assert open_dataset(folder / "data.yaml").splits == ["train", "val"]


def test_everything_is_collected_not_the_first_thing(folder: Path) -> None:
    (folder / "masks" / "train" / "t0.png").unlink()
    (folder / "images" / "train" / "t1.png").write_bytes(b"")
    write_image(folder / "masks" / "val" / "v0.png", labels(0, 9))
    write_image(folder / "masks" / "val" / "v1.png", np.zeros((5, 5), np.uint8))
    kinds = {kind for kind, _ in found(check(folder))}
    assert kinds == {"missing_mask", "unreadable", "unknown_values", "size_differs"}


def test_where_nothing_usable_is_left_nothing_is_suggested(folder: Path) -> None:
    for index in range(3):
        (folder / "images" / "val" / f"v{index}.png").write_bytes(b"")
    diagnosis = check(folder)
    assert diagnosis.suggested_yaml == ""
    assert not diagnosis.ok


def test_what_does_not_open_is_a_finding(folder: Path) -> None:
    diagnosis = check(folder, "nmaes: [a]")
    assert found(diagnosis) == [("cannot_open", "data.yaml")]
    assert "did you mean 'names'" in diagnosis.findings[0].message
    assert [item.kind for item in check_dataset("camvd:/nowhere").findings] == ["cannot_open"]


def test_a_preset_that_does_not_fit_gets_a_description(folder: Path) -> None:
    diagnosis = check_dataset(f"cityscapes:{folder}")
    assert [item.kind for item in diagnosis.findings] == ["cannot_open"]
    assert reopened(diagnosis, folder).splits == ["train", "val"]


def test_scenes_are_counted() -> None:
    diagnosis = check_dataset("scenes:size=32x64,num_train=2,num_val=1")
    assert diagnosis.ok
    assert diagnosis.counts["train"].num_labelled == 2
    assert diagnosis.suggested_yaml == ""


def test_photographs_in_the_place_of_labels_are_reported_and_nothing_is_suggested(folder: Path) -> None:
    """Hundreds of colours are no classes; a real photograph has hundreds of thousands, and not all are kept."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    for path in (folder / "masks").rglob("*.png"):
        write_image(path, noise)
    report = inspect_pair(Pair("a", path, path), LabelDecoder.index({0: 0, 1: 1}))
    assert len(report.other_values) == MAX_VALUES
    diagnosis = check(folder)
    assert {kind for kind, _ in found(diagnosis)} >= {"colours_for_ids"}
    assert "colour_" not in diagnosis.suggested_yaml


def test_a_format_of_ones_own_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its splits decode samples themselves; one that cannot be read is a finding."""

    class Drawn(SceneSplit):
        def __getitem__(self, index: int) -> Sample:
            if index == 1:
                raise DataError("polygon 3 of drawing 1 has two corners")
            return super().__getitem__(index)

    parts = {"train": Drawn(size=(32, 64), count=3, seed=0, name="train")}
    row = dataset.Format("drawn", lambda path: Opened(SCENES, parts), lambda path: (path / "drawings").is_dir())
    monkeypatch.setattr(dataset, "FORMATS", (row, *dataset.FORMATS))
    (tmp_path / "drawings").mkdir()
    diagnosis = check_dataset(tmp_path)
    assert [item.message for item in diagnosis.findings if item.kind == "unreadable"] == [
        "polygon 3 of drawing 1 has two corners"
    ]
    assert diagnosis.counts["train"].num_labelled == 2

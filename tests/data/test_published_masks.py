"""KITTI, ADE20K, Mapillary Vistas and Pascal VOC on small folders laid out by hand, as their archives are."""

import json
from pathlib import Path

import label_files as files
import numpy as np
import pytest
from image_files import write_image, write_palette_png

from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.labels import CITYSCAPES
from lpsnet.errors import DataError


def mask(*ids: int) -> np.ndarray:
    """12 x 16 pixels that hold these ids in the first row, and the first of them elsewhere."""
    array = np.full((12, 16), ids[0], np.uint8)
    array[0, : len(ids)] = ids
    return array


def first_row(dataset: Dataset, split: str, count: int) -> list[int]:
    return [int(label) for label in dataset.split(split)[0].labels[0, :count]]


def refusal(text: str) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_kitti(tmp_path: Path) -> None:
    for number in range(10):
        files.save_image(tmp_path / f"training/image_2/{number:06d}_10.png", number)
        write_image(tmp_path / f"training/semantic/{number:06d}_10.png", mask(7, 26, 0, 33))
    files.save_image(tmp_path / "testing/image_2/000000_10.png")
    dataset = open_dataset(f"kitti:{tmp_path}")
    assert dataset.label_space == CITYSCAPES
    assert {name: len(dataset.split(name)) for name in dataset.splits} == {"train": 8, "val": 2, "test": 1}
    assert dataset.split("val").names == ("000008_10", "000009_10")
    assert first_row(dataset, "val", 4) == [0, 13, 255, 18]
    assert "commercial" in dataset.terms
    assert "expected training/image_2 with training/semantic" in refusal(f"kitti:{tmp_path}/testing")


def test_ade20k(tmp_path: Path) -> None:
    words = ["wall", "building, edifice", "screen", "screen, silver screen", *(f"thing {n}, x" for n in range(146))]
    rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName", *(f"{n}\t0.1\t1\t1\t1\t{text}" for n, text in enumerate(words, 1))]
    files.save(tmp_path / "objectInfo150.txt", "\n".join(rows))
    for split in ("training", "validation"):
        files.save_image(tmp_path / f"images/{split}/ADE_{split}.jpg")
        write_image(tmp_path / f"annotations/{split}/ADE_{split}.png", mask(1, 0, 2, 150))
    dataset = open_dataset(f"ade20k:{tmp_path}")
    assert dataset.splits == ["train", "val"]
    assert dataset.label_space.names[:4] == ("wall", "building", "screen", "screen, silver screen")
    assert first_row(dataset, "val", 4) == [0, 255, 1, 149]
    files.save(tmp_path / "objectInfo150.txt", "\n".join(rows[:-1]))
    assert "names 149 classes; ADE20K has 150" in refusal(f"ade20k:{tmp_path}")
    (tmp_path / "objectInfo150.txt").unlink()
    assert "objectInfo150.txt" in refusal(f"ade20k:{tmp_path}")


def mapillary_config(names: list[tuple[str, bool]]) -> str:
    labels = [{"name": f"object--{name.lower()}", "readable": name, "evaluate": evaluate, "color": [number, 2, 3],
               "instances": True} for number, (name, evaluate) in enumerate(names)]  # fmt: skip
    return json.dumps({"labels": labels, "version": "1.1", "mapping": "public"})


def test_mapillary_both_releases(tmp_path: Path) -> None:
    """The first one as it is; with the second beside it, the newest: its labels and its classes."""
    palette = [(number, 0, 9) for number in range(256)]
    for split in ("training", "validation", "testing"):
        files.save_image(tmp_path / split / "images/a.jpg")
        if split != "testing":
            (tmp_path / split / "labels").mkdir()
            write_palette_png(tmp_path / split / "labels/a.png", mask(0, 1, 2), palette)
    files.save(tmp_path / "config.json", mapillary_config([("Bird", True), ("Unlabeled", False), ("Car", True)]))
    dataset = open_dataset(f"mapillary:{tmp_path}")
    assert dataset.splits == ["train", "val", "test"]
    assert dataset.label_space.names == ("Bird", "Car")
    assert dataset.label_space.colours == ((0, 2, 3), (2, 2, 3))
    assert first_row(dataset, "val", 3) == [0, 255, 1]
    for split in ("training", "validation"):
        (tmp_path / split / "v2.0/labels").mkdir(parents=True)
        write_palette_png(tmp_path / split / "v2.0/labels/a.png", mask(2, 1, 3), palette)
    names = [("Bird", True), ("Dog", True), ("Car", True), ("Void", False)]
    files.save(tmp_path / "config_v2.0.json", mapillary_config(names))
    dataset = open_dataset(f"mapillary:{tmp_path}")
    assert dataset.label_space.names == ("Bird", "Dog", "Car")
    assert first_row(dataset, "train", 3) == [2, 1, 255]
    (tmp_path / "config_v2.0.json").write_text('{"labels": [{"readable": 3}]}')
    assert "config_v2.0.json, at labels.0" in refusal(f"mapillary:{tmp_path}")


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    root = tmp_path / "VOCdevkit/VOC2012"
    colours = [(128 * (n % 2), 128 * (n // 2 % 2), 128 * (n // 4 % 2)) for n in range(255)] + [(224, 224, 192)]
    (root / "SegmentationClass").mkdir(parents=True)
    for name in ("2007_000032", "2007_000033", "unlisted"):
        files.save_image(root / f"JPEGImages/{name}.jpg")
        if name != "unlisted":
            write_palette_png(root / f"SegmentationClass/{name}.png", mask(0, 1, 15, 255), colours)
    for split, names in (
        ("train", "2007_000032\n"),
        ("val", "2007_000033\n"),
        ("trainval", "2007_000032\n2007_000033\n"),
    ):
        files.save(root / f"ImageSets/Segmentation/{split}.txt", names)
    return tmp_path


def test_voc(voc: Path) -> None:
    for text in (f"voc:{voc}", f"voc:{voc}/VOCdevkit/VOC2012"):
        dataset = open_dataset(text)
        assert dataset.splits == ["train", "val"]
        assert dataset.label_space.names[:2] == ("background", "aeroplane")
        assert (dataset.label_space.names[15], dataset.label_space.num_classes) == ("person", 21)
        assert dataset.split("val").names == ("2007_000033",)
        assert first_row(dataset, "val", 4) == [0, 1, 15, 255]
    assert "expected JPEGImages" in refusal(f"voc:{voc}/VOCdevkit/VOC2012/ImageSets")


def test_voc_as_cvat_and_labelme_write_it(voc: Path) -> None:
    """CVAT's colours are named in `labelmap.txt`; labelme's ids in `class_names.txt`."""
    root = voc / "VOCdevkit/VOC2012"
    labelmap = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,0,0::\ncar: 128,128,128::\n"
    files.save(root / "labelmap.txt", labelmap)
    assert "has the line 'car: 128,128,128::'" in refusal(f"voc:{root}")
    files.save(root / "labelmap.txt", labelmap.replace("car: ", "car:"))
    dataset = open_dataset(f"voc:{root}")
    assert dataset.label_space.names == ("background", "road", "car")
    assert first_row(dataset, "val", 4) == [0, 1, 2, 255]
    (root / "labelmap.txt").unlink()
    files.save(root / "class_names.txt", "_background_\nroad\n" + "".join(f"c{n}\n" for n in range(14)))
    assert first_row(open_dataset(f"voc:{root}"), "val", 4) == [0, 1, 15, 255]
    assert open_dataset(f"voc:{root}").label_space.names[0] == "_background_"

"""Folders that nobody described: their layout is guessed by names and contents."""

from pathlib import Path

import numpy as np
import pytest
from image_files import write_image, write_palette_png

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import Dataset, open_dataset


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def labels(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (12, 16))


def guessed(root: Path) -> Dataset:
    """The data set that the data check suggests for a folder without findings."""
    diagnosis = check_dataset(root)
    assert diagnosis.ok, diagnosis.findings
    (root / "guessed.yaml").write_text(diagnosis.suggested_yaml)
    dataset = open_dataset(root / "guessed.yaml")
    for name in dataset.splits:
        assert len(dataset.split(name)[0]) == 3
    return dataset


def names(dataset: Dataset) -> dict[str, list[str]]:
    return {name: list(dataset.split(name).names) for name in dataset.splits}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/{}/{}.jpg", "masks/{}/{}.png"),
        ("img_dir/{}/{}.png", "ann_dir/{}/{}.png"),
        ("{}/images/{}.jpg", "{}/labels/{}.png"),
        ("{}/{}.png", "{}annot/{}.png"),
        ("{}_images/{}.png", "{}_masks/{}.png"),
        ("{}/{}.jpg", "{}/{}.png"),
        ("{}/{}.png", "{}/{}_mask.png"),
        ("images/{}/{}_rgb.png", "masks/{}/{}_labels.png"),
    ],
)
def test_layouts_with_splits(tmp_path: Path, images: str, masks: str) -> None:
    for split, stems in {"train": ("a", "b"), "valid": ("c",)}.items():
        for stem in stems:
            write_image(tmp_path / images.format(split, stem), image(ord(stem)))
            write_image(tmp_path / masks.format(split, stem), labels(0, 1, 255))
    dataset = guessed(tmp_path)
    assert names(dataset) == {"train": ["a", "b"], "val": ["c"]}
    assert dataset.label_space.names == ("class_0", "class_1")
    assert set(dataset.split("val")[0].labels.ravel().tolist()) == {0, 1, 255}


def test_cities_below_the_splits_stay_one_place(tmp_path: Path) -> None:
    for split, city in (("train", "aachen"), ("train", "ulm"), ("val", "bonn")):
        write_image(tmp_path / "pictures" / split / city / f"{city}1.png", image(len(city)))
        write_image(tmp_path / "truth" / split / city / f"{city}1.png", labels(3, 4))
    assert names(guessed(tmp_path)) == {"train": ["aachen/aachen1", "ulm/ulm1"], "val": ["bonn/bonn1"]}


def test_a_folder_without_splits_is_divided(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / "scans" / f"{number}.png", image(number))
        write_image(tmp_path / "truth" / f"{number}.png", labels(0, 255))
    dataset = guessed(tmp_path)
    assert names(dataset) == {"train": ["0", "1", "2", "3"], "val": ["4"]}
    assert dataset.label_space.names == ("class_0", "class_255")  # beside one other id, 255 is a class


def test_palette_masks_give_ids_and_colour_masks_a_colour_map(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_image(tmp_path / folder / "JPEGImages" / "a.jpg", image(1))
        (tmp_path / folder / "SegmentationClass").mkdir()
    indices = np.resize(np.array([0, 15, 255]), (12, 16))
    write_palette_png(tmp_path / "one" / "SegmentationClass" / "a.png", indices, [(n, 0, 255 - n) for n in range(256)])
    assert guessed(tmp_path / "one").label_space.names == ("class_0", "class_15")
    colours = np.resize(np.array([(0, 0, 0), (128, 0, 0)], np.uint8), (12, 16, 3))
    write_image(tmp_path / "two" / "SegmentationClass" / "a.png", colours)
    assert guessed(tmp_path / "two").label_space.names == ("colour_0_0_0", "colour_128_0_0")


def test_presets_are_recognised(tmp_path: Path) -> None:
    write_image(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_1_leftImg8bit.png", image(1))
    write_image(tmp_path / "gtFine" / "val" / "ulm" / "ulm_1_gtFine_labelIds.png", labels(7, 26))
    assert guessed(tmp_path).label_space.name == "cityscapes"


def test_missing_label_files_are_found_in_a_folder_nobody_described(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.png", image(number))
        write_image(tmp_path / "masks" / f"{number}.png", labels(0, 1))
    (tmp_path / "masks" / "2.png").unlink()
    diagnosis = check_dataset(tmp_path)
    assert [(item.kind, Path(item.file).name) for item in diagnosis.findings] == [("missing_mask", "2.png")]


@pytest.mark.parametrize("content", ["nothing", "pictures", "text"])
def test_folders_without_pairs(tmp_path: Path, content: str) -> None:
    if content == "pictures":
        write_image(tmp_path / "a" / "1.jpg", image(1))
    if content == "text":
        (tmp_path / "1.txt").write_text("0 0.5 0.5 0.1 0.1")
    diagnosis = check_dataset(tmp_path)
    assert [item.kind for item in diagnosis.findings] == ["cannot_open"]
    assert "write a description" in diagnosis.findings[0].message
    assert diagnosis.suggested_yaml == ""

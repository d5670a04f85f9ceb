"""Folders that nobody described: their layout is guessed by names and contents."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from image_files import write_image, write_palette_png
from PIL import Image

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


def pairs(root: Path, values: list[object], *, images: str = "images/{}.png", masks: str = "masks/{}.png") -> None:
    """Five images with label files whose left, middle and right third have these values."""
    for number in range(5):
        write_image(root / images.format(number), image(number))
        thirds = np.repeat(np.arange(len(values)), -(-16 // len(values)))[:16]
        painted = np.array(values, np.uint8)[np.tile(thirds, (12, 1))]
        write_image(root / masks.format(number), painted)


@pytest.mark.parametrize(
    ("values", "classes", "is_doubtful"),
    [
        ([0, 128, 255], [0, 128, 255], False),  # grey levels for people to look at
        ([0, 85, 170, 255], [0, 85, 170, 255], False),
        ([0, 255], [0, 255], False),
        ([0, 1, 255], [0, 1], False),  # numbers of classes, and no label
        ([0, 7, 33, 255], [0, 7, 33], False),
        ([0, 90, 255], [0, 90], True),  # either
    ],
)
def test_what_255_means(tmp_path: Path, values: list[object], classes: list[int], is_doubtful: bool) -> None:
    pairs(tmp_path, values)
    found = check_dataset(tmp_path)
    assert yaml.safe_load(found.suggested_yaml)["names"] == {number: f"class_{number}" for number in classes}
    told = [item.message for item in found.findings if "255" in item.message]
    assert bool(told) == (255 not in classes)
    assert found.ok == (not is_doubtful)
    if told:
        assert "means no label" in told[-1]
        assert "names: {…, 255: NAME}" in told[-1]


def test_stray_values_are_told(tmp_path: Path) -> None:
    """As smooth edges leave them: one pixel of 7,500 in each of two files."""
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.png", np.full((60, 125, 3), 40 * number, np.uint8))
        painted = np.zeros((60, 125, 3), np.uint8)
        painted[:30] = 255, 0, 0
        painted[30, 5] = (128, 0, 0) if number < 2 else painted[30, 5]
        write_image(tmp_path / "masks" / f"{number}.png", painted)
    (told,) = [item for item in check_dataset(tmp_path).findings if item.kind == "stray_values"]
    assert "1 of 3 colours" in told.message
    assert "(128, 0, 0) (2 pixels)" in told.message
    pairs(tmp_path / "sound", [0, 1, 2])
    assert not check_dataset(tmp_path / "sound").findings


COLOURS = {"road": (128, 64, 128), "car, parked": (64, 0, 128), "sky": (128, 128, 128)}


@pytest.mark.parametrize(
    ("file", "line", "heading"),
    [
        ("class_dict.csv", '"{name}",{0},{1},{2}\r\n', "\ufeffname,r,g,b\r\n"),
        ("class_dict.csv", '"{name}", {0}, {1}, {2}\n', "name, r, g, b\n"),
        ("masks/label_colors.txt", "{0} {1} {2}\t\t{name}\n", ""),
        ("label_colors.txt", "{0} {1} {2} {name}\n", "# a remark\n"),
        ("labelmap.txt", "{name}:{0},{1},{2}::\n", "# label:color_rgb:parts:actions\n"),
    ],
)
def test_names_of_colours_stand_in_a_table(tmp_path: Path, file: str, line: str, heading: str) -> None:
    pairs(tmp_path, [COLOURS["road"], COLOURS["car, parked"]])
    rows = [line.format(*colour, name=name) for name, colour in COLOURS.items()]
    (tmp_path / file).write_bytes((heading + "".join(rows)).encode())
    dataset = guessed(tmp_path)
    assert dataset.label_space.names == tuple(COLOURS)  # in the order of the table, with those that do not occur
    assert dataset.label_space.colours == tuple(COLOURS.values())
    assert np.unique(dataset.split("train").labels(0)[:, 0]).tolist() == [0]


def test_names_of_ids_stand_in_a_table(tmp_path: Path) -> None:
    """As Roboflow writes it into the folder of every split."""
    for split in ("train", "valid"):
        pairs(tmp_path, [0, 2], images=f"{split}/{split}{{}}.png", masks=f"{split}/{split}{{}}_mask.png")
        rows = "Pixel Value, Class\n0, background\n1, cat\n2, dog\n"
        (tmp_path / split / "_classes.csv").write_text(rows)
    assert guessed_anyway(tmp_path).label_space.names == ("background", "cat", "dog")


def guessed_anyway(root: Path) -> Dataset:
    (root / "guessed.yaml").write_text(check_dataset(root).suggested_yaml)
    return open_dataset(root / "guessed.yaml")


def test_a_value_without_a_name_in_the_table_is_told(tmp_path: Path) -> None:
    pairs(tmp_path, [COLOURS["road"], COLOURS["sky"], (1, 2, 3)])
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,128,64,128\nsky,128,128,128\n")
    (told,) = [item for item in check_dataset(tmp_path).findings if item.severity == "warning"]
    assert "1 of 3 colours in the label files have no name in" in told.message
    assert "class_dict.csv ((1, 2, 3) " in told.message


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "a,1,2,3\nb,1,2,3\n", "name,r,g,b\nroad,999,0,0\n"])
def test_what_is_no_table_names_nothing(tmp_path: Path, text: str) -> None:
    pairs(tmp_path, [(0, 0, 0), (1, 2, 3)])
    (tmp_path / "class_dict.csv").write_text(text)
    assert guessed(tmp_path).label_space.names == ("colour_0_0_0", "colour_1_2_3")


def test_two_words_for_one_split(tmp_path: Path) -> None:
    for image_split, mask_split in (("train", "training"), ("val", "validation")):
        pairs(tmp_path, [0, 1], images=f"images/{image_split}/{image_split}{{}}.png",
              masks=f"masks/{mask_split}/{image_split}{{}}.png")  # fmt: skip
    assert {name: len(found) for name, found in names(guessed_anyway(tmp_path)).items()} == {"train": 5, "val": 5}


def test_a_folder_of_another_name_beside_a_split_is_a_split_of_its_own(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        pairs(tmp_path, [0, 1], images=f"images/{split}/{split}{{}}.png", masks=f"masks/{split}/{split}{{}}.png")
    found = names(guessed_anyway(tmp_path))
    assert found == {split: [f"{split}{number}" for number in range(5)] for split in ("train", "dev")}


def test_several_folders_without_splits_are_divided_together(tmp_path: Path) -> None:
    for year in ("2023", "2024"):
        pairs(tmp_path, [0, 1], images=f"raw/{year}/images/{year}_{{}}.png", masks=f"raw/{year}/masks/{year}_{{}}.png")
    assert {name: len(found) for name, found in names(guessed_anyway(tmp_path)).items()} == {"train": 8, "val": 2}


def test_names_that_begin_differently_are_told_with_what_works(tmp_path: Path) -> None:
    pairs(tmp_path, [0, 1], images="photos/img_00{}.png", masks="truth/mask_00{}.png")
    (told,) = check_dataset(tmp_path).findings
    assert "img_000.png of photos, mask_000.png of truth); write list files with an image and its label" in told.message
    for split, numbers in {"train": (0, 1, 2), "val": (3, 4)}.items():
        lines = [f"photos/img_00{number}.png,truth/mask_00{number}.png\n" for number in numbers]
        (tmp_path / f"{split}.txt").write_text("".join(lines))
    text = "names: [a, b]\nimages: {train: train.txt, val: val.txt}\nmasks: {}\n"
    (tmp_path / "own.yaml").write_text(text)
    assert check_dataset(tmp_path / "own.yaml").ok
    assert np.unique(open_dataset(tmp_path / "own.yaml").split("val").labels(1)).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("jpeg", r"masks/0\.jpg is of a format that changes ids; save labels as PNG"),
        ("jpeg in png", r"masks/0\.png is a JPEG file, which changes ids; save labels as PNG"),
        ("noise", r"masks/\d\.png holds \d+ different values, more than classes have: left by compression"),
        ("floats", r"masks/0\.tif is a TIFF file of 32 bit floating point numbers"),
        ("npy", r"there are no images .* in .* \(but 1 \.json, 5 \.npy, of no layout that is read\)"),
    ],
)
def test_why_nothing_was_found_is_told(tmp_path: Path, kind: str, expected: str) -> None:
    pairs(tmp_path, [0, 90, 200])
    for number in range(5):
        mask = tmp_path / "masks" / f"{number}.png"
        if kind == "noise":
            write_image(mask, np.random.default_rng(number).integers(0, 256, (12, 16), dtype=np.uint8))
        elif kind.startswith("jpeg"):
            write_image(mask.with_suffix(".jpg"), labels(0, 90, 200))
            mask.unlink() if kind == "jpeg" else mask.with_suffix(".jpg").rename(mask)
        elif kind == "floats":
            Image.fromarray(np.zeros((12, 16), np.float32)).save(mask.with_suffix(".tif"))
            mask.unlink()
        else:
            np.save(mask.with_suffix(".npy"), labels(0, 1))
            mask.unlink()
            (tmp_path / "images" / f"{number}.png").unlink()
            (tmp_path / "min.json").write_text("[]")
    (told,) = check_dataset(tmp_path).findings
    assert told.kind == "cannot_open"
    assert re.search(expected, told.message)

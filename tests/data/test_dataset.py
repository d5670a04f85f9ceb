"""Opening data sets by text or description, and the splits they give."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from image_files import write_image

from lpsnet.data.dataset import NAMED, Sample, open_dataset
from lpsnet.errors import DataError

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def ids(*values: int) -> np.ndarray:
    """A label file of 4 x 6 pixels whose columns hold these ids, the last one to the right."""
    columns = [*values, *[values[-1]] * (6 - len(values))]
    return np.tile(np.array(columns, np.uint8), (4, 1))


def write_pairs(
    root: Path, *, images: str = "images", masks: str = "masks", splits: tuple[str, ...] = ("train", "val")
) -> None:
    """Two pairs a split, named after it."""
    for split in splits:
        for number in (1, 2):
            write_image(root / images / split / f"{split}{number}.png", IMAGE + number)
            write_image(root / masks / split / f"{split}{number}.png", ids(0, 1, 255))


def describe(root: Path, text: str) -> Path:
    path = root / "data.yaml"
    path.write_text(text)
    return path


def refusal(text: object) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(str(text))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_shortest_description(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    dataset = open_dataset(describe(tmp_path, "names: [road, car]"))
    assert dataset.splits == ["train", "val"]
    assert dataset.label_space.names == ("road", "car")
    sample = dataset.split("val")[1]
    assert isinstance(sample, Sample)
    assert sample.name == "val2"
    np.testing.assert_array_equal(sample.image, IMAGE + 2)
    assert sample.labels[0].tolist() == [0, 1, 255, 255, 255, 255]


def test_joined_splits(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    joined = open_dataset(describe(tmp_path, "names: [road, car]")).split("val+train")
    assert joined.name == "val+train"
    assert list(joined.names) == ["val1", "val2", "train1", "train2"]
    assert [joined[index].name for index in range(len(joined))] == list(joined.names)
    np.testing.assert_array_equal(joined.image(2), IMAGE + 1)
    assert joined[-1].name == "train2"
    assert joined.labels(0).shape == (4, 6)
    with pytest.raises(IndexError):
        joined[4]


def test_joined_splits_with_the_same_names(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_image(tmp_path / "images" / split / "1.png", IMAGE)
        write_image(tmp_path / "masks" / split / "1.png", ids(0))
    joined = open_dataset(describe(tmp_path, "names: [road]")).split("train+val")
    assert list(joined.names) == ["train/1", "val/1"]
    assert joined[1].name == "val/1"


def test_unknown_splits_are_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    dataset = open_dataset(describe(tmp_path, "names: [road, car]"))
    with pytest.raises(DataError, match=r"unknown split 'vall'; did you mean 'val'\? Allowed: train, val, in data set"):
        dataset.split("train+vall")
    with pytest.raises(DataError, match="names a part twice"):
        dataset.split("train+train")


def test_names_as_a_map_from_id(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.png", IMAGE)
    write_image(tmp_path / "masks" / "train" / "a.png", ids(7, 26, 255, 7))
    dataset = open_dataset(describe(tmp_path, "names: {26: car, 7: road}"))
    assert dataset.label_space.names == ("road", "car")
    assert dataset.split("train")[0].labels[0].tolist() == [0, 1, 255, 0, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "ids: [7, 26]\nignore: [0]",
        "ids: {7: road, 26: car}\nignore: [0]",
        "ids: {7: 0, 26: 1}\nignore: others",
        "ids: {26: car, 7: road, 0: car}",
    ],
)
def test_ids(tmp_path: Path, text: str) -> None:
    write_image(tmp_path / "images" / "train" / "a.png", IMAGE)
    write_image(tmp_path / "masks" / "train" / "a.png", ids(7, 26, 0))
    row = open_dataset(describe(tmp_path, f"names: [road, car]\n{text}")).split("train")[0].labels[0].tolist()
    last = 255 if "ignore" in text else 1
    assert row == [0, 1, last, last, last, last]


def test_255_can_be_a_class(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "train" / "a.png", IMAGE)
    write_image(tmp_path / "masks" / "train" / "a.png", ids(0, 255))
    dataset = open_dataset(describe(tmp_path, "names: {0: background, 255: crack}"))
    assert dataset.split("train")[0].labels[0].tolist() == [0, 1, 1, 1, 1, 1]


def test_colour_map(tmp_path: Path) -> None:
    row = [(128, 64, 128), (0, 0, 142), (0, 0, 143), (0, 0, 0), (0, 0, 0), (0, 0, 0)]
    write_image(tmp_path / "images" / "train" / "a.png", IMAGE)
    write_image(tmp_path / "masks" / "train" / "a.png", np.array([row] * 4, np.uint8))
    text = "colour_map:\n  road: [128, 64, 128]\n  car: [[0, 0, 142], [0, 0, 143]]\nignore: [[0, 0, 0]]"
    dataset = open_dataset(describe(tmp_path, text))
    assert dataset.label_space.names == ("road", "car")
    assert dataset.label_space.colours == ((128, 64, 128), (0, 0, 142))
    assert dataset.split("train")[0].labels[0].tolist() == [0, 1, 1, 255, 255, 255]


def test_colours_to_draw_with(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    by_name = "names: [road, car]\nname: yard\ncolours: {car: [0, 0, 9], road: [1, 2, 3]}"
    space = open_dataset(describe(tmp_path, by_name)).label_space
    assert (space.name, space.colours) == ("yard", ((1, 2, 3), (0, 0, 9)))
    in_order = "names: [road, car]\ncolours: [[1, 2, 3], [0, 0, 9]]"
    assert open_dataset(describe(tmp_path, in_order)).label_space.colours == space.colours


def test_folders_of_mmsegmentation_with_suffixes(tmp_path: Path) -> None:
    write_image(tmp_path / "img_dir" / "train" / "x" / "a_img.jpg", IMAGE)
    write_image(tmp_path / "ann_dir" / "train" / "x" / "a_labelTrainIds.png", ids(0))
    places = "images: img_dir/{split}\nmasks: ann_dir/{split}"
    text = f"names: [road]\n{places}\nimage_suffix: _img\nmask_suffix: _labelTrainIds.png"
    assert open_dataset(describe(tmp_path, text)).split("train").names == ("x/a",)


@pytest.mark.parametrize(
    ("images", "masks", "names"),
    [
        ("photo.jpg", "photo_mask.png", "mask_suffix: _mask"),
        ("photo.png", "photo_mask.png", "mask_suffix: _mask"),
        ("photo.jpg", "photo.png", ""),
    ],
)
def test_images_and_masks_in_one_folder(tmp_path: Path, images: str, masks: str, names: str) -> None:
    write_image(tmp_path / "train" / images, IMAGE)
    write_image(tmp_path / "train" / masks, ids(0))
    text = f"names: [road]\nimages: '{{split}}'\nmasks: '{{split}}'\n{names}"
    dataset = open_dataset(describe(tmp_path, text))
    assert dataset.split("train").names == ("photo",)
    assert dataset.split("train")[0].labels.max() == 0


def test_patterns_and_several_places(tmp_path: Path) -> None:
    for day in ("mon", "tue"):
        write_image(tmp_path / day / "cam" / "1.jpg", IMAGE)
        write_image(tmp_path / day / "seg" / "1.png", ids(0))
    patterns = "names: [road]\nimages: {train: '*/cam/*.jpg'}\nmasks: {train: '*/seg/*.png'}"
    dataset = open_dataset(describe(tmp_path, patterns))
    assert dataset.split("train").names == ("mon/1", "tue/1")
    assert dataset.split("train")[1].labels.max() == 0
    deep = "names: [road]\nimages: {train: 'mon/cam/**/*.jpg'}\nmasks: {train: mon/seg}"
    assert open_dataset(describe(tmp_path, deep)).split("train").names == ("1",)
    places = "names: [road]\nimages: {train: [mon/cam, tue/cam/1.jpg]}\nmasks: {train: [mon/seg, tue/seg]}"
    write_image(tmp_path / "tue" / "seg" / "1.png", ids(255))
    for turned in (places, places.replace("[mon/seg, tue/seg]", "[tue/seg, mon/seg]")):
        split = open_dataset(describe(tmp_path, turned)).split("train")
        assert split.names == ("mon/1", "tue/1")
        assert [int(labels.max()) for _, _, labels in split] == [0, 255]
    with pytest.raises(DataError, match="split 'train' has 2 images named '1'"):
        open_dataset(describe(tmp_path, places.replace("[mon/seg, tue/seg]", "mon/seg"))).split("train")


def test_lists_that_choose_from_shared_folders(tmp_path: Path) -> None:
    """The layout of Pascal VOC."""
    for stem in ("a", "b", "c", "d"):
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg", IMAGE)
        write_image(tmp_path / "SegmentationClass" / f"{stem}.png", ids(0))
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "train.txt").write_text("a\nc\n")
    (tmp_path / "sets" / "val.txt").write_text("JPEGImages/d.jpg\n")
    text = "names: [road]\nimages: JPEGImages\nmasks: SegmentationClass\nlists: sets/{split}.txt"
    dataset = open_dataset(describe(tmp_path, text))
    assert [list(dataset.split(name).names) for name in dataset.splits] == [["a", "c"], ["d"]]
    (tmp_path / "sets" / "val.txt").write_text("e\n")
    assert "names 'e', which is not among the 4 images" in refusal(tmp_path / "data.yaml")


def test_list_files_as_places(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "t.txt").write_text("images/train/train1.png masks/train/train1.png\n")
    (tmp_path / "v.txt").write_text("images/val/val1.png\nimages/val/val2.png\n")
    text = "names: [road, car]\nimages: {train: t.txt, val: v.txt}\nmasks: {val: masks/val}"
    dataset = open_dataset(describe(tmp_path, text))
    assert [list(dataset.split(name).names) for name in dataset.splits] == [["train1"], ["val1", "val2"]]
    assert dataset.split("train+val")[2].labels.shape == (4, 6)


def test_a_fraction_for_validation_is_the_last_part(tmp_path: Path) -> None:
    for number in range(10):
        write_image(tmp_path / "pictures" / f"{number}.png", IMAGE)
        write_image(tmp_path / "labels" / f"{number}.png", ids(0))
    text = "names: [road]\nimages: pictures\nmasks: labels\n"
    assert open_dataset(describe(tmp_path, text)).splits == ["all"]
    dataset = open_dataset(describe(tmp_path, f"{text}val_fraction: 0.2"))
    assert list(dataset.split("val").names) == ["8", "9"]
    assert len(dataset.split("train")) == 8


def test_a_folder_of_masks_that_splits_share(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        write_image(tmp_path / "images" / split / f"{split}.png", IMAGE)
        if split != "test":
            write_image(tmp_path / "masks" / f"{split}.png", ids(0))
    dataset = open_dataset(describe(tmp_path, "names: [road]\nmasks: masks"))
    assert dataset.split("train+val")[1].labels.max() == 0
    with pytest.raises(DataError, match="split 'test' has no labels"):
        dataset.split("test").labels(0)


def test_a_split_goes_to_other_processes(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    split = open_dataset(describe(tmp_path, "names: [road, car]")).split("train+val")
    assert pickle.loads(pickle.dumps(split))[3].name == split.names[3]


def test_excluded_images(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    dataset = open_dataset(describe(tmp_path, "names: [road, car]\nexclude: [train1]"))
    assert dataset.split("train").names == ("train2",)
    assert "'exclude' lists 'train9'" in refusal(describe(tmp_path, "names: [road, car]\nexclude: [train9]"))


def test_the_path_is_relative_to_the_description_or_has_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "deep" / "set")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for path in ("deep/set", "~/deep/set", str(tmp_path / "deep" / "set")):
        assert len(open_dataset(describe(tmp_path, f"names: [road, car]\npath: {path}")).split("train")) == 2
    describe(tmp_path, "names: [road, car]\npath: deep/set")
    assert open_dataset("~/data.yaml").splits == ["train", "val"]


def test_missing_and_different_files(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "masks" / "train" / "train1.png").unlink()
    write_image(tmp_path / "masks" / "train" / "train2.png", np.zeros((4, 7), np.uint8))
    train = open_dataset(describe(tmp_path, "names: [road, car]")).split("train")
    with pytest.raises(
        DataError, match=r"images/train/train1\.png has no label file: .*masks/train/train1\.png does not exist"
    ):
        train[0]
    with pytest.raises(DataError, match=r"train2\.png is 4x6 but its label file .*train2\.png 4x7"):
        train[1]


def test_two_images_of_one_name(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_image(tmp_path / "images" / "train" / "train1.jpg", IMAGE)
    dataset = open_dataset(describe(tmp_path, "names: [road, car]"))
    with pytest.raises(DataError, match="split 'train' has 2 images named 'train1'"):
        dataset.split("train")


def test_opening_reads_no_pixels(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / "train").mkdir(parents=True)
        (tmp_path / folder / "train" / "a.png").write_text("not an image")
    split = open_dataset(describe(tmp_path, "names: [road]")).split("train")
    with pytest.raises(DataError, match="is not an image"):
        split.image(0)


def test_terms_of_weights_follow_the_preset() -> None:
    assert "no terms of others" in open_dataset("scenes").terms
    assert all(row.terms for row in NAMED.values() if row.takes != "path")  # formats are not data sets

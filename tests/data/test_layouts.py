"""The three presets on small folders laid out by hand, and on the real ones where they are."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from image_files import write_image

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.formats.masks import OFFICIAL_IDS, ORIGINAL_COLOURS, usual_split
from lpsnet.data.labels import BDD100K, CAMVID, CITYSCAPES, Colour
from lpsnet.data.pairing import resolve
from lpsnet.errors import DataError

IMAGE = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def mask(*ids: int) -> np.ndarray:
    """A label file of 4 x 6 pixels that holds these ids in its first row, and the first of them elsewhere."""
    array = np.full((4, 6), ids[0], np.uint8)
    array[0, : len(ids)] = ids
    return array


def first_row(dataset: Dataset, split: str, index: int = 0) -> list[int]:
    return dataset.split(split)[index].labels[0].tolist()


def write_cityscapes(root: Path, split: str, city: str, *, kinds: Iterable[str] = (), suffix: str = ".png") -> None:
    stem = f"{city}_000000_000019"
    write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit{suffix}", IMAGE)
    for kind in kinds:
        ids = mask(7, 26, 33, 0, 3, 10) if kind == "labelIds" else mask(0, 13, 18, 255, 255, 255)
        write_image(root / "gtFine" / split / city / f"{stem}_gtFine_{kind}.png", ids)


@pytest.mark.parametrize("kinds", [["labelIds"], ["labelTrainIds"], ["labelIds", "labelTrainIds"]])
def test_cityscapes_official_layout(tmp_path: Path, kinds: list[str]) -> None:
    write_cityscapes(tmp_path, "val", "ulm", kinds=kinds, suffix=".jpg")
    write_cityscapes(tmp_path, "train", "aachen", kinds=kinds)
    write_cityscapes(tmp_path, "train", "bochum", kinds=kinds)
    write_cityscapes(tmp_path, "test", "berlin")
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    assert dataset.splits == ["train", "val", "test"]
    assert dataset.label_space == CITYSCAPES
    assert list(dataset.split("train").names) == ["aachen/aachen_000000_000019", "bochum/bochum_000000_000019"]
    assert first_row(dataset, "val") == [0, 13, 18, 255, 255, 255]
    assert dataset.split("test").image(0).shape == (4, 6, 3)
    with pytest.raises(DataError, match="split 'test' has no labels"):
        dataset.split("test").labels(0)


def test_cityscapes_takes_the_kind_that_more_splits_have(tmp_path: Path) -> None:
    write_cityscapes(tmp_path, "train", "aachen", kinds=["labelIds", "labelTrainIds"])
    write_cityscapes(tmp_path, "val", "ulm", kinds=["labelIds"])
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    assert first_row(dataset, "train") == first_row(dataset, "val") == [0, 13, 18, 255, 255, 255]


def test_cityscapes_pairs_in_one_folder_are_val(tmp_path: Path) -> None:
    write_image(tmp_path / "ulm_1_leftImg8bit.png", IMAGE)
    write_image(tmp_path / "ulm_1_gtFine_labelIds.png", mask(8, 24))
    dataset = open_dataset(f"cityscapes:{tmp_path}")
    assert dataset.splits == ["val"]
    assert dataset.split("val").names == ("ulm_1",)
    assert first_row(dataset, "val") == [1, 11, 1, 1, 1, 1]


def test_cityscapes_official_ids_follow_the_train_ids() -> None:
    """The 19 classes are numbered in the order of their official ids; the other 15 are void."""
    classes = [name for name, (_, train_id) in OFFICIAL_IDS.items() if train_id != 255]
    assert classes == list(CITYSCAPES.names)
    assert [number for number, _ in OFFICIAL_IDS.values()] == list(range(34))
    assert [OFFICIAL_IDS[name][1] for name in classes] == list(range(19))


@pytest.mark.parametrize("older", [False, True])
def test_bdd100k(tmp_path: Path, older: bool) -> None:
    images, masks = ("seg/images", "seg/labels") if older else ("images/10k", "labels/sem_seg/masks")
    ending = "_train_id" if older else ""
    for split in ("train", "val", "test"):
        write_image(tmp_path / images / split / f"{split}-1.jpg", IMAGE)
    for split in ("train", "val"):
        write_image(tmp_path / masks / split / f"{split}-1{ending}.png", mask(18, 255))
    dataset = open_dataset(f"bdd100k:{tmp_path}")
    assert dataset.splits == ["train", "val", "test"]
    assert dataset.label_space == BDD100K
    assert dataset.split("val").names == ("val-1",)
    assert first_row(dataset, "val") == [18, 255, 18, 18, 18, 18]
    with pytest.raises(DataError, match="no labels"):
        dataset.split("test")[0]


@pytest.mark.parametrize("prefix", ["", "/SegNet/CamVid/", "//SegNet/CamVid/"])
def test_camvid_lists(tmp_path: Path, prefix: str) -> None:
    write_image(tmp_path / "train" / "0001TP_1.png", IMAGE)
    write_image(tmp_path / "trainannot" / "0001TP_1.png", mask(0, 10, 11))
    (tmp_path / "train.txt").write_text(f"{prefix}train/0001TP_1.png {prefix}trainannot/0001TP_1.png\n\n")
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert dataset.splits == ["train"]
    assert dataset.label_space == CAMVID
    assert dataset.split("train").names == ("0001TP_1",)
    assert first_row(dataset, "train") == [0, 10, 255, 0, 0, 0]


def write_original(root: Path, stem: str, colours: list[Colour]) -> None:
    write_image(root / "701_StillsRaw_full" / f"{stem}.png", np.zeros((2, len(colours), 3), np.uint8))
    write_image(root / "LabeledApproved_full" / f"{stem}_L.png", np.array([colours, colours], np.uint8))


def test_camvid_original_colours_and_usual_split(tmp_path: Path) -> None:
    colours = [(64, 128, 192), (0, 128, 64), (128, 0, 192), (0, 0, 0), (64, 64, 0), (1, 2, 3)]
    for stem in ("0006R0_f00930", "0016E5_07961", "0016E5_08190", "0001TP_008550", "Seq05VD_f00000"):
        write_original(tmp_path, stem, colours)
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert {name: list(dataset.split(name).names) for name in dataset.splits} == {
        "train": ["0006R0_f00930", "0016E5_08190"],
        "val": ["0016E5_07961"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    # a pickup is a car, a bridge a building, a lane marking road; void and stray colours have no label
    assert first_row(dataset, "test", 1) == [8, 1, 3, 255, 9, 255]
    assert dataset.label_space == CAMVID


def test_camvid_original_with_lists(tmp_path: Path) -> None:
    for stem in ("a", "b", "c"):
        write_original(tmp_path, stem, [(128, 128, 128)])
    (tmp_path / "train.txt").write_text("a\nc.png\n")
    (tmp_path / "val.txt").write_text("b\n")
    dataset = open_dataset(f"camvid:{tmp_path}")
    assert [list(dataset.split(name).names) for name in dataset.splits] == [["a", "c"], ["b"]]
    (tmp_path / "val.txt").write_text("d\n")
    with pytest.raises(DataError, match=r"val\.txt names 'd', which is not among the 3 images"):
        open_dataset(f"camvid:{tmp_path}")


def test_camvid_original_with_unknown_names_asks_for_lists(tmp_path: Path) -> None:
    write_original(tmp_path, "frame_1", [(0, 0, 0)])
    with pytest.raises(DataError, match=r"'frame_1' is not an image of CamVid's release; add train\.txt"):
        open_dataset(f"camvid:{tmp_path}")


def test_camvid_groups_hold_the_31_classes_besides_void_once() -> None:
    colours = [colour for members in ORIGINAL_COLOURS.values() for colour in members.values()]
    assert len(colours) == len(set(colours)) == 31
    assert tuple(ORIGINAL_COLOURS) == CAMVID.names


@pytest.mark.parametrize("preset", ["camvid", "cityscapes", "bdd100k"])
def test_a_folder_without_the_layout_says_what_is_expected(tmp_path: Path, preset: str) -> None:
    with pytest.raises(DataError, match=rf"in {tmp_path}; expected ") as caught:
        open_dataset(f"{preset}:{tmp_path}")
    assert "\n" not in str(caught.value)


def assert_samples_are_valid(dataset: Dataset, split: str, indices: Iterable[int]) -> None:
    for index in indices:
        sample = dataset.split(split)[index]
        assert sample.image.shape[:2] == sample.labels.shape
        found = set(np.unique(sample.labels).tolist())
        assert found - {255}
        assert found <= {*range(dataset.label_space.num_classes), 255}


@pytest.mark.real_data
def test_real_camvid(real_data: Path) -> None:
    dataset = open_dataset(f"camvid:{real_data / 'camvid'}")
    assert [len(dataset.split(name)) for name in dataset.splits] == [367, 101]
    assert len(dataset.split("train+val")) == 468
    assert all(usual_split(stem) == name for name in dataset.splits for stem in dataset.split(name).names)
    assert_samples_are_valid(dataset, "train+val", [0, 200, -1])


@pytest.mark.real_data
def test_real_cityscapes_mini(real_data: Path) -> None:
    dataset = open_dataset(f"cityscapes:{real_data / 'cityscapes-mini'}")
    assert [len(dataset.split(name)) for name in dataset.splits] == [2418, 557]
    assert_samples_are_valid(dataset, "train", [0, 1000, 2417])


@pytest.mark.real_data
def test_real_cityscapes_official_ids(real_data: Path) -> None:
    """In a street image road is below, sky above; the bonnet with the star at the lower edge is void."""
    dataset = open_dataset(f"cityscapes:{real_data / 'cityscapes-sample'}")
    sample = dataset.split("val")[0]
    assert sample.labels.shape == (1024, 2048)
    share = {name: (sample.labels == label).mean() for label, name in enumerate(CITYSCAPES.names)}
    assert share["road"] > 0.1
    assert share["train"] < 0.01
    assert (sample.labels[-1] == 255).mean() > 0.9


@pytest.mark.parametrize("layout", ["camvid", "camvid_original", "bdd100k", "cityscapes"])
def test_a_preset_can_be_written_as_a_description(tmp_path: Path, layout: str) -> None:
    """The data check's description of a preset gives the same classes, names and labels."""
    if layout == "camvid_original":
        write_original(tmp_path, "0006R0_f00930", [(64, 128, 192), (0, 0, 0)])
    elif layout == "camvid":
        write_image(tmp_path / "train" / "1.png", IMAGE)
        write_image(tmp_path / "trainannot" / "1.png", mask(0, 10, 11))
        (tmp_path / "train.txt").write_text("/SegNet/CamVid/train/1.png /SegNet/CamVid/trainannot/1.png\n")
    elif layout == "bdd100k":
        write_image(tmp_path / "seg" / "images" / "train" / "1.jpg", IMAGE)
        write_image(tmp_path / "seg" / "labels" / "train" / "1_train_id.png", mask(0, 255))
    else:
        write_cityscapes(tmp_path, "train", "ulm", kinds=["labelIds"])
    text = f"{layout.removesuffix('_original')}:{tmp_path}"
    preset = open_dataset(text)
    (tmp_path / "described.yaml").write_text(check_dataset(text).suggested_yaml)
    described = open_dataset(tmp_path / "described.yaml")
    assert described.label_space == preset.label_space
    assert described.split("train").names == preset.split("train").names
    np.testing.assert_array_equal(described.split("train").labels(0), preset.split("train").labels(0))


def test_a_listed_path_that_begins_with_two_slashes(tmp_path: Path) -> None:
    """POSIX distinguishes "//a" from "/a"; the files that a list names have a folder in common all the same."""
    (tmp_path / "train.txt").write_text("//a b.png\nc/d.png e.png\n")
    with pytest.raises(DataError, match=r"c/d.png|//?a"):
        open_dataset(f"camvid:{tmp_path}").split("train")[0]
    assert resolve(tmp_path, tmp_path / "train.txt", "//a") == Path("/a")

"""Folders laid out for mmsegmentation and for ultralytics' semantic task, taken as they are."""

from pathlib import Path

import numpy as np
import pytest
from image_files import write_image, write_palette_png

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError

YAML = "path: {path}\ntrain: images/train\nval: images/val\nmasks_dir: masks\nnames:\n  0: road\n  1: car\n"


def image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def mask(*ids: int) -> np.ndarray:
    """4 x 6 pixels whose first ones hold these ids, the others the first of them."""
    array = np.full((4, 6), ids[0], np.uint8)
    array[0, : len(ids)] = ids
    return array


def write_pairs(root: Path, images: str, masks: str, *ids: int, suffixes: tuple[str, str] = (".jpg", ".png")) -> None:
    """An image and its mask in each split."""
    for number, split in enumerate(("train", "val")):
        write_image(root / images.format(split) / f"{split}1{suffixes[0]}", image(number))
        write_image(root / masks.format(split) / f"{split}1{suffixes[1]}", mask(*ids))


def first_row(text: Path, split: str = "train") -> list[int]:
    return open_dataset(str(text)).split(split)[0].labels[0].tolist()


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A data set of ultralytics' kind with its YAML inside."""
    write_pairs(tmp_path / "set", "images/{}", "masks/{}", 0, 1, 255)
    (tmp_path / "set/data.yaml").write_text(YAML.format(path="."))
    return tmp_path / "set"


@pytest.mark.parametrize("text", ["set", "set/data.yaml"])
def test_ultralytics_yaml_and_the_folder_it_is_in(yolo: Path, text: str) -> None:
    dataset = open_dataset(str(yolo.parent / text))
    assert (dataset.splits, dataset.label_space.names) == (["train", "val"], ("road", "car"))
    assert first_row(yolo.parent / text) == [0, 1, 255, 0, 0, 0]
    assert check_dataset(str(yolo.parent / text)).ok


@pytest.mark.parametrize("path", ["set", "here", "gone"])
def test_ultralytics_path_from_the_yaml_or_from_here(
    yolo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """`path` may start at the YAML's folder, at the current one, or be wrong while the YAML lies in the data set."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(yolo)
    places = {"set": tmp_path / "set.yaml", "here": tmp_path / "elsewhere/set.yaml", "gone": yolo / "data.yaml"}
    places[path].parent.mkdir(exist_ok=True)
    places[path].write_text(YAML.format(path=path))
    assert first_row(places[path], "val") == [0, 1, 255, 0, 0, 0]


def test_ultralytics_label_mapping(yolo: Path) -> None:
    """Ids of the mapping change, those it does not name stay what they are."""
    write_pairs(yolo, "images/{}", "masks/{}", 7, 26, 3, 1, 255)
    mapping = "label_mapping: {-1: ignore_label, 7: 0, 26: 1, 3: ignore_label}"
    (yolo / "data.yaml").write_text(YAML.format(path=".") + mapping)
    assert first_row(yolo / "data.yaml") == [0, 1, 255, 1, 255, 0]


def test_ultralytics_lists_and_several_folders(yolo: Path) -> None:
    write_image(yolo / "more/images/extra.png", image(9))
    write_image(yolo / "more/masks/extra.png", mask(1))
    (yolo / "train.txt").write_text("./images/train/train1.jpg\n")
    (yolo / "data.yaml").write_text("train: [train.txt, more/images]\nval: images/val\nnames: [road, car]\nnc: 2\n")
    dataset = open_dataset(str(yolo))
    assert list(dataset.split("train").names) == ["train1", "extra"]
    assert [int(sample.labels[0, 0]) for sample in dataset.split("train")] == [0, 1]


def test_ultralytics_one_class_has_a_background(yolo: Path) -> None:
    (yolo / "data.yaml").write_text("train: images/train\nval: images/val\nnames: {0: crack}\n")
    assert open_dataset(str(yolo)).label_space.names == ("background", "crack")


def test_polygons_are_drawn(yolo: Path) -> None:
    """With the YAML file; without it, the names of the classes are asked for."""
    for split in ("train", "val"):
        (yolo / "labels" / split).mkdir(parents=True)
        (yolo / f"labels/{split}/{split}1.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
        (yolo / f"masks/{split}/{split}1.png").unlink()
        (yolo / f"masks/{split}").rmdir()
    (yolo / "masks").rmdir()
    (yolo / "data.yaml").write_text(YAML.format(path=".").replace("masks_dir: masks\n", ""))
    # of the triangle (0.6, 0.4), (3, 0.4), (3, 2), the row y = 0.5 is from x = 0.75 to 3
    assert first_row(yolo) == [255, 0, 0, 255, 255, 255]
    (yolo / "data.yaml").unlink()
    (finding,) = check_dataset(str(yolo)).findings
    assert "name no classes; give them with 'names'" in finding.message
    assert "\n" not in finding.message


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("train: pictures\nnames: [a]", "the images of 'train' do not exist"),
        ("train: masks/train\nnames: [a]", "'masks/train' has no folder 'images' in it"),
        ("train: 3\nnames: [a]", "'train' is a folder, a list file .txt, or several of them; got 3"),
        ("train: images/train\nmasks_dir: annotations\nnames: [a]", "annotations/train does not exist; 'masks_dir'"),
        ("train: images/train\nmasks_dir: masks", "'names' is missing"),
        ("train: images/train\nmasks_dir: masks\nnames: [a, b]\nlabel_mapping: {0: 7}", "'ids' names class 7"),
    ],
)
def test_ultralytics_mistakes(yolo: Path, yaml: str, expected: str) -> None:
    (yolo / "data.yaml").write_text(yaml)
    with pytest.raises(DataError) as caught:
        open_dataset(str(yolo / "data.yaml"))
    assert expected in str(caught.value)
    assert "data.yaml" in str(caught.value)


@pytest.mark.parametrize("suffixes", [(".jpg", ".png"), ("_rgb.png", "_gt.png")])
def test_mmsegmentation_folder(tmp_path: Path, suffixes: tuple[str, str]) -> None:
    write_pairs(tmp_path, "img_dir/{}", "ann_dir/{}", 0, 2, 255, suffixes=suffixes)
    dataset = open_dataset(str(tmp_path))
    assert (dataset.splits, dataset.label_space.names) == (["train", "val"], ("class_0", "class_2"))
    assert list(dataset.split("train").names) == ["train1"]
    assert first_row(tmp_path) == [0, 1, 255, 0, 0, 0]


def test_mmsegmentation_palette_masks_in_the_folders_of_ade20k(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        write_image(tmp_path / f"images/{split}/a.jpg", image(len(split)))
        (tmp_path / f"annotations/{split}").mkdir(parents=True)
        write_palette_png(tmp_path / f"annotations/{split}/a.png", mask(0, 1, 2), [(n, 0, 9) for n in range(256)])
    dataset = open_dataset(str(tmp_path))
    assert (dataset.splits, dataset.label_space.num_classes) == (["train", "val"], 3)


def test_reduce_zero_label(tmp_path: Path) -> None:
    """mmsegmentation's rule: 0 becomes 255, every other id goes down by one."""
    write_pairs(tmp_path, "img_dir/{}", "ann_dir/{}", 0, 1, 2, 255, suffixes=("_rgb.png", "_gt.png"))
    (tmp_path / "set.yaml").write_text(
        "names: [wall, floor]\nimages: img_dir/{split}\nmasks: ann_dir/{split}\n"
        "image_suffix: _rgb.png\nmask_suffix: _gt.png\nreduce_zero_label: true\n"
    )
    assert first_row(tmp_path / "set.yaml") == [255, 0, 1, 255, 255, 255]
    suggested = check_dataset(str(tmp_path / "set.yaml"))
    assert suggested.ok
    assert "reduce_zero_label: true" in suggested.suggested_yaml


@pytest.mark.parametrize("other", ["ids: [4, 5]", "colour_map: {a: [0, 0, 0], b: [1, 1, 1]}"])
def test_reduce_zero_label_goes_with_plain_names(tmp_path: Path, other: str) -> None:
    write_pairs(tmp_path, "images/{}", "masks/{}", 1)
    (tmp_path / "set.yaml").write_text(f"names: [a, b]\nreduce_zero_label: true\n{other}\n")
    with pytest.raises(DataError, match="'reduce_zero_label'"):
        open_dataset(str(tmp_path / "set.yaml"))


def test_a_folder_of_another_kind_is_still_refused(tmp_path: Path) -> None:
    write_pairs(tmp_path, "scans/{}", "truth/{}", 0, 1)
    with pytest.raises(DataError, match=r"is a folder; name its layout .* or let 'lpsnet data check"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("train", "says"), [("", "'train' and 'val' name no images"), ("train.txt", "no images are listed")]
)
def test_an_ultralytics_file_that_names_no_images_is_one_line(tmp_path: Path, train: str, says: str) -> None:
    (tmp_path / "train.txt").write_text("")
    (tmp_path / "data.yaml").write_text(f"train: {train}\nnames: {{0: a, 1: b}}\n")
    with pytest.raises(DataError, match=says) as caught:
        open_dataset(tmp_path / "data.yaml")
    assert "\n" not in str(caught.value)

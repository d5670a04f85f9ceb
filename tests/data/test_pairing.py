"""Lists, list files and places as other programs and systems write them: each names the right files, or is told."""

from pathlib import Path

import numpy as np
import pytest
from image_files import write_image

from lpsnet.data import pairing
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset

NAMES = "names: [road, car]\n"


def pair(root: Path, place: str, number: int) -> None:
    """An image and its label file; the image's first pixel and the labels are `number`."""
    image = np.random.default_rng(len(place) + sum(map(ord, place))).integers(0, 256, (12, 16, 3), np.uint8)
    image[0, 0] = number
    write_image(root / "images" / f"{place}.png", image)
    write_image(root / "masks" / f"{place}.png", np.full((12, 16), number, np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number in range(2):
            pair(tmp_path, f"{split}/{split} {number}", number)
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "{image},{mask}\r\n",
        "{image} , {mask}\n",
        "{image};{mask}\n",
        '"{image}","{mask}"\n',
        "'{image}'\t'{mask}'\n",
        "{image}\t{mask}\t1\n",
        "/home/somebody/data/{image} /home/somebody/data/{mask}\n",
        "C:\\data\\{image_back},C:\\data\\{mask_back}\r\n",
        "{image_back}\t{mask_back}\n",
        ".\\{image_back} .\\{mask_back}\n",
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lists_of_two_columns(folder: Path, line: str, mark: str) -> None:
    for split in ("train", "val"):
        rows = []
        for number in range(2):
            image, mask = (f"{kind}/{split}/{split} {number}.png" for kind in ("images", "masks"))
            back = {"image_back": image.replace("/", "\\"), "mask_back": mask.replace("/", "\\")}
            rows.append(line.format(image=image, mask=mask, **back))
        (folder / f"{split}.txt").write_bytes((mark + "".join(rows)).encode())
    (folder / "own.yaml").write_text(f"{NAMES}images: {{train: train.txt, val: val.txt}}\nmasks: {{}}\n")
    assert check_dataset(folder / "own.yaml").ok
    for part in open_dataset(folder / "own.yaml").parts.values():
        assert len(part) == 2
        for number, (_, image, labels) in enumerate(part):  # type: ignore[arg-type]
            assert (image[0, 0] == number).all()
            assert (labels == number).all()


@pytest.mark.parametrize(
    "heading",
    ["image,label\n", "# made by hand\n", "#\nfile name\n", "image_path;label_path\n", '"filename","mask"\n', ""],
)
def test_headings_and_remarks_in_lists_are_no_files(folder: Path, heading: str) -> None:
    for split in ("train", "val"):
        row = f"images/{split}/{split} 0.png,masks/{split}/{split} 0.png\n"
        (folder / f"{split}.txt").write_text(f"{heading}{row}# {row}{row.replace('0', '1')}")
    (folder / "own.yaml").write_text(f"{NAMES}images: {{train: train.txt, val: val.txt}}\nmasks: {{}}\n")
    assert len(open_dataset(folder / "own.yaml").split("val")) == 2
    for names in (["one", "two"], ["image_0001", "image_0002.png"], ["masked", "b.png"], ["image", "label"]):
        (folder / "stems.txt").write_text("\n".join(names))
        assert pairing.read_list(folder / "stems.txt") == [[name] for name in names], "all are files"


@pytest.mark.parametrize(
    "line", ["images\\train\\train 1.png", "train\\train 1", "/data/images/train/train 1.png", '"train/train 1"']
)
def test_lists_that_choose(folder: Path, line: str) -> None:
    for split in ("train", "val"):
        (folder / f"{split}.txt").write_text(line.replace("train", split) + "\n")
    (folder / "own.yaml").write_text(f"{NAMES}images: images\nmasks: masks\nlists: '{{split}}.txt'\n")
    assert open_dataset(folder / "own.yaml").split("val").names == ("val/val 1",)


def test_places_written_on_windows(folder: Path) -> None:
    (folder / "own.yaml").write_text(f"{NAMES}path: .\\\nimages: images\\{{split}}\nmasks: {{train: masks\\train}}\n")
    dataset = open_dataset(folder / "own.yaml")
    assert [len(dataset.split(name)) for name in ("train", "val")] == [2, 2]
    assert (dataset.split("train").labels(1) == 1).all()


def test_commas_in_a_name_divide_nothing() -> None:
    assert pairing._files_of("a, b,c.png") == ["a, b,c.png"]
    assert pairing._files_of("a,b.png,c,d.png") == ["a,b.png", "c,d.png"]
    assert pairing._files_of("it's.png") == ["it's.png"]


def test_images_not_labelled_yet_are_told_in_the_part_for_validation(tmp_path: Path) -> None:
    """Who labels from the first image on has no label file for the last ones, which are the part for validation."""
    for number in range(10):
        pair(tmp_path, f"{number}", number % 2)
    for number in (8, 9):
        (tmp_path / "masks" / f"{number}.png").unlink()
    found = check_dataset(tmp_path)
    assert [(item.kind, Path(item.file).name) for item in found.findings] == [
        ("missing_mask", "8.png"),
        ("missing_mask", "9.png"),
    ]
    (tmp_path / "own.yaml").write_text(found.suggested_yaml)
    dataset = open_dataset(tmp_path / "own.yaml")
    assert dataset.split("train").names == tuple("012345")
    assert dataset.split("val").names == tuple("67")  # a fifth of those that are left


def test_excluded_images_are_no_part_of_the_share(tmp_path: Path) -> None:
    for number in range(10):
        pair(tmp_path, f"{number}", number % 2)
    text = f"{NAMES}images: images\nmasks: masks\nval_fraction: 0.2\nexclude: ['9', '0']\n"
    (tmp_path / "own.yaml").write_text(text)
    dataset = open_dataset(tmp_path / "own.yaml")
    assert (dataset.split("train").names, dataset.split("val").names) == (tuple("123456"), tuple("78"))

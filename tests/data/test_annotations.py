"""Images that label files name, as they lie about on other machines: the right one is found, or it is told."""

from pathlib import Path

import label_files as files
import numpy as np
import pytest
from brute_force import polygon
from label_files import HEIGHT, SQUARE, TRIANGLE, WIDTH, flat, save, save_image

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset

ROAD = {"label": "road", "points": SQUARE}


def drawn(points: list[tuple[float, float]]) -> np.ndarray:
    return np.where(polygon([points], HEIGHT, WIDTH), 0, 255)


def test_names_that_differ_in_case_alone(tmp_path: Path) -> None:
    """As cameras and Windows write them: a.JPG for a.jpg. The exact name is taken where both are there."""
    save_image(tmp_path / "val2017/A.PNG")
    annotation = {"category_id": 3, "segmentation": [flat(SQUARE)]}
    save(tmp_path / "annotations/instances_val2017.json", files.coco([annotation]))
    (sample,) = open_dataset(f"coco:{tmp_path}").split("val")  # type: ignore[misc]
    assert (sample.labels == np.where(drawn(SQUARE) == 0, 1, 255)).all()
    save_image(tmp_path / "val2017/a.png", 5)
    (sample,) = open_dataset(f"coco:{tmp_path}").split("val")  # type: ignore[misc]
    assert (sample.image == files.image(5)).all()


def test_images_beside_the_folder_of_the_labels_are_told(tmp_path: Path) -> None:
    """A folder beside it may hold another data set whose images have the same names."""
    save_image(tmp_path / "photos/a.png")
    save(tmp_path / "labels/a.json", files.labelme([ROAD]))
    dataset = open_dataset(f"labelme:{tmp_path / 'labels'}")
    (told,) = [note for note in dataset.notes if "beside it" in note]
    assert f"there are no images in {tmp_path / 'labels'}: 1 of the names" in told
    assert str(tmp_path / "photos") in told
    assert not [note for note in open_dataset(f"labelme:{tmp_path}").notes if "beside it" in note]
    named = open_dataset(f"labelme:{tmp_path / 'labels'},images=../photos")
    assert not [note for note in named.notes if "beside it" in note]


def test_images_that_are_only_inside_labelme_files(tmp_path: Path) -> None:
    folder = tmp_path / "labels"  # the folders beside `tmp_path` are of other tests, with such images
    for name in ("a", "b"):
        save(folder / f"{name}.json", files.labelme([ROAD], imagePath=f"{name}.png"))
    (told,) = check_dataset(f"labelme:{folder}").findings
    assert "a.png of " in told.message
    assert "does not exist; 'imageData' in the label file is a copy of it: save it so" in told.message
    save_image(folder / "a.png")
    assert [Path(item.file).name for item in check_dataset(folder).findings if item.severity == "error"] == [
        "b.png",
        "b.json",
    ]


def test_an_image_and_its_labelme_file_that_were_renamed(tmp_path: Path) -> None:
    save_image(tmp_path / "new.png")
    save(tmp_path / "new.json", files.labelme([ROAD], imagePath="..\\camera\\IMG_1.JPG"))
    (sample,) = open_dataset(tmp_path).parts["all"]  # type: ignore[misc]
    assert (sample.labels == drawn(SQUARE)).all()


@pytest.mark.parametrize(
    "place",
    [
        "..\\{0}\\images",
        "/content/My-Project-1/{0}/images",
        "C:\\proj\\{0}\\images",
        "../../{0}/images",
        "./{0}/images",
    ],
)
def test_places_in_the_yaml_file_of_another_machine(tmp_path: Path, place: str) -> None:
    for number, split in enumerate(("train", "valid")):
        save_image(tmp_path / split / "images/a.png", number)
        numbers = " ".join(f"{x / WIDTH} {y / HEIGHT}" for x, y in TRIANGLE)
        save(tmp_path / split / "labels/a.txt", f"0 {numbers}\n")
    text = f"train: {place.format('train')}\nval: {place.format('valid')}\nnc: 1\nnames: ['road']\n"
    save(tmp_path / "data.yaml", text)
    for number, split in enumerate(("train", "val")):
        (sample,) = open_dataset(tmp_path).split(split)  # type: ignore[misc]
        assert (sample.image == files.image(number)).all()
        assert (sample.labels == drawn(TRIANGLE)).all()


def test_a_folder_of_another_split_is_never_taken(tmp_path: Path) -> None:
    """`/data/valid/images` is not here; `images`, the end of its path, is."""
    for place in ("images", "train/images"):
        save_image(tmp_path / place / "a.png")
        save(tmp_path / place.replace("images", "labels") / "a.txt", "0 0 0 1 0 1 1\n")
    save(tmp_path / "data.yaml", "train: /data/train/images\nval: /data/valid/images\nnames: ['road']\n")
    (told,) = check_dataset(tmp_path).findings
    assert told.kind == "cannot_open"
    assert "/data/valid/images does not exist" in told.message


def test_numbers_of_classes_with_gaps(tmp_path: Path) -> None:
    save_image(tmp_path / "images/train/a.png")
    save_image(tmp_path / "images/val/b.png", 1)
    save(tmp_path / "labels/train/a.txt", "2 0 0 1 0 1 1 0 1\n")
    save(tmp_path / "labels/val/b.txt", "1 0 0 1 0 1 1 0 1\n")
    save(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: {0: road, 2: car}\n")
    dataset = open_dataset(tmp_path)
    assert dataset.label_space.names == ("road", "car")
    assert (dataset.split("train").labels(0) == 1).all()
    (told,) = [item.message for item in check_dataset(tmp_path).findings if item.severity == "error"]
    assert "b.txt, line 1 names class 1; there are 2, 0, 2" in told


def test_names_of_two_words_in_classes_txt(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.png")
    save(tmp_path / "labels/a.txt", "1 0 0 1 0 1 1 0 1\n")
    save(tmp_path / "classes.txt", "traffic light\ntraffic sign\n\n")
    assert open_dataset(tmp_path).label_space.names == ("traffic light", "traffic sign")


def test_labels_spelt_in_several_ways_are_told(tmp_path: Path) -> None:
    for number, label in enumerate(("cat", "Cat", "cat ", "c_at", "class_1_1", "class_11")):
        save_image(tmp_path / f"{number}.png", number)
        save(tmp_path / f"{number}.json", files.labelme([ROAD | {"label": label}], imagePath=f"{number}.png"))
    (told,) = [item.message for item in check_dataset(tmp_path).findings if item.kind == "similar_classes"]
    assert told.startswith("classes 'Cat' and 'cat' and 'cat ' have almost the same name")
    save(tmp_path / "own.yaml", "format: labelme\nlabels: {Cat: cat, 'cat ': cat}\n")
    assert "similar_classes" not in {item.kind for item in check_dataset(tmp_path / "own.yaml").findings}

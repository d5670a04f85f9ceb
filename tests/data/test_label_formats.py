"""Label files with shapes, as the programs write them, against label maps drawn by brute force, pixel for pixel."""

import shutil
from pathlib import Path
from typing import Any

import brute_force
import cv2
import label_files as files
import numpy as np
import pytest
from brute_force import covered
from label_files import BEYOND, HEIGHT, SQUARE, TRIANGLE, WIDTH, flat, percent, save, save_image
from pycocotools import mask as pycoco

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import Dataset, changed_contents, data_contents, open_dataset
from lpsnet.data.split import FileSplit
from lpsnet.errors import DataError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'


def polygon(points: list[tuple[float, float]], *holes: list[tuple[float, float]]) -> np.ndarray:
    return brute_force.polygon([points, *holes], HEIGHT, WIDTH)


def only(dataset: Dataset) -> np.ndarray:
    """The labels of the only image."""
    (split,) = dataset.splits
    (sample,) = dataset.split(split)  # type: ignore[misc]
    assert sample.image.shape == (HEIGHT, WIDTH, 3)
    return np.asarray(sample.labels)


def read_all(text: str) -> None:
    for split in open_dataset(text).parts.values():
        for index in range(len(split)):
            split[index]


def refusal(text: object) -> str:
    with pytest.raises(DataError) as caught:
        read_all(str(text))
    message = str(caught.value)
    assert "\n" not in message
    return message


# COCO


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    save_image(tmp_path / "val2017/a.png")
    return tmp_path


def save_coco(root: Path, annotations: list[dict[str, Any]], **other: Any) -> Path:
    return save(root / "annotations/instances_val2017.json", files.coco(annotations, **other))


def rle(mask: np.ndarray) -> dict[str, Any]:
    found = pycoco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": found["size"], "counts": found["counts"].decode()}


def test_coco_polygons_run_lengths_and_crowds(coco: Path) -> None:
    """In the order of the file, a crowd beneath all: it takes nothing from the shapes before it."""
    disc = np.hypot(*np.indices((HEIGHT, WIDTH)) - np.array([[[6]], [[3]]])) < 4
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[2:10, :6] = True
    counts = [int(run) for run in np.diff(np.flatnonzero(np.diff(np.pad(crowd.T.ravel(), 1)) != 0), prepend=0)]
    uncompressed = {"size": [HEIGHT, WIDTH], "counts": [*counts, HEIGHT * WIDTH - sum(counts)]}
    assert (pycoco.decode(pycoco.frPyObjects(uncompressed, HEIGHT, WIDTH)) == crowd).all()
    save_coco(
        coco,
        [
            {"category_id": 3, "segmentation": [flat(TRIANGLE), flat(BEYOND)]},
            {"category_id": 1, "segmentation": rle(disc)},
            {"category_id": 1, "segmentation": uncompressed, "iscrowd": 1},
            {"category_id": 3, "segmentation": [flat(SQUARE)]},
        ],
    )
    wanted = covered((255, crowd), (1, polygon(TRIANGLE) | polygon(BEYOND)), (0, disc), (1, polygon(SQUARE)))
    for text in (coco, f"coco:{coco}", coco / "annotations/instances_val2017.json"):
        dataset = open_dataset(text)
        assert dataset.label_space.names == ("person", "car")
        assert (dataset.splits, dataset.split("val").names) == (["val"], ("a",))
        assert (only(dataset) == wanted).all()


def test_background_is_named_never_guessed(coco: Path) -> None:
    """Without a name the pixels that no shape covers have no label; the data check says which share they are."""
    save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    inside = polygon(TRIANGLE)
    assert (only(open_dataset(coco)) == covered((1, inside))).all()
    named = open_dataset(f"coco:{coco},background=ground")
    assert named.label_space.names == ("ground", "person", "car")
    assert (only(named) == covered((2, inside), fill=0)).all()
    known = open_dataset(f"coco:{coco},background=person")  # one of the file's classes
    assert (known.label_space.names, int(only(known)[-1, -1])) == (("person", "car"), 0)
    share = f"{100 * (1 - inside.mean()):.2f} % of the pixels of split 'val' are in no shape"
    diagnosis = check_dataset(str(coco))
    (finding,) = [finding for finding in diagnosis.findings if finding.kind == "uncovered"]
    assert (finding.severity, finding.message.startswith(share)) == ("note", True)
    assert "background" in finding.message
    assert share in diagnosis.suggested_yaml
    (finding,) = [it for it in check_dataset(f"coco:{coco},background=ground").findings if it.kind == "uncovered"]
    assert "they are 'ground'" in finding.message


def test_the_suggested_description_opens_the_same(coco: Path, tmp_path: Path) -> None:
    save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    text = check_dataset(f"coco:{coco},background=ground").suggested_yaml
    again = open_dataset(save(tmp_path / "again.yaml", text))
    first = open_dataset(f"coco:{coco},background=ground")
    assert (only(again) == only(first)).all()
    assert again.label_space.names == first.label_space.names


def test_coco_several_files_of_one_split(coco: Path) -> None:
    """Their shapes are added, image by image, in the order of the files."""
    save(coco / "b/1.json", files.coco([{"category_id": 3, "segmentation": [flat(TRIANGLE)]}]))
    save(coco / "b/2.json", files.coco([{"category_id": 1, "segmentation": [flat(SQUARE)]}]))
    save(coco / "d.yaml", "format: coco\nannotations: {train: [b/1.json, b/2.json]}\n")
    assert (only(open_dataset(coco / "d.yaml")) == covered((1, polygon(TRIANGLE)), (0, polygon(SQUARE)))).all()
    save(
        coco / "b/2.json",
        files.coco([], images=[{"id": 397133, "file_name": "val2017/a.png", "height": 12, "width": 16}]),
    )
    assert "by other names or sizes" in refusal(coco / "d.yaml")


def test_coco_folders_named_after_splits(tmp_path: Path) -> None:
    """Roboflow's export, with the same file names in every folder."""
    for number, split in enumerate(("train", "valid")):
        save_image(tmp_path / split / "a.png", number)
        shape = {"category_id": 1, "segmentation": [flat((TRIANGLE, SQUARE)[number])]}
        save(tmp_path / split / "_annotations.coco.json", files.coco([shape]))
    dataset = open_dataset(tmp_path)
    assert dataset.splits == ["train", "val"]
    for number, split in enumerate(dataset.splits):
        (sample,) = dataset.split(split)  # type: ignore[misc]
        assert (sample.image == files.image(number)).all()
        assert (sample.labels == covered((0, polygon((TRIANGLE, SQUARE)[number])))).all()


def test_an_image_in_two_splits_has_the_labels_of_each(coco: Path) -> None:
    """And the data check warns of it; two names with one stem in a split are an error there."""
    for split, points in (("train", SQUARE), ("val", TRIANGLE)):
        save(coco / f"{split}.json", files.coco([{"category_id": 3, "segmentation": [flat(points)]}]))
    dataset = open_dataset(coco)
    assert (dataset.split("train").labels(0) == covered((1, polygon(SQUARE)))).all()
    assert (dataset.split("val").labels(0) == covered((1, polygon(TRIANGLE)))).all()
    assert "shared_picture" in [finding.kind for finding in check_dataset(str(coco)).findings]
    save_image(coco / "val2017/a.jpg")
    images = [
        {"id": n, "file_name": f"a.{suffix}", "height": 12, "width": 16} for n, suffix in enumerate(("png", "jpg"))
    ]
    save(coco / "val.json", files.coco([], images=images))
    assert "duplicate_name" in [finding.kind for finding in check_dataset(str(coco)).findings]
    with pytest.raises(DataError, match="has 2 images named 'a'"):
        open_dataset(coco).split("val")
    save(coco / "one.txt", "a\n")
    save(coco / "d.yaml", "format: coco\nannotations: {train: train.json, val: val.json}\nlists: {train: one.txt}\n")
    assert "several are named 'a'" in refusal(coco / "d.yaml")


def test_coco_kinds_that_name_the_same_images_are_asked_about(coco: Path) -> None:
    save_coco(coco, [])
    save(coco / "annotations/stuff_val2017.json", files.coco([]))
    save(coco / "annotations/captions_val2017.json", files.coco([]))
    assert "labels of several kinds (instances_val2017.json, stuff_val2017.json)" in refusal(coco)
    assert open_dataset(f"coco:{coco}/annotations/stuff_val2017.json").splits == ["val"]


def test_coco_panoptic(tmp_path: Path) -> None:
    """Numbers red + 256 green + 65536 blue; a crowd and what no segment names have no label."""
    numbers = np.zeros((HEIGHT, WIDTH), np.int64)
    numbers[:4], numbers[4:8], numbers[8:, :5], numbers[8:, 5:9] = 5, 5 + 256 * 7 + 65536 * 2, 9, 70_000
    coloured = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], axis=2).astype(np.uint8)
    files.write_image(tmp_path / "panoptic_val2017/a.png", coloured)
    files.write_image(tmp_path / "val2017/a.jpg", files.image())
    segments = [
        {"id": 5, "category_id": 1, "iscrowd": 0, "area": 1, "bbox": [0, 0, 1, 1]},
        {"id": 5 + 256 * 7 + 65536 * 2, "category_id": 3, "iscrowd": 0},
        {"id": 70_000, "category_id": 3, "iscrowd": 1},
    ]
    values = files.coco([]) | {"annotations": [{"image_id": 397133, "file_name": "a.png", "segments_info": segments}]}
    values["images"][0]["file_name"] = "a.jpg"
    save(tmp_path / "panoptic_val2017.json", values)
    wanted = np.full((HEIGHT, WIDTH), 255)
    wanted[:4], wanted[4:8] = 0, 1
    assert (only(open_dataset(tmp_path)) == wanted).all()
    files.write_image(tmp_path / "panoptic_val2017/a.png", coloured[:-1])
    assert "is 11x16 but its image 12x16 (height x width)" in refusal(tmp_path)
    (tmp_path / "panoptic_val2017/a.png").unlink()
    assert "does not exist" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "has a bbox labelled 'car'"),
        (",skip=bbox", None),
        (",draw=bbox", [(2, 3), (6, 3), (6, 8), (2, 8)]),
    ],
)
def test_coco_boxes_alone_are_no_regions(coco: Path, options: str, expected: Any) -> None:
    save_coco(coco, [{"category_id": 3, "segmentation": [], "bbox": [2, 3, 4, 5]}])
    if isinstance(expected, str):
        assert expected in refusal(f"coco:{coco}")
        return
    dataset = open_dataset(f"coco:{coco}{options}")
    inside = polygon(expected) if expected else np.zeros((HEIGHT, WIDTH), bool)
    assert (only(dataset) == covered((1, inside))).all()
    assert dataset.remarks == (() if expected else ("1 shapes of kind 'bbox' are left out, as 'skip' says",))


def test_coco_what_covers_nothing_is_counted(coco: Path) -> None:
    save_coco(
        coco, [{"category_id": 3, "segmentation": [[1, 2, 3, 4]]}, {"category_id": 3, "segmentation": [], "bbox": []}]
    )
    dataset = open_dataset(coco)
    assert (only(dataset) == 255).all()
    assert dataset.remarks == ("2 polygons have fewer than three points and cover nothing",)


def test_coco_numbers_that_do_not_fit_together(coco: Path) -> None:
    """Run lengths of another size than the image's are not cropped; an id twice would take the other's shapes."""
    save_coco(coco, [{"category_id": 3, "segmentation": rle(np.ones((HEIGHT, WIDTH - 1)))}])
    assert "has run lengths for 12x15, but the image is 12x16 (height x width)" in refusal(coco)
    image = {"id": 397133, "file_name": "a.png"}
    save_coco(coco, [{"category_id": 3, "segmentation": rle(np.ones((HEIGHT, WIDTH - 1)))}], images=[image])
    assert "is 12x16 but its label file" in refusal(coco)
    save_coco(coco, [], images=[image, image | {"file_name": "b.png"}])
    assert "two images have the id 397133" in refusal(coco)
    category = {"id": 1, "name": "person"}
    save_coco(coco, [], categories=[category, category | {"name": "car"}])
    assert "two categories have the same id" in refusal(coco)
    save_coco(coco, [{"category_id": 3, "bbox": [0, 0, 1e300, 1]}])
    assert "a bbox has four numbers" in refusal(coco)


def test_classes_are_merged_renamed_and_ignored(coco: Path) -> None:
    save_coco(
        coco,
        [
            {"category_id": 3, "segmentation": [flat(TRIANGLE)]},
            {"category_id": 1, "segmentation": [flat(SQUARE)]},
        ],
    )
    both = polygon(TRIANGLE) | polygon(SQUARE)
    start = "format: coco\nannotations: {val: annotations/instances_val2017.json}\n"
    merged = open_dataset(save(coco / "d.yaml", start + "names: [thing]\nlabels: {car: thing, person: thing}\n"))
    assert (only(merged) == covered((0, both))).all()
    ignored = open_dataset(save(coco / "d.yaml", start + "ignore: [person]\n"))
    assert ignored.label_space.names == ("car",)
    assert (only(ignored) == covered((0, polygon(TRIANGLE)), (255, polygon(SQUARE)))).all()
    others = open_dataset(save(coco / "d.yaml", start + "names: [car]\nignore: others\n"))
    assert (only(others) == only(ignored)).all()
    assert others.remarks == ("1 shapes labelled 'person' mean no label, as 'ignore' says",)
    assert "unknown label 'person'" in refusal(save(coco / "d.yaml", start + "names: [car]\n"))
    assert "'labels': unknown class 'thing'" in refusal(
        save(coco / "d.yaml", start + "names: [car]\nlabels: {car: thing}")
    )


def test_a_run_notices_changed_shapes(coco: Path) -> None:
    """As it does for mask files: also when the file's size stays the same."""
    path = save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    before = data_contents(open_dataset(coco), "val")
    assert changed_contents(before, data_contents(open_dataset(coco), "val")) == []
    path.write_text(path.read_text().replace("10.2", "10.3"))
    assert changed_contents(before, data_contents(open_dataset(coco), "val")) == ["val"]


def test_an_image_of_another_size_than_its_labels(coco: Path) -> None:
    save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    save_image(coco / "val2017/a.png", height=12, width=18)
    assert "is 12x18 but its label file" in refusal(coco)
    assert check_dataset(str(coco)).findings[0].kind == "size_differs"


# labelme


def save_labelme(root: Path, shapes: list[dict[str, Any]], name: str = "a", **other: Any) -> Path:
    save_image(root / f"{name}.png")
    return save(root / f"{name}.json", files.labelme(shapes, **({"imagePath": f"{name}.png"} | other)))


def test_labelme_all_shapes(tmp_path: Path) -> None:
    patch = np.array([[1, 0, 1], [1, 1, 0]])
    save_labelme(
        tmp_path,
        [
            {"label": "road", "points": TRIANGLE},
            {"label": "car", "points": [[12.5, 9.5], [5.0, 3.0]], "shape_type": "rectangle"},
            {"label": "road", "points": [[6, 2], [8, 6], [6, 8], [4, 4]], "shape_type": "oriented_rectangle"},
            {"label": "sign", "points": [[12, 4], [12, 6.5]], "shape_type": "circle"},
            {"label": "car", "points": [[1, 8], [3, 9]], "shape_type": "mask", "mask": files.base64_png(patch)},
            {"label": "__ignore__", "points": [[0, 0], [3, 0], [3, 2], [0, 2]]},
        ],
    )
    placed = np.zeros((HEIGHT, WIDTH), bool)
    placed[8:10, 1:4] = patch
    centres = np.indices((HEIGHT, WIDTH)) + 0.5
    wanted = covered(
        (1, polygon(TRIANGLE)),
        (0, polygon(SQUARE)),
        (1, polygon([(6, 2), (8, 6), (6, 8), (4, 4)])),
        (2, np.hypot(centres[0] - 4, centres[1] - 12) <= 2.5),
        (0, placed),
        (255, polygon([(0, 0), (3, 0), (3, 2), (0, 2)])),
    )
    for text in (tmp_path, f"labelme:{tmp_path}", tmp_path / "a.json"):
        dataset = open_dataset(text)
        assert dataset.label_space.names == ("car", "road", "sign")
        assert (only(dataset) == wanted).all()
    save(tmp_path / "labels.txt", "__ignore__\n_background_\nsign\nroad\n")
    assert open_dataset(tmp_path).label_space.names == ("_background_", "sign", "road", "car")


@pytest.mark.parametrize(
    ("kind", "points"),
    [("line", [[2, 3], [9, 5]]), ("linestrip", [[2, 3], [9, 5], [4, 10]]), ("point", [[6, 6]])],
)
def test_labelme_lines_need_a_width(tmp_path: Path, kind: str, points: list[list[float]]) -> None:
    save_labelme(tmp_path, [{"label": "wire", "points": points, "shape_type": kind}])
    assert "line_width" in refusal(tmp_path)
    labels = only(open_dataset(f"labelme:{tmp_path},line_width=3"))
    plain = [(x, y) for x, y in points]
    assert ((labels == 0) >= brute_force.near(plain, 1.49, HEIGHT, WIDTH)).all()
    assert ((labels == 0) <= brute_force.near(plain, 1.51, HEIGHT, WIDTH)).all()
    left_out = open_dataset(f"labelme:{tmp_path},skip=line+point")
    assert (only(left_out) == 255).all()
    assert "1 shapes of kind" in left_out.remarks[0]


def test_labelme_folders_of_labels_and_images(tmp_path: Path) -> None:
    """JSON files in another folder, with paths as Windows writes them; images without labels are left out, said."""
    for number, split in enumerate(("train", "val")):
        for name in ("a", "b"):
            save_image(tmp_path / f"images/{split}/{name}.png", number)
        shape = {"label": "road", "points": (TRIANGLE, SQUARE)[number]}
        value = files.labelme([shape], imagePath=f"..\\..\\images\\{split}\\a.png", imageData=None)
        save(tmp_path / f"labels/{split}/a.json", value)
    dataset = open_dataset(tmp_path)
    assert dataset.splits == ["train", "val"]
    assert (dataset.split("train").names, dataset.split("val").names) == (("a",), ("a",))
    for number, split in enumerate(dataset.splits):
        (sample,) = dataset.split(split)  # type: ignore[misc]
        assert (sample.image == files.image(number)).all()
        assert (sample.labels == covered((0, polygon((TRIANGLE, SQUARE)[number])))).all()
    assert "2 images have no label file and are left out" in dataset.remarks


def test_without_splits_the_last_fifth_is_for_validation(tmp_path: Path) -> None:
    for number in range(10):
        save_labelme(tmp_path, [{"label": "road", "points": TRIANGLE}], name=f"{number:02d}")
    dataset = open_dataset(tmp_path)
    assert [dataset.split(name).names for name in ("train", "val")] == [
        tuple(f"{number:02d}" for number in range(8)),
        ("08", "09"),
    ]
    assert "the last 20% of the images by name are split 'val'" in dataset.remarks[0]
    assert len(open_dataset(f"labelme:{tmp_path},val_fraction=0.5").split("val")) == 5
    save(tmp_path / "train.txt", "03.png\n05\n")
    save(tmp_path / "val.txt", "00\n")
    listed = open_dataset(f"labelme:{tmp_path}" + ",lists={split}.txt")
    assert (listed.split("train").names, listed.split("val").names) == (("03", "05"), ("00",))


# YOLO


def yolo_line(label: int, points: list[tuple[float, float]]) -> str:
    return " ".join([str(label), *(f"{x / WIDTH} {y / HEIGHT}" for x, y in points)]) + "\n"


YOLO_BEYOND = [(11.0, 7.0), (20.0, 8.0), (14.0, 19.0)]


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """As ultralytics and Roboflow lay it out; the second image has no text file: no objects."""
    for number, split in enumerate(("train", "valid")):
        save_image(tmp_path / split / "images/a.png", number)
        save_image(tmp_path / split / "images/b.png", number + 2)
        lines = yolo_line(1, TRIANGLE) + "\n" + yolo_line(0, SQUARE) + yolo_line(1, YOLO_BEYOND)
        save(tmp_path / split / "labels/a.txt", lines)
    save(tmp_path / "data.yaml", "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['road', 'car']\n")
    return tmp_path


def test_yolo(yolo: Path) -> None:
    wanted = covered((1, polygon(TRIANGLE)), (0, polygon(SQUARE)), (1, polygon(YOLO_BEYOND)))
    for text in (yolo, yolo / "data.yaml", f"yolo:{yolo}"):
        dataset = open_dataset(text)
        assert (dataset.splits, dataset.label_space.names) == (["train", "val"], ("road", "car"))
        first, second = dataset.split("val")
        assert (first.labels == wanted).all()
        assert (dataset.split("val").labels(0) == wanted).all()  # without the image, whose size it needs
        assert (second.labels == 255).all()
        assert "2 images have no text file" in dataset.remarks[0]
    assert (open_dataset(f"yolo:{yolo},background=ground").split("val").labels(1) == 0).all()


def test_yolo_as_cvat_exports_it(tmp_path: Path) -> None:
    """'Ultralytics YOLO Segmentation 1.0': list files whose paths begin with a folder that is not there."""
    for number, split in enumerate(("train", "val")):
        save_image(tmp_path / f"images/{split}/a.png", number)
        save(tmp_path / f"labels/{split}/a.txt", yolo_line(number, TRIANGLE))
        save(tmp_path / f"{split}.txt", f"data/images/{split}/a.png\n")
    save(tmp_path / "data.yaml", "names:\n  0: road\n  1: car\npath: .\ntrain: train.txt\nval: val.txt\n")
    dataset = open_dataset(tmp_path)
    for number, split in enumerate(("train", "val")):
        (sample,) = dataset.split(split)  # type: ignore[misc]
        assert (sample.image == files.image(number)).all()
        assert (sample.labels == covered((number, polygon(TRIANGLE)))).all()


def test_yolo_without_a_yaml_file(tmp_path: Path) -> None:
    save_image(tmp_path / "images/a.png")
    save(tmp_path / "labels/a.txt", yolo_line(1, TRIANGLE))
    assert "name no classes" in refusal(tmp_path)
    save(tmp_path / "classes.txt", "road\ncar\n")
    assert (only(open_dataset(tmp_path)) == covered((1, polygon(TRIANGLE)))).all()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("7 0 0 1 0 1 1", "line 1 names class 7; there are 2, 0..1"),
        ("0.5 0 0 1 0 1 1", "names class 0.5"),
        ("-1 0 0 1 0 1 1", "names class -1"),
        ("0 0.5 0.5 0.2 0.2", "has a bbox labelled 'road'"),
        ("0 0 0 1 0 1", "has 6 numbers"),
        ("0 0 0 1", "has 4 numbers"),
        ("0 0 0 1 0 1 nan", "not parts of the image's width and height"),
        ("0 0 0 512 0 512 512", "not parts of the image's width and height"),
        ("0 0 0 1 0 1 1e999", "not parts"),
        ("car 0 0 1 0 1 1", "words that are no numbers"),
    ],
)
def test_yolo_lines_that_are_no_polygons(yolo: Path, line: str, expected: str) -> None:
    save(yolo / "train/labels/a.txt", line + "\n")
    assert expected in refusal(yolo)
    assert "a.txt" in refusal(yolo)


# CVAT


def test_cvat_all_shapes_in_their_z_order(tmp_path: Path) -> None:
    """A higher z_order is on top, whatever the order in the file; equal ones follow the file."""
    save_image(tmp_path / "images/a.png")
    patch = np.array([[1, 0, 1, 1], [1, 1, 0, 0]])
    save(
        tmp_path / "annotations.xml",
        files.cvat(f"""
    <polygon label="road" source="manual" occluded="0" points="{files.cvat_points(SQUARE)}" z_order="2">
    </polygon>
    <polygon label="car" source="manual" occluded="0" points="{files.cvat_points(TRIANGLE)}" z_order="0"></polygon>
    <box label="car" source="manual" occluded="0" xtl="3.00" ytl="1.00" xbr="9.00" ybr="4.00" z_order="1">
      <attribute name="colour">red</attribute></box>
    <box label="road" source="manual" occluded="0" xtl="10" ytl="1" xbr="14" ybr="3" rotation="90.0" z_order="3"></box>
    <ellipse label="car" source="manual" occluded="0" cx="3.00" cy="8.00" rx="3.00" ry="1.50" z_order="3"></ellipse>
    <mask label="car" source="auto" occluded="0" rle="0, 1, 1, 4, 2" left="12" top="9" width="4" height="2" z_order="4">
    </mask>
"""),
    )
    placed = np.zeros((HEIGHT, WIDTH), bool)
    placed[9:11, 12:16] = patch
    centres = np.indices((HEIGHT, WIDTH)) + 0.5
    wanted = covered(
        (1, polygon(TRIANGLE)),
        (1, polygon([(3, 1), (9, 1), (9, 4), (3, 4)])),
        (0, polygon(SQUARE)),
        (0, polygon([(11, 0), (13, 0), (13, 4), (11, 4)])),  # about its centre (12, 2)
        (1, ((centres[1] - 3) / 3) ** 2 + ((centres[0] - 8) / 1.5) ** 2 <= 1),
        (1, placed),
    )
    for text in (tmp_path, f"cvat:{tmp_path}", tmp_path / "annotations.xml"):
        dataset = open_dataset(text)
        assert dataset.label_space.names == ("road", "car")
        assert dataset.label_space.colours == ((255, 128, 0), (0, 0, 255))
        assert (only(dataset) == wanted).all()


def test_cvat_subsets_are_splits(tmp_path: Path) -> None:
    shape = f'<polygon label="car" points="{files.cvat_points(TRIANGLE)}" z_order="0"></polygon>'
    texts = [files.cvat(shape, name="x/a.png", subset=subset) for subset in ("Train", "Validation")]
    images = "".join(text[text.index("  <image") : text.index("</annotations>")] for text in texts)
    save(tmp_path / "annotations.xml", texts[0][: texts[0].index("  <image")] + images + "</annotations>")
    for number, subset in enumerate(("Train", "Validation")):
        save_image(tmp_path / f"images/{subset}/x/a.png", number)
    dataset = open_dataset(tmp_path)
    assert (dataset.splits, dataset.split("train").names) == (["train", "val"], ("x/a",))
    assert [int(dataset.split(name)[0].image[0, 0, 0]) for name in dataset.splits] == [
        int(files.image(number)[0, 0, 0]) for number in range(2)
    ]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ('<cuboid label="car" xtl1="1" ytl1="1"></cuboid>', "has a cuboid labelled 'car'"),
        ('<skeleton label="car" z_order="0"><points label="1" points="1,1"/></skeleton>', "has a skeleton"),
        ('<tag label="car" source="manual"></tag>', "has a tag"),
        ('<points label="car" points="1,1;2,2"></points>', "line_width"),
        ('<polyline label="car" points="1,1;2,2"></polyline>', "line_width"),
        ('<polygon label="bus" points="1,1;5,1;5,5"></polygon>', None),
        ('<polygon label="car" points="1,1;5"></polygon>', "no pairs 'x,y;x,y'"),
        ('<polygon label="car" points=""></polygon>', "no pairs 'x,y;x,y'"),
        ('<polygon label="car" points="1,1;nan,1;5,5"></polygon>', "no pairs"),
        ('<polygon label="car" points="1,1;1e30,1;5,5"></polygon>', "no pairs"),
        ('<polygon points="1,1;5,1;5,5"></polygon>', "has a polygon without a label"),
        ('<box label="car" xtl="a" ytl="1" xbr="2" ybr="2"></box>', "has xtl='a'"),
        ('<mask label="car" rle="3, 9" left="0" top="0" width="2" height="2"></mask>', "do not add up"),
        ('<mask label="car" rle="3, -1, 2" left="0" top="0" width="2" height="2"></mask>', "do not add up"),
        ('<mask label="car" rle="x" left="0" top="0" width="2" height="2"></mask>', "no whole numbers"),
        ('<mask label="car" rle="4" left="0" top="0" width="-2" height="-2"></mask>', "is not possible"),
        ('<mask label="car" rle="4" left="0" top="0" width="1e6" height="1e6"></mask>', "is not possible"),
        (f'<mask label="car" rle="{10**400}" left="0" top="0" width="2" height="2"></mask>', "no whole numbers"),
    ],
)
def test_cvat_shapes_that_are_not_drawn(tmp_path: Path, shape: str, expected: str | None) -> None:
    save_image(tmp_path / "a.png")
    save(tmp_path / "annotations.xml", files.cvat(shape))
    if expected is None:  # a label that the task does not list is one all the same
        assert open_dataset(tmp_path).label_space.names == ("road", "car", "bus")
    else:
        assert expected in refusal(tmp_path)
        assert "annotations.xml" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<annotations><image ", "is no XML"),
        ('<annotations><image id="0"></annotations>', "is no XML"),
        ('<annotations><image name="a.png" width="x" height="2"/></annotations>', "has width"),
        ('<annotations><image name="a.png" width="0" height="2"/></annotations>', "2x0 (height x width)"),
        ('<annotations><image name="" width="1" height="2"/></annotations>', "is no name of an image"),
        ('<annotations><track id="0" label="car"></track><image /></annotations>', "'CVAT for video'"),
        ("<annotations><meta></meta></annotations>", "no labelled images"),
        (
            '<!DOCTYPE a [<!ENTITY a "aaa"><!ENTITY b "&a;&a;&a;">]><annotations><image name="&b;"/></annotations>',
            "defines entities",
        ),
    ],
)  # fmt: skip
def test_cvat_files_that_are_damaged(tmp_path: Path, text: str, expected: str) -> None:
    save_image(tmp_path / "a.png")
    save(tmp_path / "annotations.xml", text)
    assert expected in refusal(f"cvat:{tmp_path}")


# Label Studio


def test_label_studio_all_results(tmp_path: Path) -> None:
    from lpsnet.data.formats.labelstudio import brush_rle  # held against Label Studio's own in test_run_lengths.py

    save_image(tmp_path / "images/1a2b3c4d-a.png")
    disc = np.hypot(*np.indices((HEIGHT, WIDTH)) - np.array([[[9]], [[4]]])) < 3
    spot = np.zeros((HEIGHT, WIDTH), bool)
    spot[0, 15] = True
    box = {"x": 50.0, "y": 25.0, "width": 25.0, "height": 25.0, "rotation": 0}
    ellipse = {"x": 75, "y": 75, "radiusX": 12.5, "radiusY": 25, "rotation": 0}
    results = [
        {"type": "polygonlabels", "value": {"points": percent(TRIANGLE), "closed": True, "polygonlabels": ["road"]}},
        {"type": "rectanglelabels", "value": box | {"rectanglelabels": ["car"]}},
        {"type": "rectanglelabels", "value": box | {"x": 25, "rotation": 90, "rectanglelabels": ["sign"]}},
        {"type": "ellipselabels", "value": ellipse | {"ellipselabels": ["sign"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": brush_rle(disc), "brushlabels": ["car"]}},
        {"type": "bitmasklabels", "value": {"imageDataURL": "data:image/png;base64," + files.base64_png(spot * 255),
                                            "bitmasklabels": ["car"]}},
        {"type": "polygon", "id": "p", "value": {"points": percent([(12, 9), (16, 9), (16, 12)])}},
        {"type": "labels", "id": "p", "value": {"points": percent([(12, 9), (16, 9), (16, 12)]), "labels": ["road"]}},
        {"type": "choices", "value": {"choices": ["sunny"]}},
    ]  # fmt: skip
    save(tmp_path / "project-1-at-2026.json", files.labelstudio(results))
    centres = np.indices((HEIGHT, WIDTH)) + 0.5
    wanted = covered(
        (1, polygon(TRIANGLE)),
        (0, polygon([(8, 3), (12, 3), (12, 6), (8, 6)])),
        (2, polygon([(4, 3), (4, 7), (1, 7), (1, 3)])),  # a quarter turn clockwise about its corner (4, 3)
        (2, ((centres[1] - 12) / 2) ** 2 + ((centres[0] - 9) / 3) ** 2 <= 1),
        (0, disc),
        (0, spot),
        (1, polygon([(12, 9), (16, 9), (16, 12)])),
    )
    for text in (tmp_path, f"labelstudio:{tmp_path}"):
        dataset = open_dataset(text)
        assert dataset.label_space.names == ("car", "road", "sign")
        assert (only(dataset) == wanted).all()
    save(tmp_path / "label_config.xml", '<View><Image/><BrushLabels><Label value="road" background="#ff8000"/>'
         '<Label value="hole"/></BrushLabels></View>')  # fmt: skip
    named = open_dataset(tmp_path).label_space
    assert named.names == ("road", "hole", "car", "sign")
    assert named.colours[0] == (255, 128, 0)


@pytest.mark.parametrize(
    "address",
    [
        "/data/upload/1/a.png",
        "s3://bucket/more/a.png",
        "/data/local-files/?d=some/a.png",
        "http://x/y/a.png?key=1",
        "a.png",
    ],
)
def test_label_studio_addresses_of_images(tmp_path: Path, address: str) -> None:
    save_image(tmp_path / "pictures/a.png")
    result = {"type": "polygonlabels", "value": {"points": percent(TRIANGLE), "polygonlabels": ["road"]}}
    save(tmp_path / "export.json", files.labelstudio([result], data={"photo": address, "split": "val"}))
    dataset = open_dataset(tmp_path)
    assert dataset.split("val").names == ("a",)
    assert (only(dataset) == covered((0, polygon(TRIANGLE)))).all()


def test_label_studio_several_annotations_and_none(tmp_path: Path) -> None:
    """The one marked as ground truth, else the last; skipped ones do not count; all of it is said."""
    save_image(tmp_path / "1a2b3c4d-a.png")
    one, two = (
        files.labelstudio([{"type": "polygonlabels", "value": {"points": percent(points), "polygonlabels": ["road"]}}])[
            0
        ]["annotations"][0]
        for points in (TRIANGLE, SQUARE)
    )
    empty = files.labelstudio([], annotations=[])[0]
    for annotations, wanted in (
        ([one, two], SQUARE),
        ([one | {"ground_truth": True}, two], TRIANGLE),
        ([one, two | {"was_cancelled": True}], TRIANGLE),
    ):
        save(tmp_path / "e.json", [*files.labelstudio([], annotations=annotations), empty])
        dataset = open_dataset(tmp_path)
        assert (only(dataset) == covered((0, polygon(wanted)))).all()
        assert "1 tasks without an annotation are left out" in dataset.remarks
    save(tmp_path / "e.json", [*files.labelstudio([], annotations=[one, two])])
    assert "1 tasks have several annotations" in open_dataset(tmp_path).remarks[0]


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"type": "polygonlabels", "value": {"polygonlabels": ["road"]}}, "polygon without 'points'"),
        ({"type": "polygonlabels", "value": {"points": [[0, 0]], "polygonlabels": []}}, "with 0 labels"),
        ({"type": "polygonlabels", "value": {"points": [[0, 0]], "polygonlabels": ["a", "b"]}}, "with 2 labels"),
        ({"type": "polygonlabels", "value": {"points": [], "polygonlabels": ["a"]}}, "has no points"),
        ({"type": "polygonlabels", "value": {"points": [["x", 0]], "polygonlabels": ["a"]}}, "points.0.0: Input"),
        ({"type": "brushlabels", "value": {"format": "png", "brushlabels": ["a"]}}, "has the format 'png'"),
        ({"type": "brushlabels", "value": {"format": "rle", "rle": [1, 2], "brushlabels": ["a"]}}, "cut off"),
        ({"type": "bitmasklabels", "value": {"imageDataURL": "data:x", "bitmasklabels": ["a"]}}, "allowed: PNG"),
        ({"type": "keypointlabels", "value": {"x": 1, "y": 1, "keypointlabels": ["a"]}}, "line_width"),
        ({"type": "videorectangle", "value": {"labels": ["a"]}}, "has a videorectangle labelled 'a'"),
        ({"type": "polygonlabels", "original_width": 5, "value": {"points": [[0, 0]], "polygonlabels": ["a"]}},
         "images of different sizes"),
        ({"type": "polygonlabels", "image_rotation": 90, "value": {"points": [[0, 0]], "polygonlabels": ["a"]}},
         "was rotated in Label Studio"),
    ],
)  # fmt: skip
def test_label_studio_results_that_are_not_drawn(tmp_path: Path, result: dict[str, Any], expected: str) -> None:
    save_image(tmp_path / "1a2b3c4d-a.png")
    other = {"type": "polygonlabels", "value": {"points": percent(TRIANGLE), "polygonlabels": ["road"]}}
    save(tmp_path / "e.json", files.labelstudio([other, result]))
    assert expected in refusal(tmp_path)


# Supervisely


def test_supervisely(tmp_path: Path) -> None:
    hole = [(6.0, 4.0), (9.0, 4.0), (9.0, 7.0)]
    patch = np.array([[1, 0, 1], [1, 1, 0]])
    objects = [
        {"classTitle": "road", "geometryType": "polygon", "points": {"exterior": TRIANGLE, "interior": []}},
        {"classTitle": "car", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [hole]}},
        {"classTitle": "road", "geometryType": "rectangle", "points": {"exterior": [[13, 0], [16, 2]], "interior": []}},
        {
            "classTitle": "car",
            "geometryType": "bitmap",
            "bitmap": {"origin": [2, 8], "data": files.supervisely_bitmap(patch)},
        },
    ]
    save(tmp_path / "meta.json", files.SUPERVISELY_META)
    for number, split in enumerate(("train", "val")):
        save_image(tmp_path / split / "img/a.png", number)
        save(tmp_path / split / "ann/a.png.json", files.supervisely(objects))
    placed = np.zeros((HEIGHT, WIDTH), bool)
    placed[8:10, 2:5] = patch
    wanted = covered(
        (0, polygon(TRIANGLE)),
        (1, polygon(SQUARE, hole)),
        (0, polygon([(13, 0), (16, 0), (16, 2), (13, 2)])),
        (1, placed),
    )
    for text in (tmp_path, f"supervisely:{tmp_path}"):
        dataset = open_dataset(text)
        assert (dataset.splits, dataset.label_space.names) == (["train", "val"], ("road", "car"))
        assert dataset.label_space.colours == ((255, 128, 0), (0, 0, 255))
        assert dataset.split("val").names == ("a",)
        assert (dataset.split("val").labels(0) == wanted).all()


def test_supervisely_bitmaps_of_the_web_page(tmp_path: Path) -> None:
    """RGBA, what is not transparent is covered; a tag says which split an image is in."""
    alpha = np.array([[0, 255], [255, 0]], np.uint8)
    encoded = cv2.imencode(".png", np.dstack([np.full((2, 2, 3), 255, np.uint8), alpha]))[1].tobytes()
    data = files.base64.b64encode(files.zlib.compress(encoded)).decode()
    item = {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": data}}
    save(tmp_path / "meta.json", files.SUPERVISELY_META)
    save_image(tmp_path / "ds/img/a.png")
    save_image(tmp_path / "ds/img/b.png")
    save(tmp_path / "ds/ann/a.png.json", files.supervisely([item], tags=[{"name": "val", "value": None}]))
    dataset = open_dataset(tmp_path)
    assert np.argwhere(dataset.split("val").labels(0) != 255).tolist() == [[0, 1], [1, 0]]
    assert dataset.remarks == ("1 images have no label file and are left out",)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"geometryType": "cuboid", "points": {"exterior": []}}, "has a cuboid labelled 'car'"),
        ({"geometryType": "polygon", "points": {"exterior": []}}, "it has no points"),
        ({"geometryType": "polygon"}, "has no 'points'"),
        ({"geometryType": "rectangle", "points": {"exterior": [[0, 0]]}}, "1 corners"),
        ({"geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": "AAAA"}}, "not a compressed PNG in base64"),
        ({"geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": "é"}}, "not a compressed PNG in base64"),
        ({"geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": ""}}, "its data"),
        ({"geometryType": "line", "points": {"exterior": [[0, 0], [1, 1]]}}, "line_width"),
        ({"classTitle": "bus", "points": {"exterior": [[0, 0], [1, 1]]}}, "unknown label 'bus'"),
    ],
)
def test_supervisely_objects_that_are_not_drawn(tmp_path: Path, item: dict[str, Any], expected: str) -> None:
    save(tmp_path / "meta.json", files.SUPERVISELY_META)
    save_image(tmp_path / "ds/img/a.png")
    save(tmp_path / "ds/ann/a.png.json", files.supervisely([{"classTitle": "car"} | item]))
    assert expected in refusal(tmp_path)
    assert "a.png.json" in refusal(tmp_path)


# All formats


def test_a_folder_with_labels_of_several_formats_is_asked_about(coco: Path) -> None:
    save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    save(coco / "annotations.xml", files.cvat(""))
    assert f"name one: coco:{coco} or cvat:{coco}" in refusal(coco)
    assert open_dataset(f"coco:{coco}").splits == ["val"]
    (coco / "annotations.xml").unlink()
    save_image(coco / "images/train/a.png")
    files.write_image(coco / "masks/train/a.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert f"holds masks and other labels; name these: coco:{coco}" in refusal(coco)
    save(coco / "data.yaml", "names: [road]\n")
    assert open_dataset(coco).label_space.names == ("road",)  # what is described is no guess


def test_images_are_only_read_below_their_folders(coco: Path) -> None:
    """A name that leads out of the folder counts by its last part, and is not there."""
    save_image(coco.parent / "outside.png")
    try:
        outside = [
            {"id": 397133, "file_name": f"../../{coco.parent.name}/outside.png", "height": HEIGHT, "width": WIDTH}
        ]
        save_coco(coco, [], images=outside)
        (pair,) = open_dataset(coco).split("val").pairs  # type: ignore[attr-defined]
        assert pair.image.parent == coco
        assert pair.name == f"{coco.parent.name}/outside"
        assert "does not exist" in refusal(coco)
        (finding,) = [it for it in check_dataset(str(coco)).findings if it.kind == "unreadable"]
        assert finding.kind == "unreadable"
    finally:
        (coco.parent / "outside.png").unlink()


def test_two_labels_for_one_image_are_refused(tmp_path: Path) -> None:
    save_labelme(tmp_path, [{"label": "road", "points": TRIANGLE}])
    shutil.copy(tmp_path / "a.json", tmp_path / "copy.json")
    assert "are both labels of image" in refusal(tmp_path)


def test_an_image_that_may_be_several_is_refused(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        save_image(tmp_path / folder / "1a2b3c4d-a.png")
    result = {"type": "polygonlabels", "value": {"points": percent(TRIANGLE), "polygonlabels": ["road"]}}
    save(tmp_path / "e.json", files.labelstudio([result]))
    assert "may be" in refusal(tmp_path)
    assert only(open_dataset(f"labelstudio:{tmp_path},images=x")).shape == (HEIGHT, WIDTH)


def test_options_that_are_none(coco: Path) -> None:
    save_coco(coco, [])
    assert "unknown key 'backgound'; did you mean 'background'?" in refusal(f"coco:{coco},backgound=x")
    assert "'val_fraction' is not usable" in refusal(f"coco:{coco},val_fraction=2")
    assert "coco:FOLDER or FILE" in refusal("coco:/nowhere")
    assert "coco:FOLDER or FILE" in refusal("coco:")
    assert "'background' goes with a 'format' of shapes" in refusal(
        save(coco / "d.yaml", "names: [a]\nbackground: b\n")
    )
    assert "'format' is not usable" in refusal(save(coco / "d.yaml", "format: cocoo\n"))
    save(coco / "notes.json", "{}")
    assert "is not of the format 'coco'" in refusal(f"coco:{coco}/notes.json")


def test_the_data_check_reads_every_image(coco: Path) -> None:
    save_coco(coco, [{"category_id": 3, "segmentation": [flat(TRIANGLE)]}])
    diagnosis = check_dataset(str(coco))
    assert diagnosis.ok
    counts = diagnosis.counts["val"]
    assert counts.class_pixels == {"person": 0, "car": int(polygon(TRIANGLE).sum())}
    assert counts.ignored_pixels == HEIGHT * WIDTH - polygon(TRIANGLE).sum()
    split = open_dataset(coco).split("val")
    assert isinstance(split, FileSplit)
    assert split.pairs[0].drawing is not None


@pytest.mark.parametrize("name", ["labelme", "yolo", "supervisely"])
def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path, name: str) -> None:
    """Each is a finding of the data check, whose description leaves it out; reading that image is an error."""
    paths = {"labelme": "{}.json", "yolo": "labels/{}.txt", "supervisely": "d/ann/{}.png.json"}
    folders = {"labelme": "", "yolo": "images", "supervisely": "d/img"}
    objects = [{"classTitle": "road", "geometryType": "polygon", "points": {"exterior": TRIANGLE}}]
    for stem in "abcde":
        value: Any = files.labelme([{"label": "road", "points": TRIANGLE}], imagePath=f"{stem}.png")
        value = {"yolo": yolo_line(0, TRIANGLE), "supervisely": files.supervisely(objects)}.get(name, value)
        save_image(tmp_path / folders[name] / f"{stem}.png", ord(stem))
        save(tmp_path / paths[name].format(stem), value)
    save(tmp_path / ("meta.json" if name == "supervisely" else "classes.txt"),
         files.SUPERVISELY_META if name == "supervisely" else "road\n")  # fmt: skip
    for stem, text in (("b", "{"), ("d", '{"shapes": 3, "objects": 3}')):
        save(tmp_path / paths[name].format(stem), text)
    diagnosis = check_dataset(f"{name}:{tmp_path}")
    errors = [finding for finding in diagnosis.findings if finding.severity == "error"]
    assert [Path(finding.file).name.partition(".")[0] for finding in errors] == ["b", "d"]
    dataset = open_dataset(f"{name}:{tmp_path}")
    assert (dataset.split("train").labels(0) == covered((0, polygon(TRIANGLE)))).all()
    with pytest.raises(DataError, match=r"b\.(json|txt|png.json)"):
        dataset.split("train")[1]
    again = open_dataset(save(tmp_path / "repaired.yaml", diagnosis.suggested_yaml))
    assert [again.split(split).names for split in again.splits] == [("a", "c"), ("e",)]
    assert check_dataset(str(tmp_path / "repaired.yaml")).ok

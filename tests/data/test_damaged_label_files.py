"""Label files that are cut off, hold other kinds of values or absurd numbers: one line each, never a traceback."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import label_files as files
import numpy as np
import pytest
from label_files import HEIGHT, SQUARE, TRIANGLE, WIDTH, flat, percent, save, save_image

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset
from lpsnet.data.formats.coco import coco_text
from lpsnet.data.formats.labelstudio import brush_rle
from lpsnet.errors import DataError

MASK = np.hypot(*np.indices((HEIGHT, WIDTH)) - 5) < 4
PIECES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e308, -1e308, 1e-308, "", "x", "12", "../../etc/passwd", "\0", "é" * 99,
    [], [[]], [[[]]], [1], [[1, 2]], {}, {"x": 1}, {"size": [2, 2], "counts": "04"}, "NaN", float("nan"), float("inf"),
]  # fmt: skip


def coco(root: Path) -> tuple[Path, Any]:
    save_image(root / "a.png")
    segments = [{"id": 5, "category_id": 1, "iscrowd": 0}]
    annotations = [
        {"category_id": 3, "segmentation": [flat(TRIANGLE)]},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": coco_text(MASK)}},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, 191]}, "iscrowd": 1},
    ]
    value = files.coco(annotations)
    value["annotations"].append({"image_id": 397133, "file_name": "a.png", "segments_info": segments})
    return root / "instances_val.json", value


def labelme(root: Path) -> tuple[Path, Any]:
    save_image(root / "a.png")
    patch = files.base64_png(np.ones((2, 2)))
    shapes = [
        {"label": "road", "points": TRIANGLE},
        {"label": "car", "points": [[5, 3], [12.5, 9.5]], "shape_type": "rectangle"},
        {"label": "sign", "points": [[12, 4], [12, 6.5]], "shape_type": "circle"},
        {"label": "car", "points": [[1, 8], [2, 9]], "shape_type": "mask", "mask": patch},
    ]
    return root / "a.json", files.labelme(shapes)


def labelstudio(root: Path) -> tuple[Path, Any]:
    save_image(root / "1a2b3c4d-a.png")
    box = {"x": 50.0, "y": 25.0, "width": 25.0, "height": 25.0, "rotation": 10}
    results = [
        {"type": "polygonlabels", "value": {"points": percent(SQUARE), "polygonlabels": ["road"]}},
        {"type": "rectanglelabels", "value": box | {"rectanglelabels": ["car"]}},
        {"type": "ellipselabels", "value": {"x": 1, "y": 2, "radiusX": 3, "radiusY": 4, "ellipselabels": ["car"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": brush_rle(MASK), "brushlabels": ["car"]}},
    ]
    return root / "export.json", files.labelstudio(results)


def supervisely(root: Path) -> tuple[Path, Any]:
    save(root / "meta.json", files.SUPERVISELY_META)
    save_image(root / "ds/img/a.png")
    data = files.supervisely_bitmap(np.ones((2, 3)))
    objects = [
        {"classTitle": "road", "geometryType": "polygon", "points": {"exterior": TRIANGLE, "interior": [SQUARE]}},
        {"classTitle": "car", "geometryType": "bitmap", "bitmap": {"origin": [2, 8], "data": data}},
    ]
    return root / "ds/ann/a.png.json", files.supervisely(objects)


FORMATS = {"coco": coco, "labelme": labelme, "labelstudio": labelstudio, "supervisely": supervisely}
Maker = Callable[[Path], tuple[Path, Any]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value in JSON."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def try_to_read(text: str) -> None:
    """All samples and the data check; any other error than one line of a `DataError` fails the test."""
    check_dataset(text)
    message = ""
    try:
        for split in open_dataset(text).parts.values():
            for index in range(len(split)):
                split[index]
    except DataError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2000


@pytest.mark.parametrize("name", FORMATS)
def test_every_value_replaced(tmp_path: Path, name: str) -> None:
    """By a wrong kind, an absurd number, a path that leads out of the folder; and left out."""
    path, value = FORMATS[name](tmp_path)
    chance = random.Random(name)
    for keys in places(value):
        for piece in [*chance.sample(PIECES, 4), "left out"]:
            damaged = copy.deepcopy(value)
            inner = damaged
            for key in keys[:-1]:
                inner = inner[key]
            if piece == "left out":
                del inner[keys[-1]]
            else:
                inner[keys[-1]] = piece
            save(path, damaged)
            try_to_read(f"{name}:{tmp_path}")


@pytest.mark.parametrize("name", FORMATS)
def test_cut_off_and_other_texts(tmp_path: Path, name: str) -> None:
    path, value = FORMATS[name](tmp_path)
    text = json.dumps(value)
    chance = random.Random(name)
    for length in [0, 1, len(text) - 1, *(chance.randrange(len(text)) for _ in range(40))]:
        save(path, text[:length])
        with pytest.raises(DataError) as caught:
            open_dataset(f"{name}:{tmp_path}")
        assert "\n" not in str(caught.value)
    for content in (b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 50_000, text.encode("utf-16"), b"\0" * 99):
        path.write_bytes(content)
        try_to_read(f"{name}:{tmp_path}")
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # a byte order mark, as some editors write, is no damage
    before = check_dataset(f"{name}:{tmp_path}").findings
    save(path, text)
    assert check_dataset(f"{name}:{tmp_path}").findings == before


def test_the_message_says_where(tmp_path: Path) -> None:
    path, value = coco(tmp_path)
    value["annotations"][0]["segmentation"][0][3] = "x"
    save(path, value)
    with pytest.raises(DataError, match=r"instances_val.json, at annotations.0.segmentation.*0.3: Input should be a"):
        open_dataset(f"coco:{tmp_path}")
    value["annotations"][0]["segmentation"][0] = [1, 2, 3]
    save(path, value)
    with pytest.raises(DataError, match=r"annotation 0: .* a polygon has 3 numbers, which are no pairs"):
        open_dataset(f"coco:{tmp_path}")
    value["annotations"][0] |= {"segmentation": [flat(TRIANGLE)], "category_id": 9}
    save(path, value)
    with pytest.raises(DataError, match="annotation 0: category 9 is not among the file's 2 categories"):
        open_dataset(f"coco:{tmp_path}")
    value["annotations"][0] |= {"category_id": 1, "image_id": 4}
    save(path, value)
    with pytest.raises(DataError, match="has annotations of image 4, which is not among its images"):
        open_dataset(f"coco:{tmp_path}")


@pytest.mark.parametrize("content", [b"0 nan nan nan nan nan nan", b"\xff\xfe", b"0 " + b"1 " * 999_999, b"0\0 1 1"])
def test_damaged_text_files(tmp_path: Path, content: bytes) -> None:
    save_image(tmp_path / "images/a.png")
    save(tmp_path / "classes.txt", "road")
    save(tmp_path / "labels/a.txt", "")
    (tmp_path / "labels/a.txt").write_bytes(content)
    try_to_read(f"yolo:{tmp_path}")

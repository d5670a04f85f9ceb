"""Label files as label programs write them, for tests: an image of 12 x 16 pixels and values to put into JSON."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from image_files import write_image

HEIGHT, WIDTH = 12, 16
TRIANGLE = [(1.2, 0.7), (9.6, 1.1), (4.3, 10.2)]
SQUARE = [(5.0, 3.0), (12.5, 3.0), (12.5, 9.5), (5.0, 9.5)]
BEYOND = [(11.0, 7.0), (30.0, 8.0), (14.0, 40.0)]  # of the right and the lower border


def image(number: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)


def save_image(path: Path, number: int = 0, **size: int) -> Path:
    return write_image(path, image(number, **size))


def save(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def flat(points: list[tuple[float, float]]) -> list[float]:
    return [value for point in points for value in point]


def png(mask: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", mask.astype(np.uint8))[1].tobytes())


def base64_png(mask: np.ndarray) -> str:
    return base64.b64encode(png(mask)).decode()


# COCO, as its own `instances_val2017.json`


def coco(annotations: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    return {
        "info": {"description": "COCO 2017 Dataset", "version": "1.0", "year": 2017},
        "licenses": [{"id": 1, "name": "CC BY", "url": "http://x"}],
        "images": [
            {"license": 1, "file_name": "a.png", "coco_url": "http://x/a.png", "height": HEIGHT, "width": WIDTH,
             "date_captured": "2013-11-14 17:02:52", "flickr_url": "http://y", "id": 397133}
        ],
        "annotations": [{"id": 100 + number, "area": 1.0, "iscrowd": 0, "bbox": [0, 0, 1, 1], "image_id": 397133} | item
                        for number, item in enumerate(annotations)],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"},
                       {"supercategory": "vehicle", "id": 3, "name": "car"}],
    } | other  # fmt: skip


# labelme 5 and 6


def labelme(shapes: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    plain = {"group_id": None, "description": "", "shape_type": "polygon", "flags": {}, "mask": None}
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": [plain | shape for shape in shapes],
        "imagePath": "a.png",
        "imageData": base64_png(image()),
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
    } | other


# CVAT for images 1.1, as the export of a task


def cvat(shapes: str, *, name: str = "a.png", subset: str = "", size: tuple[int, int] = (HEIGHT, WIDTH)) -> str:
    where = f' subset="{subset}"' if subset else ""
    return f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>3</id><name>streets</name><size>1</size><mode>annotation</mode><overlap>0</overlap>
      <labels>
        <label><name>road</name><color>#ff8000</color><type>any</type><attributes></attributes></label>
        <label><name>car</name><color>#0000ff</color><type>any</type><attributes></attributes></label>
      </labels>
      <original_size><width>{size[1]}</width><height>{size[0]}</height></original_size>
    </task>
    <dumped>2026-11-01 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="{name}"{where} width="{size[1]}" height="{size[0]}">
{shapes}
  </image>
</annotations>
"""


def cvat_points(points: list[tuple[float, float]]) -> str:
    return ";".join(f"{x:.2f},{y:.2f}" for x, y in points)


# Label Studio, JSON (not JSON-MIN)


def labelstudio(results: list[dict[str, Any]], **other: Any) -> list[dict[str, Any]]:
    common = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "from_name": "label",
              "to_name": "image", "origin": "manual"}  # fmt: skip
    return [
        {
            "id": 7,
            "annotations": [
                {"id": 4, "completed_by": 1, "was_cancelled": False, "ground_truth": False, "lead_time": 12.3,
                 "result": [common | {"id": f"r{number}"} | result for number, result in enumerate(results)]}
            ],
            "file_upload": "1a2b3c4d-a.png",
            "drafts": [],
            "predictions": [],
            "data": {"image": "/data/upload/1/1a2b3c4d-a.png"},
            "meta": {},
            "project": 1,
        }
        | other
    ]  # fmt: skip


def percent(points: list[tuple[float, float]]) -> list[list[float]]:
    return [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in points]


# Supervisely


def supervisely(objects: list[dict[str, Any]], **other: Any) -> dict[str, Any]:
    common = {"id": 1, "classId": 1, "description": "", "labelerLogin": "me", "tags": []}
    size = {"height": HEIGHT, "width": WIDTH}
    return {"description": "", "tags": [], "size": size, "objects": [common | item for item in objects]} | other


def supervisely_bitmap(mask: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(png(mask * 255))).decode()


SUPERVISELY_META = {
    "classes": [
        {"title": "road", "shape": "any", "color": "#FF8000", "geometry_config": {}, "id": 1, "hotkey": ""},
        {"title": "car", "shape": "any", "color": "#0000FF", "geometry_config": {}, "id": 2, "hotkey": ""},
    ],
    "tags": [],
    "projectType": "images",
}

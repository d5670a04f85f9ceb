"""Figures of shapes as label maps, for docs/results: beside pycocotools, after `--tolerance`, and of a large file.

    python tools/label_figures.py FOLDER

The folder is made; generated scenes and a COCO file of 20,000 images are written into it.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as coco

from lpsnet.data.dataset import open_dataset
from lpsnet.data.shapes import Polygon

SCENES = "scenes:size=360x480,num_train=1,num_val=20"
TOLERANCES = (0.0, 0.5, 1.0)


def beside_pycocotools() -> None:
    """Random polygons of twelve corners: pixels that differ as a share of the shape's, and the areas."""
    rng = np.random.default_rng(0)
    for size in (20, 40, 80, 160):
        differ = ours_all = theirs_all = 0
        for _ in range(1000):
            angles = np.sort(rng.uniform(0, 2 * np.pi, 12))
            radius = rng.uniform(0.25, 0.5, 12) * size
            centre = size / 2 + 4 + rng.uniform(0, 1, 2)
            ring = np.stack([centre[0] + radius * np.cos(angles), centre[1] + radius * np.sin(angles)], axis=1)
            side = size + 10
            ours = np.zeros((side, side), np.uint8)
            Polygon((ring,)).paint(ours, 1)
            theirs = coco.decode(coco.merge(coco.frPyObjects([ring.ravel().tolist()], side, side)))
            differ += int((ours != theirs).sum())
            ours_all, theirs_all = ours_all + int(ours.sum()), theirs_all + int(theirs.sum())
        share, areas = 100 * differ / ours_all, 100 * (theirs_all / ours_all - 1)
        print(f"{size} pixels across: {share:.2f} % of a shape's pixels differ; areas by {areas:+.3f} %")


def after_tolerance(folder: Path) -> None:
    """Smallest IoU of a class of the scenes against their own label maps, and the points that are left."""
    truth, points = open_dataset(SCENES), []
    for tolerance in TOLERANCES:
        out = folder / f"tolerance_{tolerance:g}"
        words = ["data", "convert", SCENES, "--to", "coco", "--out", str(out), "--overwrite"]
        command = [sys.executable, "-m", "lpsnet", *words, "--tolerance", str(tolerance)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shapes = [it for file in out.rglob("*.json") for it in json.loads(file.read_text()).get("annotations", [])]
        rings = [ring for it in shapes if isinstance(it["segmentation"], list) for ring in it["segmentation"]]
        points.append(sum(len(ring) // 2 for ring in rings))
        first, second = truth.split("val"), open_dataset(f"coco:{out}").split("val")
        names = {name: second.label_space.names.index(name) for name in truth.label_space.names}
        both, either = np.zeros(len(names)), np.zeros(len(names))
        for index in range(len(first)):
            labels, drawn = first.labels(index), second.labels(index)
            for place, (_, other) in enumerate(names.items()):
                a, b = labels == place, drawn == other
                both[place] += (a & b).sum()
                either[place] += (a | b).sum()
        ious = 100 * both / np.maximum(either, 1)
        worst = sorted(zip(ious, names, strict=True))[:2]
        said = ", ".join(f"{name} {iou:.2f}" for iou, name in worst)
        print(f"tolerance {tolerance:g}: {100 * points[-1] / points[0]:.0f} % of the points; lowest IoUs {said} %")


def large_file(folder: Path) -> None:
    """A COCO file of 20,000 images and 140,000 polygons: how long it takes to open, and to draw an image."""
    rng, images, shapes = np.random.default_rng(0), [], []
    place = folder / "many"
    (place / "images").mkdir(parents=True, exist_ok=True)
    for number in range(20_000):
        images.append({"id": number, "file_name": f"{number:05}.png", "height": 360, "width": 480})
        for _ in range(7):
            x, y, across = rng.uniform(0, 400), rng.uniform(0, 280), rng.uniform(20, 80)
            angles = np.sort(rng.uniform(0, 2 * np.pi, 24))
            ring = np.stack([x + across * np.cos(angles), y + across * np.sin(angles)], axis=1)
            ring = np.clip(ring, 0, (480, 360)).round(2)
            line = {"id": len(shapes), "image_id": number, "category_id": 1, "iscrowd": 0, "area": 1.0}
            shapes.append({**line, "bbox": [0, 0, 1, 1], "segmentation": [ring.ravel().tolist()]})
    whole = {"images": images, "annotations": shapes, "categories": [{"id": 1, "name": "thing"}]}
    file = place / "instances_train.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    cv2.imwrite(str(place / "images" / "00000.png"), np.zeros((360, 480, 3), np.uint8))
    for number in range(1, 20_000):
        link = place / "images" / f"{number:05}.png"
        if not link.exists():
            link.hardlink_to(place / "images" / "00000.png")
    began = time.process_time()
    split = open_dataset(f"coco:{place},val_fraction=0.1").split("train")
    opened = time.process_time() - began
    began = time.process_time()
    for index in range(500):
        split.labels(index)
    drawn = (time.process_time() - began) / 500
    size = file.stat().st_size / 1e6
    figures = f"opened in {opened:.1f} s of processor time, {1000 * drawn:.2f} ms to draw an image"
    print(f"{size:.0f} MB, {len(shapes):,} polygons: {figures}")


def main() -> None:
    """Print all."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    beside_pycocotools()
    after_tolerance(folder)
    large_file(folder)


if __name__ == "__main__":
    main()

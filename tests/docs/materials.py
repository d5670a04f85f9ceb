"""The files that pages speak of: small images and a small network under the names that README and docs use."""

import contextlib
import sys
from pathlib import Path
from unittest import mock

import av
import cv2
import numpy as np
import pytest
import tifffile

from lpsnet.cli import main
from lpsnet.data.formats.masks import OFFICIAL_IDS
from lpsnet.data.labels import CAMVID
from lpsnet.data.synthetic import SCENES, SceneSplit

SIZE = (48, 64)
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
_SETTINGS = ("epochs=1", "batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32", "ema_decay=0")
_CAMVID_IDS = [CAMVID.names.index({"vegetation": "tree", "person": "pedestrian"}.get(n, n)) for n in SCENES.names]
_CITY_IDS = [OFFICIAL_IDS[{"pavement": "sidewalk"}.get(name, name)][0] for name in SCENES.names]


def make_materials(folder: Path) -> None:
    """Fill an empty folder."""
    _own_images(folder / "photos")
    _camvid(folder / "CamVid")
    _cityscapes(folder / "Cityscapes")
    _bdd100k(folder / "BDD100K")
    _channels(folder / "field")
    _film(folder / "drive.mp4")
    _write(folder / "street.jpg", _scenes("street", 1)[0].image)
    lpsnet(folder, "data", "check", "photos", "--out", "photos.yaml")
    lpsnet(folder, "data", "convert", "photos.yaml", "--to", "labelme", "--out", "labelled")
    for number, scene in enumerate(SceneSplit(size=SIZE, count=5, seed=9, name="unlabelled")):
        _write(folder / f"unlabelled/DSC_{number}.jpg", scene.image)
    settings = [word for setting in _SETTINGS for word in ("--set", setting)]
    lpsnet(
        folder, "train", "--data", "photos.yaml", "--arch", ARCH, "--recipe", "demo", "--out", "runs/first", *settings
    )
    lpsnet(folder, "export", "--model", "runs/first/model.safetensors", "--out", "first.onnx")


def lpsnet(folder: Path, *words: str) -> None:
    """Run a command there, in this process; it must succeed."""
    program = ["lpsnet", *words]
    with contextlib.chdir(folder), mock.patch.object(sys, "argv", program), pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, program


def _scenes(name: str, count: int) -> SceneSplit:
    return SceneSplit(size=SIZE, count=count, seed=3, name=name)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def _translated(labels: np.ndarray, ids: list[int], void: int) -> np.ndarray:
    table = np.full(256, void, np.uint8)
    table[: len(ids)] = ids
    return table[labels]


def _own_images(root: Path) -> None:
    for number, scene in enumerate(_scenes("photos", 8)):
        _write(root / "images" / f"IMG_{number:03d}{'.png' if number % 3 else '.jpg'}", scene.image)
        _write(root / "labels" / f"IMG_{number:03d}_label.png", scene.labels)


def _camvid(root: Path) -> None:
    for split in ("train", "val", "test"):
        rows = []
        for number, scene in enumerate(_scenes(split, 3)):
            paths = f"{split}/{split}_{number}.png", f"{split}annot/{split}_{number}.png"
            _write(root / paths[0], scene.image)
            _write(root / paths[1], _translated(scene.labels, _CAMVID_IDS, 11))
            rows.append(" ".join(paths))
        (root / f"{split}.txt").write_text("\n".join(rows) + "\n")


def _cityscapes(root: Path) -> None:
    for split, city in (("train", "aachen"), ("val", "ulm")):
        for number, scene in enumerate(_scenes(city, 2)):
            stem = f"{city}_000000_{number:06d}"
            _write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", scene.image)
            ids = _translated(scene.labels, _CITY_IDS, 3)
            _write(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids)


def _bdd100k(root: Path) -> None:
    train_ids = [OFFICIAL_IDS[{"pavement": "sidewalk"}.get(name, name)][1] for name in SCENES.names]
    for split in ("train", "val"):
        for number, scene in enumerate(_scenes(split, 2)):
            _write(root / "images/10k" / split / f"{split}{number}.jpg", scene.image)
            ids = _translated(scene.labels, train_ids, 255)
            _write(root / "labels/sem_seg/masks" / split / f"{split}{number}.png", ids)


def _channels(root: Path) -> None:
    """Six bands of 12 bits; the first three as RGB of 8 bits, the fifth as depth and thermal image."""
    for split, count in (("train", 4), ("val", 2)):
        for number in range(count):
            rng = np.random.default_rng((number, count))
            labels = (rng.random((6, 8)) > 0.5).astype(np.uint8).repeat(8, 0).repeat(8, 1)
            bands = rng.normal(1000, 200, (*SIZE, 6)).clip(0, 4095) + 1000.0 * labels[..., None]
            bands = bands.clip(0, 4095).astype(np.uint16)
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            path = root / f"images/{split}/{number}.tif"
            tifffile.imwrite(path, bands, photometric="minisblack", planarconfig="contig")
            _write(root / f"masks/{split}/{number}.png", labels)
            _write(root / f"thermal/{split}/{number}.png", bands[..., 4])
            _write(root / f"depth/{split}/{number}.png", bands[..., 4])
            _write(root / f"rgb/{split}/{number}.png", (bands[..., 2::-1] // 16).astype(np.uint8))


def _film(path: Path) -> None:
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for scene in _scenes("drive", 5):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(scene.image), format="rgb24")))
        film.mux(stream.encode(None))

"""Commands on images of other channels than RGB: what they say, and what they refuse."""

import json
from pathlib import Path

import command_line
import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch

from lpsnet.data.labels import LabelSpace
from lpsnet.export.onnx import export_onnx
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import create_model
from lpsnet.record import Normalisation

NAMES = ("red", "green", "blue", "depth")
NORMALISATION = Normalisation(mean=(0.002, 0.002, 0.002, 0.5), std=(0.001, 0.001, 0.001, 0.3), max_value=65535)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`m.onnx` for RGB and depth, a data set of two images, and the same images alone."""
    root = tmp_path_factory.mktemp("rgbd")
    torch.manual_seed(0)
    net = create_model("B=1,1,1,1,1;C=4,4,8,8,8;R=1", num_classes=2, in_channels=4).eval()
    record = default_record(net, label_space=LabelSpace.from_names("two", ("near", "far")))
    record = record.model_copy(update={"channels": NAMES, "normalisation": NORMALISATION})
    export_onnx(net, root / "m.onnx", record=record)
    rng = np.random.default_rng(0)
    for split in ("train", "val", "pool"):
        for kind, array in (("rgb", (40, 48, 3)), ("depth", (40, 48)), ("masks", (40, 48))):
            for number in range(2):
                values = rng.integers(0, {"rgb": 256, "depth": 65536, "masks": 2}[kind], array)
                (root / kind / split).mkdir(parents=True, exist_ok=True)
                stored = values.astype(np.uint16 if kind == "depth" else np.uint8)
                cv2.imwrite(str(root / kind / split / f"{number}.png"), stored)
    text = "names: [near, far]\nimages: {train: rgb/train, val: rgb/val}\nmasks: {train: masks/train, val: masks/val}\n"
    (root / "data.yaml").write_text(f"{text}channels: [{', '.join(NAMES)}]\nextra_images: depth/{{split}}\n")
    return root


def test_segment_takes_a_second_file(folder: Path, tmp_path: Path) -> None:
    words = ["segment", folder / "rgb/val", "--model", folder / "m.onnx", "--out", tmp_path]
    done = command_line.run(*words, "--extra-images", folder / "depth/val")
    assert done.code == 0, done
    assert "drawn by red, green, blue, stretched" in done.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{number}.{what}.png" for number in (0, 1) for what in ("labels", "overlay")
    ]
    cut = command_line.run(*words, "--extra-images", folder / "depth/val/{name}.png", "--window", "32x32")
    assert cut.code == 0, cut
    assert "decoded whole" in cut.out
    alone = command_line.run(*words)
    assert alone.code == 2
    assert "H x W x 4 uint16 is expected: 4 channels of 16 bits (red, green, blue, depth)" in alone.err


def test_evaluate_next_and_info(folder: Path, tmp_path: Path) -> None:
    scored = command_line.run("evaluate", "--model", folder / "m.onnx", "--data", folder / "data.yaml")
    assert scored.code == 0, scored
    words = ["--model", folder / "m.onnx", "--pool", folder / "rgb/pool", "--data", folder / "data.yaml"]
    chosen = command_line.run("next", *words, "--count", 1, "--extra-images", folder / "depth/pool", "--out", tmp_path)
    assert chosen.code == 0, chosen
    assert len((tmp_path / "next.txt").read_text().splitlines()) == 1
    described = command_line.run("info", folder / "m.onnx", "--json", tmp_path / "info.json")
    assert "4 channels of 16 bits" in described.out
    record = json.loads((tmp_path / "info.json").read_text())["record"]
    assert record["channels"] == list(NAMES)
    assert record["normalisation"]["max_value"] == 65535


def test_what_fits_rgb_alone_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    data, model = folder / "data.yaml", folder / "m.onnx"
    (tmp_path / "a.mp4").write_bytes(b"no video is looked at")
    other = tmp_path / "other.yaml"
    other.write_text(data.read_text().replace("[red, green, blue, depth]", "[blue, green, red, depth]"))
    other.write_text(f"path: {folder}\n{other.read_text()}")
    for words, message in (
        (["segment", tmp_path / "a.mp4", "--model", model], "videos and cameras have frames of RGB"),
        (["segment", "0", "--model", model], "videos and cameras have frames of RGB"),
        (["web", "--model", model, "--out", tmp_path / "page"], "RGB images of 8 bits"),
        (["expand", "--data", data, "--out", tmp_path / "grown"], "RGB images of 8 bits"),
        (["evaluate", "--model", model, "--data", other], "in the same order"),
        (["evaluate", "--model", "camvid_s", "--data", data], "the model takes 3 channels of 8 bits"),
        (["segment", folder / "rgb/val", "--extra-images", folder / "depth/val"], "leave out --extra-images"),
    ):
        assert message in command_line.run(*words).line
    assert not (tmp_path / "page").exists()

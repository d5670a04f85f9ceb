"""The programs that are killed: every command that leaves files, on tiny networks and generated scenes."""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import torch
from crashing import Program
from safetensors.numpy import load

from lpsnet.architecture import Architecture
from lpsnet.cli import main
from lpsnet.data.images import read_image, read_mask
from lpsnet.export.export import export
from lpsnet.inference.outputs import DEFAULT_OUTPUTS, Style
from lpsnet.inference.pipeline import find_sources, segment_images
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.search.journal import read_journal
from lpsnet.studies.running import run_study
from lpsnet.studies.study import Known, Place, Report, Run, Settings, Study
from lpsnet.training import loop
from lpsnet.training.classification import PretrainingRun, get_pretraining_recipe, pretrain
from lpsnet.training.config import get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.segmentation import train

NUM_FRAMES = 40
ARCHITECTURE = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
_SHORT = {"batch_size": 2, "precision": "f32", "num_workers": 1}


def _train(out: Path) -> None:
    _alone()
    recipe = get_recipe("demo").with_overrides({**_SHORT, "iterations": 60, "crop_size": (48, 64)})
    run = TrainingRun(data="scenes:size=48x64,num_train=6,num_val=2", architecture=ARCHITECTURE, recipe=recipe)
    train(run, out, resume=True, tensorboard=False)


def _pretrain(out: Path) -> None:
    _alone()
    images = out.parent / f"{out.name}-images"
    for number in range(12):
        path = images / "ab"[number % 2] / f"{number}.png"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            _write_whole(path, noise)
    recipe = get_pretraining_recipe("pictures_small").with_overrides({**_SHORT, "epochs": 8, "crop_size": (32, 48)})
    pretrain(PretrainingRun(data=os.path.relpath(images), architecture=ARCHITECTURE, recipe=recipe), out, resume=True)


def _write_whole(path: Path, array: np.ndarray) -> None:
    """Written by the test, not by lpsnet: killed here, it would be the test's own half file."""
    partial = path.with_suffix(".part.png")
    cv2.imwrite(str(partial), array)
    partial.replace(path)


def _expand(out: Path) -> None:
    _alone()
    from expansion_tiny import run_with_real_trainings

    run_with_real_trainings(out, num_steps=1)


def _study(out: Path) -> None:
    """A study of the same frame as all, whose runs take some time and whose results are from a table."""

    def work(number: int) -> Any:
        def do(place: Place) -> dict[str, Any]:
            values = sum(np.linalg.svd(np.random.default_rng(number).random((60, 60)))[1])
            return {"median_ms": round(float(values), 6)}

        return do

    def plan(settings: Settings, known: Known) -> Sequence[Run]:
        return [Run({"width": number}, work(number)) for number in range(20)]

    def report(outcomes: Sequence[Any]) -> Report:
        rows = tuple({"width": it.key["width"], "median_ms": it.result["median_ms"]} for it in outcomes)
        return Report(rows, ("found",), lambda figure: figure.add_subplot().plot([row["median_ms"] for row in rows]))

    run_study(Study("table", "A table", "Figure 0.", ("all",), plan, report), Settings(), out)


def _export(out: Path) -> None:
    _alone()
    net = network()
    for suffix, kind in ((".onnx", "onnx"), (".openvino", "openvino")):
        export(net, out / f"model{suffix}", to=kind, record=default_record(fuse(net)), size=(64, 96))


def network() -> Network:
    """Seeded."""
    torch.manual_seed(0)
    return create_model(ARCHITECTURE, num_classes=5).eval()


def _segment(out: Path) -> None:
    _alone()
    photos, model = out.parent / f"{out.name}-photos", out.parent / f"{out.name}.onnx"
    for number in range(12):
        if not (path := photos / f"{number:02}.png").exists():
            photos.mkdir(exist_ok=True)
            _write_whole(path, np.random.default_rng(number).integers(0, 256, (240, 320, 3), dtype=np.uint8))
    export(network(), model, to="onnx", record=default_record(fuse(network())), size=(64, 96))
    segmenter = Segmenter(model, num_threads=1)
    style = Style(segmenter.label_space)
    list(segment_images(segmenter, find_sources([str(photos)]), out, outputs=DEFAULT_OUTPUTS, style=style))


def _segment_video(out: Path) -> None:
    """The command itself: a video in, an overlay and label maps out."""
    _alone()
    video, model = out.parent / f"{out.name}-video" / "drive.avi", out.parent / f"{out.name}.onnx"
    if not video.exists():
        video.parent.mkdir(exist_ok=True)
        _write_video(video)
    export(network(), model, to="onnx", record=default_record(fuse(network())), size=(64, 96))
    sys.argv = ["lpsnet", "segment", str(video), "--model", str(model), "--out", str(out), "--threads", "1"]
    main()


def _write_video(path: Path) -> None:
    partial = path.with_name(f"{path.stem}.unfinished.avi")
    writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*"MJPG"), 25, (160, 120))
    for number in range(NUM_FRAMES):
        writer.write(np.random.default_rng(number).integers(0, 256, (120, 160, 3), dtype=np.uint8))
    writer.release()
    partial.replace(path)


def _frames(path: Path) -> list[bytes]:
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        frames.append(read[1].tobytes())
    return frames


def _check_video(path: Path) -> None:
    """What is not called a part has all frames."""
    if ".part." not in path.name:
        assert len(_frames(path)) == NUM_FRAMES, f"{path} counts as whole"


def _alone() -> None:
    torch.set_num_threads(1)
    loop.EPOCH_CHECKPOINT_SECONDS = 0  # a checkpoint after every epoch, however short


def _weights(path: Path) -> dict[str, bytes]:
    return {name: value.tobytes() for name, value in load(path.read_bytes()).items()}


def _of_training(out: Path) -> object:
    """Weights, and the log without its rates."""
    log = [line.split(",")[:3] for line in (out / "log.csv").read_text().splitlines()]
    return _weights(out / "model.safetensors"), log


def _of_search(out: Path) -> object:
    """The decisions, without times of day, and the weights of the family."""
    steps = [line for line in (out / "journal.jsonl").read_text().splitlines() if '"kind":"step"' in line]
    family = sorted((out / "family").glob("*.safetensors"))
    return [re.sub(r'"at":"[^"]*"', "", line) for line in steps], {path.name: _weights(path) for path in family}


def _of_study(out: Path) -> object:
    return (out / "table.csv").read_text()


def _of_files(out: Path) -> object:
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in files}


def _of_videos(out: Path) -> object:
    """All frames of the label maps; of the overlay their number: H.264 loses a little, and not always the same."""
    files = (path for path in sorted(out.glob("drive.*")) if ".part." not in path.name)
    return {path.name: _frames(path) if path.suffix == ".mkv" else len(_frames(path)) for path in files}


_READERS: dict[str, Any] = {
    ".mp4": _check_video,
    ".mkv": _check_video,
    ".safetensors": lambda path: load(path.read_bytes()),
    ".json": lambda path: json.loads(path.read_text()),
    ".onnx": lambda path: Segmenter(path)(np.zeros((32, 32, 3), np.uint8)),
    ".openvino": lambda path: Segmenter(path)(np.zeros((32, 32, 3), np.uint8)),
    ".png": lambda path: read_mask(path) if ".labels" in path.name else read_image(path),
    ".jsonl": lambda path: read_journal(path) if path.name == "journal.jsonl" and path.stat().st_size else None,
}


def check_whole(out: Path) -> None:
    """Every file that has its final name is whole; what is begun is hidden, under a name with a dot."""
    for path in out.rglob("*"):
        if path.is_file() and not path.name.startswith(".") and path.suffix in _READERS:
            _READERS[path.suffix](path)


PROGRAMS = (
    Program("study", _study, _of_study, check_whole),
    Program("segment", _segment, _of_files, check_whole),
    Program("segment video", _segment_video, _of_videos, check_whole),
    Program("export", _export, _of_files, check_whole),
    Program("train", _train, _of_training, check_whole),
    Program("pretrain", _pretrain, _of_training, check_whole),
    Program("expand", _expand, _of_search, check_whole),
)

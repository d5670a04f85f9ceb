"""Valid model files of every kind, as bytes, all of one small network: where the fuzzing of model files starts."""

import functools
import importlib.util
import tempfile
import zipfile
from pathlib import Path

import torch

from lpsnet.data.labels import LabelSpace
from lpsnet.export.export import export
from lpsnet.inference.model_file import RECORD_NAME
from lpsnet.models.checkpoint import default_record, official_state_dict, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord

ARCHITECTURE = "B=1,1,1,1,1;C=4,4,8,8,8;R=1/2,1/4"
RATIOS = ("1/2", "1/4")
NUM_CLASSES = 5
SIZE = (64, 96)


@functools.cache
def network() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return create_model(ARCHITECTURE, num_classes=NUM_CLASSES).eval()


@functools.cache
def record() -> ModelRecord:
    return default_record(fuse(network()), label_space=LabelSpace.numbered(NUM_CLASSES)).model_copy(
        update={
            "input_size": SIZE,
            "training": {"data": "scenes", "split": "train", "recipe": {"name": "demo", "seed": 0}},
            "scores": {"val": {"miou": 12.5}},
            "licence": "none",
        }
    )


@functools.cache
def models() -> dict[str, bytes]:
    """Name -> file; the suffix names the format."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(network(), folder / "model.safetensors")
        save_checkpoint(fuse(network()), folder / "deployed.safetensors", record=record())
        kinds = [(".onnx", "onnx"), (".openvino", "openvino"), (".ncnn", "ncnn")]
        kinds += [(".tflite", "litert")] if importlib.util.find_spec("ai_edge_litert") else []
        for suffix, kind in kinds:
            export(network(), folder / f"model{suffix}", to=kind, record=record(), size=SIZE)
        torch.save(official_state_dict(fuse(network())), folder / "official.pth")
        legacy = folder / "legacy.pth"
        torch.save({"state_dict": official_state_dict(fuse(network()))}, legacy, _use_new_zipfile_serialization=False)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@functools.cache
def members(name: str) -> dict[str, bytes]:
    """What is in a container of `models()`, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(models()[name])
        with zipfile.ZipFile(path) as archive:
            assert RECORD_NAME in archive.namelist()
            return {member: archive.read(member) for member in archive.namelist()}

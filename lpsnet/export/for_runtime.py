"""A model in the format that an engine reads, made on the spot: to measure networks that nobody has exported yet.

How fast a network is does not depend on what its weights are. Nothing is proved here; what is handed over to others
goes through `export.export`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from lpsnet.architecture import Architecture
from lpsnet.errors import ModelFileError, unknown_name
from lpsnet.export.onnx import to_onnx, write_model
from lpsnet.export.proving import final_record
from lpsnet.export.quantisation import Size
from lpsnet.inference.engines import RUNTIMES
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord

_SEED = 0


def write_for_runtime(net: Network, folder: Path, name: str, *, runtime: str, record: ModelRecord, size: Size) -> Path:
    """Write a network as `folder`/`name` with the suffix of the engine's format, for pictures of `size`; the path.

    Raises:
        ModelFileError: there is no such engine, or it cannot express the network.
        MissingDependencyError: a package is not installed.
    """
    if runtime not in WRITERS:
        raise ModelFileError(unknown_name("runtime", runtime, WRITERS))
    writer = WRITERS[runtime]
    path = folder / f"{name}{writer.suffix}"
    deployed = fuse(net).to("cpu", torch.float32)
    writer.write(deployed, path, final_record(deployed, record, size), size)
    return path


def untrained_for_runtime(
    architecture: Architecture,
    folder: Path,
    name: str,
    *,
    runtime: str,
    size: Size,
    num_classes: int = 19,
    block: str = "conv3x3",
    interaction: str = "bilateral_b",
) -> Path:
    """`write_for_runtime` for an architecture with random weights, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = create_model(architecture, num_classes=num_classes, block=block, interaction=interaction)
    return write_for_runtime(net, folder, name, runtime=runtime, record=default_record(net), size=size)


def checkpoint_for_runtime(checkpoint: Path, folder: Path, name: str, *, runtime: str, size: Size) -> Path:
    """`write_for_runtime` for the network in a checkpoint; its errors too."""
    net, record = load_checkpoint(checkpoint), read_record(checkpoint)
    return write_for_runtime(net, folder, name, runtime=runtime, record=record, size=size)


def _write_onnx(deployed: Network, path: Path, record: ModelRecord, size: Size) -> None:
    with atomic_path(path) as temporary:
        write_model(to_onnx(deployed, size=size), temporary, record=record)


def _write_ncnn(deployed: Network, path: Path, record: ModelRecord, size: Size) -> None:
    from lpsnet.export.ncnn import export_ncnn

    export_ncnn(deployed, path, record=record, size=size)


def _write_checkpoint(deployed: Network, path: Path, record: ModelRecord, size: Size) -> None:
    save_checkpoint(deployed, path, record=record)


class Writer(NamedTuple):
    """How networks are written for an engine: the suffix of its files, and what writes one."""

    suffix: str
    write: Callable[[Network, Path, ModelRecord, Size], None]


_ONNX = Writer(".onnx", _write_onnx)
_CHECKPOINT = Writer(".safetensors", _write_checkpoint)
# engine -> how a network is written for it
WRITERS: dict[str, Writer] = {
    "onnxruntime": _ONNX,
    "onnxruntime_cuda": _ONNX,
    "openvino": _ONNX,
    "ncnn": Writer(".ncnn", _write_ncnn),
    "tensorrt": _ONNX,
    "pytorch": _CHECKPOINT,
    "pytorch_compiled": _CHECKPOINT,
    "pytorch_cuda": _CHECKPOINT,
}
assert WRITERS.keys() == RUNTIMES.keys()

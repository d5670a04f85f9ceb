"""Exporting to any format, and writing files for an engine only to measure them.

`export` goes through the table of exporters, each of which verifies its file against the network. `write_for_runtime`
and the int8 files made from f32 files serve measurements and are not verified.
"""

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch

from lpsnet.architecture import Architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, benchmark
from lpsnet.data.split import Split
from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.export.onnx import pack_openvino, to_onnx, write_model
from lpsnet.export.quantise import Quantisation, Size, quantise_for_openvino, quantise_onnx
from lpsnet.export.verify import ExportReport, Proof, check_sizes, final_record, one_line_errors
from lpsnet.inference.engines import PRECISIONS, RUNTIMES, Precision
from lpsnet.inference.model_file import read_record, write_container
from lpsnet.io import atomic_path
from lpsnet.models.any_network import Model, load_network
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.plugins import NetworkSource
from lpsnet.record import ModelRecord

_SEED = 0
NUM_CLASSES = 19  # of networks with random weights, as in Cityscapes


def write_for_runtime(net: Model, folder: Path, name: str, *, runtime: str, record: ModelRecord, size: Size) -> Path:
    """Write a network as `folder`/`name` with the suffix of the engine's format, for images of `size`; the path.

    Raises:
        ModelFileError: there is no such engine, it cannot express the network, or the network does not take that size.
        MissingDependencyError: a package is not installed.
    """
    if runtime not in WRITERS:
        raise ModelFileError(unknown_name("runtime", runtime, WRITERS))
    writer = WRITERS[runtime]
    path = folder / f"{name}{writer.suffix}"
    deployed = fuse(net).to("cpu", torch.float32)
    with one_line_errors(deployed, writer.suffix, size):
        check_sizes(deployed, [size], size)
        writer.write(deployed, path, final_record(deployed, record, size), size)
    return path


def untrained_for_runtime(
    architecture: str | Architecture,
    folder: Path,
    name: str,
    *,
    runtime: str,
    size: Size,
    num_classes: int = NUM_CLASSES,
    block: str | None = None,
    interaction: str = "bilateral_b",
) -> Path:
    """`write_for_runtime` for an architecture with random weights, always the same; `block` None for its usual one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = create_model(architecture, num_classes=num_classes, block=block, interaction=interaction)
    return write_for_runtime(net, folder, name, runtime=runtime, record=default_record(net), size=size)


def network_for_runtime(
    source: NetworkSource, folder: Path, name: str, *, runtime: str, size: Size, num_classes: int = NUM_CLASSES
) -> Path:
    """`write_for_runtime` for a network of other code with the weights its function gives it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        net = load_network(source, num_classes=num_classes)
    return write_for_runtime(net, folder, name, runtime=runtime, record=default_record(net), size=size)


def checkpoint_for_runtime(checkpoint: Path, folder: Path, name: str, *, runtime: str, size: Size) -> Path:
    """`write_for_runtime` for the network in a checkpoint; its errors too."""
    net, record = load_checkpoint(checkpoint), read_record(checkpoint)
    return write_for_runtime(net, folder, name, runtime=runtime, record=record, size=size)


def _write_onnx(deployed: Model, path: Path, record: ModelRecord, size: Size) -> None:
    with atomic_path(path) as temporary:
        write_model(to_onnx(deployed, size=size), temporary, record=record)


def _write_ncnn(deployed: Model, path: Path, record: ModelRecord, size: Size) -> None:
    from lpsnet.export.ncnn import export_ncnn

    export_ncnn(deployed, path, record=record, size=size)


def _write_litert(deployed: Model, path: Path, record: ModelRecord, size: Size) -> None:
    from lpsnet.export.litert import export_litert

    export_litert(deployed, path, record=record, size=size)


def _write_checkpoint(deployed: Model, path: Path, record: ModelRecord, size: Size) -> None:
    save_checkpoint(deployed, path, record=record)


class Writer(NamedTuple):
    """How networks are written for an engine: the suffix of its files, and what writes one."""

    suffix: str
    write: Callable[[Model, Path, ModelRecord, Size], None]


_ONNX = Writer(".onnx", _write_onnx)
_CHECKPOINT = Writer(".safetensors", _write_checkpoint)
# engine -> how a network is written for it
WRITERS: dict[str, Writer] = {
    **dict.fromkeys(("onnxruntime", "onnxruntime_cuda", "openvino"), _ONNX),
    "ncnn": Writer(".ncnn", _write_ncnn),
    "litert": Writer(".tflite", _write_litert),
    "tensorrt": _ONNX,
    **dict.fromkeys(("pytorch", "pytorch_compiled", "pytorch_cuda"), _CHECKPOINT),
}
assert WRITERS.keys() == RUNTIMES.keys()


# format -> "module:function", called like `export_onnx`; imported when asked for, with its optional packages
EXPORTERS: dict[str, str] = {
    "onnx": "lpsnet.export.onnx:export_onnx",
    "openvino": "lpsnet.export.onnx:export_openvino",
    "ncnn": "lpsnet.export.ncnn:export_ncnn",
    "litert": "lpsnet.export.litert:export_litert",
    "coreml": "lpsnet.export.coreml:export_coreml",
    "tensorrt": "lpsnet.export.onnx:export_tensorrt",
}


def export(
    net: Model,
    path: str | Path,
    *,
    to: str,
    record: ModelRecord,
    size: tuple[int, int] | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network for an engine; see the exporter of the format `to` for arguments and errors.

    Raises:
        ModelFileError: there is no such format, or the written file is not the network; then nothing is left behind.
        MissingDependencyError: the format needs a package that is not installed.
    """
    if to not in EXPORTERS:
        raise ModelFileError(unknown_name("export format", to, EXPORTERS))
    module, _, function = EXPORTERS[to].partition(":")
    exporter = getattr(importlib.import_module(module), function)
    report: ExportReport = exporter(
        net, path, record=record, size=size, precision=precision, quantisation=quantisation, **proof
    )
    return report


def quantise_file(
    whole: Path, *, runtime: str, quantisation: Quantisation, record: ModelRecord, size: Size, folder: Path
) -> Path:
    """Write a file of ours in int8 for an engine; the path of the file in `folder`.

    Args:
        whole: in f32, as `WRITERS` has it for that engine.
        runtime: a name in `QUANTISERS`.
        quantisation: images to calibrate on, and what stays in floating point.
        record: of the file.
        size: (height, width) in pixels that images are prepared at.
        folder: for the file.

    Raises:
        ModelFileError: no engine of that name runs quantised files here, or the file is none of ours.
        MissingDependencyError: a package is not installed.
    """
    if runtime not in QUANTISERS:
        raise ModelFileError(unknown_name("runtime for int8", runtime, QUANTISERS))
    if record.architecture is None and not record.network:
        raise ModelFileError(f"{whole} is not a network of this package, so its layers are unknown")
    suffix, write = QUANTISERS[runtime]
    target = folder / f"{whole.stem}-{runtime}-int8{suffix}"
    with atomic_path(target) as temporary:
        write(whole, temporary, quantisation, record.model_copy(update={"input_size": size}), size)
    return target


def _write_int8_onnx(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    model = _import("onnx").load(whole)
    write_model(quantise_onnx(model, quantisation, record=record, size=size), target, record=record)


def _write_openvino(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    model = _import("openvino").Core().read_model(whole)
    quantised = quantise_for_openvino(model, quantisation, record=record, size=size)
    description, weights = pack_openvino(quantised, half=False)
    write_container(target, description=description, weights=weights, record=record)


def _write_int8_litert(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    from lpsnet.export.litert import quantise_litert

    quantise_litert(whole, target, quantisation, record, size)


def _import(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise (MissingDependencyError.from_import(error) or error) from None


# engine -> suffix of its quantised files, and what writes them
QUANTISERS: dict[str, tuple[str, Callable[[Path, Path, Quantisation, ModelRecord, Size], None]]] = {
    "onnxruntime": (".onnx", _write_int8_onnx),
    "openvino": (".openvino", _write_openvino),
    "litert": (".tflite", _write_int8_litert),
}


# format -> the engine that runs its files here. TensorRT runs its own elsewhere; ncnn's are not quantised.
_ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "litert": "litert"}


def beside_other_precisions(
    net: Model,
    quantised: ExportReport,
    *,
    record: ModelRecord,
    labelled: Split | None = None,
    num_threads: int | None = None,
    protocol: str = "quick",
    on_progress: Callable[[str, float], None] | None = None,
) -> Benchmark:
    """A quantised file beside the same network in f32, and in the half precisions that engine and machine have.

    Args:
        net, record: what was exported.
        quantised: the report of its export in int8.
        labelled: images to compare mIoU on; None for none.
        num_threads, protocol, on_progress: as in `benchmark`.

    Raises:
        ModelFileError: no engine here runs files of that format.
    """
    if quantised.format not in _ENGINES:
        raise ModelFileError(f"no engine here runs quantised files for {quantised.format}, so they cannot be timed")
    runtime, name = _ENGINES[quantised.format], quantised.path.name
    size = quantised.size or record.input_size or quantised.checks[0].size
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        whole = Path(folder) / f"f32{quantised.path.suffix}"
        export(net, whole, to=quantised.format, record=record, size=quantised.size)
        cells = [Candidate(name, whole, runtime, precision) for precision in PRECISIONS if precision != "int8"]
        found = benchmark(
            [*cells, Candidate(name, quantised.path, runtime, "int8")],
            size=size,
            num_threads=num_threads,
            protocol=protocol,
            memory=False,
            labelled=labelled,
            on_progress=on_progress,
        )
    return found.model_copy(update={"problems": ()})  # that this machine lacks a precision is no problem here

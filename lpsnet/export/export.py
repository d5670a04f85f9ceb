"""Exporting to any format, model repositories for servers, and writing files for an engine only to measure them.

`export` goes through the table of exporters, each of which verifies its file against the network. `write_for_runtime`
and the int8 files made from f32 files serve measurements and are not verified.

`export_for_server` writes the folder that a model server of others loads (`SERVERS`). The file in it takes images and
gives label maps, so that clients need nothing of this package; names, types and sizes in the server's configuration
are read from the file.
"""

import importlib
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch

from lpsnet import __version__
from lpsnet.architecture import Architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, benchmark
from lpsnet.data.split import Split
from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.export.onnx import pack_openvino, to_onnx, with_labels, write_model
from lpsnet.export.quantise import Quantisation, Size, quantise_for_openvino, quantise_onnx
from lpsnet.export.verify import BOUNDS, ExportReport, Proof, check_sizes, final_record, one_line_errors
from lpsnet.inference.engines import PRECISIONS, RUNTIMES, Precision
from lpsnet.inference.model_file import read_record, write_container
from lpsnet.inference.preprocess import sample_image
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import atomic_path, write_text
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
    from lpsnet.export.phones import export_ncnn

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
    "ncnn": "lpsnet.export.phones:export_ncnn",
    "litert": "lpsnet.export.litert:export_litert",
    "coreml": "lpsnet.export.phones:export_coreml",
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


MAX_BATCH, MAX_WAITING = 8, 64  # images that a server runs at once; requests that may wait before others are refused
SERVED_FILE, CLASS_FILE = "model.onnx", "labels.txt"
_SERVED_VERSION = "1"  # the folder of the model's version
_SERVED_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_TYPES = {2: "UINT8", 4: "UINT16"}  # TensorProto.DataType -> its name in Triton


class Tensor(NamedTuple):
    """Input or output of a served file: name, Triton's name of its type, and lengths after the batch; None is free."""

    name: str
    type: str
    lengths: tuple[int | None, ...]


class Served(NamedTuple):
    """What a server's configuration is made from: the model's name, its record, and the tensors of the file."""

    name: str
    record: ModelRecord
    image: Tensor
    labels: Tensor


class Server(NamedTuple):
    """A model server of others: its title, what writes its configuration, and the command that starts it.

    Attributes:
        title: of the server.
        configure: writes the configuration for a model into its folder, or beside it.
        command: folder of all models -> command that serves them.
    """

    title: str
    configure: Callable[[Path, Served], None]
    command: Callable[[Path], tuple[str, ...]]


def export_for_server(
    net: Model,
    folder: str | Path,
    *,
    server: str,
    record: ModelRecord,
    size: Size | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a model as a model server of others loads it: `folder`/1/model.onnx, its classes, and a configuration.

    The file takes images as bytes and gives label maps (`with_labels`), in batches. It is verified as by `export_onnx`
    before images and labels become part of it, and after that its labels are compared with those of `Segmenter`.

    Args:
        net, record, precision, quantisation, proof: as for `export_onnx`.
        folder: of the model; its name is the model's name, and the folder around it is the server's model repository.
        server: a name in `SERVERS`.
        size: (height, width) in pixels of the images that clients send; None: that of the record, or any size if it
            has none.

    Raises:
        ModelFileError: as for `export_onnx`; there is no such server, or the folder's name cannot be a model's.
        RunError: a file cannot be written.
    """
    if server not in SERVERS:
        raise ModelFileError(unknown_name("model server", server, SERVERS))
    target, folder = SERVERS[server], Path(folder)
    name = folder.absolute().name
    if _SERVED_NAME.fullmatch(name) is None or folder.suffix.lower() == ".onnx":
        raise ModelFileError(
            f"--for {server} writes a folder, whose name is the model's: letters, digits, '_', '-' and '.', not "
            f"{name!r}; e.g. --out models/street"
        )
    size = size or record.input_size
    path = folder / _SERVED_VERSION / SERVED_FILE
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as temporary:
        network = Path(temporary) / SERVED_FILE
        report = export(
            net,
            network,
            to="onnx",
            record=record.model_copy(update={"input_size": size}),
            precision=precision,
            quantisation=quantisation,
            **proof,
        )
        own = read_record(network)
        model = with_labels(_import("onnx").load(network), own)
        with atomic_path(path) as written:
            written.write_bytes(model.SerializeToString())
            _check_labels(written, network, own, precision)
    served = _describe(model, name, own, size)
    write_text(folder / CLASS_FILE, "".join(f"{each}\n" for each in own.label_space.names))
    target.configure(folder, served)
    command = target.command(folder.parent)
    return replace(report, path=path, size=size, num_bytes=path.stat().st_size, engine_command=command)


def _check_labels(served: Path, network: Path, record: ModelRecord, precision: Precision) -> None:
    """Raise unless a served file gives the labels that the segmenter makes of the network's logits, in a batch too."""
    import onnxruntime

    size = record.input_size or (64, 96)
    images = [sample_image(record, size, seed=seed) for seed in (0, 1)]
    segment = Segmenter(network, num_threads=torch.get_num_threads())
    wanted = np.stack([segment(image).labels for image in images])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    settings.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(served, settings, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: np.stack(images)})
    agreement, least = 100 * float(np.mean(found == wanted)), BOUNDS[precision].label_agreement
    if found.shape != wanted.shape or agreement < least:
        raise ModelFileError(
            f"the file for the server gives the segmenter's label at {agreement:.3f} % of noise's pixels, less than "
            f"{least} %; it was not written"
        )


def _describe(model: Any, name: str, record: ModelRecord, size: Size | None) -> Served:
    """What the ONNX file says of its input and output, the free height and width set to `size`."""

    def tensor(port: Any) -> Tensor:
        kind = port.type.tensor_type
        known = dict(zip(("height", "width"), size, strict=True)) if size else {}
        lengths = tuple(each.dim_value or known.get(each.dim_param) for each in kind.shape.dim)
        assert lengths[0] is None, "the batch is free"
        return Tensor(port.name, _TYPES[kind.elem_type], lengths[1:])

    (image,), (labels,) = model.graph.input, model.graph.output
    return Served(name, record, tensor(image), tensor(labels))


def _configure_triton(folder: Path, served: Served) -> None:
    """Write `config.pbtxt`: https://docs.nvidia.com/deeplearning/triton-inference-server (Model Configuration)."""
    space, shown = served.record.label_space, f"{served.image.lengths}".replace("None", "any")
    facts = {
        "channels": json.dumps(served.record.channels),
        "classes": json.dumps(space.names),
        "colours": json.dumps(space.colours),
        "licence": served.record.licence,
    }
    lines = [
        f"# Written by lpsnet {__version__}. A request holds images as they are, height, width, channels: {shown}.",
        "# Normalisation, and the way from logits to labels, are in the file. Classes by id: labels.txt.",
        f"name: {_quoted(served.name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {MAX_BATCH}",
        f"input [ {{ {_triton_tensor(served.image)} }} ]",
        f"output [ {{ {_triton_tensor(served.labels)} label_filename: {_quoted(CLASS_FILE)} }} ]",
        f"dynamic_batching {{ default_queue_policy {{ max_queue_size: {MAX_WAITING} }} }}",
        *(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}"
            for key, value in facts.items()
        ),
    ]
    write_text(folder / "config.pbtxt", "\n".join(lines) + "\n")


def _triton_tensor(tensor: Tensor) -> str:
    lengths = ", ".join("-1" if each is None else str(each) for each in tensor.lengths)
    return f"name: {_quoted(tensor.name)} data_type: TYPE_{tensor.type} dims: [ {lengths} ]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)  # its escapes are those of protocol buffers' text


def _configure_openvino(folder: Path, served: Served) -> None:
    """Write the model into `config.json` beside its folder, which lists all models of a repository.

    Raises:
        ModelFileError: that file is there, but is no such list.
    """
    path = folder.parent / "config.json"
    shape = ",".join("-1" if each is None else str(each) for each in (None, *served.image.lengths))
    own = {
        "name": served.name,
        "base_path": served.name,  # as seen from the file
        "shape": {served.image.name: f"({shape})"},
        "plugin_config": {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"},
    }
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        others = [each for each in content.get("model_config_list", []) if each["config"]["name"] != served.name]
    except (OSError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise ModelFileError(f"{path} is no list of models for OpenVINO Model Server; move it away") from None
    whole = {**content, "model_config_list": [*others, {"config": own}]}
    write_text(path, json.dumps(whole, indent=2, ensure_ascii=False) + "\n")


# name -> a model server that loads ONNX files; another is a function and a row here
SERVERS: dict[str, Server] = {
    "triton": Server(
        "Triton Inference Server",
        _configure_triton,
        lambda models: ("tritonserver", "--model-repository", str(models)),
    ),
    "ovms": Server(
        "OpenVINO Model Server",
        _configure_openvino,
        lambda models: ("ovms", "--config_path", str(models / "config.json"), "--port", "9000", "--rest_port", "8000"),
    ),
}


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

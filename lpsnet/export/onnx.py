"""ONNX, the format that every engine here reads, directly or through its own converter; for TensorRT and OpenVINO.

And for tools of vendors that are not tried here (`BOARDS`): files that such a tool takes as far as its public documents
say, with what they say against it.

One input `image` (N x C x H x W float32, normalised as in the record) and one output `logits` (N x K x h x w).
With a free size, N, H and W may change from call to call: path sizes floor(r H) are computed in the file from the size
of the image. With a fixed size, N is 1 and every size is a constant, as engines of small devices want it. Model servers
are given a file that takes images as they are and gives label maps (`with_labels`).

A file in f16 holds weights and arithmetic in f16 between the same float32 input and output: half as large, and faster
on a GPU and on Arm; elsewhere ONNX Runtime computes it in f32. int8 files are made by `quantise.py`. The TorchScript
exporter is used: it gives the same file as the newer one in a tenth of the time.
"""

import io
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet import __version__
from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.export.quantise import Quantisation, Size, check_quantisation, quantise_for_openvino, quantise_onnx
from lpsnet.export.verify import ExportOptions, ExportReport, Format, Proof, Request, write_proved
from lpsnet.inference.engines import Precision
from lpsnet.inference.engines.onnxruntime import SIZE_NAMES, trtexec_command
from lpsnet.inference.model_file import write_container
from lpsnet.models.any_network import Model
from lpsnet.models.reparameterise import with_strides
from lpsnet.record import RECORD_KEY, ModelRecord

_SMALL = 16  # numbers; smaller tensors (sizes, scales) stay as they are


def store_in_half(model: Any) -> Any:
    """The `onnx.ModelProto` with its float32 weights as f16, each turned back by a `Cast`; changed in place."""
    import onnx

    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.f16")
        casts.append(onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model


OPSET = 17
MAX_BYTES = 1_900_000_000  # of weights; a protocol buffer holds 2 GB
ONNX = Format("onnx", ".onnx", runtime="onnxruntime", precisions=("f32", "f16", "int8"))

_TRACED_SIZE = (64, 96)  # of the image that a free-size network is traced with


def export_onnx(
    net: Model,
    path: str | Path,
    *,
    record: ModelRecord,
    size: Size | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    weights: Literal["f32", "f16"] = "f32",
    opset: int = OPSET,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network as one ONNX file and verify it against the network with ONNX Runtime.

    Args:
        net: of any form, on any device; it is fused if needed, on a copy.
        path: the file to write; it ends in `.onnx`.
        record: of the network.
        size: (height, width) in pixels that the file is for; None for a file that takes any.
        proof: what the file is compared on; see `Proof`.
        precision: "f32", "f16" or "int8".
        quantisation: for int8, and needed for it.
        weights: "f16" stores the weights of an f32 file in half the space.
        opset: version of ONNX's operators.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, int8 was asked for without images,
            or the written file's logits, labels or mIoU are not those of the network.
        MissingDependencyError: onnx or onnxslim is not installed.
        RunError: the file cannot be written.
    """

    def write(deployed: Model, path: Path, request: Request) -> None:
        model = to_onnx(deployed, size=size, opset=opset)
        if weights == "f16" and precision == "f32":
            model = store_in_half(model)
        if precision == "f16":
            model = in_half_precision(model)
        if precision == "int8":
            model = quantise_onnx(model, check_quantisation(quantisation), record=request.record, size=size)
        write_model(model, path, record=request.record)

    return write_proved(
        net,
        path,
        format=ONNX,
        write=write,
        record=record,
        size=size,
        precision=precision,
        quantisation=quantisation,
        **proof,
    )


def to_onnx(deployed: Model, *, size: Size | None, opset: int = OPSET) -> Any:
    """A deployed network as a checked `onnx.ModelProto`, simplified, without record; `size` as for `export_onnx`.

    Raises:
        ModelFileError: the weights are more than an ONNX file holds.
        MissingDependencyError: onnx or onnxslim is not installed.
    """
    try:
        import onnx
        import onnxslim
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "onnx", "export") from None
    num_bytes = sum(parameter.numel() * 4 for parameter in deployed.parameters())
    if num_bytes > MAX_BYTES:
        raise ModelFileError(f"the network's weights take {num_bytes:,} bytes; an ONNX file holds {MAX_BYTES:,}")
    # With free sizes, inferring shapes by computer algebra takes seconds and saves a few operations on numbers only
    model = onnxslim.slim(onnx.load_from_string(_trace(deployed, size, opset)), no_shape_infer=size is None)
    model.producer_name, model.producer_version = "lpsnet", __version__
    onnx.checker.check_model(model, full_check=True)
    return model


def in_half_precision(model: Any) -> Any:
    """An `onnx.ModelProto` with weights and arithmetic in f16; its input and its output stay float32.

    Raises:
        ModelFileError: a weight is too large for f16.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    weights = [tensor for tensor in model.graph.initializer if tensor.data_type == tensor.FLOAT and any(tensor.dims)]
    largest = max((float(np.abs(onnx.numpy_helper.to_array(weight)).max()) for weight in weights), default=0.0)
    if largest > float(np.finfo(np.float16).max):
        raise ModelFileError(f"the network has a weight of {largest:.3g}, more than f16 can hold; export it in f32")
    half = convert_float_to_float16(model, keep_io_types=True, op_block_list=[])
    casts = [node for node in half.graph.node if node.op_type == "Cast" and node.input[0] == half.graph.input[0].name]
    for node in casts:  # they are appended, but ONNX wants every node after those it takes from
        half.graph.node.remove(node)
        half.graph.node.insert(0, node)
    onnx.checker.check_model(half, full_check=True)
    return half


def write_model(model: Any, path: Path, *, record: ModelRecord) -> None:
    """Write an `onnx.ModelProto` with its record."""
    entry = model.metadata_props.add()
    entry.key, entry.value = RECORD_KEY, record.to_json()
    path.write_bytes(model.SerializeToString())


IMAGES, LABELS = "images", "labels"  # input and output of files for model servers


def with_labels(model: Any, record: ModelRecord) -> Any:
    """A network with what comes before and after it in the graph, for programs that only run ONNX files.

    Args:
        model: an `onnx.ModelProto` from normalised images to logits, for any size and batch; it is changed in place.
        record: of the network.

    Returns:
        The model from `images`, N x H x W x C uint8 (uint16 for channels of 16 bits), RGB unless the record names other
        channels, to `labels`, N x H x W uint8 class ids. It runs at the size of the images, which are not resized.
    """
    import onnx
    from onnx import TensorProto, helper

    graph, largest = model.graph, record.normalisation.max_value
    (image,), (logits,) = graph.input, graph.output
    count, kind = len(record.channels), TensorProto.UINT8 if largest == 255 else TensorProto.UINT16
    mean, std = (np.array(values)[:, None, None] for values in (record.normalisation.mean, record.normalisation.std))
    corners = "align_corners" if record.align_corners else "half_pixel"
    resized = {"mode": "linear", "coordinate_transformation_mode": corners}
    before = [
        helper.make_node("Cast", [IMAGES], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["numbers"], ["channels"], perm=(0, 3, 1, 2)),
        _constant("scale", (1 / (largest * std)).astype(np.float32)),
        _constant("shift", (-mean / std).astype(np.float32)),
        helper.make_node("Mul", ["channels", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], [image.name]),
    ]
    after = [
        helper.make_node("Shape", [logits.name], ["batch_and_classes"], start=0, end=2),
        helper.make_node("Shape", [IMAGES], ["image_size"], start=1, end=3),
        helper.make_node("Concat", ["batch_and_classes", "image_size"], ["full_size"], axis=0),
        helper.make_node("Resize", [logits.name, "", "", "full_size"], ["full_logits"], **resized),
        helper.make_node("ArgMax", ["full_logits"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], [LABELS], to=TensorProto.UINT8),
    ]
    nodes = [*before, *graph.node, *after]
    free = ["batch", *SIZE_NAMES]
    for part, values in (
        (graph.node, nodes),
        (graph.input, [helper.make_tensor_value_info(IMAGES, kind, [*free, count])]),
        (graph.output, [helper.make_tensor_value_info(LABELS, TensorProto.UINT8, free)]),
    ):
        del part[:]
        part.extend(values)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constant(name: str, values: NDArray[np.float32]) -> Any:
    """As a node: the initializers are the network's weights, which `load_checkpoint` reads from the file by name."""
    import onnx

    return onnx.helper.make_node("Constant", [], [name], value=onnx.numpy_helper.from_array(values, name))


def _trace(deployed: Model, size: Size | None, opset: int) -> bytes:
    free = {0: "batch", 2: SIZE_NAMES[0], 3: SIZE_NAMES[1]}
    free_scores = {0: "batch", 2: "score_height", 3: "score_width"}
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter's deprecation, and remarks on traced sizes, which are checked
        torch.onnx.export(
            deployed,
            (torch.zeros(1, deployed.in_channels, *(size or _TRACED_SIZE)),),
            buffer,  # type: ignore[arg-type]  # what this exporter takes besides a path
            dynamo=False,
            opset_version=opset,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": free, "logits": free_scores} if size is None else None,
        )
    return buffer.getvalue()


TENSORRT = Format("tensorrt", ".onnx", runtime="onnxruntime", precisions=("f32", "f16", "bf16", "int8"))
PAPER_SIZE = (1024, 2048)  # of the paper's timings; for the command, where neither export nor record names a size


def export_tensorrt(net: Model, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write an ONNX file for TensorRT and verify it with ONNX Runtime; its `engine_command` runs `trtexec` on it.

    The engine is built by TensorRT on the device it is to run on. The file in f32 serves for f16 and bf16 too; in int8
    it holds where to quantise, in TensorRT's way. Written from TensorRT's documentation, not tried on hardware.
    Arguments and errors as for `export_onnx`; precision is what the engine computes in, "bf16" too.
    """
    precision = options.get("precision", "f32")
    options["precision"] = "int8" if precision == "int8" else "f32"  # of the file
    report = write_proved(net, path, format=TENSORRT, write=_write_for_tensorrt, **options)
    timed_size = None if report.size is not None else options["record"].input_size or PAPER_SIZE
    channels = len(options["record"].channels)
    command = trtexec_command(Path(path), precision=precision, size=timed_size, channels=channels)
    return replace(report, precision=precision, engine_command=tuple(command))


def _write_for_tensorrt(deployed: Model, path: Path, request: Request) -> None:
    record, size, precision, quantisation = request
    model = to_onnx(deployed, size=size)
    if precision == "int8":
        model = quantise_onnx(model, check_quantisation(quantisation), record=record, size=size, for_tensorrt=True)
    write_model(model, path, record=record)


OPENVINO = Format("openvino", ".openvino", runtime="openvino", precisions=("f32", "f16", "int8"))


def export_openvino(net: Model, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write a network as one `.openvino` file and verify it with OpenVINO; arguments and errors as for `export_onnx`.

    Precision "f16" keeps the weights in f16; the arithmetic is chosen when the file is run.
    """
    return write_proved(net, path, format=OPENVINO, write=_write_for_openvino, **options)


def _write_for_openvino(deployed: Model, path: Path, request: Request) -> None:
    try:
        import openvino
    except ImportError:
        raise MissingDependencyError.for_extra("openvino", "openvino") from None
    record, size, precision, quantisation = request
    model = openvino.Core().read_model(to_onnx(deployed, size=size).SerializeToString())
    if precision == "int8":
        model = quantise_for_openvino(model, check_quantisation(quantisation), record=record, size=size)
    description, weights = pack_openvino(model, half=precision == "f16")
    write_container(path, description=description, weights=weights, record=record)


def pack_openvino(model: Any, *, half: bool) -> tuple[bytes, bytes]:
    """Description and weights as OpenVINO writes them; with `half` the weights in f16."""
    import openvino

    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        description = Path(folder) / "model.xml"
        openvino.save_model(model, description, compress_to_fp16=half)
        return description.read_bytes(), description.with_suffix(".bin").read_bytes()


@dataclass(frozen=True, slots=True)
class Board:
    """A vendor's tool that makes files for its boards from ONNX files, as its public documents describe it.

    Attributes:
        title: of the tool.
        opset: version of ONNX's operators that is written.
        operators: what it takes.
        source: where that is said.
        doubts: operator -> a doubt about it, with its own source; of bilinear resizes with `align_corners` under
            "align_corners".
        ir_version: the highest version of ONNX's file format; None where nothing is said.
    """

    title: str
    opset: int
    operators: frozenset[str]
    source: str
    doubts: Mapping[str, str] = field(default_factory=dict)
    ir_version: int | None = None


_USUAL = ("Conv", "Relu", "Clip", "Add", "Mul", "Concat", "Resize", "AveragePool", "GlobalAveragePool", "MaxPool")
_USUAL_TOO = ("Sigmoid", "BatchNormalization", "Constant", "Identity")
_SHAPES = ("Reshape", "Unsqueeze", "Squeeze", "Transpose", "Flatten", "Slice", "Split", "Pad", "ReduceMean")
_MORE = ("Sub", "Div", "Max", "Min", "Pow", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Elu", "Softmax")
_MORE_YET = ("ConvTranspose", "MatMul", "Gemm", "LayerNormalization")
_BASIC = frozenset((*_USUAL, *_USUAL_TOO))
_WIDE = _BASIC | {*_SHAPES, *_MORE, *_MORE_YET}

# Read on 2026-11-30; docs/how-to/vendor-tools.md has the links
BOARDS: dict[str, Board] = {
    "rknn": Board(
        "RKNN-Toolkit2",
        opset=17,  # 12 to 19 since release 1.6.0
        operators=_WIDE | {"Erf"},
        source="its list of ONNX operators, 2.1.0",
        doubts={"align_corners": "was seen to run on the processor, not on the NPU (RK3588, 2.3.2, a user's report)"},
    ),
    "qnn": Board(
        "Qualcomm's QNN",
        opset=12,  # its converter lists Clip up to version 12
        operators=_WIDE,
        source="the list of ONNX Runtime's QNN provider",
    ),
    "hailo": Board(
        "Hailo's Dataflow Compiler",
        opset=11,  # as Hailo's own instructions export an FCN
        operators=_BASIC,
        source="what segmentation networks of Hailo's model zoo consist of (its own list takes a login)",
        doubts={"align_corners": "is in no network of Hailo's model zoo that is known here; try its parser first"},
        ir_version=9,
    ),
}

# operator -> what in a network of ours brings it, and what to take instead
_ADVICE = {
    **dict.fromkeys(("Reshape", "Unsqueeze", "Slice", "Split"), "take another block than shufflenet"),
    "Sub": "take an interaction without attention, such as bilateral_b",
}


def export_for_board(net: Model, path: str | Path, *, board: str, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write an ONNX file for a vendor's tool, verify it with ONNX Runtime, and say what the tool may not take.

    The file is for one size and one image, without branches, in the board's version of ONNX's operators, in f32: the
    tools quantise by themselves. Nothing of this was run on a board; `findings` of the report is what their public
    documents say against the file, and is empty where they say nothing.

    Args:
        board: a name in `BOARDS`.
        options: as for `export_onnx`; `size` is needed.

    Raises:
        ModelFileError: as for `export_onnx`; or there is no such board, no size, or another precision than f32.
    """
    if board not in BOARDS:
        raise ModelFileError(unknown_name("board", board, BOARDS))
    target = BOARDS[board]
    if options.get("size") is None:
        own = options["record"].input_size
        hint = f"; its record names {own[0]}x{own[1]}" if own else ""
        raise ModelFileError(f"{target.title} takes a file for images of one size: --size HxW{hint}")
    if options.get("precision", "f32") != "f32":
        raise ModelFileError(f"{target.title} quantises by itself: export in f32 for it; got {options['precision']}")

    def write(deployed: Model, path: Path, request: Request) -> None:
        model = to_onnx(with_strides(deployed), size=request.size, opset=target.opset)
        _pool_means(model)
        write_model(model, path, record=request.record)

    report = write_proved(net, path, format=ONNX, write=write, **options)
    return replace(report, findings=tuple(find_obstacles(path, target)))


def _pool_means(model: Any) -> None:
    """Means over height and width as `GlobalAveragePool`, which more tools take; changed in place."""
    for node in model.graph.node:
        own = {attribute.name: list(attribute.ints) or attribute.i for attribute in node.attribute}
        if node.op_type == "ReduceMean" and own.get("axes") in ([2, 3], [-2, -1], [-1, -2]) and own.get("keepdims", 1):
            node.op_type = "GlobalAveragePool"
            del node.attribute[:]


def find_obstacles(path: str | Path, board: Board) -> list[str]:
    """What a vendor's tool may not take in an ONNX file, by its public documents: a line for each kind of obstacle.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    import onnx

    model = onnx.load(path)
    found = list(_of_file(model, board))
    problems: dict[tuple[str, str], list[str]] = {}
    for node in model.graph.node:
        for problem in _of_node(onnx, node, board):
            problems.setdefault((node.op_type, problem), []).append(node.name or node.output[0])
    for (operator, problem), nodes in problems.items():
        where = nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more"
        found.append(f"{operator} ({where}): {problem}")
    return found


def _of_file(model: Any, board: Board) -> Iterator[str]:
    opset = next(own.version for own in model.opset_import if own.domain in ("", "ai.onnx"))
    if opset != board.opset:
        yield f"opset {opset}: {board.title} is given {board.opset}; export the file with --for"
    if board.ir_version is not None and model.ir_version > board.ir_version:
        yield f"IR version {model.ir_version}: {board.title} takes {board.ir_version} at most"
    for port in (*model.graph.input, *model.graph.output):
        lengths = port.type.tensor_type.shape.dim
        if any(not length.dim_value for length in lengths):
            yield f"{port.name}: its size is free; {board.title} takes one size: --size HxW"
        elif len(lengths) != 4 or lengths[0].dim_value != 1:
            yield f"{port.name}: {board.title} is given one image at a time, of four axes"


def _of_node(onnx: Any, node: Any, board: Board) -> Iterator[str]:
    if node.op_type not in board.operators:
        advice = _ADVICE.get(node.op_type, "the network needs another operator in its place")
        yield f"not in {board.source}; {advice}"
    elif node.op_type in board.doubts:
        yield board.doubts[node.op_type]
    if node.op_type == "Resize" and "align_corners" in board.doubts:
        attributes = {own.name: onnx.helper.get_attribute_value(own) for own in node.attribute}
        if attributes.get("coordinate_transformation_mode") == b"align_corners":
            yield f"with align_corners {board.doubts['align_corners']}"

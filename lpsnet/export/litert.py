"""LiteRT (TensorFlow Lite), for phones and boards: one `.tflite` file for images of one size.

The file is written here, operator by operator, from the simplified ONNX graph: Google's converter for torch installs
1.2 GB and takes 10 to 20 s a network. Maps are N x H x W x C in the file, as LiteRT has them. An operator that is not
in `OPERATORS` is refused by its name, and what is written is proved like every other file.

- What ONNX keeps apart and LiteRT does in one step is brought together: a ReLU or ReLU6 becomes part of the operator
  before it, and a padding that is LiteRT's "SAME" part of the convolution. Any other padding is an operator of its own.
- f16 files hold the weights in f16, each turned back by a DEQUANTIZE; the arithmetic is chosen when the file is run.
- int8 files are made of f32 files; see `quantise.py`.
- The record is a metadata buffer of the file, which LiteRT ignores, and so is a checksum of the file.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from lpsnet import __version__
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export.onnx import to_onnx
from lpsnet.export.quantise import Quantisation, Size, check_quantisation, quantise_for_litert
from lpsnet.export.verify import ExportOptions, ExportReport, Format, Request, write_proved
from lpsnet.inference.model_file import TFLITE_CHECKSUM, TFLITE_IDENTIFIER
from lpsnet.models.any_network import Model
from lpsnet.models.reparameterise import with_strides
from lpsnet.record import RECORD_KEY, ModelRecord

FORMAT = Format("litert", ".tflite", runtime="litert", precisions=("f32", "f16", "int8"))

_ALIGNMENT = 16  # bytes, of the weights in the file; LiteRT's schema asks for it
_SIGNATURE = "serving_default"
_SMALL = 16  # numbers; smaller constants stay in f32
_MARK = hashlib.sha256(b"the place of the checksum").digest()

Weights = NDArray[Any]


def export_litert(net: Model, path: str | Path, **options: Unpack[ExportOptions]) -> ExportReport:
    """Write a network as one `.tflite` file and verify it with LiteRT; arguments and errors as for `export_onnx`.

    `size` is needed: a file is for images of one size. Precision "f16" keeps the weights in f16. ModelFileError also if
    the network has an operator that cannot be written.
    """
    if options.get("size") is None:
        own = options["record"].input_size
        hint = f"; its record names {own[0]}x{own[1]}" if own else ""
        raise ModelFileError(f"a file for LiteRT takes images of one size: --size HxW{hint}")
    return write_proved(net, path, format=FORMAT, write=_write, **options)


def _write(deployed: Model, path: Path, request: Request) -> None:
    schema = _schema()
    model = _Graph(schema, to_onnx(with_strides(deployed), size=request.size), half=request.precision == "f16").model()
    if request.precision == "int8":
        quantisation = check_quantisation(request.quantisation)
        content = pack(schema, model)
        model = _unpacked(schema, quantise_for_litert(content, quantisation, record=request.record, size=request.size))
    path.write_bytes(_with_record(schema, model, request.record))


def quantise_litert(whole: Path, target: Path, quantisation: Quantisation, record: ModelRecord, size: Size) -> None:
    """Write a `.tflite` file of ours in f32, `whole`, as one in int8.

    Args:
        whole, target: the two files.
        quantisation: images to calibrate on, and what stays in floating point.
        record: of the target.
        size: (height, width) in pixels that images are prepared at; the file's own.

    Raises:
        MissingDependencyError: LiteRT or its quantiser is not installed.
    """
    schema = _schema()
    model = _unpacked(schema, quantise_for_litert(whole.read_bytes(), quantisation, record=record, size=size))
    target.write_bytes(_with_record(schema, model, record))


def _schema() -> Any:
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError:
        raise MissingDependencyError.for_extra("ai_edge_litert", "litert") from None
    return schema_py_generated


class _Graph:
    """The parts of a `.tflite` file while it is written from an `onnx.ModelProto` of a fixed size.

    Attributes:
        constants: by their names in ONNX, laid out as there.
        schema: `ai_edge_litert.schema_py_generated`.
    """

    def __init__(self, schema: Any, model: Any, *, half: bool) -> None:
        import onnx

        self.schema, self.half = schema, half
        self._onnx, graph = onnx, onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self.constants = _constants(onnx, graph)
        self._shapes = _shapes(graph)
        self._indices: dict[str, int] = {}
        self._names: dict[str, str] = {}  # of what is another tensor by another name
        self._codes: dict[int, int] = {}
        self._buffers: list[Any] = [schema.BufferT()]  # the first one is "no data"
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        (image,), (logits,) = graph.input, graph.output
        self._ends = [image.name, logits.name]
        self.activation(image.name)
        self._add_all(list(graph.node))

    def model(self) -> Any:
        """The file's contents as a `ModelT`."""
        schema, (image, logits) = self.schema, map(self.activation, self._ends)
        signature = _filled(
            schema.SignatureDefT(),
            inputs=[_filled(schema.TensorMapT(), name="image", tensorIndex=image)],
            outputs=[_filled(schema.TensorMapT(), name="logits", tensorIndex=logits)],
            signatureKey=_SIGNATURE,
        )
        graph = _filled(
            schema.SubGraphT(),
            tensors=self._tensors,
            inputs=[image],
            outputs=[logits],
            operators=self._operators,
            name="main",
        )
        codes = [
            _filled(schema.OperatorCodeT(), deprecatedBuiltinCode=min(code, 127), version=1, builtinCode=code)
            for code in self._codes
        ]
        return _filled(
            schema.ModelT(),
            version=3,
            operatorCodes=codes,
            subgraphs=[graph],
            description=f"lpsnet {__version__}",
            buffers=self._buffers,
            metadata=[],
            signatureDefs=[signature],
        )

    def _add_all(self, nodes: list[Any]) -> None:
        users: dict[str, list[Any]] = {name: [None] for name in self._ends}
        for node in nodes:
            for name in node.input:
                users.setdefault(name, []).append(node)
        merged: set[int] = set()
        for node in nodes:
            if id(node) in merged or node.op_type == "Constant":
                continue
            if node.op_type not in OPERATORS:
                raise ModelFileError(_cannot(node, f"a file for LiteRT is not written with {node.op_type} here"))
            after = users.get(node.output[0], [])
            fused = self._fused(after[0]) if node.op_type in _FUSING and len(after) == 1 else None
            if fused is not None:
                merged.add(id(after[0]))
            output = node.output[0] if fused is None else after[0].output[0]
            OPERATORS[node.op_type](self, Node(self._onnx, node, output, fused or "NONE"))

    def _fused(self, node: Any) -> str | None:
        """The activation that an operator can end with, if this node is one; None is the end of the network."""
        if node is None or node.op_type not in ("Relu", "Clip"):
            return None
        return "RELU" if node.op_type == "Relu" else _CLIPS.get(self.bounds(node))

    def bounds(self, node: Any) -> tuple[float, float]:
        """The least and the largest value that a `Clip` lets through."""
        given = [*node.input[1:], "", ""][:2]
        return tuple(  # type: ignore[return-value]
            float(self.constants[name].reshape(())) if name else unbounded
            for name, unbounded in zip(given, (-np.inf, np.inf), strict=True)
        )

    def activation(self, name: str) -> int:
        """The index of a map, by its name in ONNX; its shape is turned to N x H x W x C."""
        name = self._names.get(name, name)
        if name in self.constants:
            return self.constant(name, turned(self.constants[name], len(self.constants[name].shape)))
        if name not in self._indices:
            self._indices[name] = self._tensor(name, [self.shape(name)[axis] for axis in order(len(self.shape(name)))])
        return self._indices[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a map as ONNX has it."""
        return self._shapes[self._names.get(name, name)]

    def lengths(self, index: int) -> list[int]:
        """The shape of a tensor of the file."""
        found: list[int] = self._tensors[index].shape
        return found

    def alias(self, name: str, same: str) -> None:
        """`name` is the tensor `same`."""
        self._names[name] = self._names.get(same, same)

    def constant(self, name: str, values: Weights) -> int:
        """The index of a constant of that name and these values, laid out as LiteRT wants it."""
        if name in self._indices:
            return self._indices[name]
        values = np.ascontiguousarray(values)
        if self.half and values.dtype == np.float32 and values.size >= _SMALL:
            stored = self._tensor(f"{name}/f16", values.shape, values.astype(np.float16))
            self._indices[name] = self._tensor(name, values.shape)
            self.add("DEQUANTIZE", [stored], self._indices[name])
        else:
            self._indices[name] = self._tensor(name, values.shape, values)
        return self._indices[name]

    def _tensor(self, name: str, shape: Sequence[int], values: Weights | None = None) -> int:
        buffer, kind = 0, "float32"
        if values is not None:
            buffer, kind = len(self._buffers), str(values.dtype)
            data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
            self._buffers.append(_filled(self.schema.BufferT(), data=data))
        number, lengths = getattr(self.schema.TensorType, kind.upper()), [int(n) for n in shape]
        self._tensors.append(_filled(self.schema.TensorT(), shape=lengths, type=number, buffer=buffer, name=name))
        return len(self._tensors) - 1

    def step(self, name: str, shape: Sequence[int]) -> int:
        """The index of a map that ONNX has no name for, of a shape N x H x W x C."""
        self._indices[name] = self._tensor(name, shape)
        return self._indices[name]

    def add(self, code: str, inputs: Sequence[int], output: int, **options: Any) -> None:
        """An operator by its name in LiteRT's schema, with its options."""
        number = getattr(self.schema.BuiltinOperator, code)
        place = self._codes.setdefault(number, len(self._codes))
        operator = _filled(self.schema.OperatorT(), opcodeIndex=place, inputs=list(inputs), outputs=[output])
        if name := _OPTIONS.get(code):
            operator.builtinOptionsType = getattr(self.schema.BuiltinOptions, name)
            operator.builtinOptions = _filled(getattr(self.schema, f"{name}T")(), **options)
        self._operators.append(operator)


class Node:
    """A node of ONNX that is written: its inputs, its attributes, its output, and the activation it ends with."""

    def __init__(self, onnx: Any, node: Any, output: str, activation: str) -> None:
        self.proto, self.kind, self.inputs = node, node.op_type, list(node.input)
        self.attributes = {own.name: onnx.helper.get_attribute_value(own) for own in node.attribute}
        self.output, self.activation = output, activation


def _cannot(node: Any, what: str) -> str:
    return f"{what}: {node.name or node.output[0]}"[:200]


def _constants(onnx: Any, graph: Any) -> dict[str, Weights]:
    found = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            (attribute,) = node.attribute
            value = onnx.helper.get_attribute_value(attribute)
            found[node.output[0]] = onnx.numpy_helper.to_array(value) if attribute.name == "value" else np.array(value)
    return found


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    ports = (*graph.input, *graph.value_info, *graph.output)
    return {port.name: tuple(length.dim_value for length in port.type.tensor_type.shape.dim) for port in ports}


def order(rank: int) -> tuple[int, ...]:
    """The axes of ONNX in LiteRT's order: height and width, the last two, come right after the first."""
    return (0, rank - 2, rank - 1, *range(1, rank - 2)) if rank >= 4 else tuple(range(rank))


def turned(values: Weights, rank: int) -> Weights:
    """A constant that is combined with maps of `rank` axes, in LiteRT's order; one number stays one."""
    if values.size == 1:
        return values.reshape(1)
    return values.reshape((1,) * (rank - values.ndim) + values.shape).transpose(order(rank))


# What each operator becomes. Every function takes the graph and the node, and adds to the graph.


def _convolution(graph: _Graph, node: Node) -> None:
    weight = graph.constants[node.inputs[1]]
    groups, strides = node.attributes.get("group", 1), node.attributes.get("strides", [1, 1])
    dilations = node.attributes.get("dilations", [1, 1])
    image, padding = _padded(graph, node, weight.shape[2:])
    options = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": getattr(graph.schema.ActivationFunctionType, node.activation),
    }
    depthwise = groups > 1 and weight.shape[1] == 1
    laid_out = weight.transpose(1, 2, 3, 0) if depthwise else weight.transpose(0, 2, 3, 1)
    name, code = node.inputs[1], "CONV_2D"
    if depthwise:
        code, options["depthMultiplier"] = "DEPTHWISE_CONV_2D", len(weight) // groups
    with_bias = len(node.inputs) > 2
    bias = graph.constants[node.inputs[2]] if with_bias else np.zeros(len(weight), np.float32)
    biases = graph.constant(f"{node.inputs[2]}/bias" if with_bias else f"{name}/no_bias", bias)
    graph.add(code, [image, graph.constant(name, laid_out), biases], graph.activation(node.output), **options)


def _padded(graph: _Graph, node: Node, kernel: Sequence[int]) -> tuple[int, int]:
    """The map that a convolution or a pool reads, and its padding in LiteRT's terms."""
    pads, size = node.attributes.get("pads", [0, 0, 0, 0]), graph.shape(node.inputs[0])
    strides, dilations = (node.attributes.get(name, [1, 1]) for name in ("strides", "dilations"))
    image, paddings = graph.activation(node.inputs[0]), graph.schema.Padding
    if node.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID") or node.attributes.get("ceil_mode"):
        raise ModelFileError(_cannot(node.proto, "a padding that depends on the size is not written for LiteRT here"))
    wanted = [tuple(pads[axis::2]) for axis in (0, 1)]
    if wanted == [(0, 0), (0, 0)]:
        return image, paddings.VALID
    same = [
        same_padding(length, (k - 1) * dilation + 1, stride)
        for length, k, dilation, stride in zip(size[2:], kernel, dilations, strides, strict=True)
    ]
    if wanted == same and node.kind != "AveragePool":
        return image, paddings.SAME
    return _pad(graph, node, image, wanted), paddings.VALID


def same_padding(length: int, kernel: int, stride: int) -> tuple[int, int]:
    """Pixels before and after that TensorFlow's "SAME" adds along an axis of `length`."""
    total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
    return total // 2, total - total // 2


def _pad(graph: _Graph, node: Node, image: int, around: Sequence[tuple[int, int]]) -> int:
    """The map with zeros around it; for a maximum with the least number, which none is smaller than."""
    batch, height, width, channels = graph.lengths(image)
    shape = (batch, height + sum(around[0]), width + sum(around[1]), channels)
    name = f"{node.output}/padded"
    inputs = [image, graph.constant(f"{name}/by", np.array([(0, 0), *around, (0, 0)], np.int32))]
    target = graph.step(name, shape)
    if node.kind == "MaxPool":
        least = graph.constant(f"{name}/with", np.array([np.finfo(np.float32).min], np.float32))
        graph.add("PADV2", [*inputs, least], target)
    else:
        graph.add("PAD", inputs, target)
    return target


def _padding(graph: _Graph, node: Node) -> None:
    given = graph.constants[node.inputs[1]].tolist() if len(node.inputs) > 1 else node.attributes["pads"]
    value = graph.constants[node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] else np.zeros(())
    if node.attributes.get("mode", b"constant") != b"constant" or value.any() or min(given) < 0:
        raise ModelFileError(_cannot(node.proto, "a padding with anything but zeros is not written for LiteRT here"))
    rank = len(graph.shape(node.inputs[0]))
    pairs = list(zip(given[:rank], given[rank:], strict=True))
    amounts = np.array([pairs[axis] for axis in order(rank)], np.int32)
    inputs = [graph.activation(node.inputs[0]), graph.constant(f"{node.output}/by", amounts)]
    graph.add("PAD", inputs, graph.activation(node.output))


def _binary(code: str) -> "Operator":
    def add(graph: _Graph, node: Node) -> None:
        rank = len(graph.shape(node.output))
        inputs = []
        for name in node.inputs:
            if name in graph.constants:
                inputs.append(graph.constant(f"{name}/{rank}", turned(graph.constants[name], rank)))
            elif len(graph.shape(name)) != rank:
                raise ModelFileError(_cannot(node.proto, "maps of other numbers of axes are not combined for LiteRT"))
            else:
                inputs.append(graph.activation(name))
        options = {"fusedActivationFunction": getattr(graph.schema.ActivationFunctionType, node.activation)}
        graph.add(code, inputs, graph.activation(node.output), **(options if code in _FUSING_CODES else {}))

    return add


def _unary(code: str) -> "Operator":
    def add(graph: _Graph, node: Node) -> None:
        graph.add(code, [graph.activation(node.inputs[0])], graph.activation(node.output))

    return add


def _clip(graph: _Graph, node: Node) -> None:
    if (bounds := graph.bounds(node.proto)) not in _CLIPS:
        raise ModelFileError(_cannot(node.proto, f"a clip to {bounds[0]:g} .. {bounds[1]:g} is not written for LiteRT"))
    graph.add(_CLIPS[bounds], [graph.activation(node.inputs[0])], graph.activation(node.output))


def _batch_norm(graph: _Graph, node: Node) -> None:
    scale, shift, mean, variance = (graph.constants[name].astype(np.float64) for name in node.inputs[1:5])
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    image, target = graph.activation(node.inputs[0]), graph.activation(node.output)
    between, none = graph.step(f"{node.output}/scaled", graph.lengths(image)), {"fusedActivationFunction": 0}
    graph.add("MUL", [image, graph.constant(f"{node.output}/factor", factor.astype(np.float32))], between, **none)
    added = graph.constant(f"{node.output}/shift", (shift - mean * factor).astype(np.float32))
    graph.add("ADD", [between, added], target, **none)


def _resize(graph: _Graph, node: Node) -> None:
    attributes, shape = node.attributes, graph.shape(node.output)
    mode = attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    kind = attributes.get("mode", b"nearest").decode()
    nearest = kind == "nearest" and mode == "asymmetric" and attributes.get("nearest_mode") == b"floor"
    bilinear = kind == "linear" and mode in ("align_corners", "half_pixel", "pytorch_half_pixel")
    if not (nearest or bilinear) or len(shape) != 4:
        raise ModelFileError(_cannot(node.proto, f"a resize by {kind} and {mode} is not written for LiteRT here"))
    size = graph.constant(f"{node.output}/size", np.array(shape[2:], np.int32))
    options = {"alignCorners": mode == "align_corners", "halfPixelCenters": mode.endswith("half_pixel")}
    code = "RESIZE_NEAREST_NEIGHBOR" if nearest else "RESIZE_BILINEAR"
    graph.add(code, [graph.activation(node.inputs[0]), size], graph.activation(node.output), **options)


def _concatenation(graph: _Graph, node: Node) -> None:
    rank = len(graph.shape(node.output))
    axis = order(rank).index(node.attributes["axis"] % rank)
    inputs = [graph.activation(name) for name in node.inputs]
    none = graph.schema.ActivationFunctionType.NONE
    graph.add("CONCATENATION", inputs, graph.activation(node.output), axis=axis, fusedActivationFunction=none)


def _mean(graph: _Graph, node: Node) -> None:
    rank = len(graph.shape(node.inputs[0]))
    axes = node.attributes.get("axes")
    if axes is None:
        axes = graph.constants[node.inputs[1]].tolist() if len(node.inputs) > 1 else [2, 3]
    if {axis % rank for axis in axes} != {2, 3} or rank != 4 or not node.attributes.get("keepdims", 1):
        raise ModelFileError(_cannot(node.proto, "a mean over anything but height and width is not written for LiteRT"))
    inputs = [graph.activation(node.inputs[0]), graph.constant(f"{node.output}/axes", np.array([1, 2], np.int32))]
    graph.add("MEAN", inputs, graph.activation(node.output), keepDims=True)


def _pool(code: str) -> "Operator":
    def add(graph: _Graph, node: Node) -> None:
        kernel, strides = node.attributes["kernel_shape"], node.attributes.get("strides", [1, 1])
        padded = any(node.attributes.get("pads", ()))
        if padded and node.kind == "AveragePool" and not node.attributes.get("count_include_pad", 0):
            raise ModelFileError(_cannot(node.proto, "a mean that leaves its padding out is not written for LiteRT"))
        if any(step != 1 for step in node.attributes.get("dilations", ())):
            raise ModelFileError(_cannot(node.proto, "a pool with dilation is not written for LiteRT here"))
        image, padding = _padded(graph, node, kernel)
        options = {
            "padding": padding,
            "strideH": strides[0],
            "strideW": strides[1],
            "filterHeight": kernel[0],
            "filterWidth": kernel[1],
            "fusedActivationFunction": graph.schema.ActivationFunctionType.NONE,
        }
        graph.add(code, [image], graph.activation(node.output), **options)

    return add


def _slice(graph: _Graph, node: Node) -> None:
    starts, ends, *rest = (graph.constants[name].tolist() for name in node.inputs[1:])
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    shape = graph.shape(node.inputs[0])
    whole = [slice(0, length, 1) for length in shape]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise ModelFileError(_cannot(node.proto, "a slice that runs backwards is not written for LiteRT here"))
        whole[axis] = slice(*slice(start, end, step).indices(shape[axis]))
    parts = [whole[axis] for axis in order(len(shape))]
    columns = [np.array([getattr(part, name) for part in parts], np.int32) for name in ("start", "stop", "step")]
    inputs = [graph.constant(f"{node.output}/{number}", column) for number, column in enumerate(columns)]
    masks = {f"{name}Mask": 0 for name in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")}
    graph.add("STRIDED_SLICE", [graph.activation(node.inputs[0]), *inputs], graph.activation(node.output), **masks)


def _reshape(graph: _Graph, node: Node) -> None:
    """Channels that are split, joined or get an axis beside them; height and width stay as they are."""
    before, after = graph.shape(node.inputs[0]), graph.shape(node.output)
    if min(len(before), len(after)) < 4 or (before[0], *before[-2:]) != (after[0], *after[-2:]):
        raise ModelFileError(_cannot(node.proto, "a reshape of height and width is not written for LiteRT here"))
    shape = np.array([after[axis] for axis in order(len(after))], np.int32)
    inputs = [graph.activation(node.inputs[0]), graph.constant(f"{node.output}/shape", shape)]
    graph.add("RESHAPE", inputs, graph.activation(node.output), newShape=shape.tolist())


def _same(graph: _Graph, node: Node) -> None:
    graph.alias(node.output, node.inputs[0])


Operator = Callable[[_Graph, Node], None]

# ONNX's operator -> what writes it
OPERATORS: dict[str, Operator] = {
    "Conv": _convolution,
    "Add": _binary("ADD"),
    "Sub": _binary("SUB"),
    "Mul": _binary("MUL"),
    "Div": _binary("DIV"),
    "Max": _binary("MAXIMUM"),
    "Min": _binary("MINIMUM"),
    "Relu": _unary("RELU"),
    "Sigmoid": _unary("LOGISTIC"),
    "Tanh": _unary("TANH"),
    "HardSwish": _unary("HARD_SWISH"),
    "Clip": _clip,
    "BatchNormalization": _batch_norm,
    "Resize": _resize,
    "Concat": _concatenation,
    "ReduceMean": _mean,
    "GlobalAveragePool": _mean,
    "AveragePool": _pool("AVERAGE_POOL_2D"),
    "MaxPool": _pool("MAX_POOL_2D"),
    "Pad": _padding,
    "Slice": _slice,
    "Reshape": _reshape,
    "Unsqueeze": _reshape,
    "Squeeze": _reshape,
    "Identity": _same,
}
_FUSING = ("Conv", "Add", "Sub", "Mul", "Div")  # may end with an activation
_FUSING_CODES = ("ADD", "SUB", "MUL", "DIV")
_CLIPS = {(0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, np.inf): "RELU"}
# LiteRT's operator -> the name of its options in the schema
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "ADD": "AddOptions",
    "SUB": "SubOptions",
    "MUL": "MulOptions",
    "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "RESIZE_BILINEAR": "ResizeBilinearOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "STRIDED_SLICE": "StridedSliceOptions",
    "RESHAPE": "ReshapeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "HARD_SWISH": "HardSwishOptions",
}


def _filled(part: Any, **values: Any) -> Any:
    """An object of the schema with these attributes; older ones take none when they are made."""
    for name, value in values.items():
        setattr(part, name, value)
    return part


def pack(schema: Any, model: Any) -> bytes:
    """The bytes of a `ModelT`, with weights aligned in memory as LiteRT wants them."""
    import flatbuffers

    class Aligned(schema.BufferT):  # type: ignore[misc]
        def Pack(self, builder: Any) -> int:
            content = bytes(self.data)
            builder.StartVector(1, len(content), _ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
            schema.BufferStart(builder)
            schema.BufferAddData(builder, vector)
            return int(schema.BufferEnd(builder))

    model.buffers = [
        own if own.data is None or not len(own.data) else _filled(Aligned(), data=own.data) for own in model.buffers
    ]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), TFLITE_IDENTIFIER)
    return bytes(builder.Output())


def _unpacked(schema: Any, content: bytes) -> Any:
    """A file as a `ModelT` whose weights are in the model, where the quantiser puts them behind it."""
    model = schema.ModelT.InitFromPackedBuf(content)
    for buffer in model.buffers:
        if buffer.offset:
            data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
            _filled(buffer, data=data, offset=0, size=0)
    return model


def _with_record(schema: Any, model: Any, record: ModelRecord) -> bytes:
    """The file's bytes with its record, and the SHA-256 of them all with zeros in the place of it."""
    model.metadata = []
    for name, content in ((RECORD_KEY, record.to_json().encode()), (TFLITE_CHECKSUM, _MARK)):
        model.buffers.append(_filled(schema.BufferT(), data=np.frombuffer(content, np.uint8)))
        model.metadata.append(_filled(schema.MetadataT(), name=name, buffer=len(model.buffers) - 1))
    before, found, after = pack(schema, model).partition(_MARK)
    assert found
    assert _MARK not in after
    checksum = hashlib.sha256(b"".join((before, bytes(len(_MARK)), after))).digest()
    return b"".join((before, checksum, after))

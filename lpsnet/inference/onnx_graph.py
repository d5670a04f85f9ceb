"""Surgery on ONNX models without the `onnx` package: an input for every path in place of the image (Section 3.1).

A network begins by resizing the image for each of its paths. Resizing outside of the engine can be faster. So the graph
is cut after those resizes, which are identified by trial: the size of a resized image gives its ratio.

An ONNX graph is a list of nodes that name the tensors they read and write. A part of it is a shorter list with other
inputs and outputs declared. The rest is copied byte for byte, so unknown content is kept. Field numbers are those of
onnx.proto.
"""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import path_size
from lpsnet.errors import ModelFileError
from lpsnet.inference import model_file
from lpsnet.inference.engines import SessionOptions, one_line

Size = tuple[int, int]  # height, width
Shape = tuple[int | str, ...]  # a number, or the name of a length that may differ between calls

TRIED_SIZE = (211, 307)  # pixels; small enough to cost no time, large enough to tell ratios apart
_SAME_IMAGE = ("Cast", "QuantizeLinear", "DequantizeLinear")  # operators before the resizing in f16 and int8 files
_TYPES: dict[int, str] = {1: "float32", 10: "float16"}  # TensorProto.DataType
_ELEMENTS = {name: number for number, name in _TYPES.items()}

# Field numbers: GraphProto, NodeProto, AttributeProto, TensorProto, ValueInfoProto, TypeProto and its parts
_GRAPH_INPUT, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 11, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_TENSOR_DIMENSIONS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_EXTERNAL = 1, 2, 8, 9, 13
_VALUE_NAME, _VALUE_TYPE = 1, 2
_TYPE_TENSOR, _TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 1, 2
_SHAPE_DIMENSION, _DIMENSION_NUMBER, _DIMENSION_NAME = 1, 1, 2


class EditError(Exception):
    """The model is valid, but of a kind that cannot be cut."""


class Node(NamedTuple):
    """One operation: its operator, e.g. "Resize", the names of its input and output tensors, and its bytes."""

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: bytes


class Port(NamedTuple):
    """An input or output of a model: its name, the type of its numbers (TensorProto.DataType) and its shape."""

    name: str
    element: int
    shape: Shape


@dataclass(frozen=True)
class OnnxModel:
    """A parsed ONNX model: a graph of nodes and weights, and the parts that are copied unchanged.

    Attributes:
        inputs, outputs: of the whole model, in order, without weights.
        nodes: in an order of computation.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    _weights: Mapping[str, bytes] = field(repr=False)
    _outputs: Mapping[str, bytes] = field(repr=False)
    _around: bytes = field(repr=False)  # the model's fields but the graph
    _within: bytes = field(repr=False)  # the graph's other fields

    @classmethod
    def read(cls, model: bytes) -> Self:
        """Parse the content of an ONNX file.

        Raises:
            DamagedError: it is not one complete ONNX model.
            EditError: its graph contains other graphs, or weights are kept outside of the file.
        """
        file = io.BytesIO(model)
        parts = list(model_file.fields(file, 0, len(model)))
        graphs = [part for part in parts if part.number == model_file.MODEL_GRAPH]
        if len(graphs) != 1:
            raise model_file.DamagedError(f"it has {len(graphs)} graphs")
        around = b"".join(model[part.begin : part.end] for part in parts if part.number != model_file.MODEL_GRAPH)
        return cls._read_graph(model, list(model_file.fields(file, graphs[0].start, graphs[0].length)), around)

    @classmethod
    def _read_graph(cls, model: bytes, parts: list[model_file.Field], around: bytes) -> Self:
        file = io.BytesIO(model)
        known: dict[int, list[model_file.Field]] = {
            number: [part for part in parts if part.number == number]
            for number in (
                model_file.GRAPH_NODE,
                model_file.GRAPH_INITIALIZER,
                _GRAPH_INPUT,
                _GRAPH_OUTPUT,
                _GRAPH_VALUE_INFO,
            )
        }
        outputs = known[_GRAPH_OUTPUT]
        weights = {
            _weight_name(file, part): model[part.begin : part.end] for part in known[model_file.GRAPH_INITIALIZER]
        }
        inputs = (_port(file, part) for part in known[_GRAPH_INPUT])
        return cls(
            inputs=tuple(port for port in inputs if port.name not in weights),
            outputs=tuple(_port(file, part) for part in outputs),
            nodes=tuple(_node(file, part) for part in known[model_file.GRAPH_NODE]),
            _weights=weights,
            _outputs={_port(file, part).name: _source(file, part) for part in outputs},
            _around=around,
            _within=b"".join(model[part.begin : part.end] for part in parts if part.number not in known),
        )

    def cut(self, inputs: Sequence[Port], outputs: Sequence[str]) -> bytes:
        """The model that computes the tensors `outputs` from the tensors `inputs`.

        Raises:
            EditError: the outputs depend on other inputs, or not on all of these.
        """
        names = [port.name for port in inputs]
        nodes, sources = self._leading_to(outputs, names)
        if sources != set(names):
            raise EditError(f"the outputs are made from {sorted(sources)}, not from {sorted(names)}")
        used = {name for node in nodes for name in node.inputs}
        graph = [
            self._within,
            *(node.source for node in nodes),
            *(source for name, source in self._weights.items() if name in used),
            *(_message(_GRAPH_INPUT, _value_info(port)) for port in inputs),
            *(self._outputs.get(name) or _message(_GRAPH_OUTPUT, _name(name)) for name in outputs),
        ]
        return self._around + _message(model_file.MODEL_GRAPH, b"".join(graph))

    def _leading_to(self, outputs: Sequence[str], inputs: Sequence[str]) -> tuple[list[Node], set[str]]:
        """The nodes that `outputs` depend on, up to `inputs`, and the inputs, of these or the model, that they need."""
        makers = {name: index for index, node in enumerate(self.nodes) for name in node.outputs}
        ends = {*inputs, *(port.name for port in self.inputs)}
        needed, seen, waiting = set(), set[str](), list(outputs)
        while waiting:
            name = waiting.pop()
            if name in seen or not name:  # an empty name is an argument left out
                continue
            seen.add(name)
            if name not in ends and name in makers:
                needed.add(makers[name])
                waiting += self.nodes[makers[name]].inputs
        return [self.nodes[index] for index in sorted(needed)], seen & ends


def _node(file: io.BytesIO, part: model_file.Field) -> Node:
    operator, inputs, outputs = "", list[str](), list[str]()
    for item in model_file.fields(file, part.start, part.length):
        if item.number == model_file.NODE_OPERATOR:
            operator = model_file.read_text(file, item)
        elif item.number == _NODE_INPUT:
            inputs.append(model_file.read_text(file, item))
        elif item.number == _NODE_OUTPUT:
            outputs.append(model_file.read_text(file, item))
        elif item.number == _NODE_ATTRIBUTE and _holds(file, item, (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS)):
            raise EditError("a node holds a graph, which may use any tensor")
    return Node(operator, tuple(inputs), tuple(outputs), _source(file, part))


def _weight_name(file: io.BytesIO, part: model_file.Field) -> str:
    if _holds(file, part, (_TENSOR_EXTERNAL,)):
        raise EditError("weights are kept outside of the file")
    return next((model_file.read_text(file, item) for item in _items(file, part, _TENSOR_NAME)), "")


def _port(file: io.BytesIO, part: model_file.Field) -> Port:
    name, element, shape = "", 0, list[int | str]()
    for item in model_file.fields(file, part.start, part.length):
        if item.number == _VALUE_NAME:
            name = model_file.read_text(file, item)
        elif item.number == _VALUE_TYPE:
            for tensor in _items(file, item, _TYPE_TENSOR):
                element = next((kind.value for kind in _items(file, tensor, _TENSOR_ELEMENT)), 0)
                for dimensions in _items(file, tensor, _TENSOR_SHAPE):
                    shape += (_length(file, item) for item in _items(file, dimensions, _SHAPE_DIMENSION))
    return Port(name, element, tuple(shape))


def _length(file: io.BytesIO, dimension: model_file.Field) -> int | str:
    """A number, or a name, which is empty if missing."""
    for item in model_file.fields(file, dimension.start, dimension.length):
        return item.value if item.number == _DIMENSION_NUMBER else model_file.read_text(file, item)
    return ""


def _items(file: io.BytesIO, part: model_file.Field, number: int) -> Iterator[model_file.Field]:
    return (item for item in model_file.fields(file, part.start, part.length) if item.number == number)


def _holds(file: io.BytesIO, part: model_file.Field, numbers: tuple[int, ...]) -> bool:
    return any(item.number in numbers for item in model_file.fields(file, part.start, part.length))


def _source(file: io.BytesIO, part: model_file.Field) -> bytes:
    return file.getbuffer()[part.begin : part.end].tobytes()


def _value_info(port: Port) -> bytes:
    """A ValueInfoProto."""
    shape = b"".join(_message(_SHAPE_DIMENSION, _dimension(length)) for length in port.shape)
    tensor = _number(_TENSOR_ELEMENT, port.element) + _message(_TENSOR_SHAPE, shape)
    return _name(port.name) + _message(_VALUE_TYPE, _message(_TYPE_TENSOR, tensor))


def _name(name: str) -> bytes:
    """A ValueInfoProto without type and shape, which engines infer."""
    return _message(_VALUE_NAME, name.encode())


def _dimension(length: int | str) -> bytes:
    if isinstance(length, str):
        return _message(_DIMENSION_NAME, length.encode())
    return _number(_DIMENSION_NUMBER, length)


def _message(number: int, content: bytes) -> bytes:
    """A field with `content`."""
    return _varint(number << 3 | model_file.BYTES) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3 | model_file.VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def read_with_path_inputs(options: SessionOptions) -> bytes:
    """The ONNX model of a file with an input for every path of `options.path_ratios` in place of the image.

    Raises:
        ModelFileError: the file is damaged, or its model does not resize one image for such paths.
    """
    assert options.path_ratios is not None
    with edit_errors(options.path), model_file.open_whole(options.path) as file:
        return split_at_paths(OnnxModel.read(file.read()), options.path_ratios, size=options.input_size)


def split_at_paths(model: OnnxModel, ratios: Sequence[Fraction], *, size: Size | None) -> bytes:
    """The part of an ONNX model after the resizing of the image, as an ONNX model with an input for every path.

    Args:
        model: with one input, N x C x H x W.
        ratios: of its paths, in the order of the new inputs.
        size: (H, W) that the model is to be fixed to; None leaves it unchanged.

    Raises:
        EditError: the model is not of this kind, has other paths, or is for another size.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise EditError("it does not take one image")
    image, found = model.inputs[0], dict[str, Port]()

    def resized(tried: Size) -> Mapping[str, Sequence[object]]:
        found.update(_resized_images(model, tried))
        return {name: port.shape[2:] for name, port in found.items()}

    inputs = []
    for path, (name, fixed) in enumerate(find_path_inputs(image.shape[2:], ratios, size, resized)):
        free = ("batch", image.shape[1], f"height_{path}", f"width_{path}")
        shape = free if fixed is None else (1, image.shape[1], *fixed)
        inputs.append((image if name is None else found[name])._replace(shape=shape))
    return model.cut(inputs, [port.name for port in model.outputs])


def find_path_inputs(
    own: Sequence[object],
    ratios: Sequence[Fraction],
    size: Size | None,
    resized: Callable[[Size], Mapping[str, Sequence[object]]],
) -> list[tuple[str | None, Size | None]]:
    """The tensors of a model that can be its paths' inputs, identified by their sizes, not their names.

    Args:
        own: height and width that the model takes; no number where one is free.
        ratios: of the paths.
        size: (height, width) that the model is to be fixed to; None leaves it unchanged.
        resized: image size -> the tensors that the model resizes such an image to, by name, with height and width.

    Returns:
        For every path the name of its tensor, None for the image itself (ratio 1), and its (height, width), None if
        free.

    Raises:
        EditError: the model is for another size, or resizes the image to other sizes.
    """
    tried = _size_to_try(own, size)
    is_fixed = size is not None or all(isinstance(length, int) for length in own)
    sizes = [path_size(tried, ratio) for ratio in ratios]
    names = _choose(resized(tried), [None if ratio == 1 else each for ratio, each in zip(ratios, sizes, strict=True)])
    return [(name, each if is_fixed else None) for name, each in zip(names, sizes, strict=True)]


@contextlib.contextmanager
def edit_errors(path: Path) -> Iterator[None]:
    """An `EditError` in the block becomes a `ModelFileError` that names the file."""
    try:
        yield
    except EditError as error:
        raise ModelFileError(f"{path} cannot take its paths' inputs: {error}") from None


def _size_to_try(own: Sequence[object], size: Size | None) -> Size:
    """The model's own size; where its height or width is free, that of `size` or `TRIED_SIZE`."""
    height, width = (n if isinstance(n, int) else free for n, free in zip(own, size or TRIED_SIZE, strict=True))
    if size not in (None, (height, width)):
        raise EditError(f"it is for {own}, not for {size}")
    return height, width


def _choose(found: Mapping[str, Sequence[object]], wanted: Sequence[Size | None]) -> list[str | None]:
    """The names of the tensors of the wanted sizes, in that order; None where none is wanted."""
    left = dict(found)
    names: list[str | None] = []
    for size in wanted:
        name = next((name for name, own in left.items() if own == size), None)
        if size is not None and left.pop(name or "", None) is None:
            raise EditError(f"the image is resized to {list(found.values())}, not to {size}")
        names.append(name)
    if left or not any(names):
        raise EditError(f"the image is resized to {list(found.values())}; its paths take {list(wanted)}")
    return names


def _resized_images(model: OnnxModel, size: Size) -> dict[str, Port]:
    """The tensors that the image is resized to, by name, with their shapes for an image of `size`."""
    same = {model.inputs[0].name}
    names: list[str] = []
    for node in model.nodes:
        if node.inputs and node.inputs[0] in same:
            if node.operator in _SAME_IMAGE:
                same.update(node.outputs)
            elif node.operator == "Resize":
                names += node.outputs
    return {port.name: port for port in _compute(model, names, size)} if names else {}


def _compute(model: OnnxModel, names: Sequence[str], size: Size) -> list[Port]:
    """Types and shapes of tensors that depend on the image alone, computed by ONNX Runtime from a black image."""
    import onnxruntime

    shape = (1, int(model.inputs[0].shape[1]), *size)
    image = model.inputs[0]._replace(shape=shape)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # errors are raised
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(model.cut([image], names), settings, providers=["CPUExecutionProvider"])
        results = session.run(list(names), {image.name: np.zeros(shape, _TYPES[image.element])})
        return [Port(name, _ELEMENTS[each.dtype.name], each.shape) for name, each in zip(names, results, strict=True)]
    except EditError:
        raise
    except Exception as error:  # the engine's errors have no common base
        raise EditError(f"its front cannot be computed: {one_line(error)}") from None


def read_weights(file: BinaryIO) -> dict[str, NDArray[np.float32]]:
    """The floating-point weights in an open ONNX file, as float32; names without the suffix `.f16`.

    Raises:
        DamagedError: it is not one complete ONNX model.
    """
    weights = {}
    for model_field in model_file.fields(file, 0, model_file.file_size(file)):
        if model_field.number == model_file.MODEL_GRAPH:
            for part in model_file.fields(file, model_field.start, model_field.length):
                if part.number == model_file.GRAPH_INITIALIZER and (found := _weight(file, part)) is not None:
                    weights[found[0].removesuffix(".f16")] = found[1]
    return weights


def _weight(file: BinaryIO, tensor: model_file.Field) -> tuple[str, NDArray[np.float32]] | None:
    """Name and values of an initializer; None for whole numbers, and for values that are not kept as raw bytes."""
    parts = list(model_file.fields(file, tensor.start, tensor.length))
    kind = next((_TYPES.get(part.value) for part in parts if part.number == _TENSOR_DATA_TYPE), None)
    raw = next((part for part in parts if part.number == _TENSOR_RAW), None)
    name = next((model_file.read_text(file, part) for part in parts if part.number == _TENSOR_NAME), "")
    if kind is None or raw is None:
        return None
    shape = [part.value for part in parts if part.number == _TENSOR_DIMENSIONS]
    file.seek(raw.start)
    try:
        return name, np.frombuffer(file.read(raw.length), kind).reshape(shape).astype(np.float32)
    except (ValueError, OverflowError):
        size = "x".join(map(str, shape))
        raise model_file.DamagedError(f"the weight {name!r} has {raw.length} bytes, not those of {size}") from None

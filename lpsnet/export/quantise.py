"""INT8 after training: weights and activations in 8 bits, with ranges measured on the user's own images.

Convolutions and the operations between them are quantised. Weights get a scale for each output channel, activations
one for a whole map, from the smallest and largest value while calibrating: clipping moved logits up to twice as far as
the coarser steps do. The first block of every path stays in floating point: it takes 3 % of the time of a network as
large as LPS-Net-M, labels stay closer (on CamVid 97.8 % of the pixels keep theirs instead of 97.6 %), and it is the
first to overflow, see below.

NNCF quantises for OpenVINO, ONNX Runtime's own quantiser for ONNX, Google's ai-edge-quantizer for LiteRT. All eight
bits of weights and activations are used, which needs VNNI or the like for unsigned ones: on x86 processors without it,
sums of two products can exceed 16 bits.
"""

import contextlib
import io
import logging
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Image
from lpsnet.errors import MissingDependencyError, ModelFileError, unknown_name
from lpsnet.inference.preprocess import prepare
from lpsnet.record import ModelRecord

Size = tuple[int, int]  # height and width of an image, in pixels

FloatLayer = Literal["first", "last"]

# part of the network -> beginnings of the names of its nodes, `{}` the number of a path
_NODE_NAMES: dict[FloatLayer, str] = {"first": "/paths.{}/stages.0/stages.0.0/", "last": "/head/"}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a network is brought to int8.

    Attributes:
        images: to calibrate on, H x W x 3 uint8 RGB each, such as the network will see; read one at a time.
        float_layers: what stays in floating point: "first" the first block of every path, "last" the head.
    """

    images: Sequence[Image] = field(repr=False)
    float_layers: tuple[FloatLayer, ...] = ("first",)

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise ModelFileError("int8 needs images to calibrate on, such as the network will see; none were given")
        for layer in self.float_layers:
            if layer not in _NODE_NAMES:
                raise ModelFileError(unknown_name("layer to keep in floating point", layer, get_args(FloatLayer)))


def check_quantisation(quantisation: Quantisation | None) -> Quantisation:
    """`quantisation`, which an export in int8 takes; ModelFileError without it."""
    if quantisation is None:
        raise ModelFileError("int8 needs images to calibrate on, such as the network will see; none were given")
    return quantisation


def quantise_for_openvino(model: Any, quantisation: Quantisation, *, record: ModelRecord, size: Size | None) -> Any:
    """A quantised copy of an `openvino.Model` with one input, a normalised image.

    Args:
        model: of a deployed network, as converted from our ONNX.
        quantisation: images, and what stays as it is.
        record, size: how images are prepared; None for `size` takes the record's, or every image's own.

    Raises:
        MissingDependencyError: nncf is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # switches off NNCF's telemetry
    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise MissingDependencyError.for_extra("nncf", "openvino") from error
    images = _Prepared(quantisation.images, record, size)
    operations = [(operation.get_friendly_name(), operation.get_type_name()) for operation in model.get_ordered_ops()]
    names = _float_nodes(operations, quantisation.float_layers, record)
    with _quietly("nncf"):
        return nncf.quantize(
            model,
            nncf.Dataset(images),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(names=names, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.DISABLE,  # else the first layer quantised has seven bits
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
            ),
        )


# What TensorRT wants in place of ONNX Runtime's ways: signed and symmetric activations, float biases, and weights in
# f32 that are quantised when the engine is built (TensorRT's documentation, 'Explicit quantization').
_FOR_TENSORRT = {
    "ActivationSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "DedicatedQDQPair": True,
}


def quantise_onnx(
    model: Any, quantisation: Quantisation, *, record: ModelRecord, size: Size | None, for_tensorrt: bool = False
) -> Any:
    """A quantised copy of an `onnx.ModelProto`, with pairs of QuantizeLinear and DequantizeLinear; without metadata.

    Arguments as for `quantise_for_openvino`.

    Args:
        for_tensorrt: quantise as TensorRT wants it.

    Raises:
        MissingDependencyError: a package is not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingDependencyError.for_extra(error.name or "onnx", "export") from error
    images = _Prepared(quantisation.images, record, size)
    nodes = [(node.name, node.op_type) for node in model.graph.node]
    names = _float_nodes(nodes, quantisation.float_layers, record)
    activations = quantization.QuantType.QInt8 if for_tensorrt else quantization.QuantType.QUInt8
    with _quietly(None), tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        quantization.quantize_static(
            model,
            Path(folder) / "int8.onnx",
            _reader(quantization, images, model.graph.input[0].name),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=activations,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            nodes_to_exclude=names,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            extra_options=dict(_FOR_TENSORRT) if for_tensorrt else {},
        )
        quantised = onnx.load(Path(folder) / "int8.onnx")
    del quantised.metadata_props[:]
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    return quantised


def quantise_for_litert(content: bytes, quantisation: Quantisation, *, record: ModelRecord, size: Size | None) -> bytes:
    """A quantised copy of a `.tflite` file of ours, with float input and output; arguments as before.

    Raises:
        MissingDependencyError: ai-edge-quantizer is not installed.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
    except ImportError:
        raise MissingDependencyError.for_extra("ai_edge_quantizer", "litert") from None
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    rules = [*recipe.static_wi8_ai8(), *_float_rules(schema, model, quantisation, record)]
    made = {index for own in model.subgraphs[0].operators for index in own.outputs}
    ranges = _ranges(content, made, _Prepared(quantisation.images, record, size))
    with _quietly(None), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about memory that it takes
        quantiser = quantizer.Quantizer(content, rules)
        found = quantiser.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(found.quantized_model)


def _ranges(content: bytes, made: set[int], images: "_Prepared") -> dict[str, dict[str, NDArray[np.float32]]]:
    """The least and the largest value, over all images, of the image and of the maps that are made, by their names.

    Not of weights: the quantiser would take one range for all of their channels.
    """
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the memory that keeping all maps takes
        interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    maps = [own for own in interpreter.get_tensor_details() if own["index"] in {entry["index"], *made}]
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    for image in images:
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        for own in maps:
            values = interpreter.get_tensor(own["index"])
            least, most = (np.full((1,) * values.ndim, end, np.float32) for end in (values.min(), values.max()))
            before = found.setdefault(own["name"], {"min": least, "max": most})
            found[own["name"]] = {"min": np.minimum(before["min"], least), "max": np.maximum(before["max"], most)}
    return found


_KINDS = {"CONV_2D": "Conv", "DEPTHWISE_CONV_2D": "Conv"}


def _float_rules(
    schema: Any, model: Any, quantisation: Quantisation, record: ModelRecord
) -> Iterator[Mapping[str, Any]]:
    """Rules of the quantiser for the operators that stay in floating point; it knows one by the name of what it gives.

    Where the first layer stays, so does what is done to the image before it.
    """
    codes = {getattr(schema.BuiltinOperator, code): kind for code, kind in _KINDS.items()}
    graph = model.subgraphs[0]
    nodes = [
        (graph.tensors[own.outputs[0]].name.decode(), codes.get(model.operatorCodes[own.opcodeIndex].builtinCode, ""))
        for own in graph.operators
    ]
    kept = set(_float_nodes(nodes, quantisation.float_layers, record))
    if "first" in quantisation.float_layers:
        kept.update(name for name, _ in takewhile(lambda node: node[1] != "Conv", nodes))
    yield from (_float_rule(f"^{re.escape(name)};?$", "*") for name, _ in nodes if name in kept)
    yield from (_float_rule(".*", end) for end in ("INPUT", "OUTPUT"))


def _float_rule(names: str, operators: str) -> dict[str, Any]:
    return {"regex": names, "operation": operators, "algorithm_key": "no_quantize", "op_config": {}}


# in ONNX, and in OpenVINO
_CONVOLUTIONS = ("Conv", "Convolution", "GroupConvolution")


def _float_nodes(nodes: Sequence[tuple[str, str]], layers: Sequence[FloatLayer], record: ModelRecord) -> list[str]:
    """Those of a graph's nodes, given as name and kind in the order of computation, that belong to `layers`.

    Of a network of other code these are the first and the last convolution.
    """
    names = [name for name, _ in nodes]
    if record.architecture is None:
        convolutions = [name for name, kind in nodes if kind in _CONVOLUTIONS]
        ends = {"first": convolutions[:1], "last": convolutions[-1:]}
        return [name for layer in layers for name in ends[layer]]
    paths = range(record.architecture.num_paths)
    starts = tuple({_NODE_NAMES[layer].format(path) for layer in layers for path in paths})
    return [name for name in names if name.startswith(starts)] if starts else []


class _Prepared:
    """Images as the network is given them, 1 x 3 x H x W, each made when it is asked for."""

    def __init__(self, images: Sequence[Image], record: ModelRecord, size: Size | None) -> None:
        self._images, self._record, self._size = images, record, size or record.input_size

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (prepare(image, self._record, size=self._size) for image in self._images)


def _reader(quantization: Any, images: _Prepared, name: str) -> Any:
    """The images as ONNX Runtime's quantiser reads them."""
    left = iter(images)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(left, None)
            return None if image is None else {name: image}

    return Reader()


@contextlib.contextmanager
def _quietly(logger: str | None) -> Iterator[None]:
    """Without a quantiser's remarks, which are for those who wrote the call of it, and without its progress: standard
    output may hold our JSON. `logger` None is the root logger."""
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        log.setLevel(level)

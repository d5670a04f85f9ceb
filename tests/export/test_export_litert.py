"""LiteRT files: written operator by operator, against torch and ONNX Runtime; what they hold, and how they are refused.

The whole export is compared with the network in torch by its labels. Single operators are compared with ONNX Runtime.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'lpsnet[litert]'")

import onnx
import torch
import torch.nn.functional as F
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from export_networks import SIZE, images, network, record_of
from onnx import TensorProto, helper, numpy_helper
from trained_networks import expected_labels, trained

from lpsnet.benchmark import benchmark
from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export import litert as exporter
from lpsnet.export.export import beside_other_precisions, export, quantise_file
from lpsnet.export.litert import export_litert, order, same_padding
from lpsnet.export.quantise import Quantisation
from lpsnet.export.verify import ExportReport
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import TFLITE_CHECKSUM, read_metadata, read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import default_record
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.record import RECORD_KEY


def exported(net: Network, path: Path, size: tuple[int, int] = SIZE, **options: Any) -> ExportReport:
    return export_litert(net, path, record=record_of(net), size=size, **options)


def torch_labels(net: Network, image: np.ndarray) -> np.ndarray:
    """By torch alone: normalised, computed, resized, argmax."""
    normalisation = record_of(net).normalisation
    mean, std = (torch.tensor(values) for values in (normalisation.mean, normalisation.std))
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        logits = fuse(net)(pixels)
    whole = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=net.align_corners)
    return whole.argmax(1)[0].numpy()


def file_of(path: Path) -> Any:
    return schema.ModelT.InitFromPackedBuf(path.read_bytes())


def operators(path: Path) -> list[str]:
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = file_of(path)
    return [names[model.operatorCodes[own.opcodeIndex].builtinCode] for own in model.subgraphs[0].operators]


def test_the_report_and_the_record(tmp_path: Path) -> None:
    net = network()
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = exported(net, tmp_path / "m.tflite", images=images(1))
    assert [file.name for file in tmp_path.iterdir()] == ["m.tflite"]
    assert (report.format, report.precision, report.size) == ("litert", "f32", SIZE)
    assert report.num_bytes == (tmp_path / "m.tflite").stat().st_size
    assert report.engine.startswith("litert ")
    assert [check.image for check in report.checks] == ["noise", "smooth", "image 1"]
    assert report.score_difference < 1e-5
    record = read_record(report.path)
    assert (record.form, record.input_size, record.architecture) == ("deployed", SIZE, net.architecture)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize("size", [(48, 80), (64, 96), (97, 131), (50, 35)])
@pytest.mark.parametrize("align_corners", [True, False])
def test_labels_are_torchs(tmp_path: Path, size: tuple[int, int], align_corners: bool) -> None:
    net = network(align_corners=align_corners)
    exported(net, tmp_path / "m.tflite", size)
    segment = Segmenter(tmp_path / "m.tflite", num_threads=1)
    assert segment.session.runtime == "litert"
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert (np.asarray(segment(image)) == torch_labels(net, image)).mean() >= 0.999


FAST = [("conv3x3", "bilateral_b"), ("shufflenet", "attention_b"), ("bottleneck", "direct_b"), ("ghost", "attention_a")]


@pytest.mark.parametrize(
    ("block", "interaction"),
    [
        pytest.param(block, interaction, marks=[] if (block, interaction) in FAST else pytest.mark.slow)
        for block in BLOCKS
        for interaction in INTERACTIONS
    ],
)
def test_every_block_and_interaction(tmp_path: Path, block: str, interaction: str) -> None:
    net = network(block=block, interaction=interaction)
    assert exported(net, tmp_path / "m.tflite", (65, 99)).score_difference < 1e-5


@pytest.mark.parametrize("extra", ["D=8;X=gate", "D=4;X=pyramid;H=16"])
def test_finer_logits_and_context(tmp_path: Path, extra: str) -> None:
    torch.manual_seed(0)
    net = create_model(f"B=1,1,1,1,1;C=4,8,8,8,8;R=1,1/2;{extra}", num_classes=4)
    for parameter in (*net.context.parameters(), *net.details.parameters(), net.head.weight):
        torch.nn.init.normal_(parameter)  # they are made without effect
    report = export_litert(net, tmp_path / "m.tflite", record=record_of(net), size=(65, 99))
    assert report.score_difference < 1e-5


@pytest.mark.parametrize("name", ["plain", "stride_32", "full_size", "unet", "padding", "tied", "frozen"])
def test_networks_of_other_code(name: str, tmp_path: Path) -> None:
    net, path, size = trained(name), tmp_path / "net.tflite", (64, 96)
    export(net, path, to="litert", record=default_record(net), size=size)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert (np.asarray(Segmenter(path)(image)) == expected_labels(net, image)).mean() > 0.999


def test_what_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    net = trained("transformer")
    with pytest.raises(ModelFileError, match="reshape of height and width is not written for LiteRT here") as caught:
        export(net, tmp_path / "net.tflite", to="litert", record=default_record(net), size=(64, 96))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def weights(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(kind: str, **attributes: Any) -> Any:
    """From "x", and constants given by position, to "y"."""
    constants = attributes.pop("constants", ())
    inputs = ["x", *(f"c{number}" if values is not None else "" for number, values in enumerate(constants))]
    tensors = [
        numpy_helper.from_array(np.asarray(values), f"c{number}")
        for number, values in enumerate(constants)
        if values is not None
    ]
    return helper.make_node(kind, inputs, ["y"], name=f"the {kind}", **attributes), tensors


SINGLE: dict[str, Any] = {
    "padded on one side": node("Conv", constants=[weights(5, 6, 3, 3)], pads=[0, 1, 2, 0], strides=[2, 1]),
    "padded as SAME": node("Conv", constants=[weights(5, 6, 3, 3), weights(5)], pads=[1, 1, 1, 1]),
    "dilated": node("Conv", constants=[weights(5, 6, 3, 3), weights(5)], pads=[2, 2, 2, 2], dilations=[2, 2]),
    "depthwise": node("Conv", constants=[weights(6, 1, 5, 5), weights(6)], pads=[2, 2, 2, 2], group=6, strides=[2, 2]),
    "depthwise, two each": node("Conv", constants=[weights(12, 1, 3, 3), weights(12)], group=6),
    "grouped": node("Conv", constants=[weights(4, 3, 3, 3), weights(4)], group=2),
    "max pool": node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "average pool": node("AveragePool", kernel_shape=[5, 5], strides=[2, 2], pads=[2, 2, 2, 2], count_include_pad=1),
    "mean of all": node("GlobalAveragePool"),
    "mean": node("ReduceMean", axes=[3, 2], keepdims=1),
    "scaled by channel": node("Mul", constants=[weights(6, 1, 1)]),
    "scaled by row": node("Mul", constants=[weights(1, 1, 9, 1)]),
    "divided": node("Div", constants=[np.float32(3)]),
    "the larger": node("Max", constants=[np.float32(0.1)]),
    "the smaller": node("Min", constants=[np.float32(0.1)]),
    "tanh": node("Tanh"),
    "hard swish": node("HardSwish"),
    "sigmoid": node("Sigmoid"),
    "clip": node("Clip", constants=[np.float32(0), np.float32(6)]),
    "clip without an upper end": node("Clip", constants=[np.float32(0), None]),
    "channels": node("Slice", constants=[np.array([1]), np.array([2**40]), np.array([1])]),
    "pixels": node("Slice", constants=[np.array([1, 0]), np.array([9, -1]), np.array([2, 3]), np.array([2, 3])]),
    "around": node("Pad", constants=[np.array([0, 0, 1, 2, 0, 1, 3, 0])]),
    "shuffled": node("Reshape", constants=[np.array([1, 2, 3, 9, 10])]),
    "an axis more": node("Unsqueeze", constants=[np.array([2])]),
    "batch norm": node(
        "BatchNormalization",
        constants=[weights(6), weights(6, seed=2), weights(6, seed=3), np.abs(weights(6, seed=4))],
        epsilon=1e-3,
    ),
    "bilinear, corners": node(
        "Resize",
        constants=[None, None, np.array([1, 6, 23, 7])],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    "bilinear, pixels": node(
        "Resize",
        constants=[None, None, np.array([1, 6, 5, 31])],
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    ),
    "nearest": node(
        "Resize",
        constants=[None, None, np.array([1, 6, 18, 20])],
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    ),
}
IMAGE = weights(1, 6, 9, 10, seed=7)


def graph_of(own: Any, tensors: list[Any]) -> Any:
    """A model of that node between 1 x 6 x 9 x 10 and what it gives."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([own], "g", [image], [result], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


@pytest.mark.parametrize("name", SINGLE)
def test_an_operator_computes_what_onnx_runtime_does(name: str) -> None:
    import onnxruntime

    model = graph_of(*SINGLE[name])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": IMAGE})
    content = exporter.pack(schema, exporter._Graph(schema, model, half=False).model())
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], IMAGE.transpose(0, 2, 3, 1))
    interpreter.invoke()
    given = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(given, expected.transpose(order(expected.ndim)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("Softmax", node("Softmax")),
        ("clip to", node("Clip", constants=[np.float32(-2), np.float32(3)])),
        ("depends on the size", node("Conv", constants=[weights(5, 6, 3, 3)], auto_pad="SAME_UPPER")),
        ("anything but zeros", node("Pad", constants=[np.array([0, 0, 1, 2, 0, 1, 3, 0])], mode="reflect")),
        ("leaves its padding out", node("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])),
        ("runs backwards", node("Slice", constants=[np.array([-1]), np.array([-9]), np.array([2]), np.array([-1])])),
        ("but height and width", node("ReduceMean", axes=[1], keepdims=1)),
        (
            "by cubic",
            node("Resize", constants=[None, None, np.array([1, 6, 18, 20])], mode="cubic"),
        ),
    ],
)
def test_an_operator_that_is_not_written_is_named(name: str, own: Any) -> None:
    with pytest.raises(ModelFileError, match=rf"{name}.*: the {own[0].op_type}$"):
        exporter._Graph(schema, graph_of(*own), half=False)


@pytest.mark.parametrize("length", [1, 2, 7, 8, 48])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_tensorflows_padding(length: int, kernel: int, stride: int) -> None:
    """Its definition: ceil(length / stride) outputs from the fewest zeros, the odd one at the end."""
    before, after = same_padding(length, kernel, stride)
    outputs = (length + before + after - kernel) // stride + 1
    assert outputs == -(-length // stride)
    assert after - before in (0, 1)
    if before + after > 0:
        assert (length + before + after - 1 - kernel) // stride + 1 < outputs, "one zero fewer is too few"


def test_activations_become_part_of_the_operator_before(tmp_path: Path) -> None:
    exported(network(block="inverted_residual"), tmp_path / "m.tflite")
    assert not {"RELU", "RELU6", "TRANSPOSE"} & set(operators(tmp_path / "m.tflite"))
    functions = {
        own.builtinOptions.fusedActivationFunction
        for own in file_of(tmp_path / "m.tflite").subgraphs[0].operators
        if hasattr(own.builtinOptions, "fusedActivationFunction")
    }
    assert functions == {schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU6}


def test_weights_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    exported(network(), path)
    content, checked = path.read_bytes(), 0
    for buffer in file_of(path).buffers:
        if buffer.data is not None and len(buffer.data) > 100:
            data = bytes(buffer.data)
            assert content.count(data) == 1
            assert content.index(data) % 16 == 0
            checked += 1
    assert checked > 10


def test_weights_in_f16_take_half_the_space(tmp_path: Path) -> None:
    net = network()
    whole = exported(net, tmp_path / "whole.tflite")
    half = exported(net, tmp_path / "half.tflite", precision="f16")
    assert 1e-5 < half.score_difference < 1e-2
    num_weights = sum(weight.numel() for weight in fuse(net).parameters() if weight.dim() > 1)
    assert whole.num_bytes - half.num_bytes > 1.5 * num_weights
    assert open_session("litert", SessionOptions(half.path, num_threads=1)).precision == "f32"
    with pytest.raises(ModelFileError, match="f16 was asked for, but the engine would compute"):
        open_session("litert", SessionOptions(half.path, "f16", num_threads=1))


def test_int8_weights_are_rounded_on_a_scale_of_their_own_channel(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_quantizer")
    net = network()
    report = exported(net, tmp_path / "m.tflite", precision="int8", quantisation=Quantisation(images()))
    assert (report.precision, report.num_calibration_pictures) == ("int8", 4)
    assert open_session("litert", SessionOptions(report.path, "int8", num_threads=1)).precision == "int8"
    tensors = {own.name.decode(): own for own in file_of(report.path).subgraphs[0].tensors}
    buffers, kinds = file_of(report.path).buffers, schema.TensorType
    checked, floats = 0, []
    for name, weight in fuse(net).named_parameters():
        if weight.dim() != 4:
            continue
        own = tensors[name]
        if own.type == kinds.FLOAT32:
            floats.append(name)
            continue
        assert own.type == kinds.INT8
        original = weight.detach().numpy().transpose(0, 2, 3, 1)
        integers = buffers[own.buffer].data.view(np.int8).reshape(original.shape)
        scales = np.asarray(own.quantization.scale)
        np.testing.assert_allclose(scales, np.abs(original).max(axis=(1, 2, 3)) / 127, rtol=1e-3)
        assert np.abs(integers * scales[:, None, None, None] - original).max() <= scales.max() * 0.51
        checked += 1
    assert checked > 8
    assert floats == [f"paths.{path}.stages.0.0.unit.conv.weight" for path in (0, 1)], "the first block of every path"
    ends = file_of(report.path).subgraphs[0]
    assert {ends.tensors[index].type for index in (*ends.inputs, *ends.outputs)} == {kinds.FLOAT32}


def test_the_image_is_resized_before_it_is_rounded(tmp_path: Path) -> None:
    """Where the first block stays in floating point, so do the steps before it; without that, nothing does."""
    pytest.importorskip("ai_edge_quantizer")
    for layers, kept in ((("first",), 2), ((), 0)):
        quantisation = Quantisation(images(), layers)  # type: ignore[arg-type]
        report = exported(network(), tmp_path / "m.tflite", precision="int8", quantisation=quantisation)
        names, graph = operators(report.path), file_of(report.path).subgraphs[0]
        floats = [
            name
            for name, own in zip(names, graph.operators, strict=True)
            if graph.tensors[own.outputs[0]].type == schema.TensorType.FLOAT32
        ]
        assert (floats.count("RESIZE_BILINEAR"), floats.count("CONV_2D")) == (kept, kept)


def test_a_file_in_f32_is_quantised_for_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ai_edge_quantizer")
    monkeypatch.setattr(benchmark, "PROTOCOLS", {"quick": TimingProtocol(warm_up_s=0, duration_s=0.01, turn_s=0.001)})
    net, whole = network(), tmp_path / "m.tflite"
    exported(net, whole)
    record, quantisation = read_record(whole), Quantisation(images())
    made = quantise_file(whole, runtime="litert", quantisation=quantisation, record=record, size=SIZE, folder=tmp_path)
    straight = exported(net, tmp_path / "n.tflite", precision="int8", quantisation=quantisation)
    image = images(1, seed=3)[0]
    np.testing.assert_array_equal(Segmenter(made)(image), Segmenter(straight.path)(image))
    found = beside_other_precisions(net, straight, record=record_of(net), num_threads=1)
    assert [result.precision for result in found.results] == ["f32", "int8"]


def test_the_record_is_read_without_litert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    exported(network(), path)
    for package in ("ai_edge_litert", "flatbuffers", "numpy"):
        monkeypatch.setitem(sys.modules, package, None)
    assert read_metadata(path).keys() == {RECORD_KEY}
    assert read_record(path).input_size == SIZE


def test_the_checksum_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    exported(network(), path)
    model, content = file_of(path), path.read_bytes()
    (entry,) = (own for own in model.metadata if own.name == TFLITE_CHECKSUM.encode())
    checksum = bytes(model.buffers[entry.buffer].data)
    assert content.count(checksum) == 1
    assert hashlib.sha256(content.replace(checksum, bytes(32))).digest() == checksum


def test_a_file_that_is_not_the_network_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(exporter.OPERATORS, "Add", exporter.OPERATORS["Mul"])
    with pytest.raises(ModelFileError, match="the exported file is not the network"):
        exported(network(), tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


def test_a_file_is_for_one_size(tmp_path: Path) -> None:
    net = network()
    with pytest.raises(ModelFileError, match=r"images of one size: --size HxW$"):
        export(net, tmp_path / "m.tflite", to="litert", record=record_of(net))
    record = record_of(net).model_copy(update={"input_size": SIZE})
    with pytest.raises(ModelFileError, match="its record names 48x80"):
        export(net, tmp_path / "m.tflite", to="litert", record=record)


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "m.onnx", "ends in .tflite"),
        ({"precision": "bf16"}, "m.tflite", "exported in f32, f16 or int8; got bf16"),
        ({"precision": "int8"}, "m.tflite", "int8 needs images"),
        ({"size": (16, 64)}, "m.tflite", "from 32x32 up"),
    ],
)
def test_senseless_wishes_are_refused(tmp_path: Path, options: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        exported(network(), tmp_path / name, **options)


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(MissingDependencyError, match=r"ai_edge_quantizer is not installed.*lpsnet\[litert\]"):
        exported(network(), tmp_path / "m.tflite", precision="int8", quantisation=Quantisation(images()))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependencyError, match=r"ai_edge_litert is not installed.*lpsnet\[litert\]"):
        exported(network(), tmp_path / "m.tflite")

"""Networks in int8: that they are, on what scale, and what is left out; against torch and arithmetic by hand."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
import torch
from export_networks import SIZE, images, network, record_of

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export import onnx as exporter
from lpsnet.export.onnx import export_onnx, export_openvino, export_tensorrt
from lpsnet.export.quantise import Quantisation
from lpsnet.export.verify import ExportReport
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.preprocess import prepare
from lpsnet.models.reparameterise import fuse

FIRST = "/paths.{}/stages.0/stages.0.0/unit/conv/Conv"


def quantised(path: Path, function: Any = export_onnx, *, layers: tuple[str, ...] = ("first",)) -> ExportReport:
    net = network()
    quantisation = Quantisation(images(), layers)  # type: ignore[arg-type]
    return function(
        net, path, record=record_of(net), size=SIZE, precision="int8", quantisation=quantisation, images=images(2)
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("int8") / "m.onnx"
    quantised(path)
    return onnx.load(path)


def values(model: Any, name: str) -> Any:
    return next(onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == name)


def maker(model: Any, output: str) -> Any:
    return next(node for node in model.graph.node if output in node.output)


def convolutions(model: Any) -> dict[str, Any]:
    return {node.name: node for node in model.graph.node if node.op_type == "Conv"}


def test_the_report_says_what_was_done(tmp_path: Path) -> None:
    report = quantised(tmp_path / "m.onnx")
    assert (report.precision, report.num_calibration_pictures) == ("int8", 4)
    assert [check.image for check in report.checks] == ["noise", "smooth", "image 1", "image 2"]
    assert 1e-3 < report.score_difference < 0.2
    session = open_session("onnxruntime", SessionOptions(tmp_path / "m.onnx", "int8", num_threads=1))
    assert session.precision == "int8"


def test_weights_are_rounded_on_a_scale_of_their_own_channel(model: Any) -> None:
    weights = dict(fuse(network()).named_parameters())
    checked = 0
    for conv in convolutions(model).values():
        source = maker(model, conv.input[1]) if conv.input[1].endswith("DequantizeLinear_Output") else None
        if source is None:
            continue
        integers, scales, zeros = (values(model, name) for name in source.input)
        original = weights[conv.input[1].removesuffix("_DequantizeLinear_Output")].detach().numpy()
        assert integers.dtype == np.int8
        assert scales.shape == (len(original),)
        assert not zeros.any()
        np.testing.assert_allclose(scales, np.abs(original).max(axis=(1, 2, 3)) / 127, rtol=1e-3)
        error = np.abs(integers * scales[:, None, None, None] - original)
        assert (error <= 0.501 * scales[:, None, None, None]).all()
        checked += 1
    assert checked == 2 * 4 + 1  # all but the first of every path, and the head


def test_the_range_of_a_map_is_that_seen_while_calibrating(model: Any) -> None:
    """The output of the first block of Stage 2: zero to the greatest value that torch finds on the same images."""
    net = network()
    deployed = fuse(net)
    greatest = 0.0

    def look(_: Any, __: Any, output: torch.Tensor) -> None:
        nonlocal greatest
        greatest = max(greatest, float(output.max()))

    deployed.paths[0].stages[1].register_forward_hook(look)
    with torch.inference_mode():
        for image in images():
            deployed(torch.from_numpy(prepare(image, record_of(net), size=SIZE)))
    conv = convolutions(model)["/paths.0/stages.2/stages.2.0/unit/conv/Conv"]
    _, scale, zero = maker(model, conv.input[0]).input
    assert values(model, scale) * 255 == pytest.approx(greatest, rel=0.05)  # of a network that is quantised before it
    assert values(model, zero) == 0


def in_float(model: Any) -> set[str]:
    weights = {tensor.name for tensor in model.graph.initializer}
    return {name for name, conv in convolutions(model).items() if conv.input[1] in weights}


def test_the_first_block_of_every_path_is_left_in_floating_point(model: Any) -> None:
    assert in_float(model) == {FIRST.format(0), FIRST.format(1)}


@pytest.mark.parametrize(("layers", "names"), [((), set()), (("last",), {"/head/Conv"})])
def test_other_layers_are_left_out_if_asked(tmp_path: Path, layers: tuple[str, ...], names: set[str]) -> None:
    quantised(tmp_path / "m.onnx", layers=layers)
    assert in_float(onnx.load(tmp_path / "m.onnx")) == names


def test_openvino_computes_it_in_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    report = quantised(tmp_path / "m.openvino", export_openvino)
    assert capsys.readouterr().out == ""  # standard output may hold our JSON
    assert os.environ["NNCF_CI"]  # nothing is sent to NNCF's makers
    assert 1e-3 < report.score_difference < 0.2
    session = open_session("openvino", SessionOptions(report.path, "int8", num_threads=1))
    assert session.precision == "int8"
    kernels = {
        info["originalLayersNames"].value: info["primitiveType"].value
        for info in (operation.get_rt_info() for operation in session._compiled.get_runtime_model().get_ordered_ops())  # type: ignore[attr-defined]
        if info["layerType"].value == "Convolution"
    }
    unquantised = {names for names, kernel in kernels.items() if not kernel.lower().endswith(("i8", "u8"))}
    assert len(unquantised) == 2
    assert all("/stages.0/stages.0.0/" in names for names in unquantised)


def test_tensorrt_gets_symmetric_activations_and_float_biases(tmp_path: Path) -> None:
    report = quantised(tmp_path / "m.onnx", export_tensorrt)
    assert report.format == "tensorrt"
    assert report.engine_command[:3] == ("trtexec", f"--onnx={tmp_path / 'm.onnx'}", "--int8")
    model = onnx.load(tmp_path / "m.onnx")
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            zero = values(model, node.input[2])
            assert zero.dtype == np.int8
            assert not zero.any()
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for conv in convolutions(model).values():
        assert weights[conv.input[2]] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(("precision", "flag"), [("f32", "--noTF32"), ("f16", "--fp16")])
def test_the_precision_is_passed_to_tensorrt_when_it_builds(tmp_path: Path, precision: Any, flag: str) -> None:
    net = network()
    report = export_tensorrt(net, tmp_path / "m.onnx", record=record_of(net), precision=precision)
    assert report.precision == precision
    assert report.score_difference < 1e-4
    assert flag in report.engine_command
    assert "--shapes=image:1x3x1024x2048" in report.engine_command


def test_a_quantised_file_that_is_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its classes are shifted by one."""
    right = exporter.quantise_onnx

    def wrong(*arguments: Any, **choices: Any) -> Any:
        model = right(*arguments, **choices)
        tensor = next(t for t in model.graph.initializer if t.name == "head.weight_quantized")
        shifted = np.roll(onnx.numpy_helper.to_array(tensor), 1, axis=0)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(shifted), tensor.name))
        return model

    monkeypatch.setattr(exporter, "quantise_onnx", wrong)
    with pytest.raises(ModelFileError, match="the exported file is not the network"):
        quantised(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_senseless_wishes_are_refused(tmp_path: Path) -> None:
    net = network()
    for function, name in ((export_onnx, "m.onnx"), (export_openvino, "m.openvino"), (export_tensorrt, "m.onnx")):
        with pytest.raises(ModelFileError, match="int8 needs images to calibrate on"):
            function(net, tmp_path / name, record=record_of(net), precision="int8")
    with pytest.raises(ModelFileError, match="int8 needs images"):
        Quantisation([])
    with pytest.raises(ModelFileError, match="unknown layer to keep in floating point 'frist'; did you mean 'first'"):
        Quantisation(images(1), ("frist",))  # type: ignore[arg-type]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(MissingDependencyError, match=r"nncf is not installed.*pip install 'lpsnet\[openvino\]'"):
        quantised(tmp_path / "m.openvino", export_openvino)

"""What is OpenVINO's own: the precision it really computes in, its file formats, its settings."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import openvino
from engine_models import difference, images, logits, small_network, write_model

from lpsnet.errors import ModelFileError
from lpsnet.inference.engines import Precision, SessionOptions, open_session
from lpsnet.inference.engines.openvino import compile_properties
from lpsnet.models.network import Network


@pytest.fixture(scope="module")
def net() -> Network:
    return small_network()


@pytest.fixture(scope="module")
def path(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(net, tmp_path_factory.mktemp("openvino") / "model.onnx")


def quantised(path: Path, folder: Path) -> Path:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter([{"image": images(1, 3, 48, 64, seed=seed)} for seed in range(3)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    target = folder / "int8.onnx"
    quantization.quantize_static(path, target, Reader(), op_types_to_quantize=["Conv"])
    return target


def test_a_quantised_file_computes_in_int8_and_says_so(net: Network, path: Path, tmp_path: Path) -> None:
    file = quantised(path, tmp_path)
    batch = images(1, 3, 48, 64)
    asked: tuple[Precision, ...] = ("f32", "int8")
    for precision in asked:
        try:
            session = open_session("openvino", SessionOptions(file, precision=precision, num_threads=1))
        except ModelFileError as error:
            pytest.skip(f"OpenVINO computes ONNX Runtime's quantised files in f32 on this processor: {error}")
        if session.precision != "int8":
            continue  # asked for f32, which it then says it computes in
        assert 1e-3 < difference(session.run(batch), logits(net, batch)) < 0.2


def test_weights_in_f16_are_computed_with_in_f32(net: Network, tmp_path: Path) -> None:
    """OpenVINO's `runtimePrecision` calls this f16. It is f32 to the last bits with weights that were rounded once."""
    file = write_model(net, tmp_path / "model.openvino", precision="f16")
    session = open_session("openvino", SessionOptions(file, num_threads=1))
    from lpsnet.models.reparameterise import fuse

    rounded = fuse(net)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.half().float()
    batch = images(1, 3, 48, 64)
    assert session.precision == "f32"
    assert difference(session.run(batch), logits(rounded, batch)) < 1e-5
    assert difference(session.run(batch), logits(net, batch)) > 1e-5


def test_f16_is_refused_where_openvino_would_take_something_else(path: Path) -> None:
    if "FP16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has f16")
    with pytest.raises(ModelFileError, match=r"f16 was asked for, but .* in (bf16|f32) here; possible .*: f32"):
        open_session("openvino", SessionOptions(path, precision="f16"))


def test_its_own_format_from_a_container_and_from_two_files(net: Network, path: Path, tmp_path: Path) -> None:
    model = openvino.Core().read_model(path)
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    batch = images(1, 3, 48, 64)
    for file in (tmp_path / "model.xml", write_model(net, tmp_path / "model.openvino")):
        session = open_session("openvino", SessionOptions(file, num_threads=1))
        assert difference(session.run(batch), logits(net, batch)) < 1e-5


def test_settings_leave_nothing_to_chance() -> None:
    settings = compile_properties(SessionOptions(Path("m.onnx"), precision="bf16", num_threads=3))
    assert settings == {
        "INFERENCE_PRECISION_HINT": "bf16",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 3,
    }
    assert compile_properties(SessionOptions(Path("m.onnx"), precision="int8"))["INFERENCE_PRECISION_HINT"] == "f32"
    assert "INFERENCE_NUM_THREADS" not in compile_properties(SessionOptions(Path("m.onnx")))


def test_more_threads_than_there_are_is_not_believed(path: Path) -> None:
    session = open_session("openvino", SessionOptions(path, num_threads=4096))
    assert session.num_threads is not None
    assert session.num_threads < 4096
    assert open_session("openvino", SessionOptions(path)).num_threads


def test_a_session_works_after_a_failed_run(net: Network, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = open_session("openvino", SessionOptions(path, num_threads=1))

    class Broken:
        def infer(self, *_: object, **__: object) -> None:
            raise RuntimeError("Exception from src/a.cpp:12:\nout of\n memory\n")

    requests = session._requests  # type: ignore[attr-defined]
    requests.append(Broken())
    with pytest.raises(ModelFileError, match=r"OpenVINO cannot run .*model.onnx: out of memory$"):
        session.run(images(1, 3, 48, 64))
    requests.remove(next(request for request in requests if isinstance(request, Broken)))
    batch = images(1, 3, 48, 64)
    assert difference(session.run(batch), logits(net, batch)) < 1e-5


def test_a_network_without_convolutions_is_judged_by_what_it_has(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2, 4, 4]) for name in ("a", "b", "sum")]
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["sum"])], "add", ports[:2], ports[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "add.onnx")
    session = open_session("openvino", SessionOptions(tmp_path / "add.onnx", num_threads=1))
    first, second = images(1, 2, 4, 4), images(1, 2, 4, 4, seed=1)
    assert session.precision == "f32"
    np.testing.assert_array_equal(session.run(first, second), first + second)
    with pytest.raises(ModelFileError, match="takes 2 inputs"):
        open_session("openvino", SessionOptions(tmp_path / "add.onnx", input_size=(4, 4)))

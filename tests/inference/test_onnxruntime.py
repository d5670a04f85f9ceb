"""Sessions of ONNX Runtime on graphs whose answers are known by hand."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lpsnet.errors import DataError, ModelFileError
from lpsnet.inference.engines import Session, SessionOptions, open_session
from lpsnet.inference.engines.onnxruntime import open_session as open_onnxruntime

onnx = pytest.importorskip("onnx")
TYPES = onnx.TensorProto


def _write(
    path: Path,
    nodes: list[Any],
    *,
    shape: tuple[int | str, ...] = ("batch", 3, "height", "width"),
    kind: int = TYPES.FLOAT,
    weights: dict[str, np.ndarray] | None = None,
) -> Path:
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", kind, shape)
    logits = helper.make_tensor_value_info("logits", kind, None)
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def _averages(path: Path, **choices: Any) -> Path:
    """A network that averages squares of two by two."""
    node = onnx.helper.make_node("AveragePool", ["image"], ["logits"], kernel_shape=[2, 2], strides=[2, 2])
    return _write(path, [node], **choices)


def _open(path: Path, **options: Any) -> Session:
    return open_session("onnxruntime", SessionOptions(path, **options))


def _images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _expected(image: np.ndarray) -> np.ndarray:
    number, channels, height, width = image.shape
    return image.reshape(number, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))


def test_sizes_and_batches_may_change_from_call_to_call(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx"))
    for shape in [(1, 3, 4, 6), (2, 3, 8, 2), (1, 3, 4, 6)]:
        logits = session.run(_images(*shape))
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, _expected(_images(*shape)), rtol=1e-5, atol=1e-6)


def test_what_a_session_says_of_itself(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx"), num_threads=2)
    assert (session.runtime, session.precision, session.num_threads) == ("onnxruntime", "f32", 2)
    assert session.engine.startswith(f"onnxruntime {onnxruntime.__version__}")
    assert _open(tmp_path / "m.onnx").num_threads is None


def test_a_file_for_one_image_serves_batches(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx", shape=(1, 3, 4, 6)), input_size=(4, 6))
    image = _images(3, 3, 4, 6)
    np.testing.assert_allclose(session.run(image), _expected(image), rtol=1e-5, atol=1e-6)


def test_threads_may_share_a_session(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx"), num_threads=1)
    images = [_images(1, 3, 2 * size, 4) + size for size in range(1, 20)]
    with ThreadPoolExecutor(4) as pool:
        for image, logits in zip(images, pool.map(session.run, images), strict=True):
            np.testing.assert_allclose(logits, _expected(image), rtol=1e-5)


def test_arrays_of_any_strides_are_taken(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx"))
    image = _images(1, 4, 6, 3).transpose(0, 3, 1, 2)[..., ::-1]
    np.testing.assert_allclose(session.run(image), _expected(image), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 3, 4, 6)), "got float64"),
        (np.zeros((1, 1, 4, 6), np.float32), "got float32 1 x 1 x 4 x 6"),
        (np.zeros((3, 4, 6), np.float32), "got float32 3 x 4 x 6"),
        (np.zeros((1, 3, 0, 6), np.float32), "got float32 1 x 3 x 0 x 6"),
    ],
)
def test_other_inputs_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    session = _open(_averages(tmp_path / "m.onnx"))
    with pytest.raises(DataError, match=message):
        session.run(array)
    with pytest.raises(DataError, match="takes 1; got 2"):
        session.run(array, array)


def test_a_size_is_compiled_for_and_then_kept_to(tmp_path: Path) -> None:
    session = _open(_averages(tmp_path / "m.onnx"), input_size=(4, 6))
    np.testing.assert_allclose(session.run(_images(2, 3, 4, 6)), _expected(_images(2, 3, 4, 6)), atol=1e-6)
    with pytest.raises(DataError, match="takes float32 any x 3 x 4 x 6"):
        session.run(_images(1, 3, 8, 8))
    with pytest.raises(ModelFileError, match="exported for 4 x 6, not 8 x 6"):
        _open(_averages(tmp_path / "fixed.onnx", shape=(1, 3, 4, 6)), input_size=(8, 6))


def test_an_f16_file_runs_in_the_precision_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without f16 kernels it runs in f32, and asking for f16 is refused rather than pretended."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    node = onnx.helper.make_node("Mul", ["image", "factor"], ["logits"])
    path = _write(tmp_path / "m.onnx", [node], kind=TYPES.FLOAT16, weights={"factor": np.full(1, 2, np.float16)})
    session = _open(path)
    assert session.precision == "f32"
    image = _images(1, 3, 4, 6).astype(np.float16).astype(np.float32)
    logits = session.run(image)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, 2 * image)
    with pytest.raises(ModelFileError, match=r"f16 was asked for, but the engine would compute .* in f32"):
        _open(path, precision="f16")


def test_a_quantised_file_says_so(tmp_path: Path) -> None:
    make = onnx.helper.make_node
    nodes = [
        make("QuantizeLinear", ["image", "scale"], ["bytes"]),
        make("DequantizeLinear", ["bytes", "scale"], ["logits"]),
    ]
    path = _write(tmp_path / "m.onnx", nodes, weights={"scale": np.float32(0.5)})
    image = np.array([0.1, 0.3, 1.0], np.float32).reshape(1, 3, 1, 1)
    for precision in ("int8", "f32"):
        session = _open(path, precision=precision)
        assert session.precision == "int8"
        np.testing.assert_array_equal(session.run(image).ravel(), [0, 0.5, 1.0])


@pytest.mark.parametrize("precision", ["int8", "f16", "bf16"])
def test_a_precision_the_file_does_not_have_is_refused(tmp_path: Path, precision: str) -> None:
    with pytest.raises(ModelFileError, match=r"not quantised|possible on this machine: f32"):
        _open(_averages(tmp_path / "m.onnx"), precision=precision)


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    whole = _averages(tmp_path / "m.onnx").read_bytes()
    broken = tmp_path / "broken.onnx"
    contents = [b"text, not a model", whole[: len(whole) // 2], whole.replace(b"AveragePool", b"AveragePoot")]
    for content in contents:
        broken.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"broken\.onnx") as caught:
            _open(broken)
        assert "\n" not in str(caught.value)


def test_what_cannot_be_run(tmp_path: Path) -> None:
    whole = _averages(tmp_path / "m.onnx")
    with pytest.raises(ModelFileError, match="no model file at"):
        _open(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="is not for the runtime onnxruntime"):
        open_onnxruntime(SessionOptions(whole.rename(tmp_path / "m.pb")))
    node = onnx.helper.make_node("Identity", ["image"], ["logits"])
    with pytest.raises(ModelFileError, match=r"input 'image' of .* is tensor\(int64\)"):
        _open(_write(tmp_path / "int.onnx", [node], kind=TYPES.INT64))


def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    """ONNX Runtime's own guard, relied on: a model file must not make it read files elsewhere."""
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    node = onnx.helper.make_node("Add", ["image", "weight"], ["logits"])
    path = _write(folder / "m.onnx", [node], weights={"weight": np.zeros((3, 1, 1), np.float32)})
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TYPES.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret.bin"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError, match="cannot load"):
        _open(path)

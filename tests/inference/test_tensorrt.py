"""TensorRT without an NVIDIA GPU: its options, and what is read from what `trtexec` prints."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.engines.onnxruntime import (
    TENSORRT,
    engine_cache,
    tensorrt_options,
    trtexec_command,
)


# The form in which each version prints its figures; the numbers are made up.
def test_the_command_is_the_papers_protocol() -> None:
    command = trtexec_command(Path("m.onnx"), size=(1024, 2048))
    assert command == [
        "trtexec", "--onnx=m.onnx", "--shapes=image:1x3x1024x2048", "--noTF32",
        "--warmUp=1000", "--duration=20", "--iterations=10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "flags"),
    [("f32", ["--noTF32"]), ("f16", ["--fp16"]), ("bf16", ["--bf16"]), ("int8", ["--int8", "--noTF32"])],
)
def test_precisions_of_the_command(precision: Any, flags: list[str]) -> None:
    command = trtexec_command(Path("m.onnx"), precision=precision, warm_up_s=0.25, duration_s=2.5, program="/opt/t")
    assert command == ["/opt/t", "--onnx=m.onnx", *flags, "--warmUp=250", "--duration=2.5", "--iterations=10"]


@pytest.mark.parametrize(
    ("precision", "on"), [("f32", set()), ("f16", {"fp16"}), ("bf16", {"bf16"}), ("int8", {"int8"})]
)
def test_the_provider_gets_one_precision(precision: Any, on: set[str]) -> None:
    options = tensorrt_options(precision, cache_folder=Path("cache"))
    assert {name for name in ("fp16", "bf16", "int8") if options[f"trt_{name}_enable"] == "True"} == on
    assert options["trt_engine_cache_path"] == "cache"
    assert all(isinstance(value, str) for value in options.values())


def test_engines_of_different_weights_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "m.onnx"
    folders = set()
    for content in (b"one", b"two"):
        path.write_bytes(content)
        for options in ({}, {"precision": "f16"}, {"input_size": (64, 96)}):
            folder = engine_cache(SessionOptions(path, **options))  # type: ignore[arg-type]
            assert folder.is_dir()
            assert folder == engine_cache(SessionOptions(path, **options))  # type: ignore[arg-type]
            folders.add(folder)
    assert len(folders) == 6


class FakeOnnxRuntime:
    """As much of ONNX Runtime with TensorRT as opening a session needs; it remembers what it was given."""

    __version__ = "1.99"

    def __init__(self, providers: list[str], shape: list[object]) -> None:
        self.providers = providers
        self.shape = shape
        self.entries: dict[str, object] = {}
        self.given: list[tuple[str, dict[str, str]]] = []

    def get_available_providers(self) -> list[str]:
        return [TENSORRT, "CPUExecutionProvider"]

    def SessionOptions(self) -> "FakeOnnxRuntime":
        return self

    def add_session_config_entry(self, name: str, value: str) -> None:
        self.entries[name] = value

    def add_free_dimension_override_by_name(self, name: str, length: int) -> None:
        self.entries[name] = length
        self.shape = [length if part == name else part for part in self.shape]

    def InferenceSession(self, path: Path, settings: object, providers: list[Any]) -> "FakeOnnxRuntime":
        self.given = providers
        return self

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> list["FakeOnnxRuntime"]:
        return [self]

    name = "image"

    def run(self, names: None, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [feeds["image"][:, :2] + 1]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small ONNX file; the environment is put back afterwards."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    helper = onnx.helper
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 4, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_a_session_leaves_nothing_to_the_cpu(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime([TENSORRT, "CPUExecutionProvider"], ["batch", 3, "height", "width"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    session = open_session("tensorrt", SessionOptions(model, input_size=(64, 96)))
    assert fake.entries == {"session.disable_cpu_ep_fallback": "1", "height": 64, "width": 96}
    assert [name for name, _ in fake.given] == [TENSORRT]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert (session.runtime, session.precision, session.num_threads) == ("tensorrt", "f32", None)
    assert session.engine == "onnxruntime 1.99 with TensorRT"
    images = np.zeros((2, 3, 64, 96), np.float32)
    np.testing.assert_array_equal(session.run(images), images[:, :2] + 1)


def test_f16_is_asked_for_and_tf32_left_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime([TENSORRT], ["batch", 3, "height", "width"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    session = open_session("tensorrt", SessionOptions(model, precision="f16"))
    assert session.precision == "f16"
    assert fake.given[0][1]["trt_fp16_enable"] == "True"
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    with pytest.raises(ModelFileError, match="is not quantised"):
        open_session("tensorrt", SessionOptions(model, precision="int8"))


def test_a_provider_that_was_dropped_is_noticed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxRuntime(["CPUExecutionProvider"], [1, 3, 4, 4]))
    with pytest.raises(ModelFileError, match="libraries could not be loaded"):
        open_session("tensorrt", SessionOptions(model))


def test_without_tensorrt_it_says_what_it_takes(model: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if TENSORRT in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has TensorRT")
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime-gpu"):
        open_session("tensorrt", SessionOptions(model))

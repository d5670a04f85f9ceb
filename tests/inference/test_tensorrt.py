"""TensorRT without an NVIDIA GPU: what it is told, and what is read from what `trtexec` prints."""

import os
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.engines.tensorrt import (
    PROVIDER,
    engine_cache,
    parse_trtexec,
    provider_options,
    run_trtexec,
    trtexec_command,
)

# The form in which each version prints its figures; the numbers are made up.
TRTEXEC_8_4 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8401] # trtexec --onnx=m.onnx --noTF32
[05/29/2022-21:55:40] [I] === Model Options ===
[05/29/2022-21:55:40] [I] Format: ONNX
[05/29/2022-21:55:40] [W] [TRT] onnx2trt_utils.cpp:365: Your ONNX model has been generated with INT64 weights.
[05/29/2022-21:55:54] [I] === Trace details ===
[05/29/2022-21:55:54] [I] Average on 10 runs - GPU latency: 2.42 ms - Host latency: 3.52 ms (end to end 3.53 ms, enqueue 0.44 ms)
[05/29/2022-21:55:54] [I]
[05/29/2022-21:55:54] [I] === Performance summary ===
[05/29/2022-21:55:54] [I] Throughput: 401.25 qps
[05/29/2022-21:55:54] [I] Latency: min = 3.4697 ms, max = 5.1511 ms, mean = 3.5057 ms, median = 3.4916 ms, percentile(99%) = 4.1511 ms
[05/29/2022-21:55:54] [I] End-to-End Host Latency: min = 3.7 ms, max = 6.1 ms, mean = 4.8 ms, median = 4.9 ms, percentile(99%) = 6.0 ms
[05/29/2022-21:55:54] [I] Enqueue Time: min = 0.2 ms, max = 0.6 ms, mean = 0.4 ms, median = 0.4 ms, percentile(99%) = 0.6 ms
[05/29/2022-21:55:54] [I] H2D Latency: min = 0.7 ms, max = 1.1 ms, mean = 0.8 ms, median = 0.8 ms, percentile(99%) = 1.1 ms
[05/29/2022-21:55:54] [I] GPU Compute Time: min = 2.3643 ms, max = 3.8665 ms, mean = 2.4182 ms, median = 2.3995 ms, percentile(99%) = 3.8665 ms
[05/29/2022-21:55:54] [I] D2H Latency: min = 0.2 ms, max = 0.7 ms, mean = 0.5 ms, median = 0.5 ms, percentile(99%) = 0.7 ms
[05/29/2022-21:55:54] [I] Total Host Walltime: 20.0015 s
[05/29/2022-21:55:54] [I] Total GPU Compute Time: 19.4 s
[05/29/2022-21:55:54] [W] * Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.
[05/29/2022-21:55:54] [W]   If not already in use, --useCudaGraph (utilize CUDA graphs where possible) may increase the throughput.
[05/29/2022-21:55:54] [I] Explanations of the performance metrics are printed in the verbose logs.
[05/29/2022-21:55:54] [I]
&&&& PASSED TensorRT.trtexec [TensorRT v8401] # trtexec --onnx=m.onnx --noTF32
"""  # noqa: E501

TRTEXEC_10_9 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100900] [b34] # trtexec --onnx=m.onnx --fp16
[04/07/2025-23:59:50] [I] === Performance summary ===
[04/07/2025-23:59:50] [I] Throughput: 1.1e+03 qps
[04/07/2025-23:59:50] [I] Latency: min = 1.42 ms, max = 3.04 ms, mean = 1.48 ms, median = 1.43 ms, percentile(90%) = 1.45 ms, percentile(95%) = 1.7 ms, percentile(99%) = 2.6 ms
[04/07/2025-23:59:50] [I] Enqueue Time: min = 0.2 ms, max = 0.4 ms, mean = 0.2 ms, median = 0.2 ms, percentile(90%) = 0.2 ms, percentile(95%) = 0.3 ms, percentile(99%) = 0.4 ms
[04/07/2025-23:59:50] [I] H2D Latency: min = 0.02 ms, max = 0.06 ms, mean = 0.03 ms, median = 0.03 ms, percentile(90%) = 0.03 ms, percentile(95%) = 0.03 ms, percentile(99%) = 0.06 ms
[04/07/2025-23:59:50] [I] GPU Compute Time: min = 0.988 ms, max = 2.4 ms, mean = 1.04 ms, median = 0.997 ms, percentile(90%) = 1.003 ms, percentile(95%) = 1.27 ms, percentile(99%) = 2.1 ms
[04/07/2025-23:59:50] [I] D2H Latency: min = 0.002 ms, max = 0.005 ms, mean = 0.003 ms, median = 0.003 ms, percentile(90%) = 0.004 ms, percentile(95%) = 0.005 ms, percentile(99%) = 0.005 ms
[04/07/2025-23:59:50] [I] Total Host Walltime: 20.0 s
[04/07/2025-23:59:50] [I] Total GPU Compute Time: 19.9 s
[04/07/2025-23:59:50] [W] * GPU compute time is unstable, with coefficient of variance = 13.1794%.
[04/07/2025-23:59:50] [W]   If not already in use, locking GPU clock frequency or adding --useSpinWait may improve the stability.
&&&& PASSED TensorRT.trtexec [TensorRT v100900] [b34] # trtexec --onnx=m.onnx --fp16
"""  # noqa: E501

FAILED = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=m.onnx
[06/26/2023-11:30:51] [E] Static model does not take explicit shapes since the shape of inference tensors will be determined by the model itself
[06/26/2023-11:30:51] [E] Network And Config setup failed
&&&& FAILED TensorRT.trtexec [TensorRT v8601] # trtexec --onnx=m.onnx
"""  # noqa: E501


def test_figures_of_version_8() -> None:
    report = parse_trtexec(TRTEXEC_8_4)
    assert report.version == "8.4.1"
    assert report.gpu_compute.mean_ms == 2.4182
    assert report.gpu_compute.median_ms == 2.3995
    assert (report.gpu_compute.min_ms, report.gpu_compute.max_ms) == (2.3643, 3.8665)
    assert report.gpu_compute.percentiles_ms == {99: 3.8665}
    assert report.latency.mean_ms == 3.5057
    assert report.throughput_qps == 401.25
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("Throughput may be bound by Enqueue Time")


def test_figures_of_version_10() -> None:
    report = parse_trtexec(TRTEXEC_10_9)
    assert report.version == "10.9.0"
    assert report.gpu_compute.median_ms == 0.997
    assert report.gpu_compute.percentiles_ms == {90: 1.003, 95: 1.27, 99: 2.1}
    assert report.latency.median_ms == 1.43
    assert report.throughput_qps == 1100
    assert "unstable" in report.warnings[0]


@pytest.mark.parametrize("text", [FAILED, FAILED.replace("[E]", "[I]"), TRTEXEC_8_4.replace("PASSED", "FAILED")])
def test_a_failed_run_has_no_figures(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"^trtexec failed: ") as error:
        parse_trtexec(text)
    assert "\n" not in str(error.value)


def test_the_first_error_is_the_reason() -> None:
    with pytest.raises(ModelFileError, match="failed: Static model does not take explicit shapes"):
        parse_trtexec(FAILED)
    with pytest.raises(ModelFileError, match="failed: it ended with 139"):
        parse_trtexec("", status=139)


@pytest.mark.parametrize("left_out", ["Throughput: ", "GPU Compute Time: ", "I] Latency: ", "median = 2.3995 ms, "])
def test_missing_figures_are_an_error(left_out: str) -> None:
    assert left_out in TRTEXEC_8_4
    with pytest.raises(ModelFileError, match="gave no figures"):
        parse_trtexec(TRTEXEC_8_4.replace(left_out, ""))


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


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_the_program_is_run_and_read(tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{TRTEXEC_8_4}END\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    command = trtexec_command(Path("m.onnx"), program=str(program))
    assert run_trtexec(command).gpu_compute.mean_ms == 2.4182
    program.write_text("#!/bin/sh\necho '[E] no GPU' >&2\nexit 1\n")
    with pytest.raises(ModelFileError, match="trtexec failed: no GPU"):
        run_trtexec(command)
    program.write_text("#!/bin/sh\nexec sleep 20\n")
    with pytest.raises(ModelFileError, match=r"did not end within 0.2 s"):
        run_trtexec(command, timeout_s=0.2)


def test_without_the_program_it_says_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match="not on the path; it comes with TensorRT"):
        run_trtexec([str(tmp_path / "trtexec")])


@pytest.mark.parametrize(
    ("precision", "on"), [("f32", set()), ("f16", {"fp16"}), ("bf16", {"bf16"}), ("int8", {"int8"})]
)
def test_the_provider_is_told_one_precision(precision: Any, on: set[str]) -> None:
    options = provider_options(precision, cache_folder=Path("cache"))
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
        return [PROVIDER, "CPUExecutionProvider"]

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
    fake = FakeOnnxRuntime([PROVIDER, "CPUExecutionProvider"], ["batch", 3, "height", "width"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    session = open_session("tensorrt", SessionOptions(model, input_size=(64, 96)))
    assert fake.entries == {"session.disable_cpu_ep_fallback": "1", "height": 64, "width": 96}
    assert [name for name, _ in fake.given] == [PROVIDER]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert (session.runtime, session.precision, session.num_threads) == ("tensorrt", "f32", None)
    assert session.engine == "onnxruntime 1.99 with TensorRT"
    images = np.zeros((2, 3, 64, 96), np.float32)
    np.testing.assert_array_equal(session.run(images), images[:, :2] + 1)


def test_f16_is_asked_for_and_tf32_left_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOnnxRuntime([PROVIDER], ["batch", 3, "height", "width"])
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
    if PROVIDER in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has TensorRT")
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime-gpu"):
        open_session("tensorrt", SessionOptions(model))

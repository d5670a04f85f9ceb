"""Benchmarks of small files, ours and others', whose logits and labels are known."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import onnx
from engine_models import NUM_CLASSES, small_network, write_model

from lpsnet.benchmark import benchmark as module
from lpsnet.benchmark.benchmark import Candidate, benchmark
from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.data.channels import RGB
from lpsnet.data.labels import LabelSpace
from lpsnet.data.split import Sample
from lpsnet.errors import RunError

SIZE = (48, 64)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = TimingProtocol(warm_up_s=0, duration_s=0.005, turn_s=0.001)
    monkeypatch.setattr(module, "PROTOCOLS", {"quick": short, "paper": short})


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(small_network(), tmp_path_factory.mktemp("ours") / "ours.onnx")


def foreign(
    path: Path, *, labels: bool = False, operation: str = "Identity", shape: tuple[object, ...] = (1, 3, "h", "w")
) -> Path:
    """Scores are the three channels of the image: the class of a pixel is its brightest, normalised, channel."""
    nodes = [onnx.helper.make_node(operation, ["x"], ["y"])]
    kind, out = onnx.TensorProto.FLOAT, list(shape)
    if labels:
        nodes = [onnx.helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)]
        kind, out = onnx.TensorProto.INT64, [shape[0], *shape[2:]]
    graph = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", kind, out)],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def brightest(image: Any) -> Any:
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((image / 255 - mean) / std).argmax(axis=2).astype(np.uint8)


class Labelled:
    """One image with the labels of `brightest`."""

    name, names, label_space, channels = "val", ("a",), LabelSpace.numbered(3), RGB

    def __init__(self) -> None:
        self.image = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample("a", self.image, brightest(self.image))


def test_all_is_measured_and_said(ours: Path) -> None:
    stages: list[str] = []
    found = benchmark(
        [Candidate("ours", ours, "onnxruntime", macs=123)],
        size=SIZE,
        num_threads=1,
        protocol="quick",
        memory=sys.platform != "win32",
        on_progress=lambda stage, part: stages.append(stage),
    )
    (row,) = found.results
    assert row.macs == 123
    assert row.engine.startswith("onnxruntime ")
    assert (row.precision, row.num_threads, row.num_bytes) == ("f32", 1, ours.stat().st_size)
    assert row.end_to_end is not None
    assert row.end_to_end.median_ms > 0 < row.network.median_ms
    assert row.network.run_id != row.end_to_end.run_id
    assert row.peak_memory_mib is None or 20 < row.peak_memory_mib < 2000
    assert found.image == "a generated street scene, 48x64"
    assert set(stages) == {"network", "end to end"}
    assert found.load["duration_s"] > 0


def test_several_are_measured_interleaved(ours: Path, tmp_path: Path) -> None:
    cells = [Candidate("ours", ours, "onnxruntime"), Candidate("theirs", foreign(tmp_path / "f.onnx"), "onnxruntime")]
    found = benchmark(cells, size=SIZE, protocol="quick", memory=False)
    assert [row.model for row in found.results] == ["ours", "theirs"]
    assert len({row.network.run_id for row in found.results}) == 1
    assert len({row.network.num_rounds for row in found.results}) == 1
    assert found.comparisons[0].num_rounds == found.results[0].network.num_rounds


def test_the_papers_protocol_times_the_network_alone(ours: Path) -> None:
    found = benchmark([Candidate("ours", ours, "onnxruntime")], size=SIZE, protocol="paper", memory=False)
    assert found.results[0].end_to_end is None


@pytest.mark.parametrize("labels", [False, True])
def test_files_of_other_programs_are_run_as_they_are(tmp_path: Path, labels: bool) -> None:
    cell = Candidate("theirs", foreign(tmp_path / "f.onnx", labels=labels), "onnxruntime")
    split = Labelled()
    found = benchmark([cell], size=SIZE, protocol="quick", memory=False, labelled=split)  # type: ignore[arg-type]
    assert found.results[0].end_to_end is not None
    assert found.results[0].miou == pytest.approx(100)
    assert found.problems == ()


def test_labels_of_a_file_that_gives_labels_have_the_images_size(tmp_path: Path) -> None:
    cell = Candidate("theirs", foreign(tmp_path / "f.onnx", labels=True), "onnxruntime")
    image = np.full((24, 32, 3), (200, 10, 10), np.uint8)
    opened = module._open(cell, image, SIZE, 1, None)
    np.testing.assert_array_equal(opened.segment(image), np.zeros((24, 32), np.uint8))


def test_what_cannot_be_done_is_said_and_the_rest_measured(ours: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    fixed = foreign(tmp_path / "fixed.onnx", shape=(1, 3, 32, 32))
    pairs = foreign(tmp_path / "pairs.onnx", shape=(2, 3, 48, 64))
    cells = [
        Candidate("ours", ours, "ncnn"),
        Candidate("ours", ours, "openvino"),
        Candidate("fixed", fixed, "onnxruntime"),
        Candidate("pairs", pairs, "onnxruntime"),
    ]
    split = Labelled()
    found = benchmark(cells, size=SIZE, protocol="quick", memory=False, labelled=split)  # type: ignore[arg-type]
    assert [row.runtime for row in found.results] == ["openvino"]
    problems = [each.problem for each in found.problems]
    assert "not measured" in problems[0]
    assert "not for the runtime ncnn" in problems[0]
    assert "was exported for 32 x 32, not 48 x 64" in problems[1]
    assert "no mIoU" in problems[-1]
    assert f"{NUM_CLASSES} classes against 3" in problems[-1]


@pytest.mark.parametrize("protocol", ["quick", "paper"])
def test_a_network_without_finite_scores_leaves_the_others_measured(ours: Path, tmp_path: Path, protocol: str) -> None:
    broken = foreign(tmp_path / "broken.onnx", operation="Log")  # NaN wherever a channel is darker than the mean
    found = benchmark(
        [Candidate("broken", broken, "onnxruntime"), Candidate("ours", ours, "onnxruntime")],
        size=SIZE,
        protocol=protocol,
        memory=False,
    )
    assert [result.model for result in found.results] == ["ours"]
    (problem,) = found.problems
    assert problem.model == "broken"
    assert problem.problem.startswith("not measured: logits hold NaN, infinity")


def test_a_quantised_file_is_measured_once(ours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that says int8 whatever it is asked for."""
    right = module.open_session

    def quantised(runtime: str, options: Any) -> Any:
        session = right(runtime, module.SessionOptions(options.path, "f32", 1, options.input_size))
        session.precision = "int8"  # type: ignore[misc]
        return session

    monkeypatch.setattr(module, "open_session", quantised)
    cells = [Candidate("ours", ours, "onnxruntime", precision) for precision in ("f32", "int8")]
    monkeypatch.setattr(module, "Segmenter", lambda *_, **__: lambda image: image)
    found = benchmark(cells, size=SIZE, protocol="quick", memory=False)
    assert [row.precision for row in found.results] == ["int8"]


def test_nothing_to_measure_is_refused(ours: Path, tmp_path: Path) -> None:
    cell = Candidate("ours", ours, "onnxruntime")
    with pytest.raises(RunError, match="no model was given"):
        benchmark([], size=SIZE, protocol="quick")
    with pytest.raises(RunError, match="unknown timing protocol 'quik'; did you mean 'quick'"):
        benchmark([cell], size=SIZE, protocol="quik")
    with pytest.raises(RunError, match="gone: not measured: no model file at"):
        benchmark([Candidate("gone", tmp_path / "gone.onnx", "onnxruntime")], size=SIZE, protocol="quick")

"""A quantised file beside the other precisions: which are there, and that each was measured as it is."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from dataclasses import replace

from export_networks import SIZE, images, network, record_of

from lpsnet.benchmark import benchmark
from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.errors import ModelFileError
from lpsnet.export.export import beside_other_precisions
from lpsnet.export.onnx import export_onnx
from lpsnet.export.quantise import Quantisation


def test_every_precision_of_engine_and_machine_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PROTOCOLS", {"quick": TimingProtocol(warm_up_s=0, duration_s=0.01, turn_s=0.001)})
    net = network()
    report = export_onnx(
        net,
        tmp_path / "m.onnx",
        record=record_of(net),
        size=SIZE,
        precision="int8",
        quantisation=Quantisation(images()),
    )
    found = beside_other_precisions(net, report, record=record_of(net), num_threads=1)
    assert [result.precision for result in found.results] == ["f32", "int8"]  # ONNX Runtime has no other here
    assert [result.model for result in found.results] == ["m.onnx", "m.onnx"]
    assert found.results[1].num_bytes == report.num_bytes
    assert found.results[0].num_bytes > report.num_bytes / 2
    assert (found.size, found.problems) == (SIZE, ())
    with pytest.raises(ModelFileError, match="no engine here runs quantised files for tensorrt"):
        beside_other_precisions(net, replace(report, format="tensorrt"), record=record_of(net))

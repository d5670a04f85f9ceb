"""OpenVINO files: the export proves itself against the network; here is what it writes and refuses."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("openvino")

import openvino
import torch

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export import onnx as exporter
from lpsnet.export.onnx import export_openvino
from lpsnet.export.verify import ExportReport
from lpsnet.inference.model_file import read_container, read_record
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import Network, create_model

SIZE = (48, 80)


def network(**options: object) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model("B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4", num_classes=4, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            net(torch.randn(2, 3, 64, 64))
        torch.nn.init.normal_(net.head.weight)
    return net


def exported(net: Network, path: Path, **options: object) -> ExportReport:
    record = default_record(net, label_space=LabelSpace.numbered(4))
    return export_openvino(net, path, record=record, **options)  # type: ignore[arg-type]


def test_the_report_and_the_record(tmp_path: Path) -> None:
    report = exported(network(), tmp_path / "m.openvino", size=SIZE)
    assert [file.name for file in tmp_path.iterdir()] == ["m.openvino"]
    assert (report.format, report.precision, report.size) == ("openvino", "f32", SIZE)
    assert report.engine.startswith("openvino ")
    assert {check.size for check in report.checks} == {SIZE}
    assert report.score_difference < 1e-5
    assert read_record(report.path).input_size == SIZE


def test_a_file_for_any_size_is_checked_at_several(tmp_path: Path) -> None:
    report = exported(network(), tmp_path / "m.openvino")
    assert {check.size for check in report.checks} == {(256, 512), (33, 47), (333, 517)}
    assert report.score_difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("block", list(BLOCKS))
def test_every_block(tmp_path: Path, block: str) -> None:
    assert exported(network(block=block), tmp_path / "m.openvino").score_difference < 1e-4


def test_weights_in_f16_take_half_the_space(tmp_path: Path) -> None:
    net = network()
    exported(net, tmp_path / "full.openvino", size=SIZE)
    report = exported(net, tmp_path / "half.openvino", size=SIZE, precision="f16")
    assert 1e-5 < report.score_difference < 1e-2
    full, half = (len(read_container(tmp_path / f"{name}.openvino")[1]) for name in ("full", "half"))
    assert half < 0.6 * full


def test_what_is_inside_is_openvinos_own_format(tmp_path: Path) -> None:
    exported(network(), tmp_path / "m.openvino", size=SIZE)
    description, weights = read_container(tmp_path / "m.openvino")
    (tmp_path / "model.xml").write_bytes(description)
    (tmp_path / "model.bin").write_bytes(weights)
    model = openvino.Core().read_model(tmp_path / "model.xml")
    assert [port.any_name for port in (*model.inputs, *model.outputs)] == ["image", "logits"]
    assert list(model.inputs[0].shape) == [1, 3, *SIZE]


def test_a_file_that_is_not_the_network_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = exporter.write_container

    def wrong(path: Path, *, weights: bytes, **others: object) -> None:
        own(path, weights=bytes(len(weights)), **others)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "write_container", wrong)
    with pytest.raises(ModelFileError, match=r"the exported file is not the network|OpenVINO cannot"):
        exported(network(), tmp_path / "m.openvino", size=SIZE)
    assert not list(tmp_path.iterdir())


def test_senseless_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"ends in .openvino"):
        exported(network(), tmp_path / "m.xml")
    with pytest.raises(ModelFileError, match="exported in f32, f16 or int8; got bf16"):
        exported(network(), tmp_path / "m.openvino", precision="bf16")


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingDependencyError, match=r"openvino is not installed.*pip install 'lpsnet\[openvino\]'"):
        exported(network(), tmp_path / "m.openvino")

"""ncnn files: the export proves itself against the network at several sizes; here is what it can and cannot express."""

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

import pnnx
import torch

from lpsnet.architecture import Architecture
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.export import phones as exporter
from lpsnet.export.phones import export_ncnn, traced_sizes
from lpsnet.export.verify import ExportReport
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import read_container, read_record
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.checkpoint import default_record
from lpsnet.models.interactions import INTERACTIONS
from lpsnet.models.network import Network, create_model
from lpsnet.models.reparameterise import fuse

DEPTH = "B=1,1,1,1,1;C=4,8,8,8,8;"
SIZE = (48, 80)


def network(ratios: str = "3/4,1/4", **options: object) -> Network:
    """Seeded, with batch norms that do something and logits of a useful range."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(f"{DEPTH}R={ratios}", num_classes=4, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            net(torch.randn(2, 3, 64, 64))
        torch.nn.init.normal_(net.head.weight)
    return net


def exported(net: Network, path: Path, **options: object) -> ExportReport:
    record = default_record(net, label_space=LabelSpace.numbered(4))
    return export_ncnn(net, path, record=record, **options)  # type: ignore[arg-type]


def test_the_report_and_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), dtype=np.uint8)
    report = exported(net, tmp_path / "m.ncnn", size=SIZE, images=[image])
    assert [file.name for file in tmp_path.iterdir()] == ["m.ncnn"]
    assert (report.format, report.precision, report.size) == ("ncnn", "f32", SIZE)
    assert report.num_bytes == (tmp_path / "m.ncnn").stat().st_size
    assert report.engine.startswith("ncnn ")
    assert [check.image for check in report.checks] == ["noise", "smooth", "image 1"]
    assert report.score_difference < 1e-4
    record = read_record(report.path)
    assert (record.form, record.input_size, record.architecture) == ("deployed", SIZE, net.architecture)
    assert net.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_a_file_for_any_size_is_checked_at_several(tmp_path: Path) -> None:
    report = exported(network(), tmp_path / "m.ncnn")
    assert {check.size for check in report.checks} == {(256, 512), (33, 47), (333, 517)}
    assert report.score_difference < 1e-4


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"block": "bottleneck", "interaction": "attention_b"}, None),  # a 1x1 convolution with stride 2
        ({"block": "shufflenet", "ratios": "11/8", "align_corners": False}, SIZE),  # reshapes
        ({"ratios": "1,1/64"}, None),  # floor(33 / 64) is 0, a path has at least one pixel
        ({"ratios": "1,1/3"}, None),  # 64 / 3 and 96 / 3 come to as many logits: pnnx must not see that as a constant
        ({"ratios": "11/8,5/8,1/5", "align_corners": False}, None),
    ],
    ids=lambda value: str(value),
)
def test_what_takes_more_than_convolutions(tmp_path: Path, options: dict[str, object], size: object) -> None:
    report = exported(network(**options), tmp_path / "m.ncnn", size=size)  # type: ignore[arg-type]
    assert report.score_difference < 1e-3


@pytest.mark.parametrize("ratios", [("1", "1/3"), ("2",), ("1", "1/64"), ("11/8", "3/5", "1/7")])
def test_no_map_has_the_same_length_for_both_traced_sizes(ratios: tuple[str, ...]) -> None:
    first, second = traced_sizes(Architecture((1,) * 5, (4,) * 5, ratios))
    for ratio in map(Fraction, ratios):
        lengths = [[max(1, int(ratio * length)) for length in size] for size in (first, second)]
        for _ in range(5):  # the path's input, and after each of the four halvings
            assert all(one != other for one, other in zip(*lengths, strict=True))
            lengths = [[(length + 1) // 2 for length in size] for size in lengths]


@pytest.mark.slow
@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("interaction", list(INTERACTIONS))
@pytest.mark.parametrize("block", list(BLOCKS))
def test_every_block_and_interaction(tmp_path: Path, block: str, interaction: str, size: object) -> None:
    if (block, size) == ("shufflenet", None):
        pytest.skip("see test_a_network_that_ncnn_cannot_express_is_refused")
    net = network("3/4,1/2,1/4", block=block, interaction=interaction)
    assert exported(net, tmp_path / "m.ncnn", size=size).score_difference < 1e-3


def test_a_network_that_ncnn_cannot_express_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"no layer for Tensor.reshape.*; export it for a fixed size"):
        exported(network(block="shufflenet"), tmp_path / "m.ncnn")
    assert not list(tmp_path.iterdir())


def test_weights_in_f16_take_half_the_space(tmp_path: Path) -> None:
    net = network()
    report = exported(net, tmp_path / "half.ncnn", size=SIZE, precision="f16")
    assert report.precision == "f16"
    assert 1e-5 < report.score_difference < 1e-2
    num_weights = sum(weight.numel() for weight in fuse(net).parameters() if weight.dim() > 1)
    assert len(read_container(report.path)[1]) < 3 * num_weights
    assert open_session("ncnn", SessionOptions(report.path, num_threads=1)).precision == "f32"


def test_a_file_that_is_not_the_network_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = exporter.write_container

    def wrong(path: Path, *, weights: bytes, **others: object) -> None:
        own(path, weights=weights[:400] + bytes(400) + weights[800:], **others)  # type: ignore[arg-type]

    monkeypatch.setattr(exporter, "write_container", wrong)
    with pytest.raises(ModelFileError, match="the exported file is not the network"):
        exported(network(), tmp_path / "m.ncnn", size=SIZE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "name", "message"),
    [
        ({}, "m.onnx", "ends in .ncnn"),
        ({"precision": "int8"}, "m.ncnn", "exported in f32 or f16; got int8"),
        ({"size": (16, 64)}, "m.ncnn", "from 32x32 up"),
    ],
)
def test_senseless_wishes_are_refused(tmp_path: Path, options: dict[str, object], name: str, message: str) -> None:
    with pytest.raises(ModelFileError, match=message):
        exported(network(), tmp_path / name, **options)


def test_a_record_of_another_network_is_refused(tmp_path: Path) -> None:
    net = network()
    for record in (
        default_record(net, label_space=LabelSpace.numbered(4)).model_copy(update={"align_corners": False}),
        default_record(net, label_space=LabelSpace.numbered(7)),
    ):
        with pytest.raises(ModelFileError, match="the record"):
            export_ncnn(net, tmp_path / "m.ncnn", record=record)


def test_a_missing_package_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pnnx", None)
    with pytest.raises(MissingDependencyError, match=r"pnnx is not installed.*pip install 'lpsnet\[ncnn\]'"):
        exported(network(), tmp_path / "m.ncnn")


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_a_converter_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "pnnx"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))
    with pytest.raises(ModelFileError, match="could not convert the network: it ended with 3"):
        exported(network(), tmp_path / "m.ncnn", size=SIZE)

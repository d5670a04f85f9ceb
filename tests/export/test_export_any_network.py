"""Exports of networks of other code. The oracle is the module itself with torch's own resizing, not the exporter."""

from pathlib import Path

import any_networks
import numpy as np
import pytest
from trained_networks import expected_labels, trained

from lpsnet.errors import ModelFileError
from lpsnet.export.export import export
from lpsnet.export.quantise import Quantisation, _float_nodes
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.any_network import AnyNetwork, load_network
from lpsnet.models.checkpoint import default_record
from lpsnet.record import ModelRecord

SIZE = (64, 96)


def image(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def record_of(net: AnyNetwork) -> ModelRecord:
    return default_record(net).model_copy(update={"input_size": SIZE})


def same_labels(path: Path, name: str, size: tuple[int, int]) -> float:
    """Share of the pixels of noise with torch's label."""
    return float(
        (
            np.asarray(Segmenter(path, input_size=size)(image(size))) == expected_labels(trained(name), image(size))
        ).mean()
    )


@pytest.mark.parametrize("name", ["plain", "stride_32", "full_size", "transformer", "padding", "tied", "ours"])
def test_a_file_for_any_size_gives_the_modules_labels(name: str, tmp_path: Path) -> None:
    net, path = trained(name), tmp_path / "net.onnx"
    report = export(net, path, to="onnx", record=default_record(net))
    assert {check.size for check in report.checks} >= {(33, 47), (333, 517)}
    for size in (SIZE, (50, 70)):
        assert same_labels(path, name, size) > 0.999
    record = read_record(path)
    assert (record.network, record.form, record.architecture) == (f"any_networks.py:{name}", "deployed", None)


@pytest.mark.parametrize("to", ["onnx", "openvino", "ncnn", "tensorrt"])
@pytest.mark.parametrize("name", ["plain", "full_size", "transformer", "unet", "padding"])
def test_a_file_for_one_size_gives_the_modules_labels(name: str, to: str, tmp_path: Path) -> None:
    net, path = trained(name), tmp_path / f"net.{'onnx' if to == 'tensorrt' else to}"
    export(net, path, to=to, record=default_record(net), size=SIZE)
    assert same_labels(path, name, SIZE) > 0.999


def test_ncnn_takes_any_size(tmp_path: Path) -> None:
    net, path = trained("full_size"), tmp_path / "net.ncnn"
    export(net, path, to="ncnn", record=default_record(net))
    assert same_labels(path, "full_size", (50, 70)) > 0.999


@pytest.mark.parametrize("to", ["onnx", "openvino", "ncnn"])
def test_a_network_of_certain_sizes_is_exported_for_one_only(to: str, tmp_path: Path) -> None:
    net = trained("unet")
    with pytest.raises(
        ModelFileError, match=r"fails on an image of 33x47: .*export it for a size .*--size HxW"
    ) as caught:
        export(net, tmp_path / f"net.{to}", to=to, record=default_record(net).model_copy(update={"input_size": SIZE}))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ModelFileError, match="fails on an image of 50x70"):
        export(net, tmp_path / f"net.{to}", to=to, record=default_record(net), size=(50, 70))


def test_what_tracing_froze_is_found(tmp_path: Path) -> None:
    """Sizes computed in Python become constants of the file, so that it is right for one size only."""
    net = trained("frozen")
    with pytest.raises(ModelFileError, match="a file for one size may be possible: --size HxW"):
        export(net, tmp_path / "net.onnx", to="onnx", record=record_of(net))
    export(net, tmp_path / "net.onnx", to="onnx", record=record_of(net), size=SIZE)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize("name", ["plain", "transformer"])
def test_int8(name: str, to: str, tmp_path: Path) -> None:
    net, path = trained(name), tmp_path / f"net.{to}"
    images = [image(SIZE, seed) for seed in range(4)]
    export(net, path, to=to, record=default_record(net), size=SIZE, precision="int8", quantisation=Quantisation(images))
    assert same_labels(path, name, SIZE) > 0.9
    assert Segmenter(path, precision="int8").precision == "int8"


def test_first_and_last_are_convolutions_of_the_graph() -> None:
    nodes = [
        ("resize", "Resize"),
        ("a", "Conv"),
        ("b", "Relu"),
        ("c", "Convolution"),
        ("d", "GroupConvolution"),
        ("e", "Add"),
    ]
    record = default_record(trained("plain"))
    assert _float_nodes(nodes, ("first",), record) == ["a"]
    assert _float_nodes(nodes, ("first", "last"), record) == ["a", "d"]
    assert _float_nodes(nodes, (), record) == []


def test_what_no_exporter_takes_gives_one_line(tmp_path: Path) -> None:
    net = load_network(any_networks.spec("inverting"), num_classes=5).eval()
    with pytest.raises(ModelFileError, match="cannot be exported to onnx") as caught:
        export(net, tmp_path / "net.onnx", to="onnx", record=default_record(net), size=SIZE)
    assert "\n" not in str(caught.value)

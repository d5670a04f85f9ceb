"""ONNX files for tools of vendors: what they hold, and what is found to be in the way, on graphs written by hand."""

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
from onnx import TensorProto, helper

from lpsnet.errors import ModelFileError
from lpsnet.export.onnx import BOARDS, export_for_board, find_obstacles
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.network import create_model


def written(folder: Path, board: str, **options: Any) -> tuple[Any, list[str]]:
    net = network(**options)
    report = export_for_board(net, folder / "m.onnx", board=board, record=record_of(net), size=SIZE)
    return onnx.load(folder / "m.onnx"), list(report.findings)


@pytest.mark.parametrize("board", BOARDS)
def test_the_file_is_what_the_tool_is_given(tmp_path: Path, board: str) -> None:
    model, _ = written(tmp_path, board, block="bottleneck", align_corners=False)
    assert [own.version for own in model.opset_import] == [BOARDS[board].opset]
    assert [len.dim_value for len in model.graph.input[0].type.tensor_type.shape.dim] == [1, 3, *SIZE]
    assert not {"Slice", "BatchNormalization", "Shape"} & {node.op_type for node in model.graph.node}
    steps = [own.ints[0] for node in model.graph.node for own in node.attribute if own.name == "strides"]
    assert 2 in steps, "1x1 convolutions step by themselves"
    assert find_obstacles(tmp_path / "m.onnx", BOARDS[board]) == []
    assert read_record(tmp_path / "m.onnx").input_size == SIZE
    net = network(block="bottleneck", align_corners=False)
    image = images(1)[0]
    labels = np.asarray(Segmenter(tmp_path / "m.onnx")(image))
    other = export_for_board(net, tmp_path / "n.onnx", board="rknn", record=record_of(net), size=SIZE)
    np.testing.assert_array_equal(labels, Segmenter(other.path)(image))


def test_means_are_pools(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = create_model("B=1,1,1,1,1;C=4,8,8,8,8;R=1;X=gate", num_classes=4, align_corners=False)
    torch.nn.init.normal_(net.context.gate.weight)  # it is made without effect
    report = export_for_board(net, tmp_path / "m.onnx", board="hailo", record=record_of(net), size=SIZE)
    kinds = [node.op_type for node in onnx.load(report.path).graph.node]
    assert ("GlobalAveragePool" in kinds, "ReduceMean" in kinds) == (True, False)
    assert report.findings == ()
    assert report.score_difference < 1e-4


def test_what_is_in_the_way_is_a_line_each(tmp_path: Path) -> None:
    _, found = written(tmp_path, "hailo", block="shufflenet", interaction="attention_a", align_corners=False)
    kinds = {line.split(" ", 1)[0] for line in found}
    assert kinds == {"Slice", "Reshape", "Unsqueeze", "Sub"}
    (line,) = (line for line in found if line.startswith("Unsqueeze"))
    assert "and" in line.split(":")[0]
    assert line.endswith("take another block than shufflenet")
    (line,) = (line for line in found if line.startswith("Sub"))
    assert "/interactions.0/" in line
    assert "bilateral_b" in line
    assert not any("\n" in line for line in found)


@pytest.mark.parametrize(("board", "doubted"), [("rknn", True), ("hailo", True), ("qnn", False)])
def test_corners_are_a_doubt_where_somebody_has_it(tmp_path: Path, board: str, doubted: bool) -> None:
    _, found = written(tmp_path, board, align_corners=True)
    assert [line.split(" ", 1)[0] for line in found] == (["Resize"] if doubted else [])
    assert all("align_corners" in line for line in found)


def test_files_of_others_are_looked_through(tmp_path: Path) -> None:
    """Free sizes, batches, other opsets and formats, and an operator that nobody takes."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, "height", 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 4])
    graph = helper.make_graph([helper.make_node("Einsum", ["x"], ["y"], equation="abcd->abd")], "g", [image], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    found = "\n".join(find_obstacles(tmp_path / "m.onnx", BOARDS["hailo"]))
    for part in ("opset 13", "IR version 10", "x: its size is free", "y: ", "Einsum (y): not in"):
        assert part in found
    assert found.count("\n") == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"board": "hailo8"}, "unknown board 'hailo8'; did you mean 'hailo'"),
        ({"board": "qnn"}, "images of one size: --size HxW"),
        ({"board": "rknn", "size": SIZE, "precision": "f16"}, "quantises by itself: export in f32"),
    ],
)
def test_senseless_wishes_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    net = network()
    with pytest.raises(ModelFileError, match=message):
        export_for_board(net, tmp_path / "m.onnx", record=record_of(net), **options)
    assert not list(tmp_path.iterdir())

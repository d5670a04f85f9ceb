"""Cutting ONNX models by their bytes, against the `onnx` package and graphs whose answers are known by hand."""

import contextlib
from typing import Any

import numpy as np
import onnxruntime
import pytest

from lpsnet.inference.model_file import DamagedError
from lpsnet.inference.onnx_graph import EditError, OnnxModel, Port

onnx = pytest.importorskip("onnx")
make = onnx.helper.make_node
FLOAT = onnx.TensorProto.FLOAT
SHAPE = (1, 3, 2, 4)


def _model(nodes: list[Any], *, weights: dict[str, np.ndarray] | None = None, kind: int = FLOAT, **fields: Any) -> Any:
    helper = onnx.helper
    image = helper.make_tensor_value_info("image", kind, ("batch", 3, "height", 4))
    result = helper.make_tensor_value_info("result", kind, ("batch", 3, "height", 4))
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", [image], [result], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, **fields)
    model.metadata_props.add(key="lpsnet", value="a record")
    return model


@pytest.fixture(scope="module")
def chain() -> Any:
    """result = ((image + one) * two) - (image * two), and a node that nobody uses."""
    nodes = [
        make("Add", ["image", "one"], ["a"]),
        make("Mul", ["a", "two"], ["b"]),
        make("Mul", ["image", "two"], ["c"]),
        make("Relu", ["b"], ["unused"]),
        make("Clip", ["b", "", "large"], ["d"]),  # an argument left out
        make("Sub", ["d", "c"], ["result"]),
    ]
    return _model(nodes, weights={"one": np.float32([1]), "two": np.float32([2]), "large": np.float32(1e9)})


def _run(model: bytes, **inputs: np.ndarray) -> list[np.ndarray]:
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    result: list[np.ndarray] = onnxruntime.InferenceSession(model, settings).run(None, inputs)
    return result


def test_what_is_read_is_what_the_onnx_package_reads(chain: Any) -> None:
    model = OnnxModel.read(chain.SerializeToString())
    assert [(node.operator, list(node.inputs), list(node.outputs)) for node in model.nodes] == [
        (node.op_type, list(node.input), list(node.output)) for node in chain.graph.node
    ]
    (image,), (result,) = model.inputs, model.outputs
    assert (image.name, image.element, image.shape) == ("image", FLOAT, ("batch", 3, "height", 4))
    assert (result.name, result.shape) == ("result", ("batch", 3, "height", 4))


def test_the_back_of_a_model_computes_what_the_whole_does(chain: Any) -> None:
    model = OnnxModel.read(chain.SerializeToString())
    image = np.arange(24, dtype=np.float32).reshape(1, 3, 2, 4)
    back = model.cut([Port("b", FLOAT, ("n", 3, "h", 4)), Port("image", FLOAT, SHAPE)], ["result"])
    read = onnx.load_from_string(back)
    onnx.checker.check_model(read, full_check=True)
    assert [node.op_type for node in read.graph.node] == ["Mul", "Clip", "Sub"]
    assert {tensor.name for tensor in read.graph.initializer} == {"two", "large"}
    assert [value.name for value in read.graph.input] == ["b", "image"]
    assert read.metadata_props == chain.metadata_props
    assert read.opset_import == chain.opset_import
    (whole,) = _run(chain.SerializeToString(), image=image)
    (cut,) = _run(back, image=image, b=(image + 1) * 2)
    np.testing.assert_array_equal(cut, whole)
    np.testing.assert_array_equal(cut, np.full_like(image, 2))


def test_the_front_of_a_model_gives_what_is_inside(chain: Any) -> None:
    image = np.ones((1, 3, 2, 4), np.float32)
    front = OnnxModel.read(chain.SerializeToString()).cut([Port("image", FLOAT, SHAPE)], ["b", "c"])
    b, c = _run(front, image=image)
    np.testing.assert_array_equal(b, 4 * image)
    np.testing.assert_array_equal(c, 2 * image)


def test_outputs_that_the_model_does_not_declare_have_their_own_type() -> None:
    kind = onnx.TensorProto.FLOAT16
    nodes = [make("Relu", ["image"], ["a"]), make("Neg", ["a"], ["b"]), make("Abs", ["b"], ["result"])]
    cut = OnnxModel.read(_model(nodes, kind=kind).SerializeToString()).cut([Port("a", kind, SHAPE)], ["b"])
    (result,) = _run(cut, a=np.ones((1, 3, 2, 4), np.float16))
    np.testing.assert_array_equal(result, np.full((1, 3, 2, 4), -1, np.float16))


def test_a_cut_through_the_wrong_tensors_is_refused(chain: Any) -> None:
    model = OnnxModel.read(chain.SerializeToString())
    for names in (["b"], ["b", "c", "image"], ["nowhere"]):
        with pytest.raises(EditError, match="the outputs are made from"):
            model.cut([Port(name, FLOAT, SHAPE) for name in names], ["result"])


def test_weights_that_old_files_list_among_the_inputs_are_none(chain: Any) -> None:
    model = onnx.ModelProto.FromString(chain.SerializeToString())
    model.graph.input.append(onnx.helper.make_tensor_value_info("one", FLOAT, (1,)))
    assert [port.name for port in OnnxModel.read(model.SerializeToString()).inputs] == ["image"]


def test_what_is_not_cut_here_is_said() -> None:
    then = onnx.helper.make_graph([make("Relu", ["image"], ["t"])], "then", [], [_value("t")])
    otherwise = onnx.helper.make_graph([make("Neg", ["image"], ["e"])], "else", [], [_value("e")])
    branching = make("If", ["yes"], ["result"], then_branch=then, else_branch=otherwise)
    model = _model([branching], weights={"yes": np.array(True)})
    with pytest.raises(EditError, match="a node holds a graph"):
        OnnxModel.read(model.SerializeToString())
    model = _model([make("Add", ["image", "one"], ["result"])], weights={"one": np.float32([1])})
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    with pytest.raises(EditError, match="outside of the file"):
        OnnxModel.read(model.SerializeToString())


def _value(name: str) -> Any:
    return onnx.helper.make_tensor_value_info(name, FLOAT, None)


def test_damaged_models_are_refused(chain: Any) -> None:
    whole = chain.SerializeToString()
    for content in (b"", b"text, not a model", whole + whole, whole[:-3]):
        with pytest.raises(DamagedError):
            OnnxModel.read(content)
    rng = np.random.default_rng(0)
    for _ in range(500):  # whatever the bytes, no other error
        content = bytearray(whole)
        content[rng.integers(len(whole))] = rng.integers(256)
        with contextlib.suppress(DamagedError, EditError):
            OnnxModel.read(bytes(content)).cut([Port("image", FLOAT, (1,))], ["result"])

"""An ONNX file's network without its first step: with an input for every path in place of the picture (Section 3.1).

A network begins by resizing the picture for each of its paths. Done outside of the engine that can be quicker, and the
whole of the picture need not reach the engine. The exported file keeps its one input; here the graph in it is cut
behind those resizes. Which path a resized picture is for is not told by names but by trying: its size says its ratio.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from lpsnet.architecture import path_size
from lpsnet.deployment.onnx_edit import EditError, OnnxModel, Port
from lpsnet.deployment.runtimes.session import one_line

Size = tuple[int, int]  # height, width

TRIED_SIZE = (211, 307)  # pixels; so few that it takes no time, and so many that ratios show

_SAME_PICTURE = ("Cast", "QuantizeLinear", "DequantizeLinear")  # what files in f16 and int8 may do before they resize

_TYPES: dict[int, str] = {1: "float32", 10: "float16"}  # TensorProto.DataType
_ELEMENTS = {name: number for number, name in _TYPES.items()}


def split_at_paths(model: OnnxModel, ratios: Sequence[Fraction], *, size: Size | None) -> bytes:
    """The part of an ONNX model behind the resizing of the picture, as an ONNX model with an input for every path.

    Args:
        model: with one input, N x 3 x H x W.
        ratios: of its paths, in the order of the inputs to be.
        size: (H, W) that the model is to be fixed to; None leaves it as it is.

    Raises:
        EditError: the model is not of this kind, has other paths, or is for another size.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        raise EditError("it does not take one picture")
    picture = model.inputs[0]
    tried = size_to_try(picture.shape[2:], size)
    found = _resized_pictures(model, tried)
    names = choose({name: port.shape[2:] for name, port in found.items()}, wanted_sizes(ratios, tried))
    is_fixed = size is not None or all(isinstance(length, int) for length in picture.shape[2:])
    inputs = []
    for path, (name, ratio) in enumerate(zip(names, ratios, strict=True)):
        source = picture if name is None else found[name]
        free = ("batch", 3, f"height_{path}", f"width_{path}")
        inputs.append(source._replace(shape=(1, 3, *path_size(tried, ratio)) if is_fixed else free))
    return model.cut(inputs, [port.name for port in model.outputs])


def size_to_try(own: Sequence[object], size: Size | None) -> Size:
    """The size that a model is for; where its height or width (no number) is free, that asked for, or one of ours.

    Raises:
        EditError: it is for another size than the one asked for.
    """
    height, width = (n if isinstance(n, int) else free for n, free in zip(own, size or TRIED_SIZE, strict=True))
    if size not in (None, (height, width)):
        raise EditError(f"it is for {own}, not for {size}")
    return height, width


def wanted_sizes(ratios: Sequence[Fraction], size: Size) -> list[Size | None]:
    """What a picture of `size` is resized to for paths of these ratios; None where it is not, for ratio 1."""
    return [path_size(size, ratio) if ratio != 1 else None for ratio in ratios]


def choose(found: Mapping[str, Sequence[object]], wanted: Sequence[Size | None]) -> list[str | None]:
    """The names of what has the sizes that are wanted, in that order; None where none is wanted.

    Raises:
        EditError: a size is missing, something is left over, or nothing was wanted at all.
    """
    left = dict(found)
    names: list[str | None] = []
    for size in wanted:
        name = next((name for name, own in left.items() if own == size), None)
        if size is not None and left.pop(name or "", None) is None:
            raise EditError(f"the picture is resized to {list(found.values())}, not to {size}")
        names.append(name)
    if left or not any(names):
        raise EditError(f"the picture is resized to {list(found.values())}; its paths take {list(wanted)}")
    return names


def _resized_pictures(model: OnnxModel, size: Size) -> dict[str, Port]:
    """The tensors that the picture is resized to, by name, with the shapes that a picture of `size` comes to."""
    same = {model.inputs[0].name}
    names: list[str] = []
    for node in model.nodes:
        if node.inputs and node.inputs[0] in same:
            if node.operator in _SAME_PICTURE:
                same.update(node.outputs)
            elif node.operator == "Resize":
                names += node.outputs
    return {port.name: port for port in _compute(model, names, size)} if names else {}


def _compute(model: OnnxModel, names: Sequence[str], size: Size) -> list[Port]:
    """Types and shapes of tensors that depend on the picture alone, computed by ONNX Runtime from a black one."""
    import onnxruntime

    shape = (1, 3, *size)
    picture = model.inputs[0]._replace(shape=shape)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised
    settings.intra_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            model.cut([picture], names), settings, providers=["CPUExecutionProvider"]
        )
        results = session.run(list(names), {picture.name: np.zeros(shape, _TYPES[picture.element])})
        return [Port(name, _ELEMENTS[each.dtype.name], each.shape) for name, each in zip(names, results, strict=True)]
    except EditError:
        raise
    except Exception as error:  # the engine's errors have no common base
        raise EditError(f"its front cannot be computed: {one_line(error)}") from None

"""Weights kept in half the space: an ONNX file that stores them in f16 and computes with them in f32.

An engine turns them into f32 once, when it opens the file; a call costs what it always does. Where the weights are f16
numbers already, as those of a checkpoint saved so, the scores are the same to the bit.
"""

from typing import Any

_SMALL = 16  # numbers; smaller tensors (sizes, scales) stay as they are


def store_in_half(model: Any) -> Any:
    """The `onnx.ModelProto` with its float32 weights as f16, each turned back by a `Cast`; changed in place."""
    import numpy as np
    import onnx

    graph = model.graph
    casts = []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        half = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.f16")
        casts.append(onnx.helper.make_node("Cast", [half.name], [tensor.name], to=onnx.TensorProto.FLOAT))
        graph.initializer.remove(tensor)
        graph.initializer.append(half)
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    return model

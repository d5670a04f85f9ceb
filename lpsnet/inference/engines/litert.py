"""Google's LiteRT (TensorFlow Lite), for phones and boards: runs `.tflite` files on the CPU, by XNNPACK.

LiteRT takes N x H x W x C; images and logits are turned here. A file's weights in f16 are turned to f32 when it is
loaded, as XNNPACK computes in f16 on request only and on few processors. One interpreter computes one image at a time.
"""

import threading
import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet import agent
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines, model_file

_INPUT = "a network here takes one image and gives one map of logits, both float"


def open_session(options: engines.SessionOptions) -> "LiteRtSession":
    """Load a `.tflite` file for the CPU.

    Raises:
        MissingDependencyError: LiteRT is not installed.
        ModelFileError: the file is not usable, or another precision than its own was asked for.
    """
    engines.check_suffix(options, (".tflite",), runtime="litert")
    try:
        import ai_edge_litert
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise MissingDependencyError.for_extra("ai_edge_litert", "litert") from None
    with model_file.open_whole(options.path) as file:
        model_file.read_tflite_metadata(file)  # a damaged file ends here, not in LiteRT
    threads = options.num_threads or len(agent.affinity())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            interpreter = Interpreter(model_content=options.path.read_bytes(), num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ModelFileError(f"LiteRT cannot load {options.path}: {engines.one_line(error)}") from None
    return LiteRtSession(interpreter, options, num_threads=threads, engine=f"litert {ai_edge_litert.__version__}")


class LiteRtSession:
    """A network loaded by LiteRT; see `Session`. Concurrent calls of `run`, and images of a batch, run one by one."""

    runtime: Final = "litert"

    def __init__(self, interpreter: Any, options: engines.SessionOptions, *, num_threads: int, engine: str) -> None:
        self.engine, self.num_threads = engine, num_threads
        used = _precision_of(interpreter.get_tensor_details())
        self.precision = engines.check_precision(used, options, possible=["f32"])
        self._interpreter, self._path, self._lock = interpreter, options.path, threading.Lock()
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        ports = (*inputs, *outputs)
        if (len(inputs), len(outputs)) != (1, 1) or any(_is_strange(port) for port in ports):
            raise ModelFileError(f"{options.path} cannot be used: {_INPUT}")
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        _, height, width, channels = map(int, inputs[0]["shape"])
        self._shapes = engines.fix_size([(None, channels, height, width)], options)

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`."""
        with self._lock:
            return engines.run_one_by_one(self._run_one, engines.check_inputs(inputs, self._shapes))

    def _run_one(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(image.transpose(0, 2, 3, 1)))
            self._interpreter.invoke()
            logits = self._interpreter.get_tensor(self._output)  # a copy
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"LiteRT cannot run {self._path}: {engines.one_line(error)}") from None
        return np.ascontiguousarray(logits.transpose(0, 3, 1, 2))


def _is_strange(port: Any) -> bool:
    return port["dtype"] != np.float32 or len(port["shape"]) != 4 or port["shape"][0] != 1


def _precision_of(tensors: list[Any]) -> engines.Precision:
    """int8 if most maps of numbers are kept so. f16 is what weights are kept in, not what is computed in."""
    kinds = [tensor["dtype"] for tensor in tensors if len(tensor["shape"]) == 4]
    return "int8" if 2 * sum(kind == np.int8 for kind in kinds) > len(kinds) else "f32"

"""ONNX Runtime, the default engine: runs ONNX files on the CPU, and on CUDA where its package and the machine have it.

Weights that a file keeps outside of itself are looked for by ONNX Runtime, which refuses paths that leave the file's
folder; files exported by lpsnet keep everything inside.
"""

import platform
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.engines import (
    Precision,
    SessionOptions,
    Shape,
    check_inputs,
    check_precision,
    check_suffix,
    fix_size,
    one_line,
    run_one_by_one,
)
from lpsnet.inference.model_file import DamagedError, read_onnx_precision
from lpsnet.inference.onnx_graph import EditError, OnnxModel, split_at_paths

SIZE_NAMES = ("height", "width")  # of the free lengths in exported files; see export/onnx.py

_CUDA = "CUDAExecutionProvider"
_NO_CUDA = (
    "the runtime onnxruntime_cuda takes an NVIDIA GPU and ONNX Runtime for it: "
    "pip uninstall onnxruntime; pip install onnxruntime-gpu"
)
_FELL_BACK = "it fell back to the processor; look for the GPU with nvidia-smi, and for CUDA's and cuDNN's libraries"
_FATAL = 4  # log severity; what goes wrong is raised, there is no need to print it too
_INPUT_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_HALF_CPUS = ("aarch64", "arm64")  # where the CPU provider has f16 kernels; elsewhere it converts to f32 and back


def open_session(options: SessionOptions, *, cuda_only: bool = False) -> "OnnxRuntimeSession":
    """Load an ONNX file with all graph optimisations.

    Args:
        cuda_only: refuse to compute on the processor; else that is done where there is no CUDA.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or is the one without CUDA where that is asked for.
        ModelFileError: the file is not usable, the precision asked for is not its own, or CUDA cannot be used.
    """
    runtime = "onnxruntime_cuda" if cuda_only else "onnxruntime"
    check_suffix(options, (".onnx",), runtime=runtime)
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime is not installed; it comes with: pip install onnxruntime") from None
    if cuda_only and _CUDA not in onnxruntime.get_available_providers():
        raise MissingDependencyError(_NO_CUDA)
    try:
        with options.path.open("rb") as file:
            written = read_onnx_precision(file)
        session = onnxruntime.InferenceSession(
            _model(options), sess_options=_settings(onnxruntime, options), providers=_providers(onnxruntime)
        )
    except EditError as error:
        raise ModelFileError(f"{options.path} cannot take its paths' inputs: {error}") from None
    except DamagedError as error:
        raise ModelFileError(f"{options.path} is not a whole onnx file: {error}; copy or export it again") from None
    except Exception as error:  # the engine's errors have no common base
        raise ModelFileError(f"ONNX Runtime cannot load {options.path}: {one_line(error)}") from None
    if cuda_only and session.get_providers()[0] != _CUDA:
        raise ModelFileError(f"ONNX Runtime cannot use CUDA for {options.path}: {_FELL_BACK}")
    return OnnxRuntimeSession(session, options, runtime=runtime, written=written, version=onnxruntime.__version__)


def _model(options: SessionOptions) -> Path | bytes:
    if options.path_ratios is None:
        return options.path
    model = OnnxModel.read(options.path.read_bytes())
    return split_at_paths(model, options.path_ratios, size=options.input_size)


def _settings(onnxruntime: Any, options: SessionOptions) -> Any:
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    settings.inter_op_num_threads = 1
    settings.log_severity_level = _FATAL
    # else its threads go on waiting for work at full speed for a tenth of a second after every run, and take the
    # processor from whatever comes next; within a run they still do
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if options.num_threads is not None:
        settings.intra_op_num_threads = options.num_threads
    if options.input_size is not None and options.path_ratios is None:
        for name, length in zip(SIZE_NAMES, options.input_size, strict=True):
            settings.add_free_dimension_override_by_name(name, length)
    return settings


def _providers(onnxruntime: Any) -> list[Any]:
    cpu = ["CPUExecutionProvider"]
    if _CUDA not in onnxruntime.get_available_providers():
        return cpu
    return [(_CUDA, {"use_tf32": "0"}), *cpu]  # else f32 is computed with 10 bits of mantissa


class OnnxRuntimeSession:
    """A model loaded by ONNX Runtime; see `Session`. Threads that call `run` at once are served at once."""

    def __init__(
        self, session: Any, options: SessionOptions, *, runtime: str, written: Precision, version: str
    ) -> None:
        self.runtime: Final = runtime
        self._session = session
        self._path = options.path
        on_cuda = session.get_providers()[0] == _CUDA  # falls back by itself where there is no GPU
        used = written if on_cuda else _precision_on_cpu(written)
        self.engine = f"onnxruntime {version}{' on CUDA' if on_cuda else ''}"
        self.precision = check_precision(used, options, possible=[used])
        self.num_threads = options.num_threads
        self._names = [port.name for port in session.get_inputs()]
        self._types = [_input_type(port, options) for port in session.get_inputs()]
        self._output = session.get_outputs()[0].name
        shapes = tuple(_shape(port) for port in session.get_inputs())
        if options.path_ratios is None:
            shapes = fix_size(shapes, options)
        self._single = any(shape[:1] == (1,) for shape in shapes)
        self._shapes = [(None, *shape[1:]) for shape in shapes] if self._single else shapes

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of normalised images; see `Session.run`."""
        arrays = check_inputs(inputs, self._shapes)
        return run_one_by_one(self._infer, arrays) if self._single else self._infer(*arrays)

    def _infer(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        typed = (array.astype(kind, copy=False) for array, kind in zip(arrays, self._types, strict=True))
        try:
            scores = self._session.run([self._output], dict(zip(self._names, typed, strict=True)))[0]
        except Exception as error:
            raise ModelFileError(f"ONNX Runtime cannot run {self._path}: {one_line(error)}") from None
        return np.asarray(scores, np.float32)


def _precision_on_cpu(written: Precision) -> Precision:
    if written in ("f32", "int8") or (written == "f16" and platform.machine() in _HALF_CPUS):
        return written
    return "f32"


def _shape(port: Any) -> Shape:
    return tuple(length if isinstance(length, int) else None for length in port.shape)


def _input_type(port: Any, options: SessionOptions) -> type[np.floating[Any]]:
    if port.type not in _INPUT_TYPES:
        raise ModelFileError(f"input {port.name!r} of {options.path} is {port.type}; a network here takes floats")
    return _INPUT_TYPES[port.type]

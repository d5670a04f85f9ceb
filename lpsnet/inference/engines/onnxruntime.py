"""ONNX Runtime, the default engine: runs ONNX files on the CPU, and on CUDA where its package and the machine have it.

ONNX Runtime itself loads weights stored outside of a file, and refuses paths that leave the file's folder; files
exported by lpsnet contain everything.
"""

import platform
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet import agent
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines, model_file, onnx_graph

SIZE_NAMES = ("height", "width")  # of the free dimensions in exported files; see export/onnx.py

_CUDA = "CUDAExecutionProvider"
_NO_CUDA = (
    "the runtime onnxruntime_cuda takes an NVIDIA GPU and ONNX Runtime for it: "
    "pip uninstall onnxruntime; pip install onnxruntime-gpu"
)
_FELL_BACK = "it fell back to the processor; look for the GPU with nvidia-smi, and for CUDA's and cuDNN's libraries"
_FATAL = 4  # log severity; errors are raised and need not be printed, too
_INPUT_TYPES: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_HALF_CPUS = ("aarch64", "arm64")  # the CPU provider has f16 kernels there; elsewhere it converts to f32 and back


def open_session(options: engines.SessionOptions, *, cuda_only: bool = False) -> "OnnxRuntimeSession":
    """Load an ONNX file with all graph optimisations.

    Args:
        cuda_only: refuse to compute on the CPU; otherwise the CPU is used where there is no CUDA.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or lacks CUDA although `cuda_only`.
        ModelFileError: the file is not usable, the requested precision is not its own, or CUDA cannot be used.
    """
    runtime = "onnxruntime_cuda" if cuda_only else "onnxruntime"
    engines.check_suffix(options, (".onnx",), runtime=runtime)
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError("onnxruntime is not installed; it comes with: pip install onnxruntime") from None
    if cuda_only and _CUDA not in onnxruntime.get_available_providers():
        raise MissingDependencyError(_NO_CUDA)
    with model_file.open_whole(options.path) as file:
        written = model_file.read_onnx_precision(file)
    model = options.path if options.path_ratios is None else onnx_graph.read_with_path_inputs(options)
    how = settings(options)
    providers = agent.onnxruntime_providers(onnxruntime, how)
    try:
        session = onnxruntime.InferenceSession(
            model, sess_options=agent.onnxruntime_settings(onnxruntime, how), providers=providers
        )
    except Exception as error:  # the engine's errors have no common base
        raise ModelFileError(f"ONNX Runtime cannot load {options.path}: {engines.one_line(error)}") from None
    if cuda_only and session.get_providers()[0] != _CUDA:
        raise ModelFileError(f"ONNX Runtime cannot use CUDA for {options.path}: {_FELL_BACK}")
    return OnnxRuntimeSession(session, options, runtime=runtime, written=written, version=onnxruntime.__version__)


def settings(options: engines.SessionOptions) -> dict[str, Any]:
    """Settings of ONNX Runtime as JSON values, for `agent.onnxruntime_settings` here or on a device."""
    attributes = {"inter_op_num_threads": 1, "log_severity_level": _FATAL}
    if options.num_threads is not None:
        attributes["intra_op_num_threads"] = options.num_threads
    sizes = options.input_size if options.path_ratios is None else None
    return {
        "attributes": attributes,
        # otherwise its threads spin for a tenth of a second after every run and slow down the next stage; within a run
        # they still spin
        "entries": {"session.force_spinning_stop": "1"},
        "dimensions": dict(zip(SIZE_NAMES, sizes, strict=True)) if sizes else {},
        "providers": [(_CUDA, {"use_tf32": "0"}), "CPUExecutionProvider"],  # TF32 has 10 bits of mantissa
    }


def on_device(options: engines.SessionOptions, *, cuda_only: bool = False) -> engines.OnDevice:
    """How a device opens an ONNX file; errors as for `open_session`."""
    engines.check_suffix(options, (".onnx",), runtime="onnxruntime")
    with model_file.open_whole(options.path) as file:
        written = model_file.read_onnx_precision(file)

    def judge(facts: Mapping[str, Any]) -> engines.Judged:
        on_cuda = facts["providers"][0] == _CUDA
        if cuda_only and not on_cuda:
            raise MissingDependencyError(f"{_NO_CUDA}; on the device")
        used = written if on_cuda else _precision_on_cpu(written, facts["architecture"])
        return f"onnxruntime {facts['version']}{' on CUDA' if on_cuda else ''}", used, options.num_threads, [used]

    return engines.OnDevice("onnxruntime", (options.path.read_bytes(),), (".onnx",), settings(options), judge)


class OnnxRuntimeSession:
    """A model loaded by ONNX Runtime; see `Session`. Concurrent calls of `run` run concurrently."""

    def __init__(
        self, session: Any, options: engines.SessionOptions, *, runtime: str, written: engines.Precision, version: str
    ) -> None:
        self.runtime: Final = runtime
        self._session = session
        self._path = options.path
        on_cuda = session.get_providers()[0] == _CUDA  # it falls back silently where there is no GPU
        used = written if on_cuda else _precision_on_cpu(written, platform.machine())
        self.engine = f"onnxruntime {version}{' on CUDA' if on_cuda else ''}"
        self.precision = engines.check_precision(used, options, possible=[used])
        self.num_threads = options.num_threads
        self._names = [port.name for port in session.get_inputs()]
        self._types = [_input_type(port, options) for port in session.get_inputs()]
        self._output = session.get_outputs()[0].name
        shapes = tuple(_shape(port) for port in session.get_inputs())
        if options.path_ratios is None:
            shapes = engines.fix_size(shapes, options)
        self._single = any(shape[:1] == (1,) for shape in shapes)
        self._shapes = [(None, *shape[1:]) for shape in shapes] if self._single else shapes

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`."""
        arrays = engines.check_inputs(inputs, self._shapes)
        return engines.run_one_by_one(self._infer, arrays) if self._single else self._infer(*arrays)

    def _infer(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        typed = (array.astype(kind, copy=False) for array, kind in zip(arrays, self._types, strict=True))
        try:
            logits = self._session.run([self._output], dict(zip(self._names, typed, strict=True)))[0]
        except Exception as error:
            raise ModelFileError(f"ONNX Runtime cannot run {self._path}: {engines.one_line(error)}") from None
        return np.asarray(logits, np.float32)


def _precision_on_cpu(written: engines.Precision, architecture: str) -> engines.Precision:
    if written in ("f32", "int8") or (written == "f16" and architecture in _HALF_CPUS):
        return written
    return "f32"


def _shape(port: Any) -> engines.Shape:
    return tuple(length if isinstance(length, int) else None for length in port.shape)


def _input_type(port: Any, options: engines.SessionOptions) -> type[np.floating[Any]]:
    if port.type not in _INPUT_TYPES:
        raise ModelFileError(f"input {port.name!r} of {options.path} is {port.type}; a network here takes floats")
    return _INPUT_TYPES[port.type]

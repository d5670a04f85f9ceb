"""ONNX Runtime, the default engine: runs ONNX files on the CPU, and on CUDA where its package and the machine have it.

ONNX Runtime itself loads weights stored outside of a file, and refuses paths that leave the file's folder; files
exported by lpsnet contain everything.

With only its TensorRT provider it is the engine `tensorrt`, that of the paper's latencies. A network that TensorRT does
not support entirely is refused, never computed elsewhere. `trtexec_command` is the command of NVIDIA's own program that
times a file as the paper does; its 'GPU Compute Time' excludes copies to and from the GPU. Both compute float32 without
TF32, as the GTX 1080 Ti of the paper did. TensorRT's part is written from the documentation, not verified on hardware.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
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


def open_session(
    options: engines.SessionOptions, *, cuda_only: bool = False, tensorrt: bool = False
) -> engines.Session:
    """Load an ONNX file with all graph optimisations.

    Args:
        cuda_only: refuse to compute on the CPU; otherwise the CPU is used where there is no CUDA.
        tensorrt: by TensorRT alone. Its engine is built, which takes seconds to minutes, or loaded from the cache.

    Raises:
        MissingDependencyError: onnxruntime is not installed, or lacks CUDA or TensorRT although asked for.
        ModelFileError: the file is not usable, the requested precision is not its own, or CUDA cannot be used, or
            TensorRT cannot compute all of it as requested.
    """
    if tensorrt:
        return _open_tensorrt(options)
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


TENSORRT = "TensorrtExecutionProvider"
_TENSORRT_PRECISIONS: list[engines.Precision] = ["f32", "f16", "bf16"]
_NO_TENSORRT = (
    "the runtime tensorrt takes an NVIDIA GPU, TensorRT's libraries and ONNX Runtime for them: "
    "pip uninstall onnxruntime; pip install onnxruntime-gpu"
)
_TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"  # read by NVIDIA's libraries when they are loaded; 0 is off


def _open_tensorrt(options: engines.SessionOptions) -> "TensorRtSession":
    engines.check_suffix(options, (".onnx",), runtime="tensorrt")
    onnxruntime = _import_with_tensorrt()
    precision = engines.check_precision(_tensorrt_precision(options), options, possible=_TENSORRT_PRECISIONS)
    if precision in ("f32", "int8"):
        os.environ.setdefault(_TF32_SWITCH, "0")
    provider = (TENSORRT, tensorrt_options(precision, cache_folder=engine_cache(options)))
    try:
        session = onnxruntime.InferenceSession(
            options.path, tensorrt_settings(onnxruntime, options), providers=[provider]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelFileError(f"TensorRT cannot take {options.path}: {engines.one_line(error)}") from None
    return TensorRtSession(session, options, precision=precision, version=onnxruntime.__version__)


def _import_with_tensorrt() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(_NO_TENSORRT) from None
    if TENSORRT not in onnxruntime.get_available_providers():
        raise MissingDependencyError(_NO_TENSORRT)
    return onnxruntime


def tensorrt_settings(onnxruntime: Any, options: engines.SessionOptions) -> Any:
    """Settings of ONNX Runtime itself: no CPU fallback, and free dimensions set to the requested size."""
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if options.input_size is not None:
        for name, length in zip(SIZE_NAMES, options.input_size, strict=True):
            settings.add_free_dimension_override_by_name(name, length)
    return settings


def tensorrt_options(precision: engines.Precision, *, cache_folder: Path) -> dict[str, str]:
    """Settings of ONNX Runtime's TensorRT provider.

    Args:
        precision: the arithmetic TensorRT may use besides float32; for int8 the file has the scales.
        cache_folder: where engines are stored. The provider distinguishes them by graph, not by weights, so one folder
            is for one file.
    """
    switches = {
        "trt_fp16_enable": precision == "f16",
        "trt_bf16_enable": precision == "bf16",
        "trt_int8_enable": precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_timing_cache_enable": True,
    }
    folders = dict.fromkeys(("trt_engine_cache_path", "trt_timing_cache_path"), str(cache_folder))
    return {name: str(value) for name, value in switches.items()} | folders


def engine_cache(options: engines.SessionOptions) -> Path:
    """The folder for engines of this file, precision and size, in the user's cache; created if missing."""
    with options.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    size = _times(options.input_size) if options.input_size else "free"
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "lpsnet" / "tensorrt" / f"{content[:32]}-{options.precision}-{size}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelFileError(f"no folder for TensorRT's engines: {folder}: {error.strerror}") from None
    return folder


class TensorRtSession:
    """A network that TensorRT runs whole on the GPU; see `Session`. Copies to and from the GPU are part of `run`."""

    runtime: Final = "tensorrt"
    num_threads: Final = None

    def __init__(
        self, session: Any, options: engines.SessionOptions, *, precision: engines.Precision, version: str
    ) -> None:
        if TENSORRT not in session.get_providers():  # dropped without an error if its libraries do not load
            raise ModelFileError(f"TensorRT cannot take {options.path}: its libraries could not be loaded")
        self.engine = f"onnxruntime {version} with TensorRT"
        self.precision = precision
        self._session, self._path = session, options.path
        self._names = [port.name for port in session.get_inputs()]
        self._shapes = engines.fix_size([_shape(port) for port in session.get_inputs()], options)

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of normalised images; see `Session.run`."""
        arrays = engines.check_inputs(inputs, self._shapes)
        try:
            logits: NDArray[np.float32] = self._session.run(None, dict(zip(self._names, arrays, strict=True)))[0]
        except Exception as error:
            raise ModelFileError(f"TensorRT cannot run {self._path}: {engines.one_line(error)}") from None
        return logits


_PRECISION_FLAGS: dict[engines.Precision, tuple[str, ...]] = {
    "f32": ("--noTF32",),
    "f16": ("--fp16",),
    "bf16": ("--bf16",),
    "int8": ("--int8", "--noTF32"),
}


def trtexec_command(
    path: Path,
    *,
    precision: engines.Precision = "f32",
    size: tuple[int, int] | None = None,
    input_name: str = "image",
    warm_up_s: float = 1.0,
    duration_s: float = 20.0,
    program: str = "trtexec",
    channels: int = 3,
) -> list[str]:
    """The command that times an ONNX file as the paper does: 1 s of warm-up, then 20 s, one image at a time.

    Args:
        path: the ONNX file.
        precision: arithmetic that TensorRT may use besides float32.
        size: height and width for a file exported for any size; None for one of a fixed size.
        input_name: the file's input, for `size`.
        channels: of the images it takes, for `size`.
    """
    shapes = [] if size is None else [f"--shapes={input_name}:{_times((1, channels, *size))}"]
    timing = [f"--warmUp={round(warm_up_s * 1000)}", f"--duration={duration_s:g}", "--iterations=10"]
    return [program, f"--onnx={path}", *shapes, *_PRECISION_FLAGS[precision], *timing]


def _tensorrt_precision(options: engines.SessionOptions) -> engines.Precision:
    """int8 if the file is quantised, else what TensorRT is set to, which it does not confirm."""
    with model_file.open_whole(options.path) as file:
        own = model_file.read_onnx_precision(file)
    if own == "f32":
        return "f32" if options.precision == "int8" else options.precision
    return own


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

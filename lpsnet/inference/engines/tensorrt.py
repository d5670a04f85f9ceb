"""NVIDIA's TensorRT, the engine of the paper's latencies: ONNX Runtime with only its TensorRT provider.

A network that it does not support entirely is refused, never computed elsewhere. `trtexec_command` is the command of
NVIDIA's own program that times a file as the paper does; its 'GPU Compute Time' excludes copies to and from the GPU.
Both compute float32 without TF32, as the GTX 1080 Ti of the paper did. Written from the documentation, not verified on
hardware.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference import engines, model_file
from lpsnet.inference.engines.onnxruntime import SIZE_NAMES

PROVIDER = "TensorrtExecutionProvider"
_POSSIBLE: list[engines.Precision] = ["f32", "f16", "bf16"]
_NO_TENSORRT = (
    "the runtime tensorrt takes an NVIDIA GPU, TensorRT's libraries and ONNX Runtime for them: "
    "pip uninstall onnxruntime; pip install onnxruntime-gpu"
)
_TF32_SWITCH = "NVIDIA_TF32_OVERRIDE"  # read by NVIDIA's libraries when they are loaded; 0 is off


def open_session(options: engines.SessionOptions) -> "TensorRtSession":
    """Build an engine for an ONNX file, or load it from the cache; building takes seconds to minutes.

    Raises:
        MissingDependencyError: this ONNX Runtime has no TensorRT.
        ModelFileError: the file is not usable, or TensorRT cannot compute all of it as requested.
    """
    engines.check_suffix(options, (".onnx",), runtime="tensorrt")
    onnxruntime = _import_with_tensorrt()
    precision = engines.check_precision(_precision_of(options), options, possible=_POSSIBLE)
    if precision in ("f32", "int8"):
        os.environ.setdefault(_TF32_SWITCH, "0")
    provider = (PROVIDER, provider_options(precision, cache_folder=engine_cache(options)))
    try:
        session = onnxruntime.InferenceSession(
            options.path, session_options(onnxruntime, options), providers=[provider]
        )
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise ModelFileError(f"TensorRT cannot take {options.path}: {engines.one_line(error)}") from None
    return TensorRtSession(session, options, precision=precision, version=onnxruntime.__version__)


def _import_with_tensorrt() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(_NO_TENSORRT) from None
    if PROVIDER not in onnxruntime.get_available_providers():
        raise MissingDependencyError(_NO_TENSORRT)
    return onnxruntime


def session_options(onnxruntime: Any, options: engines.SessionOptions) -> Any:
    """Settings of ONNX Runtime itself: no CPU fallback, and free dimensions set to the requested size."""
    settings = onnxruntime.SessionOptions()
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if options.input_size is not None:
        for name, length in zip(SIZE_NAMES, options.input_size, strict=True):
            settings.add_free_dimension_override_by_name(name, length)
    return settings


def provider_options(precision: engines.Precision, *, cache_folder: Path) -> dict[str, str]:
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
        if PROVIDER not in session.get_providers():  # dropped without an error if its libraries do not load
            raise ModelFileError(f"TensorRT cannot take {options.path}: its libraries could not be loaded")
        self.engine = f"onnxruntime {version} with TensorRT"
        self.precision = precision
        self._session, self._path = session, options.path
        self._names = [port.name for port in session.get_inputs()]
        self._shapes = engines.fix_size([_shape(port.shape) for port in session.get_inputs()], options)

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


def _precision_of(options: engines.SessionOptions) -> engines.Precision:
    """int8 if the file is quantised, else what TensorRT is set to, which it does not confirm."""
    with model_file.open_whole(options.path) as file:
        own = model_file.read_onnx_precision(file)
    if own == "f32":
        return "f32" if options.precision == "int8" else options.precision
    return own


def _shape(lengths: list[int | str | None]) -> engines.Shape:
    return tuple(length if isinstance(length, int) else None for length in lengths)


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

"""The protocol that all engines implement, the table of engines, the checks that they share, and a fake for tests.

An engine is a module with a function `open_session(options) -> Session`. It is imported when it is first used, so that
a missing optional package matters only to users of that engine.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import DataError, ModelFileError, unknown_name

Precision = Literal["f32", "bf16", "f16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

# Memory layout of a path's input: N x 3 x h x w float32, N x h x w x 3 float32, or N x h x w x 3 bfloat16; as NumPy has
# no bfloat16, the last is uint16 with the upper halves of float32
Layout = Literal["nchw", "nhwc", "nhwc_bf16"]

Shape = tuple[int | None, ...]  # of an input of a model; None is a length that may differ between calls


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What an engine is to load, and how.

    Attributes:
        path: the model file.
        precision: the arithmetic requested; the session reports the one used.
        num_threads: threads the engine may use; None leaves the choice to the engine.
        input_size: (height, width) the engine may compile for; None: sizes may differ between calls.
        path_ratios: the ratios of the network's paths, largest first, if each path is to have its own input in place of
            the image; see `Session.run`.
        path_layout: of those inputs; one of the engine's `Engine.path_layouts`.
    """

    path: Path
    precision: Precision = "f32"
    num_threads: int | None = None
    input_size: tuple[int, int] | None = None
    path_ratios: tuple[Fraction, ...] | None = None
    path_layout: Layout = "nchw"


class Session(Protocol):
    """A loaded model. `run` may be called from several threads.

    Attributes:
        runtime: the engine's name in `RUNTIMES`.
        engine: the engine and its version, e.g. "onnxruntime 1.22.0".
        precision: the arithmetic really used, as reported by the engine.
        num_threads: threads of the engine; None if unknown.
    """

    @property
    def runtime(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def num_threads(self) -> int | None: ...

    def run(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of normalised images: N x 3 x H x W float32 in (one array per input of the model, in its order; an
        exported network has one), N x K x h x w float32 out. With `SessionOptions.path_ratios` the inputs are
        N x 3 x `architecture.path_size((H, W), ratio)`, one for each ratio, in the layout `path_layout`."""
        ...


Judged = tuple[str, Precision, int | None, Sequence[Precision]]  # engine, precision used, threads, precisions possible


@dataclass(frozen=True, slots=True)
class OnDevice:
    """How an agent on a device opens a model (`lpsnet/agent.py`).

    Attributes:
        engine: its name in `agent.ENGINES`.
        files, suffixes: the files' contents, and the suffixes of their names.
        how: settings, JSON values.
        judge: takes what the engine says there, with the processor's "architecture"; tells what is used.
        shapes: of the inputs; empty if the engine tells.
    """

    engine: str
    files: tuple[bytes, ...]
    suffixes: tuple[str, ...]
    how: Mapping[str, Any]
    judge: Callable[[Mapping[str, Any]], Judged]
    shapes: Sequence[Shape] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """A row of `RUNTIMES`.

    Attributes:
        module: the full name of the module whose `open_session(options, **arguments) -> Session` loads a model file.
        arguments: what distinguishes this engine from others of the same module.
        path_layouts: the layouts in which it accepts the paths' inputs in place of the image; empty if it does not.
        remote: whether it runs on a device far away: the module has `on_device(options, **arguments) -> OnDevice`.
    """

    module: str
    arguments: Mapping[str, bool] = field(default_factory=dict)
    path_layouts: tuple[Layout, ...] = ()
    remote: bool = False


# A new engine is a module with `open_session` and a row here
RUNTIMES: dict[str, Engine] = {
    "onnxruntime": Engine("lpsnet.inference.engines.onnxruntime", path_layouts=("nchw",), remote=True),
    "onnxruntime_cuda": Engine("lpsnet.inference.engines.onnxruntime", {"cuda_only": True}, ("nchw",), remote=True),
    "openvino": Engine("lpsnet.inference.engines.openvino", path_layouts=("nchw", "nhwc", "nhwc_bf16"), remote=True),
    "ncnn": Engine("lpsnet.inference.engines.ncnn", path_layouts=("nchw",), remote=True),
    "litert": Engine("lpsnet.inference.engines.litert"),
    "tensorrt": Engine("lpsnet.inference.engines.onnxruntime", {"tensorrt": True}),
    "pytorch": Engine("lpsnet.inference.engines.pytorch"),
    "pytorch_compiled": Engine("lpsnet.inference.engines.pytorch", {"compiled": True}),
    "pytorch_cuda": Engine("lpsnet.inference.engines.pytorch", {"cuda_only": True}),
}


def open_session(runtime: str, options: SessionOptions) -> Session:
    """Load a model file with an engine.

    Raises:
        ModelFileError: no engine has that name, no precision has that name, or the file is missing or not usable by it;
            with `path_ratios` also if the engine or the file does not support it.
        MissingDependencyError: the engine's package is not installed; the message holds the install command.
    """
    engine = _row(runtime, options)
    if options.path_ratios is not None and options.path_layout not in engine.path_layouts:
        able = ", ".join(name for name, row in RUNTIMES.items() if options.path_layout in row.path_layouts)
        raise ModelFileError(
            f"the runtime {runtime} takes whole images, not paths' inputs as {options.path_layout}; {able} take these"
        )
    session: Session = importlib.import_module(engine.module).open_session(options, **engine.arguments)
    return session


def for_device(runtime: str, options: SessionOptions) -> OnDevice:
    """How a device opens a model file; errors as for `open_session`, or if the engine runs on this machine only."""
    engine = _row(runtime, options)
    if not engine.remote:
        able = ", ".join(name for name, row in RUNTIMES.items() if row.remote)
        raise ModelFileError(f"the runtime {runtime} does not run on a device over ssh; {able} do")
    found: OnDevice = importlib.import_module(engine.module).on_device(options, **engine.arguments)
    return found


def _row(runtime: str, options: SessionOptions) -> Engine:
    """The engine's row, for options that are in range."""
    if runtime not in RUNTIMES:
        raise ModelFileError(unknown_name("runtime", runtime, RUNTIMES))
    if options.precision not in PRECISIONS:
        raise ModelFileError(unknown_name("precision", options.precision, PRECISIONS))
    _check_numbers(options)
    if not options.path.is_file():
        raise ModelFileError(f"no model file at {options.path}")
    return RUNTIMES[runtime]


def _check_numbers(options: SessionOptions) -> None:
    numbers = {"num_threads": options.num_threads}
    if options.input_size is not None:
        numbers["height"], numbers["width"] = options.input_size
    for name, number in numbers.items():
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 1):
            raise ModelFileError(f"{name} is a whole number of at least 1; got {number!r}")


def check_suffix(options: SessionOptions, allowed: Sequence[str], *, runtime: str) -> str:
    """The suffix of the model file in small letters, e.g. ".onnx"; ModelFileError if it is none of `allowed`."""
    suffix = options.path.suffix.lower()
    if suffix not in allowed:
        raise ModelFileError(
            f"{options.path} is not for the runtime {runtime}, which runs {', '.join(allowed)}; "
            "make such a file with: lpsnet export"
        )
    return suffix


def fix_size(shapes: Sequence[Shape], options: SessionOptions) -> tuple[Shape, ...]:
    """The shapes of a model's inputs with `options.input_size` filled in; None leaves them unchanged.

    Raises:
        ModelFileError: the file was exported for another size, or the model has several inputs.
    """
    size = options.input_size
    if size is None:
        return tuple(shapes)
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ModelFileError(f"{options.path} takes {len(shapes)} inputs; an input_size is for one input N x C x H x W")
    if any(own not in (None, asked) for own, asked in zip(shapes[0][2:], size, strict=True)):
        own = _shape_text(shapes[0][2:])
        raise ModelFileError(
            f"{options.path} was exported for {own}, not {_shape_text(size)}; use {own} or export it again"
        )
    return ((*shapes[0][:2], *size),)


def check_inputs(
    inputs: Sequence[NDArray[Any]], shapes: Sequence[Shape], kind: type[np.generic] = np.float32
) -> list[NDArray[Any]]:
    """The arrays given to `Session.run`, in C order.

    Raises:
        DataError: their number, type or shape is not what the model takes, or the lengths of the batch differ.
    """
    if len(inputs) != len(shapes):
        raise DataError(f"wrong number of inputs: the model takes {len(shapes)}; got {len(inputs)}")
    for array, shape in zip(inputs, shapes, strict=True):
        _check_input(array, shape, np.dtype(kind))
    if len({len(array) for array in inputs}) > 1:
        raise DataError(f"all inputs hold the same number of images; got {[len(array) for array in inputs]}")
    return [np.ascontiguousarray(array) for array in inputs]


def _check_input(array: object, shape: Shape, kind: np.dtype[Any]) -> None:
    wanted = f"{kind} {_shape_text(shape)}"
    if not isinstance(array, np.ndarray):
        raise DataError(f"the model takes {wanted}; got {type(array).__name__}")
    fits = len(array.shape) == len(shape) and all(
        given > 0 and own in (None, given) for given, own in zip(array.shape, shape, strict=True)
    )
    if array.dtype != kind or not fits:
        raise DataError(f"the model takes {wanted}; got {array.dtype} {_shape_text(array.shape)}")


def _shape_text(shape: Shape) -> str:
    return " x ".join("any" if length is None else str(length) for length in shape)


def run_one_by_one(run: Callable[..., NDArray[np.float32]], inputs: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The results of `run`, which takes batches of one, for all images of a batch."""
    if len(inputs[0]) == 1:
        return run(*inputs)
    return np.concatenate([run(*(array[i : i + 1] for array in inputs)) for i in range(len(inputs[0]))])


def check_precision(
    used: Precision, options: SessionOptions, *, possible: Sequence[Precision], where: str = "this machine"
) -> Precision:
    """`used`, the arithmetic of the engine, if it is the one requested.

    A quantised file computes in int8 whatever was requested.

    Raises:
        ModelFileError: another one was requested; the message names those `possible` where it runs.
    """
    if used in (options.precision, "int8"):
        return used
    if options.precision == "int8":
        raise ModelFileError(f"{options.path} is not quantised; export it with precision int8, or ask for f32")
    raise ModelFileError(
        f"{options.precision} was asked for, but the engine would compute {options.path} in {used} here; "
        f"possible on {where}: {', '.join(possible)}"
    )


def one_line(error: BaseException) -> str:
    """The message of an engine's error, often a page long, in one line of at most 200 characters."""
    text = re.sub(r"Exception from \S+:\d+:", "", str(error))  # OpenVINO names its own source files
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:120]} … {text[-77:]}"


Array = NDArray[np.float32]


class FakeSession:
    """A `Session` that computes its logits with a function and records the shapes of its inputs.

    Args:
        compute: N x 3 x H x W float32 (one array per input) to N x K x h x w float32.
        runtime, engine, precision, num_threads: what it reports.

    Attributes:
        shapes: of the inputs of every call, oldest first.
    """

    def __init__(
        self,
        compute: Callable[..., Array],
        *,
        runtime: str = "fake",
        engine: str = "fake 1.0",
        precision: Precision = "f32",
        num_threads: int | None = None,
    ) -> None:
        self._compute = compute
        self.runtime = runtime
        self.engine = engine
        self.precision = precision
        self.num_threads = num_threads
        self.shapes: list[tuple[tuple[int, ...], ...]] = []

    def run(self, *inputs: Array) -> Array:
        """The function applied to the inputs."""
        self.shapes.append(tuple(array.shape for array in inputs))
        return self._compute(*inputs)

"""The one protocol that every engine is behind, and the table of engines.

An engine is a module with a function `open_session(options) -> Session`. It is imported when it is first asked for, so
that a missing optional package is noticed only by those who ask for it.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import ModelFileError, unknown_name

Precision = Literal["f32", "bf16", "f16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What is asked of an engine.

    Attributes:
        path: the model file.
        precision: the arithmetic asked for; the session says what was really used.
        num_threads: threads the engine may use; None leaves the choice to the engine.
        input_size: (height, width) the engine may compile for; None means that sizes may change from call to call.
    """

    path: Path
    precision: Precision = "f32"
    num_threads: int | None = None
    input_size: tuple[int, int] | None = None


class Session(Protocol):
    """A loaded model. `run` may be called from several threads.

    Attributes:
        runtime: the engine's name in `RUNTIMES`.
        engine: the engine and its version, e.g. "onnxruntime 1.22.0".
        precision: the arithmetic really used, as the engine reports it.
        num_threads: the threads the engine uses; None if it does not say.
    """

    @property
    def runtime(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def num_threads(self) -> int | None: ...

    def run(self, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scores of normalised pictures: N x 3 x H x W float32 in (one array for every input of the model, in its
        order; an exported network has one), N x K x h x w float32 out."""
        ...


# name -> module; a new engine is a module with `open_session` and a row here
RUNTIMES: dict[str, str] = {
    "onnxruntime": "lpsnet.deployment.runtimes.onnxruntime",
    "openvino": "lpsnet.deployment.runtimes.openvino",
    "ncnn": "lpsnet.deployment.runtimes.ncnn",
    "tensorrt": "lpsnet.deployment.runtimes.tensorrt",
    "pytorch": "lpsnet.deployment.runtimes.pytorch",
}


def open_session(runtime: str, options: SessionOptions) -> Session:
    """Load a model file with an engine.

    Raises:
        ModelFileError: no engine has that name, no precision has that name, or the file is missing or not usable by it.
        MissingDependencyError: the engine's package is not installed; the message holds the install command.
    """
    if runtime not in RUNTIMES:
        raise ModelFileError(unknown_name("runtime", runtime, RUNTIMES))
    if options.precision not in PRECISIONS:
        raise ModelFileError(unknown_name("precision", options.precision, PRECISIONS))
    if not options.path.is_file():
        raise ModelFileError(f"no model file at {options.path}")
    session: Session = importlib.import_module(RUNTIMES[runtime]).open_session(options)
    return session

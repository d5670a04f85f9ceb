"""The segmenter: a model file in, then pictures in and label maps out. No torch.

A picture is brought to the network's input size, normalised, scored by an engine, and the scores are brought to the
picture's own size before the best class of every pixel is taken (paper 3.1; NOTES, evaluation).
"""

from pathlib import Path
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import LabelSpace
from lpsnet.deployment.label_map import label_map
from lpsnet.deployment.model_file import read_record
from lpsnet.deployment.models import find_model
from lpsnet.deployment.preparation import MIN_INPUT, prepare
from lpsnet.deployment.runtimes.session import Precision, Session, SessionOptions, open_session
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.record import ModelRecord

Size = tuple[int, int]  # height, width

# suffix -> the engine that runs such files unless another is asked for
DEFAULT_RUNTIMES: dict[str, str] = {
    ".onnx": "onnxruntime",
    ".safetensors": "pytorch",
    ".openvino": "openvino",
    ".ncnn": "ncnn",
}


class Segmenter:
    """Segments pictures with a model file. May be called from several threads.

    Args:
        model: path of a model file, or the name of a model that comes with the package.
        runtime: engine, see `RUNTIMES`; None takes the usual one for the file's format.
        precision: arithmetic to ask for: "f32", "bf16", "f16" or "int8"; `engine` and `precision` say what is used.
        num_threads, threads: threads the engine may use (two names for the same); None leaves the choice to the engine.
        input_size: (height, width) in pixels that the network runs at. None takes the record's, and where the record
            has none every picture's own size. Label maps have the picture's size in any case.

    Raises:
        ModelFileError: the model, engine or precision does not exist, or the file is not usable.
        MissingDependencyError: the engine's package is not installed; the message holds the install command.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: str | None = None,
        precision: str = "f32",
        num_threads: int | None = None,
        threads: int | None = None,
        input_size: Size | None = None,
    ) -> None:
        path = find_model(model)
        record = read_record(path)
        size = _check_size(input_size) or record.input_size
        options = SessionOptions(
            path, cast(Precision, precision), _one_of(num_threads, threads), size
        )  # `open_session` checks the precision
        session = open_session(runtime or DEFAULT_RUNTIMES[path.suffix.lower()], options)
        self._set(session, record, input_size=size, model=str(model))

    @classmethod
    def from_session(
        cls, session: Session, record: ModelRecord, *, input_size: Size | None = None, model: str = ""
    ) -> Self:
        """A segmenter on an engine's session that is open already; `record` says what the session's model is."""
        segmenter = cls.__new__(cls)
        segmenter._set(session, record, input_size=_check_size(input_size) or record.input_size, model=model)
        return segmenter

    def _set(self, session: Session, record: ModelRecord, *, input_size: Size | None, model: str) -> None:
        self._session = session
        self._record = record
        self._input_size = input_size
        self._model = model

    @property
    def record(self) -> ModelRecord:
        """What the model file says about itself."""
        return self._record

    @property
    def label_space(self) -> LabelSpace:
        """The classes, in the order of their ids."""
        return self._record.label_space

    @property
    def engine(self) -> str:
        """The engine and its version, e.g. "onnxruntime 1.22.0"."""
        return self._session.engine

    @property
    def precision(self) -> Precision:
        """The arithmetic really used."""
        return self._session.precision

    @property
    def input_size(self) -> Size | None:
        """(height, width) in pixels that the network runs at; None where it runs at every picture's own size."""
        return self._input_size

    @property
    def protocol(self) -> dict[str, Any]:
        """How label maps are made, as JSON values; part of every figure measured with this segmenter."""
        return {
            "model": self._model,
            "runtime": self._session.runtime,
            "engine": self.engine,
            "precision": self.precision,
            "num_threads": self._session.num_threads,
            "input_size": None if self._input_size is None else list(self._input_size),
            "align_corners": self._record.align_corners,
        }

    def __call__(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The class of every pixel.

        Args:
            image: H x W x 3 uint8 RGB, any size from 1 x 1 up.

        Returns:
            H x W uint8 class ids, 0 to K - 1.

        Raises:
            DataError: `image` is no such array; the message says what to do.
            ModelFileError: the engine cannot run the model, or its scores do not fit the record.
        """
        scores = self.scores(image)
        height, width = image.shape[:2]
        return label_map(scores, (height, width), align_corners=self._record.align_corners)

    def scores(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's class scores (logits), K x h x w float32, at the network's own output size.

        `image` and errors as for a call.
        """
        scores = self._session.run(self.prepare(image))
        expected = (1, self.label_space.num_classes)
        if scores.ndim != 4 or scores.shape[:2] != expected:
            raise ModelFileError(
                f"{self._model or 'the model'} gives scores of shape {scores.shape}, but its record names "
                f"{expected[1]} classes; export it again"
            )
        first: NDArray[np.float32] = scores[0]
        return first

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What the engine is given for `image`: 1 x 3 x h x w float32, resized and normalised."""
        return prepare(image, self._record, size=self._input_size)


def _one_of(num_threads: int | None, threads: int | None) -> int | None:
    if num_threads is not None and threads is not None and num_threads != threads:
        raise LpsnetError(f"num_threads={num_threads} and threads={threads} are the same setting; give one of them")
    return threads if num_threads is None else num_threads


def _check_size(size: Size | None) -> Size | None:
    if size is None:
        return None
    if len(size) != 2 or any(isinstance(n, bool) or not isinstance(n, int) or n < MIN_INPUT for n in size):
        raise ModelFileError(f"input_size is height and width in pixels, each at least {MIN_INPUT}; got {size}")
    return size[0], size[1]

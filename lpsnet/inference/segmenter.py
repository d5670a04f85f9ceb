"""The segmenter: a model file in, then images in and label maps out. No torch.

An image is normalised and resized to the network's input size, an engine computes logits, and the label map is the
class with the largest logit after bilinear resizing to the image's own size (paper 3.1; design-notes, 'Evaluation').

Two shortcuts compute the same function faster: where engine and file allow it, the image is resized for each path
before it reaches the engine (`onnx_graph.py`); and labels are computed without full-size logits (`label_map.py`).
"""

import contextlib
import importlib
import operator
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Image
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.inference.engines import RUNTIMES, Layout, Precision, Session, SessionOptions, open_session
from lpsnet.inference.hub import find_model
from lpsnet.inference.kernels import find_kernels
from lpsnet.inference.label_map import Logits, ResizedLogits, label_map
from lpsnet.inference.model_file import find_record, read_record
from lpsnet.inference.preprocess import MIN_INPUT, Workspace, check_image, prepare, prepare_paths
from lpsnet.inference.result import Segmentation
from lpsnet.inference.windows import Windows, segment_windows
from lpsnet.record import ModelRecord

Size = tuple[int, int]  # height, width

# suffix -> default engine
DEFAULT_RUNTIMES: dict[str, str] = {
    ".onnx": "onnxruntime",
    ".safetensors": "pytorch",
    ".openvino": "openvino",
    ".ncnn": "ncnn",
    ".tflite": "litert",
}


_TUNING = "lpsnet.benchmark.tune"  # measures with segmenters, so it is imported when it is asked for

# layout -> its name in JSON
_LAYOUTS_IN_RECORDS: dict[Layout, str] = {"nchw": "planes", "nhwc": "pixels", "nhwc_bf16": "pixels_bf16"}


class Segmenter:
    """Segments images with a model file. May be called from several threads.

    Args:
        model: path of a model file, the name of a model that comes with the package, or the address of one on the
            Hugging Face Hub (`hf://OWNER/MODEL[@REVISION][/FILE]`).
        runtime: engine, see `RUNTIMES`; None: the default for the file's format. "auto": engine, precision and threads
            are the quickest on this machine that keep the labels, measured once (`lpsnet tune`).
        precision: requested arithmetic: "f32", "bf16", "f16" or "int8"; the property `precision` is the one used.
        num_threads: threads of the engine, and of OpenCV for images; None leaves the choice to them. OpenCV has one
            number per process: it is set during a call.
        threads: deprecated, the former name of `num_threads`.
        input_size: (height, width) in pixels that the network runs at. None: that of the record, or every image's own
            size if the record has none. Label maps always have the image's size.
        path_inputs: whether images may be resized for the network's paths before they reach the engine, if engine and
            file allow it: faster, with the same labels. False leaves it to the engine.
        record: for a model file without a record, from another program, with one input N x 3 x H x W float and one
            output N x K x h x w. Not allowed for files with a record.

    Raises:
        ModelFileError: the model, engine or precision does not exist, or the file is not usable.
        MissingDependencyError: the engine's package is not installed; the message holds the install command.
    """

    _ratios: Sequence[Fraction] | None = None  # of the session's inputs; None if its one input is the image
    _layout: Layout = "nchw"  # of the session's inputs
    _num_threads: int | None = None

    def __init__(
        self,
        model: str | Path,
        *,
        runtime: str | None = None,
        precision: str = "f32",
        num_threads: int | None = None,
        threads: int | None = None,
        input_size: Size | None = None,
        path_inputs: bool = True,
        record: ModelRecord | None = None,
    ) -> None:
        path = find_model(model)
        record = _find_record(path, record)
        if runtime == "auto":
            best = importlib.import_module(_TUNING).best_setting(path, input_size)
            runtime, precision, num_threads = best.runtime, best.precision, num_threads or best.num_threads
        size = _check_size(input_size) or record.input_size
        asked = _one_of(num_threads, threads)
        options = SessionOptions(path, cast(Precision, precision), asked, size)  # `open_session` checks the precision
        runtime = runtime or DEFAULT_RUNTIMES[path.suffix.lower()]
        session, ratios, layout = None, None, _fastest_layout(runtime, options.precision, record)
        if path_inputs and record.architecture is not None:
            ratios = record.architecture.ratios
            session = _open_with_path_inputs(runtime, replace(options, path_ratios=ratios, path_layout=layout))
        if session is None:
            session, ratios, layout = open_session(runtime, options), None, "nchw"
        self._set(session, record, size, str(model))
        self._ratios, self._layout, self._num_threads = ratios, layout, asked

    @classmethod
    def from_session(
        cls, session: Session, record: ModelRecord, *, input_size: Size | None = None, model: str = ""
    ) -> Self:
        """A segmenter on an open session of an engine; `record` describes the session's model."""
        segmenter = cls.__new__(cls)
        segmenter._set(session, record, _check_size(input_size) or record.input_size, model)
        return segmenter

    def _set(self, session: Session, record: ModelRecord, input_size: Size | None, model: str) -> None:
        self._session, self._record, self._input_size, self._model = session, record, input_size, model
        self._workspaces: deque[Workspace] = deque()

    @property
    def record(self) -> ModelRecord:
        """The record of the model file."""
        return self._record

    @property
    def session(self) -> Session:
        """Computes logits from the result of `inputs`."""
        return self._session

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
        """(height, width) in pixels that the network runs at; None: every image's own size."""
        return self._input_size

    @property
    def path_inputs(self) -> bool:
        """Whether images are resized for the network's paths before they reach the engine."""
        return self._ratios is not None

    @property
    def protocol(self) -> dict[str, Any]:
        """How label maps are computed, as JSON values; stored with every result measured with this segmenter."""
        return {
            "model": self._model,
            "runtime": self._session.runtime,
            "engine": self.engine,
            "precision": self.precision,
            "num_threads": self._session.num_threads,
            "input_size": None if self._input_size is None else list(self._input_size),
            "path_inputs": self.path_inputs,
            "layout": _LAYOUTS_IN_RECORDS[self._layout],
            "align_corners": self._record.align_corners,
            "compiled_loops": find_kernels() is not None,
        }

    def __call__(self, image: Image) -> Segmentation:
        """The class of every pixel.

        Args:
            image: H x W x 3 uint8 RGB, any size from 1 x 1 up. Of a model of other channels (`record.image_channels`)
                H x W x C uint8 or uint16, or H x W of one channel.

        Returns:
            H x W uint8 class ids, 0 to K - 1: an array with methods to draw and save it, class shares and confidence.

        Raises:
            DataError: `image` is not such an array; the message says what to do.
            ModelFileError: the engine cannot run the model, or its logits do not fit the record.
        """
        logits = self.logits(image)
        height, width = image.shape[:2]
        threads = self._num_threads or cv2.getNumThreads()
        labels = label_map(logits, (height, width), align_corners=self._record.align_corners, num_threads=threads)
        kept = ResizedLogits(logits, (height, width), self._record.align_corners)
        return Segmentation(labels, image, self.label_space, kept, self._record.image_channels)

    def windows(self, image: Image, size: Size, overlap: int | None = None) -> Segmentation:
        """The class of every pixel, by overlapping windows whose logits are averaged where they meet (`windows.py`).

        Args:
            image: as for a call.
            size: (height, width) of a window in pixels. The network runs on windows as on images.
            overlap: of windows in pixels, at least; None: 64, or a quarter of the window if that is less.

        Returns:
            As for a call. The logits of all windows are kept for `confidence`.

        Raises:
            LpsnetError: the window or the overlap is out of range; errors of a call.
        """
        image = check_image(image, self._record.image_channels)
        return segment_windows(self, image, Windows.of(size, overlap))

    def logits(self, image: Image) -> Logits:
        """The network's logits, K x h x w float32, at the network's own output size.

        `image` and errors as for a call.
        """
        with self._workspace() as workspace:
            logits = self._session.run(*self._prepare(image, workspace))
        expected = (1, self.label_space.num_classes)
        if logits.ndim != 4 or logits.shape[:2] != expected:
            raise ModelFileError(
                f"{self._model or 'the model'} gives logits of shape {logits.shape}, but its record names "
                f"{expected[1]} classes; export it again"
            )
        first: Logits = logits[0]
        return first

    def scores(self, image: Image) -> Logits:
        """Deprecated: `logits`."""
        warnings.warn("Segmenter.scores is deprecated: call logits", DeprecationWarning, stacklevel=2)
        return self.logits(image)

    def inputs(self, image: Image) -> list[NDArray[Any]]:
        """The engine's inputs for `image`: 1 x C x h x w float32, or, with `path_inputs`, one for each path, in the
        layout of `SessionOptions.path_layout`."""
        return self._prepare(image, Workspace())

    def _prepare(self, image: Image, workspace: Workspace) -> list[NDArray[Any]]:
        ratios, size, layout = self._ratios or (Fraction(1),), self._input_size, self._layout
        with opencv_threads(self._num_threads):
            return prepare_paths(image, self._record, size=size, ratios=ratios, layout=layout, workspace=workspace)

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[Workspace]:
        """One for this caller alone; as many are created as there are concurrent callers."""
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = Workspace()
        try:
            yield workspace
        finally:
            self._workspaces.append(workspace)

    def prepare(self, image: Image) -> NDArray[np.float32]:
        """The input of the whole network for `image`: 1 x C x h x w float32, normalised and resized."""
        with opencv_threads(self._num_threads):
            return prepare(image, self._record, size=self._input_size)


def _open_with_path_inputs(runtime: str, options: SessionOptions) -> Session | None:
    """None if not possible; errors of the file itself are raised when it is opened without path inputs."""
    try:
        return open_session(runtime, options)
    except ModelFileError:
        return None


def _fastest_layout(runtime: str, precision: Precision, record: ModelRecord) -> Layout:
    """NHWC if the engine accepts it, in bfloat16 if it computes in it; without compiled loops NCHW is faster."""
    able = RUNTIMES[runtime].path_layouts if runtime in RUNTIMES else ()
    if find_kernels() is None or "nhwc" not in able or not record.image_channels.is_rgb:
        return "nchw"
    return "nhwc_bf16" if precision == "bf16" and "nhwc_bf16" in able else "nhwc"


def _find_record(path: Path, given: ModelRecord | None) -> ModelRecord:
    if given is None:
        return read_record(path)
    if find_record(path) is not None:
        raise ModelFileError(f"{path} holds a record of its own; leave out the argument record")
    return given


def _one_of(num_threads: int | None, threads: int | None) -> int | None:
    if threads is not None:
        warnings.warn("Segmenter(threads=…) is deprecated: give num_threads", DeprecationWarning, stacklevel=3)
    if num_threads is not None and threads is not None and num_threads != threads:
        raise LpsnetError(f"num_threads={num_threads} and threads={threads} are the same setting; give one of them")
    return threads if num_threads is None else num_threads


def _check_size(size: Size | None) -> Size | None:
    if size is None:
        return None
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < MIN_INPUT:
        raise ModelFileError(f"input_size is height and width in pixels, each at least {MIN_INPUT}; got {size}")
    return height, width


_lock = threading.Lock()
_num_callers = 0  # inside `opencv_threads` blocks
_number_before = 0  # OpenCV's number of threads when the first of them entered


@contextlib.contextmanager
def opencv_threads(num_threads: int | None) -> Iterator[None]:
    """Inside the block, OpenCV uses `num_threads` threads, and afterwards as many as before; None changes nothing.

    OpenCV has one number per process. Concurrent blocks are allowed: the first one's number holds until the last ends.
    """
    global _num_callers, _number_before
    if num_threads is None:
        yield
        return
    with _lock:
        if _num_callers == 0:
            _number_before = cv2.getNumThreads()
            _set_threads(num_threads)
        _num_callers += 1
    try:
        yield
    finally:
        with _lock:
            _num_callers -= 1
            if _num_callers == 0:
                _set_threads(_number_before)


def _set_threads(num_threads: int) -> None:
    if cv2.getNumThreads() != num_threads:  # setting it may end threads that wait for work
        cv2.setNumThreads(num_threads)

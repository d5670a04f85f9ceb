"""Segmenting videos and cameras: frames are decoded, segmented and drawn at the same time, each in a thread of its own.

Queues between the three hold a few frames, so memory does not grow with the stream. What is written for a stream is
called by its final name only when it is whole; the part that was done before a stop or a damaged frame is a playable
file of another name, `STEM.overlay.part.mp4`.
"""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lpsnet.deployment.ahead import Stopwatch, ahead, timed
from lpsnet.deployment.drawing import PART, Style, draw
from lpsnet.deployment.video import Frame, Stream, video_writer
from lpsnet.errors import DataError

Labels = NDArray[np.uint8]
Segment = Callable[[NDArray[np.uint8]], Labels]
Consume = Callable[[Frame, Labels], None]  # draws and writes a frame


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a stream has come, and how fast.

    Attributes:
        num_frames: that are done.
        duration_s: since the start.
        decoding_s, network_s, drawing_s: work of each of the three threads (drawing: with encoding and writing); they
            overlap, and on a machine whose processors are all busy each takes longer than it would alone.
    """

    num_frames: int
    duration_s: float
    decoding_s: float
    network_s: float
    drawing_s: float

    @property
    def frames_per_second(self) -> float:
        """Of all together."""
        return self.num_frames / max(self.duration_s, 1e-9)

    @property
    def frames_per_second_without_drawing(self) -> float:
        """What the slower of decoding and network would allow if nothing were drawn: an estimate from their work."""
        return max(self.frames_per_second, self.num_frames / max(self.decoding_s, self.network_s, 1e-9))


Progress = Callable[[Pace], None]


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """What became of a stream.

    Attributes:
        source: its name.
        pace: at its end.
        files: those written, by product.
        whole: whether they hold all of the stream; else their names say `part`.
        problem: why they do not, in one line; empty if nothing was wrong but somebody stopped it.
    """

    source: str
    pace: Pace
    files: dict[str, Path] = field(default_factory=dict)
    whole: bool = True
    problem: str = ""


def segment_stream(
    segment: Segment,
    stream: Stream,
    stem: Path,
    *,
    products: Sequence[str],
    style: Style,
    stop: threading.Event | None = None,
    max_frames: int | None = None,
    progress: Progress | None = None,
) -> StreamOutcome:
    """Segment a stream and write a video for each product, `STEM.overlay.mp4`, and `STEM.labels.mkv` for class ids.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`; called from another thread.
        stream: from `video_stream` or `camera_stream`.
        stem: path of the results without suffix; its folder is made where it is missing.
        products: names in `PRODUCTS`.
        style: how they are drawn.
        stop: ends the stream when it is set. A camera's is then whole, a file's is not.
        max_frames: ends the stream after as many; it is then whole.
        progress: told after every frame.

    Raises:
        DataError: no frame of it can be read.
        RunError: results cannot be written.
    """
    stop, problem = stop or threading.Event(), ""
    pace = Pace(0, 0.0, 0.0, 0.0, 0.0)
    parts = {product: _path(stem, f"{product}.{PART}", product) for product in products}
    with _writing(parts, stream, style) as consume:
        try:
            for pace in run_stream(segment, stream, consume, stop=stop, max_frames=max_frames):
                if progress is not None:
                    progress(pace)
        except DataError as error:
            problem = str(error)
        if pace.num_frames == 0:
            raise DataError(problem or f"{stream.name} was stopped before its first frame")
    whole = not problem and (stream.live or not stop.is_set())
    files = {product: part.replace(_path(stem, product, product)) if whole else part for product, part in parts.items()}
    return StreamOutcome(stream.name, pace, files, whole, problem)


def run_stream(
    segment: Segment,
    stream: Stream,
    consume: Consume,
    *,
    stop: threading.Event,
    max_frames: int | None = None,
) -> Generator[Pace, None, None]:
    """Decode and segment in threads of their own, hand every frame and its labels to `consume`, and say how it goes.

    Raises:
        DataError: a frame cannot be read; those before it were consumed.
    """
    decoding, network, drawing = Stopwatch(), Stopwatch(), Stopwatch()
    start = time.perf_counter()
    frames = ahead(timed(_until(stream.read(), stop, max_frames), decoding))
    with closing(ahead(_segmented(segment, frames, network))) as segmented:
        for number, (frame, labels) in enumerate(segmented, start=1):
            with drawing:
                consume(frame, labels)
            duration_s = time.perf_counter() - start
            yield Pace(number, duration_s, decoding.seconds, network.seconds, drawing.seconds)


def _until(
    frames: Generator[Frame, None, None], stop: threading.Event, max_frames: int | None
) -> Generator[Frame, None, None]:
    with closing(frames):
        for frame in islice(frames, max_frames):
            if stop.is_set():
                return
            yield frame


def _segmented(
    segment: Segment, frames: Generator[Frame, None, None], watch: Stopwatch
) -> Generator[tuple[Frame, Labels], None, None]:
    with closing(frames):
        for frame in frames:
            with watch:
                labels = segment(frame.image)
            yield frame, labels


@contextmanager
def _writing(paths: dict[str, Path], stream: Stream, style: Style) -> Generator[Consume, None, None]:
    """What draws a frame and adds it to the videos; they are in their places once the block ends without an error."""
    with ExitStack() as stack:
        writers = {product: stack.enter_context(video_writer(path, stream.info)) for product, path in paths.items()}

        def consume(frame: Frame, labels: Labels) -> None:
            for product, write in writers.items():
                write(draw(product, frame.image, labels, style), frame.time)

        yield consume


def _path(stem: Path, name: str, product: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}{'.mkv' if product == 'labels' else '.mp4'}")

"""Working ahead: one stage of a stream computes its next items in a thread while a later stage uses the last ones.

What `lpsnet segment` is given: images, videos and cameras, by files, folders, globs and numbers.

Segmenting image files: every image gives a PNG for each product, `STEM.labels.png`, `STEM.overlay.png`, …

Segmenting videos and cameras: frames are decoded, segmented and drawn at the same time, each in a thread of its own.

Queues between the three hold a few frames, so memory does not grow with the stream. What is written for a stream is
called by its final name only when it is whole; the part that was done before a stop or a damaged frame is a playable
file of another name, `STEM.overlay.part.mp4`.
"""

import glob
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import IMAGE_SUFFIXES, read_image, write_png
from lpsnet.errors import DataError, LpsnetError
from lpsnet.inference.video import Frame, Stream, video_writer
from lpsnet.inference.visualise import PART, Image, Style, draw, is_product
from lpsnet.io import expand_home

Item = TypeVar("Item")

NUM_WAITING = 2  # items between two stages: enough to even out, little memory
_PATIENCE_S = 0.1  # between looks at whether anyone still wants the next item
_END = object()


class _Failure:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def prefetch(items: Generator[Item, None, None], *, num_waiting: int = NUM_WAITING) -> Generator[Item, None, None]:
    """The same items in the same order, computed in a thread of their own; at most `num_waiting` wait to be used.

    An error among the items is raised at its place. When this generator is closed, the items are closed, in their
    thread, and the thread has ended.
    """
    waiting: queue.Queue[Any] = queue.Queue(num_waiting)
    closed = threading.Event()
    worker = threading.Thread(target=_work, args=(items, waiting, closed), daemon=True)
    worker.start()
    try:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failure):
                raise item.error
            yield item
    finally:
        closed.set()
        worker.join()


def _work(items: Generator[Any, None, None], waiting: "queue.Queue[Any]", closed: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, waiting, closed):
                return
        _put(_END, waiting, closed)
    except BaseException as error:  # whatever it is, it belongs to the one who uses the items
        _put(_Failure(error), waiting, closed)
    finally:
        items.close()


def _put(item: object, waiting: "queue.Queue[Any]", closed: threading.Event) -> bool:
    """Whether the item was taken in; not if nobody wants it any more."""
    while not closed.is_set():
        try:
            waiting.put(item, timeout=_PATIENCE_S)
        except queue.Full:
            continue
        return True
    return False


class Stopwatch:
    """Adds up the time spent in its `with` blocks."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = 0.0

    def __enter__(self) -> Self:
        self._since = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._since


def timed(items: Generator[Item, None, None], watch: Stopwatch) -> Generator[Item, None, None]:
    """The same items; the watch adds up what it took to get them."""
    with closing(items):
        while True:
            with watch:
                item: Any = next(items, _END)
            if item is _END:
                return
            yield item


VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
Kind = Literal["picture", "video", "camera"]
_SUFFIXES: dict[Kind, tuple[str, ...]] = {"picture": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}


class Medium(NamedTuple):
    """Something to segment.

    Attributes:
        path: its file; for a camera its number as text.
        stem: the path below the output folder, without suffix, that its results take.
        kind: what it is.
    """

    path: Path
    stem: Path
    kind: Kind


def find_media(sources: Sequence[str]) -> list[Medium]:
    """The images and videos that files, folders (with all below them) and globs name, and cameras by their numbers.

    Without repeats, in a stable order. Folders and globs leave out what an earlier run wrote, and hidden files.

    Raises:
        DataError: a source names nothing that exists, or two would write the same results.
    """
    found: dict[Path, Medium] = {}
    for text in sources:
        if not text:
            raise DataError("a source has an empty name; `.` is the current folder")
        media = list(_expand(text))
        if not media:
            allowed = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            raise DataError(
                f"{text!r} names no image, video or camera; give files, folders or globs of {allowed}, or a "
                "camera's number"
            )
        for medium in media:
            found.setdefault(medium.path.resolve(), medium)
    _check_results(found.values())
    return list(found.values())


def _check_results(media: Iterable[Medium]) -> None:
    taken: dict[tuple[Path, bool], Path] = {}
    for medium in media:
        key = medium.stem, medium.kind == "picture"
        if (other := taken.setdefault(key, medium.path)) != medium.path:
            raise DataError(f"{other} and {medium.path} would both write {medium.stem}.labels; segment them apart")


def _expand(text: str) -> Iterator[Medium]:
    path = expand_home(text)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if kind := _kind(file):
                yield Medium(file, file.relative_to(path).with_suffix(""), kind)
    elif path.exists():
        yield Medium(path, Path(path.stem), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture")
    elif text.isdecimal():
        yield Medium(Path(text), Path(f"camera_{text}"), "camera")
    else:
        for name in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207 — Path.glob takes no absolute pattern
            if kind := _kind(Path(name)):
                yield Medium(Path(name), Path(Path(name).stem), kind)


def _kind(path: Path) -> Kind | None:
    """What a file of a folder is by its name; None if it is nothing to segment."""
    if is_product(path) or path.name.startswith(".") or not path.is_file():
        return None
    return next((kind for kind, suffixes in _SUFFIXES.items() if path.suffix.lower() in suffixes), None)


Segment = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image.

    Attributes:
        source: the image.
        files: those written, by product; none if it could not be segmented.
        problem: why not, in one line; empty if all went well.
    """

    source: Path
    files: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


def segment_images(
    segment: Segment, media: Iterable[Medium], out: Path, *, products: Sequence[str], style: Style
) -> Iterator[ImageOutcome]:
    """Segment images one by one and write their results below `out`; one that cannot be read does not stop the rest.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        media: images, from `find_media`.
        out: folder of the results, made where it is missing.
        products: names in `PRODUCTS`.
        style: how they are drawn.

    Raises:
        LpsnetError: results cannot be written; no later image could be written either.
    """
    for medium in media:
        try:
            drawn = _drawn(segment, medium.path, products, style)
        except LpsnetError as error:
            yield ImageOutcome(medium.path, problem=str(error))
            continue
        files = {product: out / f"{medium.stem}.{product}.png" for product in products}
        for product, path in files.items():
            write_png(path, drawn[product])
        yield ImageOutcome(medium.path, files)


def _drawn(segment: Segment, path: Path, products: Sequence[str], style: Style) -> dict[str, Image]:
    image = read_image(path)
    try:
        labels = segment(image)
        return {product: draw(product, image, labels, style) for product in products}
    except LpsnetError as error:
        raise DataError(f"{path}: {error}") from None


Labels = NDArray[np.uint8]
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
    frames = prefetch(timed(_until(stream.read(), stop, max_frames), decoding))
    with closing(prefetch(_segmented(segment, frames, network))) as segmented:
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

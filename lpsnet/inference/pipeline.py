"""From sources to files: what `lpsnet segment` is given is found, segmented and written.

Image files give a PNG for each output, `STEM.labels.png`, `STEM.overlay.png`, … Videos and cameras are decoded,
segmented and drawn concurrently, each stage in a thread of its own; queues between them hold a few frames, so memory
does not grow with the length of the stream. A video gets its final name only when it is complete; what was written
before a stop or a damaged frame stays playable as `STEM.overlay.part.mp4`.
"""

import glob
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast

import numpy as np

from lpsnet.data.channels import Channels
from lpsnet.data.image_rows import open_rows, png_writer
from lpsnet.data.images import IMAGE_SUFFIXES, Image, Labels, Mask, pixel_limit, read_image, write_png
from lpsnet.data.pairing import NAME, SPLIT, extra_file
from lpsnet.errors import DataError, LpsnetError, RunError
from lpsnet.inference.outputs import OUTPUTS, PART, Annotations, Style, below, check_video_outputs, draw, is_output
from lpsnet.inference.result import Segmentation
from lpsnet.inference.video import Frame, Stream, video_writer
from lpsnet.inference.windows import Network, Windows, segment_rows
from lpsnet.io import expand_home

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg"),
    *(".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
)
NUM_WAITING = 2  # items between two stages: enough to absorb variation, little memory
_POLL_S = 0.1  # seconds between checks whether the consumer has gone
_END = object()

Item = TypeVar("Item")
Kind = Literal["image", "video", "camera"]
Segment = Callable[[Image], Labels]
Consume = Callable[[Frame, Labels], None]  # draws and writes a frame


class Source(NamedTuple):
    """Something to segment.

    Attributes:
        path: its file; for a camera its number as text.
        stem: path of its results below the output folder, without suffix.
        kind: what it is.
    """

    path: Path
    stem: Path
    kind: Kind


def find_sources(names: Sequence[str], *, skip: Sequence[Path] = ()) -> list[Source]:
    """The images and videos that files, folders (recursively) and globs name, and cameras by their numbers.

    Without duplicates, in a stable order. Folders and globs leave out the outputs of earlier runs, hidden files, and
    what is in the folders `skip`.

    Raises:
        DataError: a name matches nothing that exists, or two sources would write the same results.
    """
    found: dict[Path, Source] = {}
    named = [expand_home(name).resolve() for name in names if name]
    apart = [folder.resolve() for folder in skip if folder.resolve() not in named]
    for name in names:
        if not name:
            raise DataError("a source has an empty name; `.` is the current folder")
        sources = [source for source in _expand(name) if not any(map(source.path.resolve().is_relative_to, apart))]
        if not sources:
            allowed = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
            kinds = f"files, folders or globs of {allowed}, or a camera's number"
            raise DataError(f"{name!r} names no image, video or camera; give {kinds}")
        for source in sources:
            found.setdefault(source.path.resolve(), source)
    taken: dict[tuple[Path, bool], Path] = {}
    for source in found.values():
        key = source.stem, source.kind == "image"
        if (other := taken.setdefault(key, source.path)) != source.path:
            raise DataError(f"{other} and {source.path} would both write {source.stem}.labels; segment them apart")
    return list(found.values())


def _expand(name: str) -> Iterator[Source]:
    path = expand_home(name)
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if kind := _kind(file):
                yield Source(file, file.relative_to(path).with_suffix(""), kind)
    elif path.exists():
        yield Source(path, Path(path.stem), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "image")
    elif name.isdecimal():
        yield Source(Path(name), Path(f"camera_{name}"), "camera")
    else:
        for file in map(Path, sorted(glob.glob(str(path), recursive=True))):  # noqa: PTH207 — Path.glob: relative only
            if kind := _kind(file):
                yield Source(file, Path(file.stem), kind)


def _kind(path: Path) -> Kind | None:
    """By the file's name; None if it is nothing to segment."""
    if is_output(path) or path.name.startswith(".") or not path.is_file():
        return None
    suffix = path.suffix.lower()
    return "image" if suffix in IMAGE_SUFFIXES else "video" if suffix in VIDEO_SUFFIXES else None


@dataclass(frozen=True)
class ImageOutcome:
    """The result of one image.

    Attributes:
        source: the image.
        files: the files written, by output; empty if the image could not be segmented.
        problem: why not, in one line; empty on success.
        note: what else is to be known, in one line; empty for nothing.
    """

    source: Path
    files: dict[str, Path] = field(default_factory=dict)
    problem: str = ""
    note: str = ""


@dataclass(frozen=True)
class Reader:
    """Reads images for a model: of its channels, from one file each or from several.

    Attributes:
        channels: that the model takes.
        places: of the further files of each image, as `extra_images` in a description of a data set.
        names: of the images, which fill `{name}` in a place, by path.
    """

    channels: Channels
    places: tuple[str, ...] = ()
    names: Mapping[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, channels: Channels, places: Sequence[str], sources: Sequence[Source]) -> Self:
        """For these sources.

        Raises:
            DataError: a model of RGB takes no further files; a place has a split in it.
        """
        if channels.is_rgb and places:
            raise DataError(f"this model takes one file for each image: {channels}; leave out --extra-images")
        if wrong := [place for place in places if SPLIT in place]:
            raise DataError(f"{wrong[0]!r} has {SPLIT} in it, which these images have not; give a folder or {NAME}")
        return cls(channels, tuple(places), {source.path: source.stem.as_posix() for source in sources})

    def extra(self, path: Path) -> list[Path]:
        """The further files of an image."""
        return [extra_file(Path(), place, self.names.get(path, path.stem), "") for place in self.places]

    def __call__(self, path: Path) -> Image:
        """The image at `path`, as `Channels.read`."""
        return self.channels.read(path, *self.extra(path))

    def without_extra(self, sources: Sequence[Source]) -> list[Source]:
        """The sources that are not further files of others."""
        taken = {extra.resolve() for source in sources for extra in self.extra(source.path)}
        return [source for source in sources if source.path.resolve() not in taken]


def segment_images(
    segment: Segment,
    sources: Iterable[Source],
    out: Path,
    *,
    outputs: Sequence[str],
    style: Style,
    annotations: Annotations | None = None,
    windows: Windows | None = None,
    stop: threading.Event | None = None,
    read: Reader | None = None,
    num_workers: int = 1,
) -> Iterator[ImageOutcome]:
    """Segment images and write their results below `out`; an unreadable image does not stop the others.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`; called from all workers at once.
        sources: images, from `find_sources`.
        out: folder of the results, created if missing.
        outputs: names in `OUTPUTS`; others are left to `annotations`.
        style: how they are drawn.
        annotations: that every label map is added to, in the order of the sources.
        windows: cut images into these, and read, segment and write them in parts; `segment` is a `Segmenter` then.
        stop: leaves out an image that is being cut into windows when set.
        read: reads the images of a model of other channels than RGB, which are always read whole.
        num_workers: images read, segmented and written at the same time, each in a thread of its own, and in memory.

    Yields:
        An outcome for each source, in their order.

    Raises:
        LpsnetError: results cannot be written, which would fail for every later image, too.
    """
    notes = annotations or Annotations(out, (), style.label_space)

    def one(source: Source) -> tuple[ImageOutcome, Labels | None]:
        files = {output: out / f"{source.stem}.{output}.png" for output in outputs if output in OUTPUTS}
        labels: Labels | None
        try:
            if read is not None and not read.channels.is_rgb:
                labels = _write_whole(_by_windows(segment, windows), source, files, style, read)
                note = "" if windows is None else f"{source.path} is decoded whole: only RGB is read by parts"
            elif windows is None:
                labels, note = _write_whole(segment, source, files, style), ""
            else:
                network, traced = cast(Network, segment), bool(notes.formats)
                labels, note = _write_parts(network, source, files, style, windows, stop, traced=traced)
        except RunError:
            raise
        except LpsnetError as error:
            return ImageOutcome(source.path, problem=str(error)), None
        return ImageOutcome(source.path, files, note=note), labels

    for source, (outcome, labels) in _side_by_side(one, sources, num_workers):
        if labels is not None:
            notes.add(source.path, source.stem.as_posix(), labels)
        yield outcome


Done = TypeVar("Done")


def _side_by_side(work: Callable[[Item], Done], items: Iterable[Item], num_workers: int) -> Iterator[tuple[Item, Done]]:
    """Every item with what `work` makes of it, in order; as many at the same time as there are workers."""
    if num_workers == 1:
        yield from ((item, work(item)) for item in items)
        return
    left = iter(items)
    with ThreadPoolExecutor(num_workers) as pool:
        pending = deque((item, pool.submit(work, item)) for item in islice(left, num_workers))
        try:
            while pending:
                item, future = pending.popleft()
                done = future.result()
                pending.extend((more, pool.submit(work, more)) for more in islice(left, 1))
                yield item, done
        finally:
            for _, future in pending:
                future.cancel()


def _by_windows(segment: Segment, windows: Windows | None) -> Segment:
    if windows is None:
        return segment
    return lambda image: cast(Any, segment).windows(image, windows.size, windows.overlap)


def _write_whole(
    segment: Segment,
    source: Source,
    files: dict[str, Path],
    style: Style,
    read: Callable[[Path], Image] = read_image,
) -> Labels:
    labels, drawn = _drawn(segment, source.path, list(files), style, read)
    for output, path in files.items():
        write_png(path, drawn[output])
    return labels


def _write_parts(
    network: Network,
    source: Source,
    files: dict[str, Path],
    style: Style,
    windows: Windows,
    stop: threading.Event | None,
    *,
    traced: bool,
) -> tuple[Labels | None, str]:
    """Segment an image by windows and write it from the top down.

    Gives the label map if it is to be `traced`, and what is to be known, in a line.
    """
    plain = replace(style, legend=False)  # which stands below the whole image
    with open_rows(source.path) as image, ExitStack() as stack:
        labels = _whole_map(image.size, source.path) if traced else None
        writers = {output: stack.enter_context(png_writer(path)) for output, path in files.items()}
        for top, part in segment_rows(network, image, windows):
            if stop is not None and stop.is_set():
                raise DataError(f"{source.path}: stopped at row {top} of {image.size[0]}")
            for output, write in writers.items():
                drawn = draw(output, part.image, part, plain)
                write(drawn)
                if style.legend and drawn.ndim == 3 and top + len(part) == image.size[0]:
                    write(below(style, (image.size[0], drawn.shape[1])))
            if labels is not None:
                labels[top : top + len(part)] = part.labels
        return labels, image.note


def _whole_map(size: tuple[int, int], path: Path) -> Labels:
    """Room for a label map."""
    if size[0] * size[1] > pixel_limit():
        claim = f"{path} has {size[1]} x {size[0]} pixels; outlines are traced in the whole label map"
        raise DataError(f"{claim}, of {pixel_limit():,} pixels at most; write labels without annotations, or cut it")
    return np.empty(size, np.uint8)


def _drawn(
    segment: Segment, path: Path, outputs: Sequence[str], style: Style, read: Callable[[Path], Image]
) -> tuple[Labels, dict[str, Mask]]:
    image = read(path)
    try:
        labels = segment(image)
        image = labels.image if isinstance(labels, Segmentation) else image
        return labels, {output: draw(output, image, labels, style) for output in outputs}
    except LpsnetError as error:
        raise DataError(f"{path}: {error}") from None


def prefetch(items: Generator[Item, None, None], *, num_waiting: int = NUM_WAITING) -> Generator[Item, None, None]:
    """The same items in the same order, computed in a background thread; at most `num_waiting` are queued.

    An error is raised at its place among the items. Closing this generator closes the items in their thread and waits
    for the thread to end.
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


class _Failure(NamedTuple):
    error: BaseException


def _work(items: Generator[Any, None, None], waiting: "queue.Queue[Any]", closed: threading.Event) -> None:
    try:
        for item in items:
            if not _put(item, waiting, closed):
                return
        _put(_END, waiting, closed)
    except BaseException as error:  # of any kind: raised again in the consumer
        _put(_Failure(error), waiting, closed)
    finally:
        items.close()


def _put(item: object, waiting: "queue.Queue[Any]", closed: threading.Event) -> bool:
    """Queue the item; False if the consumer has closed the generator."""
    while not closed.is_set():
        with suppress(queue.Full):
            waiting.put(item, timeout=_POLL_S)
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
    """The same items; the watch adds up the time it takes to get them."""
    with closing(items):
        while True:
            with watch:
                item: Any = next(items, _END)
            if item is _END:
                return
            yield item


@dataclass(frozen=True, slots=True)
class Pace:
    """How far a stream has come, and how fast.

    Attributes:
        num_frames: frames completed.
        duration_s: since the start.
        decoding_s, network_s, drawing_s: busy time of each of the three threads (drawing includes encoding and
            writing). They overlap, and on a fully loaded machine each takes longer than it would alone.
    """

    num_frames: int
    duration_s: float
    decoding_s: float
    network_s: float
    drawing_s: float

    @property
    def frames_per_second(self) -> float:
        """Of all stages together."""
        return self.num_frames / max(self.duration_s, 1e-9)

    @property
    def frames_per_second_without_drawing(self) -> float:
        """Estimate: the rate that the slower of decoding and network would allow if nothing were drawn."""
        return max(self.frames_per_second, self.num_frames / max(self.decoding_s, self.network_s, 1e-9))


@dataclass(frozen=True, slots=True)
class StreamOutcome:
    """The result of a stream.

    Attributes:
        source: its name.
        pace: at its end.
        files: the files written, by output.
        whole: whether they hold the whole stream; otherwise their names contain `part`.
        problem: why they do not, in one line; empty if the stream was complete or stopped by request.
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
    outputs: Sequence[str],
    style: Style,
    stop: threading.Event | None = None,
    max_frames: int | None = None,
    on_progress: Callable[[Pace], None] | None = None,
) -> StreamOutcome:
    """Segment a stream and write a video for each output, `STEM.overlay.mp4`, and `STEM.labels.mkv` for class ids.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`; called from another thread.
        stream: from `video_stream` or `camera_stream`.
        stem: path of the results without suffix; its folder is created if missing.
        outputs: names in `OUTPUTS`.
        style: how they are drawn.
        stop: ends the stream when set. A camera's recording then counts as whole, a file's does not.
        max_frames: ends the stream after this many frames; it then counts as whole.
        on_progress: called after every frame.

    Raises:
        LpsnetError: an output cannot be a video.
        DataError: no frame of it can be read.
        RunError: results cannot be written.
    """
    check_video_outputs(outputs)
    stop, problem = stop or threading.Event(), ""
    pace = Pace(0, 0.0, 0.0, 0.0, 0.0)
    parts = {output: _path(stem, f"{output}.{PART}", output) for output in outputs}
    with ExitStack() as stack:  # the videos get their names if the block raises no error
        writers = {output: stack.enter_context(video_writer(path, stream.info)) for output, path in parts.items()}

        def consume(frame: Frame, labels: Labels) -> None:
            for output, write in writers.items():
                write(np.asarray(draw(output, frame.image, labels, style), np.uint8), frame.time)

        try:
            for pace in run_stream(segment, stream, consume, stop=stop, max_frames=max_frames):
                if on_progress is not None:
                    on_progress(pace)
        except DataError as error:
            problem = str(error)
        if pace.num_frames == 0:
            raise DataError(problem or f"{stream.name} was stopped before its first frame")
    whole = not problem and (stream.live or not stop.is_set())
    files = {output: part.replace(_path(stem, output, output)) if whole else part for output, part in parts.items()}
    return StreamOutcome(stream.name, pace, files, whole, problem)


def _path(stem: Path, name: str, output: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}{'.mkv' if output == 'labels' else '.mp4'}")


def run_stream(
    segment: Segment, stream: Stream, consume: Consume, *, stop: threading.Event, max_frames: int | None = None
) -> Generator[Pace, None, None]:
    """Decode and segment in threads of their own, pass every frame with its labels to `consume`, then yield the pace.

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
                labels = np.asarray(segment(frame.image))  # without the network's logits, which would wait in queues
            yield frame, labels

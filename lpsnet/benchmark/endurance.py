"""Whether a stream can run indefinitely: a video is repeated, and resident memory is sampled.

Then turns with and without drawing alternate, so that other work on the machine affects both equally.
"""

import tempfile
import threading
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.benchmark.machine import resident_memory_mib
from lpsnet.errors import RunError
from lpsnet.inference import outputs, pipeline, video

SETTLING_PART = 0.1  # of the duration, in which engines and codecs allocate their memory

Progress = Callable[[str, float], None]  # called with the stage and the part of it that is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory at one time."""

    time_s: float  # since the stream began
    num_frames: int  # done by then
    memory_mib: float  # resident memory of the process


@dataclass(frozen=True, slots=True)
class Endurance:
    """Measurements of a long stream.

    Attributes:
        samples: memory at intervals.
        pace: of the long stream, overlays drawn, encoded and written.
        with_drawing, without_drawing: frames per second of the turns.
    """

    samples: tuple[Sample, ...]
    pace: pipeline.Pace
    with_drawing: tuple[float, ...]
    without_drawing: tuple[float, ...]

    @property
    def settled(self) -> tuple[Sample, ...]:
        """The samples after the first tenth of the time."""
        return tuple(one for one in self.samples if one.time_s >= SETTLING_PART * self.samples[-1].time_s)

    @property
    def spread_percent(self) -> float:
        """The largest settled sample relative to the smallest."""
        memory = [sample.memory_mib for sample in self.settled]
        return 100 * (max(memory) / min(memory) - 1)

    @property
    def growth_percent(self) -> float:
        """The last sample relative to the first settled one; negative if it is smaller."""
        return 100 * (self.samples[-1].memory_mib / self.settled[0].memory_mib - 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "num_frames": self.pace.num_frames,
            "duration_s": self.pace.duration_s,
            "memory_spread_percent": self.spread_percent,
            "memory_growth_percent": self.growth_percent,
            "frames_per_second_with_drawing": median(self.with_drawing) if self.with_drawing else None,
            "frames_per_second_without_drawing": median(self.without_drawing) if self.without_drawing else None,
            "turns_with_drawing": list(self.with_drawing),
            "turns_without_drawing": list(self.without_drawing),
            "samples": [asdict(sample) for sample in self.samples],
        }


def endure(
    segment: pipeline.Segment,
    stream: video.Stream,
    style: outputs.Style,
    *,
    duration_s: float,
    interval_s: float = 10.0,
    num_turns: int = 5,
    turn_s: float = 10.0,
    on_progress: Progress | None = None,
) -> Endurance:
    """Segment a video repeatedly, with overlays written to a temporary file, then measure speeds in turns.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        stream: a video.
        style: how overlays are drawn.
        duration_s: of the long stream.
        interval_s: between samples of memory.
        num_turns, turn_s: number and length of turns with drawing, and of those without.
        on_progress: called with the stage and the part of it that is done, 0 to 1.

    Raises:
        DataError: the video cannot be read.
        RunError: the system does not report resident memory, or the disk is full.
    """
    on_progress, endless = on_progress or (lambda stage, part: None), loop_stream(stream)
    samples: list[Sample] = []

    def watch(pace: pipeline.Pace) -> None:
        # The last samples are taken while the stream still runs: afterwards its memory is released.
        if pace.duration_s >= min(duration_s, len(samples) * interval_s):
            samples.append(Sample(pace.duration_s, pace.num_frames, resident_memory_mib()))
            on_progress("the long stream", min(1.0, pace.duration_s / duration_s))

    pace = _drawn(segment, endless, style, duration_s, watch)
    with_drawing, without = [], []
    for turn in range(num_turns):
        on_progress("turns with and without drawing", turn / num_turns)
        with_drawing.append(_drawn(segment, endless, style, turn_s).frames_per_second)
        without.append(_not_drawn(segment, endless, turn_s).frames_per_second)
    return Endurance(tuple(samples), pace, tuple(with_drawing), tuple(without))


def loop_stream(stream: video.Stream) -> video.Stream:
    """The frames of a video, repeated indefinitely like a camera's; times keep increasing."""
    step = max(1, round(1 / stream.info.frame_rate / stream.info.time_base))

    def read() -> Generator[video.Frame, None, None]:
        offset = 0
        while True:
            last = offset
            for frame in stream.read():
                last = offset + frame.time
                yield video.Frame(frame.image, last)
            offset = last + step

    return video.Stream(stream.name, stream.info, read, live=True)


def _drawn(
    segment: pipeline.Segment,
    stream: video.Stream,
    style: outputs.Style,
    duration_s: float,
    watch: Callable[[pipeline.Pace], None] | None = None,
) -> pipeline.Pace:
    stop = threading.Event()

    def on_frame(pace: pipeline.Pace) -> None:
        if watch is not None:
            watch(pace)
        if pace.duration_s >= duration_s:
            stop.set()

    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        how: dict[str, Any] = {"outputs": ("overlay",), "style": style, "stop": stop, "on_progress": on_frame}
        return pipeline.segment_stream(segment, stream, Path(folder) / "stream", **how).pace


def _not_drawn(segment: pipeline.Segment, stream: video.Stream, duration_s: float) -> pipeline.Pace:
    stop, last = threading.Event(), None
    for last in pipeline.run_stream(segment, stream, lambda frame, labels: None, stop=stop):
        if last.duration_s >= duration_s:
            stop.set()
    if last is None:
        raise RunError(f"{stream.name} gave no frame in {duration_s:g} s")
    return last

"""Whether a stream can go on for ever: a video is played over and over, while resident memory is written down.

After that come turns with and without drawing, which alternate so that other work on the machine touches both alike.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.benchmark.machine import resident_memory_mib
from lpsnet.data.images import Labels
from lpsnet.errors import RunError
from lpsnet.inference.pipeline import Pace, Segment, run_stream, segment_stream
from lpsnet.inference.video import Frame, Stream
from lpsnet.inference.visualise import Style

SETTLING_PART = 0.1  # of the duration, in which engines and codecs take the memory they need

Progress = Callable[[str, float], None]  # is told what is being done, and which part of it is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Sample:
    """Memory at a moment.

    Attributes:
        time_s: since the stream began.
        num_frames: done by then.
        memory_mib: resident memory of the process.
    """

    time_s: float
    num_frames: int
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Endurance:
    """What was seen of a long stream.

    Attributes:
        samples: memory at intervals.
        pace: of the long stream, overlays drawn, encoded and written.
        with_drawing, without_drawing: frames a second of the turns.
    """

    samples: tuple[Sample, ...]
    pace: Pace
    with_drawing: tuple[float, ...]
    without_drawing: tuple[float, ...]

    @property
    def settled(self) -> tuple[Sample, ...]:
        """The samples after the first tenth of the time."""
        return tuple(one for one in self.samples if one.time_s >= SETTLING_PART * self.samples[-1].time_s)

    @property
    def spread_percent(self) -> float:
        """How far the largest settled sample lies above the smallest."""
        memory = [sample.memory_mib for sample in self.settled]
        return 100 * (max(memory) / min(memory) - 1)

    @property
    def growth_percent(self) -> float:
        """How far the last sample lies above the first settled one; negative if it lies below."""
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
    segment: Segment,
    stream: Stream,
    style: Style,
    *,
    duration_s: float,
    interval_s: float = 10.0,
    num_turns: int = 5,
    turn_s: float = 10.0,
    progress: Progress | None = None,
) -> Endurance:
    """Segment a video over and over, overlays written to a temporary file, and then measure speeds in turns.

    Args:
        segment: H x W x 3 uint8 RGB to H x W uint8 class ids, e.g. a `Segmenter`.
        stream: a video.
        style: how overlays are drawn.
        duration_s: of the long stream.
        interval_s: between samples of memory.
        num_turns, turn_s: number and length of turns with drawing, and of those without.
        progress: told how far the work has come.

    Raises:
        DataError: the video cannot be read.
        RunError: the system (other than Linux) does not say how much memory is resident, or the disk is full.
    """
    tell, endless = progress or (lambda what, part: None), loop_stream(stream)
    samples: list[Sample] = []

    def watch(pace: Pace) -> None:
        # The last ones are taken while the stream still goes: after it, what it held is given back.
        if pace.duration_s >= min(duration_s, len(samples) * interval_s):
            samples.append(Sample(pace.duration_s, pace.num_frames, resident_memory_mib()))
            tell("the long stream", min(1.0, pace.duration_s / duration_s))

    pace = _drawn(segment, endless, style, duration_s, watch)
    with_drawing, without = [], []
    for turn in range(num_turns):
        tell("turns with and without drawing", turn / num_turns)
        with_drawing.append(_drawn(segment, endless, style, turn_s).frames_per_second)
        without.append(_not_drawn(segment, endless, turn_s).frames_per_second)
    return Endurance(tuple(samples), pace, tuple(with_drawing), tuple(without))


def loop_stream(stream: Stream) -> Stream:
    """The frames of a video again and again, as if a camera gave them; times go on rising."""
    step = max(1, round(1 / stream.info.frame_rate / stream.info.time_base))

    def read() -> Generator[Frame, None, None]:
        offset = 0
        while True:
            last = offset
            for frame in stream.read():
                last = offset + frame.time
                yield Frame(frame.image, last)
            offset = last + step

    return Stream(stream.name, stream.info, read, live=True)


def _drawn(
    segment: Segment, stream: Stream, style: Style, duration_s: float, watch: Callable[[Pace], None] | None = None
) -> Pace:
    stop = threading.Event()

    def progress(pace: Pace) -> None:
        if watch is not None:
            watch(pace)
        if pace.duration_s >= duration_s:
            stop.set()

    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        stem = Path(folder) / "stream"
        return segment_stream(
            segment, stream, stem, outputs=("overlay",), style=style, stop=stop, progress=progress
        ).pace


def _not_drawn(segment: Segment, stream: Stream, duration_s: float) -> Pace:
    stop, start = threading.Event(), time.perf_counter()

    def drop(frame: Frame, labels: Labels) -> None:
        if time.perf_counter() - start >= duration_s:
            stop.set()

    paces = list(run_stream(segment, stream, drop, stop=stop))
    if not paces:
        raise RunError(f"{stream.name} gave no frame in {duration_s:g} s")
    return paces[-1]

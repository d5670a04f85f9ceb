"""Timing networks so that the figures can be compared: samples, intervals, and which of two networks is faster; and
long streams (`endure`).

The paper's latency is the mean over 20 s after 1 s of warm-up, one image at a time, the network alone (design-notes,
'What is timed'): `PROTOCOLS["paper"]`. But other work slows a machine down at times, by more than most networks differ.
So several networks are measured interleaved, in rounds (A B, B A, …), every sample is kept, and two networks are
compared by the ratio within each round, from which such times cancel out (`compare`).

A round has one turn per network: one call, or for fast networks as many as take the time of the slowest, up to a sixth
of the time that each is measured for. Calls within a turn share the machine's state, so only rounds are independent
observations: intervals come from the medians of turns, by rank (Conover 1999, Section 3.2), for any distribution. The
loop itself is in `lpsnet/agent.py`, which devices run, too.

Concurrent measurements would disturb each other: one waits until the other has finished, also across processes.
"""

import contextlib
import logging
import tempfile
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from lpsnet import agent
from lpsnet.benchmark.machine import resident_memory_mib
from lpsnet.errors import RunError
from lpsnet.inference import outputs, pipeline, video
from lpsnet.io import one_at_a_time

_log = logging.getLogger(__name__)

Time = Annotated[float, Field(gt=1e-9, lt=1e12)]  # ms; checked when read from a file
Verdict = Literal["A faster", "B faster", "cannot tell apart"]
_OTHER_FIGURES = (  # of a latency in JSON, as its attributes are called
    *("mean_ms", "p90_ms", "min_ms", "iqr_ms", "num_samples", "num_rounds"),
    *("num_discarded_rounds", "target_reached", "run_id"),
)


@dataclass(frozen=True, slots=True)
class Latency:
    """Samples of one callable, in milliseconds, and the figures that follow from them.

    Attributes:
        turns_ms: every sample, in order, by round.
        confidence: requested of the interval.
        target_reached: whether an adaptive protocol reached its target; None for other protocols.
        num_discarded_rounds: rounds discarded because the machine slept during them.
        run_id: the same for all callables measured interleaved.
    """

    turns_ms: tuple[Annotated[tuple[Time, ...], Field(min_length=1)], ...] = field(repr=False)
    confidence: float = 0.95
    target_reached: bool | None = None
    num_discarded_rounds: int = 0
    run_id: str = ""

    def __post_init__(self) -> None:
        if not self.turns_ms or not all(self.turns_ms):
            raise RunError("a latency has at least one sample in every round")

    @property
    def samples_ms(self) -> tuple[float, ...]:
        return tuple(sample for turn in self.turns_ms for sample in turn)

    @property
    def num_samples(self) -> int:
        return sum(map(len, self.turns_ms))

    @property
    def num_rounds(self) -> int:
        return len(self.turns_ms)

    @property
    def mean_ms(self) -> float:
        return fmean(self.samples_ms)

    @property
    def median_ms(self) -> float:
        return median(self.samples_ms)

    @property
    def p90_ms(self) -> float:
        """The 90th percentile."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def min_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def iqr_ms(self) -> float:
        """Spread: the interquartile range."""
        low, high = np.percentile(self.samples_ms, (25, 75))
        return float(high - low)

    @property
    def interval_ms(self) -> tuple[float, float]:
        """Interval of the median; with less than six rounds its confidence is below 0.95, see `interval_confidence`."""
        low, high, _ = agent.median_interval([median(turn) for turn in self.turns_ms], self.confidence)
        # the median of all samples may differ from that of the turns' medians
        return min(low, self.median_ms), max(high, self.median_ms)

    @property
    def interval_confidence(self) -> float:
        """The confidence that the number of rounds permits."""
        return agent.ranks(self.num_rounds, self.confidence)[1]

    def to_dict(self, *, samples: bool = True) -> dict[str, Any]:
        """JSON values; without `samples` only the figures."""
        figures: dict[str, Any] = {
            "median_ms": self.median_ms,
            "median_interval_ms": list(self.interval_ms),
            "median_interval_confidence": self.interval_confidence,
            **{key: getattr(self, key) for key in _OTHER_FIGURES},
        }
        return {**figures, "turns_ms": [list(turn) for turn in self.turns_ms]} if samples else figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """The latency of A relative to that of B.

    Attributes:
        ratio: median over the rounds of A's time divided by B's; below 1 A is faster.
        interval: of that ratio.
        confidence: of the interval, as the number of rounds permits.
        num_rounds: pairs compared.
        verdict: "cannot tell apart" if the interval contains 1, or the rounds are too few for the requested confidence.
    """

    ratio: float
    interval: tuple[float, float]
    confidence: float
    num_rounds: int
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = {"ratio": self.ratio, "ratio_interval": list(self.interval), "confidence": self.confidence}
        return {**values, "num_rounds": self.num_rounds, "verdict": self.verdict}


def compare(a: Latency, b: Latency) -> Comparison:
    """Which of two latencies measured interleaved is less, by the ratio within every round.

    Raises:
        RunError: they do not come from one call of `measure`: at other times the machine itself may differ.
    """
    if a.run_id != b.run_id or a.num_rounds != b.num_rounds:
        raise RunError("only latencies measured interleaved can be compared: give both to one call of timing.measure")
    ratios = [median(one) / median(other) for one, other in zip(a.turns_ms, b.turns_ms, strict=True)]
    low, high, reached = agent.median_interval(ratios, a.confidence)
    verdict: Verdict = "cannot tell apart"
    if reached >= a.confidence and not low <= 1 <= high:
        verdict = "A faster" if high < 1 else "B faster"
    return Comparison(median(ratios), (low, high), reached, len(ratios), verdict)


@dataclass(frozen=True, slots=True)
class TimingProtocol:
    """Durations of a measurement.

    Attributes:
        warm_up_s: each callable is first called, untimed, for this long and at least once.
        duration_s: each callable is timed for at least this long.
        turn_s: least length of a turn.
        target_percent: if set, rounds continue until the interval of every median is within this of it.
        max_duration_s: limit for that, in timed seconds per callable.
        confidence: of intervals.
    """

    warm_up_s: float = 1.0
    duration_s: float = 20.0
    turn_s: float = 0.02
    target_percent: float | None = None
    max_duration_s: float = 120.0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.warm_up_s < 0 or min(self.duration_s, self.turn_s) <= 0 or not 0 < self.confidence < 1:
            raise RunError(f"a timing protocol has positive times and a confidence between 0 and 1; got {self}")
        if self.target_percent is not None and not (self.target_percent > 0 and self.duration_s <= self.max_duration_s):
            raise RunError(f"an adaptive protocol has a positive target and max_duration_s >= duration_s; got {self}")


PROTOCOLS: dict[str, TimingProtocol] = {
    "paper": TimingProtocol(),
    "quick": TimingProtocol(warm_up_s=0.3, duration_s=2.0),
    "adaptive": TimingProtocol(duration_s=2.0, target_percent=1.0, max_duration_s=30.0),
}

_CLOCK = agent.Clock()


def measure(
    callables: Mapping[str, Callable[[], object]],
    *,
    protocol: TimingProtocol = PROTOCOLS["paper"],
    clock: agent.Clock = _CLOCK,
    on_progress: Callable[[float], None] | None = None,
) -> dict[str, Latency]:
    """Time callables interleaved: every round calls each, and the order changes from round to round.

    Args:
        callables: by name; each call is one inference, and returns when it has finished.
        protocol: how long; `dataclasses.replace(PROTOCOLS["paper"], duration_s=5)` makes another.
        clock: source of time.
        on_progress: called with the part done, 0 to 1, after every round.

    Returns:
        By name, all with the same number of rounds.

    Raises:
        RunError: there is nothing to measure, the clock stands still, or the machine keeps falling asleep.
            Errors of a callable are raised unchanged.
    """
    if not callables:
        raise RunError("nothing to measure: no callable was given")
    with measuring_alone():
        try:
            samples = agent.time_interleaved(callables, protocol, clock, on_progress or (lambda part: None))
        except agent.MeasurementError as error:
            raise RunError(str(error)) from None
    return latencies(samples, protocol)


def latencies(samples: Mapping[str, Any], protocol: TimingProtocol) -> dict[str, Latency]:
    """Latencies from what `agent.time_interleaved` gives, on this machine or on a device."""
    run_id = uuid.uuid4().hex[:12]
    return {
        name: Latency(
            tuple(tuple(sample / 1e6 for sample in turn) for turn in turns),
            confidence=protocol.confidence,
            target_reached=samples["target_reached"][name],
            num_discarded_rounds=samples["num_discarded_rounds"],
            run_id=run_id,
        )
        for name, turns in samples["turns_ns"].items()
    }


_depth = 0  # of nested `measuring_alone` in this process


@contextlib.contextmanager
def measuring_alone() -> Iterator[None]:
    """Inside the block, no other process of this machine measures; `measure` uses it itself.

    Processes with different temporary folders, as in containers, do not wait for each other, nor those without one.
    """
    path = Path(tempfile.gettempdir()) / agent.LOCK_NAME

    def warn() -> None:
        _log.warning("another process measures on this machine; waiting until it is done")

    global _depth
    with one_at_a_time(path, on_wait=warn):
        _depth += 1  # by the one thread that is let in
        try:
            yield
        finally:
            _depth -= 1


def is_measuring() -> bool:
    """Whether a thread of this process is inside `measuring_alone`: other work would disturb it."""
    return _depth > 0


# Whether a stream can run indefinitely: a video is repeated, and resident memory is sampled. Then turns with and
# without drawing alternate, so that other work on the machine affects both equally.

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

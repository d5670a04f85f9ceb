"""Long streams, in little: what is counted, and that a process which keeps what it sees is noticed."""

from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

from video_files import make_video, moving_scene

from lpsnet.benchmark.machine import MIB, resident_memory_mib
from lpsnet.benchmark.timing import Endurance, Sample, endure, loop_stream
from lpsnet.data.labels import LabelSpace
from lpsnet.inference.outputs import Style
from lpsnet.inference.pipeline import Pace
from lpsnet.inference.video import Stream, video_stream

STYLE = Style(LabelSpace.numbered(2))
PACE = Pace(10, 100.0, 1.0, 1.0, 1.0)


@pytest.fixture
def video(tmp_path: Path) -> Stream:
    return video_stream(make_video(tmp_path / "a.mp4", moving_scene((48, 64), 5)))


def test_a_loop_repeats_the_same_frames_at_rising_times(video: Stream) -> None:
    once, looped = list(video.read()), list(islice(loop_stream(video).read(), 13))
    for number, frame in enumerate(looped):
        np.testing.assert_array_equal(frame.image, once[number % 5].image)
        assert frame.time * video.info.time_base == Fraction(number, 25)


def test_memory_by_hand() -> None:
    memory = [50, 300, 100, 110, 104]  # the first tenth of the time, 10 s, does not count
    times = [0, 9, 10, 50, 100]
    samples = tuple(Sample(time, 1, mib) for time, mib in zip(times, memory, strict=True))
    seen = Endurance(samples, PACE, (9.0, 11.0, 10.0), (20.0,))
    assert seen.spread_percent == pytest.approx(10)
    assert seen.growth_percent == pytest.approx(4)
    figures = seen.to_dict()
    assert (figures["frames_per_second_with_drawing"], figures["frames_per_second_without_drawing"]) == (10, 20)


def test_resident_memory_grows_by_what_is_held() -> None:
    before = resident_memory_mib()
    held = np.ones(64 * MIB, np.uint8)
    assert 60 < resident_memory_mib() - before < 80
    assert held[0] == 1


def test_a_short_one(video: Stream) -> None:
    parts = []
    seen = endure(
        lambda image: image[..., 0] // 128,
        video,
        STYLE,
        duration_s=0.5,
        interval_s=0.1,
        num_turns=2,
        turn_s=0.1,
        on_progress=lambda stage, part: parts.append(part),
    )
    assert len(seen.samples) >= 3
    assert seen.samples[-1].num_frames == seen.pace.num_frames > 5  # played more than once
    assert [sample.time_s for sample in seen.samples] == sorted(sample.time_s for sample in seen.samples)
    assert len(seen.with_drawing) == len(seen.without_drawing) == 2
    assert min(seen.with_drawing + seen.without_drawing) > 0
    assert all(0 <= part <= 1 for part in parts)


def test_what_keeps_its_frames_is_noticed(video: Stream) -> None:
    kept = []

    def leaking(image: np.ndarray) -> np.ndarray:
        kept.append(np.ones(MIB, np.uint8))
        return np.zeros(image.shape[:2], np.uint8)

    seen = endure(leaking, video, STYLE, duration_s=0.5, interval_s=0.05, num_turns=0)
    # What each frame keeps is a MiB; how many percent that is depends on what other tests left in this process.
    first, last = seen.settled[0], seen.samples[-1]
    assert last.memory_mib - first.memory_mib > 0.5 * (last.num_frames - first.num_frames) > 10
    assert seen.to_dict()["frames_per_second_with_drawing"] is None

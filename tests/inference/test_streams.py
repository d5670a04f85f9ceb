"""Streams from end to end: what is written, read by OpenCV, beside what the segmenter says of each frame alone."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("av")

from video_files import frame_rate, make_video, moving_scene, read_video

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, RunError
from lpsnet.inference.label_map import ResizedLogits
from lpsnet.inference.outputs import OUTPUTS, Style
from lpsnet.inference.pipeline import Pace, StreamOutcome, run_stream, segment_stream
from lpsnet.inference.result import Segmentation, overlay
from lpsnet.inference.video import Frame, Stream, StreamInfo, video_stream

SPACE = LabelSpace(
    name="levels", names=("dark", "grey", "light"), colours=((200, 0, 0), (0, 200, 0), (0, 0, 200))
)  # fmt: skip


def levels(image: np.ndarray) -> np.ndarray:
    """A segmenter of three classes by the brightness around a pixel."""
    return (cv2.blur(image, (15, 15)).mean(axis=2) // 90).astype(np.uint8)


def segmented(stream: Stream, stem: Path, outputs: tuple[str, ...] = ("labels", "overlay"), **more) -> StreamOutcome:
    return segment_stream(levels, stream, stem, outputs=outputs, style=Style(SPACE), **more)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def never_ending(*, live: bool = False, fail_at: int | None = None) -> Stream:
    """Frames without end; or a damaged one."""

    def read() -> Generator[Frame, None, None]:
        number = 0
        while number != fail_at:
            yield Frame(np.full((32, 48, 3), number % 256, np.uint8), number)
            number += 1
        raise DataError(f"endless is damaged at frame {number}")

    return Stream("endless", StreamInfo((32, 48), Fraction(25), Fraction(1, 25)), read, live)


@pytest.mark.parametrize("size", [(72, 96), (71, 97)])
def test_every_frame_is_written_as_the_segmenter_sees_it(tmp_path: Path, size: tuple[int, int]) -> None:
    rate = Fraction(30000, 1001)
    pix_fmt = "yuv420p" if size == (72, 96) else "yuv444p"
    source = make_video(tmp_path / "in.mp4", moving_scene(size, 20), rate=rate, pix_fmt=pix_fmt)
    outcome = segmented(
        video_stream(source), tmp_path / "out/in", tuple(name for name, row in OUTPUTS.items() if row.in_videos)
    )
    assert outcome.whole
    assert outcome.problem == ""
    assert outcome.pace.num_frames == 20
    assert names(tmp_path / "out") == {
        "in.labels.mkv", "in.overlay.mp4", "in.colours.mp4", "in.side-by-side.mp4"
    }  # fmt: skip
    frames = read_video(source)
    maps, overlays = read_video(outcome.files["labels"], ids=True), read_video(outcome.files["overlay"])
    for image, labels, drawn in zip(frames, maps, overlays, strict=True):
        np.testing.assert_array_equal(labels, levels(image))
        assert np.abs(drawn.astype(int) - overlay(image, labels, SPACE)).mean() < 8  # lossy
        assert np.abs(drawn.astype(int) - image).mean() > 30
    for path in outcome.files.values():
        assert frame_rate(path) == pytest.approx(float(rate), rel=1e-3)
    assert read_video(outcome.files["side-by-side"])[0].shape == (size[0], 2 * size[1] + 4, 3)


def test_frames_are_read_segmented_and_drawn_in_three_threads() -> None:
    """A meeting of the three: each waits, in a frame of its own, until all are at work."""
    meeting, stop, done = threading.Barrier(3, timeout=20), threading.Event(), []

    def meet(number: int, at: int) -> None:
        if number == at:
            meeting.wait()

    def read() -> Generator[Frame, None, None]:
        for number in range(8):
            meet(number, 4)
            yield Frame(np.full((32, 48, 3), number, np.uint8), number)

    def segment(image: np.ndarray) -> np.ndarray:
        meet(int(image[0, 0, 0]), 3)
        return image[..., 0]

    def consume(frame: Frame, labels: np.ndarray) -> None:
        meet(frame.time, 2)
        done.append((frame.time, int(labels[0, 0])))

    stream = Stream("three", StreamInfo((32, 48), Fraction(25)), read)
    paces = list(run_stream(segment, stream, consume, stop=stop))
    assert done == [(number, number) for number in range(8)]
    assert [pace.num_frames for pace in paces] == list(range(1, 9))


def test_few_frames_are_alive_at_a_time() -> None:
    """However slow the drawing: those being read, segmented and drawn, and those that wait in the two queues."""
    alive: set[int] = set()
    most, stream = 0, never_ending()

    def read() -> Generator[Frame, None, None]:
        for frame in stream.read():
            alive.add(frame.time)
            weakref.finalize(frame.image, alive.discard, frame.time)
            yield frame

    def consume(frame: Frame, labels: np.ndarray) -> None:
        nonlocal most
        time.sleep(0.001)
        most = max(most, len(alive))

    counted = Stream("counted", stream.info, read)
    for _ in run_stream(levels, counted, consume, stop=threading.Event(), max_frames=200):
        pass
    assert 3 <= most <= 9


def test_a_file_that_is_stopped_is_named_part(tmp_path: Path) -> None:
    (tmp_path / "x.overlay.mp4").write_text("whole, from an earlier run")
    stop = threading.Event()

    def on_progress(pace: Pace) -> None:
        if pace.num_frames == 5:
            stop.set()

    outcome = segmented(never_ending(), tmp_path / "x", stop=stop, on_progress=on_progress)
    assert not outcome.whole
    assert outcome.problem == ""
    assert names(tmp_path) == {"x.overlay.mp4", "x.overlay.part.mp4", "x.labels.part.mkv"}
    assert (tmp_path / "x.overlay.mp4").read_text() == "whole, from an earlier run"
    assert len(read_video(outcome.files["overlay"])) == outcome.pace.num_frames >= 5


def test_a_camera_that_is_stopped_is_whole(tmp_path: Path) -> None:
    stop = threading.Event()
    outcome = segmented(never_ending(live=True), tmp_path / "x", stop=stop, on_progress=lambda pace: stop.set())
    assert outcome.whole
    assert names(tmp_path) == {"x.overlay.mp4", "x.labels.mkv"}
    assert len(read_video(outcome.files["overlay"])) == outcome.pace.num_frames


def test_no_more_frames_than_asked_for(tmp_path: Path) -> None:
    outcome = segmented(never_ending(), tmp_path / "x", max_frames=7)
    assert (outcome.whole, outcome.pace.num_frames, len(read_video(outcome.files["overlay"]))) == (True, 7, 7)


def test_what_comes_before_a_damaged_frame_is_kept_as_a_part(tmp_path: Path) -> None:
    outcome = segmented(never_ending(fail_at=3), tmp_path / "x")
    assert not outcome.whole
    assert outcome.problem == "endless is damaged at frame 3"
    assert names(tmp_path) == {"x.overlay.part.mp4", "x.labels.part.mkv"}
    assert len(read_video(outcome.files["labels"])) == 3


def test_without_a_frame_nothing_is_written(tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(DataError, match="damaged at frame 0"):
        segmented(never_ending(fail_at=0), tmp_path / "x")
    with pytest.raises(DataError, match="stopped before its first frame"):
        segmented(never_ending(), tmp_path / "x", stop=stopped)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("error", [RuntimeError("engine broke"), KeyboardInterrupt()])
def test_after_an_error_nothing_is_left_and_no_thread_runs(tmp_path: Path, error: BaseException) -> None:
    threads = threading.active_count()

    def on_progress(pace: Pace) -> None:
        raise error

    with pytest.raises(type(error)):
        segmented(never_ending(), tmp_path / "x", on_progress=on_progress)
    assert names(tmp_path) == set()
    assert threading.active_count() == threads


def test_an_engine_that_breaks_is_heard(tmp_path: Path) -> None:
    def broken(image: np.ndarray) -> np.ndarray:
        raise RuntimeError("engine broke")

    with pytest.raises(RuntimeError, match="engine broke"):
        segment_stream(broken, never_ending(), tmp_path / "x", outputs=("overlay",), style=Style(SPACE))
    assert names(tmp_path) == set()


def test_results_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write"):
        segmented(never_ending(), tmp_path / "file" / "x")


def test_speeds_with_and_without_drawing() -> None:
    pace = Pace(num_frames=60, duration_s=6.0, decoding_s=1.0, network_s=3.0, drawing_s=5.0)
    assert pace.frames_per_second == 10
    assert pace.frames_per_second_without_drawing == 20  # 3 s of network for 60 frames
    waiting = Pace(num_frames=60, duration_s=6.0, decoding_s=6.5, network_s=3.0, drawing_s=0.1)
    assert waiting.frames_per_second_without_drawing == 10  # never less than what was reached


PROGRAM = """
import sys
from pathlib import Path
import test_streams
test_streams.segmented(test_streams.never_ending(), Path(sys.argv[1]) / "x", on_progress=lambda pace: print(flush=True))
"""


def test_a_killed_process_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment) as process:
        for _ in range(30):
            process.stdout.readline()
        assert len(names(tmp_path)) == 2
        process.send_signal(signal.SIGKILL)
    assert all(name.startswith(".x.") for name in names(tmp_path))
    with pytest.raises(DataError, match="cannot be decoded"):
        video_stream(next(tmp_path.glob(".x.overlay*.mp4")))


def test_logits_do_not_wait_in_queues() -> None:
    """A result's logits may take as much as many frames; videos need none."""
    kept: list[weakref.ref] = []
    alive: list[int] = []

    def segment(image: np.ndarray) -> Segmentation:
        field = ResizedLogits(np.zeros((3, 2, 2), np.float32), image.shape[:2], True)
        kept.append(weakref.ref(field))
        return Segmentation(levels(image), image, SPACE, field)

    def consume(frame: Frame, labels: np.ndarray) -> None:
        time.sleep(0.02)  # so that the queue is full
        assert type(labels) is np.ndarray
        alive.append(sum(field() is not None for field in kept))

    for _ in run_stream(segment, never_ending(live=True), consume, stop=threading.Event(), max_frames=12):
        pass
    assert max(alive) <= 1

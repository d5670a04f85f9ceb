"""Cameras, with one that is none."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from lpsnet.errors import DataError
from lpsnet.inference.video import camera_stream


class FakeCapture:
    """Gives `num_frames` BGR images, all pixels (number, 0, 200), and then nothing."""

    def __init__(self, num_frames: int, *, rate: float = 12.5) -> None:
        self.released, self._given, self._num_frames, self._rate = False, 0, num_frames, rate

    def isOpened(self) -> bool:
        return self._num_frames > 0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if self._given == self._num_frames:
            return False, None
        self._given += 1
        return True, np.full((48, 64, 3), (self._given, 0, 200), np.uint8)

    def get(self, what: int) -> float:
        return self._rate if what == cv2.CAP_PROP_FPS else 0.0

    def set(self, what: int, value: float) -> bool:
        return False

    def release(self) -> None:
        self.released = True


def ticking(*seconds: float):
    times = iter(seconds)
    return lambda: next(times)


def test_frames_are_rgb_and_carry_the_time_they_came() -> None:
    capture, asked = FakeCapture(9), []
    clock = ticking(5.0, 5.1, 5.1, 5.1005, 6.0)
    stream = camera_stream(3, open_with=lambda index: asked.append(index) or capture, clock=clock)
    assert asked == [3]
    assert stream.live
    assert (stream.info.size, stream.info.frame_rate, stream.info.num_frames) == ((48, 64), Fraction(25, 2), None)
    frames = stream.read()
    found = [next(frames) for _ in range(4)]
    assert [frame.time for frame in found] == [100, 101, 102, 1000]  # milliseconds, no two the same
    assert [tuple(frame.image[0, 0]) for frame in found] == [(200, 0, number) for number in (2, 3, 4, 5)]
    frames.close()
    assert capture.released


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), 1e9])
def test_a_camera_that_does_not_know_its_rate(rate: float) -> None:
    assert camera_stream(0, open_with=lambda _: FakeCapture(2, rate=rate)).info.frame_rate == 30


def test_no_camera_is_one_line() -> None:
    capture = FakeCapture(0)
    with pytest.raises(DataError, match="camera 7 gives no image"):
        camera_stream(7, open_with=lambda _: capture)
    assert capture.released


def test_an_unplugged_camera_says_so() -> None:
    frames = camera_stream(0, open_with=lambda _: FakeCapture(3)).read()
    next(frames), next(frames)
    with pytest.raises(DataError, match="no more images"):
        next(frames)

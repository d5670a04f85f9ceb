"""Cameras as streams of frames, through OpenCV."""

import time
from collections.abc import Callable, Generator
from fractions import Fraction
from typing import Any

import cv2
import numpy as np

from lpsnet.data.images import quiet_opencv
from lpsnet.deployment.video import Frame, Stream, StreamInfo
from lpsnet.errors import DataError

DEFAULT_RATE = 30  # frames a second, for cameras that do not say

OpenCapture = Callable[[int], Any]  # a camera's number -> an object such as `cv2.VideoCapture`


def open_capture(index: int) -> Any:
    """OpenCV's reader of a camera; it gives H x W x 3 uint8 BGR."""
    with quiet_opencv:  # which prints lines of its own where there is no such camera
        return cv2.VideoCapture(index)


def camera_stream(
    index: int, *, open_with: OpenCapture | None = None, clock: Callable[[], float] = time.monotonic
) -> Stream:
    """What a camera sees, until it is stopped. Frames carry the time at which they came, in milliseconds.

    Args:
        index: the camera's number on this machine, from 0.
        open_with: opens it, as `open_capture` does; only tests need another.
        clock: seconds.

    Raises:
        DataError: there is no such camera, or another program uses it.
    """
    capture = (open_with or open_capture)(index)
    opened, image = capture.read() if capture.isOpened() else (False, None)
    if image is None or not opened:
        capture.release()
        raise DataError(f"camera {index} gives no picture; is it plugged in, free, and is its number right (from 0)?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old frames are of no use
    rate = capture.get(cv2.CAP_PROP_FPS)
    info = StreamInfo(size=image.shape[:2], frame_rate=_rate(rate))
    return Stream(f"camera {index}", info, lambda: _read(index, capture, clock), live=True)


def _rate(rate: float) -> Fraction:
    return Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else Fraction(DEFAULT_RATE)


def _read(index: int, capture: Any, clock: Callable[[], float]) -> Generator[Frame, None, None]:
    start, last = clock(), -1
    try:
        while True:
            opened, image = capture.read()
            if not opened:
                raise DataError(f"camera {index} gives no more pictures; was it unplugged?")
            last = max(last + 1, round(1000 * (clock() - start)))
            yield Frame(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), last)
    finally:
        capture.release()

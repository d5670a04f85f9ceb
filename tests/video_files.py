"""Video files for tests, written with PyAV alone, and read back with OpenCV alone."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from lpsnet.data.synthetic import draw_scene


def moving_scene(size: tuple[int, int], num_frames: int, *, seed: int = 0, step: int = 4) -> list[np.ndarray]:
    """Frames of a camera that moves along a generated street, H x W x 3 uint8 RGB."""
    height, width = size
    wide, _ = draw_scene(np.random.default_rng(seed), (height, width + step * num_frames))
    return [np.ascontiguousarray(wide[:, step * number :][:, :width]) for number in range(num_frames)]


def make_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: Fraction | int = 25,
    times: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    matrix: int | None = None,
    **options: str,
) -> Path:
    """A video file of the frames; `times` in units of `time_base`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, options=options)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = pix_fmt
        if time_base is not None:
            video.codec_context.time_base = time_base
        if rotation:
            video.set_display_rotation(rotation)
        if matrix is not None:
            video.codec_context.colorspace = video.codec_context.color_primaries = video.codec_context.color_trc = (
                matrix
            )
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=pix_fmt, dst_colorspace=matrix)
            frame.pts, frame.time_base = (number if times is None else times[number]), time_base or 1 / Fraction(rate)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def read_video(path: Path, *, ids: bool = False) -> list[np.ndarray]:
    """All frames: H x W x 3 uint8 RGB, or H x W uint8 for label maps."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        more, image = capture.read()
        if not more:
            capture.release()
            return frames
        frames.append(image[..., 0].copy() if ids else np.ascontiguousarray(image[..., ::-1]))


def frame_rate(path: Path) -> float:
    """Frames a second, as OpenCV reads it."""
    return float(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS))

"""Videos and cameras as streams of upright RGB frames, and such frames as video files. Needs PyAV (extra `video`).

Times are kept as in the file, so constant and variable frame rates are preserved. Rotation and mirroring stored beside
the frames, as by phones, are applied, and so not written again. Sound is dropped. FFmpeg reports a truncated frame, but
not a file truncated between two frames: for containers that state their length it is compared with the file's.
"""

import struct
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Image, quiet_opencv
from lpsnet.errors import DataError, MissingDependencyError, RunError
from lpsnet.io import atomic_path

DEFAULT_RATE = 30  # frames per second, for cameras that do not report theirs
_MILLISECOND = Fraction(1, 1000)
_UNKNOWN_COLOURS = (2, 2, 2)  # 'unspecified' in the numbers of H.273
_STANDARD = (1, 1, 1)  # BT.709, as frames of high dynamic range are after they were brought to it
# H.273's number of the matrix from RGB to YUV -> FFmpeg's: BT.709, BT.601 (two numbers), BT.2020
_MATRICES = {1: 1, 5: 5, 6: 5, 9: 9}
# Constant quality, visually lossless; speed over size, as the network needs the processor
_H264 = {"crf": "20", "preset": "veryfast"}
# MP4 has 31 bits for the time between frames and between decoding and display, five frames at most
_MAX_UNITS, _NUM_TOGETHER = 2**31 - 1, 5
_HEAD = 65_536  # bytes that contain the stated length of Matroska and ASF files
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF, _PROPERTIES = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_BROADCAST = 1  # flag of a file whose size was unknown when its head was written

_NO_FILM = ("attached_pic", "timed_thumbnails", "still_image")  # FFmpeg's dispositions of a stream
_PACKETS = ((0, 188), (4, 192), (0, 204))  # of transport streams: place of the byte 0x47, and length
_PQ, _HLG = 16, 18  # transfer curves of high dynamic range in H.273

OpenCapture = Callable[[int], Any]  # a camera's number -> an object such as `cv2.VideoCapture`


class Frame(NamedTuple):
    """An image of a stream.

    Attributes:
        image: H x W x 3 uint8 RGB, upright.
        time: of display, in units of the stream's `time_base`, from 0, strictly increasing.
    """

    image: Image
    time: int


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of a stream, known before its frames are read.

    Attributes:
        size: (height, width) of the upright frames in pixels.
        frame_rate: frames per second, on average.
        time_base: seconds per unit of `Frame.time`.
        num_frames: as stated by the file or from its duration; None if unknown or endless.
        pixel_aspect: width of a pixel by its height.
        colours: matrix, primaries and transfer in the numbers of H.273; 2 is unknown.
    """

    size: tuple[int, int]
    frame_rate: Fraction
    time_base: Fraction = _MILLISECOND
    num_frames: int | None = None
    pixel_aspect: Fraction = Fraction(1)
    colours: tuple[int, int, int] = _UNKNOWN_COLOURS


@dataclass(frozen=True, slots=True)
class Stream:
    """Frames of a file or camera.

    Attributes:
        name: of the file or camera, for messages.
        info: their properties.
        read: yields the frames from the first; may raise a `DataError` at any of them.
        live: endless, so whole when stopped; a stopped file is not.
    """

    name: str
    info: StreamInfo
    read: Callable[[], Generator[Frame, None, None]]
    live: bool = False


def video_stream(path: Path) -> Stream:
    """The frames of a video file, of any format that FFmpeg reads.

    Raises:
        DataError: the file is missing or has no video that can be decoded.
        MissingDependencyError: PyAV is not installed.
    """
    with _opened(path) as (_, video), _named(path):
        first = next(_decoded(path, video), None)
        if first is None:
            raise DataError(f"{path} holds no frame of video")
        info = _info(path, video, first)
    return Stream(str(path), info, lambda: _read(path, info))


def _info(path: Path, video: Any, first: Any) -> StreamInfo:
    swapped = _orientation(path, first).swapped
    height, width = (first.width, first.height) if swapped else (first.height, first.width)
    aspect = Fraction(video.sample_aspect_ratio or 1)
    rate, context = Fraction(video.average_rate or video.guessed_rate or 25), video.codec_context
    return StreamInfo(
        size=(height, width),
        frame_rate=rate,
        time_base=Fraction(video.time_base or 1 / rate),
        num_frames=video.frames or _frames_by_duration(video, rate),
        pixel_aspect=1 / aspect if swapped else aspect,
        colours=_STANDARD
        if context.color_trc in (_PQ, _HLG)
        else (context.colorspace, context.color_primaries, context.color_trc),
    )


def _frames_by_duration(video: Any, rate: Fraction) -> int | None:
    if video.duration is not None and video.time_base is not None:
        return round(Fraction(video.duration * video.time_base) * rate)
    whole: int | None = video.container.duration  # in microseconds
    return None if whole is None else round(Fraction(whole, 10**6) * rate)


def _read(path: Path, info: StreamInfo) -> Generator[Frame, None, None]:
    with _opened(path) as (_, video):
        start, last = None, -1
        for number, frame in enumerate(_decoded(path, video)):
            image = _upright(path, frame)
            if image.shape[:2] != info.size:
                sizes = "{}x{} to {}x{}".format(*info.size, *image.shape[:2])
                raise DataError(f"{path} changes its size from {sizes} at frame {number}; cut it there first")
            time = round(number / info.frame_rate / info.time_base) if frame.pts is None else frame.pts
            start = time if start is None else start
            last = max(last + 1, time - start)
            yield Frame(image, last)


def _decoded(path: Path, video: Any) -> Iterator[Any]:
    """All frames that can be decoded; then a `DataError` if some could not, or the file is truncated."""
    num_damaged, invalid = 0, _av().error.InvalidDataError
    joined = video.container.format.name == "mpegts"  # packets are marked as corrupt where files were joined, too
    with _named(path):
        for packet in video.container.demux(video):
            damaged = packet.is_corrupt and not joined
            try:
                yield from packet.decode()
            except invalid:
                damaged = True
            num_damaged += damaged
    if num_damaged:
        raise DataError(f"{path} is damaged or cut off: of its video {num_damaged} packets cannot be decoded")
    size, declared = path.stat().st_size, declared_size(path)
    if declared is not None and size < declared:
        raise DataError(f"{path} is cut off: it has {size} of the {declared} bytes that it should have; copy it again")
    if joined and (torn := _torn_packet(path)):
        raise DataError(f"{path} is cut off: its last packet has {torn}; copy it again")


def _torn_packet(path: Path) -> str:
    """How much of its last packet a transport stream has; empty if it is whole, or its packets are of another kind."""
    with path.open("rb") as file:
        head = file.read(2 * max(length for _, length in _PACKETS))
    for sync, length in _PACKETS:
        if len(head) >= 2 * length and head[sync] == head[sync + length] == 0x47:
            left = path.stat().st_size % length
            return f"{left} of {length} bytes" if left else ""
    return ""


class _Orientation(NamedTuple):
    """Operations that make a frame upright: swap rows and columns, then mirror."""

    swapped: bool
    left_right: bool
    up_down: bool


def _orientation(path: Path, frame: Any) -> _Orientation:
    """From the display matrix of the frame."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Orientation(False, False, False)
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # a pixel at x, y is shown at a x + c y, b x + d y
    straight, crossed = (abs(a), abs(d)), (abs(b), abs(c))
    if min(straight) > 100 * max(crossed):  # less than a hundredth is rounding
        return _Orientation(False, a < 0, d < 0)
    if min(crossed) > 100 * max(straight):
        return _Orientation(True, c < 0, b < 0)
    raise DataError(
        f"{path} is to be shown neither upright, nor turned by quarters, nor mirrored: its display matrix starts "
        f"{a / 65536:g} {b / 65536:g} {c / 65536:g} {d / 65536:g}; bring its frames upright with ffmpeg first"
    )


def _upright(path: Path, frame: Any) -> Image:
    image = _rgb(frame)
    swapped, left_right, up_down = _orientation(path, frame)
    image = image.swapaxes(0, 1) if swapped else image
    return np.ascontiguousarray(image[:: -1 if up_down else 1, :: -1 if left_right else 1])


# A frame of high dynamic range as a display of the standard one would show it: light up to four fifths of the usual
# white (203 cd/m2, BT.2408) stays, what is brighter is drawn together; BT.2020's colours become BT.709's.
_WHITE, _KNEE = 203.0, 0.8
_FULL = 255 * 256  # white in FFmpeg's RGB of 16 bits
_TO_BT709 = np.array(  # BT.2087, table 3 inverted
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)


@cache
def _light(transfer: int) -> NDArray[np.float32]:
    """Light of every number of 16 bits, 1 for the usual white: BT.2100's PQ, or HLG at 1,000 cd/m2 by colour."""
    signal = np.minimum(np.arange(65_536) / _FULL, 1)
    if transfer == _PQ:
        power = signal ** (32 / 2523)
        light = (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610) * 10_000
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12) ** 1.2 * 1000
    return np.asarray(light / _WHITE, np.float32)


def _rgb(frame: Any) -> Image:
    """H x W x 3 uint8 RGB; FFmpeg's own way from more than 8 bits to 8 makes white 253."""
    if frame.color_trc in (_PQ, _HLG):
        return _tone_mapped(frame)
    if frame.format.components[0].bits <= 8:
        return np.asarray(frame.to_ndarray(format="rgb24"))
    return np.asarray(np.minimum(frame.to_ndarray(format="rgb48le"), _FULL) + 128 >> 8, np.uint8)


def _tone_mapped(frame: Any) -> Image:
    """H x W x 3 uint8 RGB of a frame of high dynamic range."""
    light = cv2.transform(_light(frame.color_trc)[frame.to_ndarray(format="rgb48le")], _TO_BT709)
    light = np.maximum(light, 0)
    over = np.maximum(light.max(axis=2, keepdims=True), 1e-6)
    drawn = np.where(over > _KNEE, 1 - (1 - _KNEE) ** 2 / (over + 1 - 2 * _KNEE), over)
    light = np.minimum(light * (drawn / over), 1)
    shown = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # sRGB, IEC 61966-2-1
    return np.asarray((255 * shown).round(), np.uint8)


def open_capture(index: int) -> Any:
    """OpenCV's reader of a camera; frames are H x W x 3 uint8 BGR."""
    with quiet_opencv:  # it prints lines of its own if there is no such camera
        return cv2.VideoCapture(index)


def camera_stream(
    index: int, *, open_with: OpenCapture | None = None, clock: Callable[[], float] = time.monotonic
) -> Stream:
    """The frames of a camera, until stopped. Times are those of arrival, in milliseconds.

    Args:
        index: the camera's number on this machine, from 0.
        open_with: opens it, by default `open_capture`; for tests.
        clock: seconds.

    Raises:
        DataError: there is no such camera, or it is in use.
    """
    capture = (open_with or open_capture)(index)
    opened, image = capture.read() if capture.isOpened() else (False, None)
    if image is None or not opened:
        capture.release()
        raise DataError(f"camera {index} gives no image; is it plugged in, free, and is its number right (from 0)?")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # old frames are of no use
    rate = capture.get(cv2.CAP_PROP_FPS)
    frame_rate = Fraction(rate).limit_denominator(1001) if 0 < rate <= 1000 else Fraction(DEFAULT_RATE)
    info = StreamInfo(size=image.shape[:2], frame_rate=frame_rate)
    return Stream(f"camera {index}", info, lambda: _read_frame(index, capture, clock), live=True)


def _read_frame(index: int, capture: Any, clock: Callable[[], float]) -> Generator[Frame, None, None]:
    start, last = clock(), -1
    try:
        while True:
            opened, image = capture.read()
            if not opened:
                raise DataError(f"camera {index} gives no more images; was it unplugged?")
            last = max(last + 1, round(1000 * (clock() - start)))
            yield Frame(np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB)), last)
    finally:
        capture.release()


def declared_size(path: Path) -> int | None:
    """The size in bytes stated in a file's head, without what may follow; None if not stated (as in MPEG streams)."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_EBML):
        return _matroska_size(head)
    return _asf_size(head) if head.startswith(_ASF) else None


def _matroska_size(head: bytes) -> int | None:
    """The end of the segment, which is all but the head. A number's leading zero bits give its length."""
    _, mark, rest = head.partition(_SEGMENT)
    if not mark or not rest or not rest[0]:
        return None
    length = 9 - rest[0].bit_length()
    unknown = (1 << 7 * length) - 1
    size = int.from_bytes(rest[:length], "big") & unknown
    return None if size == unknown else len(head) - len(rest) + length + size


def _asf_size(head: bytes) -> int | None:
    """From the file properties object: identifiers and a length (40 bytes), the size, five numbers."""
    start = head.find(_PROPERTIES)
    if start < 0 or len(head) < start + 92:
        return None
    size, flags = struct.unpack_from("<Q40xI", head, start + 40)
    return None if flags & _BROADCAST else int(size)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container of a file and its video stream."""
    if not path.is_file():
        raise DataError(f"{path} {'is not an ordinary file' if path.exists() else 'does not exist'}; no video to read")
    with _named(path):
        container = _av().open(str(path))
    with container:
        video = _film(path, container)
        video.thread_type = "AUTO"
        yield container, video


def _film(path: Path, container: Any) -> Any:
    """The video stream that players show: no cover or thumbnail, of several frames, the default one, the largest."""

    def rank(video: Any) -> tuple[bool, bool, int]:
        return video.frames != 1, bool(video.disposition & type(video.disposition).default), video.width * video.height

    streams = [video for video in container.streams.video if video.codec_context is not None]
    films = [video for video in streams if not any(flag.name in _NO_FILM for flag in video.disposition)]
    if films:
        return max(films, key=rank)  # the first of equals
    found = "no video" if not container.streams.video else "a cover or thumbnails, but no video that can be decoded"
    raise DataError(f"{path} holds {found}")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Convert FFmpeg's errors to one line that names the file."""
    try:
        yield
    except _av().FFmpegError as error:
        raise DataError(f"{path} cannot be decoded as video: {error.strerror or error}") from None


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert errors while writing; the file has a temporary name until it is complete."""
    try:
        yield
    except OSError as error:  # includes some of FFmpeg's
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    except _av().FFmpegError as error:
        raise DataError(f"{path} cannot be written as video: {error.strerror or error}") from None


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as error:
        raise MissingDependencyError.for_extra("av", "video") from error
    return av


@contextmanager
def video_writer(path: Path, info: StreamInfo) -> Iterator[Callable[[Image, int], None]]:
    """Write frames to a video file: RGB as H.264 in MP4, class ids losslessly as FFV1 in Matroska.

    Yields a function that adds a frame: H x W x 3 uint8 RGB, or H x W uint8 ids, all of one shape, and its time as in
    `Frame`. The file appears, complete, when the block ends without an error. Even sizes use 4:2:0 colours, which every
    player supports; odd sizes need 4:4:4, which fewer do.

    Args:
        path: the file; a suffix `.mp4` or `.mkv` that suits the frames.
        info: of the source stream: rate, time base, pixel aspect and colours.

    Raises:
        DataError: FFmpeg cannot write such frames, or their times jump farther than MP4 allows.
        MissingDependencyError: PyAV is not installed.
        RunError: the folder cannot be written to, or the disk is full.
    """
    with atomic_path(path) as temporary:
        file = _VideoFile(temporary, info)

        def write(image: Image, time: int) -> None:
            if (jump := file.jump_to(time)) > file.max_jump:
                raise DataError(
                    f"{path} cannot hold times that jump by {float(jump):.0f} s within {_NUM_TOGETHER} frames, only "
                    f"{float(file.max_jump):.0f} s; cut the source there, or mend its times with ffmpeg"
                )
            with _writing(path):
                file.write(image, time)

        with _writing(path), file:
            yield write


class _VideoFile:
    """A video file being written; complete when its block ends without an error."""

    def __init__(self, path: Path, info: StreamInfo) -> None:
        self._path, self._info = path, info
        self.max_jump = _MAX_UNITS * _mp4_unit(info.time_base)  # in seconds
        self._times: deque[int] = deque(maxlen=_NUM_TOGETHER)
        self._container: Any = None
        self._video: Any = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if self._container is None:
            return
        try:
            if kind is None:
                self._container.mux(self._video.encode())
        finally:
            self._container.close()

    def jump_to(self, time: int) -> Fraction:
        """Seconds from the oldest of the last frames to one of this time."""
        return (time - self._times[0]) * self._info.time_base if self._times else Fraction(0)

    def write(self, image: Image, time: int) -> None:
        if self._container is None:
            self._open(image)
        pixels = "gray" if image.ndim == 2 else "rgb24"
        frame = _av().VideoFrame.from_ndarray(np.ascontiguousarray(image), format=pixels)
        if image.ndim == 3:
            matrix = _MATRICES.get(self._info.colours[0])
            frame = frame.reformat(format=self._video.pix_fmt, dst_colorspace=matrix)
        frame.pts, frame.time_base = time, self._info.time_base
        self._container.mux(self._video.encode(frame))
        self._times.append(time)

    def _open(self, image: Image) -> None:
        info, (height, width) = self._info, image.shape[:2]
        self._container = _av().open(str(self._path), "w")
        codec, options = ("ffv1", {}) if image.ndim == 2 else ("libx264", _H264)
        self._video = video = self._container.add_stream(codec, rate=info.frame_rate, options=options)
        video.width, video.height = width, height
        video.pix_fmt = "gray" if image.ndim == 2 else "yuv420p" if height % 2 == width % 2 == 0 else "yuv444p"
        context = video.codec_context
        context.time_base, context.sample_aspect_ratio = info.time_base, info.pixel_aspect
        if image.ndim == 3:
            known = info.colours[0] in _MATRICES
            colours = info.colours if known else _UNKNOWN_COLOURS
            context.colorspace, context.color_primaries, context.color_trc = colours


def _mp4_unit(time_base: Fraction) -> Fraction:
    """Seconds of the time unit that FFmpeg writes to MP4: at least 10,000 per second."""
    unit = Fraction(1, time_base.denominator)
    while unit > Fraction(1, 10_000):
        unit /= 2
    return unit

"""Video files in and out: read files that PyAV wrote, and what is written read back by OpenCV."""

import struct
import sys
import wave
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")

import av
from video_files import frame_rate, make_video, moving_scene, read_video

from lpsnet.errors import DataError, MissingDependencyError
from lpsnet.inference.video import Frame, StreamInfo, video_stream, video_writer

NTSC = Fraction(30000, 1001)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def write(path: Path, frames: list[Frame], info: StreamInfo) -> Path:
    with video_writer(path, info) as add:
        for image, time in frames:
            add(image, time)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov", ".ts"])
def test_frames_are_those_of_another_reader(tmp_path: Path, suffix: str) -> None:
    source = moving_scene((48, 64), 12)
    codec = "mpeg4" if suffix == ".avi" else "libx264"  # AVI has no place for the times of frames out of order
    path = make_video(tmp_path / f"a{suffix}", source, rate=20, codec=codec)
    stream = video_stream(path)
    frames = list(stream.read())
    assert stream.info.size == (48, 64)
    assert stream.info.frame_rate == 20
    assert not stream.live
    assert len(frames) == 12
    assert stream.info.num_frames == pytest.approx(12, abs=1)
    assert [frame.time * stream.info.time_base for frame in frames] == [Fraction(n, 20) for n in range(12)]
    for frame, expected, original in zip(frames, read_video(path), source, strict=True):
        np.testing.assert_array_equal(frame.image, expected)
        assert difference(frame.image, original) < 12  # lossy; a neighbouring frame differs by more


def test_a_stream_can_be_read_again(tmp_path: Path) -> None:
    stream = video_stream(make_video(tmp_path / "a.mp4", moving_scene((48, 64), 5)))
    first, second = list(stream.read()), list(stream.read())
    assert [frame.time for frame in first] == [frame.time for frame in second]
    np.testing.assert_array_equal(first[4].image, second[4].image)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_carried_out(tmp_path: Path, rotation: int) -> None:
    path = make_video(tmp_path / "a.mp4", moving_scene((48, 64), 3), rotation=rotation)
    (expected, *_), stream = read_video(path), video_stream(path)
    assert expected.shape == ((48, 64, 3) if rotation == 180 else (64, 48, 3))
    assert stream.info.size == expected.shape[:2]
    np.testing.assert_array_equal(next(stream.read()).image, expected)


def with_matrix(path: Path, numbers: tuple[float, float, float, float]) -> Path:
    """The MP4 with its display matrix (a, b, c, d), by which a pixel at x, y is shown at a x + c y, b x + d y."""
    data = path.read_bytes()
    places = struct.Struct(">9i")
    a, b, c, d = (round(65536 * number) for number in numbers)
    upright = places.pack(65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    start = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:start] + places.pack(a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[start + places.size :])
    return path


# what an image AB over CD becomes
SHOWN = {
    (1, 0, 0, 1): ("AB", "CD"),
    (-1, 0, 0, 1): ("BA", "DC"),
    (1, 0, 0, -1): ("CD", "AB"),
    (-1, 0, 0, -1): ("DC", "BA"),
    (0, 1, -1, 0): ("CA", "DB"),
    (0, -1, 1, 0): ("BD", "AC"),
    (0, 1, 1, 0): ("AC", "BD"),
    (0, -1, -1, 0): ("DB", "CA"),
    (0.0001, 1, -1, 0.0001): ("CA", "DB"),
    (0, 0.5, -0.5, 0): ("CA", "DB"),
}


@pytest.mark.parametrize("matrix", SHOWN)
def test_display_matrices_that_turn_and_mirror(tmp_path: Path, matrix: tuple[float, float, float, float]) -> None:
    brightness = dict(zip("ABCD", (20, 90, 160, 230), strict=True))
    corners = np.array([[brightness[name] for name in row] for row in ("AB", "CD")], np.uint8)
    image = np.repeat(corners.repeat(24, axis=0).repeat(32, axis=1)[..., None], 3, axis=2)
    stream = video_stream(with_matrix(make_video(tmp_path / "a.mp4", [image] * 2), matrix))
    shown = next(stream.read()).image
    assert shown.shape[:2] == stream.info.size == ((48, 64) if matrix[0] in (1, -1) else (64, 48))
    height, width = stream.info.size
    for row, names in enumerate(SHOWN[matrix]):
        for column, name in enumerate(names):
            corner = shown[(2 * row + 1) * height // 4, (2 * column + 1) * width // 4]
            assert np.abs(corner.astype(int) - brightness[name]).max() < 8


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (0.7, 0.7, -0.7, 0.7), (1, 0, 0.2, 1), (1, 0, 0, 0)])
def test_other_display_matrices_are_refused(tmp_path: Path, matrix: tuple[float, float, float, float]) -> None:
    path = with_matrix(make_video(tmp_path / "a.mp4", moving_scene((48, 64), 2)), matrix)
    with pytest.raises(DataError, match=r"a\.mp4 is to be shown neither upright, .* its display matrix starts"):
        video_stream(path)


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63)])
@pytest.mark.parametrize("rate", [Fraction(25), NTSC])
def test_size_rate_and_frames_come_out_as_they_went_in(tmp_path: Path, size: tuple[int, int], rate: Fraction) -> None:
    images = moving_scene(size, 10)
    info = StreamInfo(size, rate, time_base=1 / rate)
    path = write(tmp_path / "a.mp4", [Frame(image, number) for number, image in enumerate(images)], info)
    frames = read_video(path)
    assert len(frames) == 10
    assert frame_rate(path) == pytest.approx(float(rate))
    assert max(map(difference, frames, images)) < 8
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        assert video.codec_context.name == "h264"
        assert (video.average_rate, video.frames) == (rate, 10)


def test_a_changing_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 510, 2000]
    source = make_video(tmp_path / "a.mkv", moving_scene((48, 64), 6), times=times, time_base=Fraction(1, 1000))
    stream = video_stream(source)
    written = write(tmp_path / "b.mp4", list(stream.read()), stream.info)
    again = video_stream(written)
    assert [1000 * frame.time * again.info.time_base for frame in again.read()] == times


TIMES = {Fraction(1, 1000): 16_000, Fraction(1, 15_625): 15_625, Fraction(1001, 30_000): 30_000}  # MP4's a second
TIMES |= {Fraction(1, 90_000): 90_000, Fraction(1, 10**6): 10**6}


@pytest.mark.parametrize("steady", [False, True])
@pytest.mark.parametrize("time_base", TIMES)
def test_times_that_mp4_cannot_say_are_refused_before_their_frame(
    tmp_path: Path, time_base: Fraction, steady: bool
) -> None:
    """MP4 has 31 bits for a jump, which some frames that are decoded before they are shown may add up to."""
    images, info = moving_scene((48, 64), 9), StreamInfo((48, 64), Fraction(25), time_base)
    longest = int(Fraction(2**31 - 1, TIMES[time_base]) / time_base)
    times = [number * (longest // 5) for number in range(8)] if steady else [0, 1, 2, *range(longest - 4, longest + 1)]
    with video_writer(tmp_path / "a.mp4", info) as add:
        for image, time in zip(images, times, strict=False):
            add(image, time)
        with pytest.raises(DataError, match=r"a\.mp4 cannot hold times that jump by \d+ s within 5 frames, only \d+ s"):
            add(images[8], times[-1] + 2**31)
    again = video_stream(tmp_path / "a.mp4")
    assert [frame.time * again.info.time_base / time_base for frame in again.read()] == times


def test_what_ffmpeg_cannot_write_is_one_line_that_names_the_file(tmp_path: Path) -> None:
    wide = np.zeros((2, 20_000, 3), np.uint8)  # H.264 ends at 16384
    with pytest.raises(DataError, match=r"a\.mp4 cannot be written as video: ") as error:
        write(tmp_path / "a.mp4", [Frame(wide, 0)], StreamInfo((2, 20_000), Fraction(25)))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_times_start_at_zero_and_rise(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", moving_scene((48, 64), 4), times=[250, 251, 252, 253])
    assert [frame.time * 25 * video_stream(path).info.time_base for frame in video_stream(path).read()] == [0, 1, 2, 3]


@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colours_survive_whatever_matrix_the_source_has(tmp_path: Path, matrix: int) -> None:
    image = np.full((48, 64, 3), (200, 40, 60), np.uint8)
    stream = video_stream(make_video(tmp_path / "a.mp4", [image] * 3, matrix=matrix))
    assert difference(next(stream.read()).image, image) < 3
    again = video_stream(write(tmp_path / "b.mp4", list(stream.read()), stream.info))
    assert again.info.colours[0] == matrix
    assert difference(next(again.read()).image, image) < 6  # one matrix for the other makes 12


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    info = StreamInfo((48, 64), Fraction(25), pixel_aspect=Fraction(4, 3))
    path = write(tmp_path / "a.mp4", [Frame(image, 40 * n) for n, image in enumerate(moving_scene((48, 64), 3))], info)
    assert video_stream(path).info.pixel_aspect == Fraction(4, 3)


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_ids_are_written_without_loss(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 256, size, dtype=np.uint8) for _ in range(5)]
    info = StreamInfo(size, NTSC, time_base=1 / NTSC)
    path = write(tmp_path / "a.mkv", [Frame(ids, number) for number, ids in enumerate(maps)], info)
    assert frame_rate(path) == pytest.approx(float(NTSC))
    for found, expected in zip(read_video(path, ids=True), maps, strict=True):
        np.testing.assert_array_equal(found, expected)


def not_a_video(tmp_path: Path) -> Path:
    (tmp_path / "text.mp4").write_text("not what the name says")
    return tmp_path / "text.mp4"


def cut_off(tmp_path: Path) -> Path:
    whole = make_video(tmp_path / "whole.mp4", moving_scene((48, 64), 10)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "cut.mp4"


def sound_alone(tmp_path: Path) -> Path:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(8000))
    return (tmp_path / "a.wav").rename(tmp_path / "sound.mp4")


BAD = {
    "text": (not_a_video, "text.mp4 cannot be decoded as video"),
    "cut off": (cut_off, "cut.mp4 cannot be decoded as video"),
    "sound": (sound_alone, "sound.mp4 holds no video"),
    "missing": (lambda folder: folder / "none.mp4", "none.mp4 does not exist"),
    "folder": (lambda folder: folder, "is not an ordinary file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_holds_no_video_is_one_line(tmp_path: Path, kind: str) -> None:
    make, words = BAD[kind]
    with pytest.raises(DataError, match=words) as error:
        video_stream(make(tmp_path))
    assert "\n" not in str(error.value)


def test_a_change_of_size_is_said(tmp_path: Path) -> None:
    """Transport streams may be joined end to end, whatever they hold."""
    parts = [make_video(tmp_path / f"{n}.ts", moving_scene(size, 4)) for n, size in enumerate([(48, 64), (64, 96)])]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    stream = video_stream(joined)
    assert len([*islice(stream.read(), 4)]) == 4
    with pytest.raises(DataError, match="changes its size from 48x64 to 64x96 at frame 4"):
        list(stream.read())


def with_its_index_in_front(path: Path) -> Path:
    """The same MP4 with what it says of itself before its frames, so that it opens when it is cut off."""
    front = path.with_name("front.mp4")
    with av.open(str(path)) as source, av.open(str(front), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return front


def test_what_can_be_decoded_of_a_cut_off_file_comes_before_the_error(tmp_path: Path) -> None:
    whole = with_its_index_in_front(make_video(tmp_path / "a.mp4", moving_scene((48, 64), 20)))
    assert len(list(video_stream(whole).read())) == 20
    whole.write_bytes(whole.read_bytes()[:-400])
    frames = video_stream(whole).read()
    seen = []
    with pytest.raises(DataError, match=r"front\.mp4 is damaged or cut off"):  # noqa: PT012 — frames come before it
        for frame in frames:
            seen.append(frame.time)
    assert 0 < len(seen) < 20


def in_blocks(tmp_path: Path, suffix: str) -> tuple[Path, list[int]]:
    """A video of 20 frames, and where it can be cut between two that stand alone."""
    codec = {".mkv": "ffv1", ".webm": "libvpx", ".wmv": "wmv2"}[suffix]
    path = make_video(tmp_path / f"a{suffix}", moving_scene((96, 128), 20), codec=codec)
    with av.open(str(path)) as container:
        starts = sorted({packet.pos for packet in container.demux(video=0) if packet.size})
    return path, [start for start in starts[1:] if start > path.stat().st_size // 3]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".wmv"])
def test_a_file_cut_off_between_two_frames(tmp_path: Path, suffix: str) -> None:
    path, cuts = in_blocks(tmp_path, suffix)
    data = path.read_bytes()
    assert len(list(video_stream(path).read())) == 20
    for cut in (cuts[0], cuts[len(cuts) // 2], cuts[-1], len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(DataError, match=rf"cut off: it has {cut} of the {len(data)} bytes that it should have"):
            list(video_stream(path).read())
    path.write_bytes(data + bytes(100))
    assert len(list(video_stream(path).read())) == 20


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
def test_a_recording_that_does_not_say_how_long_it_is(tmp_path: Path, suffix: str) -> None:
    path, cuts = in_blocks(tmp_path, suffix)
    head, segment, rest = path.read_bytes()[: cuts[-1]].partition(bytes.fromhex("18538067"))
    path.write_bytes(head + segment + bytes.fromhex("01ffffffffffffff") + rest[8:])
    assert 5 < len(list(video_stream(path).read())) < 20


def test_a_broadcast_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    path, cuts = in_blocks(tmp_path, ".wmv")
    data = bytearray(path.read_bytes()[: cuts[-1]])
    data[data.index(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")) + 88] |= 1
    path.write_bytes(data)
    assert 0 < len(list(video_stream(path).read())) < 20


def test_damage_in_the_middle_costs_only_the_frames_it_hits(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.mp4", moving_scene((48, 64), 20), g="1", bf="0")  # every frame stands alone
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][10]
    start = bytes(data).index(bytes(packet)[:64])
    data[start : start + 64] = bytes(64)
    path.write_bytes(data)
    seen = []
    with pytest.raises(DataError, match="is damaged or cut off: of its video 1 packets"):  # noqa: PT012
        for frame in video_stream(path).read():
            seen.append(frame.time)
    assert len(seen) == 19


def test_without_pyav_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "a.mp4", moving_scene((48, 64), 2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[video\]'"):
        video_stream(path)


def with_streams(path: Path, *parts: tuple[tuple[int, int], int, str]) -> Path:
    """A file of several video streams: size, number of frames and FFmpeg's disposition of each."""
    from av.stream import Disposition

    with av.open(str(path), "w") as target:
        streams = []
        for (height, width), count, kind in parts:
            stream = target.add_stream("mjpeg" if count == 1 else "libx264", rate=10)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if count == 1 else "yuv420p"
            stream.disposition = Disposition[kind] if kind else Disposition(0)
            streams.append(stream)
        for stream, ((height, width), count, _) in zip(streams, parts, strict=True):
            for image in moving_scene((height, width), count):
                target.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            target.mux(stream.encode())
    return path


COVER = ((96, 96), 1, "attached_pic")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("parts", "size"),
    [
        ((COVER, ((48, 64), 5, "")), (48, 64)),
        ((((48, 64), 5, ""), COVER), (48, 64)),
        ((((32, 48), 5, ""), ((48, 64), 5, "")), (48, 64)),  # the larger
        ((((48, 64), 5, ""), ((32, 48), 5, "default")), (32, 48)),  # the default one
        ((((48, 64), 5, "still_image"), ((32, 48), 5, "")), (32, 48)),
    ],
)
def test_the_film_is_read_not_the_first_stream(tmp_path: Path, parts, size: tuple[int, int], suffix: str) -> None:
    path = with_streams(tmp_path / f"a{suffix}", *parts)
    with av.open(str(path)) as container:
        kept = [flag.name for stream in container.streams.video for flag in stream.disposition]
    if {kind for *_, kind in parts} - {"", *kept}:
        pytest.skip(f"{suffix} keeps no such mark")
    if kept.count("default") and "default" not in {kind for *_, kind in parts} and COVER not in parts:
        pytest.skip(f"{suffix} marks a default of its own")
    stream = video_stream(path)
    assert stream.info.size == size
    assert len(list(stream.read())) == 5


def test_a_cover_alone_is_no_film(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a cover or thumbnails, but no video"):
        video_stream(with_streams(tmp_path / "a.mp4", COVER))


@pytest.mark.parametrize("lost", [1, 100, 187])
def test_a_transport_stream_that_ends_within_a_packet(tmp_path: Path, lost: int) -> None:
    path = make_video(tmp_path / "a.ts", moving_scene((48, 64), 20))
    assert len(list(video_stream(path).read())) == 20
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(DataError, match=rf"cut off: its last packet has {188 - lost} of 188 bytes"):
        list(video_stream(path).read())


def of_ten_bits(path: Path, level: float, transfer: int) -> Path:
    """Grey of one level, 0 to 1 of the range of video, in 10 bits."""
    with av.open(str(path), "w") as target:
        stream = target.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        context = stream.codec_context
        context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
        frame = av.VideoFrame(64, 48, "yuv420p10le")
        for plane, value in zip(frame.planes, (round(64 + 876 * level), 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, np.uint16).tobytes())
        frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
        target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


# signal -> light in cd/m2, from the tables of BT.2408
@pytest.mark.parametrize(
    ("transfer", "level", "light"), [(16, 0.508, 100), (16, 0.58, 203), (16, 0.75, 1000), (18, 0.75, 203), (18, 0.0, 0)]
)
def test_high_dynamic_range_is_brought_to_the_standard_one(
    tmp_path: Path, transfer: int, level: float, light: float
) -> None:
    stream = video_stream(of_ten_bits(tmp_path / "a.mkv", level, transfer))
    (frame,) = stream.read()
    shown = light / 203
    shown = shown if shown <= 0.8 else 0.8 + 0.2 * (shown - 0.8) / (shown - 0.8 + 0.2)
    wanted = 255 * (1.055 * shown ** (1 / 2.4) - 0.055) if shown else 0
    assert np.abs(frame.image.astype(float) - wanted).max() < 2.5
    assert stream.info.colours == (1, 1, 1)


@pytest.mark.parametrize("level", [0.0, 0.25, 0.5, 1.0])
def test_ten_bits_of_the_standard_range_are_rounded_to_eight(tmp_path: Path, level: float) -> None:
    (frame,) = video_stream(of_ten_bits(tmp_path / "a.mkv", level, 1)).read()
    assert np.abs(frame.image.astype(float) - 255 * level).max() <= 0.75


def test_colours_of_high_dynamic_range_become_those_of_bt_709() -> None:
    """BT.2087's matrix, from the primaries and white of both, worked out here."""
    from lpsnet.inference.video import _TO_BT709

    def to_xyz(primaries: list[tuple[float, float]]) -> np.ndarray:
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        return columns * np.linalg.solve(columns, white)

    wide = to_xyz([(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)])
    usual = to_xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])
    np.testing.assert_allclose(_TO_BT709, np.linalg.inv(usual) @ wide, atol=2e-4)

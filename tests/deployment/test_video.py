"""Video files in and out: read files that PyAV wrote, and what is written read back by OpenCV."""

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

from lpsnet.deployment.video import Frame, StreamInfo, VideoWriter, video_stream
from lpsnet.errors import DataError, MissingDependencyError

NTSC = Fraction(30000, 1001)


def difference(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def write(path: Path, frames: list[Frame], info: StreamInfo) -> Path:
    with VideoWriter(path, info) as writer:
        for image, time in frames:
            writer.write(image, time)
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

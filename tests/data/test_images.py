"""Reading and writing images: every kind of file has one right answer, or one line that refuses it."""

import os
import stat
import struct
import threading
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import (
    cmyk_jpeg,
    png_bytes,
    png_chunk,
    with_exif_orientation,
    write_image,
    write_palette_png,
)

from lpsnet.data.images import inspect_image, read_image, read_mask, write_png
from lpsnet.errors import DataError, RunError

COLOURS = [(10, 20, 30), (200, 100, 50), (0, 255, 0), (1, 2, 3)]


@pytest.fixture
def rgb() -> np.ndarray:
    """A small image in which no two channels and no two sides are alike."""
    return np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def refusal(path: Path, **options: object) -> str:
    """The message, which is one line that names the file."""
    with pytest.raises(DataError) as caught:
        read_image(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
def test_lossless_formats_give_the_bytes_that_were_written(tmp_path: Path, rgb: np.ndarray, suffix: str) -> None:
    image = read_image(write_image(tmp_path / f"a{suffix}", rgb))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, rgb)


def test_webp_without_loss(tmp_path: Path, rgb: np.ndarray) -> None:
    path = tmp_path / "a.webp"
    cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, 101])
    np.testing.assert_array_equal(read_image(path), rgb)
    assert inspect_image(path)[:3] == ("WebP", 9, 6)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_keep_colour_order_and_size(tmp_path: Path, suffix: str) -> None:
    flat = np.full((32, 48, 3), (200, 60, 20), np.uint8)
    path = write_image(tmp_path / f"a{suffix}", flat)
    np.testing.assert_allclose(read_image(path), flat, atol=4)
    assert inspect_image(path)[1:3] == (48, 32)


def test_the_content_decides_not_the_suffix(tmp_path: Path, rgb: np.ndarray) -> None:
    path = write_image(tmp_path / "a.png", rgb).rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(read_image(path), rgb)


def test_grey_becomes_three_equal_channels(tmp_path: Path, rgb: np.ndarray) -> None:
    grey = rgb[..., 0]
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.png", grey)), np.stack([grey] * 3, axis=2))


def test_alpha_is_dropped_and_colours_under_it_are_kept(tmp_path: Path, rgb: np.ndarray) -> None:
    rgba = np.dstack([rgb, np.zeros(rgb.shape[:2], np.uint8)])
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "a.png", rgba)), rgb)


def test_16_bits_are_divided_by_257_and_rounded(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257, 385, 386, 32767, 65406, 65407, 65535]], np.uint16)
    expected = [0, 0, 1, 1, 1, 2, 127, 254, 255, 255]  # 128 / 257 = 0.498, 129 / 257 = 0.502, 32767 / 257 = 127.498 ...
    image = read_image(write_image(tmp_path / "a.png", values))
    assert image[0, :, 0].tolist() == expected
    colour = np.dstack([values, values[:, ::-1], values])
    assert read_image(write_image(tmp_path / "b.png", colour))[0, :, 1].tolist() == expected[::-1]


def test_16_bit_rounding_is_right_for_every_value(tmp_path: Path) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = read_image(write_image(tmp_path / "a.png", values))
    np.testing.assert_array_equal(image[..., 2], np.rint(values / 257.0).astype(np.uint8))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_is_expanded_in_images(tmp_path: Path, depth: int) -> None:
    indices = np.arange(15).reshape(3, 5) % min(2**depth, 4)
    path = write_palette_png(tmp_path / "a.png", indices, COLOURS[: 2**depth], depth=depth)
    np.testing.assert_array_equal(read_image(path), np.array(COLOURS, np.uint8)[indices])
    assert inspect_image(path).content == "palette"


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_exif_rotation_is_carried_out(tmp_path: Path, orientation: int, turn: int) -> None:
    image = np.zeros((16, 32, 3), np.uint8)
    image[:8, :8] = 255  # only the upper left corner is white
    plain = write_image(tmp_path / "plain.jpg", image)
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_exif_orientation(plain.read_bytes(), orientation))
    np.testing.assert_array_equal(read_image(turned), np.rot90(read_image(plain), turn))


def profile_text(kind: bytes, orientation: int, *, keyword: bytes = b"exif") -> bytes:
    """A PNG chunk with EXIF data in a text, as ImageMagick before version 7 writes it."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    lines = [exif.hex()[start : start + 72] for start in range(0, 2 * len(exif), 72)]
    text = f"\n{keyword.decode()}\n{len(exif):8d}\n{chr(10).join(lines)}\n".encode()
    before = {b"tEXt": b"", b"zTXt": b"\0", b"iTXt": b"\1\0\0\0"}[kind]
    return png_chunk(
        kind, b"Raw profile type " + keyword + b"\0" + before + (text if kind == b"tEXt" else zlib.compress(text))
    )


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
@pytest.mark.parametrize("keyword", [b"exif", b"APP1"])
@pytest.mark.parametrize("after", [False, True])
def test_exif_in_a_text_of_png_turns_images_and_labels_alike(
    tmp_path: Path, rgb: np.ndarray, kind: bytes, keyword: bytes, after: bool
) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    plain = path.read_bytes()
    place = len(plain) - 12 if after else 33  # before IEND or after IHDR
    path.write_bytes(plain[:place] + profile_text(kind, 6, keyword=keyword) + plain[place:])
    np.testing.assert_array_equal(read_image(path), np.rot90(rgb, -1))
    np.testing.assert_array_equal(read_mask(path), np.rot90(rgb, -1))


@pytest.mark.parametrize("text", [b"", b"\nexif\n 4\nzz", b"\nexif\n 4\n4d4d002a", b"\xff" * 40])
def test_a_damaged_text_of_png_does_no_harm(tmp_path: Path, rgb: np.ndarray, text: bytes) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    plain = path.read_bytes()
    for kind in (b"tEXt", b"zTXt", b"iTXt"):
        path.write_bytes(plain[:33] + png_chunk(kind, b"Raw profile type exif\0" + text) + plain[33:])
        np.testing.assert_array_equal(read_image(path), rgb)


def test_the_chunk_for_exif_goes_before_a_text(tmp_path: Path, rgb: np.ndarray) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    plain = path.read_bytes()
    upright = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 1, 0, 0)
    path.write_bytes(plain[:33] + profile_text(b"zTXt", 3) + png_chunk(b"eXIf", upright) + plain[33:])
    np.testing.assert_array_equal(read_image(path), rgb)


def test_a_png_with_two_headers_is_refused(tmp_path: Path, rgb: np.ndarray) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    plain = path.read_bytes()
    path.write_bytes(plain[:33] + plain[8:33] + plain[33:])
    assert "two headers" in refusal(path)


@pytest.mark.parametrize("start", [b"\xff\xd0", b"\xff\x01", b"\xff\x00"])
def test_a_jpeg_that_hides_its_size_is_refused(tmp_path: Path, start: bytes) -> None:
    """A decoder reads on right after such a marker; who trusts its length skips a whole image."""
    large = write_image(tmp_path / "large.jpg", np.zeros((64, 64, 3), np.uint8)).read_bytes()
    small = write_image(tmp_path / "small.jpg", np.zeros((8, 8, 3), np.uint8)).read_bytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8" + start + large[2:].ljust(0xFFE0, b"\0") + small[2:])
    refusal(path, max_pixels=100)


def test_a_jpeg_with_two_sizes_is_refused(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.jpg", np.zeros((64, 64, 3), np.uint8))
    plain = path.read_bytes()
    frame = plain.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", plain, frame + 2)
    second = bytearray(plain[frame : frame + 2 + length])
    second[5:9] = struct.pack(">HH", 1, 1)
    scan = plain.index(b"\xff\xda")
    path.write_bytes(plain[:scan] + second + plain[scan:])
    assert "damaged JPEG" in refusal(path, max_pixels=100)


def test_a_image_of_another_size_than_claimed_is_refused(
    tmp_path: Path, rgb: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    monkeypatch.setattr("cv2.imdecode", lambda *_: np.zeros((7, 9, 3), np.uint8))
    assert "claims 9 x 6 pixels and holds 9 x 7" in refusal(path)
    with pytest.raises(DataError, match="claims 9 x 6 pixels and holds 9 x 7"):
        read_mask(path)


def test_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    # Stored inverted: a level is 255 - ink, so red = cyan's level * black's level / 255.
    path = tmp_path / "a.jpg"
    path.write_bytes(cmyk_jpeg((248, 128, 0, 248)))
    assert inspect_image(path)[:3] == ("JPEG", 8, 8)
    assert inspect_image(path).content == "CMYK"
    image = read_image(path)
    np.testing.assert_allclose(image, np.broadcast_to((241, 124, 0), image.shape), atol=2)


@pytest.mark.parametrize("content", [b"", b"not an image\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"RIFF"])
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "allowed: PNG, JPEG, BMP, TIFF and WebP" in refusal(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("part", [0.05, 0.3, 0.6, 0.9, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, suffix: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = write_image(tmp_path / f"whole{suffix}", noise).read_bytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(whole[: int(len(whole) * part)])
    refusal(path)


def test_a_jpeg_whose_thumbnail_is_whole_but_not_itself(tmp_path: Path) -> None:
    whole = write_image(tmp_path / "a.jpg", np.zeros((64, 64, 3), np.uint8)).read_bytes()
    with_thumbnail = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(whole) + 2) + whole + whole[2:]
    path = tmp_path / "b.jpg"
    path.write_bytes(with_thumbnail)
    assert read_image(path).shape == (64, 64, 3)
    path.write_bytes(with_thumbnail[:-2])
    assert "cut off" in refusal(path)


def test_bytes_after_the_end_do_no_harm(tmp_path: Path, rgb: np.ndarray) -> None:
    for suffix in (".png", ".jpg"):
        path = write_image(tmp_path / f"a{suffix}", rgb)
        path.write_bytes(path.read_bytes() + b"\0" * 100)
        assert read_image(path).shape == rgb.shape


def test_damage_inside_a_png_is_refused(tmp_path: Path, rgb: np.ndarray, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    data = bytearray(path.read_bytes())
    middle = data.index(b"IDAT") + 20
    data[middle] ^= 0xFF
    path.write_bytes(data)
    assert "damaged" in refusal(path)
    assert "OpenCV" not in capfd.readouterr().err


def test_missing_file_folder_pipe_and_odd_names(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "none.png")
    assert "is a folder" in refusal(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        assert "is a device, pipe or socket" in refusal(tmp_path / "pipe.png")
    with pytest.raises(DataError, match="null"):
        read_image("a\0.png")


def test_a_claim_of_too_many_pixels_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_bytes(b"\0", size=(100_000, 100_000), depth=8, colour_type=0))
    assert "100000 x 100000 pixels" in refusal(path)
    small = write_image(tmp_path / "a.png", np.zeros((10, 10), np.uint8))
    assert read_image(small, max_pixels=100).shape == (10, 10, 3)
    assert "limit of 99" in refusal(small, max_pixels=99)
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "99")
    assert "limit of 99" in refusal(small)
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "many")
    with pytest.raises(DataError, match="LPSNET_MAX_PIXELS is 'many'"):
        read_image(small)


def test_no_pixels_and_floating_point_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(b"", size=(0, 4), depth=8, colour_type=0))
    assert "4 x 0 pixels" in refusal(path)
    cv2.imwrite(str(tmp_path / "a.tiff"), np.ones((4, 5, 3), np.float32))
    assert "32 bit floating point" in refusal(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8),
        np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16),
        np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8),
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"something else")
    write_png(path, array)
    np.testing.assert_array_equal(read_mask(path), array)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


def test_a_written_file_has_the_usual_permissions(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "b").touch()
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_writing_refuses_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="float64 of shape"):
        write_png(tmp_path / "a.png", np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"shape \(0, 4\)"):
        write_png(tmp_path / "a.png", np.zeros((0, 4), np.uint8))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(RunError, match=r"folder\.png"):
        write_png(tmp_path / "folder.png", np.zeros((2, 2), np.uint8))
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.png"]  # no temporary file is left


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.png"
    write_png(path, np.zeros((2, 2), np.uint8))
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_png(path, np.ones((2, 2), np.uint8))
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_reading_in_threads_leaves_the_log_level_as_it_was(tmp_path: Path, rgb: np.ndarray) -> None:
    path = write_image(tmp_path / "a.png", rgb)
    log = getattr(cv2.utils, "logging", cv2)
    level = log.getLogLevel()
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.getLogLevel() == level

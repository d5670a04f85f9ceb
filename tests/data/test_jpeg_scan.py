"""Damage inside of JPEG files: whole ones of every kind pass, damaged ones are refused wherever libjpeg would warn."""

import io
import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from lpsnet.data import images
from lpsnet.data.images import image_size, inspect_image, read_image, read_mask
from lpsnet.errors import DataError

ROOT = Path(__file__).parents[2]
SUBSAMPLINGS = (0x411111, 0x221111, 0x211111, 0x111111)  # OpenCV's codes: 4:1:1, 4:2:0, 4:2:2, 4:4:4


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    if not images.is_judged():
        pytest.skip("there is no compiled jpeg_scan; `python build_kernels.py` makes it")


def photograph(seed: int, *size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.integers(0, 255, (6, 8, 3)).astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth.astype(int) + rng.integers(-15, 16, smooth.shape), 0, 255).astype(np.uint8)


def encoded(image: np.ndarray, **settings: int) -> bytes:
    names = {"quality": 1, "progressive": 2, "optimise": 3, "restart": 4, "subsampling": 7}
    return cv2.imencode(".jpg", image, [n for key, value in settings.items() for n in (names[key], value)])[1].tobytes()


SETTINGS = [
    {"quality": quality, "progressive": progressive, "optimise": optimise, "restart": restart, "subsampling": sub}
    for quality, progressive, optimise, restart, sub in itertools.product(
        (30, 95), (0, 1), (0, 1), (0, 5), SUBSAMPLINGS
    )
]


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_whole_files_pass_and_damaged_ones_do_not(settings: dict[str, int]) -> None:
    for size in ((1, 1), (9, 7), (50, 83)):
        assert images.find_damage(encoded(photograph(0, *size), **settings)) == "", size
    for level in (0, 128, 255):  # of flat images whole sectors are zero bytes
        assert images.find_damage(encoded(np.full((90, 90, 3), level, np.uint8), **settings)) == "", level
    data = encoded(photograph(1, 160, 240), **settings)
    middle, part = len(data) // 2, 600
    assert "ends before" in images.find_damage(data[:middle] + b"\xff\xd9") or settings["restart"]
    rest = data[middle + part :]
    lost = {"cut and ended": b"\xff\xd9", "junk": np.random.default_rng(2).bytes(part) + rest, "left out": rest}
    lost |= {"zeros": bytes(part) + rest, "ones": b"\xff" * part + rest}
    for name, after in lost.items():
        assert images.find_damage(data[:middle] + after), name


def test_grey_and_cmyk_files_pass() -> None:
    for mode, progressive in itertools.product(("L", "CMYK", "YCbCr"), (False, True)):
        buffer = io.BytesIO()
        Image.fromarray(photograph(3, 77, 50)).convert(mode).save(buffer, "JPEG", progressive=progressive)
        assert images.find_damage(buffer.getvalue()) == "", mode


def test_what_follows_the_image_is_no_damage() -> None:
    data = encoded(photograph(4, 60, 60))
    assert images.find_damage(data + encoded(photograph(5, 30, 30)) + b"\0" * 100) == ""
    assert images.find_damage(data[:-2] + b"\xff\xff\xff\xd9") == ""  # fill bytes before the end marker
    assert images.find_damage(data[:-2] + bytes(4) + data[-2:]) == ""  # padding, as some cameras write it


def test_no_bytes_crash_it_and_it_agrees_with_libjpegs_warnings() -> None:
    """libjpeg writes its warnings to standard error: that of another process is compared."""
    rng = np.random.default_rng(6)
    files = []
    for number in range(60):
        data = bytearray(encoded(photograph(number, 40, 56), **SETTINGS[number % len(SETTINGS)]))
        start = data.index(b"\xff\xda") + 14
        for place in rng.integers(start, len(data) - 2, 1 + number % 3):
            data[place] = int(rng.integers(256))
        files.append(bytes(data))
    code = "import sys, cv2, numpy\nfor line in sys.stdin:\n"
    code += " d = numpy.frombuffer(bytes.fromhex(line), numpy.uint8)\n"
    code += " print('file', file=sys.stderr, flush=True); cv2.imdecode(d, 1)"
    lines = "\n".join(data.hex() for data in files)
    run = subprocess.run([sys.executable, "-c", code], input=lines, capture_output=True, text=True, check=True)
    warned = ["orrupt" in part or "remature" in part for part in run.stderr.split("file\n")[1:]]
    found = [bool(images.find_damage(data)) for data in files]
    assert len(warned) == len(found)
    missed = [number for number in range(60) if warned[number] and not found[number]]
    assert sum(warned) > 20
    assert len(missed) <= 2, missed  # fewer than eight bytes left over, which may be a camera's padding


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    data = encoded(photograph(7, 200, 200))
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: len(data) // 2] + b"\xff\xd9")
    with pytest.raises(DataError, match=r"a\.jpg is a damaged JPEG file: .* leave it out$"):
        read_image(path)


def with_orientation(path: Path, image: np.ndarray, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}}.get(path.suffix, {})
    Image.fromarray(image).save(path, exif=exif.tobytes(), **options)
    return path


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_and_labels_are_turned_as_by_pillow(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = with_orientation(tmp_path / f"a{suffix}", photograph(8, 24, 40), orientation)
    with Image.open(path) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    np.testing.assert_allclose(read_image(path), expected, atol=2 if suffix == ".jpg" else 0)
    assert image_size(path) == expected.shape[:2]
    assert inspect_image(path).orientation == orientation
    if suffix == ".png":  # TIFF: test_tiff.py
        ids = np.arange(24 * 40, dtype=np.uint8).reshape(24, 40)
        path = with_orientation(path, ids, orientation)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(read_mask(path), np.asarray(ImageOps.exif_transpose(opened)))

"""One image in many kinds of file: each is segmented like the upright 8-bit RGB one, or refused."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lpsnet.data.images import MAX_PIXELS, read_image
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError
from lpsnet.inference.engines import FakeSession
from lpsnet.inference.outputs import Style
from lpsnet.inference.pipeline import find_sources, segment_images
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord, Normalisation

# Six colours, far apart and none with equal channels but two; the class of a pixel is the nearest of them.
COLOURS = np.array([(230, 30, 40), (20, 200, 60), (30, 40, 220), (240, 220, 20), (128, 128, 128), (16, 16, 16)])
RECORD = ModelRecord(
    architecture=None,
    label_space=LabelSpace.numbered(len(COLOURS)),
    normalisation=Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
)


def _scores(images: np.ndarray) -> np.ndarray:
    """N x 3 x H x W in 0..1 to N x K x H x W: minus the squared distance to each colour."""
    distances = images[:, None] - (COLOURS / 255).astype(np.float32)[None, :, :, None, None]
    return -np.square(distances).sum(axis=2)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter.from_session(FakeSession(_scores), RECORD)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Blocks of 8 x 8, 48 x 64, alike in no direction."""
    return np.kron(np.random.default_rng(3).integers(0, len(COLOURS), (6, 8)), np.ones((8, 8), int)).astype(np.uint8)


def _save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


_TURNS = {  # EXIF orientation -> what the file holds, for an image that is shown upright
    1: lambda rgb: rgb,
    2: lambda rgb: rgb[:, ::-1],
    3: lambda rgb: rgb[::-1, ::-1],
    4: lambda rgb: rgb[::-1],
    5: lambda rgb: rgb.transpose(1, 0, 2),
    6: lambda rgb: np.rot90(rgb, 1),
    7: lambda rgb: rgb[::-1, ::-1].transpose(1, 0, 2),
    8: lambda rgb: np.rot90(rgb, -1),
}
_FORMATS = {".png": {}, ".jpg": {"quality": 100, "subsampling": 0}, ".webp": {"lossless": True}}


@pytest.mark.parametrize("suffix", _FORMATS)
@pytest.mark.parametrize("orientation", _TURNS)
def test_a_rotation_in_exif_is_carried_out_or_refused(
    tmp_path: Path, segmenter: Segmenter, labels: np.ndarray, orientation: int, suffix: str
) -> None:
    stored = Image.fromarray(np.ascontiguousarray(_TURNS[orientation](COLOURS.astype(np.uint8)[labels])))
    exif = stored.getexif()
    exif[0x0112] = orientation
    path = _save(tmp_path / f"a{suffix}", stored, exif=exif, **_FORMATS[suffix])
    np.testing.assert_array_equal(segmenter(read_image(path)), labels)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "P", "CMYK", "deep", "progressive", "animated.png", "animated.webp"])
def test_every_kind_of_colour_file_gives_the_labels_of_the_rgb_one(
    tmp_path: Path, segmenter: Segmenter, labels: np.ndarray, kind: str
) -> None:
    rgb = COLOURS.astype(np.uint8)[labels]
    image = Image.fromarray(rgb)
    lossy = {"quality": 100, "subsampling": 0}
    match kind:
        case "RGB":
            path = _save(tmp_path / "a.png", image)
        case "RGBA":  # half of it transparent
            alpha = np.where(labels % 2, 255, 3).astype(np.uint8)
            path = _save(tmp_path / "a.png", Image.fromarray(np.dstack([rgb, alpha])))
        case "P":
            path = _save(tmp_path / "a.png", image.quantize(8))
        case "CMYK":
            path = _save(tmp_path / "a.jpg", image.convert("CMYK"), **lossy)
        case "progressive":
            path = _save(tmp_path / "a.jpg", image, progressive=True, **lossy)
        case "deep":
            path = _deep_png(tmp_path / "a.png", rgb)
        case _:  # the first of the images is taken
            other = Image.fromarray(rgb[::-1].copy())
            options: dict[str, Any] = {"lossless": True} if kind.endswith("webp") else {}
            path = _save(tmp_path / kind, image, save_all=True, append_images=[other], duration=40, **options)
    np.testing.assert_array_equal(segmenter(read_image(path)), labels)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tiff"])
@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_file_gives_the_labels_of_the_same_grey_in_rgb(
    tmp_path: Path, segmenter: Segmenter, labels: np.ndarray, mode: str, suffix: str
) -> None:
    if suffix == ".jpg" and mode != "L":
        pytest.skip("JPEG holds 8 bits and no transparency")
    grey = COLOURS[:, 0].astype(np.uint8)[labels]
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    path = _save(tmp_path / f"a{suffix}", image, **_FORMATS.get(suffix, {}) if suffix == ".jpg" else {})
    try:
        given = segmenter(read_image(path))
    except DataError:
        assert (mode, suffix) == ("LA", ".tiff"), "which OpenCV does not read"
        return
    np.testing.assert_array_equal(given, segmenter(np.dstack([grey] * 3)))


def _deep_png(path: Path, rgb: np.ndarray) -> Path:
    """16 bits a channel, by the format's definition."""
    height, width = rgb.shape[:2]
    rows = (rgb.astype(">u2") * 257).astype(">u2").reshape(height, -1)
    path.write_bytes(_png(width, height, 16, b"".join(b"\0" + row.tobytes() for row in rows)))
    return path


def _png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    parts = (struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_image_that_cannot_be_drawn_is_named_and_the_others_are_done(tmp_path: Path, segmenter: Segmenter) -> None:
    for name, width in (("a_wide", 70_000), ("b_fine", 40)):
        Image.new("RGB", (width, 2)).save(tmp_path / f"{name}.png")
    found, style = find_sources([str(tmp_path)]), Style(segmenter.label_space, legend=True)
    wide, fine = segment_images(segmenter, found, tmp_path / "out", outputs=("labels", "overlay"), style=style)
    assert wide.problem == f"{tmp_path / 'a_wide.png'}: the width of a legend is 1 to 65536 pixels; got 70000"
    assert not wide.files
    assert fine.files["overlay"].exists()


def test_a_decompression_bomb_is_refused_with_the_limit_and_how_to_raise_it(
    tmp_path: Path, segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes that claim 1.2 GB: refused unread; the others of the folder are segmented."""
    (tmp_path / "bomb.png").write_bytes(_png(20_000, 20_000, 8, bytes(1_000)))
    Image.new("RGB", (40, 40)).save(tmp_path / "fine.png")
    found, style = find_sources([str(tmp_path)]), Style(segmenter.label_space)
    bomb, fine = segment_images(segmenter, found, tmp_path / "out", outputs=("labels",), style=style)
    assert f"more than the limit of {MAX_PIXELS:,}" in bomb.problem
    assert "LPSNET_MAX_PIXELS=N sets another" in bomb.problem
    assert fine.files["labels"].exists()
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "1000")
    with pytest.raises(DataError, match="1,000"):
        read_image(tmp_path / "fine.png")
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "1600")
    assert read_image(tmp_path / "fine.png").shape == (40, 40, 3)

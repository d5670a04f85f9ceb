"""TIFF in all its kinds: each gives the numbers that were stored, or one line; TIFF 6.0 is the oracle."""

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiff_files import LONG, SHORT, Entry, tiff_bytes

from lpsnet.data.images import Mask, inspect_image, read_image, read_mask
from lpsnet.errors import DataError

HEIGHT, WIDTH = 18, 27  # no multiples of 8 or 16, so that rows and tiles are filled
COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32844: 1, 32845: 3}  # channels by photometric
READ = {(0, 1), (1, 1), (3, 1), (3, 4), (0, 8), (1, 8), (2, 8), (3, 8), (5, 8), (6, 8), (1, 16), (2, 16)}
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from what is stored to what is shown
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}


def samples(bits: int, photometric: int, extra: int = 0) -> np.ndarray:
    """H x W x C random numbers; YCbCr without colours that RGB cannot hold."""
    rng = np.random.default_rng(bits * 100 + photometric)
    stored = rng.integers(0, 2 ** min(bits, 16), (HEIGHT, WIDTH, COLOURS[photometric] + extra))
    if photometric == 6 and bits == 8:
        stored[..., :1] = rng.integers(60, 190, (HEIGHT, WIDTH, 1))
        stored[..., 1:3] = rng.integers(120, 136, (HEIGHT, WIDTH, 2))
    return stored


def palette(bits: int) -> np.ndarray:
    """2**bits x 3 levels of 8 bits; most are above 128, where rounding shows."""
    return np.random.default_rng(bits).integers(100, 256, (2**bits, 3))


def shown(stored: np.ndarray, bits: int, photometric: int) -> np.ndarray:
    """H x W x 3 RGB, 0 .. 255."""
    levels = stored / (2**bits - 1) * 255
    match photometric:
        case 0 | 1:
            grey = 255 - levels[..., :1] if photometric == 0 else levels[..., :1]
            rgb = np.repeat(grey, 3, axis=2)
        case 3:
            rgb = palette(bits)[stored[..., 0]]
        case 5:
            rgb = (255 - levels[..., :3]) * (255 - levels[..., 3:4]) / 255
        case 6:
            y, blue, red = levels[..., 0], levels[..., 1] - 128, levels[..., 2] - 128
            rgb = np.stack([y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue], axis=2)
        case _:
            rgb = levels[..., :3]
    return np.rint(rgb).astype(int)


def saved(path: Path, stored: np.ndarray, bits: int, photometric: int, **options: object) -> Path:
    more: list[Entry] = [(530, SHORT, [1, 1])] if photometric == 6 else []
    colours = palette(bits) * 256 if photometric == 3 else None  # x 256, as Pillow writes them
    data = tiff_bytes(stored, bits=bits, photometric=photometric, palette=colours, more=more, **options)  # type: ignore[arg-type]
    path.write_bytes(data)
    return path


def read(reader: Callable[[Path], Mask], path: Path) -> np.ndarray | None:
    """What is read; None if it is refused in one line that names the file."""
    try:
        return reader(path).astype(int)
    except DataError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return None


@pytest.mark.parametrize("photometric", COLOURS)
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16, 32])
def test_every_kind_is_read_rightly_or_refused(tmp_path: Path, bits: int, photometric: int) -> None:
    if photometric == 3 and bits > 16:
        pytest.skip("no palette is as long")
    layouts = ({}, {"compression": 8, "tile": 16}, {"order": ">"})
    kinds = [*itertools.product([None], ((), (0,), (1,), (2,), (0, 0)), (False, True), layouts)]
    kinds += [(numbers, (), False, layout) for numbers in (1, 2, 3) for layout in layouts]
    seen = set()
    for numbers, extra, planar, layout in kinds:
        if numbers == 3 and bits < 32:
            continue
        stored = samples(bits, photometric, len(extra))
        if numbers == 2:
            stored -= 2 ** (min(bits, 16) - 1)
        options = {"planar": planar, "extra": extra, "sample_format": numbers, **layout}
        path = saved(tmp_path / "a.tiff", stored, bits, photometric, **options)
        image, mask = read(read_image, path), read(read_mask, path)
        if image is not None:
            assert numbers in (None, 1), options
            np.testing.assert_allclose(
                image, shown(stored, bits, photometric), atol=photometric == 5, err_msg=str(options)
            )
            seen.add((photometric, bits))
        if mask is not None:
            assert numbers in (None, 1), options
            ids = stored[..., 0] if photometric != 2 else stored[..., :3]
            np.testing.assert_array_equal(mask, ids, err_msg=str(options))
    assert seen == READ & {(photometric, bits)}


@pytest.mark.parametrize(("photometric", "bits"), sorted(READ))
@pytest.mark.parametrize(
    "layout", [{}, {"tile": 16, "compression": 8}, {"strip": 5}, {"compression": 8, "predictor": True}]
)
def test_a_turned_file_is_turned_as_an_image_and_as_labels(
    tmp_path: Path, photometric: int, bits: int, layout: dict[str, int]
) -> None:
    if "predictor" in layout and bits < 8:
        pytest.skip("there are no differences of a few bits")
    stored = samples(bits, photometric)
    for orientation, turn in TURNS.items():
        path = saved(tmp_path / "a.tiff", stored, bits, photometric, orientation=orientation, **layout)
        expected = turn(shown(stored, bits, photometric))
        np.testing.assert_allclose(read_image(path), expected, atol=photometric == 5, err_msg=str(orientation))
        mask = read(read_mask, path)
        if mask is not None:
            np.testing.assert_array_equal(mask, turn(stored[..., 0] if photometric != 2 else stored))


def test_colours_under_alpha_are_kept(tmp_path: Path) -> None:
    rgba = samples(8, 2, extra=1).astype(np.uint8)
    Image.fromarray(rgba, "RGBA").save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), rgba[..., :3])
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tiff"), rgba[..., :3])
    assert inspect_image(tmp_path / "a.tiff").content == "colour+alpha"


def test_colours_of_a_palette_are_those_that_pillow_was_given(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 16
    image = Image.fromarray(indices, "P")
    image.putpalette(palette(8).astype(np.uint8).tobytes())
    image.save(tmp_path / "a.tiff")
    colours = palette(8)[indices]
    np.testing.assert_array_equal(read_image(tmp_path / "a.tiff"), colours)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tiff", expand_palette=True), colours)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tiff"), indices)


def test_labels_of_pillow_in_one_bit_are_0_and_1(tmp_path: Path) -> None:
    ids = samples(1, 1)[..., 0]
    Image.fromarray((ids * 255).astype(np.uint8)).convert("1").save(tmp_path / "a.tiff")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.tiff"), ids)


@pytest.mark.parametrize(
    ("bits", "numbers", "part"),
    [
        (32, 1, "2 bits"),
        (32, 2, "32 bit signed"),
        (32, 3, "32 bit floating"),
        (8, 2, "8 bit signed"),
        (16, 2, "16 bit signed"),
    ],
)
def test_labels_of_other_numbers_are_refused_in_one_line(tmp_path: Path, bits: int, numbers: int, part: str) -> None:
    path = saved(tmp_path / "a.tiff", samples(1, 1), bits, 1, sample_format=numbers)
    with pytest.raises(DataError, match=part) as caught:
        read_mask(path)
    assert "save it as PNG" in str(caught.value)


def test_16_bits_where_white_is_0_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.tiff", samples(16, 1), 16, 0)
    assert read(read_image, path) is None
    assert read(read_mask, path) is None


@pytest.mark.parametrize("kind", ["jpeg", "CMYK"])
def test_labels_that_were_changed_in_writing_are_refused(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(samples(8, 2).astype(np.uint8))
    path = tmp_path / "a.tiff"
    if kind == "jpeg":
        image.save(path, compression="jpeg")
    else:
        image.convert("CMYK").save(path)
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match="changes ids; save labels as PNG"):
        read_mask(path)


@pytest.mark.parametrize("entry", [(256, LONG, [1]), (257, LONG, [1]), (262, SHORT, [1])])
@pytest.mark.parametrize("first", [True, False])
def test_a_tag_that_is_there_twice_is_refused(tmp_path: Path, entry: Entry, first: bool) -> None:
    data = tiff_bytes(samples(8, 2), more=[entry])
    if first:  # the two change places
        (tags,) = struct.unpack_from("<H", data, 8)
        places = [10 + 12 * n for n in range(tags) if data[10 + 12 * n : 12 + 12 * n] == struct.pack("<H", entry[0])]
        one, two = (data[place : place + 12] for place in places)
        data = data[: places[0]] + two + one + data[places[1] + 12 :]
    path = tmp_path / "a.tiff"
    path.write_bytes(data)
    with pytest.raises(DataError, match="is there twice"):
        read_image(path, max_pixels=100)


@pytest.mark.parametrize("kind", [6, 8, 9, 13])
@pytest.mark.parametrize("tag", [256, 257])
def test_a_size_of_an_odd_type_is_refused(tmp_path: Path, tag: int, kind: int) -> None:
    """Signed and other types hold 65537 too, of which 16 bits are 1."""
    data = bytearray(tiff_bytes(np.zeros((1, 1, 1), np.uint8), photometric=1))
    place = data.index(struct.pack("<HHII", tag, LONG, 1, 1))
    data[place : place + 12] = struct.pack("<HHII", tag, kind, 1, 65537)
    path = tmp_path / "a.tiff"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"of type {kind}"):
        read_image(path, max_pixels=100)


def test_two_numbers_for_a_width_and_huge_tiles_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tiff"
    data = tiff_bytes(np.zeros((1, 1, 1), np.uint8), photometric=1)
    path.write_bytes(data.replace(struct.pack("<HHI", 256, LONG, 1), struct.pack("<HHI", 256, SHORT, 2)))
    with pytest.raises(DataError, match="2 numbers; 1 is allowed"):
        read_image(path)
    tiled = tiff_bytes(np.zeros((1, 1, 1), np.uint8), photometric=1, tile=16)
    path.write_bytes(tiled.replace(struct.pack("<HII", LONG, 1, 16), struct.pack("<HII", LONG, 1, 16384)))
    with pytest.raises(DataError, match="tiles of 16384 x 16384"):
        read_image(path)


@pytest.mark.parametrize("place", [8, 30, 0xFFFFFF])
def test_a_palette_that_is_not_after_the_directory_is_refused(tmp_path: Path, place: int) -> None:
    """Palettes are rounded before they are decoded; in a directory, that would change the size that was checked."""
    path = saved(tmp_path / "a.tiff", samples(8, 3), 8, 3)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(struct.pack("<HHI", 320, SHORT, 768)) + 8, place)
    path.write_bytes(data)
    with pytest.raises(DataError, match="overlap" if place < 100 else "cut off"):
        read_image(path)

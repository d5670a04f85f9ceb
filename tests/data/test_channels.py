"""Images of other channels than RGB: tifffile and OpenCV write them, NumPy says what is in them."""

import contextlib
import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import yaml

from lpsnet.data import channels
from lpsnet.data.channels import RGB, Channels, read_bands
from lpsnet.data.check import check_dataset
from lpsnet.data.convert import convert, write_masks
from lpsnet.data.dataset import Dataset, changed_contents, data_contents, open_dataset
from lpsnet.data.split import channel_statistics
from lpsnet.errors import DataError, MissingDependencyError

SIX = ("blue", "green", "red", "edge", "nir", "swir")


def numbers(shape: tuple[int, ...], *, top: int = 65_535, kind: type = np.uint16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top + 1, shape).astype(kind)


def write_tiff(path: Path, image: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    separate = options.get("planarconfig") == "separate"
    stored = np.moveaxis(image, -1, 0) if separate else image
    tifffile.imwrite(path, stored, **{"photometric": "minisblack", "planarconfig": "contig", **options})


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"planarconfig": "separate"},
        {"compression": "lzw", "predictor": True, "rowsperstrip": 5},
        {"compression": "zlib", "tile": (16, 16), "planarconfig": "separate"},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
    ids=["interleaved", "planar", "lzw", "tiles", "bigtiff", "big-endian"],
)
def test_tiff_files_are_read_as_they_are(tmp_path: Path, kind: type, count: int, options: dict[str, object]) -> None:
    image = numbers((21, 34, count), top=np.iinfo(kind).max, kind=kind)
    write_tiff(tmp_path / "a.tif", image, **options)
    found = read_bands(tmp_path / "a.tif")
    assert found.dtype == kind
    assert found.dtype.isnative
    assert np.array_equal(found, image)
    assert channels.bands_header(tmp_path / "a.tif") == ((21, 34), 8 * np.dtype(kind).itemsize)


def test_rgb_with_another_band_and_bands_as_pages(tmp_path: Path) -> None:
    image = numbers((20, 30, 4))
    for number, extra in enumerate(("unspecified", "assocalpha", "unassalpha")):  # alpha is not multiplied in
        write_tiff(tmp_path / f"{number}.tif", image, photometric="rgb", extrasamples=[extra])
        assert np.array_equal(read_bands(tmp_path / f"{number}.tif"), image)
    tifffile.imwrite(tmp_path / "pages.tif", np.moveaxis(image, -1, 0), photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "pages.tif") as file:
        assert len(file.pages) == 4
    assert np.array_equal(read_bands(tmp_path / "pages.tif"), image)


def test_png_and_jpeg_are_read_as_they_are(tmp_path: Path) -> None:
    for kind, count in ((np.uint8, 1), (np.uint16, 1), (np.uint8, 3), (np.uint16, 3), (np.uint8, 4), (np.uint16, 4)):
        image = numbers((20, 30, count), top=np.iinfo(kind).max, kind=kind)
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[count]  # OpenCV writes BGR
        cv2.imwrite(str(tmp_path / "a.png"), image[..., order])
        assert np.array_equal(read_bands(tmp_path / "a.png"), image)
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((16, 16, 3), (10, 120, 240), np.uint8))
    assert np.abs(read_bands(tmp_path / "a.jpg")[8, 8].astype(int) - (240, 120, 10)).max() <= 3
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.full((16, 16), 77, np.uint8))
    assert read_bands(tmp_path / "grey.jpg").shape == (16, 16, 1)


def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, path = numbers((20, 30, 6)), tmp_path / "a.tif"

    def refused(message: str) -> None:
        with pytest.raises(DataError, match=message) as caught:
            read_bands(path)
        assert "\n" not in str(caught.value)

    for changed, message in (
        (image.astype(np.float32), "float32; unsigned integers of 8 or 16 bits"),
        (image.astype(np.int16), "int16; unsigned integers"),
        (numbers((20, 30, 17)), "of 17 channels; 1 to 16"),
    ):
        write_tiff(path, changed)
        refused(message)
    write_tiff(path, image, extratags=[(274, 3, 1, 6, True)])
    refused("an orientation")
    write_tiff(path, image)
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    refused("cut off")
    write_tiff(path, image, compression="zlib")
    damaged = bytearray(path.read_bytes())
    damaged[-300:-100] = bytes(200)
    path.write_bytes(damaged)
    refused("damaged")
    path.write_bytes(whole)
    monkeypatch.setenv("LPSNET_MAX_PIXELS", "1000")  # for 3 channels: 600 pixels of 6 are 1200
    refused("more than the limit of 1,000")
    monkeypatch.delenv("LPSNET_MAX_PIXELS")
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[tiff\]'"):
        read_bands(path)


def test_palettes_hold_no_channels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", numbers((9, 9), top=255, kind=np.uint8), colormap=numbers((3, 256)))
    with pytest.raises(DataError, match="palette"):
        read_bands(tmp_path / "a.tif")


def test_channels_say_what_is_expected() -> None:
    six = Channels(SIX, 16)
    assert str(six) == "6 channels of 16 bits (blue, green, red, edge, nir, swir)"
    assert six.check(numbers((5, 7, 6))).shape == (5, 7, 6)
    assert Channels(("thermal",), 16).check(numbers((5, 7))).shape == (5, 7, 1)
    for wrong in (numbers((5, 7, 3)), numbers((5, 7)), numbers((0, 7, 6)), numbers((5, 7, 6)).astype(np.uint8), "x"):
        with pytest.raises(DataError, match=r"H x W x 6 uint16 is expected: 6 channels of 16 bits \(blue"):
            six.check(wrong)
    for names, bits, message in (((), 8, "1 to 16"), (("a", "a"), 8, "of its own"), (("a",), 12, "8 or 16")):
        with pytest.raises(DataError, match=message):
            Channels(names, bits)
    assert Channels.numbered(2).names == ("band_1", "band_2")
    assert RGB.is_rgb
    assert not Channels(bits=16).is_rgb


def test_renderings_show_named_bands_stretched() -> None:
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    image = np.stack([ramp, ramp[::-1], ramp.T, ramp * 2], axis=-1)
    shown = Channels(("blue", "nir", "red", "green"), 16)
    assert shown.shown == (2, 3, 0)
    drawn = shown.rendering(image)
    assert (drawn.shape, drawn.dtype) == ((100, 100, 3), np.uint8)
    low, high = np.percentile(image[..., 2][::1], (1, 99))
    expected = ((image[..., 2] - low) * 255 / (high - low)).round().clip(0, 255)
    assert np.abs(drawn[..., 0] - expected).max() <= 1
    assert "red, green, blue" in shown.drawn
    assert np.array_equal(Channels(("a", "b", "c", "d"), 16).rendering(image)[..., 1], drawn_alone(image[..., 1]))
    one = Channels(("heat",), 16).rendering(image[..., :1])
    assert np.array_equal(one[..., 0], one[..., 2])
    bytes_of_rgb = numbers((4, 5, 4), top=255, kind=np.uint8)
    assert np.array_equal(Channels(("red", "green", "blue", "nir")).rendering(bytes_of_rgb), bytes_of_rgb[..., :3])
    assert not Channels(("flat",), 16).rendering(np.full((4, 4, 1), 900, np.uint16)).any()


def drawn_alone(band: np.ndarray) -> np.ndarray:
    return Channels(("one",), 16).rendering(band[..., None])[..., 0]


def make_data(root: Path, *, images: int = 5, **description: object) -> Path:
    """12 bit in 6 channels of 16: image, mask and a description."""
    for split, count in (("train", images), ("val", 2)):
        for number in range(count):
            write_tiff(root / f"images/{split}/{number}.tif", numbers((40, 48, 6), top=4095, seed=number))
            mask = numbers((40, 48), top=1, kind=np.uint8, seed=number)
            (root / f"masks/{split}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / f"masks/{split}/{number}.png"), mask)
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({"names": ["soil", "plant"], "channels": list(SIX), **description}))
    return file


def test_a_description_gives_names_and_files_the_bits(tmp_path: Path) -> None:
    dataset = open_dataset(make_data(tmp_path))
    split = dataset.split("train+val")
    assert split.channels == Channels(SIX, 16)
    assert np.array_equal(split[0].image, numbers((40, 48, 6), top=4095, seed=0))
    file = make_data(tmp_path, channels=6)
    assert open_dataset(file).split("val").channels == Channels.numbered(6, 16)
    with pytest.raises(DataError, match="H x W x 4 uint16 is expected"):
        open_dataset(make_data(tmp_path, channels=4)).split("train")[0]
    for wrong, message in ((17, "1 to 16"), (["a", "a"], "of its own"), ("six", "channels")):
        with pytest.raises(DataError, match=message):
            open_dataset(make_data(tmp_path, channels=wrong))


def test_statistics_are_those_of_numpy(tmp_path: Path) -> None:
    split = open_dataset(make_data(tmp_path)).split("train")
    every = np.concatenate([split.image(index).reshape(-1, 6) for index in range(len(split))]).astype(np.float64)
    found = channel_statistics(split)
    assert np.allclose(found.mean, every.mean(0))
    assert np.allclose(found.std, every.std(0))
    assert np.array_equal(found.lowest, every.min(0))
    assert np.array_equal(found.highest, every.max(0))
    some = channel_statistics(split, count=2)  # images 0 and 2 of 5
    chosen = np.concatenate([split.image(index).reshape(-1, 6) for index in (0, 2)])
    assert np.allclose(some.mean, chosen.mean(0))


def rgb_and_depth(root: Path, place: str, **description: object) -> tuple[Path, list[np.ndarray]]:
    """RGB as PNG and depth as PNG of 16 bits at `place`."""
    made = []
    for number in range(4):
        rgb, depth = numbers((32, 40, 3), top=255, kind=np.uint8, seed=number), numbers((32, 40), seed=10 + number)
        for path, array in ((f"images/{number}.png", rgb[..., ::-1]), (place.format(name=number), depth)):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / path), array)
        (root / "masks").mkdir(exist_ok=True)
        cv2.imwrite(str(root / f"masks/{number}.png"), (depth > 30_000).astype(np.uint8))
        made.append(np.dstack([rgb, depth]))
    values = {"names": ["near", "far"], "images": "images", "masks": "masks", "val_fraction": 0.25}
    values |= {"channels": ["red", "green", "blue", "depth"], **description}
    (root / "data.yaml").write_text(yaml.safe_dump(values))
    return root / "data.yaml", made


@pytest.mark.parametrize(
    ("place", "key"),
    [
        ("depth/{name}.png", "depth"),
        ("depth/{name}.png", ["depth/{name}.png"]),
        ("images/{name}_d.png", "images/{name}_d.png"),
    ],
)
def test_a_second_file_is_appended(tmp_path: Path, place: str, key: object) -> None:
    file, made = rgb_and_depth(tmp_path, place, extra_images=key)
    dataset = open_dataset(file)
    assert dataset.splits == ["train", "val"]
    found = [sample.image for name in dataset.splits for sample in dataset.split(name)]  # type: ignore[attr-defined]
    assert len(found) == len(made)
    assert all(np.array_equal(*pair) for pair in zip(found, made, strict=True))
    assert found[0].dtype == np.uint16
    assert check_dataset(file).ok


def test_problems_of_a_second_file(tmp_path: Path) -> None:
    file, _ = rgb_and_depth(tmp_path, "depth/{name}.png", extra_images="depth")
    before = data_contents(open_dataset(file), "train")
    (tmp_path / "depth/1.png").unlink()
    messages = [finding.message for finding in check_dataset(file).findings if finding.severity == "error"]
    assert len(messages) == 1
    assert "depth/1.png does not exist" in messages[0]
    assert changed_contents(before, data_contents(open_dataset(file), "train")) == ["train"]
    cv2.imwrite(str(tmp_path / "depth/1.png"), numbers((16, 40)))
    with pytest.raises(DataError, match=r"32x40 and .*16x40 \(height x width\)"):
        open_dataset(file).split("train")[1]
    cv2.imwrite(str(tmp_path / "depth/1.png"), numbers((32, 40), top=255, kind=np.uint8))  # 8 bits among 16
    with pytest.raises(DataError, match="holds uint8 numbers; H x W x 4 uint16"):
        open_dataset(file).split("train")[1]
    (tmp_path / "data.yaml").write_text("names: [a, b]\nimages: images\nmasks: masks\nextra_images: depth\n")
    with pytest.raises(DataError, match="'extra_images' goes with 'channels'"):
        open_dataset(file)


def test_without_channels_everything_is_as_before(tmp_path: Path) -> None:
    file, _ = rgb_and_depth(tmp_path, "depth/{name}.png")
    values = yaml.safe_load(file.read_text()) | {"images": "depth"}
    del values["channels"]
    file.write_text(yaml.safe_dump(values))
    split = open_dataset(file).split("train")
    stored = cv2.imread(str(tmp_path / "depth/0.png"), cv2.IMREAD_UNCHANGED)
    expected = np.rint(stored / 257).astype(np.uint8)
    assert split.channels.is_rgb
    assert np.array_equal(split.image(0), np.stack([expected] * 3, axis=-1))
    named = values | {"images": "images", "channels": ["red", "green", "blue"]}
    file.write_text(yaml.safe_dump(named))
    assert open_dataset(file).split("train").channels is RGB


def findings_of(dataset: Path, kind: str) -> list[str]:
    return [finding.message for finding in check_dataset(dataset).findings if finding.kind == kind]


def test_the_check_tells_bits_and_ranges(tmp_path: Path) -> None:
    file = make_data(tmp_path)
    first, second = findings_of(file, "channels")
    assert "6 channels of 16 bits (blue" in first
    assert "values up to 4095: 12 bit in 16" in first
    split = open_dataset(file).split("train")
    mean = np.mean([split.image(index)[..., 4].mean() for index in range(5)])
    top = max(split.image(index)[..., 4].max() for index in range(5))
    assert f", {mean:.1f} ± " in second.partition("nir ")[2].partition(";")[0]
    assert top >= 4090, "the range is of all images"
    assert not findings_of(file, "constant_channel")
    assert not findings_of(file, "left_out")
    for split_name in ("train", "val"):
        for path in (tmp_path / f"images/{split_name}").iterdir():
            image = tifffile.imread(path)
            image[..., 3] = 7
            write_tiff(path, image)
    (message,) = findings_of(file, "constant_channel")
    assert "channel 'edge' is 7 in all images" in message


def test_a_dark_image_is_pointed_to_channels(tmp_path: Path) -> None:
    file, _ = rgb_and_depth(tmp_path, "depth/{name}.png")
    for path in (tmp_path / "images").iterdir():
        cv2.imwrite(str(path), numbers((32, 40), top=4095))
    values = yaml.safe_load(file.read_text())
    del values["channels"]
    file.write_text(yaml.safe_dump(values))
    (message,) = findings_of(file, "few_bits")
    assert "describe their `channels`" in message


def test_conversion_copies_all_files_unchanged(tmp_path: Path) -> None:
    file, made = rgb_and_depth(tmp_path / "a", "depth/{name}.png", extra_images="depth")
    dataset = open_dataset(file)
    convert([dataset.split(name) for name in dataset.splits], dataset.label_space, write_masks, tmp_path / "b")
    copied = open_dataset(tmp_path / "b/data.yaml")
    assert copied.split("train").channels == dataset.split("train").channels
    found = [image for name in ("train", "val") for image in images_of(copied, name)]
    assert all(np.array_equal(*pair) for pair in zip(found, made, strict=True))
    assert (tmp_path / "b/images/train/0.png").read_bytes() == (tmp_path / "a/images/0.png").read_bytes()


def images_of(dataset: Dataset, name: str) -> list[np.ndarray]:
    split = dataset.split(name)
    return [split.image(index) for index in range(len(split))]


def test_hostile_bytes_give_data_errors_alone(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, numbers((20, 30, 6)), photometric="minisblack", planarconfig="contig", compression="zlib")
    whole, rng = buffer.getvalue(), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 400), 4):
            damaged[place] = rng.integers(256)
        (tmp_path / "a.tif").write_bytes(damaged)
        with contextlib.suppress(DataError):
            image = read_bands(tmp_path / "a.tif")
            assert image.dtype in (np.uint8, np.uint16)
            assert 1 <= image.shape[2] <= 16

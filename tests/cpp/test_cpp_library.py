"""The C++ library gives the labels of `Segmenter`, bit for bit, and a line for every mistake. Built here by CMake."""

import contextlib
import ctypes
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from cpp_library import ROOT, CImage, Library, LibraryError, build, run
from engine_models import small_network, write_model
from numpy.typing import NDArray
from random_networks import randomise
from trained_networks import trained

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import ModelFileError
from lpsnet.export.export import export
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.kernels import find_kernels
from lpsnet.inference.result import overlay
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record
from lpsnet.models.network import create_model
from lpsnet.record import Normalisation

Image = NDArray[Any]
NUM_FUZZED = 4000
# height, width: single pixels, rows and columns, no multiples of 32, smaller and larger than the networks' inputs
SIZES = (
    (64, 96),
    (1, 1),
    (1, 70),
    (90, 1),
    (33, 47),
    (31, 200),
    (63, 95),
    (128, 192),
    (129, 193),
    (200, 301),
    (65, 430),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def library(built: Path) -> Library:
    if find_kernels() is None:
        pytest.skip("the compiled loops are not there, and NumPy rounds otherwise: python build_kernels.py")
    return Library(next(built.glob("liblpsnet.*")))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Free and fixed input sizes, both corner conventions, another program's network, six channels of 16 bits."""
    folder = tmp_path_factory.mktemp("models")
    net = small_network()
    paths = {"free": write_model(net, folder / "free.onnx")}
    paths["fixed"] = write_model(net, folder / "fixed.onnx", size=(64, 96))
    paths["edges"] = write_model(small_network(align_corners=False), folder / "edges.onnx")
    other = trained("plain")
    paths["other"] = folder / "other.onnx"
    export(other, paths["other"], to="onnx", record=default_record(other))
    for name, count, largest in (("six", 6, 65535), ("grey", 1, 255)):
        torch.manual_seed(0)
        net = randomise(create_model("B=1,1,1,1,1;C=4,8,8,8,8;R=1,1/4", num_classes=5, in_channels=count)).eval()
        values = {"mean": (0.4,) * count, "std": tuple(np.linspace(0.1, 0.2, count).tolist()), "max_value": largest}
        record = default_record(net, label_space=LabelSpace.numbered(5))
        paths[name] = folder / f"{name}.onnx"
        export(net, paths[name], to="onnx", record=record.model_copy(update={"normalisation": Normalisation(**values)}))
    return paths


def images(segment: Segmenter, count: int, *, seed: int = 0) -> Iterator[Image]:
    """Blurred noise of the sizes above, then of random ones."""
    channels, rng = segment.record.image_channels, np.random.default_rng(seed)
    for number in range(count):
        height, width = SIZES[number] if number < len(SIZES) else rng.integers(1, 260, 2).tolist()
        coarse = rng.random((height // 12 + 2, width // 12 + 2, len(channels.names)), np.float32)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
        noisy = smooth + rng.normal(0, 0.05, smooth.shape)
        yield (noisy * channels.max_value).clip(0, channels.max_value).astype(channels.dtype)


def opened(library: Library, model: Path, runtime: str, **settings: Any) -> tuple[Segmenter, Any]:
    """Python's segmenter and the library's, or a skip if the library lacks the engine."""
    try:
        ours = library.open(model, runtime, **settings)
    except LibraryError as error:
        if "there is no runtime" in str(error):
            pytest.skip(f"{error}; LPSNET_CMAKE_ARGS names the header of ONNX Runtime")
        raise
    settings["num_threads"] = settings.get("num_threads", 1)
    return Segmenter(model, runtime=runtime, **settings), ours


RUNTIMES = ("openvino", "onnxruntime")
# model, settings, number of images: 230 altogether
SETTINGS: tuple[tuple[str, dict[str, Any], int], ...] = (
    ("free", {}, 40),
    ("free", {"input_size": (96, 64)}, 40),
    ("free", {"input_size": (71, 133), "path_inputs": False}, 20),
    ("fixed", {"input_size": (64, 96)}, 40),
    ("edges", {}, 20),
    ("edges", {"input_size": (80, 112)}, 30),
    ("other", {}, 20),
    ("other", {"input_size": (64, 128)}, 20),
)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_labels_are_those_of_python_bit_for_bit(library: Library, models: dict[str, Path], runtime: str) -> None:
    compared, several = 0, 0
    for number, (model, settings, count) in enumerate(SETTINGS):
        python, ours = opened(library, models[model], runtime, **settings)
        assert library.c.lpsnet_engine(ours.opened).decode() == python.engine
        assert library.c.lpsnet_precision(ours.opened).decode() == python.precision == "f32"
        assert library.c.lpsnet_path_inputs(ours.opened) == python.path_inputs
        for image in images(python, count, seed=number):
            what = f"{model} {settings} {image.shape}"
            expected = python(image)
            assert np.array_equal(ours.logits(image).view(np.uint32), python.logits(image).view(np.uint32)), what
            assert np.array_equal(ours(image), expected.labels), what
            assert np.array_equal(ours.overlay(image, expected.labels, 0.55), expected.overlay()), what
            compared, several = compared + 1, several + (len(np.unique(expected.labels)) > 1)
    assert compared >= 230
    assert several >= 150  # or equal labels would mean little


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("model", ["six", "grey"])
@pytest.mark.parametrize("size", [None, (64, 96)])
def test_other_channels(
    library: Library, models: dict[str, Path], runtime: str, model: str, size: tuple[int, int] | None
) -> None:
    python, ours = opened(library, models[model], runtime, input_size=size)
    for image in images(python, 20):
        assert np.array_equal(ours.logits(image).view(np.uint32), python.logits(image).view(np.uint32)), image.shape
        assert np.array_equal(ours(image), python(image).labels), image.shape
    names = [
        library.c.lpsnet_channel_name(ours.opened, number).decode() for number in range(len(python.record.channels))
    ]
    assert tuple(names) == python.record.channels
    assert library.c.lpsnet_bits(ours.opened) == python.record.image_channels.bits


@pytest.mark.parametrize("settings", [{}, {"input_size": (96, 160)}, {"path_inputs": False}])
def test_bfloat16(library: Library, models: dict[str, Path], settings: dict[str, Any]) -> None:
    try:
        python = Segmenter(models["free"], runtime="openvino", precision="bf16", num_threads=1, **settings)
    except ModelFileError as error:
        assert "bf16 was asked for" in refusal(library, models["free"], precision="bf16", **settings)
        pytest.skip(str(error))
    ours = library.open(models["free"], "openvino", precision="bf16", **settings)
    assert library.c.lpsnet_precision(ours.opened) == b"bf16"
    for image in images(python, 25):
        assert np.array_equal(ours.logits(image).view(np.uint32), python.logits(image).view(np.uint32)), image.shape
        assert np.array_equal(ours(image), python(image).labels), image.shape


def test_int8(library: Library, models: dict[str, Path], tmp_path: Path) -> None:
    net, calibration = small_network(), [np.random.default_rng(7).integers(0, 256, (96, 128, 3), np.uint8)] * 4
    model, record = tmp_path / "int8.onnx", default_record(small_network())
    export(
        net, model, to="onnx", record=record, size=(96, 128), precision="int8", quantisation=Quantisation(calibration)
    )
    for runtime in RUNTIMES:
        if runtime == "onnxruntime" and "onnxruntime" not in library.runtimes():
            continue
        python, ours = opened(library, model, runtime, input_size=(96, 128))
        assert library.c.lpsnet_precision(ours.opened).decode() == python.precision == "int8"
        for image in images(python, 20):
            assert np.array_equal(ours.logits(image).view(np.uint32), python.logits(image).view(np.uint32)), image.shape
            assert np.array_equal(ours(image), python(image).labels), image.shape


def test_a_record_is_read_as_python_reads_it(library: Library, models: dict[str, Path]) -> None:
    python, ours = opened(library, models["free"], "openvino")
    space, c = python.label_space, library.c
    assert c.lpsnet_num_classes(ours.opened) == space.num_classes
    for number, (name, colour) in enumerate(zip(space.names, space.colours, strict=True)):
        assert c.lpsnet_class_name(ours.opened, number).decode() == name
        assert c.lpsnet_class_colour(ours.opened, number).to_bytes(3, "big") == bytes(colour)
    assert c.lpsnet_class_name(ours.opened, space.num_classes) is None
    assert c.lpsnet_class_name(ours.opened, -1) is None


def test_threads_callers_and_rows_with_gaps_change_nothing(library: Library, models: dict[str, Path]) -> None:
    python, ours = opened(library, models["free"], "openvino", input_size=(96, 160), num_threads=3)
    given = list(images(python, 24, seed=5))
    expected = [python(image).labels for image in given]
    for image, labels in zip(given, expected, strict=True):
        wide = np.full((image.shape[0], image.shape[1] + 3, 3), 99, np.uint8)
        wide[:, : image.shape[1]] = image
        assert np.array_equal(ours(wide[:, : image.shape[1]]), labels), image.shape
    with ThreadPoolExecutor(4) as pool:
        for labels, found in zip(expected * 4, pool.map(ours, given * 4), strict=True):
            assert np.array_equal(found, labels)


@pytest.mark.parametrize("opacity", [0.0, 0.3, 0.5, 0.55, 0.9, 1.0])
def test_every_colour_is_blended_as_in_python(library: Library, models: dict[str, Path], opacity: float) -> None:
    python, ours = opened(library, models["free"], "openvino")
    grey = np.arange(256, dtype=np.uint8)
    image = np.stack([np.tile(grey, (6, 1))] * 3, axis=-1)
    labels = np.repeat(np.array([0, 1, 2, 3, 4, 255], np.uint8)[:, None], 256, axis=1)
    expected = overlay(image, labels, python.label_space, opacity=opacity)
    assert np.array_equal(ours.overlay(image, labels, opacity), expected)


def damaged_models(models: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Files that are no models, by what is wrong with them."""
    whole = models["free"].read_bytes()
    contents = {
        "empty": b"",
        "text": b"this is no model\n" * 100,
        "cut in the middle": whole[: len(whole) // 2],
        "cut at the end": whole[:-1],
        "a length without end": whole[:40] + b"\xff" * 12 + whole[40:],
        "a record that is no JSON": whole.replace(b'{"format":1', b'["format":1'),
        "a record of the future": whole.replace(b'{"format":1', b'{"format":9'),
        "no classes": whole.replace(b'"names":["class_0"', b'"nemas":["class_0"'),
        "a colour out of range": whole.replace(b'"colours":[[', b'"colours":[[-'),
        "a bad ratio": whole.replace(b"R=3/4,1/4", b"R=3/4,1/0"),
    }
    paths = {}
    for number, (what, content) in enumerate(contents.items()):
        assert content != whole
        paths[what] = folder / f"damaged{number}.onnx"
        paths[what].write_bytes(content)
    return paths


def refusal(library: Library, model: Path, **settings: Any) -> str:
    with pytest.raises(LibraryError) as caught:
        library.open(model, **settings)
    message = str(caught.value)
    assert message.isprintable(), message
    assert 10 < len(message) < 500, message
    return message


def test_files_that_are_no_models(library: Library, models: dict[str, Path], tmp_path: Path) -> None:
    for what, path in damaged_models(models, tmp_path).items():
        assert str(path) in refusal(library, path), what
    assert refusal(library, tmp_path / "none.onnx") == f"no model file at {tmp_path / 'none.onnx'}"
    assert "is a folder" in refusal(library, tmp_path)
    assert "\n" not in refusal(library, Path("two\nlines.onnx"))
    if Path("/dev/zero").exists():
        assert "is a device" in refusal(library, Path("/dev/zero"))
    bare = onnx.load(models["free"])
    del bare.metadata_props[:]
    onnx.save(bare, tmp_path / "bare.onnx")
    assert "holds no lpsnet record" in refusal(library, tmp_path / "bare.onnx")


def test_a_model_cut_anywhere(library: Library, models: dict[str, Path], tmp_path: Path) -> None:
    whole, path = models["free"].read_bytes(), tmp_path / "cut.onnx"
    for length in range(1, len(whole), max(1, len(whole) // 250)):
        path.write_bytes(whole[:length])
        assert str(path) in refusal(library, path), length


def test_settings_out_of_range(library: Library, models: dict[str, Path]) -> None:
    assert "there is no runtime 'tpu'" in refusal(library, models["free"], runtime="tpu")
    assert "input_size" in refusal(library, models["free"], input_size=(31, 64))
    assert "num_threads" in refusal(library, models["free"], num_threads=-1)
    assert "precision is f32 or bf16; got 'f64'" in refusal(library, models["free"], precision="f64")
    assert "64" in refusal(library, models["fixed"], input_size=(96, 96))


def test_images_that_do_not_fit(library: Library, models: dict[str, Path]) -> None:
    ours = library.open(models["free"])
    good = np.zeros((40, 50, 3), np.uint8)
    wrong: dict[str, dict[str, Any]] = {
        "height 0": {"height": 0},
        "width below 0": {"width": -5},
        "no data": {"data": None},
        "stride too small": {"stride": 149},
        "stride below 0": {"stride": -150},
        "four channels": {"channels": 4},
        "16 bits": {"bits": 16},
        "bits of no type": {"bits": 7},
        "more pixels than memory": {"height": 2**31 - 1, "width": 2**31 - 1},
        "an overflow": {"width": 2**31 - 1, "channels": 2**31 - 1, "bits": 2**31 - 1, "stride": 0},
    }
    labels = np.zeros(good.shape[:2], np.uint8)
    for what, changes in wrong.items():
        given = CImage.of(good)
        for name, value in changes.items():
            setattr(given, name, value)
        assert library.c.lpsnet_segment(ours.opened, ctypes.byref(given), labels.ctypes.data), what
        assert str(library.fail()).isprintable(), what
    assert np.array_equal(ours(good), library.open(models["free"])(good))  # still works


def test_null_is_an_error_and_no_crash(library: Library, models: dict[str, Path]) -> None:
    ours, c = library.open(models["free"]), library.c
    image, given = np.zeros((40, 50, 3), np.uint8), ctypes.byref(CImage.of(np.zeros((40, 50, 3), np.uint8)))
    room = image.ctypes.data
    assert c.lpsnet_open(None, None) is None
    for failed in (
        c.lpsnet_segment(None, given, room),
        c.lpsnet_segment(ours.opened, None, room),
        c.lpsnet_segment(ours.opened, given, None),
        c.lpsnet_logits(ours.opened, given, None, 10, (ctypes.c_int * 3)()),
        c.lpsnet_logits(ours.opened, given, room, 10, (ctypes.c_int * 3)()),
        c.lpsnet_logits(ours.opened, given, None, 0, None),
        c.lpsnet_overlay(ours.opened, given, None, 0.5, room),
        c.lpsnet_overlay(ours.opened, given, room, 1.5, room),
        c.lpsnet_overlay(ours.opened, given, room, float("nan"), room),
    ):
        assert failed == 1
        assert str(library.fail())
    c.lpsnet_close(None)
    assert (c.lpsnet_num_classes(None), c.lpsnet_engine(None), c.lpsnet_class_colour(None, 0)) == (0, None, 0)


def test_a_record_that_does_not_fit_its_network(library: Library, models: dict[str, Path], tmp_path: Path) -> None:
    def changed(model: str, **values: Any) -> Path:
        file = onnx.load(models[model])
        (entry,) = [entry for entry in file.metadata_props if entry.key == "lpsnet"]
        entry.value = json.dumps({**json.loads(entry.value), **values})
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(file, path)
        return path

    image = np.zeros((64, 96, 3), np.uint8)
    three = {"mean": [0.4] * 3, "std": [0.2] * 3}
    for path in (
        changed("six", channels=["red", "green", "blue"], normalisation=three),
        changed("free", label_space={"name": "two", "names": ["a", "b"], "colours": [[0, 0, 0], [1, 1, 1]]}),
    ):
        with pytest.raises(LibraryError, match="export it again") as caught:
            library.open(path)(image)
        assert str(caught.value).isprintable()
    # Ratios of another network: the engine then resizes the image itself, as in Python
    path = changed("free", architecture="B=1,1,1,1,1;C=4,8,8,8,8;R=7/8,1/4")
    python, ours = opened(library, path, "openvino")
    assert not library.c.lpsnet_path_inputs(ours.opened)
    assert np.array_equal(ours.logits(image), python.logits(image))


def write_ppm(path: Path, image: Image) -> Path:
    path.write_bytes(b"P6\n# a comment\n%d %d\n255\n" % image.shape[1::-1] + image.tobytes())
    return path


def test_the_example_writes_labels_and_overlay(built: Path, models: dict[str, Path], tmp_path: Path) -> None:
    python = Segmenter(models["free"], runtime="openvino", num_threads=1)
    image = list(images(python, 10))[9]
    program, ppm = built / "segment_image", write_ppm(tmp_path / "street.ppm", image)
    said = run(program, models["free"], ppm, tmp_path / "street", "openvino", "1")
    expected = python(image)
    assert np.array_equal(cv2.imread(str(tmp_path / "street.labels.pgm"), cv2.IMREAD_UNCHANGED), expected.labels)
    assert np.array_equal(cv2.imread(str(tmp_path / "street.overlay.ppm"))[..., ::-1], expected.overlay())
    for name, share in expected.shares.items():
        assert share == 0 or f"{100 * share:5.1f} %  {name}" in said
    for word, wrong in (("no model file", "none.onnx"), ("not a whole ONNX file", ppm)):
        assert word in run(program, wrong, ppm, tmp_path / "x", code=2)
    short = tmp_path / "short.ppm"
    short.write_bytes(ppm.read_bytes()[:-1])
    assert "cut off" in run(program, models["free"], short, tmp_path / "x", code=2)


C_PROGRAM = """\
#include <lpsnet/lpsnet.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char **words) {
    const lpsnet_options options = {"openvino", "f32", 1, 0, 0, 0};
    lpsnet_segmenter *segmenter = lpsnet_open(count > 1 ? words[1] : NULL, &options);
    if (!segmenter) return fprintf(stderr, "%s\\n", lpsnet_error()), 2;
    uint8_t pixels[40 * 50 * 3], labels[40 * 50];
    for (int i = 0; i < 40 * 50 * 3; i++) pixels[i] = (uint8_t)(i * 7 % 251);
    const lpsnet_image image = {pixels, 40, 50, 0, 3, 8};
    if (lpsnet_segment(segmenter, &image, labels)) return fprintf(stderr, "%s\\n", lpsnet_error()), 2;
    for (int i = 0; i < 40 * 50; i++) putchar('0' + labels[i]);
    lpsnet_close(segmenter);
    return 0;
}
"""


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run("cmake", "--install", built, "--prefix", folder)
    return folder


def test_an_installed_library_is_found_by_a_program_in_c(
    installed: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    source, made = tmp_path / "program", tmp_path / "made"
    source.mkdir()
    (source / "main.c").write_text(C_PROGRAM)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(program C)\nfind_package(lpsnet REQUIRED)\n"
        "add_executable(program main.c)\ntarget_link_libraries(program PRIVATE lpsnet::lpsnet)\n"
        "target_compile_options(program PRIVATE -std=c99 -Wall -Wextra -Wpedantic -Werror)\n"
    )
    run("cmake", "-S", source, "-B", made, f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", made)
    pixels = (np.arange(40 * 50 * 3) * 7 % 251).astype(np.uint8).reshape(40, 50, 3)
    expected = Segmenter(models["free"], runtime="openvino", num_threads=1)(pixels).labels
    assert run(made / "program", models["free"]) == "".join(map(str, expected.ravel()))
    assert "no model file" in run(made / "program", tmp_path / "none.onnx", code=2)


def test_the_programs_of_the_page(installed: Path, models: dict[str, Path], tmp_path: Path) -> None:
    """docs/how-to/cpp.md: its CMake file and program are built and run, its C is compiled."""
    page = (ROOT / "docs/how-to/cpp.md").read_text()
    blocks = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.M | re.S)
    files = dict(reversed(blocks))  # of two of one name the first: the second is ROS's
    for name in ("CMakeLists.txt", "main.cpp", "main.c"):
        (tmp_path / name).write_text(files[name])
    strict = ["-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    run("cc", "-std=c99", *strict, f"-I{installed / 'include'}", tmp_path / "main.c")
    run("cmake", "-S", tmp_path, "-B", tmp_path / "made", f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", tmp_path / "made")
    shutil.copy(models["free"], tmp_path / "first.onnx")
    python = Segmenter(models["free"], runtime="openvino", num_threads=2, input_size=None)
    image = list(images(python, 8))[7]
    write_ppm(tmp_path / "street.ppm", image)
    expected = python(image)
    middle = python.label_space.names[expected.labels[image.shape[0] // 2, image.shape[1] // 2]]
    with contextlib.chdir(tmp_path):
        assert run("made/robot") == f"{middle} in the middle\n"
    assert np.array_equal(cv2.imread(str(tmp_path / "overlay.ppm"))[..., ::-1], expected.overlay())


def test_hostile_files_under_sanitizers(models: dict[str, Path], tmp_path: Path) -> None:
    """Damaged model files, graphs, records and PPM images, and images of random shapes; new ones every time."""
    options = "-DBUILD_SHARED_LIBS=OFF -DLPSNET_EXAMPLES=OFF -DLPSNET_FUZZ=ON -DLPSNET_SANITIZE=ON"
    engines = "-DLPSNET_OPENVINO=OFF -DLPSNET_ONNXRUNTIME=OFF"  # none is needed
    quick = "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -g1"  # to compile
    folder = build(tmp_path / "build", *options.split(), *engines.split(), quick)
    seed = int.from_bytes(os.urandom(4), "big")
    said = run(folder / "lpsnet_fuzz", models["free"], str(NUM_FUZZED), str(seed))
    assert f"{NUM_FUZZED} cases, none crashed" in said, f"seed {seed}"
    assert "graphs cut: 0\n" not in said


def test_the_library_needs_no_python(built: Path) -> None:
    if shutil.which("ldd") is None:
        pytest.skip("there is no ldd")
    needed = [line.split()[0] for line in run("ldd", next(built.glob("liblpsnet.*"))).splitlines()]
    assert any(name.startswith("libopenvino.so") for name in needed)
    assert not any("python" in name for name in needed)

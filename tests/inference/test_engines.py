"""What holds for every engine: the same logits as the network in torch, and the truth about how they were computed."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

from engine_models import NUM_CLASSES, Array, difference, images, logits, small_network, write_model

from lpsnet.errors import DataError, MissingDependencyError, ModelFileError
from lpsnet.inference.engines import RUNTIMES, SessionOptions, open_session
from lpsnet.models.network import Network

SUFFIXES = {"onnxruntime": ".onnx", "openvino": ".onnx", "ncnn": ".ncnn", "pytorch": ".safetensors"}
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "pytorch": "torch"}
FIXED = (48, 80)

# shares of the range of the logits; kernels of ncnn transform 3x3 convolutions (Winograd)
BOUNDS = {"onnxruntime": 1e-5, "openvino": 1e-5, "ncnn": 1e-4, "pytorch": 1e-5}


@pytest.fixture(scope="module")
def net() -> Network:
    return small_network()


@pytest.fixture(scope="module", params=list(SUFFIXES))
def runtime(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(PACKAGES[request.param])
    if request.param == "ncnn":
        pytest.importorskip("pnnx")
    return str(request.param)


@pytest.fixture(scope="module")
def path(net: Network, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that takes any size."""
    return write_model(net, tmp_path_factory.mktemp("free") / f"model{SUFFIXES[runtime]}")


def one_line(error: pytest.ExceptionInfo[ValueError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def is_possible(runtime: str, options: SessionOptions) -> bool:
    """Whether this machine can compute so; a refusal must name what it can."""
    try:
        open_session(runtime, options)
    except ModelFileError as refusal:
        return re.search("was asked for.*possible on this machine: f32", str(refusal)) is None
    return True


@pytest.mark.parametrize("size", [(64, 96), (65, 99), (33, 47)])
def test_scores_are_those_of_the_network(net: Network, runtime: str, path: Path, size: tuple[int, int]) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(1, 3, *size)
    assert difference(session.run(batch), logits(net, batch)) < BOUNDS[runtime]


def test_a_batch_is_scored_image_by_image(net: Network, runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(3, 3, 40, 56)
    assert difference(session.run(batch), logits(net, batch)) < BOUNDS[runtime]


def test_a_session_of_one_size_takes_that_size_only(net: Network, runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1, input_size=FIXED))
    batch = images(2, 3, *FIXED)
    assert difference(session.run(batch), logits(net, batch)) < BOUNDS[runtime]
    with pytest.raises(DataError, match="48 x 80"):
        session.run(images(1, 3, 64, 80))


def test_a_file_of_one_size_says_so(net: Network, runtime: str, tmp_path: Path) -> None:
    if runtime == "pytorch":
        pytest.skip("a checkpoint takes any size")
    path = write_model(net, tmp_path / f"model{SUFFIXES[runtime]}", size=FIXED)
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(2, 3, *FIXED)
    assert difference(session.run(batch), logits(net, batch)) < BOUNDS[runtime]
    with pytest.raises(DataError):
        session.run(images(1, 3, 64, 80))
    with pytest.raises(ModelFileError, match="was exported for 48 x 80, not 64 x 80"):
        open_session(runtime, SessionOptions(path, input_size=(64, 80)))


def test_the_session_says_what_it_is(runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    assert session.runtime == runtime
    assert PACKAGES[runtime] in session.engine
    assert any(letter.isdigit() for letter in session.engine)
    assert session.precision == "f32"
    assert session.num_threads == 1


def test_bf16_is_computed_where_it_is_said(net: Network, runtime: str, path: Path) -> None:
    """bf16 has 8 bits of mantissa: its logits differ from float32's, by more than any float32 engine's do."""
    batch = images(1, 3, 64, 96)
    expected = logits(net, batch)
    options = SessionOptions(path, precision="bf16", num_threads=1)
    if not is_possible(runtime, options):
        pytest.skip("not on this processor")
    session = open_session(runtime, options)
    assert session.precision == "bf16"
    assert 5e-4 < difference(session.run(batch), expected) < 5e-2


def test_a_precision_that_is_not_possible_is_refused(runtime: str, path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not quantised") as error:
        open_session(runtime, SessionOptions(path, precision="int8"))
    one_line(error)
    options = SessionOptions(path, precision="f16")
    if is_possible(runtime, options):
        assert open_session(runtime, options).precision == "f16"


def test_threads_that_call_at_once_get_their_own_results(runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batches = [images(1, 3, 32 + 8 * (seed % 3), 48, seed=seed) for seed in range(12)]
    expected = [session.run(images) for images in batches]
    with ThreadPoolExecutor(4) as pool:
        for given, alone in zip(pool.map(session.run, batches), expected, strict=True):
            np.testing.assert_array_equal(given, alone)


def test_a_image_is_left_as_it_was_and_scores_are_the_callers(runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(1, 3, 40, 56)
    before = batch.copy()
    batch.flags.writeable = False
    first = session.run(batch)
    kept = first.copy()
    session.run(images(1, 3, 40, 56, seed=1))
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(first, kept)
    assert first.shape[:2] == (1, NUM_CLASSES)


def test_layout_in_memory_does_not_matter(runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(1, 3, 40, 56)
    turned = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(session.run(turned), session.run(batch))


@pytest.mark.parametrize(
    "images",
    [
        images(1, 3, 40, 56).astype(np.float64),
        images(3, 40, 56),
        images(1, 4, 40, 56),
        images(0, 3, 40, 56),
        images(1, 3, 40, 56).astype(np.uint8),
        images(1, 3, 40, 56).tolist(),
    ],
    ids=["float64", "no batch", "four channels", "no image", "bytes", "list"],
)
def test_what_is_not_a_batch_of_images_is_refused(runtime: str, path: Path, images: Array) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    with pytest.raises(DataError, match="float32") as error:
        session.run(images)
    one_line(error)


def test_the_number_of_inputs_is_checked(runtime: str, path: Path) -> None:
    session = open_session(runtime, SessionOptions(path, num_threads=1))
    batch = images(1, 3, 40, 56)
    with pytest.raises(DataError, match="the model takes 1; got 2"):
        session.run(batch, batch)


def test_a_missing_package_is_named_with_its_command(runtime: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[runtime], None)
    with pytest.raises(MissingDependencyError, match="pip install") as error:
        open_session(runtime, SessionOptions(path))
    assert PACKAGES[runtime] in one_line(error)


def test_rubbish_is_refused_in_one_line(runtime: str, path: Path, tmp_path: Path) -> None:
    rubbish = tmp_path / path.name
    for content in (b"not a model", path.read_bytes()[: path.stat().st_size // 2]):
        rubbish.write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            open_session(runtime, SessionOptions(rubbish))
        assert str(rubbish) in one_line(error)


def test_a_file_of_another_format_is_refused(runtime: str, tmp_path: Path) -> None:
    other = tmp_path / "model.engine"
    other.write_bytes(b"ftrt")
    with pytest.raises(ModelFileError, match=f"is not for the runtime {runtime}, which runs"):
        open_session(runtime, SessionOptions(other))


@pytest.mark.parametrize(
    "options", [{"num_threads": 0}, {"num_threads": True}, {"input_size": (64, 0)}, {"input_size": (64.0, 64)}]
)
def test_senseless_numbers_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ModelFileError, match="whole number of at least 1"):
        open_session("onnxruntime", SessionOptions(tmp_path / "m.onnx", **options))  # type: ignore[arg-type]


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="did you mean 'openvino'"):
        open_session("openvin", SessionOptions(tmp_path / "m.onnx"))
    with pytest.raises(ModelFileError, match="unknown precision 'fp16'"):
        open_session("openvino", SessionOptions(tmp_path / "m.onnx", precision="fp16"))  # type: ignore[arg-type]
    with pytest.raises(ModelFileError, match="no model file at"):
        open_session("openvino", SessionOptions(tmp_path / "m.onnx"))


def test_every_runtime_has_its_module() -> None:
    import importlib.util

    assert all(importlib.util.find_spec(engine.module) for engine in RUNTIMES.values())

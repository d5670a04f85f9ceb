"""LiteRT's own: one size, images turned to N x H x W x C, threads, files of other programs, damaged ones."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'lpsnet[litert]'")

from ai_edge_litert import schema_py_generated as schema
from engine_models import NUM_CLASSES, difference, images, logits, small_network, write_model
from onnx import TensorProto, helper

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, MissingDependencyError, ModelFileError
from lpsnet.export import litert as exporter
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import find_record, read_metadata, read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

SIZE = (48, 80)


@pytest.fixture(scope="module")
def net() -> Network:
    return small_network()


@pytest.fixture(scope="module")
def path(net: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(net, tmp_path_factory.mktemp("litert") / "model.tflite", size=SIZE)


def opened(path: Path, **options: Any) -> Any:
    return open_session("litert", SessionOptions(path, **{"num_threads": 1, **options}))


def foreign(path: Path, *, lengths: tuple[int, ...] = (1, 3, 6, 8), kind: str = "Relu") -> Path:
    """A file without a record, of one operator; `lengths` as ONNX has them."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, lengths) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "g", ports[:1], ports[1:]))
    path.write_bytes(exporter.pack(schema, exporter._Graph(schema, model, half=False).model()))
    return path


def test_logits_are_those_of_the_network(net: Network, path: Path) -> None:
    batch = images(3, 3, *SIZE)
    assert difference(opened(path).run(batch), logits(net, batch)) < 1e-5
    turned = np.ascontiguousarray(batch.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(opened(path).run(turned), opened(path).run(batch))


def test_the_session_says_what_it_is(path: Path) -> None:
    session = opened(path, num_threads=2)
    assert (session.runtime, session.precision, session.num_threads) == ("litert", "f32", 2)
    assert session.engine.startswith("litert 2")
    assert opened(path, num_threads=None).num_threads == len(os.sched_getaffinity(0))


def test_images_are_left_as_they_were_and_logits_are_the_callers(path: Path) -> None:
    session, batch = opened(path), images(1, 3, *SIZE)
    before = batch.copy()
    batch.flags.writeable = False
    first = session.run(batch)
    kept = first.copy()
    session.run(images(1, 3, *SIZE, seed=1))
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(first, kept)
    assert first.shape[:2] == (1, NUM_CLASSES)


def test_threads_that_call_at_once_get_their_own_results(path: Path) -> None:
    session = opened(path)
    batches = [images(1, 3, *SIZE, seed=seed) for seed in range(12)]
    expected = [session.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for given, alone in zip(pool.map(session.run, batches), expected, strict=True):
            np.testing.assert_array_equal(given, alone)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (images(1, 3, 64, 80), "any x 3 x 48 x 80"),
        (images(1, 4, *SIZE), "any x 3 x 48 x 80"),
        (images(1, 3, *SIZE).astype(np.float64), "float32"),
        (images(3, *SIZE), "float32"),
    ],
)
def test_what_is_not_a_batch_of_its_size_is_refused(path: Path, given: np.ndarray, wrong: str) -> None:
    with pytest.raises(DataError, match=wrong):
        opened(path).run(given)


def test_another_size_precision_or_suffix_is_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="was exported for 48 x 80, not 64 x 80"):
        opened(path, input_size=(64, 80))
    with pytest.raises(ModelFileError, match="is not quantised"):
        opened(path, precision="int8")
    with pytest.raises(ModelFileError, match=r"bf16 was asked for.*possible on this machine: f32"):
        opened(path, precision="bf16")
    (tmp_path / "m.onnx").write_bytes(b"x")
    with pytest.raises(ModelFileError, match=r"is not for the runtime litert, which runs \.tflite"):
        opened(tmp_path / "m.onnx")


def test_a_missing_package_is_named_with_its_command(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[litert\]'"):
        opened(path)


def test_files_of_other_programs_run_with_a_record(tmp_path: Path) -> None:
    path = foreign(tmp_path / "m.tflite")
    assert find_record(path) is None
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(3), input_size=(6, 8))
    labels = Segmenter(path, record=record, num_threads=1)(np.full((6, 8, 3), (200, 0, 0), np.uint8))
    assert not np.asarray(labels).any(), "a ReLU of red: class 0"


@pytest.mark.parametrize("lengths", [(2, 3, 6, 8), (3, 6)])
def test_other_inputs_than_one_image_are_refused(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    with pytest.raises(ModelFileError, match="takes one image and gives one map of logits"):
        opened(foreign(tmp_path / "m.tflite", lengths=lengths))


def test_every_damage_to_our_files_is_one_line(path: Path, tmp_path: Path) -> None:
    """No cut and no changed byte gets past the checksum or the structure."""
    whole, bad = path.read_bytes(), tmp_path / "bad.tflite"
    rng = np.random.default_rng(0)
    for length in [*range(64), *rng.integers(64, len(whole), 60).tolist()]:
        bad.write_bytes(whole[:length])
        with pytest.raises(ModelFileError) as error:
            read_record(bad)
        assert "\n" not in str(error.value)
    for position in [*range(200), *rng.integers(200, len(whole), 300).tolist()]:
        changed = bytearray(whole)
        changed[position] ^= int(rng.integers(1, 256))
        bad.write_bytes(changed)
        with pytest.raises(ModelFileError) as error:
            opened(bad)
        assert str(bad) in str(error.value)
        assert "\n" not in str(error.value)


def test_damage_to_files_of_other_programs_raises_nothing_else(tmp_path: Path) -> None:
    """They have no checksum: read as far as the metadata leads, never further than the file."""
    whole, bad, rng = foreign(tmp_path / "m.tflite").read_bytes(), tmp_path / "bad.tflite", np.random.default_rng(0)
    messages = []
    for _ in range(2_000):
        changed = bytearray(whole)
        for position in rng.integers(0, len(whole), 3).tolist():
            changed[position] = int(rng.integers(0, 256))
        bad.write_bytes(changed)
        try:
            assert read_metadata(bad) == {}
        except ModelFileError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all("is not a whole tflite file" in message for message in messages)


def test_what_litert_refuses_is_one_line(tmp_path: Path) -> None:
    whole = foreign(tmp_path / "m.tflite").read_bytes()
    (tmp_path / "bad.tflite").write_bytes(whole[: len(whole) - 8])
    for content in (whole[: len(whole) - 8], b"\x1c\0\0\0TFL3" + bytes(100), b"not a model"):
        (tmp_path / "bad.tflite").write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            opened(tmp_path / "bad.tflite")
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400

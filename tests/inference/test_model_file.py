"""Records read from model files, against files written by the `onnx` and `safetensors` packages and by hand."""

import contextlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from lpsnet.data.labels import CAMVID
from lpsnet.errors import ModelFileError
from lpsnet.inference.model_file import find_record, read_metadata, read_record
from lpsnet.record import RECORD_KEY, ModelRecord

RECORD = ModelRecord(architecture="tiny", label_space=CAMVID, input_size=(360, 480), licence="CC0 — frei")


def _onnx_file(path: Path, **metadata: str) -> Path:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 3])
    weight = onnx.numpy_helper.from_array(np.zeros((300, 300), np.float32), "weight")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [result], [weight])
    model = helper.make_model(graph, producer_name="test")
    helper.set_model_props(model, metadata)
    onnx.save(model, path)
    return path


def _safetensors_file(path: Path, metadata: dict[str, str] | None) -> Path:
    numpy_side = pytest.importorskip("safetensors.numpy")
    numpy_side.save_file({"w": np.ones((40, 3), np.float32)}, path, metadata=metadata)
    return path


def _header(path: Path, header: bytes, *, length: int | None = None) -> Path:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header)
    return path


def test_the_record_of_an_onnx_file(tmp_path: Path) -> None:
    path = _onnx_file(tmp_path / "m.onnx", other="text", **{RECORD_KEY: RECORD.to_json()})
    assert read_record(path) == RECORD
    assert read_metadata(str(path)) == {"other": "text", RECORD_KEY: RECORD.to_json()}


def test_the_record_of_a_safetensors_file(tmp_path: Path) -> None:
    path = _safetensors_file(tmp_path / "m.SafeTensors", {"format": "pt", RECORD_KEY: RECORD.to_json()})
    assert read_record(path) == RECORD
    assert read_metadata(path)["format"] == "pt"


def test_files_of_other_programs_hold_no_record(tmp_path: Path) -> None:
    paths = [_onnx_file(tmp_path / "m.onnx", other="x"), _safetensors_file(tmp_path / "m.safetensors", None)]
    for path in paths:
        assert find_record(path) is None
        with pytest.raises(ModelFileError, match="holds no lpsnet record"):
            read_record(path)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_every_truncation_is_one_clear_error(tmp_path: Path, suffix: str) -> None:
    """Cut anywhere, a file either lacks its record or is refused; nothing else is raised."""
    if suffix == ".onnx":
        whole = _onnx_file(tmp_path / "whole.onnx", **{RECORD_KEY: RECORD.to_json()}).read_bytes()
    else:
        whole = _safetensors_file(tmp_path / "whole.safetensors", {RECORD_KEY: RECORD.to_json()}).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in [*range(200), len(whole) // 2, len(whole) - 600, len(whole) - 481, len(whole) - 3]:
        cut.write_bytes(whole[:length])
        with contextlib.suppress(ModelFileError):
            assert find_record(cut) in (None, RECORD)


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_random_bytes_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / f"m{suffix}"
    for _ in range(300):
        path.write_bytes(rng.integers(0, 256, rng.integers(1, 60), dtype=np.uint8).tobytes())
        with pytest.raises(ModelFileError):
            read_record(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello, this is text, not a model\n", "not a whole onnx file"),
        (b"", "empty file"),
        (b"\x08\x07", "no graph"),  # ir_version alone
        (b"\x3a\xff\xff\xff\xff\x0f", "does not fit"),  # a graph of 4 GB
        (b"\x08" + b"\xff" * 11, "no end"),
        (b"\x72\x04\x0a\x64ab", "does not fit"),  # a metadata entry whose key is longer than the entry
        (b"\x3a\x00" + 2 * b"\x72\x05\x0a\x01k\x12\x00", "twice"),
    ],
)
def test_damaged_onnx_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        read_record(path)


def test_fields_of_every_wire_type_are_stepped_over(tmp_path: Path) -> None:
    """Unknown fields must not stop the reader: later versions of ONNX may add some."""
    entry = b"\x0a\x01k\x12\x02vw\x1d\x01\x02\x03\x04"  # key, value, and a fixed 32-bit field 3
    unknown = b"\xf8\x01\x05" + b"\xf9\x01" + b"\0" * 8 + b"\xfd\x01" + b"\0" * 4  # field 31: varint, 64 and 32 bits
    path = tmp_path / "m.onnx"
    path.write_bytes(unknown + b"\x3a\x00" + b"\x72" + bytes([len(entry)]) + entry)
    assert read_metadata(path) == {"k": "vw"}


@pytest.mark.parametrize(
    ("header", "length", "message"),
    [
        (b"{}", 10**18, "does not fit"),
        (b"{}", 0, "does not fit"),
        (b"{}", 3, "does not fit"),
        (b"[1]", None, "no table"),
        (b'{"__metadata__": 3}', None, "no table"),
        (b'{"__metadata__": {"lpsnet": 3}}', None, "no table"),
        (b'{"__metadata__": {"lpsnet": "{}", "lpsnet": "{}"}}', None, "every key once"),
        (b"{,}", None, "not JSON"),
        (b"\xff\xfe{}", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (json.dumps({"__metadata__": {"lpsnet": "{}"}}).encode(), None, "is not usable"),
        (json.dumps({"__metadata__": {"lpsnet": "{"}}).encode(), None, "cannot be read"),
    ],
)
def test_damaged_safetensors_files(tmp_path: Path, header: bytes, length: int | None, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        read_record(_header(tmp_path / "m.safetensors", header, length=length))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_file_at_all(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ModelFileError, match="no model file at"):
        read_record(tmp_path / "missing.onnx")
    with pytest.raises(ModelFileError, match="is a folder"):
        read_record(tmp_path)
    with pytest.raises(ModelFileError, match=r"unknown model file suffix '.txt'.*\.onnx, .*\.safetensors"):
        read_record(tmp_path / "notes.txt")

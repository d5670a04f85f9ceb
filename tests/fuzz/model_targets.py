"""Model files, records and checkpoints: damaged, and written by someone who means harm."""

import importlib.util
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from damage import JSON, Draw, altered, damaged
from fuzzing import Target, refused_or
from hypothesis import strategies as st
from sample_images import scene
from sample_models import RATIOS, members, models, record

from lpsnet.inference.model_file import TFLITE_CHECKSUM, read_metadata, read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import initialise_from, load_checkpoint, load_official_checkpoint
from lpsnet.models.network import create_model
from lpsnet.record import RECORD_KEY, ModelRecord


def _kind(suffix: str) -> list[bytes]:
    return [data for name, data in models().items() if name.endswith(suffix)]


def _spoilt(suffix: str) -> st.SearchStrategy[bytes]:
    return st.deferred(lambda: damaged(_kind(suffix)))


def _segments(suffix: str, *, runtime: str | None = None) -> Callable[[bytes, Path], None]:
    """Whatever loads gives a label map of the image's size with the classes of its record."""

    def check(data: bytes, folder: Path) -> None:
        path = folder / f"model{suffix}"
        path.write_bytes(data)
        segmenter = Segmenter(path, runtime=runtime, num_threads=1)
        labels = segmenter(scene())
        assert labels.shape == scene().shape[:2]
        assert labels.dtype == np.uint8
        assert labels.max() < segmenter.label_space.num_classes

    return check


def _tflite_structure(data: bytes, folder: Path) -> None:
    """What is read before LiteRT gets a file, of one that has no checksum to be refused by."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    assert all(isinstance(text, str) for text in read_metadata(path).values())


def _record(value: Any, folder: Path) -> None:
    known = ModelRecord.from_json(json.dumps(value))
    assert ModelRecord.from_json(known.to_json()) == known


def _record_in_file(value: Any, folder: Path) -> None:
    """A checkpoint with any record: it is refused, or the network is the one the record describes."""
    path = folder / "model.safetensors"
    path.write_bytes(with_metadata(models()["deployed.safetensors"], {RECORD_KEY: json.dumps(value)}))
    net = load_checkpoint(path)
    known = read_record(path)
    assert net.architecture == known.architecture
    assert net.num_classes == known.label_space.num_classes


def with_metadata(data: bytes, metadata: dict[str, Any]) -> bytes:
    """A safetensors file with other metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    return _with_header(data, {**header, "__metadata__": metadata})


def _with_header(data: bytes, header: Any) -> bytes:
    (length,) = struct.unpack("<Q", data[:8])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _header() -> Any:
    data = models()["model.safetensors"]
    return json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])


def _checkpoint(data: bytes, folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(data)
    net = load_checkpoint(path)
    assert all(np.isfinite(value.numpy()).all() for value in net.state_dict().values())
    initialise_from(create_model("tiny", num_classes=3), path)


def _official(data: bytes, folder: Path) -> None:
    path = folder / "official.pth"
    path.write_bytes(data)
    net = load_official_checkpoint(path, ratios=RATIOS)
    assert net.architecture.num_paths == len(RATIOS)


class _Bomb:
    """Unpickled by a careless reader, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


def _pickle(case: tuple[bool, int, int], folder: Path) -> None:
    """Code in a checkpoint never runs, wherever in it the code is put."""
    in_zip, protocol, depth = case
    trace = folder / "trace"
    value: Any = _Bomb(trace)
    for number in range(depth):
        value = {"state_dict": value, str(number): [value]}
    data = pickle.dumps(value, protocol=protocol)
    if in_zip:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3")
        data = buffer.getvalue()
    assert refused_or(lambda: _official(data, folder))
    assert not trace.exists()


@st.composite
def _containers(draw: Draw, name: str) -> bytes:
    """A well-formed archive of members that are damaged, missing, renamed, doubled or compressed."""
    parts = list(members(name).items())
    for number, (member, content) in enumerate(parts):
        match draw(st.integers(0, 7)):
            case 0:
                parts[number] = (draw(st.sampled_from(["../model.bin", "/model.bin", "model.bin", "x"])), content)
            case 1 if member == "record.json":
                parts[number] = (member, json.dumps(draw(altered([json.loads(content)]))).encode())
            case 2:
                parts.append((member, content))
            case 3:
                parts[number] = (member, draw(damaged([content])))
    how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2]))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for member, content in parts[draw(st.integers(0, 1)) :]:
            archive.writestr(member, content)
    return buffer.getvalue()


@st.composite
def _onnx_graphs(draw: Draw) -> bytes:
    """A whole protocol buffer of a graph that makes less sense: renamed tensors, other shapes, types and attributes."""
    model = onnx.load_from_string(models()["model.onnx"])
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    for _ in range(draw(st.integers(1, 3))):
        node = draw(st.sampled_from(list(graph.node)))
        weight = draw(st.sampled_from(list(graph.initializer)))
        match draw(st.integers(0, 8)):
            case 0:
                node.op_type = draw(st.sampled_from(["Add", "Conv", "Resize", "Relu", "Loop", "Nothing", "Concat"]))
            case 1 if node.input:
                node.input[draw(st.integers(0, len(node.input) - 1))] = draw(st.sampled_from(names))
            case 2:
                node.output[0] = draw(st.sampled_from(names))
            case 3:
                weight.dims[:] = draw(st.lists(st.integers(-1, 2**40), max_size=4))
            case 4:
                weight.raw_data = weight.raw_data[: draw(st.integers(0, len(weight.raw_data)))]
            case 5:
                weight.data_type = draw(st.integers(0, 25))
            case 6 if node.attribute:
                attribute = draw(st.sampled_from(list(node.attribute)))
                attribute.ints[:] = draw(st.lists(st.integers(-3, 2**33), max_size=4))
            case 7:
                port = draw(st.sampled_from([*graph.input, *graph.output]))
                port.type.tensor_type.elem_type = draw(st.sampled_from([0, 1, 2, 7, 8, 10, 11]))
            case _:
                port = draw(st.sampled_from([*graph.input, *graph.output]))
                for dimension in port.type.tensor_type.shape.dim:
                    dimension.dim_value = draw(st.sampled_from([0, 1, 3, 5, -1, 64, 2**31]))
    return model.SerializeToString()


_HEADERS = st.deferred(lambda: altered([_header()])).map(lambda h: _with_header(models()["model.safetensors"], h))
_RECORDS = st.deferred(lambda: altered([json.loads(record().to_json())]))
_PICKLES = st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3))


def _without_checksum() -> list[bytes]:
    name = TFLITE_CHECKSUM.encode()
    return [data.replace(name, b"x" * len(name)) for data in _kind(".tflite")]


_LITERT = (
    Target("tflite file", _spoilt(".tflite"), _segments(".tflite"), many=1_500, few=25),
    Target(
        "tflite structure", st.deferred(lambda: damaged(_without_checksum())), _tflite_structure, many=2_000, few=50
    ),
)

TARGETS = (
    Target("record", _RECORDS | JSON, _record, many=2_500, few=80),
    Target("record in a checkpoint", _RECORDS, _record_in_file, many=1_000, few=30),
    Target("checkpoint", _spoilt(".safetensors"), _checkpoint, many=1_000, few=25),
    Target("checkpoint's header", _HEADERS, _checkpoint, many=1_000, few=25),
    Target("official checkpoint", _spoilt(".pth"), _official, many=1_000, few=25),
    Target("pickle with code in it", _PICKLES, _pickle, many=200),
    Target("onnx file", _spoilt(".onnx"), _segments(".onnx"), many=1_500, few=25),
    Target("onnx graph", _onnx_graphs(), _segments(".onnx"), many=1_500, few=25),
    Target("openvino container", _spoilt(".openvino"), _segments(".openvino"), many=400, few=8),
    Target("openvino archive", _containers("model.openvino"), _segments(".openvino"), many=1_000, few=6),
    Target("ncnn container", _spoilt(".ncnn"), _segments(".ncnn"), many=600, few=8),
    Target("ncnn archive", _containers("model.ncnn"), _segments(".ncnn"), many=1_500, few=6),
    *(_LITERT if importlib.util.find_spec("ai_edge_litert") else ()),
)

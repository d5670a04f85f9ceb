"""The metadata of model files, read with neither an engine nor a framework and without loading weights.

- ONNX is a protocol buffer: fields with a number, a wire type and, if variable, a length. A reader picks the fields it
  needs and skips the others. Field numbers are those of onnx.proto.
- safetensors begins with a JSON header.
- LiteRT's .tflite is a FlatBuffer: tables whose fields are found by offsets. Field numbers are those of schema.fbs.
- ncnn and OpenVINO models are a text and a weights file. Both are kept in one uncompressed zip archive of fixed names,
  with the record inside, and are read straight into memory.

No length stated in a file is trusted.
"""

import contextlib
import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from lpsnet.errors import ModelFileError, nearest, unknown_name
from lpsnet.inference.engines import Precision
from lpsnet.io import atomic_path, is_stream
from lpsnet.record import RECORD_KEY, ModelRecord

MAX_TEXT_BYTES = 16_000_000  # of one metadata entry; a record takes a few kilobytes

VARINT, BYTES = 0, 2  # wire types
_FIXED_64, _FIXED_32 = 1, 5

# Field numbers: ModelProto, StringStringEntryProto, GraphProto, NodeProto, TensorProto
MODEL_GRAPH, _MODEL_METADATA = 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
GRAPH_NODE, GRAPH_INITIALIZER = 1, 5
NODE_OPERATOR = 4
_TENSOR_TYPE = 2

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")
_TENSOR_TYPES: dict[int, Precision] = {10: "f16", 16: "bf16"}  # TensorProto.DataType


class DamagedError(Exception):
    """The content does not match the file's suffix; the message says where."""


class Field(NamedTuple):
    """A field of a message: the number of a varint is `value`; other content has `length` bytes from `start`.

    `begin` is where the field itself begins, and `end` where the next one does.
    """

    number: int
    wire_type: int
    value: int
    begin: int
    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length


def read_onnx_metadata(file: BinaryIO) -> dict[str, str]:
    """The model's `metadata_props`, by key.

    Raises:
        DamagedError: the file is not a complete ONNX model.
    """
    metadata: dict[str, str] = {}
    has_graph = False
    for field in fields(file, 0, file_size(file)):
        has_graph |= field.number == MODEL_GRAPH
        if field.number == _MODEL_METADATA and field.length <= MAX_TEXT_BYTES:
            key, value = _entry(file, field)
            if key in metadata:
                raise DamagedError(f"its metadata has {key!r} twice")
            metadata[key] = value
    if not has_graph:
        raise DamagedError("it has no graph")
    return metadata


def read_onnx_precision(file: BinaryIO) -> Precision:
    """The arithmetic that the graph asks for: int8 if it quantises, else what its weights are kept in.

    Raises:
        DamagedError: the file is not a complete ONNX model.
    """
    found: set[Precision] = set()
    for model_field in fields(file, 0, file_size(file)):
        if model_field.number == MODEL_GRAPH:
            for field in fields(file, model_field.start, model_field.length):
                found.update(_precisions(file, field))
    narrowest: tuple[Precision, ...] = ("int8", "f16", "bf16")
    return next((precision for precision in narrowest if precision in found), "f32")


def _precisions(file: BinaryIO, field: Field) -> Iterator[Precision]:
    """Precisions implied by a field of the graph: a node or an initializer."""
    if field.number == GRAPH_NODE:
        for part in fields(file, field.start, field.length):
            if part.number == NODE_OPERATOR and read_text(file, part) in _QUANTISED:
                yield "int8"
    elif field.number == GRAPH_INITIALIZER:
        for part in fields(file, field.start, field.length):
            if part.number == _TENSOR_TYPE and part.value in _TENSOR_TYPES:
                yield _TENSOR_TYPES[part.value]


def _entry(file: BinaryIO, field: Field) -> tuple[str, str]:
    parts = {part.number: read_text(file, part) for part in fields(file, field.start, field.length)}
    return parts.get(_ENTRY_KEY, ""), parts.get(_ENTRY_VALUE, "")


def read_text(file: BinaryIO, field: Field) -> str:
    """The text in a field; empty if longer than `MAX_TEXT_BYTES`."""
    if field.wire_type != BYTES or field.length > MAX_TEXT_BYTES:
        return ""
    file.seek(field.start)
    return file.read(field.length).decode(errors="replace")


def fields(file: BinaryIO, start: int, length: int) -> Iterator[Field]:
    """The fields of the message of `length` bytes at `start`. The file position may change between items."""
    position, end = start, start + length
    while position < end:
        file.seek(position)
        field = _field(file, position)
        position = field.end
        if position > end:
            raise DamagedError(f"the field before byte {field.start} does not fit")
        yield field


def _field(file: BinaryIO, begin: int) -> Field:
    key = _varint(file)
    number, wire_type = key >> 3, key & 7
    if number == 0 or wire_type not in (VARINT, _FIXED_64, BYTES, _FIXED_32):
        raise DamagedError(f"no field begins before byte {file.tell()}")
    value = _varint(file) if wire_type in (VARINT, BYTES) else 0
    length = {VARINT: 0, _FIXED_64: 8, _FIXED_32: 4}.get(wire_type, value)
    return Field(number, wire_type, value, begin, file.tell(), length)


def _varint(file: BinaryIO) -> int:
    """A number in base 128, least significant digit first, of at most ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise DamagedError("it ends early")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise DamagedError("a number in it has no end")


def file_size(file: BinaryIO) -> int:
    """Bytes in an open file."""
    return file.seek(0, os.SEEK_END)


TFLITE_IDENTIFIER = b"TFL3"
TFLITE_CHECKSUM = "lpsnet.sha256"  # of a file's bytes, with zeros in its own place
_MAX_TFLITE_ENTRIES = 1_000  # of metadata
_MAX_TFLITE_NAME = 1_000  # bytes

# Field numbers: Model, Metadata, Buffer
_TFLITE_BUFFERS, _TFLITE_METADATA = 4, 6
_METADATA_NAME, _METADATA_BUFFER = 0, 1
_BUFFER_DATA = 0


def read_tflite_metadata(file: BinaryIO) -> dict[str, str]:
    """The texts in the model's metadata, by name.

    Raises:
        DamagedError: the file is not a complete LiteRT model, or not as it was written: those of lpsnet hold the
            SHA-256 of their bytes.
    """
    if _bytes_at(file, 4, 4) != TFLITE_IDENTIFIER:
        raise DamagedError("it does not begin like one")
    model = _target(file, 0)
    buffers, num_buffers = _vector(file, _slot(file, model, _TFLITE_BUFFERS))
    entries, num_entries = _vector(file, _slot(file, model, _TFLITE_METADATA))
    if num_entries > _MAX_TFLITE_ENTRIES:
        raise DamagedError("it has too many entries of metadata")
    metadata: dict[str, str] = {}
    for number in range(num_entries):
        entry = _target(file, entries + 4 * number)
        name = _bytes_at(file, *_vector(file, _slot(file, entry, _METADATA_NAME)), most=_MAX_TFLITE_NAME).decode(
            errors="replace"
        )
        index = _number(file, slot) if (slot := _slot(file, entry, _METADATA_BUFFER)) else 0
        if index >= num_buffers:
            raise DamagedError("an entry of its metadata has no buffer")
        start, length = _vector(file, _slot(file, _target(file, buffers + 4 * index), _BUFFER_DATA))
        if name == TFLITE_CHECKSUM:
            _check_sum(file, start, length)
        elif name in metadata:
            raise DamagedError(f"its metadata has {name!r} twice")
        elif length <= MAX_TEXT_BYTES:
            metadata[name] = _bytes_at(file, start, length).decode(errors="replace")
    return metadata


def _check_sum(file: BinaryIO, start: int, length: int) -> None:
    written, found = _bytes_at(file, start, length, most=64), hashlib.sha256()
    file.seek(0)
    position = 0
    while block := file.read(1 << 20):
        low, high = max(start - position, 0), min(start + length - position, len(block))
        found.update(block if low >= high else block[:low] + bytes(high - low) + block[high:])
        position += len(block)
    if found.digest() != written:
        raise DamagedError("its bytes are not those that were written")


def _bytes_at(file: BinaryIO, start: int, length: int, *, most: int = MAX_TEXT_BYTES) -> bytes:
    if not 0 <= length <= most:
        raise DamagedError(f"what is at byte {start} does not fit")
    file.seek(start)
    found = file.read(length)
    if len(found) < length:
        raise DamagedError("it ends early")
    return found


def _number(file: BinaryIO, position: int, kind: str = "<I") -> int:
    if position < 0:
        raise DamagedError("an offset in it leads out of it")
    number: int = struct.unpack(kind, _bytes_at(file, position, struct.calcsize(kind)))[0]
    return number


def _target(file: BinaryIO, position: int) -> int:
    """Where the offset at `position` leads."""
    return position + _number(file, position)


def _slot(file: BinaryIO, table: int, field: int) -> int:
    """Where a field of a FlatBuffer table is; 0 if it is left out."""
    layout = table - _number(file, table, "<i")
    place = 4 + 2 * field
    offset = _number(file, layout + place, "<H") if place < _number(file, layout, "<H") else 0
    return table + offset if offset else 0


def _vector(file: BinaryIO, slot: int) -> tuple[int, int]:
    """First byte and length of the vector, or text, whose offset is in a slot; no length if that is 0."""
    if slot == 0:
        return 0, 0
    vector = _target(file, slot)
    return vector + 4, _number(file, vector)


RECORD_NAME = "record.json"
MAX_ENTRY_BYTES = 64_000_000  # of the record and of a description; the largest networks here take some 100 kB
MAX_WEIGHT_BYTES = 2_000_000_000

# suffix -> (description, weights)
CONTENTS: dict[str, tuple[str, str]] = {
    ".ncnn": ("model.param", "model.bin"),
    ".openvino": ("model.xml", "model.bin"),
}
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest possible in zip: equal contents give equal files


def write_container(path: Path, *, description: bytes, weights: bytes, record: ModelRecord) -> None:
    """Write the model file `path`, whose suffix is in `CONTENTS`, atomically.

    Raises:
        ModelFileError: no container has that suffix.
        RunError: the file cannot be written.
    """
    names = (RECORD_NAME, *_contents(path))
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name, content in zip(names, (record.to_json().encode(), description, weights), strict=True):
            archive.writestr(zipfile.ZipInfo(name, _DATE), content)


def read_container(path: Path) -> tuple[bytes, bytes]:
    """The description and the weights in the model file `path`.

    Raises:
        ModelFileError: the file is not such a container, or is damaged.
    """
    description, weights = _contents(path)
    with path.open("rb") as file:
        return _read(file, description, path), _read(file, weights, path)


def read_container_metadata(file: BinaryIO) -> Mapping[str, str]:
    """The record's text under `RECORD_KEY`, from an open container; the weights are not read.

    Raises:
        ModelFileError: the file is not such a container, or is damaged.
    """
    path = Path(file.name)
    try:
        return {RECORD_KEY: _read(file, RECORD_NAME, path).decode()}
    except UnicodeDecodeError:
        raise ModelFileError(f"{path} cannot be read: its {RECORD_NAME} is not UTF-8 text") from None


def _contents(path: Path) -> tuple[str, str]:
    suffix = path.suffix.lower()
    if suffix not in CONTENTS:
        raise ModelFileError(f"{path}: {unknown_name('container suffix', suffix, CONTENTS)}")
    return CONTENTS[suffix]


def _read(file: BinaryIO, name: str, path: Path) -> bytes:
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, {RECORD_NAME, *_contents(path)}, path)
            return archive.read(name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        message = str(error)[:120]  # it may quote the whole file
        raise ModelFileError(f"{path} is not a whole {path.suffix} file: {message}; copy or export it again") from None


def _check_members(archive: zipfile.ZipFile, names: set[str], path: Path) -> None:
    members = archive.infolist()
    if len(members) != len(names) or {member.filename for member in members} != names:
        raise ModelFileError(f"{path} is not a {path.suffix} model: it must hold exactly {', '.join(sorted(names))}")
    for member in members:
        limit = MAX_WEIGHT_BYTES if member.filename.endswith(".bin") else MAX_ENTRY_BYTES
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not stored or member.flag_bits & 1 or member.file_size > limit:  # bit 0: encrypted
            raise ModelFileError(
                f"{path} cannot be used: {member.filename} in it is compressed, encrypted or too large"
            )


MAX_HEADER_BYTES = 100_000_000  # of a safetensors header; the limit of the format

Metadata = Mapping[str, str]


def read_record(path: str | Path) -> ModelRecord:
    """The record of a model file; the suffix determines the format (`METADATA_READERS`).

    Raises:
        ModelFileError: there is no such file, its content does not match its suffix, or it holds no usable record.
    """
    record = find_record(path)
    if record is None:
        raise ModelFileError(
            f"{path} holds no lpsnet record: it was made by another program, or its metadata was removed"
        )
    return record


def find_record(path: str | Path) -> ModelRecord | None:
    """The record of a model file, or None for a valid file that was not made by lpsnet.

    Raises:
        ModelFileError: there is no such file, its content does not match its suffix, or its record is not usable.
    """
    text = read_metadata(path).get(RECORD_KEY)
    return None if text is None else ModelRecord.from_json(text, source=path)


def read_metadata(path: str | Path) -> Metadata:
    """The text entries in a model file beside its weights, by key.

    Raises:
        ModelFileError: there is no such file, or its content does not match its suffix.
    """
    path = check_model_file(path)
    reader = METADATA_READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelFileError(f"{path}: {unknown_name('model file suffix', path.suffix, METADATA_READERS)}")
    with open_whole(path) as file:
        return reader(file)


@contextlib.contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """The open file; a `DamagedError` or `OSError` in the block becomes a `ModelFileError` that names it."""
    try:
        with path.open("rb") as file:
            yield file
    except DamagedError as error:
        kind = path.suffix.lower().lstrip(".")
        raise ModelFileError(f"{path} is not a whole {kind} file: {error}; copy or export it again") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None


def check_model_file(path: str | Path) -> Path:
    """`path` as a `Path` to an existing, non-empty file; ModelFileError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give the model file in it")
    if is_stream(path):
        raise ModelFileError(f"{path} is a device, pipe or socket, not a model file")
    if not path.is_file():
        near = nearest(path.name, _neighbours(path))
        hint = f"; did you mean '{path.with_name(near)}'?" if near else ""
        raise ModelFileError(f"no model file at {path}{hint}")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is an empty file, not a model")
    return path


def _neighbours(path: Path) -> list[str]:
    """Names of the model files in the same folder."""
    try:
        return sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in METADATA_READERS)
    except OSError:
        return []


def _read_safetensors(file: BinaryIO) -> Metadata:
    """Header of a safetensors file: its length (8 bytes, little-endian), then JSON with texts in `__metadata__`."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size - 8):
        raise DamagedError("its header does not fit")
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise DamagedError("its header is not JSON with every key once") from None
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DamagedError("its header has no table of text for metadata")
    return metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


# suffix -> reader of the metadata; another format is a function and a row here
METADATA_READERS: dict[str, Callable[[BinaryIO], Metadata]] = {
    ".onnx": read_onnx_metadata,
    ".safetensors": _read_safetensors,
    ".tflite": read_tflite_metadata,
    **dict.fromkeys(CONTENTS, read_container_metadata),
}

"""The record inside a model file, read with neither an engine nor a framework.

Both formats are walked by a reader of a few lines that touches only the file's outline: a safetensors file begins with
its header, and an ONNX file is a protocol buffer whose top-level fields say how long they are, so that the weights are
stepped over. A reader trusts no length and no count that a file states.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from lpsnet.errors import ModelFileError, unknown_name
from lpsnet.record import RECORD_KEY, ModelRecord

MAX_HEADER_BYTES = 100_000_000  # of a safetensors header, the format's own bound
MAX_METADATA_BYTES = 16_000_000  # of one metadata entry of an ONNX file; a record takes a few kilobytes

Metadata = dict[str, str]


def read_record(path: str | Path) -> ModelRecord:
    """The record of a model file; its suffix says the format (`METADATA_READERS`).

    Raises:
        ModelFileError: there is no such file, it is not of the format its suffix says, or it holds no usable record.
    """
    record = find_record(path)
    if record is None:
        raise ModelFileError(
            f"{path} holds no lpsnet record: it was made by another program, or its metadata was removed"
        )
    return record


def find_record(path: str | Path) -> ModelRecord | None:
    """The record of a model file, or None where the file is in order but was not made by lpsnet.

    Raises:
        ModelFileError: there is no such file, it is not of the format its suffix says, or its record is not usable.
    """
    text = read_metadata(path).get(RECORD_KEY)
    return None if text is None else ModelRecord.from_json(text, source=path)


def read_metadata(path: str | Path) -> Metadata:
    """The text entries that a model file carries beside its weights, by key.

    Raises:
        ModelFileError: there is no such file, or it is not of the format its suffix says.
    """
    path = check_model_file(path)
    reader = METADATA_READERS.get(path.suffix.lower())
    if reader is None:
        raise ModelFileError(f"{path}: {unknown_name('model file suffix', path.suffix, METADATA_READERS)}")
    try:
        with path.open("rb") as file:
            return reader(file)
    except _DamagedError as error:
        kind = path.suffix.lower().lstrip(".")
        raise ModelFileError(f"{path} is not a whole {kind} file: {error}; copy or export it again") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None


def check_model_file(path: str | Path) -> Path:
    """`path` as a `Path` to a file that is there and not empty; ModelFileError otherwise."""
    path = Path(path)
    if path.is_dir():
        raise ModelFileError(f"{path} is a folder; give the model file in it")
    if not path.is_file():
        raise ModelFileError(f"no model file at {path}")
    if path.stat().st_size == 0:
        raise ModelFileError(f"{path} is an empty file, not a model")
    return path


class _DamagedError(Exception):
    """The file is not what its suffix says; the text says where."""


def _read_safetensors(file: BinaryIO) -> Metadata:
    """Header of a safetensors file: its length (8 bytes, little-endian), then JSON with texts in `__metadata__`."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, _size(file) - 8):
        raise _DamagedError("its header does not fit")
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError):
        raise _DamagedError("its header is not JSON with every key once") from None
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _DamagedError("its header has no table of text for metadata")
    return metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


# Numbers of the fields of onnx.ModelProto and of its metadata entries, onnx.StringStringEntryProto (onnx.proto)
_GRAPH, _METADATA_PROPS = 7, 14
_ENTRY_KEY, _ENTRY_VALUE = 1, 2
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5  # wire types


def _read_onnx(file: BinaryIO) -> Metadata:
    """Field `metadata_props` of an ONNX file; everything else is stepped over."""
    metadata: Metadata = {}
    has_graph = False
    for number, start, length in _fields(file, _size(file)):
        has_graph |= number == _GRAPH
        if number != _METADATA_PROPS or length > MAX_METADATA_BYTES:
            continue
        key, value = _read_entry(file, start, length)
        if key in metadata:
            raise _DamagedError(f"its metadata has {key!r} twice")
        metadata[key] = value
    if not has_graph:
        raise _DamagedError("it has no graph")
    return metadata


def _read_entry(file: BinaryIO, start: int, length: int) -> tuple[str, str]:
    """Key and value of the metadata entry of `length` bytes at `start`; leaves the file at the entry's end."""
    file.seek(start)
    parts = {_ENTRY_KEY: "", _ENTRY_VALUE: ""}
    for number, at, size in _fields(file, start + length):
        if number in parts:
            file.seek(at)
            parts[number] = file.read(size).decode(errors="replace")
    return parts[_ENTRY_KEY], parts[_ENTRY_VALUE]


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, offset, length) of every length-delimited field from here to `end`, each then stepped over."""
    while (position := file.tell()) < end:
        key = _read_varint(file)
        number, wire_type = key >> 3, key & 7
        if number == 0 or wire_type not in (_VARINT, _FIXED_64, _BYTES, _FIXED_32):
            raise _DamagedError(f"byte {position} begins no field")
        if wire_type == _VARINT:
            _read_varint(file)
            continue
        length = {_FIXED_64: 8, _FIXED_32: 4}.get(wire_type) or _read_varint(file)
        start = file.tell()
        if start + length > end:
            raise _DamagedError(f"the field at byte {position} does not fit")
        if wire_type == _BYTES:
            yield number, start, length
        file.seek(start + length)


def _read_varint(file: BinaryIO) -> int:
    """A base-128 number, least significant group first, of at most ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _DamagedError("it ends early")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _DamagedError("a number in it has no end")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


# suffix -> reader of the metadata; another format is a function and a row here
METADATA_READERS: dict[str, Callable[[BinaryIO], Metadata]] = {
    ".onnx": _read_onnx,
    ".safetensors": _read_safetensors,
}

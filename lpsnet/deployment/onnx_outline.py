"""What an ONNX file says of itself, read without the `onnx` package and without its weights.

ONNX is a protocol buffer: a row of fields, each with a number, a wire type and, where it can be long, its length. So a
reader of a few lines finds the fields it wants and steps over the others. It trusts no length that the file states.
Field numbers are those of onnx.proto.
"""

import os
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from lpsnet.deployment.runtimes.session import Precision

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
    """The file is not what its suffix says; the text says where."""


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
        DamagedError: the file is no whole ONNX model.
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
        DamagedError: the file is no whole ONNX model.
    """
    found: set[Precision] = set()
    for model_field in fields(file, 0, file_size(file)):
        if model_field.number == MODEL_GRAPH:
            for field in fields(file, model_field.start, model_field.length):
                found.update(_precisions(file, field))
    narrowest: tuple[Precision, ...] = ("int8", "f16", "bf16")
    return next((precision for precision in narrowest if precision in found), "f32")


def _precisions(file: BinaryIO, field: Field) -> Iterator[Precision]:
    """What a field of the graph, a node or an initializer, says about the arithmetic."""
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
    """The text in a field; empty if it is longer than any that is wanted here."""
    if field.wire_type != BYTES or field.length > MAX_TEXT_BYTES:
        return ""
    file.seek(field.start)
    return file.read(field.length).decode(errors="replace")


def fields(file: BinaryIO, start: int, length: int) -> Iterator[Field]:
    """The fields of the message of `length` bytes at `start`. The file may be moved between one and the next."""
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

"""The record inside a model file, read with neither an engine nor a framework.

A reader touches only the file's outline and trusts no length that the file states. A safetensors file begins with its
header; for ONNX see `onnx_outline.py`, for the archives of other engines `container.py`.
"""

import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lpsnet.deployment.container import CONTENTS, read_container_metadata
from lpsnet.deployment.onnx_outline import DamagedError, read_onnx_metadata
from lpsnet.errors import ModelFileError, nearest, unknown_name
from lpsnet.io import is_stream
from lpsnet.record import RECORD_KEY, ModelRecord

MAX_HEADER_BYTES = 100_000_000  # of a safetensors header, the format's own bound

Metadata = Mapping[str, str]


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
    except DamagedError as error:
        kind = path.suffix.lower().lstrip(".")
        raise ModelFileError(f"{path} is not a whole {kind} file: {error}; copy or export it again") from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None


def check_model_file(path: str | Path) -> Path:
    """`path` as a `Path` to a file that is there and not empty; ModelFileError otherwise."""
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
    """The names of the model files in the folder of a path."""
    try:
        return sorted(file.name for file in path.parent.iterdir() if file.suffix.lower() in METADATA_READERS)
    except OSError:
        return []


def _read_safetensors(file: BinaryIO) -> Metadata:
    """Header of a safetensors file: its length (8 bytes, little-endian), then JSON with texts in `__metadata__`."""
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, _size(file) - 8):
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


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


# suffix -> reader of the metadata; another format is a function and a row here
METADATA_READERS: dict[str, Callable[[BinaryIO], Metadata]] = {
    ".onnx": read_onnx_metadata,
    ".safetensors": _read_safetensors,
    **dict.fromkeys(CONTENTS, read_container_metadata),
}

"""One file for engines that want several: a zip archive of fixed names with the record inside.

An ncnn model is a text and its weights, an OpenVINO model an XML text and its weights. Both are kept in an archive that
stores without compressing, so that nothing in it can be larger than the file itself, and are read straight into memory:
nothing is unpacked to the disk.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from lpsnet.errors import ModelFileError, unknown_name
from lpsnet.io import atomic_path
from lpsnet.record import RECORD_KEY, ModelRecord

RECORD_NAME = "record.json"
MAX_TEXT_BYTES = 64_000_000  # of the record and of a description; the largest networks here take some 100 kB
MAX_WEIGHT_BYTES = 2_000_000_000

# suffix -> (description, weights)
CONTENTS: dict[str, tuple[str, str]] = {
    ".ncnn": ("model.param", "model.bin"),
    ".openvino": ("model.xml", "model.bin"),
}
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: equal contents give equal files


def write_container(path: Path, *, description: bytes, weights: bytes, record: ModelRecord) -> None:
    """Write the model file `path`, whose suffix is in `CONTENTS`, in one step: it is there whole or not at all.

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
    """The member `name`, its checksum compared."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, {RECORD_NAME, *_contents(path)}, path)
            return archive.read(name)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        said = str(error)[:120]  # it may quote the whole file
        raise ModelFileError(f"{path} is not a whole {path.suffix} file: {said}; copy or export it again") from None


def _check_members(archive: zipfile.ZipFile, names: set[str], path: Path) -> None:
    members = archive.infolist()
    if len(members) != len(names) or {member.filename for member in members} != names:
        raise ModelFileError(f"{path} is not a {path.suffix} model: it must hold exactly {', '.join(sorted(names))}")
    for member in members:
        limit = MAX_WEIGHT_BYTES if member.filename.endswith(".bin") else MAX_TEXT_BYTES
        stored = member.compress_type == zipfile.ZIP_STORED and member.compress_size == member.file_size
        if not stored or member.flag_bits & 1 or member.file_size > limit:  # bit 0: encrypted
            raise ModelFileError(
                f"{path} cannot be used: {member.filename} in it is compressed, encrypted or too large"
            )

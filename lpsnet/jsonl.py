"""Files of JSON, one value a line, that are only ever appended to.

A process may be killed while it writes: a last line without its line break was never finished. Readers leave it out,
and the next append cuts it off first.
"""

import contextlib
import os
from io import FileIO
from pathlib import Path


def finished_lines(content: bytes) -> list[bytes]:
    """The lines of a file, without their line breaks; an unfinished last one is left out."""
    return content.split(b"\n")[:-1]


def append_line(path: Path, line: str) -> None:
    """Add a line (UTF-8, without line breaks) to a file, which is made if need be; return when it is on the disk.

    Only one process may append at a time.

    Raises:
        OSError: it cannot be written; the finished lines are as they were.
    """
    data = line.encode() + b"\n"
    is_new = not path.exists()
    with path.open("ab+", buffering=0) as file:
        length = _finished_length(file)
        try:
            file.truncate(length)
            if os.write(file.fileno(), data) != len(data):
                raise OSError("the disk may be full")
            os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(length)
            raise
    if is_new:
        _flush_folder(path.parent)


def _finished_length(file: FileIO) -> int:
    """Bytes up to the last line break; all but the last byte are read only where that is none."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read(1) in (b"", b"\n"):
        return end
    file.seek(0)
    return file.readall().rfind(b"\n") + 1


def _flush_folder(folder: Path) -> None:
    """The file's entry in its folder, too, survives a crash of the machine; Windows has no way to ask for that."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

"""One process at a time: a lock that the operating system gives up with the process, however it ends.

On POSIX a record lock is used: unlike `flock` it is not inherited by forked children, so data loaders that outlive a
killed run do not keep the next one out.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lpsnet.errors import RunError

_HELD: set[Path] = set()  # record locks do not keep a process from itself


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made if need be and left in place; it holds the process id.

    Raises:
        RunError: another process, or this one, holds it, or the place cannot be locked.
    """
    path = path.resolve()
    if path in _HELD:
        raise RunError(f"{path.parent} is already being written by this process")
    with _opened(path) as file:
        _HELD.add(path)
        try:
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            yield
        finally:
            _HELD.discard(path)


def _opened(path: Path) -> BinaryIO:
    """The file, open and locked."""
    try:
        file = path.open("a+b")
    except OSError as error:
        raise RunError(f"{path} cannot be opened: {error.strerror}; give another folder") from None
    try:
        _lock(file.fileno())
    except OSError as error:
        file.close()
        raise RunError(_refusal(path, error)) from None
    return file


def _refusal(path: Path, error: OSError) -> str:
    if error.errno not in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
        return f"{path} cannot be locked: {error.strerror}; give a folder on a local disk"
    owner = path.read_text(errors="replace").strip()[:20] or "unknown"
    return (
        f"{path.parent} is being written by another process (id {owner}); wait for it, end it, or give another folder"
    )


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # far behind the process id, which others must be able to read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

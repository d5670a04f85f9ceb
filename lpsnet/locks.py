"""Locks between processes, which the operating system gives up with the process, however it ends.

Two kinds: a folder or file that one process alone may write, refused to others (`locked_folder`, `exclusive`); and work
that processes do one after another, waited for (`one_at_a_time`).

On POSIX record locks are used: unlike `flock` they are not inherited by forked children, so data loaders that outlive a
killed run do not keep the next one out.
"""

import contextlib
import errno
import os
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lpsnet.errors import RunError

_HELD: set[Path] = set()  # record locks do not keep a process from itself
_TURN = threading.RLock()  # of `one_at_a_time`, between the threads of this process
_turns_taken = 0  # by the thread that holds it, one inside the other

PATIENCE_S = 2.0  # waited for a turn in silence
_POLL_S = 0.05
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is made if need be and left in place; it holds the process id.

    Raises:
        RunError: another process, or this one, holds it, or the place cannot be locked.
    """
    path = path.resolve()
    if path in _HELD:
        raise RunError(f"{path.parent} is in use by process {os.getpid()}, this one; give another folder")
    with _opened(path) as descriptor:
        _HELD.add(path)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            _HELD.discard(path)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is made if need be, for this process alone.

    Raises:
        RunError: a process holds it, or it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot use the folder {folder}: {error.strerror or error}") from None
    with exclusive(folder / ".lock"):
        yield


@contextlib.contextmanager
def one_at_a_time(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` while in the block, after waiting for other processes and threads that hold it.

    A block within a block of the same thread is let in. A lock that cannot be had, because the place cannot be written
    to or does not know locks, is done without.

    Args:
        path: the file; it is made if need be, for all users, and left in place.
        on_wait: called once if the wait for another process is longer than `PATIENCE_S`.
    """
    global _turns_taken
    with _TURN, contextlib.nullcontext() if _turns_taken else _turn(path, on_wait):
        _turns_taken += 1
        try:
            yield
        finally:
            _turns_taken -= 1


@contextlib.contextmanager
def _turn(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    try:
        descriptor = _open_shared(path)
    except OSError:
        yield
        return
    try:
        _wait(descriptor, on_wait)
        yield
    finally:
        os.close(descriptor)


def _open_shared(path: Path) -> int:
    """A descriptor of the file, which any user may lock. In a folder that all share, systems refuse to let one user
    'create' a file that is another's, and a link there may lead anywhere."""
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, os.O_RDWR | careful)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | careful, 0o666)
        with contextlib.suppress(OSError):
            path.chmod(0o666)  # whatever the umask
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a file")
    return descriptor


def _wait(descriptor: int, on_wait: Callable[[], None]) -> None:
    """Until the lock is had, or it shows that there is none to be had here."""
    patience_ends = time.monotonic() + PATIENCE_S
    told = False
    while True:
        try:
            return _lock(descriptor)
        except OSError as error:
            if error.errno not in _BUSY:
                return None
        if not told and time.monotonic() > patience_ends:
            on_wait()
            told = True
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of the file, locked."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{path} cannot be opened: {error.strerror}; give another folder") from None
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise RunError(_refusal(path, error)) from None
        yield descriptor
    finally:
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> str:
    if error.errno not in _BUSY:
        return f"{path} cannot be locked: {error.strerror}; give a folder on a local disk"
    owner = path.read_text(errors="replace").strip()[:20] or "unknown"
    return f"{path.parent} is in use by process {owner}; wait for it, end it, or give another folder"


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # far behind the process id, which others must be able to read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

"""Writing files so that a reader never sees half of one.

Locks between processes, which the operating system gives up with the process, however it ends.

Two kinds: a folder or file that one process alone may write, refused to others (`locked_folder`, `exclusive`); and work
that processes do one after another, waited for (`one_at_a_time`).

On POSIX record locks are used: unlike `flock` they are not inherited by forked children, so data loaders that outlive a
killed run do not keep the next one out.

Files of JSON, one value a line, that are only ever appended to.

A process may be killed while it writes: a last line without its line break was never finished. Readers leave it out,
and the next append cuts it off first.

Reading YAML that people write: data set descriptions and recipes. Plain values only; no YAML tag makes an object.
"""

import contextlib
import errno
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import yaml

from lpsnet.errors import DataError, RunError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes the place of `path` once the block ends without an error.

    The content is flushed to the disk before the file is renamed, so `path` always holds either the old content or
    all of the new, a crash of the machine included. After an error nothing is left behind.

    Raises:
        RunError: the folder cannot be written to, the disk is full, or `path` is a device, pipe or socket, which a file
            would take the place of.
    """
    temporary: Path | None = None
    try:
        if _keeps_nothing(path):
            raise RunError(f"cannot write {path}: it is a device, pipe or socket; give the path of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:64]}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        temporary.chmod(0o666 & ~_umask())  # mkstemp gives 0600; a finished file is as readable as any other
        temporary.replace(path)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, or into the device or pipe that `path` is; see `atomic_path` for errors."""
    try:
        if _keeps_nothing(path):
            path.write_text(text, encoding="utf-8")
            return
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror or error}") from None
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def inside(folder: Path, name: object) -> Path:
    """The path `folder`/`name`, where `name` was read from a file that others may have written.

    Raises:
        RunError: it leads out of the folder: an absolute path, or one with too many "..".
    """
    text = str(name)
    root, path = (os.path.abspath(it) for it in (folder, folder / text))  # noqa: PTH100 - follows no links
    if "\0" in text or not path.startswith(os.path.join(root, "")):  # noqa: PTH118
        raise RunError(f"{text!r} leads out of the folder {folder}, or names none of its files; it was not used")
    return Path(path)


def is_stream(path: Path) -> bool:
    """Whether there is a device, pipe or socket, which may be without end; also behind a link."""
    return path.exists() and not (path.is_file() or path.is_dir())


def refuse_streams(path: Path) -> None:
    """Raise where reading `path` might never end.

    Raises:
        OSError: it is a device, pipe or socket.
    """
    if is_stream(path):
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, not a file", str(path))


def expand_home(path: str | Path) -> Path:
    """The path with `~` and `~name` as the home folders they stand for; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _keeps_nothing(path: Path) -> bool:
    """Whether what is written to `path` is not kept there: a pipe, a device, or /dev/stdout, wherever that leads."""
    return is_stream(path) or path.parent in (Path("/dev"), Path("/proc/self/fd"), Path("/dev/fd"))


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


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


MAX_BYTES = 2**20  # of a file; a longer one is something else


def read_yaml(path: Path, *, what: str) -> Any:
    """The value in a YAML file; `what` the file is, e.g. "recipe", is part of the messages.

    Raises:
        DataError: the file cannot be read, is too long, or is no YAML; one line.
    """
    try:
        refuse_streams(path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES} bytes; it is no {what}")
        return _UniqueKeys(content.decode("utf-8-sig")).get_single_data()
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror or error}") from None
    except DataError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{path}{where}: {_problem(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise DataError(f"{path} is not a YAML text file") from None
    except Exception as error:  # what tags such as !!timestamp and !!bool raise for a value that is none
        raise DataError(f"{path} holds a value that is not what its tag says: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML forbids a key that stands twice in a mapping; the library takes the last one, and the first is lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):  # `<<`, whose keys may stand beside it
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise _KeyTwiceError(problem=f"the key {key!r} stands here twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _KeyTwiceError(yaml.MarkedYAMLError):
    pass


def _problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _KeyTwiceError):
        return f"{error.problem}; remove all but one"
    return f"this is not YAML ({error.problem})"

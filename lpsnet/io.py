"""Files that survive a crash: written whole or not at all, appended line by line, locked, and read with a size limit.

In this order: paths; atomic files (`atomic_path`, `write_text`); files of JSON lines that are only appended to
(`append_line`, `finished_lines`); locks between processes, refused (`exclusive`, `locked_folder`) or waited for
(`one_at_a_time`); YAML files (`read_yaml`).
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


def inside(folder: Path, name: object) -> Path:
    """The path `folder`/`name`, for a `name` from a file that is not trusted.

    Raises:
        RunError: it leads out of the folder: an absolute path, or one with too many "..".
    """
    text = str(name)
    root, path = (os.path.abspath(it) for it in (folder, folder / text))  # noqa: PTH100 - follows no links
    if "\0" in text or not path.startswith(os.path.join(root, "")):  # noqa: PTH118
        raise RunError(f"{text!r} leads out of the folder {folder}, or names none of its files; it was not used")
    return Path(path)


def is_stream(path: Path) -> bool:
    """Whether the path is a device, pipe or socket, which may have no end; links are followed."""
    return path.exists() and not (path.is_file() or path.is_dir())


def refuse_streams(path: Path) -> None:
    """Raise an `OSError` if `path` is a device, pipe or socket, as reading it might never end."""
    if is_stream(path):
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, not a file", str(path))


def reason(error: OSError, path: str | Path = "") -> str:
    """Why a path cannot be used, in words: a file where a folder is needed is named, and the reverse.

    Args:
        error: raised for it.
        path: that was used; default the one that the error names.
    """
    place = Path(path or error.filename or "")
    if isinstance(error, FileExistsError | NotADirectoryError):
        file = next((it for it in (place, *place.parents) if it.exists() and not it.is_dir()), None)
        if file is not None:
            return f"{file} is a file, where a folder is needed; give another place"
    if isinstance(error, IsADirectoryError):
        return f"{place} is a folder, where a file is needed; give the path of a file"
    return error.strerror or str(error)


def expand_home(path: str | Path) -> Path:
    """The path with `~` and `~name` as the home folders they stand for; unchanged if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder, which replaces `path` when the block ends without an error.

    The content is flushed to the disk before the file is renamed, so `path` always holds either the old content or
    all of the new, even after a crash of the machine. After an error nothing is left behind.

    Raises:
        RunError: the folder cannot be written to, the disk is full, or `path` is a device, pipe or socket, which a file
            would replace.
    """
    temporary: Path | None = None
    try:
        if _is_output_stream(path):
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
        raise RunError(f"cannot write {path}: {reason(error, path)}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, or into the device or pipe that `path` is; see `atomic_path` for errors."""
    try:
        if _is_output_stream(path):
            path.write_text(text, encoding="utf-8")
            return
    except OSError as error:
        raise RunError(f"cannot write {path}: {reason(error, path)}") from None
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _is_output_stream(path: Path) -> bool:
    """Whether `path` is a pipe or a device, or a name such as /dev/stdout, even if that is redirected to a file."""
    return is_stream(path) or path.parent in (Path("/dev"), Path("/proc/self/fd"), Path("/dev/fd"))


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Files of JSON, one value a line, that are only appended to.


def finished_lines(content: bytes) -> list[bytes]:
    """The lines of a file, without their line breaks.

    The last one is left out if it has no line break: the process that wrote it was killed.
    """
    return content.split(b"\n")[:-1]


def append_line(path: Path, line: str) -> None:
    """Add a line (UTF-8, without line breaks) to a file, which is created if missing; return when it is on the disk.

    An unfinished last line is removed first. Only one process may append at a time.

    Raises:
        OSError: it cannot be written; the finished lines are unchanged.
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
    """Bytes up to the last line break; the whole file is read only if it does not end with one."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 1))
    if file.read(1) in (b"", b"\n"):
        return end
    file.seek(0)
    return file.readall().rfind(b"\n") + 1


def _flush_folder(folder: Path) -> None:
    """So that a new file's name survives a crash of the machine, too; Windows has no call for that."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Locks: the operating system releases them when the process ends, however it ends. On POSIX these are record locks:
# unlike `flock` they are not inherited by forked children, so data loaders that outlive a killed run do not block the
# next one.

_HELD: set[Path] = set()  # by this process, which record locks do not stop from locking twice
_THREADS = threading.RLock()  # between the threads of this process, in `one_at_a_time`
_depth = 0  # of nested `one_at_a_time` blocks in the thread that holds `_THREADS`

PATIENCE_S = 2.0  # waited before `on_wait` is called
_POLL_S = 0.05
_BUSY = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is created if missing and left in place; it holds the process id.

    Raises:
        RunError: another process, or this one, holds it, or the file system does not support locks.
    """
    path = path.resolve()
    if path in _HELD:
        raise RunError(f"{path.parent} is in use by process {os.getpid()}, this one; give another folder")
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise RunError(f"{path} cannot be opened: {error.strerror}; give another folder") from None
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise RunError(_refusal(path, error)) from None
        _HELD.add(path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        _HELD.discard(path)
        os.close(descriptor)


def _refusal(path: Path, error: OSError) -> str:
    if error.errno not in _BUSY:
        return f"{path} cannot be locked: {error.strerror}; give a folder on a local disk"
    owner = path.read_text(errors="replace").strip()[:20] or "unknown"
    return f"{path.parent} is in use by process {owner}; wait for it, end it, or give another folder"


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold `folder`, which is created if missing, for this process alone.

    Raises:
        RunError: a process holds it, or it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot use the folder {folder}: {reason(error, folder)}") from None
    with exclusive(folder / ".lock"):
        yield


@contextlib.contextmanager
def one_at_a_time(path: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file `path` during the block, after waiting for other processes and threads that hold it.

    Blocks of one thread may be nested. If the file cannot be locked (its folder is read-only or the file system does
    not support locks), the block runs without a lock.

    Args:
        path: the file; it is created if missing, for all users, and left in place.
        on_wait: called once if another process holds the lock for longer than `PATIENCE_S`.
    """
    global _depth
    with _THREADS, contextlib.nullcontext() if _depth else _waited_for(path, on_wait):
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


@contextlib.contextmanager
def _waited_for(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
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
    """A descriptor of a lock file for all users. In a shared folder, systems refuse O_CREAT on a file of another user,
    and a link may lead anywhere."""
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
    """Until the file is locked, or locking fails for another reason than that it is held."""
    patience_ends = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _lock(descriptor)
        except OSError as error:
            if error.errno not in _BUSY:
                return None
        if time.monotonic() > patience_ends:
            on_wait()
            patience_ends = float("inf")
        time.sleep(_POLL_S)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 2**30, os.SEEK_SET)  # beyond the process id, which others must be able to read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


# YAML that people write: data set descriptions and recipes. Plain values only; no tag creates an object.

MAX_BYTES = 2**20  # a longer file is something else


def read_yaml(path: Path, *, what: str) -> Any:
    """The value in a YAML file; `what` names the kind of file in messages, e.g. "recipe".

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
        problem = error.problem if isinstance(error, _KeyTwiceError) else f"this is not YAML ({error.problem})"
        raise DataError(f"{path}{where}: {problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise DataError(f"{path} is not a YAML text file") from None
    except Exception as error:  # raised for a tag such as !!timestamp or !!bool before another kind of value
        raise DataError(f"{path} has a value that does not fit its tag: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that occurs twice in a mapping, which YAML forbids; the library would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):  # `<<`: keys may be both in it and beside it
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                problem = f"the key {key!r} occurs twice; remove all but one"
                raise _KeyTwiceError(problem=problem, problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _KeyTwiceError(yaml.MarkedYAMLError):
    pass

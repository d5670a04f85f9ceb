"""Writing files so that a reader never sees half of one."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lpsnet.errors import RunError


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

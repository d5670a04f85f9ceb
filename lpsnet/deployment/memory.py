"""The memory that a piece of work takes at its peak, measured in a process of its own."""

import json
import multiprocessing
import pickle
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from lpsnet.errors import RunError

MIB = 2**20

# Linux hands the peak of the process that starts a program on to the program. So a command is started by a small
# process, which then asks the system for the peak of its child; the last line it prints is [status, peak].
_LAUNCHER = """
import json, os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
_, status, usage = os.wait4(process.pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss]))
"""


def peak_memory_mib(work: Callable[[], object] | Sequence[str]) -> float:
    """Peak resident memory, in MiB, of a new process that does `work`: Python and all that is imported included.

    Args:
        work: a command and its arguments, or a function without arguments that a new process can import by name
            (`functools.partial` of one serves; a lambda does not).

    Raises:
        RunError: the work failed, cannot be given to another process, or the system (Windows) does not say.
    """
    if sys.platform == "win32":
        raise RunError("peak memory is measured on Linux and macOS only")
    return _of_function(work) if callable(work) else _of_command(list(work))


def resident_memory_mib() -> float:
    """The memory, in MiB, that this process has in use now.

    Raises:
        RunError: the system does not say.
    """
    try:
        return float(psutil.Process().memory_info().rss) / MIB
    except (OSError, ValueError, IndexError, psutil.Error) as error:
        raise RunError(f"the system does not say how much memory is in use: {error}") from None


def _of_command(command: list[str]) -> float:
    if not command:
        raise RunError("no command was given whose memory to measure")
    launched = subprocess.run([sys.executable, "-I", "-c", _LAUNCHER, *command], capture_output=True, text=True)
    if launched.returncode != 0:
        raise RunError(f"{command[0]} could not be started: {launched.stderr.strip().splitlines()[-1]}")
    status, peak = json.loads(launched.stdout)
    if status != 0:
        last = launched.stderr.strip().splitlines()[-1:] or ["it printed nothing"]
        raise RunError(f"{command[0]} ended with {status}, so its memory means nothing: {last[0]}")
    return _in_mib(peak)


def _of_function(work: Callable[[], object]) -> float:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_report, args=(work, sender))
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RunError(f"a new process cannot import {work!r}: {error}; give a function of a module") from None
    sender.close()  # so that the end of the process is the end of the pipe
    try:
        peak, problem = receiver.recv()
    except EOFError:
        peak, problem = None, "it ended without a word"
    process.join()
    if peak is None:
        raise RunError(f"{work!r} failed, so its memory means nothing: {problem}")
    return float(peak)


def _work_and_report(work: Callable[[], object], sender: Connection) -> None:
    try:
        work()
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))
        return
    sender.send((_own_peak_mib(), None))


def _own_peak_mib() -> float:
    """Peaks are not among what psutil tells on Linux and macOS."""
    status = Path("/proc/self/status")  # Linux: counted from the start of this program, see above
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found.group(1)) * 1024 / MIB
    import resource

    return _in_mib(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _in_mib(max_rss: int) -> float:
    return max_rss * (1 if sys.platform == "darwin" else 1024) / MIB  # macOS counts bytes, others KiB

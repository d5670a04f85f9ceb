"""What machine this is: a latency means nothing without it.

What cannot be found out is None, never a guess. The machine's name, its users and its addresses are nobody's business
and not read. psutil knows memory and cores. It does not know the processor's model and features, GPUs, boards and power
modes, and it counts the cores of the machine, not those that a process's affinity or a container leave to it: those are
read from files of the system or said by programs that come with it or with the GPU's driver.

How busy a machine is with other work while something is measured on it.

The load average counts the measurement itself and lags by a minute; what the processors really did is counted by the
system.

The memory that a piece of work takes at its peak, measured in a process of its own.
"""

import contextlib
import csv
import json
import multiprocessing
import os
import pickle
import platform
import re
import shlex
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import psutil

from lpsnet.errors import RunError

MIB = 2**20
CPU_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),  # x86
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve"),  # Arm
)
_TIMEOUT_S = 10.0  # for a program to answer

Ask = Callable[[list[str]], str | None]  # a command -> what it prints; None if there is no such program or it fails


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine as this process may use it.

    Attributes:
        cpu: the processor's model, e.g. "AMD EPYC 7763 64-Core Processor".
        cpu_features: those of `CPU_FEATURES` it has, which decide what precisions are fast; Linux only.
        num_cores: physical cores this process may use; None if the system does not say.
        num_threads: logical processors this process may use: its affinity, and a container's share of time rounded up.
        memory_mib: memory this process may use: the machine's, or a container's limit.
        gpus: models of NVIDIA GPUs, e.g. ("NVIDIA GeForce GTX 1080 Ti",).
        gpu_driver: version of NVIDIA's driver.
        board: what a single-board computer calls itself, e.g. "NVIDIA Jetson Orin Nano" or "Raspberry Pi 5 Model B".
        power_mode: Jetson's power mode, else the processor's frequency governor.
        architecture: e.g. "x86_64", "aarch64".
        system: the operating system and its version.
        python: version of Python.
    """

    cpu: str
    cpu_features: tuple[str, ...]
    num_cores: int | None
    num_threads: int
    memory_mib: int | None
    gpus: tuple[str, ...]
    gpu_driver: str | None
    board: str | None
    power_mode: str | None
    architecture: str
    system: str
    python: str

    @property
    def identity(self) -> str:
        """One line by which latencies are told apart: board, processor and cores, GPUs and power mode."""
        cores = (
            f"{self.num_cores} cores, {self.num_threads} threads" if self.num_cores else f"{self.num_threads} threads"
        )
        parts = [self.board, f"{self.cpu} ({cores})", *self.gpus, self.power_mode and f"power mode {self.power_mode}"]
        return "; ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """The attributes and the identity, as plain JSON values."""
        lists = {"cpu_features": list(self.cpu_features), "gpus": list(self.gpus)}
        return {**asdict(self), **lists, "identity": self.identity}


def describe_machine(*, root: Path = Path("/"), ask: Ask | None = None, system: str | None = None) -> Machine:
    """The machine this process runs on.

    Args:
        root: the folder that /proc, /sys and /etc are looked for in.
        ask: runs a command.
        system: "Linux", "Darwin" (macOS) or "Windows"; found out unless given.
    """
    ask = ask or _ask
    system = system or platform.system()
    gpus, driver = _nvidia(ask)
    return Machine(
        cpu=_cpu(root, ask, system) or platform.processor() or platform.machine() or "unknown processor",
        cpu_features=_cpu_features(root),
        num_cores=_usable_cores(root, system),
        num_threads=_usable_threads(root),
        memory_mib=_memory_mib(root),
        gpus=gpus,
        gpu_driver=driver,
        board=_board(root),
        power_mode=_power_mode(root, ask),
        architecture=platform.machine(),
        system=_system(root, system),
        python=platform.python_version(),
    )


def load_average() -> float | None:
    """Processes that ran or wanted to, on average over the last minute; None where the system does not count them.

    psutil's own imitates it on Windows, from the moment when it is first asked.
    """
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows
        return None


def _cpu(root: Path, ask: Ask, system: str) -> str | None:
    """The processor's model."""
    if system == "Darwin":
        said = ask(["sysctl", "-n", "machdep.cpu.brand_string"])
    elif system == "Windows":
        said = ask(["powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_Processor)[0].Name"])
    else:
        info = _read(root / "proc/cpuinfo") or ""
        # x86 says 'model name'; 64-bit Arm says nothing in the file but `lscpu` knows the cores' names
        said = _after(info, "model name") or _after(ask(["lscpu"]) or "", "Model name") or _after(info, "Hardware")
    return (said or "").strip() or None


def _memory_mib(root: Path) -> int | None:
    """The machine's memory, or a container's limit where that is less."""
    limits = []
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError, psutil.Error), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about figures that a sandbox leaves out and that are not asked for here
        limits.append(int(psutil.virtual_memory().total))
    limit = (_read(root / "sys/fs/cgroup/memory.max") or "").strip()
    if limit.isdigit():
        limits.append(int(limit))
    return min(limits) // MIB or None if limits else None


def _cpu_features(root: Path) -> tuple[str, ...]:
    info = _read(root / "proc/cpuinfo") or ""
    has = (_after(info, "flags") or _after(info, "Features") or "").split()  # x86, Arm
    return tuple(feature for feature in CPU_FEATURES if feature in has)


def _usable_cores(root: Path, system: str) -> int | None:
    """Physical cores behind the logical processors that this process may use: groups that share a core's hardware."""
    if system in ("Darwin", "Windows"):
        count: int | None = psutil.cpu_count(logical=False)
        return count
    folder = root / "sys/devices/system/cpu"
    groups = {_read(folder / f"cpu{index}" / "topology" / "thread_siblings_list") for index in _affinity()}
    return len(groups) if groups and None not in groups else None


def _affinity() -> set[int]:
    """The logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _usable_threads(root: Path) -> int:
    """The affinity, or a container's share of processor time where that is less."""
    quota, _, period = (_read(root / "sys/fs/cgroup/cpu.max") or "").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(len(_affinity()), -(-int(quota) // int(period))))
    return len(_affinity())


def _nvidia(ask: Ask) -> tuple[tuple[str, ...], str | None]:
    text = ask(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]) or ""
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if len(row) == 2]
    return tuple(name for name, _ in rows), rows[0][1] if rows else None


def _board(root: Path) -> str | None:
    text = _read(root / "proc/device-tree/model")
    return text.strip("\0\n ") or None if text else None


def _power_mode(root: Path, ask: Ask) -> str | None:
    jetson = re.search(r"NV Power Mode:\s*(\S+)", ask(["nvpmodel", "-q"]) or "")
    if jetson:
        return jetson.group(1)
    return (_read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "").strip() or None


def _system(root: Path, system: str) -> str:
    if system == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    if system != "Linux":
        return f"{system} {platform.release()}".strip()
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(root / "etc/os-release") or "", re.MULTILINE)
    return f"{name.group(1) if name else 'Linux'}, kernel {platform.release()}"


def command_line() -> str:
    """What this process was started with, as a shell would take it."""
    program, *arguments = sys.argv or [""]
    path = Path(program)
    called = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name or "python"]
    return shlex.join([*called, *arguments])


def _after(text: str, key: str) -> str | None:
    found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _ask(command: list[str]) -> str | None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


@dataclass(frozen=True, slots=True)
class Load:
    """What else went on while something was measured.

    Attributes:
        duration_s: how long that took.
        average_before, average_after: load averages of the last minute, this process included; None if not counted.
        other_cores: processors that were busy with other processes, on average; None where the system does not say.
    """

    duration_s: float
    average_before: float | None
    average_after: float | None
    other_cores: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "duration_s": self.duration_s,
            "load_average_before": self.average_before,
            "load_average_after": self.average_after,
            "other_cores_busy": self.other_cores,
        }


class LoadWatch:
    """Watches the load from `start` on."""

    def __init__(self) -> None:
        self._average = load_average()
        self._busy_s, self._own_s, self._since = _busy_s(), _own_s(), time.monotonic()

    @classmethod
    def start(cls) -> Self:
        """A watch of this machine from now on."""
        return cls()

    def load(self) -> Load:
        """The load since the start."""
        duration_s = time.monotonic() - self._since
        busy_s = _busy_s()
        other_cores = None
        if busy_s is not None and self._busy_s is not None and duration_s > 0:
            own_s = _own_s() - self._own_s
            other_cores = max(0.0, busy_s - self._busy_s - own_s) / duration_s
        return Load(duration_s, self._average, load_average(), other_cores)


_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # systems differ in which they count


def _busy_s() -> float | None:
    """Seconds that all processors together have worked since the start of the machine, for whomever."""
    try:
        times = psutil.cpu_times()
    except (OSError, ValueError, IndexError, TypeError, psutil.Error):  # a sandbox whose /proc is not Linux's
        return None
    return sum(getattr(times, name, 0.0) for name in _BUSY)


def _own_s() -> float:
    """Seconds of processor time of this process and of those it started that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


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

"""The machine, its load, and memory: a latency means nothing without the machine that it was measured on.

Unknown values are None, never a guess. Names of the machine and its users, and addresses, are not read. psutil knows
memory and cores, but not the processor's model and features, GPUs, boards and power modes, and it ignores the affinity
of a process and the limits of a container: those come from files of the system, or from its programs and those of the
GPU's driver. Load is the processor time counted by the system: load averages include the measurement itself and lag.
"""

import contextlib
import multiprocessing
import os
import pickle
import platform
import re
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import psutil

from lpsnet import agent
from lpsnet.errors import RunError

MIB = 2**20
CPU_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8"),  # x86
    *("asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve"),  # Arm
)

Ask = Callable[[list[str]], str | None]  # command -> its output; None if it is missing or fails


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as available to this process.

    Attributes:
        cpu: the processor's model, e.g. "AMD EPYC 7763 64-Core Processor".
        cpu_features: the `CPU_FEATURES` present, which determine the fast precisions; Linux only.
        num_cores: physical cores that this process may use; None if unknown.
        num_threads: logical processors that this process may use: its affinity, or a container's CPU limit rounded up.
        memory_mib: of the machine, or a container's limit.
        gpus: models of NVIDIA GPUs, e.g. ("NVIDIA GeForce GTX 1080 Ti",).
        gpu_driver: version of NVIDIA's driver.
        board: name of a single-board computer, e.g. "NVIDIA Jetson Orin Nano" or "Raspberry Pi 5 Model B".
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
        """One line that identifies comparable machines: board, processor and cores, GPUs and power mode."""
        cores = f"{f'{self.num_cores} cores, ' if self.num_cores else ''}{self.num_threads} threads"
        parts = [self.board, f"{self.cpu} ({cores})", *self.gpus, self.power_mode and f"power mode {self.power_mode}"]
        return "; ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """The attributes and the identity, as plain JSON values."""
        lists = {"cpu_features": list(self.cpu_features), "gpus": list(self.gpus)}
        return {**asdict(self), **lists, "identity": self.identity}


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the description of a machine comes from: this process, or an agent on a device.

    Attributes:
        read: the text of a system file such as "proc/cpuinfo"; empty if it cannot be read.
        ask: runs a command.
        system: "Linux", "Darwin" (macOS) or "Windows".
        release, architecture, python: the kernel's version or macOS's, as in "x86_64", and Python's version.
        processor: its name where nothing better is known; may be empty.
        affinity: logical processors that the process may use.
        memory_bytes, num_cores: of the machine, as its system says; None if unknown.
    """

    read: Callable[[str], str]
    ask: Ask
    system: str
    release: str
    architecture: str
    processor: str
    python: str
    affinity: frozenset[int]
    memory_bytes: int | None
    num_cores: int | None

    @classmethod
    def here(cls, *, root: Path = Path("/"), ask: Ask | None = None, system: str | None = None) -> Self:
        """Those of this process; arguments as for `describe_machine`."""
        system = system or platform.system()
        return cls(
            read=lambda name: agent.read_text(root / name),
            ask=ask or agent.ask_program,
            system=system,
            release=platform.mac_ver()[0] if system == "Darwin" else platform.release(),
            architecture=platform.machine(),
            processor=platform.processor(),
            python=platform.python_version(),
            affinity=frozenset(agent.affinity()),
            memory_bytes=_memory_bytes(),
            num_cores=psutil.cpu_count(logical=False) if system in ("Darwin", "Windows") else None,
        )


def describe_machine(*, root: Path = Path("/"), ask: Ask | None = None, system: str | None = None) -> Machine:
    """The machine this process runs on.

    Args:
        root: the folder with /proc, /sys and /etc.
        ask: runs a command.
        system: "Linux", "Darwin" (macOS) or "Windows"; detected if None.
    """
    return describe(Sources.here(root=root, ask=ask, system=system))


def describe(seen: Sources) -> Machine:
    """The machine that sources tell of."""
    gpus, driver = _nvidia(seen.ask)
    info = seen.read("proc/cpuinfo")
    has = (_after(info, "flags") or _after(info, "Features") or "").split()  # x86, Arm
    return Machine(
        cpu=_cpu(seen, info) or seen.processor or seen.architecture or "unknown processor",
        cpu_features=tuple(feature for feature in CPU_FEATURES if feature in has),
        num_cores=_usable_cores(seen),
        num_threads=_usable_threads(seen),
        memory_mib=_memory_mib(seen),
        gpus=gpus,
        gpu_driver=driver,
        board=seen.read("proc/device-tree/model").strip("\0\n ") or None,
        power_mode=_power_mode(seen),
        architecture=seen.architecture,
        system=_system(seen),
        python=seen.python,
    )


def _cpu(seen: Sources, info: str) -> str | None:
    if seen.system == "Darwin":
        model = seen.ask(["sysctl", "-n", "machdep.cpu.brand_string"])
    elif seen.system == "Windows":
        model = seen.ask(["powershell", "-NoProfile", "-Command", "(Get-CimInstance Win32_Processor)[0].Name"])
    else:
        # x86 has 'model name'; 64-bit Arm has no name in the file, but `lscpu` knows the cores
        model = (
            _after(info, "model name") or _after(seen.ask(["lscpu"]) or "", "Model name") or _after(info, "Hardware")
        )
    return (model or "").strip() or None


def _memory_bytes() -> int | None:
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError, psutil.Error), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about figures that a sandbox omits and that are not used here
        return int(psutil.virtual_memory().total)
    return None


def _memory_mib(seen: Sources) -> int | None:
    limit = seen.read("sys/fs/cgroup/memory.max").strip()
    limits = [*([seen.memory_bytes] if seen.memory_bytes else []), *([int(limit)] if limit.isdigit() else [])]
    return min(limits) // MIB or None if limits else None


def _usable_cores(seen: Sources) -> int | None:
    """Groups of sibling threads among the logical processors that the process may use."""
    if seen.system in ("Darwin", "Windows"):
        return seen.num_cores
    folder = "sys/devices/system/cpu"
    groups = {seen.read(f"{folder}/cpu{index}/topology/thread_siblings_list") for index in seen.affinity}
    return len(groups) if groups and "" not in groups else None


def _usable_threads(seen: Sources) -> int:
    """The affinity, or a container's CPU limit if that is less."""
    quota, _, period = seen.read("sys/fs/cgroup/cpu.max").strip().partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, min(len(seen.affinity), -(-int(quota) // int(period))))
    return len(seen.affinity)


def _nvidia(ask: Ask) -> tuple[tuple[str, ...], str | None]:
    text = ask(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]) or ""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") == 1]
    return tuple(name for name, _ in rows), rows[0][1] if rows else None


def _power_mode(seen: Sources) -> str | None:
    if jetson := re.search(r"NV Power Mode:\s*(\S+)", seen.ask(["nvpmodel", "-q"]) or ""):
        return jetson.group(1)
    return seen.read("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None


def _system(seen: Sources) -> str:
    if seen.system == "Darwin":
        return f"macOS {seen.release}"
    if seen.system != "Linux":
        return f"{seen.system} {seen.release}".strip()
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', seen.read("etc/os-release"), re.MULTILINE)
    return f"{name.group(1) if name else 'Linux'}, kernel {seen.release}"


def command_line() -> str:
    """The command line of this process, quoted for a shell."""
    program, *arguments = sys.argv or [""]
    path = Path(program)
    called = ["python", "-m", path.parent.name] if path.name == "__main__.py" else [path.name or "python"]
    return shlex.join([*called, *arguments])


def _after(text: str, key: str) -> str | None:
    found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else None


@dataclass(frozen=True, slots=True)
class Load:
    """Load of the machine during a measurement.

    Attributes:
        duration_s: of the measurement.
        average_before, average_after: load averages of the last minute, this process included; None if unknown.
        other_cores: processors busy with other processes, on average, of those in our affinity; None if unknown.
        clock_mhz, temperature_c: before and after: the mean clock of all processors, and the hottest thermal zone; None
            if unknown.
    """

    duration_s: float
    average_before: float | None
    average_after: float | None
    other_cores: float | None
    clock_mhz: tuple[float | None, float | None] = (None, None)
    temperature_c: tuple[float | None, float | None] = (None, None)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "duration_s": self.duration_s,
            "load_average_before": self.average_before,
            "load_average_after": self.average_after,
            "other_cores_busy": self.other_cores,
            "clock_mhz_before": self.clock_mhz[0],
            "clock_mhz_after": self.clock_mhz[1],
            "temperature_c_before": self.temperature_c[0],
            "temperature_c_after": self.temperature_c[1],
        }


@dataclass(frozen=True, slots=True)
class Counters:
    """What a machine counts, at one time.

    Attributes:
        now_s: of a clock.
        busy_s: processor time of all processes on the processors that we may use; None if unknown.
        own_s: of our process and its ended children.
        average: load average of the last minute; None if unknown.
        clock_mhz, temperature_c: see `Load`.
    """

    now_s: float
    busy_s: float | None
    own_s: float
    average: float | None
    clock_mhz: float | None
    temperature_c: float | None

    @classmethod
    def here(cls) -> Self:
        """Those of this machine and process."""
        read = {path: agent.read_text(path) for path in STATE_FILES}
        return cls(
            time.monotonic(), _busy_s(), agent.own_s(), agent.load_average(), clock_mhz(read), temperature_c(read)
        )


def load_between(before: Counters, after: Counters) -> Load:
    """The load from one time to another."""
    duration_s, other_cores = after.now_s - before.now_s, None
    if after.busy_s is not None and before.busy_s is not None and duration_s > 0:
        other_cores = max(0.0, after.busy_s - before.busy_s - (after.own_s - before.own_s)) / duration_s
    return Load(
        duration_s,
        before.average,
        after.average,
        other_cores,
        clock_mhz=(before.clock_mhz, after.clock_mhz),
        temperature_c=(before.temperature_c, after.temperature_c),
    )


class LoadWatch:
    """Measures the load from its creation on."""

    def __init__(self) -> None:
        self._before = Counters.here()

    @classmethod
    def start(cls) -> Self:
        """A watch that starts now."""
        return cls()

    def load(self) -> Load:
        """The load since the start."""
        return load_between(self._before, Counters.here())


MAX_ZONES, MAX_CLOCKS = 16, 64  # looked at
_STAT = "/proc/stat"
_CLOCKS = tuple(f"/sys/devices/system/cpu/cpu{index}/cpufreq/scaling_cur_freq" for index in range(MAX_CLOCKS))  # kHz
_ZONES = tuple(f"/sys/class/thermal/thermal_zone{index}/temp" for index in range(MAX_ZONES))  # thousandths of a degree
STATE_FILES = (_STAT, *_CLOCKS, *_ZONES)


def clock_mhz(read: Mapping[str, str]) -> float | None:
    """The mean clock of all processors, from the texts of `STATE_FILES`."""
    clocks = [int(text) / 1000 for path in _CLOCKS if (text := read.get(path, "").strip()).isdigit()]
    return sum(clocks) / len(clocks) if clocks else None


def temperature_c(read: Mapping[str, str]) -> float | None:
    """The temperature of the hottest thermal zone, from the texts of `STATE_FILES`."""
    zones = [int(text) / 1000 for path in _ZONES if (text := read.get(path, "").strip()).isdigit()]
    return max(zones, default=None)


def busy_s(read: Mapping[str, str], affinity: Iterable[int], ticks: int) -> float | None:
    """Seconds of processor time of all processes since the machine started, on some processors, from Linux's texts."""
    lines = [line.split() for line in read.get(_STAT, "").splitlines()]
    rows = {parts[0]: parts[1:9] for parts in lines if len(parts) >= 9 and all(map(str.isdigit, parts[1:9]))}
    counted = [rows.get(f"cpu{index}") for index in affinity]
    fields = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; idle and waiting are not work
    if not counted or None in counted:
        return None
    return sum(int(row[field]) for row in counted if row for field in fields) / ticks


_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")  # not all on every system


def _busy_s() -> float | None:
    """`busy_s` of this machine, on any system."""
    try:
        allowed = agent.affinity()
        is_part = len(allowed) < (os.cpu_count() or 1)
        each = psutil.cpu_times(percpu=True) if is_part else [psutil.cpu_times()]
        chosen = [each[index] for index in allowed] if is_part else each
    except (OSError, ValueError, IndexError, TypeError, psutil.Error):  # a sandbox whose /proc is not Linux's
        return None
    return sum(getattr(times, name, 0.0) for times in chosen for name in _BUSY)


def peak_memory_mib(work: Callable[[], object]) -> float:
    """Peak resident memory, in MiB, of a new process that does `work`: Python and all imports included.

    Args:
        work: a function without arguments that a new process can import by name (`functools.partial` of one is allowed,
            a lambda is not).

    Raises:
        RunError: the work failed or cannot be sent to another process, or the system (Windows) does not measure it.
    """
    if sys.platform == "win32":
        raise RunError("peak memory is measured on Linux and macOS only")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work_and_report, args=(work, sender))
    try:
        process.start()
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise RunError(f"a new process cannot import {work!r}: {error}; give a function of a module") from None
    sender.close()  # so that the end of the process closes the pipe
    try:
        peak, problem = receiver.recv()
    except EOFError:
        peak, problem = None, "its process ended without a result"
    process.join()
    if peak is None:
        raise RunError(f"{work!r} failed, so its memory means nothing: {problem}")
    return float(peak)


def _work_and_report(work: Callable[[], object], sender: Any) -> None:
    try:
        work()
    except Exception as error:
        sender.send((None, f"{type(error).__name__}: {error}"))
        return
    sender.send((_own_peak_mib(), None))


def _own_peak_mib() -> float:
    """psutil has no peaks on Linux and macOS."""
    status = Path("/proc/self/status")  # Linux: counted from the start of this program; getrusage includes its parent's
    if status.exists() and (found := re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))):
        return int(found.group(1)) * 1024 / MIB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / MIB  # bytes on macOS, KiB elsewhere


def resident_memory_mib() -> float:
    """Resident memory of this process now, in MiB.

    Raises:
        RunError: the system does not report it.
    """
    try:
        return float(psutil.Process().memory_info().rss) / MIB
    except (OSError, ValueError, IndexError, psutil.Error) as error:
        raise RunError(f"the system does not say how much memory is in use: {error}") from None

"""Machines made of files and of what programs would say; and the one the tests run on."""

import json
import os
import platform
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from lpsnet import agent
from lpsnet.benchmark import machine
from lpsnet.benchmark.machine import describe_machine

Said = dict[str, str]

CPUINFO_X86 = """\
processor	: 0
model name	: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz
flags		: fpu avx2 avx512f avx512_vnni amx_bf16 sse2

processor	: 1
model name	: Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz
"""
CPUINFO_ARM = """\
processor	: 0
BogoMIPS	: 62.50
Features	: fp asimd asimdhp asimddp
CPU implementer	: 0x41
"""
MEMINFO = "MemTotal:       32768000 kB\nMemFree: 5 kB\n"
LSCPU_ARM = (
    "Architecture:          aarch64\nVendor ID:             ARM\nModel name:            Cortex-A78AE\nModel: 1\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def cores(siblings: list[str]) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{index}/topology/thread_siblings_list": f"{text}\n"
        for index, text in enumerate(siblings)
    }


def answers(said: Said) -> machine.Ask:
    """Programs of which each says the same whatever it is asked; sysctl says what belongs to the last word."""
    return lambda command: said.get(command[-1] if command[0] == "sysctl" else command[0])


def tell_psutil(monkeypatch: pytest.MonkeyPatch, *, cores: int | None, memory: int | None) -> None:
    """What the system says of its physical cores and its memory in bytes; None: nothing."""

    def virtual_memory() -> SimpleNamespace:
        if memory is None:
            raise RuntimeError("it does not say")
        return SimpleNamespace(total=memory)

    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 99 if logical else cores)
    monkeypatch.setattr(psutil, "virtual_memory", virtual_memory)


@pytest.fixture
def four_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads of a machine whose files lie in `tmp_path`, for psutil too."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))
    monkeypatch.setattr(agent, "affinity", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(platform, "machine", lambda: "the architecture")


@pytest.mark.usefixtures("four_threads")
def test_a_server_with_a_gpu(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": CPUINFO_X86,
        "proc/meminfo": MEMINFO,
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.3 LTS"\n',
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    }
    root = write(tmp_path, {**files, **cores(["0-1", "0-1", "2-3", "2-3"])})
    gpus = "NVIDIA GeForce GTX 1080 Ti, 535.54.03\nNVIDIA GeForce GTX 1080 Ti, 535.54.03\n"
    found = describe_machine(root=root, ask=answers({"nvidia-smi": gpus}), system="Linux")
    assert found.cpu == "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz"
    assert found.cpu_features == ("avx2", "avx512f", "avx512_vnni", "amx_bf16")
    assert (found.num_cores, found.num_threads, found.memory_mib) == (2, 4, 32000)
    assert found.gpus == ("NVIDIA GeForce GTX 1080 Ti",) * 2
    assert found.gpu_driver == "535.54.03"
    assert found.board is None
    assert found.system.startswith("Ubuntu 22.04.3 LTS, kernel ")
    assert found.identity == (
        "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz (2 cores, 4 threads); NVIDIA GeForce GTX 1080 Ti; "
        "NVIDIA GeForce GTX 1080 Ti; power mode performance"
    )


@pytest.mark.usefixtures("four_threads")
def test_a_jetson_and_its_power_mode(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": CPUINFO_ARM,
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    }
    root = write(tmp_path, {**files, **cores(["0", "1", "2", "3"])})
    said = {"lscpu": LSCPU_ARM, "nvpmodel": "NV Power Mode: MAXN\n0\n"}
    found = describe_machine(root=root, ask=answers(said), system="Linux")
    assert (found.cpu, found.board, found.power_mode) == (
        "Cortex-A78AE",
        "NVIDIA Jetson Orin Nano Developer Kit",
        "MAXN",
    )
    assert found.cpu_features == ("asimd", "asimdhp", "asimddp")
    assert found.identity == (
        "NVIDIA Jetson Orin Nano Developer Kit; Cortex-A78AE (4 cores, 4 threads); power mode MAXN"
    )


@pytest.mark.usefixtures("four_threads")
def test_a_raspberry_pi_whose_lscpu_is_missing(tmp_path: Path) -> None:
    hardware = {"proc/cpuinfo": f"{CPUINFO_ARM}\nHardware	: BCM2835\n"}
    root = write(tmp_path, {**hardware, "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0"})
    found = describe_machine(root=root, ask=answers({}), system="Linux")
    assert (found.cpu, found.board) == ("BCM2835", "Raspberry Pi 4 Model B Rev 1.4")
    assert (found.num_cores, found.memory_mib, found.power_mode, found.gpus) == (None, None, None, ())
    assert found.identity == "Raspberry Pi 4 Model B Rev 1.4; BCM2835 (4 threads)"


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("quota", "threads"),
    [("150000 100000", 2), ("max 100000", 4), ("900000 100000", 4), ("1000 100000", 1), ("rubbish", 4), ("5 0", 4)],
)
def test_a_containers_share_of_the_machine(tmp_path: Path, quota: str, threads: int) -> None:
    files = {
        "proc/cpuinfo": CPUINFO_X86,
        "proc/meminfo": MEMINFO,
        "sys/fs/cgroup/cpu.max": f"{quota}\n",
        "sys/fs/cgroup/memory.max": f"{2**30}\n",
    }
    found = describe_machine(root=write(tmp_path, files), ask=answers({}), system="Linux")
    assert found.num_threads == threads
    assert found.memory_mib == 1024


@pytest.mark.usefixtures("four_threads")
def test_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"machdep.cpu.brand_string": "Apple M2 Pro\n"}
    tell_psutil(monkeypatch, cores=10, memory=16 * 2**30)
    found = describe_machine(root=tmp_path, ask=answers(said), system="Darwin")
    assert (found.cpu, found.num_cores, found.memory_mib) == ("Apple M2 Pro", 10, 16384)
    assert found.system.startswith("macOS")


@pytest.mark.usefixtures("four_threads")
def test_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"powershell": "AMD Ryzen 7 5800X 8-Core Processor             \r\n"}
    tell_psutil(monkeypatch, cores=8, memory=34280000000)
    found = describe_machine(root=tmp_path, ask=answers(said), system="Windows")
    assert (found.cpu, found.num_cores, found.memory_mib) == ("AMD Ryzen 7 5800X 8-Core Processor", 8, 32691)


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows", "FreeBSD"])
def test_a_machine_that_says_nothing_is_described_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str
) -> None:
    tell_psutil(monkeypatch, cores=None, memory=None)
    found = describe_machine(root=tmp_path, ask=answers({}), system=system)
    assert found.cpu
    assert found.num_threads == 4
    assert (found.num_cores, found.memory_mib, found.gpu_driver, found.board, found.power_mode) == (None,) * 5


def test_this_machine() -> None:
    found = describe_machine()
    assert found.python == platform.python_version()
    assert 1 <= found.num_threads <= (os.cpu_count() or 1)
    assert found == describe_machine()
    text = json.dumps(found.to_dict())
    assert json.loads(text)["identity"] == found.identity
    assert len(name := socket.gethostname()) < 8 or name not in text  # a short one may be part of any word


def test_programs_that_fail_or_are_missing_say_nothing() -> None:
    assert agent.ask_program([sys.executable, "-c", "print('yes')"]) == "yes\n"
    assert agent.ask_program([sys.executable, "-c", "raise SystemExit(3)"]) is None
    assert agent.ask_program(["there-is-no-such-program"]) is None


def test_load_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 1.0, 0.5), raising=False)
    assert agent.load_average() == 1.5

    def unknown() -> None:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", unknown)
    assert agent.load_average() is None
    monkeypatch.delattr(os, "getloadavg")
    assert agent.load_average() is None


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/venv/bin/lpsnet", "lpsnet expand --out 'a b'"),
        ("/venv/lib/lpsnet/__main__.py", "python -m lpsnet expand --out 'a b'"),
        ("", "python expand --out 'a b'"),
    ],
)
def test_the_command_line_is_one_that_a_shell_takes(program: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [program, "expand", "--out", "a b"])
    assert machine.command_line() == said

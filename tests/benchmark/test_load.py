"""The load of made-up machines, and of this one while it works."""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from lpsnet import agent
from lpsnet.benchmark import machine as load
from lpsnet.benchmark.machine import LoadWatch

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="machines are made of Linux's files")


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that psutil takes for /proc."""
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    return tmp_path


def stat(proc: Path, *seconds: float) -> None:
    """user, nice, system, idle, iowait, irq, softirq, steal"""
    fields = " ".join(str(round(second * TICKS)) for second in seconds)
    (proc / "stat").write_text(f"cpu  {fields} 0 0\ncpu0 1 2 3\n")


@linux_only
def test_other_work_is_what_processors_did_less_our_own(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"clock": 100.0, "own": 10.0}
    monkeypatch.setattr(load.time, "monotonic", lambda: now["clock"])
    monkeypatch.setattr(agent, "own_s", lambda: now["own"])
    monkeypatch.setattr(agent, "affinity", lambda: list(range(os.cpu_count() or 1)))
    stat(proc, 50, 5, 20, 1000, 7, 1, 1, 3)
    watch = LoadWatch()
    now.update(clock=110.0, own=18.0)
    # 20 s in all over 10 s: 8 of them ours, so 1.2 processors for others; idle and waiting do not count
    stat(proc, 60, 6, 24, 1500, 70, 2, 2, 6)
    found = watch.load()
    assert found.duration_s == 10
    assert found.other_cores == pytest.approx(1.2)


@linux_only
def test_work_of_processors_that_we_may_not_use_does_not_count(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `taskset -c 1,2`."""
    now = {"clock": 0.0, "own": 0.0}
    monkeypatch.setattr(load.time, "monotonic", lambda: now["clock"])
    monkeypatch.setattr(agent, "own_s", lambda: now["own"])
    monkeypatch.setattr(load.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(agent, "affinity", lambda: [1, 2])

    def counted(*busy_s: float) -> None:
        lines = [f"cpu{number} {round(busy * TICKS)} 0 0 900 0 0 0 0 0 0" for number, busy in enumerate(busy_s)]
        (proc / "stat").write_text(
            "\n".join([f"cpu  {round(sum(busy_s) * TICKS)} 0 0 900 0 0 0 0 0 0", *lines, "intr 0"])
        )

    counted(100, 100, 100, 100)
    watch = LoadWatch()
    now.update(clock=10.0, own=6.0)
    counted(110, 107, 101, 109)  # 8 s on ours, 6 of them our own
    assert watch.load().other_cores == pytest.approx(0.2)


@linux_only
@pytest.mark.parametrize("text", [None, "cpu what is this", "", "cpu 1 2", "\n"])
def test_a_system_that_does_not_count_says_nothing(proc: Path, text: str | None) -> None:
    if text is not None:
        (proc / "stat").write_text(text)
    assert LoadWatch().load().other_cores is None


def test_it_is_json() -> None:
    found = load.Load(1.5, 0.5, None, 0.25, clock_mhz=(1800.0, 1500.0))
    assert found.to_dict() == {
        "duration_s": 1.5,
        "load_average_before": 0.5,
        "load_average_after": None,
        "other_cores_busy": 0.25,
        "clock_mhz_before": 1800.0,
        "clock_mhz_after": 1500.0,
        "temperature_c_before": None,
        "temperature_c_after": None,
    }


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="Linux only")
def test_our_own_work_is_not_counted_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What we burn shows in the processor's time and in our own alike."""
    watch = LoadWatch.start()
    others = watch.load().other_cores
    end = time.process_time() + 0.2
    while time.process_time() < end:
        pass
    found = watch.load()
    assert others is not None
    assert found.other_cores is not None
    assert found.other_cores * found.duration_s < (os.cpu_count() or 1) * found.duration_s - 0.15

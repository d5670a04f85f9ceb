"""A search on a device in a network namespace, behind a slow line that is cut."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import far_search
import pytest
from ssh_server import has_namespaces, is_there, namespace, server

from lpsnet.benchmark.device import Device
from lpsnet.report.search import read_expansion
from lpsnet.search.journal import StepDecided, read_journal
from lpsnet.search.run import JOURNAL

CUTS = 10


def decisions(folder: Path) -> list[str]:
    events = read_journal(folder / JOURNAL)
    return [str(it.row.member.design) for it in events if isinstance(it, StepDecided)]


@pytest.mark.slow
@pytest.mark.skipif(bool(is_there()), reason=is_there())
def test_decisions_are_those_of_a_search_on_the_device_and_cuts_cost_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device has half of two processors; here, `pytest -s -m slow` prints the shares of the time."""
    if not has_namespaces() or (os.cpu_count() or 1) < 2:
        pytest.skip("needs network namespaces, and two processors")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        with namespace("lpsfar", core=1) as (host, inside):
            code = [*inside, sys.executable, far_search.__file__, tmp_path / "directly"]
            subprocess.run(code, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
            with (
                server(tmp_path, monkeypatch, host=host, prefix=inside, is_slow=True) as sshd,
                Device(sshd.address) as device,
            ):
                far_search.run(tmp_path / "far", device)
                ended, cuts = threading.Event(), []

                def cut() -> None:
                    while len(cuts) < CUTS and not ended.wait(4):
                        sshd.cut()
                        cuts.append(time.monotonic())

                thread = threading.Thread(target=cut)
                thread.start()
                far_search.run(tmp_path / "cut", device)
                ended.set()
                thread.join()
                assert len(cuts) == CUTS
    finally:
        os.sched_setaffinity(0, before)
    assert len(decisions(tmp_path / "directly")) == 4
    assert decisions(tmp_path / "far") == decisions(tmp_path / "directly")
    assert decisions(tmp_path / "cut") == decisions(tmp_path / "directly")
    for name in ("directly", "far", "cut"):
        print(f"{name}: {read_expansion(tmp_path / name).busy}")
    found = read_expansion(tmp_path / "far").busy
    assert found is not None
    assert found.both > 0

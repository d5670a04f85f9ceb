"""Locks between processes: refused, waited for, given up by the dead, done without."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lpsnet import io as locks
from lpsnet.agent import LOCK_NAME
from lpsnet.benchmark.timing import TimingProtocol, measure
from lpsnet.errors import RunError
from lpsnet.io import locked_folder, one_at_a_time

QUICK = TimingProtocol(warm_up_s=0.0, duration_s=1e-6, turn_s=1e-6)
HOLDER = (
    "import sys; from pathlib import Path; from lpsnet.io import one_at_a_time\n"
    "with one_at_a_time(Path(sys.argv[1]), on_wait=print): print('held', flush=True); sys.stdin.read()"
)


def hold(path: Path) -> "subprocess.Popen[str]":
    """Another process that has the turn until its input ends."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    return other


def test_a_place_that_is_no_folder_cannot_be_locked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RunError, match="cannot use the folder"), locked_folder(tmp_path / "file"):
        pass


def test_a_locked_folder_is_refused_to_another_process_until_the_first_ends(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lpsnet.io import locked_folder\n"
        "with locked_folder(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"in use by process {other.pid}"), locked_folder(tmp_path):
            pass
        other.kill()
        other.wait()
        with locked_folder(tmp_path):
            pass


@pytest.mark.parametrize("end", ["done", "killed"])
def test_a_lock_is_waited_for_and_the_wait_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    path, seen = tmp_path / "turn", []
    with hold(path) as other:

        def on_wait() -> None:
            seen.append(other.poll())  # None: it still runs
            other.kill() if end == "killed" else other.communicate()

        with one_at_a_time(path, on_wait=on_wait):
            assert other.wait() == (-9 if end == "killed" else 0)
    assert seen == [None]


def test_a_turn_within_a_turn_is_let_in_and_keeps_others_out_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    path, entered = tmp_path / "turn", threading.Event()

    def enter() -> None:
        with one_at_a_time(path, on_wait=pytest.fail):
            entered.set()

    thread = threading.Thread(target=enter)
    with one_at_a_time(path, on_wait=pytest.fail):
        with one_at_a_time(path, on_wait=pytest.fail):
            thread.start()
        assert not entered.wait(0.05)
        command = [sys.executable, "-c", HOLDER, path]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as other:
            with pytest.raises(subprocess.TimeoutExpired):
                other.wait(0.5)
            other.kill()
    thread.join()
    assert entered.is_set()


@pytest.mark.parametrize("obstacle", ["no folder", "a folder", "a link", "a pipe"])
def test_where_nothing_can_be_locked_nothing_is_waited_for(tmp_path: Path, obstacle: str) -> None:
    path = tmp_path / "turn"
    if obstacle == "no folder":
        path = tmp_path / "missing" / "turn"
    elif obstacle == "a folder":
        path.mkdir()
    elif obstacle == "a link":
        (tmp_path / "elsewhere").touch()
        path.symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(path)
    with one_at_a_time(path, on_wait=pytest.fail):
        entered = True
    assert entered


def test_measurements_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locks, "PATIENCE_S", 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    running: list[bool] = []
    with hold(tmp_path / LOCK_NAME) as other:
        threading.Timer(0.3, other.communicate).start()
        measure({"call": lambda: running.append(other.poll() is None)}, protocol=QUICK)
    assert running
    assert not any(running)
    assert "another process measures on this machine" in caplog.text

"""A device behind a real OpenSSH server: whole commands, logins that fail, and connections that are cut."""

import html
import json
import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ssh_server import Server, is_there, make_key, server

from lpsnet.benchmark.device import Device
from lpsnet.benchmark.timing import TimingProtocol, measure
from lpsnet.errors import DeviceError, MissingDependencyError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.hub import find_model

pytestmark = pytest.mark.skipif(bool(is_there()), reason=is_there())

SIZE = (32, 64)
MODEL = find_model("camvid_s")
OPTIONS = SessionOptions(MODEL, "f32", 1, SIZE)
IMAGE = np.random.default_rng(0).standard_normal((1, 3, *SIZE), np.float32)
PROTOCOL = TimingProtocol(warm_up_s=0.05, duration_s=2.0)


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with server(tmp_path, monkeypatch) as found:
        yield found


def run_command(*words: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "lpsnet", *map(str, words)], capture_output=True, text=True, check=False
    )


def wait_for_end(sshd: Server) -> None:
    for _ in range(100):
        if not sshd.agents():
            return
        time.sleep(0.1)
    raise AssertionError(f"still running: {sshd.agents()}")


def test_a_benchmark_over_ssh(sshd: Server, tmp_path: Path) -> None:
    words = ("benchmark", "camvid_s", "--size", "32x64", "--threads", 1, "--protocol", "quick")
    done = run_command(*words, "--device", sshd.address, "--json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert f"on {sshd.address}: " in " ".join(done.stdout.split())
    values = json.loads((tmp_path / "b.json").read_text())
    assert values["device"] == sshd.address
    assert sum(map(sum, values["results"][0]["network"]["turns_ms"])) >= 2000
    wait_for_end(sshd)
    kept = {path.relative_to(sshd.cache).parts[0] for path in sshd.cache.rglob("*") if path.is_file()}
    assert kept <= {"lpsnet-agent", "Microsoft"}  # the latter is ONNX Runtime's own
    report = run_command("report", tmp_path / "b.json", "--out", tmp_path / "b.html")
    assert report.returncode == 0, report.stderr
    assert sshd.address in html.unescape((tmp_path / "b.html").read_text())


def test_the_same_network_takes_the_same_time_there_as_here(sshd: Server) -> None:
    """Interleaved; the machine of the tests is busy, so only gross differences count."""
    here = open_session("onnxruntime", OPTIONS)
    ratios = []
    with Device(sshd.address) as device:
        there = device.open_session("onnxruntime", OPTIONS)
        np.testing.assert_array_equal(there.run(IMAGE), here.run(IMAGE))
        short = TimingProtocol(warm_up_s=0.05, duration_s=0.3)
        for _ in range(5):
            ours = measure({"": lambda: here.run(IMAGE)}, protocol=short)[""]
            theirs = device.measure({"": (there, IMAGE)}, protocol=short)[0][""]
            ratios.append(theirs.min_ms / ours.min_ms)
    assert 0.5 < float(np.median(ratios)) < 2.0


LOGINS = {
    "another key": ({"key": "other"}, "it refuses the login; set up a key, so that this asks for nothing: ssh -p"),
    "an unknown host": ({"known": "none"}, "its host key is unknown or has changed: log in once by hand"),
    "a host whose key has changed": ({"known": "changed"}, "its host key is unknown or has changed"),
}


@pytest.mark.parametrize("name", LOGINS)
def test_a_login_that_fails_is_one_line(name: str, sshd: Server, tmp_path: Path) -> None:
    choice, text = LOGINS[name]
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{sshd.port} {(tmp_path / 'other.pub').read_text()}")
    sshd.write_config(**choice)
    done = run_command("benchmark", "camvid_s", "--size", "32x64", "--device", sshd.address)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none").exists()  # an unknown key is not accepted behind the user's back
    wait_for_end(sshd)


def test_hosts_that_are_not_there(sshd: Server) -> None:
    with (
        Device(f"ssh://root@no-such-host.invalid:{sshd.port}") as device,
        pytest.raises(DeviceError, match="no such host"),
    ):
        device.connect()
    sshd.stop()
    with Device(sshd.address) as device, pytest.raises(DeviceError, match="does not answer; is it on"):
        device.connect()


def test_a_device_without_python(sshd: Server) -> None:
    with (
        Device(sshd.with_python(Path("/no/python3"))) as device,
        pytest.raises(DeviceError, match=r"it has no /no/python3; install Python 3\.8 or newer there, or name another"),
    ):
        device.connect()


def test_a_device_without_the_engine(sshd: Server, tmp_path: Path) -> None:
    """Its python3 is a script that hides ONNX Runtime."""
    hidden, python = tmp_path / "hidden", tmp_path / "python3"
    hidden.mkdir()
    (hidden / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')\n")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={hidden} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with Device(sshd.with_python(python)) as device, pytest.raises(MissingDependencyError) as caught:
        device.open_session("onnxruntime", OPTIONS)
    command = f"ssh -p {sshd.port} root@127.0.0.1 {python} -m pip install onnxruntime"
    assert f"onnxruntime is not installed on {sshd.with_python(python)}; it comes with: {command}" in str(caught.value)


def test_an_agent_that_was_changed_there_is_replaced(sshd: Server) -> None:
    with Device(sshd.address) as device:
        device.connect()
    (file,) = sshd.cache.glob("lpsnet-agent/*/agent.py")
    whole = file.read_bytes()
    file.write_bytes(b"raise SystemExit(3)\n" + whole)
    with Device(sshd.address) as device:
        assert device.machine.python
    assert file.read_bytes() == whole


@pytest.mark.parametrize("restart", [False, True], ids=["a cut connection", "a device that is restarted"])
def test_a_measurement_survives(restart: bool, sshd: Server, caplog: pytest.LogCaptureFixture) -> None:
    cuts: list[float] = []

    def cut(part: float) -> None:
        if cuts or part < 0.2:
            return
        cuts.append(part)
        if restart:
            sshd.stop()
            shutil.rmtree(sshd.cache)  # as if it kept nothing
            threading.Timer(2.0, sshd.start).start()
        else:
            sshd.cut()

    pauses = (0.5,) * 20
    with caplog.at_level(logging.WARNING), Device(sshd.address, pauses_s=pauses) as device:
        session = device.open_session("onnxruntime", OPTIONS)
        found, _ = device.measure({"": (session, IMAGE)}, protocol=TimingProtocol(duration_s=3.0), on_progress=cut)
    assert cuts
    assert "was lost" in caplog.text
    assert sum(found[""].samples_ms) >= 3000
    wait_for_end(sshd)


def test_a_key_that_changes_while_connected_is_not_tried_again(sshd: Server, tmp_path: Path) -> None:
    with Device(sshd.address, pauses_s=(0.1,) * 50) as device:
        device.connect()
        sshd.stop()
        (tmp_path / "host").unlink()
        (tmp_path / "host.pub").unlink()
        make_key(tmp_path / "host")
        sshd.start()
        began = time.monotonic()
        with pytest.raises(DeviceError, match="host key is unknown or has changed"):
            device.open_session("onnxruntime", OPTIONS)
        assert time.monotonic() - began < 20


def test_the_agent_ends_with_its_desk(sshd: Server) -> None:
    words = ["benchmark", "camvid_s", "--size", "32x64", "--protocol", "paper", "--device", sshd.address]
    desk = subprocess.Popen([sys.executable, "-m", "lpsnet", *words], stdout=subprocess.DEVNULL)
    for _ in range(300):
        if sshd.agents() or desk.poll() is not None:
            break
        time.sleep(0.1)
    assert sshd.agents()
    time.sleep(1)
    desk.kill()
    desk.wait()
    wait_for_end(sshd)

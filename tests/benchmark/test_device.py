"""A device that is a process of this machine, in place of ssh: figures, errors, and connections that are lost."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from lpsnet import agent
from lpsnet.benchmark import device as module
from lpsnet.benchmark import machine
from lpsnet.benchmark.benchmark import Benchmark, Candidate, benchmark
from lpsnet.benchmark.device import Address, Device
from lpsnet.benchmark.timing import PROTOCOLS, TimingProtocol, compare
from lpsnet.benchmark.tune import tune
from lpsnet.errors import DeviceError, MissingDependencyError, ModelFileError, RunError
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.hub import find_model

SIZE = (32, 64)
MODEL = find_model("camvid_s")
SHORT = TimingProtocol(warm_up_s=0.01, duration_s=0.1, turn_s=0.001)
LONG = TimingProtocol(warm_up_s=0.01, duration_s=2.0)
ADDRESS = "ssh://me@there"
RUN = [sys.executable, "-u", "-c"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="devices are not Windows")


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 3, *SIZE), np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the agent keeps its files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lpsnet-agent"


def local(before: str = "", **options: object) -> Device:
    """A device whose Python runs some code before."""
    return Device(ADDRESS, command=[*RUN, f"{before}\n{module._READ_CODE}"], **{"pauses_s": (0.01, 0.01), **options})


@pytest.fixture
def device() -> Iterator[Device]:
    with local() as found:
        yield found


def options(precision: str = "f32", threads: int = 1, path: Path = MODEL) -> SessionOptions:
    return SessionOptions(path, precision, threads, SIZE)  # type: ignore[arg-type]


def test_it_describes_its_machine_as_the_machine_does_itself(device: Device) -> None:
    assert device.machine == machine.describe_machine()


def test_nothing_of_this_machine_is_taken_for_the_devices(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose files cannot be read has no more than the agent says of it."""
    asked = {"python": "3.9.1", "system": "Darwin", "release": "14.1", "architecture": "arm64", "processor": "arm"}
    answers = {"about": {**asked, "affinity": [0, 1, 2], "ticks": 100}, "ask": None}

    def answer(self: Device, do: str, **arguments: list[str]) -> object:
        return {"texts": dict.fromkeys(arguments["paths"], "")} if do == "state" else answers[do]

    monkeypatch.setattr(Device, "_ask", answer)
    nothing = {"cpu_features": (), "num_cores": None, "memory_mib": None, "gpus": (), "gpu_driver": None, "board": None}
    assert device.machine == machine.Machine(
        cpu="arm", num_threads=3, power_mode=None, architecture="arm64", system="macOS 14.1", python="3.9.1", **nothing
    )


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "ncnn"])
def test_a_network_gives_the_same_there(runtime: str, device: Device, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    path = MODEL
    if runtime == "ncnn":
        pytest.importorskip("pnnx")
        from engine_models import small_network, write_model

        path = write_model(small_network(), tmp_path / "m.ncnn", size=SIZE)
    here, there = (opened(runtime, options(path=path)) for opened in (open_session, device.open_session))
    assert (there.runtime, there.engine, there.precision) == (here.runtime, here.engine, here.precision)
    assert there.num_threads == here.num_threads
    images = np.concatenate([image(0), image(1)])
    np.testing.assert_array_equal(there.run(images), here.run(images))


def test_what_an_engine_cannot_do_is_said_as_here(device: Device) -> None:
    wrong = replace(options(), input_size=(48, 48), path=MODEL)
    for case in (options("bf16"), options("int8")):
        with pytest.raises(ModelFileError) as here:
            open_session("onnxruntime", case)
        with pytest.raises(ModelFileError) as there:
            device.open_session("onnxruntime", case)
        assert str(there.value) == str(here.value).replace("possible on this machine", f"possible on {ADDRESS}")
    assert device.open_session("onnxruntime", wrong).run(np.zeros((1, 3, 48, 48), np.float32)).shape[:1] == (1,)
    with pytest.raises(ModelFileError, match=r"pytorch does not run on a device over ssh; onnxruntime,"):
        device.open_session("pytorch", options())


def test_a_description_without_its_weights_is_said(device: Device, tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(ModelFileError, match=r"model.xml has its weights in model.bin, which is not beside it"):
        device.open_session("openvino", options(path=tmp_path / "model.xml"))


def test_all_samples_come_back_with_the_load(device: Device) -> None:
    sessions = {name: device.open_session("onnxruntime", options()) for name in ("a", "b")}
    parts: list[float] = []
    items = {name: (session, image()) for name, session in sessions.items()}
    found, load = device.measure(items, protocol=SHORT, on_progress=parts.append)
    a, b = found["a"], found["b"]
    assert a.num_rounds == b.num_rounds >= 6
    assert sum(a.samples_ms) >= 100
    assert compare(a, b).num_rounds == a.num_rounds  # of one run
    assert load.duration_s >= 0.2
    assert load.other_cores is not None
    assert 0 <= load.other_cores <= (os.cpu_count() or 1)


def test_processor_time_is_counted_as_psutil_does() -> None:
    read = {path: agent.read_text(path) for path in machine.STATE_FILES}
    if not read["/proc/stat"]:
        pytest.skip("Linux only")
    every = range(os.cpu_count() or 1)
    busy = machine.busy_s(read, every, os.sysconf("SC_CLK_TCK"))
    times = psutil.cpu_times()
    expected = sum(getattr(times, name) for name in machine._BUSY)
    assert busy == pytest.approx(expected, abs=2.0 + 0.02 * len(every))


def test_clock_and_temperature_by_hand() -> None:
    cpu, zone = "/sys/devices/system/cpu/cpu{}/cpufreq/scaling_cur_freq", "/sys/class/thermal/thermal_zone{}/temp"
    read = {cpu.format(0): "1800000\n", cpu.format(3): "600000\n", zone.format(0): "48312\n", zone.format(1): "x"}
    assert machine.clock_mhz(read) == 1200.0
    assert machine.temperature_c(read) == 48.312
    assert machine.clock_mhz({}) is machine.temperature_c({}) is None


def test_files_are_sent_once_and_again_if_they_are_damaged(device: Device, cache: Path, monkeypatch) -> None:
    sent: list[str] = []
    send = module.Connection.send
    monkeypatch.setattr(module.Connection, "send", lambda self, *file: sent.append(file[0]) or send(self, *file))
    device.open_session("onnxruntime", options())
    device.open_session("onnxruntime", options(threads=2))
    assert len(sent) == 1
    (kept,) = (cache / "files").iterdir()
    assert kept.read_bytes() == MODEL.read_bytes()
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with local() as other:
        other.open_session("onnxruntime", options())
    assert len(sent) == 2
    assert kept.read_bytes() == MODEL.read_bytes()


def test_an_agent_that_was_changed_there_is_never_run(device: Device, cache: Path, tmp_path: Path) -> None:
    device.connect()
    (file,) = cache.glob("*/agent.py")
    whole = file.read_bytes()
    assert whole == Path(agent.__file__).read_bytes()
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + file.read_text())
    with local() as other:
        assert other.machine == device.machine
    assert file.read_bytes() == whole
    assert not (tmp_path / "ran").exists()


def agent_of(device: Device) -> psutil.Process:
    assert device._connection is not None
    return psutil.Process(device._connection._process.pid)


def test_a_measurement_that_is_cut_is_made_again_whole(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    """The first agent is killed in the middle; what comes is of the second alone, and as long as was asked for."""
    session = device.open_session("onnxruntime", options())
    first, killed = agent_of(device), list[float]()

    def kill(part: float) -> None:
        if not killed and part > 0.2:
            killed.append(part)
            first.kill()

    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        found, load = device.measure({"": (session, image())}, protocol=LONG, on_progress=kill)
    assert killed
    assert agent_of(device).pid != first.pid
    assert sum(found[""].samples_ms) >= 2000
    assert 2 <= load.duration_s <= time.monotonic() - began - 0.2 * 2
    assert "was lost" in caplog.text


def test_a_file_that_is_cut_is_sent_again_whole(device: Device, cache: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "PART_BYTES", len(MODEL.read_bytes()) // 5)
    device.connect()
    ask, asked = module.Connection.ask, list[str]()

    def cut(self: module.Connection, request: dict, *rest: Callable[[float], None]) -> object:
        asked.append(request["do"])
        if asked.count("put") == 3 and request["do"] == "put":
            agent_of(device).kill()
            agent_of(device).wait()
        return ask(self, request, *rest)

    monkeypatch.setattr(module.Connection, "ask", cut)
    device.open_session("onnxruntime", options())
    assert [path.read_bytes() for path in (cache / "files").glob("*.onnx")] == [MODEL.read_bytes()]
    assert asked.count("put") == 3 + 6


def test_a_device_that_does_not_come_back_is_given_up(tmp_path: Path) -> None:
    once = f"import pathlib; pathlib.Path({str(tmp_path / 'once')!r}).mkdir()"  # fails from the second time on
    with local(once) as device:
        device.connect()
        agent_of(device).kill()
        with pytest.raises(DeviceError, match=r"me@there was lost, and 2 more attempts in 0 s failed: ") as caught:
            device.open_session("onnxruntime", options())
    assert "\n" not in str(caught.value)


ERRORS = {
    "no engine": (
        "sys.modules['onnxruntime'] = None",
        MissingDependencyError,
        "is not installed on ssh://me@there; it comes with: ssh me@there python3 -m pip install onnxruntime",
    ),
    "an engine that does not load": (
        "sys.modules['onnxruntime'] = type('Old', (), {'__version__': '1.9'})",
        ModelFileError,
        f"ssh://me@there cannot load {MODEL} with onnxruntime 1.9: ",
    ),
    "old Python": (
        "sys.version_info = (3, 7, 1); sys.version = '3.7.1 (x)'",
        DeviceError,
        "ssh://me@there has Python 3.7.1; the agent takes 3.8 or newer: ssh://me@there?python=PATH",
    ),
    "no space": (
        "import os; os.environ['XDG_CACHE_HOME'] = '/proc/nowhere'",
        DeviceError,
        "cannot keep files (No such file or directory: /proc/nowhere",
    ),
    "no end of greetings": ("print('hello\\n' * 2000)", DeviceError, "its login prints without end"),
    "an end at once": ("raise SystemExit(4)", DeviceError, "ssh://me@there cannot be used: exit status 4"),
    "another program": (
        'import os; os.write(1, b\'{"lpsnet_agent": {"ready": true}}\\n[1, 2]\\n\')',
        DeviceError,
        "it answers with other lines than the agent's",
    ),
    "no Python": ("raise SystemExit(127)", DeviceError, "it has no python3; install Python 3.8 or newer there"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_is_wrong_there_is_said_in_one_line(name: str) -> None:
    code, kind, text = ERRORS[name]
    with local(f"import sys; {code}") as device, pytest.raises(kind) as caught:
        device.open_session("onnxruntime", options())
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "PATH; " not in str(caught.value)


SSH_SAYS = {
    "Host key verification failed.": ("host key is unknown or has changed: log in once by hand", False),
    "me@there: Permission denied (publickey,password).": ("it refuses the login; set up a key", False),
    "ssh: Could not resolve hostname there: Name or service not known": ("there is no such host", True),
    "ssh: connect to host there port 22: Connection refused": ("it does not answer; is it on", True),
    "ssh: connect to host there port 22: Connection timed out": ("it does not answer; is it on", True),
    "sh: 1: python3: Permission denied": ("sh: 1: python3: Permission denied; exit status 255", True),
}


@pytest.mark.parametrize("line", SSH_SAYS)
def test_what_ssh_says_is_told_with_what_to_do(line: str) -> None:
    text, is_tried_again = SSH_SAYS[line]
    error = Device(ADDRESS)._explain(f"Warning: Permanently added.\n{line}\nexit status 255")
    assert text in str(error)
    assert isinstance(error, DeviceError) is not is_tried_again


def test_greetings_of_a_login_are_skipped() -> None:
    with local("print('Welcome!\\n{}')") as device:
        assert device.machine.python


def test_a_greeting_without_a_new_line_is_skipped() -> None:
    with local("import sys; sys.stdout.write('Welcome! '); sys.stdout.flush()") as device:
        assert device.machine.python


def test_modules_are_not_taken_from_the_folder_that_a_login_begins_in(tmp_path: Path) -> None:
    (tmp_path / "hashlib.py").write_text("raise SystemExit('wrong module')")
    with local(f"import os; os.chdir({str(tmp_path)!r})") as device:
        device.connect()


def test_threads_share_a_device(device: Device) -> None:
    session, images = device.open_session("onnxruntime", options()), [image(seed) for seed in range(4)]
    expected = [session.run(it) for it in images]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(session.run, images * 5), expected * 5, strict=True):
            np.testing.assert_array_equal(found, right)


def test_after_an_interrupt_answers_are_those_of_their_own_requests(device: Device) -> None:
    session = device.open_session("onnxruntime", options())
    expected = session.run(image())

    def interrupt(part: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.measure({"": (session, image())}, protocol=LONG, on_progress=interrupt)
    np.testing.assert_array_equal(session.run(image()), expected)


def test_the_memory_of_an_agent_that_has_run_nothing_is_not_told(device: Device, monkeypatch) -> None:
    text = Device._text

    def lost(self: Device, path: str) -> str:
        agent_of(self).kill()
        return text(self, path)

    monkeypatch.setattr(Device, "_text", lost)
    with pytest.raises(DeviceError, match="was lost before it told the peak of memory; measure again"):
        device.peak_memory_mib("onnxruntime", options(), image())


def test_what_the_agent_refuses_about_its_machine_is_one_line(device: Device, monkeypatch) -> None:
    def refuse(*request: object) -> None:
        raise module._RefusedError("failed", "ValueError: no such figure")

    monkeypatch.setattr(module.Connection, "ask", refuse)
    with pytest.raises(DeviceError, match=r"^ssh://me@there: ValueError: no such figure$"):
        device.machine  # noqa: B018


@pytest.mark.parametrize("text", ["ssh 'open", "  "])
def test_a_command_for_ssh_that_is_none_is_said(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.SSH, text)
    with pytest.raises(DeviceError, match=r"LPSNET_SSH=.* is no command; give one such as"):
        Device(ADDRESS)


def test_no_connection_of_another_is_shared() -> None:
    command = Address.parse(ADDRESS).command
    assert command[command.index("ControlPath=none") - 1] == "-o"


def test_without_ssh_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(module.SSH, "there-is-no-such-ssh -v")
    with Device(ADDRESS) as device, pytest.raises(DeviceError, match="install OpenSSH's client"):
        device.connect()


GOOD = {
    "ssh://me@there": ("me@there", None, "python3"),
    "ssh://there:2222/": ("there", 2222, "python3"),
    "ssh://pi@192.168.1.7:22?python=~/venv/bin/python": ("pi@192.168.1.7", 22, "~/venv/bin/python"),
    "ssh://root@[fe80::1%eth0]:22": ("root@fe80::1%eth0", 22, "python3"),
}
BAD = (
    *("there", "ssh://", "ssh://-oProxyCommand=x", "ssh://me@-x", "ssh://-me@x", "ssh://a b", "ssh://a:0"),
    *("ssh://a:65536", "ssh://a:x", "ssh://me:secret@there", "ssh://a?python=p;rm", "ssh://a/path", "http://a"),
    "ssh://a\n",
)


@pytest.mark.parametrize("text", GOOD)
def test_addresses(text: str) -> None:
    found = Address.parse(text)
    assert (found.login, found.port, found.python) == GOOD[text]
    assert found.command[found.command.index("--") + 1] == found.login
    assert ("-p" in found.command) is (found.port is not None)


@pytest.mark.parametrize("text", BAD)
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(RunError, match=r"is no device; give ssh://USER@HOST\[:PORT\]"):
        Address.parse(text)


def test_nothing_is_left_running_when_the_desk_is_killed(tmp_path: Path) -> None:
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_device as t
        device = t.local()
        session = device.open_session("onnxruntime", t.options())
        print(t.agent_of(device).pid, flush=True)
        device.measure({{"": (session, t.image())}}, protocol=t.replace(t.LONG, duration_s=600.0))
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE) as desk:
        assert desk.stdout is not None
        there = psutil.Process(int(desk.stdout.readline()))
        time.sleep(0.5)
        assert there.is_running()
        desk.send_signal(signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        there.wait(timeout=10)


def test_signs_of_life_keep_the_agent_alive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    impatient = tmp_path / "agent.py"
    impatient.write_text(Path(agent.__file__).read_text().replace("SILENCE_S = 120.0", "SILENCE_S = 2.0"))
    monkeypatch.setattr(agent, "__file__", str(impatient))
    monkeypatch.setattr(module, "BEAT_S", 0.1)
    with local() as device:
        device.connect()
        first = agent_of(device).pid
        time.sleep(3)
        assert device.machine.python
        assert agent_of(device).pid == first


def test_a_benchmark_there_is_json_as_one_of_here(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "quick", SHORT)
    cells = [Candidate("m", MODEL, runtime, threads=1) for runtime in ("onnxruntime", "pytorch")]
    found = benchmark(cells, size=SIZE, protocol="quick", device=device)
    values = json.loads(json.dumps(found.to_dict()))
    assert Benchmark.model_validate(values).to_dict() == values
    here = benchmark(cells[:1], size=SIZE, protocol="quick", memory=False).to_dict()
    assert values.keys() == here.keys()
    assert (values["device"], here["device"]) == (ADDRESS, None)
    assert values["machine"] == here["machine"]
    assert values["load"].keys() == here["load"].keys()
    (row,) = values["results"]
    assert row["end_to_end"] is None
    assert 20 < row["peak_memory_mib"] < 2000
    assert row["engine"] == here["results"][0]["engine"]
    assert "does not run on a device" in values["problems"][0]["problem"]


def test_tuning_there_compares_labels_with_those_of_here(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "quick", SHORT)
    found = tune(MODEL, size=SIZE, runtimes=["onnxruntime"], threads=[1, 2], device=device)
    assert [row[2] for row in found.measured] == [100.0, 100.0]
    assert found.benchmark.device == ADDRESS
    assert found.best.runtime == "onnxruntime"
    assert any("bf16" in name for name in found.left_out)


def test_it_waits_for_another_measurement_of_the_device(
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The lock is that of `timing.measure`, as if somebody ran lpsnet on the device."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    session, released = device.open_session("onnxruntime", options()), list[float]()
    hold = "import sys, tempfile; from lpsnet.benchmark.timing import measuring_alone\n"
    hold += "with measuring_alone(): print(tempfile.gettempdir(), flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline().decode().strip() == str(tmp_path / "tmp")

        def release() -> None:
            released.append(time.monotonic())
            other.stdin.close()

        timer = threading.Timer(agent.PATIENCE_S + 1, release)
        timer.start()
        with caplog.at_level(logging.WARNING):
            found, load = device.measure({"": (session, image())}, protocol=SHORT)
        assert released
        assert load.duration_s <= time.monotonic() - released[0]
        timer.join()
    assert "another process measures on the device" in caplog.text
    assert found[""].num_rounds >= 6

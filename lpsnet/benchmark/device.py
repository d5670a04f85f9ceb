"""Measuring on a device far away, `--device ssh://USER@HOST[:PORT]`: the network runs there, everything else here.

OpenSSH's client, with the user's own configuration, starts `lpsnet/agent.py` on the device; the device needs Python and
an engine, not this package. The agent times there, by the same loop as here, and sends all samples. After a lost
connection it is started again, and the request that was cut is made again whole: no half measurement is kept.
"""

import base64
import contextlib
import hashlib
import json
import logging
import os
import re
import shlex
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from operator import methodcaller
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lpsnet import agent
from lpsnet.benchmark import machine as machines
from lpsnet.benchmark.timing import Latency, TimingProtocol, latencies
from lpsnet.errors import DeviceError, LpsnetError, MissingDependencyError, ModelFileError, RunError
from lpsnet.inference import engines

_log = logging.getLogger(__name__)

SSH = "LPSNET_SSH"  # environment variable: the command in place of `ssh`, e.g. "ssh -F config"
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 60.0)  # before attempts to connect again; a device restarts in less
BEAT_S = 20.0  # between signs of life; the agent ends after `agent.SILENCE_S` without one
PART_BYTES = 384 * 1024  # of a file in one request
MAX_SENT = 3  # times that a request sends a file, which the device then has not
MAX_GREETING = 1000  # lines that a login may print before the agent answers
_ONCE = TimingProtocol(warm_up_s=0.0, duration_s=1e-6)  # a call or two, for the peak of memory

_ADDRESS = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_.][\w.$-]*)@)?(?P<host>[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:.%\w]+\])(?::(?P<port>\d{1,5}))?/?"
    r"(?:\?python=(?P<python>[\w.~/+-]+))?"
)
# Never asks, never shares or forwards anything, and notices within a minute that the other side is gone
_OPTIONS = (
    *("BatchMode=yes", "ConnectTimeout=15", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ControlMaster=no"),
    *("ControlPath=none", "ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no", "RequestTTY=no"),
    "RemoteCommand=none",
)
_READ_CODE = "import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"
# Runs on any Python 3: finds the agent by its hash, or takes it from standard input, and starts what it has checked
_BOOT = """
import sys
sys.path[:] = filter(None, sys.path)  # modules are not taken from the folder that a login begins in
import hashlib, json, os

def say(**value):
    sys.stdout.write(json.dumps({"lpsnet_agent": value}) + "\\n")
    sys.stdout.flush()

def find(digest, size):
    if sys.version_info < (3, 8):
        return say(error="python", text=sys.version.split()[0])
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path = os.path.join(base, "lpsnet-agent", digest, "agent.py")
    try:
        with open(path, "rb") as file:
            code = file.read()
    except OSError:
        code = b""
    if hashlib.sha256(code).hexdigest() == digest:
        return code, path
    say(need=True)
    code = sys.stdin.buffer.read(size)
    if hashlib.sha256(code).hexdigest() != digest:
        return say(error="damaged", text="the agent arrived damaged")
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + str(os.getpid()), "wb") as file:
            file.write(code)
        os.replace(path + str(os.getpid()), path)
    except OSError as error:
        return say(error="disk", text="%s: %s" % (error.strerror, path))
    return code, path

found = find(DIGEST, SIZE)
if found:
    say(ready=True)
    exec(compile(found[0], found[1], "exec", dont_inherit=True), {"__name__": "__main__", "__file__": found[1]})
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a device is: `ssh://[USER@]HOST[:PORT][?python=PATH]`."""

    text: str  # as given
    login: str  # USER@HOST, or a HOST of ssh's configuration
    port: int | None
    python: str  # the interpreter there that has the engine

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that a text holds.

        Raises:
            DeviceError: it holds none.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or (match["port"] and not 0 < int(match["port"]) < 65536):
            raise DeviceError(
                f"{text!r} is no device; give ssh://USER@HOST[:PORT], e.g. ssh://pi@raspberrypi.local, or with the "
                "Python that has the engine: ssh://USER@HOST?python=venv/bin/python"
            )
        login = "@".join(part for part in (match["user"], match["host"].strip("[]")) if part)
        return cls(text, login, int(match["port"]) if match["port"] else None, match["python"] or "python3")

    @property
    def ssh(self) -> list[str]:
        """The command that a person logs in with."""
        return ["ssh", *(["-p", str(self.port)] if self.port else []), self.login]

    @property
    def command(self) -> list[str]:
        """The command that starts Python there, which then reads code from standard input."""
        text = os.environ.get(SSH) or "ssh"
        try:
            program, *own = shlex.split(text)
        except ValueError:  # quotes that are not closed, or blanks alone
            raise DeviceError(f"{SSH}={text!r} is no command; give one such as 'ssh -F config', or unset it") from None
        options = [word for option in _OPTIONS for word in ("-o", option)]
        _, *place, login = self.ssh
        return [program, *own, *options, *place, "--", login, f"exec {self.python} -u -c {shlex.quote(_READ_CODE)}"]


class _LostError(Exception):
    """The connection ended; the message says what is known."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """What ssh prints when it fails, what to do, and whether to try again."""

    pattern: str
    advice: str
    again: bool = False


_PROBLEMS = (
    _Problem(
        r"host key verification failed|identification has changed",
        "its host key is unknown or has changed: log in once by hand and compare it: {ssh}",
    ),
    _Problem(
        r"permission denied \(|too many authentication failures",
        "it refuses the login; set up a key, so that this asks for nothing: {ssh}",
    ),
    _Problem(
        r"exit status 12[67]$",
        "it has no {python}; install Python 3.8 or newer there, or name another one: {device}?python=PATH",
    ),
    _Problem(
        r"could not resolve hostname",
        "there is no such host; correct the address, or name it in ssh's configuration",
        again=True,
    ),
    _Problem(
        r"connection refused|no route to host|timed out|unreachable",
        "it does not answer; is it on, and does it run an SSH server? Try: {ssh}",
        again=True,
    ),
)


class Connection:
    """An agent that runs, and ends when this object is closed or this process ends.

    Args:
        command: starts a Python that reads code from standard input, as `Address.command`.
        explain: makes an error of what the command printed on standard error.

    Attributes:
        about: what the agent says of its machine; see `agent.Agent.about`.
    """

    about: dict[str, Any]

    def __init__(self, command: Sequence[str], explain: Callable[[str], Exception]) -> None:
        self._explain, self._writing, self._ended = explain, threading.Lock(), threading.Event()
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        try:  # a group of its own: Ctrl-C here ends the agent by the end of its input
            self._process = subprocess.Popen(command, start_new_session=True, **pipes)
        except OSError as error:
            raise DeviceError(
                f"{command[0]} cannot be started ({error.strerror}); install OpenSSH's client, "
                "e.g. apt install openssh-client"
            ) from None
        self._printed: deque[str] = deque(maxlen=40)
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()
        try:
            self._boot()
            self.about = self._answer(lambda part: None)
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._beat, daemon=True).start()

    def _listen(self, errors: IO[bytes]) -> None:
        for line in errors:
            self._printed.append(line.decode("utf-8", "replace").strip())

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            with contextlib.suppress(OSError, ValueError), self._writing:  # the next request tells
                assert self._process.stdin is not None
                self._process.stdin.write(b"\n")
                self._process.stdin.flush()

    def _boot(self) -> None:
        code = Path(agent.__file__).read_bytes()
        digest = hashlib.sha256(code).hexdigest()
        boot = _BOOT.replace("DIGEST", repr(digest)).replace("SIZE", str(len(code))).encode()
        self._write(b"%d\n%s" % (len(boot), boot))
        answer = self._greeting()
        if answer.get("need"):
            self._write(code)
            answer = self._greeting()
        if "error" in answer:
            raise _RefusedError(answer["error"], answer["text"])

    def _greeting(self) -> dict[str, Any]:
        for _ in range(MAX_GREETING):
            line = self._read()
            begin = line.find(b'{"lpsnet_agent"')  # a login may print text that ends without a new line
            if begin >= 0:
                greeting: dict[str, Any] = json.loads(line[begin:])["lpsnet_agent"]
                return greeting
        raise _LostError("its login prints without end")

    def ask(self, request: Mapping[str, Any], on_progress: Callable[[float], None]) -> Any:
        """What the agent answers to a request.

        Raises:
            _LostError: the connection ended.
            _RefusedError: the agent says why it cannot do that.
        """
        self._write(json.dumps(request).encode() + b"\n")
        return self._answer(on_progress)

    def send(self, name: str, content: bytes) -> None:
        """A file, in parts; errors as for `ask`."""
        parts = range(0, max(1, len(content)), PART_BYTES)
        for begin in parts:
            data = base64.b64encode(content[begin : begin + PART_BYTES]).decode()
            ends = {"is_first": begin == parts[0], "is_last": begin == parts[-1]}
            self.ask({"do": "put", "name": name, "data": data, **ends}, lambda part: None)

    def _answer(self, on_progress: Callable[[float], None]) -> Any:
        while True:
            try:
                answer = dict(json.loads(self._read()))
            except (ValueError, TypeError):
                raise _LostError("it answers with other lines than the agent's") from None
            if "ok" in answer:
                return answer["ok"]
            if "error" in answer:
                raise _RefusedError(answer["error"], answer["text"])
            if "waiting" in answer:
                _log.warning("another process measures on the device; waiting until it is done")
            on_progress(answer.get("progress", 0.0))

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            with self._writing:
                self._process.stdin.write(data)
                self._process.stdin.flush()
        except (OSError, ValueError):  # broken, or closed here
            raise self._lost() from None

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        line: bytes = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._lost()
        return line

    def _lost(self) -> Exception:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._listener.join(timeout=1)
        return self._explain("\n".join([*self._printed, f"exit status {self._process.poll()}"]))

    def close(self) -> None:
        """End the agent."""
        self._ended.set()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(timeout=1)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()


class _RefusedError(Exception):
    """What the agent cannot do, with its word for it."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Device:
    """A device far away; a context manager that ends the agent there.

    Args:
        address: see `Address`.
        command: starts Python there; that of the address unless given.
        pauses_s: before attempts to connect again.

    The first use connects; threads may share a device, one at a time. All methods raise an `LpsnetError` of one
    line if the device cannot be reached, refuses the login, or has no Python, engine or space; or if it was lost and
    did not come back.
    """

    def __init__(
        self, address: str, *, command: Sequence[str] | None = None, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self._address = Address.parse(address)
        self._command = list(command) if command else self._address.command
        self._pauses_s = pauses_s
        self._connection: Connection | None = None
        self._using = threading.RLock()
        self._was_connected = False

    @property
    def name(self) -> str:
        """The address, as it was given."""
        return self._address.text

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def connect(self) -> None:
        """Start the agent now, so that errors come before other work."""
        with self._using:
            self._persist(lambda connection: None)

    def close(self) -> None:
        """End the agent; the next use starts another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @cached_property
    def machine(self) -> machines.Machine:
        """The device."""
        return machines.describe(self._sources())

    def _sources(self) -> machines.Sources:
        about = self._about
        total = re.search(r"^MemTotal:\s*(\d+) kB", self._text("/proc/meminfo"), re.MULTILINE)
        return machines.Sources(
            read=lambda name: self._text(f"/{name}"),
            ask=lambda command: self._told("ask", command=command),
            system=about["system"],
            release=about["release"],
            architecture=about["architecture"],
            processor=about["processor"],
            python=about["python"],
            affinity=frozenset(about["affinity"]),
            memory_bytes=1024 * int(total[1]) if total else None,
            num_cores=None,
        )

    def _text(self, path: str) -> str:
        return str(self._told("state", paths=[path])["texts"][path])

    def open_session(self, runtime: str, options: engines.SessionOptions) -> "DeviceSession":
        """A model file in an engine there; errors as for `engines.open_session`.

        Raises:
            ModelFileError: also if the engine runs on this machine only.
        """
        how = engines.for_device(runtime, options)
        try:
            return DeviceSession(self, runtime, options, how)
        except _RefusedError as error:
            raise self._engine_error(how.engine, options.path, error) from None

    def _engine_error(self, engine: str, path: Path, error: _RefusedError) -> LpsnetError:
        install = shlex.join([*self._address.ssh, self._address.python, "-m", "pip", "install", engine])
        text = engines.one_line(error)
        if error.kind == "absent":
            return MissingDependencyError(f"{engine} is not installed on {self.name}; it comes with: {install}")
        if error.kind != "engine":
            return self._error(error)
        newer = f"; a newer one may, by: {install} --upgrade" if re.search("IR version|opset", text, re.I) else ""
        return ModelFileError(f"{self.name} cannot load {path} with {text}{newer}")

    def measure(
        self,
        items: Mapping[str, tuple["DeviceSession", NDArray[np.float32]]],
        *,
        protocol: TimingProtocol,
        on_progress: Callable[[float], None] = lambda part: None,
    ) -> tuple[dict[str, Latency], machines.Load]:
        """Time networks interleaved on the device, and its load meanwhile.

        Args:
            items: by name, sessions of this device and their input, 1 x 3 x H x W float32.
            protocol: see `timing.measure`.
            on_progress: called with the part done, 0 to 1.
        """
        request, files = {}, dict[str, bytes]()
        for name, (session, array) in items.items():
            content = np.ascontiguousarray(array, np.float32).tobytes()
            file = f"{hashlib.sha256(content).hexdigest()}.f32"
            files |= {**session.files, file: content}
            request[name] = {"network": session.network, "input": file, "shape": list(array.shape)}
        arguments = {"items": request, "protocol": asdict(protocol), "paths": machines.STATE_FILES}
        found = self._told("measure", files=files, on_progress=on_progress, **arguments)
        before, after = (self._counters(found[key]) for key in ("before", "after"))
        return latencies(found, protocol), machines.load_between(before, after)

    def _counters(self, state: Mapping[str, Any]) -> machines.Counters:
        texts, about = state["texts"], self._about
        busy_s = machines.busy_s(texts, about["affinity"], about["ticks"])
        clock, temperature = machines.clock_mhz(texts), machines.temperature_c(texts)
        return machines.Counters(state["now_s"], busy_s, state["own_s"], state["average"], clock, temperature)

    @cached_property
    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = self._told("about")
        return about

    def peak_memory_mib(self, runtime: str, options: engines.SessionOptions, array: NDArray[np.float32]) -> float:
        """Peak resident memory there of a new agent that loads a model and runs it: Python and engine included.

        Raises:
            RunError: its system does not tell (Linux does), or the agent was lost before it told.
        """
        with Device(self.name, command=self._command, pauses_s=self._pauses_s) as other:
            other.measure({"": (other.open_session(runtime, options), array)}, protocol=_ONCE)
            measured = other._connection
            found = re.search(r"VmHWM:\s*(\d+) kB", other._text("/proc/self/status"))
            if other._connection is not measured:  # the figure is of a new agent, which has run nothing
                raise DeviceError(f"{self.name} was lost before it told the peak of memory; measure again")
        if found is None:
            raise RunError(f"the system of {self.name} does not tell the peak of memory")
        return int(found[1]) / 1024

    def _told(self, do: str, **arguments: Any) -> Any:
        """As `_ask`, where a refusal is an error of the device."""
        try:
            return self._ask(do, **arguments)
        except _RefusedError as error:
            raise self._error(error) from None

    def _ask(
        self,
        do: str,
        *,
        files: Mapping[str, bytes] = MappingProxyType({}),
        on_progress: Callable[[float], None] = lambda part: None,
        **arguments: Any,
    ) -> Any:
        """The answer to a request; `files`, by name, are sent if they are not there.

        Raises:
            _RefusedError: the agent cannot do that.
        """
        sent: Counter[str] = Counter()
        with self._using:
            while True:
                try:
                    return self._persist(lambda connection: connection.ask({"do": do, **arguments}, on_progress))
                except _RefusedError as error:
                    name = str(error)
                    if error.kind != "missing" or sent[name] == MAX_SENT or name not in files:
                        raise
                sent[name] += 1  # again, if the device lost its files with the connection
                self._persist(methodcaller("send", name, files[name]))

    def _persist(self, work: Callable[[Connection], Any]) -> Any:
        """What `work` gives, which is done again whole on a new connection if one is lost."""
        for pause_s in (*self._pauses_s, None):
            try:
                return work(self._connected())
            except _RefusedError:
                raise
            except _LostError as error:
                self.close()
                if not self._was_connected:
                    raise DeviceError(f"{self.name} cannot be used: {error}") from None
                if pause_s is None:
                    waited = f"{len(self._pauses_s)} more attempts in {sum(self._pauses_s):.0f} s"
                    raise DeviceError(f"{self.name} was lost, and {waited} failed: {error}") from None
                _log.warning("%s was lost (%s); trying again in %g s", self.name, error, pause_s)
                time.sleep(pause_s)
            except BaseException:  # Ctrl-C, say: the answer that is still to come would be taken for the next one's
                self.close()
                raise
        raise AssertionError("the last attempt returns or raises")

    def _connected(self) -> Connection:
        if self._connection is None:
            try:
                self._connection = Connection(self._command, self._explain)
            except _RefusedError as error:
                raise self._error(error) from None
            self._was_connected = True
        return self._connection

    def _explain(self, printed: str) -> Exception:
        """What ssh's messages mean."""
        known = {"ssh": shlex.join(self._address.ssh), "python": self._address.python, "device": self.name}
        for problem in _PROBLEMS:
            if re.search(problem.pattern, printed, re.IGNORECASE):
                text = problem.advice.format(**known)
                return _LostError(text) if problem.again else DeviceError(f"{self.name} cannot be used: {text}")
        lines = [line for line in printed.splitlines() if line and not line.startswith("Warning:")]
        return _LostError(engines.one_line(ValueError("; ".join(lines[-2:]))))

    def _error(self, error: _RefusedError) -> LpsnetError:
        text = engines.one_line(error)
        if error.kind == "disk":
            return DeviceError(
                f"{self.name} cannot keep files ({text}); free space there, e.g. in ~/.cache/lpsnet-agent"
            )
        if error.kind == "missing":
            return DeviceError(f"{self.name} loses the files that it is sent ({text}); does something clear its cache?")
        if error.kind == "python":
            return DeviceError(f"{self.name} has Python {text}; the agent takes 3.8 or newer: {self.name}?python=PATH")
        return DeviceError(f"{self.name}: {text}")


@contextlib.contextmanager
def opened_device(address: str | None) -> Iterator[Device | None]:
    """A device that answers, and is left when the block ends; None for this machine."""
    if address is None:
        yield None
        return
    with Device(address) as device:
        device.connect()
        yield device


class DeviceSession:
    """A network in an engine on a device; see `engines.Session`. Images of a batch are computed one by one.

    Attributes:
        network, files: as requests name it, and the files that it is made of, by name.
    """

    def __init__(self, device: Device, runtime: str, options: engines.SessionOptions, how: engines.OnDevice) -> None:
        self.runtime: Final = runtime
        self._device, self._path = device, options.path
        named = zip(how.files, how.suffixes, strict=True)
        self.files = {f"{hashlib.sha256(content).hexdigest()}{suffix}": content for content, suffix in named}
        self.network = {"engine": how.engine, "files": list(self.files), "how": how.how}
        facts = device._ask("open", files=self.files, network=self.network)
        self.engine, used, self.num_threads, possible = how.judge(
            {**facts, **device._about, "version": facts["version"]}
        )
        self.precision: engines.Precision = engines.check_precision(used, options, possible=possible, where=device.name)
        shapes = [tuple(shape) for shape in how.shapes or facts["shapes"]]
        self._shapes = [(None, *shape[1:]) for shape in engines.fix_size(shapes, options)]

    def run(self, *inputs: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of normalised images; see `engines.Session.run`."""
        return engines.run_one_by_one(self._run_one, engines.check_inputs(inputs, self._shapes))

    def _run_one(self, *arrays: NDArray[np.float32]) -> NDArray[np.float32]:
        (array,) = arrays
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        try:
            found = self._device._ask("run", files=self.files, network=self.network, shape=list(array.shape), data=data)
        except _RefusedError as error:
            raise ModelFileError(f"{self._device.name} cannot run {self._path}: {engines.one_line(error)}") from None
        logits = np.frombuffer(base64.b64decode(found["data"]), np.float32)
        return logits.reshape(found["shape"])

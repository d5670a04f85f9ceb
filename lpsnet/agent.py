"""What runs where the network runs: the timing loop, and the agent that serves it on a device far away.

The engines and `lpsnet/benchmark` use this file on this machine; `benchmark/device.py` sends the same file to a device
and starts it there, so both obey one set of rules. It therefore imports nothing but the standard library (NumPy only
with an engine) and runs on Python from 3.8 up.

The agent reads one JSON value a line from standard input and writes one a line to standard output. A request is
`{"do": NAME, ARGUMENT: VALUE, ...}` with a method of `Agent`; answers are any number of `{"progress": 0.5}`, then
`{"ok": VALUE}` or `{"error": KIND, "text": TEXT}`. Requests name model files by their SHA-256 and networks by all that
they depend on, so that one may be sent again after a lost connection. An empty line is a sign of life. The agent ends
when standard input does, or is silent for `SILENCE_S`, whatever it is doing.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import hashlib
import json
import math
import os
import platform
import queue
import select
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median, median_low
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LOCK_NAME = "lpsnet-measuring.lock"  # in the system's folder for temporary files
MAX_CALLS_PER_TURN = 10_000
CLOCK_TOLERANCE_NS = 50_000_000  # two clocks may differ by this in a round, or by 1 % of it; more counts as sleep
NUM_ROUNDS = 6  # at least, per measurement: fewer give no interval a confidence of 0.95
MAX_DISCARDED = 10  # discarded rounds before a measurement is given up, or as many as were kept

PATIENCE_S = 2.0  # waited for another measurement before that is told
SILENCE_S = 120.0  # without a line from the desk; then it is gone
MAX_FILES, KEEP_S = 256, 3600.0  # in the folder of files; more are removed unless used within this time
_PROGRAM_TIMEOUT_S = 10.0


class MeasurementError(Exception):
    """Something cannot be done: the message says why, `kind` is a word for the desk."""

    def __init__(self, text: str, kind: str = "measurement") -> None:
        super().__init__(text)
        self.kind = kind


def _clock_that_never_stops() -> int:
    """Nanoseconds including sleep of the machine, which `perf_counter` excludes on Linux and macOS."""
    for name in ("CLOCK_BOOTTIME", "CLOCK_MONOTONIC"):  # Linux; macOS, where the latter includes sleep
        if hasattr(time, name):
            return time.clock_gettime_ns(getattr(time, name))
    return time.time_ns()  # Windows: perf_counter includes sleep as well, so it is not detected


class Clock(NamedTuple):
    """Sources of time: latencies are differences of `now_ns`; `always_ns` continues while the machine sleeps."""

    now_ns: Callable[[], int] = time.perf_counter_ns
    always_ns: Callable[[], int] = _clock_that_never_stops


def time_interleaved(
    callables: Mapping[str, Callable[[], object]], protocol: Any, clock: Clock, on_progress: Callable[[float], None]
) -> dict[str, Any]:
    """The samples of `timing.measure`, which has the same arguments; as JSON values, for `timing.latencies`."""
    with _no_garbage_collection():
        run = _Run(callables, protocol, clock)
        while not run.is_done():
            run.do_round()
            on_progress(run.part_done())
    return run.samples()


class _Run:
    """One measurement: the samples so far."""

    def __init__(self, callables: Mapping[str, Callable[[], object]], protocol: Any, clock: Clock) -> None:
        self._callables, self._protocol, self._clock = callables, protocol, clock
        self._warm_up_ns = {name: self._warm_up(call) for name, call in callables.items()}
        self._turns_ns: dict[str, list[list[int]]] = {name: [] for name in callables}
        self._medians_ns: dict[str, list[float]] = {name: [] for name in callables}
        self._timed_ns = dict.fromkeys(callables, 0)
        self._num_started = self._num_discarded = 0

    def _warm_up(self, call: Callable[[], object]) -> float:
        """Call until the time is up; the median time of a call, in nanoseconds, at least 1."""
        samples: list[int] = []
        start = self._clock.now_ns()
        while not samples or self._clock.now_ns() - start < self._protocol.warm_up_s * 1e9:
            samples += self._time(call, 1)
        return max(1.0, median(samples))

    def _time(self, call: Callable[[], object], num_calls: int) -> list[int]:
        now_ns, samples = self._clock.now_ns, []
        for _ in range(num_calls):
            start = now_ns()
            call()
            samples.append(now_ns() - start)
        if min(samples) < 0 or sum(samples) == 0:
            raise MeasurementError("the clock stands still or goes backwards; nothing can be measured with it")
        return samples

    def do_round(self) -> None:
        """A turn of every callable; discarded if the machine slept meanwhile."""
        now, always = self._clock.now_ns(), self._clock.always_ns()
        names = _order(list(self._callables), self._num_started)
        num_calls = self._calls_per_turn()
        turns = {name: self._time(self._callables[name], num_calls[name]) for name in names}
        passed, always_passed = self._clock.now_ns() - now, self._clock.always_ns() - always
        gc.collect()  # garbage of the calls: everything older is frozen
        self._num_started += 1
        if abs(always_passed - passed) > max(CLOCK_TOLERANCE_NS, passed // 100):
            self._discard()
            return
        for name, samples in turns.items():
            self._turns_ns[name].append(samples)
            self._medians_ns[name].append(median(samples))
            self._timed_ns[name] += sum(samples)

    def _calls_per_turn(self) -> dict[str, int]:
        """From medians of the last rounds: a single delay must not lengthen all turns."""
        call_ns = {
            name: max(1.0, median_low([first_ns, *self._medians_ns[name][-NUM_ROUNDS:]]))
            for name, first_ns in self._warm_up_ns.items()
        }
        slowest_ns = min(max(call_ns.values()), self._protocol.duration_s * 1e9 / NUM_ROUNDS)
        turn_ns = max(self._protocol.turn_s * 1e9, slowest_ns)
        return {name: max(1, min(MAX_CALLS_PER_TURN, round(turn_ns / single))) for name, single in call_ns.items()}

    def _discard(self) -> None:
        self._num_discarded += 1
        if self._num_discarded > max(MAX_DISCARDED, self._num_started - self._num_discarded):
            raise MeasurementError(
                f"the machine slept, or its clock was set, in {self._num_discarded} of {self._num_started} rounds; "
                "keep it awake and measure again"
            )

    def _timed_s(self) -> float:
        return min(self._timed_ns.values()) / 1e9

    def part_done(self) -> float:
        is_fixed = self._protocol.target_percent is None
        whole_s: float = self._protocol.duration_s if is_fixed else self._protocol.max_duration_s
        return 1.0 if self.is_done() else min(1.0, self._timed_s() / whole_s)

    def is_done(self) -> bool:
        timed_s, protocol = self._timed_s(), self._protocol
        if timed_s < protocol.duration_s or protocol.target_percent is None:
            return bool(timed_s >= protocol.duration_s)
        return timed_s >= protocol.max_duration_s or all(map(self._is_precise, self._callables))

    def _is_precise(self, name: str) -> bool | None:
        target_percent, values = self._protocol.target_percent, self._medians_ns[name]
        if target_percent is None:
            return None
        low, high, reached = median_interval(values, self._protocol.confidence)
        centre, wanted = median(values), self._protocol.confidence
        return bool(reached >= wanted and max(high - centre, centre - low) <= centre * target_percent / 100)

    def samples(self) -> dict[str, Any]:
        reached = {name: self._is_precise(name) for name in self._callables}
        return {"turns_ns": self._turns_ns, "target_reached": reached, "num_discarded_rounds": self._num_discarded}


def _order(names: list[str], index: int) -> list[str]:
    """The order of round `index`: each comes first equally often; every second cycle is reversed."""
    start = index % len(names)
    rotated = names[start:] + names[:start]
    return rotated[::-1] if index // len(names) % 2 else rotated


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collect garbage now, then only on `gc.collect()`, and only new objects."""
    was_enabled, was_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        if not was_frozen:
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def median_interval(values: Sequence[float], confidence: float) -> tuple[float, float, float]:
    """Bounds of the median of the distribution of `values`, and their confidence.

    The k-th smallest and the k-th largest value, with the largest k that has the requested confidence. Few values limit
    the confidence (five: 0.9375 at most): then the smallest and the largest.
    """
    rank, reached = ranks(len(values), confidence)
    ordered = sorted(values)
    return ordered[rank - 1], ordered[-rank], reached


@functools.lru_cache(maxsize=4096)
def ranks(number: int, confidence: float) -> tuple[int, float]:
    """k of `median_interval` and its confidence: 1 - 2 P(X < k) for X binomial with `number` and 1/2."""
    log_term = -number * math.log(2)  # of P(X = 0)
    tail = math.exp(log_term)  # P(X < 1)
    rank = 1
    while rank < number // 2:
        log_term += math.log((number - rank + 1) / rank)
        if 2 * (tail + math.exp(log_term)) > 1 - confidence:
            break
        tail += math.exp(log_term)
        rank += 1
    return rank, max(0.0, 1 - 2 * tail)


def read_text(path: str | Path) -> str:
    """The text of a file; empty if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def ask_program(command: Sequence[str]) -> str | None:
    """What a program prints; None if it is missing or fails."""
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, timeout=_PROGRAM_TIMEOUT_S, env=environment, check=False, **quiet)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return str(done.stdout, "utf-8", "replace") if done.returncode == 0 else None


def affinity() -> list[int]:
    """The logical processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def own_s() -> float:
    """Seconds of processor time of this process and its ended children."""
    return sum(os.times()[:4])


def load_average() -> float | None:
    """Processes running or waiting, on average over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows; a container without the figure
        return None


# Engines: files and settings in, a function and what the engine says of itself out. Settings come from the desk, which
# also judges what is said (`lpsnet/inference/engines`).


class Opened(NamedTuple):
    """A network in an engine: N x 3 x H x W float32 in, logits out; its input and the engine as JSON values."""

    run: Callable[[Any], Any]
    facts: dict[str, Any]


def open_onnxruntime(files: Sequence[str], how: Mapping[str, Any]) -> Opened:
    import onnxruntime

    settings, providers = onnxruntime_settings(onnxruntime, how), onnxruntime_providers(onnxruntime, how)
    session = onnxruntime.InferenceSession(files[0], sess_options=settings, providers=providers)
    ports, output = session.get_inputs(), [session.get_outputs()[0].name]
    name, kind = ports[0].name, "float16" if ports[0].type == "tensor(float16)" else "float32"

    def run(array: Any) -> Any:
        return session.run(output, {name: array.astype(kind, copy=False)})[0]

    shapes = [[length if isinstance(length, int) else None for length in port.shape] for port in ports]
    facts = {"version": onnxruntime.__version__, "shapes": shapes, "types": [port.type for port in ports]}
    return Opened(run, {**facts, "providers": session.get_providers()})


def onnxruntime_settings(onnxruntime: Any, how: Mapping[str, Any]) -> Any:
    """ONNX Runtime's own settings from `how`: attributes, entries and sizes of free dimensions."""
    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    for name, value in how["attributes"].items():
        setattr(settings, name, value)
    for name, value in how["entries"].items():
        settings.add_session_config_entry(name, value)
    for name, value in how["dimensions"].items():
        settings.add_free_dimension_override_by_name(name, value)
    return settings


def onnxruntime_providers(onnxruntime: Any, how: Mapping[str, Any]) -> list[Any]:
    """Those of `how`, each a name or a name with options, that this ONNX Runtime has."""
    rows = [row if isinstance(row, str) else tuple(row) for row in how["providers"]]
    return [row for row in rows if (row if isinstance(row, str) else row[0]) in onnxruntime.get_available_providers()]


def open_openvino(files: Sequence[str], how: Mapping[str, Any]) -> Opened:
    import openvino

    core = openvino.Core()
    model = core.read_model(*files)
    partial = [port.partial_shape for port in model.inputs]
    shapes = [[None if length.is_dynamic else length.get_length() for length in shape] for shape in partial]
    if how["size"]:
        model.reshape([1, *(-1 if length is None else length for length in shapes[0][1:-2]), *how["size"]])
    compiled = core.compile_model(model, how["device"], how["properties"])
    request = compiled.create_infer_request()
    facts = {
        "version": openvino.__version__,
        "shapes": shapes,
        "kernels": openvino_kernels(compiled),
        "num_threads": int(compiled.get_property("INFERENCE_NUM_THREADS")),
        "capabilities": list(core.get_property(how["device"], "OPTIMIZATION_CAPABILITIES")),
    }
    return Opened(lambda array: request.infer([array], share_inputs=True)[0], facts)


def openvino_kernels(compiled: Any) -> list[list[str]]:
    """Kind and kernel of every operation of a compiled network."""
    infos = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ordered_ops()]
    return [[str(info["layerType"].value), str(info["primitiveType"].value)] for info in infos]


def open_ncnn(files: Sequence[str], how: Mapping[str, Any]) -> Opened:
    import ncnn
    import numpy

    net = ncnn.Net()
    set_ncnn_options(net, how["options"])
    if net.load_param(files[0]) != 0 or net.load_model(files[1]) != 0:
        raise MeasurementError("it is not a network of this ncnn")
    name, output, reads_only = net.input_names()[0], net.output_names()[0], ncnn_reads_only(net)

    def run(array: Any) -> Any:
        extractor, mat = net.create_extractor(), ncnn.Mat(array[0])  # the array's own memory
        extractor.input(name, mat if reads_only else mat.clone())
        status, logits = extractor.extract(output)
        if status != 0:
            raise MeasurementError(f"it stopped with code {status}")
        return numpy.array(logits, numpy.float32)[None]

    facts = {"version": ncnn.__version__, "num_threads": int(net.opt.num_threads), "layers": ncnn_layers(net)}
    return Opened(run, facts)


def set_ncnn_options(net: Any, options: Mapping[str, Any]) -> None:
    """Set ncnn's options by name; older versions have fewer."""
    for name, value in options.items():
        if hasattr(net.opt, name):
            setattr(net.opt, name, value)


def ncnn_layers(net: Any) -> list[list[Any]]:
    """Kind of every layer, and whether it computes in bfloat16 and in float16 here."""
    return [[layer.type, bool(layer.support_bf16_storage), bool(layer.support_fp16_storage)] for layer in net.layers()]


NCNN_CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
_NCNN_ALIASING = ("Split", "Interp")  # layers that may return their input's memory, and that never write to it


def ncnn_reads_only(net: Any) -> bool:
    """Whether no layer writes to an input's memory, which is the caller's; ncnn may compute in place."""
    shared = set(net.input_indexes())
    for layer in net.layers():
        if shared.isdisjoint(layer.bottoms):
            continue
        if layer.type in _NCNN_ALIASING:
            shared.update(layer.tops)
        elif layer.type not in NCNN_CONVOLUTIONS:
            return False
    return True


ENGINES: dict[str, Callable[[Sequence[str], Mapping[str, Any]], Opened]] = {
    "onnxruntime": open_onnxruntime,
    "openvino": open_openvino,
    "ncnn": open_ncnn,
}


class Agent:
    """Answers requests: its public methods, by name. See the top of this file.

    Args:
        folder: of model files and inputs, named by their SHA-256 and kept between connections; created.
        answer: sends a JSON value to the desk.
    """

    def __init__(self, folder: Path, answer: Callable[[dict[str, Any]], None]) -> None:
        self._folder, self._answer = folder, answer
        self._networks: dict[str, Opened] = {}

    def about(self) -> dict[str, Any]:
        """What the machine's description needs besides files and programs."""
        return {
            "python": platform.python_version(),
            "system": platform.system(),
            "release": platform.mac_ver()[0] or platform.release(),
            "architecture": platform.machine(),
            "processor": platform.processor(),
            "affinity": affinity(),
            "ticks": os.sysconf("SC_CLK_TCK"),
        }

    def ask(self, command: list[str]) -> str | None:
        return ask_program(command)

    def state(self, paths: list[str]) -> dict[str, Any]:
        """Counters and the texts of files now."""
        counters = {"now_s": time.monotonic(), "own_s": own_s(), "average": load_average()}
        return {**counters, "texts": {path: read_text(path) for path in paths}}

    def put(self, name: str, data: str, is_first: bool, is_last: bool) -> None:
        """A part of a file, which is checked and named with the last one."""
        path = self._folder / name
        part = path.with_suffix(f".part{os.getpid()}")
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb" if is_first else "ab") as file:
                file.write(base64.b64decode(data))
            if is_last:
                if _sha256(part) != path.stem:
                    raise MeasurementError(f"{name} arrived damaged", "damaged")
                part.replace(path)
                with contextlib.suppress(OSError):  # another agent may be removing them too
                    self._remove_old_files()
        except (OSError, MeasurementError):
            with contextlib.suppress(OSError):
                part.unlink()
            raise

    def open(self, network: dict[str, Any]) -> dict[str, Any]:
        """What the engine says of a network."""
        return self._opened(network).facts

    def run(self, network: dict[str, Any], shape: list[int], data: str) -> dict[str, Any]:
        """Logits of an input, both float32."""
        import numpy

        array = numpy.frombuffer(base64.b64decode(data), "float32").reshape(shape)
        logits = numpy.ascontiguousarray(self._opened(network).run(array), "float32")
        return {"shape": list(logits.shape), "data": base64.b64encode(logits.tobytes()).decode()}

    def measure(self, items: dict[str, Any], protocol: dict[str, Any], paths: list[str]) -> dict[str, Any]:
        """Time networks interleaved; while another process of this machine measures, wait."""
        import numpy

        keys, calls = [_key(item["network"]) for item in items.values()], {}
        self._networks = {key: self._networks[key] for key in keys if key in self._networks}  # frees the others' memory
        arrays = {name: numpy.fromfile(self._found(name), "float32") for name in {it["input"] for it in items.values()}}
        for name, item in items.items():
            array = arrays[item["input"]].reshape(item["shape"])
            calls[name] = functools.partial(self._opened(item["network"]).run, array)
        last_s = time.monotonic()

        def on_progress(part: float) -> None:
            nonlocal last_s
            if time.monotonic() - last_s > 1:
                last_s = time.monotonic()
                self._answer({"progress": part})

        with _alone(lambda: self._answer({"waiting": True})):
            before = self.state(paths)
            samples = time_interleaved(calls, SimpleNamespace(**protocol), Clock(), on_progress)
            return {**samples, "before": before, "after": self.state(paths)}

    def _found(self, name: str) -> str:
        """The path of a file that is here whole."""
        path = self._folder / name
        with contextlib.suppress(FileNotFoundError):
            if _sha256(path) == path.stem:
                os.utime(path)  # the least recently used are removed
                return str(path)
        raise MeasurementError(name, "missing")

    def _opened(self, network: dict[str, Any]) -> Opened:
        """The open network; requests name networks by all that they depend on, as the connection may be a new one."""
        key = _key(network)
        if key not in self._networks:
            files = list(map(self._found, network["files"]))
            try:
                self._networks[key] = ENGINES[network["engine"]](files, network["how"])
            except ImportError as error:
                is_absent = error.name in ("numpy", network["engine"])
                raise MeasurementError(str(error), "absent" if is_absent else "engine") from None
            except Exception as error:  # the engines' errors have no common base
                version = getattr(sys.modules.get(network["engine"]), "__version__", "")
                raise MeasurementError(f"{network['engine']} {version}: {error}", "engine") from None
        return self._networks[key]

    def _remove_old_files(self) -> None:
        for path in sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-MAX_FILES]:
            if time.time() - path.stat().st_mtime > KEEP_S:
                path.unlink()


def _key(network: dict[str, Any]) -> str:
    return json.dumps(network, sort_keys=True)


def _refusal(error: Exception) -> dict[str, str]:
    kind = "disk" if isinstance(error, OSError) else getattr(error, "kind", "failed")
    return {"error": kind, "text": str(error) if kind != "failed" else f"{type(error).__name__}: {error}"}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def _alone(on_wait: Callable[[], None]) -> Iterator[None]:
    """Inside the block, no other process of this machine measures; as `timing.measuring_alone`, with the same file."""
    import fcntl

    path, flags = Path(tempfile.gettempdir(), LOCK_NAME), os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
    try:  # in a shared folder, systems refuse O_CREAT on a file of another user
        descriptor = os.open(path, flags if path.exists() else flags | os.O_CREAT, 0o666)
        with contextlib.suppress(OSError):
            path.chmod(0o666)  # whatever the umask
    except OSError:
        yield
        return
    try:
        patience = threading.Timer(PATIENCE_S, on_wait)
        patience.start()
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.lockf(descriptor, fcntl.LOCK_EX)
        patience.cancel()
        yield
    finally:
        os.close(descriptor)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Lines of standard input until it ends, or is silent for too long."""
    parts: list[bytes] = []  # of a line that has not ended
    while select.select([descriptor], [], [], SILENCE_S)[0] and (part := os.read(descriptor, 2**20)):
        parts.append(part)
        if b"\n" in part:
            *lines, rest = b"".join(parts).split(b"\n")
            parts = [rest]
            yield from lines


def serve(folder: Path) -> None:
    """Answer the requests on standard input until it ends, then end this process at once."""
    output = os.dup(1)
    os.dup2(2, 1)  # engines print to standard output
    requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def listen() -> None:
        try:
            for line in filter(bytes.strip, _lines(0)):
                requests.put(json.loads(line))
        finally:
            os._exit(0)  # even in the middle of a measurement: nobody waits for it

    def answer(value: dict[str, Any]) -> None:
        data = json.dumps(value).encode() + b"\n"
        try:
            while data:
                data = data[os.write(output, data) :]
        except OSError:
            os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    agent = Agent(folder, answer)
    answer({"ok": agent.about()})
    while True:
        request = requests.get()
        try:
            answer({"ok": getattr(agent, request.pop("do"))(**request)})
        except Exception as error:
            answer(_refusal(error))


if __name__ == "__main__":
    serve(Path(__file__).resolve().parents[1] / "files")

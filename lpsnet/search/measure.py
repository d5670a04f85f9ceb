"""Lat(·) of Section 3.4 measured on this machine or on a device far away: the network alone, one image at a time
(design-notes, 'What is timed').

Latency does not depend on the weights' values, so designs are measured with random weights before they are trained,
exported and opened with the engine as in deployment.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import JsonValue

from lpsnet import __version__
from lpsnet.benchmark.device import Device as RemoteDevice
from lpsnet.benchmark.device import DeviceSession
from lpsnet.benchmark.machine import Load, LoadWatch, Machine, describe_machine
from lpsnet.benchmark.timing import TimingProtocol, measure
from lpsnet.errors import RunError, unknown_name
from lpsnet.export.export import WRITERS, untrained_for_runtime
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.models.network import MIN_INPUT
from lpsnet.search.operations import Design

# One repetition; their number is chosen by the search (see `journal.REPETITIONS`).
TURN = TimingProtocol(warm_up_s=0.02, duration_s=1e-6, turn_s=0.04)
OTHER_CORES = 0.25  # processors that other programs may keep busy, besides those that no engine thread needs
MIN_WATCHED_S = 0.2  # the system counts load in hundredths of a second; shorter repetitions are not judged
MAX_BUSY = 10  # repetitions discarded for other programs; then they are accepted until the machine is quiet again
MAX_OPEN = 16  # sessions; each holds its network's weights and maps
MAX_FILES = 128  # model files on the disk; writing one takes a second


@dataclass(frozen=True, slots=True)
class Target:
    """How the networks are deployed.

    Attributes:
        size: (height, width) in pixels of their input.
        runtime: the engine, see `RUNTIMES`.
        precision: "f32", "bf16" or "f16". int8 needs trained weights.
        num_threads: threads of the engine; None for its default.

    Raises:
        RunError: the engine, the size or the precision is unknown or cannot be searched with.
    """

    size: tuple[int, int]
    runtime: str = "onnxruntime"
    precision: Precision = "f32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.runtime not in WRITERS:
            raise RunError(unknown_name("runtime of an expansion", self.runtime, WRITERS))
        if self.precision == "int8":
            raise RunError("an expansion measures in f32, bf16 or f16: int8 networks are made from trained ones")
        if min(self.size) < MIN_INPUT:
            raise RunError(f"a network takes images from {MIN_INPUT}x{MIN_INPUT} up; got {self.size}")

    def __str__(self) -> str:
        """`onnxruntime, f32, 2 threads, 360x480`."""
        threads = "" if self.num_threads is None else f"{self.num_threads} thread{'s' * (self.num_threads > 1)}, "
        return f"{self.runtime}, {self.precision}, {threads}{self.size[0]}x{self.size[1]}"


class Device(Protocol):
    """Measures latencies."""

    def describe(self, design: Design) -> dict[str, JsonValue]:
        """All that latencies depend on besides the design, as JSON values; `design` is opened to find out."""
        ...

    def measure_once(self, designs: Sequence[Design]) -> Sequence[float]:
        """The time of every design in ms, in the order given, each measured once, one after the other."""
        ...

    def release(self) -> None:
        """Free memory and processors until the next repetition."""
        ...


Image = NDArray[np.float32]  # 1 x 3 x H x W


class _Place(Protocol):
    """Where an engine runs: this machine or a device far away."""

    @property
    def machine(self) -> Machine: ...

    def open(self, runtime: str, options: SessionOptions) -> Session: ...

    def time(self, sessions: Mapping[str, Session], image: Image) -> tuple[dict[str, float], Load]:
        """The median time of each in ms, interleaved, and the load meanwhile."""
        ...

    def release(self) -> None:
        """Free what is held between repetitions."""
        ...


class _Here:
    """A `_Place`: this machine."""

    @cached_property
    def machine(self) -> Machine:
        return describe_machine()  # cached, since it starts programs

    def open(self, runtime: str, options: SessionOptions) -> Session:
        session = open_session(runtime, options)
        assert options.input_size is not None
        session.run(np.zeros((1, 3, *options.input_size), np.float32))  # engines allocate memory in the first call
        return session

    def time(self, sessions: Mapping[str, Session], image: Image) -> tuple[dict[str, float], Load]:
        if not gc.get_freeze_count():
            gc.freeze()  # so that the garbage collection of `measure` does not visit all of torch every time
        watch = LoadWatch.start()
        found = measure({name: partial(session.run, image) for name, session in sessions.items()}, protocol=TURN)
        return {name: latency.median_ms for name, latency in found.items()}, watch.load()

    def release(self) -> None:
        gc.unfreeze()


class _There:
    """A `_Place`: a device far away."""

    def __init__(self, device: RemoteDevice) -> None:
        self._device = device

    @property
    def machine(self) -> Machine:
        return self._device.machine

    def open(self, runtime: str, options: SessionOptions) -> Session:
        return self._device.open_session(runtime, options)

    def time(self, sessions: Mapping[str, Session], image: Image) -> tuple[dict[str, float], Load]:
        items = {name: (cast(DeviceSession, session), image) for name, session in sessions.items()}
        found, load = self._device.measure(items, protocol=TURN)
        return {name: latency.median_ms for name, latency in found.items()}, load

    def release(self) -> None:
        self._device.close()


class Deployment:
    """A `Device`: networks in an engine on this machine, or on a device far away.

    Args:
        target: how networks run.
        folder: of the temporary model files; created.
        num_classes, interaction: of the networks.
        max_open: the most open sessions. More designs are measured in groups, one after another.
        device: the device far away; None for this machine.
        on_progress: called with a line of text when other programs disturb the measurement.
    """

    def __init__(
        self,
        target: Target,
        folder: Path,
        *,
        num_classes: int,
        interaction: str = "bilateral_b",
        max_open: int = MAX_OPEN,
        device: RemoteDevice | None = None,
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._target, self._folder = target, folder
        self._place: _Place = _There(device) if device else _Here()
        self._num_classes, self._interaction = num_classes, interaction
        self._max_open, self._on_progress = max_open, on_progress
        self._is_busy = False  # for so long that repetitions are accepted nevertheless
        self._sessions: dict[Design, Session] = {}  # in the order of their last use
        self._num_repetitions = 0

    def describe(self, design: Design) -> dict[str, JsonValue]:
        """Engine with version, precision and threads as the engine reports them, input size, and the machine.

        Raises:
            LpsnetError: the engine is not installed, or cannot run `design` like that here.
        """
        session = self._session(design)
        return {
            "runtime": self._target.runtime,
            "engine": session.engine,
            "precision": session.precision,
            "num_threads": session.num_threads,
            "size": list(self._target.size),
            "machine": self._place.machine.identity,
        }

    def measure_once(self, designs: Sequence[Design]) -> list[float]:
        """The median time of every design in ms; every second repetition is in reverse order.

        A repetition during which other programs were busy is discarded and repeated.
        """
        for attempt in range(MAX_BUSY):
            times, others = self._pass(designs)
            is_quiet = others <= max(OTHER_CORES, self._spare_cores)
            if is_quiet or self._is_busy:
                break
            if attempt == 0:
                self._on_progress(
                    f"  other programs keep {others:.1f} processors busy: measuring again until it is quiet"
                )
        if not is_quiet and not self._is_busy:
            self._on_progress("  warning: other programs stay busy, and latencies are those of a busy machine")
        self._is_busy = not is_quiet
        return times

    @property
    def _spare_cores(self) -> float:
        """Logical processors without an engine thread."""
        threads = self._target.num_threads
        return 0.0 if threads is None else float(self._place.machine.num_threads - threads) - 1

    def _pass(self, designs: Sequence[Design]) -> tuple[list[float], float]:
        """Times, and the processors that other programs kept busy."""
        order = list(designs) if self._num_repetitions % 2 == 0 else list(reversed(designs))
        self._num_repetitions += 1
        times, loads = dict[str, float](), list[Load]()
        threads = torch.get_num_threads()
        for begin in range(0, len(order), self._max_open):
            found, load = self._time_group(order[begin : begin + self._max_open])
            times |= found
            loads.append(load)
        if torch.get_num_threads() != threads:  # PyTorch as an engine changes it
            torch.set_num_threads(threads)
        return [times[str(design)] for design in designs], _other_cores(loads)

    def _time_group(self, designs: Sequence[Design]) -> tuple[dict[str, float], Load]:
        height, width = self._target.size
        image = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
        return self._place.time({str(design): self._session(design) for design in designs}, image)

    def release(self) -> None:
        """Close all sessions."""
        self._sessions.clear()
        self._place.release()

    def clear(self) -> None:
        """Close all sessions and delete all model files."""
        self.release()
        for path in self._files():
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _session(self, design: Design) -> Session:
        session = self._sessions.pop(design, None) or self._open(design)
        self._sessions[design] = session
        while len(self._sessions) > self._max_open:
            del self._sessions[next(iter(self._sessions))]
        return session

    def _open(self, design: Design) -> Session:
        target = self._target
        options = SessionOptions(self._model_file(design), target.precision, target.num_threads, target.size)
        return self._place.open(target.runtime, options)

    def _model_file(self, design: Design) -> Path:
        name, runtime = self._key(design), self._target.runtime
        path = self._folder / f"{name}{WRITERS[runtime].suffix}"
        if path.exists():
            path.touch()  # the most recently used files are kept
            return path
        self._folder.mkdir(parents=True, exist_ok=True)
        untrained_for_runtime(
            design.architecture,
            self._folder,
            name,
            runtime=runtime,
            size=self._target.size,
            num_classes=self._num_classes,
            block=design.block,
            interaction=self._interaction,
        )
        for old in self._files()[:-MAX_FILES]:
            old.unlink(missing_ok=True)
        return path

    def _key(self, design: Design) -> str:
        """A hash of everything that the file depends on."""
        parts = [str(design), self._num_classes, self._interaction, *self._target.size, __version__]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def _files(self) -> list[Path]:
        """Our model files, the least recently used first."""
        suffixes = {writer.suffix for writer in WRITERS.values()}
        found = [path for path in self._folder.glob("*") if path.suffix in suffixes]
        return sorted(found, key=lambda path: path.stat().st_mtime)


def _other_cores(loads: Sequence[Load]) -> float:
    """Processors that other programs kept busy, on average; 0 if that is unknown or the time too short to tell."""
    known = [(load.other_cores, load.duration_s) for load in loads if load.other_cores is not None]
    duration_s = sum(seconds for _, seconds in known)
    return (
        sum(cores * seconds for cores, seconds in known) / duration_s
        if duration_s > 0 and duration_s >= MIN_WATCHED_S
        else 0.0
    )

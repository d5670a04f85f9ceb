"""Lat(·) of Section 3.4 measured on this machine: the network alone, one image at a time (design-notes, 'What is
timed').

Latency does not depend on the weights' values, so designs are measured with random weights before they are trained,
exported and opened with the engine as in deployment.
"""

import gc
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from pydantic import JsonValue

from lpsnet import __version__
from lpsnet.benchmark.machine import LoadWatch, describe_machine
from lpsnet.benchmark.timing import TimingProtocol, measure
from lpsnet.errors import RunError, unknown_name
from lpsnet.export.export import WRITERS, untrained_for_runtime
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.models.network import MIN_INPUT
from lpsnet.search.operations import Design

# One repetition; their number is chosen by the search (see `replay.REPETITIONS`).
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


class ThisMachine:
    """A `Device`: this machine, with an engine.

    Args:
        target: how networks run.
        folder: of the temporary model files; created.
        num_classes, interaction: of the networks.
        max_open: the most open sessions. More designs are measured in groups, one after another.
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
        on_progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._target, self._folder = target, folder
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
            "machine": describe_machine().identity,
        }

    def measure_once(self, designs: Sequence[Design]) -> list[float]:
        """The median time of every design in ms; every second repetition is in reverse order.

        A repetition during which other programs were busy is discarded and repeated.
        """
        for attempt in range(MAX_BUSY):
            watch = LoadWatch.start()
            times = self._pass(designs)
            load = watch.load()
            others = load.other_cores if load.other_cores and load.duration_s >= MIN_WATCHED_S else 0.0
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

    @cached_property
    def _spare_cores(self) -> float:
        """Logical processors without an engine thread; cached, since describing a machine starts programs."""
        threads = self._target.num_threads
        return 0.0 if threads is None else float(describe_machine().num_threads - threads) - 1

    def _pass(self, designs: Sequence[Design]) -> list[float]:
        if not gc.get_freeze_count():
            gc.freeze()  # so that the garbage collection of `measure` does not visit all of torch every time
        order = list(designs) if self._num_repetitions % 2 == 0 else list(reversed(designs))
        self._num_repetitions += 1
        times: dict[str, float] = {}
        threads = torch.get_num_threads()
        for begin in range(0, len(order), self._max_open):
            times |= self._measure_group(order[begin : begin + self._max_open])
        if torch.get_num_threads() != threads:  # PyTorch as an engine changes it
            torch.set_num_threads(threads)
        return [times[str(design)] for design in designs]

    def release(self) -> None:
        """Close all sessions."""
        self._sessions.clear()
        gc.unfreeze()

    def clear(self) -> None:
        """Close all sessions and delete all model files."""
        self.release()
        for path in self._files():
            path.unlink(missing_ok=True)
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _measure_group(self, designs: Sequence[Design]) -> dict[str, float]:
        height, width = self._target.size
        image = np.random.default_rng(0).standard_normal((1, 3, height, width), np.float32)
        calls = {str(design): partial(self._session(design).run, image) for design in designs}
        return {name: latency.median_ms for name, latency in measure(calls, protocol=TURN).items()}

    def _session(self, design: Design) -> Session:
        session = self._sessions.pop(design, None) or self._open(design)
        self._sessions[design] = session
        while len(self._sessions) > self._max_open:
            del self._sessions[next(iter(self._sessions))]
        return session

    def _open(self, design: Design) -> Session:
        target = self._target
        options = SessionOptions(self._model_file(design), target.precision, target.num_threads, target.size)
        session = open_session(target.runtime, options)
        session.run(np.zeros((1, 3, *target.size), np.float32))  # engines allocate memory in the first call
        return session

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

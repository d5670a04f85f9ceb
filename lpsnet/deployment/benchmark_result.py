"""What a benchmark gives: candidates measured in turn on one machine, every sample, and what a reader must know of it.

The network alone is what the paper times (design-notes, 'What is timed'): scores from a normalised picture. End to end
is what a user waits for: from the picture's bytes to a label map of its size.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from lpsnet import __version__
from lpsnet.deployment.latency import Comparison, Latency, compare
from lpsnet.deployment.load import Load
from lpsnet.deployment.machine import Machine, command_line
from lpsnet.deployment.runtimes.session import Precision

MAX_SPREAD = 0.2  # interquartile range as a share of the median, above which times are called spread
MAX_OTHER_CORES = 0.1  # processors busy with other work, above which the machine is called busy
ALIKE = 1.05  # upper by lower bound of a ratio, below which two models are as fast as each other and not just unclear


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be timed: a model file, run by an engine in an arithmetic.

    Attributes:
        name: what it is called in tables.
        path: the file; an ONNX file of another program will do.
        runtime: the engine, see `RUNTIMES`.
        precision: the arithmetic to ask for; a quantised file computes in int8 whatever is asked for.
        macs: multiply-accumulates for a picture of the size measured; None if not known.
        size: (height, width) in pixels of its input, where it is not that of the benchmark.
    """

    name: str
    path: Path
    runtime: str
    precision: Precision = "f32"
    macs: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a candidate.

    Attributes:
        engine: the engine and its version.
        precision: the arithmetic really used.
        num_threads: threads of the engine; None if it does not say.
        num_bytes: size of the file.
        network: the network alone, from a normalised picture to scores.
        end_to_end: from a picture's bytes to its label map; None if not measured.
        peak_memory_mib: of a process that loads the model and runs it; None if not measured.
        miou: percent; None if not evaluated.
    """

    candidate: Candidate
    engine: str
    precision: Precision
    num_threads: int | None
    num_bytes: int
    network: Latency
    end_to_end: Latency | None = None
    peak_memory_mib: float | None = None
    miou: float | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Candidates measured in turn.

    Attributes:
        size: (height, width) in pixels of the network's input.
        protocol: the name in `PROTOCOLS`.
        picture: what the picture is.
        results: in the order asked for.
        problems: (candidate, what could not be measured of it and why).
        machine, load: where, and what else went on there.
        date: UTC, ISO 8601.
    """

    size: tuple[int, int]
    protocol: str
    picture: str
    results: tuple[Result, ...]
    problems: tuple[tuple[Candidate, str], ...]
    machine: Machine
    load: Load
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def latency_ms(self, result: Result) -> float:
        """The one figure for a network alone: the mean by the paper's protocol, else the median."""
        return result.network.mean_ms if self.protocol == "paper" else result.network.median_ms

    def gmacs_per_ms(self, result: Result) -> float | None:
        """FLOPs-efficiency as in the paper's Table 2, in 10^9 multiply-accumulates a millisecond."""
        macs = result.candidate.macs
        return None if macs is None else macs / 1e9 / self.latency_ms(result)

    def speed_up(self, result: Result) -> float | None:
        """How many times as fast a network alone is as the first one, round by round; None for the first itself."""
        first = self.results[0]
        return None if result is first else compare(first.network, result.network).ratio

    def comparisons(self) -> list[tuple[Result, Result, Comparison]]:
        """Every pair, the network alone."""
        return [(a, b, compare(a.network, b.network)) for a, b in combinations(self.results, 2)]

    def label(self, result: Result) -> str:
        """The candidate's name, with engine and precision where these differ within the benchmark."""
        engines = {other.candidate.runtime for other in self.results}
        precisions = {other.precision for other in self.results}
        parts = [
            result.candidate.name,
            result.candidate.runtime if len(engines) > 1 else "",
            result.precision if len(precisions) > 1 else "",
        ]
        return " ".join(filter(None, parts))

    def warnings(self) -> list[str]:
        """What a reader of the figures must know, a line each; neighbours in speed that cannot be told apart first."""
        ranked = sorted(self.results, key=lambda result: result.network.median_ms)
        lines = [self._unclear(*pair) for pair in pairwise(ranked)]
        lines += [self._spread(result) for result in self.results]
        other, cores = self.load.other_cores, self.machine.num_threads
        if other is not None and other > MAX_OTHER_CORES * cores:
            lines.append(f"the machine was not idle: other work kept {other:.1f} of its {cores} processors busy")
        return [line for line in lines if line]

    def _unclear(self, fast: Result, slow: Result) -> str:
        comparison = compare(fast.network, slow.network)
        if comparison.verdict != "cannot tell apart":
            return ""
        low, high = comparison.interval
        text = f"{self.label(fast)} and {self.label(slow)} cannot be told apart: "
        if high / low < ALIKE:
            return f"{text}their times are within {100 * (high / low - 1):.0f} % of each other"
        return (
            f"{text}the ratio of their times is between {low:.2f} and {high:.2f}; the machine is too noisy for more, "
            "measure while it is idle, or for longer"
        )

    def _spread(self, result: Result) -> str:
        latency = result.network
        if latency.target_reached is False:
            return f"times of {self.label(result)} did not settle to the precision asked for"
        if latency.iqr_ms > MAX_SPREAD * latency.median_ms:
            return f"times of {self.label(result)} are spread: half of them over {latency.iqr_ms:.3g} ms"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, every sample included."""
        return {
            "size": list(self.size),
            "protocol": self.protocol,
            "picture": self.picture,
            "results": [self._result(result) for result in self.results],
            "comparisons": [
                {"a": self.label(a), "b": self.label(b), **comparison.to_dict()}
                for a, b, comparison in self.comparisons()
            ],
            "warnings": self.warnings(),
            "problems": [
                {"model": cell.name, "runtime": cell.runtime, "precision": cell.precision, "problem": problem}
                for cell, problem in self.problems
            ],
            "machine": self.machine.to_dict(),
            "load": self.load.to_dict(),
            "command": command_line(),
            "lpsnet_version": __version__,
            "date": self.date,
        }

    def _result(self, result: Result) -> dict[str, Any]:
        return {
            "model": result.candidate.name,
            "path": str(result.candidate.path),
            "runtime": result.candidate.runtime,
            "engine": result.engine,
            "precision": result.precision,
            "num_threads": result.num_threads,
            "num_bytes": result.num_bytes,
            "macs": result.candidate.macs,
            "gmacs_per_ms": self.gmacs_per_ms(result),
            "times_as_fast_as_first": self.speed_up(result),
            "network": result.network.to_dict(),
            "end_to_end": None if result.end_to_end is None else result.end_to_end.to_dict(),
            "peak_memory_mib": result.peak_memory_mib,
            "miou": result.miou,
        }

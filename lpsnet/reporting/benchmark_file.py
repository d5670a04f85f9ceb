"""What `lpsnet benchmark --json` wrote, read back."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field

from lpsnet.reporting.reading import CommandText, Figures, Percent, parsed, read_json

Time = Annotated[float, Field(gt=1e-9, lt=1e12)]  # ms


class LatencyFigures(Figures):
    """See `Latency.to_dict`."""

    median_ms: Time
    median_interval_ms: tuple[Time, Time]
    median_interval_confidence: float
    mean_ms: Time
    p90_ms: Time
    min_ms: Time
    iqr_ms: Annotated[float, Field(ge=0)]
    num_samples: int
    num_rounds: int
    turns_ms: list[Annotated[list[Time], Field(min_length=1)]] = Field(min_length=1)

    @property
    def samples_ms(self) -> list[float]:
        """Every sample."""
        return [sample for turn in self.turns_ms for sample in turn]


class ResultFigures(Figures):
    """See `Result`."""

    model: str
    path: str
    runtime: str
    engine: str
    precision: str
    num_threads: int | None
    num_bytes: int
    macs: int | None
    gmacs_per_ms: float | None
    times_as_fast_as_first: float | None
    network: LatencyFigures
    end_to_end: LatencyFigures | None
    peak_memory_mib: float | None
    miou: Percent


class ComparisonFigures(Figures):
    """See `Comparison.to_dict`: how the latency of `a` relates to that of `b`."""

    a: str
    b: str
    ratio: float
    ratio_interval: tuple[float, float]
    verdict: str


class Problem(Figures):
    """What could not be measured, and why."""

    model: str
    runtime: str
    precision: str
    problem: str


class BenchmarkFile(Figures):
    """See `Benchmark.to_dict`."""

    size: tuple[int, int]
    protocol: str
    picture: str
    results: list[ResultFigures] = Field(min_length=1)
    comparisons: list[ComparisonFigures]
    warnings: list[str]
    problems: list[Problem]
    machine: dict[str, Any]
    load: dict[str, Any]
    date: str
    command: CommandText = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """The benchmark in a JSON file.

        Raises:
            RunError: there is none.
        """
        return parsed(cls, read_json(path), path)

    def label(self, result: ResultFigures) -> str:
        """The model's name, with engine and precision where these differ within the benchmark."""
        engines = {it.runtime for it in self.results}
        precisions = {it.precision for it in self.results}
        parts = (
            result.model,
            result.runtime if len(engines) > 1 else "",
            result.precision if len(precisions) > 1 else "",
        )
        return " ".join(filter(None, parts))

"""What `lpsnet benchmark --json` wrote, read back.

The report of a benchmark: the figures, how their samples are spread, who is faster than whom, machine and load.
"""

from pathlib import Path
from statistics import median
from typing import Annotated, Any, Self

from pydantic import Field

from lpsnet.report.charts import (
    NARROW,
    NUM_COLOURS,
    Curve,
    Distribution,
    Drawing,
    Size,
    draw_curves,
    draw_distributions,
)
from lpsnet.report.page import (
    Cell,
    Chart,
    Command,
    CommandText,
    Facts,
    Figures,
    Page,
    Part,
    Percent,
    Section,
    Table,
    Text,
    Tile,
    figure,
    flat,
    milliseconds,
    parsed,
    read_json,
)

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


CHART_HEIGHT, NARROW_CHART_HEIGHT = 360.0, 280.0  # pixels


def benchmark_page(path: Path) -> Page:
    """The page of a JSON file that `lpsnet benchmark` wrote.

    Raises:
        RunError: the file holds no benchmark.
    """
    found = BenchmarkFile.read(path)
    height, width = found.size
    problems = [f"{it.model} by {it.runtime} in {it.precision}: {it.problem}" for it in found.problems]
    return Page(
        kind="Benchmark",
        title=", ".join(dict.fromkeys(it.model for it in found.results)),
        lead=f"{height}x{width}, {found.protocol} protocol; image: {found.picture}",
        tiles=_tiles(found),
        notes=tuple(found.warnings),
        sections=(
            Section("Figures", (_table(found), *((Text(tuple(problems), bullets=True),) if problems else ()))),
            Section("How the samples are spread", _spread(found)),
            Section("Which is faster", _comparisons(found)),
            Section("How it was measured", _making(found)),
        ),
    )


def _latency_ms(found: BenchmarkFile, result: ResultFigures) -> float:
    """The one figure: the mean by the paper's protocol, else the median."""
    return result.network.mean_ms if found.protocol == "paper" else result.network.median_ms


def _tiles(found: BenchmarkFile) -> tuple[Tile, ...]:
    fastest = min(found.results, key=lambda it: _latency_ms(found, it))
    other = found.load.get("other_cores_busy")
    tiles = [Tile(f"Fastest: {found.label(fastest)}", milliseconds(_latency_ms(found, fastest)), "ms")]
    whole = [it for it in found.results if it.end_to_end is not None]
    if whole:
        best = min(whole, key=lambda it: it.end_to_end.median_ms if it.end_to_end else 0.0)
        assert best.end_to_end is not None
        tiles.append(Tile(f"End to end: {found.label(best)}", milliseconds(best.end_to_end.median_ms), "ms"))
    if isinstance(other, float | int):
        tiles.append(Tile("Processors busy with other work", figure(other)))
    return tuple(tiles)


def _table(found: BenchmarkFile) -> Table:
    """A row a result, with columns only for what is known of any."""
    figure_name = "mean" if found.protocol == "paper" else "median"
    slowest = max(_latency_ms(found, it) for it in found.results)
    columns: dict[str, list[Cell | str]] = {
        "Model": [it.model for it in found.results],
        "Engine": [f"{it.engine}, {it.precision}" for it in found.results],
        f"Network, {figure_name} (ms)": [
            Cell(milliseconds(_latency_ms(found, it)), bar=_latency_ms(found, it) / slowest) for it in found.results
        ],
        "Interval (ms)": [_interval(it.network) for it in found.results],
        "p90 (ms)": [milliseconds(it.network.p90_ms) for it in found.results],
        "Spread (ms)": [milliseconds(it.network.iqr_ms) for it in found.results],
        "Times\u00a0as fast": [figure(it.times_as_fast_as_first, 2) for it in found.results],
        "End\u00a0to\u00a0end (ms)": [
            milliseconds(it.end_to_end.median_ms if it.end_to_end else None) for it in found.results
        ],
        "G/ms": [figure(it.gmacs_per_ms, 3) for it in found.results],
        "mIoU (%)": [figure(it.miou, 2) for it in found.results],
        "File (MiB)": [figure(it.num_bytes / 2**20, 2) for it in found.results],
        "Peak (MiB)": [figure(it.peak_memory_mib, 0) for it in found.results],
        "Threads": ["–" if it.num_threads is None else str(it.num_threads) for it in found.results],
    }
    used = {head: cells for head, cells in columns.items() if any(cell != "–" for cell in cells)}
    return Table(tuple(used), tuple(zip(*used.values(), strict=True)), words=(0, 1))


def _interval(latency: LatencyFigures) -> str:
    low, high = latency.median_interval_ms
    return f"{milliseconds(low)} to {milliseconds(high)}"


def _spread(found: BenchmarkFile) -> tuple[Part, ...]:
    """The distributions, alone and end to end, and the medians round by round."""
    network = [(found.label(it), it.network) for it in found.results]
    whole = [(found.label(it), it.end_to_end) for it in found.results if it.end_to_end is not None]
    caption = (
        "Each row is a histogram of all samples. The long line is the median, the band behind it the interval that the "
        "median lies in, the short line the 90th percentile."
    )
    parts = [_distributions("Network alone", network, caption)]
    if whole:
        parts.append(_distributions("End to end, from an image's bytes to its label map", whole, ""))
    if max(it.network.num_rounds for it in found.results) > 1 and len(network) <= NUM_COLOURS:
        parts.append(_rounds(network))
    return tuple(parts)


def _distributions(title: str, latencies: list[tuple[str, LatencyFigures]], caption: str) -> Chart:
    rows = [Distribution(name, it.samples_ms, it.median_ms, it.median_interval_ms, it.p90_ms) for name, it in latencies]

    def draw(width: float) -> Drawing:
        return draw_distributions(rows, width, label=f"{title}: how long calls take", x_name="ms")

    return Chart.of(draw, title=title, caption=caption)


def _rounds(latencies: list[tuple[str, LatencyFigures]]) -> Chart:
    curves = [
        Curve(name, range(1, len(it.turns_ms) + 1), [median(turn) for turn in it.turns_ms]) for name, it in latencies
    ]

    def draw(width: float) -> Drawing:
        size = Size(width, NARROW_CHART_HEIGHT if width <= NARROW else CHART_HEIGHT)
        label = "The median of every round"
        return draw_curves(curves, size, label=label, x_name="round", y_name="ms, median", with_zero=True)

    caption = "All were measured in turn. What moves all curves together is the machine; ratios leave it out."
    return Chart.of(draw, title="Round by round, the network alone", caption=caption)


def _comparisons(found: BenchmarkFile) -> tuple[Part, ...]:
    if not found.comparisons:
        return ()
    caption = "The ratio of times is taken round by round; below 1, A is faster."
    heads = ("A", "B", "Ratio A/B", "Interval", "Verdict")
    rows = tuple(
        (
            it.a,
            it.b,
            figure(it.ratio, 3),
            f"{it.ratio_interval[0]:.3f} to {it.ratio_interval[1]:.3f}",
            Cell(it.verdict, tag="doubt" if it.verdict == "cannot tell apart" else ""),
        )
        for it in found.comparisons
    )
    return (Table(heads, rows, words=(0, 1, 4), caption=caption),)


def _making(found: BenchmarkFile) -> tuple[Part, ...]:
    parts = (
        Command(found.command, title="Command") if found.command else None,
        Facts((("date", found.date), *flat(found.machine)), title="Machine"),
        Facts(tuple(flat(found.load)), title="Load meanwhile"),
        Facts(tuple((found.label(it), it.path) for it in found.results), title="Files"),
    )
    return tuple(part for part in parts if part is not None)

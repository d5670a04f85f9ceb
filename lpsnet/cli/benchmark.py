"""`lpsnet benchmark`: how fast models are on this machine."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from lpsnet.cli.output import (
    MAX_THREADS,
    JsonOption,
    SizeOption,
    console,
    next_command,
    parse_size,
    say,
    table,
    write_json,
)

if TYPE_CHECKING:
    from lpsnet.benchmark.benchmark import Benchmark, Result
    from lpsnet.inference.engines import Precision


_FILE_WIDTH = 160  # characters of a line in a file or a pipe
_MIN_NAME = 12  # characters of a model's name in a line, at least

RuntimesOption = Annotated[
    list[str] | None, typer.Option("--runtime", help="Engine; may be given several times. Default: the file's own.")
]
PrecisionsOption = Annotated[
    list[str] | None, typer.Option("--precision", help="f32 (default), bf16, f16, int8; may be given several times.")
]


def benchmark(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Model files, names, architectures.")],
    runtime: RuntimesOption = None,
    size: SizeOption = None,
    precision: PrecisionsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=MAX_THREADS, help="Threads of the engines.")] = None,
    protocol: Annotated[str, typer.Option(help="adaptive, quick or paper.")] = "adaptive",
    data: Annotated[str | None, typer.Option(help="mIoU too, on this data set (as for train).")] = None,
    split: Annotated[str, typer.Option(help="Which of its pictures.")] = "val",
    max_pictures: Annotated[int | None, typer.Option(min=1, help="At most as many, spread evenly.")] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory.")] = True,
    json_to: JsonOption = None,
) -> None:
    """Time models in turn, by every engine and in every precision asked for: the network alone, and end to end.

    Protocols: `adaptive` goes on until every median is known to 1 %, for half a minute each at most; `quick` takes two
    seconds each; `paper` is the paper's, 1 s of warm-up and the mean of 20 s, the network alone. An architecture is
    measured with random weights. ONNX files of other programs can be put beside ours.

    Example: `lpsnet benchmark lpsnet_s lpsnet_m --runtime openvino --precision f32 --precision bf16 --size 512x1024`
    """
    from lpsnet.benchmark.benchmark import benchmark as run_benchmark
    from lpsnet.cli.candidates import CandidateMaker, common_size, find_sources
    from lpsnet.data.dataset import open_dataset
    from lpsnet.data.split import select

    labelled = select(open_dataset(data).split(split), max_pictures) if data else None
    sources = find_sources(models)
    chosen_size = parse_size(size) or common_size(list(sources.values()))
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder, measuring_progress() as update:
        cells = CandidateMaker(Path(folder), chosen_size).make(
            sources, runtime or [], cast("list[Precision]", precision or ["f32"])
        )
        result = run_benchmark(
            cells,
            size=chosen_size,
            num_threads=threads,
            protocol=protocol,
            picture=None if labelled is None else labelled.image(0),
            picture_name="" if labelled is None else f"the first of {data}, {split}",
            memory=memory,
            labelled=labelled,
            progress=update,
        )
    write_json(result.to_dict(), json_to)
    print_benchmark(result, json_to=json_to)
    next_command("lpsnet", "study", "widths", "--out", "widths", json_to=json_to)


def print_benchmark(result: "Benchmark", *, json_to: str | None = None) -> None:
    """The figures as tables, and what a reader must know of them."""
    _print_results(result, json_to)
    _print_matrix(result, json_to)
    for warning in result.warnings():
        say(f"careful: {warning}", json_to=json_to)
    for line in dict.fromkeys(f"{cell.name} by {cell.runtime}: {problem}" for cell, problem in result.problems):
        say(line, json_to=json_to)
    engines = ", ".join(dict.fromkeys(row.engine for row in result.results))
    other = result.load.other_cores
    busy = "" if other is None else f"; other work kept {other:.1f} processors busy meanwhile"
    say(f"Measured with {engines} on {result.machine.identity}{busy}", json_to=json_to)


Column = Callable[["Benchmark", "Result"], str]
# heading -> what stands below it. Of the first, what is the same everywhere is said above the table.
_WAYS: dict[str, Column] = {
    "engine": lambda benchmark, result: result.candidate.runtime,
    "precision": lambda benchmark, result: result.precision,
    "threads": lambda benchmark, result: str(result.num_threads or "any"),
}
# Columns that are empty everywhere are left out
_FIGURES: dict[str, Column] = {
    "network": lambda benchmark, result: _ms(benchmark.latency_ms(result)),
    "p90": lambda benchmark, result: _ms(result.network.p90_ms),
    "spread": lambda benchmark, result: _ms(result.network.iqr_ms),
    "times\nas fast": lambda benchmark, result: _number(benchmark.speed_up(result), 2),
    "end to\nend": lambda benchmark, result: _ms(None if result.end_to_end is None else result.end_to_end.median_ms),
    "G/ms": lambda benchmark, result: _number(benchmark.gmacs_per_ms(result), 3),
    "mIoU\n%": lambda benchmark, result: _number(result.miou, 2),
    "file\nMiB": lambda benchmark, result: _number(result.num_bytes / 2**20, 2),
    "peak\nMiB": lambda benchmark, result: _number(result.peak_memory_mib, 0),
}


def _print_results(result: "Benchmark", json_to: str | None) -> None:
    shared = {name: {make(result, row) for row in result.results} for name, make in _WAYS.items()}
    same = [f"{name} {next(iter(values))}" for name, values in shared.items() if len(values) == 1]
    used = {name: make for name, make in _FIGURES.items() if any(make(result, row) for row in result.results)}
    columns = {name: make for name, make in _WAYS.items() if len(shared[name]) > 1} | used
    figure = "mean" if result.protocol == "paper" else "median"
    height, width = result.size
    title = ", ".join([f"{height}x{width}", *same, f"ms a picture: {figure}, 90th percentile, interquartile range"])
    rows = table(title, "model", *columns)
    for row in result.results:
        rows.add_row(row.candidate.name, *(make(result, row) for make in columns.values()))
    print_wide(rows, json_to)


def print_wide(rows: Table, json_to: str | None) -> None:
    """Print a table with little around it; whole, where there is no terminal whose width it must fit."""
    rows.box, rows.columns[0].min_width, rows.columns[0].overflow = box.SIMPLE_HEAD, _MIN_NAME, "fold"
    target = console(json_to)
    if not target.is_terminal:
        target = Console(file=target.file, width=_FILE_WIDTH, highlight=False)
    target.print(rows)


def _print_matrix(result: "Benchmark", json_to: str | None) -> None:
    """Engines against models, where there are several of both."""
    models = list(dict.fromkeys(row.candidate.name for row in result.results))
    engines = list(dict.fromkeys((row.candidate.runtime, row.precision) for row in result.results))
    if min(len(models), len(engines)) < 2:
        return
    found = {(row.candidate.name, row.candidate.runtime, row.precision): row for row in result.results}
    rows = table("network ms", "model", *(" ".join(engine) for engine in engines))
    for model in models:
        cells = (found.get((model, *engine)) for engine in engines)
        rows.add_row(model, *("–" if cell is None else _ms(result.latency_ms(cell)) for cell in cells))
    print_wide(rows, json_to)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@contextmanager
def measuring_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on standard error, if it is a terminal; call the value with what is done and which part of it, 0 to 1."""
    error = console("-")
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=error, transient=True, disable=not error.is_terminal) as progress:
        task = progress.add_task("opening the models", total=1.0)
        yield lambda stage, part: progress.update(task, description=stage, completed=part)

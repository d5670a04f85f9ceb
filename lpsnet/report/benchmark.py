"""The report of a benchmark: figures, distributions of the samples, comparisons, machine and load.

Read from the JSON of `lpsnet benchmark --json`; see `lpsnet.benchmark.benchmark.Benchmark`.
"""

from pathlib import Path
from statistics import median
from typing import Any

from lpsnet.benchmark.benchmark import Benchmark
from lpsnet.benchmark.timing import Latency
from lpsnet.report import charts, html

CHART_HEIGHTS = (360.0, 280.0)  # pixels, wide and narrow


def benchmark_page(path: Path) -> html.Page:
    """The page of a JSON file that `lpsnet benchmark` wrote.

    Raises:
        RunError: the file holds no benchmark.
    """
    found = html.parsed(Benchmark, html.read_json(path), path)
    height, width = found.size
    made = {
        "Machine": (("date", found.date), *html.flat(found.machine)),
        "Load meanwhile": html.flat(found.load),
        "Files": [(found.label(it), it.path) for it in found.results],
    }
    problems = [f"{it.model} by {it.runtime} in {it.precision}: {it.problem}" for it in found.problems]
    return html.Page(
        kind="Benchmark",
        title=", ".join(dict.fromkeys(it.model for it in found.results)),
        lead=f"{height}x{width}, {found.protocol} protocol; image: {found.image}",
        tiles=_tiles(found),
        notes=tuple(found.warnings),
        sections=(
            html.Section(
                "Figures", (_table(found), *((html.Text(tuple(problems), bullets=True),) if problems else ()))
            ),
            html.Section("How the samples are spread", _spread(found)),
            html.Section("Which is faster", _comparisons(found)),
            html.Section("How it was measured", html.making(found.command, made)),
        ),
    )


def _tiles(found: Benchmark) -> tuple[html.Tile, ...]:
    fastest = min(found.results, key=lambda it: found.latency_ms(it))
    other = found.load.get("other_cores_busy")
    tiles = [html.Tile(f"Fastest: {found.label(fastest)}", html.milliseconds(found.latency_ms(fastest)), "ms")]
    if whole := {found.label(it): it.end_to_end.median_ms for it in found.results if it.end_to_end is not None}:
        best = min(whole, key=whole.__getitem__)
        tiles.append(html.Tile(f"End to end: {best}", html.milliseconds(whole[best]), "ms"))
    if isinstance(other, float | int):
        tiles.append(html.Tile("Processors busy with other work", html.figure(other)))
    return tuple(tiles)


def _table(found: Benchmark) -> html.Table:
    """One row per result; columns without any value are left out."""
    figure_name = "mean" if found.protocol == "paper" else "median"
    slowest = max(found.latency_ms(it) for it in found.results)
    columns: dict[str, list[html.Cell | str]] = {
        "Model": [it.model for it in found.results],
        "Engine": [f"{it.engine}, {it.precision}" for it in found.results],
        f"Network, {figure_name} (ms)": [
            html.Cell(html.milliseconds(found.latency_ms(it)), bar=found.latency_ms(it) / slowest)
            for it in found.results
        ],
        "Interval (ms)": [_interval(it.network) for it in found.results],
        "p90 (ms)": [html.milliseconds(it.network.p90_ms) for it in found.results],
        "Spread (ms)": [html.milliseconds(it.network.iqr_ms) for it in found.results],
        "Times\u00a0as fast": [html.figure(it.times_as_fast_as_first, 2) for it in found.results],
        "End\u00a0to\u00a0end (ms)": [
            html.milliseconds(it.end_to_end.median_ms if it.end_to_end else None) for it in found.results
        ],
        "G/ms": [html.figure(it.gmacs_per_ms, 3) for it in found.results],
        "mIoU (%)": [html.figure(it.miou, 2) for it in found.results],
        "File (MiB)": [html.figure(it.num_bytes / 2**20, 2) for it in found.results],
        "Peak (MiB)": [html.figure(it.peak_memory_mib, 0) for it in found.results],
        "Threads": ["–" if it.num_threads is None else str(it.num_threads) for it in found.results],
    }
    used = {head: cells for head, cells in columns.items() if any(cell != "–" for cell in cells)}
    return html.Table(tuple(used), tuple(zip(*used.values(), strict=True)), words=(0, 1))


def _interval(latency: Latency) -> str:
    low, high = latency.interval_ms
    return f"{html.milliseconds(low)} to {html.milliseconds(high)}"


def _spread(found: Benchmark) -> tuple[html.Part, ...]:
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
    if max(it.network.num_rounds for it in found.results) > 1 and len(network) <= charts.NUM_COLOURS:
        parts.append(_rounds(network))
    return tuple(parts)


def _distributions(title: str, latencies: list[tuple[str, Latency]], caption: str) -> html.Chart:
    rows = [charts.Distribution(name, it.samples_ms, it.median_ms, it.interval_ms, it.p90_ms) for name, it in latencies]

    def draw(width: float) -> charts.Drawing:
        return charts.draw_distributions(rows, width, label=f"{title}: how long calls take", x_name="ms")

    return html.Chart.of(draw, title=title, caption=caption)


def _rounds(latencies: list[tuple[str, Latency]]) -> html.Chart:
    rounds = ((name, [median(turn) for turn in it.turns_ms]) for name, it in latencies)
    curves = [charts.Curve(name, range(1, len(medians) + 1), medians) for name, medians in rounds]
    caption = "All were measured interleaved. What moves all curves together is the machine; ratios are free of it."
    title, label = "Round by round, the network alone", "The median of every round"
    axes: dict[str, Any] = {"label": label, "x_name": "round", "y_name": "ms, median", "with_zero": True}

    def draw(width: float) -> charts.Drawing:
        return charts.draw_curves(curves, charts.Size.of(width, CHART_HEIGHTS), **axes)

    return html.Chart.of(draw, title=title, caption=caption)


def _comparisons(found: Benchmark) -> tuple[html.Part, ...]:
    if not found.comparisons:
        return ()
    caption = "The ratio of times is taken round by round; below 1, A is faster."
    heads = ("A", "B", "Ratio A/B", "Interval", "Verdict")
    rows = tuple(
        (
            it.a,
            it.b,
            html.figure(it.ratio, 3),
            f"{it.ratio_interval[0]:.3f} to {it.ratio_interval[1]:.3f}",
            html.Cell(it.verdict, tag="doubt" if it.verdict == "cannot tell apart" else ""),
        )
        for it in found.comparisons
    )
    return (html.Table(heads, rows, words=(0, 1, 4), caption=caption),)

"""`lpsnet report`: finds out what a folder or file is and writes its page: of benchmarks, studies, models and more.

A benchmark's page shows what `lpsnet benchmark --json` wrote: figures, distributions of the samples, comparisons,
machine and load; see `lpsnet.benchmark.benchmark.Benchmark`.
"""

import base64
import logging
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Self

from pydantic import Field, model_validator

from lpsnet.benchmark.benchmark import Benchmark
from lpsnet.benchmark.timing import Latency, is_measuring
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError, RunError
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.inference.model_file import METADATA_READERS, read_record
from lpsnet.io import write_text
from lpsnet.record import ModelRecord
from lpsnet.report import charts, html
from lpsnet.report.evaluation import ImageOptions, evaluation_page, robustness_section
from lpsnet.report.search import expansion_page
from lpsnet.report.training import training_page

_log = logging.getLogger(__name__)

CHART_HEIGHTS = (360.0, 280.0)  # pixels, wide and narrow


def benchmark_page(path: Path) -> html.Page:
    """The page of a JSON file that `lpsnet benchmark` wrote.

    Raises:
        RunError: the file holds no benchmark.
    """
    found = html.parsed(Benchmark, html.read_json(path), path)
    height, width = found.size
    device = (("device", found.device),) if found.device else ()
    made = {
        "Machine": (("date", found.date), *device, *html.flat(found.machine)),
        "Load meanwhile": html.flat(found.load),
        "Files": [(found.label(it), it.path) for it in found.results],
    }
    problems = [f"{it.model} by {it.runtime} in {it.precision}: {it.problem}" for it in found.problems]
    return html.Page(
        kind="Benchmark",
        title=", ".join(dict.fromkeys(it.model for it in found.results)),
        lead=f"{height}x{width}, {found.protocol} protocol; image: {found.image}",
        tiles=_benchmark_tiles(found),
        notes=tuple(found.warnings),
        sections=(
            html.Section(
                "Figures", (_benchmark_table(found), *((html.Text(tuple(problems), bullets=True),) if problems else ()))
            ),
            html.Section("How the samples are spread", _spread(found)),
            html.Section("Which is faster", _comparisons(found)),
            html.Section("How it was measured", html.making(found.command, made)),
        ),
    )


def _benchmark_tiles(found: Benchmark) -> tuple[html.Tile, ...]:
    fastest = min(found.results, key=lambda it: found.latency_ms(it))
    other = found.load.get("other_cores_busy")
    tiles = [html.Tile(f"Fastest: {found.label(fastest)}", html.milliseconds(found.latency_ms(fastest)), "ms")]
    if whole := {found.label(it): it.end_to_end.median_ms for it in found.results if it.end_to_end is not None}:
        best = min(whole, key=whole.__getitem__)
        tiles.append(html.Tile(f"End to end: {best}", html.milliseconds(whole[best]), "ms"))
    if isinstance(other, float | int):
        tiles.append(html.Tile("Processors busy with other work", html.figure(other)))
    return tuple(tiles)


def _benchmark_table(found: Benchmark) -> html.Table:
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


class StudyFile(html.Figures):
    """The values of a study; rows have the same keys, which carry units."""

    study: str
    title: str
    reference: str = ""
    differences: list[str] = Field(default_factory=list)
    settings: dict[str, Any] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    findings: list[str]
    rows: list[dict[str, str | int | float | bool | None]]
    runs: list[dict[str, Any]] = Field(default_factory=list)
    command: html.CommandText = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(list(row) != list(self.rows[0]) for row in self.rows):
            raise ValueError("all rows have the same keys")
        return self


class _Wish(html.Figures):
    data: str
    budget_ms: float
    minutes: float


class _Plan(html.Figures):
    wish: _Wish
    size: tuple[int, int]
    runtime: str
    precision: str
    reasons: list[str]


class FitFile(html.Figures):
    """What a report shows of `fit.json`; see `lpsnet.fitting.Fit`."""

    plan: _Plan
    miou: float
    latency_ms: float
    start: str
    trained: dict[str, float] = Field(default_factory=dict)
    decisions: list[str] = Field(default_factory=list)  # of earlier versions: the plan's reasons


def fit_page(path: Path, images: ImageOptions) -> html.Page:
    """The page of a fit's folder: what was wanted and came out, every decision, the files' latency, then its training.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    file, scores = path / "fit.json", path / "evaluation.json"
    found = html.parsed(FitFile, html.read_json(file), file)
    delivered = html.parsed(Evaluation, html.read_json(scores), scores)
    timed = html.parsed(Benchmark, html.read_json(path / "benchmark.json"), path / "benchmark.json")
    training, plan = training_page(path / "training", images), found.plan
    *first, last = training.sections
    over, precision = found.latency_ms > plan.wish.budget_ms, timed.results[0].precision
    is_whole = plan.precision == "int8" != precision
    decisions = tuple(
        (subject, text) for subject, _, text in (line.partition(": ") for line in found.decisions or plan.reasons)
    )
    tried = tuple((name, f"{miou:.2f} mIoU") for name, miou in found.trained.items())
    return replace(
        training,
        kind="Fit",
        title=path.resolve().name,
        lead=f"{plan.wish.minutes:g} minutes on {plan.wish.data}: {found.start}, {plan.runtime} {precision}, "
        f"images of {plan.size[0]}x{plan.size[1]}",
        tiles=_fit_tiles(found, delivered, timed),
        notes=(*training.notes, *timed.warnings, *((_NOT_INT8,) if is_whole else (_OVER_BUDGET,) if over else ())),
        sections=(
            html.Section("What was decided", (html.Facts(decisions), html.Facts(tried, "What was trained"))),
            html.Section("The files that came out", (_benchmark_table(timed),)),
            *first,
            robustness_section(delivered, images),
            last,
        ),
    )


_OVER_BUDGET = (
    "The model took longer than the budget when it was timed at the end, though not when it was chosen: other work on "
    "the machine, or its clock, changed meanwhile. 'lpsnet benchmark' on the file tells how it is now."
)
_NOT_INT8 = (
    "The network was chosen for int8, in which it would have lost more mIoU than it may; this is the file in floating "
    "point, which takes longer. 'lpsnet fit' with --precision f32, in another folder, plans without int8."
)


def _fit_tiles(found: FitFile, delivered: Evaluation, timed: Benchmark) -> tuple[html.Tile, ...]:
    budget, robust = html.milliseconds(found.plan.wish.budget_ms), delivered.robustness
    others = ((it.precision, it.end_to_end or it.network) for it in timed.results[1:])
    return (
        html.Tile("mIoU", html.figure(delivered.miou, 2), "%"),
        html.Tile(
            "Network alone" if timed.device else "End to end", html.milliseconds(found.latency_ms), f"ms of {budget}"
        ),
        *(html.Tile(f"In {precision}", html.milliseconds(time.median_ms), "ms") for precision, time in others),
        *((html.Tile("mIoU under corruptions", html.figure(robust.mean_miou, 2), "%"),) if robust else ()),
        html.Tile("Images judged on", f"{delivered.num_images:,}"),
    )


_PNG = b"\x89PNG\r\n\x1a\n"


def study_page(path: Path) -> html.Page:
    """The page of NAME.json, with the figure NAME.png beside it.

    Raises:
        RunError: the file holds no study.
    """
    found = html.parsed(StudyFile, html.read_json(path), path)
    machine = str(found.machine.get("identity", ""))
    differences = (html.Text(tuple(found.differences), bullets=True),) if found.differences else ()
    return html.Page(
        kind="Study",
        title=found.title,
        lead=f"{found.reference} Here: {machine}." if machine else found.reference,
        sections=(
            html.Section("What was found", (html.Text(tuple(found.findings), bullets=True), *_figure(path, found))),
            html.Section("All values", (_study_table(found),) if found.rows else ()),
            html.Section("What differs from the paper's protocol", differences),
            html.Section("How it was measured", _how_it_was_measured(found)),
        ),
    )


def _figure(path: Path, found: StudyFile) -> tuple[html.Part, ...]:
    image = path.with_suffix(".png")
    data = image.read_bytes() if image.is_file() else b""
    if not data.startswith(_PNG):
        return ()
    return (html.Image(f"data:image/png;base64,{base64.b64encode(data).decode()}", caption=found.title),)


def _study_table(found: StudyFile) -> html.Table:
    heads = tuple(head.replace("_", " ") for head in found.rows[0])
    columns = [[row[head] for row in found.rows] for head in found.rows[0]]
    words = tuple(n for n, column in enumerate(columns) if any(isinstance(value, str) and value for value in column))
    return html.Table(heads, tuple(tuple(_text(value) for value in row.values()) for row in found.rows), words=words)


def _text(value: str | float | None) -> str:
    """As in the study's Markdown: numbers to four digits."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _how_it_was_measured(found: StudyFile) -> tuple[html.Part, ...]:
    dates = sorted(str(run["date"]) for run in found.runs if "date" in run)
    when = (("first run", dates[0]), ("last run", dates[-1])) if dates else ()
    titled = {"Settings": (*html.flat(found.settings), *when), "Machine": html.flat(found.machine)}
    return html.making(found.command, titled)


_SCORES = {"miou": "mIoU", "pixel_accuracy": "Pixel accuracy", "boundary_miou": "Boundary mIoU"}


def model_page(path: Path) -> html.Page:
    """The page of a model file.

    Raises:
        ModelFileError: it is none, or holds no record.
    """
    record = read_record(path)
    scores = {str(name): it for name, it in record.scores.items() if isinstance(it, Mapping)}
    return html.Page(
        kind="Model",
        title=path.name,
        lead=f"{record.title}, {record.label_space.num_classes} classes",
        tiles=tuple(tile for name, it in scores.items() for tile in _model_tiles(name, it)),
        sections=(
            html.Section("By class", (_classes(record.label_space, scores),)),
            html.Section("The model", (html.Facts(_facts(path, record)),)),
            html.Section("How it was made", _how_the_model_was_made(record)),
        ),
    )


def _model_tiles(split: str, scores: Mapping[str, Any]) -> list[html.Tile]:
    found = ((name, html.number_of(scores.get(key))) for key, name in _SCORES.items())
    return [html.Tile(f"{name} on {split}", html.figure(value, 2), "%") for name, value in found if value is not None]


def _classes(space: LabelSpace, scores: Mapping[str, Mapping[str, Any]]) -> html.Table:
    """The classes in the order of their ids, with their IoU by split as far as it is known."""
    by_split = {split: it["ious"] for split, it in scores.items() if isinstance(it.get("ious"), Mapping)}
    rows: list[tuple[html.Cell | str, ...]] = []
    for number, (name, colour) in enumerate(zip(space.names, space.colours, strict=True)):
        ious = (html.number_of(known_ious.get(name)) for known_ious in by_split.values())
        bars = (html.Cell(html.figure(iou), bar=min(max(iou or 0.0, 0.0), 100.0) / 100) for iou in ious)
        rows.append((str(number), html.Cell(name, colour=colour), *bars))
    return html.Table(("Id", "Class", *(f"IoU on {split} (%)" for split in by_split)), tuple(rows), words=(1,))


def _facts(path: Path, record: ModelRecord) -> tuple[tuple[str, str], ...]:
    values = record.model_dump(mode="json", exclude={"training", "scores", "label_space", "format"})
    own = [("label space", record.label_space.name), ("bytes", f"{path.stat().st_size:,}")]
    return (*html.flat(values), *html.known(own))


def _how_the_model_was_made(record: ModelRecord) -> tuple[html.Part, ...]:
    training = {key: value for key, value in record.training.items() if key != "command"}
    scores = ((split, it) for split, it in record.scores.items() if isinstance(it, dict))
    protocols = {split: it["protocol"] for split, it in scores if "protocol" in it}
    titled = {"Training": html.flat(training), "How its scores were measured": html.flat(protocols)}
    return html.making(html.text_of(record.training.get("command") or ""), titled)


PAGE = "report.html"

Builder = Callable[[Path, ImageOptions], html.Page]

# kind of folder -> the file that makes it one, and the builder of its page
_FOLDERS: dict[str, tuple[str, Builder]] = {
    "a fit": ("fit.json", fit_page),
    "an expansion": ("journal.jsonl", lambda path, images: expansion_page(path)),
    "a training": ("run.json", training_page),
}
# kind of JSON file -> the keys that make it one, and the builder of its page
_FILES: dict[str, tuple[frozenset[str], Builder]] = {
    "an evaluation": (frozenset({"confusion_matrix", "ious"}), evaluation_page),
    "a benchmark": (frozenset({"results", "comparisons"}), lambda path, images: benchmark_page(path)),
    "a study": (frozenset({"study", "findings", "rows"}), lambda path, images: study_page(path)),
}
_WANTED = (
    "the folder of a training, a fit, an expansion or a study, a JSON file of lpsnet evaluate, benchmark or study, "
    "or a model file"
)


@dataclass(frozen=True, slots=True)
class Found:
    """Something to report on."""

    path: Path  # the folder or file
    kind: str  # what it is, in words
    build: Builder  # makes its page
    page: Path  # where that is written unless asked otherwise


def write_report(path: Path, *, out: Path | None = None, images: ImageOptions | None = None) -> Path:
    """Write the page of a run.

    Args:
        path: a run's folder, or a JSON file of figures, or a folder that holds one such file.
        out: the page; beside what it is about unless given.
        images: which are shown.

    Returns:
        The page.

    Raises:
        RunError: there is nothing to report on, or it cannot be read.
        MissingDependencyError: Jinja is not installed.
    """
    found = find(path)
    page = out or found.page
    command = ["lpsnet", "report", str(path), *(["--out", str(out)] if out else [])]
    write_text(page, html.render(found.build(found.path, images or ImageOptions()), command=shlex.join(command)))
    return page


def find(path: Path) -> Found:
    """What is to be reported on at a path.

    Raises:
        RunError: nothing, or more than one thing.
    """
    if path.is_file() and path.suffix.lower() in METADATA_READERS:
        return Found(path, "a model", lambda path, images: model_page(path), path.with_suffix(".html"))
    if path.is_file():
        if (found := _file(path)) is not None:
            return found
        raise RunError(f"{path} is no file that can be reported on; give {_WANTED}")
    if not path.is_dir():
        raise RunError(f"there is no {path}; give {_WANTED}")
    if (folder := _folder(path)) is not None:
        return folder
    jsons = (it for it in sorted(path.glob("*.json")) if it.is_file())
    files = [it for it in map(_quiet_file, jsons) if it is not None]
    if len(files) > 1:
        names = ", ".join(it.path.name for it in files)
        raise RunError(f"{path} holds several things to report on; give one of these files: {names}")
    if files:
        return Found(files[0].path, files[0].kind, files[0].build, path / PAGE)
    inside = [it.name for it in sorted(path.iterdir()) if it.is_dir() and _folder(it) is not None]
    hint = f" itself, but {', '.join(inside[:5])} in it can be" if inside else ""
    raise RunError(f"{path} holds nothing to report on{hint}; give {_WANTED}")


def _folder(path: Path) -> Found | None:
    for kind, (name, build) in _FOLDERS.items():
        if (path / name).is_file():
            return Found(path, kind, build, path / PAGE)
    return None


def _file(path: Path) -> Found | None:
    value = html.read_json(path)
    for kind, (keys, build) in _FILES.items():
        if isinstance(value, dict) and keys <= set(value):
            return Found(path, kind, build, path.with_suffix(".html"))
    return None


def _quiet_file(path: Path) -> Found | None:
    """As `_file`, for files that may not be ours."""
    try:
        return _file(path)
    except RunError:
        return None


REFRESH_SECONDS = 10.0
EVERYWHERE = "0.0.0.0"  # to listen on, but no place to open


@contextmanager
def served(path: Callable[[], Path], port: int, *, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve the page of a run as it grows, at `/` and nothing else, until the block ends.

    Args:
        path: gives what is reported on, as for `write_report`, whenever the page is asked for; its images are left out.
        port: of this machine; 0 takes any that is free.
        host: the address it is reached at; the default is this machine only, "0.0.0.0" is everywhere.

    Yields:
        The page's address, with this machine's name where it is served everywhere. The page reloads itself.

    Raises:
        RunError: the port cannot be had.
        MissingDependencyError: Jinja is not installed.
    """
    server = _bind(_LivePage(path), host, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://{socket.gethostname() if host == EVERYWHERE else host}:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser may leave at any time; other errors get one line instead of a traceback."""
        if not isinstance(error := sys.exception(), OSError):
            _log.warning("the report was not served: %s: %s", type(error).__name__, error)


def _bind(page: "_LivePage", host: str, port: int) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            """Send the headers; returns what follows them."""
            is_found = self.path.partition("?")[0] == "/"
            body = (page.html() if is_found else "There is only /").encode()
            self.send_response(200 if is_found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            if is_found:
                self.send_header("Refresh", f"{REFRESH_SECONDS:g}")
            self.end_headers()
            return body

        def log_message(self, format: str, *args: object) -> None:
            """Requests are nobody's news."""

    if not 0 <= port <= 65_535:
        raise RunError(f"port {port} cannot be served: ports go from 0 to 65535, e.g. 8000")
    try:
        return _Server((host, port), Handler)
    except (OSError, UnicodeError) as error:  # of host names that cannot be encoded
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"port {port} of {host} cannot be served: {reason}; give another one") from None


class _LivePage:
    """The page of a run, made anew at most every `REFRESH_SECONDS`, however many ask for it, and not while this process
    measures. If it cannot be made, the page before it stays."""

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path, self._lock, self._made, self._is_good = path, threading.Lock(), -inf, False
        self._html = _render(path(), _nothing_yet(path(), "a measurement is running"))

    def html(self) -> str:
        with self._lock:
            if time.monotonic() - self._made >= REFRESH_SECONDS and not is_measuring():
                self._html, self._made = self._build(), time.monotonic()
            return self._html

    def _build(self) -> str:
        path = self._path()
        try:
            found = find(path)
            page = _render(path, found.build(found.path, ImageOptions(count=0)))
        except (LpsnetError, OSError) as error:  # not begun yet, or a file is being written
            return self._html if self._is_good else _render(path, _nothing_yet(path, str(error)))
        self._is_good = True
        return page


def _nothing_yet(path: Path, why: str) -> html.Page:
    lead = f"There is nothing to show yet: {why}. This page reloads itself."
    return html.Page(kind="Report", title=path.name, lead=lead)


def _render(path: Path, page: html.Page) -> str:
    return html.render(page, command=shlex.join(["lpsnet", "report", str(path)]))

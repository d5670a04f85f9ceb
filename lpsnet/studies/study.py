"""The frame of all studies: a study is a list of runs, and a way to make rows, findings and a figure of their results.

Every run's result is kept, a line of JSON, as soon as it is there: a study that was stopped goes on when it is started
again, and runs that were made with the same settings on the same machine are not made twice. At the end the folder
holds NAME.md (what was found, beside the paper's values, and what differs from the paper's protocol), NAME.csv,
NAME.json and NAME.png.
"""

import csv
import importlib
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from lpsnet import __version__
from lpsnet.deployment.load import LoadWatch
from lpsnet.deployment.machine import describe_machine
from lpsnet.deployment.runtimes.session import Precision
from lpsnet.errors import RunError, unknown_name
from lpsnet.files import locked_folder, write_text
from lpsnet.studies.drawing import check_drawing, save_figure

Scale = Literal["small", "paper"]
Json = Any  # what json reads and writes
Row = Mapping[str, Json]  # keys carry their unit
Progress = Callable[[str, float], None]  # is told what is being done, and which part of it is done, 0 to 1

# name -> "module:variable" of a `Study`; imported when it is asked for
STUDIES: dict[str, str] = {
    "conv-types": "lpsnet.studies.conv_types:STUDY",
    "widths": "lpsnet.studies.widths:STUDY",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study is run.

    Attributes:
        scale: "small" takes minutes; "paper" as long as the paper's protocol does.
        runtimes: engines, for studies that measure latencies.
        precision: of their arithmetic.
        num_threads: of the engines; None leaves the choice to each.
    """

    scale: Scale = "small"
    runtimes: tuple[str, ...] = ("onnxruntime",)
    precision: Precision = "f32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise RunError(unknown_name("scale", self.scale, get_args(Scale)))
        if not self.runtimes or len(set(self.runtimes)) < len(self.runtimes):
            raise RunError(
                f"a study takes one engine or several different ones; got {', '.join(self.runtimes) or 'none'}"
            )


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of work of a study.

    Attributes:
        key: all that its result depends on besides the machine, as JSON values.
        work: does it; the result is JSON values.
    """

    key: Mapping[str, Json]
    work: Callable[[Progress], Mapping[str, Json]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        key, result: of the run.
        machine: its identity, see `Machine.identity`.
        load: what else the machine did, see `Load.to_dict`.
        date: UTC, ISO 8601.
        lpsnet_version: that made it.
    """

    key: Mapping[str, Json]
    result: Mapping[str, Json]
    machine: str
    load: Mapping[str, Json]
    date: str
    lpsnet_version: str = __version__


@dataclass(frozen=True, slots=True)
class Report:
    """What a study makes of its outcomes.

    Attributes:
        rows: the table; all with the same keys, which carry units.
        findings: sentences.
        draw: draws into a `matplotlib.figure.Figure`.
        figure_size: width and height in inches.
    """

    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    draw: Callable[[Any], None]
    figure_size: tuple[float, float] = (9.0, 4.5)


@dataclass(frozen=True, slots=True)
class Study:
    """A table or figure of the paper, made again.

    Attributes:
        name: on the command line.
        title: what it is about.
        reference: where in the paper it stands, and what is published there.
        differences: how its protocol differs from the paper's, a sentence each.
        plan: the runs for given settings.
        report: rows, findings and figure from the outcomes, in the order of the plan.
    """

    name: str
    title: str
    reference: str
    differences: tuple[str, ...]
    plan: Callable[[Settings], Sequence[Run]]
    report: Callable[[Sequence[Outcome]], Report]


@dataclass(frozen=True, slots=True)
class StudyResult:
    """What a study leaves.

    Attributes:
        report: rows and findings.
        files: those written, the page first.
        num_kept: runs whose results were there already.
    """

    report: Report
    files: tuple[Path, ...]
    num_kept: int


def find_study(name: str) -> Study:
    """The study of a name in `STUDIES`.

    Raises:
        RunError: there is none.
    """
    if name not in STUDIES:
        raise RunError(unknown_name("study", name, STUDIES))
    module, _, variable = STUDIES[name].partition(":")
    study: Study = getattr(importlib.import_module(module), variable)
    return study


def run_study(study: Study, settings: Settings, out: Path, *, progress: Progress | None = None) -> StudyResult:
    """Make those runs that are missing in the folder `out`, and write what the study found.

    Raises:
        RunError: the folder is in use or cannot be written to, or its results are damaged.
        MissingDependencyError: matplotlib, or what the study needs, is not installed.
    """
    check_drawing()
    machine = describe_machine()
    with locked_folder(out):
        kept = _Results(out / "results.jsonl")
        outcomes, num_kept = [], 0
        for run in study.plan(settings):
            known = kept.find(run.key, machine.identity)
            num_kept += known is not None
            outcomes.append(known or kept.add(_perform(run, machine.identity, progress or _tell_nobody)))
        report = study.report(outcomes)
        files = _write(study, settings, outcomes, report, out)
    return StudyResult(report, files, num_kept)


def _tell_nobody(what: str, part: float) -> None:
    pass


def _perform(run: Run, machine: str, progress: Progress) -> Outcome:
    watch = LoadWatch.start()
    result = run.work(progress)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Outcome(dict(run.key), result, machine, watch.load().to_dict(), date)


class _Results:
    """The finished runs in a file, a line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._outcomes = self._read() if path.exists() else []

    def find(self, key: Mapping[str, Json], machine: str) -> Outcome | None:
        """The newest result of a run on a machine."""
        wanted = json.loads(json.dumps(dict(key)))
        found = [outcome for outcome in self._outcomes if outcome.key == wanted and outcome.machine == machine]
        return found[-1] if found else None

    def add(self, outcome: Outcome) -> Outcome:
        """Keep a result; it is on the disk when this returns."""
        line = json.dumps(asdict(outcome), allow_nan=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return Outcome(**json.loads(line))

    def _read(self) -> list[Outcome]:
        *lines, unfinished = self._path.read_text(encoding="utf-8").split("\n")
        if unfinished:  # the machine or the program stopped while it was written
            write_text(self._path, "".join(f"{line}\n" for line in lines))
        try:
            return [Outcome(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise RunError(f"{self._path} is damaged: {error}; remove it to measure everything again") from None


def _write(
    study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, out: Path
) -> tuple[Path, ...]:
    page, table, values, figure = (out / f"{study.name}{suffix}" for suffix in (".md", ".csv", ".json", ".png"))
    save_figure(figure, report.draw, size=report.figure_size)
    write_text(table, _csv(report.rows))
    write_text(values, json.dumps(_values(study, settings, outcomes, report), indent=2, allow_nan=False) + "\n")
    write_text(page, _page(study, settings, outcomes, report, figure.name))
    return page, figure, table, values


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _values(study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report) -> dict[str, Json]:
    return {
        "study": study.name,
        "title": study.title,
        "reference": study.reference,
        "differences": list(study.differences),
        "settings": {**asdict(settings), "runtimes": list(settings.runtimes)},
        "machine": describe_machine().to_dict(),
        "findings": list(report.findings),
        "rows": [dict(row) for row in report.rows],
        "runs": [asdict(outcome) for outcome in outcomes],
        "lpsnet_version": __version__,
    }


def _page(study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, figure: str) -> str:
    parts = [
        f"# {study.title}",
        f"{study.reference}\n\nHere: {outcomes[0].machine}; {_load_text(outcomes)}",
        f"```\n{_command(study, settings)}\n```",
        "## What was found",
        _bullets(report.findings),
        f"![{study.title}]({figure})",
        markdown_table(report.rows),
        "## What differs from the paper's protocol",
        _bullets(study.differences),
    ]
    return "\n\n".join(parts) + "\n"


def _load_text(outcomes: Sequence[Outcome]) -> str:
    busy = [outcome.load.get("other_cores_busy") for outcome in outcomes]
    known = [cores for cores in busy if cores is not None]
    load = f"; other work kept {max(known):.1f} processors busy at most" if known else ""
    return f"{outcomes[0].date[:10]} to {outcomes[-1].date[:10]}{load}."


def _command(study: Study, settings: Settings) -> str:
    engines = "".join(f" --runtime {runtime}" for runtime in settings.runtimes)
    threads = "" if settings.num_threads is None else f" --threads {settings.num_threads}"
    arithmetic = f" --precision {settings.precision}" if settings.precision != "f32" else ""
    return f"lpsnet study {study.name} --scale {settings.scale}{engines}{arithmetic}{threads} --out {study.name}"


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows of the same keys as a table in Markdown; numbers to the right, to four digits."""
    heads = list(rows[0])
    aligned = ["---:" if isinstance(rows[0][head], int | float) else "---" for head in heads]
    lines = [[head.replace("_", " ") for head in heads], aligned]
    lines += [[_cell(row[head]) for head in heads] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(value: Json) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)

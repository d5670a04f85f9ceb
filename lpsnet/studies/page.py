"""What a study leaves in its folder: a page in Markdown, the table as CSV, everything as JSON, and the figure."""

import csv
import io
import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from lpsnet import __version__
from lpsnet.benchmark.machine import describe_machine
from lpsnet.io import write_text
from lpsnet.report.figures import save_figure
from lpsnet.studies.study import OPTIONS, Json, Outcome, Report, Row, Settings, Study


def write_study(
    study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, out: Path
) -> tuple[Path, ...]:
    """Write NAME.md, NAME.png, NAME.csv and NAME.json into the folder `out`; their paths, in this order.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RunError: a file cannot be written.
    """
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
        "differences": [*study.differences, *report.differences],
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "command": _command(study, settings),
        "machine": describe_machine().to_dict(),
        "findings": list(report.findings),
        "rows": [dict(row) for row in report.rows],
        "runs": [outcome.to_dict() for outcome in outcomes],
        "lpsnet_version": __version__,
    }


def _page(study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, figure: str) -> str:
    parts = [
        f"# {study.title}",
        f"{study.reference}\n\nHere: {_machines(outcomes)}; {_load_text(outcomes)}",
        f"```\n{_command(study, settings)}\n```",
        "## What was found",
        _bullets(report.findings),
        f"![{study.title}]({figure})",
        markdown_table(report.rows),
        "## What differs from the paper's protocol",
        _bullets([*study.differences, *report.differences]),
    ]
    return "\n\n".join(parts) + "\n"


def _machines(outcomes: Sequence[Outcome]) -> str:
    return " and ".join(dict.fromkeys(outcome.machine for outcome in outcomes))


def _load_text(outcomes: Sequence[Outcome]) -> str:
    busy = [outcome.load.get("other_cores_busy") for outcome in outcomes]
    known = [cores for cores in busy if cores is not None]
    load = f"; other work kept {max(known):.1f} processors busy at most" if known else ""
    days = sorted({outcome.date[:10] for outcome in outcomes})
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}{load}."


def _command(study: Study, settings: Settings) -> str:
    """The command line that these settings came from; of those that have a usual value, what was asked for."""
    words = ["lpsnet", "study", study.name, "--scale", settings.scale]
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        given = name == "runtimes" or value != getattr(Settings(), name)
        if name in study.options and given:
            words += [word for each in _words(name, value) for word in (option, each)]
    return shlex.join([*words, "--out", study.name])


def _words(name: str, value: Json) -> list[str]:
    if name == "size":
        return [f"{value[0]}x{value[1]}"]
    if isinstance(value, float):
        return [f"{value:g}"]
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows of the same keys as a table in Markdown; numbers to the right, to four digits."""
    heads = list(rows[0])
    aligned = ["---:" if _is_number([row[head] for row in rows]) else "---" for head in heads]
    lines = [[head.replace("_", " ") for head in heads], aligned]
    lines += [[_cell(row[head]) for head in heads] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_number(column: Sequence[Json]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(isinstance(value, int | float) for value in known)


def _cell(value: Json) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)

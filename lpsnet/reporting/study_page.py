"""The report of a study: what was found beside the paper's values, the figure, the table, and how it was measured."""

import base64
from pathlib import Path

from lpsnet.reporting.page import Command, Facts, Image, Page, Part, Section, Table, Text
from lpsnet.reporting.reading import flat
from lpsnet.reporting.study_file import StudyFile

_PNG = b"\x89PNG\r\n\x1a\n"

Value = str | int | float | bool | None


def study_page(path: Path) -> Page:
    """The page of NAME.json, with the figure NAME.png beside it.

    Raises:
        RunError: the file holds no study.
    """
    found = StudyFile.read(path)
    machine = str(found.machine.get("identity", ""))
    return Page(
        kind="Study",
        title=found.title,
        lead=f"{found.reference} Here: {machine}." if machine else found.reference,
        sections=(
            Section("What was found", (Text(tuple(found.findings), bullets=True), *_figure(path, found))),
            Section("All values", (_table(found),) if found.rows else ()),
            Section("What differs from the paper's protocol", _bullets(found.differences)),
            Section("How it was measured", _making(found)),
        ),
    )


def _figure(path: Path, found: StudyFile) -> tuple[Part, ...]:
    """The figure beside the file, if there is one."""
    picture = path.with_suffix(".png")
    data = picture.read_bytes() if picture.is_file() else b""
    if not data.startswith(_PNG):
        return ()
    return (Image(f"data:image/png;base64,{base64.b64encode(data).decode()}", caption=found.title),)


def _table(found: StudyFile) -> Table:
    heads = tuple(head.replace("_", " ") for head in found.rows[0])
    columns = [[row[head] for row in found.rows] for head in found.rows[0]]
    words = tuple(n for n, column in enumerate(columns) if any(isinstance(value, str) and value for value in column))
    return Table(heads, tuple(tuple(_text(value) for value in row.values()) for row in found.rows), words=words)


def _text(value: Value) -> str:
    """As in the study's Markdown: numbers to four digits."""
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bullets(lines: list[str]) -> tuple[Part, ...]:
    return (Text(tuple(lines), bullets=True),) if lines else ()


def _making(found: StudyFile) -> tuple[Part, ...]:
    dates = sorted(str(run["date"]) for run in found.runs if "date" in run)
    when = (("first run", dates[0]), ("last run", dates[-1])) if dates else ()
    parts = (
        Command(found.command, title="Command") if found.command else None,
        Facts((*flat(found.settings), *when), title="Settings"),
        Facts(tuple(flat(found.machine)), title="Machine"),
    )
    return tuple(part for part in parts if part is not None and not (isinstance(part, Facts) and not part.rows))

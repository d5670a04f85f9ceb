"""The parts of a report and how they become one self-contained HTML page; reading JSON files as untrusted input.

A page is a value: builders (`training.py`, …) decide what is on it, `templates/page.html` how it looks. Every text may
come from an untrusted file: Jinja escapes all of them, charts escape their own, and the page's policy forbids any
script but ours and any request.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lpsnet import __version__
from lpsnet.errors import MissingDependencyError, RunError
from lpsnet.report.charts import NARROW, STYLE, Drawing, clean

Model = TypeVar("Model", bound=BaseModel)
MAX_BYTES = 2**30  # of a file with figures; a benchmark's samples are a few MiB

GREATEST = 1e12  # of a number that is drawn

_MAX_TEXT = 400  # letters of a value shown


class Figures(BaseModel):
    """Base of what is read; other keys of a file are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


CommandText = Annotated[str, BeforeValidator(lambda value: "" if value is None else value)]


def read_json(path: Path) -> object:
    """The JSON value in a file.

    Raises:
        RunError: it cannot be read, or is no JSON.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES / 2**30:g} GiB, which no file with figures is")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no JSON: {error}") from None


def parsed(kind: type[Model], value: object, path: Path) -> Model:
    """The value as `kind`.

    Raises:
        RunError: it is none; the message names the first key that is wrong.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise RunError(f"{path} cannot be reported on: {where}: {first['msg']}") from None


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested JSON objects as (name, text), for `Facts`; what is empty is left out."""
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif value not in (None, "", []):
            yield name, text_of(value, by="x" if "size" in name else ", ")


def number_of(value: object) -> float | None:
    """The number that a JSON value is; None if it is none, or none that can be drawn."""
    return float(value) if isinstance(value, int | float) and abs(value) < GREATEST else None


def text_of(value: object, *, by: str = ", ") -> str:
    """A JSON value in words, its numbers in a list joined `by`; long texts are cut off."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        plain = all(isinstance(it, int | float) for it in value)
        text = (by if plain else ", ").join(text_of(it, by=by) for it in value)
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


_TEMPLATES = Path(__file__).with_name("templates")
HALF, FULL = 560.0, 1120.0  # pixels of charts that stand two in a row, or alone


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the figures that matter most."""

    label: str
    value: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Text:
    """Paragraphs, or with `bullets` a list."""

    lines: tuple[str, ...]
    bullets: bool = False
    kind: str = field(default="text", init=False)


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing for wide pages and one for telephones."""

    wide: str  # wide, narrow: SVG
    narrow: str
    title: str = ""  # title, caption: above and below it
    caption: str = ""
    half: bool = False  # whether two stand in a row
    max_width: float = FULL  # pixels that the wide one takes at most
    kind: str = field(default="chart", init=False)

    @classmethod
    def of(cls, draw: Callable[[float], Drawing], *, title: str = "", caption: str = "", half: bool = False) -> "Chart":
        """A chart that `draw` draws at a width in pixels, or less."""
        wide = draw(HALF if half else FULL)
        return cls(wide.inline(), draw(NARROW).inline(), title, caption, half, wide.width)


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in a table's cell."""

    text: str  # the value; empty for nothing
    bar: float | None = None  # length of a bar beside it, 0 to 1; None for no bar
    colour: tuple[int, int, int] | None = None  # of a patch before it, RGB bytes; None for no patch
    tag: str = ""  # how it is set off, "good", "doubt" or not at all


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings."""

    heads: tuple[str, ...]  # of the columns, with their units
    rows: tuple[tuple[Cell | str, ...], ...]  # of cells, or of texts; as many as heads each
    words: tuple[int, ...] = (0,)  # columns, counted from 0, that are text, at the left; the others are numbers
    title: str = ""  # title, caption: above it
    caption: str = ""
    strong: tuple[int, ...] = ()  # rows, counted from 0, that are set off
    half: bool = False  # whether it stands beside another part
    kind: str = field(default="table", init=False)

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every cell as a `Cell`."""
        return [[it if isinstance(it, Cell) else Cell(it) for it in row] for row in self.rows]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    rows: tuple[tuple[str, str], ...]
    title: str = ""
    kind: str = field(default="facts", init=False)


@dataclass(frozen=True, slots=True)
class Command:
    """A command line as it was typed, or as it can be."""

    line: str
    title: str = ""
    kind: str = field(default="command", init=False)


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """An image in the page: `source` is a data URI."""

    source: str
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Gallery:
    """Images in rows of a title each, with a legend of (name, RGB bytes)."""

    rows: tuple[tuple[str, tuple[GalleryImage, ...]], ...]
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    kind: str = field(default="gallery", init=False)


@dataclass(frozen=True, slots=True)
class Image:
    """A figure that is not ours to colour: it stands on white. `source` is a data URI."""

    source: str
    caption: str
    kind: str = field(default="image", init=False)


Part = Text | Chart | Table | Facts | Command | Gallery | Image


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A report."""

    kind: str  # of what, such as "Training"
    title: str  # the heading
    lead: str  # a line below it
    tiles: tuple[Tile, ...] = ()  # the figures that matter most
    notes: tuple[str, ...] = ()  # what a reader must know first, such as that a run is not finished
    sections: tuple[Section, ...] = ()  # the rest; those without parts are left out


def render(page: Page, *, command: str) -> str:
    """The page as HTML.

    Args:
        page: what stands on it.
        command: that makes it again, for the last line.

    Raises:
        MissingDependencyError: Jinja is not installed.
    """
    try:
        import jinja2
    except ImportError:
        raise MissingDependencyError.for_extra("jinja2", "report") from None
    options: dict[str, Any] = {
        "autoescape": True,
        "undefined": jinja2.StrictUndefined,
        "trim_blocks": True,
        "lstrip_blocks": True,
    }
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), **options)
    script = (_TEMPLATES / "hover.js").read_text(encoding="utf-8")
    html = environment.get_template("page.html").render(
        page=page,
        sections=[section for section in page.sections if section.parts],
        style=STYLE.read_text(encoding="utf-8") + (_TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        command=command,
        version=__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )
    return clean(html)


def making(command: str, facts: Mapping[str, Iterable[tuple[str, str]]]) -> tuple[Part, ...]:
    """How something was made: its command line, if known, and facts by title; titles without any are left out."""
    tables = (Facts(tuple(rows), title) for title, rows in facts.items())
    return (*([Command(command, "Command")] if command else []), *(table for table in tables if table.rows))


def known(rows: Sequence[tuple[str, object]]) -> tuple[tuple[str, str], ...]:
    """Facts as texts, those left out of which nothing is known."""
    return tuple((name, str(value)) for name, value in rows if value not in (None, "", [], {}))


def figure(value: float | None, digits: int = 1) -> str:
    """A number for a table; a dash for None and nan."""
    return "–" if value is None or value != value else f"{value:,.{digits}f}"


def milliseconds(value: float | None) -> str:
    """A time in ms, or another number above 0, to three digits; a dash where there is none."""
    if value is None:
        return "–"
    digits = next((n for n, bound in ((3, 1.0), (2, 10.0), (1, 100.0)) if abs(value) < bound), 0)
    return f"{value:.3g}" if abs(value) < 0.01 else f"{value:,.{digits}f}"

"""What commands share: their options, and their output as text through Rich or JSON, never both on one stream."""

import json
import logging
import math
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import progress as bars
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand

from lpsnet.errors import LpsnetError
from lpsnet.io import write_text
from lpsnet.plugins import network_specs, plugin_files, use_network

MAX_THREADS = 1024  # of engines and trainings: more is a slip, and engines answer it in their own words


class FiniteCommand(TyperCommand):
    """A command whose numbers are numbers: NaN and infinity, which bounds let through, are refused."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words that are left; `typer.BadParameter` for such a value."""
        left = super().parse_args(ctx, args)
        for parameter in self.params:
            value = ctx.params.get(parameter.name or "")
            for each in value if isinstance(value, list | tuple) else [value]:
                if isinstance(each, float) and not math.isfinite(each):
                    hint = f"'{parameter.opts[0]}'"
                    raise typer.BadParameter(f"got {each}; a finite number is needed", ctx=ctx, param_hint=hint)
        return left


def _use_network(spec: str | None) -> str | None:
    """Let the code be found; none of it runs yet."""
    return None if spec is None else use_network(spec).spec


JsonOption = Annotated[
    str | None, typer.Option("--json", metavar="FILE", help="Write the figures as JSON; `-` is standard output.")
]
SizeOption = Annotated[str | None, typer.Option("--size", metavar="HxW", help="Height x width in pixels.")]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="ssh://USER@HOST[:PORT]",
        help="Measure there, over ssh; it needs Python and the engine. Default: this machine.",
    ),
]
ModelOption = Annotated[str, typer.Option(help="A model file, or the name of one that comes with the package.")]
RuntimeOption = Annotated[
    str | None, typer.Option(help="Engine: onnxruntime, openvino, ncnn, litert, tensorrt, pytorch.")
]
PrecisionOption = Annotated[str, typer.Option(help="Arithmetic: f32, bf16, f16, int8.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, max=MAX_THREADS, help="Threads of the engine.")]
DataOption = Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, bdd100k:PATH, a YAML file, or scenes.")]
RunOption = Annotated[Path, typer.Option("--out", help="The run's folder.")]
ArchOption = Annotated[str, typer.Option(help="A name such as lpsnet_s, or B=…;C=…;R=… written out.")]
BlockOption = Annotated[
    str | None,
    typer.Option(
        help="Convolutional block, or five with commas; default: the architecture's, conv3x3 for the paper's."
    ),
]
InteractionOption = Annotated[str, typer.Option(help="Path interaction (Figure 6).")]
SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe.")]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        callback=_use_network,
        help="Code of the model's network, where it is not of lpsnet.",
    ),
]
ExtraImagesOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PLACE",
        help="Further files of each image, for a model of more channels: a folder or a path with {name}.",
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Resume the run in --out.")]

ServeOption = Annotated[
    str | None,
    typer.Option(
        "--serve", metavar="[HOST:]PORT", help="Serve the report as it grows, to this machine alone without a HOST."
    ),
]

_STEERING = ("Cc", "Cs")  # Unicode's control characters and lone surrogates, which no terminal can be sent

# What is printed comes from files too: a class may be called [bold], and means just that
_console = Console(highlight=False, markup=False, emoji=False)
_error_console = Console(stderr=True, highlight=False, markup=False, emoji=False)


def console(json_to: str | None = None) -> Console:
    """Where people read: standard output, or standard error while JSON goes to standard output."""
    return _error_console if json_to == "-" else _console


def write_json(value: Mapping[str, Any], json_to: str | None) -> None:
    """Write `value` where `--json` asks for it, if it does."""
    if json_to is None:
        return
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if json_to == "-":
        sys.stdout.write(text)
    else:
        write_text(Path(json_to), text)


def next_command(*words: object, json_to: str | None = None) -> None:
    """Print the command one would run next, which needs the same plugins, and the same code for a checkpoint."""
    plugins = [word for file in plugin_files() for word in ("--plugin", file)]
    if any(str(word).endswith(".safetensors") for word in words):
        plugins += [word for spec in network_specs()[:1] for word in ("--network", spec)]
    say(f"Next: {shlex.join([*map(str, words), *plugins])}", json_to=json_to)


def say(message: str, *, json_to: str | None = None) -> None:
    """Print a line for people, as it is; see `printable`."""
    console(json_to).print(printable(message), soft_wrap=True)


class _LogLines(logging.Handler):
    """Prints the package's log, a line a message, where people read while standard output is a program's."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), json_to="-")


@contextmanager
def log_shown() -> Iterator[None]:
    """Inside the block, what the package logs is printed on standard error, from INFO up."""
    logger, handler = logging.getLogger("lpsnet"), _LogLines()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # some packages give the root logger a handler, and lines would come twice
    try:
        yield
    finally:
        logger.level, logger.propagate = before
        logger.removeHandler(handler)


def printable(text: str) -> str:
    """The text with control characters written out, so that a name in a file cannot steer the terminal."""
    return "".join(
        repr(char)[1:-1] if unicodedata.category(char) in _STEERING and char != "\n" else char for char in text
    )


def table(title: str, *columns: str) -> Table:
    """A table for people; the first column is text, the others are numbers."""
    result = Table(title=title, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        result.add_column(column, justify="left" if number == 0 else "right", no_wrap=number > 0)
    return result


@contextmanager
def progress(what: str, *columns: bars.ProgressColumn, **fields: Any) -> Iterator[Callable[..., None]]:
    """A bar on standard error, if it is a terminal; call the value with what changed: completed, total, description."""
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), *columns)
    quiet = not _error_console.is_terminal
    with bars.Progress(*columns, console=_error_console, transient=True, disable=quiet) as shown:
        yield partial(shown.update, shown.add_task(what, **fields))


@contextmanager
def image_progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar while images are processed; call the value with how many are done, and of how many."""
    with progress(what, bars.MofNCompleteColumn(), bars.TimeRemainingColumn(), total=None) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def measuring_progress() -> Iterator[Callable[[str, float], None]]:
    """A bar while something is measured; call the value with the stage and the part of it that is done, 0 to 1."""
    with progress("opening the models", bars.TimeElapsedColumn(), total=1.0) as update:
        yield lambda stage, part: update(description=stage, completed=part)


@contextmanager
def serving(path: Callable[[], Path], where: str | None, *, json_to: str | None = None) -> Iterator[None]:
    """Inside the block, the report of what is at `path()` is served at `--serve`'s place, if it is given.

    Raises:
        LpsnetError: it is no place, or cannot be had.
    """
    if where is None:
        yield
        return
    from lpsnet.report.report import served

    match = re.fullmatch(r"(?:(.+):)?(\d{1,5})", where)
    if match is None:
        raise LpsnetError(f"--serve takes a port such as 8000, or HOST:PORT such as 0.0.0.0:8000; got {where!r}")
    with served(path, int(match[2]), host=match[1] or "127.0.0.1") as url:
        say(f"Report so far: {url}", json_to=json_to)
        yield


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of `HxW`, e.g. 360x480; None stays None.

    Raises:
        LpsnetError: it is no size.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,5})\s*[xX×]\s*(\d{1,5})\s*", text)
    if match is None:
        raise LpsnetError(f"a size is HEIGHTxWIDTH in pixels, e.g. 360x480; got {text!r}")
    size = int(match[1]), int(match[2])
    if min(size) < 32:
        raise LpsnetError(f"sizes go from 32x32 up; got {text!r}")
    return size

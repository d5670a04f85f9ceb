"""The command line: `COMMANDS` lists every command; a command reads arguments, calls one function, prints.

A command is a function in the module of its group; the module is imported when the command is used. What needs torch is
imported inside the functions, so that every command's help works without it.
"""

import contextlib
import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import lpsnet
from lpsnet.cli.output import FiniteCommand, log_shown, printable
from lpsnet.errors import Interrupted, LpsnetError, MissingDependencyError, raise_on_signals
from lpsnet.io import reason
from lpsnet.plugins import use_plugin

Complete = Callable[[str], list[str]]  # the beginning of a word -> the words it may become

_MODELS = "lpsnet.inference.hub:list_models"
_ARCHITECTURES = "lpsnet.architecture:list_architectures"
_RECIPES = "lpsnet.training.config:RECIPES"

# "parameter", or "command parameter" where that differs -> the places of its names, "module:table" (a mapping, a list
# or a function that gives one), or the names themselves
_OFFERS: dict[str, tuple[str, ...]] = {
    "arch": (_ARCHITECTURES,),
    "corruptions": ("lpsnet.data.corruptions:CORRUPTIONS", "lpsnet.data.corruptions:STRENGTHS"),
    "block": ("lpsnet.models.blocks:BLOCKS",),
    "data": ("scenes", "camvid:", "cityscapes:", "bdd100k:"),
    "executor": ("local", "ray"),
    "expand recipe": ("lpsnet.search.run:PROXIES", _RECIPES),
    "export model": (),
    "interaction": ("lpsnet.models.interactions:INTERACTIONS",),
    "model": (_MODELS,),
    "models": (_MODELS, _ARCHITECTURES),
    "next_images write": ("lpsnet.inference.outputs:FORMATS",),
    "by": ("lpsnet.evaluation.selection:MEASURES",),
    "export made_for": ("lpsnet.export.export:SERVERS", "lpsnet.export.onnx:BOARDS"),
    "precision": ("lpsnet.inference.engines:PRECISIONS",),
    "pretrain data": (),
    "pretrain recipe": ("lpsnet.training.classification:PRETRAINING_RECIPES",),
    "protocol": ("lpsnet.benchmark.timing:PROTOCOLS",),
    "recipe": (_RECIPES, "auto"),
    "runtime": ("lpsnet.inference.engines:RUNTIMES",),
    "scale": ("small", "paper"),
    "split": ("train", "val", "test"),
    "start": (_ARCHITECTURES,),
    "study name": ("lpsnet.studies.running:STUDIES",),
    "to": ("lpsnet.export.export:EXPORTERS",),
    "train split": ("train", "train+val"),
    "what": (_MODELS, _ARCHITECTURES),
    "write": ("lpsnet.inference.outputs:list_outputs",),
}


def offer_names(command: Callable[..., None]) -> None:
    """Let a command, given as its function, complete the values of the parameters in the table above."""
    for parameter in inspect.signature(command).parameters.values():
        offers = _OFFERS.get(f"{command.__name__} {parameter.name}", _OFFERS.get(parameter.name))
        if offers:
            (info,) = parameter.annotation.__metadata__
            info.autocompletion = _completer(offers)


def _completer(offers: Sequence[str]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        names = [name for offer in offers for name in _names(offer)]
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _names(offer: str) -> Iterable[str]:
    module, _, table = offer.partition(":")
    if not module.startswith("lpsnet."):
        return [offer]
    try:
        found: Any = getattr(importlib.import_module(module), table)
    except (ImportError, LpsnetError):  # LpsnetError: a plugin that fails
        return []
    return list(found() if callable(found) else found)


# commands that resume what is in their folder -> the flag that resumes it
_RESUMABLE = {"fit": "", "train": "--resume", "pretrain": "--resume", "expand": "", "study": ""}


class Command(NamedTuple):
    """A row of `COMMANDS`: the module in this package, what it is called there, and its line in `lpsnet --help`."""

    module: str
    name: str
    line: str


COMMANDS = {
    "demo": Command("expand", "demo", "Everything once on generated street scenes; no data, no downloads."),
    "fit": Command("train", "fit", "Labelled images, a budget and minutes in; the finished model out."),
    "segment": Command("segment", "segment", "Segment images, videos and cameras: label maps and overlays."),
    "train": Command("train", "train", "Train a network on labelled images."),
    "pretrain": Command("train", "pretrain", "Train a network to classify images, as a start for `train --init`."),
    "evaluate": Command("evaluate", "evaluate", "Score a model on labelled images: mIoU and IoU by class."),
    "export": Command("evaluate", "export", "Write a model for an engine and verify its labels."),
    "benchmark": Command("benchmark", "benchmark", "Measure the latency of models, interleaved, on this machine."),
    "tune": Command("benchmark", "tune", "Find the quickest engine, precision and threads for a model here."),
    "expand": Command("expand", "expand", "Grow networks step by step by mIoU gained per millisecond here."),
    "info": Command("models", "info", "Parameters and multiply-accumulates by stage; the record of a model file."),
    "models": Command("models", "models", "The models that come with the package, with their scores."),
    "next": Command("data", "next_images", "Which unlabelled images to label next, with annotations to correct."),
    "data": Command("data", "app", "Check data sets before training."),
    "study": Command("expand", "study", "Make a table or figure of the paper again on this device."),
    "report": Command("expand", "report", "Write one HTML page about a run, a search, a benchmark or a model."),
    "stream": Command("benchmark", "stream", "Play a video for minutes: memory and frames per second over time."),
    "web": Command("evaluate", "web", "Write a page that segments in the browser; nothing is uploaded."),
    "push": Command("models", "push", "Upload a model to the Hugging Face Hub with a model card."),
}


class Commands(Mapping[str, Any]):
    """Commands by name; the module of one is imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        return load_command(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class LazyGroup(TyperGroup):
    """`lpsnet` itself: a command's module is imported when the command is used, and none for `lpsnet --help`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = Commands()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """`--plugin FILE.py` may stand behind the name of a command as well as before it."""
        plugins, rest = _plugins_apart(args)
        if plugins[-1:] == ["--plugin"]:
            raise _UsageError("Option '--plugin' requires an argument", ctx)
        return super().parse_args(ctx, [*plugins, *rest])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Every command with its line of the table."""
        self.commands = {name: TyperCommand(name, help=row.line) for name, row in COMMANDS.items()}
        super().format_help(ctx, formatter)
        self.commands = Commands()


def load_command(name: str) -> Any:
    """The command of that name, with its options, from its module."""
    row = COMMANDS[name]
    found = getattr(importlib.import_module(f"lpsnet.cli.{row.module}"), row.name)
    if isinstance(found, typer.Typer):
        return get_command(found)
    offer_names(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    alone.command(name, cls=FiniteCommand)(found)
    return get_command(alone)


def _plugins_apart(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of `--plugin FILE.py`, wherever they stand before a `--`, and all others."""
    plugins: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            return plugins, [*rest, word, *left]
        if word == "--plugin":
            plugins += [word, *[value for value in [next(left, None)] if value is not None]]
        else:
            (plugins if word.startswith("--plugin=") else rest).append(word)
    return plugins, rest


app = typer.Typer(
    name="lpsnet",
    cls=LazyGroup,
    help="Real-time semantic segmentation: labelled images, a device and a latency budget in; a network out.",
    epilog="Examples: `lpsnet demo`, `lpsnet segment photos/ drive.mp4 --model model.onnx`, `lpsnet train --help`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lpsnet {lpsnet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    plugin: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE.py", help="Python to run first, such as a block of your own; after a command too."),
    ] = None,
) -> None:
    for path in plugin or ():
        use_plugin(path)


# Of click, which newer versions of typer bring along under a name of their own
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]


def main() -> None:
    """Entry point of the `lpsnet` command.

    Exits with 0 when done, 2 for the user's mistakes, 1 for ours, and 128 + the number of the signal that ended it, as
    shells have it: 130 for Ctrl-C, 143 for `kill`.
    """
    try:
        raise_on_signals()
        with log_shown():
            code = app(prog_name="lpsnet", standalone_mode=False) or 0  # what `typer.Exit` was raised with
    except SystemExit:  # the library's way to end where the reader of our output is gone, e.g. `lpsnet … | head`
        code = 0
    except _UsageError as error:
        code = _fail_usage(error)
    except LpsnetError as error:
        code = _fail(str(error), code=2)
    except MemoryError as error:
        code = _fail(f"there is not enough memory: {error or 'no more'}; choose a smaller size or batch", code=2)
    except ModuleNotFoundError as error:
        missing = MissingDependencyError.from_import(error)
        code = _fail(str(missing), code=2) if missing else _fail_inside(error)
    except BrokenPipeError:  # the same, found by us
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        why = reason(error)
        where = f": {error.filename}" if error.filename and why == error.strerror else ""
        code = _fail(f"{why}{where}", code=2)
    except (Interrupted, KeyboardInterrupt) as error:
        number = error.number if isinstance(error, Interrupted) else 2
        code = _fail(f"stopped. {_how_to_resume(sys.argv[1:])}", code=128 + number)
    except Exception as error:
        code = _fail_inside(error)
    sys.exit(code)


def _how_to_resume(words: Sequence[str]) -> str:
    """What was kept, and how to resume."""
    _, rest = _plugins_apart(words)
    command = rest[0] if rest else ""
    if command not in _RESUMABLE:
        return "What was finished before is in place; no file is half written."
    flag = [word for word in (_RESUMABLE[command],) if word and word not in words]
    return f"Resume with: {shlex.join(['lpsnet', *words, *flag])}"


def _fail_inside(error: Exception) -> int:
    if os.environ.get("LPSNET_DEBUG"):
        raise error
    return _fail(f"{type(error).__name__}: {error} — a bug in lpsnet; LPSNET_DEBUG=1 shows where", code=1)


def _fail_usage(error: Any) -> int:
    """Wrong words after `lpsnet`, in one line as all mistakes; no words at all get the help."""
    if not error.format_message():
        error.show()
        return 2
    command = error.ctx.command_path if error.ctx else "lpsnet"
    return _fail(f"{error.format_message().rstrip('.')}; '{command} --help' lists what is allowed", code=2)


def _fail(message: str, *, code: int) -> int:
    with contextlib.suppress(OSError):  # no reader; the exit code remains
        typer.echo(f"lpsnet: {printable(' '.join(message.split()))}", err=True)
    return code

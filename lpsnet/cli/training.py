"""`lpsnet train`: a data set and a recipe in, a model file out."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from lpsnet.cli.output import console, next_command, parse_size, say, table

if TYPE_CHECKING:
    from lpsnet.evaluation.evaluate import Evaluation
    from lpsnet.training.run import Status

PLAIN_SECONDS = 30  # between lines of progress where there is no terminal to draw a bar on


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(train)


def train(
    data: Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, bdd100k:PATH, a YAML file, or scenes.")],
    out: Annotated[Path, typer.Option(help="The run's folder.")],
    arch: Annotated[str, typer.Option(help="A name such as lpsnet_s, or B=…;C=…;R=… written out.")] = "lpsnet_s",
    recipe: Annotated[str, typer.Option(help="A recipe's name, or a YAML file.")] = "camvid_small",
    split: Annotated[str, typer.Option(help="Pictures to train on: train, or train+val for delivery.")] = "train",
    init: Annotated[Path | None, typer.Option(help="A checkpoint to start from; its head may differ.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe.")] = None,
    block: Annotated[str, typer.Option(help="Convolutional block (Table 2).")] = "conv3x3",
    interaction: Annotated[str, typer.Option(help="Path interaction (Figure 6).")] = "bilateral_b",
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Input size; default: the pictures'.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Train a network on labelled pictures.

    Example: `lpsnet train --data camvid:CamVid --arch lpsnet_s --recipe camvid_small --out runs/s`
    """
    from lpsnet.architecture import get_architecture
    from lpsnet.training.recipe import get_recipe, parse_overrides
    from lpsnet.training.run import TrainingRun
    from lpsnet.training.trainer import train as run_training

    run = TrainingRun(
        data=data,
        architecture=get_architecture(arch),
        recipe=get_recipe(recipe).with_overrides(parse_overrides(set_ or [])),
        split=split,
        block=block,
        interaction=interaction,
        init=init,
        input_size=parse_size(size),
    )
    with progress_reporter() as report:
        result = run_training(run, out, resume=resume, on_status=report)
    if result.evaluation is not None:
        print_scores(result.evaluation)
    say(f"Model: {result.model}")
    next_command("lpsnet", "export", "--model", result.model, "--to", "onnx", "--out", out / "model.onnx")


def print_scores(evaluation: "Evaluation", *, json_to: str | None = None) -> None:
    """IoU by class and the means, as a table."""
    result = table(f"{evaluation.num_images} pictures", "class", "IoU %")
    for name, iou in zip(evaluation.label_space.names, evaluation.scores.ious, strict=True):
        result.add_row(name, "–" if iou != iou else f"{iou:.1f}")
    result.add_section()
    result.add_row("mIoU", f"{evaluation.scores.miou:.2f}", style="bold")
    result.add_row("pixel accuracy", f"{evaluation.scores.pixel_accuracy:.2f}")
    console(json_to).print(result)


class ShowStatus(Protocol):
    """Shows where a run stands."""

    def __call__(self, status: "Status") -> None: ...


@contextmanager
def progress_reporter() -> Iterator[ShowStatus]:
    """A bar on a terminal, a line every half minute elsewhere."""
    if sys.stderr.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[ShowStatus]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}  lr {task.fields[lr]:.4f}  {task.fields[rate]:.1f} pictures/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console("-")) as progress:
        task = progress.add_task("training", total=None, loss=float("nan"), lr=0.0, rate=0.0)

        def report(status: "Status") -> None:
            progress.update(
                task,
                total=status.num_iterations,
                completed=status.iteration,
                loss=status.loss,
                lr=status.learning_rate,
                rate=status.pictures_per_second,
            )
            if status.message:
                progress.console.print(status.message)

        yield report


class _Lines:
    def __init__(self) -> None:
        self._last = float("-inf")
        self._start: tuple[float, int] | None = None

    def __call__(self, status: "Status") -> None:
        now = time.monotonic()
        self._start = self._start or (now, status.iteration)
        due = now - self._last >= PLAIN_SECONDS or status.iteration == status.num_iterations
        if status.message:
            say(status.message, json_to="-")
        if due:
            self._last = now
            done = status.iteration - self._start[1]
            left = (now - self._start[0]) / done * (status.num_iterations - status.iteration) if done else float("nan")
            say(
                f"{status.iteration}/{status.num_iterations}  loss {status.loss:.3f}  lr {status.learning_rate:.4f}  "
                f"{status.pictures_per_second:.1f} pictures/s  {left / 60:.0f} min left",
                json_to="-",
            )

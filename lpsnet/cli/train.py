"""Images in, a model file out: `lpsnet train` and `pretrain` by a recipe, `lpsnet fit` by a budget and minutes."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lpsnet.architecture import Architecture, default_block, get_architecture, list_architectures
from lpsnet.cli import output
from lpsnet.cli.output import printable
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError
from lpsnet.evaluation.evaluate import Evaluation, Robustness
from lpsnet.inference.hub import find_checkpoint
from lpsnet.inference.model_file import find_record
from lpsnet.plugins import use_network
from lpsnet.training.config import AUTO, LENGTHS, RECIPES, Recipe, get_recipe, parse_overrides

if TYPE_CHECKING:
    from lpsnet.fitting.plan import Plan
    from lpsnet.training.run import Status


DEFAULT_ARCH = "lpsnet_s"
PLAIN_SECONDS = 30  # between lines of progress where there is no terminal to draw a bar on


def _list_recipes(asked: bool) -> None:
    if not asked:
        return
    output.say(f"{AUTO}: follows from the data: crop, batch, class weights, length")
    for name, recipe in RECIPES.items():
        length = next(f"{value:g} {key}" for key in LENGTHS if (value := getattr(recipe, key)) is not None)
        crop = f"crops of {recipe.crop_size[0]}x{recipe.crop_size[1]}"
        output.say(f"{name}: {recipe.source}; {length}, batches of {recipe.batch_size}, {crop}")
    output.say("Change any setting with --set KEY=VALUE; the keys are in docs/reference/training.md")
    raise typer.Exit


def train(
    data: output.DataOption,
    out: output.RunOption,
    arch: Annotated[
        str | None,
        typer.Option(help="A name such as lpsnet_s, or B=…;C=…;R=… written out; default: as --init, else lpsnet_s."),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="auto follows from the data; or a recipe's name (--list-recipes), or a YAML file.")
    ] = AUTO,
    split: Annotated[str, typer.Option(help="Images to train on: train, or train+val for the final model.")] = "train",
    init: Annotated[
        str | None, typer.Option(help="A checkpoint or model's name to start from; its head may differ.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Length of the training by the clock, in place of the recipe's.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help="A model's name or checkpoint to learn from besides the labels.")
    ] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="A folder of images without labels, learnt from the teacher alone.")
    ] = None,
    set_: output.SetOption = None,
    encoder: Annotated[
        str,
        typer.Option(help="ImageNet weights that every path starts with, e.g. efficientnet_lite0, for --arch lite0."),
    ] = "",
    block: output.BlockOption = None,
    interaction: output.InteractionOption = "bilateral_b",
    size: Annotated[str | None, typer.Option(metavar="HxW", help="Input size; default: the images'.")] = None,
    network: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="In place of --arch: code of any network; FUNCTION(num_classes=K) returns a torch.nn.Module.",
        ),
    ] = None,
    resume: output.ResumeOption = False,
    list_recipes: Annotated[
        bool, typer.Option("--list-recipes", is_eager=True, callback=_list_recipes, help="Name all recipes and stop.")
    ] = False,
) -> None:
    """Train a network on labelled images.

    Example: `lpsnet train --data camvid:CamVid --arch lpsnet_s --recipe camvid_small --out runs/s`
    """
    from lpsnet.training.run import TrainingRun
    from lpsnet.training.segmentation import train as run_training

    overrides = parse_overrides(set_ or []) | ({"minutes": minutes} if minutes else {})
    if network:
        _refuse({"--arch": arch, "--block": block, "--encoder": encoder})
        use_network(network)
    weights = None if init is None else find_checkpoint(init)
    architecture, block = _network_of(arch, block, weights)
    run = TrainingRun(
        data=data,
        architecture=None if network else architecture,
        recipe=_recipe(recipe, data, split, pretrained=bool(init or encoder)).with_overrides(overrides),
        split=split,
        block=block,
        interaction=interaction,
        init=weights,
        encoder=encoder,
        input_size=output.parse_size(size),
        network=network or "",
        teacher=None if teacher is None else find_checkpoint(teacher),
        unlabelled=unlabelled,
    )
    with progress_reporter() as report:
        result = run_training(run, out, resume=resume, on_progress=report)
    if result.evaluation is not None:
        print_scores(result.evaluation)
    output.say(f"Model: {result.model}")
    output.next_command("lpsnet", "export", "--model", result.model, "--to", "onnx", "--out", out / "model.onnx")


def _network_of(arch: str | None, block: str | None, weights: Path | None) -> tuple[Architecture, str]:
    """What is trained, and its blocks: as asked for, else as the weights that it starts from.

    A name tells its blocks, an architecture written out does not.
    """
    is_told = arch is not None and (block is not None or arch in list_architectures())
    record = None if weights is None or is_told else find_record(weights)
    if record is None or record.architecture is None:
        return get_architecture(arch or DEFAULT_ARCH), block or default_block(arch or DEFAULT_ARCH)
    return get_architecture(arch) if arch else record.architecture, block or record.block


def _recipe(name: str, data: str, split: str, *, pretrained: bool) -> Recipe:
    if name != AUTO:
        return get_recipe(name)
    from lpsnet.training.config import NUM_SAMPLED, auto_recipe, survey

    images = open_dataset(data).split(split)
    seen = survey(images, count=NUM_SAMPLED)
    return auto_recipe(seen, len(images), pretrained=pretrained, is_rgb=images.channels.is_rgb)


def _refuse(options: Mapping[str, str | None]) -> None:
    """Raise LpsnetError for an option that describes this package's networks."""
    for option, value in options.items():
        if value:
            raise LpsnetError(f"{option} describes networks of this package; leave it out with --network")


def pretrain(
    data: Annotated[str, typer.Option(help="Folder of images: ROOT/train/CLASS/*.jpg and ROOT/val, or ROOT/CLASS.")],
    out: output.RunOption,
    arch: output.ArchOption = "lpsnet_s",
    recipe: Annotated[str, typer.Option(help="imagenet, pictures_small, or a YAML file.")] = "imagenet",
    set_: output.SetOption = None,
    block: output.BlockOption = None,
    interaction: output.InteractionOption = "bilateral_b",
    resume: output.ResumeOption = False,
) -> None:
    """Train a network to classify images, for `lpsnet train --init` to start from.

    Example: `lpsnet pretrain --data ImageNet --arch lpsnet_s --out runs/imagenet_s`
    """
    from lpsnet.training.classification import PretrainingRun, get_pretraining_recipe
    from lpsnet.training.classification import pretrain as run_pretraining

    run = PretrainingRun(
        data=data,
        architecture=get_architecture(arch),
        recipe=get_pretraining_recipe(recipe).with_overrides(parse_overrides(set_ or [])),
        block=block or default_block(arch),
        interaction=interaction,
    )
    with progress_reporter() as report:
        result = run_pretraining(run, out, resume=resume, on_progress=report)
    if result.accuracy is not None:
        output.say(f"{result.accuracy.num_images} images of val: {result.accuracy}")
    output.say(f"Weights to start from: {result.model}")
    output.next_command(
        "lpsnet", "train", "--data", "DATA", "--arch", arch, "--init", result.model, "--out", "runs/first"
    )


def print_scores(evaluation: "Evaluation", *, json_to: str | None = None) -> None:
    """IoU by class and the means, as a table; boundary IoU beside it where it was counted."""
    boundary = evaluation.boundary_ious
    columns = ("class", "IoU %", "boundary IoU %") if boundary else ("class", "IoU %")
    result = output.table(f"{evaluation.num_images} images", *columns)
    for name, iou in evaluation.ious.items():
        ious = (iou, boundary[name]) if boundary else (iou,)
        result.add_row(name, *("–" if iou != iou else f"{iou:.1f}" for iou in ious))
    result.add_section()
    means = (evaluation.miou, evaluation.boundary_miou) if boundary else (evaluation.miou,)
    result.add_row("mIoU", *(f"{mean:.2f}" for mean in means), style="bold")
    low, high = evaluation.miou_interval or (float("nan"),) * 2
    if low == low:  # not nan
        result.add_row("95 % interval", f"{low:.1f}–{high:.1f}")
    result.add_row("frequency-weighted IoU", f"{evaluation.frequency_weighted_iou:.2f}")
    result.add_row("pixel accuracy", f"{evaluation.pixel_accuracy:.2f}")
    output.console(json_to).print(result)
    if evaluation.robustness is not None:
        output.console(json_to).print(_robustness_table(evaluation.robustness))


def _robustness_table(robust: "Robustness") -> Table:
    """A row a corruption and strength, with its loss against the same images as they are."""
    images = f"{robust.num_images} image{'s' if robust.num_images > 1 else ''}"
    result = output.table(f"Robustness, {images}", "corruption", "strength", "mIoU %", "loss")
    result.add_row("none", "", f"{robust.clean_miou:.2f}", "")
    rows = [(it.corruption, f"{it.strength} ({it.value:g})", it.miou) for it in robust.scores]
    for name, strength, miou in rows:
        result.add_row(name, strength, f"{miou:.2f}", f"{robust.clean_miou - miou:.2f}")
    result.add_section()
    loss = robust.clean_miou - robust.mean_miou
    result.add_row("mean of the corruptions", "", f"{robust.mean_miou:.2f}", f"{loss:.2f}", style="bold")
    return result


def _tell(message: str) -> None:
    output.say(message, json_to="-")


ShowStatus = Callable[["Status"], None]  # shows the state of a run


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
        TextColumn("loss {task.fields[loss]:.3f}  lr {task.fields[lr]:.4f}  {task.fields[rate]:.1f} images/s"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.console("-")) as progress:

        def report(status: "Status") -> None:
            figures: dict[str, Any] = {
                "loss": status.loss,
                "lr": status.learning_rate,
                "rate": status.pictures_per_second,
            }
            if not progress.tasks:  # before the first status there is no loss to show
                progress.add_task("training", total=status.num_iterations, **figures)
            progress.update(progress.tasks[0].id, completed=status.iteration, **figures)
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
        if status.message:
            _tell(status.message)
        if now - self._last >= PLAIN_SECONDS or status.iteration == status.num_iterations:
            self._last = now
            parts = (
                f"{status.iteration}/{status.num_iterations}",
                f"loss {status.loss:.3f}",
                f"lr {status.learning_rate:.4f}",
                f"{status.pictures_per_second:.1f} images/s",
                self._time_left(status, now),
            )
            _tell("  ".join(filter(None, parts)))

    def _time_left(self, status: "Status", now: float) -> str:
        """From the pace since the first status; empty where there is nothing to go by, or nothing left."""
        assert self._start is not None
        left, done = status.num_iterations - status.iteration, status.iteration - self._start[1]
        if not done or not left:
            return ""
        hours, minutes = divmod(round((now - self._start[0]) / done * left / 60), 60)
        if not hours and not minutes:
            return "less than a minute left"
        return f"{f'{hours} h ' if hours else ''}{minutes} min left"


DEFAULT_MINUTES = 60.0  # of a fit


def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images, as for train; or a folder.")],
    budget_ms: Annotated[
        float, typer.Option(min=0.01, help="Milliseconds an image, end to end; with --device, the network.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for everything; start again to resume.")],
    minutes: Annotated[
        float | None,
        typer.Option(
            min=1, help="For everything: plan, training, export. Default: 60; those of a fit that is resumed."
        ),
    ] = None,
    size: output.SizeOption = None,
    runtime: Annotated[str | None, typer.Option(help="Engine; default: the quickest here.")] = None,
    precision: Annotated[str | None, typer.Option(help="Arithmetic; default: the quickest here.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=output.MAX_THREADS, help="Default: the quickest number.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Network to start with, such as lite0; default: by the budget.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    memory_mib: Annotated[
        float | None, typer.Option(min=0.1, help="MiB that weights and feature maps of the network may take.")
    ] = None,
    teacher: Annotated[str | None, typer.Option(help="A model that the network learns from, too.")] = None,
    unlabelled: Annotated[
        Path | None, typer.Option(help="A folder of images without labels, learnt from the teacher alone.")
    ] = None,
    device: output.DeviceOption = None,
    serve: output.ServeOption = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    json_to: output.JsonOption = None,
) -> None:
    """Make the most accurate network for labelled images that this machine runs within a latency budget.

    Checks the data, measures the machine, chooses a network with ImageNet weights that the budget allows, trains it for
    the minutes there are, exports, verifies, quantises and measures it. Start it again to resume, or with more minutes.
    With `--device`, the budget is for the network alone on a device far away; everything else is done here.

    Example: `lpsnet fit photos/ --budget-ms 15 --minutes 30 --out fit`
    """
    from lpsnet import fitting

    wish = fitting.wish_of(
        data=data,
        budget_ms=budget_ms,
        minutes=minutes or fitting.planned_minutes(out) or DEFAULT_MINUTES,
        size=output.parse_size(size),
        runtime=runtime,
        precision=precision,
        threads=threads,
        start=start,
        seed=seed,
        memory_mib=memory_mib,
        teacher=teacher,
        unlabelled=None if unlabelled is None else str(unlabelled),
        device=device,
    )
    with output.serving(partial(fitting.current_training, out), None if plan_only else serve, json_to=json_to):
        with output.measuring_progress() as update:
            plan = fitting.plan_in(out, wish, on_progress=update)
        _print_plan(plan, json_to)
        if plan_only:
            output.write_json({"plan": plan.model_dump(mode="json")}, json_to)
            output.next_command("lpsnet", "fit", data, *fitting.options_of(wish), "--out", out, json_to=json_to)
            return
        fitted = fitting.run_fit(plan, out, reporter=progress_reporter)
    output.write_json(fitted.to_dict(), json_to)
    print_scores(fitted.evaluation, json_to=json_to)
    output.say(fitted.words, json_to=json_to)
    files = dict.fromkeys((fitted.runnable, fitted.model, fitted.int8, fitted.checkpoint, fitting_report(out)))
    for path in (*files, out / fitting.HOW):
        if path is not None:
            output.say(f"Wrote {path}", json_to=json_to)
    run = [] if device else ["--runtime", plan.runtime, "--precision", fitted.precision]
    model = fitted.model if device else fitted.runnable
    output.next_command("lpsnet", "segment", "IMAGE", "--model", model, *run, "--out", "segmented", json_to=json_to)


def fitting_report(out: Path) -> Path | None:
    """The report of the fit; None without the package that writes it."""
    from lpsnet.errors import MissingDependencyError
    from lpsnet.report.report import write_report

    try:
        return write_report(out)
    except MissingDependencyError:
        return None


def _print_plan(plan: "Plan", json_to: str | None) -> None:
    from lpsnet.fitting.plan import delivery_minutes

    out = output.console(json_to)
    out.print(f"Plan for {plan.wish.data}", style="bold")
    images = f"{plan.num_train:,} to learn from, {plan.num_val:,} to judge on, {len(plan.classes)} classes"
    parts = [f"{plan.training_minutes:.1f} training", f"{delivery_minutes(plan.wish.minutes):.1f} export and report"]
    if plan.contest_minutes:
        names = " and ".join(choice.start for choice in plan.choices)
        parts.insert(0, f"{plan.contest_minutes:.1f} each to try {names}")
    parts.insert(0, f"{plan.planning_minutes:.1f} this plan")
    for line in (f"images: {images}", *plan.reasons, f"minutes: {plan.wish.minutes:g}: {', '.join(parts)}"):
        subject, _, text = line.partition(": ")
        out.print(f"  {printable(f'{subject}:'):12} {printable(text)}", highlight=False, soft_wrap=True)

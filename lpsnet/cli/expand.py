"""Searches, studies and their pages: `lpsnet expand`, `demo`, `study` (a table or figure of the paper) and `report`."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lpsnet.architecture import default_block
from lpsnet.benchmark.device import opened_device
from lpsnet.benchmark.machine import describe_machine
from lpsnet.cli import output
from lpsnet.cli.evaluate import print_export
from lpsnet.cli.train import print_scores, progress_reporter
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import usual_size
from lpsnet.errors import LpsnetError, MissingDependencyError
from lpsnet.inference.engines import Precision
from lpsnet.inference.hub import find_checkpoint
from lpsnet.plugins import use_network
from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import find, write_report
from lpsnet.report.search import write_figure
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.executors import InProcess, make_executor
from lpsnet.search.journal import TrainingResult
from lpsnet.search.measurements import Limits
from lpsnet.search.operations import SearchNetwork, read_operations
from lpsnet.studies.running import find_study, run_study
from lpsnet.studies.study import Scale, Settings
from lpsnet.training.config import RECIPES, Recipe, parse_overrides

if TYPE_CHECKING:
    from lpsnet.search.results import SearchResult
    from lpsnet.search.run import ExpansionRun
    from lpsnet.search.train import CandidateTask


def _refuse_network(spec: str | None) -> None:
    if spec is not None:
        raise LpsnetError(
            "expand grows networks of this package, by rules that other code does not have; train a network given by "
            "--network with lpsnet train"
        )


def expand(
    data: output.DataOption,
    out: Annotated[Path, typer.Option(help="The expansion's folder; give it again to resume.")],
    recipe: Annotated[str, typer.Option(help="Of the candidates: a proxy, a recipe, or a YAML file.")] = "camvid_proxy",
    runtime: Annotated[str, typer.Option(help="Engine that latencies are measured with.")] = "onnxruntime",
    precision: Annotated[str, typer.Option(help="Its arithmetic: f32, bf16, f16.")] = "f32",
    threads: Annotated[int | None, typer.Option(min=1, help="Its threads; default: its own choice.")] = None,
    size: output.SizeOption = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps in all; more can be asked for later.")] = 8,
    budget_ms: Annotated[
        list[float] | None,
        typer.Option(metavar="X", help="Name the network to use under X ms; nothing slower than the largest is grown."),
    ] = None,
    start: Annotated[str, typer.Option(metavar="ARCH", help="The network to grow.")] = "tiny",
    paths: Annotated[int, typer.Option(min=1, help="The most paths a network may have.")] = 3,
    block: output.BlockOption = None,
    interaction: output.InteractionOption = "bilateral_b",
    operations: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPERATION",
            help="table_1 (the default), today (also detail=8, context=gate, head=128, unit@5=lite_e6k5 …), "
            "or one such as depth=0,0,0,1,1 or block=ghost.",
        ),
    ] = None,
    max_step_size: Annotated[int, typer.Option(min=1, help="The largest step size k.")] = 16,
    patience: Annotated[int, typer.Option(min=0, help="Step sizes too slow in a row before giving up; 0: never.")] = 2,
    seeds: Annotated[
        int, typer.Option(min=1, help="Seeds of the start and of a step's two best, until their lead is clear.")
    ] = 3,
    control: Annotated[
        bool, typer.Option(help="Train the parent on as well, and compare its candidates with that.")
    ] = True,
    max_length: Annotated[
        int, typer.Option(min=1, help="Where no candidate surely gains: train 3, then 9 times as long, up to this.")
    ] = 9,
    race: Annotated[
        bool,
        typer.Option(
            help="Train only the better half of a step's candidates beyond a quarter, and beyond half, of it."
        ),
    ] = False,
    simultaneous: Annotated[
        bool,
        typer.Option(help="Decide a step by intervals that hold for all its comparisons at once; else one by one."),
    ] = True,
    holdout_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share of --val that no step sees, to score what was chosen; 0: none.")
    ] = 0.0,
    fresh_seeds: Annotated[
        int, typer.Option(min=0, help="Train each chosen network again at the end, with so many unseen seeds.")
    ] = 0,
    limit_parameters: Annotated[int | None, typer.Option(min=1, help="Parameters of a network at most.")] = None,
    limit_memory_mib: Annotated[
        float | None, typer.Option(help="Memory at most: weights and the feature maps alive at once.")
    ] = None,
    split: Annotated[str, typer.Option(help="Images that candidates are trained on.")] = "train",
    val: Annotated[str, typer.Option(help="Images that they are scored on.")] = "val",
    inherit: Annotated[bool, typer.Option(help="Start candidates from their parent's weights.")] = True,
    init: Annotated[
        str | None, typer.Option(help="A checkpoint or model's name for networks that inherit nothing.")
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(help="ImageNet weights that the start's paths have, e.g. efficientnet_lite0, for --start lite0."),
    ] = "",
    set_: output.SetOption = None,
    check_step: Annotated[int, typer.Option(min=0, help="Train this step's candidates again, longer; 0: none.")] = 0,
    check_length: Annotated[int, typer.Option(min=2, help="How many times as long.")] = 5,
    trainings_from: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="An expansion on another machine, to take trainings over from."),
    ] = None,
    executor: Annotated[str, typer.Option(metavar="local|ray[:ADDRESS]", help="Where candidates train.")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, help="Candidates at a time; default 1, Ray: all.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Processor cores of a worker; default: its share.")] = None,
    device: output.DeviceOption = None,
    network: Annotated[str | None, typer.Option(hidden=True, callback=_refuse_network)] = None,
    json_to: output.JsonOption = None,
) -> None:
    """Grow a family of networks step by step, by what each expansion gains in mIoU and costs in latency here.

    Every measurement and training is kept as soon as it is done: if this is stopped, the same command resumes it. With
    `--device`, latencies are those of a device far away, and training stays here.

    Example: `lpsnet expand --data camvid:CamVid --recipe camvid_proxy --size 360x480 --steps 8 --budget-ms 20 --out x`
    """
    from lpsnet.search import measure, train
    from lpsnet.search.run import ExpansionRun, get_candidate_recipe, run_expansion

    used_recipe = get_candidate_recipe(recipe).with_overrides(parse_overrides(set_ or []))
    run = ExpansionRun(
        data=data,
        recipe=used_recipe,
        target=measure.Target(_size(size, data, split), runtime, cast("Precision", precision), threads),
        split=split,
        val=val,
        start=SearchNetwork.start(start, num_slots=paths, block=block or default_block(start)),
        operations=read_operations(operations or [], num_slots=paths),
        options=SearchOptions(
            num_steps=steps,
            max_step_size=max_step_size,
            patience=patience or None,
            max_seeds=seeds,
            control=control and inherit,
            max_length=max_length,
            race=race,
            simultaneous=simultaneous,
            limits=Limits(parameters=limit_parameters, memory_mib=limit_memory_mib),
        ),
        interaction=interaction,
        inherit=inherit,
        init=None if init is None else find_checkpoint(init),
        encoder=encoder,
        budgets_ms=tuple(budget_ms or ()),
        num_threads=_threads(executor, workers, cores),
        check_step=check_step,
        check_length=check_length,
        holdout_share=holdout_share,
        fresh_seeds=fresh_seeds,
    )
    place = make_executor(executor, num_workers=workers, num_threads=cores)
    with opened_device(device) as measured_on:
        result = run_expansion(
            run,
            out,
            executor=place,
            place=measured_on,
            train=_train_and_report if isinstance(place, InProcess) else train.train_candidate,
            trainings_from=trainings_from or (),
            on_progress=partial(output.say, json_to="-"),
        )
    output.write_json(result.to_dict(), json_to)
    print_search_result(result, json_to=json_to)
    _write_report(out, json_to=json_to)
    _print_next(result, run, recipe, set_ or [], json_to)


def _train_and_report(task: "CandidateTask") -> "TrainingResult":
    from lpsnet.search.train import train_candidate

    with progress_reporter() as report:
        return train_candidate(task, on_progress=report)


def _threads(executor: str, workers: int | None, cores: int | None) -> int | None:
    """Processor cores of a training: those asked for, or else a worker's share of this machine."""
    if cores is not None or executor != "local" or workers in (None, 1):
        return cores
    assert workers is not None
    return max(1, describe_machine().num_threads // workers)


def _size(size: str | None, data: str, split: str) -> tuple[int, int]:
    """The size asked for, or else the most common one of the training images."""
    parsed = output.parse_size(size)
    return usual_size(open_dataset(data).split(split)) if parsed is None else parsed


def print_search_result(result: "SearchResult", *, json_to: str | None = None) -> None:
    """The family, how sure its steps are, and the network to use under each budget."""
    from lpsnet.search.results import progress_table

    for line in progress_table(result.members):
        output.say(line, json_to=json_to)
    for step in result.found.steps:
        if not step.decided or step.stop:
            output.say(f"step {step.number} {step.verdict}", json_to=json_to)
    if result.check is not None:
        output.say(f"The proxy's ranking in {result.check}", json_to=json_to)
    for choice in result.choices:
        output.say(f"Under {choice}", json_to=json_to)
    output.say(f"Networks and table: {result.folder}", json_to=json_to)


def _write_report(out: Path, *, json_to: str | None) -> None:
    output.say(f"Figure: {write_figure(out)}", json_to=json_to)
    try:
        output.say(f"Report: {write_report(out)}", json_to=json_to)
    except MissingDependencyError as error:
        output.say(f"No report was written: {error}", json_to=json_to)


def _print_next(
    result: "SearchResult", run: "ExpansionRun", recipe: str, settings: list[str], json_to: str | None
) -> None:
    """Training the best network in full, if a proxy stood in; else running it."""
    from lpsnet.search.run import PROXIES, full_recipe

    best = result.best
    model = result.model(best)
    words: list[Any] = ["lpsnet", "segment", "IMAGE", "--model", model]
    if recipe in PROXIES:
        words = ["lpsnet", "train", "--data", run.data, "--split", run.split, "--arch", best.design.architecture]
        words += ["--recipe", full_recipe(recipe), "--init", model.with_suffix(".safetensors")]
        words += ["--block", best.design.block, "--interaction", run.interaction]
        words += ["--size", "x".join(map(str, run.target.size))]
        words += [word for setting in _lasting(settings, recipe, run.recipe) for word in ("--set", setting)]
        words += ["--out", model.with_name(f"{model.stem}_trained")]
    output.next_command(*words, json_to=json_to)


def _lasting(settings: list[str], proxy: str, used: "Recipe") -> list[str]:
    """Of a proxy's changed settings, those not made to save time; and the form of the weights, if it is another one."""
    from lpsnet.search.run import PROXIES, full_recipe

    full = RECIPES[full_recipe(proxy)]
    cheaper = {key for key, value in PROXIES[proxy] if value != getattr(full, key)}
    left_out = {*cheaper, "iterations", "epochs", "form"}
    kept = [setting for setting in settings if setting.partition("=")[0].strip() not in left_out]
    return kept if used.form == full.form else [*kept, f"form={used.form}"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("lpsnet-demo"),
) -> None:
    """Grow, train, export, verify and segment on generated street scenes: no data, no downloads, a few minutes.

    Example: `lpsnet demo`
    """
    from lpsnet.demo import run_demo

    result = run_demo(out, reporter=progress_reporter)
    print_search_result(result.expansion)
    print_scores(result.evaluation)
    print_export(result.export)
    output.say(f"Model:   {result.model}")
    output.say(f"Image:   {result.image} — other scenes, their labels, and the network's output")
    for page in result.reports:
        output.say(f"Report:  {page}")
    output.next_command("lpsnet", "segment", result.scene, "--model", result.model, "--out", out / "segmented")
    output.say("Or try it in your browser, with your own images or your camera:")
    output.next_command(
        "lpsnet", "web", "--model", result.model, "--example", result.scene, "--out", out / "web", "--serve", 8000
    )


PLAIN_SECONDS = 60  # between lines of progress where there is no terminal to draw a bar on
ThreadsOption = Annotated[int | None, typer.Option(min=1, max=output.MAX_THREADS, help="Of engines and trainings.")]
NAMES = (
    "conv-blocks (Table 2), interactions (Table 3), expansion (Table 4, Figure 7), conv-types (Figure 4), widths "
    "(Figure 5), qualitative (Figure 8), comparison (Tables 5 to 8, Figure 2), generalisation (Tables 6, 7), embedded "
    "(Table 8). Not in the paper: end-to-end, label-map, precisions, exports, training-speed, inheritance, "
    "inheritance-until-flat, grown, front (networks of other code beside ours, trained alike)."
)


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAMES)],
    out: Annotated[Path, typer.Option(help="Folder of the results; give it again to resume.")],
    scale: Annotated[
        str, typer.Option(help="small (this machine) or paper (the paper's protocol, on a GPU).")
    ] = "small",
    data: Annotated[
        list[str] | None, typer.Option("--data", help="What to train and score on, as for train. Default: scenes.")
    ] = None,
    epochs: Annotated[float | None, typer.Option(help="Epochs; default at small: 20.")] = None,
    form: Annotated[
        str | None, typer.Option(help="Form that is trained: plain or reparameterised (grown). Default: plain.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of networks trained several times.")] = None,
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Engine; may be given several times. Default: onnxruntime.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Arithmetic of engines: f32, bf16, f16.")] = "f32",
    threads: ThreadsOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Trainings at a time, each in a process.")] = 1,
    size: output.SizeOption = None,
    models: Annotated[Path | None, typer.Option(help="A model file, or a folder of them, to use beside ours.")] = None,
    picture: Annotated[list[str] | None, typer.Option("--picture", help="Name of an image to show.")] = None,
    network: output.NetworkOption = None,
    arch: Annotated[
        list[str] | None, typer.Option("--arch", help="front: a network of ours, as for train; several times.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", metavar="FILE.py:FUNCTION", help="front: a network of other code; several times."),
    ] = None,
    json_to: output.JsonOption = None,
) -> None:
    """Make a table or figure of the paper again, on this device, beside the paper's own values.

    Every finished run is kept, and a training resumes from its last checkpoint: if this is stopped, the same command
    resumes it. Studies that share a folder share what they have in common.

    Example: `lpsnet study interactions --data cityscapes:PATH --threads 2 --out studies`
    """
    chosen = find_study(name)
    settings = Settings(
        scale=cast("Scale", scale),
        runtimes=tuple(runtime or ["onnxruntime"]),
        precision=cast("Precision", precision),
        num_threads=threads,
        size=output.parse_size(size),
        data=tuple(data or []),
        num_seeds=seeds,
        epochs=epochs,
        form=form,
        models=models,
        pictures=tuple(picture or []),
        network=network,
        archs=tuple(arch or []),
        peers=tuple(peer or []),
    )
    for spec in settings.peers:
        use_network(spec)
    with _progress() as update:
        result = run_study(
            chosen,
            settings,
            out,
            num_workers=workers,
            on_progress=update,
        )
    page, figure, table, values = result.files
    output.write_json(
        {"findings": list(result.report.findings), "rows": [dict(row) for row in result.report.rows]}, json_to
    )
    for finding in result.report.findings:
        output.say(finding, json_to=json_to)
    if result.num_kept:
        output.say(f"{result.num_kept} runs were kept from before", json_to=json_to)
    output.say(f"Wrote {page}, {figure.name}, {table.name} and {values.name}", json_to=json_to)
    output.next_command("lpsnet", "report", values, json_to=json_to)


@contextmanager
def _progress() -> Iterator[Callable[[str, float], None]]:
    """A bar on a terminal, a line every minute elsewhere."""
    if sys.stderr.isatty():
        with output.measuring_progress() as update:
            yield update
        return
    last = time.monotonic()

    def show(what: str, part: float) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            output.say(f"{what} ({100 * part:.0f} % of this run)", json_to="-")

    yield show


def report(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's folder, a JSON file of figures, or a model file.")
    ],
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html in the folder.")] = None,
    pictures: Annotated[
        int | None, typer.Option(min=0, max=50, help="Best and worst images, as many each; default: 3.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Where the images are now, if not where they were.")] = None,
    model: Annotated[str | None, typer.Option(help="Likewise the model.")] = None,
    network: output.NetworkOption = None,
    serve: output.ServeOption = None,
) -> None:
    """Write one HTML page about a training, an evaluation, a benchmark, an expansion or a study.

    DIR is the folder of a training, a fit, an expansion or a study, what `--json` of `lpsnet evaluate` or `benchmark`
    wrote, or a model file. Running ones are reported so far. The page needs no file beside it and no network.

    Example: `lpsnet report runs/first`
    """
    if serve is not None:
        kept = {"--out": out, "--pictures": pictures, "--data": data, "--model": model}
        if given := [option for option, value in kept.items() if value is not None]:
            raise LpsnetError(f"--serve writes no file and shows no images: leave out {', '.join(given)}")
        find(path)
        with output.serving(lambda: path, serve):
            threading.Event().wait()  # until it is stopped
    page = write_report(path, out=out, images=ImageOptions(3 if pictures is None else pictures, data, model))
    output.say(f"Report: {page}")
    output.next_command(*_next(path, find(path).kind, page))


def _next(path: Path, kind: str, page: Path) -> tuple[object, ...]:
    """What one would do with the thing itself, the report again while it runs; with figures alone: show the page."""
    family, trained = sorted((path / "family").glob("step_*.onnx")), path / "model.safetensors"
    commands: dict[str, tuple[object, ...]] = {
        "a training": ("export", "--model", trained, "--out", path / "model.onnx") if trained.exists() else (),
        "an expansion": ("benchmark", *family) if family else (),
        "a model": ("segment", "IMAGE", "--model", path, "--out", "segmented"),
    }
    if kind not in commands:
        return ("python", "-m", "http.server", "--bind", "127.0.0.1", "--directory", page.absolute().parent, "8000")
    return ("lpsnet", *(commands[kind] or ("report", path)))

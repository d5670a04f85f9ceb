"""Scores and pages: `lpsnet evaluate`, `study` (a table or figure of the paper, measured here) and `report`."""

import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer

from lpsnet.benchmark.machine import command_line
from lpsnet.cli import output
from lpsnet.cli.train import print_scores
from lpsnet.data.channels import check_same_channels
from lpsnet.data.corruptions import parse_corruptions
from lpsnet.data.dataset import Split, open_dataset
from lpsnet.errors import DataError, LpsnetError
from lpsnet.evaluation import evaluate as scoring
from lpsnet.evaluation.evaluate import PredictionFolder, Segment, training_protocol
from lpsnet.inference.engines import Precision
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.windows import AveragingSegmenter, Views
from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import find, write_report
from lpsnet.studies.running import find_study, run_study
from lpsnet.studies.study import Scale, Settings

_MAX_SESSIONS = 8  # open at a time, of several scales and sizes; each holds its network's weights and maps


def evaluate(
    model: Annotated[str, typer.Option(help="A checkpoint, an exported file, or a bundled model's name.")],
    data: output.DataOption,
    split: Annotated[str, typer.Option(help="Which images.")] = "val",
    runtime: output.RuntimeOption = None,
    precision: output.PrecisionOption = "f32",
    threads: output.ThreadsOption = None,
    size: output.SizeOption = None,
    boundary: Annotated[bool, typer.Option("--boundary", help="Boundary IoU too.")] = False,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="mIoU under noise, blur, fog, dusk and so on, too.")
    ] = False,
    corruptions: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Of --robustness: names; mild, middle, strong. Default: middle of all."),
    ] = None,
    robustness_images: Annotated[
        int, typer.Option(min=1, help="Of --robustness: images, spread evenly.")
    ] = scoring.ROBUSTNESS_IMAGES,
    flip: Annotated[bool, typer.Option("--flip", help="Average with the mirrored image.")] = False,
    scales: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Average over scales, e.g. 0.75,1,1.25.")
    ] = None,
    window: Annotated[str | None, typer.Option(metavar="HxW", help="Average over windows of this size.")] = None,
    stride: Annotated[
        str | None, typer.Option(metavar="HxW", help="Between windows; default two thirds of one.")
    ] = None,
    save_predictions: Annotated[Path | None, typer.Option(help="Folder for the label maps, as PNG.")] = None,
    label_ids: Annotated[
        bool, typer.Option("--label-ids", help="Save official Cityscapes ids, for its server.")
    ] = False,
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Score a model on labelled images: IoU by class and mIoU from one confusion matrix.

    As in the paper, the image is looked at once, as it is: --flip, --scales and --window are off unless given, and
    the result states it. --robustness says what noise, blur, fog, dusk and other corruptions cost, each of a stated
    strength.

    Example: `lpsnet evaluate --model runs/s/model.safetensors --data camvid:CamVid --split val --json scores.json`
    """
    corrupted = None
    if robustness or corruptions is not None:
        corrupted = scoring.RobustnessTest(parse_corruptions(corruptions or ""), robustness_images)
    views = Views(flip, _parse_scales(scales), _parse_pixels("window", window), _parse_pixels("stride", stride))
    images = open_dataset(data).split(split)
    open_at = functools.partial(Segmenter, model, runtime=runtime, precision=precision, num_threads=threads)
    segmenter = open_at(input_size=output.parse_size(size))
    check_same_channels(segmenter.record.image_channels, images.channels)
    segment: Segment = segmenter
    if not views.is_plain:
        open_cached = functools.lru_cache(_MAX_SESSIONS)(lambda size: open_at(input_size=size))
        native, aligned = segmenter.input_size, segmenter.record.align_corners
        segment = AveragingSegmenter(open_cached, views, input_size=native, align_corners=aligned)
    if label_ids and save_predictions is None:
        raise LpsnetError("--label-ids needs a folder for the label maps: --save-predictions FOLDER")
    folder, space = None, segmenter.label_space
    if save_predictions is not None:
        folder = PredictionFolder(save_predictions, label_space=space, official_ids=label_ids)
    if folder is not None and (reason := _why_not_scored(images)):
        _save_only(segment, images, folder, reason, json_to)
        return
    training = training_protocol(segmenter.record)
    protocol = {"data": data, **segmenter.protocol, **views.protocol, "training": training}
    with output.image_progress("evaluating") as update:
        evaluation = scoring.evaluate(
            segment,
            images,
            label_space=space,
            protocol=protocol,
            boundary=boundary,
            robustness=corrupted,
            on_progress=update,
            on_prediction=None if folder is None else lambda sample, labels: folder.write(sample.name, labels),
        )
    output.write_json(evaluation.model_copy(update={"command": command_line()}).to_dict(), json_to)
    print_scores(evaluation, json_to=json_to)
    for image in evaluation.worst(3):
        output.say(f"lowest: {image.name} ({image.miou:.1f} mIoU)", json_to=json_to)
    if folder is not None:
        output.say(f"Wrote {folder.num_written} label maps to {folder.folder}/", json_to=json_to)
    output.next_command("lpsnet", "segment", "IMAGE", "--model", model, "--out", "segmented", json_to=json_to)


def _why_not_scored(images: "Split") -> str:
    """Why a split cannot be scored; empty if it can."""
    try:
        if len(images):
            images.labels(0)
    except DataError as error:
        return str(error)
    return ""


def _save_only(
    segment: "Segment", images: "Split", folder: "PredictionFolder", reason: str, json_to: str | None
) -> None:
    """Label maps of images without labels, e.g. a test split for a server that scores."""
    with output.image_progress("segmenting") as update:
        for number, name in enumerate(images.names):
            folder.write(name, segment(images.image(number)))
            update(number + 1, len(images))
    output.say(f"Not scored: {reason}", json_to=json_to)
    output.write_json({"predictions": str(folder.folder), "num_images": len(images), "not_scored": reason}, json_to)
    output.say(f"Wrote {folder.num_written} label maps to {folder.folder}/", json_to=json_to)


def _parse_scales(text: str | None) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text is not None else (1.0,)
    except ValueError:
        raise LpsnetError(f"--scales takes numbers with commas between them, e.g. 0.75,1,1.25; got {text!r}") from None


def _parse_pixels(option: str, text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.strip().isdecimal() and len(part) < 6 for part in parts):
        raise LpsnetError(f"--{option} takes HEIGHTxWIDTH in pixels, e.g. 768x768; got {text!r}")
    return int(parts[0]), int(parts[1])


ThreadsOption = Annotated[int | None, typer.Option(min=1, max=output.MAX_THREADS, help="Of engines and trainings.")]
PLAIN_SECONDS = 60  # between lines of progress where there is no terminal to draw a bar on
NAMES = (
    "conv-blocks (Table 2), interactions (Table 3), expansion (Table 4, Figure 7), conv-types (Figure 4), widths "
    "(Figure 5), qualitative (Figure 8), comparison (Tables 5 to 8, Figure 2), generalisation (Tables 6, 7), embedded "
    "(Table 8). Not in the paper: end-to-end, label-map, precisions, exports, training-speed, inheritance, "
    "inheritance-until-flat, grown."
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
    )
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
    pictures: Annotated[int, typer.Option(min=0, max=50, help="Best and worst images, as many each.")] = 3,
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
        find(path)
        with output.serving(lambda: path, serve):
            threading.Event().wait()  # until it is stopped
    page = write_report(path, out=out, images=ImageOptions(pictures, data, model))
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

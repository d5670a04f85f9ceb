"""`lpsnet evaluate`: a model scored on labelled images, by default with the paper's protocol."""

import functools
from pathlib import Path
from typing import Annotated

import typer

from lpsnet.benchmark.machine import command_line
from lpsnet.cli import output
from lpsnet.cli.train import print_scores
from lpsnet.data.dataset import Split, open_dataset
from lpsnet.errors import DataError, LpsnetError
from lpsnet.evaluation.evaluate import PredictionFolder, Segment, training_protocol
from lpsnet.evaluation.evaluate import evaluate as run_evaluation
from lpsnet.evaluation.tta import AveragingSegmenter, Views
from lpsnet.inference.segmenter import Segmenter

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
    the result states it.

    Example: `lpsnet evaluate --model runs/s/model.safetensors --data camvid:CamVid --split val --json scores.json`
    """
    views = Views(flip, _parse_scales(scales), _parse_pixels("window", window), _parse_pixels("stride", stride))
    images = open_dataset(data).split(split)
    open_at = functools.partial(Segmenter, model, runtime=runtime, precision=precision, num_threads=threads)
    segmenter = open_at(input_size=output.parse_size(size))
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
        evaluation = run_evaluation(
            segment,
            images,
            label_space=space,
            protocol=protocol,
            boundary=boundary,
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

"""`lpsnet export`: a model file for an engine, verified against the network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lpsnet.cli import output
from lpsnet.cli.benchmark import print_benchmark
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, Split, select, why_not_scorable
from lpsnet.errors import LpsnetError
from lpsnet.export.quantise import FloatLayer, Quantisation
from lpsnet.inference.engines import Precision
from lpsnet.inference.hub import find_checkpoint
from lpsnet.inference.model_file import read_record

if TYPE_CHECKING:
    from lpsnet.export.verify import ExportReport

NUM_COMPARED = 8  # real images that scores and labels are compared on
NUM_CALIBRATED = 100


def export(
    model: Annotated[str, typer.Option(help="A checkpoint (.safetensors).")],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    to: Annotated[str, typer.Option(help="onnx, openvino, ncnn or tensorrt.")] = "onnx",
    size: output.SizeOption = None,
    precision: Annotated[str, typer.Option(help="f32, f16 or int8 (int8 needs --data).")] = "f32",
    data: Annotated[str | None, typer.Option(help="Compare on these images too: a data set, as for train.")] = None,
    split: Annotated[str, typer.Option(help="Which of its images.")] = "val",
    max_pictures: Annotated[int | None, typer.Option(min=1, help="Images to compare mIoU on; all by default.")] = None,
    min_agreement: Annotated[float | None, typer.Option(help="Percent of pixels that must keep their label.")] = None,
    max_miou_loss: Annotated[float | None, typer.Option(help="Points of mIoU that the file may lose.")] = None,
    calibrate_on: Annotated[str, typer.Option(metavar="SPLIT", help="int8: images to calibrate on.")] = "train",
    num_calibrated: Annotated[int, typer.Option(min=1, help="int8: how many of them.")] = NUM_CALIBRATED,
    keep_float: Annotated[
        str, typer.Option(metavar="LAYERS", help="int8: layers left in floating point: first, last, first,last, none.")
    ] = "first",
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Write a model for an engine, after verifying that the file gives the network's own labels.

    Without --size the file takes images of any size. Compared are noise, smooth random images and, with --data,
    real ones, at the model's size and at odd sizes, and mIoU before and after; past a bound nothing is written. An int8
    file is calibrated on --data and measured beside the other precisions: size, latency, mIoU.

    Example: `lpsnet export --model runs/s/model.safetensors --to onnx --out s.onnx`
    """
    from lpsnet.export.export import beside_other_precisions
    from lpsnet.export.export import export as run_export
    from lpsnet.models.checkpoint import load_checkpoint

    checkpoint = find_checkpoint(model)
    net, record = load_checkpoint(checkpoint), read_record(checkpoint)
    images = _images(data, split)
    labelled = None if images is None else select(images, max_pictures)
    if labelled is not None and (reason := why_not_scorable(labelled, record.label_space)):
        output.say(f"mIoU is not compared: {reason}", json_to=json_to)
        labelled = None
    report = run_export(
        net,
        out,
        to=to,
        record=record,
        size=output.parse_size(size),
        precision=cast("Precision", precision),
        quantisation=_quantisation(data, calibrate_on, num_calibrated, keep_float) if precision == "int8" else None,
        images=() if images is None else Images(select(images, NUM_COMPARED)),
        labelled=labelled,
        min_label_agreement=min_agreement,
        max_miou_loss=max_miou_loss,
    )
    precisions = None
    if precision == "int8" and to != "tensorrt":
        with output.measuring_progress() as update:
            precisions = beside_other_precisions(net, report, record=record, labelled=labelled, on_progress=update)
    output.write_json({**report.to_dict(), **({"precisions": precisions.to_dict()} if precisions else {})}, json_to)
    print_export(report, json_to=json_to)
    if precisions is not None:
        print_benchmark(precisions, json_to=json_to)
    run = report.engine_command or ("lpsnet", "segment", "IMAGE", "--model", report.path)
    output.next_command(*run, json_to=json_to)


def _images(data: str | None, split: str) -> "Split | None":
    return None if data is None else open_dataset(data).split(split)


def _quantisation(data: str | None, split: str, count: int, keep_float: str) -> "Quantisation":
    images = _images(data, split)
    if images is None:
        raise LpsnetError("int8 is calibrated on images such as the network will see; give a data set with --data")
    layers = tuple(layer.strip() for layer in keep_float.split(",")) if keep_float != "none" else ()
    return Quantisation(Images(select(images, count)), cast("tuple[FloatLayer, ...]", layers))


def print_export(report: "ExportReport", *, json_to: str | None = None) -> None:
    """What was written and how it compares with the network."""
    title = f"{report.format}, {report.precision}, checked with {report.engine}"
    rows = output.table(title, "image", "size", "logits differ by", "same label")
    for check in report.checks:
        size = "x".join(map(str, check.size))
        rows.add_row(check.image, size, f"{check.score_difference:.1e}", f"{check.label_agreement:.3f} %")
    output.console(json_to).print(rows)
    if report.num_calibration_pictures:
        output.say(f"Calibrated on {report.num_calibration_pictures} images", json_to=json_to)
    if report.miou is not None:
        miou = report.miou
        where = f"{miou.num_pictures} images of {miou.split}"
        output.say(f"mIoU on {where}: {miou.before:.2f} before, {miou.after:.2f} after", json_to=json_to)
    output.say(f"Wrote {report.path} ({report.num_bytes / 2**20:.1f} MiB)", json_to=json_to)

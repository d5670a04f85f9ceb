"""A trained model: `lpsnet evaluate` scores it, `export` writes it for an engine, `web` for a browser."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lpsnet.benchmark.machine import command_line
from lpsnet.cli import output
from lpsnet.cli.benchmark import print_benchmark
from lpsnet.cli.train import print_scores
from lpsnet.data.channels import check_same_channels
from lpsnet.data.corruptions import parse_corruptions
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, Split, select, why_not_scorable
from lpsnet.errors import DataError, LpsnetError, unknown_name
from lpsnet.evaluation import evaluate as scoring
from lpsnet.evaluation.evaluate import PredictionFolder, Segment, training_protocol
from lpsnet.export.quantise import FloatLayer, Quantisation
from lpsnet.inference.engines import Precision
from lpsnet.inference.hub import find_checkpoint
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.inference.web import serve, write_page
from lpsnet.inference.windows import AveragingSegmenter, Views
from lpsnet.record import ModelRecord

if TYPE_CHECKING:
    from lpsnet.export.verify import ExportReport


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
        typer.Option(
            metavar="NAME,...",
            help="Which corruptions and strengths, e.g. fog,jpeg,strong; default: all at middle.",
        ),
    ] = None,
    robustness_images: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Of --robustness: images, spread evenly over the split; default: {scoring.ROBUSTNESS_IMAGES}."
        ),
    ] = None,
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
    corrupted = _robustness_test(corruptions, robustness_images, is_wanted=robustness)
    views = Views(flip, _parse_scales(scales), _parse_pixels("window", window), _parse_pixels("stride", stride))
    images = open_dataset(data).split(split)
    if corrupted is not None and (reason := _why_not_scored(images)):
        raise LpsnetError(f"--robustness compares with labels, and split {split!r} cannot be scored: {reason}")
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


def _robustness_test(chosen: str | None, count: int | None, *, is_wanted: bool) -> scoring.RobustnessTest | None:
    """What `--robustness` and the options beside it ask for; None if it is not given."""
    beside = {"--corruptions": chosen, "--robustness-images": count}
    if is_wanted:
        return scoring.RobustnessTest(parse_corruptions(chosen or ""), count or scoring.ROBUSTNESS_IMAGES)
    if given := [option for option, value in beside.items() if value is not None]:
        raise LpsnetError(f"{' and '.join(given)} without --robustness would do nothing: give it, too")
    return None


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


NUM_COMPARED = 8  # real images that scores and labels are compared on
NUM_CALIBRATED = 100


def export(
    model: Annotated[str, typer.Option(help="A checkpoint (.safetensors).")],
    out: Annotated[Path, typer.Option(help="The file to write, or the folder for a model server.")],
    to: Annotated[str, typer.Option(help="onnx, openvino, ncnn, litert, coreml or tensorrt.")] = "onnx",
    made_for: Annotated[
        str | None,
        typer.Option(
            "--for",
            metavar="NAME",
            help="triton or ovms: a folder that this model server loads, of the model's name. rknn, hailo or qnn: ONNX "
            "for a vendor's tool, and what it may not take.",
        ),
    ] = None,
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
    from lpsnet.export.export import SERVERS, beside_other_precisions, export_for_server
    from lpsnet.export.export import export as run_export
    from lpsnet.export.onnx import BOARDS, export_for_board
    from lpsnet.models.checkpoint import load_checkpoint

    checkpoint = find_checkpoint(model)
    net, record = load_checkpoint(checkpoint), read_record(checkpoint)
    images = _images(data, split, record)
    labelled = None if images is None else select(images, max_pictures)
    if labelled is not None and (reason := why_not_scorable(labelled, record.label_space)):
        output.say(f"mIoU is not compared: {reason}", json_to=json_to)
        labelled = None
    if made_for is not None and to != "onnx":
        raise LpsnetError(f"--for {made_for} writes an ONNX file: leave --to {to} out")
    if made_for not in (None, *SERVERS, *BOARDS):
        raise LpsnetError(unknown_name("name after --for", made_for, (*SERVERS, *BOARDS)))
    write = functools.partial(run_export, to=to)
    if made_for in SERVERS:
        write = functools.partial(export_for_server, server=made_for)
    elif made_for is not None:
        write = functools.partial(export_for_board, board=made_for)
    report = write(
        net,
        out,
        record=record,
        size=output.parse_size(size),
        precision=cast("Precision", precision),
        quantisation=_quantisation(data, calibrate_on, num_calibrated, keep_float, record)
        if precision == "int8" and made_for not in BOARDS
        else None,
        images=() if images is None else Images(select(images, NUM_COMPARED)),
        labelled=labelled,
        min_label_agreement=min_agreement,
        max_miou_loss=max_miou_loss,
    )
    precisions = None
    if report.precision == "int8" and to != "tensorrt" and made_for is None:
        with output.measuring_progress() as update:
            precisions = beside_other_precisions(net, report, record=record, labelled=labelled, on_progress=update)
    output.write_json({**report.to_dict(), **({"precisions": precisions.to_dict()} if precisions else {})}, json_to)
    print_export(report, json_to=json_to)
    if precisions is not None:
        print_benchmark(precisions, json_to=json_to)
    if made_for in SERVERS:
        size_text = "any height x width" if report.size is None else "x".join(map(str, report.size))
        output.say(f"It takes N images of {size_text} as bytes and gives N label maps", json_to=json_to)
        output.say(f"What was tried with {SERVERS[made_for].title}: docs/how-to/serving.md", json_to=json_to)
    elif made_for is not None:
        _print_findings(made_for, report, json_to=json_to)
    run = report.engine_command or ("lpsnet", "segment", "IMAGE", "--model", report.path)
    output.next_command(*run, json_to=json_to)


def _images(data: str | None, split: str, record: "ModelRecord") -> "Split | None":
    """The images of a data set, of the channels that the model takes."""
    images = None if data is None else open_dataset(data).split(split)
    if images is not None:
        check_same_channels(record.image_channels, images.channels)
    return images


def _quantisation(data: str | None, split: str, count: int, keep_float: str, record: "ModelRecord") -> "Quantisation":
    images = _images(data, split, record)
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
    if report.checks:
        output.console(json_to).print(rows)
    else:
        output.say(title, json_to=json_to)
    if report.num_calibration_pictures:
        output.say(f"Calibrated on {report.num_calibration_pictures} images", json_to=json_to)
    if report.miou is not None:
        miou = report.miou
        where = f"{miou.num_pictures} images of {miou.split}"
        output.say(f"mIoU on {where}: {miou.before:.2f} before, {miou.after:.2f} after", json_to=json_to)
    output.say(f"Wrote {report.path} ({report.num_bytes / 2**20:.1f} MiB)", json_to=json_to)


def _print_findings(board: str, report: "ExportReport", *, json_to: str | None) -> None:
    for finding in report.findings:
        output.say(f"In the way of {board}: {finding}", json_to=json_to)
    if not report.findings:
        output.say(f"Nothing is known to be in the way of {board}", json_to=json_to)
    output.say("Not verified on hardware: see docs/how-to/vendor-tools.md", json_to=json_to)


ServeOption = Annotated[
    int | None,
    typer.Option("--serve", metavar="PORT", min=0, max=65_535, help="Serve the page to this machine until Ctrl-C."),
]


def web(
    model: Annotated[str, typer.Option(help="An ONNX file, or the name of a model that comes with the package.")],
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("web"),
    example: Annotated[Path | None, typer.Option(help="An image that the page offers to segment.")] = None,
    port: ServeOption = None,
) -> None:
    """Write a page that segments images, videos and the camera in the browser; nothing is uploaded.

    Any server of plain files will do. Example: `lpsnet web --model model.onnx --out web --serve 8000`
    """
    page = write_page(model, out, example=example)
    output.say(f"Wrote the page to {page.folder}/ ({page.num_bytes / 1e6:.1f} MB); any server of plain files will do")
    if port is None:
        output.next_command("python", "-m", "http.server", "--directory", page.folder, "8000")
    else:
        serve(page.folder, port, on_ready=lambda url: output.say(f"Open {url} — Ctrl-C ends it"))

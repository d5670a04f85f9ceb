"""Commands about networks and model files: `lpsnet info`, `models`, `push`, `export` and `web`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lpsnet.architecture import default_block, get_architecture, list_architectures, logits_size, path_size
from lpsnet.cli import output
from lpsnet.cli.benchmark import print_benchmark
from lpsnet.data.channels import check_same_channels
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, Split, select, why_not_scorable
from lpsnet.errors import LpsnetError, MissingDependencyError
from lpsnet.export.quantise import FloatLayer, Quantisation
from lpsnet.inference.engines import Precision
from lpsnet.inference.hub import find_checkpoint, find_model, list_models, push_to_hub
from lpsnet.inference.model_file import read_record
from lpsnet.inference.web import serve, write_page
from lpsnet.plugins import network_named
from lpsnet.record import ModelRecord

if TYPE_CHECKING:
    from lpsnet.export.verify import ExportReport
    from lpsnet.models.profile import Complexity


PAPER_SIZE = (1024, 2048)  # Cityscapes; the size of the paper's figures


def models(json_to: output.JsonOption = None) -> None:
    """The models that come with the package, and what each of them scored.

    Example: `lpsnet models`
    """
    found = {name: (path, read_record(path)) for name, path in list_models().items()}
    described = {name: {"path": str(path), "record": r.model_dump(mode="json")} for name, (path, r) in found.items()}
    output.write_json({"models": described}, json_to)
    columns = ["name", "classes", "runs at", "ratios", "mIoU %", "on", "MiB"]
    robust = {name: _corrupted(record) for name, (_, record) in found.items()}
    if any(robust.values()):  # few records hold it
        columns.insert(6, "corrupted")
    rows = output.table("Models of this installation", *columns)
    for name, (path, record) in found.items():
        size = "x".join(map(str, record.input_size)) if record.input_size else "any"
        ratios = ", ".join(map(str, record.architecture.ratios)) if record.architecture else "–"
        split, miou = next(iter(_mious(record).items()), ("–", None))
        score = "–" if miou is None else f"{miou:.2f}"
        megabytes = f"{path.stat().st_size / 2**20:.1f}"
        corrupted = [robust[name] or "–"] if any(robust.values()) else []
        rows.add_row(name, str(record.label_space.num_classes), size, ratios, score, split, *corrupted, megabytes)
    output.console(json_to).print(rows)
    for name, (_, record) in found.items():
        for note in (scores["note"] for scores in record.scores.values() if "note" in scores):
            output.say(f"{name}: {note}", json_to=json_to)
    for terms in dict.fromkeys(record.licence for _, record in found.values()):
        names = ", ".join(name for name, (_, record) in found.items() if record.licence == terms)
        output.say(f"{names}: {terms or 'no terms given'}", json_to=json_to)
    output.next_command("lpsnet", "segment", "IMAGE", "--model", next(iter(found), "MODEL"), json_to=json_to)


def _mious(record: "ModelRecord") -> dict[str, float]:
    """mIoU in a record, in percent, by split or protocol."""
    figures = {split: scores.get("miou") for split, scores in record.scores.items() if isinstance(scores, dict)}
    return {split: miou for split, miou in figures.items() if isinstance(miou, float)}


def _corrupted(record: "ModelRecord") -> str:
    """Mean mIoU under corruptions in a record, in percent; empty if it holds none."""
    tests = (scores.get("robustness") for scores in record.scores.values() if isinstance(scores, dict))
    mious = (test.get("mean_miou") for test in tests if isinstance(test, dict))
    return next((f"{miou:.2f}" for miou in mious if isinstance(miou, float)), "")


def info(
    what: Annotated[str, typer.Argument(metavar="ARCH|MODEL", help="An architecture, or a model file.")],
    size: output.SizeOption = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    block: Annotated[str | None, typer.Option(help="Convolutional block (Table 2).")] = None,
    interaction: Annotated[str | None, typer.Option(help="Path interaction (Figure 6).")] = None,
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Parameters and multiply-accumulates by stage; for a model file, its record too.

    Example: `lpsnet info lpsnet_s --size 360x480 --classes 11`
    """
    record = _find_record(what)
    asked = {"size": output.parse_size(size), "num_classes": classes, "block": block, "interaction": interaction}
    counts = _count(what, record, asked)
    described = {} if record is None else {"record": record.model_dump(mode="json")}
    output.write_json({**(counts.to_dict() if counts else {}), **described}, json_to)
    if counts is not None:
        _print_complexity(counts, json_to)
    if record is not None:
        _print_record(record, json_to)
        output.next_command("lpsnet", "segment", "IMAGE", "--model", what, json_to=json_to)
    else:
        output.next_command(
            "lpsnet", "train", "--data", "scenes", "--arch", what, "--out", "runs/first", json_to=json_to
        )


def _count(what: str, record: "ModelRecord | None", asked: dict[str, Any]) -> "Complexity | None":
    """What the network costs; None for a model file where it cannot be counted: a foreign one, or without torch."""
    architecture = get_architecture(what) if record is None else record.architecture
    code = None if record is None else network_named(record.network, record.network_digest)
    if architecture is None and code is None:
        return None
    try:
        from lpsnet.models.any_network import load_network
        from lpsnet.models.profile import complexity
    except ModuleNotFoundError as error:
        if record is None:
            raise
        output.say(
            f"Parameters and operations are not counted: {MissingDependencyError.from_import(error)}", json_to="-"
        )
        return None
    chosen: dict[str, Any] = {
        "size": PAPER_SIZE,
        "num_classes": 19,
        "block": default_block(what),
        "interaction": "bilateral_b",
    }
    if record is not None:
        chosen |= {"num_classes": record.label_space.num_classes, "size": record.input_size or PAPER_SIZE}
        chosen |= {"block": record.block, "interaction": record.interaction, "in_channels": len(record.channels)}
    if record is not None and code is not None:
        return complexity(
            load_network(code, num_classes=record.label_space.num_classes, in_channels=len(record.channels)),
            size=asked["size"] or chosen["size"],
        )
    assert architecture is not None, "one of the two is there"
    return complexity(architecture, **(chosen | {key: value for key, value in asked.items() if value}))


def _find_record(what: str) -> "ModelRecord | None":
    """The record of a model file or a bundled model; None for an architecture."""
    if what in list_architectures() or "=" in what:
        return None
    try:
        return read_record(find_model(what))
    except LpsnetError:
        if not ("/" in what or "\\" in what or Path(what).suffix or Path(what).exists()):
            get_architecture(what)  # its error lists the architectures
        raise


def _print_complexity(counts: "Complexity", json_to: str | None) -> None:
    height, width = counts.size
    rows = output.table(str(counts.architecture or counts.network), "part", "path", "input", "parameters", "GMACs")
    for row in counts.rows:
        ratio = counts.architecture.ratios[row.path - 1] if row.path and counts.architecture else None
        own = "" if ratio is None else "x".join(map(str, path_size(counts.size, ratio)))
        rows.add_row(row.part, str(row.path or ""), own, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
    rows.add_section()
    rows.add_row("total", "", "", f"{counts.parameters:,}", f"{counts.macs / 1e9:.3f}", style="bold")
    output.console(json_to).print(rows)
    logits = ""
    if counts.architecture is not None:
        logits = f"logits at {'x'.join(map(str, logits_size(counts.size, counts.architecture)))}, "
    output.say(f"{height}x{width} in, {logits}{counts.num_classes} classes, deployed form", json_to=json_to)


def _print_record(record: "ModelRecord", json_to: str | None) -> None:
    training = record.training
    lines: dict[str, Any] = {
        **({"network": record.network} if record.network else {}),
        "classes": ", ".join(record.label_space.names),
        **({} if record.image_channels.is_rgb else {"images": _describe_channels(record)}),
        "form": record.form,
        "input size": "x".join(map(str, record.input_size)) if record.input_size else "any",
        "trained on": f"{training.get('data', 'unknown data')}, split {training.get('split', 'unknown')}",
        "recipe": (training.get("recipe") or {}).get("name", "unknown"),
        "licence": record.licence or "none given",
        "made by": f"lpsnet {record.lpsnet_version or 'unknown'}",
    }
    lines.update({f"mIoU on {split}": f"{miou:.2f} %" for split, miou in _mious(record).items()})
    for key, value in lines.items():
        output.say(f"{key}: {value}", json_to=json_to)


def _describe_channels(record: "ModelRecord") -> str:
    norm = record.normalisation
    numbers = (
        f"{norm.max_value * own:.1f} ± {norm.max_value * std:.1f}" for own, std in zip(norm.mean, norm.std, strict=True)
    )
    listed = ", ".join(f"{name} {number}" for name, number in zip(record.channels, numbers, strict=True))
    return f"{record.image_channels}; normalised by {listed}"


def push(
    repo: Annotated[str, typer.Argument(metavar="OWNER/MODEL", help="Repository on the Hugging Face Hub.")],
    model: Annotated[str, typer.Option(help="A model file, or the name of one that comes with the package.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    keep_card: Annotated[bool, typer.Option("--keep-card", help="Leave the repository's README.md as it is.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Put a model onto the Hugging Face Hub, with a model card made from its record.

    Example: `lpsnet push me/street --model model.onnx`
    """
    page = push_to_hub(model, repo, private=private, keep_card=keep_card, message=message)
    output.say(f"Pushed {model} and its card to {page}" if not keep_card else f"Pushed {model} to {page}")
    output.next_command("lpsnet", "info", f"hf://{repo}/{Path(find_model(model)).name}")


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
    images = _images(data, split, record)
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
        quantisation=_quantisation(data, calibrate_on, num_calibrated, keep_float, record)
        if precision == "int8"
        else None,
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
    output.console(json_to).print(rows)
    if report.num_calibration_pictures:
        output.say(f"Calibrated on {report.num_calibration_pictures} images", json_to=json_to)
    if report.miou is not None:
        miou = report.miou
        where = f"{miou.num_pictures} images of {miou.split}"
        output.say(f"mIoU on {where}: {miou.before:.2f} before, {miou.after:.2f} after", json_to=json_to)
    output.say(f"Wrote {report.path} ({report.num_bytes / 2**20:.1f} MiB)", json_to=json_to)


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

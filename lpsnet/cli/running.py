"""`lpsnet segment` and `lpsnet evaluate`: running models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpsnet.cli.output import JsonOption, SizeOption, next_command, parse_size, picture_progress, say, write_json
from lpsnet.cli.training import print_scores

RuntimeOption = Annotated[str | None, typer.Option(help="Engine: onnxruntime, openvino, ncnn, tensorrt, pytorch.")]
PrecisionOption = Annotated[str, typer.Option(help="Arithmetic: f32, bf16, f16, int8.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of the engine.")]


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(segment)
    app.command()(evaluate)


def segment(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Pictures, folders or globs.")],
    model: Annotated[str, typer.Option(help="A model file, or the name of one that comes with the package.")],
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("segmented"),
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    size: SizeOption = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours over the picture.")] = 0.55,
    json_to: JsonOption = None,
) -> None:
    """Segment pictures: an overlay and a label map each.

    Example: `lpsnet segment photos/ --model model.onnx --out segmented`
    """
    from lpsnet.deployment.pictures import find_pictures, segment_pictures
    from lpsnet.deployment.segmenter import Segmenter

    pictures = find_pictures(sources)
    segmenter = Segmenter(model, runtime=runtime, precision=precision, threads=threads, input_size=parse_size(size))
    outcomes = []
    with picture_progress("segmenting") as update:
        results = segment_pictures(segmenter, pictures, out, label_space=segmenter.label_space, opacity=opacity)
        for outcome in results:
            outcomes.append(outcome)
            update(len(outcomes), len(pictures))
    failed = [outcome for outcome in outcomes if outcome.problem]
    for outcome in failed:
        say(f"left out: {outcome.problem}", json_to="-")
    write_json(_segment_report(outcomes), json_to)
    say(f"Wrote {len(outcomes) - len(failed)} label maps and overlays to {out}/", json_to=json_to)
    next_command("lpsnet", "info", model, json_to=json_to)
    if failed:
        raise typer.Exit(2)


def _segment_report(outcomes: list[Any]) -> dict[str, Any]:
    return {
        "pictures": [
            {
                "source": str(outcome.source),
                "labels": None if outcome.labels is None else str(outcome.labels),
                "overlay": None if outcome.overlay is None else str(outcome.overlay),
                "problem": outcome.problem or None,
            }
            for outcome in outcomes
        ]
    }


def evaluate(
    model: Annotated[str, typer.Option(help="A checkpoint, an exported file, or a bundled model's name.")],
    data: Annotated[str, typer.Option(help="camvid:PATH, cityscapes:PATH, bdd100k:PATH, a YAML file, or scenes.")],
    split: Annotated[str, typer.Option(help="Which pictures.")] = "val",
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    size: SizeOption = None,
    boundary: Annotated[bool, typer.Option("--boundary", help="Boundary IoU too.")] = False,
    json_to: JsonOption = None,
) -> None:
    """Score a model on labelled pictures: IoU by class and mIoU from one confusion matrix.

    Example: `lpsnet evaluate --model runs/s/model.safetensors --data camvid:CamVid --split val --json scores.json`
    """
    from lpsnet.data.datasets import open_dataset
    from lpsnet.deployment.segmenter import Segmenter
    from lpsnet.evaluation.evaluate import evaluate as run_evaluation

    pictures = open_dataset(data).split(split)
    segmenter = Segmenter(model, runtime=runtime, precision=precision, threads=threads, input_size=parse_size(size))
    with picture_progress("evaluating") as update:
        evaluation = run_evaluation(
            segmenter,
            pictures,
            label_space=segmenter.label_space,
            protocol={"data": data, **segmenter.protocol},
            boundary=boundary,
            progress=update,
        )
    write_json(evaluation.to_dict(), json_to)
    print_scores(evaluation, json_to=json_to)
    for name, miou in evaluation.worst(3):
        say(f"lowest: {name} ({miou:.1f} mIoU)", json_to=json_to)
    next_command("lpsnet", "segment", "PICTURE", "--model", model, "--out", "segmented", json_to=json_to)

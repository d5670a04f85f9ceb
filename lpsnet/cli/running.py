"""`lpsnet segment` and, from `evaluating.py`, `lpsnet evaluate`: running models."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lpsnet.cli.evaluating import PrecisionOption, RuntimeOption, ThreadsOption, evaluate
from lpsnet.cli.output import JsonOption, SizeOption, next_command, parse_size, picture_progress, say, write_json


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

"""`lpsnet segment` and, from `evaluating.py`, `lpsnet evaluate`: running models."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli.evaluating import PrecisionOption, RuntimeOption, ThreadsOption
from lpsnet.cli.output import JsonOption, SizeOption, next_command, parse_size, say, write_json
from lpsnet.cli.segmenting import Work, stop_on_interrupt
from lpsnet.inference.hub import DEFAULT_MODEL
from lpsnet.inference.pipeline import find_media
from lpsnet.inference.visualise import DEFAULT_PRODUCTS, PRODUCTS, Style, check_products

STOPPED = 130  # exit code after Ctrl-C, as shells have it


def segment(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Pictures, videos, folders, globs, or a camera's number.")
    ],
    model: Annotated[
        str, typer.Option(help="A model file, or the name of one that comes with the package.")
    ] = DEFAULT_MODEL,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("segmented"),
    write: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help=f"What to write: {', '.join(PRODUCTS)}; may be given several times. "
            f"Default: {' and '.join(DEFAULT_PRODUCTS)}.",
        ),
    ] = None,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="Of the colours over the picture.")] = 0.55,
    legend: Annotated[bool, typer.Option("--legend", help="A legend below, which makes pictures higher.")] = False,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Of a video or camera, at most as many.")] = None,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    size: SizeOption = None,
    json_to: JsonOption = None,
) -> None:
    """Segment pictures, videos and cameras: label maps, and the classes' colours over the picture.

    A picture gives PNG files, STEM.labels.png and STEM.overlay.png. A video gives H.264 of its own size and frame rate,
    STEM.overlay.mp4, and its label maps without loss, STEM.labels.mkv. Ctrl-C ends it: what was done of a video
    is kept as STEM.overlay.part.mp4; of a camera it is the whole.

    Examples: `lpsnet segment photos/ --model model.onnx --out segmented`

    `lpsnet segment drive.mp4 --write overlay --legend`

    `lpsnet segment 0 --write side-by-side` (the first camera, until Ctrl-C)
    """
    from lpsnet.inference.segmenter import Segmenter

    media, products = find_media(sources), check_products(write or DEFAULT_PRODUCTS)
    segmenter = Segmenter(model, runtime=runtime, precision=precision, num_threads=threads, input_size=parse_size(size))
    style = Style(segmenter.label_space, opacity, legend)
    with stop_on_interrupt() as stop:
        work = Work(segmenter, out, products, style, stop, max_frames, json_to)
        work.pictures([medium for medium in media if medium.kind == "picture"])
        for medium in media:
            if medium.kind != "picture" and not stop.is_set():
                work.stream(medium)
    write_json(work.report(), json_to)
    say(f"Wrote {work.written()} to {out}/", json_to=json_to)
    next_command("lpsnet", "info", model, json_to=json_to)
    if work.unfinished(len(media)):
        say("Stopped before everything was done; the same command does it all again", json_to="-")
        raise typer.Exit(STOPPED)
    if work.problems:
        raise typer.Exit(2)

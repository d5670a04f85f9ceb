"""`lpsnet stream`: how fast and how steadily a video or camera is segmented on this device."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lpsnet.cli.benchmark import measuring_progress
from lpsnet.cli.evaluating import PrecisionOption, RuntimeOption, ThreadsOption
from lpsnet.cli.output import JsonOption, SizeOption, next_command, parse_size, say, table, write_json
from lpsnet.cli.output import console as people
from lpsnet.inference.hub import DEFAULT_MODEL

if TYPE_CHECKING:
    from lpsnet.benchmark.endurance import Endurance


MAX_ROWS = 12  # of the table; --json has every sample


def stream(
    video: Annotated[Path, typer.Argument(help="A video, which is played over and over.")],
    model: Annotated[
        str, typer.Option(help="A model file, or the name of one that comes with the package.")
    ] = DEFAULT_MODEL,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long.")] = 10.0,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between looks at the memory.")] = 10.0,
    turns: Annotated[int, typer.Option(min=0, help="Turns with and without drawing after that.")] = 5,
    turn: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long each takes.")] = 10.0,
    runtime: RuntimeOption = None,
    precision: PrecisionOption = "f32",
    threads: ThreadsOption = None,
    size: SizeOption = None,
    json_to: JsonOption = None,
) -> None:
    """Segment a video for minutes: does memory hold, and how many frames a second are done, drawn or not?

    Overlays are encoded and written as `lpsnet segment` does, to a temporary file. Turns with and without drawing
    alternate afterwards.

    Example: `lpsnet stream drive.mp4 --model model.onnx --minutes 10 --json stream.json`
    """
    from lpsnet.benchmark.endurance import endure
    from lpsnet.benchmark.machine import LoadWatch, describe_machine
    from lpsnet.inference.segmenter import Segmenter
    from lpsnet.inference.video import video_stream
    from lpsnet.inference.visualise import Style

    source = video_stream(video)
    segmenter = Segmenter(model, runtime=runtime, precision=precision, num_threads=threads, input_size=parse_size(size))
    watch = LoadWatch.start()
    with measuring_progress() as update:
        result = endure(
            segmenter,
            source,
            Style(segmenter.label_space),
            duration_s=60 * minutes,
            interval_s=interval,
            num_turns=turns,
            turn_s=turn,
            progress=update,
        )
    load, machine = watch.load(), describe_machine()
    about = {"protocol": segmenter.protocol, "video_size": list(source.info.size), "machine": machine.to_dict()}
    write_json({**result.to_dict(), **about, "load": load.to_dict()}, json_to)
    _print(result, json_to)
    busy = "" if load.other_cores is None else f"; other work kept {load.other_cores:.1f} processors busy meanwhile"
    say(f"Measured with {segmenter.engine} on {machine.identity}{busy}", json_to=json_to)
    next_command("lpsnet", "segment", video, "--model", model, "--write", "overlay", json_to=json_to)


def _print(result: "Endurance", json_to: str | None) -> None:
    rows = table("memory", "seconds", "frames", "MiB")
    every = -(-len(result.samples) // MAX_ROWS)
    for sample in dict.fromkeys((*result.samples[::every], result.samples[-1])):
        rows.add_row(f"{sample.time_s:.0f}", str(sample.num_frames), f"{sample.memory_mib:.1f}")
    people(json_to).print(rows)
    figures = result.to_dict()
    say(
        f"Memory after the first tenth: within {result.spread_percent:.2f} %, "
        f"last against first {result.growth_percent:+.2f} %",
        json_to=json_to,
    )
    say(f"{result.pace.num_frames} frames, {result.pace.frames_per_second:.1f} a second, drawn", json_to=json_to)
    if result.with_drawing:
        drawn, not_drawn = (figures[f"frames_per_second_{way}_drawing"] for way in ("with", "without"))
        say(f"In turns: {drawn:.1f} frames a second with drawing, {not_drawn:.1f} without", json_to=json_to)

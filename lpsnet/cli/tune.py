"""`lpsnet tune`: the quickest engine, precision and threads for a model on this machine."""

from typing import Annotated, cast

import typer

from lpsnet.benchmark import tune as tuning
from lpsnet.cli import output
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, select
from lpsnet.errors import LpsnetError
from lpsnet.inference.engines import PRECISIONS, Precision


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or a bundled model's name.")],
    size: output.SizeOption = None,
    runtime: Annotated[str | None, typer.Option(help="Engines to try, with commas; default: all.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precisions to try, with commas; default: all.")] = None,
    threads: Annotated[str | None, typer.Option(help="Numbers of threads to try, with commas.")] = None,
    data: Annotated[str | None, typer.Option(help="Compare labels on these images, as for train.")] = None,
    split: Annotated[str, typer.Option(help="Which of its images.")] = "val",
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Time a model with every engine, precision and number of threads here that keep its labels; name the quickest.

    The choice is kept for this file and machine: `Segmenter(MODEL, runtime="auto")` uses it.

    Example: `lpsnet tune camvid_s --size 360x480`
    """
    images = () if data is None else Images(select(open_dataset(data).split(split), tuning.NUM_SCENES))
    with output.measuring_progress() as update:
        tuned = tuning.tune(
            model,
            size=output.parse_size(size),
            runtimes=_listed(runtime),
            precisions=cast("list[Precision]", _listed(precision)) or PRECISIONS,
            threads=_counts(threads),
            images=images,
            on_progress=update,
        )
    output.write_json(tuned.to_dict(), json_to)
    height, width = tuned.size
    rows = output.table(
        f"{model} at {height}x{width}", "engine", "precision", "threads", "ms end to end", "same labels %"
    )
    for setting, result, agreement in tuned.measured:
        latency = f"{tuning.latency_ms(result):.2f}"
        rows.add_row(setting.runtime, setting.precision, str(setting.num_threads or ""), latency, f"{agreement:.2f}")
    output.console(json_to).print(rows)
    for line in _left_out(tuned):
        output.say(line, json_to=json_to)
    output.say(f"The quickest: {tuned.best}", json_to=json_to)
    best = ["--runtime", tuned.best.runtime, "--precision", tuned.best.precision]
    best += ["--threads", str(tuned.best.num_threads)] if tuned.best.num_threads else []
    output.next_command("lpsnet", "segment", "IMAGE", "--model", model, *best, json_to=json_to)


def _left_out(tuned: tuning.Tuned) -> list[str]:
    """A line for each engine: why it does not run the file, or which precisions it does not compute here."""
    running = {setting.runtime for setting, _, _ in tuned.measured}
    reasons: dict[str, dict[str, str]] = {}
    for name, why in tuned.left_out.items():
        runtime, precision = name.split(",")[0].split(" ")
        reasons.setdefault(runtime, {})[precision] = why
    lines = []
    for runtime, by_precision in reasons.items():
        if runtime in running:
            wrong = [f"{precision} {why}" for precision, why in by_precision.items() if why.startswith("keeps")]
            absent = [precision for precision, why in by_precision.items() if not why.startswith("keeps")]
            parts = [*wrong, f"no {', '.join(absent)} with this file here"] if absent else wrong
            lines.append(f"{runtime}: {'; '.join(parts)}")
        else:
            lines.append(f"{runtime} does not run: {next(iter(by_precision.values()))}")
    return lines


def _counts(text: str | None) -> list[int] | None:
    counts = _listed(text)
    if counts is not None and not all(count.isdecimal() and 1 <= int(count) <= output.MAX_THREADS for count in counts):
        raise LpsnetError(f"--threads takes numbers of threads, 1 to {output.MAX_THREADS}, e.g. 1,2; got {text!r}")
    return None if counts is None else list(map(int, counts))


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]

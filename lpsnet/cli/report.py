"""`lpsnet study`: a table or figure of the paper, measured here; `lpsnet report`: one self-contained HTML page."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, cast

import typer

from lpsnet.cli import output
from lpsnet.inference.engines import Precision
from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import find, write_report
from lpsnet.studies.running import find_study, run_study
from lpsnet.studies.study import Scale, Settings

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
) -> None:
    """Write one HTML page about a training, an evaluation, a benchmark, an expansion or a study.

    DIR is the folder of a training, an expansion or a study, what `--json` of `lpsnet evaluate` or `benchmark` wrote,
    or a model file. Running ones are reported so far. The page needs no file beside it and no
    network.

    Example: `lpsnet report runs/first`
    """
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

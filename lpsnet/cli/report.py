"""`lpsnet report`: one self-contained HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli.output import next_command, say


def report(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="A run's folder, a JSON file of figures, or a model file.")
    ],
    out: Annotated[Path | None, typer.Option(help="The page; default: report.html in the folder.")] = None,
    pictures: Annotated[int, typer.Option(min=0, max=50, help="Best and worst pictures, as many each.")] = 3,
    data: Annotated[str | None, typer.Option(help="Where the pictures are now, if not where they were.")] = None,
    model: Annotated[str | None, typer.Option(help="Likewise the model.")] = None,
) -> None:
    """Write one HTML page about a training, an evaluation, a benchmark, an expansion or a study.

    DIR is the folder of a training, an expansion or a study, what `--json` of `lpsnet evaluate` or `benchmark` wrote,
    or a model file. Runs that go on are reported as far as they have come. The page needs no file beside it and no
    network.

    Example: `lpsnet report runs/first`
    """
    from lpsnet.report.evaluation import PictureOptions
    from lpsnet.report.report import find, write_report

    page = write_report(path, out=out, pictures=PictureOptions(pictures, data, model))
    say(f"Report: {page}")
    next_command(*_next(path, find(path).kind))


def _next(path: Path, kind: str) -> tuple[object, ...]:
    """What one would do with the thing itself."""
    family, trained = sorted((path / "family").glob("step_*.onnx")), path / "model.safetensors"
    commands: dict[str, tuple[object, ...]] = {
        "a training": ("export", "--model", trained, "--out", path / "model.onnx") if trained.exists() else (),
        "an expansion": ("benchmark", *family) if family else (),
        "a model": ("segment", "PICTURE", "--model", path, "--out", "segmented"),
    }
    return ("lpsnet", *(commands.get(kind) or ("report", path)))

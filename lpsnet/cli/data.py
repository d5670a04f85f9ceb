"""`lpsnet data`: checking data sets before training, and writing them in other label formats."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli.output import JsonOption, console, image_progress, next_command, say, table, write_json
from lpsnet.data import convert
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import WRITERS, open_dataset
from lpsnet.data.inspection import Diagnosis
from lpsnet.errors import DataError, unknown_name
from lpsnet.io import write_text

MAX_SHOWN = 20  # findings of one kind; --json has all of them

app = typer.Typer(help="Data sets.", epilog="Example: `lpsnet data check photos/`", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Data sets."""


@app.command()
def check(
    data: Annotated[str, typer.Argument(metavar="D", help="A data set as for train, or a bare folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the suggested description here, to a file that is not there yet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out, edited or not.")] = False,
    json_to: JsonOption = None,
) -> None:
    """Check every image and label of a data set and report what is wrong; exits with 2 if something is.

    Ends with a description (YAML) of the data set that leaves out or repairs what can be.

    Example: `lpsnet data check photos/ --out photos.yaml`
    """
    if out is not None and out.is_file() and not overwrite:
        advice = f"'lpsnet data check {out}' checks what it describes; --overwrite replaces it"
        raise DataError(f"{out} is there and may have been edited; {advice}, or give --out another name")
    with image_progress("checking") as update:
        diagnosis = check_dataset(data, on_progress=update)
    write_json(diagnosis.to_dict(), json_to)
    _print_counts(diagnosis, json_to)
    _print_findings(diagnosis, json_to)
    if diagnosis.suggested_yaml:
        if out is not None:
            write_text(out, diagnosis.suggested_yaml)
            say(f"Wrote a description of this data set to {out}", json_to=json_to)
        else:
            heading = "A description of this data set (--out FILE.yaml writes it)"
            say(f"{heading}:\n\n{diagnosis.suggested_yaml}", json_to=json_to)
        next_command("lpsnet", "train", "--data", out or data, "--out", "runs/first", json_to=json_to)
    if not diagnosis.ok:
        raise typer.Exit(2)


@app.command("convert")
def convert_labels(
    data: Annotated[str, typer.Argument(metavar="D", help="A data set as for train.")],
    to: Annotated[str, typer.Option(help=f"The format to write: {', '.join(WRITERS)}.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; images go to OUT/images/SPLIT.")],
    tolerance: Annotated[
        float, typer.Option(metavar="PX", help="How far an outline may be from the border of its pixels; 0 is exact.")
    ] = 0.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder with files, replacing those of the same names.")
    ] = False,
) -> None:
    """Write a data set in another label format: masks, or the polygons of a label program.

    Example: `lpsnet data convert photos.yaml --to coco --out photos_coco`
    """
    if to not in WRITERS:
        raise DataError(unknown_name("format", to, WRITERS))
    dataset = open_dataset(data)
    splits = [dataset.split(name) for name in dataset.splits]
    with image_progress("converting") as update:
        remarks = convert.convert(
            splits, dataset.label_space, WRITERS[to], out, tolerance=tolerance, overwrite=overwrite, on_progress=update
        )
    say(f"Wrote {sum(map(len, splits))} images of {len(splits)} splits ({', '.join(dataset.splits)}) to {out}")
    for remark in remarks:
        say(f"Note: {remark}")
    next_command("lpsnet", "data", "check", out if to == "masks" else f"{to}:{out}")


def _print_counts(diagnosis: "Diagnosis", json_to: str | None) -> None:
    if not diagnosis.counts:
        return
    rows = table(diagnosis.spec, "class, % of labelled pixels", *diagnosis.counts)
    for name in next(iter(diagnosis.counts.values())).class_percent:
        rows.add_row(name, *(f"{counts.class_percent[name]:.2f}" for counts in diagnosis.counts.values()))
    rows.add_section()
    rows.add_row("without label, % of all", *(f"{counts.ignored_percent:.2f}" for counts in diagnosis.counts.values()))
    rows.add_row("images", *(str(counts.num_pictures) for counts in diagnosis.counts.values()))
    rows.add_row("sizes", *(", ".join(list(counts.sizes)[:3]) for counts in diagnosis.counts.values()))
    console(json_to).print(rows)


def _print_findings(diagnosis: "Diagnosis", json_to: str | None) -> None:
    shown: dict[str, int] = {}
    for finding in diagnosis.findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= MAX_SHOWN:
            place = "" if finding.file in finding.message else f"{finding.file}: "
            say(f"{finding.severity}: {place}{finding.message}", json_to=json_to)
    for kind, count in shown.items():
        if count > MAX_SHOWN:
            say(f"… and {count - MAX_SHOWN} more of kind {kind}; --json FILE has all", json_to=json_to)
    if not diagnosis.findings:
        say("Nothing wrong was found.", json_to=json_to)

"""`lpsnet data`: checking data sets before training, and writing them in other label formats; `lpsnet next`."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lpsnet.cli import output
from lpsnet.data import convert
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import WRITERS, needs_description, open_dataset
from lpsnet.data.inspection import Diagnosis
from lpsnet.errors import DataError, MissingDependencyError, unknown_name
from lpsnet.evaluation.selection import MEASURES, Selection, select
from lpsnet.inference import outputs, pipeline
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import write_text
from lpsnet.report import evaluation, html

MAX_SHOWN = 20  # findings of one kind; --json has all of them

app = typer.Typer(help="Data sets.", epilog="Example: `lpsnet data check photos/`", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Data sets."""


@app.command(cls=output.FiniteCommand)
def check(
    data: Annotated[str, typer.Argument(metavar="D", help="A data set as for train, or a bare folder.")],
    out: Annotated[
        Path | None, typer.Option(help="Write the suggested description here, to a file that is not there yet.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --out, edited or not.")] = False,
    json_to: output.JsonOption = None,
) -> None:
    """Check every image and label of a data set and report what is wrong; exits with 2 if something is.

    Ends with a description (YAML) of the data set that leaves out or repairs what can be.

    Example: `lpsnet data check photos/ --out photos.yaml`
    """
    if out is not None and out.is_file() and not overwrite:
        advice = f"'lpsnet data check {out}' checks what it describes; --overwrite replaces it"
        raise DataError(f"{out} is there and may have been edited; {advice}, or give --out another name")
    with output.image_progress("checking") as update:
        diagnosis = check_dataset(data, on_progress=update)
    output.write_json(diagnosis.to_dict(), json_to)
    _print_counts(diagnosis, json_to)
    _print_findings(diagnosis, json_to)
    if diagnosis.suggested_yaml:
        if out is not None:
            write_text(out, diagnosis.suggested_yaml)
            output.say(f"Wrote a description of this data set to {out}", json_to=json_to)
        else:
            heading = "A description of this data set (--out FILE.yaml writes it)"
            output.say(f"{heading}:\n\n{diagnosis.suggested_yaml}", json_to=json_to)
        if out is None and (needs_description(data) or not diagnosis.ok):
            file = f"{Path(data).name or 'data'}.yaml"
            output.next_command("lpsnet", "data", "check", data, "--out", file, json_to=json_to)
        else:
            output.next_command("lpsnet", "train", "--data", out or data, "--out", "runs/first", json_to=json_to)
    if not diagnosis.ok:
        raise typer.Exit(2)


@app.command("convert", cls=output.FiniteCommand)
def convert_labels(
    data: Annotated[str, typer.Argument(metavar="D", help="A data set as for train.")],
    to: Annotated[str, typer.Option(help=f"The format to write: {', '.join(WRITERS)}.")],
    out: Annotated[Path, typer.Option(help="The folder to write to; images go to OUT/images/SPLIT.")],
    tolerance: Annotated[
        float, typer.Option(metavar="PX", help="How far an outline may be from the border of its pixels; 0 is exact.")
    ] = 0.0,
    tile: Annotated[
        str | None, typer.Option(metavar="HxW", help="Cut images into tiles of this size, such as large TIFF files.")
    ] = None,
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
    cut = output.parse_size(tile)
    options: dict[str, Any] = {"tolerance": tolerance, "tile": cut, "overwrite": overwrite}
    with output.image_progress("converting") as update:
        remarks = convert.convert(splits, dataset.label_space, WRITERS[to], out, on_progress=update, **options)
    output.say(f"Wrote {sum(map(len, splits))} images of {len(splits)} splits ({', '.join(dataset.splits)}) to {out}")
    for remark in remarks:
        output.say(f"Note: {remark}")
    output.next_command("lpsnet", "data", "check", out if to == "masks" else f"{to}:{out}")


def _print_counts(diagnosis: "Diagnosis", json_to: str | None) -> None:
    if not diagnosis.counts:
        return
    rows = output.table(diagnosis.spec, "class, % of labelled pixels", *diagnosis.counts)
    for name in next(iter(diagnosis.counts.values())).class_percent:
        rows.add_row(name, *(f"{counts.class_percent[name]:.2f}" for counts in diagnosis.counts.values()))
    rows.add_section()
    rows.add_row("without label, % of all", *(f"{counts.ignored_percent:.2f}" for counts in diagnosis.counts.values()))
    rows.add_row("images", *(str(counts.num_pictures) for counts in diagnosis.counts.values()))
    rows.add_row("sizes", *(", ".join(list(counts.sizes)[:3]) for counts in diagnosis.counts.values()))
    output.console(json_to).print(rows)


def _print_findings(diagnosis: "Diagnosis", json_to: str | None) -> None:
    shown: dict[str, int] = {}
    for finding in diagnosis.findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= MAX_SHOWN:
            place = "" if finding.file in finding.message else f"{finding.file}: "
            output.say(f"{finding.severity}: {place}{finding.message}", json_to=json_to)
    for kind, count in shown.items():
        if count > MAX_SHOWN:
            output.say(f"… and {count - MAX_SHOWN} more of kind {kind}; --json FILE has all", json_to=json_to)
    if not diagnosis.findings:
        output.say("Nothing wrong was found.", json_to=json_to)


LIST, PAGE = "next.txt", "index.html"


def next_images(
    model: output.ModelOption,
    pool: Annotated[list[str], typer.Option(help="Images without labels: a folder, glob or file; may be repeated.")],
    data: Annotated[str, typer.Option(help="What is labelled so far: a data set as for train.")],
    out: Annotated[Path, typer.Option(help="Folder of the list, the page and the annotations.")] = Path("next"),
    count: Annotated[int, typer.Option(min=1, help="How many images.")] = 50,
    by: Annotated[str, typer.Option(help=f"How unsure a network is: {', '.join(MEASURES)}.")] = "margin",
    write: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help=f"Annotations to write: {', '.join(outputs.FORMATS)}. Default: labelme."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="PX", help="How far an outline may be from its pixels; 0 is exact.")
    ] = outputs.DEFAULT_TOLERANCE,
    link: Annotated[bool, typer.Option("--link", help="Links to the images instead of copies.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace annotations of an earlier run, even if they were corrected.")
    ] = False,
    runtime: output.RuntimeOption = None,
    threads: output.ThreadsOption = None,
    size: output.SizeOption = None,
    network: output.NetworkOption = None,
    extra_images: output.ExtraImagesOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Choose which images to label next: those that the model is unsure of, in rare classes, and that differ.

    Writes OUT/next.txt, a path a line, the most worth first; OUT/labelme, the images with the model's labels as
    annotations to correct; and OUT/index.html, a page to look at.

    Example: `lpsnet next --model runs/first/model.safetensors --pool unlabelled/ --data labelled/ --count 50`
    """
    forms = _formats(write or ["labelme"])
    segmenter = Segmenter(model, runtime=runtime, num_threads=threads, input_size=output.parse_size(size))
    space = segmenter.label_space
    notes = outputs.Annotations(out, forms, space, tolerance=tolerance, overwrite=overwrite, link=link)
    images = [source for source in pipeline.find_sources(pool, skip=[out]) if source.kind == "image"]
    read = pipeline.Reader.of(segmenter.record.image_channels, extra_images or [], images)
    sources = {it.path: it.stem.as_posix() for it in read.without_extra(images)}
    opened = open_dataset(data)
    with output.image_progress("comparing") as update:
        found = select(segmenter, list(sources), opened, count=count, measure=by, on_progress=update, read=read)
    names = [sources[path] for path in found.paths]
    with notes:
        shown = _annotate(segmenter, found, names, notes, read)
        folders, remarks = notes.write()
    write_text(out / LIST, "".join(f"{os.path.abspath(path)}\n" for path in found.paths))  # noqa: PTH100 - keeps links
    page = evaluation.selection_page(found, names, space, shown)
    remarks.append(_write_page(page, out, _command(model, pool, data, count, by, out)))
    output.write_json(_figures(found, space.names, folders), json_to)
    for line in (*(f"left out: {problem}" for problem in found.problems), *remarks):
        output.say(line, json_to=json_to)
    output.say(f"Wrote {len(found.paths)} of {found.num_pool} images to {out / LIST}", json_to=json_to)
    output.next_command("lpsnet", "data", "check", f"{forms[0]}:{folders[forms[0]]}", json_to=json_to)


def _annotate(
    segmenter: Segmenter, found: Selection, names: list[str], notes: outputs.Annotations, read: pipeline.Reader
) -> list[evaluation.ChosenImages]:
    """Annotate the images; gives the rows of the page."""
    shown: list[evaluation.ChosenImages] = []
    with output.image_progress("annotating") as update:
        for number, (path, name) in enumerate(zip(found.paths, names, strict=True), start=1):
            result = segmenter(read(path))
            notes.add(path, name, result)
            if number <= evaluation.MAX_CHOSEN:
                shown.append(evaluation.show_chosen(f"{number}. {name}", result))
            update(number, len(names))
    return shown


def _formats(names: list[str]) -> list[str]:
    forms = [name.strip() for text in names for name in text.split(",")]
    for name in forms:
        if name not in outputs.FORMATS:
            raise DataError(unknown_name("format of annotations", name, outputs.FORMATS))
    return list(dict.fromkeys(forms))


def _write_page(page: html.Page, out: Path, command: str) -> str:
    """Gives a line about it."""
    try:
        write_text(out / PAGE, html.render(page, command=command))
    except MissingDependencyError as error:
        return f"no page was written: {error}"
    return f"A page to look at: {out / PAGE}"


def _command(model: str, pool: list[str], data: str, count: int, by: str, out: Path) -> str:
    pools = [word for name in pool for word in ("--pool", name)]
    words = ["lpsnet", "next", "--model", model, *pools, "--data", data, "--count", str(count), "--by", by]
    return shlex.join([*words, "--out", str(out)])


def _figures(found: Selection, classes: tuple[str, ...], folders: dict[str, Path]) -> dict[str, Any]:
    images = [
        {
            "path": str(path),
            "value": view.value,
            "unsure_percent": 100 * view.unsure,
            "distance": None if distance == float("inf") else distance,
            "class_percent": {name: 100 * float(share) for name, share in zip(classes, view.shares, strict=True)},
        }
        for path, view, distance in zip(found.paths, found.views, found.distances, strict=True)
    ]
    return {
        "images": images,
        "num_pool": found.num_pool,
        "class_weights": dict(zip(classes, map(float, found.weights), strict=True)),
        "labelled": [str(path) for path in found.labelled],
        "annotations": {name: str(folder) for name, folder in folders.items()},
        "problems": list(found.problems),
    }

"""`lpsnet next`: which unlabelled images to label next, with annotations to correct."""

import os
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lpsnet.cli import output
from lpsnet.data.dataset import open_dataset
from lpsnet.data.images import read_image
from lpsnet.errors import DataError, MissingDependencyError, unknown_name
from lpsnet.evaluation.selection import MEASURES, Selection, select
from lpsnet.inference import annotating, outputs, pipeline
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import write_text
from lpsnet.report import html
from lpsnet.report.selection import MAX_SHOWN, Shown, selection_page, show

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
    ] = annotating.DEFAULT_TOLERANCE,
    link: Annotated[bool, typer.Option("--link", help="Links to the images instead of copies.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace annotations of an earlier run, even if they were corrected.")
    ] = False,
    runtime: output.RuntimeOption = None,
    threads: output.ThreadsOption = None,
    size: output.SizeOption = None,
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Choose which images to label next: those that the model is unsure of, in rare classes, and that differ.

    Writes OUT/next.txt, a path a line, the most worth first; OUT/labelme, the images with the model's labels as
    annotations to correct; and OUT/index.html, a page to look at.

    Example: `lpsnet next --model runs/first/model.safetensors --pool unlabelled/ --data labelled/ --count 50`
    """
    forms = _formats(write or ["labelme"])
    segmenter = Segmenter(model, runtime=runtime, num_threads=threads, input_size=output.parse_size(size))
    sources = {it.path: it.stem.as_posix() for it in pipeline.find_sources(pool, skip=[out]) if it.kind == "image"}
    opened = open_dataset(data)
    names, shown = list[str](), list[Shown]()
    notes = annotating.Annotations(
        out, forms, segmenter.label_space, tolerance=tolerance, overwrite=overwrite, link=link
    )
    with notes:
        with output.image_progress("comparing") as update:
            found = select(segmenter, list(sources), opened, count=count, measure=by, on_progress=update)
        with output.image_progress("annotating") as update:
            for number, path in enumerate(found.paths, start=1):
                result = segmenter(read_image(path))
                names.append(sources[path])
                notes.add(path, sources[path], result)
                shown += [show(f"{number}. {sources[path]}", result)] if number <= MAX_SHOWN else []
                update(number, len(found.paths))
        folders, remarks = notes.write()
    write_text(out / LIST, "".join(f"{os.path.abspath(path)}\n" for path in found.paths))  # noqa: PTH100 - keeps links
    page = html_page(found, names, segmenter, shown, out, _command(model, pool, data, count, by, out))
    output.write_json(_figures(found, segmenter.label_space.names, folders), json_to)
    for line in (*(f"left out: {problem}" for problem in found.problems), *(f"note: {it}" for it in remarks), page):
        output.say(line, json_to=json_to)
    output.say(f"Wrote {len(found.paths)} of {found.num_pool} images to {out}/{LIST}", json_to=json_to)
    if forms:
        output.next_command("lpsnet", "data", "check", f"{forms[0]}:{folders[forms[0]]}", json_to=json_to)


def _formats(names: list[str]) -> list[str]:
    forms = [name.strip() for text in names for name in text.split(",")]
    for name in forms:
        if name not in outputs.FORMATS:
            raise DataError(unknown_name("format of annotations", name, outputs.FORMATS))
    return list(dict.fromkeys(forms))


def html_page(
    found: Selection, names: list[str], segmenter: Segmenter, shown: list[Shown], out: Path, command: str
) -> str:
    """Write the page; gives a line about it."""
    try:
        page = selection_page(found, names, segmenter.label_space, shown)
        write_text(out / PAGE, html.render(page, command=command))
    except MissingDependencyError as error:
        return f"note: no page was written: {error}"
    return f"A page to look at: {out / PAGE}"


def _command(model: str, pool: list[str], data: str, count: int, by: str, out: Path) -> str:
    pools = [word for name in pool for word in ("--pool", name)]
    words = ["lpsnet", "next", "--model", model, *pools, "--data", data, "--count", str(count), "--by", by]
    return shlex.join([*words, "--out", str(out), "--overwrite"])


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

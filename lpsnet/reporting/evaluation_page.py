"""The report of an evaluation: IoU by class, what is taken for what, the best and the worst pictures, the protocol."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lpsnet.charts.heatmap import draw_confusion
from lpsnet.charts.svg import Drawing
from lpsnet.reporting.evaluation_file import EvaluationFile
from lpsnet.reporting.page import Cell, Chart, Command, Facts, Gallery, Page, Part, Section, Table, Tile, figure
from lpsnet.reporting.pictures import Source, show_pictures
from lpsnet.reporting.reading import flat

NUM_CONFUSIONS = 8  # pairs of classes named below the matrix
MAX_DRAWN = 64  # classes, beyond which cells are too small to see
MAX_BESIDE = 12  # classes, up to which the matrix and those pairs stand beside each other
MAX_MATRIX_WIDTH = 860.0  # pixels, beyond which cells would be larger than what they say


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """Which pictures a report shows.

    Attributes:
        count: the best and the worst, each; 0 for none.
        data, model: to be used in place of those that were evaluated.
    """

    count: int = 3
    data: str | None = None
    model: str | None = None


def evaluation_page(path: Path, pictures: PictureOptions) -> Page:
    """The page of a JSON file that `lpsnet evaluate` wrote.

    Raises:
        RunError: the file holds no evaluation.
    """
    evaluation = EvaluationFile.read(path)
    protocol = evaluation.protocol
    gallery, note = gallery_of(evaluation, pictures)
    facts = Facts(tuple(flat(protocol)), title="Protocol")
    command = Command(evaluation.command, title="Command") if evaluation.command else None
    return Page(
        kind="Evaluation",
        title=Path(str(protocol.get("model") or path.stem)).name,
        lead=f"{evaluation.num_images} pictures of {protocol.get('data', '?')}, {protocol.get('split', '?')}",
        tiles=score_tiles(evaluation),
        notes=(note,) if note else (),
        sections=(
            *score_sections(evaluation),
            picture_section(gallery),
            Section("How it was measured", (command, facts) if command else (facts,)),
        ),
    )


def gallery_of(evaluation: EvaluationFile, options: PictureOptions) -> tuple[Gallery | None, str]:
    """The pictures of an evaluation, and what is missing for them in a line."""
    protocol = evaluation.protocol
    if options.count == 0:
        return None, ""
    data, model = options.data or protocol.get("data"), options.model or protocol.get("model")
    if not isinstance(data, str) or not isinstance(model, str):
        return None, "No pictures are shown: the file does not say which data and model were evaluated."
    source = Source(data, str(protocol.get("split", "val")), model)
    if options.model is None:
        source = replace(
            source,
            runtime=_text(protocol.get("runtime")),
            precision=_text(protocol.get("precision")),
            input_size=_size(protocol.get("input_size")),
            is_averaged="averaged" in protocol,
        )
    return show_pictures(evaluation, source, options.count)


def score_tiles(evaluation: EvaluationFile) -> tuple[Tile, ...]:
    """The means."""
    tiles = [
        Tile("mIoU", figure(evaluation.miou, 2), "%"),
        Tile("Pixel accuracy", figure(evaluation.pixel_accuracy, 2), "%"),
        Tile("Mean accuracy", figure(evaluation.mean_accuracy, 2), "%"),
        Tile("Frequency-weighted IoU", figure(evaluation.frequency_weighted_iou, 2), "%"),
    ]
    if evaluation.boundary_miou is not None:
        tiles.append(Tile("Boundary mIoU", figure(evaluation.boundary_miou, 2), "%"))
    return (*tiles, Tile("Pictures", f"{evaluation.num_images:,}"))


def score_sections(evaluation: EvaluationFile) -> tuple[Section, ...]:
    """IoU by class, and what is taken for what."""
    return (
        Section("By class", (class_table(evaluation),)),
        Section("What is taken for what", (*_confusion_chart(evaluation), *_confusions(evaluation))),
    )


def picture_section(gallery: Gallery | None) -> Section:
    """The best and the worst pictures; empty where they could not be made."""
    return Section("Best and worst pictures", () if gallery is None else (gallery,))


def class_table(evaluation: EvaluationFile) -> Table:
    """A row a class, the best first, those that occur nowhere last."""
    truth = evaluation.matrix.sum(axis=1)
    shares = 100 * truth / max(truth.sum(), 1)
    ious = list(evaluation.ious.values())
    order = sorted(range(len(ious)), key=lambda number: -1 if (iou := ious[number]) is None else -100 - iou)
    heads = ["Class", "IoU (%)", "Accuracy (%)"]
    heads += ["Boundary IoU (%)"] if evaluation.boundary_ious else []

    def row(number: int) -> tuple[Cell | str, ...]:
        name, iou = evaluation.names[number], ious[number]
        bar = Cell(figure(iou), bar=0.0 if iou is None else iou / 100)
        boundary = [figure(evaluation.boundary_ious.get(name))] if evaluation.boundary_ious else []
        accuracy = figure(evaluation.accuracies[name])
        return (
            Cell(name, colour=evaluation.class_colours[number]),
            bar,
            accuracy,
            *boundary,
            figure(shares[number], 2),
        )

    return Table((*heads, "Pixels (%)"), tuple(row(number) for number in order))


def _confusion_chart(evaluation: EvaluationFile) -> tuple[Part, ...]:
    """The matrix; left out where there are too many classes to see any."""
    if len(evaluation.names) > MAX_DRAWN:
        return ()
    label = "Confusion matrix: a row a true class, a column a predicted one"
    caption = "Rows are the truth, columns the prediction; numbers are percent of a row."

    def draw(width: float) -> Drawing:
        return draw_confusion(evaluation.matrix, evaluation.names, min(width, MAX_MATRIX_WIDTH), label=label)

    return (Chart.of(draw, caption=caption, half=len(evaluation.names) <= MAX_BESIDE),)


def _confusions(evaluation: EvaluationFile) -> tuple[Part, ...]:
    """The largest shares of a class that are taken for another."""
    matrix = evaluation.matrix
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    places = np.argsort(shares, axis=None)[::-1][:NUM_CONFUSIONS]
    pairs = [np.unravel_index(place, shares.shape) for place in places]
    rows = tuple(
        (
            Cell(evaluation.names[truth], colour=evaluation.class_colours[truth]),
            Cell(evaluation.names[taken], colour=evaluation.class_colours[taken]),
            Cell(figure(100 * shares[truth, taken]), bar=float(shares[truth, taken])),
            f"{matrix[truth, taken]:,}",
        )
        for truth, taken in pairs
        if shares[truth, taken] > 0
    )
    heads, half = ("Truth", "Taken for", "Share (%)", "Pixels"), len(evaluation.names) <= MAX_BESIDE
    return (Table(heads, rows, words=(0, 1), title="Most often", half=half),) if rows else ()


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _size(value: Any) -> tuple[int, int] | None:
    ok = isinstance(value, list) and len(value) == 2 and all(isinstance(length, int) for length in value)
    return (value[0], value[1]) if ok else None

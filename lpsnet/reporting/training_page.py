"""The report of a training: its curves, the scores of its last evaluation, pictures, the command and the record.

A run that goes on is reported as far as it has come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpsnet.charts.curves import Curve, draw_curves
from lpsnet.charts.frame import NARROW, Size
from lpsnet.charts.svg import Drawing
from lpsnet.reporting.evaluation_page import PictureOptions, gallery_of, picture_section, score_sections
from lpsnet.reporting.page import Cell, Chart, Command, Facts, Gallery, Page, Part, Section, Table, Tile, figure, known
from lpsnet.reporting.reading import GREATEST, flat, number_of, text_of
from lpsnet.reporting.training_reading import Training, read_training

CHART_HEIGHT, NARROW_CHART_HEIGHT = 300.0, 250.0  # pixels

# key of evaluations.jsonl -> name, in percent
_SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_miou": "boundary mIoU",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}
_MAIN = {"miou": "mIoU", "top1": "Top-1 accuracy"}  # those that count


def training_page(path: Path, pictures: PictureOptions) -> Page:
    """The page of a run's folder.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    run = read_training(path)
    gallery, without = _pictures(run, pictures)
    names = [text_of(it) for it in (run.settings.get("architecture", "?"), run.recipe.get("name", "?"))]
    return Page(
        kind="Pre-training" if run.settings.get("task") == "classification" else "Training",
        title=path.resolve().name,
        lead=f"{names[0]}, recipe {names[1]}, on {text_of(run.settings.get('data', '?'))}",
        tiles=_tiles(run),
        notes=tuple(filter(None, (*run.notes, without))),
        sections=(
            Section("Curves", _curves(run.log, run.evaluations)),
            *(score_sections(run.evaluation) if run.evaluation is not None else (_scores(run.evaluations),)),
            picture_section(gallery),
            Section("How it was made", _making(run)),
        ),
    )


def _pictures(run: Training, pictures: PictureOptions) -> tuple[Gallery | None, str]:
    if run.evaluation is None:
        return None, ""
    return gallery_of(run.evaluation, replace(pictures, model=pictures.model or str(run.model)))


def _tiles(run: Training) -> tuple[Tile, ...]:
    last = run.evaluations[-1] if run.evaluations else {}
    scores = [(name, number_of(last.get(key))) for key, name in _MAIN.items()]
    tiles = [Tile(name, figure(value, 2), "%") for name, value in scores if value is not None]
    if run.log:
        speeds = sorted(row["pictures_per_second"] for row in run.log)
        tiles += [
            Tile("Last loss", f"{run.log[-1]['loss']:.4g}"),
            Tile("Iterations", f"{int(run.log[-1]['iteration']):,}"),
            Tile("Speed, median", figure(speeds[len(speeds) // 2]), "pictures/s"),
        ]
    pictures = run.record.get("training", {}).get("num_pictures", run.started.get("num_pictures"))
    return (*tiles, *([Tile("Pictures", f"{pictures:,}")] if isinstance(pictures, int) else []))


def _curves(log: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, Any]]) -> tuple[Part, ...]:
    """Loss, score, learning rate and speed over the iterations."""
    loss, rate, speed = (_curve(log, key) for key in ("loss", "learning_rate", "pictures_per_second"))
    scores = _score_curves(evaluations)
    charts = (
        _chart("Loss", [loss], y_name="loss"),
        _chart("Scores on val", scores, y_name="%", top=100.0) if scores else None,
        _chart("Learning rate", [rate], y_name="per step", zero=True),
        _chart("Speed", [speed], y_name="pictures a second", zero=True),
    )
    return tuple(chart for chart in charts if chart is not None)


def _curve(log: Sequence[Mapping[str, float]], key: str) -> Curve:
    """A column of the log; steps whose value is no number, as an f16 run has them, are left out."""
    known = [(row["iteration"], row[key]) for row in log if abs(row[key]) < GREATEST]
    return Curve(key.replace("_", " "), [x for x, _ in known], [y for _, y in known])


def _score_curves(evaluations: Sequence[Mapping[str, Any]]) -> list[Curve]:
    """Those scores that there are several of."""
    curves = []
    for key, name in _SCORES.items():
        known = [(line["iteration"], y) for line in evaluations if (y := number_of(line.get(key))) is not None]
        if len(known) > 1:
            curves.append(Curve(name, [x for x, _ in known], [y for _, y in known]))
    return curves


def _chart(
    title: str, curves: Sequence[Curve], *, y_name: str, zero: bool = False, top: float | None = None
) -> Chart | None:
    """A chart of the curves; None where there is nothing to draw."""
    if not any(len(curve.xs) > 1 for curve in curves):
        return None

    def draw(width: float) -> Drawing:
        size = Size(width, NARROW_CHART_HEIGHT if width <= NARROW else CHART_HEIGHT)
        label = f"{title} over iterations"
        return draw_curves(curves, size, label=label, x_name="iteration", y_name=y_name, with_zero=zero, top=top)

    return Chart.of(draw, title=title, half=True)


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> Section:
    """IoU by class where no more is known than what the log says."""
    ious = evaluations[-1].get("ious") if evaluations else None
    if not isinstance(ious, dict):
        return Section("By class", ())
    known = {str(name): number_of(iou) for name, iou in ious.items()}
    rows = tuple((name, Cell(figure(iou), bar=min(abs(iou or 0.0) / 100, 1.0))) for name, iou in known.items())
    return Section("By class", (Table(("Class", "IoU (%)"), rows),))


def _making(run: Training) -> tuple[Part, ...]:
    """Command, settings, recipe and record."""
    record = {**run.started, **run.record.get("training", {})}
    command = record.get("command")
    facts = {key: it for key, it in record.items() if key not in {*run.settings, "recipe", "command"}}
    model = known([("terms", run.record.get("licence")), ("form", run.record.get("form"))])
    parts = (
        Command(text_of(command), title="Command") if command else None,
        Facts(tuple(flat(run.settings)), title="Run"),
        Facts(tuple(flat(run.recipe)), title="Recipe"),
        Facts((*flat(facts), *model), title="Record"),
    )
    return tuple(part for part in parts if part is not None and not (isinstance(part, Facts) and not part.rows))

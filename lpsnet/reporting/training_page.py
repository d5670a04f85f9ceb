"""The report of a training: its curves, the scores of its last evaluation, pictures, the command and the record.

Reads a run's folder while the run goes on, too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lpsnet.charts.curves import Curve, draw_curves
from lpsnet.charts.frame import NARROW, Size
from lpsnet.charts.svg import Drawing
from lpsnet.deployment.model_file import read_record
from lpsnet.errors import LpsnetError, RunError
from lpsnet.reporting.evaluation_file import EvaluationFile
from lpsnet.reporting.evaluation_page import PictureOptions, gallery_of, picture_section, score_sections
from lpsnet.reporting.page import Cell, Chart, Command, Facts, Page, Part, Section, Table, Tile, figure, known
from lpsnet.reporting.reading import GREATEST, flat, number_of, read_json, text_of
from lpsnet.training.run_folder import LOG_COLUMNS, RunFolder

CHART_HEIGHT, NARROW_CHART_HEIGHT = 300.0, 250.0  # pixels

# key of evaluations.jsonl -> name, in percent
_SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_miou": "boundary mIoU",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}
_MAIN = ("miou", "top1")  # of those, the one that counts


def training_page(path: Path, pictures: PictureOptions) -> Page:
    """The page of a run's folder.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    folder = RunFolder(path)
    run = read_json(folder.run)
    if not isinstance(run, dict):
        raise RunError(f"{folder.run} does not describe a run")
    log, evaluations = _read_logs(folder)
    record, notes = _record(folder)
    evaluation, missing = _last_evaluation(folder)
    gallery, without = None, ""
    if evaluation is not None:
        own = replace(pictures, model=pictures.model or str(folder.model))
        gallery, without = gallery_of(evaluation, own)
    started = run.pop("started", {})
    started = started if isinstance(started, dict) else {}
    recipe = run.pop("recipe", {})
    recipe = recipe if isinstance(recipe, dict) else {}
    return Page(
        kind="Pre-training" if run.get("task") == "classification" else "Training",
        title=path.resolve().name,
        lead=f"{run.get('architecture', '?')}, recipe {recipe.get('name', '?')}, on {run.get('data', '?')}",
        tiles=_tiles(log, evaluations, started, record),
        notes=tuple(filter(None, (*notes, _progress(log, started, finished=folder.model.exists()), missing, without))),
        sections=(
            Section("Curves", _curves(log, evaluations)),
            *(score_sections(evaluation) if evaluation is not None else (_scores(evaluations),)),
            picture_section(gallery),
            Section("How it was made", _making(run, recipe, started, record)),
        ),
    )


def _read_logs(folder: RunFolder) -> tuple[list[dict[str, float]], list[dict[str, Any]]]:
    """A row an iteration, and a line an evaluation."""
    rows = folder.read_log() if folder.log.exists() else []
    evaluations = folder.read_evaluations()
    try:
        log = [{key: float(row[key]) for key in LOG_COLUMNS} for row in rows]
    except ValueError as error:
        raise RunError(f"{folder.log} cannot be read: {error}; mend or delete that line") from None
    known = [line for line in evaluations if number_of(line["iteration"]) is not None]
    return [row for row in log if row["iteration"] < GREATEST], known


def _record(folder: RunFolder) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The record of the finished model as JSON values, empty while there is none; and what is wrong with it."""
    if not folder.model.exists():
        return {}, ()
    try:
        return read_record(folder.model).model_dump(mode="json"), ()
    except LpsnetError as error:
        return {}, (f"The model's record is not shown: {error}",)


def _last_evaluation(folder: RunFolder) -> tuple[EvaluationFile | None, str]:
    """The full evaluation, or what can be done to have one."""
    if folder.evaluation.exists():
        return EvaluationFile.read(folder.evaluation), ""
    if not folder.model.exists() or not folder.evaluations.exists():
        return None, ""
    command = f"lpsnet evaluate --model {folder.model} --data DATA --json {folder.evaluation}"
    return None, f"For the confusion matrix and pictures, evaluate the model first: {command}"


def _progress(log: Sequence[Mapping[str, float]], started: Mapping[str, Any], *, finished: bool) -> str:
    """Where a run stands that is not done, in a sentence; empty once it is."""
    if finished:
        return ""
    if not log:
        return "This run has not come to its first iterations yet."
    done, wanted = int(log[-1]["iteration"]), started.get("num_iterations")
    text = f"This run is not finished: {done:,} iterations are done"
    return f"{text} of {wanted:,}, {max(wanted - done, 0):,} are left." if isinstance(wanted, int) else f"{text}."


def _tiles(
    log: Sequence[Mapping[str, float]],
    evaluations: Sequence[Mapping[str, Any]],
    started: Mapping[str, Any],
    record: Mapping[str, Any],
) -> tuple[Tile, ...]:
    tiles = [
        Tile(f"{_SCORES[key][:1].upper()}{_SCORES[key][1:]}" if key != "miou" else "mIoU", figure(value, 2), "%")
        for key in _MAIN
        if evaluations and (value := number_of(evaluations[-1].get(key))) is not None
    ]
    if log:
        rates = sorted(row["pictures_per_second"] for row in log)
        tiles += [
            Tile("Last loss", f"{log[-1]['loss']:.4g}"),
            Tile("Iterations", f"{int(log[-1]['iteration']):,}"),
            Tile("Speed, median", figure(rates[len(rates) // 2]), "pictures/s"),
        ]
    pictures = record.get("training", {}).get("num_pictures", started.get("num_pictures"))
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


def _making(
    run: Mapping[str, Any], recipe: Mapping[str, Any], started: Mapping[str, Any], record: Mapping[str, Any]
) -> tuple[Part, ...]:
    """Command, settings, recipe and record."""
    training = record.get("training", {})
    command = started.get("command", "")
    facts = {key: value for key, value in training.items() if key not in run and key not in ("recipe", "command")}
    model = known([("terms", record.get("licence")), ("form", record.get("form"))])
    parts = (
        Command(text_of(command), title="Command") if command else None,
        Facts(tuple(flat(run)), title="Run"),
        Facts(tuple(flat(recipe)), title="Recipe"),
        Facts((*flat(facts or {k: v for k, v in started.items() if k != "command"}), *model), title="Record"),
    )
    return tuple(part for part in parts if part is not None and not (isinstance(part, Facts) and not part.rows))

"""The report of a training, finished or running: curves, scores of its last evaluation, images, command, record."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lpsnet.errors import LpsnetError, RunError
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.inference.model_file import read_record
from lpsnet.report import html
from lpsnet.report.charts import Curve, Size, draw_curves
from lpsnet.report.evaluation import ImageOptions, gallery_of, image_section, score_sections
from lpsnet.report.html import known
from lpsnet.training.run_folder import LOG_COLUMNS, STARTED, RunFolder


@dataclass(frozen=True, slots=True)
class Training:
    """A run as far as it has come."""

    path: Path  # its folder
    settings: Mapping[str, Any]  # settings, recipe: what it was started with, as JSON values
    recipe: Mapping[str, Any]
    started: Mapping[str, Any]  # what was known at its start: the command, how many iterations there will be
    log: tuple[Mapping[str, float], ...]  # a row an iteration, by `LOG_COLUMNS`; what is no number is infinite or nan
    evaluations: tuple[Mapping[str, Any], ...]  # a line an evaluation, the iteration among its values
    evaluation: Evaluation | None  # the last one in full; None if there is none
    record: Mapping[str, Any]  # of the finished model, as JSON values; empty while there is none
    notes: tuple[str, ...]  # what a reader must know first, sentences

    @property
    def model(self) -> Path:
        """Where its model is, or will be."""
        return RunFolder(self.path).model


def read_training(path: Path) -> Training:
    """The training in a folder.

    Raises:
        RunError: a file in it cannot be read.
    """
    folder = RunFolder(path)
    run = html.read_json(folder.run)
    if not isinstance(run, dict):
        raise RunError(f"{folder.run} does not describe a run")
    objects = (run.pop(key, None) for key in (STARTED, "recipe"))
    started, recipe = (value if isinstance(value, dict) else {} for value in objects)
    log, evaluations = _read_log(folder), folder.read_evaluations()
    record, damage = _record(folder)
    file = folder.evaluation
    evaluation = html.parsed(Evaluation, html.read_json(file), file) if file.exists() else None
    missing = "" if evaluation else _how_to_evaluate(folder, run)
    return Training(
        path=path,
        settings=run,
        recipe=recipe,
        started=started,
        log=log,
        evaluations=tuple(line for line in evaluations if html.number_of(line["iteration"]) is not None),
        evaluation=evaluation,
        record=record,
        notes=tuple(filter(None, (_progress(log, started, record, damage), damage, missing))),
    )


def _read_log(folder: RunFolder) -> tuple[Mapping[str, float], ...]:
    rows = folder.read_log() if folder.log.exists() else []
    try:
        log = [{key: float(row[key]) for key in LOG_COLUMNS} for row in rows]
    except ValueError as error:
        raise RunError(f"{folder.log} cannot be read: {error}; mend or delete that line") from None
    return tuple(row for row in log if row["iteration"] < html.GREATEST)


def _record(folder: RunFolder) -> tuple[Mapping[str, Any], str]:
    """The record of the finished model, and what is wrong with it."""
    if not folder.model.exists():
        return {}, ""
    try:
        return read_record(folder.model).model_dump(mode="json"), ""
    except LpsnetError as error:
        return {}, f"The model's record is not shown: {error}"


def _how_to_evaluate(folder: RunFolder, run: Mapping[str, Any]) -> str:
    """What a run that kept no evaluation in full needs for its confusion matrix and images."""
    if not folder.model.exists() or not folder.evaluations.exists() or run.get("task") == "classification":
        return ""
    words = ("evaluate", "--model", folder.model, "--data", run.get("data", "DATA"), "--json", folder.evaluation)
    command = shlex.join(["lpsnet", *map(str, words)])
    return f"For the confusion matrix and images, evaluate the model first: {command}"


def _progress(
    log: Sequence[Mapping[str, float]], started: Mapping[str, Any], record: Mapping[str, Any], damage: str
) -> str:
    """The progress of an unfinished run, in a sentence; empty once it is finished, as its model's record says."""
    if damage or "finished" in record.get("training", {}):
        return ""
    if not log:
        return "This run has not come to its first iterations yet."
    done, wanted = int(log[-1]["iteration"]), started.get("num_iterations")
    text = f"This run is not finished: {done:,} iterations are done"
    return f"{text} of {wanted:,}, {max(wanted - done, 0):,} are left." if isinstance(wanted, int) else f"{text}."


CHART_HEIGHTS = (300.0, 250.0)  # pixels, wide and narrow

# key of evaluations.jsonl -> name, in percent
_SCORES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "boundary_miou": "boundary mIoU",
    "top1": "top-1 accuracy",
    "top5": "top-5 accuracy",
}
_MAIN = {"miou": "mIoU", "top1": "Top-1 accuracy"}  # those that count


def training_page(path: Path, images: ImageOptions) -> html.Page:
    """The page of a run's folder.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    run = read_training(path)
    gallery, without = None, ""
    if run.evaluation is not None:
        gallery, without = gallery_of(run.evaluation, replace(images, model=images.model or str(run.model)))
    network = run.settings.get("architecture") or f"network {run.settings.get('network', '?')}"
    names = [html.text_of(it) for it in (network, run.recipe.get("name", "?"))]
    return html.Page(
        kind="Pre-training" if run.settings.get("task") == "classification" else "Training",
        title=path.resolve().name,
        lead=f"{names[0]}, recipe {names[1]}, on {html.text_of(run.settings.get('data', '?'))}",
        tiles=_tiles(run),
        notes=tuple(filter(None, (*run.notes, without))),
        sections=(
            html.Section("Curves", _curves(run.log, run.evaluations)),
            *(score_sections(run.evaluation) if run.evaluation is not None else (_scores(run.evaluations),)),
            image_section(gallery),
            html.Section("How it was made", _making(run)),
        ),
    )


def _tiles(run: Training) -> tuple[html.Tile, ...]:
    last = run.evaluations[-1] if run.evaluations else {}
    scores = [(name, html.number_of(last.get(key))) for key, name in _MAIN.items()]
    tiles = [html.Tile(name, html.figure(value, 2), "%") for name, value in scores if value is not None]
    if run.log:
        speeds = sorted(row["pictures_per_second"] for row in run.log)
        tiles += [
            html.Tile("Last loss", f"{run.log[-1]['loss']:.4g}"),
            html.Tile("Iterations", f"{int(run.log[-1]['iteration']):,}"),
            html.Tile("Speed, median", html.figure(speeds[len(speeds) // 2]), "images/s"),
        ]
    images = run.record.get("training", {}).get("num_pictures", run.started.get("num_pictures"))
    return (*tiles, *([html.Tile("Images", f"{images:,}")] if isinstance(images, int) else []))


def _curves(log: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, Any]]) -> tuple[html.Part, ...]:
    """Loss, score, learning rate and speed over the iterations."""
    columns = {"loss": "loss", "learning_rate": "learning rate", "pictures_per_second": "images per second"}
    loss, rate, speed = (_curve(log, *column) for column in columns.items())
    scores = [curve for column in _SCORES.items() if len((curve := _curve(evaluations, *column)).xs) > 1]
    charts = (
        _chart("Loss", [loss], y_name="loss"),
        _chart("Scores on val", scores, y_name="%", top=100.0) if scores else None,
        _chart("Learning rate", [rate], y_name="per step", zero=True),
        _chart("Speed", [speed], y_name="images a second", zero=True),
    )
    return tuple(chart for chart in charts if chart is not None)


def _curve(rows: Sequence[Mapping[str, Any]], key: str, name: str) -> Curve:
    """A column of the rows; those whose value is no number, as an f16 run has them, are left out."""
    known = [(row["iteration"], y) for row in rows if (y := html.number_of(row.get(key))) is not None]
    return Curve(name, [x for x, _ in known], [y for _, y in known])


def _chart(
    title: str, curves: Sequence[Curve], *, y_name: str, zero: bool = False, top: float | None = None
) -> html.Chart | None:
    """A chart of the curves; None where there is nothing to draw."""
    if not any(len(curve.xs) > 1 for curve in curves):
        return None
    names = {"label": f"{title} over iterations", "x_name": "iteration", "y_name": y_name}
    axes: dict[str, Any] = {**names, "with_zero": zero, "top": top}
    return html.Chart.of(lambda it: draw_curves(curves, Size.of(it, CHART_HEIGHTS), **axes), title=title, half=True)


def _scores(evaluations: Sequence[Mapping[str, Any]]) -> html.Section:
    """IoU by class, where only the log is there."""
    ious = evaluations[-1].get("ious") if evaluations else None
    if not isinstance(ious, dict):
        return html.Section("By class", ())
    known = {str(name): html.number_of(iou) for name, iou in ious.items()}
    rows = tuple(
        (name, html.Cell(html.figure(iou), bar=min(abs(iou or 0.0) / 100, 1.0))) for name, iou in known.items()
    )
    return html.Section("By class", (html.Table(("Class", "IoU (%)"), rows),))


def _making(run: Training) -> tuple[html.Part, ...]:
    """Command, settings, recipe and record."""
    record = {**run.started, **run.record.get("training", {})}
    facts = {key: it for key, it in record.items() if key not in {*run.settings, "recipe", "command"}}
    model = known([("terms", run.record.get("licence")), ("form", run.record.get("form"))])
    titled = {"Run": html.flat(run.settings), "Recipe": html.flat(run.recipe), "Record": (*html.flat(facts), *model)}
    return html.making(html.text_of(record.get("command") or ""), titled)

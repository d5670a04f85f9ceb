"""A training read back from its folder, while it goes on, too."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lpsnet.errors import LpsnetError, RunError
from lpsnet.inference.model_file import read_record
from lpsnet.reporting.evaluation_file import EvaluationFile
from lpsnet.reporting.reading import GREATEST, number_of, read_json
from lpsnet.training.run_folder import LOG_COLUMNS, STARTED, RunFolder


@dataclass(frozen=True, slots=True)
class Training:
    """A run as far as it has come.

    Attributes:
        path: its folder.
        settings, recipe: what it was started with, as JSON values.
        started: what was known at its start: the command, how many iterations there will be.
        log: a row an iteration, by `LOG_COLUMNS`; what is no number is infinite or nan.
        evaluations: a line an evaluation, the iteration among its values.
        evaluation: the last one in full; None if there is none.
        record: of the finished model, as JSON values; empty while there is none.
        notes: what a reader must know first, sentences.
    """

    path: Path
    settings: Mapping[str, Any]
    recipe: Mapping[str, Any]
    started: Mapping[str, Any]
    log: tuple[Mapping[str, float], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    evaluation: EvaluationFile | None
    record: Mapping[str, Any]
    notes: tuple[str, ...]

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
    run = read_json(folder.run)
    if not isinstance(run, dict):
        raise RunError(f"{folder.run} does not describe a run")
    started, recipe = (_object(run.pop(key, None)) for key in (STARTED, "recipe"))
    log, evaluations = _read_log(folder), folder.read_evaluations()
    record, damage = _record(folder)
    evaluation = EvaluationFile.read(folder.evaluation) if folder.evaluation.exists() else None
    missing = "" if evaluation else _how_to_evaluate(folder, run)
    return Training(
        path=path,
        settings=run,
        recipe=recipe,
        started=started,
        log=log,
        evaluations=tuple(line for line in evaluations if number_of(line["iteration"]) is not None),
        evaluation=evaluation,
        record=record,
        notes=tuple(filter(None, (_progress(folder, log, started), damage, missing))),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _read_log(folder: RunFolder) -> tuple[Mapping[str, float], ...]:
    rows = folder.read_log() if folder.log.exists() else []
    try:
        log = [{key: float(row[key]) for key in LOG_COLUMNS} for row in rows]
    except ValueError as error:
        raise RunError(f"{folder.log} cannot be read: {error}; mend or delete that line") from None
    return tuple(row for row in log if row["iteration"] < GREATEST)


def _record(folder: RunFolder) -> tuple[Mapping[str, Any], str]:
    """The record of the finished model, and what is wrong with it."""
    if not folder.model.exists():
        return {}, ""
    try:
        return read_record(folder.model).model_dump(mode="json"), ""
    except LpsnetError as error:
        return {}, f"The model's record is not shown: {error}"


def _how_to_evaluate(folder: RunFolder, run: Mapping[str, Any]) -> str:
    """What a run that kept no evaluation in full needs for its confusion matrix and pictures."""
    if not folder.model.exists() or not folder.evaluations.exists() or run.get("task") == "classification":
        return ""
    words = ("evaluate", "--model", folder.model, "--data", run.get("data", "DATA"), "--json", folder.evaluation)
    command = shlex.join(["lpsnet", *map(str, words)])
    return f"For the confusion matrix and pictures, evaluate the model first: {command}"


def _progress(folder: RunFolder, log: tuple[Mapping[str, float], ...], started: Mapping[str, Any]) -> str:
    """Where a run stands that is not done, in a sentence; empty once it is."""
    if folder.model.exists():
        return ""
    if not log:
        return "This run has not come to its first iterations yet."
    done, wanted = int(log[-1]["iteration"]), started.get("num_iterations")
    text = f"This run is not finished: {done:,} iterations are done"
    return f"{text} of {wanted:,}, {max(wanted - done, 0):,} are left." if isinstance(wanted, int) else f"{text}."

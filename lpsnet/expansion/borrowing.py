"""Trainings taken over from runs on other machines: weights and scores do not depend on where they were made.

Latencies do, so a journal is never gone on with on another machine. But a run there can be given the folder of one
here: where its search comes to a candidate that was trained with the very same settings, from the very same weights, it
takes the score and a copy of the weights, and its journal says where they are from. What is the same is the recipe,
data and seeds, not every digit: arithmetic such as bf16 differs in the last digits between processors, as it does
between two trainings of which one was cut off.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import JsonValue

from lpsnet.errors import RunError
from lpsnet.expansion.events import Header, TrainingFinished, course_fields
from lpsnet.expansion.journal import Journal, differences, read_journal
from lpsnet.expansion.measurements import Course
from lpsnet.expansion.operations import Design
from lpsnet.expansion.replay import TrainingResult, chosen_length, first_training
from lpsnet.io import atomic_path, inside

TAKEN_FROM = "taken_from"  # in a training's details: the run it was taken over from


class OtherRun:
    """A run whose trainings may be taken over.

    Args:
        folder: of the run.
        settings: of the run that takes them; all but the device must be the same.
        defaults: see `open_journal`.

    Raises:
        RunError: there is no journal, or it was made with other settings.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, JsonValue], defaults: Mapping[str, JsonValue] | None = None
    ) -> None:
        path = folder / "journal.jsonl"
        header, *lines = read_journal(path)
        assert isinstance(header, Header), "a journal begins with its header"
        if changes := differences(_portable(header.settings), _portable(settings), defaults or {}):
            raise RunError(f"trainings of {path} cannot be taken over: {changes}")
        self._lines = lines
        self.folder, self.name = folder, f"{_machine(header.settings)}, begun {header.at}"
        self._inherits = bool(settings.get("inherit"))
        self._trainings: dict[tuple[JsonValue, ...], TrainingFinished] = {}
        for it in lines:
            if isinstance(it, TrainingFinished):  # the first counts, as in `Journal`
                self._trainings.setdefault((it.design, it.parent, it.seed, it.length), it)

    def find(self, design: Design, course: Course, *, own: Journal) -> TrainingResult | None:
        """The training of `design`, if it is here with its weights and started from weights that `own` has too."""
        line = self._trainings.get((str(design), *course_fields(course).values()))
        if line is None or line.miou is None or not self.weights(line).is_file():
            return None
        if self._inherits and course.parent is not None and not self._gave(course.parent, own):
            return None
        return TrainingResult(design, line.outcome, {**line.details, TAKEN_FROM: self.name})

    def weights(self, line: TrainingFinished) -> Path:
        """The file of a training's weights."""
        return inside(self.folder, line.details.get("model", ""))

    def _gave(self, parent: Design, own: Journal) -> bool:
        """Whether the weights of `parent` in the journal `own` are those of this run, and the ones chosen in both."""
        length = chosen_length(own.events, parent)
        line = first_training(own.events, parent, length)
        taken = line is not None and line.details.get(TAKEN_FROM) == self.name
        return taken and chosen_length(self._lines, parent) == length


def take_over(
    runs: Sequence[OtherRun], design: Design, course: Course, *, own: Journal, out: Path
) -> TrainingResult | None:
    """The training of a design from the first run that has it, its weights copied into `out`; None if none has."""
    for run in runs:
        if (found := run.find(design, course, own=own)) is not None:
            source, target = (inside(folder, found.details["model"]) for folder in (run.folder, out))
            with atomic_path(target) as temporary:
                shutil.copyfile(source, temporary)
            return found
    return None


def _portable(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {key: value for key, value in settings.items() if key != "device"}


def _machine(settings: Mapping[str, JsonValue]) -> str:
    device = settings.get("device")
    return str(device.get("machine", "unknown")) if isinstance(device, dict) else "unknown"

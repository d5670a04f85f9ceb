"""The folder of a run: its settings, logs, evaluations and model; the settings decide whether it may resume."""

import csv
import json
import logging
import math
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.errors import DivergedError, RunError
from lpsnet.inference.hub import recorded_name
from lpsnet.io import append_line, atomic_path, finished_lines, refuse_streams, write_text

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.tensorboard import SummaryWriter

    from lpsnet.training.data import Details, Score


LOG_COLUMNS = ("iteration", "loss", "learning_rate", "pictures_per_second")

_NUMBER = re.compile("[0-9]{1,18}")

_log = logging.getLogger(__name__)
_LENGTHS = {"recipe.epochs", "recipe.iterations", "recipe.minutes"}  # a resumed run may have another
# Settings of a recipe that change how fast a run goes and not what comes out of it; a resumed run may change them.
FREE_SETTINGS = ("num_workers", "cache_mib", "evaluate_every")
STARTED = "started"  # key of `run.json` for facts of the start, which are no settings
INPUTS = "inputs"  # key, here and in a journal's header, of the digests of data and weights; see `Task.inputs`


def refuse_images(folder: Path) -> None:
    """Raise if a folder that is to be a run's holds images.

    What a run leaves would lie among them, and folders of runs are passed over where labelled images are looked for.

    Raises:
        RunError: it does.
    """
    found = (
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES) if folder.is_dir() else iter(())
    )
    if image := min(found, default=None):
        raise RunError(f"{folder} holds images, such as {image.name}; give a folder of its own")


class RunFolder:
    """The files of a run in `path`.

    `run.json` holds the settings and makes the folder a run; `state.safetensors` is the last checkpoint;
    `log.csv` has a line an iteration; `evaluations.jsonl` a line an evaluation; `evaluation.json` is the last in full;
    `model.safetensors` is the result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run, self.evaluation = path / "run.json", path / "evaluation.json"
        self.log, self.evaluations = path / "log.csv", path / "evaluations.jsonl"
        self.state, self.model = path / "state.safetensors", path / "model.safetensors"

    def check(self, settings: Mapping[str, Any], *, defaults: Mapping[str, Any], resume: bool) -> None:
        """Check that a run with `settings` may begin or resume here.

        Args:
            settings: of the run, as JSON values; the recipe's are under `recipe`.
            defaults: of the recipe's settings; a run started before a setting existed has its default.
            resume: whether it may resume.

        Raises:
            RunError: the folder holds a run and `resume` was not asked for, or the run in it has other settings.
        """
        if not self.run.exists():
            return
        if not resume:
            raise RunError(f"{self.path} already holds a run; resume it with --resume, or choose another folder")
        held, wanted = ({**_flat({"recipe": defaults}), **_flat(it)} for it in (self._read_settings(), settings))
        differing = [key for key in {**wanted, **held} if held.get(key) != wanted.get(key)]
        if differing and set(differing) <= _LENGTHS:
            self._announce_length(held, wanted)
        elif differing:
            key = next(key for key in differing if key not in _LENGTHS)
            raise RunError(
                f"the run in {self.path} has {key} = {held.get(key)}, not {wanted.get(key)}; "
                "resume it with the settings it was started with, or choose another folder"
            )

    def _announce_length(self, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        lengths = {key: key.removeprefix("recipe.") for key in sorted(_LENGTHS)}
        then, now = (
            " ".join(f"{it[key]:g} {name}" for key, name in lengths.items() if it.get(key) is not None)
            for it in (held, wanted)
        )
        _log.info(f"{now} instead of {then}: the learning rate follows the new schedule from here")

    def check_inputs(self, inputs: Mapping[str, str]) -> None:
        """Raise unless the run that is here, if there is one, learns from the same; see `Task.inputs`.

        Raises:
            RunError: it does not. Digests that a run of an earlier version does not have are assumed equal.
        """
        held = self.started().get(INPUTS)
        held = held if isinstance(held, dict) else {}
        if changed := [key for key in inputs if held.get(key, inputs[key]) != inputs[key]]:
            then, now = (_short(values[changed[0]]) for values in (held, inputs))
            raise RunError(
                f"the run in {self.path} was started on other data or weights: {changed[0]}: {then} then, {now} now; "
                "put back what was there, or choose another folder"
            )

    def begin(self, settings: Mapping[str, Any], started: Mapping[str, Any] | None = None) -> None:
        """Make this the folder of a run with `settings` and facts of its start; a run here gets their length."""
        content = {**settings, **({STARTED: dict(started)} if started else {})}
        if self.run.exists():
            held = self._read_settings()
            if all(_flat(held).get(key) == _flat(settings).get(key) for key in _LENGTHS):
                return
            content = {**held, "recipe": settings["recipe"]}
        write_text(self.run, json.dumps(content, indent=2) + "\n")

    def forget(self) -> None:
        """Make this no run's folder again, if not one iteration was made in it: the corrected run may begin here."""
        if not self.state.exists() and not (self.log.exists() and self.read_log()):
            for file in (self.run, self.log, self.evaluations):
                file.unlink(missing_ok=True)

    def started(self) -> dict[str, Any]:
        """The facts of the start, `STARTED`; empty where there are none, as in runs of older versions."""
        facts = self._read_settings().get(STARTED) if self.run.exists() else None
        return facts if isinstance(facts, dict) else {}

    def _read_settings(self) -> dict[str, Any]:
        try:
            refuse_streams(self.run)
            held = json.loads(self.run.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"{self.run} cannot be read: {error}") from None
        if not isinstance(held, dict):
            raise RunError(f"{self.run} does not describe a run")
        return held

    def rewind_logs(self, iteration: int, *, num_iterations: int) -> None:
        """Drop log lines after the checkpoint: those steps run again and are logged again.

        The evaluation after the last of `num_iterations` steps always does.
        """
        if self.log.exists():
            rows = [row for row in self.read_log() if int(row["iteration"]) <= iteration]
            with atomic_path(self.log) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, LOG_COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
        if self.evaluations.exists():
            kept = [line for line in self.read_evaluations() if line["iteration"] <= min(iteration, num_iterations - 1)]
            write_text(self.evaluations, "".join(json.dumps(line) + "\n" for line in kept))

    def append_log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add lines to `log.csv`."""
        new = not self.log.exists()
        with self.log.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            if new:
                writer.writeheader()
            writer.writerows(rows)

    def append_evaluation(self, line: Mapping[str, Any]) -> None:
        """Add a line to `evaluations.jsonl`."""
        append_line(self.evaluations, json.dumps(line))

    def read_log(self) -> list[dict[str, str]]:
        """The whole lines of `log.csv`; a last one cut off by a crash is left out.

        Raises:
            RunError: a line that is not the last is no line of this log.
        """
        with self.log.open(newline="", encoding="utf-8", errors="replace") as file:
            try:
                rows = list(csv.DictReader(file))
            except csv.Error as error:
                raise RunError(f"{self.log} cannot be read: {error}; mend it or move it away") from None
        whole = [row for row in rows if all(row.get(column) for column in LOG_COLUMNS) and len(row) == len(LOG_COLUMNS)]
        if bad := [row["iteration"] for row in whole if not _NUMBER.fullmatch(row["iteration"])]:
            raise RunError(f"{self.log} has the iteration {bad[0]!r}; mend or delete that line, and start again")
        return whole

    def read_evaluations(self) -> list[dict[str, Any]]:
        """The whole lines of `evaluations.jsonl`; a last one cut off by a crash is left out.

        Raises:
            RunError: a line that is not the last is no line of this log.
        """
        if not self.evaluations.exists():
            return []
        lines = finished_lines(self.evaluations.read_bytes())
        return [_evaluation(line, f"{self.evaluations}, line {number}") for number, line in enumerate(lines, start=1)]


def _evaluation(line: bytes, where: str) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or not isinstance(values.get("iteration"), int):
        raise RunError(f"{where} is no evaluation; mend or delete that line, and start again")
    return values


def _short(text: object) -> str:
    shown = str(text)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """One level: the recipe's settings beside the run's; those that are free are left out."""
    recipe = settings.get("recipe")
    recipe = recipe if isinstance(recipe, dict) else {}
    flat = {key: value for key, value in settings.items() if key not in ("recipe", STARTED)}
    flat |= {f"recipe.{key}": value for key, value in recipe.items() if key not in FREE_SETTINGS}
    if isinstance(init := flat.get("init"), str):
        flat["init"] = recorded_name(init)  # earlier versions have the file's path
    return {key: json.loads(json.dumps(value)) for key, value in flat.items()}


FLUSH_ITERATIONS = 20


class Step(NamedTuple):
    """An optimiser step that is done; `iteration` counts from 1, the rate is that since the last checkpoint."""

    iteration: int
    loss: float
    learning_rate: float
    pictures_per_second: float


class Steps:
    """Steps with losses that were not read back from the device yet.

    A loss is read when the step after it is on its way, so that a GPU is never waited for; at checkpoints all are.
    """

    def __init__(self, *, batch_size: int) -> None:
        self._batch_size = batch_size
        self._pending: list[tuple[int, Tensor, float, float]] = []
        self.restart()

    def restart(self) -> None:
        """Measure the rate from now on."""
        self._count, self._start = 0, time.monotonic()

    @property
    def has_unread(self) -> bool:
        """Whether there are steps that `read` has not given."""
        return bool(self._pending)

    @property
    def seconds(self) -> float:
        """Since the last start."""
        return time.monotonic() - self._start

    def add(self, iteration: int, loss: "Tensor", learning_rate: float) -> None:
        """Take note of a step; `loss` is a scalar on any device."""
        self._count += 1
        rate = self._count * self._batch_size / max(self.seconds, 1e-9)
        self._pending.append((iteration, loss, learning_rate, rate))

    def read(self, *, everything: bool) -> list[Step]:
        """The steps that are done, in their order; all but the last unless `everything`.

        Raises:
            DivergedError: a loss is not finite. In f16 too: a gradient that overflows skips a step, a loss that does
                was computed from features that did, and batch norms keep their mean.
        """
        number = len(self._pending) if everything else max(0, len(self._pending) - 1)
        ready, self._pending = self._pending[:number], self._pending[number:]
        steps = [Step(iteration, loss.item(), *rest) for iteration, loss, *rest in ready]
        for step in steps:
            if not math.isfinite(step.loss):
                raise diverged(step.iteration, step.learning_rate)
        return steps


def diverged(iteration: int, learning_rate: float, *, what: str = "the loss is no longer finite") -> DivergedError:
    """The error for a training that has left the finite numbers."""
    return DivergedError(
        f"{what} at iteration {iteration}; try a lower learning rate than {learning_rate:.3g} (--set learning_rate=…)"
    )


class RunLog:
    """The logs of a run; one process writes them.

    Args:
        folder: of the run.
        tensorboard: write curves for TensorBoard too. Its package is loaded when the first are written.
    """

    def __init__(self, folder: RunFolder, *, tensorboard: bool) -> None:
        self._folder = folder
        self._tensorboard = tensorboard
        self._writer: SummaryWriter | None = None
        self._unwritten: list[Step] = []

    def add(self, steps: Iterable[Step], *, flush: bool) -> None:
        """Take note of steps; written now and then, and with `flush`."""
        self._unwritten += steps
        if not flush and len(self._unwritten) < FLUSH_ITERATIONS:
            return
        self._folder.append_log(_row(step) for step in self._unwritten)
        for step in self._unwritten:
            self._draw({f"train/{name}": value for name, value in zip(LOG_COLUMNS[1:], step[1:], strict=True)}, step[0])
        self._unwritten = []

    def add_score(self, score: "Score[Details]", iteration: int) -> None:
        """Take note of an evaluation after `iteration` steps."""
        self._folder.append_evaluation({"iteration": iteration, **score.figures})
        self._draw({f"val/{name}": value for name, value in score.curves.items()}, iteration)

    def close(self) -> None:
        """Write what is left."""
        self.add((), flush=True)
        if self._writer is not None:
            self._writer.close()

    def _draw(self, curves: Mapping[str, float], iteration: int) -> None:
        if not self._tensorboard:
            return
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._folder.path / "tensorboard")
        for name, value in curves.items():
            self._writer.add_scalar(name, value, iteration)


def _row(step: Step) -> dict[str, object]:
    values = (step.iteration, f"{step.loss:.8g}", f"{step.learning_rate:.8g}", f"{step.pictures_per_second:.2f}")
    return dict(zip(LOG_COLUMNS, values, strict=True))

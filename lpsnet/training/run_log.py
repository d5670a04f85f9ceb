"""What a run writes down while it goes on: its folder's logs, and the same curves for TensorBoard."""

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from lpsnet.errors import DivergedError
from lpsnet.training.run_folder import LOG_COLUMNS, RunFolder
from lpsnet.training.task import Details, Score

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


FLUSH_ITERATIONS = 20


class Step(NamedTuple):
    """An optimiser step that is done; `iteration` counts from 1, the rate is that since the last checkpoint."""

    iteration: int
    loss: float
    learning_rate: float
    pictures_per_second: float


class Steps:
    """Steps whose losses were not looked at yet.

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
    def seconds(self) -> float:
        """Since the last start."""
        return time.monotonic() - self._start

    def add(self, iteration: int, loss: Tensor, learning_rate: float) -> None:
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
        return [self._step(*entry) for entry in ready]

    def _step(self, iteration: int, loss: Tensor, learning_rate: float, rate: float) -> Step:
        step = Step(iteration, loss.item(), learning_rate, rate)
        if not abs(step.loss) < float("inf"):
            raise diverged(iteration, learning_rate)
        return step


def diverged(iteration: int, learning_rate: float) -> DivergedError:
    """What is said of a training that leads nowhere."""
    return DivergedError(
        f"the loss is no longer finite at iteration {iteration}; "
        f"try a lower learning rate than {learning_rate:.3g} (--set learning_rate=…)"
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
            curves = dict(zip(LOG_COLUMNS[1:], step[1:], strict=True))
            self._draw({f"train/{name}": value for name, value in curves.items()}, step.iteration)
        self._unwritten = []

    def add_score(self, score: Score[Details], iteration: int) -> None:
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

"""How far a run is: by its optimiser steps, or by the clock."""

import sys
import time

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from lpsnet.training.config import LoopSettings
from lpsnet.training.run import TrainingState

NUM_PARTS = 8  # of a run by the clock, with an evaluation after each …
EVALUATION_SHARE = 0.06  # … unless evaluations take more than this share of the time


class Length:
    """The length of a run and how much of it is done.

    A run of so many minutes counts the time that its earlier processes took up to their last checkpoints. All processes
    follow the first one's clock.
    """

    def __init__(self, recipe: LoopSettings, num_images: int, state: TrainingState, accelerator: Accelerator) -> None:
        self._state, self._accelerator = state, accelerator
        self._seconds = 60 * recipe.minutes if recipe.minutes else None
        self._steps = None if recipe.minutes else recipe.num_iterations(num_images)
        self._since, self._before = time.monotonic(), state.seconds
        self._evaluated = 0.0 if self._steps is not None else self.done()
        self._shortest = 1 / NUM_PARTS

    @property
    def end(self) -> int:
        """No step has this number, counted from 0, or a larger one."""
        return sys.maxsize if self._steps is None else self._steps

    @property
    def num_iterations(self) -> int | None:
        """Steps of the whole run; None where the clock decides."""
        return self._steps

    @property
    def seconds(self) -> float:
        """That the run has taken, in all its processes one after the other."""
        return self._before + time.monotonic() - self._since

    def done(self) -> float:
        """The share of the run that is done, 0 to 1."""
        if self._steps is not None:
            return self._state.iteration / self._steps
        assert self._seconds is not None
        share = min(1.0, self.seconds / self._seconds)
        if self._accelerator.num_processes == 1:
            return share
        return float(broadcast(torch.tensor([share], device=self._accelerator.device)))

    def evaluation_is_due(self) -> bool:
        """Whether a part of a run by the clock has passed since the last evaluation, and one is left."""
        done = self.done()
        return self._evaluated + self._shortest <= done <= 1 - self._shortest / 2

    def evaluation_took(self, seconds: float) -> None:
        """Take note of an evaluation, so that the next comes when it is worth its time."""
        if self._seconds is not None:
            self._evaluated = self.done()
            self._shortest = max(1 / NUM_PARTS, seconds / self._seconds / EVALUATION_SHARE)

    def expected_iterations(self) -> int:
        """Steps of the whole run, by the pace so far where the clock decides."""
        done, iteration = self.done(), self._state.iteration
        return self._steps or max(iteration, round(iteration / done) if done else 0)

"""The checkpoint of a run in progress: weights, momentum, moving average and iteration in one safetensors file.

Order and augmentation of the samples and the learning rate follow from the iteration (`data.py`,
`LoopSettings.learning_rate_at`), so nothing else is kept. The file is written atomically.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lpsnet.errors import RunError
from lpsnet.io import atomic_path

_KEY = "lpsnet_training_state"

_Lists = tuple[list[Tensor], list[Tensor]]  # an average's tensors, and a network's


@dataclass
class MovingAverage:
    """An exponential moving average of a network's weights and statistics.

    Attributes:
        decay: what an average keeps of itself in a step, once the run is long enough.
        values: name -> averaged tensor; integers (batch counters) are copied.
    """

    decay: float
    values: dict[str, Tensor]
    _collected: tuple[_Lists, _Lists] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, network: nn.Module, decay: float) -> "MovingAverage":
        """An average that starts at the network's values."""
        return cls(decay, {name: value.detach().clone() for name, value in network.state_dict().items()})

    @torch.no_grad()
    def update(self, network: nn.Module, iteration: int) -> None:
        """Take in the network after step `iteration` (from 0); early steps weigh more, against a start-up bias."""
        decay = min(self.decay, (1 + iteration) / (10 + iteration))
        averaged, counted = self._lists(network)
        torch._foreach_lerp_(*averaged, 1 - decay)
        if counted[0]:
            torch._foreach_copy_(*counted)

    def _lists(self, network: nn.Module) -> tuple[_Lists, _Lists]:
        """Tensors to average and tensors to copy, the average's and the network's; collected once: it takes long."""
        if self._collected is None:
            pairs = [(self.values[name], value) for name, value in network.state_dict().items()]
            floats = [pair for pair in pairs if pair[1].is_floating_point()]
            others = [pair for pair in pairs if not pair[1].is_floating_point()]
            self._collected = _unzipped(floats), _unzipped(others)
        return self._collected


def _unzipped(pairs: list[tuple[Tensor, Tensor]]) -> _Lists:
    return [mine for mine, _ in pairs], [value for _, value in pairs]


@dataclass
class TrainingState:
    """The parts of a run that change in every step.

    Attributes:
        network: the network in training form, not wrapped for several processes.
        optimiser: its optimiser, with momentum.
        average: the moving average of the network, or None.
        scaler: of the loss, for fp16.
        iteration: finished optimiser steps.
    """

    network: nn.Module
    optimiser: torch.optim.SGD
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    iteration: int = 0

    def save(self, path: Path) -> None:
        """Write the state atomically: after this call, or a crash in it, `path` holds a whole state.

        Raises:
            RunError: it cannot be written.
        """
        tensors = {name: value.contiguous() for name, value in self._tensors().items()}
        header = {"iteration": self.iteration, "scaler": self.scaler.state_dict()}
        with atomic_path(path) as temporary:
            try:
                save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
            except SafetensorError as error:  # such as a full disk
                raise RunError(f"cannot write {path}: {error}; make room and resume with --resume") from None

    def restore(self, path: Path) -> None:
        """Take over a state that `save` wrote for the same network and recipe.

        Raises:
            RunError: the file is no such state.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = _header((file.metadata() or {})[_KEY])
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 — not a dictionary
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise RunError(f"{path} is not a training state that can be resumed: {error}") from None
        self._create_momentum({name for name in saved if name.startswith("momentum.")})
        current = self._tensors()
        if differing := sorted(current.keys() ^ saved.keys()):
            raise RunError(f"{path} belongs to another network or recipe: {differing[0]} is in only one of them")
        with torch.no_grad():
            for name, value in current.items():
                if (value.shape, value.dtype) != (saved[name].shape, saved[name].dtype):
                    found = f"{str(saved[name].dtype).removeprefix('torch.')} {tuple(saved[name].shape)}"
                    raise RunError(f"{path} belongs to another network: {name} is {found} there")
                value.copy_(saved[name])
        try:
            self.scaler.load_state_dict(header["scaler"])
        except (KeyError, TypeError, RuntimeError) as error:
            raise RunError(f"{path} is not a training state that can be resumed: {error}") from None
        self.iteration = header["iteration"]

    def _create_momentum(self, names: set[str]) -> None:
        """Give the parameters that have momentum in the file a buffer to copy it into."""
        for name, parameter in self.network.named_parameters():
            if f"momentum.{name}" in names:
                self.optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors.update({f"average.{name}": value for name, value in self.average.values.items()})
        for name, parameter in self.network.named_parameters():
            state: dict[str, Any] = self.optimiser.state.get(parameter, {})
            if (momentum := state.get("momentum_buffer")) is not None:
                tensors[f"momentum.{name}"] = momentum
        return tensors


def _header(text: str) -> dict[str, Any]:
    """What stands beside the tensors; ValueError if it is not what `save` writes."""
    header = json.loads(text)
    if not isinstance(header, dict) or not isinstance(header.get("scaler"), dict):
        raise ValueError("its header is not one of a training")
    if not isinstance(header.get("iteration"), int) or header["iteration"] < 0:
        raise ValueError("its header names no iteration")
    return header

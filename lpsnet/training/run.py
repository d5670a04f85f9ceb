"""A training run: what is trained on what, its progress, its result, its checkpoint and the facts in its record.

A checkpoint holds weights, momentum, moving average and iteration in one safetensors file. Order and augmentation of
the samples and the learning rate follow from the iteration (`data.py`, `LoopSettings.learning_rate_at`).
"""

import json
import platform
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import lpsnet
from lpsnet.architecture import Architecture
from lpsnet.benchmark.machine import command_line, describe_machine
from lpsnet.data.channels import RGB, Channels
from lpsnet.data.dataset import Dataset, data_contents
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.inference.hub import bundled_name, recorded_name, sha256
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path
from lpsnet.models.any_network import unshared
from lpsnet.models.checkpoint import Initialisation
from lpsnet.plugins import find_network
from lpsnet.training.config import Recipe


@dataclass(frozen=True)
class TrainingRun:
    """What is trained on what.

    Attributes:
        data: the data set, as `open_dataset` takes it.
        architecture: the network's triple; None for a network of other code.
        recipe: how it is trained.
        split: the training images, e.g. "train" or "train+val".
        block, interaction: of the network.
        network: code of a network to train in place of an architecture, as `load_network` takes it; "" for none.
        init: a checkpoint to start from; the network takes the weights with the same names and shapes.
        encoder: whose ImageNet weights every path starts with, a name for `encoders.find_encoder`; "" for none.
        teacher: a checkpoint, as for `load_checkpoint`, whose logits the network learns from besides the labels; its
            classes are those of the data, and maybe more.
        unlabelled: a folder of images that take part in every batch and are learnt from the teacher alone.
        input_size: (height, width) the model is meant to run at; None takes the most common size of training images.
    """

    data: str
    architecture: Architecture | None
    recipe: Recipe
    split: str = "train"
    block: str = "conv3x3"
    interaction: str = "bilateral_b"
    init: Path | None = None
    encoder: str = ""
    input_size: tuple[int, int] | None = None
    network: str = ""
    teacher: Path | None = None
    unlabelled: Path | None = None

    def __post_init__(self) -> None:
        if (self.architecture is None) != bool(self.network):
            raise RunError("a training has either an architecture or a network of other code")
        if self.network and self.encoder:
            raise RunError("--encoder gives weights to paths of this package's networks; --network brings its own")
        if self.network and self.recipe.form != "plain":  # it has no parallel branches of ours
            object.__setattr__(self, "recipe", self.recipe.with_overrides({"form": "plain"}))
        if self.network and self.recipe.aux_weight:
            raise RunError("aux_weight adds a head to networks of this package; leave it out with --network")
        if self.unlabelled is not None and self.teacher is None:
            raise RunError("images without labels are learnt from a teacher: give --unlabelled with --teacher")
        for key, option in _SETTINGS_OF.items():
            if getattr(self, option) is None and getattr(self.recipe, key) != self.recipe.defaults()[key]:
                raise RunError(f"the recipe setting {key} has an effect with --{option} alone; give both or neither")

    @property
    def given_channels(self) -> Channels:
        """Those of the weights that the network starts from; RGB without any."""
        return read_record(self.init).image_channels if self.init is not None else RGB

    def settings(self, folder: Path | None = None) -> dict[str, Any]:
        """The run as JSON values; weights that lie in the run's `folder` are named relative to it."""
        built = {"architecture": str(self.architecture), "block": self.block, "interaction": self.interaction}
        return {
            "data": self.data,
            "split": self.split,
            **({"network": find_network(self.network).name} if self.network else built),
            "init": None if self.init is None else _named(self.init, folder),
            "input_size": None if self.input_size is None else list(self.input_size),
            "recipe": self.recipe.model_dump(mode="json"),
            **({"encoder": self.encoder} if self.encoder else {}),  # runs of earlier versions have no such key …
            **({"teacher": _named(self.teacher, folder)} if self.teacher else {}),  # … nor these
            **({"unlabelled": str(self.unlabelled)} if self.unlabelled else {}),
        }


_SETTINGS_OF = {"teacher_weight": "teacher", "teacher_temperature": "teacher", "unlabelled_share": "unlabelled"}


def _named(weights: Path, folder: Path | None) -> str:
    """How a run in `folder` names weights: by their path, which starts there if they lie in it."""
    if folder is not None and weights.resolve().parent == folder.resolve():
        return weights.name
    return recorded_name(weights)


@dataclass(frozen=True)
class Status:
    """Where a run stands after an iteration.

    Attributes:
        iteration, num_iterations: finished optimiser steps, and all of them.
        loss, learning_rate: of this step.
        pictures_per_second: since the last checkpoint or start, all processes together.
        message: such as an evaluation's score; usually empty.
    """

    iteration: int
    num_iterations: int
    loss: float
    learning_rate: float
    pictures_per_second: float
    message: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """What a finished run leaves.

    Attributes:
        model: the checkpoint with its record.
        evaluation: of the model on the validation split; None if there is none, or if it was trained on.
    """

    model: Path
    evaluation: Evaluation | None


def versions() -> Mapping[str, str]:
    """Versions of the packages that take part in a training."""
    packages = {module.__name__: module.__version__ for module in (torch, accelerate, np)}
    return {"lpsnet": lpsnet.__version__, "python": platform.python_version(), **packages}


def version_changes(started: Mapping[str, Any]) -> str:
    """A warning if a resumed run was started with other versions than those here; "" if with the same.

    Args:
        started: the facts of its start, see `RunFolder.started`.
    """
    before = started.get("versions")
    before = before if isinstance(before, Mapping) else {}
    changed = [f"{name} {before[name]} then, {it} now" for name, it in versions().items() if before.get(name, it) != it]
    warning = f"warning: this run was started with other versions, so its result may differ: {'; '.join(changed)}"
    return warning if changed else ""


def circumstances() -> dict[str, Any]:
    """Machine, versions and command of this process, as JSON values."""
    return {"machine": describe_machine().identity, "versions": versions(), "command": command_line()}


def now() -> str:
    """UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def training_inputs(dataset: Dataset, init: Path | None, *splits: str) -> dict[str, str]:
    """The classes, the images of the splits and the weights of `--init`, each as a short text to compare.

    Raises:
        DataError: no such split.
    """
    # what comes with the package has checksums of its own, and one file where there were two in earlier versions
    weights = {} if init is None or bundled_name(init) else {"init": sha256(init)[:8]}
    return {**data_contents(dataset, *splits), **weights}


def describe_initialisation(initialisation: Initialisation, path: Path | str) -> str:
    """One line: how many tensors came from the checkpoint at `path`; which parts did not, and why.

    For example: 412 tensors taken from a.safetensors, skipped: head (another class count), path 2 (another shape: 6)
    """
    counts = Counter(_part(name, reason) for name, reason in initialisation.skipped.items())
    skipped = ", ".join(part if part.startswith("head") else f"{part[:-1]}: {count})" for part, count in counts.items())
    return f"{len(initialisation.taken)} tensors taken from {path}, skipped: {skipped or 'none'}"


def _part(name: str, reason: str) -> str:
    first, _, rest = name.partition(".")
    missing = reason.startswith("not")
    if first == "head" and not missing:
        # shapes are classes x channels x 1 x 1, or classes; see `checkpoint.initialise_from`
        there, here = (shape.split()[0].split("x") for shape in reason.split(", "))
        return "head (another class count)" if there[0] != here[0] else "head (another width or number of paths)"
    why = reason if missing else "another shape"
    part = f"path {int(rest.split('.')[0]) + 1}" if first == "paths" else first
    return f"{part} ({why})"


_KEY = "lpsnet_training_state"
# in a checkpoint -> in the optimiser's state: SGD has the first, AdamW the others
_SLOTS = {"momentum": "momentum_buffer", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq", "step": "step"}
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
        if self._collected is None:  # once: it takes long
            self._collected = self._lists(network, is_float=True), self._lists(network, is_float=False)
        averaged, counted = self._collected
        torch._foreach_lerp_(*averaged, 1 - decay)
        if counted[0]:
            torch._foreach_copy_(*counted)

    def _lists(self, network: nn.Module, *, is_float: bool) -> _Lists:
        tensors = {name: it for name, it in network.state_dict().items() if it.is_floating_point() == is_float}
        return [self.values[name] for name in tensors], [*tensors.values()]


@dataclass
class TrainingState:
    """The parts of a run that change in every step.

    Attributes:
        network: the network in training form, not wrapped for several processes.
        optimiser: its optimiser, SGD with momentum or AdamW.
        average: the moving average of the network, or None.
        scaler: of the loss, for fp16.
        iteration: finished optimiser steps.
        seconds: that the run had taken when it was last saved.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    average: MovingAverage | None
    scaler: torch.amp.GradScaler
    iteration: int = 0
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write the state atomically: after this call, or a crash in it, `path` holds a whole state.

        Raises:
            RunError: it cannot be written.
        """
        tensors = unshared(self._tensors())
        header = {"iteration": self.iteration, "seconds": self.seconds, "scaler": self.scaler.state_dict()}
        with atomic_path(path) as temporary:
            try:
                save_file(tensors, temporary, metadata={_KEY: json.dumps(header)})
            except SafetensorError as error:  # such as a full disk
                raise RunError(f"cannot write {path}: {error}; free some space and resume with --resume") from None

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
        for name, parameter in self.network.named_parameters():
            for prefix, slot in _SLOTS.items():
                if (value := saved.get(f"{prefix}.{name}")) is not None:
                    self.optimiser.state[parameter][slot] = torch.zeros_like(
                        value, device=_slot_device(slot, parameter)
                    )
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
        self.iteration, self.seconds = header["iteration"], float(header.get("seconds", 0.0))

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        if self.average is not None:
            tensors.update({f"average.{name}": value for name, value in self.average.values.items()})
        for name, parameter in self.network.named_parameters():
            held = self.optimiser.state.get(parameter, {})
            tensors |= {f"{prefix}.{name}": held[slot] for prefix, slot in _SLOTS.items() if held.get(slot) is not None}
        return tensors


def _slot_device(slot: str, parameter: Tensor) -> torch.device:
    return torch.device("cpu") if slot == "step" else parameter.device  # torch counts AdamW's steps on the CPU


def _header(text: str) -> dict[str, Any]:
    header = json.loads(text)
    if not isinstance(header, dict) or not isinstance(header.get("scaler"), dict):
        raise ValueError("its header is not one of a training")
    if not isinstance(header.get("iteration"), int) or header["iteration"] < 0:
        raise ValueError("its header names no iteration")
    return header

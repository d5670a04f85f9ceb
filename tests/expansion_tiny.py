"""A tiny expansion on generated scenes, for tests; as a program it can be killed: `expansion_tiny.py FOLDER STEPS`.

Latencies are replayed from a table; trainings are real. Everything is the same however often the program is killed.
"""

import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from pydantic import JsonValue

from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.journal import LatencyRepetition, TrainingResult, read_journal
from lpsnet.search.measure import TURN, Target
from lpsnet.search.measurements import Score
from lpsnet.search.operations import Design, Operation, SearchNetwork
from lpsnet.search.run import JOURNAL, ExpansionRun, run_expansion
from lpsnet.search.train import CandidateTask
from lpsnet.training.config import get_recipe

SIZE = (48, 64)
DATA = "scenes:size=48x64,num_train=12,num_val=3"
NUM_CLASSES = 8
RECIPE = get_recipe("demo").with_overrides(
    {"iterations": 24, "batch_size": 4, "crop_size": (48, 64), "precision": "f32", "num_workers": 1}
)
START = SearchNetwork((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), (1, 0, 0))
OPERATIONS = tuple(map(Operation.parse, ("depth=0,0,0,1,1", "width=0,0,0,4,4", "resolution=0,1/4,0")))
RUN = ExpansionRun(
    data=DATA,
    recipe=RECIPE,
    target=Target(SIZE, num_threads=1),
    start=START,
    operations=OPERATIONS,
    options=SearchOptions(num_steps=2, max_step_size=2),
)
REPETITIONS = (2, 3, 4, 5)
QUICK_TURN = replace(TURN, warm_up_s=0.002, turn_s=0.005)


class TableDevice:
    """A `Device` that replays times from a table, with noise that depends on the pass."""

    def __init__(self, folder: Path, *, machine: str = "a table") -> None:
        self._journal, self._machine = folder / JOURNAL, machine
        self.calls: list[str] = []

    def describe(self, design: Design) -> dict[str, JsonValue]:
        return {"engine": "a table", "machine": self._machine, "size": list(SIZE)}

    def measure_once(self, designs: Sequence[Design]) -> list[float]:
        self.calls.append("measure")
        names = tuple(map(str, designs))
        before = [it for it in read_journal(self._journal) if isinstance(it, LatencyRepetition) and it.designs == names]
        dice = random.Random(f"pass {len(before)} of {names}")
        slower = dice.uniform(1, 2)
        return [work(design) * slower * dice.uniform(0.99, 1.01) for design in designs]

    def release(self) -> None:
        self.calls.append("release")


def work(design: Design) -> float:
    """A made-up latency in ms."""
    architecture = design.architecture
    layers = sum(b * w for b, w in zip(architecture.blocks, architecture.widths, strict=True))
    return (10 + layers) / 10 * float(sum(ratio**2 for ratio in architecture.ratios))


def train_in_no_time(task: CandidateTask) -> TrainingResult:
    """Instead of `train_candidate`: a network with random weights, and a score from its size."""
    net = create_model(task.design.architecture, num_classes=NUM_CLASSES, block=task.design.block)
    task.folder.mkdir(parents=True, exist_ok=True)
    (task.folder / "state.safetensors").write_bytes(b"large")
    save_checkpoint(net, task.folder / "model.safetensors")
    details: dict[str, JsonValue] = {"model": f"candidates/{task.folder.name}/model.safetensors"}
    at_start = None if task.parent is None else 10.0
    return TrainingResult(task.design, Score(100 - 90 / work(task.design) ** 0.5, at_start=at_start), details)


def run_with_real_trainings(out: Path, *, num_steps: int) -> None:
    """All but the latencies is real."""
    run = replace(RUN, options=replace(RUN.options, num_steps=num_steps))
    run_expansion(run, out, device=TableDevice(out), repetitions=REPETITIONS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run_with_real_trainings(Path(sys.argv[1]), num_steps=int(sys.argv[2]))

"""A search of four steps whose latencies are real and whose trainings take a second of processor time, for
`test_far_search.py`: `far_search.py FOLDER` on the device itself."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from expansion_tiny import OPERATIONS, RUN, START, train_in_no_time

from lpsnet.benchmark.device import Device
from lpsnet.search.algorithm import SearchOptions
from lpsnet.search.journal import TrainingResult
from lpsnet.search.measure import Target
from lpsnet.search.measurements import Score
from lpsnet.search.run import run_expansion
from lpsnet.search.train import CandidateTask

SEARCH = replace(
    RUN,
    target=Target((192, 256), num_threads=1),
    start=START,
    operations=OPERATIONS,
    options=SearchOptions(num_steps=4, max_step_size=1),
)
SECONDS = 2.0  # of a training


def train(task: CandidateTask) -> TrainingResult:
    """Made-up scores: widths gain most for their time, then depths; and real work for a processor."""
    end, product = time.monotonic() + SECONDS, torch.rand(200, 200)
    while time.monotonic() < end:
        product = torch.nn.functional.normalize(product @ product)
    design = task.design.architecture
    found = train_in_no_time(task)
    miou = 20 + 1.5 * sum(design.widths) / 4 + 0.3 * sum(design.blocks) + 0.1 * float(sum(design.ratios))
    return replace(found, outcome=Score(miou, at_start=10.0), details={**found.details, "seconds": SECONDS})


def run(out: Path, place: Device | None) -> None:
    """The search; measured at `place`, or here."""
    torch.set_num_threads(1)
    run_expansion(SEARCH, out, place=place, train=train)


if __name__ == "__main__":
    run(Path(sys.argv[1]), None)

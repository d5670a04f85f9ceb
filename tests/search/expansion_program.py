"""A small search as a program of its own, for tests that kill it: `expansion_program.py FOLDER`.

Latencies come from a table with noise that depends on the pass, trainings take a few short epochs and keep a
checkpoint, as real ones do. Everything is the same however often the program is killed.
"""

import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.journal import (
    Journal,
    JournalledLatency,
    JournalledPerformance,
    TrainingResult,
    open_journal,
    record_start,
    record_step,
)
from lpsnet.search.measurements import Failure, Score, TrainingSpec
from lpsnet.search.operations import Design, Operation, SearchNetwork, table_1

NUM_EPOCHS = 3
REPETITIONS = (2, 4, 7, 9)
OPERATIONS = (*table_1()[1:8:2], Operation("resolution", (0, "1/8", 0)), Operation("resolution", (0, 0, "1/8")))


def main(folder: Path) -> None:
    settings = {"machine": {"cpu": "a table"}, "engine": "none"}
    with open_journal(folder / "journal.jsonl", settings=settings, lpsnet_version="0") as journal:
        expand(
            SearchNetwork.start("tiny"),
            operations=OPERATIONS,
            latency=JournalledLatency(journal, lambda designs: measured(designs, journal), repetitions=REPETITIONS),
            performance=JournalledPerformance(journal, lambda designs, spec: trained(designs, spec, folder)),
            options=SearchOptions(num_steps=4, max_step_size=4, patience=1),
            on_start=lambda member: record_start(journal, member),
            on_step=lambda step: record_step(journal, step),
        )


def measured(designs: Sequence[Design], journal: Journal) -> list[float]:
    number = len(journal.repetitions([str(design) for design in designs]))
    dice = random.Random(f"pass {number} of {[str(design) for design in designs]}")
    slower = dice.uniform(1, 2)
    time.sleep(0.001)
    return [_size(design) * slower * dice.uniform(0.98, 1.02) for design in designs]


def trained(designs: Sequence[Design], spec: TrainingSpec, folder: Path) -> Iterator[TrainingResult]:
    for design in designs:
        checkpoint = folder / f"{design.slug}.epoch"
        begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for epoch in range(begin, NUM_EPOCHS):
            time.sleep(0.001)
            temporary = checkpoint.with_suffix(".new")
            temporary.write_text(str(epoch + 1))
            temporary.replace(checkpoint)
        dice = random.Random(f"score of {design} from {spec.parent}")
        miou = 100 - 60 / _size(design) ** 0.5 + dice.uniform(-1, 1)
        failed = str(design).endswith("B=1,1,1,1,1;C=4,8,16,32,32;R=3/4")
        outcome = Failure("diverged") if failed else Score(miou, 0.01, dice.uniform(0, miou))
        yield TrainingResult(design, outcome, {"epochs": NUM_EPOCHS})


def _size(design: Design) -> float:
    architecture = design.architecture
    work = sum(b * w for b, w in zip(architecture.blocks, architecture.widths, strict=True))
    return work / 92 * float(sum(ratio**2 for ratio in architecture.ratios)) * 4


if __name__ == "__main__":
    main(Path(sys.argv[1]))

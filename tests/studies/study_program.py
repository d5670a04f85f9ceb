"""A study of two small trainings as a program that can be killed: `python study_program.py FOLDER`."""

import sys
from pathlib import Path
from typing import Any

from lpsnet.architecture import Architecture
from lpsnet.studies import network_training as seeds
from lpsnet.studies.network_latency import StudyNetwork
from lpsnet.studies.network_training import scores_of
from lpsnet.studies.running import run_study
from lpsnet.studies.study import Known, Outcome, Report, Run, Settings, Study
from lpsnet.training import loop

DATA = "scenes:size=48x64,num_train=6,num_val=2"
NETWORKS = [
    StudyNetwork("narrow", Architecture((1, 1, 1, 1, 1), (2, 2, 4, 4, 4), ("1",))),
    StudyNetwork("wide", Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))),
]
SETTINGS = Settings(data=(DATA,), epochs=40.0, num_seeds=2, num_threads=1)


def plan(settings: Settings, known: Known) -> list[Run]:
    return seeds.training_plan(NETWORKS, settings, known, paper=NETWORKS[0].name)


def report(outcomes: list[Outcome]) -> Report:
    rows = tuple({"name": network.name, "miou": scores_of(outcomes, network)} for network in NETWORKS)
    return Report(rows, ("Done.",), _draw)


def _draw(figure: Any) -> None:
    figure.subplots()


STUDY = Study(
    name="two",
    title="Two trainings",
    reference="Nowhere.",
    differences=(),
    plan=plan,
    report=report,  # type: ignore[arg-type]
    options=frozenset({"data", "epochs", "num_seeds", "num_threads"}),
)

if __name__ == "__main__":
    loop.EPOCH_CHECKPOINT_SECONDS = 0  # a checkpoint after every epoch, however short
    run_study(STUDY, SETTINGS, Path(sys.argv[1]))

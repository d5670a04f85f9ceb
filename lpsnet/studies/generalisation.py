"""Tables 6 and 7: LPS-Net-S, M and L on CamVid and BDD100K, each with the recipe for that data set.

Latencies at both sizes are always measured; networks are trained on those of the two data sets that are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.errors import RunError
from lpsnet.studies import network_latency, network_training, study
from lpsnet.studies.network_latency import StudyNetwork
from lpsnet.studies.published import OURS, TABLE_6, TABLE_7, Published
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of the paper.

    Attributes:
        title: of the data set.
        size: (height, width) of its images in pixels (Section 4.1), at which latencies are measured.
        num_classes: of its labels.
        recipe: at paper scale.
        published: the table's rows.
    """

    title: str
    size: tuple[int, int]
    num_classes: int
    recipe: str
    published: tuple[Published, ...]


# kind of data set, as in `--data KIND:PATH` -> its table
TABLES: dict[str, DataTable] = {
    "camvid": DataTable("CamVid", (720, 960), 11, "paper_camvid", TABLE_6),
    "bdd100k": DataTable("BDD100K", (720, 1280), 19, "paper_bdd100k", TABLE_7),
}
NETWORKS = [StudyNetwork(title, get_architecture(name)) for title, name in OURS.items()]


def plan(settings: Settings, known: Known) -> list[Run]:
    """Latencies at both sizes, then the trainings on the data given."""
    latencies = [
        network_latency.latency_run(NETWORKS, table.size, settings, num_classes=table.num_classes)
        for table in TABLES.values()
    ]
    trainings = []
    for data in settings.data:
        if (table := TABLES.get(data.partition(":")[0])) is None:
            raise RunError(f"this study trains on camvid:PATH and bdd100k:PATH; got {data!r}")
        schedule = network_training.schedule_of(settings, data, paper=table.recipe)
        for seed in range(settings.num_seeds or 1):
            trainings += [schedule.training(network, seed=seed) for network in NETWORKS]
    return [*latencies, *network_training.training_runs(trainings, known, settings.num_threads)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for every network on every data set."""
    timed, trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    rows, differences = [], [network_latency.describe_latency(timed[0])]
    for (kind, table), latencies in zip(TABLES.items(), timed, strict=True):
        own = [outcome for outcome in trained if outcome.key["trained"]["data"].partition(":")[0] == kind]
        rows += [_row(table, network, latencies, own) for network in NETWORKS]
        if own:
            differences.append(network_training.describe_training(own[0].key["trained"], paper=table.recipe))
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (10.5, 4.6), tuple(differences))


def _row(table: DataTable, network: StudyNetwork, timed: Outcome, trained: Sequence[Outcome]) -> Row:
    time = network_latency.first_times(timed).get(network.name)
    paper = next(row for row in table.published if row.method == network.name)
    return {
        "data": table.title,
        "network": network.name,
        "latency_size": "x".join(map(str, table.size)),
        **study.score_columns(network_training.scores_of(trained, network)),
        "median_ms": None if time is None else time.median_ms,
        "fps": None if time is None else 1000 / time.median_ms,
        "paper_miou": paper.miou_val if paper.miou_test is None else paper.miou_test,
        "paper_fps": paper.fps,
    }


def _findings(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = []
    for table in TABLES.values():
        own = [row for row in rows if row["data"] == table.title]
        scored = [row for row in own if row["miou"] is not None]
        if not scored:
            findings.append(f"{table.title}: not trained, no data was given or no training ended with a score.")
            continue
        order = " < ".join(row["network"] for row in sorted(scored, key=lambda row: row["miou"]))
        findings.append(f"{table.title}: {order} in mIoU (paper: LPS-Net-S < LPS-Net-M < LPS-Net-L).")
    return tuple(findings)


def _draw(rows: Sequence[Row], figure: Any) -> None:
    names = [f"{row['data']}, {row['network'].removeprefix('LPS-Net-')}" for row in rows]
    mious = [row["miou"] for row in rows], [row["paper_miou"] for row in rows]
    rates = [row["fps"] for row in rows], [row["paper_fps"] for row in rows]
    panels = ("mIoU (%)", *mious), ("images a second", *rates)
    study.draw_two(figure, names, *panels, title="Tables 6 and 7: other data sets")


STUDY = study.Study(
    name="generalisation",
    title="CamVid and BDD100K",
    reference="The paper's Tables 6 and 7: LPS-Net-S, M and L have 73.6, 75.1 and 76.5 mIoU on CamVid's test images "
    "and 55.9, 58.1 and 59.3 on BDD100K's validation images, on a GTX 1080 Ti with TensorRT.",
    differences=(
        "Scored on the split val of the data given; the paper scores CamVid on its test images.",
        "Networks start from random weights; the paper's start from ImageNet.",
    ),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "data", "num_seeds", "epochs"}),
)

"""Tables 6 and 7: LPS-Net-S, M and L on CamVid and BDD100K, each with the recipe for that data set.

Latencies at both sizes are measured in any case; networks are trained on those of the two data sets that are given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from lpsnet.architecture import get_architecture
from lpsnet.errors import RunError
from lpsnet.report.figures import add_legend, draw_beside
from lpsnet.studies.network_latency import StudyNetwork, by_name, describe_latency, latency_run, times_of
from lpsnet.studies.network_training import describe_training, pace_run, schedule_of, scores_of, training_run
from lpsnet.studies.published import OURS, TABLE_6, TABLE_7, Published
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings, Spread, Study, of_kind


@dataclass(frozen=True, slots=True)
class DataTable:
    """A table of the paper.

    Attributes:
        title: of its data set.
        size: (height, width) of its images (Section 4.1), at which latencies are measured.
        num_classes: of its labels.
        recipe: at paper scale.
        published: its rows.
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
    """Latencies at both sizes, then the trainings on what is given."""
    latencies = [
        latency_run(NETWORKS, table.size, settings, num_classes=table.num_classes) for table in TABLES.values()
    ]
    trainings = []
    for data in settings.data:
        schedule = schedule_of(settings, data, paper=TABLES[_kind(data)].recipe)
        for seed in range(settings.num_seeds or 1):
            trainings += [schedule.training(network, seed=seed) for network in NETWORKS]
    paces = {run.slug: run for run in (pace_run(each, num_threads=settings.num_threads) for each in trainings)}
    runs = (training_run(each, known, num_threads=settings.num_threads) for each in trainings)
    return [*latencies, *paces.values(), *runs]


def _kind(data: str) -> str:
    kind = data.partition(":")[0]
    if kind not in TABLES:
        raise RunError(f"this study trains on camvid:PATH and bdd100k:PATH; got {data!r}")
    return kind


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row for every network on every data set."""
    timed, trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    rows, differences = [], [describe_latency(timed[0])]
    for (kind, table), latencies in zip(TABLES.items(), timed, strict=True):
        own = [outcome for outcome in trained if outcome.key["trained"]["data"].partition(":")[0] == kind]
        rows += [_row(table, network, latencies, own) for network in NETWORKS]
        if own:
            differences.append(describe_training(own[0].key["trained"], paper=table.recipe))
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (10.5, 4.6), tuple(differences))


def _row(table: DataTable, network: StudyNetwork, timed: Outcome, trained: Sequence[Outcome]) -> Row:
    time = by_name(times_of(timed), timed.key["runtimes"][0]).get(network.name)
    scores = scores_of(trained, network)
    spread = Spread(tuple(scores)) if scores else None
    paper = next(row for row in table.published if row.method == network.name)
    return {
        "data": table.title,
        "network": network.name,
        "latency_size": "x".join(map(str, table.size)),
        "miou": None if spread is None else spread.mean,
        "miou_deviation": None if spread is None else spread.deviation,
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
    left, right = figure.subplots(1, 2)
    draw_beside(left, names, [r["miou"] for r in rows], [r["paper_miou"] for r in rows], label="mIoU (%)")
    draw_beside(
        right, names, [r["fps"] for r in rows], [r["paper_fps"] for r in rows], label="images a second"
    )  # fmt: skip
    right.tick_params(labelleft=False)
    add_legend(figure, left)
    figure.suptitle("Tables 6 and 7: other data sets", fontsize="medium")


STUDY = Study(
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

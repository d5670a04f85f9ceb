"""Table 3: networks with each of the six path interactions and with none, c=16, trained alike."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lpsnet.studies import network_training, study
from lpsnet.studies.network_latency import TABLE_3_C, StudyNetwork, Timed, first_times, table_2_architecture
from lpsnet.studies.published import TABLE_3
from lpsnet.studies.study import Known, Outcome, Report, Row, Run, Settings

BASELINE, BEST = "none", "bilateral_b"  # the paper: the latter gains most and costs least
NETWORKS: Mapping[str, StudyNetwork] = {
    name: StudyNetwork(row.title, table_2_architecture(TABLE_3_C), interaction=name) for name, row in TABLE_3.items()
}


def plan(settings: Settings, known: Known) -> list[Run]:
    """Latencies, then trainings."""
    networks = list(NETWORKS.values())
    trainings = network_training.training_plan(networks, settings, known, paper=TABLE_3[BEST].title)
    return [network_training.latencies(networks, settings), *trainings]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row an interaction."""
    (timed,), trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    times = first_times(timed)
    scores = {name: network_training.scores_of(trained, network) for name, network in NETWORKS.items()}
    rows = [_row(name, scores, times) for name in NETWORKS]
    titled = {TABLE_3[name].title: own for name, own in scores.items()}
    findings = study.describe_scores(rows, "interaction", titled, paper=TABLE_3[BEST].title, table="Table 3")
    costs = [row for row in rows if row["extra_percent"] is not None and row["interaction"] != TABLE_3[BASELINE].title]
    if costs:
        findings.append(_least(costs))
    differences = network_training.differences(timed, trained)
    return Report(tuple(rows), tuple(findings), partial(_draw, rows), (10.5, 4.6), differences)


def _row(name: str, scores: Mapping[str, Sequence[float]], times: Mapping[str, Timed]) -> Row:
    own, paper, base = study.score_columns(scores[name]), TABLE_3[name], TABLE_3[BASELINE]
    time, base_time = times.get(paper.title), times.get(base.title)
    share = None if time is None or base_time is None else time.over(base_time)
    known = scores[name] and scores[BASELINE]
    return {
        "interaction": paper.title,
        **own,
        "miou_by_seed": " ".join(f"{score:.2f}" for score in scores[name]),
        "gain": own["miou"] - study.score_columns(scores[BASELINE])["miou"] if known else None,
        "median_ms": None if time is None else time.median_ms,
        "extra_percent": None if share is None else 100 * (share.ratio - 1),
        "extra_low_percent": None if share is None else 100 * (share.interval[0] - 1),
        "extra_high_percent": None if share is None else 100 * (share.interval[1] - 1),
        "paper_miou": paper.miou,
        "paper_gain": paper.miou - base.miou,
        "paper_ms": paper.latency_ms,
        "paper_extra_percent": 100 * paper.extra_ms / base.latency_ms,
    }


def _least(costs: Sequence[Row]) -> str:
    least = min(costs, key=lambda row: row["extra_percent"])
    agrees = "as in" if least["interaction"] == TABLE_3[BEST].title else "unlike in"
    return (
        f"{least['interaction']} costs least, {agrees} the paper: {least['extra_percent']:.1f} % over the network "
        f"without interaction, {least['extra_low_percent']:.1f} to {least['extra_high_percent']:.1f} % (Table 3: "
        f"{TABLE_3[BEST].title}, {100 * TABLE_3[BEST].extra_ms / TABLE_3[BASELINE].latency_ms:.1f} %)."
    )


def _draw(rows: Sequence[Row], figure: Any) -> None:
    names = [row["interaction"] for row in rows]
    gains = [row["gain"] for row in rows], [row["paper_gain"] for row in rows]
    costs = [row["extra_percent"] for row in rows], [row["paper_extra_percent"] for row in rows]
    panels = ("mIoU gained over no interaction (points)", *gains), ("latency added (%)", *costs)
    study.draw_two(figure, names, *panels, title="Table 3: path interactions, c=16")


STUDY = study.Study(
    name="interactions",
    title="Path interactions",
    reference="The paper's Table 3: Bilateral-B gains most, 3.0 points of mIoU over no interaction, and costs least, "
    "0.29 ms of 5.68 on a GTX 1070 Ti.",
    differences=(),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)

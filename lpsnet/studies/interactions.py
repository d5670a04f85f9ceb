"""Table 3: networks with each of the six path interactions and with none, c=16, trained alike."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from lpsnet.data.dataset import open_dataset
from lpsnet.report.figures import add_legend, draw_beside
from lpsnet.studies.network_latency import (
    TABLE_3_C,
    StudyNetwork,
    Timed,
    by_name,
    describe_latency,
    latency_run,
    table_2_architecture,
    times_of,
)
from lpsnet.studies.network_training import data_of, describe_training, latency_size, scores_of, training_plan
from lpsnet.studies.published import TABLE_3
from lpsnet.studies.study import (
    Known,
    Outcome,
    Report,
    Row,
    Run,
    Settings,
    Spread,
    Study,
    describe_best,
    of_kind,
    rank_correlation,
)

BASELINE, BEST = "none", "bilateral_b"  # the paper's principle is that the latter gives the most for the least
NETWORKS: Mapping[str, StudyNetwork] = {
    name: StudyNetwork(row.title, table_2_architecture(TABLE_3_C), interaction=name) for name, row in TABLE_3.items()
}


def plan(settings: Settings, known: Known) -> list[Run]:
    """Latencies in turn, then trainings."""
    data = data_of(settings)
    num_classes = open_dataset(data).label_space.num_classes
    networks = list(NETWORKS.values())
    latencies = latency_run(networks, latency_size(settings, data), settings, num_classes=num_classes)
    return [latencies, *training_plan(networks, settings, known, paper=TABLE_3[BEST].title)]


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row an interaction."""
    (timed,), trained = of_kind(outcomes, "timed"), of_kind(outcomes, "trained")
    runtime = timed.key["runtimes"][0]
    times = by_name(times_of(timed), runtime)
    spreads = {name: _spread(scores_of(trained, network)) for name, network in NETWORKS.items()}
    rows = [_row(name, spreads, times) for name in NETWORKS]
    differences = (describe_training(trained[0].key["trained"]), describe_latency(timed))
    return Report(tuple(rows), _findings(rows, spreads), partial(_draw, rows), (10.5, 4.6), differences)


def _spread(scores: Sequence[float]) -> Spread | None:
    return Spread(tuple(scores)) if scores else None


def _row(name: str, spreads: Mapping[str, Spread | None], times: Mapping[str, Timed]) -> Row:
    spread, paper, base = spreads[name], TABLE_3[name], TABLE_3[BASELINE]
    time, base_time = times.get(paper.title), times.get(base.title)
    share = None if time is None or base_time is None else time.over(base_time)
    baseline = spreads[BASELINE]
    return {
        "interaction": paper.title,
        "miou": None if spread is None else spread.mean,
        "miou_deviation": None if spread is None else spread.deviation,
        "miou_by_seed": "" if spread is None else " ".join(f"{score:.2f}" for score in spread.scores),
        "gain": None if spread is None or baseline is None else spread.mean - baseline.mean,
        "median_ms": None if time is None else time.median_ms,
        "extra_percent": None if share is None else 100 * (share.ratio - 1),
        "extra_low_percent": None if share is None else 100 * (share.interval[0] - 1),
        "extra_high_percent": None if share is None else 100 * (share.interval[1] - 1),
        "paper_miou": paper.miou,
        "paper_gain": paper.miou - base.miou,
        "paper_ms": paper.latency_ms,
        "paper_extra_percent": 100 * paper.extra_ms / base.latency_ms,
    }


def _findings(rows: Sequence[Row], spreads: Mapping[str, Spread | None]) -> tuple[str, ...]:
    findings = []
    scored = [row for row in rows if row["miou"] is not None]
    if len(scored) < len(rows):
        failed = [str(row["interaction"]) for row in rows if row["miou"] is None]
        findings.append(f"No score, as the training diverged: {', '.join(failed)}.")
    if len(scored) > 1:
        titled = {TABLE_3[name].title: spread for name, spread in spreads.items() if spread is not None}
        findings.append(describe_best(titled, paper=TABLE_3[BEST].title))
        correlation = rank_correlation([row["miou"] for row in scored], [row["paper_miou"] for row in scored])
        if correlation is not None:
            findings.append(f"Rank correlation of mIoU with Table 3: {correlation:.2f}.")
    costs = [row for row in rows if row["extra_percent"] is not None and row["interaction"] != TABLE_3[BASELINE].title]
    if costs:
        findings.append(_least(costs))
    return tuple(findings)


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
    left, right = figure.subplots(1, 2)
    gains = [row["gain"] for row in rows], [row["paper_gain"] for row in rows]
    draw_beside(left, names, *gains, label="mIoU gained over no interaction (points)")
    costs = [row["extra_percent"] for row in rows], [row["paper_extra_percent"] for row in rows]
    draw_beside(right, names, *costs, label="latency added (%)")
    right.tick_params(labelleft=False)
    add_legend(figure, left)
    figure.suptitle("Table 3: path interactions, c=16", fontsize="medium")


STUDY = Study(
    name="interactions",
    title="Path interactions",
    reference="The paper's Table 3: Bilateral-B gains most, 3.0 points of mIoU over no interaction, and costs least, "
    "0.29 ms of 5.68 on a GTX 1070 Ti.",
    differences=(),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)

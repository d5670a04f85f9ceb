"""Tables 2 and 3: networks with seven convolutional blocks and with seven path interactions, trained alike.

Table 2: every block gets the whole width factor c at which its network takes as long on this device as that of plain
3x3 convolutions with the paper's MACs. Latency grows with c in steps and under noise, so c is first bracketed by
doubling and halving, and then the values in and next to the bracket are measured for longer. As a check of the blocks,
the c whose MACs come nearest to Table 2's is counted too. Table 3: interactions at c=16.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.models.blocks import BLOCKS
from lpsnet.models.profile import complexity
from lpsnet.search.measure import Deployment, Target
from lpsnet.search.measurements import compared
from lpsnet.search.operations import Design
from lpsnet.studies import network_latency, network_training, study
from lpsnet.studies.comparison import TABLE_2, TABLE_3
from lpsnet.studies.network_latency import PAPER_SIZE, StudyNetwork, Timed, first_times, table_2_architecture
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings

Point = tuple[str, int]  # block, c
Pass = Callable[[Sequence[Point]], Sequence[float]]  # measures every network once; their times in ms

MAX_C = 64
TOLERANCE = 0.10  # of Table 2's figures, which have two or three digits
SEARCH_PASSES, FINAL_PASSES = 5, 15
MAX_EQUAL_C = 128
MAX_ROUNDS = 32  # of the search; doubling and halving within `MAX_C` takes less than half as many
MAX_APART = 0.1  # of the reference's time; a finding names networks that differ by more
MAX_OPEN = 40  # networks kept open while c is chosen: all of a pass
REFERENCE: Point = ("conv3x3", BLOCKS["conv3x3"].table_2_c)  # the network whose latency the others get


def paper_blocks() -> list[str]:
    """The blocks of Table 2, in the order of `BLOCKS`, which may contain others from plugins."""
    return [block for block in BLOCKS if block in TABLE_2]


def gmacs(block: str, c: int, size: tuple[int, int] = PAPER_SIZE, num_classes: int = 19) -> float:
    """10^9 multiply-accumulates of Table 2's network of a block, without interaction."""
    architecture = table_2_architecture(c)
    return complexity(architecture, size=size, num_classes=num_classes, block=block, interaction="none").macs / 1e9


def nearest_c(block: str) -> tuple[int, float]:
    """The whole c whose MACs at 1024x2048 come nearest to Table 2's, and those MACs in 10^9."""
    target, count = BLOCKS[block].table_2_gmacs, partial(gmacs, block)
    above = bisect_left(range(1, MAX_C + 1), target, key=count) + 1
    nearest = min((c for c in (above - 1, above) if c >= 1), key=lambda c: abs(count(c) - target))
    return nearest, count(nearest)


def macs_run() -> Run:
    """A run that finds `nearest_c` of all blocks: `c` and `gmacs` by block."""
    blocks = paper_blocks()

    def work(place: Place) -> dict[str, Json]:
        found = {}
        for number, block in enumerate(blocks):
            place.on_progress(f"counting {block}", number / len(blocks))
            c, count = nearest_c(block)
            found[block] = {"c": c, "gmacs": count}
        return found

    return Run({"counted": "table 2", "blocks": blocks}, work, portable=True, seconds=5.0)


@dataclass(frozen=True, slots=True)
class Choice:
    """The width factor c of a block; its network's time over the reference's, with the 95 % interval."""

    c: int
    ratio: float
    low: float
    high: float


@dataclass(slots=True)
class _Bracket:
    start: int  # the first c to try
    fast: int = 0  # the widest that is not slower than the reference; 0 for none
    slow: int | None = None  # the narrowest that is slower

    @property
    def is_closed(self) -> bool:
        return self.fast >= MAX_EQUAL_C or (self.slow is not None and self.slow - self.fast <= 1)

    def next_c(self) -> int:
        if self.slow is None:
            return min(MAX_EQUAL_C, 2 * self.fast or self.start)
        return max(1, (self.fast + self.slow) // 2)

    def narrow(self, c: int, ratio: float) -> None:
        if ratio > 1:
            self.slow = c if self.slow is None else min(self.slow, c)
        else:
            self.fast = max(self.fast, c)

    def ends(self) -> list[int]:
        """The values in and next to the closed bracket."""
        around = range(self.fast - 1, (self.slow or self.fast) + 2)
        return [c for c in around if 1 <= c <= MAX_EQUAL_C]


def widths_of_same_latency(
    starts: Mapping[str, int], reference: Point, *, measure_once: Pass, on_progress: Callable[[float], None]
) -> dict[str, Choice]:
    """The c of every block.

    Args:
        starts: the first c to try, by block.
        reference: the network whose latency the others get.
        measure_once: see `Pass`.
        on_progress: called with the part done, 0 to 1.

    Raises:
        RunError: the times are so inconsistent that no bracket closes.
    """
    brackets = {block: _Bracket(start) for block, start in starts.items()}
    for number in range(MAX_ROUNDS):
        open_ = {block: bracket.next_c() for block, bracket in brackets.items() if not bracket.is_closed}
        if not open_:
            break
        on_progress(number / (number + 8))
        for (block, c), ratio in _ratios(reference, list(open_.items()), measure_once, SEARCH_PASSES).items():
            brackets[block].narrow(c, ratio.ratio)
    else:
        raise RunError("latencies contradict each other too much to choose c; measure on a quieter machine")
    on_progress(0.7)
    ends = [(block, c) for block, bracket in brackets.items() for c in bracket.ends()]
    found = _ratios(reference, ends, measure_once, FINAL_PASSES)
    own = {block: [choice for (name, _), choice in found.items() if name == block] for block in starts}
    return {block: min(choices, key=lambda choice: abs(choice.ratio - 1)) for block, choices in own.items()}


def _ratios(reference: Point, points: Sequence[Point], measure_once: Pass, num_repetitions: int) -> dict[Point, Choice]:
    others = [point for point in points if point != reference]
    repetitions = [measure_once([reference, *others]) for _ in range(num_repetitions)]
    unit, *times = compared(repetitions)
    found = {
        point: Choice(point[1], *(value / unit.median_ms for value in (time.median_ms, time.low_ms, time.high_ms)))
        for point, time in zip(others, times, strict=True)
    }
    return found | {point: Choice(point[1], 1.0, 1.0, 1.0) for point in points if point == reference}


def plan_blocks(settings: Settings, known: Known) -> list[Run]:
    """The count of MACs, the choice of c, latencies, trainings."""
    data = network_training.data_of(settings)
    size, num_classes = network_training.latency_size(settings, data), open_dataset(data).label_space.num_classes
    begin = [macs_run(), choice_run(settings, size, num_classes)]
    chosen = known(begin[-1])
    if chosen is None:
        return begin
    networks = [_network(block, choice["c"]) for block, choice in chosen.items()]
    trainings = network_training.training_plan(networks, settings, known, paper=BLOCKS[REFERENCE[0]].title)
    return [*begin, network_training.latencies(networks, settings), *trainings]


def choice_run(settings: Settings, size: tuple[int, int], num_classes: int) -> Run:
    """A run that chooses c for every block on this device, with the first engine: a `Choice` by block."""
    target = Target(size, settings.runtimes[0], settings.precision, settings.num_threads)
    key = {"chosen": "c", "reference": list(REFERENCE), "num_classes": num_classes, "target": asdict(target)}

    def work(place: Place) -> dict[str, Json]:
        machine = Deployment(target, place.folder, num_classes=num_classes, interaction="none", max_open=MAX_OPEN)

        def measure_once(points: Sequence[Point]) -> Sequence[float]:
            return machine.measure_once([Design(table_2_architecture(c), block) for block, c in points])

        try:
            found = widths_of_same_latency(
                {block: BLOCKS[block].table_2_c for block in paper_blocks()},
                REFERENCE,
                measure_once=measure_once,
                on_progress=lambda part: place.on_progress("choosing c for every block", part),
            )
        finally:
            machine.clear()
        return {block: asdict(choice) for block, choice in found.items()}

    return Run(key, work)


def _network(block: str, c: int) -> StudyNetwork:
    return StudyNetwork(BLOCKS[block].title, table_2_architecture(c), block, "none")


def report_blocks(outcomes: Sequence[Outcome]) -> Report:
    """A row a block."""
    counted, chosen, timed = (study.of_kind(outcomes, kind)[0] for kind in ("counted", "chosen", "timed"))
    trained, times = study.of_kind(outcomes, "trained"), first_times(timed)
    rows = [
        _blocks_row(block, choice, times.get(BLOCKS[block].title), trained, timed, counted.result[block])
        for block, choice in chosen.result.items()
    ]
    differences = network_training.differences(timed, trained)
    return Report(tuple(rows), _blocks_findings(rows), partial(_draw_blocks, rows), (10.5, 4.6), differences)


def _blocks_row(
    block: str,
    choice: Mapping[str, Json],
    time: Timed | None,
    trained: Sequence[Outcome],
    timed: Outcome,
    counted: Mapping[str, Json],
) -> Row:
    scores = network_training.scores_of(trained, _network(block, choice["c"]))
    count = gmacs(block, choice["c"], tuple(timed.key["size"]), timed.key["num_classes"])
    paper, row = TABLE_2[block], BLOCKS[block]
    return {
        "block": row.title,
        "c": choice["c"],
        "times_reference": choice["ratio"],
        **study.score_columns(scores),
        "miou_by_seed": " ".join(f"{score:.2f}" for score in scores),
        **network_latency.time_columns(time),
        "gmacs": count,
        "gmacs_per_ms": None if time is None else count / time.median_ms,
        "paper_miou": paper.miou,
        "paper_ms": paper.latency_ms,
        "paper_gmacs": row.table_2_gmacs,
        "paper_gmacs_per_ms": paper.gmacs_per_ms,
        "c_of_paper_gmacs": counted["c"],
        "gmacs_at_that_c": counted["gmacs"],
        "off_percent": 100 * (counted["gmacs"] / row.table_2_gmacs - 1),
    }


def _blocks_findings(rows: Sequence[Row]) -> tuple[str, ...]:
    apart = [row for row in rows if abs(row["times_reference"] - 1) > MAX_APART]
    unequal = [
        f"Not at one latency: {row['block']} at c={row['c']} took {row['times_reference']:.2f} times the reference "
        "when c was chosen; no whole c is nearer, or the machine was too busy: then try another folder."
        for row in apart
    ]
    scores = {str(row["block"]): _scores(row) for row in rows}
    options = {"paper": BLOCKS["conv3x3"].title, "table": "Table 2", "lead": "At one latency "}
    return (_check(rows), *unequal, *study.describe_scores(rows, "block", scores, **options))


def _check(rows: Sequence[Row]) -> str:
    worst = max(abs(row["off_percent"]) for row in rows)
    each = ", ".join(
        f"{row['block']} c={row['c_of_paper_gmacs']} {row['gmacs_at_that_c']:.2f} of {row['paper_gmacs']:g} G"
        for row in rows
    )
    verdict = "all within" if worst <= 100 * TOLERANCE else "NOT all within"
    return f"Check of the blocks, whole c with MACs nearest to Table 2's at 1024x2048: {each}; {verdict} 10 %."


def _scores(row: Row) -> list[float]:
    return [float(score) for score in row["miou_by_seed"].split()]


def _draw_blocks(rows: Sequence[Row], figure: Any) -> None:
    names = [row["block"] for row in rows]
    seeds = [_scores(row) if row["miou_deviation"] is not None else [] for row in rows]
    # Rates relative to the first block: those of a GPU and of a processor differ by orders of magnitude
    rates, first = ("gmacs_per_ms", "paper_gmacs_per_ms"), rows[0]
    relative = [
        {**row, **{name: row[name] and first[name] and 100 * row[name] / first[name] for name in rates}} for row in rows
    ]
    panels = ("mIoU (%)", "miou", "paper_miou"), (f"MACs per ms, of those of {names[0]} (%)", *rates)
    study.draw_two(figure, relative, names, *panels, title="Table 2: seven blocks at one latency", seeds=seeds)


CONV_BLOCKS = study.Study(
    name="conv-blocks",
    title="Seven convolutional blocks at one latency",
    reference="The paper's Table 2: at about 5 ms on a GTX 1070 Ti plain 3x3 convolutions have the highest mIoU, 66.2.",
    differences=(
        (
            "c is chosen on this device, so that every network takes as long as that of 3x3 convolutions with c=14; "
            "the paper chose it on its GPU and does not name it."
        ),
    ),
    plan=plan_blocks,
    report=report_blocks,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)


BASELINE, BEST = "none", "bilateral_b"  # the paper: the latter gains most and costs least
NETWORKS: Mapping[str, StudyNetwork] = {
    name: StudyNetwork(row.title, table_2_architecture(network_latency.TABLE_3_C), interaction=name)
    for name, row in TABLE_3.items()
}


def plan_interactions(settings: Settings, known: Known) -> list[Run]:
    """Latencies, then trainings."""
    networks = list(NETWORKS.values())
    trainings = network_training.training_plan(networks, settings, known, paper=TABLE_3[BEST].title)
    return [network_training.latencies(networks, settings), *trainings]


def report_interactions(outcomes: Sequence[Outcome]) -> Report:
    """A row an interaction."""
    (timed,), trained = study.of_kind(outcomes, "timed"), study.of_kind(outcomes, "trained")
    times = first_times(timed)
    scores = {name: network_training.scores_of(trained, network) for name, network in NETWORKS.items()}
    rows = [_interactions_row(name, scores, times) for name in NETWORKS]
    titled = {TABLE_3[name].title: own for name, own in scores.items()}
    findings = study.describe_scores(rows, "interaction", titled, paper=TABLE_3[BEST].title, table="Table 3")
    costs = [row for row in rows if row["extra_percent"] is not None and row["interaction"] != TABLE_3[BASELINE].title]
    if costs:
        findings.append(_least(costs))
    differences = network_training.differences(timed, trained)
    return Report(tuple(rows), tuple(findings), partial(_draw_interactions, rows), (10.5, 4.6), differences)


def _interactions_row(name: str, scores: Mapping[str, Sequence[float]], times: Mapping[str, Timed]) -> Row:
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


def _draw_interactions(rows: Sequence[Row], figure: Any) -> None:
    names = [row["interaction"] for row in rows]
    gains = ("mIoU gained over no interaction (points)", "gain", "paper_gain")
    costs = ("latency added (%)", "extra_percent", "paper_extra_percent")
    study.draw_two(figure, rows, names, gains, costs, title="Table 3: path interactions, c=16")


INTERACTIONS = study.Study(
    name="interactions",
    title="Path interactions",
    reference="The paper's Table 3: Bilateral-B gains most, 3.0 points of mIoU over no interaction, and costs least, "
    "0.29 ms of 5.68 on a GTX 1070 Ti.",
    differences=(),
    plan=plan_interactions,
    report=report_interactions,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)

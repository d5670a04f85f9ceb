"""The check of the seven blocks: the whole c at which the network of Table 2 has Table 2's multiply-accumulates.

Table 2's c: for every block the whole width factor at which its network is as fast as one reference on this device.

Latency grows with c, but in steps and under noise. So a bracket is found by doubling and halving, all blocks in turn
and each time compared with the reference of the same pass; then the whole c in and next to each bracket are measured
for longer, and the nearest is taken.

Table 2: networks of seven convolutional blocks that are equally fast on this device, trained alike.

Every block gets the width factor c at which its network takes as long as the one of plain 3x3 convolutions of the
paper's MACs. Beside it stands the check of the blocks: the c whose MACs come nearest to Table 2's.
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
from lpsnet.report.figures import add_legend, draw_beside
from lpsnet.search.measure import Target, ThisMachine
from lpsnet.search.measurements import compared
from lpsnet.search.operations import Design
from lpsnet.studies.network_latency import (
    StudyNetwork,
    Timed,
    by_name,
    describe_latency,
    latency_run,
    table_2_architecture,
    times_of,
)
from lpsnet.studies.network_training import data_of, describe_training, latency_size, scores_of, training_plan
from lpsnet.studies.published import TABLE_2
from lpsnet.studies.study import (
    Json,
    Known,
    Outcome,
    Place,
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

MAX_C = 64
TOLERANCE = 0.10  # of Table 2's figures, which have two or three digits


def paper_blocks() -> list[str]:
    """Those of Table 2, in the order of `BLOCKS`, which a plugin may have added others to."""
    return [block for block in BLOCKS if block in TABLE_2]


def gmacs(block: str, c: int, size: tuple[int, int] = (1024, 2048), num_classes: int = 19) -> float:
    """10^9 multiply-accumulates of Table 2's network of a block, without interaction."""
    network = complexity(
        table_2_architecture(c), size=size, num_classes=num_classes, block=block, interaction="none"
    )  # fmt: skip
    return network.macs / 1e9


def nearest_c(block: str) -> tuple[int, float]:
    """The whole c whose MACs at 1024x2048 come nearest to Table 2's, and those MACs in 10^9.

    They grow with c, so that two neighbours are looked at.
    """
    target, count = BLOCKS[block].table_2_gmacs, partial(gmacs, block)
    above = bisect_left(range(1, MAX_C + 1), target, key=count) + 1
    nearest = min((c for c in (above - 1, above) if c >= 1), key=lambda c: abs(count(c) - target))
    return nearest, count(nearest)


def macs_run() -> Run:
    """A run that finds them for all blocks: `c` and `gmacs` by block."""

    blocks = paper_blocks()

    def work(place: Place) -> dict[str, Json]:
        found = {}
        for number, block in enumerate(blocks):
            place.progress(f"counting {block}", number / len(blocks))
            c, count = nearest_c(block)
            found[block] = {"c": c, "gmacs": count}
        return found

    return Run({"counted": "table 2", "blocks": blocks}, work, portable=True, seconds=5.0)


Point = tuple[str, int]  # block, c
Pass = Callable[[Sequence[Point]], Sequence[float]]  # the time of every network in ms, each measured once, in turn

SEARCH_PASSES, FINAL_PASSES = 5, 15
MAX_EQUAL_C = 128
MAX_ROUNDS = 32  # of the search; doubling and halving within `MAX_C` takes less than half as many


@dataclass(frozen=True, slots=True)
class Choice:
    """The c of a block.

    Attributes:
        c: the width factor.
        ratio, low, high: its network's time over the reference's, and the 95 % interval.
    """

    c: int
    ratio: float
    low: float
    high: float


@dataclass(slots=True)
class _Bracket:
    """What is known of a block.

    Attributes:
        start: the c to begin with.
        fast: the widest that is not slower than the reference; 0 for none.
        slow: the narrowest that is slower; None for none.
    """

    start: int
    fast: int = 0
    slow: int | None = None

    @property
    def is_closed(self) -> bool:
        return self.fast >= MAX_EQUAL_C or (self.slow is not None and self.slow - self.fast <= 1)

    def next_c(self) -> int:
        if self.slow is None:
            return min(MAX_EQUAL_C, 2 * self.fast or self.start)
        return max(1, (self.fast + self.slow) // 2)

    def tell(self, c: int, ratio: float) -> None:
        if ratio > 1:
            self.slow = c if self.slow is None else min(self.slow, c)
        else:
            self.fast = max(self.fast, c)

    def ends(self) -> list[int]:
        """Those to look at closely."""
        around = range(self.fast - 1, (self.slow or self.fast) + 2)
        return [c for c in around if 1 <= c <= MAX_EQUAL_C]


def widths_of_same_latency(
    starts: Mapping[str, int], reference: Point, *, measure_pass: Pass, progress: Callable[[float], None]
) -> dict[str, Choice]:
    """The c of every block.

    Args:
        starts: a c to begin with, by block.
        reference: the network whose latency the others shall have.
        measure_pass: see `Pass`.
        progress: told a part, 0 to 1.

    Raises:
        RunError: the times contradict each other so much that no bracket closes.
    """
    brackets = {block: _Bracket(start) for block, start in starts.items()}
    for number in range(MAX_ROUNDS):
        open_ = {block: bracket.next_c() for block, bracket in brackets.items() if not bracket.is_closed}
        if not open_:
            break
        progress(number / (number + 8))
        for (block, c), ratio in _ratios(reference, list(open_.items()), measure_pass, SEARCH_PASSES).items():
            brackets[block].tell(c, ratio.ratio)
    else:
        raise RunError("latencies contradict each other too much to choose c; measure on a quieter machine")
    progress(0.7)
    ends = [(block, c) for block, bracket in brackets.items() for c in bracket.ends()]
    found = _ratios(reference, ends, measure_pass, FINAL_PASSES)
    return {block: _nearest([choice for (name, _), choice in found.items() if name == block]) for block in starts}


def _nearest(choices: Sequence[Choice]) -> Choice:
    return min(choices, key=lambda choice: abs(choice.ratio - 1))


def _ratios(reference: Point, points: Sequence[Point], measure_pass: Pass, num_passes: int) -> dict[Point, Choice]:
    others = [point for point in points if point != reference]
    passes = [measure_pass([reference, *others]) for _ in range(num_passes)]
    unit, *times = compared(passes)
    found = {
        point: Choice(point[1], *(value / unit.median_ms for value in (time.median_ms, time.low_ms, time.high_ms)))
        for point, time in zip(others, times, strict=True)
    }
    return found | {point: Choice(point[1], 1.0, 1.0, 1.0) for point in points if point == reference}


MAX_APART = 0.1  # of the reference's time, above which a reader is told that a network is not as fast
MAX_OPEN = 40  # networks kept open while c is chosen: all of a pass
REFERENCE: Point = ("conv3x3", BLOCKS["conv3x3"].table_2_c)  # the network whose latency all others get


def plan(settings: Settings, known: Known) -> list[Run]:
    """The check by counting, the choice of c, latencies in turn, trainings."""
    data = data_of(settings)
    size, num_classes = latency_size(settings, data), open_dataset(data).label_space.num_classes
    begin = [macs_run(), choice_run(settings, size, num_classes)]
    chosen = known(begin[-1])
    if chosen is None:
        return begin
    networks = [_network(block, choice["c"]) for block, choice in chosen.items()]
    latencies = latency_run(networks, size, settings, num_classes=num_classes)
    return [*begin, latencies, *training_plan(networks, settings, known, paper=BLOCKS[REFERENCE[0]].title)]


def choice_run(settings: Settings, size: tuple[int, int], num_classes: int) -> Run:
    """A run that chooses c for every block on this device, with the first engine: a `Choice` by block."""
    target = Target(size, settings.runtimes[0], settings.precision, settings.num_threads)
    key = {"chosen": "c", "reference": list(REFERENCE), "num_classes": num_classes, "target": asdict(target)}

    def work(place: Place) -> dict[str, Json]:
        machine = ThisMachine(target, place.folder, num_classes=num_classes, interaction="none", max_open=MAX_OPEN)

        def measure_pass(points: Sequence[Point]) -> Sequence[float]:
            return machine.measure_once([Design(table_2_architecture(c), block) for block, c in points])

        try:
            found = widths_of_same_latency(
                {block: BLOCKS[block].table_2_c for block in paper_blocks()},
                REFERENCE,
                measure_pass=measure_pass,
                progress=lambda part: place.progress("choosing c for every block", part),
            )
        finally:
            machine.clear()
        return {block: asdict(choice) for block, choice in found.items()}

    return Run(key, work)


def _network(block: str, c: int) -> StudyNetwork:
    return StudyNetwork(BLOCKS[block].title, table_2_architecture(c), block, "none")


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row a block."""
    counted, chosen, timed = (of_kind(outcomes, kind)[0] for kind in ("counted", "chosen", "timed"))
    trained = of_kind(outcomes, "trained")
    runtime = timed.key["runtimes"][0]
    times = by_name(times_of(timed), runtime)
    rows = [
        _row(block, choice, times.get(BLOCKS[block].title), trained, timed, counted.result[block])
        for block, choice in chosen.result.items()
    ]
    differences = (describe_training(trained[0].key["trained"]), describe_latency(timed))
    return Report(tuple(rows), _findings(rows), partial(_draw, rows), (10.5, 4.6), differences)


def _row(
    block: str,
    choice: Mapping[str, Json],
    time: Timed | None,
    trained: Sequence[Outcome],
    timed: Outcome,
    counted: Mapping[str, Json],
) -> Row:
    scores = scores_of(trained, _network(block, choice["c"]))
    spread = Spread(tuple(scores)) if scores else None
    count = gmacs(block, choice["c"], tuple(timed.key["size"]), timed.key["num_classes"])
    paper, row = TABLE_2[block], BLOCKS[block]
    return {
        "block": row.title,
        "c": choice["c"],
        "times_reference": choice["ratio"],
        "miou": None if spread is None else spread.mean,
        "miou_deviation": None if spread is None else spread.deviation,
        "miou_by_seed": " ".join(f"{score:.2f}" for score in scores),
        "median_ms": None if time is None else time.median_ms,
        "interval_low_ms": None if time is None else time.interval_ms[0],
        "interval_high_ms": None if time is None else time.interval_ms[1],
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


def _findings(rows: Sequence[Row]) -> tuple[str, ...]:
    findings = [_check(rows)]
    apart = [row for row in rows if abs(row["times_reference"] - 1) > MAX_APART]
    findings += [
        f"Not at one latency: {row['block']} at c={row['c']} took {row['times_reference']:.2f} times the reference "
        "when c was chosen; no whole c is nearer, or the machine was too busy: then try another folder."
        for row in apart
    ]
    scored = [row for row in rows if row["miou"] is not None]
    failed = [str(row["block"]) for row in rows if row["miou"] is None]
    if failed:
        findings.append(f"No score, as the training diverged: {', '.join(failed)}.")
    if len(scored) > 1:
        spreads = {str(row["block"]): _spread(row) for row in scored}
        findings.append(f"At one latency {describe_best(spreads, paper=BLOCKS['conv3x3'].title)}")
        correlation = rank_correlation([row["miou"] for row in scored], [row["paper_miou"] for row in scored])
        if correlation is not None:
            findings.append(f"Rank correlation of mIoU with Table 2: {correlation:.2f}.")
    return tuple(findings)


def _check(rows: Sequence[Row]) -> str:
    worst = max(abs(row["off_percent"]) for row in rows)
    each = ", ".join(
        f"{row['block']} c={row['c_of_paper_gmacs']} {row['gmacs_at_that_c']:.2f} of {row['paper_gmacs']:g} G"
        for row in rows
    )
    verdict = "all within" if worst <= 100 * TOLERANCE else "NOT all within"
    return f"Check of the blocks, whole c with MACs nearest to Table 2's at 1024x2048: {each}; {verdict} 10 %."


def _spread(row: Row) -> Spread:
    return Spread(tuple(map(float, row["miou_by_seed"].split())))


def _draw(rows: Sequence[Row], figure: Any) -> None:
    names = [row["block"] for row in rows]
    left, right = figure.subplots(1, 2)
    mious = [r["miou"] for r in rows], [r["paper_miou"] for r in rows]
    seeds = [_spread(row).scores if row["miou_deviation"] is not None else () for row in rows]
    draw_beside(left, names, *mious, label="mIoU (%)", seeds=seeds)
    rates = (_of_the_first([row[name] for row in rows]) for name in ("gmacs_per_ms", "paper_gmacs_per_ms"))
    draw_beside(right, names, *rates, label=f"MACs per ms, of those of {names[0]} (%)")
    right.tick_params(labelleft=False)
    add_legend(figure, left)
    figure.suptitle("Table 2: seven blocks at one latency", fontsize="medium")


def _of_the_first(values: Sequence[float | None]) -> list[float | None]:
    """In percent: a GPU's rates and a processor's are of different sizes."""
    first = values[0]
    return [None if value is None or not first else 100 * value / first for value in values]


STUDY = Study(
    name="conv-blocks",
    title="Seven convolutional blocks at one latency",
    reference="The paper's Table 2: at about 5 ms on a GTX 1070 Ti plain 3x3 convolutions have the highest mIoU, 66.2.",
    differences=(
        (
            "c is chosen on this device, so that every network takes as long as that of 3x3 convolutions with c=14; "
            "the paper chose it on its GPU and does not name it."
        ),
    ),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "data", "num_seeds", "epochs"}),
)

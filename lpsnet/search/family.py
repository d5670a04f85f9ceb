"""What a search found (Section 3.4): networks, steps, the family of Table 4, the Pareto front, and their JSON records.

The records (`Row` and those after it) are the models of `family.json`, and parts of the journal; the search writes
them and reports read them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from lpsnet.architecture import DEFAULT_BLOCK, NO_CONTEXT, SCORE_STRIDE
from lpsnet.search.measurements import Latency, LatencyFunction, Score
from lpsnet.search.operations import Design, Operation, SearchNetwork, braces
from lpsnet.search.step_size import Excluded, Trust, surely_gains, trust

Doubt = Literal["", "latency", "score"]


@dataclass(frozen=True, slots=True)
class Member:
    """A trained and measured network.

    Attributes:
        step: the step that made it; 0 for the network the search started from.
        network: the network, with its slots.
        latency: Lat(N), compared with its parent.
        score: Perf(N).
        operation: delta, what made it from its parent; None at step 0.
        step_size: k; 0 at step 0.
        length: factor on the recipe's training length, see `TrainingSpec.length`.
    """

    step: int
    network: SearchNetwork
    latency: Latency
    score: Score
    operation: Operation | None = None
    step_size: int = 0
    length: int = 1

    @property
    def design(self) -> Design:
        """The architecture and block that are built for it."""
        return self.network.design


@dataclass(frozen=True, slots=True)
class Step:
    """One iteration of Algorithm 1's loop.

    Attributes:
        number: i, from 1.
        parent: the network of the step before, its latency measured interleaved with the candidates.
        target_ms: L_T of Equation 3; None if no operation could be applied.
        candidates: the network of every operation that has one, in the order of the operations. Operations that lead
            to one design share its latency and score.
        excluded: the operations without a candidate, and why.
        chosen: the candidate that Equation 5 takes; None if the search ends here.
        rivals: candidates that Equation 5 would take for other values inside the measured intervals.
        doubt: "latency" or "score", whichever is too uncertain to decide the step; empty if it is decided.
        stop: why the search ends here; empty if it does not.
        trust: how far the choice can be trusted; None if none was made or the spread of the scores is not known, and in
            journals of earlier versions (`trusted` gives it to those).
    """

    number: int
    parent: Member
    target_ms: float | None
    candidates: tuple[Member, ...]
    excluded: tuple[Excluded, ...]
    chosen: Member | None
    rivals: tuple[Member, ...] = ()
    doubt: Doubt = ""
    stop: str = ""
    trust: Trust | None = None

    @property
    def length(self) -> int:
        """Factor on the recipe's training length that its candidates were trained with."""
        return max((member.length for member in self.candidates), default=1)

    @property
    def gain_is_sure(self) -> bool:
        """Whether a network is chosen and its mIoU exceeds its parent's by more than both spreads."""
        return self.chosen is not None and surely_gains(self.parent, self.chosen)

    @property
    def decided(self) -> bool:
        """True if no values inside the measured intervals would change the step."""
        return not self.doubt

    @property
    def verdict(self) -> str:
        """What the step decided, and whether that is certain, in one line."""
        chosen = self.chosen
        taken = f"takes {chosen.operation} x{chosen.step_size}" if chosen else f"ends the search: {self.stop}"
        if self.length > 1:
            taken += f", trained {self.length} times as long"
        if self.decided:
            return taken
        rivals = ", ".join(str(it.operation) for it in self.rivals)
        could = [f"could be {rivals} as well"] if rivals else []
        could += ["may gain nothing"] if chosen and not (rivals and self.gain_is_sure) else []
        return f"{taken}; undecided, within the noise of the {self.doubt} it {', and it '.join(could)}"


@dataclass(frozen=True, slots=True)
class Expansion:
    """A search and all it found.

    Attributes:
        start: the network at step 0.
        steps: the steps, in order. The last has no chosen network if the search stopped before its last step.
    """

    start: Member
    steps: tuple[Step, ...]

    @property
    def members(self) -> tuple[Member, ...]:
        """The family N^0, N^1, …: the rows of Table 4."""
        return (self.start, *(step.chosen for step in self.steps if step.chosen is not None))

    @property
    def trained(self) -> tuple[Member, ...]:
        """The family first, then every other trained design, once each."""
        return distinct([*self.members, *(member for step in self.steps for member in step.candidates)])

    @property
    def stop(self) -> str:
        """Why the search ended before its last step; empty if it did not."""
        return self.steps[-1].stop if self.steps else ""


def distinct(members: Iterable[Member]) -> tuple[Member, ...]:
    """The members without those whose design an earlier one has."""
    first: dict[Design, Member] = {}
    for member in members:
        first.setdefault(member.design, member)
    return tuple(first.values())


def trusted(found: Expansion) -> tuple[Step, ...]:
    """The steps of a search with their `trust`; where a journal does not have it, computed from its rows.

    The degrees of freedom are those of the trainings that were repeated up to the step, of the same length.
    """
    steps = []
    for number, step in enumerate(found.steps):
        different = distinct(step.candidates)
        if step.trust is None and step.chosen is not None:
            names, chosen = [str(it.operation) for it in different], [it.design for it in different]
            place, freedom = chosen.index(step.chosen.design), _freedom(found, number)
            step = replace(step, trust=trust(step.parent, different, place, names, freedom=freedom))
        steps.append(step)
    return tuple(steps)


def _freedom(found: Expansion, number: int) -> int:
    """Of the spread that the step of this index was decided with."""
    now = [it for it in found.steps[: number + 1] if it.length == found.steps[number].length]
    designs: dict[Design, int] = {}
    for it in (found.start, *(member for step in now for member in step.candidates)):
        if it.length == found.steps[number].length:
            designs[it.design] = max(designs.get(it.design, 1), it.score.num_seeds)
    controls = [step.parent.score for step, it in zip(now, _parents(found, now), strict=True) if _is_control(step, it)]
    return sum(designs.values()) - len(designs) + sum(it.num_seeds - 1 for it in controls)


def _parents(found: Expansion, steps: Iterable[Step]) -> list[Member]:
    """What the steps were made from, as it was chosen."""
    known = {it.design: it for it in found.members}
    return [known[step.parent.design] for step in steps]


def _is_control(step: Step, parent: Member) -> bool:
    """Whether a step's parent has the score of its control, whose start is the parent as it was chosen."""
    return step.parent.score.at_start != parent.score.at_start


def best_under(members: Iterable[Member], budget_ms: float) -> Member | None:
    """The member with the highest mIoU among those whose median latency is at most `budget_ms`; None if there is none.

    Ties go to the smaller latency, then to the earlier member.
    """
    fitting = [member for member in members if member.latency.median_ms <= budget_ms]
    return min(fitting, key=_from_the_best, default=None)


def as_good_and_faster(members: Iterable[Member], best: Member) -> Member | None:
    """A member with a smaller median latency than `best` whose mIoU is not below that of `best` beyond the spreads.

    Of several, the one with the highest mIoU; None if there is none. Only members trained as long as `best` count: the
    scores of others are not comparable.
    """
    found = [
        member
        for member in members
        if member.length == best.length
        and member.latency.median_ms < best.latency.median_ms
        and not surely_gains(member, best)
    ]
    return min(found, key=_from_the_best, default=None)


def pareto_front(members: Iterable[Member]) -> list[Member]:
    """The Pareto front by rising latency: each member has a higher mIoU than every faster one.

    Of several with the same latency and mIoU, the first is kept.
    """
    front: list[Member] = []
    for member in sorted(members, key=lambda it: (it.latency.median_ms, -it.score.miou)):
        if not front or member.score.miou > front[-1].score.miou:
            front.append(member)
    return front


def comparable_latencies(found: Expansion) -> list[Member]:
    """The family and all other trained networks, with latencies that can be compared across steps.

    Steps may be measured hours apart, when the machine has another speed. So the start keeps its latency, and every
    network's is its parent's times their ratio in the step that measured both.
    """
    family = [found.start]
    for step in found.steps:
        if step.chosen is not None:
            family.append(_rescaled(step.chosen, family[-1], step))
    return [*family, *outside_family(family, found.steps)]


def outside_family(family: Iterable[Member], steps: Iterable[Step]) -> list[Member]:
    """The trained networks that are not in the family, once each, with latencies comparable with the family's.

    Args:
        family: the parents of all steps, with the latencies to compare with.
        steps: of the search.
    """
    known = {it.design: it for it in family}
    return list(
        distinct(
            _rescaled(it, known[step.parent.design], step)
            for step in steps
            for it in step.candidates
            if it.design not in known
        )
    )


def _rescaled(member: Member, parent: Member, step: Step) -> Member:
    factor = parent.latency.median_ms / step.parent.latency.median_ms
    return replace(member, latency=member.latency.times(factor))


def remeasured(members: Sequence[Member], latency: LatencyFunction, *, effort: int) -> list[Member]:
    """The same members with latencies measured interleaved (A B C, A B C, …), so that members of different steps can be
    compared: for the table, the figure, and the choice under a budget."""
    if not members:
        return []
    measured = latency(list(dict.fromkeys(member.design for member in members)), effort=effort)
    return [replace(member, latency=measured[member.design]) for member in members]


def _from_the_best(member: Member) -> tuple[float, float]:
    return -member.score.miou, member.latency.median_ms


FAMILY_COLUMNS = ("Step", "B", "C", "R", "Latency (ms)", "Interval (ms)", "mIoU (%)", "At start (%)", "Dimension", "k")
CANDIDATE_COLUMNS = ("Operation", "k", *FAMILY_COLUMNS[4:6], "At start (%)", "mIoU (%)", "Seeds", "Points a ms", "")


def family_table(members: Sequence[Member], *, parameters: Mapping[Design, int] | None = None) -> str:
    """A Markdown table with one row per member: the columns of Table 4, the measurements' intervals, and k.

    Args:
        members: in the order of the rows.
        parameters: number of parameters by design, for an additional column; "-" for designs not in it.
    """
    more = more_columns(members)
    header = [*FAMILY_COLUMNS, *more, *(["Parameters"] if parameters is not None else [])]
    rows = []
    for number, member in enumerate(members):
        cells = family_cells(member) + [column[number] for column in more.values()]
        if parameters is not None:
            cells.append(f"{parameters[member.design]:,}" if member.design in parameters else "-")
        rows.append(cells)
    return markdown_table(header, rows)


def more_columns(members: Sequence[Member]) -> dict[str, list[str]]:
    """Columns for what not every network has: the cells by their header, "-" for the paper's; none if all have that."""
    columns = {
        "Additions": [member.network.additions for member in members],
        "Block": ["" if (it := member.network.block) == DEFAULT_BLOCK else _shortened(it) for member in members],
    }
    rest = {"Additions": "-", "Block": DEFAULT_BLOCK}
    return {name: [cell or rest[name] for cell in cells] for name, cells in columns.items() if any(cells)}


def _shortened(block: str) -> str:
    """Five names by stage with equal neighbours counted: `conv3x3 ×4, ghost`; other names as they are."""
    runs = [(name, len(list(same))) for name, same in groupby(block.split(","))]
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in runs)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, without a line break at its end."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def lengths_note(members: Sequence[Member]) -> str:
    """A sentence that names the networks trained for longer than the others; empty if there are none."""
    longer = [f"{it.network} ({it.length} times)" for it in members if it.length > 1]
    if not longer:
        return ""
    names = "; ".join(longer)
    return f"Trained for longer, since no candidate surely gained; not comparable with the mIoU of the others: {names}."


def family_cells(member: Member) -> list[str]:
    """A network's cells, one for each of `FAMILY_COLUMNS`."""
    network, score, operation = member.network, member.score, member.operation
    return [
        str(member.step),
        braces(network.blocks),
        braces(network.widths),
        braces(network.ratio_slots),
        _ms(member.latency.median_ms),
        _interval(member.latency),
        mean_and_spread(score),
        "-" if score.at_start is None else f"{score.at_start:.1f}",
        operation.dimension.capitalize() if operation else "-",
        str(member.step_size) if operation else "-",
    ]


def mean_and_spread(score: Score) -> str:
    """`54.2 ± 0.3`, in percentage points; without the spread if it is unknown (0)."""
    return f"{score.miou:.1f} ± {score.spread:.1f}" if score.spread else f"{score.miou:.1f}"


def parent_score(score: Score) -> str:
    """The mIoU that candidates are compared with; for a parent that was trained further, also that from before."""
    if score.at_start is None:
        return f"{score.miou:.1f} mIoU"
    return f"{score.miou:.1f} mIoU, {score.at_start:.1f} before it was trained further as they were"


def _interval(latency: Latency) -> str:
    exact = latency.low_ms == latency.high_ms
    return "-" if exact else f"{_ms(latency.low_ms)} to {_ms(latency.high_ms)}"


def _ms(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


class Sparse(BaseModel):
    """A record that is written without those keys of later versions that have their default values."""

    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        fields = type(self).model_fields
        return {key: value for key, value in values.items() if key not in self.later or value != fields[key].default}


_ADDITIONS = ("detail", "context", "head")


class Row(Sparse):
    """A trained and measured network: a row of a table like Table 4. Keys as in all of lpsnet's JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    later = _ADDITIONS

    step: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratio_slots: tuple[str, ...]
    block: str
    dimension: str | None
    operation: str | None
    step_size: int
    median_ms: float
    low_ms: float
    high_ms: float
    miou: float
    spread: float
    at_start: float | None
    num_seeds: int = 1
    length: int = 1
    detail: int = SCORE_STRIDE
    context: str = NO_CONTEXT
    head: int = 0

    @classmethod
    def of(cls, member: Member, **more: Any) -> Self:
        """The row of a member."""
        network, operation, latency, score = member.network, member.operation, member.latency, member.score
        return cls(
            step=member.step,
            blocks=network.blocks,
            widths=network.widths,
            ratio_slots=tuple(map(str, network.ratio_slots)),
            block=network.block,
            dimension=operation.dimension if operation else None,
            operation=str(operation) if operation else None,
            step_size=member.step_size,
            **{name: getattr(latency, name) for name in ("median_ms", "low_ms", "high_ms")},
            **{name: getattr(score, name) for name in ("miou", "spread", "at_start", "num_seeds")},
            length=member.length,
            **{name: getattr(network, name) for name in _ADDITIONS},
            **more,
        )

    @property
    def member(self) -> Member:
        """The member the row was written for.

        Raises:
            LpsnetError: the row's values describe none.
        """
        additions = {name: getattr(self, name) for name in _ADDITIONS}
        network = SearchNetwork(self.blocks, self.widths, self.ratio_slots, self.block, **additions)
        latency = Latency(self.median_ms, self.low_ms, self.high_ms)
        operation = Operation.parse(self.operation) if self.operation else None
        score = Score(self.miou, self.spread, self.at_start, self.num_seeds)
        return Member(self.step, network, latency, score, operation, self.step_size, self.length)


class FamilyRow(Row):
    """A row of the family; `model` is the name of its ONNX file."""

    model: str = ""


class _Record(BaseModel):
    """Part of `family.json`; unknown keys of other versions are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


def step_fields(step: Step) -> dict[str, Any]:
    """The fields that a step has both in `family.json` and in the journal."""
    return {
        "number": step.number,
        "target_ms": step.target_ms,
        "parent": Row.of(step.parent),
        "candidates": tuple(map(Row.of, step.candidates)),
        "excluded": {str(it.operation): it.reason for it in step.excluded},
        "rivals": tuple(str(member.operation) for member in step.rivals),
        "doubt": step.doubt,
        "trust": step.trust,
    }


class StepRecord(_Record):
    """A `Step`; operations are written in their one-line form, `excluded` maps them to the reasons."""

    number: int
    target_ms: float | None
    parent: Row
    chosen: Row | None
    candidates: tuple[Row, ...]
    excluded: dict[str, str]
    rivals: tuple[str, ...]
    doubt: Doubt
    stop: str = ""
    trust: Trust | None = None

    @classmethod
    def of(cls, step: Step) -> Self:
        """The record of a step."""
        return cls(**step_fields(step), chosen=step.chosen and Row.of(step.chosen), stop=step.stop)

    @property
    def step(self) -> Step:
        """The step the record was written for.

        Raises:
            LpsnetError: the record's values describe none.
        """
        candidates = tuple(row.member for row in self.candidates)
        return Step(
            number=self.number,
            parent=self.parent.member,
            target_ms=self.target_ms,
            candidates=candidates,
            excluded=tuple(Excluded(Operation.parse(name), reason) for name, reason in self.excluded.items()),
            chosen=None if self.chosen is None else self.chosen.member,
            rivals=tuple(member for member in candidates if str(member.operation) in self.rivals),
            doubt=self.doubt,
            stop=self.stop,
            trust=self.trust,
        )


class ChoiceRecord(_Record):
    """The network to use under a latency budget.

    Attributes:
        budget_ms: the budget.
        network: the network; None if all trained ones are slower.
        model: the name of its ONNX file.
        interval_reaches_above: whether the interval of its latency reaches above the budget.
        faster_as_good: the ONNX file of a faster member of the family with the same mIoU within the noise, if any.
    """

    budget_ms: int | float
    network: Row | None
    model: str | None
    interval_reaches_above: bool
    faster_as_good: str | None = None


class CheckedRecord(_Record):
    """A candidate trained as in the search and longer; mIoU in percent."""

    operation: str
    miou: float
    longer_miou: float


class RankingRecord(_Record):
    """A `RankingCheck`."""

    step: int
    length: int
    kendall_tau: float | None
    same_choice: bool
    swapped_pairs: int
    swapped_pairs_beyond_spread: int
    candidates: tuple[CheckedRecord, ...]


class FamilyRecord(_Record):
    """`family.json`: a `SearchResult`."""

    family: tuple[FamilyRow, ...]
    front: tuple[Row, ...]
    choices: tuple[ChoiceRecord, ...]
    steps: tuple[StepRecord, ...]
    stop: str
    ranking_check: RankingRecord | None = None

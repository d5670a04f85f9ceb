"""What a search found: its networks, its steps, and the one to use under a latency budget (Section 4.4, Figure 7).

The family as a table like Table 4, in Markdown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lpsnet.search.measurements import Latency, LatencyFunction, Score
from lpsnet.search.operations import DEFAULT_BLOCK, Design, Operation, SearchNetwork, braces
from lpsnet.search.step_size import Excluded, surely_gains

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
        length: how many times as long as usual it was trained, see `TrainingSpec.length`.
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
        """What was built for it."""
        return self.network.design


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of Algorithm 1's loop.

    Attributes:
        number: i, from 1.
        parent: the network of the step before, its latency measured in turn with the candidates.
        target_ms: L_T of Equation 3; None if no operation could be applied.
        candidates: the network of every operation that has one, in the order of the operations. Operations that lead
            to one design share its latency and score.
        excluded: the operations without a candidate, and why.
        chosen: the candidate that Equation 5 takes; None if the search ends here.
        rivals: candidates that could have been taken instead, as far as the measurements can tell.
        doubt: empty if the step is decided; else what is too uncertain to decide it.
        stop: why the search ends here; empty if it does not.
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

    @property
    def length(self) -> int:
        """How many times as long as usual its candidates were trained."""
        return max((member.length for member in self.candidates), default=1)

    @property
    def gain_is_sure(self) -> bool:
        """Whether the chosen network's mIoU is above its parent's, beyond the noise of both; False without one."""
        return self.chosen is not None and surely_gains(self.parent, self.chosen)

    @property
    def decided(self) -> bool:
        """True if nothing inside the measurements' intervals would change the step."""
        return not self.doubt

    @property
    def verdict(self) -> str:
        """What the step decided, and whether it is sure, in words."""
        chosen = self.chosen
        taken = f"takes {chosen.operation} x{chosen.step_size}" if chosen else f"ends the search: {self.stop}"
        if self.length > 1:
            taken += f", trained {self.length} times as long"
        if self.decided:
            return taken
        rivals = ", ".join(str(it.operation) for it in self.rivals)
        could = [f"could be {rivals} as well"] if rivals else []
        could += ["may gain nothing"] if chosen and not self.gain_is_sure else []
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
        every = [*self.members, *(member for step in self.steps for member in step.candidates)]
        first: dict[Design, Member] = {}
        for member in every:
            first.setdefault(member.design, member)
        return tuple(first.values())

    @property
    def stop(self) -> str:
        """Why the search ended before its last step; empty if it did not."""
        return self.steps[-1].stop if self.steps else ""


def best_under(members: Iterable[Member], budget_ms: float) -> Member | None:
    """The member with the highest mIoU among those whose median latency is at most `budget_ms`; None if there is none.

    Ties go to the smaller latency, then to the earlier member.
    """
    fitting = [member for member in members if member.latency.median_ms <= budget_ms]
    return min(fitting, key=_from_the_best, default=None)


def as_good_and_faster(members: Iterable[Member], best: Member) -> Member | None:
    """A member that is faster than `best` by its median and, as far as the noise of the scores tells, as good.

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
    """The members that no other beats, by rising latency: each is better than every faster one.

    Of several with the same latency and mIoU, the first is kept.
    """
    front: list[Member] = []
    for member in sorted(members, key=lambda it: (it.latency.median_ms, -it.score.miou)):
        if not front or member.score.miou > front[-1].score.miou:
            front.append(member)
    return front


def on_one_scale(found: Expansion) -> list[Member]:
    """The family and all other trained networks, with latencies that can be compared across steps.

    A step measures its candidates in turn with their parent; the next may do so hours later, on a machine that is
    faster or slower then. So the start keeps its latency, and each network has its parent's times what it took in
    comparison with that in its step.
    """
    family = [found.start]
    for step in found.steps:
        if step.chosen is not None:
            speed = family[-1].latency.median_ms / step.parent.latency.median_ms
            family.append(replace(step.chosen, latency=step.chosen.latency.times(speed)))
    return [*family, *beside(family, found.steps)]


def beside(family: Iterable[Member], steps: Iterable[Step]) -> list[Member]:
    """The trained networks that are not in the family, once each, with latencies to compare with the family's.

    Args:
        family: the parents of all steps, with the latencies that count.
        steps: of the search.
    """
    now = {it.design: it for it in family}
    others: dict[Design, Member] = {}
    for step in steps:
        speed = now[step.parent.design].latency.median_ms / step.parent.latency.median_ms
        for it in step.candidates:
            if it.design not in now:
                others.setdefault(it.design, replace(it, latency=it.latency.times(speed)))
    return list(others.values())


def remeasured(members: Sequence[Member], latency: LatencyFunction, *, effort: int) -> list[Member]:
    """The same members with latencies measured against each other, all in turn.

    The steps of a search may lie hours apart, and machines drift. Do this before members of different steps are
    compared: for the table, the figure, and the choice under a budget.
    """
    if not members:
        return []
    measured = latency(list(dict.fromkeys(member.design for member in members)), effort=effort)
    return [replace(member, latency=measured[member.design]) for member in members]


def _from_the_best(member: Member) -> tuple[float, float]:
    return -member.score.miou, member.latency.median_ms


FAMILY_COLUMNS = ("Step", "B", "C", "R", "Latency (ms)", "Interval (ms)", "mIoU (%)", "At start (%)", "Dimension", "k")


def family_table(members: Sequence[Member], *, parameters: Mapping[Design, int] | None = None) -> str:
    """A Markdown table with a row a member, columns as in Table 4 and, beside them, the measurements' intervals and k.

    Args:
        members: in the order of the rows.
        parameters: number of parameters by design, for one more column; designs not in it get a dash.
    """
    blocks = any(member.network.block != DEFAULT_BLOCK for member in members)
    header = [*FAMILY_COLUMNS, *(["Block"] if blocks else []), *(["Parameters"] if parameters is not None else [])]
    rows = [header, ["---"] * len(header)]
    for member in members:
        cells = family_cells(member) + ([member.network.block] if blocks else [])
        rows.append(cells + ([_count(parameters.get(member.design))] if parameters is not None else []))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def lengths_note(members: Sequence[Member]) -> str:
    """Which networks were trained for longer than the others, in a sentence; empty if all were trained alike."""
    longer = [f"{it.network} ({it.length} times)" for it in members if it.length > 1]
    if not longer:
        return ""
    told = "; ".join(longer)
    return f"Trained for longer, since no candidate surely gained; their mIoU is not that of the others: {told}."


def family_cells(member: Member) -> list[str]:
    """A network as texts, one for each of `FAMILY_COLUMNS`."""
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
    """`54.2 ± 0.3`, in points; the spread only where one is known."""
    return f"{score.miou:.1f} ± {score.spread:.1f}" if score.spread else f"{score.miou:.1f}"


def parent_score(score: Score) -> str:
    """What candidates are compared with; a parent that was trained on, too, has its own score at the start."""
    if score.at_start is None:
        return f"{score.miou:.1f} mIoU"
    return f"{score.miou:.1f} mIoU, {score.at_start:.1f} before it was trained on as they are"


def _interval(latency: Latency) -> str:
    exact = latency.low_ms == latency.high_ms
    return "-" if exact else f"{_ms(latency.low_ms)} to {_ms(latency.high_ms)}"


def _ms(value: float) -> str:
    if value < 0.1:
        return f"{value:.2g}"
    return f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"

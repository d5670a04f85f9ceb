"""What a search found: its networks, its steps, and the one to use under a latency budget (Section 4.4, Figure 7)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lpsnet.expansion.measurements import Latency, LatencyFunction, Score
from lpsnet.expansion.operations import Design, Operation, SearchNetwork
from lpsnet.expansion.ranking import surely_gains
from lpsnet.expansion.step_size import Excluded

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
        length: how many times as long as usual it was trained, see `Course.length`.
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

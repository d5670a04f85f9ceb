"""The candidates of one step against each other: Equation 5, and what leaves it open (Section 3.4)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lpsnet.expansion.family import Doubt, Member, Step
from lpsnet.expansion.measurements import Failure, Latency, Outcome, Score
from lpsnet.expansion.operations import Design, Operation
from lpsnet.expansion.ranking import Decision, decide
from lpsnet.expansion.step_size import Excluded, Rung


class Candidate(NamedTuple):
    operation: Operation
    rung: Rung

    @property
    def design(self) -> Design:
        return self.rung.network.design


class Contest(NamedTuple):
    parent: Member
    candidates: tuple[Member, ...]
    decision: Decision
    distinct: tuple[Member, ...]  # the candidates with every design once; the decision's indices count these
    doubt: Doubt

    @property
    def gain_is_open(self) -> bool:
        """Whether it depends on where in their intervals the scores lie that a candidate gains, or that none does."""
        found = self.decision
        return bool(found.rivals) if found.chosen is None else found.gain_in_doubt

    @property
    def leaders(self) -> list[Member]:
        """The candidate that Equation 5 takes and its strongest rival; the best candidate alone if none gains."""
        chosen = self.decision.chosen
        rivals = [self.distinct[index] for index in self.decision.rivals]
        if chosen is None:
            return sorted(rivals or self.distinct, key=lambda it: -it.score.miou)[:1]
        others = rivals or [it for index, it in enumerate(self.distinct) if index != chosen]
        second = decide(self.parent, others).chosen
        return [self.distinct[chosen], *([] if second is None else [others[second]])]


def hold_contest(
    number: int,
    parent: Member,
    candidates: Sequence[Candidate],
    latencies: Mapping[Design, Latency],
    outcomes: Mapping[Design, Outcome],
    length: int,
) -> Contest:
    """The candidates of step `number`; `outcomes` are theirs and the parent's, all of trainings of that length."""
    score = outcomes[parent.design]
    assert isinstance(score, Score), "a parent has a score"
    parent = replace(parent, latency=latencies.get(parent.design, parent.latency), score=score)
    members = tuple(_member(number, it, latencies[it.design], outcomes[it.design], length) for it in candidates)
    first: dict[Design, Member] = {}
    for member in members:
        first.setdefault(member.design, member)
    distinct = tuple(first.values())
    decision = decide(parent, distinct)
    return Contest(parent, members, decision, distinct, _doubt(decision, parent, distinct))


def _doubt(decision: Decision, parent: Member, candidates: Sequence[Member]) -> Doubt:
    """What leaves the decision open: the scores, if it were open with exact latencies too; else the latencies."""
    if decision.settled:
        return ""
    sharp = decide(_sharp(parent), [_sharp(member) for member in candidates])
    return "latency" if sharp.settled else "score"


def _sharp(member: Member) -> Member:
    return replace(member, latency=Latency.exactly(member.latency.median_ms))


def step_of(number: int, ranked: Contest, target_ms: float | None, excluded: tuple[Excluded, ...]) -> Step:
    decision = ranked.decision
    chosen = None if decision.chosen is None else ranked.distinct[decision.chosen]
    rivals = tuple(ranked.distinct[index] for index in decision.rivals)
    stop = "" if chosen is not None else _stop(ranked)
    return Step(number, ranked.parent, target_ms, ranked.candidates, excluded, chosen, rivals, ranked.doubt, stop)


def _stop(ranked: Contest) -> str:
    if not ranked.candidates:
        return "no operation leads to a network that keeps the limits, if there are any, and could be trained"
    best = max(member.score.miou for member in ranked.candidates)
    return f"no candidate gains: the best has {best:.2f} mIoU, their parent {ranked.parent.score.miou:.2f}"


def split_by_limit(
    candidates: Sequence[Candidate], latencies: Mapping[Design, Latency], limit_ms: float | None
) -> tuple[list[Candidate], list[Excluded]]:
    """The candidates within the limit, and those above it."""
    fast, slow = [], []
    for candidate in candidates:
        median_ms = latencies[candidate.design].median_ms
        if limit_ms is None or median_ms <= limit_ms:
            fast.append(candidate)
        else:
            slow.append(Excluded(candidate.operation, f"{median_ms:.4g} ms, limit {limit_ms:.4g} ms"))
    return fast, slow


def _member(number: int, candidate: Candidate, latency: Latency, outcome: Outcome, length: int) -> Member:
    assert isinstance(outcome, Score), "only scored candidates are ranked"
    operation, rung = candidate
    return Member(number, rung.network, latency, outcome, operation, rung.step_size, length)


def failure_of(candidate: Candidate, outcome: Outcome) -> Excluded:
    assert isinstance(outcome, Failure)
    return Excluded(candidate.operation, f"training failed: {outcome.reason}")


def designs_of(candidates: Sequence[Candidate]) -> list[Design]:
    return list(dict.fromkeys(candidate.design for candidate in candidates))

"""An expansion read back from its folder: what it found, and, while it goes on, what is left.

`journal.jsonl` is enough, at any moment; `family/family.json` adds the latencies measured in turn at the end, and the
networks under budgets; `plan.json` says how far the search was asked to go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lpsnet.errors import LpsnetError, RunError
from lpsnet.expansion.events import (
    Event,
    Header,
    LatencyPass,
    Row,
    StepDecided,
    Stopped,
    TrainingFinished,
    TrainingStarted,
)
from lpsnet.expansion.family import Doubt, Expansion, Member, Step, pareto_front
from lpsnet.expansion.journal import read_journal
from lpsnet.expansion.operations import Operation
from lpsnet.expansion.replay import family_of
from lpsnet.expansion.step_size import Excluded
from lpsnet.reporting.reading import Figures, read_json

JOURNAL, FAMILY, PLAN = "journal.jsonl", "family/family.json", "plan.json"


class _FamilyRow(Row):
    """A row of the family, with its file."""

    model: str = ""


class _StepFigures(Figures):
    """A step as `family.json` holds it."""

    number: int
    target_ms: float | None
    parent: Row
    chosen: Row | None
    candidates: tuple[Row, ...]
    excluded: dict[str, str]
    rivals: tuple[str, ...]
    doubt: Doubt
    stop: str = ""


class _Choice(Figures):
    """The network to use under a budget."""

    budget_ms: float
    network: Row | None
    model: str | None
    interval_reaches_above: bool
    faster_as_good: str | None = None


class CheckedCandidate(Figures):
    """A candidate trained as in the search and longer, percent."""

    operation: str
    miou: float
    longer_miou: float


class RankingFigures(Figures):
    """See `RankingCheck.to_dict`."""

    step: int
    length: int
    kendall_tau: float | None
    same_choice: bool
    swapped_pairs: int
    swapped_pairs_beyond_spread: int
    candidates: tuple[CheckedCandidate, ...]


class _Family(Figures):
    """See `Delivery.to_dict`."""

    family: tuple[_FamilyRow, ...]
    front: tuple[Row, ...]
    choices: tuple[_Choice, ...]
    steps: tuple[_StepFigures, ...]
    stop: str
    ranking_check: RankingFigures | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """The network to use under a budget.

    Attributes:
        ms: the budget.
        member: the network; None if none is this fast.
        model: its file's name.
        close: whether the interval of its latency reaches above the budget.
        faster: the file of a network that is faster and as good within the noise; empty if there is none.
    """

    ms: float
    member: Member | None
    model: str
    close: bool
    faster: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """An expansion as far as it has come.

    Attributes:
        header: what it was started with.
        plan: how it was last asked for, as JSON values; empty where that was not kept.
        found: its start and steps; None before the start is trained.
        members: the family, with the latencies that count.
        front: the networks that no other beats.
        budgets: the smallest first.
        files: names of the members' model files, by step; empty while there are none.
        running: what is being done and left, sentences; none once the search is done.
        trainings: those finished in the step that is being worked on.
        check: of a step's ranking by longer trainings; None if there is none.
    """

    header: Header
    plan: dict[str, Any]
    found: Expansion | None
    members: tuple[Member, ...]
    front: tuple[Member, ...]
    budgets: tuple[Budget, ...]
    files: tuple[str, ...]
    running: tuple[str, ...]
    trainings: tuple[TrainingFinished, ...] = ()
    check: RankingFigures | None = None

    @property
    def others(self) -> list[Member]:
        """The trained networks that are not in the family, with the latencies of their steps or of the front."""
        family = {it.design for it in self.members}
        now = {it.design: it for it in self.front}
        trained = self.found.trained if self.found else ()
        return [now.get(it.design, it) for it in trained if it.design not in family]


def read_expansion(path: Path) -> Search:
    """The expansion in a folder.

    Raises:
        RunError: there is none, or a file of it cannot be used.
    """
    events = read_journal(path / JOURNAL)
    header = events[0]
    assert isinstance(header, Header), "a journal that can be read begins with its header"
    plan = _plan(path / PLAN)
    try:
        return _finished(path, events, header, plan) or _unfinished(events, header, plan)
    except LpsnetError as error:
        raise RunError(f"the expansion in {path} cannot be reported on: {error}") from None


def _plan(path: Path) -> dict[str, Any]:
    plan = read_json(path) if path.is_file() else {}
    return plan if isinstance(plan, dict) else {}


def _finished(path: Path, events: Sequence[Event], header: Header, plan: dict[str, Any]) -> Search | None:
    """The search by its delivery; None if there is none, or if the search has gone on since."""
    file = path / FAMILY
    if not file.is_file():
        return None
    try:
        family = _Family.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    decided = [it for it in events if isinstance(it, StepDecided)]
    if not family.family or len(decided) != len(family.family) - 1 or (not family.stop and _steps_left(events, plan)):
        return None
    start = family.family[0].member
    if family.steps:  # the latency that it had in its step; its score there may be that of its control
        start = replace(start, latency=family.steps[0].parent.member.latency)
    return Search(
        header=header,
        plan=plan,
        found=Expansion(start, tuple(map(_step, family.steps))),
        members=tuple(it.member for it in family.family),
        front=tuple(it.member for it in family.front),
        budgets=tuple(map(_budget, family.choices)),
        files=tuple(it.model for it in family.family),
        running=(),
        check=family.ranking_check,
    )


def _unfinished(events: Sequence[Event], header: Header, plan: dict[str, Any]) -> Search:
    members = tuple(family_of(events))
    steps = [_decided(it) for it in events if isinstance(it, StepDecided)]
    found = Expansion(members[0], tuple(steps)) if members else None
    return Search(
        header=header,
        plan=plan,
        found=found,
        members=members,
        front=tuple(pareto_front(found.trained)) if found else (),
        budgets=(),
        files=(),
        running=_running(events, plan),
        trainings=tuple(it for it in _since_last_step(events) if isinstance(it, TrainingFinished)),
    )


def _decided(event: StepDecided) -> Step:
    kept = {name: getattr(event, name) for name in _StepFigures.model_fields if name not in ("chosen", "stop")}
    return _step(_StepFigures(chosen=event.row, **kept))


def _step(it: _StepFigures) -> Step:
    candidates = tuple(row.member for row in it.candidates)
    return Step(
        number=it.number,
        parent=it.parent.member,
        target_ms=it.target_ms,
        candidates=candidates,
        excluded=tuple(Excluded(Operation.parse(name), reason) for name, reason in it.excluded.items()),
        chosen=None if it.chosen is None else it.chosen.member,
        rivals=tuple(member for member in candidates if str(member.operation) in it.rivals),
        doubt=it.doubt,
        stop=it.stop,
    )


def _budget(it: _Choice) -> Budget:
    member = None if it.network is None else it.network.member
    return Budget(it.budget_ms, member, it.model or "", it.interval_reaches_above, it.faster_as_good or "")


def _since_last_step(events: Sequence[Event]) -> Sequence[Event]:
    last = max((n for n, it in enumerate(events) if isinstance(it, StepDecided)), default=0)
    return events[last + 1 :]


def _steps_left(events: Sequence[Event], plan: dict[str, Any]) -> int:
    """How many steps are still to be made, as far as is known."""
    wanted = plan.get("num_steps")
    return max(0, wanted - sum(isinstance(it, StepDecided) for it in events)) if isinstance(wanted, int) else 0


def _running(events: Sequence[Event], plan: dict[str, Any]) -> tuple[str, ...]:
    """Where a search stands that has not delivered."""
    now = _since_last_step(events)
    if stopped := [it for it in now if isinstance(it, Stopped)]:
        return (
            f"The search has ended at step {stopped[-1].number}: {stopped[-1].reason}. What is left is the delivery.",
        )
    number = sum(isinstance(it, StepDecided) for it in events)
    left, wanted = _steps_left(events, plan), plan.get("num_steps")
    if isinstance(wanted, int) and not left:
        return ("All steps are decided. What is left is the delivery: measuring the family in turn, and its files.",)
    of_all = f" of {wanted}, {left} left" if isinstance(wanted, int) else ""
    return (f"This search is not finished. Steps decided: {number}{of_all}.", _in_step(now, number + 1))


def _in_step(now: Sequence[Event], number: int) -> str:
    """What is being done in the step that is not decided."""
    starts = [it for it in now if isinstance(it, TrainingStarted)]
    done = {(it.design, it.seed, it.length) for it in now if isinstance(it, TrainingFinished)}
    asked = dict.fromkeys((design, it.seed, it.length) for it in starts for design in it.designs)
    if not asked:
        passes = sum(isinstance(it, LatencyPass) for it in now)
        return f"Step {number}: latencies are being measured: {passes} passes over networks in turn so far."
    left = [training for training in asked if training not in done]
    return f"Step {number}: {len(asked) - len(left)} of {len(asked)} trainings begun are done, {len(left)} to go."

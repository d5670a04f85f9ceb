"""An expansion read back from its folder: what it found, and, while it goes on, what is left.

`journal.jsonl` is enough, at any moment; `family/family.json` adds the latencies measured in turn at the end, and the
networks under budgets; `plan.json` says how far the search was asked to go, and `family/plan.json` how far it was to go
when the family was handed over: where they differ, the family is not what is asked for now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.page import Figures, read_json
from lpsnet.search.family import Doubt, Expansion, Member, Step, beside, pareto_front
from lpsnet.search.journal import (
    Event,
    Header,
    LatencyRepetition,
    Row,
    StartKnown,
    StepDecided,
    Stopped,
    TrainingFinished,
    TrainingStarted,
    read_journal,
)
from lpsnet.search.operations import Operation
from lpsnet.search.step_size import Excluded

JOURNAL, FAMILY, PLAN = "journal.jsonl", "family/family.json", "plan.json"
DELIVERED_PLAN = "family/plan.json"


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
    """See `SearchResult.to_dict`."""

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
        """The trained networks that are not in the family, with latencies as the front and the family have them.

        While the search goes on, with those of their steps, as the family's are.
        """
        if self.found is None:
            return []
        if self.running:
            family = {it.design for it in self.members}
            return [it for it in self.found.trained if it.design not in family]
        now = {it.design: it for it in self.front}
        return [now.get(it.design, it) for it in beside(self.members, self.found.steps)]


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
        return _finished(path, events, header, plan) or _unfinished(path, events, header, plan)
    except LpsnetError as error:
        raise RunError(f"the expansion in {path} cannot be reported on: {error}") from None


def _plan(path: Path) -> dict[str, Any]:
    plan = read_json(path) if path.is_file() else {}
    return plan if isinstance(plan, dict) else {}


def _finished(path: Path, events: Sequence[Event], header: Header, plan: dict[str, Any]) -> Search | None:
    """The search by its delivery; None if there is none, or if it is not what is asked for now."""
    file = path / FAMILY
    if not file.is_file():
        return None
    try:
        family = _Family.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not family.family or not _is_delivered(path, family, events, plan):
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


def _is_delivered(path: Path, family: _Family, events: Sequence[Event], plan: dict[str, Any]) -> bool:
    """Whether the family is what the plan asks for."""
    if "max_length" in plan:  # a plan with all options, which is kept with what is handed over for it
        return _without_command(plan) == _without_command(_plan(path / DELIVERED_PLAN))
    steps = _steps(events, plan)
    return len(steps) == len(family.family) - 1 and (bool(family.stop) or not _steps_left(steps, plan))


def _without_command(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plan.items() if key != "command"}


def _unfinished(path: Path, events: Sequence[Event], header: Header, plan: dict[str, Any]) -> Search:
    starts = [it.row.member for it in events if isinstance(it, StartKnown)]
    decided = _steps(events, plan) if starts else []
    members = (*starts[:1], *(it.row.member for it in decided))
    found = Expansion(members[0], tuple(map(_decided, decided))) if members else None
    return Search(
        header=header,
        plan=plan,
        found=found,
        members=members,
        front=tuple(pareto_front(found.trained)) if found else (),
        budgets=(),
        files=(),
        running=_running(events, plan, asked_again=(path / DELIVERED_PLAN).is_file()),
        trainings=tuple(it for it in _since_last_step(events) if isinstance(it, TrainingFinished)),
    )


def _steps(events: Sequence[Event], plan: Mapping[str, Any]) -> list[StepDecided]:
    """The steps decided, as far as they are asked for: each once and in order, however the lines of the journal lie."""
    wanted = plan.get("num_steps")
    decided: dict[int, StepDecided] = {}
    for it in events:
        if isinstance(it, StepDecided):
            decided.setdefault(it.number, it)  # the first line counts, as for a search that goes on
    return [decided[number] for number in sorted(decided) if not isinstance(wanted, int) or number <= wanted]


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
    places: dict[int, int] = {}
    for place, it in enumerate(events):
        if isinstance(it, StepDecided):
            places.setdefault(it.number, place)
    return events[max(places.values(), default=0) + 1 :]


def _steps_left(steps: Sequence[StepDecided], plan: Mapping[str, Any]) -> int:
    """How many steps are still to be made, as far as is known."""
    wanted = plan.get("num_steps")
    return max(0, wanted - len(steps)) if isinstance(wanted, int) else 0


def _running(events: Sequence[Event], plan: Mapping[str, Any], *, asked_again: bool) -> tuple[str, ...]:
    """Where a search stands that has not delivered; `asked_again`: what it was asked for before, it has."""
    now, steps = _since_last_step(events), _steps(events, plan)
    number, left, wanted = len(steps), _steps_left(steps, plan), plan.get("num_steps")
    if (left or not isinstance(wanted, int)) and (stopped := _stopped(now)) is not None:
        ended = f"The search {'' if asked_again else 'has '}ended at step {stopped.number}: {stopped.reason}."
        again = "It was started again with other options, and has trained nothing since."
        return (f"{ended} {again if asked_again else 'What is left is the delivery.'}",)
    if isinstance(wanted, int) and not left:
        return ("All steps are decided. What is left is the delivery: measuring the family in turn, and its files.",)
    of_all = f" of {wanted}, {left} left" if isinstance(wanted, int) else ""
    return (f"This search is not finished. Steps decided: {number}{of_all}.", _in_step(now, number + 1))


def _stopped(now: Sequence[Event]) -> Stopped | None:
    """Where the search ended, unless it has trained something since: then it goes on with other options."""
    last = next((it for it in reversed(now) if isinstance(it, Stopped | TrainingStarted)), None)
    return last if isinstance(last, Stopped) else None


def _in_step(now: Sequence[Event], number: int) -> str:
    """What is being done in the step that is not decided."""
    starts = [it for it in now if isinstance(it, TrainingStarted)]
    done = {(it.design, it.seed, it.length) for it in now if isinstance(it, TrainingFinished)}
    asked = dict.fromkeys((design, it.seed, it.length) for it in starts for design in it.designs)
    if not asked:
        passes = sum(isinstance(it, LatencyRepetition) for it in now)
        return f"Step {number}: latencies are being measured: {passes} passes over networks in turn so far."
    left = [training for training in asked if training not in done]
    return f"Step {number}: {len(asked) - len(left)} of {len(asked)} trainings begun are done, {len(left)} to go."

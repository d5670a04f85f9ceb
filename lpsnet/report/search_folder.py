"""The files of a search read for its report, also while the search is running.

`journal.jsonl` is enough at any moment; `family/family.json` adds the latencies measured interleaved at the end and the
networks under budgets. Where `plan.json`, the options of the last start, differs from `family/plan.json`, the family is
out of date.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lpsnet.errors import LpsnetError, RunError
from lpsnet.report.html import read_json
from lpsnet.search import family, journal
from lpsnet.search.journal import Event, Header, StepDecided, TrainingFinished, TrainingStarted

JOURNAL, FAMILY, PLAN = "journal.jsonl", "family/family.json", "plan.json"
RESULT_PLAN = "family/plan.json"


@dataclass(frozen=True, slots=True)
class Search:
    """An expansion as far as it has come."""

    header: Header  # of its journal
    plan: dict[str, Any]  # the options of its last start, as JSON values; empty if unknown
    found: family.Expansion | None  # its start and steps; None before the start is trained
    members: tuple[family.Member, ...]  # the family, with latencies measured at the end, or until then in its steps
    front: tuple[family.Member, ...]  # the Pareto front of all trained networks
    budgets: tuple[family.ChoiceRecord, ...] = ()  # the network to use under each budget, the smallest first
    files: tuple[str, ...] = ()  # names of the members' model files, by step; empty while there are none
    running: tuple[str, ...] = ()  # what is being done and what is left, in sentences; empty once finished
    trainings: tuple[TrainingFinished, ...] = ()  # those finished in the current step
    check: family.RankingRecord | None = None  # of a step's ranking by longer trainings; None if there is none

    @property
    def others(self) -> list[family.Member]:
        """The trained networks outside the family, with latencies comparable with the family's."""
        if self.found is None:
            return []
        if self.running:
            known = {it.design for it in self.members}
            return [it for it in self.found.trained if it.design not in known]
        now = {it.design: it for it in self.front}
        return [now.get(it.design, it) for it in family.outside_family(self.members, self.found.steps)]


def read_expansion(path: Path) -> Search:
    """The expansion in a folder.

    Raises:
        RunError: there is none, or a file of it cannot be used.
    """
    events = journal.read_journal(path / JOURNAL)
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
    """The search by its result; None if there is none, or if it is out of date."""
    file = path / FAMILY
    if not file.is_file():
        return None
    try:
        held = family.FamilyRecord.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if not held.family or not _is_up_to_date(path, held, events, plan):
        return None
    start = held.family[0].member
    if held.steps:  # the latency that it had in its step; its score there may be that of its control
        start = replace(start, latency=held.steps[0].parent.member.latency)
    return Search(
        header=header,
        plan=plan,
        found=family.Expansion(start, tuple(it.step for it in held.steps)),
        members=tuple(it.member for it in held.family),
        front=tuple(it.member for it in held.front),
        budgets=held.choices,
        files=tuple(it.model for it in held.family),
        check=held.ranking_check,
    )


def _is_up_to_date(path: Path, held: family.FamilyRecord, events: Sequence[Event], plan: dict[str, Any]) -> bool:
    """Whether the result is that of the current plan."""
    if "max_length" in plan:  # a plan with all options, a copy of which is kept with the result
        return {**plan, "command": None} == {**_plan(path / RESULT_PLAN), "command": None}
    steps = _steps(events, plan)
    return len(steps) == len(held.family) - 1 and (bool(held.stop) or not _steps_left(steps, plan))


def _unfinished(path: Path, events: Sequence[Event], header: Header, plan: dict[str, Any]) -> Search:
    starts = [it.row.member for it in events if isinstance(it, journal.StartKnown)]
    decided = _steps(events, plan) if starts else []
    members = (*starts[:1], *(it.row.member for it in decided))
    found = family.Expansion(members[0], tuple(it.step for it in decided)) if members else None
    return Search(
        header=header,
        plan=plan,
        found=found,
        members=members,
        front=tuple(family.pareto_front(found.trained)) if found else (),
        running=_running(events, plan, restarted=(path / RESULT_PLAN).is_file()),
        trainings=tuple(it for it in _since_last_step(events) if isinstance(it, TrainingFinished)),
    )


def _steps(events: Sequence[Event], plan: Mapping[str, Any]) -> list[StepDecided]:
    """The decided steps within the plan, each once and in order, whatever the order of the journal's lines."""
    wanted = plan.get("num_steps")
    decided: dict[int, StepDecided] = {}
    for it in events:
        if isinstance(it, StepDecided):
            decided.setdefault(it.number, it)  # the first line counts, as for a search that is resumed
    return [decided[number] for number in sorted(decided) if not isinstance(wanted, int) or number <= wanted]


def _since_last_step(events: Sequence[Event]) -> Sequence[Event]:
    places: dict[int, int] = {}
    for place, it in enumerate(events):
        if isinstance(it, StepDecided):
            places.setdefault(it.number, place)
    return events[max(places.values(), default=0) + 1 :]


def _steps_left(steps: Sequence[StepDecided], plan: Mapping[str, Any]) -> int:
    """The number of steps left, if it is known."""
    wanted = plan.get("num_steps")
    return max(0, wanted - len(steps)) if isinstance(wanted, int) else 0


def _running(events: Sequence[Event], plan: Mapping[str, Any], *, restarted: bool) -> tuple[str, ...]:
    """The state of a search without an up-to-date result; `restarted`: it has one of earlier options."""
    now, steps = _since_last_step(events), _steps(events, plan)
    number, left, wanted = len(steps), _steps_left(steps, plan), plan.get("num_steps")
    if (left or not isinstance(wanted, int)) and (stopped := _stopped(now)) is not None:
        ended = f"The search {'' if restarted else 'has '}ended at step {stopped.number}: {stopped.reason}."
        again = "It was started again with other options, and has trained nothing since."
        return (f"{ended} {again if restarted else 'What is left is writing the result.'}",)
    if isinstance(wanted, int) and not left:
        return ("All steps are decided. What is left is writing the result: measuring the family, and its files.",)
    of_all = f" of {wanted}, {left} left" if isinstance(wanted, int) else ""
    return (f"This search is not finished. Steps decided: {number}{of_all}.", _in_step(now, number + 1))


def _stopped(now: Sequence[Event]) -> journal.Stopped | None:
    """Where the search ended; None if it has trained since, with other options."""
    last = next((it for it in reversed(now) if isinstance(it, journal.Stopped | TrainingStarted)), None)
    return last if isinstance(last, journal.Stopped) else None


def _in_step(now: Sequence[Event], number: int) -> str:
    """The state of the undecided step."""
    starts = [it for it in now if isinstance(it, TrainingStarted)]
    done = {(it.design, it.seed, it.length) for it in now if isinstance(it, TrainingFinished)}
    asked = dict.fromkeys((design, it.seed, it.length) for it in starts for design in it.designs)
    if not asked:
        repetitions = sum(isinstance(it, journal.LatencyRepetition) for it in now)
        return f"Step {number}: latencies are being measured: {repetitions} repetitions so far."
    left = [training for training in asked if training not in done]
    return f"Step {number}: {len(asked) - len(left)} of {len(asked)} trainings begun are done, {len(left)} to go."

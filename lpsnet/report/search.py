"""The report of a search, finished or running: Figure 7, the table like Table 4, the Pareto front, and every step.

Figure 7 is mIoU over latency, each segment of the family in the colour of the dimension it expands.

`journal.jsonl` is enough at any moment, also while the search is running; `family/family.json` adds the latencies
measured interleaved at the end and the networks under budgets. Where `plan.json`, the options of the last start,
differs from `family/plan.json`, the family is out of date.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lpsnet.architecture import DEFAULT_BLOCK
from lpsnet.errors import LpsnetError, RunError
from lpsnet.io import write_text
from lpsnet.report import html
from lpsnet.report.charts import Axis, Drawing, Entry, Plot, Size, framed, path
from lpsnet.report.html import read_json
from lpsnet.search import family, journal
from lpsnet.search.family import ChoiceRecord, Member, Step
from lpsnet.search.journal import Event, Header, StepDecided, TrainingFinished, TrainingStarted, Unseen
from lpsnet.search.measurements import Busy, busy
from lpsnet.search.operations import DIMENSIONS, Dimension, braces
from lpsnet.search.step_size import decide, miou_per_ms

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
    unseen: tuple[Unseen, ...] = ()  # of each step: scores that took no part in its choice
    start_held_out: float | None = None  # mIoU of the start on images that no step has seen
    busy: Busy | None = None  # how much of the time was trained and measured; None where the journal does not tell

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
        search = _finished(path, events, header, plan) or _unfinished(path, events, header, plan)
        trained = [(it.at, it.details.get("seconds", 0.0)) for it in events if isinstance(it, TrainingFinished)]
        timed = [(it.at, it.seconds) for it in events if isinstance(it, journal.LatencyRepetition)]
        search = replace(search, busy=busy(trained, timed))
        if search.found is None:
            return search
        found = replace(search.found, steps=family.trusted(search.found))
        unseen = tuple(journal.unseen_scores(events, it) for it in found.steps)
        held_out = journal.held_out_of_start(events, found.start)
        return replace(search, found=found, unseen=unseen, start_held_out=held_out)
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
    done = {(it.design, it.seed, it.length, it.part) for it in now if isinstance(it, TrainingFinished)}
    asked = dict.fromkeys((design, it.seed, it.length, it.part) for it in starts for design in it.designs)
    if not asked:
        repetitions = sum(isinstance(it, journal.LatencyRepetition) for it in now)
        return f"Step {number}: latencies are being measured: {repetitions} repetitions so far."
    left = [training for training in asked if training not in done]
    return f"Step {number}: {len(asked) - len(left)} of {len(asked)} trainings begun are done, {len(left)} to go."


WIDE, NARROW = Size(1120.0, 520.0), Size(360.0, 380.0)
_TOUCH = 10.0  # pixels around a dot that answer to the pointer

# dimension -> number of its colour in `charts.css`, and the colour's name: what no step of the paper does shares two
COLOURS: Mapping[Dimension, tuple[int, str]] = {
    "depth": (1, "Depth"),
    "width": (2, "Width"),
    "resolution": (3, "Resolution"),
    **dict.fromkeys(("block", "unit"), (4, "Block")),
    **dict.fromkeys(("detail", "context", "head"), (5, "Detail, context, head")),
}


def draw_family(
    members: Sequence[Member],
    front: Sequence[Member],
    others: Sequence[Member],
    size: Size,
    *,
    budgets_ms: Sequence[float] = (),
) -> Drawing:
    """The figure.

    Args:
        members: the family, the start first.
        front: the networks that no other beats, by rising latency.
        others: the trained networks that are not in the family.
        size: of the drawing.
        budgets_ms: drawn as lines where they lie within the axis.
    """
    shown = [*members, *front, *others]
    ends = [end for it in members for end in (it.latency.low_ms, it.latency.high_ms)]
    plot = framed(
        size,
        label="mIoU over latency of all trained networks",
        x=Axis.around([*ends, *(it.latency.median_ms for it in shown)]),
        y=Axis.around([it.score.miou + sign * it.score.spread for it in shown for sign in (-1, 1)], top=100.0),
        x_name="latency (ms)",
        y_name="mIoU (%)",
        legend=_legend(members, others),
    )
    for budget in budgets_ms:
        if plot.x.low < budget < plot.x.high:
            x = plot.x.at(budget)
            plot.drawing.add("line", css="budget", x1=x, x2=x, y1=plot.y.start, y2=plot.y.end)
            plot.drawing.add("text", css="tick end", x=x - 5, y=plot.y.end + 12, text=f"{budget:g} ms")
    _draw_front(plot, front)
    for member in others:
        _draw_dot(plot, member, css=f"hollow s{_colour(member)}", radius=4.0, what="not chosen")
    for before, after in pairwise(members):
        ends_of = path([_point(plot, before), _point(plot, after)])
        plot.drawing.add("path", css=f"curve thick s{_colour(after)}", d=ends_of)
    for number, member in enumerate(members):
        _draw_member(plot, member, number)
    return plot.drawing


def describe(member: Member, *, what: str = "") -> str:
    """The lines of a network's tooltip."""
    network, latency, score = member.network, member.latency, member.score
    lines = [f"Step {member.step}{f', {what}' if what else ''}"]
    lines += [f"{member.operation} ×{member.step_size}"] if member.operation else []
    lines += [f"B {braces(network.blocks)}", f"C {braces(network.widths)}", f"R {braces(network.ratio_slots)}"]
    lines += filter(None, (network.additions, "" if network.block == DEFAULT_BLOCK else network.block))
    lines += [
        f"{latency.median_ms:.3g} ms ({latency.low_ms:.3g} to {latency.high_ms:.3g})",
        f"{score.miou:.2f}{f' ± {score.spread:.2f}' if score.spread else ''} mIoU",
    ]
    return "\n".join(lines)


def _legend(members: Sequence[Member], others: Sequence[Member]) -> list[Entry]:
    used = {it.operation.dimension for it in (*members, *others) if it.operation}
    colours = dict.fromkeys(COLOURS[it] for it in DIMENSIONS if it in used)
    names = [Entry(f"f{number}", name) for number, name in colours]
    return [*names, Entry("front-mark", "Pareto front"), *([Entry("hollow axis", "not chosen")] if others else [])]


def _colour(member: Member) -> int:
    return COLOURS[member.operation.dimension][0] if member.operation else 6


def _point(plot: Plot, member: Member) -> tuple[float, float]:
    return plot.x.at(member.latency.median_ms), plot.y.at(member.score.miou)


def _draw_front(plot: Plot, front: Sequence[Member]) -> None:
    """Steps: between two networks on the front, the faster one is the best there is."""
    corners: list[tuple[float, float]] = []
    for x, y in (_point(plot, it) for it in front):
        corners += [(x, corners[-1][1])] if corners else []
        corners.append((x, y))
    if corners:
        plot.drawing.add("path", css="front", d=path([*corners, (plot.x.end, corners[-1][1])]))


def _draw_member(plot: Plot, member: Member, number: int) -> None:
    x, y = _point(plot, member)
    low, high = plot.x.at(member.latency.low_ms), plot.x.at(member.latency.high_ms)
    plot.drawing.add("line", css="whisker across", x1=low, x2=high, y1=y, y2=y)
    for end in (low, high):
        plot.drawing.add("line", css="whisker", x1=end, x2=end, y1=y - 3, y2=y + 3)
    if spread := member.score.spread:
        ends = plot.y.at(member.score.miou - spread), plot.y.at(member.score.miou + spread)
        plot.drawing.add("line", css="whisker upright", x1=x, x2=x, y1=ends[0], y2=ends[1])
    _draw_dot(plot, member, css="knot", radius=6.0, what="")
    plot.drawing.add("text", css="strong halo end", x=x - 8, y=y - 7, text=str(number))


def _draw_dot(plot: Plot, member: Member, *, css: str, radius: float, what: str) -> None:
    """A dot, and around it an invisible one that is easier to hit."""
    x, y = _point(plot, member)
    plot.drawing.add("circle", css=css, cx=x, cy=y, r=radius)
    plot.drawing.add("circle", css="target", cx=x, cy=y, r=_TOUCH, tip=describe(member, what=what))


FIGURE = "family/figure.svg"


def expansion_page(path: Path) -> html.Page:
    """The page of an expansion's folder.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    found = read_expansion(path)
    settings = found.header.settings
    device = settings.get("device")
    steps = found.found.steps if found.found else ()
    return html.Page(
        kind="Expansion",
        title=path.resolve().name,
        lead=f"{html.text_of(settings.get('data', '?'))}, for {_device(device)}",
        tiles=_tiles(found),
        notes=found.running,
        sections=(
            html.Section("mIoU over latency", _figure(found)),
            html.Section("The family", _family(found)),
            html.Section("Pareto front of all trained networks", _front(found)),
            html.Section("The proxy's ranking, checked", _check(found)),
            html.Section("How far the choices can be trusted", _trust(found)),
            html.Section("Step by step", (*map(_step, steps), *_in_progress(found))),
            html.Section("How it was made", _making(found)),
        ),
    )


def write_figure(path: Path) -> Path:
    """Write Figure 7 of the expansion in a folder as an image of its own, and return its path.

    Raises:
        RunError: what is in the folder cannot be read, or no network is trained yet.
    """
    found = read_expansion(path)
    if not found.members:
        raise RunError(f"the expansion in {path} has no figure yet: its first network is not trained")
    file = path / FIGURE
    write_text(file, family_drawing(found).document())
    return file


def family_drawing(found: Search, *, narrow: bool = False) -> Drawing:
    """Figure 7 of a search that has a family."""
    budgets = [it.budget_ms for it in found.budgets]
    size = NARROW if narrow else WIDE
    return draw_family(found.members, found.front, found.others, size, budgets_ms=budgets)


def _device(device: Any) -> str:
    if not isinstance(device, dict):
        return "this device"
    size = device.get("size")
    shape = "x".join(map(str, size)) if isinstance(size, list) else "?"
    parts = (device.get("engine"), device.get("precision"), f"{shape} pixels", device.get("machine"))
    return ", ".join(html.text_of(part) for part in parts if part)


def _tiles(found: Search) -> tuple[html.Tile, ...]:
    if not found.members:
        return ()
    first, last = found.members[0], found.members[-1]
    best = max(found.members, key=lambda it: it.score.miou)
    decided = [step for step in (found.found.steps if found.found else ()) if step.chosen]
    return (
        html.Tile("Best mIoU", html.figure(best.score.miou, 2), "%"),
        html.Tile("Its latency", html.milliseconds(best.latency.median_ms), "ms"),
        html.Tile("From start to end", f"{html.figure(first.score.miou)} → {html.figure(last.score.miou)}", "%"),
        html.Tile("Steps", str(len(decided))),
        html.Tile("Steps undecided", str(sum(not step.decided for step in decided))),
        html.Tile("Networks trained", str(len(found.found.trained) if found.found else 0)),
    )


def _figure(found: Search) -> tuple[html.Part, ...]:
    if not found.members:
        return ()
    caption = (
        "Dots on the line are the family, numbered by step, with the 95 % interval of their latency and, where there "
        "are several, the spread of their seeds. "
        "Hollow dots were trained and not chosen. Point at a dot, or tap it, to see its architecture."
    )
    chart = html.Chart(family_drawing(found).inline(), family_drawing(found, narrow=True).inline(), caption=caption)
    heads = ("Budget (ms)", "Network to use", "Latency (ms)", "mIoU (%)", "")
    budgets = html.Table(heads, tuple(map(_budget, found.budgets)), words=(1, 4), title="Under a budget")
    return (chart, budgets) if found.budgets else (chart,)


def _budget(it: ChoiceRecord) -> tuple[html.Cell | str, ...]:
    if it.network is None:
        return (f"{it.budget_ms:g}", "none is this fast", "–", "–", "")
    close = "its interval reaches above" if it.interval_reaches_above else ""
    faster = f"{it.faster_as_good} is faster, and as good within the noise" if it.faster_as_good else ""
    note = html.Cell("; ".join(filter(None, (close, faster))), tag="doubt" if close else "")
    figures = html.milliseconds(it.network.median_ms), html.figure(it.network.miou)
    return (f"{it.budget_ms:g}", it.model or "", *figures, note)


def _family(found: Search) -> tuple[html.Part, ...]:
    files = {"File": found.files} if found.files else {}
    return _networks(found.members, family.lengths_note(found.members), more=files)


def _front(found: Search) -> tuple[html.Part, ...]:
    members = {it.design for it in found.members}
    strong = tuple(number for number, it in enumerate(found.front) if it.design in members)
    caption = "Networks of the family are set off. Between two rows, the faster one is the best there is."
    return _networks(found.front, caption, strong=strong)


def _networks(
    members: Sequence[Member],
    caption: str,
    *,
    more: Mapping[str, Sequence[str]] | None = None,
    strong: tuple[int, ...] = (),
) -> tuple[html.Part, ...]:
    columns: dict[str, Sequence[str]] = {**family.more_columns(members), **(more or {})}
    heads = (*family.FAMILY_COLUMNS, *columns)
    numbers = {"Latency (ms)", "Interval (ms)", "mIoU (%)", "At start (%)", "k"}
    words = tuple(place for place, head in enumerate(heads) if head not in numbers)
    rows = [
        (*family.family_cells(it), *(cells[number] for cells in columns.values() if number < len(cells)))
        for number, it in enumerate(members)
    ]
    cells = tuple(tuple("–" if cell == "-" else cell for cell in row) for row in rows)
    return (html.Table(heads, cells, words=words, strong=strong, caption=caption),) if rows else ()


def _check(found: Search) -> tuple[html.Part, ...]:
    """A step's candidates by longer trainings, the best of those first."""
    if found.check is None:
        return ()
    check, heads = found.check, ("Operation", "mIoU (%)", f"mIoU, {found.check.length} times as long (%)")
    ranked = sorted(check.candidates, key=lambda it: -it.longer_miou)
    rows = tuple((it.operation, html.figure(it.miou, 2), html.figure(it.longer_miou, 2)) for it in ranked)
    tau = "" if check.kendall_tau is None else f" Kendall's tau {check.kendall_tau:.2f}."
    caption = (
        f"Step {check.step}, {'the same choice' if check.same_choice else 'another choice'}.{tau} Pairs that change "
        f"places: {check.swapped_pairs}, beyond the seed spread: {check.swapped_pairs_beyond_spread}."
    )
    return (html.Table(heads, rows, caption=caption),)


TRUST = (
    "Of several noisy scores the best one is flattered. Optimism: by how much, expected of the luck of seeds; "
    "corrected: without it. Lead: what the nearest rival's mIoU lacks to be taken instead, or what the parent's does; "
    "the interval is so wide that those of all comparisons of the step hold at once, at 95 %. A choice whose interval "
    "reaches to 0 does not stand: another may have been as good."
)


def _trust(found: Search) -> tuple[html.Part, ...]:
    """Every choice: its score without the luck that the choice picked, and whether it stands."""
    steps = [(step, it) for step, it in zip(found.found.steps if found.found else (), found.unseen, strict=True)]
    chosen = [(step, step.chosen, it) for step, it in steps if step.chosen is not None]
    if not any(step.trust for step, _, _ in chosen):
        return ()
    more = {
        "Fresh seeds (%)": [html.figure(it.fresh, 2) for _, _, it in chosen] if _has(chosen, "fresh") else [],
        "Gain (points)": [html.figure(member.score.miou - step.parent.score.miou, 2) for step, member, _ in chosen],
        "Gain, held out (points)": [html.figure(_held_out_gain(it), 2) for _, _, it in chosen],
    }
    if not _has(chosen, "held_out"):
        del more["Gain (points)"], more["Gain, held out (points)"]
    more = {head: cells for head, cells in more.items() if cells}
    heads = ("Step", "Taken", "mIoU (%)", "Optimism (points)", "Corrected (%)", "Nearest", "Lead (points)", *more, "")
    rows = tuple(
        (*_trusted(step, member), *(cells[number] for cells in more.values()), _verdict(step))
        for number, (step, member, _) in enumerate(chosen)
    )
    return (html.Table(heads, rows, words=(1, 5, len(heads) - 1), caption=f"{TRUST}{_whole_gain(found, chosen)}"),)


def _whole_gain(found: Search, chosen: Sequence[tuple[Step, Member, Unseen]]) -> str:
    """What the last network has more than the start, on the images that chose it and on those held out."""
    if found.start_held_out is None or chosen[-1][2].held_out is None:
        return ""
    seen = chosen[-1][1].score.miou - found.members[0].score.miou
    unseen = chosen[-1][2].held_out - found.start_held_out
    return (
        f" From the start to the last network: {seen:.2f} points on the images that chose it, {unseen:.2f} on those "
        "that no step has seen."
    )


def _has(chosen: Sequence[tuple[Step, Member, Unseen]], name: str) -> bool:
    return any(getattr(it, name) is not None for _, _, it in chosen)


def _held_out_gain(it: Unseen) -> float | None:
    """Over the parent, on images that no step has seen."""
    return None if it.held_out is None or it.parent_held_out is None else it.held_out - it.parent_held_out


def _trusted(step: Step, chosen: Member) -> tuple[str, ...]:
    """A choice's cells up to its lead."""
    miou, found = chosen.score.miou, step.trust
    taken = (str(step.number), str(chosen.operation), html.figure(miou, 2))
    if found is None:
        return (*taken, *["–"] * 4)
    lead = f"{html.figure(found.lead, 2)} ± {html.figure(found.half_width, 2)}"
    corrected = html.figure(miou - found.optimism, 2)
    return (*taken, html.figure(found.optimism, 2), corrected, found.nearest or "the parent", lead)


def _verdict(step: Step) -> html.Cell | str:
    if step.trust is None:
        return "one seed"
    return html.Cell("stands", tag="good") if step.trust.stands else html.Cell("does not stand", tag="doubt")


def _step(step: Step) -> html.Table:
    target = "" if step.target_ms is None else f" Target {step.target_ms:.3g} ms."
    parent = f"Parent: {step.parent.latency.median_ms:.3g} ms, {family.parent_score(step.parent.score)}.{target}"
    rows = [_candidate(step, it) for it in step.candidates]
    rows += [(str(it.operation), *["–"] * 7, it.reason) for it in step.excluded]
    chosen = tuple(number for number, it in enumerate(step.candidates) if it == step.chosen)
    heads, title = family.CANDIDATE_COLUMNS, f"Step {step.number} {step.verdict}"
    return html.Table(heads, tuple(rows), words=(0, len(heads) - 1), title=title, caption=parent, strong=chosen)


def _candidate(step: Step, it: Member) -> tuple[html.Cell | str, ...]:
    latency = it.latency
    return (
        str(it.operation),
        str(it.step_size),
        html.milliseconds(latency.median_ms),
        f"{html.milliseconds(latency.low_ms)} to {html.milliseconds(latency.high_ms)}",
        html.figure(it.score.at_start),
        family.mean_and_spread(it.score),
        str(it.score.num_seeds),
        html.milliseconds(miou_per_ms(step.parent, it)),
        _standing(step, it),
    )


def _standing(step: Step, it: Member) -> html.Cell | str:
    """What became of a candidate."""
    if it == step.chosen:
        return html.Cell("chosen", tag="good")
    if it in step.rivals:
        return html.Cell("may be as good", tag="doubt")
    left = [other for other in step.candidates if step.chosen is None or other.design != step.chosen.design]
    second = decide(step.parent, left).chosen
    return html.Cell("runner-up") if second is not None and it == left[second] else ""


def _in_progress(found: Search) -> tuple[html.Part, ...]:
    """What is trained of the step that is not decided."""
    figure = html.figure
    rows = tuple(
        (it.design, str(it.seed), figure(it.at_start), figure(it.miou), it.failure or _so_far(it.part))
        for it in found.trainings
    )
    heads = ("Network", "Seed", "At start (%)", "mIoU (%)", "")
    return (html.Table(heads, rows, words=(0, 4), title="Trained so far in the step being worked on"),) if rows else ()


def _so_far(part: int) -> str:
    return f"after 1/{part} of its training" if part > 1 else ""


def _making(found: Search) -> tuple[html.Part, ...]:
    plan = {key: value for key, value in found.plan.items() if key != "command"}
    settings = {key: value for key, value in found.header.settings.items() if key not in ("recipe", "device")}
    recipe, device = found.header.settings.get("recipe"), found.header.settings.get("device")
    first = {"begun": found.header.at, "lpsnet version": found.header.lpsnet_version}
    first |= {"time": str(found.busy)} if found.busy else {}
    made = {
        "Search": (*html.flat(settings), *html.flat(plan), *html.flat(first)),
        "Latencies": html.flat(device if isinstance(device, dict) else {}),
        "Recipe of the candidates": html.flat(recipe if isinstance(recipe, dict) else {}),
    }
    return html.making(html.text_of(found.plan.get("command") or ""), made)

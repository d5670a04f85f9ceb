"""The report of an expansion: Figure 7, the table like Table 4, the Pareto front, and what each step tried and why.

Works on a search that is still running, too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lpsnet.charts.svg import Drawing
from lpsnet.errors import RunError
from lpsnet.io import write_text
from lpsnet.reporting import expansion_figure
from lpsnet.reporting.expansion_reading import Budget, Search, read_expansion
from lpsnet.reporting.page import (
    Cell,
    Chart,
    Command,
    Facts,
    Page,
    Part,
    Section,
    Table,
    Tile,
    figure,
    milliseconds,
)
from lpsnet.reporting.reading import flat, text_of
from lpsnet.search.family import FAMILY_COLUMNS, Member, Step, family_cells, lengths_note, mean_and_spread, parent_score
from lpsnet.search.step_size import decide, miou_per_ms

FIGURE = "family/figure.svg"

_CANDIDATES = (
    "Operation",
    "k",
    "Latency (ms)",
    "Interval (ms)",
    "At start (%)",
    "mIoU (%)",
    "Seeds",
    "Points a ms",
    "",
)


def expansion_page(path: Path) -> Page:
    """The page of an expansion's folder.

    Raises:
        RunError: what is in the folder cannot be read.
    """
    found = read_expansion(path)
    settings = found.header.settings
    device = settings.get("device")
    steps = found.found.steps if found.found else ()
    return Page(
        kind="Expansion",
        title=path.resolve().name,
        lead=f"{text_of(settings.get('data', '?'))}, for {_device(device)}",
        tiles=_tiles(found),
        notes=found.running,
        sections=(
            Section("mIoU over latency", _figure(found)),
            Section("The family", _family(found)),
            Section("Pareto front of all trained networks", _front(found)),
            Section("The proxy's ranking, checked", _check(found)),
            Section("Step by step", tuple(_step(step) for step in steps) + _in_progress(found)),
            Section("How it was made", _making(found)),
        ),
    )


def write_figure(path: Path) -> Path:
    """Write Figure 7 of the expansion in a folder as a picture of its own, and return its path.

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
    size = expansion_figure.NARROW if narrow else expansion_figure.WIDE
    budgets = [it.ms for it in found.budgets]
    return expansion_figure.draw_family(found.members, found.front, found.others, size, budgets_ms=budgets)


def _device(device: Any) -> str:
    if not isinstance(device, dict):
        return "this device"
    size = device.get("size")
    shape = "x".join(map(str, size)) if isinstance(size, list) else "?"
    parts = (device.get("engine"), device.get("precision"), f"{shape} pixels", device.get("machine"))
    return ", ".join(text_of(part) for part in parts if part)


def _tiles(found: Search) -> tuple[Tile, ...]:
    if not found.members:
        return ()
    first, last = found.members[0], found.members[-1]
    best = max(found.members, key=lambda it: it.score.miou)
    decided = [step for step in (found.found.steps if found.found else ()) if step.chosen]
    return (
        Tile("Best mIoU", figure(best.score.miou, 2), "%"),
        Tile("Its latency", milliseconds(best.latency.median_ms), "ms"),
        Tile("From start to end", f"{figure(first.score.miou)} → {figure(last.score.miou)}", "%"),
        Tile("Steps", str(len(decided))),
        Tile("Steps undecided", str(sum(not step.decided for step in decided))),
        Tile("Networks trained", str(len(found.found.trained) if found.found else 0)),
    )


def _figure(found: Search) -> tuple[Part, ...]:
    if not found.members:
        return ()
    caption = (
        "Dots on the line are the family, numbered by step, with the 95 % interval of their latency and, where there "
        "are several, the spread of their seeds. "
        "Hollow dots were trained and not chosen. Point at a dot, or tap it, to see its architecture."
    )
    chart = Chart(family_drawing(found).inline(), family_drawing(found, narrow=True).inline(), caption=caption)
    return (chart, *((_budgets(found.budgets),) if found.budgets else ()))


def _budgets(budgets: Sequence[Budget]) -> Table:
    heads = ("Budget (ms)", "Network to use", "Latency (ms)", "mIoU (%)", "")
    return Table(heads, tuple(map(_budget, budgets)), words=(1, 4), title="Under a budget")


def _budget(it: Budget) -> tuple[Cell | str, ...]:
    if it.member is None:
        return (f"{it.ms:g}", "none is this fast", "–", "–", "")
    close = "its interval reaches above" if it.close else ""
    faster = f"{it.faster} is faster, and as good within the noise" if it.faster else ""
    told = Cell("; ".join(filter(None, (close, faster))), tag="doubt" if it.close else "")
    return (f"{it.ms:g}", it.model, milliseconds(it.member.latency.median_ms), figure(it.member.score.miou), told)


def _family(found: Search) -> tuple[Part, ...]:
    files = ("File",) if found.files else ()
    rows = [
        (*family_cells(it), *((found.files[number],) if found.files else ())) for number, it in enumerate(found.members)
    ]
    return (_networks(rows, files, caption=lengths_note(found.members)),) if rows else ()


def _front(found: Search) -> tuple[Part, ...]:
    family = {it.design for it in found.members}
    rows = [family_cells(it) for it in found.front]
    strong = tuple(number for number, it in enumerate(found.front) if it.design in family)
    caption = "Networks of the family are set off. Between two rows, the faster one is the best there is."
    return (_networks(rows, (), strong=strong, caption=caption),) if rows else ()


def _networks(
    rows: Sequence[Sequence[str]], more: tuple[str, ...], *, strong: tuple[int, ...] = (), caption: str = ""
) -> Table:
    words = (0, 1, 2, 3, FAMILY_COLUMNS.index("Dimension"), len(FAMILY_COLUMNS))
    cells = tuple(tuple("–" if cell == "-" else cell for cell in row) for row in rows)
    return Table((*FAMILY_COLUMNS, *more), cells, words=words, strong=strong, caption=caption)


def _check(found: Search) -> tuple[Part, ...]:
    """A step's candidates by longer trainings, the best of those first."""
    if found.check is None:
        return ()
    check, heads = found.check, ("Operation", "mIoU (%)", f"mIoU, {found.check.length} times as long (%)")
    ranked = sorted(check.candidates, key=lambda it: -it.longer_miou)
    rows = tuple((it.operation, figure(it.miou, 2), figure(it.longer_miou, 2)) for it in ranked)
    tau = "" if check.kendall_tau is None else f" Kendall's tau {check.kendall_tau:.2f}."
    caption = (
        f"Step {check.step}, {'the same choice' if check.same_choice else 'another choice'}.{tau} Pairs that change "
        f"places: {check.swapped_pairs}, beyond the seed spread: {check.swapped_pairs_beyond_spread}."
    )
    return (Table(heads, rows, caption=caption),)


def _step(step: Step) -> Table:
    target = "" if step.target_ms is None else f" Target {step.target_ms:.3g} ms."
    parent = f"Parent: {step.parent.latency.median_ms:.3g} ms, {parent_score(step.parent.score)}.{target}"
    rows = [_candidate(step, it) for it in step.candidates]
    rows += [(str(it.operation), *["–"] * 7, it.reason) for it in step.excluded]
    chosen = tuple(number for number, it in enumerate(step.candidates) if it == step.chosen)
    words = (0, len(_CANDIDATES) - 1)
    title = f"Step {step.number} {step.verdict}"
    return Table(_CANDIDATES, tuple(rows), words=words, title=title, caption=parent, strong=chosen)


def _candidate(step: Step, it: Member) -> tuple[Cell | str, ...]:
    latency = it.latency
    return (
        str(it.operation),
        str(it.step_size),
        milliseconds(latency.median_ms),
        f"{milliseconds(latency.low_ms)} to {milliseconds(latency.high_ms)}",
        figure(it.score.at_start),
        mean_and_spread(it.score),
        str(it.score.num_seeds),
        milliseconds(miou_per_ms(step.parent, it)),
        _standing(step, it),
    )


def _standing(step: Step, it: Member) -> Cell | str:
    """What became of a candidate."""
    if it == step.chosen:
        return Cell("chosen", tag="good")
    if it in step.rivals:
        return Cell("may be as good", tag="doubt")
    left = [other for other in step.candidates if step.chosen is None or other.design != step.chosen.design]
    second = decide(step.parent, left).chosen
    return Cell("runner-up") if second is not None and it == left[second] else ""


def _in_progress(found: Search) -> tuple[Part, ...]:
    """What is trained of the step that is not decided."""
    rows = tuple((it.design, str(it.seed), figure(it.at_start), figure(it.miou), it.failure) for it in found.trainings)
    heads = ("Network", "Seed", "At start (%)", "mIoU (%)", "")
    return (Table(heads, rows, words=(0, 4), title="Trained so far in the step being worked on"),) if rows else ()


def _making(found: Search) -> tuple[Part, ...]:
    plan = {key: value for key, value in found.plan.items() if key != "command"}
    command = found.plan.get("command")
    settings = {key: value for key, value in found.header.settings.items() if key not in ("recipe", "device")}
    recipe, device = found.header.settings.get("recipe"), found.header.settings.get("device")
    first = {"begun": found.header.at, "lpsnet version": found.header.lpsnet_version}
    parts = (
        Command(text_of(command), title="Command") if command else None,
        Facts((*flat(settings), *flat(plan), *flat(first)), title="Search"),
        Facts(tuple(flat(device)), title="Latencies") if isinstance(device, dict) else None,
        Facts(tuple(flat(recipe)), title="Recipe of the candidates") if isinstance(recipe, dict) else None,
    )
    return tuple(part for part in parts if part is not None)

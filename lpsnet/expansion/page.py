"""An expansion for people to read: the table so far, and a page of Markdown with what each step tried and why."""

from collections.abc import Sequence
from math import sqrt

from lpsnet.expansion.delivery import Delivery
from lpsnet.expansion.family import Member, Step
from lpsnet.expansion.ranking import decide, miou_per_ms
from lpsnet.expansion.ranking_check import check_table
from lpsnet.expansion.table import family_table, lengths_note, mean_and_spread, parent_score
from lpsnet.models.profile import complexity

_CANDIDATE_COLUMNS = (
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


def progress_table(members: Sequence[Member]) -> list[str]:
    """The family so far, a line a network, for a terminal."""
    lines = [f"{'step':>6} {'ms':>8} {'mIoU':>6} {'start':>6}  {'dimension':<11}network"]
    for member in members:
        score = member.score
        at_start = "-" if score.at_start is None else f"{score.at_start:.1f}"
        dimension = member.operation.dimension if member.operation else "-"
        figures = f"{member.step:>6} {member.latency.median_ms:>8.3g} {score.miou:>6.1f} {at_start:>6}"
        lines.append(f"{figures}  {dimension:<11}{member.network}")
    return lines


def page(delivery: Delivery, *, title: str, num_classes: int, interaction: str) -> str:
    """Markdown: the family's table, the choices, the Pareto front and the steps.

    Args:
        delivery: what is reported.
        title: the first line.
        num_classes, interaction: of the networks, for their number of parameters.
    """
    parameters = {
        it.design: complexity(
            it.design.architecture, num_classes=num_classes, block=it.design.block, interaction=interaction
        ).parameters
        for it in delivery.members
    }
    parts = [f"# {title}", family_table(delivery.members, parameters=parameters)]
    if note := lengths_note(delivery.members):
        parts.append(note)
    if delivery.choices:
        parts += ["## Under a budget", "\n".join(f"- {choice}" for choice in delivery.choices)]
    parts += ["## Pareto front of all trained networks", family_table(delivery.front)]
    if delivery.check is not None:
        parts += ["## The proxy's ranking, checked", f"In {delivery.check}.", check_table(delivery.check)]
    parts += [_section(step) for step in delivery.found.steps]
    return "\n\n".join(parts) + "\n"


def _section(step: Step) -> str:
    parent = step.parent
    target = "" if step.target_ms is None else f"Target {step.target_ms:.3g} ms. "
    before = f"Parent: {parent.latency.median_ms:.3g} ms, {parent_score(parent.score)}. "
    rows = [
        _cells(_CANDIDATE_COLUMNS),
        _cells(["---"] * len(_CANDIDATE_COLUMNS)),
        *(_cells(_candidate(step, it)) for it in step.candidates),
        *(_cells([str(it.operation), *["-"] * 7, it.reason]) for it in step.excluded),
    ]
    return "\n\n".join(
        [f"## Step {step.number} {step.verdict}", f"{target}{before}{_lead(step)}".rstrip(), "\n".join(rows)]
    )


def _lead(step: Step) -> str:
    """The lead of the network taken over the next, beside what one training's score may be off by."""
    if step.chosen is None:
        return ""
    others = [it for it in step.candidates if it.design != step.chosen.design]
    second = decide(step.parent, others).chosen
    lead = (
        ""
        if second is None
        else f"Lead over the next: {step.chosen.score.miou - others[second].score.miou:.2f} points. "
    )
    score = step.chosen.score
    if score.num_seeds == 1:
        return f"{lead}Scores of one seed: how much of them is luck is not known."
    return f"{lead}A single training's spread over seeds: {score.spread * sqrt(score.num_seeds):.2f}."


def _candidate(step: Step, member: Member) -> list[str]:
    slope, at_start, latency = miou_per_ms(step.parent, member), member.score.at_start, member.latency
    return [
        str(member.operation),
        str(member.step_size),
        f"{latency.median_ms:.3g}",
        f"{latency.low_ms:.3g} to {latency.high_ms:.3g}",
        "-" if at_start is None else f"{at_start:.1f}",
        mean_and_spread(member.score),
        str(member.score.num_seeds),
        "-" if slope is None else f"{slope:.3g}",
        "chosen" if member == step.chosen else "may be as good" if member in step.rivals else "",
    ]


def _cells(values: Sequence[str]) -> str:
    return f"| {' | '.join(values)} |"

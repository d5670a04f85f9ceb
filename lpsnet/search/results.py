"""Whether a proxy ranks candidates as longer trainings do: one step's candidates trained again, several times as long.

The paper trains every candidate in full; a proxy (`proxies.py`) cannot be trusted with a choice before somebody has
looked. The candidates start from the same weights of the same parent, and the order of their mIoU is compared pair by
pair. A pair that changes places counts less if the proxy's own scores were within the seed spread of each other.

What an expansion hands over: the family's networks, what it measured of them, and the one to use under each budget.

In the folder: `step_N.safetensors` and `step_N.onnx` for each step's network, `candidate_SLUG` alike for a network that
was not chosen in its step but is the best under a budget, `family.json` for machines, `table.md` for people, and
`plan.json`, the run's plan that all this was made for: while the run has another one, it has not delivered.

An expansion for people to read: the table so far, and a page of Markdown with what each step tried and why.
"""

import filecmp
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from pathlib import Path
from typing import Any, Self

from lpsnet.data.images import Image
from lpsnet.errors import RunError
from lpsnet.export.onnx import export_onnx
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.models.profile import complexity
from lpsnet.search.family import (
    Expansion,
    Member,
    Step,
    as_good_and_faster,
    best_under,
    family_table,
    lengths_note,
    mean_and_spread,
    parent_score,
    pareto_front,
)
from lpsnet.search.journal import Row
from lpsnet.search.measurements import Outcome, Score
from lpsnet.search.operations import Design
from lpsnet.search.plan import PLAN
from lpsnet.search.step_size import decide, miou_per_ms


@dataclass(frozen=True, slots=True)
class Checked:
    """A candidate trained both ways."""

    member: Member
    longer: Score


@dataclass(frozen=True, slots=True)
class RankingCheck:
    """What longer trainings say of a step.

    Attributes:
        step: the step.
        length: how many times as long as the step's the longer trainings are.
        checked: its candidates, every design once; those whose longer training has no score are left out.
    """

    step: Step
    length: int
    checked: tuple[Checked, ...]

    @classmethod
    def of(cls, step: Step, outcomes: Mapping[Design, Outcome], *, length: int) -> "RankingCheck":
        """The check of a step, from the outcomes of the longer trainings of its candidates."""
        members = {member.design: member for member in reversed(step.candidates)}
        both = ((member, outcomes[design]) for design, member in reversed(members.items()))
        return cls(step, length, tuple(Checked(member, it) for member, it in both if isinstance(it, Score)))

    @property
    def swapped(self) -> list[tuple[Checked, Checked]]:
        """The pairs in opposite orders."""
        pairs = combinations(self.checked, 2)
        return [(a, b) for a, b in pairs if (a.member.score.miou - b.member.score.miou) * _lead(a, b) < 0]

    @property
    def swapped_clearly(self) -> list[tuple[Checked, Checked]]:
        """Those of `swapped` whose scores in the search were apart by more than their spreads together."""
        return [(a, b) for a, b in self.swapped if not _alike(a.member.score, b.member.score)]

    @property
    def kendall_tau(self) -> float | None:
        """Pairs in the same order minus those in the opposite, over all: 1 for the same order. None without pairs."""
        pairs = list(combinations(self.checked, 2))
        tied = sum(a.member.score.miou == b.member.score.miou or not _lead(a, b) for a, b in pairs)
        return (len(pairs) - tied - 2 * len(self.swapped)) / len(pairs) if pairs else None

    @property
    def choice(self) -> Member | None:
        """What Equation 5 takes with the longer trainings' scores; the parent's score is that of the search."""
        chosen = decide(self.step.parent, [_Longer(it) for it in self.checked]).chosen
        return None if chosen is None else self.checked[chosen].member

    @property
    def same_choice(self) -> bool:
        """Whether that is what the step took."""
        chosen, choice = self.step.chosen, self.choice
        return (chosen and chosen.design) == (choice and choice.design)

    def __str__(self) -> str:
        """The check in a sentence."""
        tau, num = self.kendall_tau, len(self.checked)
        if tau is None:
            return f"step {self.step.number} has too few candidates to rank"
        choice = "the same choice" if self.same_choice else f"{self.choice and self.choice.operation} instead"
        swaps = f"{len(self.swapped)} of {num * (num - 1) // 2} pairs change places"
        clear = f"{len(self.swapped_clearly)} of them beyond the seed spread"
        return (
            f"step {self.step.number}, {self.length} times as long: {choice}; Kendall's tau {tau:.2f}: {swaps}, {clear}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "step": self.step.number,
            "length": self.length,
            "kendall_tau": self.kendall_tau,
            "same_choice": self.same_choice,
            "swapped_pairs": len(self.swapped),
            "swapped_pairs_beyond_spread": len(self.swapped_clearly),
            "candidates": [
                {"operation": str(it.member.operation), "miou": it.member.score.miou, "longer_miou": it.longer.miou}
                for it in self.checked
            ],
        }


def check_table(check: RankingCheck) -> str:
    """The check's candidates in Markdown, the best of the longer trainings first."""
    header = ("Operation", "k", "mIoU (%)", "Rank", f"mIoU, {check.length} times as long (%)", "Rank")
    short = _ranks([it.member.score.miou for it in check.checked])
    long = _ranks([it.longer.miou for it in check.checked])
    rows = sorted(zip(long, short, check.checked, strict=True), key=lambda row: row[0])
    lines = [header, ("---",) * len(header)]
    for place, before, it in rows:
        member, score = it.member, it.member.score
        figures = (f"{score.miou:.2f}", str(before), f"{it.longer.miou:.2f}", str(place))
        lines.append((str(member.operation), str(member.step_size), *figures))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True, slots=True)
class _Longer:
    """A candidate with its longer training's score; a `Measured`."""

    checked: Checked

    @property
    def latency(self) -> Any:
        return self.checked.member.latency

    @property
    def score(self) -> Score:
        return self.checked.longer


def _lead(a: Checked, b: Checked) -> float:
    return a.longer.miou - b.longer.miou


def _alike(a: Score, b: Score) -> bool:
    return abs(a.miou - b.miou) <= a.spread + b.spread


def _ranks(values: Sequence[float]) -> list[int]:
    """1 for the largest; equal values share a rank."""
    return [1 + sum(other > value for other in values) for value in values]


FAMILY = "family.json"
_OWN_FILE = re.compile(r"(step_\d+|candidate_[0-9a-f]{16})\.(onnx|safetensors)")


@dataclass(frozen=True, slots=True)
class Choice:
    """The network to use under a latency budget.

    Attributes:
        budget_ms: the budget.
        member: the network; None if all trained ones are slower.
        model: its ONNX file.
        faster: a member of the family that is faster and as good within the noise of the scores, if there is one.
        faster_model: its ONNX file.
    """

    budget_ms: float
    member: Member | None
    model: Path | None
    faster: Member | None = None
    faster_model: Path | None = None

    @property
    def close(self) -> bool:
        """Whether the interval of the network's latency reaches above the budget."""
        return self.member is not None and self.member.latency.high_ms > self.budget_ms

    def __str__(self) -> str:
        """What to use under the budget, in a sentence."""
        if self.member is None or self.model is None:
            return f"{self.budget_ms:g} ms: no trained network is this fast"
        latency = self.member.latency
        close = f", whose interval reaches to {latency.high_ms:.3g} ms" if self.close else ""
        score = f"{self.member.score.miou:.1f} mIoU at {latency.median_ms:.3g} ms"
        return f"{self.budget_ms:g} ms: {self.model.name}, {score}{close}{self._faster}"

    @property
    def _faster(self) -> str:
        if self.faster is None or self.faster_model is None:
            return ""
        score = f"{self.faster.score.miou:.1f} at {self.faster.latency.median_ms:.3g} ms"
        return f"; as good within the noise, and faster: {self.faster_model.name}, {score}"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What an expansion hands over.

    Attributes:
        folder: where its files are.
        found: the search, with latencies as they were measured in each step.
        members: the family, the start first, its latencies measured in turn at the end.
        front: the trained networks that no other beats in both latency and mIoU, by rising latency; measured with the
            family.
        choices: one for every budget asked for, the smallest first.
        check: of a step's ranking by longer trainings, if it was asked for.
    """

    folder: Path
    found: Expansion
    members: tuple[Member, ...]
    front: tuple[Member, ...]
    choices: tuple[Choice, ...]
    check: RankingCheck | None = None

    @classmethod
    def of(cls, found: Expansion, measured: Sequence[Member], *, budgets_ms: Sequence[float], folder: Path) -> Self:
        """The delivery of a search.

        Args:
            found: the search.
            measured: the family and whatever else may be on the front, each with the latency that counts.
            budgets_ms: for which networks are named.
            folder: for the files.
        """
        now = {it.design: it for it in measured}
        bare = cls(folder, found, tuple(now[it.design] for it in found.members), tuple(pareto_front(measured)), ())
        choices = (bare._choice(budget_ms, best_under(measured, budget_ms)) for budget_ms in sorted(set(budgets_ms)))
        return cls(folder, found, bare.members, bare.front, tuple(choices))

    def _choice(self, budget_ms: float, best: Member | None) -> Choice:
        if best is None:
            return Choice(budget_ms, None, None)
        faster = as_good_and_faster(self.members, best)
        return Choice(budget_ms, best, self.model(best), faster, None if faster is None else self.model(faster))

    @property
    def best(self) -> Member:
        """The network for the largest budget that can be met, or else the family's last."""
        return next((it.member for it in reversed(self.choices) if it.member is not None), self.members[-1])

    @property
    def handed_over(self) -> list[Member]:
        """The networks whose files are in the folder."""
        return list(dict.fromkeys([*self.members, *(it.member for it in self.choices if it.member is not None)]))

    def model(self, member: Member) -> Path:
        """The ONNX file of a network that is handed over; its weights are beside it."""
        steps = {it.design: it.step for it in self.members}
        step = steps.get(member.design)
        return self.folder / f"{f'candidate_{member.design.slug}' if step is None else f'step_{step}'}.onnx"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "family": [{**_row(it), "model": self.model(it).name} for it in self.members],
            "front": [_row(it) for it in self.front],
            "choices": [
                {
                    "budget_ms": choice.budget_ms,
                    "network": None if choice.member is None else _row(choice.member),
                    "model": None if choice.model is None else choice.model.name,
                    "interval_reaches_above": choice.close,
                    "faster_as_good": None if choice.faster_model is None else choice.faster_model.name,
                }
                for choice in self.choices
            ],
            "steps": [_step(step) for step in self.found.steps],
            "stop": self.found.stop,
            "ranking_check": None if self.check is None else self.check.to_dict(),
        }


def write_models(
    delivery: Delivery, checkpoints: Mapping[Design, Path], *, size: tuple[int, int], images: Sequence[Image]
) -> None:
    """Write weights and ONNX file of every network that is handed over, all of a delivery but its figures.

    Files that are there already stay; those of networks that are not handed over any more go. If the plan is not the
    one that the delivery before was made for, its `family.json` goes first: killed at any moment, this leaves no old
    figures for a new plan.

    Args:
        delivery: what is handed over.
        checkpoints: of its designs, as trained.
        size: (height, width) in pixels that the ONNX files are for.
        images: H x W x 3 uint8 RGB each, that the ONNX files are compared with the networks on.

    Raises:
        RunError: the folder cannot be written.
    """
    plan, kept = delivery.folder.parent / PLAN, delivery.folder / PLAN
    try:
        if not kept.exists() or not filecmp.cmp(kept, plan, shallow=False):
            (delivery.folder / FAMILY).unlink(missing_ok=True)
        _remove_others(delivery)
    except OSError as error:
        raise RunError(f"{delivery.folder} cannot be written: {error.strerror or error}; make it writable") from None
    for member in delivery.handed_over:
        path = delivery.model(member)
        weights, trained = path.with_suffix(".safetensors"), checkpoints[member.design]
        if not weights.exists() or not filecmp.cmp(weights, trained, shallow=False):
            with atomic_path(weights) as temporary:
                shutil.copyfile(trained, temporary)
        if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
            export_onnx(load_checkpoint(weights), path, record=read_record(weights), size=size, images=images)
    with atomic_path(kept) as temporary:
        shutil.copyfile(plan, temporary)


def _remove_others(delivery: Delivery) -> None:
    """Remove the models of earlier deliveries that are not handed over now."""
    names = {delivery.model(it).stem for it in delivery.handed_over}
    files = list(delivery.folder.iterdir()) if delivery.folder.is_dir() else []
    for file in files:
        if _OWN_FILE.fullmatch(file.name) and file.stem not in names:
            file.unlink()


def _row(member: Member) -> dict[str, Any]:
    return Row.of(member).model_dump(mode="json")


def _step(step: Step) -> dict[str, Any]:
    return {
        "number": step.number,
        "target_ms": step.target_ms,
        "parent": _row(step.parent),
        "chosen": None if step.chosen is None else _row(step.chosen),
        "candidates": [_row(it) for it in step.candidates],
        "excluded": {str(it.operation): it.reason for it in step.excluded},
        "rivals": [str(it.operation) for it in step.rivals],
        "doubt": step.doubt,
        "stop": step.stop,
    }


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
        [f"## Step {step.number} {step.verdict}", f"{target}{before}{_step_lead(step)}".rstrip(), "\n".join(rows)]
    )


def _step_lead(step: Step) -> str:
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

"""The result of a search: exported networks, the one to use under each budget, the ranking check, and the tables.

In the folder `family`: `step_N.safetensors` and `step_N.onnx` of each step's network, `candidate_SLUG.*` of a network
that was not chosen in its step but is the best under a budget, `family.json`, `table.md`, and a copy of the run's
`plan.json`: while the run's own is another one, the result is out of date.
"""

import filecmp
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from lpsnet.search import family
from lpsnet.search.family import Expansion, Member, Row, Step, markdown_table
from lpsnet.search.measurements import Outcome, Score
from lpsnet.search.operations import Design
from lpsnet.search.step_size import decide, miou_per_ms


@dataclass(frozen=True, slots=True)
class Checked:
    """A candidate and its score after the longer training."""

    member: Member
    longer: Score


@dataclass(frozen=True, slots=True)
class RankingCheck:
    """Whether a proxy recipe ranks a step's candidates as longer trainings from the same parent weights do.

    The mIoU of the candidates is compared pair by pair.

    Attributes:
        step: the step.
        length: of the longer trainings, relative to the step's.
        checked: its candidates, every design once, without those whose longer training failed.
    """

    step: Step
    length: int
    checked: tuple[Checked, ...]

    @classmethod
    def of(cls, step: Step, outcomes: Mapping[Design, Outcome], *, length: int) -> "RankingCheck":
        """The check of a step, from the outcomes of the longer trainings of its candidates."""
        both = ((member, outcomes[member.design]) for member in family.distinct(step.candidates))
        return cls(step, length, tuple(Checked(member, it) for member, it in both if isinstance(it, Score)))

    @property
    def swapped(self) -> list[tuple[Checked, Checked]]:
        """The pairs in opposite orders."""
        pairs = combinations(self.checked, 2)
        return [(a, b) for a, b in pairs if (a.member.score.miou - b.member.score.miou) * _lead(a, b) < 0]

    @property
    def swapped_clearly(self) -> list[tuple[Checked, Checked]]:
        """Those of `swapped` whose scores in the search differ by more than the sum of their spreads."""
        return [(a, b) for a, b in self.swapped if not _within_spread(a.member.score, b.member.score)]

    @property
    def kendall_tau(self) -> float | None:
        """Pairs in the same order minus pairs in opposite orders, divided by all pairs; None without pairs."""
        pairs = list(combinations(self.checked, 2))
        tied = sum(a.member.score.miou == b.member.score.miou or not _lead(a, b) for a, b in pairs)
        return (len(pairs) - tied - 2 * len(self.swapped)) / len(pairs) if pairs else None

    @property
    def choice(self) -> Member | None:
        """The candidate that Equation 5 takes with the longer trainings' scores and the parent's old score."""
        longer = [replace(it.member, score=it.longer) for it in self.checked]
        chosen = decide(self.step.parent, longer).chosen
        return None if chosen is None else self.checked[chosen].member

    @property
    def same_choice(self) -> bool:
        """Whether the step took the same candidate."""
        chosen, choice = self.step.chosen, self.choice
        return (chosen and chosen.design) == (choice and choice.design)

    def __str__(self) -> str:
        """The check in one line."""
        tau, num = self.kendall_tau, len(self.checked)
        if tau is None:
            return f"step {self.step.number} has too few candidates to rank"
        choice = "the same choice" if self.same_choice else f"{self.choice and self.choice.operation} instead"
        swaps = f"{len(self.swapped)} of {num * (num - 1) // 2} pairs change places"
        clear = f"{len(self.swapped_clearly)} of them beyond the seed spread"
        return (
            f"step {self.step.number}, {self.length} times as long: {choice}; Kendall's tau {tau:.2f}: {swaps}, {clear}"
        )

    @property
    def record(self) -> family.RankingRecord:
        """The check in `family.json`."""
        return family.RankingRecord(
            step=self.step.number,
            length=self.length,
            kendall_tau=self.kendall_tau,
            same_choice=self.same_choice,
            swapped_pairs=len(self.swapped),
            swapped_pairs_beyond_spread=len(self.swapped_clearly),
            candidates=tuple(
                family.CheckedRecord(
                    operation=str(it.member.operation), miou=it.member.score.miou, longer_miou=it.longer.miou
                )
                for it in self.checked
            ),
        )


def check_table(check: RankingCheck) -> str:
    """The checked candidates as a Markdown table, by falling mIoU of the longer trainings."""
    header = ("Operation", "k", "mIoU (%)", "Rank", f"mIoU, {check.length} times as long (%)", "Rank")
    short = _ranks([it.member.score.miou for it in check.checked])
    long = _ranks([it.longer.miou for it in check.checked])
    rows = sorted(zip(long, short, check.checked, strict=True), key=lambda row: row[0])
    lines = []
    for place, before, it in rows:
        member, score = it.member, it.member.score
        figures = (f"{score.miou:.2f}", str(before), f"{it.longer.miou:.2f}", str(place))
        lines.append((str(member.operation), str(member.step_size), *figures))
    return markdown_table(header, lines)


def _lead(a: Checked, b: Checked) -> float:
    return a.longer.miou - b.longer.miou


def _within_spread(a: Score, b: Score) -> bool:
    return abs(a.miou - b.miou) <= a.spread + b.spread


def _ranks(values: Sequence[float]) -> list[int]:
    """1 for the largest; equal values share a rank."""
    return [1 + sum(other > value for other in values) for value in values]


FAMILY = "family.json"
PLAN = "plan.json"  # in the folder of a run, and a copy with the family that was made for it
_OWN_FILE = re.compile(r"(step_\d+|candidate_[0-9a-f]{16})\.(onnx|safetensors)")


@dataclass(frozen=True, slots=True)
class Choice:
    """The network to use under a latency budget.

    Attributes:
        budget_ms: the budget.
        member: the network; None if all trained ones are slower.
        model: its ONNX file.
        faster: a faster member of the family with the same mIoU within the noise, if there is one.
        faster_model: its ONNX file.
    """

    budget_ms: float
    member: Member | None
    model: Path | None
    faster: Member | None = None
    faster_model: Path | None = None

    @property
    def close(self) -> bool:
        """Whether the interval of its latency reaches above the budget."""
        return self.member is not None and self.member.latency.high_ms > self.budget_ms

    def __str__(self) -> str:
        """The choice in one line."""
        if self.member is None or self.model is None:
            return f"{self.budget_ms:g} ms: no trained network is this fast"
        latency = self.member.latency
        close = f", whose interval reaches to {latency.high_ms:.3g} ms" if self.close else ""
        score = f"{self.member.score.miou:.1f} mIoU at {latency.median_ms:.3g} ms{close}"
        found = f"{self.budget_ms:g} ms: {self.model.name}, {score}"
        if self.faster is None or self.faster_model is None:
            return found
        score = f"{self.faster.score.miou:.1f} at {self.faster.latency.median_ms:.3g} ms"
        return f"{found}; as good within the noise, and faster: {self.faster_model.name}, {score}"

    @property
    def record(self) -> family.ChoiceRecord:
        """The choice in `family.json`."""
        return family.ChoiceRecord(
            budget_ms=self.budget_ms,
            network=self.member and Row.of(self.member),
            model=self.model and self.model.name,
            interval_reaches_above=self.close,
            faster_as_good=self.faster_model and self.faster_model.name,
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.

    Attributes:
        folder: of its files.
        found: the search, with latencies as they were measured in each step.
        members: the family, the start first, its latencies measured interleaved at the end.
        front: the Pareto front of all trained networks, by rising latency, measured with the family.
        choices: one for each budget, the smallest first.
        check: of a step's ranking by longer trainings, if requested.
    """

    folder: Path
    found: Expansion
    members: tuple[Member, ...]
    front: tuple[Member, ...]
    choices: tuple[Choice, ...]
    check: RankingCheck | None = None

    @classmethod
    def of(cls, found: Expansion, measured: Sequence[Member], *, budgets_ms: Sequence[float], folder: Path) -> Self:
        """The result of a search.

        Args:
            found: the search.
            measured: the family and other candidates for the front, with latencies measured interleaved.
            budgets_ms: latency budgets to choose networks for.
            folder: for the files.
        """
        now = {it.design: it for it in measured}
        members = tuple(now[it.design] for it in found.members)
        bare = cls(folder, found, members, tuple(family.pareto_front(measured)), ())
        choices = (bare._choice(budget, family.best_under(measured, budget)) for budget in sorted(set(budgets_ms)))
        return replace(bare, choices=tuple(choices))

    def _choice(self, budget_ms: float, best: Member | None) -> Choice:
        if best is None:
            return Choice(budget_ms, None, None)
        faster = family.as_good_and_faster(self.members, best)
        return Choice(budget_ms, best, self.model(best), faster, None if faster is None else self.model(faster))

    @property
    def best(self) -> Member:
        """The network for the largest budget that one meets, or else the family's last."""
        return next((it.member for it in reversed(self.choices) if it.member is not None), self.members[-1])

    @property
    def exported(self) -> list[Member]:
        """The networks that have files in the folder."""
        return list(dict.fromkeys([*self.members, *(it.member for it in self.choices if it.member is not None)]))

    def model(self, member: Member) -> Path:
        """The ONNX file of an exported network; its weights have the same name with `.safetensors`."""
        step = {it.design: it.step for it in self.members}.get(member.design)
        return self.folder / (f"candidate_{member.design.slug}.onnx" if step is None else f"step_{step}.onnx")

    def to_dict(self) -> dict[str, Any]:
        """The JSON values of `family.json`."""
        return family.FamilyRecord(
            family=tuple(family.FamilyRow.of(it, model=self.model(it).name) for it in self.members),
            front=tuple(map(Row.of, self.front)),
            choices=tuple(it.record for it in self.choices),
            steps=tuple(map(family.StepRecord.of, self.found.steps)),
            stop=self.found.stop,
            ranking_check=self.check and self.check.record,
        ).model_dump(mode="json")


def write_models(
    result: SearchResult, checkpoints: Mapping[Design, Path], *, size: tuple[int, int], images: Sequence[Image]
) -> None:
    """Write the weights and the ONNX file of every exported network.

    Existing files that are up to date stay; those of other networks are removed. If the plan has changed, the previous
    `family.json` is removed first, so that a process killed at any moment leaves no old result for a new plan.

    Args:
        result: the result of the search.
        checkpoints: the trained weights of its designs.
        size: (height, width) of the ONNX files' input in pixels.
        images: H x W x 3 uint8 RGB each; the ONNX files are verified against the networks on them.

    Raises:
        RunError: the folder cannot be written.
    """
    plan, kept = result.folder.parent / PLAN, result.folder / PLAN
    try:
        if not kept.exists() or not filecmp.cmp(kept, plan, shallow=False):
            (result.folder / FAMILY).unlink(missing_ok=True)
        _remove_others(result)
    except OSError as error:
        raise RunError(f"{result.folder} cannot be written: {error.strerror or error}; make it writable") from None
    for member in result.exported:
        path = result.model(member)
        weights, trained = path.with_suffix(".safetensors"), checkpoints[member.design]
        if not weights.exists() or not filecmp.cmp(weights, trained, shallow=False):
            with atomic_path(weights) as temporary:
                shutil.copyfile(trained, temporary)
        if not path.exists() or path.stat().st_mtime < weights.stat().st_mtime:
            export_onnx(load_checkpoint(weights), path, record=read_record(weights), size=size, images=images)
    with atomic_path(kept) as temporary:
        shutil.copyfile(plan, temporary)


def _remove_others(result: SearchResult) -> None:
    """Remove the model files of earlier results."""
    names = {result.model(it).stem for it in result.exported}
    files = list(result.folder.iterdir()) if result.folder.is_dir() else []
    for file in files:
        if _OWN_FILE.fullmatch(file.name) and file.stem not in names:
            file.unlink()


def progress_table(members: Sequence[Member]) -> list[str]:
    """The networks as lines of text, a header first."""
    lines = [f"{'step':>6} {'ms':>8} {'mIoU':>6} {'start':>6}  {'dimension':<11}network"]
    for member in members:
        score = member.score
        at_start = "-" if score.at_start is None else f"{score.at_start:.1f}"
        dimension = member.operation.dimension if member.operation else "-"
        figures = f"{member.step:>6} {member.latency.median_ms:>8.3g} {score.miou:>6.1f} {at_start:>6}"
        lines.append(f"{figures}  {dimension:<11}{member.network}")
    return lines


def page(result: SearchResult, *, title: str, num_classes: int, interaction: str) -> str:
    """`table.md`: the family's table, the choices, the Pareto front and the steps.

    Args:
        result: the result of the search.
        title: the first line.
        num_classes, interaction: of the networks, for their number of parameters.
    """
    parameters = {
        it.design: complexity(
            it.design.architecture, num_classes=num_classes, block=it.design.block, interaction=interaction
        ).parameters
        for it in result.members
    }
    parts = [f"# {title}", family.family_table(result.members, parameters=parameters)]
    if note := family.lengths_note(result.members):
        parts.append(note)
    if result.choices:
        parts += ["## Under a budget", "\n".join(f"- {choice}" for choice in result.choices)]
    parts += ["## Pareto front of all trained networks", family.family_table(result.front)]
    if result.check is not None:
        parts += ["## The proxy's ranking, checked", f"In {result.check}.", check_table(result.check)]
    parts += [_section(step) for step in result.found.steps]
    return "\n\n".join(parts) + "\n"


def _section(step: Step) -> str:
    parent = step.parent
    target = "" if step.target_ms is None else f"Target {step.target_ms:.3g} ms. "
    before = f"Parent: {parent.latency.median_ms:.3g} ms, {family.parent_score(parent.score)}. "
    rows = [_candidate(step, it) for it in step.candidates]
    rows += [[str(it.operation), *["-"] * 7, it.reason] for it in step.excluded]
    trust = f" The choice {step.trust}." if step.trust else ""
    lead = f"{target}{before}{_step_lead(step)}".rstrip() + trust
    return "\n\n".join([f"## Step {step.number} {step.verdict}", lead, markdown_table(family.CANDIDATE_COLUMNS, rows)])


def _step_lead(step: Step) -> str:
    """The lead of the chosen network over the second best, and the spread of a single training."""
    if step.chosen is None:
        return ""
    others = [it for it in step.candidates if it.design != step.chosen.design]
    second = decide(step.parent, others).chosen
    score, lead = step.chosen.score, ""
    if second is not None:
        lead = f"Lead over the next: {score.miou - others[second].score.miou:.2f} points. "
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
        family.mean_and_spread(member.score),
        str(member.score.num_seeds),
        "-" if slope is None else f"{slope:.3g}",
        "chosen" if member == step.chosen else "may be as good" if member in step.rivals else "",
    ]

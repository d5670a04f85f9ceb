"""Whether a proxy ranks candidates as longer trainings do: one step's candidates trained again, several times as long.

The paper trains every candidate in full; a proxy (`proxies.py`) cannot be trusted with a choice before somebody has
looked. The candidates start from the same weights of the same parent, and the order of their mIoU is compared pair by
pair. A pair that changes places counts less if the proxy's own scores were within the seed spread of each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from lpsnet.expansion.family import Member, Step
from lpsnet.expansion.measurements import Outcome, Score
from lpsnet.expansion.operations import Design
from lpsnet.expansion.ranking import decide


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

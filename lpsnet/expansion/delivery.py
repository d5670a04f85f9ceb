"""What an expansion hands over: the family's networks, what it measured of them, and the one to use under each budget.

In the folder: `step_N.safetensors` and `step_N.onnx` for each step's network, `candidate_SLUG` alike for a network that
was not chosen in its step but is the best under a budget, `family.json` for machines, `table.md` for people, and
`plan.json`, the run's plan that all this was made for: while the run has another one, it has not delivered.
"""

import filecmp
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lpsnet.errors import RunError
from lpsnet.expansion.events import Row
from lpsnet.expansion.family import Expansion, Member, Step, as_good_and_faster, best_under, pareto_front
from lpsnet.expansion.operations import Design
from lpsnet.expansion.plan import PLAN
from lpsnet.expansion.ranking_check import RankingCheck
from lpsnet.export.onnx import export_onnx
from lpsnet.inference.model_file import read_record
from lpsnet.inference.preprocess import Picture
from lpsnet.io import atomic_path
from lpsnet.models.checkpoint import load_checkpoint

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
    delivery: Delivery, checkpoints: Mapping[Design, Path], *, size: tuple[int, int], pictures: Sequence[Picture]
) -> None:
    """Write weights and ONNX file of every network that is handed over, all of a delivery but its figures.

    Files that are there already stay; those of networks that are not handed over any more go. If the plan is not the
    one that the delivery before was made for, its `family.json` goes first: killed at any moment, this leaves no old
    figures for a new plan.

    Args:
        delivery: what is handed over.
        checkpoints: of its designs, as trained.
        size: (height, width) in pixels that the ONNX files are for.
        pictures: H x W x 3 uint8 RGB each, that the ONNX files are compared with the networks on.

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
            export_onnx(load_checkpoint(weights), path, record=read_record(weights), size=size, pictures=pictures)
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

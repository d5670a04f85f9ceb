"""What a search's journal says of its own choices: which stand, and how much the winners were flattered by their seed.

    python tools/search_statistics.py FOLDER...

For each folder with a `journal.jsonl`, two tables in Markdown:

- every step: its expected optimism, and whether its choice stands by intervals that hold for all comparisons at once,
  as in `lpsnet report`; the same with the spread of all the journal's repeated trainings of that length, more than the
  step had, and with latencies taken as exact;
- every step whose candidates and control were all trained with two seeds or more: the choice by one seed alone, and its
  mIoU by another, which took no part in it. The difference is the optimism that there was;
- every step whose candidates were trained for two lengths: what `--race` would have kept by the shorter one, and
  whether the longer one's choice is among it.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import sqrt
from pathlib import Path
from statistics import fmean, variance

from lpsnet.report.search import read_expansion
from lpsnet.search.family import Member, Step, distinct, markdown_table
from lpsnet.search.journal import TrainingFinished, read_journal
from lpsnet.search.measurements import Latency, Score
from lpsnet.search.step_size import Trust, better_half, decide, expected_optimism, trust

Scores = Mapping[tuple[str, str | None, int], Mapping[int, float]]  # design, parent, length -> seed -> mIoU


def scores_of(folder: Path) -> Scores:
    """The mIoU of all whole trainings; repeated lines count once."""
    found: dict[tuple[str, str | None, int], dict[int, float]] = {}
    for it in read_journal(folder / "journal.jsonl"):
        if isinstance(it, TrainingFinished) and it.miou is not None and it.part == 1:
            found.setdefault((it.design, it.parent, it.length), {}).setdefault(it.seed, it.miou)
    return found


def pooled(scores: Scores, length: int) -> tuple[float, int]:
    """Spread of a single training of that length, over all designs with several, and its degrees of freedom."""
    rows = [list(it.values()) for (_, _, of), it in scores.items() if of == length and len(it) > 1]
    freedom = sum(len(row) - 1 for row in rows)
    return (sqrt(sum(variance(row) * (len(row) - 1) for row in rows) / freedom), freedom) if freedom else (0.0, 0)


def trust_with(step: Step, spread: float, freedom: int, *, exact: bool = False) -> Trust | None:
    """The step's choice with another spread of a single training, and maybe with exact latencies."""
    parent, *members = (_with(it, spread, exact) for it in (step.parent, *distinct(step.candidates)))
    chosen = decide(parent, members).chosen
    return None if chosen is None else trust(parent, members, chosen, _names(members), freedom=freedom)


def _with(member: Member, spread: float, exact: bool) -> Member:
    score = replace(member.score, spread=spread / sqrt(member.score.num_seeds))
    latency = Latency.exactly(member.latency.median_ms) if exact else member.latency
    return replace(member, score=score, latency=latency)


def _names(members: Sequence[Member]) -> list[str]:
    return [str(it.operation) for it in members]


def _said(found: Trust | None) -> str:
    if found is None:
        return "not known"
    interval = f"{found.lead:.2f} ± {found.half_width:.2f} over {found.nearest or 'the parent'}"
    return f"{'**yes**' if found.stands else 'no'}: {interval}"


def steps_table(steps: Sequence[Step], scores: Scores) -> str:
    """The first table."""
    heads = ("step", "taken", "mIoU, %", "optimism", "the search's word", "stands", "with all seeds of the journal")
    rows = []
    for step in steps:
        if step.chosen is None:
            continue
        spread, freedom = pooled(scores, step.length)
        luck = "–" if step.trust is None else f"{step.trust.optimism:.2f}"
        row = (str(step.number), str(step.chosen.operation), f"{step.chosen.score.miou:.2f}", luck)
        word = "decided" if step.decided else f"open, by {step.doubt}"
        all_seeds = trust_with(step, spread, freedom)
        exact = trust_with(step, spread, freedom, exact=True)
        rows.append((*row, word, _said(step.trust), _said(all_seeds), _said(exact)))
    return markdown_table((*heads, "and latencies exact"), rows)


@dataclass(frozen=True)
class Choice:
    """A choice by one seed, scored by another."""

    step: int
    seeds: tuple[int, int]
    taken: str
    miou: float
    fresh: float
    expected: float
    taken_by_other: str


def choices_by_one_seed(steps: Sequence[Step], scores: Scores) -> Iterator[Choice]:
    """The choices of the second table."""
    for step in steps:
        found = {it.design: _scores_in(step, it, scores) for it in (step.parent, *step.candidates)}
        shared = set.intersection(*(set(it) for it in found.values()))
        spread, _ = pooled(scores, step.length)
        for seeds in permutations(sorted(shared), 2):
            parent, *members = (
                replace(it, score=Score(found[it.design][seeds[0]], spread))
                for it in (step.parent, *distinct(step.candidates))
            )
            chosen = decide(parent, members).chosen
            other = decide(*_scored(parent, members, found, seeds[1])).chosen
            if chosen is None:
                continue
            it, names = members[chosen], _names(members)
            yield Choice(
                step.number,
                seeds,
                names[chosen],
                it.score.miou,
                found[it.design][seeds[1]],
                expected_optimism(parent, members, chosen),
                "none" if other is None else names[other],
            )


def _scored(parent: Member, members: Sequence[Member], found: Mapping, seed: int) -> tuple[Member, list[Member]]:
    first, *others = (replace(it, score=Score(found[it.design][seed])) for it in (parent, *members))
    return first, others


def _scores_in(step: Step, member: Member, scores: Scores) -> Mapping[int, float]:
    """Of trainings from the step's parent; the parent's are those of its control."""
    return scores.get((str(member.design), str(step.parent.design), step.length), {})


def races_table(steps: Sequence[Step], scores: Scores) -> str:
    """The third table; the control of the longer training is that of the shorter one where it has none."""
    rows = []
    for step in steps:
        members, parent = distinct(step.candidates), str(step.parent.design)
        lengths = sorted({length for (_, of, length) in scores if of == parent})
        for short, long in combinations(lengths, 2):
            before, after = (_of_length(step, members, scores, length) for length in (short, long))
            if before is None or after is None:
                continue
            spread, _ = pooled(scores, short)
            base, *others = (replace(it, score=replace(it.score, spread=spread)) for it in before)
            kept, chosen = better_half(base, others), decide(after[0], after[1:]).chosen
            found = "nothing gains" if chosen is None else "yes" if chosen in kept else "no"
            rows.append((str(step.number), f"{short}, {long}", f"{len(kept)} of {len(others)}", found))
    heads = ("step", "lengths", "kept by the shorter one", "the longer one's choice among it")
    return markdown_table(heads, rows) if rows else ""


def _of_length(step: Step, members: Sequence[Member], scores: Scores, length: int) -> list[Member] | None:
    """Parent and candidates with the scores of their first trainings of that length; None if one has none."""
    parent = str(step.parent.design)
    found = [scores.get((str(it.design), parent, length), {}).get(0) for it in members]
    control = scores.get((parent, parent, length), {}).get(0, step.parent.score.miou)
    if any(it is None for it in found):
        return None
    both = zip((step.parent, *members), (control, *found), strict=True)
    return [replace(it, score=Score(miou)) for it, miou in both if miou is not None]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    every: list[Choice] = []
    for folder in parser.parse_args().folder:
        found, scores = read_expansion(folder).found, scores_of(folder)
        steps = found.steps if found else ()
        lengths = sorted({step.length for step in steps if step.chosen})
        spreads = ", ".join("{:.3f} ({} df) at length {}".format(*pooled(scores, it), it) for it in lengths)
        print(f"\n{folder}: spread of a training over seeds, {spreads}\n\n{steps_table(steps, scores)}\n")
        choices = list(choices_by_one_seed(steps, scores))
        every += choices
        rows = [
            (
                str(it.step),
                f"{it.seeds[0]}, {it.seeds[1]}",
                it.taken,
                f"{it.miou:.2f}",
                f"{it.fresh:.2f}",
                f"{it.miou - it.fresh:+.2f}",
                f"{it.expected:+.2f}",
                "the same" if it.taken == it.taken_by_other else it.taken_by_other,
            )
            for it in choices
        ]
        heads = ("step", "seeds: of the choice, fresh", "taken", "mIoU, %", "fresh, %", "flattered by", "expected")
        print(markdown_table((*heads, "the fresh seed takes"), rows))
        print(f"\n{races_table(steps, scores)}")
    if every:
        gaps = [it.miou - it.fresh for it in every]
        same = sum(it.taken == it.taken_by_other for it in every)
        expected = fmean(it.expected for it in every)
        print(
            f"\n{len(every)} choices by one seed: flattered by {fmean(gaps):.3f} points on average, "
            f"{expected:.3f} expected; {same} of them the fresh seed takes too"
        )


if __name__ == "__main__":
    main()

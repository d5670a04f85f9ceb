"""What a study is: a list of runs, and a report (rows, findings, figure) made of their results.

`running.py` performs the runs and keeps their results; `write_study` writes the report as Markdown, CSV, JSON and PNG.
"""

import csv
import hashlib
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, get_args

from lpsnet import __version__
from lpsnet.benchmark.machine import describe_machine
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.engines import Precision
from lpsnet.io import write_text
from lpsnet.report.charts import add_legend, draw_beside, save_figure

Scale = Literal["small", "paper"]
Json = Any  # what json reads and writes
Row = Mapping[str, Json]  # keys carry their unit
Progress = Callable[[str, float], None]  # called with a description of the work and the part done, 0 to 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study is run. A setting that the study does not use (`Study.options`) must keep its default.

    Where None or empty is allowed, the study, the engine or the recipe chooses.

    Attributes:
        scale: "small" is for this machine, in minutes or hours; "paper" is the paper's protocol, on a GPU.
        runtimes: engines that latencies are measured with.
        precision: of the engines.
        num_threads: of engines and trainings.
        size: (height, width) in pixels at which latencies are measured.
        data: data sets to train and score on, as `open_dataset` takes them.
        num_seeds: trainings of each network that is trained several times.
        epochs: of every training.
        form: of the network in training, "plain" or "reparameterised".
        models: a model file, or a folder of them.
        pictures: names of images to show.
        network: code of a checkpoint among `models`, as `use_network` takes it.
        archs: architectures of this package, a name or a text each.
        peers: networks of other code to train beside them, as `use_network` takes each.
    """

    scale: Scale = "small"
    runtimes: tuple[str, ...] = ("onnxruntime",)
    precision: Precision = "f32"
    num_threads: int | None = None
    size: tuple[int, int] | None = None
    data: tuple[str, ...] = ()
    num_seeds: int | None = None
    epochs: float | None = None
    form: str | None = None
    models: Path | None = None
    pictures: tuple[str, ...] = ()
    network: str | None = None
    archs: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise RunError(unknown_name("scale", self.scale, get_args(Scale)))
        if not self.runtimes or len(set(self.runtimes)) < len(self.runtimes):
            raise RunError(
                f"a study takes one engine or several different ones; got {', '.join(self.runtimes) or 'none'}"
            )
        if self.num_seeds is not None and self.num_seeds < 1:
            raise RunError(f"a network is trained with at least 1 seed; got {self.num_seeds}")
        if self.epochs is not None and not self.epochs > 0:
            raise RunError(f"epochs are a number above 0; got {self.epochs}")


@dataclass(frozen=True, slots=True)
class Place:
    """What a run's work is given.

    Attributes:
        folder: the run's own, which the work creates if it needs one; may hold files of the same run, interrupted.
        on_progress: to be called while the work proceeds.
    """

    folder: Path
    on_progress: Progress


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of work of a study.

    Attributes:
        key: all that its result depends on besides the machine, as JSON values; the first name is the kind of run:
            "measured", "trained", …
        work: does or resumes it; returns JSON values.
        portable: whether the result holds on any machine: a training's score does, a latency does not.
        seconds: expected duration; None if unknown.
        apart: whether it may run in another process, beside others; `work` must then be picklable.
        name: shown to users while it runs apart.
    """

    key: Mapping[str, Json]
    work: Callable[[Place], Mapping[str, Json]] = field(compare=False)
    portable: bool = False
    seconds: float | None = None
    apart: bool = False
    name: str = ""

    @property
    def kind(self) -> str:
        """The first name of the key."""
        return next(iter(self.key))

    @property
    def slug(self) -> str:
        """The name of the run's folder: 16 hexadecimal digits, a hash of the key."""
        return slug_of(self.key)


def slug_of(key: Mapping[str, Json]) -> str:
    """`Run.slug` of a key; the order of its entries does not matter."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]


# The result of a run if it is known, else None
Known = Callable[[Run], Mapping[str, Json] | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        key, result: of the run.
        machine: see `Machine.identity`.
        load: other work on the machine, see `Load.to_dict`.
        date: UTC, ISO 8601.
        lpsnet_version: that performed the run.
        folder: of the run's files.
    """

    key: Mapping[str, Json]
    result: Mapping[str, Json]
    machine: str
    load: Mapping[str, Json]
    date: str
    lpsnet_version: str = __version__
    folder: Path = field(default=Path(), compare=False)

    def to_dict(self) -> dict[str, Json]:
        """JSON values, without the folder."""
        names = ("key", "result", "machine", "load", "date", "lpsnet_version")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a study.

    Attributes:
        rows: the table; all with the same keys, which carry units.
        findings: sentences.
        draw: draws into a `matplotlib.figure.Figure`.
        figure_size: width and height in inches.
        differences: from the paper's protocol, in addition to those of the study.
    """

    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    draw: Callable[[Any], None]
    figure_size: tuple[float, float] = (9.0, 4.5)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """A table or figure of the paper, reproduced.

    Attributes:
        name: on the command line.
        title: of its page.
        reference: where in the paper it stands, and what is published there.
        differences: between its protocol and the paper's, a sentence each.
        plan: the runs for given settings, as far as the results known so far determine them. It is called again after
            every run, so placeholders may follow the first missing run: they only count towards the time left.
        report: called with the outcomes in the order of the last plan.
        options: settings that it uses besides `scale`.
    """

    name: str
    title: str
    reference: str
    differences: tuple[str, ...]
    plan: Callable[[Settings, Known], Sequence[Run]]
    report: Callable[[Sequence[Outcome]], Report]
    options: frozenset[str] = frozenset({"runtimes", "precision", "num_threads"})

    @property
    def takes_networks(self) -> bool:
        """Whether its models may be networks of other code."""
        return "models" in self.options and self.name != "grown"

    def check(self, settings: Settings) -> None:
        """Raise RunError if a setting that the study does not use differs from its default."""
        defaults = Settings()
        for name in Settings.__dataclass_fields__:
            used = name == "scale" or name in self.options or (name == "network" and self.takes_networks)
            if not used and getattr(settings, name) != getattr(defaults, name):
                raise RunError(f"study {self.name} does not use {OPTIONS[name]}; leave it out")


# setting -> its option on the command line
OPTIONS: Mapping[str, str] = {
    "scale": "--scale",
    "runtimes": "--runtime",
    "precision": "--precision",
    "num_threads": "--threads",
    "size": "--size",
    "data": "--data",
    "num_seeds": "--seeds",
    "epochs": "--epochs",
    "form": "--form",
    "models": "--models",
    "pictures": "--picture",
    "network": "--network",
    "archs": "--arch",
    "peers": "--peer",
}
assert OPTIONS.keys() == Settings.__dataclass_fields__.keys()


def of_kind(outcomes: Sequence[Outcome], kind: str) -> list[Outcome]:
    """The outcomes of runs of a kind: "measured", "trained", …"""
    return [outcome for outcome in outcomes if kind in outcome.key]


def score_columns(scores: Sequence[float]) -> dict[str, Json]:
    """`miou` and `miou_deviation`: mean and standard deviation over seeds, None where there are too few."""
    return {"miou": fmean(scores) if scores else None, "miou_deviation": stdev(scores) if len(scores) > 1 else None}


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: 1 for the same order and -1 for the reverse; equal values share the mean of their ranks.

    None with fewer than two pairs, or where one side is all the same.
    """
    if len(a) < 2:
        return None
    ranks = [_ranks(a), _ranks(b)]
    first, second = ([rank - fmean(side) for rank in side] for side in ranks)
    squares = sum(x * x for x in first) * sum(y * y for y in second)
    if squares == 0:
        return None
    return float(sum(x * y for x, y in zip(first, second, strict=True)) / squares**0.5)


def _ranks(values: Sequence[float]) -> list[float]:
    return [sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values]


def best_two(scores: Mapping[str, float]) -> list[str]:
    """The names with the highest scores, best first; equal ones in their order."""
    return sorted(scores, key=lambda name: -scores[name])[:2]


def describe_best(scores: Mapping[str, Sequence[float]], *, paper: str) -> str:
    """Which of at least two networks has the highest mean mIoU, whether the paper agrees, and whether every seed does.

    Args:
        scores: mIoU in percent by seed, of every network.
        paper: the paper's best network.
    """
    means = {name: fmean(values) for name, values in scores.items()}
    first, second = best_two(means)
    agrees = "as in the paper" if first == paper else f"unlike in the paper, where it is {paper}"
    text = (
        f"{first} has the highest mIoU, {agrees}: {means[first]:.2f} before {second} with {means[second]:.2f}, "
        f"{_seeds(scores[first], scores[second])}."
    )
    if paper in (first, second) or paper not in scores:
        return text
    return f"{text} {paper}: {means[paper]:.2f}, {_seeds(scores[first], scores[paper])}."


def _seeds(better: Sequence[float], worse: Sequence[float]) -> str:
    counts = len(better), len(worse)
    if min(counts) == 1:
        return "one seed each" if counts == (1, 1) else f"with {counts[0]} and {counts[1]} seeds"
    return "by every seed" if min(better) > max(worse) else "but not by every seed"


def describe_scores(
    rows: Sequence[Row], column: str, scores: Mapping[str, Sequence[float]], *, paper: str, table: str, lead: str = ""
) -> list[str]:
    """Findings: failed trainings, the best network, and the rank correlation of mIoU with a table of the paper.

    Args:
        rows: with `miou` and `paper_miou`.
        column: of the networks' names.
        scores, paper: as for `describe_best`; networks without scores are left out.
        table: its name.
        lead: before the sentence on the best network.
    """
    findings = []
    if failed := [str(row[column]) for row in rows if row["miou"] is None]:
        findings.append(f"No score, as the training diverged: {', '.join(failed)}.")
    scored = [row for row in rows if row["miou"] is not None]
    if len(scored) > 1:
        findings.append(lead + describe_best({name: own for name, own in scores.items() if own}, paper=paper))
        correlation = rank_correlation([row["miou"] for row in scored], [row["paper_miou"] for row in scored])
        if correlation is not None:
            findings.append(f"Rank correlation of mIoU with {table}: {correlation:.2f}.")
    return findings


def draw_two(
    figure: Any,
    rows: Sequence[Row],
    names: Sequence[str],
    *panels: tuple[str, str, str],
    title: str,
    seeds: Sequence[Sequence[float]] = (),
) -> None:
    """Two panels of bars, measured values beside the paper's.

    Args:
        figure: to draw into.
        rows: of the table.
        names: of the rows.
        panels: label, column of measured values and column of the paper's, of both panels.
        title: of the figure.
        seeds: see `draw_beside`; for the first panel.
    """
    left, right = figure.subplots(1, 2)
    for axes, (label, *columns) in zip((left, right), panels, strict=True):
        here, paper = ([row[column] for row in rows] for column in columns)
        draw_beside(axes, names, here, paper, label=label, seeds=seeds if axes is left else ())
    right.tick_params(labelleft=False)
    add_legend(figure, left)
    figure.suptitle(title, fontsize="medium")


def write_study(
    study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, out: Path
) -> tuple[Path, ...]:
    """Write NAME.md, NAME.png, NAME.csv and NAME.json into the folder `out`; their paths, in this order.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        RunError: a file cannot be written.
    """
    page, table, values, figure = (out / f"{study.name}{suffix}" for suffix in (".md", ".csv", ".json", ".png"))
    save_figure(figure, report.draw, size=report.figure_size)
    write_text(table, _csv(report.rows))
    write_text(values, json.dumps(_values(study, settings, outcomes, report), indent=2, allow_nan=False) + "\n")
    write_text(page, _page(study, settings, outcomes, report, figure.name))
    return page, figure, table, values


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _values(study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report) -> dict[str, Json]:
    return {
        "study": study.name,
        "title": study.title,
        "reference": study.reference,
        "differences": [*study.differences, *report.differences],
        "settings": json.loads(json.dumps(asdict(settings), default=str)),
        "command": _command(study, settings),
        "machine": describe_machine().to_dict(),
        "findings": list(report.findings),
        "rows": [dict(row) for row in report.rows],
        "runs": [outcome.to_dict() for outcome in outcomes],
        "lpsnet_version": __version__,
    }


def _page(study: Study, settings: Settings, outcomes: Sequence[Outcome], report: Report, figure: str) -> str:
    machines = " and ".join(dict.fromkeys(outcome.machine for outcome in outcomes))
    parts = [
        f"# {study.title}",
        f"{study.reference}\n\nHere: {machines}; {_load_text(outcomes)}",
        f"```\n{_command(study, settings)}\n```",
        "## What was found",
        _bullets(report.findings),
        f"![{study.title}]({figure})",
        markdown_table(report.rows),
        "## What differs from the paper's protocol",
        _bullets([*study.differences, *report.differences]),
    ]
    return "\n\n".join(parts) + "\n"


def _load_text(outcomes: Sequence[Outcome]) -> str:
    busy = [outcome.load.get("other_cores_busy") for outcome in outcomes]
    known = [cores for cores in busy if cores is not None]
    load = f"; other work kept {max(known):.1f} processors busy at most" if known else ""
    days = sorted({outcome.date[:10] for outcome in outcomes})
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}{load}."


def _command(study: Study, settings: Settings) -> str:
    """The command line of these settings, without those that have their default."""
    words = ["lpsnet", "study", study.name, "--scale", settings.scale]
    for name, option in OPTIONS.items():
        value = getattr(settings, name)
        given = name == "runtimes" or value != getattr(Settings(), name)
        if name in study.options and given:
            words += [word for each in _words(name, value) for word in (option, each)]
    return shlex.join([*words, "--out", study.name])


def _words(name: str, value: Json) -> list[str]:
    if name == "size":
        return [f"{value[0]}x{value[1]}"]
    if isinstance(value, float):
        return [f"{value:g}"]
    return [str(each) for each in value] if isinstance(value, tuple) else [str(value)]


def markdown_table(rows: Sequence[Row]) -> str:
    """Rows of the same keys as a table in Markdown; numbers to the right, to four digits."""
    heads = list(rows[0])
    aligned = ["---:" if _is_number([row[head] for row in rows]) else "---" for head in heads]
    lines = [[head.replace("_", " ") for head in heads], aligned]
    lines += [[_cell(row[head]) for head in heads] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _is_number(column: Sequence[Json]) -> bool:
    known = [value for value in column if value is not None]
    return bool(known) and all(isinstance(value, int | float) for value in known)


def _cell(value: Json) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _bullets(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {sentence}" for sentence in sentences)

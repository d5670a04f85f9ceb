"""What a study is: a list of runs, and a way to make rows, findings and a figure of their results.

`running.py` makes the runs and keeps their results, `page.py` writes what was found.

Whether what was measured here agrees with what is published: the order of things, and the spread over seeds.

What a study says of the device it ran on: what it is called, and its power mode where it can be read.

What a study leaves in its folder: a page in Markdown, the table as CSV, everything as JSON, and the figure.
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
from lpsnet.benchmark.machine import Machine, describe_machine
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.engines import Precision
from lpsnet.io import write_text
from lpsnet.report.figures import save_figure

Scale = Literal["small", "paper"]
Json = Any  # what json reads and writes
Row = Mapping[str, Json]  # keys carry their unit
Progress = Callable[[str, float], None]  # is told what is being done, and which part of it is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study is run. What a study does not use must be left as it is, see `Study.options`.

    Attributes:
        scale: "small" is for this machine, in minutes or hours; "paper" is the paper's protocol, on a GPU.
        runtimes: engines, for studies that measure latencies.
        precision: of their arithmetic.
        num_threads: of the engines and of trainings; None leaves the choice to each.
        size: (height, width) in pixels at which latencies are measured; None leaves the choice to the study.
        data: what is trained and scored on, as `open_dataset` takes it; empty leaves the choice to the study.
        num_seeds: trainings of a network that is trained several times; None leaves the choice to the study.
        epochs: passes over the training images; None leaves the choice to the recipe.
        form: that is trained, "plain" or "reparameterised"; None leaves the choice to the recipe.
        models: a model file, or a folder of them; None for none.
        images: names of images to show; empty leaves the choice to the study.
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
    """Where and how a run works.

    Attributes:
        folder: the run's own, for files; what is there was left by the same run when it was stopped. Made if need be.
        progress: to be told how far it is.
    """

    folder: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of work of a study.

    Attributes:
        key: all that its result depends on besides the machine, as JSON values; its first name says what is done:
            "measured", "trained", …
        work: does it, or goes on with it; the result is JSON values.
        portable: whether the result is the same on any machine, such as a training's score; a time is not.
        seconds: that it will take, as far as is known; None if nothing is known.
        apart: whether it may be made in another process, beside others; `work` can then be pickled.
        name: for people, of what is made apart.
    """

    key: Mapping[str, Json]
    work: Callable[[Place], Mapping[str, Json]] = field(compare=False)
    portable: bool = False
    seconds: float | None = None
    apart: bool = False
    name: str = ""

    @property
    def kind(self) -> str:
        """What is done: the first name of the key."""
        return next(iter(self.key))

    @property
    def slug(self) -> str:
        """16 hexadecimal digits, a hash of the key: the name of the run's folder."""
        return slug_of(self.key)


def slug_of(key: Mapping[str, Json]) -> str:
    """What `Run.slug` is for a key; the order of its entries does not matter."""
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]


# The result of a run if it is known, else None
Known = Callable[[Run], Mapping[str, Json] | None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        key, result: of the run.
        machine: its identity, see `Machine.identity`.
        load: what else the machine did, see `Load.to_dict`.
        date: UTC, ISO 8601.
        lpsnet_version: that made it.
        folder: of the run, with the files it left.
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
    """What a study makes of its outcomes.

    Attributes:
        rows: the table; all with the same keys, which carry units.
        findings: sentences.
        draw: draws into a `matplotlib.figure.Figure`.
        figure_size: width and height in inches.
        differences: from the paper's protocol that these outcomes have, besides those of the study.
    """

    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    draw: Callable[[Any], None]
    figure_size: tuple[float, float] = (9.0, 4.5)
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """A table or figure of the paper, made again.

    Attributes:
        name: on the command line.
        title: what it is about.
        reference: where in the paper it stands, and what is published there.
        differences: how its protocol differs from the paper's, a sentence each.
        plan: the runs that are to be made for given settings, as far as the results known so far say. Runs that only
            show how much is left may stand behind the first that is missing: the plan is made anew after every run.
        report: rows, findings and figure from the outcomes, in the order of the last plan.
        options: settings that it uses besides `scale`.
    """

    name: str
    title: str
    reference: str
    differences: tuple[str, ...]
    plan: Callable[[Settings, Known], Sequence[Run]]
    report: Callable[[Sequence[Outcome]], Report]
    options: frozenset[str] = frozenset({"runtimes", "precision", "num_threads"})

    def check(self, settings: Settings) -> None:
        """Raise unless all settings that differ from the defaults are used.

        Raises:
            RunError: one is not.
        """
        defaults = Settings()
        for name in Settings.__dataclass_fields__:
            used = name == "scale" or name in self.options
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
}
assert OPTIONS.keys() == Settings.__dataclass_fields__.keys()


def of_kind(outcomes: Sequence[Outcome], kind: str) -> list[Outcome]:
    """The outcomes whose key has an entry `kind`, which says what was done: "measured", "trained", …"""
    return [outcome for outcome in outcomes if kind in outcome.key]


@dataclass(frozen=True, slots=True)
class Spread:
    """Scores of one network with different seeds.

    Attributes:
        scores: one a seed, at least one.
    """

    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return stdev(self.scores) if len(self.scores) > 1 else None


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: the correlation of the ranks of `a` and `b`, 1 for the same order and -1 for the reverse.

    Equal values share the mean of their ranks. None if there are less than two pairs, or one side is all the same.
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
    """From 1; equal values share the mean of their places."""
    return [sum(other < value for other in values) + (1 + values.count(value)) / 2 for value in values]


def best_two(scores: Mapping[str, float]) -> list[str]:
    """The names with the highest scores, best first; equal ones in their order."""
    return sorted(scores, key=lambda name: -scores[name])[:2]


def describe_best(spreads: Mapping[str, Spread], *, paper: str) -> str:
    """Which of at least two networks has the highest mean mIoU, whether that is the paper's, and how sure it is."""
    first, second, *_ = sorted(spreads, key=lambda name: -spreads[name].mean)
    better, worse = spreads[first], spreads[second]
    agrees = "as in the paper" if first == paper else f"unlike in the paper, where it is {paper}"
    text = (
        f"{first} has the highest mIoU, {agrees}: {better.mean:.2f} before {second} with {worse.mean:.2f}, "
        f"{_seeds(better, worse)}."
    )
    if paper in (first, second) or paper not in spreads:
        return text
    own = spreads[paper]
    return f"{text} {paper}: {own.mean:.2f}, {_seeds(better, own)}."


def _seeds(better: Spread, worse: Spread) -> str:
    counts = len(better.scores), len(worse.scores)
    if min(counts) == 1:
        return "one seed each" if counts == (1, 1) else f"with {counts[0]} and {counts[1]} seeds"
    return "by every seed" if min(better.scores) > max(worse.scores) else "but not by every seed"


def device_name(machine: Machine) -> str:
    """The GPU's, the board's or the processor's name, whichever says most."""
    return machine.gpus[0] if machine.gpus else machine.board or machine.cpu


def power_mode(machine: Machine) -> str:
    """Jetson's mode or the processor's frequency governor; `unknown` where neither can be read."""
    return machine.power_mode or "unknown"


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
    parts = [
        f"# {study.title}",
        f"{study.reference}\n\nHere: {_machines(outcomes)}; {_load_text(outcomes)}",
        f"```\n{_command(study, settings)}\n```",
        "## What was found",
        _bullets(report.findings),
        f"![{study.title}]({figure})",
        markdown_table(report.rows),
        "## What differs from the paper's protocol",
        _bullets([*study.differences, *report.differences]),
    ]
    return "\n\n".join(parts) + "\n"


def _machines(outcomes: Sequence[Outcome]) -> str:
    return " and ".join(dict.fromkeys(outcome.machine for outcome in outcomes))


def _load_text(outcomes: Sequence[Outcome]) -> str:
    busy = [outcome.load.get("other_cores_busy") for outcome in outcomes]
    known = [cores for cores in busy if cores is not None]
    load = f"; other work kept {max(known):.1f} processors busy at most" if known else ""
    days = sorted({outcome.date[:10] for outcome in outcomes})
    return f"{' to '.join(dict.fromkeys((days[0], days[-1])))}{load}."


def _command(study: Study, settings: Settings) -> str:
    """The command line that these settings came from; of those that have a usual value, what was asked for."""
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

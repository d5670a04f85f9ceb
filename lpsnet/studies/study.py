"""What a study is: a list of runs, and a way to make rows, findings and a figure of their results.

`running.py` makes the runs and keeps their results, `page.py` writes what was found.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lpsnet import __version__
from lpsnet.errors import RunError, unknown_name
from lpsnet.inference.engines import Precision

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
        epochs: passes over the training pictures; None leaves the choice to the recipe.
        form: that is trained, "plain" or "reparameterised"; None leaves the choice to the recipe.
        models: a model file, or a folder of them; None for none.
        pictures: names of pictures to show; empty leaves the choice to the study.
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

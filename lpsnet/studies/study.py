"""What a study is: a list of runs, and a way to make rows, findings and a figure of their results.

`running.py` makes the runs and keeps their results, `page.py` writes what was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from lpsnet import __version__
from lpsnet.deployment.runtimes.session import Precision
from lpsnet.errors import RunError, unknown_name

Scale = Literal["small", "paper"]
Json = Any  # what json reads and writes
Row = Mapping[str, Json]  # keys carry their unit
Progress = Callable[[str, float], None]  # is told what is being done, and which part of it is done, 0 to 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How a study is run.

    Attributes:
        scale: "small" takes minutes; "paper" as long as the paper's protocol does.
        runtimes: engines, for studies that measure latencies.
        precision: of their arithmetic.
        num_threads: of the engines; None leaves the choice to each.
    """

    scale: Scale = "small"
    runtimes: tuple[str, ...] = ("onnxruntime",)
    precision: Precision = "f32"
    num_threads: int | None = None

    def __post_init__(self) -> None:
        if self.scale not in get_args(Scale):
            raise RunError(unknown_name("scale", self.scale, get_args(Scale)))
        if not self.runtimes or len(set(self.runtimes)) < len(self.runtimes):
            raise RunError(
                f"a study takes one engine or several different ones; got {', '.join(self.runtimes) or 'none'}"
            )


@dataclass(frozen=True, slots=True)
class Run:
    """One piece of work of a study.

    Attributes:
        key: all that its result depends on besides the machine, as JSON values.
        work: does it; the result is JSON values.
    """

    key: Mapping[str, Json]
    work: Callable[[Progress], Mapping[str, Json]] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run.

    Attributes:
        key, result: of the run.
        machine: its identity, see `Machine.identity`.
        load: what else the machine did, see `Load.to_dict`.
        date: UTC, ISO 8601.
        lpsnet_version: that made it.
    """

    key: Mapping[str, Json]
    result: Mapping[str, Json]
    machine: str
    load: Mapping[str, Json]
    date: str
    lpsnet_version: str = __version__


@dataclass(frozen=True, slots=True)
class Report:
    """What a study makes of its outcomes.

    Attributes:
        rows: the table; all with the same keys, which carry units.
        findings: sentences.
        draw: draws into a `matplotlib.figure.Figure`.
        figure_size: width and height in inches.
    """

    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    draw: Callable[[Any], None]
    figure_size: tuple[float, float] = (9.0, 4.5)


@dataclass(frozen=True, slots=True)
class Study:
    """A table or figure of the paper, made again.

    Attributes:
        name: on the command line.
        title: what it is about.
        reference: where in the paper it stands, and what is published there.
        differences: how its protocol differs from the paper's, a sentence each.
        plan: the runs for given settings.
        report: rows, findings and figure from the outcomes, in the order of the plan.
    """

    name: str
    title: str
    reference: str
    differences: tuple[str, ...]
    plan: Callable[[Settings], Sequence[Run]]
    report: Callable[[Sequence[Outcome]], Report]

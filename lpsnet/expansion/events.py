"""The lines of a search's journal: one JSON object each, its kind first.

Networks, designs and operations are written in their one-line forms, numbers with their unit in the key, ready to be
read by other programs.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, model_validator

from lpsnet.expansion.family import Doubt, Member, Step
from lpsnet.expansion.measurements import Course, Failure, Latency, Outcome, Score
from lpsnet.expansion.operations import Design, Operation, SearchNetwork

JOURNAL_FORMAT = 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    kind: str  # first, so that a line torn off anywhere can be told from another file
    at: str = Field(default_factory=_now)


class Header(_Line):
    """The first line.

    Attributes:
        settings: what all the lines below were made with; a journal goes on only with the same.
    """

    kind: Literal["header"] = "header"
    format: int = JOURNAL_FORMAT
    lpsnet_version: str
    settings: dict[str, JsonValue]


class LatencyPass(_Line):
    """One pass over designs measured in turn.

    Attributes:
        designs: in the order measured; the first is what the others are compared with.
        ms: the time of each.
    """

    kind: Literal["latency"] = "latency"
    designs: tuple[str, ...]
    ms: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.designs or len(self.designs) != len(self.ms):
            raise ValueError("a pass has one time a design")
        return self


class TrainingStarted(_Line):
    """Designs handed over for training. Without a `TrainingFinished` after it, the training was cut off."""

    kind: Literal["training_started"] = "training_started"
    designs: tuple[str, ...]
    parent: str | None
    seed: int = 0
    length: int = 1


class TrainingFinished(_Line):
    """A trained design.

    Attributes:
        design: what was trained.
        parent, seed, length: how, see `Course`.
        miou, spread, at_start: the score, percent and points; `miou` is None if there is none.
        failure: why there is no score.
        details: whatever the trainer wants kept, such as seconds, seeds, or where the weights are.
    """

    kind: Literal["training"] = "training"
    design: str
    parent: str | None
    seed: int = 0
    length: int = 1
    miou: Annotated[float, Field(ge=0, le=100)] | None
    spread: Annotated[float, Field(ge=0, le=100)] = 0.0
    at_start: Annotated[float, Field(ge=0, le=100)] | None = None
    failure: str = ""
    details: dict[str, JsonValue] = Field(default_factory=dict)

    @classmethod
    def of(cls, design: Design, course: Course, outcome: Outcome, details: dict[str, JsonValue]) -> Self:
        """The line for an outcome."""
        names = {"design": str(design), "details": details, **course_fields(course)}
        if isinstance(outcome, Failure):
            return cls.model_validate({**names, "miou": None, "failure": outcome.reason})
        score = {"miou": outcome.miou, "spread": outcome.spread, "at_start": outcome.at_start}
        return cls.model_validate({**names, **score})

    @property
    def is_first(self) -> bool:
        """Whether its weights may be inherited and handed over, if it is as long as its design was chosen with."""
        return self.seed == 0 and self.design != self.parent

    @property
    def outcome(self) -> Outcome:
        """The outcome the line was written for."""
        return Failure(self.failure) if self.miou is None else Score(self.miou, self.spread, self.at_start)


def course_fields(course: Course) -> dict[str, JsonValue]:
    """A course as a line's fields."""
    parent = None if course.parent is None else str(course.parent)
    return {"parent": parent, "seed": course.seed, "length": course.length}


class Row(BaseModel):
    """A trained and measured network: a row of a table like Table 4. Keys as in all of lpsnet's JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    step: int
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratio_slots: tuple[str, ...]
    block: str
    dimension: str | None
    operation: str | None
    step_size: int
    median_ms: float
    low_ms: float
    high_ms: float
    miou: float
    spread: float
    at_start: float | None
    num_seeds: int = 1
    length: int = 1

    @classmethod
    def of(cls, member: Member) -> Self:
        """The row of a member."""
        network, operation = member.network, member.operation
        return cls(
            step=member.step,
            blocks=network.blocks,
            widths=network.widths,
            ratio_slots=tuple(map(str, network.ratio_slots)),
            block=network.block,
            dimension=operation.dimension if operation else None,
            operation=str(operation) if operation else None,
            step_size=member.step_size,
            median_ms=member.latency.median_ms,
            low_ms=member.latency.low_ms,
            high_ms=member.latency.high_ms,
            miou=member.score.miou,
            spread=member.score.spread,
            at_start=member.score.at_start,
            num_seeds=member.score.num_seeds,
            length=member.length,
        )

    @property
    def member(self) -> Member:
        """The member the row was written for.

        Raises:
            LpsnetError: the row's values describe none.
        """
        network = SearchNetwork(self.blocks, self.widths, self.ratio_slots, self.block)
        latency = Latency(self.median_ms, self.low_ms, self.high_ms)
        operation = Operation.parse(self.operation) if self.operation else None
        score = Score(self.miou, self.spread, self.at_start, self.num_seeds)
        return Member(self.step, network, latency, score, operation, self.step_size, self.length)


class StartKnown(_Line):
    """The network the search starts from, trained and measured."""

    kind: Literal["start"] = "start"
    row: Row


class StepDecided(_Line):
    """A step that chose a network.

    Attributes:
        number: of the step, from 1.
        target_ms: L_T.
        parent: the network of the step before, its latency as measured in this step.
        row: the network chosen.
        candidates: all that were trained, the chosen one among them.
        excluded: operations without a candidate, and why.
        rivals: operations that could have been chosen instead; none if the step is decided.
        doubt: what left the step undecided, "latency" or "score"; empty if it is decided.
    """

    kind: Literal["step"] = "step"
    number: int
    target_ms: float | None
    parent: Row
    row: Row
    candidates: tuple[Row, ...]
    excluded: dict[str, str]
    rivals: tuple[str, ...]
    doubt: Doubt

    @classmethod
    def of(cls, step: Step) -> Self:
        """The line for a step that chose a network."""
        assert step.chosen is not None
        return cls(
            number=step.number,
            target_ms=step.target_ms,
            parent=Row.of(step.parent),
            row=Row.of(step.chosen),
            candidates=tuple(map(Row.of, step.candidates)),
            excluded={str(it.operation): it.reason for it in step.excluded},
            rivals=tuple(str(member.operation) for member in step.rivals),
            doubt=step.doubt,
        )


class Stopped(_Line):
    """The search ended before its last step."""

    kind: Literal["stop"] = "stop"
    number: int
    reason: str


Event = Header | LatencyPass | TrainingStarted | TrainingFinished | StartKnown | StepDecided | Stopped

EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])

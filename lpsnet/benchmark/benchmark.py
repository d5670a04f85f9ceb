"""Latency that can be trusted: several models, on several engines, timed interleaved on this machine or a device.

All models are opened first, then called alternately (`timing.measure`): first the network alone, which the paper times
(design-notes, 'What is timed'), from a normalised image to logits; then end to end, from an image's bytes to a label
map of its size. Memory is measured in separate processes and mIoU last, so that neither disturbs the timing. A
`Benchmark` is also the JSON that `lpsnet benchmark --json` writes and `lpsnet report` reads.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Annotated, Any, Self, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer

from lpsnet import __version__
from lpsnet.benchmark.device import Device, DeviceSession
from lpsnet.benchmark.machine import Load, LoadWatch, Machine, command_line, describe_machine, peak_memory_mib
from lpsnet.benchmark.timing import PROTOCOLS, Latency, compare, measure, measuring_alone
from lpsnet.data.channels import RGB, Channels, check_same_channels
from lpsnet.data.images import Image, Labels
from lpsnet.data.labels import MAX_CLASSES, LabelSpace
from lpsnet.data.split import Split
from lpsnet.errors import DeviceError, LpsnetError, ModelFileError, RunError, unknown_name
from lpsnet.evaluation.evaluate import CommandText, evaluate
from lpsnet.inference import model_file, preprocess
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord

MAX_SPREAD = 0.2  # interquartile range as a share of the median, above which a warning is given
MAX_OTHER_CORES = 0.1  # share of the processors busy with other work, above which a warning is given
ALIKE = 1.05  # upper by lower bound of a ratio, below which two models count as equally fast, not as unclear
NUM_RUNS_FOR_MEMORY = 2  # engines allocate memory in the first run, and may allocate more in the second
# Of a file without a record, until its logits have shown the number of classes
_UNKNOWN = ModelRecord(architecture=None, label_space=LabelSpace.numbered(1), align_corners=False)

Size = tuple[int, int]  # height, width
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model file to time, with an engine and a precision.

    Attributes:
        name: its name in tables.
        path: the file; ONNX files of other programs are allowed.
        runtime: the engine, see `RUNTIMES`.
        precision: the arithmetic to request; a quantised file computes in int8 in any case.
        macs: multiply-accumulates for an image of the size measured; None if unknown.
        size: (height, width) in pixels of its input, if other than that of the benchmark.
        threads: of its engine, if other than those of the benchmark.
    """

    name: str
    path: Path
    runtime: str
    precision: Precision = "f32"
    macs: int | None = None
    size: Size | None = None
    threads: int | None = None


class _Values(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True, populate_by_name=True
    )


_Latency = Annotated[Latency, PlainSerializer(Latency.to_dict)]


class Result(_Values):
    """Measurements of a candidate.

    Attributes:
        model, path, runtime, macs, size: of the candidate.
        engine: the engine and its version.
        precision: the arithmetic used.
        num_threads: threads of the engine; None if unknown.
        num_bytes: size of the file.
        gmacs_per_ms: FLOPs-efficiency as in the paper's Table 2, in 10^9 multiply-accumulates per millisecond.
        times_as_fast_as_first: speed of the network alone relative to the first result, from the ratio in every round;
            None for the first itself.
        network: the network alone, from a normalised image to logits.
        end_to_end: from an image's bytes to its label map; None if not measured.
        peak_memory_mib: of a process that loads the model and runs it; None if not measured.
        miou: percent; None if not evaluated.
    """

    model: str
    path: str
    runtime: str
    engine: str
    precision: str
    num_threads: int | None
    num_bytes: int
    macs: int | None
    gmacs_per_ms: float | None = None
    times_as_fast_as_first: float | None = None
    network: _Latency
    end_to_end: _Latency | None = None
    peak_memory_mib: float | None = None
    miou: Annotated[float, Field(ge=0, le=100)] | None = None
    size: Size | None = Field(None, exclude=True)

    def latency_ms(self, protocol: str) -> float:
        """The one figure for a network alone: the mean by the paper's protocol, else the median."""
        return self.network.mean_ms if protocol == "paper" else self.network.median_ms


class PairComparison(_Values):
    """The latency of `a` relative to that of `b`, the network alone; see `timing.Comparison`."""

    a: str
    b: str
    ratio: float
    ratio_interval: tuple[float, float]
    confidence: float = 0.0
    num_rounds: int = 0
    verdict: str


class Problem(_Values):
    """A measurement of a candidate that was not possible, and why."""

    model: str
    runtime: str
    precision: str
    problem: str


class Benchmark(_Values):
    """Candidates timed interleaved, with every sample.

    Attributes:
        size: (height, width) in pixels of the network's input.
        protocol: the name in `PROTOCOLS`.
        image: description of the image; "picture" in JSON.
        results: in the order of the candidates.
        comparisons: of all pairs.
        warnings: notes for readers of the figures, one line each; indistinguishable neighbours in speed first.
        problems: measurements that were not possible.
        machine, load: JSON values of `Machine` and `Load`.
        device: the address of the device that was measured; None for this machine.
        command, lpsnet_version, date: of the measurement; date in UTC, ISO 8601.
    """

    size: Size
    protocol: str
    image: str = Field(alias="picture")
    results: tuple[Result, ...] = Field(min_length=1)
    comparisons: tuple[PairComparison, ...]
    warnings: tuple[str, ...]
    problems: tuple[Problem, ...]
    machine: dict[str, Any]
    load: dict[str, Any]
    device: str | None = None
    command: CommandText = ""
    lpsnet_version: str = ""
    date: str

    @classmethod
    def of(
        cls,
        size: Size,
        protocol: str,
        image: str,
        results: Sequence[Result],
        problems: Sequence[Problem],
        machine: Machine,
        load: Load,
        device: str | None = None,
    ) -> Self:
        """A benchmark of this process, now: adds all figures that follow from the results."""
        first = results[0].network
        complete = []
        for index, each in enumerate(results):
            gmacs_per_ms = None if each.macs is None else each.macs / 1e9 / each.latency_ms(protocol)
            times = compare(first, each.network).ratio if index else None
            complete.append(each.model_copy(update={"gmacs_per_ms": gmacs_per_ms, "times_as_fast_as_first": times}))
        return cls(
            size=size,
            protocol=protocol,
            image=image,
            results=tuple(complete),
            comparisons=tuple(
                PairComparison(a=_label(a, results), b=_label(b, results), **compare(a.network, b.network).to_dict())
                for a, b in combinations(complete, 2)
            ),
            warnings=tuple(_warnings(complete, machine, load)),
            problems=tuple(problems),
            machine=machine.to_dict(),
            load=load.to_dict(),
            device=device,
            command=command_line(),
            lpsnet_version=__version__,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def latency_ms(self, result: Result) -> float:
        """The one figure for a network alone: the mean by the paper's protocol, else the median."""
        return result.latency_ms(self.protocol)

    def label(self, result: Result) -> str:
        """The model's name, with engine and precision if these differ within the benchmark."""
        return _label(result, self.results)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, every sample included."""
        return self.model_dump(mode="json", by_alias=True)


def _label(result: Result, results: Sequence[Result]) -> str:
    several = [key for key in ("runtime", "precision") if len({getattr(other, key) for other in results}) > 1]
    return " ".join((result.model, *(getattr(result, key) for key in several)))


def _warnings(results: Sequence[Result], machine: Machine, load: Load) -> list[str]:
    ranked = sorted(results, key=lambda result: result.network.median_ms)
    lines = [_unclear(*pair, results) for pair in pairwise(ranked)]
    lines += [_spread(result.network, _label(result, results)) for result in results]
    other, cores = load.other_cores, machine.num_threads
    if other is not None and other > MAX_OTHER_CORES * cores:
        lines.append(f"the machine was not idle: other work kept {other:.1f} of its {cores} processors busy")
    return [line for line in lines if line]


def _unclear(fast: Result, slow: Result, results: Sequence[Result]) -> str:
    comparison = compare(fast.network, slow.network)
    if comparison.verdict != "cannot tell apart":
        return ""
    low, high = comparison.interval
    text = f"{_label(fast, results)} and {_label(slow, results)} cannot be told apart: "
    if high / low < ALIKE:
        return f"{text}their times are within {100 * (high / low - 1):.0f} % of each other"
    return (
        f"{text}the ratio of their times is between {low:.2f} and {high:.2f}; the machine is too noisy for more, "
        "measure while it is idle, or for longer"
    )


def _spread(latency: Latency, label: str) -> str:
    if latency.target_reached is False:
        return f"times of {label} did not settle to the precision asked for"
    if latency.iqr_ms > MAX_SPREAD * latency.median_ms:
        return f"times of {label} are spread: half of them over {latency.iqr_ms:.3g} ms"
    return ""


def benchmark(
    candidates: Sequence[Candidate],
    *,
    size: Size,
    num_threads: int | None = None,
    protocol: str = "adaptive",
    image: Image | None = None,
    image_name: str = "",
    end_to_end: bool = True,
    memory: bool = True,
    labelled: Split | None = None,
    device: Device | None = None,
    on_progress: Progress | None = None,
) -> Benchmark:
    """Time candidates interleaved.

    Args:
        candidates: what to time; combinations that engine, file or machine do not support become `problems`.
        size: (height, width) in pixels of the input of every network without a size of its own.
        num_threads: threads of the engines; None leaves the choice to each.
        protocol: a name in `PROTOCOLS`. "paper" times the network alone.
        image: H x W x 3 uint8 RGB, of any size; a generated street scene of `size` unless given.
        image_name: its description, for the result.
        end_to_end, memory: whether to measure these, too.
        labelled: images with labels to evaluate every candidate on, at `size`; None for none.
        device: where networks run; None for this machine. Times end to end are of this machine only.
        on_progress: called with the current stage and the part of it that is done, 0 to 1.

    Raises:
        RunError: there is no such protocol, nothing to measure, or no candidate could be opened; then the message
            gives the first reason.
    """
    if protocol not in PROTOCOLS:
        raise RunError(unknown_name("timing protocol", protocol, PROTOCOLS))
    if not candidates:
        raise RunError("nothing to measure: no model was given")
    shown, image_name = (_scene(size), "a generated street scene") if image is None else (image, image_name)
    cells, problems = _open_all(candidates, shown, size, num_threads, device, is_given=image is not None)
    if not cells:
        raise RunError(f"{problems[0].model}: {problems[0].problem}")
    on_progress = on_progress or (lambda stage, part: None)
    if device is None:
        networks, whole, load = _time_here(cells, protocol, on_progress, end_to_end=end_to_end)
    else:
        networks, load = _time_there(device, cells, protocol, on_progress)
        whole = None
    peaks = [_memory(cell, size, num_threads, problems, device) if memory else None for cell in cells]
    scores = [None if labelled is None else _miou(cell, labelled, problems, on_progress) for cell in cells]
    results = [
        cell.result(network, end_to_end=whole[index] if whole else None, peak_memory_mib=peak, miou=miou)
        for index, (cell, network, peak, miou) in enumerate(zip(cells, networks, peaks, scores, strict=True))
    ]
    if any(cell.source is not shown for cell in cells):
        image_name = "noise" if all(cell.source is not shown for cell in cells) else f"{image_name}, or noise"
    name = f"{image_name}, {shown.shape[0]}x{shown.shape[1]}"
    machine = describe_machine() if device is None else device.machine
    return Benchmark.of(size, protocol, name, results, problems, machine, load, device.name if device else None)


def _time_here(
    cells: Sequence["_Cell"], protocol: str, on_progress: Progress, *, end_to_end: bool
) -> tuple[list[Latency], list[Latency] | None, Load]:
    """Times of the networks alone, and end to end, and the load meanwhile."""
    whole: list[Latency] | None = None
    with measuring_alone():
        watch = LoadWatch.start()
        calls: list[Callable[[], object]] = [partial(cell.session.run, cell.image) for cell in cells]
        networks = _measure(calls, protocol, partial(on_progress, "network"))
        if end_to_end and protocol != "paper":
            calls = [partial(cell.segment, cell.source) for cell in cells]
            whole = _measure(calls, protocol, partial(on_progress, "end to end"))
        return networks, whole, watch.load()


def _time_there(
    device: Device, cells: Sequence["_Cell"], protocol: str, on_progress: Progress
) -> tuple[list[Latency], Load]:
    items = {str(index): (cast("DeviceSession", cell.session), cell.image) for index, cell in enumerate(cells)}
    found, load = device.measure(items, protocol=PROTOCOLS[protocol], on_progress=partial(on_progress, "network"))
    return list(found.values()), load


@dataclass(frozen=True, slots=True)
class _Cell:
    """An opened candidate."""

    candidate: Candidate
    session: Session
    image: NDArray[np.float32]  # 1 x 3 x H x W, for the session
    segment: Callable[[Image], Labels]  # the fastest way
    label_space: LabelSpace | None
    source: Image  # which that is made of
    channels: Channels = RGB

    def result(self, network: Latency, **figures: Any) -> Result:
        return Result(
            model=self.candidate.name,
            path=str(self.candidate.path),
            runtime=self.candidate.runtime,
            engine=self.session.engine,
            precision=self.session.precision,
            num_threads=self.session.num_threads,
            num_bytes=self.candidate.path.stat().st_size,
            macs=self.candidate.macs,
            network=network,
            size=self.candidate.size,
            **figures,
        )


def _problem(candidate: Candidate, problem: str) -> Problem:
    runtime, precision = candidate.runtime, candidate.precision
    return Problem(model=candidate.name, runtime=runtime, precision=precision, problem=problem)


def _open_all(
    candidates: Sequence[Candidate],
    image: Image,
    size: Size,
    num_threads: int | None,
    device: Device | None,
    *,
    is_given: bool,
) -> tuple[list[_Cell], list[Problem]]:
    """Opened candidates; those of other channels than RGB get noise to look at, unless an image is given."""
    cells: dict[tuple[object, ...], _Cell] = {}
    problems: list[Problem] = []
    for candidate in candidates:
        try:
            cell = _open(candidate, image, size, num_threads, device, is_given=is_given)
            cell.segment(cell.source)  # timing is pointless for a network that overflows in this precision
        except DeviceError:
            raise
        except LpsnetError as error:
            problems.append(_problem(candidate, f"not measured: {error}"))
            continue
        # a quantised file is the same whatever precision was requested
        key = (candidate.path, candidate.runtime, cell.session.precision, candidate.threads)
        cells.setdefault(key, cell)
    return list(cells.values()), problems


def _options(candidate: Candidate, size: Size, num_threads: int | None) -> SessionOptions:
    size, num_threads = candidate.size or size, candidate.threads or num_threads
    return SessionOptions(candidate.path, candidate.precision, num_threads, input_size=size)


def _open(
    candidate: Candidate,
    image: Image,
    size: Size,
    num_threads: int | None,
    device: Device | None = None,
    *,
    is_given: bool = False,
) -> _Cell:
    model_file.check_model_file(candidate.path)
    record = model_file.find_record(candidate.path)
    options, size = _options(candidate, size, num_threads), candidate.size or size
    session: Session = (device.open_session if device else open_session)(candidate.runtime, options)
    channels = record.image_channels if record is not None else RGB
    if record is not None and not channels.is_rgb and not is_given:
        image = preprocess.sample_image(record, size)
    prepared = preprocess.prepare(image, record or _UNKNOWN, size=size)
    output = session.run(prepared)
    foreign = None if record is not None else _foreign_record(output)
    if record is None and foreign is None:
        return _Cell(candidate, session, prepared, partial(_own_labels, session, size=size), None, image)
    if device is not None:
        segmenter = Segmenter.from_session(session, record or foreign or _UNKNOWN, input_size=size)
    else:
        segmenter = Segmenter(
            candidate.path,
            runtime=candidate.runtime,
            precision=candidate.precision,
            num_threads=options.num_threads,
            input_size=size,
            record=foreign,
        )
    return _Cell(candidate, session, prepared, segmenter, record.label_space if record else None, image, channels)


def _foreign_record(output: NDArray[np.float32]) -> ModelRecord | None:
    """A record for a file of another program, from its output; None if that is a label map already."""
    shape = output.shape
    if len(shape) == 4 and shape[0] == 1 and 2 <= shape[1] <= MAX_CLASSES:
        return _UNKNOWN.model_copy(update={"label_space": LabelSpace.numbered(shape[1])})
    if (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)) and shape[0] == 1:
        return None
    raise ModelFileError(f"the model's output has shape {shape}; logits are 1 x K x h x w, labels 1 x H x W")


def _own_labels(session: Session, image: Image, *, size: Size) -> Labels:
    """Labels of a network whose output is a label map, at the size of the image."""
    labels = session.run(preprocess.prepare(image, _UNKNOWN, size=size)).reshape(-1, *size)[0].astype(np.uint8)
    height, width = image.shape[:2]
    resized: Labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return resized


def _measure(
    calls: Sequence[Callable[[], object]], protocol: str, on_progress: Callable[[float], None]
) -> list[Latency]:
    named = {str(index): call for index, call in enumerate(calls)}
    return list(measure(named, protocol=PROTOCOLS[protocol], on_progress=on_progress).values())


def _memory(
    cell: _Cell, size: Size, num_threads: int | None, problems: list[Problem], device: Device | None
) -> float | None:
    options, runtime = _options(cell.candidate, size, num_threads), cell.candidate.runtime
    try:
        if device is not None:
            return device.peak_memory_mib(runtime, options, cell.image)
        return peak_memory_mib(partial(_load_and_run, runtime, options))
    except RunError as error:
        problems.append(_problem(cell.candidate, f"no peak memory: {error}"))
        return None


def _load_and_run(runtime: str, options: SessionOptions) -> None:
    assert options.input_size is not None
    shape = (1, _num_channels(options.path), *options.input_size)
    session, image = open_session(runtime, options), np.zeros(shape, np.float32)
    for _ in range(NUM_RUNS_FOR_MEMORY):
        session.run(image)


def _num_channels(path: Path) -> int:
    record = model_file.find_record(path)
    return 3 if record is None else len(record.channels)


def _miou(cell: _Cell, labelled: Split, problems: list[Problem], on_progress: Progress) -> float | None:
    """A file of another program is evaluated by class ids, as its class names are unknown."""

    def show(done: int, total: int) -> None:
        on_progress(f"mIoU of {cell.candidate.name}", done / total)

    try:
        check_same_channels(cell.channels, labelled.channels)
        evaluation = evaluate(cell.segment, labelled, label_space=cell.label_space, on_progress=show)
    except LpsnetError as error:
        problems.append(_problem(cell.candidate, f"no mIoU: {error}"))
        return None
    return None if math.isnan(evaluation.miou) else float(evaluation.miou)


def _scene(size: Size) -> Image:
    from lpsnet.data.synthetic import SceneSplit

    return SceneSplit(size=size, count=1, seed=0, name="benchmark").image(0)

"""What a benchmark gives: candidates measured in turn on one machine, every sample, and what a reader must know of it.

The network alone is what the paper times (design-notes, 'What is timed'): scores from a normalised image. End to end
is what a user waits for: from the image's bytes to a label map of its size.

Latency that can be trusted: several models, by several engines, measured in turn on this machine.

Models are opened all at once and then called by turns (`timing.measure`), first their networks alone, then end to end;
memory is taken in processes of their own, and mIoU last, so that neither is in the way of the clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet import __version__
from lpsnet.benchmark.machine import Load, LoadWatch, Machine, command_line, describe_machine, peak_memory_mib
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, compare, measure, measuring_alone
from lpsnet.data.labels import MAX_CLASSES, LabelSpace
from lpsnet.data.split import Split
from lpsnet.errors import LpsnetError, ModelFileError, RunError, unknown_name
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.inference.model_file import check_model_file, find_record
from lpsnet.inference.preprocess import Image, prepare
from lpsnet.inference.segmenter import Segmenter
from lpsnet.record import ModelRecord

MAX_SPREAD = 0.2  # interquartile range as a share of the median, above which times are called spread
MAX_OTHER_CORES = 0.1  # processors busy with other work, above which the machine is called busy
ALIKE = 1.05  # upper by lower bound of a ratio, below which two models are as fast as each other and not just unclear


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is to be timed: a model file, run by an engine in an arithmetic.

    Attributes:
        name: what it is called in tables.
        path: the file; an ONNX file of another program will do.
        runtime: the engine, see `RUNTIMES`.
        precision: the arithmetic to ask for; a quantised file computes in int8 whatever is asked for.
        macs: multiply-accumulates for an image of the size measured; None if not known.
        size: (height, width) in pixels of its input, where it is not that of the benchmark.
    """

    name: str
    path: Path
    runtime: str
    precision: Precision = "f32"
    macs: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured of a candidate.

    Attributes:
        engine: the engine and its version.
        precision: the arithmetic really used.
        num_threads: threads of the engine; None if it does not say.
        num_bytes: size of the file.
        network: the network alone, from a normalised image to scores.
        end_to_end: from an image's bytes to its label map; None if not measured.
        peak_memory_mib: of a process that loads the model and runs it; None if not measured.
        miou: percent; None if not evaluated.
    """

    candidate: Candidate
    engine: str
    precision: Precision
    num_threads: int | None
    num_bytes: int
    network: Latency
    end_to_end: Latency | None = None
    peak_memory_mib: float | None = None
    miou: float | None = None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Candidates measured in turn.

    Attributes:
        size: (height, width) in pixels of the network's input.
        protocol: the name in `PROTOCOLS`.
        image: what the image is.
        results: in the order asked for.
        problems: (candidate, what could not be measured of it and why).
        machine, load: where, and what else went on there.
        date: UTC, ISO 8601.
    """

    size: tuple[int, int]
    protocol: str
    image: str
    results: tuple[Result, ...]
    problems: tuple[tuple[Candidate, str], ...]
    machine: Machine
    load: Load
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def latency_ms(self, result: Result) -> float:
        """The one figure for a network alone: the mean by the paper's protocol, else the median."""
        return result.network.mean_ms if self.protocol == "paper" else result.network.median_ms

    def gmacs_per_ms(self, result: Result) -> float | None:
        """FLOPs-efficiency as in the paper's Table 2, in 10^9 multiply-accumulates a millisecond."""
        macs = result.candidate.macs
        return None if macs is None else macs / 1e9 / self.latency_ms(result)

    def speed_up(self, result: Result) -> float | None:
        """How many times as fast a network alone is as the first one, round by round; None for the first itself."""
        first = self.results[0]
        return None if result is first else compare(first.network, result.network).ratio

    def comparisons(self) -> list[tuple[Result, Result, Comparison]]:
        """Every pair, the network alone."""
        return [(a, b, compare(a.network, b.network)) for a, b in combinations(self.results, 2)]

    def label(self, result: Result) -> str:
        """The candidate's name, with engine and precision where these differ within the benchmark."""
        engines = {other.candidate.runtime for other in self.results}
        precisions = {other.precision for other in self.results}
        parts = [
            result.candidate.name,
            result.candidate.runtime if len(engines) > 1 else "",
            result.precision if len(precisions) > 1 else "",
        ]
        return " ".join(filter(None, parts))

    def warnings(self) -> list[str]:
        """What a reader of the figures must know, a line each; neighbours in speed that cannot be told apart first."""
        ranked = sorted(self.results, key=lambda result: result.network.median_ms)
        lines = [self._unclear(*pair) for pair in pairwise(ranked)]
        lines += [self._spread(result) for result in self.results]
        other, cores = self.load.other_cores, self.machine.num_threads
        if other is not None and other > MAX_OTHER_CORES * cores:
            lines.append(f"the machine was not idle: other work kept {other:.1f} of its {cores} processors busy")
        return [line for line in lines if line]

    def _unclear(self, fast: Result, slow: Result) -> str:
        comparison = compare(fast.network, slow.network)
        if comparison.verdict != "cannot tell apart":
            return ""
        low, high = comparison.interval
        text = f"{self.label(fast)} and {self.label(slow)} cannot be told apart: "
        if high / low < ALIKE:
            return f"{text}their times are within {100 * (high / low - 1):.0f} % of each other"
        return (
            f"{text}the ratio of their times is between {low:.2f} and {high:.2f}; the machine is too noisy for more, "
            "measure while it is idle, or for longer"
        )

    def _spread(self, result: Result) -> str:
        latency = result.network
        if latency.target_reached is False:
            return f"times of {self.label(result)} did not settle to the precision asked for"
        if latency.iqr_ms > MAX_SPREAD * latency.median_ms:
            return f"times of {self.label(result)} are spread: half of them over {latency.iqr_ms:.3g} ms"
        return ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, every sample included."""
        return {
            "size": list(self.size),
            "protocol": self.protocol,
            "picture": self.image,
            "results": [self._result(result) for result in self.results],
            "comparisons": [
                {"a": self.label(a), "b": self.label(b), **comparison.to_dict()}
                for a, b, comparison in self.comparisons()
            ],
            "warnings": self.warnings(),
            "problems": [
                {"model": cell.name, "runtime": cell.runtime, "precision": cell.precision, "problem": problem}
                for cell, problem in self.problems
            ],
            "machine": self.machine.to_dict(),
            "load": self.load.to_dict(),
            "command": command_line(),
            "lpsnet_version": __version__,
            "date": self.date,
        }

    def _result(self, result: Result) -> dict[str, Any]:
        return {
            "model": result.candidate.name,
            "path": str(result.candidate.path),
            "runtime": result.candidate.runtime,
            "engine": result.engine,
            "precision": result.precision,
            "num_threads": result.num_threads,
            "num_bytes": result.num_bytes,
            "macs": result.candidate.macs,
            "gmacs_per_ms": self.gmacs_per_ms(result),
            "times_as_fast_as_first": self.speed_up(result),
            "network": result.network.to_dict(),
            "end_to_end": None if result.end_to_end is None else result.end_to_end.to_dict(),
            "peak_memory_mib": result.peak_memory_mib,
            "miou": result.miou,
        }


Size = tuple[int, int]
Labels = NDArray[np.uint8]
Progress = Callable[[str, float], None]

NUM_RUNS_FOR_MEMORY = 2  # engines take memory in the first, and may take more in the second

# Of a file that says nothing about itself, until its scores have shown how many classes it has
_UNKNOWN = ModelRecord(architecture=None, label_space=LabelSpace.numbered(1), align_corners=False)


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
    progress: Progress | None = None,
) -> Benchmark:
    """Measure candidates in turn.

    Args:
        candidates: what to time; combinations that engine, file or machine cannot do are reported as problems.
        size: (height, width) in pixels of every network's input that has no size of its own.
        num_threads: threads of the engines; None leaves the choice to each.
        protocol: a name in `PROTOCOLS`. "paper" times the network alone.
        image: H x W x 3 uint8 RGB, of any size; a generated street scene of `size` unless given.
        picture_name: what it is, for the result.
        end_to_end, memory: whether to measure these too.
        labelled: images with labels to evaluate every candidate on, at `size`; None for none.
        progress: told what is being done, and which part of that is done, 0 to 1.

    Raises:
        RunError: there is no such protocol, nothing to measure, or not one candidate could be opened; then the message
            says why of the first.
    """
    if protocol not in PROTOCOLS:
        raise RunError(unknown_name("timing protocol", protocol, PROTOCOLS))
    if not candidates:
        raise RunError("nothing to measure: no model was given")
    image, image_name = (_scene(size), "a generated street scene") if image is None else (image, image_name)
    cells, problems = _open_all(candidates, image, size, num_threads)
    if not cells:
        raise RunError(f"{problems[0][0].name}: {problems[0][1]}")
    tell = progress or _tell_nobody
    whole: list[Latency] | None = None
    with measuring_alone():
        watch = LoadWatch.start()
        networks = _measure([cell.run_network for cell in cells], protocol, partial(tell, "network"))
        if end_to_end and protocol != "paper":
            whole = _measure([partial(cell.segment, image) for cell in cells], protocol, partial(tell, "end to end"))
        load = watch.load()
    results = [
        replace(cell.result(network), end_to_end=whole[index] if whole else None)
        for index, (cell, network) in enumerate(zip(cells, networks, strict=True))
    ]
    if memory:
        results = [
            replace(r, peak_memory_mib=_memory(r.candidate, r.candidate.size or size, num_threads, problems))
            for r in results
        ]
    if labelled is not None:
        results = [_evaluated(r, cell, labelled, problems, tell) for r, cell in zip(results, cells, strict=True)]
    return Benchmark(
        size=size,
        protocol=protocol,
        image=f"{image_name}, {image.shape[0]}x{image.shape[1]}",
        results=tuple(results),
        problems=tuple(problems),
        machine=describe_machine(),
        load=load,
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """An opened candidate.

    Attributes:
        session: that takes the whole image, normalised: what the paper times.
        image: 1 x 3 x H x W, for the session.
        segment: image to label map, the quickest way.
        label_space: of the label maps.
    """

    candidate: Candidate
    session: Session
    image: NDArray[np.float32]
    segment: Callable[[Image], Labels]
    label_space: LabelSpace | None

    def run_network(self) -> object:
        return self.session.run(self.image)

    def result(self, network: Latency) -> Result:
        return Result(
            candidate=self.candidate,
            engine=self.session.engine,
            precision=self.session.precision,
            num_threads=self.session.num_threads,
            num_bytes=self.candidate.path.stat().st_size,
            network=network,
        )


Problems = list[tuple[Candidate, str]]


def _open_all(
    candidates: Sequence[Candidate], image: Image, size: Size, num_threads: int | None
) -> tuple[list[_Cell], Problems]:
    cells: dict[tuple[object, ...], _Cell] = {}
    problems: Problems = []
    for candidate in candidates:
        try:
            cell = _open(candidate, image, candidate.size or size, num_threads)
            cell.segment(image)  # a network that overflows in this precision has nothing that its time is worth
        except LpsnetError as error:
            problems.append((candidate, f"not measured: {error}"))
            continue
        # a quantised file is the same whatever precision was asked for
        cells.setdefault((candidate.path, candidate.runtime, cell.session.precision), cell)
    return list(cells.values()), problems


def _open(candidate: Candidate, picture: Image, size: Size, num_threads: int | None) -> _Cell:
    check_model_file(candidate.path)
    record = find_record(candidate.path)
    session = open_session(
        candidate.runtime, SessionOptions(candidate.path, candidate.precision, num_threads, input_size=size)
    )
    image = prepare(picture, record or _UNKNOWN, size=size)
    output = session.run(image)
    foreign = None if record is not None else _foreign_record(output)
    if record is None and foreign is None:
        return _Cell(candidate, session, image, partial(_own_labels, session, size=size), None)
    segmenter = Segmenter(
        candidate.path,
        runtime=candidate.runtime,
        precision=candidate.precision,
        num_threads=num_threads,
        input_size=size,
        record=foreign,
    )
    return _Cell(candidate, session, image, segmenter, record.label_space if record else None)


def _foreign_record(output: NDArray[np.float32]) -> ModelRecord | None:
    """What a file of another program may be taken for by its output; None where that is a label map already.

    Raises:
        ModelFileError: the output is neither scores 1 x K x h x w nor labels 1 x H x W or 1 x 1 x H x W.
    """
    shape = output.shape
    if len(shape) == 4 and shape[0] == 1 and 2 <= shape[1] <= MAX_CLASSES:
        return _UNKNOWN.model_copy(update={"label_space": LabelSpace.numbered(shape[1])})
    if (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)) and shape[0] == 1:
        return None
    raise ModelFileError(f"the model's output has shape {shape}; scores are 1 x K x h x w, labels 1 x H x W")


def _own_labels(session: Session, image: Image, *, size: Size) -> Labels:
    """The labels of a network that gives labels itself, at the size of the image."""
    labels = session.run(prepare(image, _UNKNOWN, size=size)).reshape(-1, *size)[0].astype(np.uint8)
    height, width = image.shape[:2]
    resized: Labels = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    return resized


def _measure(calls: Sequence[Callable[[], object]], protocol: str, progress: Callable[[float], None]) -> list[Latency]:
    names = [str(index) for index in range(len(calls))]
    found = measure(dict(zip(names, calls, strict=True)), protocol=PROTOCOLS[protocol], progress=progress)
    return [found[name] for name in names]


def _memory(candidate: Candidate, size: Size, num_threads: int | None, problems: Problems) -> float | None:
    try:
        return peak_memory_mib(partial(_load_and_run, candidate, size, num_threads))
    except RunError as error:
        problems.append((candidate, f"no peak memory: {error}"))
        return None


def _load_and_run(candidate: Candidate, size: Size, num_threads: int | None) -> None:
    options = SessionOptions(candidate.path, candidate.precision, num_threads, input_size=size)
    session = open_session(candidate.runtime, options)
    image = np.zeros((1, 3, *size), np.float32)
    for _ in range(NUM_RUNS_FOR_MEMORY):
        session.run(image)


def _evaluated(result: Result, cell: _Cell, labelled: Split, problems: Problems, tell: Progress) -> Result:
    """With mIoU; a file of another program is scored by the ids of its classes, whose names nobody knows."""
    try:
        evaluation = evaluate(
            cell.segment,
            labelled,
            label_space=cell.label_space,
            progress=lambda done, total: tell(f"mIoU of {result.candidate.name}", done / total),
        )
    except LpsnetError as error:
        problems.append((result.candidate, f"no mIoU: {error}"))
        return result
    return replace(result, miou=evaluation.miou)


def _scene(size: Size) -> Image:
    from lpsnet.data.synthetic import SceneSplit

    return SceneSplit(size=size, count=1, seed=0, name="benchmark").image(0)


def _tell_nobody(stage: str, part: float) -> None:
    pass

"""Latency that can be trusted: several models, by several engines, measured in turn on this machine.

Models are opened all at once and then called by turns (`timing.measure`), first their networks alone, then end to end;
memory is taken in processes of their own, and mIoU last, so that neither is in the way of the clock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data.labels import MAX_CLASSES, LabelSpace
from lpsnet.data.split import Split
from lpsnet.deployment.benchmark_result import Benchmark, Candidate, Result
from lpsnet.deployment.latency import Latency
from lpsnet.deployment.load import LoadWatch
from lpsnet.deployment.machine import describe_machine
from lpsnet.deployment.memory import peak_memory_mib
from lpsnet.deployment.model_file import check_model_file, find_record
from lpsnet.deployment.preparation import Picture, prepare
from lpsnet.deployment.runtimes.session import Session, SessionOptions, open_session
from lpsnet.deployment.segmenter import Segmenter
from lpsnet.deployment.timing import PROTOCOLS, measure, measuring_alone
from lpsnet.errors import LpsnetError, ModelFileError, RunError, unknown_name
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.record import ModelRecord

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
    picture: Picture | None = None,
    picture_name: str = "",
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
        picture: H x W x 3 uint8 RGB, of any size; a generated street scene of `size` unless given.
        picture_name: what it is, for the result.
        end_to_end, memory: whether to measure these too.
        labelled: pictures with labels to evaluate every candidate on, at `size`; None for none.
        progress: told what is being done, and which part of that is done, 0 to 1.

    Raises:
        RunError: there is no such protocol, nothing to measure, or not one candidate could be opened; then the message
            says why of the first.
    """
    if protocol not in PROTOCOLS:
        raise RunError(unknown_name("timing protocol", protocol, PROTOCOLS))
    if not candidates:
        raise RunError("nothing to measure: no model was given")
    picture, picture_name = (_scene(size), "a generated street scene") if picture is None else (picture, picture_name)
    cells, problems = _open_all(candidates, picture, size, num_threads)
    if not cells:
        raise RunError(f"{problems[0][0].name}: {problems[0][1]}")
    tell = progress or _tell_nobody
    whole: list[Latency] | None = None
    with measuring_alone():
        watch = LoadWatch.start()
        networks = _measure([cell.run_network for cell in cells], protocol, partial(tell, "network"))
        if end_to_end and protocol != "paper":
            whole = _measure([partial(cell.segment, picture) for cell in cells], protocol, partial(tell, "end to end"))
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
        picture=f"{picture_name}, {picture.shape[0]}x{picture.shape[1]}",
        results=tuple(results),
        problems=tuple(problems),
        machine=describe_machine(),
        load=load,
    )


@dataclass(frozen=True, slots=True)
class _Cell:
    """An opened candidate.

    Attributes:
        session: that takes the whole picture, normalised: what the paper times.
        image: 1 x 3 x H x W, for the session.
        segment: picture to label map, the quickest way.
        label_space: of the label maps.
    """

    candidate: Candidate
    session: Session
    image: NDArray[np.float32]
    segment: Callable[[Picture], Labels]
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
    candidates: Sequence[Candidate], picture: Picture, size: Size, num_threads: int | None
) -> tuple[list[_Cell], Problems]:
    cells: dict[tuple[object, ...], _Cell] = {}
    problems: Problems = []
    for candidate in candidates:
        try:
            cell = _open(candidate, picture, candidate.size or size, num_threads)
            cell.segment(picture)  # a network that overflows in this precision has nothing that its time is worth
        except LpsnetError as error:
            problems.append((candidate, f"not measured: {error}"))
            continue
        # a quantised file is the same whatever precision was asked for
        cells.setdefault((candidate.path, candidate.runtime, cell.session.precision), cell)
    return list(cells.values()), problems


def _open(candidate: Candidate, picture: Picture, size: Size, num_threads: int | None) -> _Cell:
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


def _own_labels(session: Session, image: Picture, *, size: Size) -> Labels:
    """The labels of a network that gives labels itself, at the size of the picture."""
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


def _scene(size: Size) -> Picture:
    from lpsnet.data.synthetic import SceneSplit

    return SceneSplit(size=size, count=1, seed=0, name="benchmark").image(0)


def _tell_nobody(stage: str, part: float) -> None:
    pass

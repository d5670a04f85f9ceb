"""Networks that studies compare, and their latencies, measured interleaved as `lpsnet benchmark` does.

A latency does not depend on the weights, so networks are timed with random ones. PyTorch is imported only to write
their files: a device without it measures files that the user gives (`--models`).
"""

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from lpsnet.architecture import Architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, compare
from lpsnet.errors import RunError
from lpsnet.inference.model_file import find_record
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES
from lpsnet.plugins import find_network
from lpsnet.studies.study import Json, Outcome, Place, Progress, Run, Scale, Settings

Size = tuple[int, int]  # height, width in pixels

PAPER_SIZE: Size = (1024, 2048)  # at which the paper measures latencies
TABLE_2_BLOCKS = (1, 2, 4, 7, 7)  # Section 4.3: B of the networks of Tables 2 and 3
TABLE_2_RATIOS = ("1", "1/4")  # and R
TABLE_3_C = 16  # Section 4.3: "We fix c = 16"
SECONDS = 30.0  # that a network takes, about, by either protocol
TIMING: Mapping[Scale, str] = {"small": "adaptive", "paper": "paper"}  # names in `PROTOCOLS`


@dataclass(frozen=True, slots=True)
class StudyNetwork:
    """A network in a study.

    Attributes:
        name: in tables and figures; unique within a study.
        architecture, block, interaction: see `create_model`.
    """

    name: str
    architecture: Architecture
    block: str = "conv3x3"
    interaction: str = "bilateral_b"

    def to_dict(self) -> dict[str, Json]:
        """JSON values, without the name."""
        return {"architecture": str(self.architecture), "block": self.block, "interaction": self.interaction}


@dataclass(frozen=True, slots=True)
class Peer:
    """A network of other code in a study, beside those of this package.

    Attributes:
        code: as `find_network` takes it.
    """

    code: str

    @property
    def name(self) -> str:
        """In tables and figures."""
        return find_network(self.code).name

    def to_dict(self) -> dict[str, Json]:
        """JSON values."""
        return {"network": self.name}


def table_2_architecture(c: int) -> Architecture:
    """The macro architecture of Tables 2 and 3 (Section 4.3): C={c,2c,4c,8c,8c}."""
    return Architecture(TABLE_2_BLOCKS, (c, 2 * c, 4 * c, 8 * c, 8 * c), TABLE_2_RATIOS)


def model_files(path: Path | None) -> list[Path]:
    """The file, or all model files in the folder, sorted by name; none for None.

    Raises:
        RunError: there is no such file or folder, or no model file in it.
    """
    if path is None:
        return []
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("*") if file.suffix.lower() in DEFAULT_RUNTIMES) if path.is_dir() else []
    if not found:
        kinds = ", ".join(DEFAULT_RUNTIMES)
        raise RunError(f"no model files in {path}; put files of these kinds there: {kinds}")
    return found


def input_size(file: Path, usual: Size) -> Size:
    """The size that a file is measured at: that in its name (`stdc1_512x1024.onnx`), or its record's, or `usual`."""
    if match := re.search(r"(\d{2,5})x(\d{2,5})$", file.stem):
        return int(match[1]), int(match[2])
    record = find_record(file)
    return usual if record is None or record.input_size is None else record.input_size


def candidates(settings: Settings, usual: Size) -> list[Candidate]:
    """The user's files, ONNX with every engine of the settings and others with the default of their kind."""
    found = []
    for file in model_files(settings.models):
        kind, size = file.suffix.lower(), input_size(file, usual)
        runtimes = settings.runtimes if kind == ".onnx" else (DEFAULT_RUNTIMES[kind],)
        found += [Candidate(file.stem, file, runtime, settings.precision, size=size) for runtime in runtimes]
    return found


def untrained_candidates(
    networks: Sequence[StudyNetwork | Peer],
    folder: Path,
    size: Size,
    settings: Settings,
    *,
    on_progress: Progress,
    num_classes: int = 19,
) -> Iterable[Candidate]:
    """Networks with random weights, written into `folder` for every engine of the settings."""
    from lpsnet.export.export import network_for_runtime, untrained_for_runtime

    for number, network in enumerate(networks):
        on_progress(f"writing {network.name}", number / len(networks))
        for runtime in settings.runtimes:
            write = (
                partial(network_for_runtime, find_network(network.code))
                if isinstance(network, Peer)
                else partial(
                    untrained_for_runtime,
                    network.architecture,
                    block=network.block,
                    interaction=network.interaction,
                )
            )
            path = write(folder, f"{number}_{runtime}", runtime=runtime, size=size, num_classes=num_classes)
            yield Candidate(network.name, path, runtime, settings.precision)


def fingerprint(file: Path) -> list[str | int]:
    """Name, bytes and time of last change: what a result depends on besides the settings."""
    status = file.stat()
    return [file.name, status.st_size, status.st_mtime_ns]


def engine_key(settings: Settings) -> dict[str, Json]:
    """The part of a run's key that engines and timing determine."""
    return {
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
        "protocol": asdict(PROTOCOLS[TIMING[settings.scale]]),
    }


def time_candidates(cells: Sequence[Candidate], size: Size, settings: Settings, on_progress: Progress) -> Benchmark:
    """Time the networks alone, interleaved, by the protocol of the scale."""
    return benchmark(
        cells,
        size=size,
        num_threads=settings.num_threads,
        protocol=TIMING[settings.scale],
        end_to_end=False,
        memory=False,
        on_progress=on_progress,
    )


@dataclass(frozen=True, slots=True)
class Timed:
    """The measured time of a network with an engine.

    Attributes:
        name: of the network.
        runtime, engine, precision, num_threads: see `Result`.
        latency: its samples are the medians of turns.
        mean_ms: of all calls.
    """

    name: str
    runtime: str
    engine: str
    precision: str
    num_threads: int | None
    latency: Latency
    mean_ms: float

    @property
    def median_ms(self) -> float:
        return self.latency.median_ms

    def over(self, other: "Timed") -> Comparison:
        """This time divided by another's of the same run, round by round."""
        return compare(self.latency, other.latency)


def time_columns(time: Timed | None) -> dict[str, Json]:
    """`median_ms` and its 95 % interval; None where it was not measured."""
    low, high = (None, None) if time is None else time.latency.interval_ms
    median_ms = None if time is None else time.median_ms
    return {"median_ms": median_ms, "interval_low_ms": low, "interval_high_ms": high}


def latency_run(networks: Sequence[StudyNetwork | Peer], size: Size, settings: Settings, *, num_classes: int) -> Run:
    """A run that times networks, interleaved, with every engine of the settings."""
    key = {
        "timed": {network.name: network.to_dict() for network in networks},
        "size": list(size),
        "num_classes": num_classes,
        **engine_key(settings),
    }

    def work(place: Place) -> dict[str, Json]:
        def on_progress(what: str, part: float) -> None:
            place.on_progress(f"measuring latencies: {what}", part)

        with tempfile.TemporaryDirectory(prefix="lpsnet-") as name:
            folder, write = Path(name), place.on_progress
            written = untrained_candidates(networks, folder, size, settings, num_classes=num_classes, on_progress=write)
            return measured(time_candidates(list(written), size, settings, on_progress))

    return Run(key, work, seconds=SECONDS * len(networks) * len(settings.runtimes))


def measured(found: Benchmark) -> dict[str, Json]:
    """A benchmark as the JSON values that `times_of` reads."""
    return {
        "size": list(found.size),
        "results": [_written(result) for result in found.results],
        "problems": [[each.model, each.runtime, each.problem] for each in found.problems],
        "warnings": list(found.warnings),
    }


def _written(result: Result) -> dict[str, Json]:
    return {
        "name": result.model,
        "runtime": result.runtime,
        "engine": result.engine,
        "precision": result.precision,
        "num_threads": result.num_threads,
        "num_bytes": result.num_bytes,
        "mean_ms": result.network.mean_ms,
        "turn_medians_ms": [median(turn) for turn in result.network.turns_ms],
        "run_id": result.network.run_id,
        "miou": result.miou,
    }


def times_of(outcome: Outcome) -> list[Timed]:
    """The times that a run measured, in the order of its networks."""
    return [
        Timed(
            **{name: row[name] for name in ("name", "runtime", "engine", "precision", "num_threads", "mean_ms")},
            latency=Latency(tuple((turn,) for turn in row["turn_medians_ms"]), run_id=row["run_id"]),
        )
        for row in outcome.result["results"]
    ]


def problems_of(outcome: Outcome) -> list[str]:
    """A sentence for each network that an engine could not run."""
    return [f"{name} by {runtime}: {text}." for name, runtime, text in outcome.result["problems"]]


def first_times(outcome: Outcome) -> dict[str, Timed]:
    """By the network's name, its time with the first engine."""
    return {time.name: time for time in times_of(outcome) if time.runtime == outcome.key["runtimes"][0]}


def describe_latency(timed: Outcome) -> str:
    """A sentence on how latencies were measured, here and in the paper."""
    size = "x".join(map(str, timed.key["size"]))
    engines = " and ".join(f"{runtime} {timed.key['precision']}" for runtime in timed.key["runtimes"])
    return (
        f"Latency at {size}, batch 1, {engines}, the median of interleaved calls, random weights. The paper: "
        "1024x2048, TensorRT FP32 on a GTX 1070 Ti, the mean of 20 s."
    )

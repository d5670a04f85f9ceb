"""The networks that studies compare: a name, and all that is needed to build one.

Model files that the user has put beside ours: which there are, and at what size each is measured.

Latencies of networks as runs of a study: all of them in turn, as `lpsnet benchmark` measures, with random weights.

How fast a network is does not depend on what its weights are, so nothing has to be trained before.
"""

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from lpsnet.architecture import Architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, compare
from lpsnet.errors import RunError
from lpsnet.inference.model_file import find_record
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES
from lpsnet.studies.study import Json, Outcome, Place, Run, Scale, Settings

Size = tuple[int, int]

TABLE_2_BLOCKS = (1, 2, 4, 7, 7)  # Section 4.3: B of the networks of Tables 2 and 3
TABLE_2_RATIOS = ("1", "1/4")  # and R
TABLE_3_C = 16  # Section 4.3: "We fix c = 16"


@dataclass(frozen=True, slots=True)
class StudyNetwork:
    """A network in a study.

    Attributes:
        name: in tables and figures; different for different networks of a study.
        architecture, block, interaction: see `create_model`.
    """

    name: str
    architecture: Architecture
    block: str = "conv3x3"
    interaction: str = "bilateral_b"

    def to_dict(self) -> dict[str, Json]:
        """What is built, as JSON values, without the name."""
        return {"architecture": str(self.architecture), "block": self.block, "interaction": self.interaction}


def table_2_architecture(c: int) -> Architecture:
    """The macro architecture of Tables 2 and 3 (Section 4.3): C={c,2c,4c,8c,8c}."""
    return Architecture(TABLE_2_BLOCKS, (c, 2 * c, 4 * c, 8 * c, 8 * c), TABLE_2_RATIOS)


def model_files(path: Path | None) -> list[Path]:
    """The file, or all model files in the folder, in the order of their names; none for None.

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
    """(height, width) that a file is measured at.

    That in its name (`stdc1_512x1024.onnx`), or else that of its record, or else the usual one.
    """
    if match := re.search(r"(\d{2,5})x(\d{2,5})$", file.stem):
        return int(match[1]), int(match[2])
    record = find_record(file)
    return usual if record is None or record.input_size is None else record.input_size


def candidates(settings: Settings, usual: Size) -> list[Candidate]:
    """The user's files by every engine asked for that reads them, else by the usual one of their kind."""
    found = []
    for file in model_files(settings.models):
        own = DEFAULT_RUNTIMES[file.suffix.lower()]
        runtimes = settings.runtimes if file.suffix.lower() == ".onnx" else (own,)
        size = input_size(file, usual)
        found += [Candidate(file.stem, file, runtime, settings.precision, size=size) for runtime in runtimes]
    return found


def fingerprint(file: Path) -> list[str | int]:
    """Name, bytes and time of last change: what a result depends on besides the settings."""
    status = file.stat()
    return [file.name, status.st_size, status.st_mtime_ns]


SECONDS = 30.0  # that a network takes, about, by either protocol
TIMING: Mapping[Scale, str] = {"small": "adaptive", "paper": "paper"}  # names in `PROTOCOLS`


@dataclass(frozen=True, slots=True)
class Timed:
    """What was measured of a network by an engine.

    Attributes:
        name: of the network.
        runtime, engine, precision, num_threads: as `Result` has them.
        latency: a turn is one sample, its median.
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

    @property
    def interval_ms(self) -> tuple[float, float]:
        return self.latency.interval_ms

    def over(self, other: "Timed") -> Comparison:
        """This time divided by another's of the same run, round by round."""
        return compare(self.latency, other.latency)


def latency_run(
    networks: Sequence[StudyNetwork], size: tuple[int, int], settings: Settings, *, num_classes: int
) -> Run:
    """A run that times networks in turn, by every engine asked for.

    Args:
        networks: of different names.
        size: (height, width) in pixels.
        settings: with engines, precision, threads and scale.
        num_classes: of the networks.
    """
    protocol = TIMING[settings.scale]
    key = {
        "timed": {network.name: network.to_dict() for network in networks},
        "size": list(size),
        "num_classes": num_classes,
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
        "protocol": asdict(PROTOCOLS[protocol]),
    }

    def work(place: Place) -> dict[str, Json]:
        with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
            cells = list(_candidates(networks, Path(folder), size, settings, num_classes, place))
            found = benchmark(
                cells,
                size=size,
                num_threads=settings.num_threads,
                protocol=protocol,
                end_to_end=False,
                memory=False,
                progress=lambda what, part: place.progress(f"measuring latencies: {what}", part),
            )
        return measured(found)

    return Run(key, work, seconds=SECONDS * len(networks) * len(settings.runtimes))


def measured(found: Benchmark) -> dict[str, Json]:
    """A benchmark as the JSON values from which `times_of` makes its times."""
    return {
        "size": list(found.size),
        "results": [_written(result) for result in found.results],
        "problems": [[each.model, each.runtime, each.problem] for each in found.problems],
        "warnings": list(found.warnings),
    }


def times_of(outcome: Outcome) -> list[Timed]:
    """What a run of latencies measured, in the order of its networks."""
    return [
        Timed(
            **{name: row[name] for name in ("name", "runtime", "engine", "precision", "num_threads", "mean_ms")},
            latency=Latency(tuple((turn,) for turn in row["turn_medians_ms"]), run_id=row["run_id"]),
        )
        for row in outcome.result["results"]
    ]


def describe_latency(timed: Outcome) -> str:
    """How latencies were measured, beside the paper's way, in a sentence."""
    size = "x".join(map(str, timed.key["size"]))
    engines = " and ".join(f"{runtime} {timed.key['precision']}" for runtime in timed.key["runtimes"])
    return (
        f"Latency at {size}, batch 1, {engines}, the median of calls in turn, random weights. The paper: 1024x2048, "
        "TensorRT FP32 on a GTX 1070 Ti, the mean of 20 s."
    )


def by_name(times: Iterable[Timed], runtime: str) -> dict[str, Timed]:
    """Those of one engine, by the network's name."""
    return {time.name: time for time in times if time.runtime == runtime}


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


def _candidates(
    networks: Sequence[StudyNetwork],
    folder: Path,
    size: tuple[int, int],
    settings: Settings,
    num_classes: int,
    place: Place,
) -> Iterable[Candidate]:
    from lpsnet.export.export import untrained_for_runtime

    for number, network in enumerate(networks):
        place.progress(f"writing {network.name}", number / len(networks))
        for runtime in settings.runtimes:
            path = untrained_for_runtime(
                network.architecture,
                folder,
                f"{number}_{runtime}",
                runtime=runtime,
                size=size,
                num_classes=num_classes,
                block=network.block,
                interaction=network.interaction,
            )
            yield Candidate(network.name, path, runtime, settings.precision)

"""Networks that studies compare, and their latencies, measured interleaved as `lpsnet benchmark` does.

A latency does not depend on the weights, so networks are timed with random ones. PyTorch is imported only to write
their files: a device without it measures files that the user gives (`--models`).

Single blocks (Section 3.2) are timed as stacks of `NUM_STACKED` equal ones, divided by their number, so that neither
the overhead of a call nor a change of layout at the engine's borders is attributed to the block.
"""

import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lpsnet.architecture import Architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, TimingProtocol, compare, measure
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import RunError, unknown_name
from lpsnet.export import ncnn, onnx
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.inference.engines.pytorch import exact_float32
from lpsnet.inference.model_file import find_record, write_container
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES
from lpsnet.models.blocks import BLOCKS
from lpsnet.record import ModelRecord
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
    networks: Sequence[StudyNetwork],
    folder: Path,
    size: Size,
    settings: Settings,
    *,
    on_progress: Progress,
    num_classes: int = 19,
) -> Iterable[Candidate]:
    """Networks with random weights, written into `folder` for every engine of the settings."""
    from lpsnet.export.export import untrained_for_runtime

    for number, network in enumerate(networks):
        on_progress(f"writing {network.name}", number / len(networks))
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


def latency_run(networks: Sequence[StudyNetwork], size: Size, settings: Settings, *, num_classes: int) -> Run:
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


NUM_STACKED = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A deployed block of stride 1 with `width` channels in and out, on maps of `size` (height, width) in pixels."""

    block: str
    width: int
    size: tuple[int, int] = (128, 128)

    @property
    def name(self) -> str:
        """Unique within a study."""
        return f"{self.block} {self.width}"


@dataclass(frozen=True, slots=True)
class BlockTime:
    """The measured time of a case.

    Attributes:
        macs: multiply-accumulates of one block.
        latency: of the whole stack; its samples are the medians of turns.
        mean_ms: of one block, over all calls.
    """

    case: Case
    macs: int
    latency: Latency
    mean_ms: float

    @property
    def median_ms(self) -> float:
        """Of one block."""
        return self.latency.median_ms / NUM_STACKED

    @property
    def interval_ms(self) -> tuple[float, float]:
        """The interval of that median."""
        low, high = self.latency.interval_ms
        return low / NUM_STACKED, high / NUM_STACKED

    @property
    def mmacs_per_ms(self) -> float:
        """FLOPs-efficiency (Section 3.2) in 10^6 multiply-accumulates per millisecond."""
        return self.macs / 1e6 / self.median_ms


def check_runtime(runtime: str) -> None:
    """RunError unless blocks can be written in a form that the engine reads."""
    if runtime not in _OPENERS:
        raise RunError(unknown_name("runtime of a study of blocks", runtime, _OPENERS))


def time_blocks(
    cases: Sequence[Case],
    *,
    runtime: str,
    precision: Precision,
    num_threads: int | None,
    protocol: TimingProtocol,
    on_progress: Progress,
) -> dict[str, Json]:
    """Time cases, interleaved; the JSON values that `block_times` reads.

    Raises:
        RunError: see `check_runtime`.
        ModelFileError, MissingDependencyError: the engine cannot run them here, or not in that precision.
    """
    check_runtime(runtime)
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder:
        opened = {}
        for number, case in enumerate(cases):
            on_progress(f"{runtime}: writing {case.name}", number / len(cases))
            options = SessionOptions(Path(folder) / f"block_{number}", precision, num_threads)
            opened[case.name] = _OPENERS[runtime](runtime, _stack(case), case, options)
        calls = {name: stack.call for name, stack in opened.items()}
        found = measure(calls, protocol=protocol, on_progress=lambda part: on_progress(f"{runtime}: measuring", part))
    first = next(iter(opened.values()))
    return {
        "engine": first.engine,
        "precision": first.precision,
        "num_threads": first.num_threads,
        "num_stacked": NUM_STACKED,
        "cases": [_case_as_json(case, found[case.name]) for case in cases],
    }


def block_times(result: Mapping[str, Json]) -> list[BlockTime]:
    """The times in a result of `time_blocks`."""
    return [
        BlockTime(
            case=Case(row["block"], row["width"], tuple(row["size"])),
            macs=row["macs"],
            latency=Latency(tuple((turn,) for turn in row["turn_medians_ms"]), run_id=row["run_id"]),
            mean_ms=row["mean_ms"],
        )
        for row in result["cases"]
    ]


def count_macs(case: Case) -> int:
    """Multiply-accumulates of one block, counted on shapes alone."""
    total = 0

    def count(conv: torch.nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(conv, torch.nn.Conv2d)
        total += output.numel() * conv.weight[0].numel()

    with torch.device("meta"):
        block = BLOCKS[case.block].build(case.width, case.width, 1, "deployed")
    for module in block.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count)
    block(torch.empty(1, case.width, *case.size, device="meta"))
    return total


def _case_as_json(case: Case, latency: Latency) -> dict[str, Json]:
    return {
        "block": case.block,
        "width": case.width,
        "size": list(case.size),
        "macs": count_macs(case),
        "mean_ms": latency.mean_ms / NUM_STACKED,
        "turn_medians_ms": [float(np.median(turn)) for turn in latency.turns_ms],
        "run_id": latency.run_id,
    }


def _stack(case: Case) -> torch.nn.Module:
    """Equal blocks in sequence, with weights that keep the values in range."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build = BLOCKS[case.block].build
        stack = torch.nn.Sequential(*(build(case.width, case.width, 1, "deployed") for _ in range(NUM_STACKED)))
        for module in stack.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return stack.eval().requires_grad_(False)


@dataclass(frozen=True, slots=True)
class _Opened:
    call: Callable[[], object]
    engine: str
    precision: str
    num_threads: int | None


def _open_onnx(runtime: str, stack: torch.nn.Module, case: Case, options: SessionOptions) -> _Opened:
    path = options.path.with_suffix(".onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's deprecation
        torch.onnx.export(stack, (_input(case),), path, dynamo=False, opset_version=onnx.OPSET)
    return _in_session(runtime, case, path, options)


def _open_ncnn(runtime: str, stack: torch.nn.Module, case: Case, options: SessionOptions) -> _Opened:
    path = options.path.with_suffix(".ncnn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(stack, _input(case))  # type: ignore[no-untyped-call]
    lines, weights = ncnn.run_pnnx(traced, [(case.width, *case.size)], half=False)
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(1))
    write_container(path, description="\n".join([*lines, ""]).encode(), weights=weights, record=record)
    return _in_session(runtime, case, path, options)


def _in_session(runtime: str, case: Case, path: Path, options: SessionOptions) -> _Opened:
    session: Session = open_session(runtime, SessionOptions(path, options.precision, options.num_threads))
    image = _input(case).numpy()
    return _Opened(lambda: session.run(image), session.engine, session.precision, session.num_threads)


def _open_pytorch(runtime: str, stack: Any, case: Case, options: SessionOptions) -> _Opened:
    """PyTorch, channels-last, on CUDA if there is a GPU; a call returns when the GPU is done."""
    kinds: dict[str, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16}
    if options.precision not in kinds:
        raise RunError(f"blocks are measured with {runtime} in {' or '.join(kinds)}; got {options.precision}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    placed = stack.to(device, kinds[options.precision], memory_format=torch.channels_last)
    forward = torch.compile(placed) if runtime == "pytorch_compiled" else placed
    image = _input(case).to(device, kinds[options.precision], memory_format=torch.channels_last)

    @torch.inference_mode()
    def call() -> None:
        with exact_float32(torch, device):
            forward(image)
        if device == "cuda":
            torch.cuda.synchronize()

    return _Opened(call, f"torch {torch.__version__} on {device}", options.precision, torch.get_num_threads())


def _input(case: Case) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((1, case.width, *case.size), np.float32))


# engine -> function of (runtime, stack, case, options)
_OPENERS: dict[str, Callable[[str, torch.nn.Module, Case, SessionOptions], _Opened]] = {
    "onnxruntime": _open_onnx,
    "openvino": _open_onnx,
    "tensorrt": _open_onnx,
    "ncnn": _open_ncnn,
    "pytorch": _open_pytorch,
    "pytorch_compiled": _open_pytorch,
}


# The widest stacks take 0.1 s: 4 s are about 30 rounds, enough for a noisy machine
BLOCK_TIMING: Mapping[Scale, TimingProtocol] = {
    "small": TimingProtocol(warm_up_s=0.3, duration_s=4.0),
    "paper": PROTOCOLS["paper"],
}

DIFFERENCES = (
    "The device is this one and the engine is named; the paper measured on a GTX 1070 Ti.",
    (
        f"The time is that of {NUM_STACKED} equal blocks in a row, divided by {NUM_STACKED}, so that neither a call "
        "nor a change of layout at the border counts; the paper does not say how it measured single convolutions."
    ),
    "Blocks are as in a deployed network, with bias and ReLU; the paper's figure leaves out activations.",
    "FLOPs are multiply-accumulates, as in all of the paper's figures.",
)


def block_run(name: str, cases: Sequence[Case], runtime: str, settings: Settings) -> Run:
    """A run that times cases with an engine by the protocol of the scale.

    Raises:
        RunError: see `check_runtime`.
    """
    check_runtime(runtime)
    protocol = BLOCK_TIMING[settings.scale]
    engine: dict[str, Any] = {
        "runtime": runtime,
        "precision": settings.precision,
        "num_threads": settings.num_threads,
    }
    key = {
        "measured": name,
        "cases": [case.name for case in cases],
        "size": list(cases[0].size),
        "num_stacked": NUM_STACKED,
        **engine,
        "protocol": asdict(protocol),
    }

    def work(place: Place) -> dict[str, Json]:
        return time_blocks(cases, **engine, protocol=protocol, on_progress=place.on_progress)

    return Run(key, work)


def engine_of(outcome: Outcome) -> str:
    """`onnxruntime f32`."""
    return f"{outcome.key['runtime']} {outcome.result['precision']}"

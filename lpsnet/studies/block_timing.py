"""Times of single convolutional blocks in an engine (Section 3.2): stacks of a block, measured interleaved.

A stack of `NUM_STACKED` equal blocks is timed and divided by their number, so that neither the overhead of a call nor a
change of layout at the engine's borders is attributed to the block.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpsnet.benchmark.timing import PROTOCOLS, Latency, TimingProtocol, measure
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import RunError, unknown_name
from lpsnet.export import ncnn, onnx
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.inference.engines.pytorch import exact_float32
from lpsnet.inference.model_file import write_container
from lpsnet.models.blocks import BLOCKS
from lpsnet.record import ModelRecord
from lpsnet.studies.study import Json, Outcome, Place, Progress, Run, Scale, Settings

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
        "cases": [_written(case, found[case.name]) for case in cases],
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


def _written(case: Case, latency: Latency) -> dict[str, Json]:
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
TIMING: Mapping[Scale, TimingProtocol] = {
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
    protocol = TIMING[settings.scale]
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

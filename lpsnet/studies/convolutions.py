"""Figures 4 and 5 (Section 3.2): single 3x3 convolutions, timed in stacks.

`conv-types` compares the standard with the depthwise separable convolution at 32x128x128. The separable one does a
seventh of the multiply-accumulates, but on the paper's GPU so few of them in a millisecond that it is slower.

`widths` finds the "sweet spots" among widths. Work grows with the square of the width, time in steps, as a device
computes several channels at once; just below a step much work is done for the time. The paper reads its sweet spots off
its curves. Here a width is one if its FLOPs-efficiency exceeds that of both neighbours measured by `MARGIN`, with the
whole interval of the ratio, and is at least `MIN_SHARE` of the greatest. The narrowest and the widest are not judged.

A stack of `NUM_STACKED` equal blocks is timed and divided by their number, so that neither the overhead of a call nor a
change of layout at the engine's borders is attributed to the block.
"""

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lpsnet.benchmark.timing import PROTOCOLS, Latency, TimingProtocol, compare, measure
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import RunError, unknown_name
from lpsnet.export import onnx, phones
from lpsnet.inference.engines import Precision, Session, SessionOptions, open_session
from lpsnet.inference.engines.pytorch import exact_float32
from lpsnet.inference.model_file import write_container
from lpsnet.models.blocks import BLOCKS
from lpsnet.record import ModelRecord
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.study import Json, Known, Outcome, Place, Progress, Report, Row, Run, Scale, Settings, Study

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
    lines, weights = phones.run_pnnx(traced, [(case.width, *case.size)], half=False)
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


SIZE = (128, 128)
WIDTH = 32  # of Figure 4
STANDARD, SEPARABLE = "conv3x3", "sepconv3x3"
TITLES = {STANDARD: "standard", SEPARABLE: "separable"}
PAPER_MMACS_PER_MS = {STANDARD: 3987.0, SEPARABLE: 357.0}  # Figure 4 and Section 3.2, GTX 1070 Ti
GROUPS: Mapping[str, tuple[int, ...]] = {
    "a": tuple(range(1, 18)),  # Figure 5 (a): 1 to 17 by 1
    "b": tuple(range(8, 73, 8)),  # Figure 5 (b): 8 to 72 by 8
}
PAPER_SWEET_SPOTS = {"a": (8, 16), "b": (32, 64)}  # Section 3.2, GTX 1070 Ti
MARGIN = 1.05
MIN_SHARE = 1 / 3


def plan_types(settings: Settings, known: Known) -> list[Run]:
    """One run for every engine."""
    cases = (Case(STANDARD, WIDTH, SIZE), Case(SEPARABLE, WIDTH, SIZE))
    return [block_run("conv-types", cases, runtime, settings) for runtime in settings.runtimes]


def report_types(outcomes: Sequence[Outcome]) -> Report:
    """Two rows and a sentence for every engine."""
    found = [(engine_of(outcome), block_times(outcome.result)) for outcome in outcomes]
    rows = [_types_row(engine, time) for engine, times in found for time in times]
    findings = [_types_finding(engine, *times) for engine, times in found]
    return Report(tuple(rows), tuple(findings), partial(_draw_types, rows), figure_size=(9.0, 3.8))


def _types_row(engine: str, time: BlockTime) -> Row:
    title, paper = TITLES[time.case.block], PAPER_MMACS_PER_MS[time.case.block]
    return {"engine": engine, "convolution": title, **_time_columns(time), "paper_mmacs_per_ms": paper}


def _time_columns(time: BlockTime) -> Row:
    return {
        "mmacs": time.macs / 1e6,
        "median_ms": time.median_ms,
        "interval_low_ms": time.interval_ms[0],
        "interval_high_ms": time.interval_ms[1],
        "mean_ms": time.mean_ms,
        "mmacs_per_ms": time.mmacs_per_ms,
    }


def _types_finding(engine: str, standard: BlockTime, separable: BlockTime) -> str:
    ratio = standard.mmacs_per_ms / separable.mmacs_per_ms
    paper = PAPER_MMACS_PER_MS[STANDARD] / PAPER_MMACS_PER_MS[SEPARABLE]
    comparison = compare(separable.latency, standard.latency)
    low, high = comparison.interval
    paper_time = paper * separable.macs / standard.macs
    return (
        f"{engine}: the standard convolution does {ratio:.1f} times as many multiply-accumulates in a millisecond as "
        f"the separable one (paper: {paper:.1f}). {_VERDICTS[comparison.verdict]}: the separable one takes "
        f"{comparison.ratio:.2f} of the standard one's time, {low:.2f} to {high:.2f} (paper: {paper_time:.2f})."
    )


# by the verdict of comparing the separable convolution with the standard one
_VERDICTS = {
    "A faster": "It is slower nevertheless",
    "B faster": "It is faster too",
    "cannot tell apart": "Which one is faster is undecided",
}


def _draw_types(rows: Sequence[Row], figure: Any) -> None:
    """The paper's two bars, and beside them two for every engine; each panel has its own scale."""
    engines = list(dict.fromkeys(row["engine"] for row in rows))
    left, right = figure.subplots(1, 2, width_ratios=(1, max(1, len(engines))))
    paper = [PAPER_MMACS_PER_MS[block] for block in TITLES]
    _bars(left, ["GTX 1070 Ti, TensorRT"], [paper], title="paper, Figure 4")
    found = [[row["mmacs_per_ms"] for row in rows if row["engine"] == engine] for engine in engines]
    _bars(right, engines, found, title="this device")
    left.set_ylabel("10⁶ multiply-accumulates / ms")
    right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.suptitle("3x3 convolution at 32x128x128: work done in a millisecond", fontsize="medium")


def _bars(axes: Any, groups: Sequence[str], heights: Sequence[Sequence[float]], *, title: str) -> None:
    tidy(axes)
    axes.grid(visible=False, axis="x")
    for number, (name, colour) in enumerate(zip(TITLES.values(), COLOURS, strict=False)):
        places = [place + (number - 0.5) * 0.38 for place in range(len(groups))]
        bars = axes.bar(places, [pair[number] for pair in heights], width=0.34, color=colour, label=name)
        axes.bar_label(bars, fmt=_short, padding=2, fontsize="small")
    axes.set_xticks(range(len(groups)), groups, fontsize="small")
    axes.set_title(title, fontsize="small", color=GREY)
    axes.margins(x=0.15, y=0.12)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class SweetSpots:
    """Sweet spots, in rising order, and widths that would be some by the median ratios but not beyond noise."""

    certain: tuple[int, ...]
    unclear: tuple[int, ...] = ()


def sweet_spots(times: Sequence[BlockTime]) -> SweetSpots:
    """The sweet spots among widths that were measured interleaved and are given in rising order."""
    certain, unclear = [], []
    best = max((time.mmacs_per_ms for time in times), default=0.0)
    for left, middle, right in zip(times, times[1:], times[2:], strict=False):
        if middle.mmacs_per_ms < MIN_SHARE * best:
            continue
        advantages = [_advantage(middle, left), _advantage(middle, right)]
        if all(least > MARGIN for least, _ in advantages):
            certain.append(middle.case.width)
        elif all(likely > MARGIN for _, likely in advantages):
            unclear.append(middle.case.width)
    return SweetSpots(tuple(certain), tuple(unclear))


def _advantage(a: BlockTime, b: BlockTime) -> tuple[float, float]:
    """Efficiency of A over that of B: the interval's lower end (0 with too few rounds), and the median."""
    comparison = compare(a.latency, b.latency)  # of A's time divided by B's
    work = a.macs / b.macs
    least = work / comparison.interval[1] if comparison.confidence >= a.latency.confidence else 0.0
    return least, work / comparison.ratio


def in_words(widths: Sequence[int]) -> str:
    """`8 and 16`, `8`, or `none`."""
    *first, last = [str(width) for width in widths] or ["none"]
    return f"{', '.join(first)} and {last}" if first else last


def plan_widths(settings: Settings, known: Known) -> list[Run]:
    """A run for both parts of the figure with every engine."""
    return [
        block_run(f"widths {group}", [Case("conv3x3", width, SIZE) for width in widths], runtime, settings)
        for runtime in settings.runtimes
        for group, widths in GROUPS.items()
    ]


def report_widths(outcomes: Sequence[Outcome]) -> Report:
    """A row for every width, and the sweet spots of every engine."""
    found: dict[str, dict[str, list[BlockTime]]] = {}
    for outcome in outcomes:
        group = str(outcome.key["measured"]).removeprefix("widths ")
        found.setdefault(engine_of(outcome), {})[group] = block_times(outcome.result)
    spots = {engine: {group: sweet_spots(times) for group, times in groups.items()} for engine, groups in found.items()}
    rows = [
        _width_row(engine, group, time, spots[engine][group])
        for engine, groups in found.items()
        for group, times in groups.items()
        for time in times
    ]
    findings = [
        f"Sweet spots of {engine} on this device: {'; '.join(_part(*each) for each in groups.items())}."
        for engine, groups in spots.items()
    ]
    return Report(tuple(rows), tuple(findings), partial(_draw, found, spots), figure_size=(10.5, 6.5))


def _width_row(engine: str, group: str, time: BlockTime, spots: SweetSpots) -> Row:
    width = time.case.width
    return {
        "engine": engine,
        "figure_5": group,
        "width": width,
        **_time_columns(time),
        "sweet_spot": "yes" if width in spots.certain else "perhaps" if width in spots.unclear else "",
        "paper_sweet_spot": "yes" if width in PAPER_SWEET_SPOTS[group] else "",
    }


def _part(group: str, found: SweetSpots) -> str:
    unclear = f", perhaps {in_words(found.unclear)}, which noise hides" if found.unclear else ""
    first, *_, last = GROUPS[group]
    paper = in_words(PAPER_SWEET_SPOTS[group])
    return f"{in_words(found.certain)} among {first} to {last}{unclear} (paper: {paper})"


Found = Mapping[str, Mapping[str, Sequence[BlockTime]]]
Spots = Mapping[str, Mapping[str, SweetSpots]]


def _draw(found: Found, spots: Spots, figure: Any) -> None:
    """Top: latency and work as in the paper's figure; bottom: their quotient with the sweet spots; left: (a)."""
    axes = figure.subplots(2, 2, sharex="col")
    for column, group in enumerate(GROUPS):
        above, below = axes[0][column], axes[1][column]
        _draw_latency(above, {engine: groups[group] for engine, groups in found.items()})
        for number, engine in enumerate(found):
            _draw_efficiency(below, found[engine][group], spots[engine][group], COLOURS[number])
        for width in PAPER_SWEET_SPOTS[group]:
            below.axvline(width, color=GREY, linewidth=6, alpha=0.2, zorder=0)
        above.set_title(f"({group})", fontsize="medium")
        below.margins(y=0.12)
        below.set(xlabel="width (channels)", ylabel="10⁶ multiply-accumulates / ms", ylim=(0, None))
        below.set_xticks(GROUPS[group])
    axes[0][0].legend(frameon=False, fontsize="small", loc="upper left")
    axes[1][0].plot([], [], "*", color="0.3", markersize=11, label="sweet spot of this device")
    axes[1][0].plot([], [], color=GREY, linewidth=6, alpha=0.3, label="sweet spot in the paper")
    axes[1][0].legend(frameon=False, fontsize="small", loc="upper left")
    figure.suptitle("3x3 convolutions at 128x128", fontsize="medium")


def _draw_latency(axes: Any, series: Mapping[str, Sequence[BlockTime]]) -> None:
    tidy(axes)
    for (engine, times), colour in zip(series.items(), COLOURS, strict=False):
        widths = [time.case.width for time in times]
        low, high = zip(*(time.interval_ms for time in times), strict=True)
        axes.plot(widths, [time.median_ms for time in times], "o-", markersize=3.5, color=colour, label=engine)
        axes.fill_between(widths, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set(ylabel="latency (ms)", ylim=(0, None))
    times = next(iter(series.values()))
    work = axes.twinx()
    work.plot([time.case.width for time in times], [time.macs / 1e6 for time in times], "--", color=GREY, linewidth=1)
    work.spines["top"].set_visible(False)
    work.set_ylabel("10⁶ multiply-accumulates (dashed)", color=GREY)
    work.set_ylim(0, None)
    work.tick_params(colors=GREY)


def _draw_efficiency(axes: Any, times: Sequence[BlockTime], spots: SweetSpots, colour: str) -> None:
    tidy(axes)
    axes.plot([t.case.width for t in times], [t.mmacs_per_ms for t in times], "o-", markersize=3.5, color=colour)
    best = [time for time in times if time.case.width in spots.certain]
    axes.plot([t.case.width for t in best], [t.mmacs_per_ms for t in best], "*", markersize=13, color=colour, zorder=3)


CONV_TYPES = Study(
    name="conv-types",
    title="Standard and depthwise separable convolution",
    reference="The paper's Figure 4: 3987 MFLOPs/ms for the standard and 357 for the separable 3x3 convolution at "
    "32x128x128, on a GTX 1070 Ti with TensorRT.",
    differences=DIFFERENCES,
    plan=plan_types,
    report=report_types,
)
WIDTHS = Study(
    name="widths",
    title="The width of convolutions",
    reference="The paper's Figure 5: latency of 3x3 convolutions at 128x128 on a GTX 1070 Ti with TensorRT, with sweet "
    "spots at 8 and 16 among the widths 1 to 17, and at 32 and 64 among 8 to 72. It gives no table of values.",
    differences=(
        *DIFFERENCES,
        (
            "The paper reads the sweet spots off its curves. Here a width is one if it does more multiply-accumulates "
            f"in a millisecond than the next narrower and the next wider one, by {100 * (MARGIN - 1):.0f} % at least "
            "and with the whole 95 % interval of the ratio, and at least a third of the most that any width does."
        ),
    ),
    plan=plan_widths,
    report=report_widths,
)

"""Speed here or on a device: `lpsnet benchmark`, `lpsnet tune` (the quickest engine for a model), `lpsnet stream`
(hours of video).
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from lpsnet.architecture import get_architecture, list_architectures
from lpsnet.benchmark import tune as tuning
from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result
from lpsnet.benchmark.benchmark import benchmark as run_benchmark
from lpsnet.benchmark.device import opened_device
from lpsnet.benchmark.machine import LoadWatch, describe_machine
from lpsnet.benchmark.timing import Endurance, endure
from lpsnet.cli import output
from lpsnet.data.channels import require_rgb
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, select
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import LpsnetError, unknown_name
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.engines import PRECISIONS, Precision
from lpsnet.inference.hub import DEFAULT_MODEL, find_model, list_models
from lpsnet.inference.model_file import find_record, read_record
from lpsnet.inference.outputs import Style
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES, Segmenter
from lpsnet.inference.video import video_stream
from lpsnet.plugins import NetworkSource, network_named, use_network

Size = tuple[int, int]
# A model file; an architecture's name, which tells its blocks, or its text; a network of other code
Source = Path | str | NetworkSource

PAPER_SIZE = (1024, 2048)  # of the paper's latencies, for architectures
DEFAULT_RUNTIME = "onnxruntime"  # for architectures
NUM_CLASSES = 19  # of networks with random weights
NUM_SCENES = 2  # to calibrate untrained networks in int8 on
_CHECKPOINT = ".safetensors"


def find_sources(models: Sequence[str]) -> dict[str, Source]:
    """What each of `models` is, by a name of its own: a file's name, or its path where two have the same name.

    Raises:
        LpsnetError: one is neither a file, a model of the package nor an architecture, or is given twice.
    """
    sources = {model: _source(model) for model in models}
    if len(sources) < len(models):
        twice = next(model for model, count in Counter(models).items() if count > 1)
        raise LpsnetError(f"{twice} is given twice; give every model once")
    short = {model: source.name if isinstance(source, Path) else model for model, source in sources.items()}
    count = Counter(short.values())
    return {short[model] if count[short[model]] == 1 else model: source for model, source in sources.items()}


def with_networks(sources: dict[str, Source], specs: Sequence[str]) -> dict[str, Source]:
    """`sources`, and networks of other code that no checkpoint among them is of; all their code may be used.

    Raises:
        NetworkError: there is no such code.
    """
    networks = {code.name: code for code in map(use_network, specs)}
    records = [find_record(source) for source in sources.values() if isinstance(source, Path)]
    trained = {record.network for record in records if record is not None}
    return {**sources, **{name: code for name, code in networks.items() if name not in trained}}


def common_size(sources: Sequence[Source]) -> Size:
    """The size that the records of files name, or the paper's for architectures alone.

    Raises:
        LpsnetError: they name none, or several.
    """
    files = [source for source in sources if isinstance(source, Path)]
    records = [find_record(path) for path in files]
    sizes = {record.input_size for record in records if record is not None and record.input_size is not None}
    if len(sizes) > 1 or (not sizes and files):
        named = " and ".join(f"{height}x{width}" for height, width in sorted(sizes)) or "no input size"
        raise LpsnetError(f"the models name {named}; give the size to measure at: --size HxW")
    return sizes.pop() if sizes else PAPER_SIZE


@dataclass
class CandidateMaker:
    """Makes candidates, and the files for engines that cannot read what there is."""

    folder: Path  # where files are made
    size: Size  # height, width in pixels

    def make(
        self, sources: dict[str, Source], runtimes: Sequence[str], precisions: "Sequence[Precision]"
    ) -> list[Candidate]:
        """Every source by every engine in every precision; without engines each by its usual one."""
        cells = []
        for number, (name, source) in enumerate(sources.items()):
            usual = DEFAULT_RUNTIMES[source.suffix.lower()] if isinstance(source, Path) else DEFAULT_RUNTIME
            for runtime, precision in product(runtimes or [usual], precisions):
                path = self._file(source, f"model_{number}", runtime)
                if precision == "int8" and not isinstance(source, Path):
                    path = self._quantised(path, runtime)
                cells.append(Candidate(name, path, runtime, precision, macs=self._macs(source)))
        return cells

    def _file(self, source: Source, name: str, runtime: str) -> Path:
        if isinstance(source, Path) and (source.suffix.lower() != _CHECKPOINT or runtime.startswith("pytorch")):
            return source
        made = self.folder / runtime
        made.mkdir(exist_ok=True)
        if existing := list(made.glob(f"{name}.*")):
            return existing[0]
        from lpsnet.export.export import checkpoint_for_runtime, network_for_runtime, untrained_for_runtime

        if isinstance(source, NetworkSource):
            return network_for_runtime(source, made, name, runtime=runtime, size=self.size)
        if isinstance(source, Path):
            return checkpoint_for_runtime(source, made, name, runtime=runtime, size=self.size)
        return untrained_for_runtime(source, made, name, runtime=runtime, size=self.size)

    def _quantised(self, whole: Path, runtime: str) -> Path:
        """The same in int8, calibrated on generated scenes: its weights are random."""
        from lpsnet.export.export import QUANTISERS, quantise_file

        if runtime not in QUANTISERS:
            return whole  # the engine will refuse it with a reason
        scenes = Quantisation(Images(SceneSplit(size=self.size, count=NUM_SCENES, seed=0, name="calibration")))
        record, folder = read_record(whole), whole.parent
        return quantise_file(whole, runtime=runtime, quantisation=scenes, record=record, size=self.size, folder=folder)

    def _macs(self, source: Source) -> int | None:
        """Multiply-accumulates at the size measured; None for other programs' files, and without torch."""
        record = find_record(source) if isinstance(source, Path) else None
        architecture = source if isinstance(source, str) else None if record is None else record.architecture
        code = source if isinstance(source, NetworkSource) else None
        if record is not None and record.network:
            code = network_named(record.network, record.network_digest)
        if architecture is None and code is None:
            return None
        try:
            from lpsnet.models.any_network import load_network
            from lpsnet.models.profile import complexity
        except ModuleNotFoundError:
            return None
        built: dict[str, Any] = {"num_classes": NUM_CLASSES}
        if record is not None:
            built = {"num_classes": record.label_space.num_classes, "in_channels": len(record.channels)}
        if architecture is None:
            assert code is not None, "one of the two is there"
            return complexity(load_network(code, **built), size=self.size).macs
        choices: dict[str, Any] = {} if record is None else {"block": record.block, "interaction": record.interaction}
        return complexity(architecture, size=self.size, **built, **choices).macs


def _source(model: str) -> Source:
    if model in list_architectures() or "=" in model:
        get_architecture(model)
        return model
    try:
        return find_model(model)
    except LpsnetError as error:
        if "/" in model or "\\" in model or "." in model:
            raise
        if not list_models():
            raise LpsnetError(f"{error}; {unknown_name('architecture', model, list_architectures())}") from None
        names = [*list_models(), *list_architectures()]
        raise LpsnetError(f"{unknown_name('model or architecture', model, names)}, or a model file") from None


_FILE_WIDTH = 160  # characters of a line in a file or a pipe
_MIN_NAME = 12  # characters of a model's name in a line, at least

RuntimesOption = Annotated[
    list[str] | None, typer.Option("--runtime", help="Engine; may be given several times. Default: the file's own.")
]
PrecisionsOption = Annotated[
    list[str] | None, typer.Option("--precision", help="f32 (default), bf16, f16, int8; may be given several times.")
]


def benchmark(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Model files, names, architectures.")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="Code of any network: of a checkpoint among MODEL..., or measured untrained.",
        ),
    ] = None,
    runtime: RuntimesOption = None,
    size: output.SizeOption = None,
    precision: PrecisionsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, max=output.MAX_THREADS, help="Threads of the engines.")] = None,
    protocol: Annotated[str, typer.Option(help="adaptive, quick or paper.")] = "adaptive",
    data: Annotated[str | None, typer.Option(help="mIoU too, on this data set (as for train).")] = None,
    split: Annotated[str, typer.Option(help="Which of its images.")] = "val",
    max_pictures: Annotated[int | None, typer.Option(min=1, help="At most as many, spread evenly.")] = None,
    memory: Annotated[bool, typer.Option(help="Measure peak memory.")] = True,
    device: output.DeviceOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Time models interleaved, by every engine and in every precision asked for: the network alone, and end to end.

    Protocols: `adaptive` measures until every median is known to 1 %, at most half a minute each; `quick` takes two
    seconds each; `paper` is the paper's, 1 s of warm-up and the mean of 20 s, the network alone. An architecture is
    measured with random weights. ONNX files of other programs can be put beside ours. On a device far away
    (`--device`), networks alone are timed.

    Example: `lpsnet benchmark lpsnet_s lpsnet_m --runtime openvino --precision f32 --precision bf16 --size 512x1024`
    """
    labelled = select(open_dataset(data).split(split), max_pictures) if data else None
    sources = with_networks(find_sources(models or []), network or [])
    if not sources:
        raise LpsnetError("there is nothing to measure: give model files, names or architectures, or --network")
    chosen_size = output.parse_size(size) or common_size(list(sources.values()))
    with (
        opened_device(device) as place,
        tempfile.TemporaryDirectory(prefix="lpsnet-") as folder,
        output.measuring_progress() as update,
    ):
        precisions = cast("list[Precision]", precision or ["f32"])
        cells = CandidateMaker(Path(folder), chosen_size).make(sources, runtime or [], precisions)
        result = run_benchmark(
            cells,
            size=chosen_size,
            num_threads=threads,
            protocol=protocol,
            image=None if labelled is None else labelled.image(0),
            image_name="" if labelled is None else f"the first of {data}, {split}",
            memory=memory,
            labelled=labelled,
            device=place,
            on_progress=update,
        )
    output.write_json(result.to_dict(), json_to)
    print_benchmark(result, json_to=json_to)
    output.next_command("lpsnet", *_after(list(models or []), json_to, device), json_to=json_to)


def _after(models: Sequence[str], json_to: str | None, device: str | None) -> tuple[object, ...]:
    """What follows a benchmark: a page of its figures, the best engine for a model file, or a training."""
    if json_to not in (None, "-"):
        return "report", json_to
    files = [model for model in models if model in list_models() or Path(model).is_file()]
    if files:
        return "tune", files[0], *(["--device", device] if device else [])
    name = models[0] if models else "lpsnet_s"
    return "train", "--data", "scenes", "--arch", name, "--out", "runs/first"


def print_benchmark(result: "Benchmark", *, json_to: str | None = None) -> None:
    """The figures as tables, with warnings."""
    _print_results(result, json_to)
    _print_matrix(result, json_to)
    for warning in result.warnings:
        output.say(f"careful: {warning}", json_to=json_to)
    for line in dict.fromkeys(f"{each.model} by {each.runtime}: {each.problem}" for each in result.problems):
        output.say(line, json_to=json_to)
    engines = ", ".join(dict.fromkeys(row.engine for row in result.results))
    place = f"{result.device}: " if result.device else ""
    say_measured(engines, place + result.machine["identity"], result.load["other_cores_busy"], json_to)


def say_measured(engines: str, machine: str, other_cores: float | None, json_to: str | None) -> None:
    """Print what figures were measured with, and how many processors were busy with other work."""
    busy = "" if other_cores is None else f"; other work kept {other_cores:.1f} processors busy meanwhile"
    output.say(f"Measured with {engines} on {machine}{busy}", json_to=json_to)


Column = Callable[["Benchmark", "Result"], str]
# heading -> its cells; of the first three, what is the same in all rows goes into the title
_WAYS: dict[str, Column] = {
    "engine": lambda benchmark, result: result.runtime,
    "precision": lambda benchmark, result: result.precision,
    "threads": lambda benchmark, result: str(result.num_threads or "any"),
}
# Columns that are empty everywhere are left out
_FIGURES: dict[str, Column] = {
    "network": lambda benchmark, result: _ms(benchmark.latency_ms(result)),
    "p90": lambda benchmark, result: _ms(result.network.p90_ms),
    "spread": lambda benchmark, result: _ms(result.network.iqr_ms),
    "times\nas fast": lambda benchmark, result: _number(result.times_as_fast_as_first, 2),
    "end to\nend": lambda benchmark, result: _ms(None if result.end_to_end is None else result.end_to_end.median_ms),
    "G/ms": lambda benchmark, result: _number(result.gmacs_per_ms, 3),
    "mIoU\n%": lambda benchmark, result: _number(result.miou, 2),
    "file\nMiB": lambda benchmark, result: _number(result.num_bytes / 2**20, 2),
    "peak\nMiB": lambda benchmark, result: _number(result.peak_memory_mib, 0),
}


def _print_results(result: "Benchmark", json_to: str | None) -> None:
    shared = {name: {make(result, row) for row in result.results} for name, make in _WAYS.items()}
    same = [f"{name} {next(iter(values))}" for name, values in shared.items() if len(values) == 1]
    used = {name: make for name, make in _FIGURES.items() if any(make(result, row) for row in result.results)}
    columns = {name: make for name, make in _WAYS.items() if len(shared[name]) > 1} | used
    figure = "mean" if result.protocol == "paper" else "median"
    height, width = result.size
    title = ", ".join([f"{height}x{width}", *same, f"ms an image: {figure}, 90th percentile, interquartile range"])
    rows = output.table(title, "model", *columns)
    for row in result.results:
        rows.add_row(row.model, *(make(result, row) for make in columns.values()))
    print_wide(rows, json_to)


def print_wide(rows: Table, json_to: str | None) -> None:
    """Print a table with little around it; whole, where there is no terminal whose width it must fit."""
    rows.box, rows.columns[0].min_width, rows.columns[0].overflow = box.SIMPLE_HEAD, _MIN_NAME, "fold"
    target = output.console(json_to)
    if not target.is_terminal:
        target = Console(file=target.file, width=_FILE_WIDTH, highlight=False)
    target.print(rows)


def _print_matrix(result: "Benchmark", json_to: str | None) -> None:
    """Engines against models, where there are several of both."""
    models = list(dict.fromkeys(row.model for row in result.results))
    engines = list(dict.fromkeys((row.runtime, row.precision) for row in result.results))
    if min(len(models), len(engines)) < 2:
        return
    found = {(row.model, row.runtime, row.precision): _ms(result.latency_ms(row)) for row in result.results}
    rows = output.table("network ms", "model", *(" ".join(engine) for engine in engines))
    for model in models:
        rows.add_row(model, *(found.get((model, *engine), "–") for engine in engines))
    print_wide(rows, json_to)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


MAX_ROWS = 12  # of the table; --json has every sample


def stream(
    video: Annotated[Path, typer.Argument(help="A video, which is played over and over.")],
    model: output.ModelOption = DEFAULT_MODEL,
    minutes: Annotated[float, typer.Option(min=0.01, help="How long.")] = 10.0,
    interval: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between looks at the memory.")] = 10.0,
    turns: Annotated[int, typer.Option(min=0, help="Repetitions with and without drawing, interleaved.")] = 5,
    turn: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long each takes.")] = 10.0,
    runtime: output.RuntimeOption = None,
    precision: output.PrecisionOption = "f32",
    threads: output.ThreadsOption = None,
    size: output.SizeOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Segment a video for minutes: does memory hold, and how many frames a second are done, drawn or not?

    Overlays are encoded and written as `lpsnet segment` does, to a temporary file. Repetitions with and without
    drawing follow, interleaved.

    Example: `lpsnet stream drive.mp4 --model model.onnx --minutes 10 --json stream.json`
    """
    source = video_stream(video)
    segmenter = Segmenter(
        model, runtime=runtime, precision=precision, num_threads=threads, input_size=output.parse_size(size)
    )
    require_rgb(segmenter.record.image_channels, "videos have frames of RGB of 8 bits")
    watch = LoadWatch.start()
    with output.measuring_progress() as update:
        result = endure(
            segmenter,
            source,
            Style(segmenter.label_space),
            duration_s=60 * minutes,
            interval_s=interval,
            num_turns=turns,
            turn_s=turn,
            on_progress=update,
        )
    load, machine = watch.load(), describe_machine()
    about = {"protocol": segmenter.protocol, "video_size": list(source.info.size), "machine": machine.to_dict()}
    output.write_json({**result.to_dict(), **about, "load": load.to_dict()}, json_to)
    _print_endurance(result, json_to)
    say_measured(segmenter.engine, machine.identity, load.other_cores, json_to)
    output.next_command("lpsnet", "segment", video, "--model", model, "--write", "overlay", json_to=json_to)


def _print_endurance(result: "Endurance", json_to: str | None) -> None:
    rows = output.table("memory", "seconds", "frames", "MiB")
    every = -(-len(result.samples) // MAX_ROWS)
    for sample in dict.fromkeys((*result.samples[::every], result.samples[-1])):
        rows.add_row(f"{sample.time_s:.0f}", str(sample.num_frames), f"{sample.memory_mib:.1f}")
    output.console(json_to).print(rows)
    figures = result.to_dict()
    output.say(
        f"Memory after the first tenth: within {result.spread_percent:.2f} %, "
        f"last against first {result.growth_percent:+.2f} %",
        json_to=json_to,
    )
    output.say(f"{result.pace.num_frames} frames, {result.pace.frames_per_second:.1f} a second, drawn", json_to=json_to)
    if result.with_drawing:
        drawn, not_drawn = (figures[f"frames_per_second_{way}_drawing"] for way in ("with", "without"))
        output.say(f"Interleaved: {drawn:.1f} frames a second with drawing, {not_drawn:.1f} without", json_to=json_to)


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model file, or a bundled model's name.")],
    size: output.SizeOption = None,
    runtime: Annotated[str | None, typer.Option(help="Engines to try, with commas; default: all.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precisions to try, with commas; default: all.")] = None,
    threads: Annotated[str | None, typer.Option(help="Numbers of threads to try, with commas.")] = None,
    data: Annotated[str | None, typer.Option(help="Compare labels on these images, as for train.")] = None,
    split: Annotated[str, typer.Option(help="Which of its images.")] = "val",
    network: output.NetworkOption = None,
    device: output.DeviceOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Time a model with every engine, precision and number of threads here that keep its labels; name the quickest.

    The choice is kept for this file and machine: `Segmenter(MODEL, runtime="auto")` uses it. On a device far away
    (`--device`) the network alone is timed, its labels are compared with those computed here, and nothing is kept.

    Example: `lpsnet tune camvid_s --size 360x480`
    """
    images = () if data is None else Images(select(open_dataset(data).split(split), tuning.NUM_SCENES))
    with opened_device(device) as place, output.measuring_progress() as update:
        tuned = tuning.tune(
            model,
            size=output.parse_size(size),
            runtimes=_listed(runtime),
            precisions=cast("list[Precision]", _listed(precision)) or PRECISIONS,
            threads=_counts(threads),
            images=images,
            device=place,
            on_progress=update,
        )
    output.write_json(tuned.to_dict(), json_to)
    height, width = tuned.size
    rows = output.table(
        f"{model} at {height}x{width}{f' on {device}' if device else ''}",
        *("engine", "precision", "threads", "ms, network" if device else "ms end to end", "same labels %"),
    )
    for setting, result, agreement in tuned.measured:
        latency = f"{tuning.latency_ms(result):.2f}"
        rows.add_row(setting.runtime, setting.precision, str(setting.num_threads or ""), latency, f"{agreement:.2f}")
    output.console(json_to).print(rows)
    for line in _left_out(tuned):
        output.say(line, json_to=json_to)
    output.say(f"The quickest: {tuned.best}", json_to=json_to)
    best = ["--runtime", tuned.best.runtime, "--precision", tuned.best.precision]
    best += ["--threads", str(tuned.best.num_threads)] if tuned.best.num_threads else []
    output.next_command("lpsnet", "segment", "IMAGE", "--model", model, *best, json_to=json_to)


def _left_out(tuned: tuning.Tuned) -> list[str]:
    """A line for each engine: why it does not run the file, or which precisions it does not compute here."""
    running = {setting.runtime for setting, _, _ in tuned.measured}
    reasons: dict[str, dict[str, str]] = {}
    for name, why in tuned.left_out.items():
        runtime, precision = name.split(",")[0].split(" ")
        reasons.setdefault(runtime, {})[precision] = why
    lines = []
    for runtime, by_precision in reasons.items():
        if runtime in running:
            wrong = [f"{precision} {why}" for precision, why in by_precision.items() if why.startswith("keeps")]
            absent = [precision for precision, why in by_precision.items() if not why.startswith("keeps")]
            parts = [*wrong, f"no {', '.join(absent)} with this file here"] if absent else wrong
            lines.append(f"{runtime}: {'; '.join(parts)}")
        else:
            lines.append(f"{runtime} does not run: {next(iter(by_precision.values()))}")
    return lines


def _counts(text: str | None) -> list[int] | None:
    counts = _listed(text)
    if counts is not None and not all(count.isdecimal() and 1 <= int(count) <= output.MAX_THREADS for count in counts):
        raise LpsnetError(f"--threads takes numbers of threads, 1 to {output.MAX_THREADS}, e.g. 1,2; got {text!r}")
    return None if counts is None else list(map(int, counts))


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",")]

"""The time from a decoded image to its label map, beside that of the network alone; not in the paper.

The paper times the network up to its logits (design-notes, 'What is timed'). Measured here, interleaved in one run, for
every engine:

- `network`: the engine alone, from the normalised image to the logits; the network resizes the image for its paths;
- `network_by_path`: the same from the paths' inputs, resized before; None where engine or file does not allow it;
- `fast`: a `Segmenter`, from the image's bytes to its label map;
- `naive`: the usual way: NumPy normalises, the engine computes, torch upsamples the logits and takes the argmax.

`label-map` is its last step alone, from logits to the label map, beside torch's way.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, interpolate, pad

from lpsnet.architecture import get_architecture, logits_size
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, TimingProtocol, compare, measure, measuring_alone
from lpsnet.data.images import Image, read_image
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import LpsnetError, ModelFileError, RunError, unknown_name
from lpsnet.export.export import untrained_for_runtime
from lpsnet.inference.engines import Precision, SessionOptions, open_session
from lpsnet.inference.label_map import Logits, label_map
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.any_network import Model
from lpsnet.record import ModelRecord
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import PAPER_SIZE, fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Scale, Settings, Study

Labels = NDArray[np.uint8]
Segment = Callable[[Image], Labels]
WAYS = {
    "network": "network alone",
    "network_by_path": "network, resized before",
    "fast": "Segmenter",
    "naive": "usual way",
}


class Engine(NamedTuple):
    """A name in `RUNTIMES`, and the precision to ask for."""

    runtime: str
    precision: Precision = "f32"

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """Latencies with one engine, measured interleaved, so they may be compared.

    Attributes:
        engine: the one requested.
        protocol: see `Segmenter.protocol`.
        network, network_by_path, fast, naive: see the top of this file.
        agreement: pixels with the same label in the fast and the naive way, in percent.
    """

    engine: Engine
    protocol: dict[str, Any]
    network: Latency
    network_by_path: Latency | None
    fast: Latency
    naive: Latency
    agreement: float

    @property
    def bare(self) -> Latency:
        """The network alone, by the faster of its two inputs."""
        both = [latency for latency in (self.network, self.network_by_path) if latency is not None]
        return min(both, key=lambda latency: latency.median_ms)

    @property
    def overhead(self) -> Comparison:
        """The fast way as a multiple of the bare network."""
        return compare(self.fast, self.bare)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the samples."""
        latencies = {way: getattr(self, way) for way in WAYS}
        return {
            **{way: found and found.to_dict(samples=False) for way, found in latencies.items()},
            "runtime": self.engine.runtime,
            "precision": self.engine.precision,
            "segmenter": self.protocol,
            "bare_is": "network" if self.bare is self.network else "network_by_path",
            "overhead": self.overhead.to_dict(),
            "naive_overhead": compare(self.naive, self.bare).to_dict(),
            "agreement_percent": self.agreement,
        }


def measure_end_to_end(
    model: str | Path,
    image: Image,
    *,
    engines: Sequence[Engine] = (Engine("onnxruntime"),),
    num_threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    protocol: TimingProtocol = PROTOCOLS["quick"],
    on_progress: Callable[[float], None] | None = None,
) -> list[EndToEnd]:
    """Time all ways with all engines, interleaved in one run; an item for each engine.

    Args:
        model: a model file or a bundled model's name.
        image: H x W x 3 uint8 RGB.
        engines: that compute the network.
        num_threads: of every engine, OpenCV and torch; None for their defaults.
        input_size: (height, width) of the network's input in pixels; None for the record's, or else the image's.
        protocol: of the timing.
        on_progress: called with the part of the time that has passed, 0 to 1.

    Raises:
        ModelFileError: an engine cannot run the file.
    """
    before = torch.get_num_threads()
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    try:
        ways = [_Ways(str(model), image, engine, num_threads, input_size) for engine in engines]
        calls = {f"{way.engine} {name}": call for way in ways for name, call in way.calls.items()}
        latencies = measure(calls, protocol=protocol, on_progress=on_progress)
        return [way.result(latencies) for way in ways]
    finally:
        torch.set_num_threads(before)


class _Ways:
    def __init__(
        self, model: str, image: Image, engine: Engine, num_threads: int | None, size: tuple[int, int] | None
    ) -> None:
        asked: dict[str, Any] = {"runtime": engine.runtime, "precision": engine.precision, "num_threads": num_threads}
        self.engine = engine
        self._image = image
        self._fast = Segmenter(model, input_size=size, **asked)
        plain = Segmenter(model, input_size=size, path_inputs=False, **asked)
        self._naive = naive_segmenter(plain.session.run, plain.record, input_size=plain.input_size)
        whole = plain.prepare(image)
        self.calls: dict[str, Callable[[], object]] = {
            "network": lambda: plain.session.run(whole),
            "fast": lambda: self._fast(image),
            "naive": lambda: self._naive(image),
        }
        if self._fast.path_inputs:
            inputs = self._fast.inputs(image)
            self.calls["network_by_path"] = lambda: self._fast.session.run(*inputs)

    def result(self, latencies: dict[str, Latency]) -> EndToEnd:
        own = {way: latencies.get(f"{self.engine} {way}") for way in WAYS}
        agreement = 100 * float((self._fast(self._image) == self._naive(self._image)).mean())
        return EndToEnd(self.engine, self._fast.protocol, **own, agreement=agreement)  # type: ignore[arg-type]


def reference_segmenter(network: Model, record: ModelRecord, *, input_size: tuple[int, int] | None = None) -> Segment:
    """The reference for label maps: the network in torch in the naive way, all in float32.

    Args:
        network: in evaluation mode, on the CPU.
        record, input_size: as for `naive_segmenter`.
    """

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = network(torch.from_numpy(image)).numpy()
        return logits

    return naive_segmenter(run, record, input_size=input_size)


def naive_segmenter(
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    record: ModelRecord,
    *,
    input_size: tuple[int, int] | None = None,
) -> Segment:
    """The usual way from H x W x 3 uint8 RGB to H x W labels: NumPy normalises, torch resizes image and logits.

    Args:
        run: from the normalised image, 1 x 3 x h x w float32, to logits, 1 x K x h' x w'.
        record: with the normalisation and the resize convention.
        input_size: (h, w) in pixels; None for the record's, or else the image's own.
    """
    size = input_size or record.input_size
    mean, std = (np.array(values, np.float32) for values in (record.normalisation.mean, record.normalisation.std))

    def segment(image: Image) -> Labels:
        normalised = (image.astype(np.float32) / 255 - mean) / std
        batch = torch.from_numpy(np.ascontiguousarray(normalised.transpose(2, 0, 1)))[None]
        batch = _resize(batch, size or batch.shape[2:], align_corners=record.align_corners)
        logits = torch.from_numpy(run(batch.numpy()))
        upsampled = interpolate(logits, image.shape[:2], mode="bilinear", align_corners=record.align_corners)
        labels: Labels = upsampled.argmax(1)[0].to(torch.uint8).numpy()
        return labels

    return segment


def _resize(batch: torch.Tensor, size: Sequence[int], *, align_corners: bool) -> torch.Tensor:
    """1 x 3 x H x W, averaged first where it shrinks to half or less, see `inference/preprocess.py`."""
    if tuple(batch.shape[2:]) == tuple(size):
        return batch
    height, width = (source // target // 2 * 2 + 1 for source, target in zip(batch.shape[2:], size, strict=True))
    around = (width // 2, width // 2, height // 2, height // 2)
    averaged = avg_pool2d(pad(batch, around, mode="reflect"), (height, width), stride=1)
    return interpolate(averaged, tuple(size), mode="bilinear", align_corners=align_corners)


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run: all ways with all engines."""
    files = model_files(settings.models)[:1]
    key = {
        "waited": "lpsnet_s",
        "file": [fingerprint(file) for file in files],
        "picture": settings.pictures[0] if settings.pictures else None,
        "size": list(settings.size or PAPER_SIZE),
        "runtimes": list(settings.runtimes),
        "precision": settings.precision,
        "num_threads": settings.num_threads,
    }
    return [Run(key, partial(_measure, settings), seconds=20.0 * len(settings.runtimes))]


def _measure(settings: Settings, place: Place) -> dict[str, Json]:
    size = settings.size or PAPER_SIZE
    with TemporaryDirectory(prefix="lpsnet-") as folder:
        given, own = model_files(settings.models), get_architecture("lpsnet_s")
        file = given[0] if given else untrained_for_runtime(own, Path(folder), "s", runtime="onnxruntime", size=size)
        found = measure_end_to_end(
            file,
            _image(settings, size),
            engines=_engines(settings, file),
            input_size=size,
            num_threads=settings.num_threads,
            protocol=PROTOCOLS["quick" if settings.scale == "small" else "paper"],
            on_progress=lambda part: place.on_progress("measuring all ways", part),
        )
    return {"ways": [each.to_dict() for each in found]}


def _image(settings: Settings, size: tuple[int, int]) -> Image:
    for name in settings.pictures:
        return read_image(Path(name))
    return SceneSplit(size=size, count=1, seed=0, name="study").image(0)


def _engines(settings: Settings, file: Path) -> list[Engine]:
    """The engines of the settings; for f32 also in bf16, where engine and machine support it."""
    found = []
    for runtime in settings.runtimes:
        found.append(Engine(runtime, settings.precision))
        if settings.precision == "f32":
            try:
                open_session(runtime, SessionOptions(file, "bf16", settings.num_threads))
            except ModelFileError:
                continue
            found.append(Engine(runtime, "bf16"))
    return found


def report(outcomes: Sequence[Outcome]) -> Report:
    """A row an engine."""
    (outcome,) = outcomes
    rows = [_row(each, outcome.key["size"]) for each in outcome.result["ways"]]
    findings = tuple(
        f"{row['engine']}: the Segmenter takes {row['fast_over_network']:.2f} times the network's time, the usual way "
        f"{row['naive_over_network']:.2f} times; {row['agreement_percent']:.3f} % of the pixels have the same label."
        for row in rows
    )
    return Report(tuple(rows), findings, partial(_draw, rows))


def _row(each: Json, size: Sequence[int]) -> Row:
    return {
        "engine": f"{each['runtime']} {each['precision']}",
        "size": "x".join(map(str, size)),
        **{f"{way}_ms": None if each[way] is None else each[way]["median_ms"] for way in WAYS},
        "fast_over_network": each["overhead"]["ratio"],
        "naive_over_network": each["naive_overhead"]["ratio"],
        "agreement_percent": each["agreement_percent"],
    }


def _draw(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    axes.grid(visible=False, axis="x")
    for number, (way, title) in enumerate(WAYS.items()):
        places = [place + 0.2 * (number - 1.5) for place in range(len(rows))]
        colour = GREY if way == "naive" else COLOURS[number]
        bars = axes.bar(places, [row[f"{way}_ms"] or 0.0 for row in rows], width=0.18, color=colour, label=title)
        axes.bar_label(bars, fmt="%.0f", fontsize="x-small")
    axes.set_xticks(range(len(rows)), [row["engine"] for row in rows])
    axes.set_ylabel("ms from the image's bytes to its label map")
    axes.legend(frameon=False, fontsize="small")


STUDY = Study(
    name="end-to-end",
    title="From an image's bytes to its label map",
    reference="Not in the paper, which times the network up to its logits.",
    differences=("LPS-Net-S with random weights and a generated scene, unless a file and an image were given.",),
    plan=plan,
    report=report,
    options=frozenset({"runtimes", "precision", "num_threads", "size", "models", "pictures"}),
)


Kind = Literal["regions", "blobs", "noise"]

_BLOB_DEVIATION = 2.0  # of the Gaussian that smooths the blobs, in cells: about half of them contain a border
REPEATS: dict[Scale, int] = {"small": 9, "paper": 25}


@dataclass(frozen=True, slots=True)
class LabelMapTimes:
    """Times of both ways on the same logits, measured interleaved.

    Attributes:
        torch_ms, label_map_ms: one time per repetition.
        num_different: pixels that differ; torch computes in float32 and errs at ties as well.
        num_pixels: of the label map.
        torch_threads: of both; without its compiled loops `label_map` uses one.
    """

    torch_ms: tuple[float, ...]
    label_map_ms: tuple[float, ...]
    num_different: int
    num_pixels: int
    torch_threads: int

    @property
    def median_torch_ms(self) -> float:
        return statistics.median(self.torch_ms)

    @property
    def median_label_map_ms(self) -> float:
        return statistics.median(self.label_map_ms)

    @property
    def ratio(self) -> float:
        """Torch's median time over that of `label_map`."""
        return self.median_torch_ms / self.median_label_map_ms


def compare_label_maps(
    logits: Logits, size: tuple[int, int] = (1024, 2048), *, align_corners: bool = True, repeats: int = 9
) -> LabelMapTimes:
    """Time `label_map` and torch, interleaved (A B A B …), after one round that is not counted.

    Args:
        logits: K x h x w float32.
        size: (H, W) of the label map in pixels.
        align_corners: the resize convention, as in `label_map`.
        repeats: counted repetitions, at least 1.

    Raises:
        LpsnetError: no repetitions, or logits or a size that `label_map` refuses.
    """
    if repeats < 1:
        raise LpsnetError(f"a comparison needs at least 1 repeat; got {repeats}")
    num_threads, times = torch.get_num_threads(), []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        labels = label_map(logits, size, align_corners=align_corners, num_threads=num_threads)
        middle = time.perf_counter()
        reference = _torch_label_map(logits, size, align_corners)
        times.append((1e3 * (time.perf_counter() - middle), 1e3 * (middle - start)))
    torch_ms, label_map_ms = zip(*times[1:], strict=True)
    return LabelMapTimes(torch_ms, label_map_ms, int((labels != reference).sum()), labels.size, num_threads)


def example_scores(
    kind: Kind, *, num_classes: int = 19, size: tuple[int, int] = (48, 96), seed: int = 0
) -> NDArray[np.float32]:
    """Synthetic logits, K x h x w float32, the same for the same seed.

    `regions` resemble a trained network's on a street: large regions, borders in one cell of five or six. `blobs` are
    smooth noise with borders in half of the cells. `noise` is white, the worst case: every cell has several classes.

    Raises:
        LpsnetError: there is no such kind.
    """
    if kind not in get_args(Kind):
        raise LpsnetError(unknown_name("kind of logits", kind, get_args(Kind)))
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num_classes, *size), np.float32)
    if kind == "noise":
        return noise
    deviation = _BLOB_DEVIATION if kind == "blobs" else 4 * _BLOB_DEVIATION
    blobs = np.stack([cv2.GaussianBlur(channel, (0, 0), deviation) for channel in noise])
    blobs *= 3 / blobs.std()
    blobs += np.float32(0.1) * rng.standard_normal(blobs.shape, np.float32)
    return blobs


def _torch_label_map(logits: Logits, size: tuple[int, int], align_corners: bool) -> Labels:
    batch = torch.from_numpy(logits)[None]
    resized = interpolate(batch, size, mode="bilinear", align_corners=align_corners)
    labels: Labels = resized.argmax(1)[0].numpy()
    return labels


def plan_label_map(settings: Settings, known: Known) -> list[Run]:
    """A run for each kind of synthetic logits, and for the logits of a model on each image."""
    size, repeats = settings.size or PAPER_SIZE, REPEATS[settings.scale]
    files = model_files(settings.models)
    if bool(files) != bool(settings.pictures) or len(files) > 1:
        raise RunError("study label-map takes real logits from one model, --models FILE, and images, --picture FILE")

    def run(kind: str, make: Callable[[], Logits], *of: Json) -> Run:
        def work(place: Place) -> dict[str, Json]:
            place.on_progress(f"logits like {kind}", 0.0)
            with measuring_alone():
                found = compare_label_maps(make(), size, repeats=repeats)
            return asdict(found)

        return Run({"labelled": kind, "of": list(of), "size": list(size), "repeats": repeats}, work, seconds=10.0)

    made_size = logits_size(size, get_architecture("lpsnet_s"))
    made_up = [run(kind, partial(example_scores, kind, size=made_size)) for kind in get_args(Kind)]
    real = [
        run(f"{file.name} on {Path(name).name}", partial(_logits_of, file, name, size), fingerprint(file), name)
        for file in files
        for name in settings.pictures
    ]
    return [*real, *made_up]


def _logits_of(file: Path, image: str, size: tuple[int, int]) -> Logits:
    return Segmenter(file, input_size=size).logits(read_image(Path(image)))


def report_label_map(outcomes: Sequence[Outcome]) -> Report:
    """A row for each kind of logits."""
    rows = [_label_map_row(outcome) for outcome in outcomes]
    findings = tuple(
        f"Logits like {row['scores']}: torch takes {row['ratio']:.1f} times as long; {row['num_different']} pixels of "
        f"{row['num_pixels']:,} differ."
        for row in rows
    )
    return Report(tuple(rows), findings, partial(_draw_label_map, rows), (7.0, 4.0))


def _label_map_row(outcome: Outcome) -> Row:
    result = outcome.result
    torch_ms, own_ms = float(np.median(result["torch_ms"])), float(np.median(result["label_map_ms"]))
    return {
        "scores": outcome.key["labelled"],
        "size": "x".join(map(str, outcome.key["size"])),
        "label_map_ms": own_ms,
        "torch_ms": torch_ms,
        "ratio": torch_ms / own_ms,
        **{name: result[name] for name in ("num_different", "num_pixels", "torch_threads")},
    }


def _draw_label_map(rows: Sequence[Row], figure: Any) -> None:
    axes = figure.subplots()
    tidy(axes)
    for key, shift, colour, title in (("label_map_ms", -0.2, COLOURS[0], "here"), ("torch_ms", 0.2, GREY, "torch")):
        places = [number + shift for number in range(len(rows))]
        bars = axes.bar(places, [row[key] for row in rows], width=0.36, color=colour, label=title)
        axes.bar_label(bars, fmt="%.0f", fontsize="small")
    axes.set_xticks(range(len(rows)), [row["scores"] for row in rows])
    axes.set_ylabel("ms")
    axes.legend(frameon=False)


LABEL_MAP = Study(
    name="label-map",
    title="From logits to labels",
    reference="Not in the paper, which leaves this step out of its latency.",
    differences=(
        "Synthetic logits for LPS-Net-S and 19 classes, besides a model's; torch upsamples and takes the argmax.",
    ),
    plan=plan_label_map,
    report=report_label_map,
    options=frozenset({"size", "models", "pictures"}),
)

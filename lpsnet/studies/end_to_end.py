"""The time from a decoded image to its label map, beside that of the network alone; not in the paper.

The paper times the network up to its logits (design-notes, 'What is timed'). Measured here, interleaved in one run, for
every engine:

- `network`: the engine alone, from the normalised image to the logits; the network resizes the image for its paths;
- `network_by_path`: the same from the paths' inputs, resized before; None where engine or file does not allow it;
- `fast`: a `Segmenter`, from the image's bytes to its label map;
- `naive`: the usual way: NumPy normalises, the engine computes, torch upsamples the logits and takes the argmax.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, interpolate, pad

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.timing import PROTOCOLS, Comparison, Latency, TimingProtocol, compare, measure
from lpsnet.data.images import Image, read_image
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import ModelFileError
from lpsnet.export.export import untrained_for_runtime
from lpsnet.inference.engines import Precision, SessionOptions, open_session
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.any_network import Model
from lpsnet.record import ModelRecord
from lpsnet.report.charts import COLOURS, GREY, tidy
from lpsnet.studies.network_latency import PAPER_SIZE, fingerprint, model_files
from lpsnet.studies.study import Json, Known, Outcome, Place, Report, Row, Run, Settings, Study

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

"""The quickest way to run a model file, here or on a device: engine, precision and threads that keep its labels.

No rule tells it: on one processor bfloat16 is twice as fast as float32, on another half as fast. So every setting that
opens is timed end to end, interleaved with the others, after its labels were compared with those of float32. The choice
is kept by the file's contents, size and machine, for `Segmenter(model, runtime="auto")`.
"""

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, product
from pathlib import Path
from typing import Any

import numpy as np

from lpsnet import agent
from lpsnet.benchmark.benchmark import Benchmark, Candidate, Result, benchmark
from lpsnet.benchmark.device import Device
from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.images import Image, Labels
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import DeviceError, LpsnetError, RunError
from lpsnet.inference.engines import PRECISIONS, RUNTIMES, Precision, SessionOptions
from lpsnet.inference.hub import find_model, sha256
from lpsnet.inference.model_file import find_record, read_record
from lpsnet.inference.preprocess import sample_image
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES, Segmenter
from lpsnet.io import one_at_a_time, write_text
from lpsnet.record import ModelRecord

Size = tuple[int, int]  # height, width

MIN_AGREEMENT = 99.0  # percent of the pixels that have the label of float32, on every image
NUM_SCENES = 2  # generated, to compare labels on where no images are given
DEFAULT_SIZE = (720, 1280)  # where neither the file nor the caller names one
CACHE = "LPSNET_CACHE"  # environment variable: the folder of the kept choices


@dataclass(frozen=True, slots=True)
class Setting:
    """How a file is run. `num_threads` None leaves the number to the engine."""

    runtime: str
    precision: Precision
    num_threads: int | None = None

    def __str__(self) -> str:
        threads = "" if self.num_threads is None else f", {self.num_threads} thread{'s' * (self.num_threads > 1)}"
        return f"{self.runtime} {self.precision}{threads}"


@dataclass(frozen=True, slots=True)
class Tuned:
    """The result of `tune`.

    Attributes:
        model: the file.
        size: (height, width) in pixels that it was run at.
        best: the quickest setting.
        measured: setting, result and share of the pixels with the label of float32 in percent, the quickest first.
        left_out: settings that do not open or change labels, each with the reason.
        benchmark: all measurements.
    """

    model: Path
    size: Size
    best: Setting
    measured: tuple[tuple[Setting, Result, float], ...]
    left_out: dict[str, str]
    benchmark: Benchmark

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        rows = [
            {**asdict(setting), "label_agreement": agreement, "median_ms": latency_ms(result)}
            for setting, result, agreement in self.measured
        ]
        best = {"model": str(self.model), "size": list(self.size), "best": asdict(self.best)}
        return {**best, "measured": rows, "left_out": self.left_out, "benchmark": self.benchmark.to_dict()}


def latency_ms(result: Result) -> float:
    """End to end, from an image's bytes to its label map; the network alone where that was not measured."""
    return (result.end_to_end or result.network).median_ms


def thread_counts(limit: int | None = None) -> list[int]:
    """The numbers of threads worth trying: 1, 2, 4, … up to those this process may use."""
    most = limit or len(agent.affinity())
    return sorted({*(2**power for power in range(most.bit_length()) if 2**power <= most), most})


def tune(
    model: str | Path,
    *,
    size: Size | None = None,
    runtimes: Sequence[str] | None = None,
    precisions: Sequence[Precision] = PRECISIONS,
    threads: Sequence[int] | None = None,
    images: Iterable[Image] = (),
    min_agreement: float = MIN_AGREEMENT,
    protocol: str = "quick",
    keep: bool = True,
    device: Device | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> Tuned:
    """Time all settings of a file that keep its labels.

    Args:
        model: a model file, or the name of one that comes with the package.
        size: (height, width) in pixels; None for the record's, else 720x1280.
        runtimes: engines to try; None for all that can read the file.
        precisions: to try, float32 among them.
        threads: numbers of threads to try; None for 1, 2, 4, … up to those this process may use.
        images: H x W x 3 uint8 RGB to compare labels on; generated street scenes unless given.
        min_agreement: percent of the pixels that must keep the label of float32, on every image.
        protocol: of the timing, a name in `timing.PROTOCOLS`.
        keep: remember the choice for `Segmenter(model, runtime="auto")`; never for a device.
        device: where the file is to run, timed by the network alone; None for this machine.
        on_progress: called with the stage and the share of it that is done.

    Raises:
        RunError: no setting opens the file.
        ModelFileError: there is no such file.
    """
    path = find_model(model)
    record = find_record(path)
    size = size or (record.input_size if record else None) or DEFAULT_SIZE
    shown = list(images) or _usual_images(record, size)
    expected = functools.cache(lambda: _usual_labels(path, size, shown))  # only where a setting has to be compared
    candidates: list[Candidate] = []
    agreements: dict[tuple[str, Precision], float] = {}
    left_out: dict[str, str] = {}
    for setting in _settings(runtimes, precisions, threads, device):
        try:
            agreement = agreements.get((setting.runtime, setting.precision))
            if agreement is None:
                agreement = _agreement(path, setting, size, shown, expected, device)
                agreements[setting.runtime, setting.precision] = agreement
        except DeviceError:
            raise
        except LpsnetError as error:
            left_out[str(setting)] = str(error)
            continue
        if agreement < min_agreement:
            left_out[str(setting)] = (
                f"keeps the label of {agreement:.2f} % of the pixels, less than {min_agreement:g} %"
            )
            continue
        candidates.append(
            Candidate(str(setting), path, setting.runtime, setting.precision, threads=setting.num_threads)
        )
    if not candidates:
        where = "here" if device is None else f"on {device.name}"
        raise RunError(f"no engine {where} runs {path}: {next(iter(left_out.values()), 'none was asked for')}")
    found = benchmark(
        candidates,
        size=size,
        protocol=protocol,
        memory=False,
        image=shown[0],
        device=device,
        on_progress=on_progress,
    )
    named = {candidate.name: candidate for candidate in candidates}
    rows = []
    for result in sorted(found.results, key=latency_ms):
        chosen = named[result.model]
        setting = Setting(chosen.runtime, chosen.precision, chosen.threads)
        rows.append((setting, result, agreements[chosen.runtime, chosen.precision]))
    tuned = Tuned(path, size, rows[0][0], tuple(rows), left_out, found)
    if keep and device is None:
        _remember(tuned)
    return tuned


def _usual_images(record: ModelRecord | None, size: Size) -> list[Image]:
    """Generated street scenes; noise for a model of other channels than RGB."""
    if record is not None and not record.image_channels.is_rgb:
        return [sample_image(record, size, seed=number) for number in range(NUM_SCENES)]
    return [SceneSplit(size=size, count=NUM_SCENES, seed=0, name="tune").image(number) for number in range(NUM_SCENES)]


def _settings(
    runtimes: Sequence[str] | None,
    precisions: Sequence[Precision],
    threads: Sequence[int] | None,
    device: Device | None,
) -> list[Setting]:
    counts = list(threads) if threads else thread_counts(device.machine.num_threads if device else None)
    able = [name for name, row in RUNTIMES.items() if device is None or row.remote]
    return [Setting(*choice) for choice in product(runtimes or able, precisions, counts)]


def _usual_labels(path: Path, size: Size, images: Sequence[Image]) -> list[Labels]:
    """The labels by the usual engine in float32."""
    segment = Segmenter(path, runtime=DEFAULT_RUNTIMES[path.suffix.lower()], num_threads=1, input_size=size)
    return [np.asarray(segment(image)) for image in images]


def _agreement(
    path: Path,
    setting: Setting,
    size: Size,
    images: Sequence[Image],
    expected: Callable[[], Sequence[Labels]],
    device: Device | None,
) -> float:
    """Percent of the pixels with the expected label; the least of all images."""
    usual = DEFAULT_RUNTIMES[path.suffix.lower()]
    if device is None:
        own = Segmenter(path, runtime=setting.runtime, precision=setting.precision, num_threads=1, input_size=size)
    else:
        options = SessionOptions(path, setting.precision, 1, size)
        own = Segmenter.from_session(device.open_session(setting.runtime, options), read_record(path), input_size=size)
    if own.precision != setting.precision:
        raise RunError(f"computes in {own.precision}")
    if device is None and (setting.runtime, own.precision) in ((usual, "f32"), (usual, "int8")):
        return 100.0
    pairs = zip(images, expected(), strict=True)
    return min(100 * float(np.mean(np.asarray(own(image)) == labels)) for image, labels in pairs)


def _cache_file() -> Path:
    own = os.environ.get(CACHE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lpsnet"
    return (Path(own) if own else base) / "tuned.json"


def _key(path: Path, size: Size | None) -> str:
    place = "any" if size is None else f"{size[0]}x{size[1]}"
    return f"{sha256(path)[:16]} at {place} on {describe_machine().identity} with {len(thread_counts())} thread counts"


def _read_cache() -> dict[str, Any]:
    try:
        kept = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or damaged: it is made anew
        return {}
    return kept if isinstance(kept, dict) else {}


def _remember(tuned: Tuned) -> None:
    file = _cache_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(file.with_suffix(".lock"), on_wait=lambda: None):
            kept = {**_read_cache(), _key(tuned.model, tuned.size): asdict(tuned.best)}
            write_text(file, json.dumps(kept, indent=1) + "\n")
    except (OSError, LpsnetError):  # a home that cannot be written to: tuned again next time
        return


def best_setting(model: str | Path, size: Size | None = None) -> Setting:
    """The kept choice for a file on this machine; tuned now if there is none. Errors as for `tune`."""
    path = find_model(model)
    record = find_record(path)
    size = size or (record.input_size if record else None) or DEFAULT_SIZE
    kept = _read_cache().get(_key(path, size))
    try:
        return Setting(**kept) if isinstance(kept, dict) else tune(path, size=size).best
    except TypeError:  # of another version
        return tune(path, size=size).best


NEAR_BUDGET = (0.5, 1.15)  # guessed latency by the budget, between which networks are timed


def times_near(
    costs: Mapping[str, float],
    budget_ms: float,
    time_some: Callable[[Sequence[str]], Mapping[str, float]],
    *,
    wanted: Sequence[str] = (),
) -> dict[str, float]:
    """Time as few networks as tell which are within a budget.

    Timed are the cheapest, the middle and the dearest, then those that are near the budget by the line through these,
    then those between the dearest within the budget and the cheapest above it. One that seems slower than a dearer one
    was disturbed by other work, and takes that one's time.

    Args:
        costs: multiply-accumulates by network.
        budget_ms: milliseconds.
        time_some: times networks interleaved.
        wanted: networks, the best first: the first two that cost no more than one within the budget are timed, too.

    Returns:
        Milliseconds by network.
    """
    order = sorted(costs, key=lambda name: costs[name])
    found = dict(time_some(list(dict.fromkeys((order[0], order[len(order) // 2], order[-1])))))
    known = sorted(found, key=lambda name: costs[name])
    guessed = np.interp([costs[name] for name in order], [costs[it] for it in known], [found[it] for it in known])
    low, high = (budget_ms * factor for factor in NEAR_BUDGET)
    near = [name for name, guess in zip(order, guessed, strict=True) if name not in found and low <= guess <= high]
    found.update(time_some(near) if near else {})
    within = max((costs[name] for name, time in found.items() if time <= budget_ms), default=-np.inf)
    above = min((costs[name] for name, time in found.items() if time > budget_ms), default=np.inf)
    rest = [name for name in order if name not in found and within < costs[name] < above]
    found.update(time_some(rest) if rest else {})
    within = max((costs[name] for name, time in found.items() if time <= budget_ms), default=-np.inf)
    best = [name for name in [it for it in wanted if costs[it] <= within][:2] if name not in found]
    found.update(time_some(best) if best else {})
    known = sorted(found, key=lambda name: costs[name], reverse=True)
    return dict(zip(known, accumulate((found[name] for name in known), min), strict=True))

"""The plan of a fit: what the data is, how the device runs networks fastest, which network the budget allows, how the
minutes are spent. Everything is decided before anything long begins, and every decision has a reason in words.

`models.encoders.STARTS` are the networks that it may begin with; their `promise` orders those that the budget allows.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import yaml
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from lpsnet.benchmark import tune as tuning
from lpsnet.benchmark.device import Device, opened_device
from lpsnet.benchmark.timing import TimingProtocol, measure
from lpsnet.data import check
from lpsnet.data.channels import Channels
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.images import Image
from lpsnet.data.inspection import Diagnosis
from lpsnet.data.split import Split, select
from lpsnet.data.synthetic import SceneSplit
from lpsnet.errors import DataError, DeviceError, LpsnetError, RunError, unknown_name
from lpsnet.export.export import QUANTISERS, WRITERS, quantise_file, write_for_runtime
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.engines import PRECISIONS, Precision, SessionOptions
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import write_text
from lpsnet.models.checkpoint import default_record
from lpsnet.models.encoders import KNOWN_PROMISE, MIN_AGREEMENT, STARTS, Start, agreement
from lpsnet.models.network import create_model
from lpsnet.models.profile import complexity, inference_memory_mib
from lpsnet.record import Normalisation
from lpsnet.training.config import NUM_SAMPLED, Recipe, auto_reasons, auto_recipe, survey

Progress = Callable[[str, float], None]
Size = tuple[int, int]

LEAST_TRAINING = 0.25  # of the minutes, however long the plan took
CONTEST_MINUTES = 40.0  # of a fit, from which two networks are tried before one is trained
CONTEST_SHARE = 0.08  # of the minutes, for each of the two
DELIVERY_SHARE = 0.06  # of the minutes, for the export, the evaluation and the report
DELIVERY_MINUTES = (0.1, 3.0)
ROBUSTNESS_SHARE, ROBUSTNESS_MINUTES = 0.02, 1.0  # of the minutes, at most; they come on top of these
INT8_GAIN = 0.85  # share of the time in floating point that int8 may take, or it is not worth its loss
BUDGET_SHARE = 0.94  # of the budget that a network may take when it is chosen: the machine is not always as quick
FEWEST_IMAGES_SEEN = 1_000  # in the training, or a smaller network ends better
CORE_SECONDS = 0.2e-9  # of an image in training, by multiply-accumulate: 0.17e-9 on one core of a Zen 4, in bf16
OTHER_SHARE = 0.2  # of the minutes that is no training, about
TIMING = TimingProtocol(warm_up_s=0.1, duration_s=0.5)  # of each network; the delivered one is timed for longer
NUM_SEEN = 24  # training images on which weights that may be started with are tried
VAL_FRACTION = 0.2  # where the data has no validation split
MAX_CHECKED = 5_000  # images that are all checked before a fit; of more, the first problem is met when it is read


class Wish(BaseModel):
    """What the user asked for; None is left to the plan."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    budget_ms: FiniteFloat
    minutes: FiniteFloat = 60.0
    size: Size | None = None
    runtime: str | None = None
    precision: Precision | None = None
    threads: int | None = None
    start: str | None = None
    seed: int = 0
    memory_mib: FiniteFloat | None = None
    teacher: str | None = None
    unlabelled: str | None = None
    device: str | None = None

    @property
    def scope(self) -> str:
        """What the budget is for."""
        return f"for the network alone on {self.device}" if self.device else "end to end on this machine"


class Choice(BaseModel):
    """A network that the budget allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: str
    architecture: str
    latency_ms: float


class Plan(BaseModel):
    """What will be done, and why.

    Attributes:
        wish: what was asked for.
        data: the data set to open; that of the wish, or a description with a validation split of its own.
        num_train, num_val: images.
        classes: their names.
        size: (height, width) in pixels that the network runs at.
        runtime, precision, threads: how it is run, and how the budget is measured.
        choices: networks to train, the first one unless there is a contest; all within the budget.
        planning_minutes: that the plan itself took.
        contest_minutes: for each choice but a single one; 0 without a contest.
        training_minutes: of the last training.
        recipe: of the trainings.
        reasons: what was decided and why, one line each, with the subject before the colon.
        left_out: measured networks over the budget, with their latency in ms.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wish: Wish
    data: str
    num_train: int
    num_val: int
    classes: tuple[str, ...]
    size: Size
    runtime: str
    precision: Precision
    threads: int | None
    choices: tuple[Choice, ...]
    planning_minutes: float
    contest_minutes: float
    training_minutes: float
    recipe: dict[str, Any]
    reasons: tuple[str, ...]
    left_out: dict[str, float]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in a file.

        Raises:
            RunError: it holds none.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, ValidationError) as error:
            raise RunError(
                f"{path} holds no plan of a fit: {str(error).splitlines()[0]}; choose another folder"
            ) from None

    def with_minutes(self, minutes: float) -> Self:
        """The same plan with more time, or less, for the last training."""
        spent = self.contest_minutes * len(self.choices) if self.contest_minutes else 0.0
        left = minutes - self.planning_minutes - spent - delivery_minutes(minutes)
        wish = self.wish.model_copy(update={"minutes": minutes})
        return self.model_copy(update={"wish": wish, "training_minutes": max(LEAST_TRAINING * minutes, left)})

    def macs(self, start: Start) -> int:
        """Multiply-accumulates of a network for an image."""
        return _macs(start.architecture, start.block, self.size, len(self.classes))

    def training_recipe(self, minutes: float) -> Recipe:
        """The recipe of a training of so many minutes."""
        return Recipe.from_values(self.recipe).with_overrides({"minutes": minutes, "seed": self.wish.seed})


def delivery_minutes(minutes: float) -> float:
    """For what comes after the last training."""
    least, most = DELIVERY_MINUTES
    return min(most, max(least, DELIVERY_SHARE * minutes)) + robustness_minutes(minutes)


def robustness_minutes(minutes: float) -> float:
    """For mIoU under corruptions, part of `delivery_minutes`."""
    return min(ROBUSTNESS_MINUTES, ROBUSTNESS_SHARE * minutes)


def make_plan(wish: Wish, out: Path, *, on_progress: Progress = lambda stage, done: None) -> Plan:
    """Check the data, measure the device, choose.

    Args:
        wish: what is asked for.
        out: the fit's folder; a description of data without a validation split is written there.
        on_progress: called with the stage and the share of it that is done.

    Raises:
        LpsnetError: the data has errors, or the budget allows no network.
    """
    began, reasons = time.monotonic(), list[str]()
    dataset = _data(wish, out, reasons, on_progress)
    train = dataset.split("train")
    seen = survey(train, count=NUM_SAMPLED)
    size = wish.size or seen.usual_size
    if not train.channels.is_rgb:
        reasons.append(f"channels: {train.channels}; the first filters are made for them from those of RGB")
    reasons.append(f"input size: {size[0]}x{size[1]}, {'as asked' if wish.size else 'that of most images'}")
    candidates = _within_memory(wish, size, dataset.label_space.num_classes, find_starts(wish.start), reasons)
    with tempfile.TemporaryDirectory(prefix="lpsnet-") as folder, opened_device(wish.device) as device:
        files = _Files(Path(folder), size, dataset.label_space.num_classes, train.channels, device)
        best = _setting(wish, files, files.middle(candidates), reasons, on_progress)
        candidates = _within_minutes(wish, files, candidates, reasons)
        order = _by_promise(candidates, _agreements(train, size, candidates))
        times = _times(files, order, best, BUDGET_SHARE * wish.budget_ms, on_progress)
        times = _confirmed(wish, files, order, best, times, on_progress)
        best, times = _in_int8(wish, files, order, best, times, reasons, on_progress)
    choices = _within(wish, order, times, reasons)
    contest = CONTEST_SHARE * wish.minutes if wish.minutes >= CONTEST_MINUTES and len(choices) > 1 else 0.0
    choices = choices[: 2 if contest else 1]
    if wish.teacher:
        more = f" and on {wish.unlabelled}" if wish.unlabelled else ""
        reasons.append(f"teacher: the network learns {wish.teacher}'s probabilities on these images{more}, too")
    recipe = auto_recipe(seen, len(train), minutes=1.0, pretrained=True, is_rgb=train.channels.is_rgb)
    reasons += auto_reasons(recipe, seen)
    plan = Plan(
        wish=wish,
        data=dataset.spec,
        num_train=len(train),
        num_val=len(dataset.split("val")),
        classes=tuple(dataset.label_space.names),
        size=size,
        runtime=best.runtime,
        precision=best.precision,
        threads=best.num_threads,
        choices=choices,
        planning_minutes=(time.monotonic() - began) / 60,
        contest_minutes=contest,
        training_minutes=1.0,
        recipe=recipe.model_dump(mode="json"),
        reasons=tuple(reasons),
        left_out={name: time for name, time in times.items() if time > wish.budget_ms},
    )
    return plan.with_minutes(wish.minutes)


def _data(wish: Wish, out: Path, reasons: list[str], on_progress: Progress) -> Dataset:
    """The data set, once it is known to be sound and to have a validation split."""
    dataset, is_guessed = _opened(wish.data)
    if sum(map(len, dataset.parts.values())) <= MAX_CHECKED:
        found = check.check_opened(dataset, on_progress=lambda done, total: on_progress("checking", done / total))
        _refuse_errors(wish, found)
        warnings = [finding.message for finding in found.findings if finding.severity == "warning"]
        reasons += [f"data: {message}" for message in warnings[:3]]
        if len(warnings) > 3:
            reasons.append(f"data: {len(warnings) - 3} more warnings; 'lpsnet data check {wish.data}' has all")
        if {"train", "val"} - set(dataset.splits) or is_guessed:
            dataset = _described(wish, found, out, reasons)
    if lacking := [name for name in ("train", "val") if name not in dataset.splits]:
        raise DataError(
            f"{wish.data} has no split {lacking[0]!r}, only {', '.join(map(repr, dataset.splits))}; a fit learns from "
            "'train' and judges on 'val': describe it in a YAML file with both, e.g. with val_fraction: 0.2"
        )
    return dataset


def _refuse_errors(wish: Wish, found: Diagnosis) -> None:
    errors = [finding for finding in found.findings if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more errors)" if len(errors) > 1 else ""
        raise DataError(f"{errors[0].message}{more}; 'lpsnet data check {wish.data}' lists all and how to mend them")


def _opened(text: str) -> tuple[Dataset, bool]:
    """The data set, and whether `--data` would not take it: a folder whose layout was guessed."""
    try:
        return open_dataset(text), False
    except DataError:
        return check.open_any(text), True


def _described(wish: Wish, found: Diagnosis, out: Path, reasons: list[str]) -> Dataset:
    """The data set by a description in the fit's folder; the last fifth of one folder, by name, becomes 'val'."""
    file, text = out / "data.yaml", found.suggested_yaml
    if len(found.counts) == 1 and "val_fraction" not in text:
        text += f"val_fraction: {VAL_FRACTION}\n"
    if "val_fraction" in text:
        reasons.append(
            "data: the last of the images by name are for judging ('val'); see val_fraction in its description"
        )
    if not text:
        raise DataError(
            f"{wish.data} cannot be described; name its layout, or write a YAML file (docs/how-to/custom-data.md)"
        )
    if file.is_file():  # maybe edited: its names and its val_fraction count
        kept = open_dataset(file)
        if kept.description is None or kept.description.path != yaml.safe_load(text)["path"]:
            raise DataError(f"{file} describes other data than {wish.data}; give another --out, or remove it")
        reasons.append(f"data: the description in {file} is used as it is there")
        return kept
    write_text(file, text)
    reasons.append(f"data: its layout was found from names and contents and is described in {file}")
    return open_dataset(file)


def find_start(name: str) -> Start:
    """The row of `STARTS` of that name, which there is."""
    return next(start for start in STARTS if start.name == name)


def find_starts(asked: str | None) -> list[Start]:
    """The rows of `STARTS` of that name or family; all for None."""
    found = [start for start in STARTS if asked in (None, start.name, start.name.partition("-")[0])]
    if not found:
        raise RunError(unknown_name("start", asked, [start.name for start in STARTS]))
    return found


def _within_memory(
    wish: Wish, size: Size, num_classes: int, candidates: list[Start], reasons: list[str]
) -> list[Start]:
    """Those whose weights and feature maps fit into the memory that was given, as numbers of 32 bits."""
    if wish.memory_mib is None:
        return candidates
    needs = {
        start.name: inference_memory_mib(start.network, size=size, num_classes=num_classes, block=start.block)
        for start in candidates
    }
    allowed = [start for start in candidates if needs[start.name] <= wish.memory_mib]
    if not allowed:
        name, least = min(needs.items(), key=lambda item: item[1])
        raise RunError(
            f"the smallest network here, {name}, takes {least:.1f} MiB at {size[0]}x{size[1]}, more than "
            f"{wish.memory_mib:g} MiB; give more memory or a smaller --size"
        )
    reasons.append(
        f"memory: weights and feature maps of {len(allowed)} of {len(candidates)} networks fit into "
        f"{wish.memory_mib:g} MiB; an engine takes its own besides"
    )
    return allowed


def _within_minutes(wish: Wish, files: "_Files", candidates: list[Start], reasons: list[str]) -> list[Start]:
    """Those whose training sees enough images on this machine's processors; all where a GPU trains."""
    if torch.cuda.is_available():
        return candidates
    core_seconds = (1 - OTHER_SHARE) * 60 * wish.minutes * torch.get_num_threads()
    seen = {start.name: core_seconds / (CORE_SECONDS * files.macs(start)) for start in candidates}
    enough = [start for start in candidates if seen[start.name] >= FEWEST_IMAGES_SEEN]
    if len(enough) < len(candidates):
        reasons.append(
            f"time: {len(candidates) - len(enough)} of {len(candidates)} networks are left out: {wish.minutes:g} "
            f"minutes would show them fewer than {FEWEST_IMAGES_SEEN:,} images here"
        )
    return enough or [max(candidates, key=lambda start: seen[start.name])]


class _Files:
    """Untrained networks as files, to be timed here or on a device."""

    def __init__(
        self, folder: Path, size: Size, num_classes: int, channels: Channels, device: Device | None = None
    ) -> None:
        self.folder, self.size, self.num_classes, self.channels = folder, size, num_classes, channels
        self.device = device

    @cached_property
    def image(self) -> Image:
        """To be segmented: a generated scene, or noise of other channels than RGB."""
        if self.channels.is_rgb:
            return SceneSplit(size=self.size, count=1, seed=0, name="plan").image(0)
        noise = np.random.default_rng(0).integers(0, self.channels.max_value, (*self.size, len(self.channels.names)))
        return np.asarray(noise, self.channels.dtype)

    def macs(self, start: Start) -> int:
        """Multiply-accumulates for an image."""
        return _macs(start.architecture, start.block, self.size, self.num_classes)

    def middle(self, candidates: Sequence[Start]) -> Start:
        """The one in the middle by multiply-accumulates."""
        return sorted(candidates, key=self.macs)[(len(candidates) - 1) // 2]

    def write(self, start: Start, setting: tuning.Setting) -> Path:
        """The file of a network for an engine; in int8 with the ranges of `image`, which change no latency."""
        count, runtime = len(self.channels.names), setting.runtime
        net = create_model(
            start.network, num_classes=self.num_classes, block=start.block, form="plain", in_channels=count
        )
        values: dict[str, Any] = {"input_size": self.size}
        if not self.channels.is_rgb:
            mean = (0.5,) * count
            values["normalisation"] = Normalisation(mean=mean, std=mean, max_value=self.channels.max_value)
            values["channels"] = self.channels.names
        record = default_record(net).model_copy(update=values)
        kinds: dict[str, Any] = {"record": record, "size": self.size}
        whole = write_for_runtime(net, self.folder, start.name, runtime=runtime, **kinds)
        if setting.precision != "int8":
            return whole
        ranges = Quantisation([self.image])
        return quantise_file(whole, runtime=runtime, quantisation=ranges, folder=self.folder, **kinds)

    def open(self, start: Start, setting: tuning.Setting) -> Any:
        """A network to be timed: a `Segmenter` here, end to end; a `DeviceSession` on a device, alone."""
        path = self.write(start, setting)
        if self.device is not None:
            asked = SessionOptions(path, setting.precision, setting.num_threads, self.size)
            return self.device.open_session(setting.runtime, asked)
        options: dict[str, Any] = {"precision": setting.precision, "num_threads": setting.num_threads}
        return Segmenter(path, runtime=setting.runtime, input_size=self.size, **options)


@lru_cache
def _macs(architecture: str, block: str, size: Size, num_classes: int) -> int:
    return complexity(architecture, size=size, num_classes=num_classes, block=block).macs


def _setting(wish: Wish, files: _Files, start: Start, reasons: list[str], on_progress: Progress) -> tuning.Setting:
    """The quickest engine, precision and number of threads for networks like `start`; in int8 only if asked for."""
    if (device := files.device) is not None:
        reasons.append(f"device: {device.machine.identity}; the budget is {wish.scope}, without images and label maps")
    where = "there" if device else "here"
    if wish.precision == "int8":
        times = _int8_times(wish, files, start, wish.threads, on_progress)
        best = min(times, key=lambda setting: times[setting])
        reasons.append(f"engine: {best}, {times[best]:.1f} ms {where} for {start.name}, as asked")
        return best
    threads = [wish.threads] if wish.threads else None
    precisions: Sequence[Precision] = [wish.precision] if wish.precision else [it for it in PRECISIONS if it != "int8"]
    runtime = wish.runtime or "onnxruntime"
    tuned = tuning.tune(
        files.write(start, tuning.Setting(runtime, "f32")),
        size=files.size,
        runtimes=[wish.runtime] if wish.runtime else None,
        precisions=precisions,
        threads=threads,
        min_agreement=0.0,  # its weights are random; the delivered file is held against its network
        keep=False,
        device=device,
        on_progress=lambda stage, done: on_progress("measuring the device", done),
    )
    others = [f"{setting} {tuning.latency_ms(result):.1f} ms" for setting, result, _ in tuned.measured[1:4]]
    beside = f"; beside it: {', '.join(others)}" if others else ""
    reasons.append(f"engine: {tuned.best}, the quickest {where} for {start.name}{beside}")
    return tuned.best


def _int8_times(
    wish: Wish, files: _Files, start: Start, threads: int | None, on_progress: Progress, *beside: tuning.Setting
) -> dict[tuning.Setting, float]:
    """Milliseconds of a network in int8 by every engine that can, and in the settings `beside` these.

    Raises:
        RunError: no engine can, and there are no others.
    """
    networks, problems = dict[str, Any](), list[str]()
    usual = [name for name in QUANTISERS if WRITERS[name].suffix == ".onnx"]  # others only if asked for, as in `tune`
    asked = usual if wish.runtime is None else [name for name in QUANTISERS if name == wish.runtime]
    settings = {str(it): it for it in (*beside, *(tuning.Setting(name, "int8", threads) for name in asked))}
    for name, setting in settings.items():
        on_progress("trying int8", len(networks) / len(settings))
        try:
            networks[name] = files.open(start, setting)
        except DeviceError:
            raise
        except LpsnetError as error:
            problems.append(str(error))
    if not networks:
        raise RunError(f"int8 is not possible here: {problems[0] if problems else f'{wish.runtime} does not run it'}")
    return {settings[name]: time for name, time in _timed_interleaved(files, networks, on_progress).items()}


def _in_int8(
    wish: Wish,
    files: _Files,
    order: Sequence[Start],
    best: tuning.Setting,
    times: dict[str, float],
    reasons: list[str],
    on_progress: Progress,
) -> tuple[tuning.Setting, dict[str, float]]:
    """The setting and the times of the budget's networks: those in int8 if a more promising one is within the budget
    only so, else those given."""
    first = next((number for number, start in enumerate(order) if _fits(wish, start, times)), len(order))
    if wish.precision is not None or not (better := order[:first]):
        return best, times
    probe = order[first] if first < len(order) else min(order, key=files.macs)
    beside = _int8_times(wish, files, probe, best.num_threads, on_progress, best)
    quickest = min(beside, key=lambda setting: beside[setting])
    words = ", ".join(f"{setting} {time:.1f} ms" for setting, time in beside.items())
    if beside[quickest] > INT8_GAIN * beside[best]:
        reasons.append(f"int8: no faster here for {probe.name}: {words}" if len(beside) > 1 else "int8: not possible")
        return best, times
    found = _times(files, better, quickest, BUDGET_SHARE * wish.budget_ms, on_progress)
    found = _confirmed(wish, files, better, quickest, found, on_progress)
    if not any(_fits(wish, start, found) for start in better):
        return best, times
    reasons.append(
        f"int8: faster here for {probe.name}: {words}; it brings a larger network into the budget, which is delivered "
        "in int8 after its labels were compared"
    )
    return quickest, found


def _times(
    files: _Files, candidates: Sequence[Start], best: tuning.Setting, budget_ms: float, on_progress: Progress
) -> dict[str, float]:
    """Latency in ms of the starts that may be near the budget; equal networks are timed once. The best come first."""
    different = {start.architecture: start for start in reversed(candidates)}
    costs = {text: float(files.macs(start)) for text, start in different.items()}

    def time_some(texts: Sequence[str]) -> dict[str, float]:
        networks = dict[str, Any]()
        for number, text in enumerate(texts):
            on_progress("opening networks", number / len(texts))
            networks[text] = files.open(different[text], best)
        return _timed_interleaved(files, networks, on_progress)

    wanted = list(dict.fromkeys(start.architecture for start in candidates))
    found = tuning.times_near(costs, budget_ms, time_some, wanted=wanted)
    return {start.name: found[start.architecture] for start in candidates if start.architecture in found}


def _confirmed(
    wish: Wish,
    files: _Files,
    order: Sequence[Start],
    best: tuning.Setting,
    times: Mapping[str, float],
    on_progress: Progress,
) -> dict[str, float]:
    """The times, once the network that would be chosen was timed again and is within the budget then, too.

    The first time may have met a quiet moment of the machine, which counts for more than most networks differ: of two
    times of a network the longer one holds, and if that is over the budget, the next network is timed again.
    """
    found = dict(times)
    while first := next((start for start in order if _fits(wish, start, found)), None):
        again = _timed_interleaved(files, {first.name: files.open(first, best)}, on_progress)[first.name]
        same = {start.name for start in order if start.architecture == first.architecture}
        found |= {name: max(again, time) for name, time in found.items() if name in same}
        if _fits(wish, first, found):
            break
    return found


def _timed_interleaved(files: _Files, networks: Mapping[str, Any], on_progress: Progress) -> dict[str, float]:
    """Milliseconds by name of networks that `files` opened."""
    report = partial(on_progress, "timing networks")
    if files.device is None:
        calls = {name: partial(network, files.image) for name, network in networks.items()}
        found = measure(calls, protocol=TIMING, on_progress=report)
    else:
        noise = np.random.default_rng(0).standard_normal((1, len(files.channels.names), *files.size), np.float32)
        items = {name: (network, noise) for name, network in networks.items()}
        found = files.device.measure(items, protocol=TIMING, on_progress=report)[0]
    return {name: latency.median_ms for name, latency in found.items()}


def _fits(wish: Wish, start: Start, times: Mapping[str, float]) -> bool:
    """Whether a network is known to be within the part of the budget that it may take when it is chosen."""
    return times.get(start.name, float("inf")) <= BUDGET_SHARE * wish.budget_ms


def _agreements(train: Split, size: Size, candidates: Iterable[Start]) -> dict[str, float]:
    """By name of a checkpoint that networks may start with, whether it has seen images of this kind: `agreement`."""
    if not train.channels.is_rgb:
        return {}
    files = {start.weights: start.checkpoint for start in candidates if start.checkpoint}
    chosen = select(train, NUM_SEEN)
    samples = [(chosen[place].image, chosen[place].labels) for place in range(len(chosen))] if files else []
    return {
        name: agreement(Segmenter(file, runtime="pytorch", input_size=size), samples, train.label_space.num_classes)
        for name, file in files.items()
    }


def _by_promise(candidates: Iterable[Start], agreements: Mapping[str, float]) -> list[Start]:
    def promise(start: Start) -> float:
        known = agreements.get(start.weights, 0.0) >= MIN_AGREEMENT
        return start.promise + (KNOWN_PROMISE if known else -1.0 if start.weights else 0.0)

    return sorted(candidates, key=promise, reverse=True)


def _within(wish: Wish, order: Sequence[Start], times: dict[str, float], reasons: list[str]) -> tuple[Choice, ...]:
    """Those of `order` that the budget allows: the first, the same one with other weights, then the others."""
    fitting = [start for start in order if _fits(wish, start, times)]
    if not fitting:
        name, fastest = min(times.items(), key=lambda item: item[1])
        raise RunError(
            f"the quickest network here, {name}, takes {fastest:.1f} ms {wish.scope}, more than "
            f"{BUDGET_SHARE:.0%} of {wish.budget_ms:g} ms; give a larger budget or a smaller --size"
        )
    first, *others = fitting
    others.sort(key=lambda start: start.architecture != first.architecture)  # else in the same order
    reasons.append(
        f"network: {first.name} ({first.architecture}), {times[first.name]:.1f} ms of {wish.budget_ms:g} ms, the most "
        f"promising of {len(times)} timed ones; {len(times) - len(fitting)} take more than {BUDGET_SHARE:.0%} of it"
    )
    reasons.append(f"weights: {first.origin}")
    if first.terms:
        reasons.append(f"terms: the model will be as its weights, {first.terms}; --start lite0 begins with others")
    return tuple(
        Choice(start=start.name, architecture=start.architecture, latency_ms=times[start.name])
        for start in (first, *others)
    )

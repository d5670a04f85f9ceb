"""`fit`: plan, contest, last training, delivery.

Every stage leaves its result in a folder, so that a fit that was stopped resumes when it is started again; given more
minutes it trains on.
"""

import json
import logging
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lpsnet.architecture import get_architecture
from lpsnet.benchmark.benchmark import Benchmark, Candidate, benchmark
from lpsnet.benchmark.device import Device, opened_device
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.data.split import Images, Split, select
from lpsnet.errors import DataError, LpsnetError, RunError, unknown_name, wanted
from lpsnet.evaluation.evaluate import Evaluation, RobustnessTest, evaluate
from lpsnet.export.export import export
from lpsnet.export.quantise import FloatLayer, Quantisation
from lpsnet.fitting import plan as planning
from lpsnet.fitting.plan import Choice, Plan, Wish, make_plan
from lpsnet.inference.engines import PRECISIONS, Precision, SessionOptions
from lpsnet.inference.hub import find_checkpoint
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES, Segmenter
from lpsnet.io import atomic_path, locked_folder, write_text
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import load_checkpoint, save_checkpoint
from lpsnet.models.encoders import Start, at_other_ratios
from lpsnet.models.network import create_model
from lpsnet.record import ModelRecord
from lpsnet.training.run import Status, TrainingResult, TrainingRun
from lpsnet.training.run_folder import RunFolder, refuse_images
from lpsnet.training.segmentation import train

_log = logging.getLogger(__name__)

PLAN, RESULT, HOW = "plan.json", "fit.json", "how.md"
OWN_FORMATS = {"ncnn": "ncnn", "litert": "tflite"}  # engine that does not run ONNX -> the suffix of its files
SCORED = "miou.txt"  # in the folder of a contest's training that is done
NUM_COMPARED, NUM_CALIBRATED = 8, 100
MAX_INT8_LOSS = 1.0  # points of mIoU that an int8 file may lose that is delivered beside another
# for a network that is within the budget only in int8: what stays in floating point -> points of mIoU that it may lose,
# fewer than a network that is within the budget in floating point would
PLANNED_INT8: tuple[tuple[tuple[FloatLayer, ...], float], ...] = ((("first",), 1.0), (("first", "last"), 3.0))
PLANNED_AGREEMENT = 80.0  # percent of an image's pixels that keep their label in planned int8: its mIoU is what counts

Reporter = Callable[[], AbstractContextManager[Callable[[Status], None]]]


@dataclass(frozen=True, slots=True)
class Fit:
    """What a fit leaves.

    Attributes:
        plan: what was done and why.
        folder: with all files.
        checkpoint: the trained network, to train on or to export.
        model: the same as an ONNX file, which runs everywhere.
        int8: the same in int8 for the chosen engine, if it holds.
        evaluation: of `runnable` on val, in the chosen engine and precision; with robustness on some images.
        benchmark: of the delivered files.
        trained: mIoU on val of every training, by the name of its network.
        start: the network that is delivered: the one that was trained to the end, or that one at a lower ratio.
    """

    plan: Plan
    folder: Path
    checkpoint: Path
    model: Path
    int8: Path | None
    evaluation: Evaluation
    benchmark: Benchmark
    trained: dict[str, float]
    start: str

    @property
    def runnable(self) -> Path:
        """The file for the chosen engine and precision."""
        if self.int8 is not None and self.precision == "int8":
            return self.int8
        suffix = OWN_FORMATS.get(self.plan.runtime)
        return self.model if suffix is None else self.folder / f"model.{suffix}"

    @property
    def precision(self) -> Precision:
        """That `runnable` computes in: the plan's, but float32 where the planned int8 file would have lost too much."""
        return "f32" if self.plan.precision == "int8" and self.int8 is None else self.plan.precision

    @property
    def words(self) -> str:
        """What came out, in a sentence."""
        plan, shares = self.plan, self.evaluation.protocol.get("device_label_agreement")
        over = "" if self.latency_ms <= plan.wish.budget_ms else ", OVER the budget"
        where = "" if plan.threads is None else f", threads {plan.threads}"
        text = (
            f"{self.evaluation.miou:.2f} mIoU on val at {self.latency_ms:.2f} ms of {plan.wish.budget_ms:g} ms{over} "
        )
        text += f"({plan.runtime} {self.precision}{where})"
        if shares is None:
            return text
        return f"{text}; mIoU in float32 here, {shares:.2f} % of the pixels or more have the same label there"

    @property
    def decisions(self) -> list[str]:
        """What was decided and why, one line each, with the subject before the colon."""
        if any(choice.start == self.start for choice in self.plan.choices):
            return list(self.plan.reasons)
        architecture = planning.find_start(self.start).architecture
        lowered = f"delivery: as {self.start} ({architecture}), with the weights that were trained at a higher ratio, "
        return [*self.plan.reasons, f"{lowered}which took more than the budget when the files were timed"]

    @property
    def latency_ms(self) -> float:
        """End to end, from an image's bytes to its label map, in the chosen engine and precision; of the network alone
        where it was measured on a device."""
        return _latency_ms(self.benchmark)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, without the samples of the benchmark."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "checkpoint": self.checkpoint.name,
            "model": self.model.name,
            "int8": self.int8.name if self.int8 else None,
            "miou": self.evaluation.miou,
            "miou_corrupted": None if self.evaluation.robustness is None else self.evaluation.robustness.mean_miou,
            "latency_ms": self.latency_ms,
            "trained": self.trained,
            "start": self.start,
            "decisions": self.decisions,
        }


def fit(
    data: str | Path,
    *,
    budget_ms: float,
    out: str | Path,
    minutes: float = 60.0,
    size: tuple[int, int] | None = None,
    runtime: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    start: str | None = None,
    seed: int = 0,
    memory_mib: float | None = None,
    teacher: str | Path | None = None,
    unlabelled: str | Path | None = None,
    device: str | None = None,
    reporter: Reporter = lambda: nullcontext(lambda status: None),
) -> Fit:
    """The most accurate network for labelled images that this machine runs within a latency budget.

    Args:
        data: labelled images, as for `lpsnet train`, or a folder whose layout can be guessed.
        budget_ms: milliseconds an image, end to end, on this machine; for the network alone on a device.
        out: the folder for everything; a fit that was stopped there is resumed.
        minutes: of everything together.
        size: (height, width) in pixels that the network runs at; None for that of most images.
        runtime, precision, threads: how the network will be run; None for the quickest here.
        start: a name or family in `planning.STARTS`; None for the most promising within the budget.
        seed: of all that is random.
        memory_mib: that weights and feature maps of the network may take; None for any.
        teacher: a model or checkpoint whose probabilities the network learns, too.
        unlabelled: a folder of images that are learnt from the teacher alone.
        device: where the network will run, ssh://USER@HOST[:PORT]; None for this machine. Scores are those of float32
            here; how far the device's labels agree is in the evaluation.
        reporter: opened for every training; what it gives is called after every step.

    Raises:
        LpsnetError: the data, the budget or the folder cannot be used.
    """
    values = {
        "runtime": runtime,
        "precision": precision,
        "threads": threads,
        "start": start,
        "seed": seed,
        "memory_mib": memory_mib,
        "teacher": None if teacher is None else str(teacher),
        "unlabelled": None if unlabelled is None else str(unlabelled),
        "size": size,
        "device": device,
    }
    wish = wish_of(data=str(data), budget_ms=budget_ms, minutes=minutes, **values)
    return run_fit(plan_in(Path(out), wish), Path(out), reporter=reporter)


def wish_of(**values: Any) -> Wish:
    """The wish of these values.

    Raises:
        RunError: one of them is not possible.
    """
    try:
        return Wish(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if key == "precision":
            raise RunError(unknown_name("precision", first["input"], PRECISIONS)) from None
        raise RunError(f"{key}: {wanted(first)}") from None


def options_of(wish: Wish) -> list[str]:
    """The options of `lpsnet fit` that say this wish again."""
    size = None if wish.size is None else f"{wish.size[0]}x{wish.size[1]}"
    values = {**wish.model_dump(exclude={"data", "size"}), "size": size}
    usual = {name: field.default for name, field in Wish.model_fields.items()}
    said = {key: value for key, value in values.items() if key == "minutes" or value != usual[key]}
    return [
        word
        for key, value in said.items()
        for word in (f"--{key.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value))
    ]


def planned_minutes(out: Path) -> float | None:
    """The minutes of the plan in a folder; None if there is none."""
    return Plan.read(out / PLAN).wish.minutes if (out / PLAN).exists() else None


def _check_teacher(wish: Wish) -> None:
    """Before anything long begins; the rest is checked when the training starts."""
    if wish.unlabelled and not wish.teacher:
        raise RunError("images without labels are learnt from a teacher: give --unlabelled with --teacher")
    if wish.teacher:
        read_record(find_checkpoint(wish.teacher))
    if wish.unlabelled and not Path(wish.unlabelled).is_dir():
        raise DataError(f"there is no folder {wish.unlabelled}; --unlabelled is a folder of images")


def plan_in(out: Path, wish: Wish, *, on_progress: Callable[[str, float], None] = lambda stage, done: None) -> Plan:
    """The plan that is in `out`, with the minutes of `wish`; one made now and kept there if there is none.

    Raises:
        RunError: the fit in `out` has other wishes than these, but for the minutes.
        LpsnetError: as `make_plan`.
    """
    file = out / PLAN
    if file.exists():
        plan = Plan.read(file)
        held, asked = plan.wish.model_dump(exclude={"minutes"}), wish.model_dump(exclude={"minutes"})
        if differing := [key for key in asked if held[key] != asked[key]]:
            key = differing[0]
            raise RunError(f"the fit in {out} has {key} = {held[key]}, not {asked[key]}; choose another folder")
        if plan.wish.minutes == wish.minutes:
            return plan
        plan = plan.with_minutes(wish.minutes)
    else:
        refuse_images(out)
        _check_teacher(wish)
        with opened_device(wish.device):
            out.mkdir(parents=True, exist_ok=True)  # a device that is not there is met before the data is checked
        plan = make_plan(wish, out, on_progress=on_progress)
    write_text(file, plan.model_dump_json(indent=1) + "\n")
    return plan


def run_fit(plan: Plan, out: Path, *, reporter: Reporter) -> Fit:
    """Carry out a plan; what is done already is not done again."""
    started = time.monotonic()
    with locked_folder(out):
        if (done := _finished(plan, out)) is not None:
            return done
        trained: dict[str, float] = {}
        with opened_device(plan.wish.device):
            pass  # one that is not there is met before the training, not after it
        chosen = _contest(plan, out, trained, reporter)
        result = _train(plan, chosen, out, reporter)
        if result.evaluation is not None:
            trained["training"] = result.evaluation.miou
        fitted = _deliver(plan, result, out, trained, chosen)
        write_text(out / RESULT, json.dumps(fitted.to_dict(), indent=1) + "\n")
        write_text(out / HOW, how(fitted))
    _log.info(f"Done in {(time.monotonic() - started) / 60:.1f} minutes")
    return fitted


def _finished(plan: Plan, out: Path) -> Fit | None:
    """What is in the folder, if this plan was carried out."""
    try:
        held = json.loads((out / RESULT).read_text(encoding="utf-8"))
        if held["plan"] != plan.model_dump(mode="json"):
            return None
        evaluation = Evaluation.model_validate_json((out / "evaluation.json").read_text(encoding="utf-8"))
        timed = Benchmark.model_validate_json((out / "benchmark.json").read_text(encoding="utf-8"))
        int8 = out / held["int8"] if held["int8"] else None
        paths = (out / held["checkpoint"], out / held["model"], int8)
        whole = all(path is None or path.exists() for path in paths)
        return Fit(plan, out, *paths, evaluation, timed, held["trained"], held["start"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError):  # not there yet, or of another version: delivered again
        return None


def _run(plan: Plan, choice: Choice, minutes: float, *, init: Path | None = None) -> TrainingRun:
    start = planning.find_start(choice.start)
    return TrainingRun(
        data=plan.data,
        architecture=start.network,
        recipe=plan.training_recipe(minutes),
        block=start.block,
        encoder="" if init or start.weights else start.encoder,
        init=init or start.checkpoint,
        input_size=plan.size,
        teacher=find_checkpoint(plan.wish.teacher) if plan.wish.teacher else None,
        unlabelled=Path(plan.wish.unlabelled) if plan.wish.unlabelled else None,
    )


def _contest(plan: Plan, out: Path, trained: dict[str, float], reporter: Reporter) -> Choice:
    """Train the choices for a short time each; the best goes on."""
    if not plan.contest_minutes:
        return plan.choices[0]
    for choice in plan.choices:
        folder = out / "contest" / choice.start
        if (scored := folder / SCORED).exists():
            trained[choice.start] = float(scored.read_text(encoding="utf-8"))
            continue
        _log.info(f"Trying {choice.start} for {plan.contest_minutes:.1f} minutes …")
        with reporter() as report:
            result = train(_run(plan, choice, plan.contest_minutes), folder, resume=True, on_progress=report)
        trained[choice.start] = 0.0 if result.evaluation is None else result.evaluation.miou
        write_text(scored, f"{trained[choice.start]}\n")
    best = max(plan.choices, key=lambda choice: trained[choice.start])
    found = ", ".join(f"{choice.start} {trained[choice.start]:.1f} mIoU" for choice in plan.choices)
    _log.info(f"{found}: {best.start} is trained further")
    return best


def current_training(out: Path) -> Path:
    """The folder of the training that a fit in `out` has come to."""
    begun = [folder for folder in (out / "training", *(out / "contest").glob("*")) if RunFolder(folder).run.exists()]
    return max(begun, key=lambda folder: RunFolder(folder).run.stat().st_mtime, default=out / "training")


def _train(plan: Plan, choice: Choice, out: Path, reporter: Reporter) -> TrainingResult:
    before = RunFolder(out / "contest" / choice.start).model
    init = before if plan.contest_minutes and before.exists() else None
    _log.info(f"Training {choice.start} for {plan.training_minutes:.1f} minutes …")
    with reporter() as report:
        run = _run(plan, choice, plan.training_minutes, init=init)
        return train(run, out / "training", resume=True, on_progress=report)


def _deliver(plan: Plan, result: TrainingResult, out: Path, trained: dict[str, float], chosen: Choice) -> Fit:
    """Export, verify, quantise, time and score; at a lower ratio if the budget is not met otherwise."""
    checkpoint, model, start = out / "model.safetensors", out / "model.onnx", planning.find_start(chosen.start)
    with atomic_path(checkpoint) as temporary:
        temporary.write_bytes(result.model.read_bytes())
    dataset = open_dataset(plan.data)
    val = dataset.split("val")
    compared = Images(select(val, NUM_COMPARED))
    with opened_device(plan.wish.device) as device:
        while True:
            cells, int8 = _exported(plan, checkpoint, model, dataset, compared)
            timed = _timed(plan, cells, device)
            share = plan.wish.budget_ms / _latency_ms(timed)
            most = planning.BUDGET_SHARE * share * plan.macs(start)
            lower = [it for it in at_other_ratios(start, planning.find_starts(None)) if plan.macs(it) <= most]
            if share >= 1 or not lower:
                break
            _log.warning(f"{start.name} takes {1 / share:.2f} times the budget now, and is delivered at a lower ratio")
            start = max(lower, key=plan.macs)
            _set_ratios(checkpoint, start)
        write_text(out / "benchmark.json", json.dumps(timed.to_dict()) + "\n")
        segmenter, kept = _segmenter(plan, cells[0], model, device, compared)
    evaluation = _scored(plan, segmenter, val, kept)
    write_text(out / "evaluation.json", json.dumps(evaluation.to_dict(), indent=2) + "\n")
    return Fit(plan, out, checkpoint, model, int8, evaluation, timed, trained, start.name)


def _set_ratios(checkpoint: Path, start: Start) -> None:
    """Give the network in a checkpoint the ratios of `start`; its scores were those of others."""
    net, record = load_checkpoint(checkpoint), read_record(checkpoint)
    record = record.model_copy(update={"architecture": get_architecture(start.architecture), "scores": {}})
    changed = create_model(
        start.network, num_classes=net.num_classes, block=record.block, form=record.form, in_channels=net.in_channels
    )
    changed.load_state_dict(net.state_dict())
    save_checkpoint(changed, checkpoint, record=record)


def _exported(
    plan: Plan, checkpoint: Path, model: Path, dataset: Dataset, compared: Images
) -> tuple[list[Candidate], Path | None]:
    """The verified files, the one that will be run first; and the one in int8, if it holds."""
    net, record, out = load_checkpoint(checkpoint), read_record(checkpoint), model.parent
    _log.info("Exporting and comparing the file with the network …")
    export(net, model, to="onnx", record=record, size=plan.size, images=compared)
    whole: Precision = "f32" if plan.precision == "int8" else plan.precision
    files = [(model, plan.runtime, whole)]
    if suffix := OWN_FORMATS.get(plan.runtime):
        own = out / f"model.{suffix}"
        export(net, own, to=plan.runtime, record=record, size=plan.size, images=compared)
        files = [(own, plan.runtime, whole)]
    int8 = _quantised(plan, net, record, dataset, out)
    if int8 is not None:
        files.insert(0 if plan.precision == "int8" else len(files), (int8, DEFAULT_RUNTIMES[int8.suffix], "int8"))
    return [Candidate(path.name, path, runtime, precision) for path, runtime, precision in files], int8


def _timed(plan: Plan, cells: Sequence[Candidate], device: Device | None) -> Benchmark:
    """The files timed interleaved; once more if the first is over the budget: other work may have disturbed it."""
    options: dict[str, Any] = {"protocol": "quick", "memory": False, "device": device}
    for _ in range(2):
        _log.info("Timing the delivered files …")
        timed = benchmark(cells, size=plan.size, num_threads=plan.threads, **options)
        if _latency_ms(timed) <= plan.wish.budget_ms:
            break
    return timed


def _latency_ms(timed: Benchmark) -> float:
    """Of the first file, end to end where that was measured."""
    result = timed.results[0]
    return (result.end_to_end or result.network).median_ms


def _segmenter(
    plan: Plan, cell: Candidate, model: Path, device: Device | None, images: Images
) -> tuple[Segmenter, dict[str, Any]]:
    """What is scored: the file as it will be run; for a device, in the same engine here if it is in int8, else the ONNX
    file in float32 here.

    For a device also the share of the pixels of some images that have the same label there, in percent.
    """
    if device is None or cell.precision == "int8":
        options: dict[str, Any] = {"precision": cell.precision, "num_threads": plan.threads, "input_size": plan.size}
        here = Segmenter(cell.path, runtime=cell.runtime, **options)
    else:
        here = Segmenter(model, runtime="onnxruntime", input_size=plan.size)
    if device is None:
        return here, {}
    asked = SessionOptions(cell.path, cell.precision, plan.threads, plan.size)
    there = Segmenter.from_session(device.open_session(cell.runtime, asked), here.record, input_size=plan.size)
    shares = [100 * float((there(image) == here(image)).mean()) for image in images]
    _log.info(f"On {device.name}, {min(shares):.2f} % of the pixels have the label that they have here, or more")
    return here, {"device": device.name, "device_label_agreement": min(shares)}


def _scored(plan: Plan, segmenter: Segmenter, val: Split, facts: dict[str, Any]) -> Evaluation:
    """On val; under corruptions, which are of RGB images, on as many images as the plan has minutes for."""
    protocol = {"data": plan.data, "split": "val", **segmenter.protocol, **facts}
    if not val.channels.is_rgb:
        return evaluate(segmenter, val, label_space=segmenter.label_space, protocol=protocol)
    test = RobustnessTest().within(60 * planning.robustness_minutes(plan.wish.minutes), segmenter, val.image(0))
    _log.info(f"Scoring, under corruptions on {min(test.num_images, len(val))} of {len(val)} images too …")
    return evaluate(segmenter, val, label_space=segmenter.label_space, protocol=protocol, robustness=test)


def _quantised(plan: Plan, net: Model, record: ModelRecord, dataset: Dataset, out: Path) -> Path | None:
    """The model in int8 for the chosen engine, if it holds; None with a line in the log if not."""
    to = plan.runtime if plan.runtime in ("openvino", "litert") else "onnx"
    path = out / f"model-int8.{OWN_FORMATS.get(to, to)}"
    images = Images(select(dataset.split("train"), NUM_CALIBRATED))
    is_planned = plan.precision == "int8"
    for float_layers, max_loss in PLANNED_INT8 if is_planned else ((("first",), MAX_INT8_LOSS),):
        try:
            _log.info(f"Quantising to int8, but for the {' and the '.join(float_layers)} layers …")
            export(
                net,
                path,
                to=to,
                record=record,
                size=plan.size,
                precision="int8",
                quantisation=Quantisation(images, float_layers),
                labelled=select(dataset.split("val"), NUM_CALIBRATED),
                max_miou_loss=max_loss,
                min_label_agreement=PLANNED_AGREEMENT if is_planned else None,
            )
            return path
        except LpsnetError as error:
            _log.info(f"No int8 file: {error}")
    if is_planned:
        _log.warning("The network is within the budget only in int8; --precision f32 plans without it")
    return None


_BY_HAND = ("--min-agreement", f"{PLANNED_AGREEMENT:g}", "--max-miou-loss", f"{PLANNED_INT8[-1][1]:g}")


def how(fitted: Fit) -> str:
    """Every decision of a fit, and the commands that would repeat it by hand, as Markdown."""
    plan = fitted.plan
    start = planning.find_start(fitted.start)
    lines = [f"# How {fitted.model.name} was made", "", f"{fitted.words}; images of {plan.size[0]}x{plan.size[1]}, "]
    lines[-1] += f"timed {plan.wish.scope}."
    lines += ["", "## Decisions", "", *(f"- {reason}" for reason in fitted.decisions)]
    recipe = plan.training_recipe(plan.training_minutes)
    size = f"{plan.size[0]}x{plan.size[1]}"
    train_words = ["lpsnet", "train", "--data", plan.data, "--arch", start.architecture, "--block", start.block]
    train_words += ["--init", start.weights] if start.weights else ["--encoder", start.encoder]
    train_words += ["--teacher", plan.wish.teacher] if plan.wish.teacher else []
    train_words += ["--unlabelled", plan.wish.unlabelled] if plan.wish.unlabelled else []
    train_words += ["--recipe", "auto", "--minutes", f"{recipe.minutes:g}", "--size", size]
    train_words += ["--set", f"seed={plan.wish.seed}"] if plan.wish.seed else []
    is_int8 = fitted.precision == "int8"
    to = plan.runtime if plan.runtime in OWN_FORMATS or (is_int8 and plan.runtime == "openvino") else "onnx"
    there = ["--device", plan.wish.device] if plan.wish.device else []
    file, threads = f"by-hand.{OWN_FORMATS.get(to, to)}", ["--threads", str(plan.threads)] if plan.threads else []
    run = ["--runtime", plan.runtime, "--precision", fitted.precision, *threads]
    export_words = ["lpsnet", "export", "--model", "by-hand/model.safetensors", "--to", to, "--size", size]
    export_words += ["--precision", "int8", "--data", plan.data, *_BY_HAND] if is_int8 else []
    robust = ["--robustness"] if fitted.evaluation.robustness else []
    commands = [
        ["lpsnet", "data", "check", plan.wish.data],
        [*train_words, "--out", "by-hand"],
        [*export_words, "--out", file],
        ["lpsnet", "benchmark", file, *run, "--size", size, *there],
        ["lpsnet", "evaluate", "--model", file, "--data", plan.data, *([] if there else run), *robust],
    ]
    lines += ["", "## By hand", "", "```sh", *(shlex.join(command) for command in commands), "```", ""]
    return "\n".join(lines)

"""The training loop (Section 4.2): `Loop.steps` is one optimiser step after another, from images to weights.

One loop serves every task, and one CPU, one GPU or many machines (Accelerate distributes it). A run that is killed
resumes from its last checkpoint with the same samples, learning rate and momentum as an uninterrupted one.
"""

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from safetensors.torch import load_file
from torch import Tensor, nn

from lpsnet.data.augment import Augmentation
from lpsnet.errors import EndRequest, LpsnetError, NonFiniteScoresError, RunError, postponed_end
from lpsnet.inference.model_file import read_record
from lpsnet.io import locked_folder
from lpsnet.models.training_kernels import kept_memory
from lpsnet.record import Normalisation
from lpsnet.training import data
from lpsnet.training.config import LoopSettings
from lpsnet.training.data import Details, Score, Task, Weights
from lpsnet.training.run import MovingAverage, Status, TrainingState, circumstances, now, version_changes
from lpsnet.training.run_folder import INPUTS, RunFolder, RunLog, Step, Steps, diverged, refuse_images

NUM_PARTS = 8  # of a run by the clock, with an evaluation after each …
EVALUATION_SHARE = 0.06  # … unless evaluations take more than this share of the time


class Length:
    """The length of a run and how much of it is done.

    A run of so many minutes counts the time that its earlier processes took up to their last checkpoints. All processes
    follow the first one's clock.
    """

    def __init__(self, recipe: LoopSettings, num_images: int, state: TrainingState, accelerator: Accelerator) -> None:
        self._state, self._accelerator = state, accelerator
        self._seconds = 60 * recipe.minutes if recipe.minutes else None
        self._steps = None if recipe.minutes else recipe.num_iterations(num_images)
        self._since, self._before = time.monotonic(), state.seconds
        self._evaluated = 0.0 if self._steps is not None else self.done()
        self._shortest = 1 / NUM_PARTS

    @property
    def end(self) -> int:
        """No step has this number, counted from 0, or a larger one."""
        return sys.maxsize if self._steps is None else self._steps

    @property
    def num_iterations(self) -> int | None:
        """Steps of the whole run; None where the clock decides."""
        return self._steps

    @property
    def seconds(self) -> float:
        """That the run has taken, in all its processes one after the other."""
        return self._before + time.monotonic() - self._since

    def done(self) -> float:
        """The share of the run that is done, 0 to 1."""
        if self._steps is not None:
            return self._state.iteration / self._steps
        assert self._seconds is not None
        share = min(1.0, self.seconds / self._seconds)
        if self._accelerator.num_processes == 1:
            return share
        return float(broadcast(torch.tensor([share], device=self._accelerator.device)))

    def evaluation_is_due(self) -> bool:
        """Whether a part of a run by the clock has passed since the last evaluation, and one is left."""
        done = self.done()
        return self._evaluated + self._shortest <= done <= 1 - self._shortest / 2

    def evaluation_took(self, seconds: float) -> None:
        """Take note of an evaluation, so that the next comes when it is worth its time."""
        if self._seconds is not None:
            self._evaluated = self.done()
            self._shortest = max(1 / NUM_PARTS, seconds / self._seconds / EVALUATION_SHARE)

    def expected_iterations(self) -> int:
        """Steps of the whole run, by the pace so far where the clock decides."""
        done, iteration = self.done(), self._state.iteration
        return self._steps or max(iteration, round(iteration / done) if done else 0)


_log = logging.getLogger(__name__)


def normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    """N, H, W, C whole numbers to N, C, H, W float32 as the network takes it; channels-last without a copy."""
    mean, std = (
        _constant(values, normalisation.max_value, images.device).repeat(
            images.shape[2]
        )  # rows, not pixels: 4 times as fast
        for values in (normalisation.mean, normalisation.std)
    )
    rows = images.float().flatten(2).sub_(mean).div_(std)
    return rows.view(images.shape).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)  # sent to a device once
def _constant(values: tuple[float, ...], factor: int, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device) * factor


def global_mean(total: Tensor, weight: Tensor, accelerator: Accelerator) -> Tensor:
    """The loss whose gradient, averaged over the processes, is that of the mean over the pixels of all of them.

    `weight` of all processes together divides the sum, so the result does not depend on how the pixels are spread; 0 if
    there is no labelled pixel at all.
    """
    everyone: Tensor = accelerator.reduce(weight.detach(), "sum")
    mean: Tensor = total * accelerator.num_processes / everyone.clamp(min=torch.finfo(torch.float32).tiny)
    return mean


def set_training_mode(model: nn.Module, *, freeze_batch_norm: bool) -> None:
    """Training mode; batch norms whose weights do not learn, or all if so asked, keep the statistics they have."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            freeze_batch_norm or (module.affine and not module.weight.requires_grad)
        ):
            module.eval()


def make_accelerator() -> Accelerator:
    """Accelerate's view of this process: its device and the other processes, as they were launched."""
    has_mps = torch.backends.mps.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "true"
    return Accelerator(cpu=not torch.cuda.is_available() and not has_mps)


def forward_type(recipe: LoopSettings, device: torch.device) -> torch.dtype:
    """The floating-point type that the forward pass computes in where it may; float32 is without autocast."""
    if recipe.precision == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[recipe.precision]


def _computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; without them it is possible, by emulation."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


_WARM_UP = 3  # runs before the capture, in which libraries choose algorithms and allocate memory


class GraphedStep:
    """Forward and backward pass of an optimiser step as one CUDA graph: images and targets in, the loss out.

    A step of a small network is some thousand short operations, and launching them one by one takes a GPU longer than
    computing them. Shapes and addresses are fixed. Every call overwrites the gradients in the model's `grad`.

    Args:
        compute: from a batch to its loss, a scalar; it must not read results back from the device.
        model: its parameters get the gradients; the warm-up's changes to its buffers are undone.
        images, targets: a batch of the size of all that follow.
    """

    def __init__(
        self, compute: Callable[[Tensor, Tensor], Tensor], model: nn.Module, images: Tensor, targets: Tensor
    ) -> None:
        self._images, self._targets = images.clone(), targets.clone()
        buffers = [buffer.clone() for buffer in model.buffers()]
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                model.zero_grad(set_to_none=True)
                compute(self._images, self._targets).backward()  # type: ignore[no-untyped-call]
        torch.cuda.current_stream().wait_stream(stream)
        model.zero_grad(set_to_none=True)  # so that the capture takes memory of its own for them
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._loss = compute(self._images, self._targets)
            self._loss.backward()  # type: ignore[no-untyped-call]
        for buffer, value in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(value)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a scalar of its own."""
        self._images.copy_(images)
        self._targets.copy_(targets)
        self._graph.replay()
        return self._loss.detach().clone()


CHECKPOINT_SECONDS = 300  # besides the checkpoint after every epoch, for epochs that take long …
EPOCH_CHECKPOINT_SECONDS = 5  # … and where epochs are shorter than this, several share one


def run_task(
    build: Callable[[torch.device], Task[Details]],
    settings: Mapping[str, Any],
    out: Path,
    *,
    defaults: Mapping[str, Any],
    resume: bool,
    on_progress: Callable[[Status], None],
    tensorboard: bool,
    share: float = 1.0,
) -> Score[Details] | None:
    """Run a task in `out`, from its start or last checkpoint, and write its model there.

    Args:
        build: makes the task for a device.
        settings, defaults: see `RunFolder.check`.
        out, resume, on_progress, tensorboard, share: see `segmentation.train`.

    Returns:
        The model's score; None if there is none, and in all processes but the main one.
    """
    accelerator = make_accelerator()
    folder = RunFolder(out)
    check_shares(settings, accelerator.num_processes)
    with contextlib.ExitStack() as stack:
        if accelerator.is_main_process:
            if not folder.run.exists():
                refuse_images(out)
            stack.enter_context(locked_folder(out))
            folder.check(settings, defaults=defaults, resume=resume)
            if not folder.run.exists():
                stack.enter_context(_forgotten_if_refused(folder))
        task = build(accelerator.device)
        log = RunLog(folder, tensorboard=tensorboard) if accelerator.is_main_process else None
        loop = Loop(task, accelerator, folder=folder, log=log, on_progress=on_progress, share=share)
        if accelerator.is_main_process:
            if warning := version_changes(folder.started()):
                _log.warning(warning)
            folder.check_inputs(task.inputs)
        resumes = resume and folder.state.exists()
        if resumes:
            loop.resume()
        if accelerator.is_main_process:
            folder.begin(settings, loop.start_facts())
        if accelerator.is_main_process and not resumes:
            # stopped before the first checkpoint: the log's lines will be written again
            folder.rewind_logs(0, num_iterations=loop.length.end)
            if task.opening:
                _log.info(task.opening)
        return loop.finish()


@contextlib.contextmanager
def _forgotten_if_refused(folder: RunFolder) -> Iterator[None]:
    """A mistake of the user's that only the first step meets leaves no run, which would be in the way of the next."""
    try:
        yield
    except LpsnetError:
        folder.forget()
        raise


def check_shares(settings: Mapping[str, Any], num_processes: int) -> None:
    """Check that every process gets an image of each batch.

    Raises:
        RunError: there are more processes.
    """
    batch_size = settings["recipe"]["batch_size"]
    if batch_size < num_processes:
        raise RunError(
            f"a batch of {batch_size} images cannot be shared by {num_processes} processes; start fewer processes, or "
            f"give each an image with --set batch_size={num_processes}"
        )


class Loop(Generic[Details]):
    """One process's share of a run.

    Args:
        task: what is trained; its model is brought to the accelerator's device.
        accelerator: this process among all.
        folder: of the run.
        log: None in all processes but the main one.
        on_progress, share: see `segmentation.train`.
    """

    def __init__(
        self,
        task: Task[Details],
        accelerator: Accelerator,
        *,
        folder: RunFolder,
        log: RunLog | None = None,
        on_progress: Callable[[Status], None] = lambda status: None,
        share: float = 1.0,
    ) -> None:
        self.share = share
        self.task, self.folder, self.accelerator = task, folder, accelerator
        self.log, self.on_progress = log, on_progress
        self.recipe = task.recipe
        self.type = forward_type(self.recipe, accelerator.device)
        task.model.to(accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.state = self._build_state()
        self.pace = Steps(batch_size=self.recipe.batch_size)
        self.length = Length(self.recipe, len(task.images), self.state, accelerator)
        self.asked = EndRequest()  # to end before the run does
        self._best: Score[Details] | None = None  # of the evaluations of this process
        self._gave_up = False  # for want of a better evaluation

    def _build_state(self) -> TrainingState:
        recipe, model = self.recipe, self.task.model
        learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
        decayed = [p for p in learning if recipe.decay_norm or p.ndim > 1]
        others = [p for p in learning if not (recipe.decay_norm or p.ndim > 1)]
        groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
        options: dict[str, Any] = {"lr": recipe.learning_rate, "fused": self.accelerator.device.type == "cuda"}
        optimiser: torch.optim.Optimizer
        if recipe.optimiser == "adamw":
            optimiser = torch.optim.AdamW(groups, **options)
        else:
            optimiser = torch.optim.SGD(groups, momentum=recipe.momentum, **options)
        average = MovingAverage.of(model, recipe.ema_decay) if recipe.ema_decay else None
        scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=self.type == torch.float16)
        return TrainingState(model, optimiser, average, scaler)

    def resume(self) -> None:
        """Restore the folder's checkpoint."""
        self.state.restore(self.folder.state)
        self.length = Length(self.recipe, len(self.task.images), self.state, self.accelerator)
        if self.state.iteration > self.length.end:
            raise RunError(f"the run in {self.folder.path} is longer already: {self.state.iteration} iterations")
        if self.accelerator.is_main_process:
            self.folder.rewind_logs(self.state.iteration, num_iterations=self.length.end)

    def finish(self) -> Score[Details] | None:
        """Run the iterations that are left, then evaluate and write the model.

        Asked to end by a signal, it writes a checkpoint after the step it is at, and leaves.
        """
        self.pace.restart()
        with contextlib.ExitStack() as stack:
            if self.accelerator.device.type == "cpu":
                stack.enter_context(kept_memory())
            if self.accelerator.num_processes == 1:  # several do not stop at the same step
                self.asked = stack.enter_context(postponed_end(raises=True))
            self._run_steps()
            if self.asked.is_set():
                return None
            self.asked.at_once = True
            score = None if self.log is None else self._finish(self.log)
        self.accelerator.wait_for_everyone()
        return score

    def _run_steps(self) -> None:
        if self._lacks_evaluation():
            self._evaluation_message()
        self._gave_up = self._is_out_of_patience()
        with contextlib.closing(self.steps()) as steps:
            for loss, learning_rate in () if self._gave_up or self._is_paused else steps:
                self.pace.add(self.state.iteration, loss, learning_rate)
                if self._after_step(self.state.iteration):
                    self._gave_up = self._is_out_of_patience()
                if self._gave_up or self.asked.is_set() or self._is_paused:
                    break
        if self.pace.has_unread or self._is_paused:  # the clock ended the run, or it goes on from here later
            self._checkpoint()
        self.accelerator.wait_for_everyone()

    @property
    def _is_paused(self) -> bool:
        """Whether the run has come to where it was asked to stop, before its end."""
        return self.share < 1 and self.length.done() >= self.share

    def _finish(self, log: RunLog) -> Score[Details] | None:
        if self._gave_up:
            _log.info(f"ended after {self.state.iteration} iterations: {self._ending}")
        if self._gave_up or self._is_paused:
            self.folder.rewind_logs(self.state.iteration, num_iterations=self.state.iteration)  # evaluated once more
        score = self._evaluate(log)
        if score is None or not self.recipe.keep_best or self._is_best(score) or not self.folder.model.exists():
            self.task.save(self._weights(), self.folder.model, self._facts(ended=not self._is_paused), score)
        else:  # the best of this process, or of one before
            kept = {name: it.to(self.accelerator.device) for name, it in load_file(self.folder.model).items()}
            facts = {
                **self._facts(ended=not self._is_paused),
                "iterations": read_record(self.folder.model).training["iterations"],
            }
            score = self._best or self.task.evaluate(kept)
            self.task.save(kept, self.folder.model, facts, score)
        log.close()
        return score

    def steps(self) -> Generator[tuple[Tensor, float], None, None]:
        """The optimiser steps that are left, each taken when it is asked for.

        Yields:
            The loss, a scalar averaged over all processes, and the learning rate.
        """
        task, state, accelerator = self.task, self.state, self.accelerator
        graph: GraphedStep | None = None
        model = self._distributed(task.model)
        set_training_mode(model, freeze_batch_norm=self.recipe.freeze_batch_norm)

        def loss_of(images: Tensor, targets: Tensor) -> Tensor:
            with self._autocast():
                outputs = model(normalise(images, task.normalisation))  # forward
            first, *others = (global_mean(*term, accelerator) for term in task.loss(outputs, targets, images))
            return sum(others, first)  # loss

        for images, targets in self._batches():  # data: N, H, W, C, and label maps or class ids
            if (done := self.length.done()) >= 1:
                break
            learning_rate = self.recipe.learning_rate_after(done, state.iteration)  # schedule
            for group in state.optimiser.param_groups:
                group["lr"] = learning_rate
            images, targets = images.to(accelerator.device), targets.to(accelerator.device)
            torch.manual_seed(self.recipe.seed + state.iteration)  # dropout, so that a resumed run is the same
            if self.is_graphed:
                graph = graph or GraphedStep(loss_of, model, images, targets)
                loss = graph(images, targets)  # forward, loss and backward at once
            else:
                loss = loss_of(images, targets)
                state.optimiser.zero_grad(set_to_none=True)
                state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            state.scaler.step(state.optimiser)  # step
            state.scaler.update()
            if state.average is not None:
                state.average.update(task.model, state.iteration)
            state.iteration += 1
            yield accelerator.reduce(loss.detach(), "mean"), learning_rate

    @property
    def is_graphed(self) -> bool:
        """Whether a step's forward and backward pass run as one CUDA graph."""
        alone = self.accelerator.device.type == "cuda" and self.accelerator.num_processes == 1
        return alone and self.recipe.cuda_graph and self.type != torch.float16 and not self.task.waits_for_device

    def _autocast(self) -> torch.autocast:
        device, is_used = self.accelerator.device.type, self.type != torch.float32
        return torch.autocast(device, self.type, enabled=is_used, cache_enabled=not self.is_graphed)

    def _is_out_of_patience(self) -> bool:
        """Whether none of the last `patience` evaluations was better than one before; the same in all processes."""
        if not self.recipe.patience:
            return False
        lines = [] if self.log is None else self.folder.read_evaluations()
        found = [line.get(self.task.measure) for line in lines if line["iteration"] <= self.state.iteration]
        values = [value for value in found if isinstance(value, float)]
        before, last = values[: -self.recipe.patience], values[-self.recipe.patience :]
        gave_up = bool(before) and max(last) <= max(before)
        if self.accelerator.num_processes == 1:
            return gave_up
        return bool(broadcast(torch.tensor([float(gave_up)], device=self.accelerator.device)))

    @property
    def _ending(self) -> str:
        """Why the run ended."""
        if not self._gave_up:
            return "at its full length"
        return f"patience: {self.recipe.patience} evaluations without a better {self.task.measure}"

    def _after_step(self, done: int) -> bool:
        """Report progress; at a checkpoint, write it first. Whether an evaluation was due."""
        evaluation = done < self.length.end and self._evaluation_is_due(done)
        due = EPOCH_CHECKPOINT_SECONDS if self._is_epoch_end(done) else CHECKPOINT_SECONDS
        if done == self.length.end or evaluation or self.asked.is_set() or self.pace.seconds > due:
            self._checkpoint(evaluation=evaluation and not self.asked.is_set())
        elif self.log is not None:
            steps = self.pace.read(everything=False)
            self.log.add(steps, flush=False)
            self._report(steps)
        return evaluation

    def _checkpoint(self, *, evaluation: bool = False) -> None:
        """Write all there is, before an evaluation, which may take long; then evaluate."""
        steps = self.pace.read(everything=True)
        if self.log is not None:
            self.log.add(steps, flush=True)
            self.state.seconds = self.length.seconds
            self.state.save(self.folder.state)
        message = self._evaluation_message() if evaluation else ""
        if self.log is not None:
            self._report(steps, message=message)
        self.pace.restart()

    def _report(self, steps: Sequence[Step], *, message: str = "") -> None:
        total = self.length.expected_iterations()
        for step in steps:
            self.on_progress(Status(step[0], total, *step[1:], message if step is steps[-1] else ""))

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches made on a GPU, where the recipe and the images allow it, or else by threads."""
        recipe, process, task = self.recipe, self.accelerator, self.task
        images, augmentation, max_bytes = task.images, task.augmentation, recipe.cache_mib * 2**20
        share: dict[str, Any] = {"process_index": process.process_index, "num_processes": process.num_processes}
        share["class_mix"] = task.class_mix
        if (others := task.unlabelled) is not None:
            share["order"] = data.JoinedOrder(len(images), others, batch_size=recipe.batch_size, seed=recipe.seed)
            images = data.JoinedImages(images, others.images)
        batches: data.Batches | data.DeviceBatches = data.Batches(
            images, augmentation, recipe.batch_size, recipe.seed, recipe.num_workers, max_bytes, **share
        )
        on_gpu = recipe.augment_on != "workers" and process.device.type == "cuda"
        if on_gpu and isinstance(augmentation, Augmentation) and augmentation.is_affine:
            loaded = data.load_images(images, process.device, max_bytes=max_bytes, num_workers=recipe.num_workers)
            if loaded is not None:
                batches = data.DeviceBatches(loaded, augmentation, recipe.batch_size, recipe.seed, **share)
        return batches.starting_at(self.state.iteration, self.length.end)

    def _distributed(self, model: nn.Module) -> nn.Module:
        if self.accelerator.num_processes == 1:
            return model
        if self.accelerator.device.type == "cuda" and not self.recipe.freeze_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        wrapped: nn.Module = self.accelerator.prepare_model(model)
        return wrapped

    def _epoch(self, iteration: int) -> int:
        return iteration * self.recipe.batch_size // len(self.task.images)

    def _is_epoch_end(self, iteration: int) -> bool:
        return self._epoch(iteration) > self._epoch(iteration - 1)

    def _evaluation_is_due(self, iteration: int) -> bool:
        every = self.recipe.evaluate_every
        if self.length.num_iterations is None:
            return bool(every) and self.length.evaluation_is_due()
        return bool(every) and self._is_epoch_end(iteration) and self._epoch(iteration) % every == 0

    def _lacks_evaluation(self) -> bool:
        """Whether the run was stopped in the evaluation after its last checkpoint."""
        iteration = self.state.iteration
        by_clock = self.length.num_iterations is None
        if (
            self.log is None
            or by_clock
            or not 0 < iteration < self.length.end
            or not self._evaluation_is_due(iteration)
        ):
            return False
        return iteration not in (line["iteration"] for line in self.folder.read_evaluations())

    def _evaluation_message(self) -> str:
        self.asked.at_once, began = True, time.monotonic()  # what is done is safe
        score = None if self.log is None else self._evaluate(self.log)
        if score is not None and self._is_best(score):
            self._best = score
            self.task.save(self._weights(), self.folder.model, self._facts(ended=False), score)
        self.asked.at_once = False
        self.length.evaluation_took(time.monotonic() - began)
        self.accelerator.wait_for_everyone()
        return "" if score is None else f"epoch {self._epoch(self.state.iteration)}: {score.headline}"

    def _evaluate(self, log: RunLog) -> Score[Details] | None:
        weights = self._weights()
        place = self.state.iteration, self.recipe.learning_rate
        if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):  # the last update may have done it
            raise diverged(*place, what="weights are no longer finite, though every loss was,")
        try:
            score = self.task.evaluate(weights)
        except NonFiniteScoresError:
            what = "the network's logits on the validation images are not finite, though every loss was,"
            raise diverged(*place, what=what) from None
        if score is not None:
            log.add_score(score, self.state.iteration)
        return score

    def _is_best(self, score: Score[Details]) -> bool:
        """Whether no evaluation of this run was better, those before it was resumed included."""
        name, value = next(iter(score.curves.items()))
        others = [line.get(name) for line in self.folder.read_evaluations() if line["iteration"] < self.state.iteration]
        return all(value > other for other in others if isinstance(other, float))

    def _weights(self) -> Weights:
        return self.state.average.values if self.state.average is not None else self.task.model.state_dict()

    def start_facts(self) -> dict[str, Any]:
        """Of the run, known before its first iteration, as JSON values."""
        inputs = {INPUTS: dict(self.task.inputs)}
        return {"num_iterations": self.length.num_iterations, "began": now(), **inputs, **self._common_facts()}

    def _facts(self, *, ended: bool = True) -> dict[str, Any]:
        """Of the run, for the record of the weights that it has now; it says "finished" only where the run is."""
        iteration, patient = self.state.iteration, ended and self.recipe.patience
        ending = {"ended": self._ending, "iterations_run": iteration} if patient else {}
        return {"iterations": iteration, "finished" if ended else "saved": now(), **ending, **self._common_facts()}

    def _common_facts(self) -> dict[str, Any]:
        return {
            "num_pictures": len(self.task.images),
            "num_processes": self.accelerator.num_processes,
            "precision": str(self.type).removeprefix("torch."),
            **circumstances(),
        }

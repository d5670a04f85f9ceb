"""Training a network on a data set (Section 4.2): stochastic gradient descent with the 'poly' learning rate.

One loop for one CPU, one GPU or many machines (Accelerate distributes it). A run that is killed goes on from its last
checkpoint as if nothing had happened: same samples, same learning rate, same momentum.
"""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

import lpsnet
from lpsnet.data.datasets import Split, open_dataset
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.deployment.machine import describe_machine
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.files import locked_folder
from lpsnet.model.checkpoint import initialise_from, save_checkpoint
from lpsnet.model.network import Network, create_model
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.training.batches import Batches
from lpsnet.training.losses import Criterion, log_class_weights
from lpsnet.training.network_segmenter import network_segmenter
from lpsnet.training.recipe import Recipe
from lpsnet.training.run import Status, TrainingResult, TrainingRun
from lpsnet.training.run_folder import LOG_COLUMNS, RunFolder
from lpsnet.training.state import MovingAverage, TrainingState
from lpsnet.training.step import global_mean, normalise, set_training_mode

CHECKPOINT_SECONDS = 300  # besides the checkpoint after every epoch, for epochs that take long
LOG_FLUSH_ITERATIONS = 20


def train(
    run: TrainingRun,
    out: Path,
    *,
    resume: bool = False,
    on_status: Callable[[Status], None] = lambda status: None,
) -> TrainingResult:
    """Train a network and leave it in `out`.

    Args:
        run: what is trained on what.
        out: the run's folder; see `RunFolder` for its files.
        resume: go on with the run in `out`; in a folder without one, just start.
        on_status: called after every iteration, in the main process.

    Raises:
        LpsnetError: the data, the recipe or the folder cannot be used; see the message.
    """
    if run.recipe.init_required and run.init is None:
        raise RunError(
            f"recipe {run.recipe.name!r} starts from pre-trained weights: give them with --init, "
            "or train from scratch with --set init_required=false"
        )
    folder = RunFolder(out)
    accelerator = Accelerator(cpu=not torch.cuda.is_available() and not _has_mps())
    if not accelerator.is_main_process:
        return _Training(run, folder, accelerator, on_status, resume=resume).finish()
    with locked_folder(out):
        folder.begin(run.settings(), resume=resume)
        return _Training(run, folder, accelerator, on_status, resume=resume).finish()


class _Training:
    """One process's share of a run."""

    def __init__(
        self,
        run: TrainingRun,
        folder: RunFolder,
        accelerator: Accelerator,
        on_status: Callable[[Status], None],
        *,
        resume: bool,
    ) -> None:
        self.run, self.folder, self.accelerator, self.on_status = run, folder, accelerator, on_status
        self.recipe = run.recipe
        self.dataset = open_dataset(run.data)
        self.split = self.dataset.split(run.split)
        self.num_iterations = self.recipe.num_iterations(len(self.split))
        self.normalisation = Normalisation()
        self.input_size = run.input_size or _picture_size(self.split)
        self.network = self._build_network()
        self.state = self._build_state()
        if resume and folder.state.exists():
            self.state.restore(folder.state)
            if accelerator.is_main_process:
                folder.rewind_logs(self.state.iteration)
        self.criterion = self._build_criterion()
        self.autocast = torch.autocast(
            accelerator.device.type, _autocast_dtype(self.recipe, accelerator.device), enabled=self._uses_autocast
        )
        self.writer = SummaryWriter(folder.path / "tensorboard") if accelerator.is_main_process else None

    @property
    def _uses_autocast(self) -> bool:
        return _autocast_dtype(self.recipe, self.accelerator.device) != torch.float32

    def _build_network(self) -> Network:
        run, recipe = self.run, self.recipe
        torch.manual_seed(recipe.seed)
        network = create_model(
            run.architecture,
            num_classes=self.dataset.label_space.num_classes,
            block=run.block,
            interaction=run.interaction,
            form=recipe.form,
        )
        self.initialisation = initialise_from(network, run.init) if run.init else None
        if self.initialisation is not None and not self.initialisation.taken:
            raise RunError(f"{run.init} has no tensor that fits this network, {run.architecture}")
        network.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network

    def _build_state(self) -> TrainingState:
        recipe = self.recipe
        decayed = [p for p in self.network.parameters() if recipe.decay_norm or p.ndim > 1]
        others = [p for p in self.network.parameters() if not (recipe.decay_norm or p.ndim > 1)]
        optimiser = torch.optim.SGD(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
        )
        average = MovingAverage.of(self.network, recipe.ema_decay) if recipe.ema_decay else None
        device = self.accelerator.device
        scaler = torch.amp.GradScaler(device.type, enabled=_autocast_dtype(recipe, device) == torch.float16)
        return TrainingState(self.network, optimiser, average, scaler)

    def _build_criterion(self) -> Criterion:
        recipe = self.recipe
        weights = None
        if recipe.class_weights == "log":
            counts = count_pixels(self.split, self.dataset.label_space.num_classes)
            weights = torch.from_numpy(log_class_weights(counts)).to(self.accelerator.device)
        return Criterion(
            kind=recipe.loss,
            class_weights=weights,
            stride=recipe.loss_stride,
            align_corners=self.network.align_corners,
            label_smoothing=recipe.label_smoothing,
            ohem_threshold=recipe.ohem_threshold,
            ohem_min_kept=recipe.ohem_min_kept,
        )

    def finish(self) -> TrainingResult:
        """Run the iterations that are left, then evaluate and write the model."""
        self._iterate()
        self.accelerator.wait_for_everyone()
        network = self._delivered_network()
        evaluation = self._evaluate(network) if self.accelerator.is_main_process else None
        if self.accelerator.is_main_process:
            save_checkpoint(network, self.folder.model, record=self._record(evaluation))
        if self.writer is not None:
            self.writer.close()
        self.accelerator.wait_for_everyone()
        return TrainingResult(self.folder.model, evaluation)

    def _iterate(self) -> None:
        model = self._distributed(self.network)
        meter = _Meter(self.recipe.batch_size)
        rows: list[tuple[int, Tensor, float, float]] = []
        for iteration, (images, labels) in enumerate(self._batches(), start=self.state.iteration):
            learning_rate = self.recipe.learning_rate_at(iteration, self.num_iterations)
            loss = self._step(model, images, labels, learning_rate)
            self.state.iteration = done = iteration + 1
            rows.append((done, loss, learning_rate, meter.tick()))
            message = self._evaluation_message(done)
            checkpoint = self._is_epoch_end(done) or meter.seconds > CHECKPOINT_SECONDS or done == self.num_iterations
            if self.accelerator.is_main_process:
                if checkpoint or len(rows) >= LOG_FLUSH_ITERATIONS:
                    self._write_log(rows)
                    rows = []
                if checkpoint:
                    self.state.save(self.folder.state)
                status = Status(done, self.num_iterations, loss.item(), learning_rate, meter.rate, message)
                self.on_status(status)
            if checkpoint:
                meter = _Meter(self.recipe.batch_size)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        recipe, accelerator = self.recipe, self.accelerator
        batches = Batches(
            self.split,
            recipe.augmentation,
            recipe.batch_size,
            recipe.seed,
            recipe.num_workers,
            recipe.cache_mib * 2**20,
            accelerator.process_index,
            accelerator.num_processes,
        )
        return batches.starting_at(self.state.iteration, self.num_iterations)

    def _distributed(self, network: Network) -> nn.Module:
        if self.accelerator.num_processes == 1:
            return network
        if self.accelerator.device.type == "cuda" and not self.recipe.freeze_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        wrapped: nn.Module = self.accelerator.prepare_model(network)
        return wrapped

    def _step(self, model: nn.Module, images: Tensor, labels: Tensor, learning_rate: float) -> Tensor:
        """One optimiser step; the loss, averaged over the labelled pixels of all processes."""
        optimiser, scaler, device = self.state.optimiser, self.state.scaler, self.accelerator.device
        for group in optimiser.param_groups:
            group["lr"] = learning_rate
        set_training_mode(model, freeze_batch_norm=self.recipe.freeze_batch_norm)
        with self.autocast:
            logits = model(normalise(images.to(device), self.normalisation))
        total, weight = self.criterion(logits, labels.to(device))
        loss = global_mean(total, weight, self.accelerator)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimiser)
        scaler.update()
        if self.state.average is not None:
            self.state.average.update(self.network, self.state.iteration)
        mean: Tensor = self.accelerator.reduce(loss.detach(), "mean")
        if not torch.isfinite(mean) and not scaler.is_enabled():
            raise RunError(
                f"the loss is no longer finite at iteration {self.state.iteration + 1}; "
                f"try a lower learning rate than {self.recipe.learning_rate} (--set learning_rate=…)"
            )
        return mean

    def _epoch(self, iteration: int) -> int:
        return iteration * self.recipe.batch_size // len(self.split)

    def _is_epoch_end(self, iteration: int) -> bool:
        return self._epoch(iteration) > self._epoch(iteration - 1)

    def _evaluation_message(self, iteration: int) -> str:
        """Evaluate where the recipe asks for it, and say how it went."""
        every = self.recipe.evaluate_every
        last = iteration == self.num_iterations
        if not every or last or not self._is_epoch_end(iteration) or self._epoch(iteration) % every:
            return ""
        evaluation = self._evaluate(self._delivered_network()) if self.accelerator.is_main_process else None
        self.accelerator.wait_for_everyone()
        return "" if evaluation is None else f"epoch {self._epoch(iteration)}: {evaluation.scores.miou:.2f} mIoU on val"

    def _delivered_network(self) -> Network:
        """A copy of the network with the averaged weights, if there are any, in eval mode."""
        network = create_model(
            self.run.architecture,
            num_classes=self.network.num_classes,
            block=self.run.block,
            interaction=self.run.interaction,
            form=self.recipe.form,
        )
        values = self.state.average.values if self.state.average is not None else self.network.state_dict()
        network.load_state_dict(values)
        return network.to(self.accelerator.device).eval()

    def _evaluate(self, network: Network) -> Evaluation | None:
        """The scores on the validation split, written to the logs; None if it is trained on, or there is none."""
        if "val" not in self.dataset.splits or "val" in self.run.split.split("+"):
            return None
        segmenter = network_segmenter(network, self._record(None), device=self.accelerator.device)
        protocol = {"data": self.run.data, **segmenter.protocol}
        evaluation = evaluate(segmenter, self.dataset.split("val"), protocol=protocol)
        self.folder.append_evaluation({"iteration": self.state.iteration, **evaluation.summary()})
        if self.writer is not None:
            self.writer.add_scalar("val/miou", evaluation.scores.miou, self.state.iteration)
        return evaluation

    def _write_log(self, rows: list[tuple[int, Tensor, float, float]]) -> None:
        assert self.writer is not None
        self.folder.append_log(
            dict(zip(LOG_COLUMNS, (i, f"{loss.item():.8g}", f"{lr:.8g}", f"{rate:.2f}"), strict=True))
            for i, loss, lr, rate in rows
        )
        for iteration, loss, learning_rate, rate in rows:
            self.writer.add_scalar("train/loss", loss.item(), iteration)
            self.writer.add_scalar("train/learning_rate", learning_rate, iteration)
            self.writer.add_scalar("train/pictures_per_second", rate, iteration)

    def _record(self, evaluation: Evaluation | None) -> ModelRecord:
        return ModelRecord(
            architecture=self.run.architecture,
            block=self.run.block,
            interaction=self.run.interaction,
            form=self.recipe.form,
            label_space=self.dataset.label_space,
            normalisation=self.normalisation,
            input_size=self.input_size,
            align_corners=self.network.align_corners,
            training=self._training_record(),
            scores={} if evaluation is None else {"val": evaluation.summary()},
            lpsnet_version=lpsnet.__version__,
        )

    def _training_record(self) -> dict[str, Any]:
        settings = self.run.settings()
        if self.initialisation is not None:
            settings["init_tensors_taken"] = len(self.initialisation.taken)
            settings["init_tensors_skipped"] = dict(self.initialisation.skipped)
        return {
            **settings,
            "num_pictures": len(self.split),
            "iterations": self.state.iteration,
            "num_processes": self.accelerator.num_processes,
            "precision": str(_autocast_dtype(self.recipe, self.accelerator.device)).removeprefix("torch."),
            "machine": describe_machine().identity,
            "versions": versions(),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


class _Meter:
    """Pictures a second since it was made."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size, self._count, self._start = batch_size, 0, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        return self._count * self._batch_size / max(self.seconds, 1e-9)

    def tick(self) -> float:
        self._count += 1
        return self.rate


def count_pixels(split: Split, num_classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Labelled pixels of each class in a split, K int64."""
    counts = np.zeros(256, np.int64)
    for index in range(len(split)):
        counts += np.bincount(split.labels(index).ravel(), minlength=256)
    assert counts[num_classes:IGNORE_INDEX].sum() == 0, "label maps hold class ids or IGNORE_INDEX alone"
    return counts[:num_classes]


def versions() -> Mapping[str, str]:
    """Of what takes part in a training."""
    return {
        "lpsnet": lpsnet.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def _autocast_dtype(recipe: Recipe, device: torch.device) -> torch.dtype:
    if recipe.precision == "auto":
        return torch.bfloat16 if _computes_bf16(device) else torch.float32
    return {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[recipe.precision]


def _computes_bf16(device: torch.device) -> bool:
    """Whether bf16 is faster than f32 here, not merely possible: it needs instructions of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())  # type: ignore[no-untyped-call]


def _has_mps() -> bool:
    return bool(torch.backends.mps.is_available()) and os.environ.get("ACCELERATE_USE_CPU") != "true"


def _picture_size(split: Split) -> tuple[int, int]:
    height, width = split.image(0).shape[:2]
    return height, width

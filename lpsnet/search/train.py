"""Perf(·) of Section 3.4: candidates trained and scored, with their parent's weights or random ones, and where.

A candidate has its own folder, so that an interrupted one is resumed: `start.safetensors` holds its start weights and
their score, the rest is a training's (`training.run_folder`).

An executor trains several candidates at a time, one after another in this process, in processes here, or through Ray,
and yields each result as soon as it is known. A candidate whose worker dies is resumed by another worker from its
folder. Machines of a cluster therefore share the search's folder and the data at the same paths.
"""

import contextlib
import math
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from pydantic import JsonValue
from torch import Tensor

from lpsnet.benchmark.machine import describe_machine
from lpsnet.data.dataset import Dataset, open_dataset
from lpsnet.errors import DivergedError, LpsnetError, MissingDependencyError, RunError, unknown_name
from lpsnet.evaluation.evaluate import Evaluation, evaluate
from lpsnet.inference.model_file import read_record
from lpsnet.models.any_network import Model
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.plugins import PLUGINS
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.search.inheritance import inherit
from lpsnet.search.journal import TrainingResult
from lpsnet.search.measurements import Failure, Outcome, Score
from lpsnet.search.operations import Design
from lpsnet.training.data import Batches
from lpsnet.training.loop import forward_type, make_accelerator, normalise
from lpsnet.training.run import Status, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import network_segmenter, train

START = "start.safetensors"
MAX_IMAGES = 8  # for the statistics of new features; about a batch of a recipe


@dataclass(frozen=True, slots=True)
class CandidateTask:
    """A candidate to train.

    Attributes:
        design: to train.
        run: the training; its architecture and block are the design's.
        val: the split it is scored on.
        folder: the candidate's own.
        parent: checkpoint of the trained parent to inherit weights from; None for none.
        num_threads: of the processor; None for the default of PyTorch.
    """

    design: Design
    run: TrainingRun
    val: str
    folder: Path
    parent: Path | None = None
    num_threads: int | None = None

    def __str__(self) -> str:
        return str(self.design)


def train_candidate(
    task: CandidateTask, *, on_progress: Callable[[Status], None] = lambda status: None
) -> TrainingResult:
    """Train and score a candidate, or resume it.

    Returns:
        Its score; a `Failure` if the training diverged or the network does not fit into memory. Details for the
        journal: `model` (the checkpoint, relative to the run's folder), `seconds` of this call, `seed`, `machine` and
        `precision` of the training, and the report of the inheritance (`inherited`).

    Raises:
        LpsnetError: anything else that keeps it from being trained, such as missing data or a full disk.
    """
    begun = time.monotonic()
    with _threads(task.num_threads):
        outcome, inherited = _outcome(task, on_progress)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the engine that measures the next candidates
    details: dict[str, JsonValue] = {
        "model": "/".join(RunFolder(task.folder).model.parts[-3:]),
        "seconds": round(time.monotonic() - begun, 1),
        "seed": task.run.recipe.seed,
        "inherited": inherited,
        "machine": describe_machine().identity,
        "precision": str(forward_type(task.run.recipe, make_accelerator().device)).removeprefix("torch."),
    }
    return TrainingResult(task.design, outcome, details)


@contextlib.contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Set PyTorch's threads inside the block: latencies may be measured in this process afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _outcome(task: CandidateTask, on_progress: Callable[[Status], None]) -> tuple[Outcome, JsonValue]:
    run, at_start, inherited = task.run, None, None
    try:
        if task.parent is not None:
            start = _start(task, task.parent)
            at_start, inherited = start.scores.get(task.val, {}).get("miou"), start.training
            run = replace(run, init=task.folder / START) if inherited["taken_over"] else run
        trained = train(run, task.folder, resume=True, on_progress=on_progress, tensorboard=False)
        miou = _final(task, trained.model, trained.evaluation).miou
        if math.isnan(miou):
            raise RunError(
                f"the split {task.val!r} of {run.data!r} has no labelled pixel to score on; "
                "'lpsnet data check' says why, or give another with --val"
            )
        return Score(miou, at_start=at_start), inherited
    except torch.OutOfMemoryError as error:
        return Failure(f"out of memory: {str(error).splitlines()[0]}"), inherited
    except DivergedError as error:
        return Failure(str(error)), inherited


def _final(task: CandidateTask, model: Path, evaluation: Evaluation | None) -> Evaluation:
    """The trainer scores on the split "val"; another split is scored here."""
    if evaluation is not None and task.val == "val":
        return evaluation
    return _evaluate(load_checkpoint(model), read_record(model), task)


def _start(task: CandidateTask, parent: Path) -> ModelRecord:
    """The record of the candidate's start weights, which are written first if there are none."""
    path = task.folder / START
    if not path.exists():
        _write_start(task, parent, path)
    return read_record(path)


def _write_start(task: CandidateTask, parent: Path, path: Path) -> None:
    """The parent's weights in the candidate's network, with their score in the record: one file, all or nothing."""
    if not parent.is_file():
        raise RunError(f"{parent}, whose weights candidates start from, is gone; put it back, or use another folder")
    dataset = open_dataset(task.run.data)
    source = load_checkpoint(parent)
    assert isinstance(source, Network), "a search grows networks of this package"
    net = _fresh(task, dataset)
    images = _images(task.run, dataset)
    torch.manual_seed(task.run.recipe.seed)
    try:
        report = inherit(net, source, images=images, seed=task.run.recipe.seed)
    except LpsnetError as error:  # nothing can be inherited by a network of another block
        nothing = {"taken_over": False, "why": str(error)}
        save_checkpoint(net, path, record=_record(task, net, dataset).model_copy(update={"training": nothing}))
        return
    training: dict[str, Any] = {"taken_over": True, **report.to_dict()}
    inherited = {"training": training, "licence": read_record(parent).licence}
    record = _record(task, net, dataset).model_copy(update=inherited)
    scores = {task.val: {"miou": _evaluate(net, record, task).miou}}
    save_checkpoint(net, path, record=record.model_copy(update={"scores": scores}))


def _fresh(task: CandidateTask, dataset: Dataset) -> Network:
    torch.manual_seed(task.run.recipe.seed)
    assert task.run.architecture is not None, "a search grows networks of this package"
    return create_model(
        task.run.architecture,
        num_classes=dataset.label_space.num_classes,
        block=task.run.block,
        interaction=task.run.interaction,
        form=task.run.recipe.form,
    )


def _record(task: CandidateTask, net: Network, dataset: Dataset) -> ModelRecord:
    record = default_record(net, label_space=dataset.label_space)
    return record.model_copy(update={"input_size": task.run.input_size})


def _images(run: TrainingRun, dataset: Dataset) -> Tensor:
    """The first images of the training, N x 3 x H x W, normalised."""
    recipe = run.recipe
    count = min(MAX_IMAGES, recipe.batch_size)
    split = dataset.split(run.split)
    batches = Batches(split, recipe.augmentation, count, recipe.seed, num_workers=1, cache_bytes=0)
    images, _ = next(iter(batches.starting_at(0, 1)))
    return normalise(images, Normalisation()).contiguous()


def _evaluate(net: Model, record: ModelRecord, task: CandidateTask) -> Evaluation:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    segmenter = network_segmenter(net, record, device=device)
    return evaluate(segmenter, open_dataset(task.run.data).split(task.val))


Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[str], None]

MAX_ATTEMPTS = 3  # workers per candidate, with any executor
DEFAULT_CORES = 2  # of a worker without a GPU


class RayExecutor:
    """An `Executor` on Ray.

    It is connected only during trainings, so that nothing of it runs while latencies are measured.

    Args:
        address: of a running cluster, such as "auto", "10.0.0.1:6379" or "ray://10.0.0.1:10001"; None starts one on
            this machine.
        num_workers: the most candidates at a time; None for as many as the cluster has resources for.
        num_threads: processor cores per worker; default `DEFAULT_CORES`. A worker also takes a GPU if the cluster has
            any.

    Raises:
        MissingDependencyError: ray is not installed.
    """

    def __init__(self, address: str | None, *, num_workers: int | None = None, num_threads: int | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise MissingDependencyError.for_extra("ray", "ray") from None
        self._ray = ray
        self._address, self._num_workers = address, num_workers
        self._num_threads = num_threads or DEFAULT_CORES

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Progress) -> Iterator[Result]:
        """See `Executor.run`."""
        ray = self._ray
        self._connect()
        try:
            remote = ray.remote(**self._resources())(work)
            waiting = list(enumerate(tasks, start=1))
            running: dict[Any, object] = {}
            while waiting or running:
                while waiting and len(running) < (self._num_workers or len(tasks)):
                    number, task = waiting.pop(0)
                    on_progress(f"training {number} of {len(tasks)}: {task}")
                    running[remote.remote(task)] = task
                done, _ = ray.wait(list(running), num_returns=1)
                for reference in done:
                    yield self._result(reference, running.pop(reference))
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        # workers on other machines need the plugins, which have the same paths there
        plugins = {"env_vars": {PLUGINS: os.environ[PLUGINS]}} if os.environ.get(PLUGINS) else {}
        try:
            self._ray.init(address=self._address, log_to_driver=False, ignore_reinit_error=True, runtime_env=plugins)
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"Ray at {self._address or 'this machine'} cannot be reached: {reason}") from None

    def _resources(self) -> dict[str, Any]:
        """The resources of a worker, and how often Ray retries the task of a dead one."""
        there = self._ray.cluster_resources()
        cores = min(self._num_threads, int(there.get("CPU", 1)))
        return {"num_cpus": cores, "num_gpus": 1 if there.get("GPU", 0) >= 1 else 0, "max_retries": MAX_ATTEMPTS - 1}

    def _result(self, reference: Any, task: object) -> Any:
        ray = self._ray
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, LpsnetError):
                raise type(cause)(str(cause)) from None
            raise
        except ray.exceptions.RayError as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"the cluster lost {task} {MAX_ATTEMPTS} times: {reason}; start the command again") from None


class Executor(Protocol):
    """Runs independent tasks."""

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Progress) -> Iterator[Result]:
        """The result of `work` for every task, each as soon as it is known, in any order.

        Args:
            work: a function at the top level of a module, so that another process can import it.
            tasks: picklable; `str(task)` names one in messages.
            on_progress: called with a line of text for each task begun and each worker lost.

        Raises:
            LpsnetError: as `work` does, or a task's workers died `MAX_ATTEMPTS` times.
        """
        ...


class InProcess:
    """One after another, in this process: an `Executor`."""

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Progress) -> Iterator[Result]:
        """See `Executor.run`."""
        for number, task in enumerate(tasks, start=1):
            on_progress(f"training {number} of {len(tasks)}: {task}")
            yield work(task)


class FakeExecutor:
    """For tests: an `Executor` that yields the results in reverse order and records the tasks."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Progress) -> Iterator[Result]:
        """See `Executor.run`."""
        self.batches.append(list(tasks))
        for task in reversed(tasks):
            yield work(task)


class LocalPool:
    """Processes on this machine, a fresh one for every task: an `Executor`.

    Args:
        num_workers: processes at a time.
        gpus: values of CUDA_VISIBLE_DEVICES, shared out among the processes; without any it is not changed.
    """

    def __init__(self, num_workers: int, *, gpus: Sequence[str] = ()) -> None:
        if num_workers < 1:
            raise RunError(f"a pool has at least one worker; got {num_workers}")
        self._num_workers, self._gpus = num_workers, tuple(gpus)

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Progress) -> Iterator[Result]:
        """See `Executor.run`."""
        waiting = deque((number, task, 0) for number, task in enumerate(tasks, start=1))
        running: list[_Worker[Task]] = []
        free = list(range(self._num_workers))
        try:
            while waiting or running:
                while waiting and free:
                    number, task, num_deaths = waiting.popleft()
                    on_progress(f"training {number} of {len(tasks)}: {task}")
                    slot = free.pop(0)
                    gpu = self._gpus[slot % len(self._gpus)] if self._gpus else None
                    running.append(_Worker(work, task, number, num_deaths, slot, gpu))
                ready = wait([worker.receiver for worker in running])  # with an answer, or dead
                for worker in [it for it in running if it.receiver in ready]:
                    running.remove(worker)
                    free.append(worker.slot)
                    kind, value = worker.answer()
                    if kind == "raised":
                        raise value
                    if kind == "done":
                        yield value
                    else:
                        on_progress(f"  {worker.death}; its candidate is given to another: {worker.task}")
                        waiting.appendleft(worker.again())
        finally:
            for worker in running:  # candidates resume from their last checkpoints the next time
                worker.process.kill()
                worker.process.join()


class _Worker(Generic[Task]):
    """A process with a task."""

    def __init__(
        self, work: Callable[[Task], Any], task: Task, number: int, num_deaths: int, slot: int, gpu: str | None
    ) -> None:
        self.task, self.number, self.num_deaths, self.slot = task, number, num_deaths, slot
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA, nor OpenMP's threads
        self.receiver, sender = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(work, task, sender, gpu))
        self.process.start()
        sender.close()  # so that the end of the process is the end of the pipe

    def answer(self) -> tuple[str, Any]:
        """("done", result), ("raised", exception) or ("died", None)."""
        try:
            found: tuple[str, Any] = self.receiver.recv()
        except (EOFError, OSError):
            found = ("died", None)
        self.process.join()
        return found

    @property
    def death(self) -> str:
        """How the process ended, in words."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"a worker ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"a worker was killed by {signal.Signals(-code).name}"
        return f"a worker was killed by signal {-code}"

    def again(self) -> tuple[int, Task, int]:
        """The task for another worker."""
        if self.num_deaths + 1 >= MAX_ATTEMPTS:
            raise RunError(
                f"{MAX_ATTEMPTS} workers died over {self.task}, the last because {self.death}; it may need more memory "
                "than there is: use fewer workers, or a smaller batch or crop, and start the command again"
            )
        return self.number, self.task, self.num_deaths + 1


def _work(work: Callable[[Task], Result], task: Task, sender: Connection, gpu: str | None) -> None:
    """The main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    message: tuple[str, object]
    try:
        message = ("done", work(task))
    except LpsnetError as error:
        message = ("raised", type(error)(str(error)))
    except Exception:
        message = ("raised", RuntimeError(traceback.format_exc()))  # not every exception can be sent
    sender.send(message)


def _end_with_parent() -> None:
    """Exit with the parent: a worker that outlives it would keep the candidate's folder locked."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_executor(text: str, *, num_workers: int | None = None, num_threads: int | None = None) -> Executor:
    """The executor that `--executor` names.

    Args:
        text: "local", "ray" for a new Ray on this machine, or "ray:ADDRESS" for a running cluster.
        num_workers: candidates trained at a time. With "local", 1 and None mean one after another in this process; with
            Ray, None means as many as the cluster has resources for.
        num_threads: processor cores per worker (Ray).

    Raises:
        RunError: there is no such executor.
        MissingDependencyError: ray is not installed.
    """
    kind, _, address = text.partition(":")
    if kind == "ray":
        return RayExecutor(address or None, num_workers=num_workers, num_threads=num_threads)
    if text != "local":
        raise RunError(unknown_name("executor", text, ("local", "ray", "ray:ADDRESS")))
    return LocalPool(num_workers, gpus=_visible_gpus()) if num_workers and num_workers > 1 else InProcess()


def _visible_gpus() -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES, one name per GPU."""
    import torch

    if (names := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in names.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]

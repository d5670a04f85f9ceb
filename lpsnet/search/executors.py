"""Candidates on a cluster, through Ray: as many at a time as there are GPUs, or groups of cores, in it.

The machines share the expansion's folder and the data, both at the same path: a candidate that one machine began can
then go on on another, and the weights of a parent are where its children look for them.

Where the candidates of a step are trained: one after another here, in processes here, or on a cluster by Ray.

The candidates of a step do not depend on each other. An executor is given them all, does as many at a time as it has
room for, and hands back each result when it is there. A worker that dies takes nothing with it: its candidate's folder
holds how far it was, and another worker goes on from there.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, Protocol, TypeVar

from lpsnet.errors import LpsnetError, MissingDependencyError, RunError, unknown_name
from lpsnet.plugins import PLUGINS

Task = TypeVar("Task")
Result = TypeVar("Result")
Say = Callable[[str], None]

MAX_ATTEMPTS = 3  # workers that one candidate may cost, with any executor
DEFAULT_CORES = 2  # of a worker without a GPU


class RayExecutor:
    """An `Executor` on Ray.

    Ray is joined for a step's trainings and left after them, so that nothing of it runs while latencies are measured.

    Args:
        address: of a running cluster, such as "auto", "10.0.0.1:6379" or "ray://10.0.0.1:10001"; None starts one on
            this machine.
        num_workers: candidates at a time at most; None for as many as there is room for.
        num_threads: processor cores a worker takes; `DEFAULT_CORES` unless given. It also takes a GPU where the
            cluster has any.

    Raises:
        MissingDependencyError: ray is not installed.
    """

    def __init__(self, address: str | None, *, num_workers: int | None = None, num_threads: int | None = None) -> None:
        self._ray = _import_ray()
        self._address, self._num_workers = address, num_workers
        self._num_threads = num_threads or DEFAULT_CORES

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Say) -> Iterator[Result]:
        """See `Executor.run`."""
        ray = self._ray
        self._join()
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

    def _join(self) -> None:
        try:
            self._ray.init(
                address=self._address, log_to_driver=False, ignore_reinit_error=True, runtime_env=_environment()
            )
        except (ConnectionError, OSError, ValueError, RuntimeError) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RunError(f"Ray at {self._address or 'this machine'} cannot be joined: {said}") from None

    def _resources(self) -> dict[str, Any]:
        """What a worker takes, and how often Ray gives a dead one's task to another."""
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
            said = str(error).splitlines()[0]
            raise RunError(f"the cluster lost {task} {MAX_ATTEMPTS} times: {said}; start the command again") from None


def _environment() -> dict[str, Any]:
    """What workers on other machines find in theirs: the plugins, which lie at the same path there as the data do."""
    return {"env_vars": {PLUGINS: os.environ[PLUGINS]}} if os.environ.get(PLUGINS) else {}


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise MissingDependencyError.for_extra("ray", "ray") from None
    return ray


class Executor(Protocol):
    """Does independent work."""

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Say) -> Iterator[Result]:
        """The result of `work` for every task, each as soon as it is there, in any order.

        Args:
            work: a function of a module, so that another process can find it.
            tasks: picklable; their text names them.
            on_progress: called with a line of text for each task begun and each worker lost.

        Raises:
            LpsnetError: as `work` does, or a task's workers died `MAX_ATTEMPTS` times.
        """
        ...


class InProcess:
    """One after another, in this process: an `Executor`."""

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Say) -> Iterator[Result]:
        """See `Executor.run`."""
        for number, task in enumerate(tasks, start=1):
            on_progress(f"training {number} of {len(tasks)}: {task}")
            yield work(task)


class FakeExecutor:
    """For tests: an `Executor` that hands the results back in the opposite order and remembers the tasks."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Say) -> Iterator[Result]:
        """See `Executor.run`."""
        self.batches.append(list(tasks))
        for task in reversed(tasks):
            yield work(task)


class LocalPool:
    """Processes on this machine, a fresh one for every task: an `Executor`.

    Where there are several GPUs the processes share them out among themselves.

    Args:
        num_workers: processes at a time.
        gpus: names for CUDA_VISIBLE_DEVICES that are dealt out to the processes; none leaves it as it is.
    """

    def __init__(self, num_workers: int, *, gpus: Sequence[str] = ()) -> None:
        if num_workers < 1:
            raise RunError(f"a pool has at least one worker; got {num_workers}")
        self._num_workers, self._gpus = num_workers, tuple(gpus)

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, on_progress: Say) -> Iterator[Result]:
        """See `Executor.run`."""
        waiting = deque(_Attempt(task, number) for number, task in enumerate(tasks, start=1))
        running: list[_Worker[Task, Result]] = []
        free = list(range(self._num_workers))
        try:
            while waiting or running:
                while waiting and free:
                    attempt = waiting.popleft()
                    on_progress(f"training {attempt.number} of {len(tasks)}: {attempt.task}")
                    running.append(_Worker.start(work, attempt, free.pop(0), self._gpus))
                for worker in _ended(running):
                    running.remove(worker)
                    free.append(worker.slot)
                    if (answer := worker.answer()) is not None:
                        yield answer.value
                    else:
                        on_progress(f"  {worker.death}; its candidate is given to another: {worker.attempt.task}")
                        waiting.appendleft(worker.attempt.again(worker.death))
        finally:
            for worker in running:
                worker.stop()


@dataclass(frozen=True, slots=True)
class _Attempt(Generic[Task]):
    task: Task
    number: int  # of the task, from 1
    num_deaths: int = 0

    def again(self, death: str) -> "_Attempt[Task]":
        if self.num_deaths + 1 >= MAX_ATTEMPTS:
            raise RunError(
                f"{MAX_ATTEMPTS} workers died over {self.task}, the last because {death}; it may need more memory than "
                "there is: use fewer workers, or a smaller batch or crop, and start the command again"
            )
        return _Attempt(self.task, self.number, self.num_deaths + 1)


@dataclass(frozen=True, slots=True)
class _Answer(Generic[Result]):
    value: Result


class _Worker(Generic[Task, Result]):
    """A process with a task."""

    def __init__(self, attempt: _Attempt[Task], process: SpawnProcess, receiver: Connection, slot: int) -> None:
        self.attempt, self.process, self.receiver, self.slot = attempt, process, receiver, slot

    @classmethod
    def start(
        cls, work: Callable[[Task], Result], attempt: _Attempt[Task], slot: int, gpus: Sequence[str]
    ) -> "_Worker[Task, Result]":
        context = multiprocessing.get_context("spawn")  # a forked process cannot use CUDA, nor OpenMP's threads
        receiver, sender = context.Pipe(duplex=False)
        gpu = gpus[slot % len(gpus)] if gpus else None
        process = context.Process(target=_work, args=(work, attempt.task, sender, gpu))
        process.start()
        sender.close()  # so that the end of the process is the end of the pipe
        return cls(attempt, process, receiver, slot)

    def answer(self) -> _Answer[Result] | None:
        """What the ended worker said; None if it died without a word.

        Raises:
            LpsnetError: what `work` raised.
        """
        try:
            kind, value = self.receiver.recv()
        except (EOFError, OSError):
            kind, value = "died", None
        self.process.join()
        if kind == "raised":
            raise value
        return _Answer(value) if kind == "done" else None

    @property
    def death(self) -> str:
        """How the process ended, in words."""
        code = self.process.exitcode or 0
        if code >= 0:
            return f"a worker ended with exit code {code}"
        with contextlib.suppress(ValueError):
            return f"a worker was killed by {signal.Signals(-code).name}"
        return f"a worker was killed by signal {-code}"

    def stop(self) -> None:
        """End the process now; its candidate goes on from its last checkpoint the next time."""
        self.process.kill()
        self.process.join()


def _ended(running: "Sequence[_Worker[Task, Result]]") -> "list[_Worker[Task, Result]]":
    """Those that have an answer or are dead, once there is one."""
    ready = wait([worker.receiver for worker in running])
    return [worker for worker in running if worker.receiver in ready]


def _work(work: Callable[[Task], Result], task: Task, sender: Connection, gpu: str | None) -> None:
    """The life of a worker process."""
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
    """A worker that outlives its parent would hold the candidate's folder against the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def make_executor(text: str, *, num_workers: int | None = None, num_threads: int | None = None) -> Executor:
    """The executor that `--executor` names.

    Args:
        text: "local", "ray" for a Ray of its own on this machine, or "ray:ADDRESS" for a running cluster.
        num_workers: candidates trained at a time. With "local", 1 means one after another in this process, and so does
            None; with Ray None means as many as there is room for.
        num_threads: processor cores a worker takes (Ray).

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
    """What to give out as CUDA_VISIBLE_DEVICES, a name a GPU."""
    import torch

    if (told := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in told.split(",") if name]
    return [str(index) for index in range(torch.cuda.device_count())]

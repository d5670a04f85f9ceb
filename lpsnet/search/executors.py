"""Where the candidates of a step are trained: one after another in this process, in processes here, or through Ray.
And `Beside`, in which a device far away measures meanwhile.

Candidates are independent: an executor trains several at a time and yields each result as soon as it is known. A
candidate whose worker dies is resumed by another worker from its folder. Machines of a cluster therefore share the
search's folder and the data at the same paths.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Protocol, TypeVar

from lpsnet.errors import LpsnetError, MissingDependencyError, RunError, unknown_name
from lpsnet.plugins import PLUGINS

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[str], None]

MAX_ATTEMPTS = 3  # workers per candidate, with any executor
DEFAULT_CORES = 2  # of a worker without a GPU
PATIENCE_S = 10.0  # for a task that is given up


class Beside:
    """A task in a thread of its own, beside the program's; one at a time."""

    def __init__(self) -> None:
        self.given_up = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_running(self) -> bool:
        """Whether a task was started that has not been waited for."""
        return self._thread is not None

    def start(self, task: Callable[[], object]) -> None:
        """Begin a task; the one before it was waited for."""
        assert self._thread is None, "one at a time"

        def work() -> None:
            try:
                task()
            except BaseException as error:
                self._error = error

        self._error = None
        self._thread = threading.Thread(target=work, daemon=True)  # a hanging connection does not keep a program alive
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Return once the task has ended, or time is up; raises what it raised."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join(timeout_s)
            error, self._error = self._error, None
            if error is not None:
                raise error

    def give_up(self) -> None:
        """End the task, which looks at `given_up` now and then, and forget what comes of it."""
        self.given_up.set()
        with contextlib.suppress(Exception):
            self.wait(PATIENCE_S)


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

"""Candidates on a cluster, through Ray: as many at a time as there are GPUs, or groups of cores, in it.

The machines share the expansion's folder and the data, both at the same path: a candidate that one machine began can
then go on on another, and the weights of a parent are where its children look for them.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from lpsnet.errors import LpsnetError, MissingDependencyError, RunError
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

    def run(self, work: Callable[[Task], Result], tasks: Sequence[Task], *, say: Say) -> Iterator[Result]:
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
                    say(f"training {number} of {len(tasks)}: {task}")
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

"""Executors: every task's result once, whatever happens to the workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import executor_work
import pytest

from lpsnet.errors import DataError, MissingDependencyError, RunError
from lpsnet.search import executors
from lpsnet.search.executors import MAX_ATTEMPTS, Beside, FakeExecutor, InProcess, LocalPool, make_executor


def silent(line: str) -> None:
    pass


def test_in_process_goes_in_order_and_says_so() -> None:
    lines: list[str] = []
    results = InProcess().run(executor_work.square, [3, 1], on_progress=lines.append)
    assert next(results) == 9
    assert lines == ["training 1 of 2: 3"]
    assert list(results) == [1]


def test_the_fake_hands_back_in_the_opposite_order() -> None:
    fake = FakeExecutor()
    assert list(fake.run(executor_work.square, [3, 1], on_progress=silent)) == [1, 9]
    assert fake.batches == [[3, 1]]


def test_a_pool_uses_a_fresh_process_for_every_task(tmp_path: Path) -> None:
    lines: list[str] = []
    found = list(
        LocalPool(2).run(executor_work.process_of, [tmp_path / str(i) for i in range(3)], on_progress=lines.append)
    )
    assert len({*found, os.getpid()}) == 4
    assert {int((tmp_path / str(i)).read_text()) for i in range(3)} == set(found)
    assert [line.split(":")[0] for line in lines] == [f"training {i} of 3" for i in (1, 2, 3)]


def test_a_killed_worker_is_replaced_and_its_task_is_not_lost(tmp_path: Path) -> None:
    lines: list[str] = []
    tasks = [tmp_path / "killed", tmp_path / "well"]
    found = sorted(LocalPool(2).run(executor_work.die_at_first, tasks, on_progress=lines.append))
    assert found == ["killed after 1", "well after 0"]
    assert [line for line in lines if "killed by" in line] == [
        f"  a worker was killed by SIGKILL; its candidate is given to another: {tmp_path / 'killed'}"
    ]


def test_a_task_that_kills_every_worker_is_given_up() -> None:
    with pytest.raises(RunError, match=f"{MAX_ATTEMPTS} workers died over 5, the last because .* exit code 7"):
        list(LocalPool(1).run(executor_work.die, [5], on_progress=silent))


def test_what_is_wrong_in_a_worker_is_raised_here() -> None:
    with pytest.raises(DataError, match="no image 4"):
        list(LocalPool(1).run(executor_work.refuse, [4], on_progress=silent))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(LocalPool(1).run(executor_work.break_down, [4], on_progress=silent))


def test_gpus_are_dealt_out() -> None:
    found = LocalPool(2, gpus=["5", "7"]).run(executor_work.visible_gpu, [1, 2], on_progress=silent)
    assert sorted(map(str, found)) == ["5", "7"]


def test_a_pool_that_is_left_ends_its_workers(tmp_path: Path) -> None:
    tasks = [tmp_path / "quick", tmp_path / "wait"]
    results = LocalPool(2).run(executor_work.process_of, tasks, on_progress=silent)
    next(results)
    worker = _pid(tmp_path / "wait")
    results.close()
    assert not _runs(worker)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, executor_work.__file__, tmp_path])
    workers = [_pid(tmp_path / f"{i} wait") for i in range(2)]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 10
    while any(map(_runs, workers)):
        assert time.monotonic() < end
        time.sleep(0.01)


def _pid(path: Path) -> int:
    """The process that writes itself to `path`, once it has."""
    end = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    return int(path.read_text())


def _runs(pid: int) -> bool:
    """Whether there is such a process and it is not just waiting to be buried."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_names_of_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert isinstance(make_executor("local"), InProcess)
    assert isinstance(make_executor("local", num_workers=1), InProcess)
    assert isinstance(make_executor("local", num_workers=2), LocalPool)
    with pytest.raises(RunError, match="unknown executor 'slurm'"):
        make_executor("slurm")
    with pytest.raises(RunError, match="at least one worker"):
        LocalPool(0)


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[ray\]'"):
        make_executor("ray:auto")


class FakeRay(SimpleNamespace):
    """As much of Ray as is used, in this process; a worker dies where the work raises `MemoryError`."""

    class exceptions:
        class RayError(Exception): ...

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                super().__init__(f"remote traceback of {cause}")
                self.cause = cause

    def __init__(self, **resources: float) -> None:
        super().__init__(calls=[], resources=resources, results={})

    def init(self, **options: object) -> None:
        self.calls.append(("init", options["address"]))
        self.environment = options["runtime_env"]
        if options["address"] == "nowhere:1":
            raise ConnectionError("could not find any running Ray instance")

    def cluster_resources(self) -> dict[str, float]:
        return self.resources

    def remote(self, **options: object):
        self.calls.append(("remote", options))

        def decorate(work):
            def submit(task):
                reference = f"reference {len(self.results)}"
                self.results[reference] = (work, task)
                return reference

            return SimpleNamespace(remote=submit)

        return decorate

    def wait(self, references: list[str], *, num_returns: int) -> tuple[list[str], list[str]]:
        self.calls.append(("wait", len(references)))
        return references[-1:], references[:-1]

    def get(self, reference: str) -> object:
        work, task = self.results[reference]
        try:
            return work(task)
        except MemoryError:
            raise self.exceptions.RayError("The worker died unexpectedly\nmore") from None
        except Exception as error:
            raise self.exceptions.RayTaskError(error) from None

    def shutdown(self) -> None:
        self.calls.append("shutdown")


def test_ray_workers_find_the_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(CPU=1.0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    for value, environment in (("", {}), ("/shared/mine.py", {"env_vars": {"LPSNET_PLUGINS": "/shared/mine.py"}})):
        monkeypatch.setenv("LPSNET_PLUGINS", value)
        list(make_executor("ray").run(executor_work.square, [2], on_progress=silent))
        assert ray.environment == environment


def _no_memory(number: int) -> int:
    raise MemoryError


def test_ray_is_joined_asked_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(CPU=8.0, GPU=2.0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    executor = make_executor("ray:ray://10.0.0.1:10001", num_workers=2, num_threads=4)
    assert sorted(executor.run(executor_work.square, [1, 2, 3], on_progress=silent)) == [1, 4, 9]
    options = {"num_cpus": 4, "num_gpus": 1, "max_retries": MAX_ATTEMPTS - 1}
    waits = [("wait", 2), ("wait", 2), ("wait", 1)]
    assert ray.calls == [("init", "ray://10.0.0.1:10001"), ("remote", options), *waits, "shutdown"]


@pytest.mark.parametrize(
    ("text", "work", "error", "says"),
    [
        ("ray:nowhere:1", executor_work.square, RunError, "Ray at nowhere:1 cannot be reached: could not find"),
        ("ray", executor_work.refuse, DataError, "^no image 4$"),
        ("ray", _no_memory, RunError, "the cluster lost 4 3 times: The worker died unexpectedly; start"),
    ],
)
def test_what_goes_wrong_with_ray(monkeypatch: pytest.MonkeyPatch, text, work, error, says: str) -> None:
    ray = FakeRay(CPU=1.0)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(error, match=says):
        list(make_executor(text).run(work, [4], on_progress=silent))


@pytest.mark.slow
def test_ray_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv(
        "PYTHONPATH", f"{Path(executor_work.__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    found = make_executor("ray", num_threads=1).run(executor_work.square, [1, 2, 3], on_progress=silent)
    assert sorted(found) == [1, 4, 9]
    lost = make_executor("ray", num_threads=1).run(
        executor_work.die_at_first, [tmp_path / "killed"], on_progress=silent
    )
    assert list(lost) == ["killed after 1"]
    with pytest.raises(DataError, match="no image 4"):
        list(make_executor("ray", num_threads=1).run(executor_work.refuse, [4], on_progress=silent))


def test_a_task_beside_the_program_is_waited_for_and_its_error_is_raised() -> None:
    beside, done = Beside(), []
    gate = threading.Event()
    beside.start(lambda: (gate.wait(10), done.append(1)))
    assert beside.is_running
    assert not done
    gate.set()
    beside.wait()
    assert done == [1]
    assert not beside.is_running
    beside.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        beside.wait()
    beside.wait()  # nothing is left of it


def test_a_task_that_is_given_up_is_told_and_its_error_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    beside = Beside()
    beside.start(lambda: beside.given_up.wait(10) and 1 / 0)
    beside.give_up()
    assert beside.given_up.is_set()
    beside.wait()
    monkeypatch.setattr(executors, "PATIENCE_S", 0.05)
    hanging, end = Beside(), threading.Event()
    hanging.start(lambda: end.wait(30))
    begun = time.monotonic()
    hanging.give_up()
    assert time.monotonic() - begun < 10
    end.set()

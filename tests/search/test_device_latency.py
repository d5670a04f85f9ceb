"""Latency on this machine: what is measured is the design, in the order given, with the engine asked for."""

import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from expansion_tiny import QUICK_TURN, SIZE

from lpsnet.benchmark.device import _READ_CODE, Device
from lpsnet.benchmark.machine import Load, describe_machine
from lpsnet.errors import ModelFileError, RunError
from lpsnet.export import export as for_runtime
from lpsnet.inference.engines import Array, FakeSession
from lpsnet.search import measure as device_latency
from lpsnet.search.measure import MAX_BUSY, Deployment, Target
from lpsnet.search.operations import Design, SearchNetwork

TARGET = Target(SIZE, num_threads=1)
SMALL = SearchNetwork((1, 1, 1, 1, 1), (4, 4, 4, 4, 4), ("1/2",)).design
LARGE = SearchNetwork((1, 1, 1, 6, 6), (4, 8, 16, 64, 64), ("2",)).design


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_latency, "TURN", QUICK_TURN)
    monkeypatch.setattr(device_latency, "MIN_WATCHED_S", math.inf)  # what else runs beside the tests is not the point


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "pytorch"])
def test_a_network_with_much_to_do_takes_longer(tmp_path: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    machine = Deployment(replace(TARGET, runtime=runtime), tmp_path, num_classes=3)
    repetitions = [machine.measure_once([LARGE, SMALL]) for _ in range(3)]
    slow, fast = map(min, zip(*repetitions, strict=True))  # whatever else the machine does only adds to the times
    assert 0 < fast < slow


def test_it_leaves_torch_as_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    state = torch.get_rng_state()
    Deployment(Target(SIZE, "pytorch", num_threads=2), tmp_path, num_classes=3).measure_once([SMALL])
    assert torch.get_num_threads() == 1
    assert torch.equal(torch.get_rng_state(), state)


class Engine:
    """Counts what is opened and run, in place of an engine."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.open: set[int] = set()
        self.most_open = 0
        self.seconds: dict[str, float] = {}

    def open_session(self, runtime: str, options: object) -> FakeSession:
        self.opened.append(options.path.name)
        engine, name = self, options.path.read_text()

        class Counted(FakeSession):
            def __init__(self) -> None:
                super().__init__(lambda image: engine.compute(name, image), runtime=runtime, num_threads=1)
                engine.open.add(id(self))
                engine.most_open = max(engine.most_open, len(engine.open))

            def __del__(self) -> None:
                engine.open.discard(id(self))

        return Counted()

    def compute(self, name: str, image: Array) -> Array:
        time.sleep(self.seconds.get(name, 0))
        return image


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    engine = Engine()
    monkeypatch.setattr(device_latency, "open_session", engine.open_session)
    monkeypatch.setitem(
        for_runtime.WRITERS,
        "onnxruntime",
        for_runtime.Writer(".onnx", lambda net, path, record, size: path.write_text(str(net.architecture))),
    )
    return engine


def _designs(count: int) -> list[Design]:
    return [SearchNetwork((1, 1, 1, 1, 1 + i), (4, 4, 4, 4, 4), ("1/2",)).design for i in range(count)]


def test_times_stand_in_the_order_asked_for(tmp_path: Path, engine: Engine) -> None:
    # a sleep may last longer than asked, never shorter: the bound holds on any machine, and not for swapped times
    designs = _designs(4)
    engine.seconds = {str(design.architecture): 0.004 * number for number, design in enumerate(designs, start=1)}
    machine = Deployment(TARGET, tmp_path, num_classes=3, max_open=2)
    for order in (designs, designs[::-1], designs):  # every second pass goes backwards
        times = dict(zip(order, machine.measure_once(order), strict=True))
        for number, design in enumerate(designs, start=1):
            assert times[design] >= 4 * number


def test_sessions_stay_open_between_repetitions_up_to_a_bound(tmp_path: Path, engine: Engine) -> None:
    machine = Deployment(TARGET, tmp_path, num_classes=3, max_open=3)
    few, many = _designs(3), _designs(5)
    for _ in range(3):
        assert len(machine.measure_once(few)) == 3
    assert len(engine.opened) == 3
    assert len(machine.measure_once(many)) == 5
    assert len(engine.opened) <= 3 + 5
    assert engine.most_open <= 4, "the one that is opened, and three"
    machine.release()
    assert not engine.open


def test_model_files_are_kept_up_to_a_bound_and_deleted_in_the_end(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_latency, "MAX_FILES", 4)
    folder = tmp_path / "latency"
    Deployment(TARGET, folder, num_classes=3).measure_once(_designs(6))
    kept = sorted(folder.iterdir())
    assert len(kept) == 4
    other = Deployment(TARGET, folder, num_classes=3)
    other.measure_once(_designs(6)[-1:])
    assert sorted(folder.iterdir()) == kept, "the file is there already"
    other.clear()
    assert not folder.exists()
    other.clear()


def test_a_file_is_for_one_design_size_and_number_of_classes(tmp_path: Path, engine: Engine) -> None:
    for target, num_classes in ((TARGET, 3), (TARGET, 4), (replace(TARGET, size=(64, 64)), 3)):
        Deployment(target, tmp_path, num_classes=num_classes).measure_once([SMALL])
    assert len(list(tmp_path.iterdir())) == 3


def test_it_says_what_latencies_depend_on(tmp_path: Path) -> None:
    import onnxruntime

    assert Deployment(TARGET, tmp_path, num_classes=3).describe(SMALL) == {
        "runtime": "onnxruntime",
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "precision": "f32",
        "num_threads": 1,
        "size": [48, 64],
        "machine": describe_machine().identity,
    }


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="'onnxruntimes'; did you mean 'onnxruntime'"):
        Target(SIZE, "onnxruntimes")
    with pytest.raises(RunError, match="int8 networks are made from trained ones"):
        Target(SIZE, precision="int8")
    with pytest.raises(RunError, match="from 32x32 up"):
        Target((16, 64))
    with pytest.raises(ModelFileError, match="unknown precision 'f64'"):
        Deployment(replace(TARGET, precision="f64"), tmp_path, num_classes=3).describe(SMALL)


def test_targets_in_a_line() -> None:
    assert str(TARGET) == "onnxruntime, f32, 1 thread, 48x64"
    assert str(Target((360, 480), "openvino", "bf16")) == "openvino, bf16, 360x480"


ALL_THREADS = replace(TARGET, num_threads=None)


class Watch:
    """A `LoadWatch` of a machine that is as busy as listed, repetition by repetition."""

    busy: ClassVar[list[float | None]] = []

    @classmethod
    def start(cls) -> "Watch":
        return cls()

    def load(self) -> Load:
        return Load(1.0, None, None, self.busy.pop(0))


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> type[Watch]:
    monkeypatch.setattr(device_latency, "LoadWatch", Watch)
    monkeypatch.setattr(device_latency, "MIN_WATCHED_S", 0.0)
    return Watch


@pytest.mark.parametrize("quiet", [0.2, None])
def test_a_repetition_beside_other_programs_is_made_again(
    tmp_path: Path, engine: Engine, watch: type[Watch], quiet: float | None
) -> None:
    said: list[str] = []
    machine = Deployment(ALL_THREADS, tmp_path, num_classes=3, on_progress=said.append)
    watch.busy = [1.3, 0.9, quiet, 7.0]
    machine.measure_once([SMALL])
    assert watch.busy == [7.0]
    assert said == ["  other programs keep 1.3 processors busy: measuring again until it is quiet"]


def test_a_machine_that_stays_busy_is_measured_nevertheless_until_it_is_quiet(
    tmp_path: Path, engine: Engine, watch: type[Watch]
) -> None:
    said: list[str] = []
    machine = Deployment(ALL_THREADS, tmp_path, num_classes=3, on_progress=said.append)
    watch.busy = [1.0] * (MAX_BUSY + 1) + [0.0, 1.0, 0.0]
    machine.measure_once([SMALL])
    assert len(watch.busy) == 4
    assert "warning: other programs stay busy" in said[-1]
    num_lines = len(said)
    machine.measure_once([SMALL])  # one pass is enough
    assert (len(watch.busy), len(said)) == (3, num_lines)
    machine.measure_once([SMALL])  # quiet again …
    machine.measure_once([SMALL])  # … so that the next disturbance counts
    assert watch.busy == []
    assert len(said) == num_lines + 1


def test_processors_that_no_thread_of_the_engine_needs_may_be_busy(
    tmp_path: Path, engine: Engine, watch: type[Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    many = replace(describe_machine(), num_threads=16)
    monkeypatch.setattr(device_latency, "describe_machine", lambda: many)
    watch.busy = [10.0]
    Deployment(replace(TARGET, num_threads=2), tmp_path, num_classes=3).measure_once([SMALL])
    assert watch.busy == []


def far_away() -> Device:
    """A device that is a process of this machine, in place of ssh."""
    return Device("ssh://me@there", command=[sys.executable, "-u", "-c", _READ_CODE], pauses_s=(0.01,))


def test_a_device_far_away_is_described_and_measured_as_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with far_away() as device:
        there = Deployment(TARGET, tmp_path / "models", num_classes=3, max_open=2, device=device)
        assert there.describe(SMALL) == Deployment(TARGET, tmp_path / "models", num_classes=3).describe(SMALL)
        few = [SMALL, LARGE, _designs(3)[-1]]
        times = [there.measure_once(few) for _ in range(4)]
        slow, fast = min(row[1] for row in times), min(row[0] for row in times)
        assert 0 < fast < slow
        there.release()
        assert device._connection is None  # nothing of ours runs there while candidates are trained
        assert len(there.measure_once(few)) == 3

"""The quickest setting that keeps the labels, on engines that are made up."""

import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from lpsnet.benchmark import tune as tuning
from lpsnet.benchmark.benchmark import benchmark
from lpsnet.benchmark.timing import PROTOCOLS, TimingProtocol
from lpsnet.errors import LpsnetError, ModelFileError
from lpsnet.inference import engines
from lpsnet.inference.engines import Engine, FakeSession
from lpsnet.inference.segmenter import Segmenter

SIZE = (48, 64)
DELAYS = {"onnxruntime": 0.02, "quick": 0.001, "wrong": 0.0, "slow": 0.04}  # seconds a call


def compute(delay: float, wrong: bool):
    def run(image):
        time.sleep(delay)
        logits = np.repeat(image[:, :1, ::4, ::4], 11, axis=1) * np.linspace(-1, 1, 11)[:, None, None]
        return -logits.astype(np.float32) if wrong else logits.astype(np.float32)

    return run


@pytest.fixture
def made_up(monkeypatch, tmp_path: Path) -> Path:
    """Engines of known speed, of which one gives other labels; a file with a record of 11 classes."""

    def open_session(runtime, options):
        if options.path_ratios is not None:
            raise ModelFileError("takes whole images")
        if runtime == "absent":
            raise LpsnetError("absent is not installed")
        if options.precision == "int8" or (options.precision != "f32" and runtime != "quick"):
            raise LpsnetError(f"{options.precision} is not possible")
        session = FakeSession(compute(DELAYS[runtime], runtime == "wrong"), runtime=runtime)
        session.precision, session.num_threads = options.precision, options.num_threads
        return session

    rows = {name: Engine("") for name in (*DELAYS, "absent")}
    monkeypatch.setattr(tuning, "RUNTIMES", rows)
    monkeypatch.setattr(engines, "RUNTIMES", rows)
    monkeypatch.setattr("lpsnet.inference.segmenter.open_session", open_session)
    monkeypatch.setattr("lpsnet.benchmark.benchmark.open_session", open_session)
    short = TimingProtocol(warm_up_s=0.02, duration_s=0.2)
    monkeypatch.setitem(PROTOCOLS, "quick", short)  # the made-up times differ by more than any machine's noise
    monkeypatch.setenv(tuning.CACHE, str(tmp_path / "cache"))
    return tuning.find_model("camvid_s")


def test_the_quickest_setting_that_keeps_the_labels_wins(made_up: Path) -> None:
    tuned = tuning.tune(made_up, size=SIZE, threads=[1])
    assert tuned.best.runtime == "quick"
    assert tuned.best.num_threads == 1
    measured = [setting.runtime for setting, _, _ in tuned.measured]
    assert measured[-2:] == ["onnxruntime", "slow"]
    assert all(agreement == 100 for _, _, agreement in tuned.measured)
    assert "less than 99 %" in tuned.left_out["wrong f32, 1 thread"]
    assert "not installed" in tuned.left_out["absent f32, 1 thread"]


def test_the_choice_is_kept_by_file_size_and_machine(made_up: Path, monkeypatch) -> None:
    found = tuning.tune(made_up, size=SIZE, threads=[1]).best
    monkeypatch.setattr(tuning, "tune", lambda *_, **__: pytest.fail("measured again"))
    assert tuning.best_setting(made_up, SIZE) == found
    segmenter = Segmenter(made_up, runtime="auto", input_size=SIZE)
    assert (segmenter.session.runtime, segmenter.precision) == (found.runtime, found.precision)
    with pytest.raises(pytest.fail.Exception):
        tuning.best_setting(made_up, (64, 64))


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"x": 1}'])
def test_a_damaged_memory_is_made_anew(made_up: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROTOCOLS, "quick", TimingProtocol(warm_up_s=0, duration_s=0.02))
    file = tuning._cache_file()
    file.parent.mkdir(parents=True)
    file.write_text(content)
    found = tuning.best_setting(made_up, SIZE)
    assert asdict(found) in json.loads(file.read_text()).values()


def test_without_any_engine_the_first_reason_is_given(made_up: Path) -> None:
    with pytest.raises(LpsnetError, match="not installed"):
        tuning.tune(made_up, size=SIZE, runtimes=["absent"])


def test_a_candidates_own_threads_are_used(made_up: Path) -> None:
    cells = [tuning.Candidate(str(n), made_up, "slow", threads=n) for n in (1, 3)]
    found = benchmark(cells, size=SIZE, num_threads=2, protocol="quick", memory=False, end_to_end=False)
    assert [result.num_threads for result in found.results] == [1, 3]


@pytest.mark.parametrize(("limit", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_the_numbers_of_threads_tried(limit: int, counts: list[int]) -> None:
    assert tuning.thread_counts(limit) == counts

"""The demonstration, made small."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lpsnet import demo
from lpsnet.data.images import read_image
from lpsnet.inference.model_file import read_record
from lpsnet.search import measure as device_latency
from lpsnet.search.operations import SearchNetwork
from lpsnet.search.run import PROXIES
from lpsnet.training.config import RECIPES
from lpsnet.training.run import Status

SMALL = {"iterations": 3, "batch_size": 2, "crop_size": (48, 64), "num_workers": 1}


@contextmanager
def silent() -> Iterator[Callable[[Status], None]]:
    yield lambda status: None


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "DATA", "scenes:size=48x64,num_train=6,num_val=2")
    monkeypatch.setattr(demo, "SIZE", (48, 64))
    monkeypatch.setattr(demo, "NUM_SHOWN", 2)
    monkeypatch.setattr(demo, "REPETITIONS", (1,))
    monkeypatch.setattr(demo, "MAX_STEP_SIZE", 1)
    monkeypatch.setattr(demo, "START", SearchNetwork((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", 0, 0)))
    monkeypatch.setattr(device_latency, "TURN", replace(device_latency.TURN, warm_up_s=0.001, turn_s=0.001))
    monkeypatch.setitem(PROXIES, "demo_proxy", PROXIES["demo_proxy"].with_overrides(SMALL))
    recipe = RECIPES["demo"].with_overrides(SMALL)
    monkeypatch.setattr(demo, "get_recipe", lambda name: recipe)
    monkeypatch.setattr(demo, "NUM_EPOCHS", 1)


@pytest.mark.usefixtures("small")
def test_it_leaves_all_it_promises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lpsnet")
    result = demo.run_demo(tmp_path, reporter=silent)
    assert result.expansion.found.start.step == 0
    assert result.model == tmp_path / "demo.onnx"
    assert read_record(result.model).architecture == result.expansion.members[-1].design.architecture
    assert read_image(result.image).shape[0] > 2 * 48, "two scenes and the legend"
    assert read_image(result.scene).shape == (384, 768, 3)
    assert result.evaluation.num_images == 2
    assert result.export.path == result.model
    assert (tmp_path / "expansion" / "family" / "table.md").exists()
    assert result.reports == (tmp_path / "expansion" / "report.html", tmp_path / "training" / "report.html")
    assert "data:image/jpeg" in result.reports[1].read_text(encoding="utf-8"), "it shows images"
    assert caplog.messages[0].startswith("Growing a network in 2 steps")


@pytest.mark.slow
def test_as_it_is_it_learns_to_see_and_takes_minutes(tmp_path: Path) -> None:
    begun = time.process_time()
    result = demo.run_demo(tmp_path, reporter=silent)
    assert time.process_time() - begun < 300
    assert len(result.expansion.members) == 1 + demo.NUM_STEPS
    assert result.evaluation.miou > 50

"""`lpsnet expand` from the command line: everything is real, and tiny."""

import functools
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import command_line
import pytest
from command_line import Result
from expansion_tiny import DATA, QUICK_TURN

from lpsnet.search.journal import (
    REPETITIONS,
    LatencyRepetition,
    StepDecided,
    Stopped,
    TrainingFinished,
    TrainingStarted,
    read_journal,
)
from lpsnet.search.run import PROXIES, full_recipe, get_candidate_recipe
from lpsnet.training.config import RECIPES

OPTIONS = ("--data", DATA, "--recipe", "demo_proxy", "--start", "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "--threads", 1)
SETTINGS = ("iterations=4", "batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32")
SMALL = (
    *("--operations", "depth=0,0,0,1,1", "--operations", "resolution=0,1/4,0"),
    *("--max-step-size", 1, "--max-length", 1),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("lpsnet.search.measure.TURN", QUICK_TURN)
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return functools.partial(command_line.run, "expand", *OPTIONS, *settings)


def test_from_end_to_end_and_again(run, tmp_path: Path) -> None:
    out = tmp_path / "x"
    words = (*SMALL, "--steps", 1, "--seeds", 2, "--budget-ms", 60_000, "--budget-ms", 0.000_1, "--out", out)
    code, text, on_progress = run(*words, "--json", tmp_path / "x.json")
    assert code == 0, on_progress
    kept = json.loads((tmp_path / "x.json").read_text())
    assert kept == json.loads((out / "family" / "family.json").read_text())
    assert kept["choices"][0]["model"] is None
    best = kept["choices"][1]
    assert (out / "family" / best["model"]).exists()
    assert f"Under 60000 ms: {best['model']}, {best['network']['miou']:.1f} mIoU at" in text
    assert "Under 0.0001 ms: no trained network is this fast" in text
    assert "Next: lpsnet train --data" in text
    for file in (out / "report.html", out / "family" / "figure.svg"):
        assert str(file) in text.replace("\n", "")
        assert file.exists()
    assert "not finished" not in (out / "report.html").read_text(encoding="utf-8")
    assert "--recipe demo --init" in text
    assert "step 1 of 1: step sizes for 2 operations" in on_progress
    events = read_journal(out / "journal.jsonl")
    trained = [it for it in events if isinstance(it, TrainingFinished)]
    assert sum(it.design == it.parent and it.seed == 0 for it in trained) == 1, "the start is trained on, too"
    assert sum(it.seed == 0 for it in trained) == 4
    again = {it.design for it in trained if it.seed == 1}
    assert trained[0].design in again, "the start is trained with two seeds"
    assert len(again) > 1, "and so is the best candidate"
    assert {it.at_start is None for it in trained if it.parent} == {False}
    assert any(isinstance(it, LatencyRepetition) for it in events)

    code, _, on_progress = run(*words)
    assert code == 0, on_progress
    assert "resuming with" in on_progress
    assert read_journal(out / "journal.jsonl") == events, "nothing is measured or trained again"

    code, _, on_progress = run(*words[:-2], "--no-inherit", "--out", out)
    assert code == 2
    assert "inherit: true in the journal, false now" in on_progress


@pytest.mark.slow
def test_killed_ten_times_with_measured_latencies_nothing_is_done_twice(tmp_path: Path) -> None:
    dice, journal = random.Random(7), tmp_path / "journal.jsonl"
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    words = [*OPTIONS, *settings, *SMALL, "--set", "iterations=40", "--steps", 2, "--out", tmp_path]
    command = [sys.executable, "-c", "from lpsnet.cli import main; main()", "expand", *map(str, words)]
    content = b""
    for _ in range(10):
        lines = content.count(b"\n") + dice.randint(0, 4)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.5))
        process.kill()
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        now = journal.read_bytes() if journal.exists() else b""
        assert now.startswith(content[: content.rfind(b"\n") + 1]), "lines once written stay"
        content = now
    assert subprocess.run(command).returncode == 0
    assert journal.read_bytes().startswith(content[: content.rfind(b"\n") + 1])
    _check_nothing_was_done_twice(journal)


def _check_nothing_was_done_twice(journal: Path) -> None:
    events = read_journal(journal)
    repetitions = Counter(it.designs for it in events if isinstance(it, LatencyRepetition))
    assert set(repetitions.values()) <= set(REPETITIONS)
    finished: set[tuple[str, str | None, int]] = set()
    for event in events:
        if isinstance(event, TrainingStarted):
            assert not finished & {(design, event.parent, event.seed) for design in event.designs}
        elif isinstance(event, TrainingFinished):
            assert (event.design, event.parent, event.seed) not in finished
            finished.add((event.design, event.parent, event.seed))
    assert {seed for _, _, seed in finished} >= {0, 1}
    assert len(finished) >= 5
    assert [it.number for it in events if isinstance(it, StepDecided | Stopped)] in ([1, 2], [1])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--recipe", "camvid_prox"), "unknown recipe 'camvid_prox'; did you mean 'camvid_proxy'?"),
        (("--runtime", "onnx"), "unknown runtime of an expansion 'onnx'"),
        (("--precision", "int8"), "int8 networks are made from trained ones"),
        (("--operations", "depth=1"), "an operation on the depth adds 5 whole numbers; got depth=1"),
        (("--block", "conv"), "unknown block 'conv'"),
        (("--start", "tinny"), "unknown architecture 'tinny'; did you mean 'tiny'?"),
        (("--val", "train"), "so they are not trained on 'train' too"),
        (("--budget-ms", "0"), "above 0; got 0"),
        (("--budget-ms", "5", "--budget-ms", "nan"), "got nan; a finite number is needed"),
        (("--budget-ms", "inf"), "got inf; a finite number is needed"),
        (("--operations", "block=foo"), "unknown block 'foo'"),
        (("--operations", "resolution=0,1/4"), "has 2 slots, the network 3"),
        (("--operations", "depth=-1,0,0,0,0"), "blocks are whole numbers from 1"),
        (("--interaction", "foo"), "unknown interaction 'foo'"),
        (("--executor", "slurm"), "unknown executor 'slurm'"),
        (("--set", "epocs=3"), "unknown recipe setting 'epocs'; did you mean 'epochs'?"),
        (("--size", "48"), "a size is HEIGHTxWIDTH"),
        (("--trainings-from", "nowhere"), "nowhere/journal.jsonl cannot be used: No such file"),
    ],
)
def test_mistakes_get_one_line(run, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    code, text, said = run(*words, "--out", tmp_path / "x")
    assert (code, text) == (2, "")
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_proxies_are_recipes_made_cheaper() -> None:
    for name, proxy in PROXIES.items():
        assert name not in RECIPES
        assert get_candidate_recipe(name) == proxy
        full = RECIPES[full_recipe(name)]
        assert _cost(proxy) < _cost(full) / 9
        assert (proxy.learning_rate, proxy.loss) == (full.learning_rate, full.loss)
        assert not proxy.init_required
    assert full_recipe("demo") == "demo"
    assert get_candidate_recipe("demo") == RECIPES["demo"]


def _cost(recipe) -> float:
    height, width = recipe.crop_size
    return recipe.num_iterations(100 * recipe.batch_size) * recipe.batch_size * height * width

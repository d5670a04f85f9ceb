"""Modules of the user's: the example of docs/how-to/new-block.md, as its page prints it, and what cannot be loaded."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import command_line
import pytest

from lpsnet import plugins
from lpsnet.cli import _how_to_resume, _plugins_apart
from lpsnet.models.blocks import BLOCKS
from lpsnet.search.journal import TrainingFinished, read_journal
from lpsnet.search.measure import TURN

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/how-to/new-block.md"


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """The page's file."""
    text = PAGE.read_text(encoding="utf-8").split('```python title="partial.py"\n')[1].split("```")[0]
    path = tmp_path / "partial.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process afterwards is as if no plugin had been loaded in it."""
    before = dict(BLOCKS)
    monkeypatch.setenv(plugins.PLUGINS, "")
    monkeypatch.setattr(plugins, "_loaded", set())
    yield
    BLOCKS.clear()
    BLOCKS.update(before)


def python(program: str, folder: Path, **environment: str) -> str:
    """What a fresh process prints that runs `program` in `folder`; it has to succeed."""
    path = os.pathsep.join([environment.pop("PYTHONPATH", str(folder)), str(ROOT)])
    environment = os.environ | environment | {"PYTHONPATH": path}
    run = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


TRANSFER = """
import json, sys, torch
from torch import nn
from lpsnet.architecture import Architecture
from lpsnet.search.inheritance import inherit
from lpsnet.models.network import create_model

torch.manual_seed(1)
SMALL = (1, 2, 1, 2, 2), (3, 4, 5, 7, 7), ("1", "1/2")
AFTER = {
    "depth": ((2, 3, 3, 3, 4), *SMALL[1:]),
    "width": (SMALL[0], (5, 4, 8, 12, 13), SMALL[2]),
    "depth and width": ((2, 3, 3, 3, 4), (5, 9, 8, 12, 12), SMALL[2]),
    "new path": (*SMALL[:2], ("1", "1/2", "1/4")),
    "ratio": (*SMALL[:2], ("5/4", "1/2")),
}
parent = create_model(Architecture(*SMALL), num_classes=5, block="partial").double()
for module in parent.modules():
    if isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.running_mean, std=0.3)
        nn.init.uniform_(module.running_var, 0.5, 2.0)
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, std=0.3)
nn.init.normal_(parent.head.weight)
images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
for change, triple in AFTER.items():
    for measured in (True, False):
        child = create_model(Architecture(*triple), num_classes=5, block="partial").double()
        report = inherit(child, parent, images=images if measured else None)
        with torch.no_grad():
            own, given = child.eval()(images), parent.eval()(images)
        difference = (own - given) / given.std(dim=(0, 2, 3), keepdim=True) if own.shape == given.shape else given
        largest, typical = float(difference.abs().max()), float(difference.square().mean().sqrt())
        print(json.dumps([change, report.preserving, report.reasons, largest, typical, len(report.new)]))
"""


def test_the_weights_of_the_pages_block_carry_over(partial: Path) -> None:
    """The oracle: the logits of both networks, with arbitrary batch norms, in float64."""
    lines = python(TRANSFER, partial.parent, LPSNET_PLUGINS=str(partial)).splitlines()
    assert len(lines) == 10
    for change, preserving, reasons, largest, typical, num_new in map(json.loads, lines):
        if change == "ratio":
            assert (preserving, reasons) == ("no", ["a path sees the image at 5/4 instead of 1"])
            assert num_new == 0, "every weight is the parent's"
        elif change == "new path":
            assert preserving == "nearly"
            assert 0 < typical < 0.05
        else:
            assert (preserving, reasons) == ("exact", []), change
            assert largest < 1e-8, change


@pytest.mark.slow
def test_expand_with_worker_processes(partial: Path, monkeypatch: pytest.MonkeyPatch, forgetful: None) -> None:
    """Every kind of step in a real search; resuming it without the plugin is refused in a line that names the flag."""
    monkeypatch.setattr("lpsnet.search.measure.TURN", replace(TURN, warm_up_s=0.002, turn_s=0.005))
    settings = ("iterations=2", "batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32")
    operations = ("depth=0,0,0,1,1", "width=0,0,0,4,4", "resolution=0,1/4,0", "resolution=1/4,0,0")
    words = [
        *(
            "expand",
            "--block",
            "partial",
            "--data",
            "scenes:size=48x64,num_train=4,num_val=2",
            "--recipe",
            "demo_proxy",
        ),
        *(
            "--start",
            "B=1,1,1,1,1;C=4,4,8,8,8;R=1",
            "--steps",
            1,
            "--seeds",
            1,
            "--max-step-size",
            1,
            "--max-length",
            1,
        ),
        *("--workers", 2, "--no-control", "--threads", 1, "--out", partial.parent / "x"),
        *(word for it in settings for word in ("--set", it)),
        *(word for it in operations for word in ("--operations", it)),
    ]
    done = command_line.run(*words, "--plugin", partial)
    assert done.code == 0, done.err
    events = read_journal(partial.parent / "x" / "journal.jsonl")
    inherited = {it.design: it.details["inherited"] for it in events if isinstance(it, TrainingFinished) and it.parent}
    found = {tuple(it["changes"]): it["preserving"] for it in inherited.values()}
    assert found == {("depth",): "exact", ("width",): "exact", ("paths",): "nearly", ("resolution",): "no"}
    assert "begins with other logits than its parent's: a path sees the image at 5/4 instead of 1" in done.err
    assert f"--plugin {partial}" in done.out.replace("\n", "")

    BLOCKS.pop("partial")
    monkeypatch.setenv(plugins.PLUGINS, "")
    again = command_line.run(*words)
    assert "unknown block 'partial'" in again.line
    assert "--plugin FILE.py" in again.line


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("def f(:", "SyntaxError"),
        ("raise ValueError('no\\nluck')", "ValueError: no luck"),
        ("raise SystemExit(0)", "SystemExit: 0"),
    ],
)
def test_what_cannot_be_loaded(text: str | None, says: str, place: int, tmp_path: Path, forgetful: None) -> None:
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    words: list[object] = ["info", "lpsnet_s", "--json", "-"]
    words[place:place] = ["--plugin", path] if place else [f"--plugin={path}"]
    line = command_line.run(*words).line
    assert str(path) in line
    assert says in line
    assert os.environ[plugins.PLUGINS] == ""


def test_a_folder_is_no_plugin(tmp_path: Path, forgetful: None) -> None:
    (tmp_path / "x.py").mkdir()
    assert "does not exist; give a Python file" in command_line.run("info", "tiny", "--plugin", tmp_path / "x.py").line


def test_a_plugin_without_a_name() -> None:
    assert command_line.run("info", "tiny", "--plugin").line.startswith(
        "lpsnet: Option '--plugin' requires an argument;"
    )


def test_it_is_loaded_once(tmp_path: Path) -> None:
    """However it is named, and whoever asks for the table."""
    path = tmp_path / "mine.py"
    path.write_text("import lpsnet.models.blocks\nprint('loaded')\n", encoding="utf-8")
    program = (
        "from pathlib import Path\nfrom lpsnet.plugins import load_plugins, use_plugin\nimport lpsnet.models.network\n"
        "use_plugin(Path('mine.py'))\nuse_plugin(Path('../x/mine.py').parent / 'mine.py')\nload_plugins()"
    ).replace("../x", f"../{tmp_path.name}")
    assert python(program, tmp_path) == "loaded\n"
    assert python(program, tmp_path, LPSNET_PLUGINS=str(path)) == "loaded\n"


def test_an_installed_package_needs_no_flag(partial: Path) -> None:
    info = partial.parent / "partial_block-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: partial-block\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[lpsnet.plugins]\npartial = partial\n", encoding="utf-8")
    program = "import lpsnet; print(lpsnet.create_model('tiny', block='partial').block)"
    assert python(program, partial.parent) == "partial\n"
    (info / "entry_points.txt").write_text("[lpsnet.plugins]\npartial = partial_gone\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "lpsnet", "info", "tiny"],
        cwd=partial.parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(partial.parent), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert run.stderr.startswith("lpsnet: plugin 'partial' (partial_gone) cannot be loaded: ModuleNotFoundError: ")


@pytest.mark.parametrize(
    "words", [["--plugin", "x.py", "train", "--out", "y"], ["train", "--plugin=x.py", "--out", "y"]]
)
def test_an_interrupted_command_is_resumed_with_its_plugin(words: list[str]) -> None:
    assert _how_to_resume(words) == f"Resume with: lpsnet {' '.join(words)} --resume"


def test_words_behind_two_dashes_are_no_options() -> None:
    assert _plugins_apart(["segment", "--plugin", "a.py", "--", "--plugin", "b"]) == (
        ["--plugin", "a.py"],
        ["segment", "--", "--plugin", "b"],
    )
    assert _plugins_apart(["train", "--plugin"]) == (["--plugin"], ["train"])


def test_without_a_plugin_nothing_is_run(partial: Path) -> None:
    """A file beside the data, or in the current folder, is not looked for."""
    program = "import lpsnet.models.blocks as b; print('partial' in b.BLOCKS)"
    assert python(program, partial.parent) == "False\n"

"""What `lpsnet expand` shows of a training, and the command that it says comes next."""

import io
import shlex
from pathlib import Path
from types import SimpleNamespace

import command_line
import pytest
from rich.console import Console

from lpsnet.architecture import get_architecture
from lpsnet.cli import expand as expansion
from lpsnet.search.measure import Target
from lpsnet.search.operations import Design
from lpsnet.search.run import ExpansionRun, get_candidate_recipe
from lpsnet.training.config import get_recipe, parse_overrides
from lpsnet.training.run import Status, TrainingRun

MODEL = Path("a b") / "family" / "step_2.onnx"
DESIGN = Design(get_architecture("tiny"), "ghost")


def test_nothing_is_shown_before_a_training_has_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    before: list[str] = []

    def train(task: object, *, on_progress) -> None:
        before.append(screen.getvalue())
        on_progress(Status(3, 40, 0.25, 0.01, 12.0))

    monkeypatch.setattr("lpsnet.search.train.train_candidate", train)
    monkeypatch.setattr("lpsnet.cli.train.sys", SimpleNamespace(stderr=SimpleNamespace(isatty=lambda: True)))
    terminal = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr("lpsnet.cli.output.console", lambda json_to=None: terminal)
    expansion._train_and_report(SimpleNamespace())
    assert "loss" not in before[0]
    assert "nan" not in screen.getvalue()
    assert "loss 0.250" in screen.getvalue()


def next_training(monkeypatch: pytest.MonkeyPatch, capsys, recipe: str, settings: list[str]) -> TrainingRun:
    """The training that the command printed at the end of an expansion begins."""
    run = ExpansionRun(
        data="scenes:size=64x128",
        recipe=get_candidate_recipe(recipe).with_overrides(parse_overrides(settings)),
        target=Target((64, 128), num_threads=1),
        split="train+extra",
        interaction="bilateral_a",
    )
    best = SimpleNamespace(design=DESIGN)
    expansion._print_next(SimpleNamespace(best=best, model=lambda member: MODEL), run, recipe, settings, None)
    program, command, *words = shlex.split(capsys.readouterr().out.removeprefix("Next: "))
    assert (program, command) == ("lpsnet", "train")
    begun: list[TrainingRun] = []

    def train(run: TrainingRun, *words: object, **options: object) -> SimpleNamespace:
        begun.append(run)
        return SimpleNamespace(evaluation=None, model=MODEL)

    monkeypatch.setattr("lpsnet.training.segmentation.train", train)
    monkeypatch.setattr("lpsnet.cli.train.find_checkpoint", Path)
    result = command_line.run("train", *words)
    assert result.code == 0, result.err
    return begun[0]


def test_the_best_network_is_trained_as_its_candidates_were(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["iterations=4", "batch_size=2", "learning_rate=0.25", "precision=f32", "crop_size=64x128"]
    begun = next_training(monkeypatch, capsys, "demo_proxy", settings)
    full = get_recipe("demo")
    assert (begun.data, begun.split, begun.input_size) == ("scenes:size=64x128", "train+extra", (64, 128))
    assert (begun.architecture, begun.block, begun.interaction) == (DESIGN.architecture, "ghost", "bilateral_a")
    assert begun.init == MODEL.with_suffix(".safetensors")
    changed = {"batch_size": 2, "learning_rate": 0.25, "precision": "f32"}
    assert begun.recipe == full.with_overrides(changed), "as long, and with crops as large, as the full recipe says"


@pytest.mark.parametrize(("settings", "form"), [([], "plain"), (["form=reparameterised"], "reparameterised")])
def test_it_keeps_the_form_of_its_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], settings: list[str], form: str
) -> None:
    begun = next_training(monkeypatch, capsys, "camvid_proxy", settings)
    assert begun.recipe == get_recipe("camvid_small").with_overrides({"form": form})

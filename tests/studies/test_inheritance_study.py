"""The study of inheritance: what it concludes from given curves, and a run of it on a few tiny scenes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.evaluation.metrics import ConfusionMatrix
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.search.operations import Operation, SearchNetwork
from lpsnet.search.train import CandidateTask
from lpsnet.studies import inheritance
from lpsnet.studies import inheritance as inheritance_study
from lpsnet.studies.inheritance import (
    Comparison,
    Start,
    TrainedChild,
    compare_inheritance,
    compare_until_flat,
)
from lpsnet.studies.study import Outcome
from lpsnet.training.config import get_recipe

DATA = "scenes:size=48x64,num_train=4,num_val=2"
PARENT = SearchNetwork((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", 0, 0))
CHANGES = [(Operation("depth", (0, 0, 0, 1, 1)), 1), (Operation("resolution", (0, "1/8", 0)), 4)]
RECIPE = get_recipe("demo").with_overrides(
    {"iterations": 1, "batch_size": 2, "crop_size": (48, 64), "precision": "f32", "num_workers": 1}
)


def run(start: Start, iterations: int, miou: float, *, seed: int = 0, at_start: float | None = None) -> TrainedChild:
    return TrainedChild(start, iterations, seed, miou, at_start, ((iterations, miou),), 1.0, None, "run", {})


def test_flat_reached_and_share() -> None:
    runs = (
        run("scratch", 800, 60.0),
        run("scratch", 200, 50.0),
        run("scratch", 400, 59.6),  # 800 adds less than half a point
        run("inherited", 50, 58.0, at_start=55.0),
        run("inherited", 100, 59.5, seed=0, at_start=55.0),
        run("inherited", 100, 59.9, seed=1, at_start=57.0),
    )
    comparison = Comparison("depth=0,0,0,1,1 x 1", "B=…", 55.0, runs)
    assert comparison.curve("scratch") == [(200, 50.0), (400, 59.6), (800, 60.0)]
    assert comparison.curve("inherited") == [(50, 58.0), (100, pytest.approx(59.7))]
    assert (comparison.flat, comparison.is_flat) == ((400, 59.6), True)
    assert comparison.reached == (100, pytest.approx(59.7))
    assert comparison.share == 0.25
    assert comparison.at_start == 56.0  # the mean over seeds, not over runs


def test_a_curve_that_still_rises_is_marked() -> None:
    runs = (run("scratch", 200, 50.0), run("scratch", 400, 52.0), run("inherited", 100, 51.0, at_start=45.0))
    comparison = Comparison("width=0,0,0,32,32 x 1", "B=…", 45.0, runs)
    assert (comparison.flat, comparison.is_flat) == ((400, 52.0), False)
    assert (comparison.reached, comparison.share) == (None, None)


def compare(out: Path, *, names: list[str] | None = None, **options: object) -> list[Comparison]:
    given = {
        "parent_iterations": 3,
        "scratch_iterations": [2],
        "inherited_iterations": [1],
        "recipe": RECIPE,
        **options,
    }
    seen = [] if names is None else names
    return compare_inheritance(
        PARENT, CHANGES, data=DATA, out=out, on_progress=lambda name, status: seen.append(name), **given
    )


def test_a_study_is_run_once(tmp_path: Path) -> None:
    first: list[str] = []
    comparisons = compare(tmp_path, names=first)
    assert [each.operation for each in comparisons] == ["depth=0,0,0,1,1 x 1", "resolution=0,1/8,0 x 4"]
    assert [each.child for each in comparisons] == [
        "B=1,1,1,2,2;C=4,4,8,8,8;R=1",
        "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2",
    ]
    assert [(it.start, it.iterations) for it in comparisons[0].runs] == [("scratch", 2), ("inherited", 1)]
    assert len(first) == 3 + 2 * (2 + 1)
    expected = parent_miou(tmp_path)
    assert [each.parent_miou for each in comparisons] == pytest.approx([expected, expected])
    inherited = comparisons[0].runs[1]
    assert inherited.inherited is not None
    assert inherited.inherited["preserving"] == "exact"
    assert inherited.at_start == pytest.approx(expected, abs=0.2)
    assert inherited.curve == ((1, inherited.miou),)

    results = sorted((tmp_path / "results").iterdir())
    assert len(results) == 5
    results[-1].unlink()
    again: list[str] = []
    assert [each.curve("scratch") for each in compare(tmp_path, names=again)] == [
        each.curve("scratch") for each in comparisons
    ]
    assert len(set(again)) <= 1, "only the run whose result is missing"

    with pytest.raises(RunError, match="is the result of other settings"):
        compare(tmp_path, recipe=RECIPE.with_overrides({"learning_rate": 0.01}))
    results[0].write_text(json.dumps({"start": "scratch"}))
    with pytest.raises(RunError, match="is no result of this study"):
        compare(tmp_path)


def test_from_scratch_until_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are given: depth is flat at 4, which 8 shows; a new path rises by 1 up to the longest."""
    curves = {"2": {2: 40.0, 4: 45.0, 8: 45.25}, "1,1/2": {2: 40.0, 4: 41.0, 8: 42.0, 16: 43.0}}
    trained: list[tuple[str, str, int, int, str]] = []

    def do(study: object, name: str, start: Start, task: CandidateTask) -> TrainedChild:
        recipe, child = task.run.recipe, str(task.design.architecture)
        curve = next((it for key, it in curves.items() if f",{key};" in child or child.endswith(f"={key}")), {})
        length = recipe.iterations
        assert length is not None
        miou = 45.0 if start == "inherited" and length >= 2 else curve.get(length, 30.0)
        parent = "" if task.parent is None else Path(task.parent).parent.name
        trained.append((child, start, length, recipe.seed, parent))
        done = run(start, length, miou + (recipe.seed - 0.5), seed=recipe.seed)
        return replace(done, name=name, settings=task.run.settings())

    monkeypatch.setattr(inheritance._Study, "_do", do)
    depth, path = compare_until_flat(
        PARENT,
        CHANGES,
        data=DATA,
        recipe=RECIPE,
        first_iterations=2,
        most_iterations=16,
        inherited_shares=[0.25, 0.5],
        out=tmp_path,
        seeds=(0, 1),
    )
    assert depth.curve("scratch") == [(2, 40.0), (4, 45.0), (8, 45.25)]
    assert (depth.flat, depth.is_flat, depth.reached, depth.share) == ((4, 45.0), True, (2, 45.0), 0.5)
    assert path.curve("scratch") == [(2, 40.0), (4, 41.0), (8, 42.0), (16, 43.0)]
    assert (path.flat, path.is_flat, path.reached, path.share) == ((16, 43.0), False, (4, 45.0), 0.25)
    parents = {it[3]: it for it in trained if it[0] == str(PARENT.design.architecture)}
    assert [parents[seed][2] for seed in (0, 1)] == [16, 16], "as long as the longest child"
    assert len(trained) == 2 + 2 * (3 + 2) + 2 * (4 + 2)
    for _, start, _, seed, parent in trained:
        assert parent.endswith(f"-scratch-16-{seed}") == (start == "inherited")


def parent_miou(out: Path) -> float:
    """Scored here: logits, upsampled, argmax, one confusion matrix."""
    (folder,) = (path for path in (out / "runs").glob("*-scratch-3-0") if "from" not in path.name)
    net, split = load_checkpoint(folder / "model.safetensors"), open_dataset(DATA).split("val")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    matrix = ConfusionMatrix(split.label_space.num_classes)
    for sample in (split[index] for index in range(len(split))):
        image = ((torch.from_numpy(sample.image) / 255 - mean) / std).permute(2, 0, 1)[None]
        with torch.no_grad():
            logits = torch.nn.functional.interpolate(net(image), (48, 64), mode="bilinear", align_corners=True)
        matrix.update(sample.labels, logits.argmax(1)[0].to(torch.uint8).numpy())
    counts = torch.from_numpy(matrix.matrix).double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return float(100 * (counts.diagonal() / union)[union > 0].mean())


def _child(name: str, scratch: float, inherited: tuple[float, float], *, share: float | None) -> dict[str, object]:
    return {
        "operation": name,
        "parent_miou": 40.0,
        "at_start": 39.0,
        "share": share,
        "is_flat": share is not None,
        "scratch": [[100, 40.0], [400, scratch]],
        "inherited": [[25, inherited[0]], [100, inherited[1]]],
    }


def test_what_the_study_says_of_shares_and_ranking() -> None:
    """From scratch a < b < c. After 25 iterations the inherited order is reversed, after 100 it is the same."""
    children = [
        _child("a", 50.0, (46.0, 47.0), share=0.25),
        _child("b", 51.0, (45.0, 48.0), share=None),
        _child("c", 52.0, (44.0, 49.0), share=0.5),
    ]
    key = {"data": DATA, "recipe": RECIPE.model_dump(mode="json")}
    found = inheritance_study.report([Outcome(key, {"children": children}, "here", {}, "2026-01-01")])
    first, second, third, ranking = found.findings
    assert first == "a: inherited, 0.25 of the iterations do what all do from scratch."
    assert second.startswith("b: no inherited training came to where the curve from scratch becomes flat. From scratch")
    assert third == "c: inherited, 0.5 of the iterations do what all do from scratch."
    assert ranking.endswith("from scratch for 400 iterations: -1.00 after 25 iterations, 1.00 after 100 iterations.")
    rows = [tuple(row[name] for name in ("iterations", "scratch_miou", "inherited_miou")) for row in found.rows[:3]]
    assert rows == [(25, None, 46.0), (100, 40.0, 47.0), (400, 50.0, None)]
    assert len(found.rows) == 9

"""`--network` of the commands: the whole way, and what is refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import any_networks
import numpy as np
import pytest
from command_line import Result
from trained_networks import expected_labels

from lpsnet.data.synthetic import SceneSplit
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("short_timing")

DATA = "scenes:size=48x64,num_train=6,num_val=2"
NETWORK = ("--network", any_networks.spec("plain"))
TRAIN = ("train", "--data", DATA, "--recipe", "demo", "--set", "iterations=4", "--set", "crop_size=48x64")


@pytest.fixture
def model(run: Callable[..., Result], tmp_path: Path) -> Path:
    done = run(*TRAIN, *NETWORK, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert f"--network {any_networks.spec('plain')}" in done.out  # of the next command
    return tmp_path / "run/model.safetensors"


def test_train_evaluate_export_segment_and_report(run: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    scores, exported, image = tmp_path / "scores.json", tmp_path / "net.onnx", tmp_path / "street.png"
    done = run("evaluate", "--model", model, "--data", DATA, *NETWORK, "--json", scores)
    assert done.code == 0, done.err
    own = json.loads((model.parent / "evaluation.json").read_text())["miou"]
    assert json.loads(scores.read_text())["miou"] == pytest.approx(own, abs=0.5)
    assert run("export", "--model", model, "--out", exported, "--data", DATA, *NETWORK).code == 0
    photo = SceneSplit(size=(48, 64), count=1, seed=5, name="street")[0].image
    labels = np.asarray(Segmenter(exported)(photo))
    assert (labels == expected_labels(load_checkpoint(model), photo)).mean() > 0.999
    lead = "network any_networks.py:plain"
    for page in (model.parent, model, exported):
        assert run("report", page, *NETWORK, "--out", tmp_path / "page.html").code == 0
        assert lead in (tmp_path / "page.html").read_text()
    assert not image.exists()


def test_info_names_the_code_and_counts_where_it_is_given(
    run: Callable[..., Result], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPSNET_NETWORKS", "")
    shown = run("info", model)
    assert shown.code == 0
    assert "network: any_networks.py:plain" in shown.out
    assert "GMACs" not in shown.out
    assert run("info", model, *NETWORK, "--size", "32x64", "--json", tmp_path / "info.json").code == 0
    figures = json.loads((tmp_path / "info.json").read_text())
    assert figures["macs"] == 512 * 8 * 27 + 128 * 12 * 72 + 128 * 8 * 12


def test_benchmark_of_a_network_with_random_weights_and_of_its_checkpoint(
    run: Callable[..., Result], model: Path, tmp_path: Path
) -> None:
    quick = ("--size", "64x96", "--protocol", "quick", "--no-memory", "--json", tmp_path / "times.json")
    assert run("benchmark", *NETWORK, *quick, "--runtime", "onnxruntime", "--precision", "int8").code == 0
    (row,) = json.loads((tmp_path / "times.json").read_text())["results"]
    assert (row["model"], row["precision"]) == ("any_networks.py:plain", "int8")
    assert row["macs"] == 32 * 48 * 8 * 27 + 16 * 24 * 12 * 72 + 16 * 24 * 19 * 12
    assert run("benchmark", model, *NETWORK, *quick).code == 0
    (row,) = json.loads((tmp_path / "times.json").read_text())["results"]
    assert row["model"] == "model.safetensors"


def one_line(done: Result, *parts: str) -> None:
    """A mistake of the user's."""
    assert done.code == 2
    assert done.err.startswith("lpsnet: ")
    assert done.err.count("\n") == 1, done.err
    for part in parts:
        assert part in done.err


@pytest.mark.parametrize("name", ["raises", "leaves", "nothing", "failing", "a_tuple", "missing"])
def test_networks_that_cannot_be_used_give_one_line(run: Callable[..., Result], name: str, tmp_path: Path) -> None:
    done = run(*TRAIN, "--network", any_networks.spec(name), "--out", tmp_path / "run")
    one_line(done, "any_networks.py", name)
    done = run("benchmark", "--network", any_networks.spec(name), "--size", "64x96", "--protocol", "quick")
    one_line(done, "any_networks.py", name)


def test_what_the_code_prints_does_not_come_between_json(run: Callable[..., Result]) -> None:
    words = ("--size", "64x96", "--protocol", "quick", "--no-memory", "--json", "-")
    done = run("benchmark", "--network", any_networks.spec("printing"), *words)
    assert done.code == 0, done.err
    assert json.loads(done.out)["results"]


def test_commands_that_take_no_other_network_say_so(run: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    data, out = ("--data", DATA), ("--out", tmp_path / "x")
    one_line(run("expand", *data, *NETWORK, *out), "expand grows networks of this package")
    one_line(run("study", "widths", *NETWORK, *out), "study widths does not use --network")
    grown = run("study", "grown", "--models", model, *NETWORK, *out)
    one_line(grown, "study grown does not use --network")
    for option in (("--arch", "tiny"), ("--block", "ghost"), ("--encoder", "efficientnet_lite0")):
        one_line(run(*TRAIN, *NETWORK, *option, *out), f"{option[0]} describes networks of this package")
    one_line(run("benchmark"), "there is nothing to measure")
    one_line(run("evaluate", "--model", model, *data, "--network", "plain"), "FILE.py:FUNCTION")


def test_a_checkpoint_without_its_code_says_what_to_give(
    run: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LPSNET_NETWORKS", "")
    one_line(run("evaluate", "--model", model, "--data", DATA), "--network PATH/any_networks.py:plain")


def test_a_study_takes_a_checkpoint_of_other_code(run: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    done = run("study", "exports", "--models", model, *NETWORK, "--data", DATA, "--out", tmp_path / "study")
    assert done.code == 0, done.err
    assert "at least 100.0" in done.out or "at least 99.9" in done.out

"""Names on the command line: what shells offer, what a misspelt one is answered, and that every help has an example."""

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import typer

import lpsnet
from lpsnet.cli import app
from lpsnet.data.synthetic import SCENES
from lpsnet.export.onnx import export_onnx
from lpsnet.inference import hub as models
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.record import ModelRecord

ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
DATA = "scenes:size=48x64,num_train=4,num_val=2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image, a model and a checkpoint."""
    folder = tmp_path_factory.mktemp("names")
    cv2.imwrite(str(folder / "p.png"), np.zeros((48, 64, 3), np.uint8))
    net = lpsnet.create_model(ARCH, num_classes=SCENES.num_classes).eval()
    save_checkpoint(net, folder / "m.safetensors", record=default_record(net, label_space=SCENES))
    export_onnx(net, folder / "model.onnx", record=ModelRecord(architecture=ARCH, label_space=SCENES))
    return folder


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run in the folder, and its model is one that comes with the package."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(models, "list_models", lambda: {"streets_s": folder / "model.onnx"})
    return folder


# what is typed -> what it is answered with
MISSPELT = {
    "segment p.png --model model.onnx --runtime onnxruntim": "onnxruntime",
    "segment p.png --model model.onnx --runtime OpenVINO_": "openvino",
    "segment p.png --model model.onnx --precision fp32": "f32",
    "segment p.png --model model.onnx --write side_by_side": "side-by-side",
    "segment p.png --model street_s": "streets_s",
    "segment p.png --model modell.onnx": "model.onnx",
    "evaluate --model model.onnx --data scene": "scenes",
    f"evaluate --model model.onnx --data {DATA} --split vall": "val",
    "evaluate --model model.onnx --data scenes:siz=48x64": "size",
    f"train --data {DATA} --out o --arch lpsnet_x": "lpsnet_s",
    f"train --data {DATA} --out o --recipe demoo": "demo",
    f"train --data {DATA} --out o --recipe demo --block sep_conv3x3": "sepconv3x3",
    f"train --data {DATA} --out o --recipe demo --interaction Bilateral-B": "bilateral_b",
    f"train --data {DATA} --out o --recipe demo --set epoch=3": "epochs",
    f"train --data {DATA} --out o --recipe demo --set precision=bf61": "bf16",
    f"train --data {DATA} --out o --recipe demo --set schedule=ploy": "poly",
    "pretrain --data . --out o --recipe imagnet": "imagenet",
    "info lpsnet-m": "lpsnet_m",
    "info lpsnet_s --block gost": "ghost",
    "info lpsnet_s --interaction diret_b": "direct_b",
    "export --model m.safetensors --out a.onnx --to onxx": "onnx",
    "export --model m.safetensors --out a.onnx --precision fp16": "f16",
    f"expand --data {DATA} --out o --recipe demo_prox": "demo_proxy",
    f"expand --data {DATA} --out o --recipe demo_proxy --size 48x64 --runtime onnxruntme": "onnxruntime",
    f"expand --data {DATA} --out o --recipe demo_proxy --size 48x64 --precision f3": "f32",
    f"expand --data {DATA} --out o --recipe demo_proxy --size 48x64 --executor loca": "local",
    f"expand --data {DATA} --out o --recipe demo_proxy --size 48x64 --operations dpth=0,0,0,1,1": "depth",
    f"expand --data {DATA} --out o --recipe demo_proxy --start tinyy": "tiny",
    "benchmark model.onnx --size 48x64 --protocol quik": "quick",
    "benchmark lpsnet_ss --size 48x64": "lpsnet_s",
    "study conv-type --out o": "conv-types",
    "study widths --out o --scale smal": "small",
    "study widths --out o --runtime onnx-runtime": "onnxruntime",
    "data check scene": "scenes",
    "segmnt p.png": "segment",
    "data chek p.png": "check",
}


@pytest.mark.parametrize("line", MISSPELT)
def test_a_misspelt_name_is_answered_with_the_nearest(run, place: Path, line: str) -> None:
    result = run(*line.split())
    assert result.code == 2
    words = (result.out + result.err).split()
    assert f"id you mean '{MISSPELT[line]}'?" in " ".join(words)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("lpsnet seg", {"segment"}),
        ("lpsnet segment x.png --runtime o", {"onnxruntime", "onnxruntime_cuda", "openvino"}),
        ("lpsnet segment x.png --write co", {"colours", "confidence", "coco"}),
        ("lpsnet train --arch lpsnet_", {"lpsnet_s", "lpsnet_m", "lpsnet_l"}),
        ("lpsnet train --interaction bil", {"bilateral_a", "bilateral_b"}),
        ("lpsnet export --to o", {"onnx", "openvino"}),
        ("lpsnet segment x.png --model ./x", set()),
    ],
)
def test_shells_are_offered_names(run, monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]) -> None:
    """Asked as bash asks: with the line and the place of the word in the environment."""
    monkeypatch.setenv("_LPSNET_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    result = run()
    assert (set(result.out.split()), result.err) == (expected, "")


def test_every_offer_is_a_name_that_there_is() -> None:
    """Tables are found by the places written down for them, and no command has lost a parameter of the list."""
    from lpsnet import cli as completing

    typed = {parameter.name for command in commands(app).values() for parameter in command.params}
    for key, offers in completing._OFFERS.items():
        assert key.split()[-1] in typed, key
        assert all(list(completing._names(offer)) for offer in offers if offer != completing._MODELS), key


def commands(app: typer.Typer) -> dict[str, object]:
    """Every command with its whole name."""
    found = {}
    pending = [("", typer.main.get_command(app))]
    while pending:
        name, command = pending.pop()
        if below := getattr(command, "commands", None):
            pending += [(f"{name} {part}".strip(), one) for part, one in below.items()]
        else:
            found[name] = command
    return found


@pytest.mark.parametrize("name", commands(app))
def test_every_help_has_an_example_that_is_parsed(run, name: str) -> None:
    result = run(*name.split(), "--help")
    assert result.code == 0
    assert "Example" in result.out
    text = commands(app)[name].help
    assert f"`lpsnet {name}" in text, "the example is the command itself"


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"]])
def test_groups_have_examples_too(run, words: list[str]) -> None:
    assert "Example" in run(*words).out

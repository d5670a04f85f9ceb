"""Studies of exported files: what they say is what an evaluation by hand says. No latency is judged."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("nncf")
pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

import torch
from matplotlib.figure import Figure

from lpsnet.benchmark import timing
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.export.export import checkpoint_for_runtime
from lpsnet.inference.engines import PRECISIONS
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.studies import exports
from lpsnet.studies.running import find_study, run_study
from lpsnet.studies.study import Outcome, Settings

DATA = "scenes:size=64x96,num_train=3,num_val=2"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    num_classes = open_dataset(DATA).split("val").label_space.num_classes
    net = create_model("B=1,1,1,1,1;C=4,8,8,8,8;R=3/4,1/4", num_classes=num_classes)
    net(torch.randn(2, 3, 64, 96))
    torch.nn.init.normal_(net.head.weight)
    record = default_record(net, label_space=open_dataset(DATA).split("val").label_space)
    path = tmp_path_factory.mktemp("study") / "model.safetensors"
    save_checkpoint(net.eval(), path, record=record)
    return path


def test_every_format_is_compared_at_every_size(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "SIZES", ((64, 96), (47, 53)))
    settings = Settings(models=checkpoint, data=(DATA,), num_threads=1)
    rows = run_study(find_study("exports"), settings, tmp_path).report.rows
    assert [(row["format"], row["size"]) for row in rows] == [
        (name, size) for name in ("onnx", "openvino", "ncnn") for size in ("64x96", "47x53")
    ]
    for row in rows:
        assert row["pictures"] == 2
        assert row["least_same_label_percent"] >= 99.9
        assert row["segmenter_least_same_label_percent"] >= 99.5
        assert 0 < row["scores_differ_by"] < 1e-3


def test_a_file_of_another_network_shows(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = exports.export

    def other(net: torch.nn.Module, *args: object, **options: object) -> object:
        with torch.no_grad():
            net.head.weight.neg_()
        written = own(net, *args, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            net.head.weight.neg_()
        return written

    monkeypatch.setattr(exports, "SIZES", ((64, 96),))
    monkeypatch.setattr(exports, "FORMATS", {"onnx": exports.FORMATS["onnx"]})
    monkeypatch.setattr(exports, "export", other)
    (row,) = run_study(find_study("exports"), Settings(models=checkpoint, data=(DATA,)), tmp_path).report.rows
    assert row["least_same_label_percent"] < 90
    assert row["segmenter_least_same_label_percent"] < 90


@pytest.mark.slow
def test_precisions_are_timed_beside_f32_and_scored(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = replace(timing.PROTOCOLS["quick"], warm_up_s=0.0, duration_s=0.01, turn_s=0.001)
    monkeypatch.setitem(timing.PROTOCOLS, exports.PROTOCOL, short)
    settings = Settings(
        models=checkpoint, data=(DATA,), runtimes=("onnxruntime", "openvino"), num_threads=1, size=(64, 96)
    )
    rows = run_study(find_study("precisions"), settings, tmp_path / "study").report.rows
    found = {(row["engine"].split()[0], row["precision"]): row for row in rows}
    assert {("onnxruntime", "f32"), ("onnxruntime", "int8"), ("openvino", "f32"), ("openvino", "int8")} <= found.keys()
    whole = checkpoint_for_runtime(checkpoint, tmp_path, "f32", runtime="onnxruntime", size=(64, 96))
    for runtime in ("onnxruntime", "openvino"):
        row = found[runtime, "f32"]
        segment = Segmenter(whole, runtime=runtime)
        assert row["miou"] == pytest.approx(evaluate(segment, open_dataset(DATA).split("val")).miou)
        assert (row["times_as_fast_as_f32"], row["miou_lost"]) == (1.0, 0.0)
        int8 = found[runtime, "int8"]
        assert int8["miou_lost"] == pytest.approx(row["miou"] - int8["miou"])
    assert set(found) <= {(runtime, each) for runtime in ("onnxruntime", "openvino") for each in PRECISIONS}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("precisions", Settings(), "one trained model, --models FILE, and its data set"),
        (
            "precisions",
            Settings(models=Path("FILE"), data=(DATA,), runtimes=("ncnn",)),
            "runs onnxruntime and openvino",
        ),
        ("exports", Settings(data=(DATA, "scenes")), "one data set"),
    ],
)
def test_senseless_wishes_are_refused(
    checkpoint: Path, tmp_path: Path, name: str, settings: Settings, message: str
) -> None:
    chosen = replace(settings, models=checkpoint) if settings.models else settings
    with pytest.raises(RunError, match=message):
        run_study(find_study(name), chosen, tmp_path)


def test_precisions_that_could_not_be_scored_are_listed() -> None:
    figures = {"times_as_fast_as_f32": 2.0, "miou_lost": None, "miou": None, "network_ms": 1}
    row = {"engine": "e", "precision": "int8", **figures}
    outcome = Outcome({"precisions": "x"}, {"rows": [row], "problems": ["e, int8: other classes"]}, "here", {}, "2026")
    found = exports.report_precisions([outcome])
    assert found.findings == ("e, int8: 2.00 times as fast as f32, not scored.", "e, int8: other classes")
    found.draw(Figure())

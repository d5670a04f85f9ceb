"""A whole fit on generated scenes with small networks."""

import dataclasses
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lpsnet
from lpsnet import fitting
from lpsnet.benchmark import device as device_module
from lpsnet.benchmark.device import Device
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import RunError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.fitting import plan as planning
from lpsnet.inference.model_file import read_record
from lpsnet.models.encoders import Start
from lpsnet.report import html
from lpsnet.report.report import write_report

pytestmark = pytest.mark.usefixtures("short_timing")
SCENES = "scenes:size=64x96,num_train=12,num_val=4"
ROWS = (
    Start("small", "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "conv3x3", "", 0.1),
    Start("large", "B=1,1,1,2,2;C=4,8,8,16,16;R=1,1/2;D=8;X=gate", "conv3x3", "", 0.2),
)
SETTINGS = {"budget_ms": 1000.0, "minutes": 0.2, "runtime": "onnxruntime", "precision": "f32", "threads": 1}


@pytest.fixture(autouse=True)
def small(monkeypatch) -> None:
    monkeypatch.setattr(planning, "STARTS", ROWS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, short_timing) -> fitting.Fit:
    patch = pytest.MonkeyPatch()
    patch.setattr(planning, "STARTS", ROWS)
    patch.setattr(planning, "CONTEST_MINUTES", 0.2)
    fitted = lpsnet.fit(SCENES, out=tmp_path_factory.mktemp("fit"), **SETTINGS)
    patch.undo()
    return fitted


def test_what_comes_out(finished: fitting.Fit) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    assert {"model.onnx", "model.safetensors", "plan.json", "fit.json", "how.md", "benchmark.json"} <= names
    assert set(finished.trained) == {"small", "large", "training"}
    held = json.loads((finished.folder / "fit.json").read_text())
    assert held["miou"] == finished.evaluation.miou
    robust = finished.evaluation.robustness
    assert robust is not None
    assert (robust.num_images, robust.clean_miou) == (4, finished.evaluation.miou)
    assert held["miou_corrupted"] == robust.mean_miou
    assert held["latency_ms"] == finished.latency_ms > 0
    assert read_record(finished.model).training["recipe"]["name"] == "auto"


def test_the_training_that_a_report_shows(finished: fitting.Fit, tmp_path: Path) -> None:
    assert fitting.current_training(tmp_path) == tmp_path / "training"
    assert fitting.current_training(finished.folder) == finished.folder / "training"
    (tmp_path / "contest" / "small").mkdir(parents=True)
    (tmp_path / "contest" / "small" / "run.json").write_text("{}")
    assert fitting.current_training(tmp_path) == tmp_path / "contest" / "small"


def test_its_report_has_the_robustness_of_the_delivered_file(finished: fitting.Fit) -> None:
    page = write_report(finished.folder)
    assert page == finished.folder / "report.html"
    text = page.read_text(encoding="utf-8")
    for title in ("What was decided", "The files that came out", "Curves", "By class"):
        assert f"<h2>{title}</h2>" in text
    latency = f"{html.milliseconds(finished.latency_ms)}<small> ms of 1,000</small>"
    assert latency in re.sub(r"\s+<small>", "<small>", text)
    assert all(reason.partition(": ")[2].split(",")[0] in text for reason in finished.plan.reasons)
    assert "<h2>Robustness</h2>" in text
    assert f"{finished.evaluation.robustness.mean_miou:.1f} in the mean" in text
    assert text.count("data:image/jpeg") > 13


def test_the_file_scores_what_the_fit_says(finished: fitting.Fit) -> None:
    segmenter = lpsnet.Segmenter(finished.model)
    val = open_dataset(finished.plan.data).split("val")
    again = evaluate(segmenter, val, protocol={})
    assert again.miou == pytest.approx(finished.evaluation.miou, abs=0.01)


def test_how_names_the_decisions_and_commands_that_run(finished: fitting.Fit) -> None:
    text = (finished.folder / "how.md").read_text()
    assert f"{finished.evaluation.miou:.2f} mIoU" in text
    assert all(reason in text for reason in finished.plan.reasons)
    for line in text.partition("```sh\n")[2].partition("```")[0].splitlines():
        assert line.startswith("lpsnet ")


def test_started_again_nothing_is_done_twice(finished: fitting.Fit, monkeypatch) -> None:
    monkeypatch.setattr(planning, "make_plan", lambda *_, **__: pytest.fail("planned again"))
    monkeypatch.setattr(fitting, "train", lambda *_, **__: pytest.fail("trained again"))
    before = {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.name != ".lock"}
    again = lpsnet.fit(SCENES, out=finished.folder, **SETTINGS)
    assert {path: path.stat().st_mtime_ns for path in finished.folder.rglob("*") if path.name != ".lock"} == before
    assert again.to_dict() == finished.to_dict()
    assert again.evaluation == finished.evaluation


def test_a_fit_in_int8_delivers_the_int8_file(tmp_path: Path, monkeypatch) -> None:
    settings = {**SETTINGS, "precision": "int8", "minutes": 0.1, "start": "small"}
    fitted = lpsnet.fit(SCENES, out=tmp_path / "fit", **settings)
    assert fitted.runnable == fitted.int8 == tmp_path / "fit" / "model-int8.onnx"
    assert [(it.model, it.precision) for it in fitted.benchmark.results] == [
        ("model-int8.onnx", "int8"),
        ("model.onnx", "f32"),
    ]
    val = open_dataset(fitted.plan.data).split("val")
    again = evaluate(lpsnet.Segmenter(fitted.int8, precision="int8"), val, protocol={})
    assert again.miou == pytest.approx(fitted.evaluation.miou, abs=0.01)
    assert "--precision int8" in (tmp_path / "fit" / "how.md").read_text()
    text = write_report(fitted.folder).read_text(encoding="utf-8")
    assert "onnxruntime int8" in text
    assert "In f32" in text
    assert lpsnet.fit(SCENES, out=tmp_path / "fit", **settings).to_dict() == fitted.to_dict()

    (tmp_path / "fit" / "fit.json").unlink()
    monkeypatch.setattr(fitting, "PLANNED_INT8", ((("first",), -200.0),))  # no file holds
    (tmp_path / "fit" / "model-int8.onnx").unlink()
    whole = lpsnet.fit(SCENES, out=tmp_path / "fit", **settings)
    assert (whole.precision, whole.runnable, whole.int8) == ("f32", whole.model, None)
    assert "onnxruntime f32" in whole.words
    assert "would have lost more mIoU than it may" in write_report(whole.folder).read_text(encoding="utf-8")


def test_over_the_budget_the_network_is_delivered_at_a_lower_ratio(finished, tmp_path: Path, monkeypatch) -> None:
    """Its weights are those that were trained; the files are of the lower ratio, and score what it scores."""
    rows = [
        dataclasses.replace(
            ROWS[0], name=f"small-{name}", architecture=ROWS[0].architecture.replace("R=1", f"R={ratio}")
        )
        for name, ratio in (("2", "2"), ("7of8", "7/8"), ("1of2", "1/2"))
    ]
    monkeypatch.setattr(planning, "STARTS", (*ROWS, *rows))
    times = iter([1050.0, 1050.0, 1100.0, 1000.5, 900.0])  # twice of R=1, twice of 7/8, once of 1/2
    monkeypatch.setattr(fitting, "_latency_ms", lambda timed: current[0])
    current, whole = [0.0], fitting.benchmark

    def benchmark(*args, **options):
        current[0] = next(times)
        return whole(*args, **options)

    monkeypatch.setattr(fitting, "benchmark", benchmark)
    monkeypatch.setattr(fitting, "_quantised", lambda *_: None)
    fitted = lpsnet.fit(SCENES, out=tmp_path, **{**SETTINGS, "minutes": 0.1, "start": "small", "budget_ms": 1000.0})
    assert fitted.start == "small-1of2"
    assert (
        str(read_record(fitted.model).architecture)
        == str(read_record(fitted.checkpoint).architecture)
        == rows[2].architecture
    )
    assert read_record(fitted.checkpoint).scores == {}
    trained = load_file(tmp_path / "training" / "model.safetensors")
    assert all(torch.equal(value, trained[name]) for name, value in load_file(fitted.checkpoint).items())
    again = evaluate(lpsnet.Segmenter(fitted.model), open_dataset(fitted.plan.data).split("val"), protocol={})
    assert again.miou == pytest.approx(fitted.evaluation.miou, abs=0.01)
    assert "OVER" not in fitted.words
    assert "as small-1of2 (B=" in (tmp_path / "how.md").read_text()
    assert "as small-1of2 (B=" in write_report(tmp_path).read_text(encoding="utf-8")


def test_what_was_lost_is_made_again(finished: fitting.Fit) -> None:
    (finished.folder / "benchmark.json").write_text("{")
    again = lpsnet.fit(SCENES, out=finished.folder, **SETTINGS)
    assert again.evaluation.miou == pytest.approx(finished.evaluation.miou, abs=0.01)


def test_more_minutes_train_on(finished: fitting.Fit, tmp_path: Path) -> None:
    lpsnet.fit(SCENES, out=tmp_path, **SETTINGS)
    before = len((tmp_path / "training" / "log.csv").read_text().splitlines())
    lpsnet.fit(SCENES, out=tmp_path, **{**SETTINGS, "minutes": 0.35})
    assert len((tmp_path / "training" / "log.csv").read_text().splitlines()) > before


def test_the_plan_alone_on_the_command_line(tmp_path: Path) -> None:
    words = ["fit", SCENES, "--budget-ms", "1000", "--minutes", "5", "--plan", "--out", tmp_path, "--json", "-"]
    words += ["--runtime", "onnxruntime", "--precision", "f32", "--threads", "1", "--start", "lite0-1of4"]
    done = subprocess.run([sys.executable, "-m", "lpsnet", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)["plan"]
    assert plan["choices"][0]["start"] == "lite0-1of4"
    assert not (tmp_path / "training").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_and_started_again_it_ends(tmp_path: Path, number: int) -> None:
    code = "import sys, lpsnet; from lpsnet.fitting import plan; from test_fit import ROWS, SCENES, SETTINGS\n"
    code += f"plan.STARTS = ROWS; lpsnet.fit(SCENES, out={str(tmp_path)!r}, **SETTINGS, reporter=reporter)"
    report = "import contextlib\nreporter = lambda: contextlib.nullcontext(lambda s: print(s.iteration, flush=True))\n"
    process = subprocess.Popen(
        [sys.executable, "-c", report + code], cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 3:
            process.send_signal(number)
            break
    process.communicate()
    assert process.returncode != 0
    fitted = lpsnet.fit(SCENES, out=tmp_path, **SETTINGS)
    assert fitted.model.exists()


def test_a_fit_for_a_device_far_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a process of this machine: another command in place of ssh."""
    address, opened = "ssh://me@there", list[Device]()
    command = [sys.executable, "-u", "-c", device_module._READ_CODE]
    init = Device.__init__
    monkeypatch.setattr(Device, "__init__", lambda self, text, **_: init(self, text, command=command))
    monkeypatch.setattr(Device, "__enter__", lambda self: opened.append(self) or self)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fitted = lpsnet.fit(SCENES, out=tmp_path / "fit", device=address, **SETTINGS)
    assert len(opened) == 4  # at first, for the plan, before the training and at the end; not while the network trains
    assert any(reason.startswith("device: ") and address in reason for reason in fitted.plan.reasons)
    assert (fitted.benchmark.device, fitted.benchmark.results[0].end_to_end) == (address, None)
    assert fitted.latency_ms == fitted.benchmark.results[0].network.median_ms
    assert fitted.evaluation.protocol["device"] == address
    assert fitted.evaluation.protocol["device_label_agreement"] == 100.0
    assert f"timed for the network alone on {address}." in (tmp_path / "fit" / "how.md").read_text()
    with pytest.raises(RunError, match=f"has device = {address}, not None"):
        lpsnet.fit(SCENES, out=tmp_path / "fit", **SETTINGS)

"""Studies of networks on a few generated scenes: all their parts, and what a stopped study makes again."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")
pytest.importorskip("matplotlib")

import any_networks
import study_program

from lpsnet.architecture import Architecture
from lpsnet.benchmark import benchmark as benchmark_module
from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.data.images import read_image
from lpsnet.errors import DivergedError, LpsnetError, RunError
from lpsnet.studies import blocks_interactions as blocks
from lpsnet.studies import comparison, paper_networks
from lpsnet.studies import network_training as training_module
from lpsnet.studies.network_latency import StudyNetwork, input_size, table_2_architecture
from lpsnet.studies.network_training import schedule_of
from lpsnet.studies.running import run_study
from lpsnet.studies.study import Place, Settings
from lpsnet.training import loop

SCENES = "scenes:size=48x64,num_train=4,num_val=2"
SHORT = TimingProtocol(warm_up_s=0, duration_s=0.005, turn_s=0.001)
SETTINGS = Settings(data=(SCENES,), epochs=1.0, num_threads=1)


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark_module, "PROTOCOLS", {"quick": SHORT, "adaptive": SHORT, "paper": SHORT})


def tiny(width: int) -> Architecture:
    return Architecture((1, 1, 1, 1, 1), (width, width, 2 * width, 2 * width, 2 * width), ("1", "1/2"))


def test_interactions_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = {
        name: StudyNetwork(blocks.TABLE_3[name].title, tiny(2), interaction=name)
        for name in ("none", "direct_a", "bilateral_b")
    }
    monkeypatch.setattr(blocks, "NETWORKS", chosen)
    caplog.set_level(logging.INFO, "lpsnet")
    result = run_study(blocks.INTERACTIONS, SETTINGS, tmp_path)
    rows = {row["interaction"]: row for row in result.report.rows}
    assert list(rows) == ["Baseline", "Direct-A", "Bilateral-B"]
    num_seeds = {name: len(row["miou_by_seed"].split()) for name, row in rows.items()}
    once = {name: float(row["miou_by_seed"].split()[0]) for name, row in rows.items()}
    best = sorted(once, key=lambda name: -once[name])[:2]
    assert num_seeds == {name: 3 if name in {*best, "Bilateral-B"} else 1 for name in rows}
    assert rows["Baseline"]["gain"] == rows["Baseline"]["extra_percent"] == 0
    assert all(0 <= row["miou"] <= 100 and row["median_ms"] > 0 for row in rows.values())
    assert rows["Bilateral-B"]["paper_gain"] == pytest.approx(3.0)
    page = result.files[0].read_text()
    assert "These are generated scenes" in page
    assert "The paper (Section 4.2): 90,000 iterations, batch 16, crops of 768x768" in page
    more = 2 * len({*best, "Bilateral-B"})
    assert (
        run_study(blocks.INTERACTIONS, SETTINGS, tmp_path).num_kept == 3 + 1 + 3 + more
    )  # paces, latencies, trainings


def test_conv_blocks_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {block: blocks.BLOCKS[block] for block in ("conv3x3", "sepconv3x3", "ghost")}
    monkeypatch.setattr(blocks, "BLOCKS", rows)
    # tiny where it is trained; the widths at which Table 2's networks have its operations are larger
    monkeypatch.setattr(blocks, "table_2_architecture", lambda c: tiny(c) if c <= 4 else table_2_architecture(c))
    monkeypatch.setattr(blocks, "REFERENCE", ("conv3x3", 3))
    monkeypatch.setattr(blocks, "widths_of_same_latency", _choose_by_measuring_once)
    result = run_study(blocks.CONV_BLOCKS, Settings(data=(SCENES,), epochs=1.0, num_threads=1, num_seeds=1), tmp_path)
    found = {row["block"]: row for row in result.report.rows}
    assert [row["c"] for row in found.values()] == [3, 4, 4]
    assert [row["c_of_paper_gmacs"] for row in found.values()] == [14, 9, 7]
    assert found["3x3 Conv"]["gmacs_at_that_c"] == pytest.approx(18.42, abs=0.01)
    assert "all within 10 %" in result.report.findings[0]
    apart = [row["block"] for row in found.values() if abs(row["times_reference"] - 1) > 0.1]
    stated = [finding for finding in result.report.findings if finding.startswith("Not at one latency: ")]
    assert [finding.split(": ")[1].split(" at c=")[0] for finding in stated] == apart
    assert all(len(row["miou_by_seed"].split()) == 1 for row in found.values())
    assert not list(tmp_path.glob("runs/*/*.onnx"))  # the model files that were timed are gone


def _choose_by_measuring_once(starts: Any, reference: Any, *, measure_once: Any, on_progress: Any) -> Any:
    from lpsnet.studies.blocks_interactions import Choice

    points = [reference, *((block, 4) for block in starts if block != reference[0])]
    times = measure_once(points)
    return {p[0]: Choice(p[1], t / times[0], t / times[0], t / times[0]) for p, t in zip(points, times, strict=True)}


def test_expansion_and_qualitative_share_their_trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [StudyNetwork(f"step {step}", tiny(2 + step)) for step in range(3)]
    monkeypatch.setattr(paper_networks, "networks", lambda count: steps[:count])
    monkeypatch.setattr(paper_networks, "NUM_STEPS", {"small": 3})
    result = run_study(paper_networks.EXPANSION, SETTINGS, tmp_path)
    assert [row["paper_miou"] for row in result.report.rows] == [24.1, 41.4, 53.4]
    assert any("Rank correlation of mIoU with Table 4, 3 steps" in finding for finding in result.report.findings)
    by_workers = run_study(paper_networks.EXPANSION, SETTINGS, tmp_path / "apart", num_workers=2)
    assert [row["miou"] for row in by_workers.report.rows] == [row["miou"] for row in result.report.rows]
    three = dict(zip(paper_networks.SHOWN, steps, strict=True))
    monkeypatch.setattr(paper_networks, "SHOWN", three)
    shown = run_study(paper_networks.QUALITATIVE, Settings(data=(SCENES,), epochs=1.0, num_threads=1), tmp_path)
    assert shown.num_kept == 3 + 3  # paces and trainings
    assert [row["picture"] for row in shown.report.rows] == ["scene_00000", "scene_00001"]
    chosen = Settings(data=(SCENES,), epochs=1.0, num_threads=1, pictures=("scene_00001",))
    assert [row["picture"] for row in run_study(paper_networks.QUALITATIVE, chosen, tmp_path).report.rows] == [
        "scene_00001"
    ]
    with pytest.raises(RunError, match="unknown image 'scene_1'"):
        run_study(
            paper_networks.QUALITATIVE,
            Settings(data=(SCENES,), epochs=1.0, num_threads=1, pictures=("scene_1",)),
            tmp_path,
        )


def test_a_stopped_training_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third of four trainings: the finished ones are not touched, and the third does no step twice."""

    monkeypatch.setattr(loop, "EPOCH_CHECKPOINT_SECONDS", 0)  # a checkpoint after every epoch, however short

    class Stop(BaseException):
        pass

    def stop_late(what: str, part: float) -> None:
        if "seed 1" in what and part > 0.5:
            raise Stop

    settings = study_program.SETTINGS
    with pytest.raises(Stop):
        run_study(study_program.STUDY, settings, tmp_path / "stopped", on_progress=stop_late)
    finished = _finished(tmp_path / "stopped")
    assert len(finished) == 2
    result = run_study(study_program.STUDY, settings, tmp_path / "stopped")
    assert {path: stamp for path, stamp in _finished(tmp_path / "stopped").items() if path in finished} == finished
    straight = run_study(study_program.STUDY, settings, tmp_path / "straight")
    assert result.report.rows == straight.report.rows
    assert all(len(row["miou"]) == 2 for row in result.report.rows)
    _check_logs(tmp_path / "stopped")


@pytest.mark.slow
def test_a_killed_study_repeats_nothing(tmp_path: Path) -> None:
    """kill -9 in the middle of the second training, then the same command."""
    out = tmp_path / "out"
    command = [sys.executable, study_program.__file__, str(out)]
    process = subprocess.Popen(command)
    _wait_for(lambda: len(_finished(out)) == 1 and any(len(log) > 5 for log in _logs(out, finished=False)), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished, lines = _finished(out), (out / "results.jsonl").read_text()
    subprocess.run(command, check=True)
    assert {path: stamp for path, stamp in _finished(out).items() if path in finished} == finished
    assert (out / "results.jsonl").read_text().startswith(lines[: lines.rfind("\n") + 1])
    keys = [json.loads(line)["key"] for line in (out / "results.jsonl").read_text().splitlines()]
    assert len({json.dumps(key) for key in keys}) == len(keys)
    _check_logs(out)


def _finished(out: Path) -> dict[Path, int]:
    """Models of finished trainings and when they were written."""
    return {path: path.stat().st_mtime_ns for path in sorted(out.glob("runs/*/model.safetensors"))}


def _logs(out: Path, *, finished: bool) -> list[Sequence[str]]:
    folders = [path.parent for path in out.glob("runs/*/log.csv")]
    return [
        (folder / "log.csv").read_text().splitlines()
        for folder in folders
        if (folder / "model.safetensors").exists() == finished
    ]


def _check_logs(out: Path) -> None:
    """Every training's log has every iteration once, in order."""
    logs = _logs(out, finished=True)
    assert len(logs) == 4
    for log in logs:
        numbers = [int(line.split(",")[0]) for line in log[1:]]
        assert numbers == list(range(1, len(numbers) + 1)) == list(range(1, 16))  # 40 epochs of 6 images by 16


def _wait_for(condition: Any, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the study ended before it could be killed"
        with contextlib.suppress(FileNotFoundError):
            if condition():
                return
        time.sleep(0.002)
    raise AssertionError("nothing to kill within five minutes")


def test_a_diverging_training_is_reported_and_the_others_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {
        name: StudyNetwork(blocks.TABLE_3[name].title, tiny(2), interaction=name) for name in ("none", "direct_a")
    }
    monkeypatch.setattr(blocks, "NETWORKS", chosen)
    really = training_module.train

    def train(run: Any, *words: Any, **options: Any) -> Any:
        if run.interaction == "direct_a":
            raise DivergedError("the loss is no longer finite at iteration 3")
        return really(run, *words, **options)

    monkeypatch.setattr(training_module, "train", train)
    result = run_study(blocks.INTERACTIONS, Settings(data=(SCENES,), epochs=1.0, num_seeds=1, num_threads=1), tmp_path)
    assert [row["miou"] is None for row in result.report.rows] == [False, True]
    assert "No score, as the training diverged: Direct-A." in result.report.findings


def test_comparison_measures_and_scores_the_users_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lpsnet.data.dataset import open_dataset
    from lpsnet.export.onnx import export_onnx
    from lpsnet.models.checkpoint import default_record
    from lpsnet.models.network import create_model

    monkeypatch.setattr(comparison, "OURS", {"LPS-Net-S": "tiny"})
    files = tmp_path / "files"
    net = create_model(tiny(2), num_classes=8).eval()
    export_onnx(net, files / "own.onnx", record=default_record(net, label_space=open_dataset(SCENES).label_space))
    (files / "foreign_32x64.onnx").write_bytes((files / "own.onnx").read_bytes())
    settings = Settings(models=files, size=(48, 64), data=(SCENES,), num_threads=1)
    result = run_study(comparison.STUDY, settings, tmp_path / "out")
    here = {row["method"]: row for row in result.report.rows if row["source"] == "measured here"}
    assert {name: row["resolution"] for name, row in here.items()} == {
        "own": "48x64",
        "foreign_32x64": "32x64",
        "LPS-Net-S, random weights": "48x64",
    }
    assert here["LPS-Net-S, random weights"]["miou_val"] is None
    assert all(0 <= here[name]["miou_val"] <= 100 for name in ("own", "foreign_32x64"))
    assert here["own"]["fps"] == pytest.approx(1000 / here["own"]["median_ms"])
    assert sum(row["source"].startswith("paper") for row in result.report.rows) == 23 + 24 + 6 + 10
    with pytest.raises(RunError, match=r"no model files in .*; put files of these kinds there: \.onnx"):
        run_study(comparison.STUDY, Settings(models=tmp_path / "out/runs"), tmp_path / "out")


def test_a_file_that_cannot_be_scored_does_not_stop_the_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise LpsnetError("takes images of 32x64 only")

    monkeypatch.setattr(comparison, "benchmark", refuse)
    monkeypatch.setattr(comparison, "candidates", lambda settings, size: ["own"])
    monkeypatch.setattr(comparison, "fingerprint", lambda file: "abc")
    monkeypatch.setattr(comparison, "input_size", lambda file, usual: usual)
    run = comparison._scoring_run(Path("own.onnx"), Settings(size=(48, 64), data=(SCENES,)))
    result = run.work(Place(Path(), lambda what, part: None))
    assert result == {"miou": None, "problems": ["takes images of 32x64 only"]}


def test_a_size_in_a_name_counts() -> None:
    assert input_size(Path("stdc1_512x1024.onnx"), (1, 1)) == (512, 1024)


def test_embedded_leaves_the_file_to_take_along(tmp_path: Path) -> None:
    settings = Settings(size=(64, 96), num_threads=1)
    result = run_study(comparison.EMBEDDED, settings, tmp_path)
    row = result.report.rows[-1]
    assert (row["source"], row["threads"]) == ("measured here", 1)
    (file,) = tmp_path.glob("runs/*/onnxruntime/lpsnet_s.onnx")
    again = run_study(comparison.EMBEDDED, Settings(size=(64, 96), num_threads=1, models=file), tmp_path)
    assert again.report.rows[-1]["method"] == "lpsnet_s"
    assert again.num_kept == 0  # a file of one's own is another run


def test_embedded_needs_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; import lpsnet.studies.running as r; r.find_study('embedded'); "
        "print(r.find_study('embedded').name)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "embedded"


def test_generalisation_takes_its_two_data_sets_alone(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="trains on camvid:PATH and bdd100k:PATH; got 'scenes'"):
        run_study(paper_networks.GENERALISATION, Settings(data=("scenes",)), tmp_path)


def test_recipes_by_scale(tmp_path: Path) -> None:
    images = "scenes:size=256x512,num_train=1,num_val=1"
    half, whole = schedule_of(Settings(), images), schedule_of(Settings(), images, halved=False)
    small = half.recipe
    assert (small.epochs, small.loss, small.form) == (20, "cross_entropy", "plain")
    assert (half.input_size, small.crop_size, small.scale) == ((128, 256), (128, 256), (0.375, 0.75))
    assert (whole.input_size, whole.recipe.crop_size, whole.recipe.scale) == (None, (256, 512), (0.75, 1.5))
    assert schedule_of(Settings(), "scenes:size=128x256,num_train=1,num_val=1").recipe.crop_size == (128, 256)
    assert schedule_of(Settings(epochs=3.0), SCENES).recipe.epochs == 3
    branched = schedule_of(Settings(form="reparameterised"), SCENES).recipe
    assert (branched.form, branched.epochs) == ("reparameterised", 20)
    with pytest.raises(RunError, match="unknown form of a recipe 'deployed'"):
        schedule_of(Settings(form="deployed"), SCENES)
    paper = schedule_of(Settings(scale="paper"), "not looked at").recipe
    assert (paper.iterations, paper.crop_size, paper.learning_rate) == (90_000, (768, 768), 0.01)
    assert schedule_of(Settings(scale="paper"), "", paper="paper_camvid").recipe.learning_rate == 0.03
    with pytest.raises(RunError, match="at paper scale a study needs the images"):
        run_study(blocks.INTERACTIONS, Settings(scale="paper"), tmp_path)


def test_images_of_the_qualitative_study_are_those_segmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From files, with a rule in the place of the networks: S sees class 0 everywhere, M and L what is there."""
    from lpsnet.data.dataset import open_dataset
    from lpsnet.inference.result import colourise

    split = open_dataset(SCENES).split("val")
    truths = {split.image(number).tobytes(): split.labels(number) for number in range(2)}

    class Fake:
        def __init__(self, file: Path, **options: Any) -> None:
            self.name = file.stem

        def __call__(self, image: np.ndarray) -> np.ndarray:
            truth = truths[image.tobytes()]
            return np.zeros_like(truth) if self.name == "lpsnet_s" else truth

    monkeypatch.setattr(paper_networks, "Segmenter", Fake)
    files = tmp_path / "files"
    files.mkdir()
    for name in ("lpsnet_s", "lpsnet_m", "lpsnet_l"):
        (files / f"{name}.onnx").write_bytes(b"x")
    result = run_study(paper_networks.QUALITATIVE, Settings(data=(SCENES,), models=files), tmp_path / "out")
    assert all(row["lpsnet_m_accuracy"] == 100 and row["lpsnet_l_boxes"] > 0 for row in result.report.rows)
    (folder,) = (tmp_path / "out/runs").iterdir()
    assert np.array_equal(read_image(folder / "0_lpsnet_l.png"), colourise(split.labels(0), split.label_space))
    (files / "lpsnet_l.onnx").unlink()
    with pytest.raises(RunError, match=r"no model file in .* begins with lpsnet_l"):
        run_study(paper_networks.QUALITATIVE, Settings(data=(SCENES,), models=files), tmp_path / "out")


def test_the_front_from_end_to_end(tmp_path: Path) -> None:
    """Every network at three rates; its best one, by the first seed, once more with the other seed."""
    settings = Settings(data=(SCENES,), epochs=1.0, archs=(any_networks.ARCH,), peers=(any_networks.spec("plain"),))
    result = run_study(comparison.FRONT, settings, tmp_path)
    ours, peer = result.report.rows
    assert (ours["network"], ours["ours"], ours["seeds"]) == (any_networks.ARCH, True, 2)
    assert (peer["network"], peer["ours"], peer["seeds"]) == ("any_networks.py:plain", False, 2)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    trained = [(line["key"]["trained"], line["result"]["miou"]) for line in lines if "trained" in line["key"]]
    for row in (ours, peer):
        own = [(key["recipe"], miou) for key, miou in trained if ("architecture" in key) == row["ours"]]
        first = {recipe["learning_rate"]: miou for recipe, miou in own if recipe["seed"] == 0}
        assert sorted(first) == list(comparison.LEARNING_RATES)
        assert first[row["learning_rate"]] == max(first.values())
        of_both = [miou for recipe, miou in own if recipe["learning_rate"] == row["learning_rate"]]
        assert row["miou"] == pytest.approx(sum(of_both) / 2)
        assert len(own) == 3 + 1
        assert all(row[f"onnxruntime, threads: {count}: ms"] > 0 for count in (1, 2))
    assert sum("any_networks.py:plain takes" in finding for finding in result.report.findings) == 2
    assert run_study(comparison.FRONT, settings, tmp_path).num_kept == 2 + 2 * 3 + 2 * 4  # latencies, paces, trainings


def test_the_front_beside_peers_is_read_at_their_latency() -> None:
    """Within 5 %, or quicker: worked out by hand."""
    column = "onnxruntime, threads: 1: ms"
    figures = [("small", True, 4.0, 30.0), ("middle", True, 10.4, 33.5), ("large", True, 10.6, 36.0)]
    figures += [("peer", False, 10.0, 34.0), ("tiny", False, 3.0, 20.0), ("unscored", False, 5.0, None)]
    rows = [{"network": name, "ours": ours, column: ms, "miou": miou} for name, ours, ms, miou in figures]
    assert list(comparison._beside_peers(rows, column)) == [
        "onnxruntime, threads: 1: peer takes 10.0 ms and has 34.00 mIoU; middle, 10.4 ms, has 0.50 less.",
        "onnxruntime, threads: 1: tiny takes 3.0 ms and has 20.00 mIoU; none of ours is as quick.",
    ]

"""`lpsnet benchmark`, `lpsnet study` and `lpsnet export --precision int8`, in this process, with short measurements."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import numpy as np
import onnx
import torch

from lpsnet.benchmark import benchmark
from lpsnet.benchmark.timing import TimingProtocol
from lpsnet.cli.benchmark import CandidateMaker, common_size, find_sources
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import LpsnetError
from lpsnet.export.onnx import export_onnx
from lpsnet.inference.model_file import read_record
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import Network, create_model
from lpsnet.models.profile import complexity

SCENES = "scenes:size=48x64,num_train=4,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
SHORT = TimingProtocol(warm_up_s=0, duration_s=0.005, turn_s=0.001)


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PROTOCOLS", {"quick": SHORT, "adaptive": SHORT, "paper": SHORT})


def net() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = create_model(ARCH, num_classes=8)
        made(torch.randn(2, 3, 48, 64))
        torch.nn.init.normal_(made.head.weight)
    return made.eval()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`a/model.safetensors` and `b/model.onnx`, of the classes of scenes, for 48x64."""
    folder = tmp_path_factory.mktemp("files")
    space = open_dataset(SCENES).label_space
    record = default_record(net(), label_space=space).model_copy(update={"input_size": (48, 64)})
    (folder / "a").mkdir()
    save_checkpoint(net(), folder / "a/model.safetensors", record=record)
    export_onnx(net(), folder / "b/model.onnx", record=record)
    return folder


def test_benchmark_puts_models_and_engines_side_by_side(run, files: Path, tmp_path: Path) -> None:
    found = run(
        "benchmark", files / "a/model.safetensors", files / "b/model.onnx", "--threads", 1, "--no-memory",
        "--runtime", "onnxruntime", "--runtime", "pytorch", "--json", tmp_path / "b.json", "--data", SCENES,
    )  # fmt: skip
    assert found.code == 0
    assert "network ms" in found.out  # the table of engines against models
    assert "model.onnx by pytorch: not measured" in found.out
    values = json.loads((tmp_path / "b.json").read_text())
    rows = {(row["model"], row["runtime"]): row for row in values["results"]}
    assert rows.keys() == {
        ("model.safetensors", "onnxruntime"), ("model.safetensors", "pytorch"), ("model.onnx", "onnxruntime"),
    }  # fmt: skip
    assert {row["macs"] for row in rows.values()} == {complexity(net(), size=(48, 64)).macs}
    assert len({round(row["miou"], 3) for row in rows.values()}) == 1
    assert values["size"] == [48, 64]
    assert "the first of scenes" in values["picture"]


def test_benchmark_gives_json_alone_on_standard_output(run) -> None:
    found = run("benchmark", ARCH, "--size", "48x64", "--protocol", "paper", "--no-memory", "--json", "-")
    values = json.loads(found.out)
    assert values["results"][0]["model"] == ARCH
    assert values["results"][0]["end_to_end"] is None
    assert "Measured with onnxruntime" in found.err


def test_export_in_int8_is_calibrated_and_compared(run, files: Path, tmp_path: Path) -> None:
    found = run(
        "export", "--model", files / "a/model.safetensors", "--precision", "int8", "--size", "48x64", "--out",
        tmp_path / "m.onnx", "--data", SCENES, "--num-calibrated", 3, "--max-miou-loss", 50, "--min-agreement", 60,
        "--json", tmp_path / "e.json",
    )  # fmt: skip
    assert found.code == 0, found.err
    assert "Calibrated on 3 images" in found.out
    assert "mIoU on 2 images of val" in found.out
    values = json.loads((tmp_path / "e.json").read_text())
    assert values["num_calibration_pictures"] == 3
    assert [row["precision"] for row in values["precisions"]["results"]] == ["f32", "int8"]
    assert values["precisions"]["results"][1]["miou"] == pytest.approx(values["miou"]["after"], abs=0.5)


def test_export_for_tensorrt_names_the_command(run, files: Path, tmp_path: Path) -> None:
    found = run("export", "--model", files / "a/model.safetensors", "--to", "tensorrt", "--out", tmp_path / "m.onnx")
    assert found.code == 0, found.err
    assert f"Next: trtexec --onnx={tmp_path / 'm.onnx'} --shapes=image:1x3x48x64 --noTF32" in found.out


def test_export_for_a_board_says_what_is_in_its_way(run, files: Path, tmp_path: Path) -> None:
    words = ("export", "--model", files / "a/model.safetensors", "--out", tmp_path / "m.onnx", "--size", "48x64")
    found = run(*words, "--for", "hailo", "--json", tmp_path / "f.json")
    assert found.code == 0, found.err
    (finding,) = json.loads((tmp_path / "f.json").read_text())["findings"]
    assert finding.startswith("Resize (")
    printed = " ".join(found.out.split())
    assert f"In the way of hailo: {finding}" in printed
    assert "Not verified on hardware" in printed
    found = run(*words, "--for", "qnn")
    assert "Nothing is known to be in the way of qnn" in found.out
    found = run(*words, "--for", "qnn", "--to", "openvino")
    assert (found.code, "leave --to openvino out" in found.err) == (2, True)


def test_export_for_a_server_names_the_command_that_serves(run, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "models/street"
    words = ("export", "--model", files / "a/model.safetensors", "--out", out, "--size", "48x64")
    found = run(*words, "--for", "triton", "--json", tmp_path / "f.json")
    assert found.code == 0, found.err
    report = json.loads((tmp_path / "f.json").read_text())
    assert (report["path"], report["size"]) == (str(out / "1/model.onnx"), [48, 64])
    printed = " ".join(found.out.split())
    assert "takes N images of 48x64 as bytes" in printed
    assert f"Next: tritonserver --model-repository {tmp_path / 'models'}" in printed
    assert {path.name for path in out.iterdir()} == {"1", "labels.txt", "config.pbtxt"}
    found = run(*words, "--for", "ovms")
    assert f"Next: ovms --config_path {tmp_path / 'models/config.json'}" in " ".join(found.out.split())
    found = run(*words, "--for", "tritn")
    assert (found.code, "did you mean 'triton'" in found.err) == (2, True)


def test_a_package_for_core_ml_is_said_not_to_have_run(run, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("coremltools", reason="coremltools is not installed: pip install 'lpsnet[coreml]'")
    path = tmp_path / "m.mlpackage"
    found = run("export", "--model", files / "a/model.safetensors", "--to", "coreml", "--out", path, "--size", "48x64")
    assert found.code == 0, found.err
    printed = " ".join(found.out.split())
    assert "not verified on hardware" in printed
    assert "same label" not in printed
    assert f"Next: xcrun coremlcompiler compile {path}" in printed


def test_export_says_why_miou_is_not_compared(run, files: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("path: none\n")
    save_checkpoint(create_model(ARCH, num_classes=3), tmp_path / "three.safetensors")
    found = run("export", "--model", tmp_path / "three.safetensors", "--out", tmp_path / "m.onnx", "--data", SCENES)
    assert found.code == 0, found.err
    assert "mIoU is not compared: the model's classes" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "--model", "a/model.safetensors", "--precision", "int8", "--out", "m.onnx"], "with --data"),
        (["benchmark", "b/model.onnx", "--runtime", "onnxrt"], "unknown runtime 'onnxrt'"),
        (["benchmark", "b/model.onnx", "--protocol", "papers"], "unknown timing protocol 'papers'"),
        (["benchmark", "lpsnet_xs"], "unknown model or architecture 'lpsnet_xs'"),
        (["benchmark", "b/gone.onnx"], "no model file at b/gone.onnx"),
        (["study", "width", "--out", "x"], "unknown study 'width'; did you mean 'widths'"),
        (["study", "widths", "--out", "x", "--runtime", "trt"], "unknown runtime of a study of blocks 'trt'"),
    ],
)
def test_mistakes_get_one_line(run, files: Path, monkeypatch, words: list[str], message: str) -> None:
    monkeypatch.chdir(files)
    found = run(*words)
    assert found.code == 2
    assert message in found.err
    assert len(found.err.strip().splitlines()) == 1


def test_models_of_the_same_name_go_by_their_paths(files: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes((files / "b/model.onnx").read_bytes())
    sources = find_sources([str(files / "b/model.onnx"), str(other), str(files / "a/model.safetensors"), "tiny"])
    assert list(sources) == [str(files / "b/model.onnx"), str(other), "model.safetensors", "tiny"]
    assert sources["tiny"] == "tiny"
    with pytest.raises(LpsnetError, match="tiny is given twice"):
        find_sources(["tiny", "tiny"])


def test_the_size_is_that_of_the_records(files: Path, tmp_path: Path) -> None:
    own, architecture = files / "b/model.onnx", "tiny"
    assert common_size([own, architecture]) == (48, 64)
    assert common_size([architecture]) == (1024, 2048)
    record = default_record(net()).model_copy(update={"input_size": (64, 64)})
    save_checkpoint(net(), tmp_path / "large.safetensors", record=record)
    with pytest.raises(LpsnetError, match="the models name 48x64 and 64x64; give the size to measure at: --size HxW"):
        common_size([own, tmp_path / "large.safetensors"])
    save_checkpoint(net(), tmp_path / "any.safetensors")
    with pytest.raises(LpsnetError, match="the models name no input size"):
        common_size([tmp_path / "any.safetensors"])


def test_files_are_made_once_for_an_engine(files: Path, tmp_path: Path) -> None:
    maker = CandidateMaker(tmp_path, (48, 64))
    sources = find_sources([str(files / "a/model.safetensors"), str(files / "b/model.onnx")])
    cells = maker.make(sources, ["onnxruntime", "pytorch"], ["f32", "bf16"])
    assert len(cells) == 8
    made = [cell.path for cell in cells if cell.name == "model.safetensors" and cell.runtime == "onnxruntime"]
    assert len(set(made)) == 1
    assert made[0].is_relative_to(tmp_path)
    assert {cell.path for cell in cells if cell.name == "model.onnx"} == {files / "b/model.onnx"}
    (usual,) = maker.make(find_sources([str(files / "a/model.safetensors")]), [], ["f32"])
    assert (usual.runtime, usual.path) == ("pytorch", files / "a/model.safetensors")


def test_an_architecture_is_measured_with_its_own_blocks(tmp_path: Path) -> None:
    """lite0 is EfficientNet-Lite0's stages, not plain convolutions of the same widths."""
    (cell,) = CandidateMaker(tmp_path, (64, 64)).make(find_sources(["lite0"]), ["onnxruntime"], ["f32"])
    assert read_record(cell.path).block == "efficientnet_lite"
    found = complexity("lite0", size=(64, 64), num_classes=19)
    assert (cell.macs, found.block) == (found.macs, "efficientnet_lite")
    weights = sum(np.prod(it.dims) for it in onnx.load(cell.path).graph.initializer)
    assert weights == pytest.approx(found.parameters, rel=0.02)


COMMANDS = {
    "benchmark": ("camvid_s", "--size", "32x64"),
    "tune": ("camvid_s", "--size", "32x64"),
    "expand": ("--data", SCENES, "--recipe", "demo", "--out", "out"),
    "fit": (SCENES, "--budget-ms", 10, "--minutes", 1, "--out", "out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_device_that_cannot_be_is_refused_before_anything_else(
    command: str, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address, text in (("pi@there", "'pi@there' is no device; give ssh://USER@HOST"), ("ssh://pi@there", "no-ssh")):
        monkeypatch.setenv("LPSNET_SSH", "no-ssh")
        assert text in run(command, *COMMANDS[command], "--device", address).line
    assert list(tmp_path.iterdir()) == []

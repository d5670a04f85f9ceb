"""What is handed to lpsnet is not trusted: no code in it runs, and no path in it leads anywhere else."""

import ast
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import set_external_data

from lpsnet.data.dataset import open_dataset
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import DataError, LpsnetError, ModelFileError, RunError
from lpsnet.evaluation.evaluate import PredictionFolder
from lpsnet.export.export import export
from lpsnet.inference.engines import SessionOptions, open_session
from lpsnet.inference.model_file import read_container
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, load_official_checkpoint, official_state_dict
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse
from lpsnet.training.config import get_recipe

PACKAGE = Path(__file__).parents[2] / "lpsnet"
IMAGE = np.zeros((40, 48, 3), np.uint8)

# What runs code that it finds in data, or asks a shell: how it may be called, or that it may not
_NEVER = (
    "eval",
    "exec",
    "compile",
    "__import__",
    "pickle.load",
    "pickle.loads",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
    "os.popen",
)


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", node


def test_nothing_in_the_package_runs_what_it_reads() -> None:
    bad = []
    for where, call in _calls():
        name = ast.unparse(call.func)
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        bad += [f"{where} {name}"] if name in _NEVER else []
        bad += [f"{where} {name}"] if name.endswith(".extractall") else []
        bad += [f"{where} torch.load"] if name == "torch.load" and keywords.get("weights_only") != "True" else []
        bad += [f"{where} numpy.load"] if name == "np.load" and keywords.get("allow_pickle", "False") != "False" else []
        bad += [f"{where} a shell"] if keywords.get("shell", "False") != "False" else []
    assert not bad


class Code:
    """Unpickled by a careless reader, it writes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.write_text, (self.trace, "it ran")


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    state = {**official_state_dict(create_model("tiny", num_classes=3, form="plain")), "head.bias": Code(trace)}
    torch.save(state, tmp_path / "hostile.pth")
    with pytest.raises(ModelFileError, match="cannot be read"):
        load_official_checkpoint(tmp_path / "hostile.pth", ratios=("1/2",))
    assert not trace.exists()
    torch.load(tmp_path / "hostile.pth", weights_only=False)
    assert trace.exists(), "the file is hostile indeed"


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:pathlib.Path.touch [{trace}]", "names: !!python/name:os.system"]
)
def test_code_in_yaml_does_not_run(tmp_path: Path, text: str) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "hostile.yaml"
    path.write_text(text.format(trace=trace))
    with pytest.raises(DataError):
        open_dataset(path)
    with pytest.raises(RunError):
        get_recipe(str(path))
    assert not trace.exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    net = create_model("tiny", num_classes=3)
    export(net, path, to="onnx", record=default_record(fuse(net)), size=(64, 64))
    return path


def _with_external_data(model: Path, path: Path, location: str) -> bytes:
    """Write the model to `path` with its largest weights in the file `location`; returns what stands there."""
    proto = onnx.load(model)
    largest = max(proto.graph.initializer, key=lambda weight: len(weight.raw_data))
    content: bytes = largest.raw_data
    set_external_data(largest, location)
    largest.ClearField("raw_data")
    path.write_bytes(proto.SerializeToString())
    return content


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_weights_outside_of_the_models_folder_are_not_read(
    model: Path, tmp_path: Path, runtime: str, kind: str
) -> None:
    pytest.importorskip(runtime)
    folder = tmp_path / "given"
    folder.mkdir()
    secret = tmp_path / "secret.bin"
    location = {"parent": "../secret.bin", "absolute": str(secret), "link": "link.bin"}[kind]
    secret.write_bytes(_with_external_data(model, folder / "model.onnx", location))
    if kind == "link":
        (folder / "link.bin").symlink_to(secret)
    with pytest.raises(ModelFileError):
        Segmenter(folder / "model.onnx", runtime=runtime)(IMAGE)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_beside_the_model_are_read(model: Path, tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime)
    (tmp_path / "weights.bin").write_bytes(_with_external_data(model, tmp_path / "model.onnx", "weights.bin"))
    segmenter = Segmenter(tmp_path / "model.onnx", runtime=runtime)
    np.testing.assert_array_equal(segmenter(IMAGE), Segmenter(model, runtime=runtime)(IMAGE))


def test_an_archive_with_other_members_is_refused_and_nothing_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "in" / "hostile.ncnn"
    path.parent.mkdir()
    for name in ("../model.bin", "/model.bin", "model.bin/../../x"):
        with zipfile.ZipFile(path, "w") as archive:
            for member in ("record.json", "model.param", name):
                archive.writestr(member, b"x")
        with pytest.raises(ModelFileError, match="exactly"):
            read_container(path)
    assert [it.name for it in tmp_path.rglob("*")] == ["in", "hostile.ncnn"]


def test_a_zip_bomb_is_refused_by_what_it_claims(tmp_path: Path) -> None:
    path = tmp_path / "bomb.openvino"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in ("record.json", "model.xml", "model.bin"):
            archive.writestr(member, bytes(2**22))
    with pytest.raises(ModelFileError, match="compressed"):
        read_container(path)


def test_a_litert_file_of_ours_that_was_changed_is_refused(tmp_path: Path) -> None:
    """Also where the change is what LiteRT would take: another weight, another record."""
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'lpsnet[litert]'")
    path = tmp_path / "model.tflite"
    net = create_model("tiny", num_classes=3)
    export(net, path, to="litert", record=default_record(fuse(net)), size=(64, 64))
    content = path.read_bytes()
    assert Segmenter(path)(IMAGE).shape == IMAGE.shape[:2]
    weight = fuse(net).head.weight.detach().numpy().tobytes()
    for part, other in ((weight, bytes(len(weight))), (b'"align_corners":true', b'"align_corners":null')):
        assert content.count(part) == 1
        path.write_bytes(content.replace(part, other))
        with pytest.raises(ModelFileError, match="not those that were written"):
            Segmenter(path)
        with pytest.raises(ModelFileError, match="not those that were written"):
            open_session("litert", SessionOptions(path))


def test_predictions_stay_in_their_folder(tmp_path: Path) -> None:
    folder = PredictionFolder(tmp_path / "out", label_space=LabelSpace.numbered(2))
    with pytest.raises(LpsnetError, match="leads out"):
        folder.write("../../x", np.zeros((2, 2), np.uint8))
    assert not list(tmp_path.rglob("*.png"))


def test_a_checkpoint_is_no_pickle(tmp_path: Path) -> None:
    """A pickle under the name of a checkpoint is refused before anything of it is looked at."""
    trace = tmp_path / "trace"
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Code(trace)))
    with pytest.raises(ModelFileError):
        Segmenter(tmp_path / "model.safetensors")
    assert not trace.exists()


@pytest.mark.parametrize("name", ["\x1b[2J", "a\nb", "a\0", "\ud800"])
def test_a_class_name_that_steers_the_terminal_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="control character"):
        LabelSpace.from_names("x", [name])

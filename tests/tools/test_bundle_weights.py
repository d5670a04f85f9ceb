"""Models that come with the package: how they are made, and that those which do are whole."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundle_weights import bundle, main, without_places
from random_networks import randomise

from lpsnet.architecture import Architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import ModelFileError
from lpsnet.export.onnx import export_onnx
from lpsnet.inference import hub as models
from lpsnet.inference.hub import CHECKSUMS, find_checkpoint, find_model, list_models
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, load_checkpoint, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse

TINY = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_checkpoint(randomise(create_model(TINY, num_classes=5)), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "weights"
    monkeypatch.setattr(models, "weights_folder", lambda: path)
    return path


def test_a_bundled_model_is_the_network_in_half_the_space(checkpoint: Path, folder: Path, tmp_path: Path) -> None:
    bundle("streets", checkpoint, folder, scores={"val": {"miou": 50.0}})
    assert list(list_models()) == ["streets"]
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    own = tmp_path / "own.safetensors"
    save_checkpoint(load_checkpoint(find_checkpoint("streets")), own)  # what trainings and exports start from
    by_name, by_torch = Segmenter("streets"), Segmenter(own)
    assert by_name.record.scores == {"val": {"miou": 50.0}}
    whole = Segmenter(checkpoint).logits(image)
    for segmenter in (by_name, by_torch):
        assert np.abs(segmenter.logits(image) - whole).max() < 2e-3 * np.ptp(whole)
    numbers = sum(parameter.numel() for parameter in fuse(load_checkpoint(checkpoint)).parameters())
    assert find_model("streets").stat().st_size < 2 * numbers + 40_000


def test_no_path_of_the_machine_travels_along(checkpoint: Path, folder: Path) -> None:
    training = {"data": "camvid:/home/me/CamVid", "init": "/home/me/runs/a.safetensors", "machine": "2 cores; a/b"}
    scores = {"val": {"miou": 1.0, "protocol": {"model": "/home/me/m.onnx", "data": "scenes:size=48x64", "n": [1, 2]}}}
    bundle("streets", checkpoint, folder, training=training, scores=scores)
    for record in [read_record(folder / "streets.onnx")]:
        assert record.training == {"data": "camvid:CamVid", "init": "a.safetensors", "machine": "2 cores; a/b"}
        assert record.scores["val"]["protocol"] == {"model": "m.onnx", "data": "scenes:size=48x64", "n": [1, 2]}


def test_checksums_are_those_of_the_files_and_are_looked_at(checkpoint: Path, folder: Path) -> None:
    bundle("streets", checkpoint, folder)
    lines = (folder / CHECKSUMS).read_text().splitlines()
    names = ["streets.onnx"]
    assert lines == [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in names]
    path = folder / "streets.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelFileError, match="is not the file that came with lpsnet; install lpsnet again"):
        find_model("streets")
    with pytest.raises(ModelFileError, match="unknown model"):
        find_checkpoint("roads")
    (folder / CHECKSUMS).unlink()
    with pytest.raises(ModelFileError, match=r"SHA256SUMS cannot be read: .*; install lpsnet again"):
        find_model("streets")


def test_weights_in_half_the_space_are_computed_with_in_f32(tmp_path: Path) -> None:
    torch.manual_seed(1)
    net = create_model(TINY, num_classes=5, form="plain").eval()
    exact = fuse(net).half().float()  # weights that f16 holds exactly
    for weights in ("f32", "f16"):
        export_onnx(exact, tmp_path / f"{weights}.onnx", record=default_record(exact), weights=weights)
    types = {t.data_type for t in onnx.load(tmp_path / "f16.onnx").graph.initializer if np.prod(t.dims) >= 16}
    assert types == {onnx.TensorProto.FLOAT16}
    image = np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8)
    scores = [Segmenter(tmp_path / f"{weights}.onnx").logits(image) for weights in ("f32", "f16")]
    assert np.array_equal(*scores)


def test_the_script_takes_names_and_checkpoints(checkpoint: Path, folder: Path, capsys) -> None:
    main([f"streets={checkpoint}", f"roads={checkpoint}", "--folder", str(folder)])
    assert sorted(list_models()) == ["roads", "streets"]
    for wrong in ("streets", "=a.safetensors", "streets="):
        with pytest.raises(SystemExit):
            main([wrong])
        assert "NAME=CHECKPOINT; got" in capsys.readouterr().err


@pytest.mark.parametrize("name", list_models())
def test_what_is_shipped_is_whole_and_torch_agrees(name: str, tmp_path: Path) -> None:
    record = read_record(find_model(name))
    assert "research" in record.licence
    assert record == without_places(record)
    assert record.training["recipe"]["name"]
    assert record.input_size is not None
    height, width = record.input_size
    image = open_dataset(f"scenes:size={height}x{width},num_train=1,num_val=1").split("val").image(0)
    save_checkpoint(load_checkpoint(find_model(name)), tmp_path / "own.safetensors", record=record)
    labels, by_torch = Segmenter(name)(image), Segmenter(tmp_path / "own.safetensors")(image)
    assert (labels == by_torch).mean() > 0.9998


@pytest.mark.parametrize("path", sorted(models.starts_folder().glob("*.safetensors")), ids=lambda path: path.stem)
def test_a_checkpoint_that_is_shipped_is_the_model_of_its_name(path: Path) -> None:
    """But for their roundings to f16, with and without batch norms."""
    image = open_dataset("scenes:size=256x512,num_train=1,num_val=1").split("val").image(0)
    by_name, own = Segmenter(path.stem), Segmenter(path)
    assert np.abs(by_name.logits(image) - own.logits(image)).max() < 5e-3 * np.ptp(own.logits(image))
    assert (by_name(image) == own(image)).mean() > 0.995


def test_all_that_is_shipped_is_small_enough_for_a_wheel() -> None:
    assert sum(path.stat().st_size for path in models.weights_folder().glob("*")) < 55e6

"""Names of models and the files they mean."""

import hashlib
from pathlib import Path

import pytest

from lpsnet.errors import ModelFileError
from lpsnet.inference import hub as models
from lpsnet.inference.engines import RUNTIMES
from lpsnet.inference.hub import bundled_name, find_checkpoint, find_model, list_models
from lpsnet.inference.model_file import METADATA_READERS
from lpsnet.inference.segmenter import DEFAULT_RUNTIMES


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {name: tmp_path / "bundled" / f"{name}.onnx" for name in ("camvid_s", "cityscapes_s")}
    (tmp_path / "bundled").mkdir()
    for path in found.values():
        path.write_bytes(b"a model")
    lines = [f"{hashlib.sha256(b'a model').hexdigest()}  {path.name}\n" for path in found.values()]
    (tmp_path / "bundled" / "SHA256SUMS").write_text("".join(lines))
    monkeypatch.setattr(models, "list_models", lambda: found)
    return found


def test_a_file_is_itself(tmp_path: Path, bundled: dict[str, Path]) -> None:
    path = tmp_path / "camvid_s"
    path.write_bytes(b"x")
    assert find_model(path) == path
    assert find_model(str(path)) == path


def test_a_name_is_the_file_that_comes_with_the_package(bundled: dict[str, Path]) -> None:
    assert find_model("camvid_s") == bundled["camvid_s"]


def test_what_there_is_not_is_one_line(bundled: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"unknown model 'camvid-s'; did you mean 'camvid_s'\? Allowed: camvid_s"):
        find_model("camvid-s")
    for path in ("runs/camvid_s", "camvid_s.onnx", tmp_path / "camvid_s"):
        with pytest.raises(ModelFileError, match="no model file at"):
            find_model(path)
    with pytest.raises(ModelFileError, match="is a folder"):
        find_model(tmp_path)


def test_without_bundled_models_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "list_models", dict)
    with pytest.raises(ModelFileError, match="no models come with this installation"):
        find_model("camvid_s")


def test_bundled_models_are_onnx_files_by_name() -> None:
    for name, path in list_models().items():
        assert path.name == f"{name}.onnx"
        assert path.is_file()


def test_every_format_with_a_record_has_an_engine() -> None:
    assert set(DEFAULT_RUNTIMES) == set(METADATA_READERS)
    assert set(DEFAULT_RUNTIMES.values()) <= set(RUNTIMES)


def test_a_training_starts_from_the_same_file(bundled: dict[str, Path], tmp_path: Path) -> None:
    assert find_checkpoint("camvid_s") == bundled["camvid_s"]
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"x")
    assert find_checkpoint(own) == own
    with pytest.raises(ModelFileError, match=r"unknown model 'camvid-s'"):
        find_checkpoint("camvid-s")


def test_files_of_the_package_are_known_by_name() -> None:
    """Runs of earlier versions name the checkpoint that lay beside the ONNX file."""
    for suffix in (".onnx", ".safetensors"):
        assert bundled_name(f"/usr/lib/python3/site-packages/lpsnet/weights/camvid_s{suffix}") == "camvid_s"
    assert bundled_name("/usr/lib/lpsnet/weights/starts/cityscapes_lite0.safetensors") == "cityscapes_lite0"
    assert bundled_name("runs/weights/camvid_s.onnx") is None
    assert bundled_name("starts/camvid_s.onnx") is None


def test_a_training_starts_from_the_checkpoint_where_one_is_shipped(tmp_path: Path, monkeypatch) -> None:
    """Not from the deployed file of that name, which has no batch norms."""
    monkeypatch.chdir(tmp_path)
    found = find_checkpoint("cityscapes_lite0")
    assert found.parts[-3:] == ("weights", "starts", "cityscapes_lite0.safetensors")
    assert find_model("cityscapes_lite0").suffix == ".onnx"
    own = tmp_path / "starts" / "cityscapes_lite0.safetensors"
    own.parent.mkdir()
    own.write_bytes(b"another file of that name")
    assert find_checkpoint(own) == own
    assert find_checkpoint("starts/cityscapes_lite0.safetensors") == Path("starts/cityscapes_lite0.safetensors")

"""Models from and to the Hugging Face Hub, against a small Hub on this machine."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from engine_models import small_network, write_model
from hub_server import TOKEN, HubServer

import lpsnet
from lpsnet.data.labels import LabelSpace
from lpsnet.errors import MissingDependencyError, ModelFileError
from lpsnet.inference.hub import HubAddress, check_repo, choose_file, model_card, push_to_hub
from lpsnet.inference.model_file import read_record
from lpsnet.record import ModelRecord

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    from huggingface_hub import constants

    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(small_network(), tmp_path_factory.mktemp("hub") / "street.onnx")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://me/street", HubAddress("me/street")),
        ("hf://me/street@v1.0", HubAddress("me/street", "v1.0")),
        ("hf://me/street/sub/a.onnx", HubAddress("me/street", None, "sub/a.onnx")),
        ("hf://me/s-t.r_2@refs%2Fpr%2F1/a.ONNX", HubAddress("me/s-t.r_2", "refs/pr/1", "a.ONNX")),
    ],
)
def test_addresses(text: str, expected: HubAddress) -> None:
    assert HubAddress.parse(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://me", "hf:///street", "hf://me/street@", "hf://../street", "hf://me/street/../../a.onnx",
     "hf://me/street//a.onnx", "hf://me/street/a.pth", "hf://me/street/..\\a.onnx", "hf://me/str eet"],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ModelFileError, match=r"hf://|file") as caught:
        HubAddress.parse(text)
    assert "\n" not in str(caught.value)


def test_the_file_is_chosen() -> None:
    address = HubAddress("me/street")
    assert choose_file(["README.md", "a.safetensors"], address) == "a.safetensors"
    assert choose_file(["b.safetensors", "a.onnx", "README.md"], address) == "a.onnx"
    with pytest.raises(ModelFileError, match=r"several model files; add one of them: a\.onnx, b\.onnx"):
        choose_file(["b.onnx", "a.onnx"], address)
    with pytest.raises(ModelFileError, match="holds no model file"):
        choose_file(["README.md"], address)


def test_pushed_and_run_from_there(hub: HubServer, model: Path) -> None:
    page = lpsnet.push_to_hub(model, "me/street", message="first")
    assert page == f"{hub.url}/me/street"
    assert hub.repos["me/street"]["street.onnx"] == model.read_bytes()
    assert hub.repos["me/street"]["README.md"].startswith(b"---\nlibrary_name: lpsnet\n")
    assert hub.messages == ["first"]
    assert not hub.private
    labels = lpsnet.Segmenter("hf://me/street")(IMAGE)
    np.testing.assert_array_equal(labels, lpsnet.Segmenter(model)(IMAGE))


def test_private_and_without_touching_the_card(hub: HubServer, model: Path) -> None:
    hub.repos["me/street"] = {"README.md": b"my own"}
    push_to_hub(model, "me/street", private=True, keep_card=True)
    assert hub.repos["me/street"]["README.md"] == b"my own"
    assert hub.private == {"me/street"}


def test_downloaded_once_it_is_there_without_the_hub(
    hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    hub.repos["me/street"] = {"street.onnx": model.read_bytes()}
    lpsnet.Segmenter("hf://me/street")
    hub.repos.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert lpsnet.Segmenter("hf://me/street")(IMAGE).shape == (48, 64)
    with pytest.raises(ModelFileError, match="was not downloaded before"):
        lpsnet.Segmenter("hf://me/other")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://me/nothing", "there is no hf://me/nothing on the Hub, or it is private"),
        ("hf://me/gated", "hf auth login"),
        ("hf://me/street@v9", "no such revision"),
        ("hf://me/street/other.onnx", "is not among the repository's files"),
        ("hf://me/street", "street.onnx is not a whole onnx file"),
    ],
)
def test_what_goes_wrong_is_said_in_one_line(hub: HubServer, address: str, message: str) -> None:
    hub.repos["me/street"] = {"street.onnx": b"no model"}
    hub.gated.add("me/gated")
    with pytest.raises(ModelFileError, match=message) as caught:
        lpsnet.Segmenter(address)
    assert "\n" not in str(caught.value)


def test_pushing_without_the_right_to(hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ModelFileError, match="hf auth login") as caught:
        push_to_hub(model, "me/street")
    assert "\n" not in str(caught.value)
    assert hub.repos == {}


def test_pushing_what_is_no_model_or_to_no_repository(hub: HubServer, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="OWNER/MODEL"):
        push_to_hub(model, "street")
    with pytest.raises(ModelFileError, match="no model file"):
        push_to_hub(tmp_path / "missing.onnx", "me/street")
    assert check_repo("hf://me/street") == "me/street"
    assert hub.repos == {}


def test_the_package_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'lpsnet\[hub\]'"):
        lpsnet.Segmenter("hf://me/street")


def test_the_card_says_what_the_record_says(model: Path) -> None:
    record = read_record(model).model_copy(
        update={
            "label_space": LabelSpace("two", ("a|b", "<script>c</script>"), ((1, 2, 3), (255, 0, 16))),
            "training": {"data": "camvid:/home/me/data", "recipe": {"name": "camvid_small"}, "num_pictures": 367},
            "scores": {"val": {"miou": 61.234, "num_images": 101}, "other": "text"},
            "licence": "research only",
        }
    )
    card = model_card(record, repo="me/street", file="street.onnx")
    _, head, text = card.split("---\n", 2)
    assert yaml.safe_load(head)["pipeline_tag"] == "image-segmentation"
    assert yaml.safe_load(head)["license"] == "other"
    for line in (
        'segment = lpsnet.Segmenter("hf://me/street/street.onnx")',
        "| 0 | a\\|b | #010203 |",
        "| 1 | \\<script\\>c\\</script\\> | #ff0010 |",
        "- data: camvid",
        "- images: 367",
        "| val | 61.23 | 101 |",
        "research only",
    ):
        assert line in text.splitlines()
    assert "/home/me" not in card


def test_a_card_of_a_record_that_says_nothing() -> None:
    record = ModelRecord(architecture=None, label_space=LabelSpace.numbered(1))
    card = model_card(record, repo="me/x", file="x.onnx")
    assert "## Training" not in card
    assert "## Scores" not in card
    assert "not LPS-Net" in card

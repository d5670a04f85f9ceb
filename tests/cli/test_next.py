"""`lpsnet next`: the list, the page, and annotations that are the model's labels."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxslim")

import torch

import lpsnet
from lpsnet.data import convert
from lpsnet.data.dataset import WRITERS, open_dataset
from lpsnet.data.synthetic import SCENES, draw_scene
from lpsnet.export.onnx import export_onnx
from lpsnet.models.network import create_model
from lpsnet.record import ModelRecord

ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A model, a labelled folder in labelme's format, and a pool that has one of its images again."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(ARCH, num_classes=SCENES.num_classes)
        net(torch.randn(2, 3, 72, 96))
        torch.nn.init.normal_(net.head.weight)
    export_onnx(net.eval(), tmp_path / "m.onnx", record=ModelRecord(architecture=ARCH, label_space=SCENES))
    data = open_dataset("scenes:size=72x96,num_train=3,num_val=1,seed=4")
    splits = [data.split(name) for name in data.splits]
    convert.convert(splits, data.label_space, WRITERS["labelme"], tmp_path / "labelled")
    (tmp_path / "pool/film").mkdir(parents=True)
    for seed in range(6):
        image, _ = draw_scene(np.random.default_rng(seed), (72, 96))
        cv2.imwrite(str(tmp_path / f"pool/film/{seed}.png"), image[..., ::-1])
    again = next((tmp_path / "labelled/images/train").glob("*.png"))
    (tmp_path / "pool/again.png").write_bytes(again.read_bytes())
    return tmp_path


def test_the_list_the_page_and_the_annotations(run, loop: Path) -> None:
    words = ["next", "--model", loop / "m.onnx", "--pool", loop / "pool", "--data", loop / "labelled"]
    words += ["--count", "4", "--out", loop / "next", "--write", "labelme,coco", "--tolerance", "0"]
    result = run(*words, "--json", loop / "next.json")
    assert result.code == 0, result.err
    figures = json.loads((loop / "next.json").read_text())
    listed = (loop / "next/next.txt").read_text().splitlines()
    assert [row["path"] for row in figures["images"]] == listed
    assert len(set(listed)) == 4
    assert all(Path(path).parent == loop / "pool/film" for path in listed)
    assert figures["labelled"] == [str(loop / "pool/again.png")]
    assert figures["num_pool"] == 6
    segment = lpsnet.Segmenter(loop / "m.onnx")
    for form in ("labelme", "coco"):
        data = open_dataset(f"{form}:{loop}/next/{form}")
        samples = [sample for split in data.parts.values() for sample in split]
        assert sorted(Path(sample.name).stem for sample in samples) == sorted(Path(path).stem for path in listed)
        for sample in samples:
            np.testing.assert_array_equal(sample.labels, segment(sample.image).labels)
    page = (loop / "next/index.html").read_text()
    assert page.count("data:image/jpeg") == 12
    assert "labelled already and were left out: 1" in page
    again = run(*words)
    assert again.code == 2
    assert "may have been corrected" in again.err
    assert run(*words, "--overwrite", "--link").code == 0
    assert all(path.is_symlink() for path in (loop / "next/coco/images").rglob("*.png"))


def test_what_cannot_be_is_said_in_one_line(run, loop: Path) -> None:
    words = ["next", "--model", loop / "m.onnx", "--pool", loop / "pool", "--data", loop / "labelled"]
    for more, message in (
        (["--write", "labelled"], "did you mean 'labelme'"),
        (["--by", "margins"], "did you mean 'margin'"),
        (["--pool", "nowhere"], "names no image"),
    ):
        result = run(*words, "--out", loop / "out", *more)
        assert result.code == 2
        assert message in result.err
        assert not (loop / "out").exists()

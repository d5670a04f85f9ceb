"""A network that was trained a little, in int8 by LiteRT: it keeps its mIoU."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install 'lpsnet[litert]'")
pytest.importorskip("ai_edge_quantizer", reason="LiteRT's quantiser is not installed: pip install 'lpsnet[litert]'")

from lpsnet.architecture import get_architecture
from lpsnet.data.dataset import open_dataset
from lpsnet.data.split import Images, select
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.export.litert import export_litert
from lpsnet.export.quantise import Quantisation
from lpsnet.inference.model_file import read_record
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.training.config import get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.segmentation import train

SIZE = (96, 192)


def test_int8_keeps_the_miou(tmp_path: Path) -> None:
    data = open_dataset("scenes")
    recipe = get_recipe("demo").with_overrides({"epochs": 4})
    result = train(TrainingRun("scenes", get_architecture("tiny"), recipe), tmp_path / "run", tensorboard=False)
    net, record = load_checkpoint(result.model), read_record(result.model)
    val, scores = select(data.split("val"), 40), {}
    quantisation = Quantisation(Images(select(data.split("train"), 32)))
    for precision in ("f32", "int8"):
        path = tmp_path / f"{precision}.tflite"
        asked = {"quantisation": quantisation} if precision == "int8" else {}
        export_litert(net, path, record=record, size=SIZE, precision=precision, **asked)  # type: ignore[arg-type]
        segment = Segmenter(path, precision=precision, num_threads=1)
        scores[precision] = evaluate(segment, val, label_space=record.label_space).miou
    assert scores["f32"] > 20, "it was trained"
    assert scores["int8"] > scores["f32"] - 1.0

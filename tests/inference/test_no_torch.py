"""An edge device installs the core only: the deployment side works without torch, onnx and safetensors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a process of its own: `argv` is a model file. Imports every module of the packages an edge device uses.
PROGRAM = """
import importlib, json, pkgutil, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "onnx", "onnxslim", "onnxscript", "safetensors"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
names = []
for package in ("data", "inference", "evaluation", "benchmark", "report", "cli"):
    found = importlib.import_module(f"lpsnet.{package}")
    names += [package, *(module.name for module in pkgutil.walk_packages(found.__path__, f"lpsnet.{package}."))]
for name in names[1:]:
    if name.startswith("lpsnet."):
        importlib.import_module(name)

import numpy as np
import lpsnet
from lpsnet.inference.model_file import read_record
from lpsnet.errors import MissingDependencyError

segment = lpsnet.Segmenter(sys.argv[1])
labels = segment(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
record = read_record(sys.argv[2])
try:
    lpsnet.Segmenter(sys.argv[2])
    refused = ""
except MissingDependencyError as error:
    refused = str(error)
print(json.dumps({
    "modules": len(names), "labels": labels.tolist(), "classes": record.label_space.num_classes, "refused": refused,
}))
"""


def test_the_deployment_side_works_without_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for package in ("onnx", "onnxslim", "safetensors"):
        pytest.importorskip(package)
    import numpy as np

    from lpsnet.data.labels import LabelSpace
    from lpsnet.export.onnx import export_onnx
    from lpsnet.inference.segmenter import Segmenter
    from lpsnet.models.checkpoint import save_checkpoint
    from lpsnet.models.network import create_model
    from lpsnet.record import ModelRecord

    torch.manual_seed(0)
    net = create_model("tiny", num_classes=3)
    record = ModelRecord(architecture="tiny", label_space=LabelSpace.numbered(3), form=net.form)
    model, checkpoint = tmp_path / "m.onnx", tmp_path / "m.safetensors"
    export_onnx(net, model, record=record)
    save_checkpoint(net, checkpoint, record=record)

    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(model), str(checkpoint)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(answer["labels"], Segmenter(model)(image))
    assert answer["classes"] == 3
    assert answer["modules"] > 20
    assert "pip install 'lpsnet[train]'" in answer["refused"]

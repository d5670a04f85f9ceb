"""An evaluation whose figures are known, as its command writes it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from shifted_labels import DATA, shifted

from lpsnet.data.dataset import open_dataset
from lpsnet.evaluation.evaluate import evaluate


@pytest.fixture(scope="session")
def evaluated() -> dict[str, Any]:
    """The JSON of an evaluation: image n is predicted n pixels too far to the right."""
    split = open_dataset(DATA).split("val")
    turn = iter(range(len(split)))

    def segment(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        number = next(turn)
        return shifted(split.labels(number), number)

    protocol = {"data": DATA, "model": "models/no such.onnx", "engine": "a shift", "precision": "f32"}
    found = evaluate(segment, split, protocol=protocol, boundary=True).to_dict()
    result: dict[str, Any] = json.loads(json.dumps({**found, "command": "lpsnet evaluate --model 'no such.onnx'"}))
    return result


@pytest.fixture
def evaluation_file(evaluated: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(evaluated), encoding="utf-8")
    return path

"""The commands themselves: whatever the files are, they end with 0 or 2 and say why, and never with a traceback."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from command_line import run
from damage import altered, damaged
from fuzzing import Target
from hypothesis import strategies as st
from model_targets import with_metadata
from sample_images import images, scene
from sample_models import models, record

from lpsnet.record import RECORD_KEY


def check(*words: object) -> str:
    """Run a command and hold it to the rule; returns what it wrote to standard output."""
    code, out, err = run(*words)
    assert code in (0, 2), f"exit code {code}: {err}"
    assert "Traceback" not in err
    assert "\x1b" not in out + err, "a name in a file steers the terminal"
    if code == 2:
        assert err.strip(), "refused without a word"
    return out


def _segment(case: tuple[bytes, bytes], folder: Path) -> None:
    (folder / "model.onnx").write_bytes(models()["model.onnx"])
    for name, data in zip(("a.png", "b.jpg"), case, strict=True):
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    out = check("segment", folder / "in", "--model", folder / "model.onnx", "--out", folder / "out", "--json", "-")
    for entry in json.loads(out)["pictures"]:
        assert (entry["labels"] is None) == bool(entry["problem"])
        if entry["labels"]:
            labels = cv2.imread(entry["labels"], cv2.IMREAD_UNCHANGED)
            assert labels.ndim == 2
            assert labels.max() < 5


def _info(value: Any, folder: Path) -> None:
    """A record full of other values, printed."""
    path = folder / "model.safetensors"
    path.write_bytes(with_metadata(models()["deployed.safetensors"], {RECORD_KEY: json.dumps(value)}))
    check("info", path)
    for line in check("info", path, "--json", "-").splitlines()[:1]:
        assert line == "{"


def _evaluate(value: Any, folder: Path) -> None:
    """A model whose record says anything, on a data set of one image."""
    path = folder / "model.safetensors"
    path.write_bytes(with_metadata(models()["deployed.safetensors"], {RECORD_KEY: json.dumps(value)}))
    for name, array in (("images/val/a.png", scene()), ("masks/val/a.png", np.zeros(scene().shape[:2], np.uint8))):
        (folder / name).parent.mkdir(parents=True)
        cv2.imwrite(str(folder / name), array)
    names = [f"class_{number}" for number in range(5)]
    (folder / "d.yaml").write_text(json.dumps({"names": names}))
    check("evaluate", "--model", path, "--data", folder / "d.yaml", "--json", folder / "scores.json")


_RECORDS = st.deferred(lambda: altered([json.loads(record().to_json())]))
_PAIRS = st.tuples(damaged(tuple(images().values())), damaged(tuple(images().values())))

TARGETS = (
    Target("command segment", _PAIRS, _segment, many=500, few=6),
    Target("command info", _RECORDS, _info, many=800, few=12),
    Target("command evaluate", _RECORDS, _evaluate, many=300, few=6),
)

"""`lpsnet models`."""

import json
from pathlib import Path

import pytest
from bundle_weights import bundle
from typer.testing import CliRunner

from lpsnet.cli import app
from lpsnet.inference import hub as models
from lpsnet.models.checkpoint import save_checkpoint
from lpsnet.models.network import create_model


def test_models_are_listed_with_size_score_and_terms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(create_model("B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2", num_classes=5).eval(), tmp_path / "net.safetensors")
    scores = {
        "test": {"note": "of a twin", "robustness": {"mean_miou": 12.75}},  # no mIoU: not the split that is shown
        "val": {"miou": 51.25, "robustness": {"mean_miou": 34.5}},
        "other": {"miou": 42.5, "robustness": {"mean_miou": 23.25}},
    }
    monkeypatch.setattr(models, "weights_folder", lambda: tmp_path / "weights")
    bundle(
        "streets",
        tmp_path / "net.safetensors",
        tmp_path / "weights",
        scores=scores,
        licence="for research",
        input_size=(64, 96),
    )
    result = CliRunner().invoke(app, ["models"])
    assert result.exit_code == 0
    for text in (
        "streets",
        "64x96",
        "1, 1/2",
        "51.25",
        "corrupted",
        "34.50",
        "streets: of a twin",
        "streets: for research",
    ):
        assert text in result.output
    assert result.output.count("mIoU %") == 2
    assert "12.75" not in result.output
    listed = json.loads(CliRunner().invoke(app, ["models", "--json", "-"]).stdout)["models"]
    assert listed["streets"]["record"]["scores"] == scores
    assert Path(listed["streets"]["path"]).is_file()

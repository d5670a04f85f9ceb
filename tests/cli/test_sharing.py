"""`lpsnet web` and `lpsnet push` from the command line: what they say and how they refuse."""

import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Result

from lpsnet.export.onnx import export_onnx
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import create_model

Run = Callable[..., Result]
PROGRAM = [sys.executable, "-c", "from lpsnet.cli import main; main()"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `model.safetensors` and `model.onnx`."""
    folder = tmp_path_factory.mktemp("models")
    net = create_model("B=1,1,1,1,1;C=4,4,4,4,4;R=1", num_classes=3).eval()
    save_checkpoint(net, folder / "model.safetensors")
    export_onnx(net, folder / "model.onnx", record=default_record(net))
    return folder


def test_web_says_how_to_serve_the_page(run: Run, folder: Path, tmp_path: Path) -> None:
    code, out, err = run("web", "--model", folder / "model.onnx", "--out", tmp_path / "web")
    assert (code, err) == (0, "")
    assert (tmp_path / "web/index.html").is_file()
    assert f"Next: python -m http.server --directory {tmp_path / 'web'} 8000" in out


def test_web_refuses_what_browsers_do_not_run(run: Run, folder: Path, tmp_path: Path) -> None:
    code, _, err = run("web", "--model", folder / "model.safetensors", "--out", tmp_path / "web")
    assert code == 2
    assert err.startswith("lpsnet: a browser runs .onnx files")
    assert err.count("\n") == 1
    assert not (tmp_path / "web").exists()


def test_web_serves_until_it_is_interrupted(folder: Path, tmp_path: Path) -> None:
    words = ["web", "--model", str(folder / "model.onnx"), "--out", str(tmp_path), "--serve", "0"]
    with subprocess.Popen([*PROGRAM, *words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = next(match[1] for line in process.stdout if (match := re.match(r"Open http://localhost:(\d+) ", line)))
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/record.json") as answer:
            assert answer.read() == (tmp_path / "record.json").read_bytes()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130


def test_push_refuses_what_is_no_repository(run: Run, folder: Path) -> None:
    code, _, err = run("push", "street", "--model", folder / "model.onnx")
    assert (code, err) == (2, "lpsnet: a repository on the Hub is OWNER/MODEL; got 'street'\n")


@pytest.mark.parametrize("words", [("export", "--out", "x.onnx", "--model"), ("info",), ("web", "--model")])
def test_what_is_no_address_is_refused_wherever_a_model_is_named(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run(*words, "hf://street")
    assert code == 2
    assert err.endswith("a model on the Hub is hf://OWNER/MODEL[@REVISION][/FILE]; got 'hf://street'\n")

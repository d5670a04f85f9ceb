"""Two processes, batch norm frozen, give the gradients that one gives for the same global batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import frozen_run
import pytest
import torch
from gradient_run import save_gradients

from lpsnet.inference.model_file import read_record
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import train

SCRIPT = Path(__file__).parent / "gradient_run.py"


def start(script: Path, out: Path, *, rank: int, port: int) -> subprocess.Popen[bytes]:
    """One of two processes, with the environment that `accelerate launch` and `torchrun` set."""
    rank_settings = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    env = {**os.environ, "ACCELERATE_USE_CPU": "true", **{name: str(value) for name, value in rank_settings.items()}}
    return subprocess.Popen([sys.executable, script, out], env=env)


def start_two(script: Path, out: Path) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(script, out, rank=rank, port=port) for rank in range(2)]


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    processes = start_two(SCRIPT, tmp_path / "together.pt")
    save_gradients(str(tmp_path / "alone.pt"))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    ours, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("alone.pt", "together.pt"))
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert torch.allclose(gradient, theirs[name], rtol=1e-6, atol=1e-9), name
    assert sum(gradient.abs().sum() for gradient in ours.values()) > 0


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    processes = start_two(Path(frozen_run.__file__), tmp_path / "together")
    train(frozen_run.RUN, tmp_path / "alone", tensorboard=False)
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    alone, together = (RunFolder(tmp_path / name) for name in ("alone", "together"))
    ours, theirs = ([float(row["loss"]) for row in folder.read_log()] for folder in (alone, together))
    assert len(ours) == 6
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert [line["iteration"] for line in together.read_evaluations()] == [3, 6]
    assert read_record(together.model).training["num_processes"] == 2

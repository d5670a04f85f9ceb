"""Two processes, batch norm frozen, give the gradients that one gives for the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import torch

SCRIPT = Path(__file__).parent / "gradient_run.py"


def test_two_processes_give_the_gradients_of_one(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone.pt", tmp_path / "together.pt"
    subprocess.run([sys.executable, SCRIPT, alone], check=True, timeout=120)
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    extra = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    subprocess.run([sys.executable, *launch, *extra, SCRIPT, together], check=True, timeout=120, env=os.environ)
    ours, theirs = (torch.load(path, weights_only=True) for path in (alone, together))
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert torch.allclose(gradient, theirs[name], rtol=1e-6, atol=1e-9), name
    assert sum(gradient.abs().sum() for gradient in ours.values()) > 0

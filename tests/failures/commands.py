"""What commands are given here: a tiny network and generated scenes."""

from collections.abc import Sequence
from pathlib import Path

SCENES = "scenes:size=48x64,num_train=6,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
_SETTINGS = ("batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32")


def train_words(out: Path, *, iterations: int = 24) -> Sequence[object]:
    """A training of some seconds."""
    settings = [word for it in (*_SETTINGS, f"iterations={iterations}") for word in ("--set", it)]
    return ["train", "--data", SCENES, "--arch", ARCH, "--recipe", "demo", *settings, "--out", out]


def expand_words(out: Path) -> Sequence[object]:
    """A search of one step over one operation, with trainings of some steps."""
    settings = [word for it in (*_SETTINGS, "iterations=4") for word in ("--set", it)]
    search = ("--start", "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "--operations", "depth=0,0,0,1,1", "--max-step-size", 1)
    return ["expand", "--data", SCENES, "--recipe", "demo_proxy", *search, "--steps", 1, *settings, "--out", out]

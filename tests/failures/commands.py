"""What commands are given here: a tiny network and generated scenes."""

from collections.abc import Sequence
from pathlib import Path

SCENES = "scenes:size=48x64,num_train=6,num_val=2"
ARCH = "B=1,1,1,1,1;C=4,4,8,8,8;R=1,1/2"
_SETTINGS = ("batch_size=2", "crop_size=48x64", "num_workers=1", "precision=f32")


def train_words(out: Path, *, iterations: int = 24) -> Sequence[object]:
    """A training of some seconds."""
    return ["train", "--data", SCENES, "--arch", ARCH, "--recipe", "demo", *_set(iterations), "--out", out]


def expand_words(out: Path) -> Sequence[object]:
    """A search of one step over one operation, with trainings of some steps."""
    network = ("--start", "B=1,1,1,1,1;C=4,4,8,8,8;R=1", "--operations", "depth=0,0,0,1,1", "--max-step-size", 1)
    search = ("--recipe", "demo_proxy", *network, "--steps", 1, "--threads", 1)
    return ["expand", "--data", SCENES, *search, *_set(4), "--out", out]


def _set(iterations: int) -> Sequence[str]:
    return [word for it in (*_SETTINGS, f"iterations={iterations}") for word in ("--set", it)]

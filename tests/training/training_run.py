"""A small training that tests start in processes of their own: python training_run.py OUT [--resume]."""

import sys
from pathlib import Path

import torch

from lpsnet.architecture import Architecture
from lpsnet.training import loop
from lpsnet.training.config import get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.segmentation import train

loop.EPOCH_CHECKPOINT_SECONDS = 0  # a checkpoint after every epoch, however short

RECIPE = get_recipe("demo").with_overrides(
    {"iterations": 24, "batch_size": 2, "crop_size": (48, 64), "precision": "f32", "num_workers": 1}
)
RUN = TrainingRun(
    data="scenes:size=48x64,num_train=6,num_val=2",
    architecture=Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2")),
    recipe=RECIPE,
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    train(
        RUN,
        Path(sys.argv[1]),
        resume="--resume" in sys.argv,
        on_progress=lambda status: print(status.iteration, flush=True),
        tensorboard=False,
    )

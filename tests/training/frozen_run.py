"""A training whose result does not depend on the number of processes: python frozen_run.py OUT."""

import sys
from pathlib import Path

import torch

from lpsnet.architecture import Architecture
from lpsnet.training.config import get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.segmentation import train

RECIPE = get_recipe("demo").with_overrides(
    {"iterations": 6, "batch_size": 4, "crop_size": (48, 64), "precision": "f32", "freeze_batch_norm": True}
)
RUN = TrainingRun(
    data="scenes:size=48x64,num_train=6,num_val=2",
    architecture=Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2")),
    recipe=RECIPE.with_overrides({"evaluate_every": 2, "learning_rate": 1e-3}),
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    train(RUN, Path(sys.argv[1]), tensorboard=False)

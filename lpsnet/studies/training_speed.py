"""How many pictures a second a training learns from, beside the plain loop that one would write first.

The plain loop: float32, pictures N C H W, the scores upsampled to the label's size and compared there by torch, every
picture decoded each time it is needed, all in one thread of Python. The trainer: bf16 where the processor computes in
it, channels-last, the loss in bands (`training.upsampling`), decoded pictures kept, workers. Recipe, first weights,
order and augmentation of the samples are the same, so what they learn can be compared too (`compare_results`).

Not a figure of the paper. Run it with, for instance:

    python -c "from lpsnet.studies.training_speed import *; print(compare_speed('scenes', 'lpsnet_s', 'camvid_small'))"
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn import functional as F

from lpsnet.architecture import get_architecture
from lpsnet.data.datasets import open_dataset
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.deployment.machine import describe_machine
from lpsnet.errors import LpsnetError
from lpsnet.evaluation.evaluate import Evaluation
from lpsnet.evaluation.selection import Selection
from lpsnet.training.batches import SampleOrder
from lpsnet.training.loop import Loop, versions
from lpsnet.training.precision import make_accelerator
from lpsnet.training.recipe import get_recipe
from lpsnet.training.run import TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation
from lpsnet.training.state import MovingAverage
from lpsnet.training.task import Pair, Score, Weights

"""The line on a start from a checkpoint, for networks that differ from it in one thing."""

from pathlib import Path

import pytest

from lpsnet.architecture import Architecture
from lpsnet.models.checkpoint import initialise_from, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.training.run import describe_initialisation

SOURCE = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1", "1/2"))
WIDER = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 12), ("1", "1/2"))
DEEPER = Architecture((1, 1, 1, 1, 2), (4, 4, 8, 8, 8), ("1", "1/2"))
ONE_PATH = Architecture((1, 1, 1, 1, 1), (4, 4, 8, 8, 8), ("1",))


@pytest.mark.parametrize(
    ("architecture", "num_classes", "skipped"),
    [
        (SOURCE, 3, "none"),
        (SOURCE, 5, "head (another class count)"),
        (ONE_PATH, 3, "head (another width or number of paths)"),
        (DEEPER, 3, "path 1 (not in the checkpoint: 17), path 2 (not in the checkpoint: 17)"),
        (WIDER, 3, "path 1 (another shape: 10), path 2 (another shape: 10), head (another width or number of paths)"),
    ],
)
def test_the_line(tmp_path: Path, architecture: Architecture, num_classes: int, skipped: str) -> None:
    path = tmp_path / "source.safetensors"
    save_checkpoint(create_model(SOURCE, num_classes=3), path)
    network = create_model(architecture, num_classes=num_classes)
    line = describe_initialisation(initialise_from(network, path), path)
    number, _, rest = line.partition(" tensors taken from ")
    assert rest == f"{path}, skipped: {skipped}"
    before = create_model(SOURCE, num_classes=3).state_dict()
    fitting = [n for n, v in network.state_dict().items() if n in before and before[n].shape == v.shape]
    assert int(number) == len(fitting)

"""What a training learns from: it is gone on with only while that is the same."""

from pathlib import Path

from lpsnet.data.dataset import Dataset, data_contents
from lpsnet.inference.hub import sha256


def training_inputs(dataset: Dataset, init: Path | None, *splits: str) -> dict[str, str]:
    """The classes, the pictures of the splits and the weights of `--init`, each as a short text to compare.

    Raises:
        DataError: no such split.
    """
    weights = {} if init is None else {"init": sha256(init)[:8]}
    return {**data_contents(dataset, *splits), **weights}

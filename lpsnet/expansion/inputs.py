"""What the trainings of a search learn from: a journal is gone on with only while it is the same."""

from pydantic import JsonValue

from lpsnet.data.contents import data_contents
from lpsnet.data.datasets import open_dataset
from lpsnet.deployment.models import sha256
from lpsnet.expansion.plan import ExpansionRun

INPUTS = "inputs"  # key in a journal's settings


def inputs_of(run: ExpansionRun) -> dict[str, JsonValue]:
    """The classes, the pictures of both splits and the weights of `--init`, each as a short text to compare.

    Raises:
        LpsnetError: the data cannot be opened.
    """
    weights = {} if run.init is None else {"init": sha256(run.init)[:8]}
    return {**data_contents(open_dataset(run.data), run.split, run.val), **weights}

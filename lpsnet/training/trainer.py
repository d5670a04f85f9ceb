"""Training a network on a data set (Section 4.2)."""

from collections.abc import Callable
from pathlib import Path

from lpsnet.errors import RunError
from lpsnet.training.loop import run_task
from lpsnet.training.run import Status, TrainingResult, TrainingRun
from lpsnet.training.run_folder import RunFolder
from lpsnet.training.segmentation import Segmentation


def train(
    run: TrainingRun,
    out: Path,
    *,
    resume: bool = False,
    on_status: Callable[[Status], None] = lambda status: None,
    on_message: Callable[[str], None] = lambda message: None,
    tensorboard: bool = True,
) -> TrainingResult:
    """Train a network and leave it in `out`.

    Args:
        run: what is trained on what.
        out: the run's folder; see `RunFolder` for its files.
        resume: go on with the run in `out`; in a folder without one, just start.
        on_status: called for every iteration in their order, in the main process; may be one iteration behind.
        on_message: called with a line for people when the training begins: what was taken from `run.init`.
        tensorboard: write curves for TensorBoard besides the logs.

    Raises:
        LpsnetError: the data, the recipe or the folder cannot be used; see the message.
    """
    if run.recipe.init_required and run.init is None:
        raise RunError(
            f"recipe {run.recipe.name!r} starts from pre-trained weights: give them with --init, "
            "or train from scratch with --set init_required=false"
        )
    score = run_task(
        lambda device: Segmentation.of(run, device),
        run.settings(out),
        out,
        defaults=run.recipe.defaults(),
        resume=resume,
        on_status=on_status,
        on_message=on_message,
        tensorboard=tensorboard,
    )
    return TrainingResult(RunFolder(out).model, None if score is None else score.details)

"""What inheritance saves where training for longer brings no more, as a study; not in the paper.

`inheritance` compares children after the same few epochs, which is what a search has to do with; most curves still rise
there. Here a child is trained from scratch until its curve is flat. That takes few images and a small network: with
many, no length that can be waited for is enough.
"""

from collections.abc import Sequence
from functools import partial

from lpsnet.studies.inheritance import compared, report_curves
from lpsnet.studies.network_training import data_of, schedule_of
from lpsnet.studies.study import Json, Known, Place, Run, Settings, Study
from lpsnet.training.config import Recipe

DATA = "scenes:size=128x256,num_train=10,num_val=200"
PARENT = "tiny"
# Rows of Table 1, the last of them a new path
CHANGES = (
    ("depth=0,0,0,1,1", 1),
    ("width=0,0,0,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("resolution=0,1/8,0", 2),
)
FIRST_ITERATIONS, MOST_ITERATIONS = 1000, 64_000
INHERITED_SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)

_LENGTHS = (
    f"From scratch every child is trained for {FIRST_ITERATIONS:,} iterations, then anew for twice as many, until the "
    f"mean over seeds rises by no more than half a point, or for {MOST_ITERATIONS:,}; the parent for as long as the "
    "longest of them."
)


def plan(settings: Settings, known: Known) -> list[Run]:
    """One run, which keeps its own trainings in its folder and goes on with them."""
    data = data_of(settings, scenes=DATA)
    recipe = schedule_of(settings, data, halved=False).recipe.with_overrides({"iterations": MOST_ITERATIONS})
    seeds = list(range(settings.num_seeds or 2))
    key = {
        "inherited_until_flat": PARENT,
        "changes": [list(change) for change in CHANGES],
        "first_iterations": FIRST_ITERATIONS,
        "most_iterations": MOST_ITERATIONS,
        "inherited_shares": list(INHERITED_SHARES),
        "data": data,
        "recipe": recipe.model_dump(mode="json"),
        "seeds": seeds,
    }
    return [Run(key, partial(_compare, data, recipe, seeds, settings.num_threads), portable=True)]


def _compare(data: str, recipe: Recipe, seeds: Sequence[int], num_threads: int | None, place: Place) -> dict[str, Json]:
    from lpsnet.studies.inheritance import compare_until_flat

    lengths = {
        "first_iterations": FIRST_ITERATIONS,
        "most_iterations": MOST_ITERATIONS,
        "inherited_shares": INHERITED_SHARES,
    }
    return compared(compare_until_flat, PARENT, CHANGES, lengths, data, recipe, seeds, num_threads, place)


STUDY = Study(
    name="inheritance-until-flat",
    title="Children with their parent's weights, and without until their curves are flat",
    reference="Not in the paper: Algorithm 1 trains every candidate from its beginning.",
    differences=(_LENGTHS,),
    plan=plan,
    report=report_curves,
    options=frozenset({"data", "num_seeds", "num_threads"}),
)

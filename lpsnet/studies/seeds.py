"""A study that trains every network once, and the best with more seeds, so that the spread is known."""

from collections.abc import Sequence
from dataclasses import replace

from lpsnet.studies.agreement import best_two
from lpsnet.studies.network import StudyNetwork
from lpsnet.studies.network_training import pace_run, training_run
from lpsnet.studies.schedule import data_of, schedule_of
from lpsnet.studies.study import Known, Run, Settings

NUM_SEEDS = 3  # of the two best, and of the paper's best


def training_plan(networks: Sequence[StudyNetwork], settings: Settings, known: Known, *, paper: str) -> list[Run]:
    """First how fast every network trains, then every network once, then more seeds for the two best and for `paper`.

    The last is the name of the network that is best in the paper. While it is not known which two are here, two that
    take longest stand for them: see `Study.plan`.
    """
    schedule = schedule_of(settings, data_of(settings))
    once = {network.name: schedule.training(network) for network in networks}
    paces = [pace_run(training, num_threads=settings.num_threads) for training in once.values()]
    first = {name: training_run(training, known, num_threads=settings.num_threads) for name, training in once.items()}
    chosen, is_known = _to_repeat(first, known, paper)
    more = [
        training_run(schedule.training(network, seed=seed), known, num_threads=settings.num_threads)
        for network in networks
        if network.name in chosen
        for seed in range(1, settings.num_seeds or NUM_SEEDS)
    ]
    if not is_known:  # they stand for others, and are not to be made beside what comes before them
        more = [replace(run, apart=False) for run in more]
    return [*paces, *first.values(), *more]


def _to_repeat(first: dict[str, Run], known: Known, paper: str) -> tuple[list[str], bool]:
    """The networks to be trained with more seeds, and whether they are known yet."""
    results = {name: known(run) for name, run in first.items()}
    if any(result is None for result in results.values()):
        return [*sorted(first, key=lambda name: -(first[name].seconds or 0.0))[:2], paper], False
    scores = {name: result["miou"] for name, result in results.items() if result and "miou" in result}
    return [*best_two(scores), *([paper] if paper in scores else [])], True

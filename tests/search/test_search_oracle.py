"""The search against brute force on random landscapes, most of them with latencies that do not grow with k."""

import random
from functools import cache

import expansion_oracle as oracle
import pytest
from expansion_landscapes import Landscape

from lpsnet.search.algorithm import SearchOptions, expand
from lpsnet.search.measurements import Limits
from lpsnet.search.operations import Design, Operation, SearchNetwork, table_1

EXTRA = (
    Operation("block", value="ghost"),
    Operation("block", value="residual"),
    Operation("block", value="conv3x3"),
    Operation("depth", (0, 0, 0, 1, -1)),
    Operation("width", (0, 0, 0, -8, 8)),
    Operation("depth", (0, 0, 0, 2, 2)),
    *map(Operation.parse, ("detail=8", "detail=4", "context=gate", "context=pyramid", "head=16", "head=32")),
    *map(Operation.parse, ("unit@1=ghost", "unit@5=ghost", "unit@5=residual", "unit@5=conv3x3")),
)
NUM_LANDSCAPES = 250


def _kinds(block: str) -> tuple[str, ...]:
    return tuple(block.split(",")) if "," in block else (block,) * 5


def _built(design: Design) -> oracle.Built:
    it = design.architecture
    eighths = tuple(int(ratio * 8) for ratio in it.ratios)
    return it.blocks, it.widths, eighths, _kinds(design.block), (it.detail, it.context, it.head)


def _network(it: SearchNetwork) -> oracle.Network:
    eighths = tuple(int(ratio * 8) for ratio in it.ratio_slots)
    return it.blocks, it.widths, eighths, _kinds(it.block), (it.detail, it.context, it.head)


def _change(operation: Operation) -> oracle.Change:
    unit = 8 if operation.dimension == "resolution" else 1
    delta = tuple(int(value * unit) for value in operation.delta)
    return operation.dimension, delta, operation.value, operation.stage


@pytest.mark.parametrize("seed", range(NUM_LANDSCAPES))
def test_agrees_with_brute_force(seed: int) -> None:
    dice = random.Random(seed)
    num_slots = dice.randint(1, 4)
    start = SearchNetwork(
        [dice.randint(1, 4) for _ in range(5)],
        [8 * dice.randint(1, 5) for _ in range(5)],
        [f"{dice.randint(1, 8)}/8", *(f"{dice.choice([0, 0, 3])}/8" for _ in range(num_slots - 1))],
    )
    every = [*table_1(num_slots=num_slots), *EXTRA]
    operations = dice.sample(every, dice.randint(1, len(every)))
    cap, num_steps = dice.randint(1, 7), dice.randint(1, 4)
    # Few different values give many ties; many give none. A slope makes some landscapes grow with the network.
    values, slope = dice.choice([4, 30, 5_000]), dice.choice([0, 0, 7])
    limit = dice.choice([None, None, values // 2 + 2])

    @cache
    def time_of(built: oracle.Built) -> int:
        return random.Random(f"{seed} time {built}").randint(1, values) + slope * (sum(built[0]) + sum(built[2]))

    @cache
    def score_of(built: oracle.Built) -> int:
        return random.Random(f"{seed} score {built}").randint(0, min(values, 1_000)) + slope * sum(built[0])

    landscape = Landscape(lambda it: time_of(_built(it)) / 1000, lambda it: score_of(_built(it)) / 100)
    found = expand(
        start,
        latency=landscape.latency,
        performance=landscape.performance,
        operations=operations,
        options=SearchOptions(
            num_steps=num_steps, max_step_size=cap, limits=Limits(latency_ms=limit / 1000 if limit else None)
        ),
    )
    expected = oracle.search(
        _network(start),
        [_change(operation) for operation in operations],
        time_of,
        score_of,
        cap=cap,
        num_steps=num_steps,
        limit=limit,
    )
    assert len(found.steps) == len(expected)
    for step, (target, step_sizes, choice, network) in zip(found.steps, expected, strict=True):
        assert step.target_ms == (None if target is None else target / 1000)
        assert {operations.index(it.operation): it.step_size for it in step.candidates} == step_sizes
        assert {operations.index(it.operation) for it in step.excluded} == set(range(len(operations))) - set(step_sizes)
        assert (step.chosen is None) == (choice is None) == bool(step.stop)
        assert step.decided
        if choice is not None:
            assert step.chosen.operation == operations[choice]
            assert _network(step.chosen.network) == network
    trained = [design for design, _ in landscape.trained]
    assert len(trained) == len(set(trained)), "a design was trained twice"

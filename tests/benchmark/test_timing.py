"""Timing with a clock that the test moves: what is called when, and what is kept."""

import gc
import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lpsnet.agent import CLOCK_TOLERANCE_NS, MAX_DISCARDED, Clock
from lpsnet.benchmark.timing import PROTOCOLS, TimingProtocol, compare, measure
from lpsnet.errors import RunError

MS = 1_000_000


class Machine:
    """Time that passes only where something is called."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.slept_ns = 0
        self.calls: list[str] = []

    @property
    def clock(self) -> Clock:
        return Clock(now_ns=lambda: self.now_ns, always_ns=lambda: self.now_ns + self.slept_ns)

    def network(self, name: str, duration_ms: Callable[[int], float] | float) -> Callable[[], None]:
        """A call that takes so long; `duration_ms` may be a function of the number of the call."""
        count = itertools.count()

        def call() -> None:
            number = next(count)
            self.calls.append(name)
            self.now_ns += round(MS * (duration_ms(number) if callable(duration_ms) else duration_ms))

        return call


SHORT = TimingProtocol(warm_up_s=0.03, duration_s=0.1, turn_s=0.001)


def test_one_network_is_timed_after_a_warm_up() -> None:
    """Calls of 10 ms: three of them warm up for 30 ms, and are slower; ten fill 100 ms."""
    machine = Machine()
    network = machine.network("a", lambda number: 50 if number == 0 else 10)
    result = measure({"a": network}, protocol=replace(SHORT, warm_up_s=0.07), clock=machine.clock)["a"]
    assert len(machine.calls) == 3 + 10
    assert result.samples_ms == (10.0,) * 10
    assert (result.median_ms, result.mean_ms, result.iqr_ms) == (10.0, 10.0, 0.0)
    assert result.target_reached is None


def test_the_papers_protocol_is_one_second_and_twenty() -> None:
    machine = Machine()
    result = measure({"a": machine.network("a", 100)}, clock=machine.clock)["a"]
    assert len(machine.calls) == 10 + 200
    assert result.num_samples == 200
    assert result.mean_ms == 100.0
    assert PROTOCOLS["paper"] == TimingProtocol(warm_up_s=1.0, duration_s=20.0)


def test_networks_take_turns_and_the_order_changes() -> None:
    machine = Machine()
    networks = {name: machine.network(name, 10) for name in "abc"}
    measure(networks, protocol=replace(SHORT, warm_up_s=0), clock=machine.clock)
    warm_up, rounds = machine.calls[:3], machine.calls[3:]
    assert warm_up == ["a", "b", "c"]
    orders = ["".join(rounds[i : i + 3]) for i in range(0, len(rounds), 3)]
    assert orders[:6] == ["abc", "bca", "cab", "cba", "acb", "bac"]
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) == 10


def test_a_machine_that_stands_still_while_warming_up_does_not_make_turns_longer() -> None:
    """The first call of A takes a minute, the others 1 ms; B takes 1 ms."""
    machine = Machine()
    networks = {"a": machine.network("a", lambda number: 60_000 if number == 0 else 1), "b": machine.network("b", 1)}
    results = measure(networks, protocol=replace(SHORT, duration_s=0.6), clock=machine.clock)
    assert results["b"].num_samples <= 700
    assert results["b"].num_rounds >= 6


def test_a_slow_network_does_not_keep_a_quick_one_busy() -> None:
    """A takes 1 s a call and is measured for 0.6 s; in the meantime B, of 1 ms, has turns of 0.1 s at most."""
    machine = Machine()
    networks = {"a": machine.network("a", 1000), "b": machine.network("b", 1)}
    results = measure(networks, protocol=replace(SHORT, duration_s=0.6), clock=machine.clock)
    assert {len(turn) for turn in results["a"].turns_ms} == {1}
    assert {len(turn) for turn in results["b"].turns_ms} == {100}


def test_a_machine_that_slows_down_does_not_favour_one() -> None:
    """Everything takes 5 % longer with every round; B takes 10 % longer than A."""
    machine = Machine()
    networks = {
        "a": machine.network("a", lambda number: 10 * 1.05**number),
        "b": machine.network("b", lambda number: 11 * 1.05**number),
    }
    results = measure(networks, protocol=replace(SHORT, warm_up_s=0, duration_s=0.3), clock=machine.clock)
    verdict = compare(results["a"], results["b"])
    assert verdict.verdict == "A faster"
    assert verdict.ratio == pytest.approx(10 / 11)


def test_quick_networks_get_as_many_calls_as_fill_the_turn_of_the_slowest() -> None:
    machine = Machine()
    networks = {"slow": machine.network("slow", 10), "quick": machine.network("quick", 0.5)}
    results = measure(networks, protocol=replace(SHORT, duration_s=0.095), clock=machine.clock)
    assert {len(turn) for turn in results["slow"].turns_ms} == {1}
    assert {len(turn) for turn in results["quick"].turns_ms} == {20}
    assert results["slow"].num_rounds == results["quick"].num_rounds == 10
    assert results["slow"].run_id == results["quick"].run_id != ""


def test_a_turn_lasts_at_least_so_long() -> None:
    machine = Machine()
    result = measure({"a": machine.network("a", 1)}, protocol=replace(SHORT, turn_s=0.02), clock=machine.clock)["a"]
    assert [len(turn) for turn in result.turns_ms] == [20] * 5


def test_a_round_in_which_the_machine_slept_is_left_out() -> None:
    """The lid is closed during the fifth call of 10 ms: the clock of latencies stops then, the other one does not."""
    machine = Machine()

    def duration(number: int) -> float:
        if number == 4:
            machine.slept_ns += 3_600_000 * MS
            return 77
        return 10

    result = measure({"a": machine.network("a", duration)}, protocol=replace(SHORT, warm_up_s=0), clock=machine.clock)[
        "a"
    ]
    assert result.num_discarded_rounds == 1
    assert result.samples_ms == (10.0,) * 10


@pytest.mark.parametrize(("apart_ns", "discarded"), [(CLOCK_TOLERANCE_NS, 0), (CLOCK_TOLERANCE_NS + 1, 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_may_part_a_little(apart_ns: int, discarded: int, sign: int) -> None:
    machine = Machine()

    def duration(number: int) -> float:
        machine.slept_ns += sign * apart_ns if number == 4 else 0
        return 10

    network = machine.network("a", duration)
    result = measure({"a": network}, protocol=replace(SHORT, warm_up_s=0), clock=machine.clock)["a"]
    assert result.num_discarded_rounds == discarded


def test_a_machine_that_keeps_falling_asleep_is_an_error() -> None:
    machine = Machine()

    def duration(number: int) -> float:
        machine.slept_ns += 1000 * MS
        return 10

    with pytest.raises(RunError, match=f"slept, or its clock was set, in {MAX_DISCARDED + 1} of {MAX_DISCARDED + 1}"):
        measure({"a": machine.network("a", duration)}, protocol=SHORT, clock=machine.clock)


def test_a_clock_that_stands_still_is_an_error() -> None:
    with pytest.raises(RunError, match="clock stands still"):
        measure({"a": lambda: None}, protocol=replace(SHORT, warm_up_s=0), clock=Clock(lambda: 0, lambda: 0))


def test_a_failed_call_comes_through() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    was_enabled = gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        measure({"a": fail}, protocol=SHORT)
    assert gc.isenabled() == was_enabled
    with pytest.raises(RunError, match="nothing to measure"):
        measure({}, protocol=SHORT)


def test_the_garbage_collector_rests_meanwhile() -> None:
    machine, seen = Machine(), []
    network = machine.network("a", 10)

    def call() -> None:
        seen.append((gc.isenabled(), gc.get_freeze_count() > 0))
        network()

    measure({"a": call}, protocol=SHORT, clock=machine.clock)
    assert set(seen) == {(False, True)}
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_an_adaptive_protocol_measures_until_it_is_precise() -> None:
    """Times of 10 ms give or take 10 %: 1 % takes some hundred rounds, and 10 s are allowed."""
    machine, rng = Machine(), np.random.default_rng(0)
    noisy = machine.network("noisy", lambda _: 10 * rng.normal(1, 0.1))
    protocol = replace(SHORT, target_percent=1.0, max_duration_s=10.0)
    results = measure({"noisy": noisy, "steady": machine.network("steady", 10)}, protocol=protocol, clock=machine.clock)
    low, high = results["noisy"].interval_ms
    assert results["noisy"].target_reached
    assert results["steady"].target_reached
    assert 100 < results["noisy"].num_rounds < 1000
    assert (high - low) / 2 <= 0.01 * results["noisy"].median_ms
    assert results["noisy"].median_ms == pytest.approx(10, rel=0.02)


def test_an_adaptive_protocol_says_that_it_did_not_get_there() -> None:
    machine, rng = Machine(), np.random.default_rng(0)
    noisy = machine.network("noisy", lambda _: 10 * rng.uniform(0.5, 1.5))
    protocol = replace(SHORT, target_percent=1.0, max_duration_s=0.5)
    results = measure({"noisy": noisy, "steady": machine.network("steady", 10)}, protocol=protocol, clock=machine.clock)
    assert results["noisy"].target_reached is False
    assert results["steady"].target_reached is True
    assert sum(results["noisy"].samples_ms) == pytest.approx(500, abs=20)


def test_progress_is_reported_to_the_end() -> None:
    machine, parts = Machine(), []
    measure({"a": machine.network("a", 10)}, protocol=SHORT, clock=machine.clock, on_progress=parts.append)
    assert parts == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


@pytest.mark.parametrize(
    "changes",
    [
        {"warm_up_s": -1},
        {"duration_s": 0},
        {"turn_s": 0},
        {"confidence": 1},
        {"target_percent": 0},
        {"target_percent": 1.0, "duration_s": 5, "max_duration_s": 4},
    ],
)
def test_senseless_protocols_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(RunError, match="protocol"):
        TimingProtocol(**changes)


def test_the_real_clocks_advance() -> None:
    """With the clocks of this machine; nothing is said about how long anything takes."""
    result = measure({"a": lambda: sum(range(1000))}, protocol=TimingProtocol(0.001, 0.005, 0.001))["a"]
    assert result.num_samples >= 5
    assert result.min_ms > 0

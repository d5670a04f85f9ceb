"""Algorithm 1 once more, by brute force in whole numbers, sharing no code with the package.

A network is (B, C, slots of R in eighths, the block of each stage, (detail, context, head)).
Latencies are whole thousandths of a millisecond, scores whole hundredths of a point; quotients are compared by
cross-multiplication, candidate against candidate.
"""

from collections.abc import Callable
from functools import partial

Additions = tuple[int, str, int]
Network = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[str, ...], Additions]
Built = Network
Change = tuple[str, tuple[int, ...], str, int]  # dimension, what is added (eighths for the resolution), value, stage


def built(network: Network) -> Built:
    """What is measured and trained: paths without order, zeros left out."""
    blocks, widths, slots, kinds, additions = network
    return blocks, widths, tuple(sorted((slot for slot in slots if slot), reverse=True)), kinds, additions


def grow(network: Network, change: Change, k: int) -> Network | None:
    """network + k · change; None if that is not a network, or a step back."""
    blocks, widths, slots, kinds, (detail, context, head) = network
    dimension, delta, value, stage = change
    if value and k > 1:
        return None
    if dimension == "block":
        kinds = (value,) * 5
    elif dimension == "unit":
        kinds = tuple(value if number == stage else kind for number, kind in enumerate(kinds, start=1))
    elif dimension == "context":
        context = value
    elif dimension == "detail":
        if detail < int(value):
            return None
        detail = int(value)
    elif dimension == "head":
        if head > int(value):
            return None
        head = int(value)
    elif dimension == "depth":
        blocks = tuple(x + k * d for x, d in zip(blocks, delta, strict=True))
    elif dimension == "width":
        widths = tuple(x + k * d for x, d in zip(widths, delta, strict=True))
    else:
        slots = tuple(x + k * d for x, d in zip(slots, delta, strict=True))
    if min(blocks) < 1 or min(widths) < 1 or min(slots) < 0 or not any(slots):
        return None
    return blocks, widths, slots, kinds, (detail, context, head)


def preferred(candidate: tuple[int, int], other: tuple[int, int], parent: tuple[int, int]) -> bool:
    """Is the first (score, latency) strictly preferred to the second by Equation 5 and its rules?"""
    (score_a, time_a), (score_b, time_b), (score, time) = candidate, other, parent
    gain_a, gain_b, delay_a, delay_b = score_a - score, score_b - score, time_a - time, time_b - time
    if gain_a <= 0 or gain_b <= 0:
        return gain_a > 0
    if (delay_a <= 0) != (delay_b <= 0):
        return delay_a <= 0
    left, right = (gain_a, gain_b) if delay_a <= 0 else (gain_a * delay_b, gain_b * delay_a)
    return left > right or (left == right and time_a < time_b)


def search(
    start: Network,
    changes: list[Change],
    time_of: Callable[[Built], int],
    score_of: Callable[[Built], int],
    *,
    cap: int,
    num_steps: int,
    limit: int | None,
) -> list[tuple[int | None, dict[int, int], int | None, Network]]:
    """A row a step: target, {change's index: k}, index of the change taken (None: the end), network afterwards."""
    rows, network = [], start
    for _ in range(num_steps):
        target, taken = None, {}
        possible_step_sizes = {}
        for index, change in enumerate(changes):
            grown = {k: grow(network, change, k) for k in range(1, cap + 1)}
            good = {k: it for k, it in grown.items() if it and built(it) != built(network)}
            good = {k: it for k, it in good.items() if limit is None or time_of(built(it)) <= limit}
            if 1 in good:
                possible_step_sizes[index] = good
        if possible_step_sizes:
            target = max(time_of(built(good[1])) for good in possible_step_sizes.values())
        for index, good in possible_step_sizes.items():
            distances = {k: abs(time_of(built(it)) - target) for k, it in good.items()}
            taken[index] = min(k for k, distance in distances.items() if distance == min(distances.values()))
        points = {
            i: (score_of(built(possible_step_sizes[i][k])), time_of(built(possible_step_sizes[i][k])))
            for i, k in taken.items()
        }
        parent = (score_of(built(network)), time_of(built(network)))
        better = partial(preferred, parent=parent)
        gaining = [i for i in points if points[i][0] > parent[0]]
        best = [i for i in gaining if not any(better(points[j], points[i]) for j in gaining)]
        choice = best[0] if best else None
        if choice is not None:
            network = possible_step_sizes[choice][taken[choice]]
        rows.append((target, taken, choice, network))
        if choice is None:
            break
    return rows

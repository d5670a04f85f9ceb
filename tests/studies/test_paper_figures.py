"""What is published, counted, ranked and marked: against the paper's text, formulas and answers written by hand."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch")

from lpsnet.models.blocks import BLOCKS
from lpsnet.studies.blocks_interactions import (
    MAX_EQUAL_C,
    TOLERANCE,
    Choice,
    Point,
    gmacs,
    nearest_c,
    widths_of_same_latency,
)
from lpsnet.studies.comparison import ALL_METHODS, OURS, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_8
from lpsnet.studies.network_latency import table_2_architecture
from lpsnet.studies.paper_networks import accuracy, corrected_regions, largest_gain
from lpsnet.studies.study import best_two, describe_best, rank_correlation, score_columns


def test_published_rows_are_the_papers() -> None:
    """Copied from the paper's text apart from the module: counts, ends and some in the middle."""
    assert [len(table) for table in (TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7)] == [7, 7, 15, 23, 24, 6]
    assert len(TABLE_8) == 2 * 5
    assert TABLE_2["ghost"] == (58.3, 5.25, 0.47)
    assert TABLE_3["attention_b"] == ("Attention-B", 68.6, 6.99, 1.31)
    assert (TABLE_4[5].latency_ms, TABLE_4[5].miou, TABLE_4[5].dimension) == (1.80, 62.3, "depth")
    found = {(row.table, row.method, row.size): (row.miou_val, row.miou_test, row.fps, row.device) for row in TABLE_5}
    assert found[5, "GAS", (769, 1537)] == (72.4, 71.8, 108.4, "TitanXp")
    assert found[5, "DFANet A'", (512, 1024)] == (None, 70.3, 160.0, "TitanX")
    assert found[5, "LPS-Net-L", (1024, 2048)] == (78.2, 77.3, 151.8, "1080Ti")
    assert [(row.miou_test, row.fps) for row in TABLE_6 if row.method == "MSFNet"] == [(72.7, 160.0), (75.4, 91.0)]
    assert [(row.miou_val, row.fps) for row in TABLE_7 if row.is_ours] == [(55.9, 634.7), (58.1, 495.0), (59.3, 283.3)]
    assert [row.fps for row in TABLE_8 if row.method == "LPS-Net-S"] == [10.0, 25.6]


def test_published_figures_agree_with_what_the_paper_says_of_them() -> None:
    """Claims of the text: Table 3's gain of 3.0, Section 4.5's 65 % and 99 % speed-ups, Section 4.6's 41 % and 50 %."""
    assert TABLE_3["bilateral_b"].miou - TABLE_3["none"].miou == pytest.approx(3.0)
    fps = {(row.table, row.method, row.device): row.fps for row in ALL_METHODS}
    assert fps[5, "LPS-Net-S", "1080Ti"] / fps[5, "STDC1Seg-50", "1080Ti"] == pytest.approx(1.65, abs=0.01)
    assert fps[7, "LPS-Net-S", "1080Ti"] / fps[7, "FasterSeg", "1080Ti"] == pytest.approx(1.99, abs=0.01)
    for device, more in (("Jetson Nano", 1.41), ("Jetson TX2", 1.50)):
        assert fps[8, "LPS-Net-S", device] / fps[8, "STDC1Seg-50", device] == pytest.approx(more, abs=0.01)
    assert all(row.gmacs_per_ms == pytest.approx(BLOCKS[b].table_2_gmacs / row.latency_ms, abs=0.016)
               for b, row in TABLE_2.items())  # fmt: skip
    assert {row.method for row in ALL_METHODS if row.is_ours} == set(OURS)


def test_table_2s_network_of_plain_convolutions_is_counted_as_by_hand() -> None:
    """Stage by stage, R={1,1/4}, c=14, 1024x2048: one convolution of the stage's stride, then those of stride 1."""
    c, widths, blocks = 14, (14, 28, 56, 112, 112), (1, 2, 4, 7, 7)
    total = 0
    for height, width in ((1024, 2048), (256, 512)):
        channels = 3
        for stage, (out, count) in enumerate(zip(widths, blocks, strict=True)):
            if stage < 4:
                height, width = height // 2, width // 2
            total += height * width * 9 * (channels * out + (count - 1) * out * out)
            channels = out
    total += 64 * 128 * 2 * widths[-1] * 19
    assert gmacs("conv3x3", c) == pytest.approx(total / 1e9, rel=1e-12)
    assert table_2_architecture(c).widths == widths


@pytest.mark.parametrize("block", [name for name, row in BLOCKS.items() if row.table_2_c])
def test_a_whole_c_meets_table_2s_macs(block: str) -> None:
    c, count = nearest_c(block)
    target = BLOCKS[block].table_2_gmacs
    assert c == BLOCKS[block].table_2_c
    assert abs(count / target - 1) <= TOLERANCE
    assert all(abs(gmacs(block, other) - target) >= abs(count - target) for other in (c - 1, c + 1))


def test_rank_correlation() -> None:
    """Without ties it is 1 - 6 sum(d^2) / (n (n^2 - 1))."""
    rng = random.Random(0)
    for n in (2, 5, 11):
        a, b = rng.sample(range(100), n), rng.sample(range(100), n)
        differences = [sorted(a).index(x) - sorted(b).index(y) for x, y in zip(a, b, strict=True)]
        assert rank_correlation(a, b) == pytest.approx(1 - 6 * sum(d * d for d in differences) / (n * (n * n - 1)))
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)  # ranks 1, 2.5, 2.5, 4
    assert rank_correlation([1, 1], [1, 2]) is None
    assert rank_correlation([1], [1]) is None


def test_the_best_are_named_with_how_sure_it_is() -> None:
    assert best_two({"a": 1.0, "b": 3.0, "c": 3.0, "d": 2.0}) == ["b", "c"]
    one, two, three = (50.0, 52.0), (51.0, 51.5), (49.0,)
    text = describe_best({"a": one, "b": two, "c": three}, paper="b")
    assert text == "b has the highest mIoU, as in the paper: 51.25 before a with 51.00, but not by every seed."
    assert "by every seed" in describe_best({"a": (50.0, 50.5), "b": two}, paper="b")
    assert "unlike in the paper, where it is c" in describe_best({"a": one, "c": three}, paper="c")
    assert describe_best({"a": one, "c": three}, paper="a").endswith("with 2 and 1 seeds.")
    low = (1.0, 2.0)
    assert describe_best({"a": one, "c": three, "d": low}, paper="d").endswith(" d: 1.50, by every seed.")
    assert describe_best({"a": one, "c": three}, paper="gone").endswith("with 2 and 1 seeds.")
    assert describe_best({"d": (60.0,), "c": three}, paper="a").endswith("one seed each.")
    assert score_columns(one) == {"miou": 51.0, "miou_deviation": pytest.approx(2**0.5)}
    assert score_columns(()) == {"miou": None, "miou_deviation": None}


class Device:
    """Latencies by formula, cost x c^power, c rounded up to multiples of 8 where it `steps`; and noise."""

    def __init__(self, *, noise: float) -> None:
        self.noise, self.rng, self.num_passes = noise, random.Random(0), 0

    def exact_ms(self, point: Point) -> float:
        block, c = point
        cost, power, steps = {"plain": (0.05, 2, False), "cheap": (0.2, 1.2, False), "stepped": (0.02, 2, True)}[block]
        return 0.1 + cost * (-(-c // 8) * 8 if steps else c) ** power

    def measure_once(self, points: Sequence[Point]) -> list[float]:
        self.num_passes += 1
        speed = self.rng.uniform(1, 2)  # the machine is slower at times, for a whole pass
        return [speed * self.exact_ms(p) * self.rng.uniform(1 - self.noise, 1 + self.noise) for p in points]


@pytest.mark.parametrize("starts", [1, 14, 100])
def test_c_of_one_latency_is_found_as_by_trying_all(starts: int) -> None:
    device, reference = Device(noise=0.002), ("plain", 14)
    blocks = ("plain", "cheap", "stepped")
    parts: list[float] = []
    found = widths_of_same_latency(
        dict.fromkeys(blocks, starts), reference, measure_once=device.measure_once, on_progress=parts.append
    )  # fmt: skip
    target = device.exact_ms(reference)
    for block in blocks:
        best = min(abs(device.exact_ms((block, c)) - target) for c in range(1, MAX_EQUAL_C + 1))
        assert abs(device.exact_ms((block, found[block].c)) - target) == pytest.approx(best, abs=0.01 * target)
        exact = device.exact_ms((block, found[block].c)) / target
        assert found[block].low <= found[block].ratio <= found[block].high
        assert found[block].ratio == pytest.approx(exact, rel=0.01)
    assert found["plain"] == Choice(14, 1.0, 1.0, 1.0)
    assert parts == sorted(parts)


def test_a_block_that_is_always_too_slow_or_too_fast_gets_the_end() -> None:
    times = {"reference": 1.0, "slow": 5.0, "fast": 0.1}
    found = widths_of_same_latency(
        {"slow": 9, "fast": 9},
        ("reference", 1),
        measure_once=lambda points: [times[block] for block, _ in points],
        on_progress=lambda part: None,
    )
    assert (found["slow"].c, found["fast"].c) == (1, MAX_EQUAL_C - 1) or found["fast"].c == MAX_EQUAL_C


def test_corrected_regions_are_boxed() -> None:
    """A square of 20x20 that the second map has right and the first wrong, a single pixel, and an unlabelled square."""
    truth = np.ones((100, 200), np.uint8)
    before = truth.copy()
    before[10:30, 50:70] = 0
    before[60, 60] = 0
    before[80:95, 0:15] = 0
    truth[80:95, 0:15] = 255
    after = np.ones_like(truth)
    assert corrected_regions(before, after, truth) == [(8, 48, 24, 24)]  # with a margin; one pixel is too small
    assert largest_gain(before, after, truth) == 400
    assert corrected_regions(after, before, truth) == []
    assert largest_gain(after, before, truth) == 0
    assert accuracy(before, truth) == pytest.approx(100 * (1 - 401 / (100 * 200 - 225)))
    assert accuracy(before, np.full_like(truth, 255)) == 0.0
    edge = truth.copy()
    edge[:3, :40] = 0
    assert corrected_regions(edge, after, truth) == [(0, 0, 5, 42)]

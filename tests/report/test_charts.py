"""Charts say what they were given: values are read back from the drawing by its ticks, or from what its marks say."""

import re

import numpy as np
import pytest
from svg_scale import numbers, of_class, parse, path_points, tips, x_scale, y_scale

from lpsnet.report.charts import (
    MAX_NAME,
    MAX_POINTS,
    Curve,
    Distribution,
    Drawing,
    Size,
    clean,
    draw_confusion,
    draw_curves,
    draw_distributions,
)

SIZE = Size(560.0, 300.0)
HOSTILE = ('</svg><script>alert("1")</script>', "a\x00b\x1b[31m\ud800", "& <b> \"'")


def test_points_of_curves_lie_where_the_ticks_say() -> None:
    xs, ys = [1.0, 2.0, 4.0, 8.0], [0.5, 2.5, 1.0, 2.0]
    drawing = draw_curves([Curve("a", xs, ys), Curve("b", xs, ys[::-1])], SIZE, label="", x_name="x", y_name="y")
    root = parse(drawing.document())
    x, y = x_scale(root), y_scale(root)
    for line, expected in zip(of_class(root, "curve"), (ys, ys[::-1]), strict=True):
        found = path_points(line)
        assert [x.value(point[0]) for point in found] == pytest.approx(xs, abs=x.tolerance)
        assert [y.value(point[1]) for point in found] == pytest.approx(expected, abs=y.tolerance)
    assert "b\n1 at 4" not in tips(root)
    assert "b\n2.5 at 4" in tips(root)
    assert [it.text for it in root.iter("text")][:2] == ["a", "b"], "the legend"


def test_many_points_are_drawn_as_means_in_a_band() -> None:
    ys = np.random.default_rng(0).normal(size=10 * MAX_POINTS)
    root = parse(draw_curves([Curve("a", range(len(ys)), ys)], SIZE, label="", x_name="", y_name="").document())
    scale = y_scale(root)
    (line,) = of_class(root, "curve")
    found = [scale.value(y) for _, y in path_points(line)]
    assert found == pytest.approx(ys.reshape(MAX_POINTS, 10).mean(axis=1), abs=scale.tolerance)
    (band,) = of_class(root, "band")
    edges = [scale.value(y) for _, y in path_points(band)]
    highest = ys.reshape(MAX_POINTS, 10).max(axis=1)
    inside = highest < max(found)
    np.testing.assert_allclose(np.array(edges[:MAX_POINTS])[inside], highest[inside], atol=scale.tolerance)


def test_one_point_and_equal_points_make_a_chart() -> None:
    for xs, ys in (([3.0], [2.0]), ([1.0, 2.0], [0.0, 0.0])):
        root = parse(draw_curves([Curve("a", xs, ys)], SIZE, label="", x_name="", y_name="").document())
        scale = y_scale(root)
        assert scale.value(path_points(of_class(root, "curve")[0])[0][1]) == pytest.approx(ys[0], abs=scale.tolerance)


def test_distributions_show_all_samples_and_their_median() -> None:
    dice = np.random.default_rng(1)
    samples = dice.normal(10, 0.5, 400)
    row = Distribution("m", samples.tolist(), float(np.median(samples)), (9.9, 10.1), float(np.percentile(samples, 90)))
    root = parse(draw_distributions([row], 800, label="", x_name="ms").document())
    scale = x_scale(root)
    long, short = sorted(of_class(root, "mark"), key=lambda it: numbers(it, "y1")[0])
    assert scale.value(numbers(long, "x1")[0]) == pytest.approx(row.median, abs=scale.tolerance)
    assert scale.value(numbers(short, "x1")[0]) == pytest.approx(row.p90, abs=scale.tolerance)
    (band,) = of_class(root, "band")
    left, width = numbers(band, "x", "width")
    assert (scale.value(left), scale.value(left + width)) == pytest.approx(row.interval, abs=2 * scale.tolerance)
    bars = [it for it in of_class(root, "f1") if it is not band]
    tallest = max(bars, key=lambda it: numbers(it, "height")[0])
    low, high = (scale.value(numbers(tallest, "x")[0] + offset) for offset in (0, numbers(tallest, "width")[0] + 0.5))
    counts = [np.sum((samples >= edge) & (samples < edge + high - low)) for edge in np.arange(8, 12, 0.01)]
    assert np.sum((samples >= low) & (samples <= high)) >= 0.6 * max(counts), "the highest bar is where samples are"
    assert "400 samples" in tips(root)[0]


def test_samples_far_apart_are_drawn_by_ratio_and_those_beyond_are_counted() -> None:
    fast = Distribution("fast", [1.0] * 99 + [1000.0], 1.0, (1.0, 1.0), 1.0)
    slow = Distribution("slow", [50.0] * 100, 50.0, (50.0, 50.0), 50.0)
    root = parse(draw_distributions([fast, slow], 800, label="", x_name="ms").document())
    texts = [it.text for it in root.iter("text")]
    assert {"1", "10"} <= set(texts)
    assert "1 of 100 lie beyond" in texts


def test_a_confusion_matrix_says_every_count() -> None:
    matrix = np.array([[90, 10, 0], [30, 60, 10], [0, 0, 0]])
    for width in (360, 1100):
        root = parse(draw_confusion(matrix, ("road", "car", "tree"), width, label="").document())
        said = [
            re.search(r"truth: (\w+)\nprediction: (\w+)\n([\d.]+) % of it, ([\d,]+) pixels", tip) for tip in tips(root)
        ]
        counts = {(it[1], it[2]): (float(it[3]), int(it[4])) for it in said if it}
        names = ("road", "car", "tree")
        assert {pair: count for pair, (_, count) in counts.items()} == {
            (names[row], names[column]): matrix[row, column] for row, column in zip(*matrix.nonzero(), strict=True)
        }
        assert counts["car", "road"][0] == pytest.approx(30.0)


def test_small_cells_and_long_names_still_fit() -> None:
    names = [f"class number {number} with a long name" for number in range(30)]
    drawing = draw_confusion(np.eye(30, dtype=np.int64), names, 360, label="")
    assert drawing.width <= 361
    shown = [it.text or "" for it in parse(drawing.document()).iter("text")]
    assert max(map(len, shown)) <= MAX_NAME


@pytest.mark.parametrize("name", HOSTILE)
def test_names_from_other_peoples_files_stay_text(name: str) -> None:
    drawing = Drawing(10, 10, label=name)
    drawing.add("text", text=name)
    drawing.add("rect", tip=name)
    root = parse(drawing.document())
    assert [it.tag for it in root.iter()] == ["svg", "style", "rect", "text", "rect", "title"]
    (text,) = root.iter("text")
    assert text.text == clean(name) == tips(root)[0] == root.attrib["aria-label"]
    assert "<script" not in drawing.inline()


def test_cleaning_keeps_what_can_be_written() -> None:
    assert clean("Straße, 道路 😀\n\tx") == "Straße, 道路 😀\n\tx"
    assert clean("a\x00\ud800\uffff") == "a\ufffd\ufffd\ufffd"

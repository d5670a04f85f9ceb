"""The report of an expansion, finished or not: its figure, its tables, and what it says is left."""

import json
import math
import re
from pathlib import Path

import pytest
from page_reading import Page, check_self_contained, read_page
from svg_scale import Scale, numbers, of_class, parse, path_points, tips, x_scale, y_scale
from written_searches import (
    DEEPER,
    DEEPER_2,
    FINER,
    FIRST,
    LAST,
    SECOND,
    START,
    WIDER,
    WIDER_2,
    in_training,
    member,
    write_result,
    write_search,
)

from lpsnet.errors import RunError
from lpsnet.report.report import write_report
from lpsnet.report.search import COLOURS, write_figure
from lpsnet.search.family import Member, Step
from lpsnet.search.journal import Stopped, TrainingFinished, TrainingStarted
from lpsnet.search.operations import Operation

PLAN = {"command": "lpsnet expand --out 'a b'", "num_steps": 4, "budgets_ms": [2.0]}


def report(folder: Path) -> Page:
    page = read_page(write_report(folder).read_text(encoding="utf-8"))
    check_self_contained(page)
    return page


def test_the_tables_of_a_finished_search(tmp_path: Path) -> None:
    write_search(tmp_path, [FIRST, SECOND, LAST], plan=PLAN)
    write_result(tmp_path, [FIRST, SECOND, LAST], budgets_ms=[0.5, 1.8])
    page = report(tmp_path)
    family, front = [it for it in page.tables if it[0][:2] == ["Step", "B"]]
    columns = {name: family[0].index(name) for name in ("Latency (ms)", "mIoU (%)", "C", "Dimension", "File")}
    rows = [{name: row[place] for name, place in columns.items()} for row in family[1:]]
    assert [row["Latency (ms)"] for row in rows] == ["1.10", "1.65", "2.75"], "as measured at the end"
    assert [row["mIoU (%)"] for row in rows] == ["30.0", "34.5 ± 0.8", "40.1"]
    assert [row["C"] for row in rows] == ["{4, 4, 8, 8, 8}", "{4, 4, 8, 16, 16}", "{4, 4, 8, 16, 16}"]
    assert [row["Dimension"] for row in rows] == ["–", "Width", "Depth"]
    assert [row["File"] for row in rows] == ["step_0.onnx", "step_1.onnx", "step_2.onnx"]
    assert [row[6] for row in front[1:]] == ["30.0", "34.5 ± 0.8", "36.0", "40.1"], "the others are beaten by these"
    assert page.table("Budget (ms)") == [
        ["0.5", "none is this fast", "–", "–", ""],
        ["1.8", "step_1.onnx", "1.65", "34.5", "its interval reaches above"],
    ]
    assert not [text for text in page.texts if "not finished" in text]
    assert PLAN["command"] in page.texts


def test_a_faster_network_that_is_as_good_is_named_beside_the_best(tmp_path: Path) -> None:
    write_search(tmp_path, [FIRST, SECOND])
    write_result(tmp_path, [FIRST, SECOND], budgets_ms=[1.8])
    path = tmp_path / "family" / "family.json"
    family = json.loads(path.read_text(encoding="utf-8"))
    for reaches_above, says in ((False, ""), (True, "its interval reaches above; ")):
        family["choices"][0] |= {"interval_reaches_above": reaches_above, "faster_as_good": "step_0.onnx"}
        path.write_text(json.dumps(family), encoding="utf-8")
        (row,) = report(tmp_path).table("Budget (ms)")
        assert row[-1] == f"{says}step_0.onnx is faster, and as good within the noise"


def test_what_networks_of_today_have_is_shown(tmp_path: Path) -> None:
    gate, unit, detail = map(Operation.parse, ("context=gate", "unit@5=ghost", "detail=8"))
    first = member(1, gate.apply(WIDER.network), 1.7, 35.0, gate, 1)
    second = member(2, unit.apply(first.network), 1.8, 36.0, unit, 1)
    other = member(2, detail.apply(first.network), 1.9, 36.0, detail, 1)
    steps = [
        Step(1, START, 1.9, (WIDER, first), (), first),
        Step(2, first, 1.9, (second, other), (), second),
    ]
    write_search(tmp_path, steps, plan={**PLAN, "num_steps": 2})
    write_result(tmp_path, steps)
    page = report(tmp_path)
    family, _ = [it for it in page.tables if it[0][:2] == ["Step", "B"]]
    assert family[0][-3:] == ["Additions", "Block", "File"]
    block = "conv3x3,conv3x3,conv3x3,conv3x3,ghost"
    assert [row[-3:-1] for row in family[1:]] == [
        ["–", "conv3x3"],
        ["X=gate", "conv3x3"],
        ["X=gate", "conv3x3 ×4, ghost"],
    ]
    assert [row[family[0].index("Dimension")] for row in family[1:]] == ["–", "Context", "Unit"]
    drawing = parse(write_figure(tmp_path).read_text(encoding="utf-8"))
    assert any(f"X=gate\n{block}" in tip for tip in tips(drawing))
    assert any("D=8 X=gate" in tip for tip in tips(drawing))
    known = {name for _, name in COLOURS.values()}
    names = [text.text for text in drawing.iter("text") if text.text in known]
    assert names == ["Width", "Block", "Detail, context, head"]


def test_each_step_says_what_it_tried_and_why(tmp_path: Path) -> None:
    page = report(write_search(tmp_path, [FIRST, SECOND]))
    first, second = [it for it in page.tables if it[0][0] == "Operation"]
    assert first[0][1:4] == ["k", "Latency (ms)", "Interval (ms)"]
    shown = {row[0]: row for row in first[1:]}
    assert shown["depth=0,0,0,1,1"][2:] == ["1.60", "1.44 to 1.92", "31.2", "33.2", "1", "5.42", "may be as good"]
    assert shown["width=0,0,0,8,8"][2:] == ["1.50", "1.35 to 1.80", "32.5", "34.5 ± 0.8", "2", "9.00", "chosen"]
    assert shown["resolution=0,1/4,0"][-2:] == ["2.86", ""]
    assert shown["block=ghost"][-1] == "all blocks are ghosts"
    assert [row[-1] for row in second[1:]] == ["chosen", "runner-up"]
    assert any(text.startswith("Step 1 takes width=0,0,0,8,8 x1; undecided") for text in page.texts)
    assert "Parent: 1 ms, 30.0 mIoU. Target 1.55 ms." in page.texts
    assert (page.fact("Steps"), page.fact("Steps undecided"), page.fact("Networks trained")) == ("2", "1", "6")


def test_parts_of_a_training_are_counted_each(tmp_path: Path) -> None:
    """In a race two candidates are begun after a quarter; one is scored, and begun to half."""
    designs, parent = tuple(str(it.design) for it in (DEEPER_2, WIDER_2)), str(WIDER.design)
    more = [
        TrainingStarted(designs=designs, parent=parent, part=4),
        *(TrainingFinished(design=it, parent=parent, miou=30.0, part=4) for it in designs),
        TrainingStarted(designs=designs[:1], parent=parent, part=2),
    ]
    page = report(write_search(tmp_path, [FIRST], more, plan=PLAN))
    assert any("Step 2: 2 of 3 trainings begun are done, 1 to go." in text for text in page.texts)
    assert [row[-1] for row in page.table("Network")] == ["after 1/4 of its training"] * 2


@pytest.mark.parametrize("narrow", [False, True])
def test_the_figure_can_be_read_by_its_ticks(tmp_path: Path, narrow: bool) -> None:
    write_search(tmp_path, [FIRST, SECOND])
    if narrow:
        html = write_report(tmp_path).read_text(encoding="utf-8")
        svg = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)[1]
    else:
        svg = write_figure(tmp_path).read_text(encoding="utf-8")
    root = parse(svg)
    x, y = x_scale(root), y_scale(root)
    family = [START, WIDER, DEEPER_2]
    assert [_at(it, x, y) for it in of_class(root, "knot")] == [_near(it, x, y) for it in family]
    hollow = [it for it in of_class(root, "hollow") if it.tag == "circle"]
    others = [DEEPER, FINER, WIDER_2]
    assert [_at(it, x, y) for it in hollow] == [_near(it, x, y) for it in others]
    colours = ["s1", "s3", "s2"]
    assert [it.attrib["class"].split()[1] for it in hollow] == colours, "depth, resolution, width"
    segments = of_class(root, "thick")
    assert [it.attrib["class"].split()[-1] for it in segments] == ["s2", "s1"], "a segment is what made its end"
    for segment, ends in zip(segments, (family[:2], family[1:]), strict=True):
        for point, end in zip(path_points(segment), ends, strict=True):
            assert (x.value(point[0]), y.value(point[1])) == _near(end, x, y)
    whiskers = of_class(root, "across")
    for whisker, it in zip(whiskers, family, strict=True):
        low, high = (x.value(pixel) for pixel in numbers(whisker, "x1", "x2"))
        assert (low, high) == pytest.approx((it.latency.low_ms, it.latency.high_ms), abs=x.tolerance)
    (upright,) = of_class(root, "upright")
    ends = [y.value(pixel) for pixel in numbers(upright, "y1", "y2")]
    assert ends == pytest.approx([34.5 - 0.75, 34.5 + 0.75], abs=y.tolerance), "the spread of two seeds"
    said = "\n".join(tips(root))
    for text in ("B {1, 1, 1, 2, 2}", "C {4, 4, 8, 24, 24}", "R {1, 1/4, 0}", "40.12 mIoU", "depth=0,0,0,1,1 ×1"):
        assert text in said


def test_the_front_is_a_staircase_of_the_best(tmp_path: Path) -> None:
    write_search(tmp_path, [FIRST, SECOND])
    root = parse(write_figure(tmp_path).read_text(encoding="utf-8"))
    x, y = x_scale(root), y_scale(root)
    (line,) = of_class(root, "front")
    corners = [(x.value(a), y.value(b)) for a, b in path_points(line)]
    everything = [START, DEEPER, WIDER, FINER, DEEPER_2, WIDER_2]
    for latency in (1.2, 1.49, 1.55, 2.0, 2.3, 2.6):
        best = max(it.score.miou for it in everything if it.latency.median_ms <= latency)
        height = max(b for a, b in corners if a <= latency + x.tolerance)
        assert height == pytest.approx(best, abs=y.tolerance)


@pytest.mark.parametrize(
    ("steps", "more", "plan", "said"),
    [
        ([], [], None, ["Steps decided: 0.", "Step 1: latencies are being measured: 0 repetitions"]),
        ([FIRST], [], PLAN, ["Steps decided: 1 of 4, 3 left.", "Step 2: latencies are being measured"]),
        ([FIRST], in_training(), PLAN, ["Step 2: 2 of 3 trainings begun are done, 1 to go."]),
        ([FIRST, SECOND], [], {**PLAN, "num_steps": 2}, ["All steps are decided. What is left is writing the result"]),
        ([FIRST], [Stopped(number=2, reason="no gain")], PLAN, ["The search has ended at step 2: no gain."]),
    ],
)
def test_a_running_search_shows_the_time_left(
    tmp_path: Path, steps: list, more: list, plan: dict | None, said: list[str]
) -> None:
    page = report(write_search(tmp_path, steps, more, plan=plan))
    for text in said:
        assert text in page.text
    if more and not isinstance(more[0], Stopped):
        assert page.table("Network", "Seed", "At start (%)") == [
            [str(DEEPER_2.design), "0", "38.0", "40.1", ""],
            [str(DEEPER_2.design), "1", "38.0", "41.5", ""],
        ]


def test_a_search_asked_for_more_than_its_result_is_not_finished(tmp_path: Path) -> None:
    write_search(tmp_path, [FIRST], plan=PLAN)
    write_result(tmp_path, [FIRST])
    assert "Steps decided: 1 of 4, 3 left." in report(tmp_path).text


def test_a_journal_with_lines_twice_or_in_another_order_reads_the_same(tmp_path: Path) -> None:
    journal = write_search(tmp_path, [FIRST, SECOND]) / "journal.jsonl"
    header, start, first, second = journal.read_text(encoding="utf-8").splitlines(keepends=True)
    expected = report(tmp_path)
    for lines in (
        [header, start, start, first, first, second],
        [header, start, second, first],
        [header, first, second, start],
    ):
        journal.write_text("".join(lines), encoding="utf-8")
        assert report(tmp_path).tables == expected.tables
    other = second.replace("40.125", "41.5")
    journal.write_text("".join([header, start, first, second, other]), encoding="utf-8")
    assert report(tmp_path).tables[0][-1][6] == "40.1", "of two lines for a step, the first"


def test_of_doubled_lines_the_first_counts_while_the_search_runs(tmp_path: Path) -> None:
    journal = write_search(tmp_path, [FIRST], in_training(), plan=PLAN) / "journal.jsonl"
    expected, (_, start, first, *_) = report(tmp_path), journal.read_text(encoding="utf-8").splitlines(keepends=True)
    with journal.open("a", encoding="utf-8") as file:
        file.write(first + start.replace('"miou":30.0', '"miou":31.0'))
    assert start.replace('"miou":30.0', '"miou":31.0') != start
    assert report(tmp_path).tables == expected.tables
    assert "Step 2: 2 of 3 trainings begun are done, 1 to go." in report(tmp_path).text


def test_the_check_of_a_ranking(tmp_path: Path) -> None:
    write_search(tmp_path, [FIRST])
    write_result(tmp_path, [FIRST])
    path = tmp_path / "family" / "family.json"
    check = {
        "step": 1, "length": 5, "kendall_tau": 0.3333, "same_choice": False, "swapped_pairs": 1,
        "swapped_pairs_beyond_spread": 0,
        "candidates": [
            {"operation": "a", "miou": 30.0, "longer_miou": 41.0},
            {"operation": "b", "miou": 31.0, "longer_miou": 42.5},
        ],
    }  # fmt: skip
    path.write_text(json.dumps({**json.loads(path.read_text()), "ranking_check": check}), encoding="utf-8")
    page = report(tmp_path)
    (table,) = [it for it in page.tables if it[0][-1] == "mIoU, 5 times as long (%)"]
    assert table[1:] == [["b", "31.00", "42.50"], ["a", "30.00", "41.00"]]
    assert "another choice. Kendall's tau 0.33." in page.text


def test_a_search_without_a_trained_network_has_a_page_and_no_figure(tmp_path: Path) -> None:
    folder = write_search(tmp_path)
    lines = (folder / "journal.jsonl").read_text().splitlines(keepends=True)
    (folder / "journal.jsonl").write_text(lines[0])
    page = report(folder)
    assert "svg" not in page.opened
    with pytest.raises(RunError, match="has no figure yet"):
        write_figure(folder)


HOSTILE = "</title><script>alert(1)</script>"


def test_texts_of_the_journal_stay_text(tmp_path: Path) -> None:
    folder = write_search(tmp_path, [FIRST], plan={"command": HOSTILE, HOSTILE: HOSTILE})
    journal = folder / "journal.jsonl"
    text = journal.read_text().replace('"scenes"', json.dumps(HOSTILE)).replace("all blocks are ghosts", HOSTILE)
    journal.write_text(text)
    page = report(folder)
    assert page.text.count(HOSTILE) >= 4


@pytest.mark.parametrize("content", ["{", "[]", '{"family": 1}', '{"family": [], "front": []}'])
def test_a_damaged_result_is_refused_in_a_line(tmp_path: Path, content: str) -> None:
    write_search(tmp_path, [FIRST])
    write_result(tmp_path, [FIRST])
    (tmp_path / "family" / "family.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError) as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def _at(dot, x: Scale, y: Scale) -> tuple[float, float]:
    cx, cy = numbers(dot, "cx", "cy")
    return x.value(cx), y.value(cy)


class _near:
    """Equal to every place within a third of a pixel of a member's."""

    def __init__(self, member: Member, x: Scale, y: Scale) -> None:
        self._place, self._room = (member.latency.median_ms, member.score.miou), (x.tolerance, y.tolerance)

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, tuple)
        pairs = zip(self._place, other, self._room, strict=True)
        return all(math.isclose(a, b, abs_tol=room) for a, b, room in pairs)

    def __repr__(self) -> str:
        return f"{self._place} ± {self._room}"

    __hash__ = None  # type: ignore[assignment]

"""Pages in a real browser: they fit a telephone and a screen, ask for nothing, and run no script but their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import Chromium, find_chromium
from test_benchmark_report import measured
from test_study_report import VALUES
from test_training_report import make_run
from written_searches import FIRST, LAST, SECOND, in_training, write_result, write_search

from lpsnet.report.evaluation import ImageOptions
from lpsnet.report.report import write_report


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here that runs; install it (apt-get install chromium), or name it in LPSNET_CHROMIUM")
    with Chromium(program, "--disable-gpu") as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, evaluated: dict[str, Any]) -> list[Path]:
    """A page of every kind."""
    folder = tmp_path_factory.mktemp("pages")
    for name, values in (("scores", evaluated), ("benchmark", measured()), ("study", VALUES)):
        (folder / f"{name}.json").write_text(json.dumps(values), encoding="utf-8")
    trained = make_run(folder / "trained")
    trained.evaluation.write_text(json.dumps(evaluated), encoding="utf-8")
    grown = write_search(folder / "grown", [FIRST, SECOND, LAST])
    write_result(grown, [FIRST, SECOND, LAST], budgets_ms=[1.8])
    growing = write_search(folder / "growing", [FIRST], in_training())
    sources = (*sorted(folder.glob("*.json")), trained.path, grown, growing)
    return [write_report(source, images=ImageOptions(count=0)) for source in sources]


def show(browser: Chromium, page: Path, *, width: int, scheme: str = "light") -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(page.as_uri())


@pytest.mark.parametrize("width", [320, 740, 1400])
def test_nothing_is_wider_than_the_window(browser: Chromium, pages: list[Path], width: int) -> None:
    for page in pages:
        show(browser, page, width=width)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, page.name
        shown = browser.evaluate(
            "[...document.querySelectorAll('svg.chart')].map((it) => it.getBoundingClientRect().width)"
        )
        visible = [it for it in shown if it]
        assert len(visible) == len(shown) / 2, "a chart is drawn for this width or the other"
        assert all(it > 250 for it in visible)


def test_letters_in_charts_can_be_read(browser: Chromium, pages: list[Path]) -> None:
    """Text is scaled with its drawing, and must not become too small on the way from one drawing to the other."""
    code = """[...document.querySelectorAll('svg.chart')].filter((it) => it.getBoundingClientRect().width)
        .map((it) => 11 * it.getBoundingClientRect().width / it.viewBox.baseVal.width)"""
    for width, least in ((400, 9), (740, 9), (961, 8), (1400, 10)):
        for page in pages:
            show(browser, page, width=width)
            assert min(browser.evaluate(code), default=11) > least, (page.name, width)


def test_they_ask_for_nothing_and_say_nothing_wrong(browser: Chromium, pages: list[Path]) -> None:
    for page in pages:
        show(browser, page, width=1400)
        asked = [url for url in browser.requests() if not url.startswith("data:")]
        assert asked == [page.as_uri()]
        assert browser.events_of("Log.entryAdded") == []
        assert browser.events_of("Runtime.exceptionThrown") == []


def test_they_follow_the_system_s_colours(browser: Chromium, pages: list[Path]) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        show(browser, pages[0], width=400, scheme=scheme)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]


def test_a_dot_says_its_network_where_it_is_pointed_at(browser: Chromium, pages: list[Path]) -> None:
    (page,) = [it for it in pages if it.parent.name == "grown"]
    for width in (400, 1400):
        show(browser, page, width=width)
        dots = "[...document.querySelectorAll('.says')].filter((it) => it.getBoundingClientRect().width)"
        browser.evaluate(f"{dots}.at(-1).scrollIntoView({{block: 'center'}})")
        place = browser.evaluate(
            f"(({{x, y, width}}) => [x + width / 2, y + width / 2])({dots}.at(-1).getBoundingClientRect())"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
        browser.wait_for("!document.getElementById('tip').hidden")
        said = browser.evaluate("document.getElementById('tip').textContent")
        assert said.startswith("Step 2\ndepth=0,0,0,1,1 ×1\nB {1, 1, 1, 2, 2}"), "the last network of the family"
        left, right = browser.evaluate(
            "(({left, right}) => [left, right])(document.getElementById('tip').getBoundingClientRect())"
        )
        assert 0 <= left < right <= width
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
        browser.wait_for("document.getElementById('tip').hidden")


def test_a_script_that_got_in_would_not_run(browser: Chromium, pages: list[Path], tmp_path: Path) -> None:
    """Escaping keeps scripts out; should it fail one day, the page's policy still forbids them."""
    page = tmp_path / "page.html"
    strange = "<script>document.title = 'ran'</script><img src=x onerror=\"document.title = 'ran'\">"
    page.write_text(pages[0].read_text(encoding="utf-8").replace("<main>", f"<main>{strange}"), encoding="utf-8")
    show(browser, page, width=400)
    assert browser.evaluate("document.title") != "ran"
    assert len(browser.events_of("Log.entryAdded")) >= 2, "and the browser says so"

"""Every measured figure in README and docs is linked to a page of results that has it."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    *sorted(path for path in (REPOSITORY / "docs").rglob("*.md") if "results" not in path.parts),
]
# A number with a unit in which results are stated. `10 times` in words is none of them.
_NUMBER = r"(?<![\w.,-])(\d[\d,]*(?:\.\d+)?)"
FIGURE = re.compile(rf"{_NUMBER}\s?(?:ms\b|mIoU\b|%|points?\b|MiB\b|GiB\b|times\b|frames/s|images a second)")
_LINK = re.compile(r"\]\(([^)#\s]*results/[^)#\s]+\.md)(?:#[^)\s]*)?\)")

_LINKED = re.compile(r"\[([^\]]*\d\.\d[^\]]*)\]\([^)\s]*results/")  # figures that are the text of a link

# Figures that are no measurements of this project: words of the block -> what they are
ALLOWED = {
    "Table 2 compares seven blocks in one architecture": "the paper's",
    "reproduces Table 2's FLOPs": "a bound of a test",
    "int8 takes at most 85 %": "a rule",
    "the most promising within 94 % of it": "a rule",
    "are trained for 8 % of the time each": "a rule",
    "6 % for export and report": "a rule",
    "keeps the last 30 % of val": "a setting",
    "at least 99 % of the labels agree": "a rule",
}


class Block(NamedTuple):
    """A paragraph, list item or table row: where it is, and its text in one line."""

    page: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, without code and comments."""
    start, lines, is_code = 0, list[str](), False
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], start=1):
        text = line.strip()
        ends = not text or text.startswith(("```", "|", "- ", "#", "<!--"))
        if ends and lines:
            yield Block(page, start, " ".join(lines))
            lines = []
        if text.startswith("```"):
            is_code = not is_code
        elif text and not is_code and not text.startswith("<!--") and not line.startswith("    "):
            start = start if lines else number
            lines.append(text)


CLAIMS = [block for page in PAGES for block in blocks(page) if FIGURE.search(block.text) or _LINKED.search(block.text)]


def results_of(block: Block) -> list[Path]:
    """The pages of results that it links to."""
    return [(block.page.parent / link).resolve() for link in _LINK.findall(block.text)]


@cache
def numbers_in(page: Path) -> frozenset[str]:
    """All numbers on a page, as they are written, without thousands' commas."""
    return frozenset(it.replace(",", "") for it in re.findall(r"\d[\d,]*(?:\.\d+)?", page.read_text(encoding="utf-8")))


def is_on(figure: str, page: Path) -> bool:
    """Whether a page has the figure, or one that is rounded to it."""
    digits = len(figure.partition(".")[2])
    return any(
        it == figure or (len(it.partition(".")[2]) > digits and abs(float(it) - float(figure)) <= 0.51 * 10**-digits)
        for it in numbers_in(page)
    )


def allowed(block: Block) -> bool:
    return any(words in block.text for words in ALLOWED)


@pytest.mark.parametrize("block", CLAIMS, ids=str)
def test_a_figure_is_on_the_page_of_results_that_is_linked(block: Block) -> None:
    pages = results_of(block)
    if not pages:
        assert allowed(block), f"{block}: no link to docs/results beside {FIGURE.findall(block.text)}: {block.text}"
        return
    linked = [it for text in _LINKED.findall(block.text) for it in re.findall(r"\d+\.\d+", text)]
    for figure in (it.replace(",", "") for it in (*FIGURE.findall(block.text), *linked)):
        assert allowed(block) or any(is_on(figure, page) for page in pages), f"{block}: {figure} is on none of {pages}"


def test_what_is_allowed_is_there() -> None:
    assert not [words for words in ALLOWED if not any(words in block.text for block in CLAIMS)]

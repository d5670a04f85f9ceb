"""The commands in README and docs, found in the Markdown.

A fenced block of `sh`, `python` or `yaml` is something to type. Blocks of one page are run one after another in one
folder that holds `materials.py`'s files; one with `title="NAME"` is saved under that name instead. A comment on the
line before a block says that it cannot run here, and why; one anywhere on a page that running it takes long:

    <!-- not run: needs a Jetson -->
    <!-- slow: trains for two minutes -->
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.M | re.S)
_SPAN = re.compile(r"(?<!`)`(lpsnet [^`\n]+)`(?!`)")
_TITLE = re.compile(r'title="([^"]+)"')
_SLOW = re.compile(r"<!-- slow: .+ -->")
_ENDS = {"&&", "||", "|", ";", "&", ">", ">>", "<", "2>", "(", ")"}


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page, line: where it stands; the line of its fence, from 1.
        language: what follows the fence: "sh", "python", "yaml", "text", …
        title: the file it is saved as; "" if it is to be run.
        reason: why it cannot run here; "" if it can.
        text: what stands in it.
    """

    page: Path
    line: int
    language: str
    title: str
    reason: str
    text: str

    @property
    def place(self) -> str:
        """Page and line, for people."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    text = page.read_text(encoding="utf-8")
    return [_block(page, text, match) for match in _BLOCK.finditer(text)]


def is_slow(page: Path) -> bool:
    """Whether the page says that running it takes long."""
    return _SLOW.search(page.read_text(encoding="utf-8")) is not None


def script(blocks: list[Block]) -> str:
    """The shell script that does what a page says; "" if nothing of it can be run or saved here."""
    parts = [_part(block) for block in blocks if not block.reason]
    return "\n".join(["set -euo pipefail", *filter(None, parts), ""]) if any(parts) else ""


def shell_commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a shell text that calls `lpsnet`, from the word after it."""
    words = _words(text.replace("\\\n", " "))
    starts = [place for place, word in enumerate(words) if word == "lpsnet" or word.endswith("/lpsnet")]
    for start in starts:
        if start + 1 < len(words) and words[start - 1 if start else 0] not in ("install", "import"):
            stop = next((place for place in range(start, len(words)) if words[place] in _ENDS), len(words))
            yield words[start + 1 : stop]


def inline_commands(page: Path) -> Iterator[list[str]]:
    """The same for commands that stand in a sentence: `lpsnet …`."""
    prose = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    for match in _SPAN.finditer(prose):
        yield shlex.split(match[1])[1:]


def _block(page: Path, text: str, match: re.Match[str]) -> Block:
    language, _, rest = match["info"].strip().partition(" ")
    title = _TITLE.search(rest)
    line = text.count("\n", 0, match.start("info")) + 1
    return Block(page, line, language, title[1] if title else "", match["reason"] or "", match["text"])


def _part(block: Block) -> str:
    if block.title:
        return f"cat > {shlex.quote(block.title)} <<'END OF BLOCK'\n{block.text}END OF BLOCK"
    said = f"echo {shlex.quote(block.place)} >&2"
    if block.language == "sh":
        return f"{said}\n{block.text}"
    return f"{said}\npython - <<'END OF BLOCK'\n{block.text}END OF BLOCK" if block.language == "python" else ""


def _words(text: str) -> list[str]:
    """The words of a shell text; line ends and what separates commands are words of their own."""
    words = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words += [*lexer, ";"]
    return words

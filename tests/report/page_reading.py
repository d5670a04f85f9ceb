"""Reading a page as a browser does: its texts, tables, images and scripts."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "link", "input"}


@dataclass
class Page:
    """What a page holds.

    Attributes:
        tables: of texts, the heads first.
        facts: names and values of all definition lists.
        texts: every text outside of scripts and styles.
        attributes: (tag, name, value) of all elements.
        tips: what marks of charts say.
        opened, closed: tags.
    """

    tables: list[list[list[str]]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str, str]] = field(default_factory=list)
    tips: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)

    def fact(self, name: str) -> str:
        (value,) = [value for key, value in self.facts if key == name]
        return value

    def table(self, *heads: str) -> list[list[str]]:
        """The rows of the one table that begins with these heads."""
        (rows,) = [table for table in self.tables if tuple(table[0][: len(heads)]) == heads]
        return rows[1:]

    def images(self) -> list[str]:
        return [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.page.opened.append(tag)
        self.page.attributes += [(tag, name, value or "") for name, value in attributes]
        if tag not in _VOID:
            self.stack.append(tag)
        match tag:
            case "table":
                self.page.tables.append([])
            case "tr":
                self.page.tables[-1].append([])
            case "td" | "th":
                self.page.tables[-1][-1].append("")
            case "dt":
                self.page.facts.append(("", ""))
            case "title" if "svg" in self.stack:
                self.page.tips.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"{tag} closes nothing"

    def handle_data(self, data: str) -> None:
        inside = set(self.stack)
        if "script" in inside:
            self.page.scripts.append(data)
        if inside & {"script", "style"}:
            return
        if "title" in inside and "svg" in inside:
            self.page.tips[-1] += data
            return
        if data.strip():
            self.page.texts.append(data.strip())
        if inside & {"td", "th"}:
            self.page.tables[-1][-1][-1] = (self.page.tables[-1][-1][-1] + data).strip()
        if inside & {"dt", "dd"}:
            name, value = self.page.facts[-1]
            self.page.facts[-1] = (name + data, value) if "dt" in inside else (name, value + data)


def read_page(html: str) -> Page:
    """The page; an error if its elements are not properly nested."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.stack, f"never closed: {reader.stack}"
    return reader.page


def check_self_contained(page: Page) -> None:
    """No script but the page's own, nothing loaded, nothing that runs when an element is touched."""
    assert len(page.scripts) == 1
    assert "link" not in page.opened
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), f"<{tag} {name}={value!r}>"
        if name in ("src", "href", "action", "data", "xlink:href"):
            assert value.startswith("data:image/"), f"<{tag} {name}={value!r}>"
    assert {"iframe", "object", "embed", "form", "base"}.isdisjoint(page.opened)
    policy = [value for tag, name, value in page.attributes if tag == "meta" and name == "content"]
    assert any(value.startswith("default-src 'none'") for value in policy)

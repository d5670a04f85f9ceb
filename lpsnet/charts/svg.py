"""Vector pictures: elements are added to a tree, which escapes every text by itself."""

import re
from pathlib import Path
from xml.etree import ElementTree

Element = ElementTree.Element

STYLE = Path(__file__).with_name("charts.css")  # the colours of every class used in charts, light and dark

_NAMESPACE = "http://www.w3.org/2000/svg"
# What XML cannot hold, whatever file a name came from
_NO_TEXT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def clean(text: str) -> str:
    """The text with a question mark in place of what no page or picture can hold: control characters, half pairs."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)


class Drawing:
    """A picture being drawn.

    Args:
        width, height: in pixels.
        label: what it shows, for those who do not see it.
    """

    def __init__(self, width: float, height: float, *, label: str) -> None:
        self.width, self.height = width, height
        attributes = {"class": "chart", "role": "img", "aria-label": clean(label)}
        self._root = Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", **attributes})

    def add(
        self, tag: str, parent: Element | None = None, *, text: str = "", tip: str = "", **attributes: str | float
    ) -> Element:
        """Add an element.

        Args:
            tag: of SVG.
            parent: the group it belongs to; the picture itself unless given.
            text: inside it.
            tip: shown when it is pointed at.
            attributes: `_` stands for `-`, `css` for `class`; numbers are pixels.
        """
        named = {_name(key): _value(value) for key, value in attributes.items()}
        element = ElementTree.SubElement(self._root if parent is None else parent, tag, named)
        if tip:
            ElementTree.SubElement(element, "title").text = clean(tip)
        elif text:
            element.text = clean(text)
        return element

    def inline(self) -> str:
        """For a page whose style holds `STYLE`."""
        return ElementTree.tostring(self._root, encoding="unicode")

    def document(self) -> str:
        """For a file of its own."""
        root = Element("svg", {"xmlns": _NAMESPACE, "width": _value(self.width), "height": _value(self.height)})
        root.attrib |= self._root.attrib
        ElementTree.SubElement(root, "style").text = STYLE.read_text(encoding="utf-8")
        ElementTree.SubElement(root, "rect", {"width": "100%", "height": "100%", "class": "paper"})
        root.extend(self._root)
        return ElementTree.tostring(root, encoding="unicode") + "\n"


def _name(key: str) -> str:
    return "class" if key == "css" else key.replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")

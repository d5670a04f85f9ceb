"""Strategies that spoil something valid: bytes of a file, values in JSON or YAML, characters of a text."""

import copy
import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

_NUMBERS = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
)
_NUMBERS_8 = tuple(number * 8 for number in (b"\0", b"\xff", b"\x7f"))
Draw = Callable[[st.SearchStrategy[Any]], Any]

_TEXTS = (
    "",
    ".",
    "..",
    "/",
    "../../x",
    "~",
    "~nobody-here/x",
    "a\0b",
    "\ud800",
    "\x1b[31m",
    "[/red]",
    "[bold]",
    "*",
    "**",
)
_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 300),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30, 65_535, 65_536]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        [
            "",
            ".",
            "..",
            "/",
            "../../x",
            "~",
            "~nobody-here/x",
            "a\0b",
            "\ud800",
            "\x1b[31m",
            "[/red]",
            "[bold]",
            "*",
            "**",
        ]
    ),
)
JSON = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: Draw, files: Sequence[bytes]) -> bytes:
    """A file, one of `files`, with one to four edits: cut off, flipped, overwritten, doubled, spliced."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        draw(st.sampled_from(_EDITS))(draw, data, files)
    return bytes(data)


@st.composite
def altered(draw: Draw, values: Sequence[Any]) -> Any:
    """A JSON value, one of `values`, with one to three places in it replaced, removed, doubled or added to."""
    holder = [copy.deepcopy(draw(st.sampled_from(values)))]
    for _ in range(draw(st.integers(1, 3))):
        _alter(draw, holder)
    return holder[0]


@st.composite
def scrambled(draw: Draw, texts: Sequence[str], pieces: Sequence[str]) -> str:
    """A text, one of `texts`, with pieces put in, taken out or put in the place of others."""
    text = draw(st.sampled_from(texts))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 6)))
        text = text[:start] + draw(st.sampled_from(pieces) | st.text(max_size=6)) + text[end:]
    return text


def as_json(value: Any) -> str:
    """JSON text; NaN and infinities are written as JavaScript does, which readers may take or refuse."""
    return json.dumps(value)


def _position(draw: Draw, data: bytearray) -> int:
    near_start = draw(st.booleans())
    return draw(st.integers(0, max(0, min(len(data), 96 if near_start else len(data)) - 1)))


def _cut(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    del data[_position(draw, data) :]


def _flip(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    if data:
        data[_position(draw, data)] ^= 1 << draw(st.integers(0, 7))


def _overwrite(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    number = draw(st.sampled_from(_NUMBERS) | st.binary(min_size=1, max_size=4))
    start = _position(draw, data)
    data[start : start + len(number)] = number


def _remove(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    start = _position(draw, data)
    del data[start : start + draw(st.integers(1, 64))]


def _repeat(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    start = _position(draw, data)
    data[start:start] = data[start : start + draw(st.integers(1, 200))]


def _insert(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    start = _position(draw, data)
    data[start:start] = draw(st.binary(min_size=1, max_size=16))


def _splice(draw: Draw, data: bytearray, files: Sequence[bytes]) -> None:
    start = _position(draw, data)
    other = draw(st.sampled_from(files))
    data[start:] = other[start:]


_EDITS = (_cut, _flip, _flip, _overwrite, _overwrite, _remove, _repeat, _insert, _splice)


def _alter(draw: Draw, holder: list[Any]) -> None:
    """Walk down from `holder[0]` to some place and change what is there."""
    parent: Any = holder
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and draw(st.integers(0, 3)):
        parent = parent[key]
        key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
    match draw(st.sampled_from(("replace", "replace", "remove", "add"))):
        case "remove" if parent is not holder:
            del parent[key]
        case "add" if isinstance(parent[key], list):
            parent[key].append(draw(JSON))
        case "add" if isinstance(parent[key], dict):
            parent[key][draw(st.text(max_size=8))] = draw(JSON)
        case _:
            parent[key] = draw(JSON)

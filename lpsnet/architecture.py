"""Architectures: the triple {B, C, R} of Section 3.1 with this package's additions, and the named networks.

An `Architecture` is a frozen, hashable value. Block and interaction types are not part of it; they are chosen when the
network is created (`lpsnet.create_model`). The additions, all off in the paper's networks, are where the logits are
computed (`detail`), what the features know of the whole image (`context`) and a layer before the logits (`head`).
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Self

from lpsnet.errors import ArchitectureError, unknown_name

NUM_STAGES = 5  # Section 3.1; the first block of Stages 1 to 4 has stride 2
SCORE_STRIDE = 16  # the paper's logits have the largest path's size divided by this
DETAILS = (16, 8, 4)  # strides that logits can have: those of Stages 5, 3 and 2

# Bounds far above anything useful, so that a typing error or a hostile file cannot use up the memory.
MAX_BLOCKS = 1_000
MAX_WIDTH = 65_536
MAX_RATIO = 64
NO_CONTEXT = "none"

Ratio = Fraction | int | float | str
# 3/4, 2 or 0.75; without exponents, since Fraction("1e999999999") would compute that number
_RATIO = re.compile(r"-?[0-9]{1,9}(?:/0*[1-9][0-9]{0,8}|\.[0-9]{0,9})?|-?\.[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network N = {B, C, R} of Section 3.4.

    Attributes:
        blocks: B, the number of convolutional blocks in each of the five stages, each at least 1.
        widths: C, the number of channels in each of the five stages, each at least 1.
        ratios: R, the scaling ratio of every path, largest first. Given ratios may be fractions, integers, text
            ("3/4", "0.75") or floats, in any order; zeros mean 'no path' and are left out. At least one is positive.
        detail: the stride of the logits, 16 (the paper's), 8 or 4. Below 16 the largest path's features of Stage 3
            (stride 8), and of Stage 2 (stride 4), add logits of their own.
        context: what the features get of the whole image, a name in `models.head.CONTEXTS`; "none" is the paper's.
        head: channels of a 1x1 convolution + batch norm + ReLU before the logits; 0, the paper's, has none.

    Raises:
        ArchitectureError: the numbers do not describe a network.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratios: tuple[Fraction, ...]
    detail: int = SCORE_STRIDE
    context: str = NO_CONTEXT
    head: int = 0

    def __init__(
        self,
        blocks: Iterable[int],
        widths: Iterable[int],
        ratios: Iterable[Ratio],
        detail: int = SCORE_STRIDE,
        context: str = NO_CONTEXT,
        head: int = 0,
    ) -> None:
        object.__setattr__(self, "blocks", _stage_numbers("blocks", blocks, MAX_BLOCKS))
        object.__setattr__(self, "widths", _stage_numbers("widths", widths, MAX_WIDTH))
        object.__setattr__(self, "ratios", _path_ratios(ratios))
        object.__setattr__(self, "detail", _detail(detail))
        object.__setattr__(self, "context", _context(context))
        object.__setattr__(self, "head", _head(head))

    @property
    def num_paths(self) -> int:
        """N, the number of paths."""
        return len(self.ratios)

    def __str__(self) -> str:
        """The one-line form, as for `parse`: `B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4`, and `;D=8;X=gate;H=128`."""
        parts: dict[str, Iterable[object]] = {"B": self.blocks, "C": self.widths, "R": self.ratios}
        parts |= {key: (value,) for key, value in zip("DXH", self.additions.values(), strict=True) if value is not None}
        return ";".join(f"{key}={','.join(map(str, values))}" for key, values in parts.items())

    @property
    def additions(self) -> dict[str, int | str | None]:
        """`detail`, `context` and `head`, each None where it is the paper's."""
        paper = {"detail": SCORE_STRIDE, "context": NO_CONTEXT, "head": 0}
        return {name: value if (value := getattr(self, name)) != its else None for name, its in paper.items()}

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed, by the names of the attributes."""
        return type(self)(**{name: changes.get(name, getattr(self, name)) for name in self.__dataclass_fields__})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form, e.g. `B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4`; spaces and braces do not matter.

        `D=8` (detail), `X=gate` (context) and `H=128` (head) may follow.
        """
        fields: dict[str, list[str]] = {}
        for part in re.sub(r"[\s{}]", "", str(text)).strip(";").split(";"):
            key, sign, values = part.partition("=")
            if not sign or key.upper() not in ("B", "C", "R", "D", "X", "H"):
                raise ArchitectureError(
                    f"{_short(part)!r} in an architecture is not one of B=…, C=…, R=…, D=…, X=…, H=…"
                )
            if key.upper() in fields:
                raise ArchitectureError(f"architecture {_short(text)!r} gives {key.upper()} twice")
            fields[key.upper()] = values.split(",")
        if missing := [key for key in "BCR" if key not in fields]:
            lacks = f"architecture {_short(text)!r} lacks {', '.join(missing)}"
            raise ArchitectureError(f"{lacks}; write it as B=…;C=…;R=…")
        return cls(
            _integers("B", fields["B"]),
            _integers("C", fields["C"]),
            fields["R"],
            _one_integer("D", fields.get("D", [str(SCORE_STRIDE)])),
            ",".join(fields.get("X", [NO_CONTEXT])),
            _one_integer("H", fields.get("H", ["0"])),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: `blocks`, `widths` (integers), `ratios` (text such as "3/4"), and `additions`."""
        triple = {"blocks": list(self.blocks), "widths": list(self.widths), "ratios": [str(r) for r in self.ratios]}
        return {**triple, **{key: value for key, value in self.additions.items() if value is not None}}

    @classmethod
    def from_dict(cls, value: object) -> Self:
        """The architecture that `to_dict` wrote."""
        triple, additions = {"blocks", "widths", "ratios"}, {"detail", "context", "head"}
        if not isinstance(value, dict) or not triple <= set(value) <= triple | additions:
            raise ArchitectureError(
                "an architecture in JSON is an object with exactly: blocks, widths, ratios (and detail, context, head)"
            )
        for key in triple:
            if not isinstance(value[key], list | tuple):
                raise ArchitectureError(f"{key} of an architecture is a list, not {_short(value[key])}")
        return cls(**value)

    def to_json(self) -> str:
        """JSON text that `from_json` reads back."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The architecture that `to_json` wrote."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArchitectureError(f"an architecture's JSON cannot be read: {error}") from None
        return cls.from_dict(value)


def path_size(size: tuple[int, int], ratio: Fraction) -> tuple[int, int]:
    """Height and width in pixels of a path's input: floor(r H) x floor(r W), at least 1 x 1 (see the design notes)."""
    height, width = (max(1, length * ratio.numerator // ratio.denominator) for length in size)
    return height, width


def logits_size(size: tuple[int, int], architecture: Architecture) -> tuple[int, int]:
    """Height and width of the logits for an input of `size`: the largest path's, divided by `detail`, rounded up."""
    height, width = (-(-length // architecture.detail) for length in path_size(size, architecture.ratios[0]))
    return height, width


def _stage_numbers(kind: str, values: Iterable[int], maximum: int) -> tuple[int, ...]:
    numbers = _sequence(kind, values)
    if len(numbers) != NUM_STAGES:
        raise ArchitectureError(f"{kind} need {NUM_STAGES} numbers, one a stage; got {len(numbers)}: {_short(numbers)}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= maximum:
            raise ArchitectureError(f"{kind} are whole numbers from 1 to {maximum}; got {_short(number)}")
    return numbers


def _path_ratios(values: Iterable[Ratio]) -> tuple[Fraction, ...]:
    ratios = sorted((_ratio(value) for value in _sequence("ratios", values)), reverse=True)
    if not any(ratios):
        raise ArchitectureError("a network needs at least one path: one ratio greater than 0")
    return tuple(ratio for ratio in ratios if ratio)


def _ratio(value: Ratio) -> Fraction:
    known = isinstance(value, Fraction | int | float | str) and not isinstance(value, bool)
    if not known or not _RATIO.fullmatch(text := str(value)):
        raise ArchitectureError(f"a ratio is a fraction such as 3/4; got {_short(value)}")
    ratio = Fraction(text)  # of the text: str(0.1) is 1/10, where Fraction(0.1) is the float's binary expansion
    if not 0 <= ratio <= MAX_RATIO or ratio.denominator > 10**6:
        raise ArchitectureError(f"a ratio lies between 0 (no path) and {MAX_RATIO}; got {_short(value)}")
    return ratio


def _detail(value: object) -> int:
    if isinstance(value, bool) or value not in DETAILS:
        raise ArchitectureError(
            f"detail is the stride of the logits: {', '.join(map(str, DETAILS))}; got {_short(value)}"
        )
    return int(str(value))


def _context(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", value):
        raise ArchitectureError(f"context is a name such as gate, or {NO_CONTEXT}; got {_short(value)!r}")
    return value


def _head(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_WIDTH:
        raise ArchitectureError(f"head is a number of channels, 0 to {MAX_WIDTH}; got {_short(value)}")
    return value


def _sequence(kind: str, values: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArchitectureError(f"{kind} are a list of numbers; got {_short(values)}")
    return tuple(values)


def _integers(key: str, texts: Sequence[str]) -> list[int]:
    for text in texts:
        if not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise ArchitectureError(f"{key} holds whole numbers; got {_short(text)!r}")
    return [int(text) for text in texts]


def _one_integer(key: str, texts: Sequence[str]) -> int:
    if len(texts) != 1:
        raise ArchitectureError(f"{key} is one number; got {_short(','.join(texts))!r}")
    return _integers(key, texts)[0]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


# Table 4: {B, C, R} of every expansion step of the paper. S, M and L are its steps 7, 8 and 10.
_TABLE_4: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]], ...] = (
    ((1, 1, 1, 1, 1), (4, 8, 16, 32, 32), ("1/2",)),
    ((1, 1, 1, 8, 8), (4, 8, 16, 32, 32), ("1/2",)),
    ((1, 1, 1, 8, 8), (4, 16, 32, 64, 64), ("1/2",)),
    ((1, 1, 1, 8, 8), (8, 24, 48, 96, 96), ("1/2",)),
    ((1, 1, 1, 8, 8), (8, 24, 48, 96, 96), ("5/8",)),
    ((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), ("5/8",)),
    ((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), ("5/8", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), ("3/4", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), ("1", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 64, 128, 128), ("1", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 64, 160, 160), ("1", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 64, 160, 160), ("9/8", "1/4")),
    ((1, 3, 3, 10, 10), (8, 24, 64, 160, 160), ("11/8", "1/4")),
    ((1, 3, 3, 10, 10), (8, 32, 80, 192, 192), ("11/8", "1/4")),
    ((1, 3, 3, 10, 10), (8, 32, 96, 224, 224), ("11/8", "1/4")),
)
_STEPS = {f"step_{number}": Architecture(*triple) for number, triple in enumerate(_TABLE_4)}
_NAMED = {
    "tiny": _STEPS["step_0"],
    "lpsnet_s": _STEPS["step_7"],
    "lpsnet_m": _STEPS["step_8"],
    "lpsnet_l": _STEPS["step_10"],
    **_STEPS,
    # EfficientNet-Lite (Tan and Le 2019) up to its stride of 16, as one path; its blocks are `efficientnet_lite`
    "lite0": Architecture((1, 2, 2, 3, 3), (16, 24, 40, 80, 112), ("1",), 8, "gate", 128),
    "lite1": Architecture((1, 3, 3, 4, 4), (16, 24, 40, 80, 112), ("1",), 8, "gate", 128),
    "lite2": Architecture((1, 3, 3, 4, 4), (16, 24, 48, 88, 120), ("1",), 8, "gate", 128),
}
DEFAULT_BLOCK = "conv3x3"
_BLOCKS = dict.fromkeys(("lite0", "lite1", "lite2"), "efficientnet_lite")

# name -> the block (`models.blocks.BLOCKS`) of each of the five stages
BLOCK_SETS: dict[str, tuple[str, str, str, str, str]] = {
    "mobilenetv2": ("mobilenetv2_stem", "mobilenetv2_e6", "mobilenetv2_e6", "mobilenetv2_e6", "mobilenetv2_e6"),
    "efficientnet_lite": ("lite_stem", "lite_e6k3", "lite_e6k5", "lite_e6k3", "lite_e6k5"),
}


def block_names(block: str) -> tuple[str, ...]:
    """The block of each stage: of one name, a name in `BLOCK_SETS` or `a,b,c,d,e`. Which blocks there are it ignores.

    Raises:
        ArchitectureError: it is not one name or five.
    """
    names = BLOCK_SETS.get(block) or tuple(name.strip() for name in str(block).split(","))
    names = names * NUM_STAGES if len(names) == 1 else names
    if len(names) != NUM_STAGES:
        raise ArchitectureError(
            f"blocks are one name, or {NUM_STAGES} with commas, one a stage; got {len(names)}: {_short(block)}"
        )
    return names


def block_of(names: Sequence[str]) -> str:
    """The shortest text that `block_names` reads as these five: one name for all, a set's, or all with commas."""
    if len(set(names)) == 1:
        return names[0]
    return next((name for name, blocks in BLOCK_SETS.items() if blocks == tuple(names)), ",".join(names))


def list_architectures() -> list[str]:
    """The names that `get_architecture` knows: tiny, lpsnet_s, …, step_0 to step_14, lite0 to lite2."""
    return list(_NAMED)


def default_block(name: str | Architecture) -> str:
    """The block that the architecture of that name is built of unless another is asked for; conv3x3 for the paper's."""
    return _BLOCKS.get(name, DEFAULT_BLOCK) if isinstance(name, str) else DEFAULT_BLOCK


def get_architecture(name: str | Architecture) -> Architecture:
    """The architecture of that name, or the one written out as `B=…;C=…;R=…`; an `Architecture` is returned as it is.

    Raises:
        ArchitectureError: no architecture has that name (the nearest is suggested), or the text is not a network.
    """
    if isinstance(name, Architecture):
        return name
    if not isinstance(name, str):
        raise ArchitectureError(f"an architecture is a name or B=…;C=…;R=…; got {_short(name)}")
    if "=" in name:
        return Architecture.parse(name)
    if name not in _NAMED:
        raise ArchitectureError(f"{unknown_name('architecture', name, _NAMED)}, or B=…;C=…;R=… written out")
    return _NAMED[name]

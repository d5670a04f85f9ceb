"""The operations that expand a network, Table 1's and today's, and the network as the search holds it (Section 3.4).

An `Architecture` drops the zeros of R and sorts the rest. The search needs them: Table 1 adds 1/8 to a given slot of
R = {1/2, 0, 0}. So it holds a `SearchNetwork` with slots; its `Design`, equal for equal networks, is what is built.

An operation of Table 1 adds numbers, k times. The others, which the paper does not have, set a value, once: another
block everywhere or in one stage, logits at a finer stride, context, a layer before the logits. A row of `_DIMENSIONS`
says what each of them changes.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, Self, get_args

from lpsnet.architecture import (
    BLOCK_SETS,
    DEFAULT_BLOCK,
    DETAILS,
    MAX_WIDTH,
    NO_CONTEXT,
    NUM_STAGES,
    SCORE_STRIDE,
    Architecture,
    Ratio,
    block_names,
    block_of,
    get_architecture,
)
from lpsnet.errors import ArchitectureError, unknown_name

Dimension = Literal["depth", "width", "resolution", "block", "unit", "detail", "context", "head"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
NUM_SLOTS = 3  # Table 1 and Algorithm 1, line 9


@dataclass(frozen=True, slots=True)
class Design:
    """The architecture that is built, measured and trained; equal networks that the search reaches in two ways are one.

    Attributes:
        architecture: the triple {B, C, R} and its additions.
        block: type of convolutional block (Table 2), a set's name, or one a stage, as `block_of` writes them.
    """

    architecture: Architecture
    block: str = DEFAULT_BLOCK

    def __str__(self) -> str:
        """One line that `parse` reads back: `conv3x3;B=1,1,1,8,8;C=4,8,16,32,32;R=1/2`."""
        return f"{self.block};{self.architecture}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form.

        Raises:
            ArchitectureError: the text is not a design.
        """
        block, _, architecture = text.partition(";")
        return cls(Architecture.parse(architecture), _block_name(block))

    @property
    def slug(self) -> str:
        """16 hexadecimal digits that identify the design, for the name of its folder."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class SearchNetwork:
    """A network N = {B, C, R} of Algorithm 1 with all slots of R, including those without a path (zero).

    Attributes:
        blocks: B, five numbers, each at least 1.
        widths: C, five numbers, each at least 1.
        ratio_slots: R in the order of Table 1's slots, as fractions, integers or text; zero for no path.
        block: type of convolutional block, as in `Design`.
        detail, context, head: see `Architecture`; the paper's networks have their defaults.
        design: the network without its slots.

    Raises:
        ArchitectureError: the numbers do not describe a network.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratio_slots: tuple[Fraction, ...]
    block: str = DEFAULT_BLOCK
    detail: int = SCORE_STRIDE
    context: str = NO_CONTEXT
    head: int = 0
    design: Design = field(init=False, repr=False, compare=False)

    def __init__(
        self,
        blocks: Iterable[int],
        widths: Iterable[int],
        ratio_slots: Iterable[Ratio],
        block: str = DEFAULT_BLOCK,
        detail: int = SCORE_STRIDE,
        context: str = NO_CONTEXT,
        head: int = 0,
    ) -> None:
        slots = tuple(ratio_slots)
        architecture = Architecture(blocks, widths, slots, detail, context, head)
        for name in ("blocks", "widths", "detail", "context", "head"):
            object.__setattr__(self, name, getattr(architecture, name))
        object.__setattr__(self, "ratio_slots", tuple(Fraction(str(ratio)) for ratio in slots))
        object.__setattr__(self, "block", _block_name(block))
        object.__setattr__(self, "design", Design(architecture, self.block))

    def __str__(self) -> str:
        """As in Table 4: `B={1, 1, 1, 8, 8} C={4, 8, 16, 32, 32} R={1/2, 0, 0}`; then `D=8 X=gate` and the block."""
        triple = f"B={braces(self.blocks)} C={braces(self.widths)} R={braces(self.ratio_slots)}"
        block = "" if self.block == DEFAULT_BLOCK else self.block
        return " ".join(filter(None, (triple, self.additions, block)))

    @property
    def additions(self) -> str:
        """What the paper's networks do not have: `D=8 X=gate H=128`; empty without additions."""
        return " ".join(str(self.design.architecture).split(";")[3:])

    def replace(self, **changes: Any) -> Self:
        """A copy with some values changed, by the names of the attributes."""
        names = [name for name in self.__dataclass_fields__ if name != "design"]
        return type(self)(**{name: changes.get(name, getattr(self, name)) for name in names})

    @classmethod
    def start(
        cls, architecture: str | Architecture = "tiny", *, num_slots: int = NUM_SLOTS, block: str = DEFAULT_BLOCK
    ) -> Self:
        """The start of a search: the paths in the first slots, largest first, then empty slots.

        Args:
            architecture: a name, `B=…;C=…;R=…` written out, or a value; Algorithm 1 starts from "tiny".
            num_slots: the most paths the search may give the network.
            block: type of convolutional block, one for all stages or one a stage.

        Raises:
            ArchitectureError: no such architecture, or it has more paths than slots.
        """
        found = get_architecture(architecture)
        if found.num_paths > num_slots:
            raise ArchitectureError(
                f"{found} has {found.num_paths} paths, more than the {num_slots} slots of the search"
            )
        slots = found.ratios + (0,) * (num_slots - found.num_paths)
        return cls(found.blocks, found.widths, slots, block, found.detail, found.context, found.head)


def _block_name(text: str) -> str:
    if not all(re.fullmatch(r"[a-z0-9_]{1,40}", name) for name in text.split(",")):
        raise ArchitectureError(f"a block is named as in Table 2, such as {DEFAULT_BLOCK!r}; got {text[:80]!r}")
    return block_of(block_names(text))


def _one_block(text: str) -> str:
    if "," in text or text in BLOCK_SETS:
        raise ArchitectureError(f"a stage has one block; got {text[:80]!r}")
    return _block_name(text)


def _finer_detail(text: str) -> int:
    finer = {str(stride): stride for stride in DETAILS if stride < SCORE_STRIDE}
    if text not in finer:
        raise ArchitectureError(f"an operation on the detail is one of {', '.join(finer)}; got {text[:80]!r}")
    return finer[text]


def _some_context(text: str) -> str:
    if text == NO_CONTEXT or not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", text):
        raise ArchitectureError(f"an operation on the context names one, such as gate; got {text[:80]!r}")
    return text


def _some_channels(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text) or int(text) > MAX_WIDTH:
        raise ArchitectureError(
            f"an operation on the head is a number of channels, 1 to {MAX_WIDTH}; got {text[:80]!r}"
        )
    return int(text)


@dataclass(frozen=True, slots=True)
class _Row:
    """What the operations of a dimension change.

    Attributes:
        attribute: of a `SearchNetwork`.
        example: of an operation.
        read: the value that a text names; None where numbers are added.
        is_less: (a new value, the network's) -> whether it would be a step back.
    """

    attribute: str
    example: str
    read: Callable[[str], Any] | None = None
    is_less: Callable[[Any, Any], bool] = lambda new, old: False


_DIMENSIONS: dict[Dimension, _Row] = {
    "depth": _Row("blocks", "depth=0,0,0,1,1"),
    "width": _Row("widths", "width=0,0,0,32,32"),
    "resolution": _Row("ratio_slots", "resolution=0,1/8,0"),
    "block": _Row("block", "block=ghost", _block_name),
    "unit": _Row("block", "unit@5=residual", _one_block),
    "detail": _Row("detail", "detail=8", _finer_detail, is_less=lambda new, old: new > old),
    "context": _Row("context", "context=gate", _some_context),
    "head": _Row("head", "head=128", _some_channels, is_less=lambda new, old: new < old),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One expanding operation: a row of Table 1, or a value that is set.

    Attributes:
        dimension: what it changes.
        delta: added to B, C or the slots of R, not all zero; may be negative. Empty for the other dimensions.
        value: the block (Table 2, or `a,b,c,d,e`), the block of one stage, the stride of the logits, the context, or
            the channels before the logits, as text. Empty where numbers are added.
        stage: 1 to 5 for the block of one stage; 0 otherwise.

    Raises:
        ArchitectureError: the values do not fit the dimension.
    """

    dimension: Dimension
    delta: tuple[Fraction, ...] = ()
    value: str = ""
    stage: int = 0

    def __init__(self, dimension: Dimension, delta: Iterable[Ratio] = (), value: str = "", stage: int = 0) -> None:
        if dimension not in DIMENSIONS:
            raise ArchitectureError(unknown_name("dimension", dimension, DIMENSIONS))
        read = _DIMENSIONS[dimension].read
        object.__setattr__(self, "dimension", dimension)
        object.__setattr__(self, "delta", tuple(_fraction(number) for number in delta))
        object.__setattr__(self, "value", str(read(value)) if read else value)
        object.__setattr__(self, "stage", stage)
        self._check()

    def _check(self) -> None:
        row = _DIMENSIONS[self.dimension]
        if (self.stage in range(1, NUM_STAGES + 1)) != (self.dimension == "unit") or self.stage < 0:
            raise ArchitectureError(f"unit, and nothing else, is of one stage: unit@1=… to unit@5=…; got {self}")
        if row.read:
            if self.delta:
                raise ArchitectureError(
                    f"an operation on the {self.dimension} names one, such as {row.example}; got {self}"
                )
            return
        if self.value or not any(self.delta):
            raise ArchitectureError(f"an operation on the {self.dimension} adds numbers, not all zero; got {self}")
        if self.dimension != "resolution" and (
            len(self.delta) != NUM_STAGES or any(value.denominator != 1 for value in self.delta)
        ):
            raise ArchitectureError(f"an operation on the {self.dimension} adds {NUM_STAGES} whole numbers; got {self}")

    @property
    def label(self) -> str:
        """As Table 1 prints it: `{0, 1/8, 0}`; for an operation that sets a value, the value."""
        return self.value or braces(self.delta)

    def __str__(self) -> str:
        """One line that `parse` reads back: `depth=0,0,0,1,1`, `resolution=0,1/8,0`, `block=ghost`, `unit@5=ghost`."""
        place = f"@{self.stage}" if self.stage else ""
        return f"{self.dimension}{place}={self.value or ','.join(map(str, self.delta))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form.

        Raises:
            ArchitectureError: the text is not an operation.
        """
        name, sign, value = re.sub(r"[\s{}]", "", text).partition("=")
        name, at, stage = name.partition("@")
        dimension = next((known for known in DIMENSIONS if known == name), None)
        if sign and dimension is None:
            raise ArchitectureError(unknown_name("dimension", name, DIMENSIONS))
        if dimension is None:
            raise ArchitectureError(f"{text[:80]!r} is no operation; write one as depth=0,0,0,1,1 or block=ghost")
        place = int(stage) if re.fullmatch(r"[0-9]", stage) else -1 if at else 0
        return (
            cls(dimension, value=value, stage=place)
            if _DIMENSIONS[dimension].read
            else cls(dimension, value.split(","), stage=place)
        )

    def apply(self, network: SearchNetwork, step_size: int = 1) -> SearchNetwork:
        """`network` + k · delta for k = `step_size` >= 1. A value is set once: its only step size is 1.

        Raises:
            ArchitectureError: the result is not a network, or the operation has another number of slots than it, or
                the network has more of it already.
        """
        assert step_size >= 1, "Equation 4: k >= 1"
        name = _DIMENSIONS[self.dimension].attribute
        before = getattr(network, name)
        if self.value:
            if step_size > 1:
                raise ArchitectureError(f"{self} has no step size but 1")
            return network.replace(**{name: self._set(before)})
        if len(self.delta) != len(before):
            raise ArchitectureError(f"{self} has {len(self.delta)} slots, the network {len(network.ratio_slots)}")
        added = [number + step_size * value for number, value in zip(before, self.delta, strict=True)]
        return network.replace(**{name: tuple(added if name == "ratio_slots" else map(int, added))})

    def _set(self, before: Any) -> Any:
        """The value of the network's attribute that was `before`."""
        row = _DIMENSIONS[self.dimension]
        assert row.read is not None
        value = row.read(self.value)
        if self.stage:
            names = list(block_names(before))
            names[self.stage - 1] = value
            return ",".join(names)
        if row.is_less(value, before):
            raise ArchitectureError(f"the network has {self.dimension} {before}, which is more than {self}")
        return value


def check_operations(start: SearchNetwork, operations: Sequence[Operation]) -> None:
    """Refuse operations that can be applied neither to `start` nor to anything the others make of it.

    Raises:
        ArchitectureError: an operation has another number of slots than the start, or it takes from a number more than
            is there, and no other adds to that.
    """
    for operation in operations:
        shape = operation.dimension, len(operation.delta)
        others = [it.delta for it in operations if (it.dimension, len(it.delta)) == shape]
        # another operation may have added before this one subtracts
        surely = [
            0 if value < 0 and any(delta[place] > 0 for delta in others) else value
            for place, value in enumerate(operation.delta)
        ]
        try:
            if any(surely):
                Operation(operation.dimension, surely).apply(start)
        except ArchitectureError as error:
            raise ArchitectureError(
                f"operation {operation} can never be applied to {start}: {error}; leave it out, or give another"
            ) from None


def table_1(*, num_slots: int = NUM_SLOTS) -> tuple[Operation, ...]:
    """The operations of Table 1 in its order, with one on the resolution for each of `num_slots` slots."""
    depth = ((0, 1, 1, 1, 1), (0, 0, 1, 1, 1), (0, 0, 0, 1, 1))
    width = ((4, 8, 16, 32, 32), (0, 8, 16, 32, 32), (0, 0, 16, 32, 32), (0, 0, 0, 32, 32))
    slots = [[Fraction(int(slot == own), 8) for slot in range(num_slots)] for own in range(num_slots)]
    return (
        *(Operation("depth", delta) for delta in depth),
        *(Operation("width", delta) for delta in width),
        *(Operation("resolution", delta) for delta in slots),
    )


def today(*, num_slots: int = NUM_SLOTS) -> tuple[Operation, ...]:
    """Table 1's operations, and those for what networks have come to have since."""
    return (*table_1(num_slots=num_slots), *map(Operation.parse, _TODAY))


# 128 as in lite0. A block of today's encoders in the stages that see most: its weights grow out of those of lite_e6k3.
_TODAY = (
    *("detail=8", "detail=4", "context=gate", "context=pyramid", "head=128"),
    *("unit@4=lite_e6k5", "unit@5=lite_e6k5"),
)
OPERATION_SETS: dict[str, Callable[..., tuple[Operation, ...]]] = {"table_1": table_1, "today": today}


def read_operations(texts: Sequence[str], *, num_slots: int = NUM_SLOTS) -> tuple[Operation, ...]:
    """The operations that `texts` name, each once: one-line forms, and names in `OPERATION_SETS`.

    Raises:
        ArchitectureError: a text is neither.
    """
    found: list[Operation] = []
    for text in texts:
        if "=" not in text and text not in OPERATION_SETS:
            known = unknown_name("set of operations", text, OPERATION_SETS)
            raise ArchitectureError(f"{known}; or write one operation, such as depth=0,0,0,1,1")
        found += OPERATION_SETS[text](num_slots=num_slots) if text in OPERATION_SETS else [Operation.parse(text)]
    return tuple(dict.fromkeys(found))


def braces(numbers: Iterable[object]) -> str:
    """The paper's notation: `{1, 1/4, 0}`."""
    return "{" + ", ".join(map(str, numbers)) + "}"


def _fraction(value: Ratio) -> Fraction:
    if not re.fullmatch(r"-?[0-9]{1,9}(/0*[1-9][0-9]{0,8}|\.[0-9]{1,9})?", str(value)):
        raise ArchitectureError(f"an operation adds numbers such as 1 or 1/8; got {str(value)[:80]!r}")
    return Fraction(str(value))

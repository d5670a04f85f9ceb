"""Table 1: the operations that expand a network, and the network as the search holds it (Section 3.4).

An `Architecture` drops the zeros of R and sorts the rest. The search needs them: Table 1 adds 1/8 to a given slot of
R = {1/2, 0, 0}. So it holds a `SearchNetwork` with slots; its `Design`, equal for equal networks, is what is built.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, Self, get_args

from lpsnet.architecture import NUM_STAGES, Architecture, Ratio, get_architecture
from lpsnet.errors import ArchitectureError, unknown_name

Dimension = Literal["depth", "width", "resolution", "block"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
DEFAULT_BLOCK = "conv3x3"
NUM_SLOTS = 3  # Table 1 and Algorithm 1, line 9


@dataclass(frozen=True, slots=True)
class Design:
    """The architecture that is built, measured and trained; equal networks that the search reaches in two ways are one.

    Attributes:
        architecture: the triple {B, C, R}.
        block: type of convolutional block (Table 2).
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
        block: type of convolutional block (Table 2).
        design: the network without its slots.

    Raises:
        ArchitectureError: the numbers do not describe a network.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    ratio_slots: tuple[Fraction, ...]
    block: str = DEFAULT_BLOCK
    design: Design = field(init=False, repr=False, compare=False)

    def __init__(
        self, blocks: Iterable[int], widths: Iterable[int], ratio_slots: Iterable[Ratio], block: str = DEFAULT_BLOCK
    ) -> None:
        slots = tuple(ratio_slots)
        architecture = Architecture(blocks, widths, slots)
        object.__setattr__(self, "blocks", architecture.blocks)
        object.__setattr__(self, "widths", architecture.widths)
        object.__setattr__(self, "ratio_slots", tuple(Fraction(str(ratio)) for ratio in slots))
        object.__setattr__(self, "block", _block_name(block))
        object.__setattr__(self, "design", Design(architecture, block))

    def __str__(self) -> str:
        """As in Table 4: `B={1, 1, 1, 8, 8} C={4, 8, 16, 32, 32} R={1/2, 0, 0}`."""
        triple = f"B={braces(self.blocks)} C={braces(self.widths)} R={braces(self.ratio_slots)}"
        return triple if self.block == DEFAULT_BLOCK else f"{triple} {self.block}"

    @classmethod
    def start(
        cls, architecture: str | Architecture = "tiny", *, num_slots: int = NUM_SLOTS, block: str = DEFAULT_BLOCK
    ) -> Self:
        """The start of a search: the paths in the first slots, largest first, then empty slots.

        Args:
            architecture: a name, `B=…;C=…;R=…` written out, or a value; Algorithm 1 starts from "tiny".
            num_slots: the most paths the search may give the network.
            block: type of convolutional block.

        Raises:
            ArchitectureError: no such architecture, or it has more paths than slots.
        """
        found = get_architecture(architecture)
        if found.num_paths > num_slots:
            raise ArchitectureError(
                f"{found} has {found.num_paths} paths, more than the {num_slots} slots of the search"
            )
        return cls(found.blocks, found.widths, found.ratios + (0,) * (num_slots - found.num_paths), block)


@dataclass(frozen=True, slots=True)
class Operation:
    """One expanding operation: a row of Table 1, or a change of the convolutional block.

    Attributes:
        dimension: what it changes.
        delta: added to B, C or the slots of R, not all zero; may be negative. Empty for a block.
        block: the block it changes to (Table 2). Empty for the other dimensions.

    Raises:
        ArchitectureError: the numbers do not fit the dimension.
    """

    dimension: Dimension
    delta: tuple[Fraction, ...] = ()
    block: str = ""

    def __init__(self, dimension: Dimension, delta: Iterable[Ratio] = (), block: str = "") -> None:
        if dimension not in DIMENSIONS:
            raise ArchitectureError(unknown_name("dimension", dimension, DIMENSIONS))
        object.__setattr__(self, "dimension", dimension)
        object.__setattr__(self, "delta", tuple(_fraction(value) for value in delta))
        object.__setattr__(self, "block", _block_name(block) if dimension == "block" else block)
        self._check()

    def _check(self) -> None:
        if self.dimension == "block":
            if self.delta:
                raise ArchitectureError(f"an operation on the block names one, such as block=ghost; got {self}")
            return
        if self.block or not any(self.delta):
            raise ArchitectureError(f"an operation on the {self.dimension} adds numbers, not all zero; got {self}")
        if self.dimension != "resolution" and (
            len(self.delta) != NUM_STAGES or any(value.denominator != 1 for value in self.delta)
        ):
            raise ArchitectureError(f"an operation on the {self.dimension} adds {NUM_STAGES} whole numbers; got {self}")

    @property
    def label(self) -> str:
        """As Table 1 prints it: `{0, 1/8, 0}`; the block's name for an operation on the block."""
        return self.block or braces(self.delta)

    def __str__(self) -> str:
        """One line that `parse` reads back: `depth=0,0,0,1,1`, `resolution=0,1/8,0`, `block=ghost`."""
        return f"{self.dimension}={self.block or ','.join(map(str, self.delta))}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the one-line form.

        Raises:
            ArchitectureError: the text is not an operation.
        """
        name, sign, value = re.sub(r"[\s{}]", "", text).partition("=")
        dimension = next((known for known in DIMENSIONS if known == name), None)
        if sign and dimension is None:
            raise ArchitectureError(unknown_name("dimension", name, DIMENSIONS))
        if dimension is None:
            raise ArchitectureError(f"{text[:80]!r} is no operation; write one as depth=0,0,0,1,1 or block=ghost")
        return cls(dimension, block=value) if dimension == "block" else cls(dimension, value.split(","))

    def apply(self, network: SearchNetwork, step_size: int = 1) -> SearchNetwork:
        """`network` + k · delta for k = `step_size` >= 1. A block is changed once: its only step size is 1.

        Raises:
            ArchitectureError: the result is not a network, or the operation has another number of slots than it.
        """
        assert step_size >= 1, "Equation 4: k >= 1"
        if self.dimension == "block":
            if step_size > 1:
                raise ArchitectureError(f"{self} has no step size but 1")
            return SearchNetwork(network.blocks, network.widths, network.ratio_slots, self.block)
        name = {"depth": "blocks", "width": "widths", "resolution": "ratio_slots"}[self.dimension]
        triple: dict[str, Any] = {it: getattr(network, it) for it in ("blocks", "widths", "ratio_slots")}
        if len(self.delta) != len(triple[name]):
            raise ArchitectureError(f"{self} has {len(self.delta)} slots, the network {len(network.ratio_slots)}")
        added = [number + step_size * value for number, value in zip(triple[name], self.delta, strict=True)]
        triple[name] = tuple(added if name == "ratio_slots" else map(int, added))
        return SearchNetwork(**triple, block=network.block)


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


def braces(numbers: Iterable[object]) -> str:
    """The paper's notation: `{1, 1/4, 0}`."""
    return "{" + ", ".join(map(str, numbers)) + "}"


def _fraction(value: Ratio) -> Fraction:
    if not re.fullmatch(r"-?[0-9]{1,9}(/0*[1-9][0-9]{0,8}|\.[0-9]{1,9})?", str(value)):
        raise ArchitectureError(f"an operation adds numbers such as 1 or 1/8; got {str(value)[:80]!r}")
    return Fraction(str(value))


def _block_name(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,40}", name):
        raise ArchitectureError(f"a block is named as in Table 2, such as {DEFAULT_BLOCK!r}; got {name[:80]!r}")
    return name

"""Table 1's operations and the networks they make, against Table 4 and numbers written out by hand."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.errors import ArchitectureError
from lpsnet.search.operations import Design, Operation, SearchNetwork, read_operations, table_1, today

# Table 4: the operation (Table 1) and step size k that lead from each step to the next, worked out by hand.
TABLE_4_MOVES = (
    ("depth=0,0,0,1,1", 7),
    ("width=0,8,16,32,32", 1),
    ("width=4,8,16,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("depth=0,1,1,1,1", 2),
    ("resolution=0,1/8,0", 2),
    ("resolution=1/8,0,0", 1),
    ("resolution=1/8,0,0", 2),
    ("width=0,0,16,32,32", 1),
    ("width=0,0,0,32,32", 1),
    ("resolution=1/8,0,0", 1),
    ("resolution=1/8,0,0", 2),
    ("width=0,8,16,32,32", 1),
    ("width=0,0,16,32,32", 1),
)


def test_table_1_is_the_papers() -> None:
    assert [str(operation) for operation in table_1()] == [
        "depth=0,1,1,1,1",
        "depth=0,0,1,1,1",
        "depth=0,0,0,1,1",
        "width=4,8,16,32,32",
        "width=0,8,16,32,32",
        "width=0,0,16,32,32",
        "width=0,0,0,32,32",
        "resolution=1/8,0,0",
        "resolution=0,1/8,0",
        "resolution=0,0,1/8",
    ]
    assert table_1()[8].label == "{0, 1/8, 0}"


def test_the_moves_lead_through_table_4() -> None:
    network = SearchNetwork.start("tiny")
    assert network == SearchNetwork((1, 1, 1, 1, 1), (4, 8, 16, 32, 32), ("1/2", 0, 0))
    for number, (operation, step_size) in enumerate(TABLE_4_MOVES, start=1):
        network = Operation.parse(operation).apply(network, step_size)
        assert network.design.architecture == get_architecture(f"step_{number}")
    assert network.ratio_slots == (Fraction(11, 8), Fraction(1, 4), 0)


def test_no_other_move_leads_from_step_to_step() -> None:
    """Each step of Table 4 is reached by one operation and one k; only step 6 by two, which make the same network."""
    network = SearchNetwork.start("tiny")
    for number, (chosen, chosen_k) in enumerate(TABLE_4_MOVES, start=1):
        goal = get_architecture(f"step_{number}")
        moves = [
            (str(operation), k)
            for operation in table_1()
            for k in range(1, 40)
            if operation.apply(network, k).design.architecture == goal
        ]
        twin = [("resolution=0,0,1/8", 2)] if number == 6 else []
        assert moves == [(chosen, chosen_k), *twin]
        network = Operation.parse(chosen).apply(network, chosen_k)


def test_slots_are_kept_while_designs_forget_them() -> None:
    start = SearchNetwork.start("tiny")
    second, third = (Operation.parse(text).apply(start, 2) for text in ("resolution=0,1/8,0", "resolution=0,0,1/8"))
    assert second.ratio_slots == (Fraction(1, 2), Fraction(1, 4), 0)
    assert third.ratio_slots == (Fraction(1, 2), 0, Fraction(1, 4))
    assert second != third
    assert second.design == third.design
    overtaken = Operation("resolution", (0, "1/8", 0)).apply(second, 4)
    assert overtaken.ratio_slots == (Fraction(1, 2), Fraction(3, 4), 0)
    assert overtaken.design.architecture.ratios == (Fraction(3, 4), Fraction(1, 2))
    assert str(second) == "B={1, 1, 1, 1, 1} C={4, 8, 16, 32, 32} R={1/2, 1/4, 0}"


@pytest.mark.parametrize("num_slots", [1, 2, 3, 5])
def test_other_numbers_of_paths(num_slots: int) -> None:
    start = SearchNetwork.start("tiny", num_slots=num_slots)
    assert len(start.ratio_slots) == num_slots
    on_resolution = [it for it in table_1(num_slots=num_slots) if it.dimension == "resolution"]
    grown = {operation.apply(start).design for operation in on_resolution}
    assert len(on_resolution) == num_slots
    assert len(grown) == min(num_slots, 2), "a bigger path, or one more path of 1/8"


def test_another_block_is_an_operation_with_one_step_size() -> None:
    start = SearchNetwork.start("tiny")
    ghost = Operation.parse("block=ghost")
    assert ghost.apply(start).design == Design(get_architecture("tiny"), "ghost")
    assert ghost.label == "ghost"
    assert str(ghost.apply(start)).endswith(" ghost")
    deeper = Operation("depth", (0, 0, 0, 1, 1)).apply(ghost.apply(start), 2)
    assert (deeper.block, deeper.blocks) == ("ghost", (1, 1, 1, 3, 3))
    with pytest.raises(ArchitectureError, match="no step size but 1"):
        ghost.apply(start, 2)


@settings(deadline=None)
@given(st.sampled_from(table_1()), st.integers(1, 50), st.integers(1, 50))
def test_two_applications_are_one_with_the_sum(operation: Operation, first: int, second: int) -> None:
    start = SearchNetwork.start("tiny")
    assert operation.apply(operation.apply(start, first), second) == operation.apply(start, first + second)


@pytest.mark.parametrize("operation", [*today(num_slots=4), Operation("block", value="ghost")])
def test_an_operation_is_read_back(operation: Operation) -> None:
    assert Operation.parse(str(operation)) == operation
    place = f"@{operation.stage}" if operation.stage else ""
    assert Operation.parse(f"{operation.dimension}{place} = {operation.label}") == operation


def test_a_design_is_read_back_and_named() -> None:
    design = Design(get_architecture("lpsnet_s"), "ghost")
    assert str(design) == "ghost;B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4"
    assert Design.parse(str(design)) == design
    assert design.slug == Design.parse(str(design)).slug != Design(design.architecture).slug


@pytest.mark.parametrize(
    "text",
    [
        "",
        "depth",
        "depth=",
        "depth=1,1,1,1",
        "depth=0,0,0,0,0",
        "depth=0,0,0,1,1/2",
        "height=1,1,1,1,1",
        "width=0,0,0,1,1e999999999",
        "resolution=0,1/0,0",
        "resolution=nan",
        "block=",
        "block=a b;c",
        "block=ghost,ghost",
        "detail=16",
        "detail=8,4",
        "detail=08",
        "context=none",
        "context=",
        "context=two words!",
        "head=0",
        "head=-8",
        "head=65537",
        "head=1e9",
        "unit=ghost",
        "unit@0=ghost",
        "unit@6=ghost",
        "unit@x=ghost",
        "unit@5=ghost,ghost",
        "unit@5=efficientnet_lite",
        "unit@5=",
        "depth@3=0,0,0,1,1",
        "detail@3=8",
    ],
)
def test_text_that_is_no_operation(text: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Operation.parse(text)
    assert "\n" not in str(caught.value)


def test_values_that_are_set() -> None:
    """Each changes its own part of the network and nothing else; what is there already is not taken back."""
    start = SearchNetwork.start("tiny")
    steps = {
        "detail=8": "conv3x3;B=1,1,1,1,1;C=4,8,16,32,32;R=1/2;D=8",
        "context=gate": "conv3x3;B=1,1,1,1,1;C=4,8,16,32,32;R=1/2;D=8;X=gate",
        "head=32": "conv3x3;B=1,1,1,1,1;C=4,8,16,32,32;R=1/2;D=8;X=gate;H=32",
        "unit@4=ghost": "conv3x3,conv3x3,conv3x3,ghost,conv3x3;B=1,1,1,1,1;C=4,8,16,32,32;R=1/2;D=8;X=gate;H=32",
        "depth=0,0,0,1,1": "conv3x3,conv3x3,conv3x3,ghost,conv3x3;B=1,1,1,2,2;C=4,8,16,32,32;R=1/2;D=8;X=gate;H=32",
        "block=ghost": "ghost;B=1,1,1,2,2;C=4,8,16,32,32;R=1/2;D=8;X=gate;H=32",
        "resolution=0,1/8,0": "ghost;B=1,1,1,2,2;C=4,8,16,32,32;R=1/2,1/8;D=8;X=gate;H=32",
        "head=64": "ghost;B=1,1,1,2,2;C=4,8,16,32,32;R=1/2,1/8;D=8;X=gate;H=64",
        "detail=4": "ghost;B=1,1,1,2,2;C=4,8,16,32,32;R=1/2,1/8;D=4;X=gate;H=64",
    }
    for operation, expected in steps.items():
        start = Operation.parse(operation).apply(start)
        assert str(start.design) == expected
        assert Design.parse(expected) == start.design
    assert str(start) == "B={1, 1, 1, 2, 2} C={4, 8, 16, 32, 32} R={1/2, 1/8, 0} D=4 X=gate H=64 ghost"
    for operation, reason in {"detail=8": "has detail 4", "head=32": "has head 64"}.items():
        with pytest.raises(ArchitectureError, match=reason):
            Operation.parse(operation).apply(start)
    with pytest.raises(ArchitectureError, match="no step size but 1"):
        Operation.parse("context=pyramid").apply(start, 2)


def test_equal_blocks_are_one_design_however_they_are_written() -> None:
    lite = SearchNetwork.start("lite0", block="efficientnet_lite")
    assert str(lite.design) == "efficientnet_lite;B=1,2,2,3,3;C=16,24,40,80,112;R=1;D=8;X=gate;H=128"
    other = Operation.parse("unit@4=lite_e6k5").apply(lite)
    assert other.block == "lite_stem,lite_e6k3,lite_e6k5,lite_e6k5,lite_e6k5"
    assert Operation.parse("unit@4=lite_e6k3").apply(other) == lite
    assert SearchNetwork.start("tiny", block="ghost, ghost,ghost,ghost,ghost".replace(" ", "")).block == "ghost"
    for stage in range(1, 6):
        other = Operation("unit", value="ghost", stage=stage).apply(other)
    assert other.block == "ghost"


def test_sets_of_operations() -> None:
    assert read_operations(["table_1"]) == table_1()
    assert today()[:10] == table_1()
    assert [str(it) for it in today()[10:15]] == ["detail=8", "detail=4", "context=gate", "context=pyramid", "head=128"]
    assert read_operations(["table_1", "detail=8", "depth=0,1,1,1,1", "table_1"], num_slots=2) == (
        *table_1(num_slots=2),
        Operation("detail", value="8"),
    )
    assert read_operations([]) == ()
    for wrong in ("tody", "", "detail"):
        with pytest.raises(ArchitectureError, match="unknown set of operations"):
            read_operations([wrong])


def test_numbers_that_make_no_operation_or_network() -> None:
    with pytest.raises(ArchitectureError, match="names one"):
        Operation("block", (1, 1), "ghost")
    with pytest.raises(ArchitectureError, match="adds numbers"):
        Operation("depth", (0, 0, 0, 1, 1), "ghost")
    with pytest.raises(ArchitectureError, match="2 slots, the network 3"):
        Operation("resolution", (0, "1/8")).apply(SearchNetwork.start("tiny"))
    with pytest.raises(ArchitectureError, match="got 0"):
        Operation("depth", (0, 0, 0, 0, -1)).apply(SearchNetwork.start("tiny"))
    with pytest.raises(ArchitectureError, match="more than the 1 slots"):
        SearchNetwork.start("lpsnet_s", num_slots=1)
    with pytest.raises(AssertionError):
        table_1()[0].apply(SearchNetwork.start("tiny"), 0)


def test_a_search_may_start_anywhere() -> None:
    start = SearchNetwork.start("B=1,2,4,7,7;C=14,28,56,112,112;R=1,1/4", num_slots=4, block="residual")
    assert start.ratio_slots == (1, Fraction(1, 4), 0, 0)
    assert SearchNetwork.start("lite0").design.architecture == get_architecture("lite0"), "with its additions"
    assert start.design == Design(Architecture((1, 2, 4, 7, 7), (14, 28, 56, 112, 112), (1, "1/4")), "residual")

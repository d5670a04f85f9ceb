"""Architectures: round trips, equality, Table 4, and what is refused."""

import contextlib
import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lpsnet
from lpsnet.architecture import Architecture, get_architecture, list_architectures, logits_size, path_size
from lpsnet.errors import ArchitectureError

FIVE = st.tuples(*[st.integers(1, 300)] * 5)
RATIO = st.fractions(Fraction(1, 32), 8, max_denominator=64)
ARCHITECTURES = st.builds(Architecture, FIVE, FIVE, st.lists(RATIO, min_size=1, max_size=5))
S = Architecture((1, 3, 3, 10, 10), (8, 24, 48, 96, 96), (Fraction(3, 4), Fraction(1, 4)))


@given(ARCHITECTURES)
def test_text_and_json_round_trips_are_exact(architecture: Architecture) -> None:
    assert Architecture.parse(str(architecture)) == architecture
    assert Architecture.from_json(architecture.to_json()) == architecture
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture
    assert get_architecture(str(architecture)) == architecture


@given(ARCHITECTURES, st.randoms(), st.integers(0, 3))
def test_the_order_of_the_slots_and_empty_slots_do_not_matter(architecture: Architecture, random, zeros: int) -> None:
    slots = [*architecture.ratios, *[0] * zeros]
    random.shuffle(slots)
    same = Architecture(architecture.blocks, architecture.widths, slots)
    assert same == architecture
    assert hash(same) == hash(architecture)
    assert same.ratios == tuple(sorted(same.ratios, reverse=True))
    assert 0 not in same.ratios


def test_one_line_of_text() -> None:
    assert str(S) == "B=1,3,3,10,10;C=8,24,48,96,96;R=3/4,1/4"
    for text in (
        str(S),
        "b=1,3,3,10,10; c=8,24,48,96,96; r=0.75, .25, 0",
        "R={1/4,0,3/4};B={1,3,3,10,10};C={8,24,48,96,96};",
    ):
        assert Architecture.parse(text) == S


def test_ratios_are_exact_fractions_however_they_are_given() -> None:
    for ratios in (("3/4", "1/4"), (0.75, 0.25), (Fraction(3, 4), "0.25"), ["1/4", 0, "6/8"]):
        assert Architecture(S.blocks, S.widths, ratios).ratios == (Fraction(3, 4), Fraction(1, 4))
    assert Architecture(S.blocks, S.widths, (0.1,)).ratios == (Fraction(1, 10),)


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        S.blocks = (1, 1, 1, 1, 1)  # type: ignore[misc]


LITE = ["lite0", "lite1", "lite2"]


def test_names_of_table_4() -> None:
    assert list_architectures() == [
        "tiny",
        "lpsnet_s",
        "lpsnet_m",
        "lpsnet_l",
        *(f"step_{i}" for i in range(15)),
        *LITE,
    ]
    assert lpsnet.get_architecture("lpsnet_s") == S == get_architecture("step_7")
    assert get_architecture("tiny") == get_architecture("step_0") == Architecture([1] * 5, [4, 8, 16, 32, 32], ["1/2"])
    assert str(get_architecture("lpsnet_m")) == "B=1,3,3,10,10;C=8,24,48,96,96;R=1,1/4"
    assert str(get_architecture("lpsnet_l")) == "B=1,3,3,10,10;C=8,24,64,160,160;R=1,1/4"
    assert str(get_architecture("step_14")) == "B=1,3,3,10,10;C=8,32,96,224,224;R=11/8,1/4"


@pytest.mark.parametrize(
    ("blocks", "widths", "ratios", "part"),
    [
        ((1, 1, 1, 1), S.widths, ("1",), "blocks need 5 numbers"),
        (S.blocks, (1,) * 6, ("1",), "widths need 5 numbers"),
        ((0, 1, 1, 1, 1), S.widths, ("1",), "whole numbers from 1"),
        (S.blocks, (8, -1, 1, 1, 1), ("1",), "whole numbers from 1"),
        ((1.0, 1, 1, 1, 1), S.widths, ("1",), "whole numbers"),
        ((True, 1, 1, 1, 1), S.widths, ("1",), "whole numbers"),
        ("11111", S.widths, ("1",), "list of numbers"),
        (5, S.widths, ("1",), "list of numbers"),
        (S.blocks, S.widths, (), "at least one path"),
        (S.blocks, S.widths, (0, "0"), "at least one path"),
        (S.blocks, S.widths, ("-1/4",), "between 0"),
        (S.blocks, S.widths, ("1/0",), "fraction such as 3/4"),
        (S.blocks, S.widths, (float("nan"),), "fraction such as 3/4"),
        (S.blocks, S.widths, (float("inf"),), "fraction such as 3/4"),
        (S.blocks, S.widths, ("1e999999999",), "fraction such as 3/4"),
        (S.blocks, S.widths, ("half",), "fraction such as 3/4"),
        (S.blocks, S.widths, (None,), "fraction such as 3/4"),
        (S.blocks, S.widths, (1000,), "between 0"),
        ((10**9, 1, 1, 1, 1), S.widths, ("1",), "whole numbers from 1 to 1000"),
    ],
)
def test_what_is_no_network_is_refused_with_one_sentence(blocks, widths, ratios, part: str) -> None:
    with pytest.raises(ArchitectureError, match=part) as caught:
        Architecture(blocks, widths, ratios)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["", ";", "B=1", "B=1,1,1,1,1;C=1,1,1,1,1", "B=1,1,1,1,1;C=1,1,1,1,1;R=1;R=2", "X=1", "B=1,1,1,1,x;C=1,1,1,1,1;R=1",
     "B=1,1,1,1,99999999999999999999;C=1,1,1,1,1;R=1", "=" * 10_000],
)  # fmt: skip
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        Architecture.parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"blocks": 1, "widths": 2, "ratios": 3}', "[" * 100_000, "nul"])
def test_bad_json_is_refused(text: str) -> None:
    with pytest.raises(ArchitectureError):
        Architecture.from_json(text)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(ArchitectureError):
        assert Architecture.parse(str(Architecture.parse(text))) == Architecture.parse(text)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ArchitectureError, match="did you mean 'lpsnet_s'"):
        get_architecture("lpsnet-s")


def test_sizes_by_hand() -> None:
    # 360x480 with S: paths 270x360 and 90x120; 270 -> 135 -> 68 -> 34 -> 17, 360 -> 180 -> 90 -> 45 -> 23
    assert path_size((360, 480), Fraction(3, 4)) == (270, 360)
    assert path_size((333, 517), Fraction(1, 4)) == (83, 129)
    assert path_size((32, 32), Fraction(1, 64)) == (1, 1)
    assert logits_size((360, 480), S) == (17, 23)

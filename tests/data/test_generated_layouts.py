"""A sample of the generated data sets; `generated_layouts.py` tries all of them."""

import generated_layouts
import pytest
from generated_layouts import Case

# what was read wrongly once
KEPT = [
    Case("kind first", "equal"),
    Case("split first", "equal"),
    Case("annot", "growing", "sixteen", "tif", fault="linked folder"),
    Case("endings", "growing", "png", "sixteen"),
    Case("flat", "own", "JPG", "full name"),
    Case("split in names", "accents", "progressive", "apart"),
    Case("split first", "own", fault="label cut"),
    Case("one folder", "accents", "progressive", "palette", fault="own results"),
    Case("kind first", "own", "bmp", "bmp", fault="fewer bits"),
    Case("kind first", "blanks", way="list"),
    Case("kind first", way="relative"),
    Case("kind first", orientation=3),
    Case("kind first", "own", "png", fault="one label turned"),
]


@pytest.mark.parametrize("case", [*KEPT, *generated_layouts.sample(60, seed=1)], ids=str)
def test_read_rightly_or_told(case: Case) -> None:
    assert generated_layouts.run(case) == ""


def test_a_wrong_answer_is_noticed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """The generator itself: labels of another image are not taken for right."""
    monkeypatch.setattr(generated_layouts, "spoil", lambda case, root, members: _swap(members))
    assert "is read wrongly" in generated_layouts.wrong(Case(), tmp_path / "set")


def _swap(members: list[generated_layouts.Member]) -> None:
    first, second = members[0].image.read_bytes(), members[1].image.read_bytes()
    members[0].image.write_bytes(second)
    members[1].image.write_bytes(first)

"""The script that measures how the package is cut into files, and the bounds it is held to."""

import ast
from pathlib import Path

import pytest
import structure

ROOT = Path(__file__).parents[2]


def test_a_package_written_by_hand(tmp_path: Path) -> None:
    package = tmp_path / "house"
    (package / "room").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "room" / "__init__.py").write_text("from house import a\n")
    (package / "a.py").write_text("import os\nfrom house.b import (\n    x,\n    y,\n)\n\nprint(os, x, y)\n")
    (package / "b.py").write_text("x = y = 1\n\n\ndef f():\n    from house import a\n    return a\n")
    found = structure.measure(package)
    assert found["files"] == 4
    assert found["lines"] == 7 + 6 + 1
    assert found["import_percent"] == round(100 * (1 + 4 + 1 + 1) / 14, 2)
    assert found["cycles"] == [["house.a", "house.b"]]


def test_imports_count_at_any_depth() -> None:
    source = "if TYPE_CHECKING:\n    import m.a\ndef f():\n    from m import b, c\n"
    assert structure.imported(ast.parse(source), {"m", "m.a", "m.b"}) == {"m", "m.a", "m.b"}


def test_the_package_keeps_to_its_bounds() -> None:
    found = structure.measure(ROOT / "lpsnet")
    assert found["files"] <= 140
    assert found["mean_lines"] >= 210
    assert found["import_percent"] <= 5.5
    assert found["over_600"] == []
    assert found["cycles"] == []


@pytest.mark.parametrize(("words", "most"), [("new block", 1), ("image", 10), ("candidate", 10), ("sample", 6)])
def test_walks_are_short(words: str, most: int) -> None:
    (files,) = [files for walk, files in structure.walks(ROOT).items() if words in walk]
    assert len(files) <= most

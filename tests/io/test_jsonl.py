"""Files of JSON lines: whole lines only, whatever a crash left."""

import os
from pathlib import Path

import pytest

from lpsnet.io import append_line, finished_lines


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, b"{}\n"),
        (b"", b"{}\n"),
        (b"1\n22\n", b"1\n22\n{}\n"),
        (b"1\n22", b"1\n{}\n"),
        (b"torn at once", b"{}\n"),
        (b"\n", b"\n{}\n"),
    ],
)
def test_a_line_follows_the_finished_ones(tmp_path: Path, before: bytes | None, after: bytes) -> None:
    path = tmp_path / "lines.jsonl"
    if before is not None:
        path.write_bytes(before)
    append_line(path, "{}")
    assert path.read_bytes() == after
    assert finished_lines(before or b"") == finished_lines(after)[:-1]


@pytest.mark.parametrize("written", [0, 3])
def test_what_cannot_be_written_leaves_the_finished_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    path, real = tmp_path / "lines.jsonl", os.write
    append_line(path, '"ä"')
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:written]))
    with pytest.raises(OSError, match="may be full"):
        append_line(path, "[1, 2, 3]")
    assert path.read_bytes() == '"ä"\n'.encode()

"""The command line, run in this process."""

import contextlib
import io
import sys
from typing import NamedTuple

from lpsnet.cli import main


class Result(NamedTuple):
    """Exit code and what was written."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """What a command that was refused says: one line, and no more."""
        assert self.code == 2, self
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("lpsnet: ")]
        assert len(lines) == 1, self.err
        return lines[0]


def run(*words: object) -> Result:
    """`lpsnet WORDS`."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["lpsnet", *map(str, words)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    finally:
        sys.argv = before
    return Result(code, out.getvalue(), err.getvalue())

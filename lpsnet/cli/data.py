"""`lpsnet data …`: looking at data sets before anyone trains on them."""

from typing import Annotated

import typer
from rich.progress import Progress

from lpsnet.cli.output import JsonOption, console, next_command, say, table, write_json

app = typer.Typer(help="Data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Data sets."""

"""`lpsnet data …`: looking at data sets before anyone trains on them."""

import typer

app = typer.Typer(help="Data sets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Data sets."""

"""What the documentation makes while it is built: the reference of the command line, from the commands themselves."""

import re
from typing import Any

from typer.cli import get_docs_for_click
from typer.main import get_command

MARKER = "<!-- the command line -->"
_SHORTENED = re.compile(r"\*\*Commands\*\*:\n\n(?:\* .*\n)+\n?")  # cut-off lines; the table of contents has all


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Put the help of all commands where a page asks for it (a MkDocs event)."""
    return markdown.replace(MARKER, command_line()) if MARKER in markdown else markdown


def command_line() -> str:
    """Every command with its arguments and options, in Markdown."""
    from lpsnet.cli import app

    command = get_command(app)
    context = command.make_context("lpsnet", [], resilient_parsing=True)
    text: str = get_docs_for_click(obj=command, ctx=context, name="lpsnet", call_prefix="")
    return _SHORTENED.sub("", text.partition("\n")[2])

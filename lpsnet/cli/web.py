"""`lpsnet web`: a page that segments in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli.output import next_command, say


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(web)


def web(
    model: Annotated[str, typer.Option(help="An ONNX file, or the name of a model that comes with the package.")],
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("web"),
    example: Annotated[Path | None, typer.Option(help="A picture that the page offers to segment.")] = None,
) -> None:
    """Write a page that segments pictures, videos and the camera in the browser; nothing is uploaded.

    Any static server will do. Example: `lpsnet web --model model.onnx --out web`
    """
    from lpsnet.deployment.web.page import write_page

    page = write_page(model, out, example=example)
    say(f"Wrote the page to {page.folder}/ ({page.num_bytes / 1e6:.1f} MB); serve it and open http://localhost:8000")
    next_command("python", "-m", "http.server", "--directory", page.folder, "8000")

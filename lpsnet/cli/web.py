"""`lpsnet web`: a page that segments in the browser."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli import output
from lpsnet.inference.web import serve, write_page

ServeOption = Annotated[
    int | None,
    typer.Option("--serve", metavar="PORT", min=0, max=65_535, help="Serve the page to this machine until Ctrl-C."),
]


def web(
    model: Annotated[str, typer.Option(help="An ONNX file, or the name of a model that comes with the package.")],
    out: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("web"),
    example: Annotated[Path | None, typer.Option(help="An image that the page offers to segment.")] = None,
    port: ServeOption = None,
) -> None:
    """Write a page that segments images, videos and the camera in the browser; nothing is uploaded.

    Any server of plain files will do. Example: `lpsnet web --model model.onnx --out web --serve 8000`
    """
    page = write_page(model, out, example=example)
    output.say(f"Wrote the page to {page.folder}/ ({page.num_bytes / 1e6:.1f} MB); any server of plain files will do")
    if port is None:
        output.next_command("python", "-m", "http.server", "--directory", page.folder, "8000")
    else:
        serve(page.folder, port, on_ready=lambda url: output.say(f"Open {url} — Ctrl-C ends it"))

"""`lpsnet push`: sharing a model."""

from typing import Annotated

import typer

from lpsnet.cli.output import next_command, say


def push(
    repo: Annotated[str, typer.Argument(metavar="OWNER/MODEL", help="Repository on the Hugging Face Hub.")],
    model: Annotated[str, typer.Option(help="A model file, or the name of one that comes with the package.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    keep_card: Annotated[bool, typer.Option("--keep-card", help="Leave the repository's README.md as it is.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Put a model onto the Hugging Face Hub, with a model card made from its record.

    Example: `lpsnet push me/street --model model.onnx`
    """
    from pathlib import Path

    from lpsnet.inference.hub import find_model, push_to_hub

    page = push_to_hub(model, repo, private=private, keep_card=keep_card, message=message)
    say(f"Pushed {model} and its card to {page}" if not keep_card else f"Pushed {model} to {page}")
    next_command("lpsnet", "info", f"hf://{repo}/{Path(find_model(model)).name}")

"""`lpsnet demo`: everything once, on generated scenes."""

from pathlib import Path
from typing import Annotated

import typer

from lpsnet.cli.expansion import print_delivery
from lpsnet.cli.exporting import print_export
from lpsnet.cli.output import next_command, say
from lpsnet.cli.training import print_scores, progress_reporter


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("lpsnet-demo"),
) -> None:
    """Grow, train, export, verify and segment on generated street scenes: no data, no downloads, a few minutes.

    Example: `lpsnet demo`
    """
    from lpsnet.demo import run_demo

    result = run_demo(out, reporter=progress_reporter, say=say)
    print_delivery(result.expansion)
    print_scores(result.evaluation)
    print_export(result.export)
    say(f"Model:   {result.model}")
    say(f"Picture: {result.picture} — scenes it has not seen, their labels, and what the network says")
    for page in result.reports:
        say(f"Report:  {page}")
    next_command("lpsnet", "segment", result.scene, "--model", result.model, "--out", out / "segmented")
    say("Or try it in your browser, with your own pictures or your camera:")
    next_command(
        "lpsnet", "web", "--model", result.model, "--example", result.scene, "--out", out / "web", "--serve", 8000
    )

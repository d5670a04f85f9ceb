"""`lpsnet study`: one table or figure of the paper, made again here."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lpsnet.cli.benchmark import measuring_progress
from lpsnet.cli.output import JsonOption, next_command, say, write_json

if TYPE_CHECKING:
    from lpsnet.deployment.runtimes.session import Precision
    from lpsnet.studies.study import Scale


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command()(study)


def study(
    name: Annotated[str, typer.Argument(metavar="NAME", help="conv-types (Figure 4), widths (Figure 5).")],
    out: Annotated[Path, typer.Option(help="Folder of the results; give it again to go on.")],
    scale: Annotated[str, typer.Option(help="small (minutes) or paper (as long as the paper's protocol).")] = "small",
    runtime: Annotated[
        list[str] | None, typer.Option("--runtime", help="Engine; may be given several times. Default: onnxruntime.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Arithmetic: f32, bf16, f16.")] = "f32",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engines.")] = None,
    json_to: JsonOption = None,
) -> None:
    """Make a table or figure of the paper again, on this device, beside the paper's own values.

    Every finished run is kept: if this is stopped, the same command goes on.

    Example: `lpsnet study widths --runtime openvino --threads 1 --out widths`
    """
    from lpsnet.studies.running import find_study, run_study
    from lpsnet.studies.study import Settings

    chosen = find_study(name)
    settings = Settings(cast("Scale", scale), tuple(runtime or ["onnxruntime"]), cast("Precision", precision), threads)
    with measuring_progress() as update:
        result = run_study(chosen, settings, out, progress=update)
    page, figure, table, values = result.files
    write_json({"findings": list(result.report.findings), "rows": [dict(row) for row in result.report.rows]}, json_to)
    for finding in result.report.findings:
        say(finding, json_to=json_to)
    if result.num_kept:
        say(f"{result.num_kept} runs were there already, from an earlier time", json_to=json_to)
    say(f"Wrote {page}, {figure.name}, {table.name} and {values.name}", json_to=json_to)
    next_command("lpsnet", "benchmark", "lpsnet_s", "lpsnet_m", "lpsnet_l", json_to=json_to)

"""`lpsnet fit`: labelled images, a device and a budget in; the finished model out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from lpsnet.cli import output
from lpsnet.cli.output import printable
from lpsnet.cli.train import print_scores, progress_reporter
from lpsnet.inference.engines import Precision

if TYPE_CHECKING:
    from lpsnet.fitting.plan import Plan


def fit(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Labelled images, as for train; or a folder.")],
    budget_ms: Annotated[float, typer.Option(min=0.01, help="Milliseconds an image, end to end, on this machine.")],
    out: Annotated[Path, typer.Option(help="Folder for everything; start again to resume.")],
    minutes: Annotated[float, typer.Option(min=1, help="Of everything together.")] = 60.0,
    size: output.SizeOption = None,
    runtime: Annotated[str | None, typer.Option(help="Engine; default: the quickest here.")] = None,
    precision: Annotated[str | None, typer.Option(help="Arithmetic; default: the quickest here.")] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, max=output.MAX_THREADS, help="Default: the quickest number.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(help="Network to start with, such as lite0; default: by the budget.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of all that is random.")] = 0,
    plan_only: Annotated[bool, typer.Option("--plan", help="Show what would be done, and stop.")] = False,
    json_to: output.JsonOption = None,
) -> None:
    """Make the most accurate network for labelled images that this machine runs within a latency budget.

    Checks the data, measures the machine, chooses a network with ImageNet weights that the budget allows, trains it for
    the minutes there are, exports, verifies, quantises and measures it. Start it again to resume, or with more minutes.

    Example: `lpsnet fit photos/ --budget-ms 15 --minutes 30 --out fit`
    """
    from lpsnet.fitting import plan as planning
    from lpsnet.fitting import run as fitting

    wish = planning.Wish(
        data=data,
        budget_ms=budget_ms,
        minutes=minutes,
        size=output.parse_size(size),
        runtime=runtime,
        precision=cast("Precision | None", precision),
        threads=threads,
        start=start,
        seed=seed,
    )
    with output.measuring_progress() as update:
        plan = fitting.plan_in(out, wish, on_progress=update)
    _print_plan(plan, json_to)
    if plan_only:
        output.write_json({"plan": plan.model_dump(mode="json")}, json_to)
        output.next_command("lpsnet", "fit", data, "--budget-ms", f"{budget_ms:g}", "--out", out, json_to=json_to)
        return
    fitted = fitting.run_fit(plan, out, reporter=progress_reporter)
    output.write_json(fitted.to_dict(), json_to)
    print_scores(fitted.evaluation, json_to=json_to)
    over = "" if fitted.latency_ms <= budget_ms else ", OVER the budget"
    output.say(
        f"{fitted.evaluation.miou:.2f} mIoU on val at {fitted.latency_ms:.2f} ms of {budget_ms:g} ms{over} "
        f"({plan.runtime} {plan.precision}{'' if plan.threads is None else f', threads {plan.threads}'})",
        json_to=json_to,
    )
    for path in (fitted.model, fitted.int8, fitted.checkpoint, fitting_report(out), out / fitting.HOW):
        if path is not None:
            output.say(f"Wrote {path}", json_to=json_to)
    words = ["--model", fitted.model, "--runtime", plan.runtime, "--precision", plan.precision]
    output.next_command("lpsnet", "segment", "IMAGE", *words, "--out", "segmented", json_to=json_to)


def fitting_report(out: Path) -> Path | None:
    """The report of the fit; None without the package that writes it."""
    from lpsnet.errors import MissingDependencyError
    from lpsnet.report.report import write_report

    try:
        return write_report(out / "training", out=out / "report.html")
    except MissingDependencyError:
        return None


def _print_plan(plan: "Plan", json_to: str | None) -> None:
    from lpsnet.fitting.plan import delivery_minutes

    out = output.console(json_to)
    out.print(f"Plan for {plan.wish.data}", style="bold")
    images = f"{plan.num_train:,} to learn from, {plan.num_val:,} to judge on, {len(plan.classes)} classes"
    parts = [f"{plan.training_minutes:.1f} training", f"{delivery_minutes(plan.wish.minutes):.1f} export and report"]
    if plan.contest_minutes:
        names = " and ".join(choice.start for choice in plan.choices)
        parts.insert(0, f"{plan.contest_minutes:.1f} each to try {names}")
    parts.insert(0, f"{plan.planning_minutes:.1f} this plan")
    for line in (f"images: {images}", *plan.reasons, f"minutes: {plan.wish.minutes:g}: {', '.join(parts)}"):
        subject, _, text = line.partition(": ")
        out.print(f"  {printable(f'{subject}:'):12} {printable(text)}", highlight=False, soft_wrap=True)

"""`lpsnet info` and `lpsnet models`: looking at networks and model files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.architecture import get_architecture, list_architectures, path_size, score_size
from lpsnet.cli.output import JsonOption, SizeOption, console, next_command, parse_size, say, table, write_json
from lpsnet.errors import LpsnetError, MissingDependencyError

if TYPE_CHECKING:
    from lpsnet.models.profile import Complexity
    from lpsnet.record import ModelRecord


PAPER_SIZE = (1024, 2048)  # Cityscapes; the size of the paper's figures


def models(json_to: JsonOption = None) -> None:
    """The models that come with the package, and what each of them scored.

    Example: `lpsnet models`
    """
    from lpsnet.inference.hub import list_models
    from lpsnet.inference.model_file import read_record

    found = {name: (path, read_record(path)) for name, path in list_models().items()}
    described = {name: {"path": str(path), "record": r.model_dump(mode="json")} for name, (path, r) in found.items()}
    write_json({"models": described}, json_to)
    rows = table("Models of this installation", "name", "classes", "runs at", "ratios", "mIoU %", "on", "MiB")
    for name, (path, record) in found.items():
        size = "x".join(map(str, record.input_size)) if record.input_size else "any"
        ratios = ", ".join(map(str, record.architecture.ratios)) if record.architecture else "–"
        split, miou = next(iter(_mious(record).items()), ("–", None))
        score = "–" if miou is None else f"{miou:.2f}"
        megabytes = f"{path.stat().st_size / 2**20:.1f}"
        rows.add_row(name, str(record.label_space.num_classes), size, ratios, score, split, megabytes)
    console(json_to).print(rows)
    for name, (_, record) in found.items():
        for note in (scores["note"] for scores in record.scores.values() if "note" in scores):
            say(f"{name}: {note}", json_to=json_to)
    for terms in dict.fromkeys(record.licence for _, record in found.values()):
        names = ", ".join(name for name, (_, record) in found.items() if record.licence == terms)
        say(f"{names}: {terms or 'no terms given'}", json_to=json_to)
    next_command("lpsnet", "segment", "PICTURE", "--model", next(iter(found), "MODEL"), json_to=json_to)


def _mious(record: "ModelRecord") -> dict[str, float]:
    """What a record says of mIoU, in percent, by split or protocol."""
    figures = {split: scores.get("miou") for split, scores in record.scores.items() if isinstance(scores, dict)}
    return {split: miou for split, miou in figures.items() if isinstance(miou, float)}


def info(
    what: Annotated[str, typer.Argument(metavar="ARCH|MODEL", help="An architecture, or a model file.")],
    size: SizeOption = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    block: Annotated[str | None, typer.Option(help="Convolutional block (Table 2).")] = None,
    interaction: Annotated[str | None, typer.Option(help="Path interaction (Figure 6).")] = None,
    json_to: JsonOption = None,
) -> None:
    """Parameters and multiply-accumulates by stage; for a model file, its record too.

    Example: `lpsnet info lpsnet_s --size 360x480 --classes 11`
    """
    record = _find_record(what)
    counts = _count(what, record, parse_size(size), classes, block, interaction)
    described = {} if record is None else {"record": record.model_dump(mode="json")}
    write_json({**(counts.to_dict() if counts else {}), **described}, json_to)
    if counts is not None:
        _print_complexity(counts, json_to)
    if record is not None:
        _print_record(record, json_to)
        next_command("lpsnet", "segment", "PICTURE", "--model", what, json_to=json_to)
    else:
        next_command("lpsnet", "train", "--data", "scenes", "--arch", what, "--out", "runs/first", json_to=json_to)


def _count(
    what: str,
    record: "ModelRecord | None",
    size: tuple[int, int] | None,
    classes: int | None,
    block: str | None,
    interaction: str | None,
) -> "Complexity | None":
    """What the network costs; None for a model file where it cannot be counted: a foreign one, or without torch."""
    architecture = get_architecture(what) if record is None else record.architecture
    if architecture is None:
        return None
    try:
        from lpsnet.models.profile import complexity
    except ModuleNotFoundError as error:
        if record is None:
            raise
        say(f"Parameters and operations are not counted: {MissingDependencyError.from_import(error)}", json_to="-")
        return None
    return complexity(
        architecture,
        size=size or (record.input_size if record else None) or PAPER_SIZE,
        num_classes=classes or (record.label_space.num_classes if record else 19),
        block=block or (record.block if record else "conv3x3"),
        interaction=interaction or (record.interaction if record else "bilateral_b"),
    )


def _find_record(what: str) -> "ModelRecord | None":
    """The record of a model file or a bundled model; None for an architecture."""
    from lpsnet.inference.hub import find_model
    from lpsnet.inference.model_file import read_record

    if what in list_architectures() or "=" in what:
        return None
    if "/" in what or "\\" in what or Path(what).suffix or Path(what).exists():
        return read_record(find_model(what))
    try:
        return read_record(find_model(what))
    except LpsnetError:
        get_architecture(what)  # says what architectures there are
        raise


def _print_complexity(counts: "Complexity", json_to: str | None) -> None:
    height, width = counts.size
    rows = table(str(counts.architecture), "part", "path", "input", "parameters", "GMACs")
    for row in counts.rows:
        ratio = counts.architecture.ratios[row.path - 1] if row.path else None
        own = "" if ratio is None else "x".join(map(str, path_size(counts.size, ratio)))
        rows.add_row(row.part, str(row.path or ""), own, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
    rows.add_section()
    rows.add_row("total", "", "", f"{counts.parameters:,}", f"{counts.macs / 1e9:.3f}", style="bold")
    console(json_to).print(rows)
    scores = "x".join(map(str, score_size(counts.size, counts.architecture)))
    say(f"{height}x{width} in, scores at {scores}, {counts.num_classes} classes, deployed form", json_to=json_to)


def _print_record(record: "ModelRecord", json_to: str | None) -> None:
    training = record.training
    lines: dict[str, Any] = {
        "classes": ", ".join(record.label_space.names),
        "form": record.form,
        "input size": "x".join(map(str, record.input_size)) if record.input_size else "any",
        "trained on": f"{training.get('data', 'unknown data')}, split {training.get('split', 'unknown')}",
        "recipe": (training.get("recipe") or {}).get("name", "unknown"),
        "licence": record.licence or "none given",
        "made by": f"lpsnet {record.lpsnet_version or 'unknown'}",
    }
    lines.update({f"mIoU on {split}": f"{miou:.2f} %" for split, miou in _mious(record).items()})
    for key, value in lines.items():
        say(f"{key}: {value}", json_to=json_to)

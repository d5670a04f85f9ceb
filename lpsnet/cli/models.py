"""Commands about networks and model files: `lpsnet info`, `models` and `push`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lpsnet.architecture import default_block, get_architecture, list_architectures, logits_size, path_size
from lpsnet.cli import output
from lpsnet.errors import LpsnetError, MissingDependencyError
from lpsnet.inference.hub import find_model, list_models, push_to_hub
from lpsnet.inference.model_file import read_record
from lpsnet.plugins import network_named
from lpsnet.record import ModelRecord

if TYPE_CHECKING:
    from lpsnet.models.profile import Complexity


PAPER_SIZE = (1024, 2048)  # Cityscapes; the size of the paper's figures


def models(json_to: output.JsonOption = None) -> None:
    """The models that come with the package, and what each of them scored.

    Example: `lpsnet models`
    """
    found = {name: (path, read_record(path)) for name, path in list_models().items()}
    described = {name: {"path": str(path), "record": r.model_dump(mode="json")} for name, (path, r) in found.items()}
    output.write_json({"models": described}, json_to)
    columns = ["name", "classes", "runs at", "ratios", "mIoU %", "on", "MiB"]
    robust = {name: _corrupted(record) for name, (_, record) in found.items()}
    if any(robust.values()):  # few records hold it
        columns.insert(6, "mIoU % corrupted")
    rows = output.table("Models of this installation", *columns)
    for name, (path, record) in found.items():
        size = "x".join(map(str, record.input_size)) if record.input_size else "any"
        ratios = ", ".join(map(str, record.architecture.ratios)) if record.architecture else "–"
        split, miou = next(iter(_mious(record).items()), ("–", None))
        score = "–" if miou is None else f"{miou:.2f}"
        megabytes = f"{path.stat().st_size / 2**20:.1f}"
        corrupted = [robust[name] or "–"] if any(robust.values()) else []
        rows.add_row(name, str(record.label_space.num_classes), size, ratios, score, split, *corrupted, megabytes)
    output.console(json_to).print(rows)
    for name, (_, record) in found.items():
        for note in (scores["note"] for scores in record.scores.values() if "note" in scores):
            output.say(f"{name}: {note}", json_to=json_to)
    for terms in dict.fromkeys(record.licence for _, record in found.values()):
        names = ", ".join(name for name, (_, record) in found.items() if record.licence == terms)
        output.say(f"{names}: {terms or 'no terms given'}", json_to=json_to)
    output.next_command("lpsnet", "segment", "IMAGE", "--model", next(iter(found), "MODEL"), json_to=json_to)


def _mious(record: "ModelRecord") -> dict[str, float]:
    """mIoU in a record, in percent, by split or protocol."""
    figures = {split: scores.get("miou") for split, scores in record.scores.items() if isinstance(scores, dict)}
    return {split: miou for split, miou in figures.items() if isinstance(miou, float)}


def _corrupted(record: "ModelRecord") -> str:
    """Mean mIoU under corruptions, in percent, of the split whose mIoU is shown; empty if the record holds none."""
    tests = (record.scores[split].get("robustness") for split in list(_mious(record))[:1])
    mious = (test.get("mean_miou") for test in tests if isinstance(test, dict))
    return next((f"{miou:.2f}" for miou in mious if isinstance(miou, float)), "")


def info(
    what: Annotated[str, typer.Argument(metavar="ARCH|MODEL", help="An architecture, or a model file.")],
    size: output.SizeOption = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Number of classes.")] = None,
    block: Annotated[str | None, typer.Option(help="Convolutional block (Table 2).")] = None,
    interaction: Annotated[str | None, typer.Option(help="Path interaction (Figure 6).")] = None,
    network: output.NetworkOption = None,
    json_to: output.JsonOption = None,
) -> None:
    """Parameters and multiply-accumulates by stage; for a model file, its record too.

    Example: `lpsnet info lpsnet_s --size 360x480 --classes 11`
    """
    record = _find_record(what)
    asked = {"size": output.parse_size(size), "num_classes": classes, "block": block, "interaction": interaction}
    counts = _count(what, record, asked)
    described = {} if record is None else {"record": record.model_dump(mode="json")}
    output.write_json({**(counts.to_dict() if counts else {}), **described}, json_to)
    if counts is not None:
        _print_complexity(counts, json_to)
    if record is not None:
        _print_record(record, json_to)
        output.next_command("lpsnet", "segment", "IMAGE", "--model", what, json_to=json_to)
    else:
        output.next_command(
            "lpsnet", "train", "--data", "scenes", "--arch", what, "--out", "runs/first", json_to=json_to
        )


def _count(what: str, record: "ModelRecord | None", asked: dict[str, Any]) -> "Complexity | None":
    """What the network costs; None for a model file where it cannot be counted: a foreign one, or without torch."""
    architecture = get_architecture(what) if record is None else record.architecture
    code = None if record is None else network_named(record.network, record.network_digest)
    if architecture is None and code is None:
        return None
    try:
        from lpsnet.models.any_network import load_network
        from lpsnet.models.profile import complexity
    except ModuleNotFoundError as error:
        if record is None:
            raise
        output.say(
            f"Parameters and operations are not counted: {MissingDependencyError.from_import(error)}", json_to="-"
        )
        return None
    chosen: dict[str, Any] = {
        "size": PAPER_SIZE,
        "num_classes": 19,
        "block": default_block(what),
        "interaction": "bilateral_b",
    }
    if record is not None:
        chosen |= {"num_classes": record.label_space.num_classes, "size": record.input_size or PAPER_SIZE}
        chosen |= {"block": record.block, "interaction": record.interaction, "in_channels": len(record.channels)}
    if record is not None and code is not None:
        return complexity(
            load_network(code, num_classes=record.label_space.num_classes, in_channels=len(record.channels)),
            size=asked["size"] or chosen["size"],
        )
    assert architecture is not None, "one of the two is there"
    return complexity(architecture, **(chosen | {key: value for key, value in asked.items() if value}))


def _find_record(what: str) -> "ModelRecord | None":
    """The record of a model file or a bundled model; None for an architecture."""
    if what in list_architectures() or "=" in what:
        return None
    try:
        return read_record(find_model(what))
    except LpsnetError:
        if not ("/" in what or "\\" in what or Path(what).suffix or Path(what).exists()):
            get_architecture(what)  # its error lists the architectures
        raise


def _print_complexity(counts: "Complexity", json_to: str | None) -> None:
    height, width = counts.size
    rows = output.table(str(counts.architecture or counts.network), "part", "path", "input", "parameters", "GMACs")
    for row in counts.rows:
        ratio = counts.architecture.ratios[row.path - 1] if row.path and counts.architecture else None
        own = "" if ratio is None else "x".join(map(str, path_size(counts.size, ratio)))
        rows.add_row(row.part, str(row.path or ""), own, f"{row.parameters:,}", f"{row.macs / 1e9:.3f}")
    rows.add_section()
    rows.add_row("total", "", "", f"{counts.parameters:,}", f"{counts.macs / 1e9:.3f}", style="bold")
    output.console(json_to).print(rows)
    logits = ""
    if counts.architecture is not None:
        logits = f"logits at {'x'.join(map(str, logits_size(counts.size, counts.architecture)))}, "
    output.say(f"{height}x{width} in, {logits}{counts.num_classes} classes, deployed form", json_to=json_to)


def _print_record(record: "ModelRecord", json_to: str | None) -> None:
    training = record.training
    lines: dict[str, Any] = {
        **({"network": record.network} if record.network else {}),
        "classes": ", ".join(record.label_space.names),
        **({} if record.image_channels.is_rgb else {"images": _describe_channels(record)}),
        "form": record.form,
        "input size": "x".join(map(str, record.input_size)) if record.input_size else "any",
        "trained on": f"{training.get('data', 'unknown data')}, split {training.get('split', 'unknown')}",
        "recipe": (training.get("recipe") or {}).get("name", "unknown"),
        "licence": record.licence or "none given",
        "made by": f"lpsnet {record.lpsnet_version or 'unknown'}",
    }
    lines.update({f"mIoU on {split}": f"{miou:.2f} %" for split, miou in _mious(record).items()})
    for key, value in lines.items():
        output.say(f"{key}: {value}", json_to=json_to)


def _describe_channels(record: "ModelRecord") -> str:
    norm = record.normalisation
    numbers = (
        f"{norm.max_value * own:.1f} ± {norm.max_value * std:.1f}" for own, std in zip(norm.mean, norm.std, strict=True)
    )
    listed = ", ".join(f"{name} {number}" for name, number in zip(record.channels, numbers, strict=True))
    return f"{record.image_channels}; normalised by {listed}"


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
    page = push_to_hub(model, repo, private=private, keep_card=keep_card, message=message)
    output.say(f"Pushed {model} and its card to {page}" if not keep_card else f"Pushed {model} to {page}")
    output.next_command("lpsnet", "info", f"hf://{repo}/{Path(find_model(model)).name}")

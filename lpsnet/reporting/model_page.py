"""The report of a model file: what its record says, and nothing else is needed for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lpsnet.data.labels import LabelSpace
from lpsnet.inference.model_file import read_record
from lpsnet.record import ModelRecord
from lpsnet.reporting.page import Cell, Command, Facts, Page, Part, Section, Table, Tile, figure, known
from lpsnet.reporting.reading import flat, number_of, text_of

_SCORES = {"miou": "mIoU", "pixel_accuracy": "Pixel accuracy", "boundary_miou": "Boundary mIoU"}


def model_page(path: Path) -> Page:
    """The page of a model file.

    Raises:
        ModelFileError: it is none, or holds no record.
    """
    record = read_record(path)
    scores = {str(name): it for name, it in record.scores.items() if isinstance(it, Mapping)}
    return Page(
        kind="Model",
        title=path.name,
        lead=f"{record.architecture or 'a network of another program'}, {record.label_space.num_classes} classes",
        tiles=tuple(tile for name, it in scores.items() for tile in _tiles(name, it)),
        sections=(
            Section("By class", (_classes(record.label_space, scores),)),
            Section("The model", (Facts(_facts(path, record)),)),
            Section("How it was made", _making(record)),
        ),
    )


def _tiles(split: str, scores: Mapping[str, Any]) -> list[Tile]:
    found = ((name, number_of(scores.get(key))) for key, name in _SCORES.items())
    return [Tile(f"{name} on {split}", figure(value, 2), "%") for name, value in found if value is not None]


def _classes(space: LabelSpace, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """The classes in the order of their ids, with their IoU by split as far as it is known."""
    by_split = {split: it["ious"] for split, it in scores.items() if isinstance(it.get("ious"), Mapping)}
    rows: list[tuple[Cell | str, ...]] = []
    for number, (name, colour) in enumerate(zip(space.names, space.colours, strict=True)):
        ious = (number_of(known_ious.get(name)) for known_ious in by_split.values())
        bars = (Cell(figure(iou), bar=min(max(iou or 0.0, 0.0), 100.0) / 100) for iou in ious)
        rows.append((str(number), Cell(name, colour=colour), *bars))
    return Table(("Id", "Class", *(f"IoU on {split} (%)" for split in by_split)), tuple(rows), words=(1,))


def _facts(path: Path, record: ModelRecord) -> tuple[tuple[str, str], ...]:
    values = record.model_dump(mode="json", exclude={"training", "scores", "label_space", "format"})
    return (*flat(values), *known([("label space", record.label_space.name), ("bytes", f"{path.stat().st_size:,}")]))


def _making(record: ModelRecord) -> tuple[Part, ...]:
    training = {key: value for key, value in record.training.items() if key != "command"}
    command = record.training.get("command")
    protocols = {
        split: it["protocol"] for split, it in record.scores.items() if isinstance(it, dict) and "protocol" in it
    }
    parts = (
        Command(text_of(command), title="Command") if command else None,
        Facts(tuple(flat(training)), title="Training"),
        Facts(tuple(flat(protocols)), title="How its scores were measured"),
    )
    return tuple(part for part in parts if part is not None and not (isinstance(part, Facts) and not part.rows))

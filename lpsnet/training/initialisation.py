"""Telling what a network took from the checkpoint it started from, and what not."""

from collections import Counter
from pathlib import Path

from lpsnet.models.checkpoint import Initialisation


def describe_initialisation(initialisation: Initialisation, path: Path) -> str:
    """One line: how many tensors came from the checkpoint at `path`; which parts did not, and why.

    For example: 412 tensors taken from a.safetensors, skipped: head (another class count), path 2 (another shape: 6)
    """
    counts = Counter(_part(name, reason) for name, reason in initialisation.skipped.items())
    skipped = ", ".join(part if part.startswith("head") else f"{part[:-1]}: {count})" for part, count in counts.items())
    return f"{len(initialisation.taken)} tensors taken from {path}, skipped: {skipped or 'none'}"


def _part(name: str, reason: str) -> str:
    first, _, rest = name.partition(".")
    missing = reason.startswith("not")
    if first == "head" and not missing:
        # shapes are classes x channels x 1 x 1, or classes; see `checkpoint.initialise_from`
        there, here = (shape.split()[0].split("x") for shape in reason.split(", "))
        return "head (another class count)" if there[0] != here[0] else "head (another width or number of paths)"
    why = "not in the checkpoint" if missing else "another shape"
    part = f"path {int(rest.split('.')[0]) + 1}" if first == "paths" else first
    return f"{part} ({why})"

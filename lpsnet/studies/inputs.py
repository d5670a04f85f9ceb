"""The data that a study's folder holds results of: those of other pictures under the same name do not mix with them."""

import json
from collections.abc import Sequence
from pathlib import Path

from lpsnet.data.dataset import changed_contents, data_contents, open_dataset
from lpsnet.errors import RunError
from lpsnet.io import write_text

INPUTS = "inputs.json"  # in a study's folder: data set, as text -> `data_contents` of all its splits


def check_inputs(data: Sequence[str], out: Path) -> None:
    """Note what the data sets hold, and raise where the folder `out` has results of something else under their names.

    Raises:
        RunError: it has, or what it notes cannot be read.
        DataError: a data set cannot be opened.
    """
    path = out / INPUTS
    held = _read(path) if path.exists() else {}
    for spec in data:
        dataset = open_dataset(spec)
        now = data_contents(dataset, *dataset.splits)
        then = held.setdefault(spec, now)
        if changed := changed_contents(then, now):
            key = changed[0]
            raise RunError(
                f"{out} holds results of other data by the name {spec!r}: {key}: {then.get(key, 'none')} then, "
                f"{now.get(key, 'none')} now; put back what was there, or choose another folder"
            )
    if held:
        write_text(path, json.dumps(held, indent=2) + "\n")


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        held = None
    if not isinstance(held, dict) or not all(isinstance(value, dict) for value in held.values()):
        raise RunError(f"{path} is damaged; put it back, or choose another folder")
    return held

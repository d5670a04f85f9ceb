"""Generated street scenes by settings: `scenes:size=128x256,num_train=200,num_val=50,seed=0`, each may be left out."""

import re
from pathlib import Path

from lpsnet.data.split import Opened
from lpsnet.data.synthetic import SCENES, SceneSplit
from lpsnet.errors import DataError, unknown_name

TERMS = "trained on generated scenes: no terms of others"
_DEFAULTS = {"size": "128x256", "num_train": "200", "num_val": "50", "seed": "0"}


def recognises(path: Path) -> bool:
    """Never: scenes are generated, not stored."""
    return False


def open_scenes(text: str) -> Opened:
    """The splits "train" and "val" of the settings after `scenes:`.

    Raises:
        DataError: a setting is unknown, given twice or out of range.
    """
    given: dict[str, str] = {}
    for item in filter(None, text.split(",")):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in _DEFAULTS:
            raise DataError(unknown_name("setting of 'scenes'", key, _DEFAULTS))
        if key in given:
            raise DataError(f"'{key}' is given twice in 'scenes': {given[key]} and {value}; give it once")
        given[key] = value
    settings = {**_DEFAULTS, **given}
    size, seed = _parse_size(settings["size"]), _parse_number("seed", settings["seed"], lowest=0)
    counts = {name: _parse_number(f"num_{name}", settings[f"num_{name}"], lowest=1) for name in ("train", "val")}
    return Opened(
        SCENES, {name: SceneSplit(size=size, count=count, seed=seed, name=name) for name, count in counts.items()}
    )


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise DataError(f"'size={text}' in 'scenes' is not usable; HEIGHTxWIDTH is allowed, e.g. size=128x256")
    return int(match[1]), int(match[2])


def _parse_number(key: str, text: str, *, lowest: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < lowest:
        raise DataError(f"'{key}={text}' in 'scenes' is not usable; a whole number from {lowest} is allowed")
    return int(text)

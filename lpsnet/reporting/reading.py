"""Reading what commands leave, untrusted as any file: a value of the expected shape, or one line that says why not."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from lpsnet.errors import RunError

Model = TypeVar("Model", bound=BaseModel)
MAX_BYTES = 2**30  # of a file with figures; a benchmark's samples are a few MiB

GREATEST = 1e12  # of a number that is drawn

_MAX_TEXT = 400  # letters of a value shown


class Figures(BaseModel):
    """Base of what is read: what else a file says is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)


def _finite_percent(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= 100:
        raise ValueError("a percentage lies between 0 and 100")
    return value


def _command(value: object) -> object:
    return "" if value is None else value


Percent = Annotated[float | None, AfterValidator(_finite_percent)]  # None where there was nothing to divide by
CommandText = Annotated[str, BeforeValidator(_command)]


def read_json(path: Path) -> object:
    """The JSON value in a file.

    Raises:
        RunError: it cannot be read, or is no JSON.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES / 2**30:g} GiB, which no file with figures is")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is no JSON: {error}") from None


def parsed(kind: type[Model], value: object, path: Path) -> Model:
    """The value as `kind`.

    Raises:
        RunError: it is none; the message names the first key that is wrong.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise RunError(f"{path} cannot be reported on: {where}: {first['msg']}") from None


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested JSON objects as (name, text), for `Facts`; what is empty is left out."""
    for key, value in values.items():
        name = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif value not in (None, "", []):
            yield name, text_of(value, by="x" if "size" in name else ", ")


def number_of(value: object) -> float | None:
    """The number that a JSON value is; None if it is none, or none that can be drawn."""
    return float(value) if isinstance(value, int | float) and abs(value) < GREATEST else None


def text_of(value: object, *, by: str = ", ") -> str:
    """A JSON value in words, its numbers in a list joined `by`; long texts are cut off."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        plain = all(isinstance(it, int | float) for it in value)
        text = (by if plain else ", ").join(text_of(it, by=by) for it in value)
    else:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"

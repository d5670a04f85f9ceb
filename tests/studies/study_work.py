"""Work of a study's runs that other processes can find."""

import os
from typing import Any

from lpsnet.errors import RunError
from lpsnet.studies.study import Place


def double(number: int, place: Place) -> dict[str, Any]:
    """And which process did it."""
    place.on_progress("adding", 0.5)
    if number == 13:
        raise RunError("13 is not added")
    return {"sum": 2 * number, "process": os.getpid()}

"""Reading YAML that people write: data set descriptions and recipes. Plain values only; no YAML tag makes an object."""

from pathlib import Path
from typing import Any

import yaml

from lpsnet.errors import DataError

MAX_BYTES = 2**20  # of a file; a longer one is something else


def read_yaml(path: Path, *, what: str) -> Any:
    """The value in a YAML file; `what` the file is, e.g. "recipe", is part of the messages.

    Raises:
        DataError: the file cannot be read, is too long, or is no YAML; one line.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES} bytes; it is no {what}")
        return yaml.safe_load(content.decode("utf-8-sig"))
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror or error}") from None
    except DataError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{path}{where}: this is not YAML ({error.problem})") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise DataError(f"{path} is not a YAML text file") from None
    except Exception as error:  # what tags such as !!timestamp and !!bool raise for a value that is none
        raise DataError(f"{path} holds a value that is not what its tag says: {error}") from None

"""Reading YAML that people write: data set descriptions and recipes. Plain values only; no YAML tag makes an object."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from lpsnet.errors import DataError
from lpsnet.files import refuse_streams

MAX_BYTES = 2**20  # of a file; a longer one is something else


def read_yaml(path: Path, *, what: str) -> Any:
    """The value in a YAML file; `what` the file is, e.g. "recipe", is part of the messages.

    Raises:
        DataError: the file cannot be read, is too long, or is no YAML; one line.
    """
    try:
        refuse_streams(path)
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"{path} has more than {MAX_BYTES} bytes; it is no {what}")
        return _UniqueKeys(content.decode("utf-8-sig")).get_single_data()
    except OSError as error:
        raise DataError(f"cannot read the {what} {path}: {error.strerror or error}") from None
    except DataError:
        raise
    except yaml.MarkedYAMLError as error:
        where = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DataError(f"{path}{where}: {_problem(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        raise DataError(f"{path} is not a YAML text file") from None
    except Exception as error:  # what tags such as !!timestamp and !!bool raise for a value that is none
        raise DataError(f"{path} holds a value that is not what its tag says: {error}") from None


class _UniqueKeys(yaml.SafeLoader):
    """YAML forbids a key that stands twice in a mapping; the library takes the last one, and the first is lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag.endswith(":merge"):  # `<<`, whose keys may stand beside it
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise _KeyTwiceError(problem=f"the key {key!r} stands here twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _KeyTwiceError(yaml.MarkedYAMLError):
    pass


def _problem(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, _KeyTwiceError):
        return f"{error.problem}; remove all but one"
    return f"this is not YAML ({error.problem})"

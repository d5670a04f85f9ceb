"""What tests of commands share."""

from collections.abc import Callable

import command_line
import pytest


@pytest.fixture
def run() -> Callable[..., command_line.Result]:
    """Runs a command; see `command_line.run`."""
    return command_line.run

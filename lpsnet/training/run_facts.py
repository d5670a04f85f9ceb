"""What a run says of itself besides its settings: by which command, with which versions, where and when it was made."""

import platform
import time
from collections.abc import Mapping
from typing import Any

import accelerate
import numpy as np
import torch

import lpsnet
from lpsnet.benchmark.machine import command_line, describe_machine


def versions() -> Mapping[str, str]:
    """Of what takes part in a training."""
    return {
        "lpsnet": lpsnet.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "accelerate": accelerate.__version__,
        "numpy": np.__version__,
    }


def version_changes(started: Mapping[str, Any]) -> str:
    """What a run that goes on is told if it was started with other versions than those here; "" if with the same.

    Args:
        started: the facts of its start, see `RunFolder.started`.
    """
    before = started.get("versions")
    before = before if isinstance(before, Mapping) else {}
    changed = [
        f"{name} {before[name]} then, {now} now" for name, now in versions().items() if before.get(name, now) != now
    ]
    if not changed:
        return ""
    return f"warning: this run was started with other versions, so its result may differ: {'; '.join(changed)}"


def circumstances() -> dict[str, Any]:
    """Of this process, as JSON values."""
    return {"machine": describe_machine().identity, "versions": versions(), "command": command_line()}


def now() -> str:
    """UTC, ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

"""What all tests share: one thread, fixed seeds, and the folder of real images where there is one."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the suite runs in several processes

import pytest

_REAL_DATA = Path(os.environ.get("LPSNET_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it are skipped where it is not."""
    if not _REAL_DATA.is_dir():
        pytest.skip(f"no real images at {_REAL_DATA}; set LPSNET_DATA")
    return _REAL_DATA


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started with `&` or nohup: tests press Ctrl-C all the same
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)

"""What all tests share: one thread, fixed seeds, and the folder of real images where there is one."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the suite runs in several processes

import pytest

# Tests that the everyday run (`pytest`) leaves out, by kind; CI runs them too (`pytest -m "not slow and not gpu"`)
APART = {
    "browser": ("inference/test_web_browser.py", "report/test_in_browser.py"),
    "command_line": (
        "cli/",
        "crashes/",
        "docs/test_commands.py",
        "docs/test_serving.py",
        "endurance/",
        "failures/",
        "test_plugins.py",
    ),
    "cpp": ("cpp/",),
    "export": ("export/", "models/test_checkpoint.py"),
    "fuzz": ("data/test_damaged_label_files.py", "fuzz/"),
    "timing": (
        "benchmark/test_benchmark.py",
        "benchmark/test_device.py",
        "benchmark/test_device_ssh.py",
        "benchmark/test_endurance.py",
        "benchmark/test_timing.py",
        "benchmark/test_tune.py",
        "search/test_device_latency.py",
    ),
    "training": (
        "export/test_export_coreml.py",  # torch exports a network in seconds
        "export/test_litert_trained.py",
        "fitting/test_fit.py",
        "search/test_candidates.py",
        "search/test_expand_command.py",
        "search/test_replay.py",
        "search/test_run.py",
        "search/test_search_result.py",
        "search/test_training_reuse.py",
        "studies/",
        "test_demo.py",
        "training/test_any_training.py",
        "training/test_auxiliary.py",
        "training/test_channel_training.py",
        "training/test_processes.py",
        "training/test_run_length.py",
        "training/test_teaching.py",
        "training/test_trainer.py",
    ),
}

_TESTS = Path(__file__).parent
_REAL_DATA = Path(os.environ.get("LPSNET_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it are skipped where it is not."""
    if not _REAL_DATA.is_dir():
        pytest.skip(f"no real images at {_REAL_DATA}; set LPSNET_DATA")
    return _REAL_DATA


@pytest.fixture(autouse=True)
def _no_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's `--network` is forgotten after it."""
    monkeypatch.setenv("LPSNET_NETWORKS", "")


@pytest.fixture(scope="module")
def short_timing() -> Iterator[None]:
    """Measurements by the protocol `quick` take no time, here and in processes that tests start: for other things."""
    from lpsnet.benchmark.timing import PROTOCOLS, TimingProtocol

    folders = [str(_TESTS / "short_timing"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(folders))
        patch.setitem(PROTOCOLS, "quick", TimingProtocol(warm_up_s=0, duration_s=0.05, turn_s=0.002))
        yield


@pytest.hookimpl(tryfirst=True)  # before tests are chosen by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(_TESTS).as_posix()
        for kind, places in APART.items():
            if place.startswith(places):
                item.add_marker(kind)


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # started with `&` or nohup: tests press Ctrl-C all the same
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):  # measurements of one temporary folder wait for each other; workers need not
        own = Path(f"{config.option.basetemp}-temporary")  # beside the worker's own folder, and cleaned up with it
        own.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(own)
    try:
        import torch
    except ImportError:
        return
    torch.set_num_threads(1)

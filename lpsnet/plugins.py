"""Plugins: a user's modules that register rows of lpsnet's tables, such as a block.

Files are given by `lpsnet --plugin FILE.py` or the environment variable LPSNET_PLUGINS, which subprocesses inherit;
installed packages name modules as entry points of the group `lpsnet.plugins`. Their code runs with the user's rights.
Each is loaded once per process.
"""

import importlib.util
import os
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from lpsnet.errors import LpsnetError, PluginError

PLUGINS = "LPSNET_PLUGINS"  # environment variable: paths of files, separated as those of PATH
GROUP = "lpsnet.plugins"  # of entry points: NAME = "package.module"

_loaded: set[str] = set()


def use_plugin(path: Path) -> None:
    """Load a file, here and in subprocesses.

    Raises:
        PluginError: it does not exist, or fails.
    """
    file = str(path.expanduser().resolve())
    _load_file(file)
    if file not in plugin_files():
        os.environ[PLUGINS] = os.pathsep.join([*plugin_files(), file])


def load_plugins() -> None:
    """Load all plugins that are not loaded yet.

    Raises:
        PluginError: one does not exist, or fails.
    """
    for file in plugin_files():
        _load_file(file)
    for point in entry_points(group=GROUP):
        _load_once(f"plugin {point.name!r} ({point.value})", point.load)


def plugin_files() -> list[str]:
    """The files in the environment variable; absolute paths if they come from `use_plugin`."""
    return list(filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)))


def _load_file(file: str) -> None:
    _load_once(f"plugin {file}", lambda: _run(Path(file)))


def _run(path: Path) -> None:
    if path.suffix != ".py" or not path.is_file():
        raise PluginError(f"plugin {path} does not exist; give a Python file, FILE.py")
    spec = importlib.util.spec_from_file_location(f"lpsnet_plugin_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "for any file name that ends in .py"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for dataclasses and pickle
    spec.loader.exec_module(module)


def _load_once(name: str, load: Callable[[], object]) -> None:
    if name in _loaded:
        return
    _loaded.add(name)  # before loading: it may import a module that loads all plugins
    try:
        load()
    except LpsnetError:
        _loaded.discard(name)
        raise
    except (Exception, SystemExit) as error:
        _loaded.discard(name)
        raise PluginError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error

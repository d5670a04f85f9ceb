"""A user's modules: plugins, which register rows of lpsnet's tables such as a block, and networks of other code.

Plugins are given by `lpsnet --plugin FILE.py` or the environment variable LPSNET_PLUGINS, which subprocesses inherit;
installed packages name modules as entry points of the group `lpsnet.plugins`. Networks are given by
`--network FILE.py:FUNCTION` or LPSNET_NETWORKS; `models/any_network.py` builds them. This code runs with the user's
rights, and only where it is named in one of these ways: never because a model file names it. Each file is loaded once
per process.
"""

import contextlib
import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from lpsnet.errors import LpsnetError, NetworkError, PluginError, unknown_name

PLUGINS = "LPSNET_PLUGINS"  # environment variable: paths of files, separated as those of PATH
NETWORKS = "LPSNET_NETWORKS"  # environment variable: networks as `NetworkSource.spec` has them, one a line
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
    _execute(path, f"lpsnet_plugin_{path.stem}")


def _execute(path: Path, name: str) -> Any:
    """The module in a file, run under that name."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "for any file name that ends in .py"  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for dataclasses and pickle
    spec.loader.exec_module(module)
    return module


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


@dataclass(frozen=True, slots=True)
class NetworkSource:
    """Where the code of a network is.

    Attributes:
        place: the file's absolute path, or the name of an installed module.
        function: in it; called as `function(num_classes=K)`, it returns a `torch.nn.Module`.
        digest: the first eight hexadecimal digits of the file's SHA-256; "" for a module without a file.
    """

    place: str
    function: str
    digest: str

    @property
    def spec(self) -> str:
        """As `use_network` takes it, from any folder."""
        return f"{self.place}:{self.function}"

    @property
    def name(self) -> str:
        """As records have it: FILE.py:FUNCTION without the folder, or package.module:function."""
        return f"{Path(self.place).name}:{self.function}" if self.place.endswith(".py") else self.spec

    def load(self) -> Callable[..., Any]:
        """The function; the file or module runs the first time, and again once the file has changed.

        Raises:
            NetworkError: it fails, or there is no such function in it.
        """
        if (found := _functions.get(self)) is None:
            with self.importing():
                module = self._module()
            found = getattr(module, self.function, None)
            if not callable(found):
                names = [name for name, it in vars(module).items() if callable(it) and not name.startswith("_")]
                raise NetworkError(unknown_name(f"function in {self.place}", self.function, names))
            _functions[self] = found
        return found

    @contextlib.contextmanager
    def importing(self) -> Iterator[None]:
        """Inside, modules beside the file can be imported, and what its code prints goes to standard error.

        Raises:
            NetworkError: for any exception of the code inside.
        """
        path = [str(Path(self.place).parent), *sys.path] if self.place.endswith(".py") else [*sys.path]
        before, sys.path = sys.path, path
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output may hold our JSON
                yield
        except LpsnetError:
            raise
        except (Exception, SystemExit) as error:
            raise NetworkError(f"network {self.name} cannot be built: {reason(error)}") from error
        finally:
            sys.path = before

    def _module(self) -> Any:
        if not self.place.endswith(".py"):
            return importlib.import_module(self.place)
        return _execute(Path(self.place), f"lpsnet_network_{Path(self.place).stem}_{self.digest}")


_functions: dict[NetworkSource, Callable[..., Any]] = {}


def use_network(spec: str) -> NetworkSource:
    """Let checkpoints of a network be loaded, here and in subprocesses; no code runs yet.

    Args:
        spec: `FILE.py:FUNCTION`, or `package.module:function` of an installed package.

    Raises:
        NetworkError: it is not written so, or there is no such file or module.
    """
    source = find_network(spec)
    os.environ[NETWORKS] = "\n".join(dict.fromkeys([source.spec, *network_specs()]))
    return source


def find_network(spec: str) -> NetworkSource:
    """The network's source; arguments and errors as for `use_network`."""
    place, colon, function = spec.rpartition(":")
    if not colon or not function.isidentifier():
        raise NetworkError(f"a network is given as FILE.py:FUNCTION or package.module:function; got {spec[:200]!r}")
    if not place.endswith(".py"):
        return NetworkSource(place, function, _digest(_file_of_module(place)))
    path = Path(place).expanduser().resolve()
    if not path.is_file():
        raise NetworkError(f"network {spec}: there is no file {path}")
    return NetworkSource(str(path), function, _digest(path))


def network_specs() -> list[str]:
    """The networks in use, the last given first."""
    return list(filter(None, os.environ.get(NETWORKS, "").split("\n")))


def network_named(name: str, digest: str = "") -> NetworkSource | None:
    """The network in use with that name, see `NetworkSource`; of several, one with that digest; None without any."""
    found = [source for source in map(find_network, network_specs()) if source.name == name]
    return min(found, key=lambda source: source.digest != digest, default=None)


def _file_of_module(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent package is missing, or it is no name
        spec = None
    if spec is None:
        raise NetworkError(f"there is no installed module {name!r}; for a file give FILE.py:FUNCTION")
    return Path(spec.origin) if spec.origin and Path(spec.origin).is_file() else None


def _digest(path: Path | None) -> str:
    try:
        return "" if path is None else hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror or error}") from None


def reason(error: BaseException) -> str:
    """An exception of other code in one line of at most 200 characters."""
    text = f"{type(error).__name__}: {error}".strip().rstrip(":")
    return " ".join(text.split())[:200]

"""The errors lpsnet raises for mistakes that the caller can correct, and how a process is asked to end.

A message is one or two sentences: what is wrong, where, what is allowed, and what to do. The command line prints the
message alone and exits with 2; any other exception is a bug of lpsnet and exits with 1.

Commands end on Ctrl-C, `kill`, `docker stop` (SIGTERM) and a closed terminal (SIGHUP) alike. One that can put things in
order first asks for time with `postponed_end`; a second signal ends it at once. A signal that was ignored when the
process began, as under nohup, stays ignored.
"""

import difflib
import signal
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class LpsnetError(ValueError):
    """Base of all errors that the caller can correct; also a `ValueError`, which ordinary code may catch."""


class ArchitectureError(LpsnetError):
    """The text, JSON or numbers given do not describe a network, or no network has that name."""


class DataError(LpsnetError):
    """A data set, image or label file cannot be used as it is."""


class ModelFileError(LpsnetError):
    """A model file, or the record inside it, cannot be used as it is."""


class NonFiniteScoresError(LpsnetError):
    """A network's logits, or its input or weights, hold NaN or infinity."""


class PluginError(LpsnetError):
    """A module named by `--plugin`, or an installed plugin, cannot be loaded."""


class NetworkError(LpsnetError):
    """A network of other code, given by `--network`, cannot be loaded, built or run."""


class RunError(LpsnetError):
    """A run (training, expansion, study) cannot start or resume in the folder or with the settings given."""


class DeviceError(RunError):
    """A device far away cannot be reached or used, or was lost."""


class DivergedError(RunError):
    """A training diverged: its loss or its weights are no longer finite."""


# optional package -> the extra of lpsnet that installs it
EXTRAS = {
    "torch": "train",
    "accelerate": "train",
    "safetensors": "train",
    "tensorboard": "train",
    "onnx": "export",
    "onnxscript": "export",
    "onnxslim": "export",
    "openvino": "openvino",
    "nncf": "openvino",
    "ncnn": "ncnn",
    "pnnx": "ncnn",
    "ai_edge_litert": "litert",
    "ai_edge_quantizer": "litert",
    "coremltools": "coreml",
    "av": "video",
    "jinja2": "report",
    "matplotlib": "report",
    "ray": "ray",
    "huggingface_hub": "hub",
    "tifffile": "tiff",
    "imagecodecs": "tiff",
}


class MissingDependencyError(LpsnetError, ImportError):
    """An optional package is not installed; the message holds the command that installs it."""

    @classmethod
    def from_import(cls, error: ImportError) -> "MissingDependencyError | None":
        """The error for a failed import of an optional package; None if it was another import that failed."""
        package = (error.name or "").partition(".")[0]
        return cls.for_extra(package, EXTRAS[package]) if package in EXTRAS else None

    @classmethod
    def for_extra(cls, package: str, extra: str) -> "MissingDependencyError":
        """The error for `package`, which comes with lpsnet's extra `extra`."""
        return cls(f"{package} is not installed; it comes with: pip install 'lpsnet[{extra}]'")


def unknown_name(kind: str, name: object, allowed: Iterable[str]) -> str:
    """The message for an unknown `kind`: the name, the nearest allowed one if there is any, and all allowed ones."""
    names = sorted(allowed)
    text = str(name) if len(str(name)) <= 80 else f"{str(name)[:77]}..."
    near = nearest(text, names)
    hint = f"; did you mean {near!r}?" if near else "."
    return f"unknown {kind} {text!r}{hint} Allowed: {', '.join(names)}"


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name most similar to `name`, ignoring case and kinds of dashes; None if none is similar."""
    folded = {_fold(known): known for known in allowed}
    near = difflib.get_close_matches(_fold(name), folded, n=1)
    return folded[near[0]] if near else None


def _fold(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")


# What a value has to be, by the kind of a validator's error and its bounds
_WANTED = {
    "tuple_type": "two values are needed, as 320x480 or 0.5,2",
    "missing": "a value is needed here (sizes as HEIGHTxWIDTH, pairs as LOW,HIGH)",
    "too_long": "{actual_length} values are too many; {max_length} are needed",
    "int_type": "a whole number is needed",
    "int_parsing": "a whole number is needed",
    "int_from_float": "a whole number is needed",
    "float_type": "a number is needed",
    "float_parsing": "a number is needed",
    "finite_number": "a finite number is needed",
    "bool_type": "true or false is needed",
    "bool_parsing": "true or false is needed",
    "string_type": "a text is needed",
    "list_type": "a list is needed",
    "dict_type": "a map is needed",
    "greater_than": "a number above {gt} is needed",
    "greater_than_equal": "a number of at least {ge} is needed",
    "less_than": "a number below {lt} is needed",
    "less_than_equal": "a number of at most {le} is needed",
}


def wanted(error: Mapping[str, Any]) -> str:
    """What was given and what is needed, for one of a pydantic `ValidationError`'s `errors()`, in plain words."""
    words = _WANTED.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ")
    given = str(error.get("input"))
    given = given if len(given) <= 40 else f"{given[:37]}..."
    bounds = {key: f"{value:g}" if isinstance(value, float) else value for key, value in error.get("ctx", {}).items()}
    return f"got {given}; {words.format(**bounds)}"


SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """The process was asked to end; `number` is the signal's. Not an `Exception`, which a library might swallow."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number


def raise_on_signals() -> None:
    """Turn the first signal into an `Interrupted` in the main thread; later ones are ignored while it tidies up."""

    def stop(number: int, frame: types.FrameType | None) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(number)

    for each in _heeded():
        signal.signal(each, stop)


class EndRequest(threading.Event):
    """Set when a signal came. While `at_once`, a signal has its usual effect instead."""

    at_once = False


@contextmanager
def postponed_end(*, raises: bool = False) -> Iterator[EndRequest]:
    """The event is set by a signal, so that work can be finished; a second signal has its usual effect at once.

    Args:
        raises: give the signal its usual effect when the block is left.
    """
    asked, before = EndRequest(), {each: signal.getsignal(each) for each in _heeded()}
    numbers: list[int] = []

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def ask(number: int, frame: types.FrameType | None) -> None:
        numbers.append(number)
        asked.set()
        restore()
        if asked.at_once:
            numbers.clear()
            signal.raise_signal(number)

    for each in before:
        signal.signal(each, ask)
    try:
        yield asked
    finally:
        restore()
    if numbers and raises:
        signal.raise_signal(numbers[0])


def _heeded() -> list[signal.Signals]:
    """The signals that are not ignored; none in threads, which cannot have handlers."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return [each for each in SIGNALS if signal.getsignal(each) != signal.SIG_IGN]

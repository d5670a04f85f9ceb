"""What a shell offers for the values of options: the names of the tables that the commands look them up in.

Completion must be neither slow nor fail: a table that needs a package which is not installed offers nothing. Where no
name fits, shells offer files.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lpsnet.errors import LpsnetError

Complete = Callable[[str], list[str]]  # the beginning of a word -> the words it may become

_MODELS = "lpsnet.inference.hub:list_models"
_ARCHITECTURES = "lpsnet.architecture:list_architectures"
_RECIPES = "lpsnet.training.config:RECIPES"

# "parameter", or "command parameter" where that differs -> the places of its names, "module:table" (a mapping, a list
# or a function that gives one), or the names themselves
_OFFERS: dict[str, tuple[str, ...]] = {
    "arch": (_ARCHITECTURES,),
    "block": ("lpsnet.models.blocks:BLOCKS",),
    "data": ("scenes", "camvid:", "cityscapes:", "bdd100k:"),
    "executor": ("local", "ray"),
    "expand recipe": ("lpsnet.search.plan:PROXIES", _RECIPES),
    "export model": (),
    "interaction": ("lpsnet.models.interactions:INTERACTIONS",),
    "model": (_MODELS,),
    "models": (_MODELS, _ARCHITECTURES),
    "precision": ("lpsnet.inference.engines:PRECISIONS",),
    "pretrain data": (),
    "pretrain recipe": ("lpsnet.training.classification:PRETRAINING_RECIPES",),
    "protocol": ("lpsnet.benchmark.timing:PROTOCOLS",),
    "recipe": (_RECIPES,),
    "runtime": ("lpsnet.inference.engines:RUNTIMES",),
    "scale": ("small", "paper"),
    "split": ("train", "val", "test"),
    "start": (_ARCHITECTURES,),
    "study name": ("lpsnet.studies.running:STUDIES",),
    "to": ("lpsnet.export.export:EXPORTERS",),
    "train split": ("train", "train+val"),
    "what": (_MODELS, _ARCHITECTURES),
    "write": ("lpsnet.inference.visualise:PRODUCTS",),
}


def offer_names(command: Callable[..., None]) -> None:
    """Let a command, given as its function, complete the values of the parameters in the table above."""
    for parameter in inspect.signature(command).parameters.values():
        offers = _OFFERS.get(f"{command.__name__} {parameter.name}", _OFFERS.get(parameter.name))
        if offers:
            (info,) = parameter.annotation.__metadata__
            info.autocompletion = _completer(offers)


def _completer(offers: Sequence[str]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        names = [name for offer in offers for name in _names(offer)]
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _names(offer: str) -> Iterable[str]:
    module, _, table = offer.partition(":")
    if not module.startswith("lpsnet."):
        return [offer]
    try:
        found: Any = getattr(importlib.import_module(module), table)
    except (ImportError, LpsnetError):  # LpsnetError: a plugin that fails
        return []
    return list(found() if callable(found) else found)

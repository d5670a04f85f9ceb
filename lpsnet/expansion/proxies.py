"""Recipes for candidates: an expansion trains dozens of networks and only has to tell which of them is the best.

Each is a recipe made cheaper; networks that are to be used are then trained with the full one. How well a proxy ranks
candidates is for the user to find out on data of their own: `lpsnet expand --check-step`.

The proxies for small pictures save passes, and the branches of the re-parameterised form, which deployed networks do
not have either. They do not save on crops: tried on pictures of 256x512, windows of half their height and width left
children of the tiny network behind their parent.
"""

from collections.abc import Mapping
from typing import Any

from lpsnet.errors import RunError, unknown_name
from lpsnet.training.config import RECIPES, Recipe, get_recipe

_PLAIN = {"form": "plain", "warmup_iterations": 30, "ema_decay": 0.99, "evaluate_every": 0}
# One row a proxy: the recipe it is made from, and what differs. Passes and crop area together make it 10
# (cityscapes_proxy: 20, paper_proxy: 36) times cheaper than its recipe, the plain form cheaper still.
_ROWS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "camvid_proxy": ("camvid_small", {"epochs": 6, **_PLAIN}),
    "cityscapes_proxy": ("cityscapes_small", {"epochs": 2, **_PLAIN}),
    "paper_proxy": ("paper_cityscapes", {"iterations": 10_000, "crop_size": (384, 384), "evaluate_every": 0}),
    "demo_proxy": ("demo", {"epochs": 1.5, "crop_size": (96, 192), "warmup_iterations": 10, "ema_decay": 0.9}),
}
PROXIES: dict[str, Recipe] = {
    name: RECIPES[base].with_overrides({"name": name, "source": f"{base}, made cheaper", **changes})
    for name, (base, changes) in _ROWS.items()
}


def get_candidate_recipe(name: str) -> Recipe:
    """The proxy of that name, or else the recipe of that name or in that YAML file.

    Raises:
        RunError: there is neither.
    """
    if name in PROXIES:
        return PROXIES[name]
    if name in RECIPES or name.endswith((".yaml", ".yml")):
        return get_recipe(name)
    raise RunError(f"{unknown_name('recipe', name, [*PROXIES, *RECIPES])}, or a YAML file")


def full_recipe(name: str) -> str:
    """The name of the recipe that a proxy was made from; `name` itself if it is no proxy."""
    return _ROWS[name][0] if name in _ROWS else name

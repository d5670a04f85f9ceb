"""The networks that a fit may begin with, a row each: an architecture, its weights, and how promising it is.

`promise` orders them where the budget allows several: networks that see more pixels end better, whatever they cost. A
ratio makes a network quicker or slower without other weights.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from lpsnet.architecture import Architecture, get_architecture
from lpsnet.data.labels import plain_name
from lpsnet.inference.hub import weights_folder
from lpsnet.inference.model_file import read_record


@dataclass(frozen=True, slots=True)
class Start:
    """A row of `STARTS`.

    Attributes:
        name: what it is called, e.g. "lite0-3of4": its family and the ratios of its paths.
        architecture: as text.
        block: its blocks.
        encoder: whose ImageNet weights every path starts with; "" to start from random ones.
        promise: larger for networks that end better, in no unit.
        weights: the name of a checkpoint in `starts_folder()` that it starts with instead; "" for none.
    """

    name: str
    architecture: str
    block: str
    encoder: str
    promise: float
    weights: str = ""

    @property
    def checkpoint(self) -> Path | None:
        """The file of its weights; None if they are an encoder's."""
        return starts_folder() / f"{self.weights}.safetensors" if self.weights else None

    @property
    def network(self) -> Architecture:
        """Its architecture as a value."""
        return get_architecture(self.architecture)

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        if self.weights:
            return f"every path starts as {self.weights}, which knows classes of these names"
        return f"every path starts with the ImageNet weights of {self.encoder}" if self.encoder else "random ones"

    @property
    def terms(self) -> str:
        """The terms of its weights, which the model will have too; "" for an encoder's."""
        return read_record(self.checkpoint).licence if self.checkpoint else ""

    def affinity(self, names: Iterable[str]) -> float:
        """What its weights promise beside an encoder's for data with classes of these names; negative if nothing."""
        if self.checkpoint is None:
            return 0.0
        own, known = (set(map(_usual_name, it)) for it in (names, read_record(self.checkpoint).label_space.names))
        return KNOWN_PROMISE if len(own & known) >= MIN_KNOWN * len(own) else -1.0


MIN_KNOWN = 1 / 3  # share of the data's classes that a checkpoint must know
KNOWN_PROMISE = 0.3  # what weights that know the classes promise
# class name -> the name that Cityscapes has for it
_SYNONYMS = {
    "pavement": "sidewalk",
    "tree": "vegetation",
    "trees": "vegetation",
    "pedestrian": "person",
    "human": "person",
    "bicyclist": "rider",
    "sign": "trafficsign",
    "vehicle": "car",
}


def starts_folder() -> Path:
    """The folder of the checkpoints that come with the package for this."""
    return weights_folder() / "starts"


def _usual_name(name: str) -> str:
    """A class's plain name, some by the name that Cityscapes has for them."""
    plain = plain_name(name)
    return _SYNONYMS.get(plain, plain)


_FAMILIES = {"lite0": 0.0, "lite2": 0.12}  # name of the architecture -> what it promises more than lite0
_RATIOS = {  # of the paths -> what they promise
    ("1/4",): 0.25,
    ("3/8",): 0.40,
    ("1/2",): 0.55,
    ("5/8",): 0.66,
    ("3/4",): 0.75,
    ("7/8",): 0.83,
    ("1",): 0.90,
    ("5/4",): 1.00,
    ("3/2",): 1.06,
    ("2",): 1.10,
}


_TRAINED = {"lite0": "cityscapes_lite0"}  # family -> a checkpoint in `starts_folder()`


def _start(family: str, more: float, ratios: tuple[str, ...], promise: float) -> Start:
    name = f"{family}-{'-'.join(ratio.replace('/', 'of') for ratio in ratios)}"
    architecture = get_architecture(family).replace(ratios=ratios)
    return Start(name, str(architecture), "efficientnet_lite", f"efficientnet_{family}", promise + more)


def _all_starts() -> tuple[Start, ...]:
    """Every family at every ratio with its encoder's weights, and with a checkpoint's where there is one."""
    plain = [_start(*family, ratios, promise) for family in _FAMILIES.items() for ratios, promise in _RATIOS.items()]
    trained = [
        replace(start, name=f"streets_{start.name}", weights=weights)
        for family, weights in _TRAINED.items()
        for start in plain
        if start.name.startswith(f"{family}-") and (starts_folder() / f"{weights}.safetensors").exists()
    ]
    return (*plain, *trained)


STARTS: tuple[Start, ...] = _all_starts()

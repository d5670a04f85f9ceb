"""The networks that a fit may begin with, a row each: an architecture, its weights, and how promising it is.

`promise` orders them where the budget allows several: networks that see more pixels end better, whatever they cost. A
ratio makes a network quicker or slower without other weights.
"""

from dataclasses import dataclass

from lpsnet.architecture import Architecture, get_architecture


@dataclass(frozen=True, slots=True)
class Start:
    """A row of `STARTS`.

    Attributes:
        name: what it is called, e.g. "lite0-3of4": its family and the ratios of its paths.
        architecture: as text.
        block: its blocks.
        encoder: whose ImageNet weights every path starts with; "" to start from random ones.
        promise: larger for networks that end better, in no unit.
    """

    name: str
    architecture: str
    block: str
    encoder: str
    promise: float

    @property
    def network(self) -> Architecture:
        """Its architecture as a value."""
        return get_architecture(self.architecture)

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        return f"every path starts with the ImageNet weights of {self.encoder}" if self.encoder else "random ones"


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


def _start(family: str, ratios: tuple[str, ...], promise: float) -> Start:
    name = f"{family}-{'-'.join(ratio.replace('/', 'of') for ratio in ratios)}"
    architecture = get_architecture(family).replace(ratios=ratios)
    return Start(name, str(architecture), "efficientnet_lite", f"efficientnet_{family}", promise)


STARTS: tuple[Start, ...] = tuple(
    _start(family, ratios, promise + more) for family, more in _FAMILIES.items() for ratios, promise in _RATIOS.items()
)

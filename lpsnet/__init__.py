"""lpsnet: labelled images, a device and a latency budget in; the most accurate network the device can run out.

An implementation of 'Lightweight and Progressively-Scalable Networks for Semantic Segmentation' (Zhang et al. 2022).
The names below are loaded when they are first used, so that `import lpsnet` needs no torch.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lpsnet.architecture import Architecture, get_architecture, list_architectures
    from lpsnet.data.labels import LabelSpace
    from lpsnet.errors import LpsnetError
    from lpsnet.fitting import fit
    from lpsnet.inference.hub import push_to_hub
    from lpsnet.inference.result import Segmentation
    from lpsnet.inference.segmenter import Segmenter
    from lpsnet.models.any_network import AnyNetwork, load_network
    from lpsnet.models.checkpoint import load_checkpoint, load_official_checkpoint, save_checkpoint
    from lpsnet.models.network import create_model
    from lpsnet.models.profile import complexity
    from lpsnet.models.reparameterise import fuse
    from lpsnet.record import ModelRecord

_HOME = {
    "AnyNetwork": "lpsnet.models.any_network",
    "Architecture": "lpsnet.architecture",
    "LabelSpace": "lpsnet.data.labels",
    "LpsnetError": "lpsnet.errors",
    "ModelRecord": "lpsnet.record",
    "Segmentation": "lpsnet.inference.result",
    "Segmenter": "lpsnet.inference.segmenter",
    "complexity": "lpsnet.models.profile",
    "create_model": "lpsnet.models.network",
    "fit": "lpsnet.fitting",
    "fuse": "lpsnet.models.reparameterise",
    "get_architecture": "lpsnet.architecture",
    "list_architectures": "lpsnet.architecture",
    "load_checkpoint": "lpsnet.models.checkpoint",
    "load_network": "lpsnet.models.any_network",
    "load_official_checkpoint": "lpsnet.models.checkpoint",
    "push_to_hub": "lpsnet.inference.hub",
    "save_checkpoint": "lpsnet.models.checkpoint",
}

__all__ = [
    "AnyNetwork",
    "Architecture",
    "LabelSpace",
    "LpsnetError",
    "ModelRecord",
    "Segmentation",
    "Segmenter",
    "__version__",
    "complexity",
    "create_model",
    "fit",
    "fuse",
    "get_architecture",
    "list_architectures",
    "load_checkpoint",
    "load_network",
    "load_official_checkpoint",
    "push_to_hub",
    "save_checkpoint",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lpsnet' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from lpsnet.errors import MissingDependencyError

        raise (MissingDependencyError.from_import(error) or error) from None


def __dir__() -> list[str]:
    return __all__

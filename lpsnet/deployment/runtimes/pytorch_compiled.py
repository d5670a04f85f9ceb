"""PyTorch with `torch.compile`: what `pytorch` is, with kernels made for the network. Needs a C++ compiler on a CPU."""

from lpsnet.deployment.runtimes import pytorch
from lpsnet.deployment.runtimes.session import Session, SessionOptions


def open_session(options: SessionOptions) -> Session:
    """As `pytorch.open_session`, compiled. The first run at a size takes the time of a compilation."""
    return pytorch.open_session(options, compiled=True)

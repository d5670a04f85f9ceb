"""PyTorch on an NVIDIA GPU and nowhere else: what `pytorch` is, refused where it would use the processor."""

from lpsnet.deployment.runtimes import pytorch
from lpsnet.deployment.runtimes.session import Session, SessionOptions


def open_session(options: SessionOptions) -> Session:
    """As `pytorch.open_session`; ModelFileError where PyTorch sees no GPU."""
    return pytorch.open_session(options, cuda_only=True)

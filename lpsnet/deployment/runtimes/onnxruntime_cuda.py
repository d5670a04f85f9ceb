"""ONNX Runtime on an NVIDIA GPU and nowhere else: what `onnxruntime` is, refused where it would use the processor."""

from lpsnet.deployment.runtimes import onnxruntime
from lpsnet.deployment.runtimes.session import Session, SessionOptions


def open_session(options: SessionOptions) -> Session:
    """As `onnxruntime.open_session`; MissingDependencyError or ModelFileError where there is no CUDA."""
    return onnxruntime.open_session(options, cuda_only=True)

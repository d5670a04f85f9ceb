"""A session without an engine, for tests of what stands on the protocol."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lpsnet.deployment.runtimes.session import Precision

Array = NDArray[np.float32]


class FakeSession:
    """A `Session` that computes its scores with a function and remembers the shapes of what it was given.

    Args:
        compute: N x 3 x H x W float32 (one array an input) to N x K x h x w float32.
        runtime, engine, precision, num_threads: what it says of itself.

    Attributes:
        shapes: of the inputs of every call, oldest first.
    """

    def __init__(
        self,
        compute: Callable[..., Array],
        *,
        runtime: str = "fake",
        engine: str = "fake 1.0",
        precision: Precision = "f32",
        num_threads: int | None = None,
    ) -> None:
        self._compute = compute
        self.runtime = runtime
        self.engine = engine
        self.precision = precision
        self.num_threads = num_threads
        self.shapes: list[tuple[tuple[int, ...], ...]] = []

    def run(self, *inputs: Array) -> Array:
        """What the function makes of the inputs."""
        self.shapes.append(tuple(array.shape for array in inputs))
        return self._compute(*inputs)

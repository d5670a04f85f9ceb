"""The compiled loops of `kernels.c`, available in installations that had a C compiler.

Without them OpenCV and NumPy compute the same, to the same tolerance, in two to five times the time, but not bfloat16.
The environment variable `LPSNET_KERNELS=0` disables them.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lpsnet.data.images import Image, Labels
from lpsnet.inference.engines import Layout

SWITCH = "LPSNET_KERNELS"
LIBRARY = Path(__file__).with_name("kernels.bin")  # on every system, not a Python module; made by build_kernels.py
_LANES = 8  # classes are padded to a multiple of this, the vector width

_MIN_FOR_THREADS = 1 << 20  # logits; with fewer, starting threads takes longer than they save
_LAYOUTS: tuple[Layout, ...] = ("nchw", "nhwc", "nhwc_bf16")  # in the order of kernels.c

_INT, _FLOAT, _POINTER = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
# function -> types of its result and arguments
_SIGNATURES: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "lpsnet_round": (None, (*(_POINTER,) * 2, *(_INT,) * 2)),
    "lpsnet_sample_rows": (None, (_POINTER, *(_INT,) * 2, *(_POINTER,) * 9, *(_INT,) * 5, _POINTER)),
    "lpsnet_spread": (_INT, (_POINTER, *(_INT,) * 4, _POINTER, *(_INT,) * 2, _POINTER)),
    "lpsnet_labels": (
        None,
        (_POINTER, *(_INT,) * 6, _FLOAT, *(_POINTER,) * 5, _INT, _POINTER, *(_INT,) * 2, *(_POINTER,) * 2),
    ),
}

Indices = NDArray[np.int32]
Fractions = NDArray[np.float32]
Axis = tuple[Indices, Indices, Fractions]  # per target pixel: the two source pixels around it, interpolation weight


class Kernels:
    """The loops of the library `path`. Thread-safe."""

    def __init__(self, path: Path) -> None:
        """OSError or AttributeError if the file is not such a library."""
        self.path = path
        library = ctypes.CDLL(str(path))
        self._round, self._sample, self._spread, self._labels = (getattr(library, name) for name in _SIGNATURES)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments

    def sample(
        self,
        image: Image,
        axes: Sequence[tuple[Axis, Axis]],
        scale: NDArray[np.float32],
        shift: NDArray[np.float32],
        targets: Sequence[NDArray[Any]],
        layout: Layout,
        *,
        num_threads: int,
    ) -> None:
        """Fill the targets with bilinear samples of an image, multiplied by scale, plus shift, per channel.

        Args:
            image: H x W x 3, with contiguous rows.
            axes: rows and columns of every target.
            scale, shift: 3 numbers each.
            targets: in that layout, without the batch dimension.
            num_threads: each computes a band of rows of every target.
        """
        width = image.shape[1]
        addresses_of = [
            [array.ctypes.data for array in (*rows, *columns, scale, shift, target)]
            for (rows, columns), target in zip(axes, targets, strict=True)
        ]
        sizes = [(rows[0].size, columns[0].size) for rows, columns in axes]
        parts = 1 << 16  # units that every target's height is divided into

        def fill(begin: int, end: int) -> None:
            buffer = np.empty(3 * width + 1 + 3 * max(num_columns for _, num_columns in sizes), np.float32)
            for addresses, (height, num_columns) in zip(addresses_of, sizes, strict=True):
                self._sample(
                    image.ctypes.data,
                    image.strides[0],
                    width,
                    *addresses,
                    _LAYOUTS.index(layout),
                    height,
                    num_columns,
                    height * begin // parts,
                    height * end // parts,
                    buffer.ctypes.data,
                )

        in_bands(fill, parts, num_threads)

    def round(self, numbers: NDArray[np.float32], target: NDArray[np.uint16], *, num_threads: int) -> None:
        """Round to bfloat16, to nearest even, into `target`, which holds the bits. Both in C order."""
        addresses = numbers.ctypes.data, target.ctypes.data
        in_bands(lambda begin, end: self._round(*addresses, begin, end), numbers.size, num_threads)

    def spread(self, logits: NDArray[np.float32], *, num_threads: int) -> float:
        """The largest difference between two classes at one position of K x h x w logits with contiguous rows;
        infinity if a logit is not finite or the difference exceeds float32."""
        num_classes, height, width = logits.shape
        found: list[float] = []

        def measure(begin: int, end: int) -> None:
            buffer, spread = np.empty(2 * width, np.float32), ctypes.c_float()
            layout = (num_classes, width, *_strides(logits))
            is_finite = self._spread(logits.ctypes.data, *layout, ctypes.byref(spread), begin, end, buffer.ctypes.data)
            found.append(spread.value if is_finite else np.inf)

        in_bands(measure, height, num_threads if logits.size >= _MIN_FOR_THREADS else 1)
        return max(found)

    def label_map(
        self,
        logits: NDArray[np.float32],
        spread: float,
        row_starts: Indices,
        row_parts: Fractions,
        column_starts: Indices,
        column_cells: Indices,
        column_parts: Fractions,
        *,
        num_threads: int,
    ) -> Labels:
        """H x W labels of K x h x w logits with that `spread`, not 0; the other arguments as in kernels.c."""
        num_classes, height, width = logits.shape
        padded = -(-num_classes // _LANES) * _LANES
        num_columns = column_parts.size
        labels = np.empty((row_parts.size, num_columns), np.uint8)
        axes = [array.ctypes.data for array in (row_starts, row_parts, column_starts, column_cells, column_parts)]

        def fill(begin: int, end: int) -> None:
            buffer, label_buffer = np.empty(width * (3 * padded + 2), np.float32), np.empty(2 * num_columns, np.uint8)
            self._labels(
                logits.ctypes.data,
                *logits.shape,
                *_strides(logits),
                padded,
                spread,
                *axes,
                num_columns,
                labels.ctypes.data,
                begin,
                end,
                buffer.ctypes.data,
                label_buffer.ctypes.data,
            )

        in_bands(fill, max(height - 1, 1), num_threads)
        return labels


def _strides(logits: NDArray[np.float32]) -> tuple[int, int]:
    """Between classes and between rows, in floats."""
    return logits.strides[0] // logits.itemsize, logits.strides[1] // logits.itemsize


@functools.cache
def find_kernels() -> Kernels | None:
    """The compiled loops; None if the installation has none or they are disabled."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return Kernels(LIBRARY)
    except (OSError, AttributeError):  # missing, or for another system
        return None


def in_bands(fill: Callable[[int, int], None], length: int, num_threads: int) -> None:
    """Call `fill(begin, end)` concurrently for `num_threads` parts of 0 to `length`."""
    num_bands = max(1, min(num_threads, length))
    bounds = [length * band // num_bands for band in range(num_bands + 1)]
    others = [_pool().submit(fill, *bounds[band : band + 2]) for band in range(1, num_bands)]
    try:
        fill(*bounds[:2])
    finally:
        for other in others:
            other.result()


_lock = threading.Lock()
_threads: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    with _lock:
        if not _threads:
            _threads.append(ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="lpsnet-kernels"))
        return _threads[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # a child process has none of its parent's threads

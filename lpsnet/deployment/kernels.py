"""The compiled loops of `kernels.c`, where there are any: they come with an installation that found a C compiler.

Without them OpenCV and NumPy do the same work, to the same tolerance, in two to five times the time. `LPSNET_KERNELS=0`
in the environment leaves them out.
"""

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SWITCH = "LPSNET_KERNELS"
LIBRARY = Path(__file__).with_name("kernels.bin")  # on every system, no module; build_kernels.py makes it
_LANES = 8  # classes are padded to a whole number of these: what a processor adds at a time
_BELOW_ALL = np.float32(-4)  # padding, among relative scores of -1 to 0

_INT, _POINTER = ctypes.c_int64, ctypes.c_void_p
_SAMPLE = (_POINTER, *(_INT,) * 2, *(_POINTER,) * 9, *(_INT,) * 4, _POINTER)
_LABEL_MAP = (*(_POINTER,) * 2, *(_INT,) * 3, *(_POINTER,) * 5, _INT, _POINTER, *(_INT,) * 2, _POINTER)

Indices = NDArray[np.int32]
Fractions = NDArray[np.float32]
Axis = tuple[
    Indices, Indices, Fractions
]  # per target pixel: the two source pixels around it, and the way to the second


class Kernels:
    """The loops of one library, `path`. May be called from several threads."""

    def __init__(self, path: Path) -> None:
        """OSError or AttributeError where the file is no such library."""
        self.path = path
        library = ctypes.CDLL(str(path))
        self._sample, self._label_map = library.lpsnet_sample, library.lpsnet_label_map
        self._sample.argtypes, self._label_map.argtypes = _SAMPLE, _LABEL_MAP
        self._sample.restype = self._label_map.restype = None

    def sample(
        self,
        picture: NDArray[np.uint8],
        rows: Axis,
        columns: Axis,
        scale: NDArray[np.float32],
        shift: NDArray[np.float32],
        target: NDArray[np.float32],
        *,
        num_threads: int,
    ) -> None:
        """Fill `target` (3 x h x w) with bilinear samples of `picture` (H x W x 3, its rows without gaps inside), each
        times its channel's scale, plus its channel's shift."""
        _, height, width = target.shape
        fixed = [array.ctypes.data for array in (*rows, *columns, scale, shift, target)]

        def fill(begin: int, end: int) -> None:
            buffer = np.empty(3 * picture.shape[1] + 1, np.float32)
            self._sample(
                picture.ctypes.data,
                picture.strides[0],
                picture.shape[1],
                *fixed,
                height,
                width,
                begin,
                end,
                buffer.ctypes.data,
            )

        in_bands(fill, height, num_threads)

    def label_map(
        self,
        last: NDArray[np.float32],
        row_starts: Indices,
        row_parts: Fractions,
        column_starts: Indices,
        column_cells: Indices,
        column_parts: Fractions,
        *,
        num_threads: int,
    ) -> NDArray[np.uint8]:
        """H x W labels of scores (`last` of `padded_scores`; -1 to 0, a 0 everywhere); the rest as in kernels.c."""
        height, width, padded = last.shape
        nodes = last.argmax(axis=2).astype(np.uint8)
        num_columns = column_parts.size
        labels = np.empty((row_parts.size, num_columns), np.uint8)
        axes = [array.ctypes.data for array in (row_starts, row_parts, column_starts, column_cells, column_parts)]

        def fill(begin: int, end: int) -> None:
            buffer = np.empty(2 * num_columns, np.uint8)
            self._label_map(
                last.ctypes.data,
                nodes.ctypes.data,
                height,
                width,
                padded,
                *axes,
                num_columns,
                labels.ctypes.data,
                begin,
                end,
                buffer.ctypes.data,
            )

        in_bands(fill, max(height - 1, 1), num_threads)
        return labels


def padded_scores(num_classes: int, height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores as `Kernels.label_map` takes them, h x w x more than K, and a view of it, K x h x w, to fill."""
    padded = -(-num_classes // _LANES) * _LANES
    last = np.full((height, width, padded), _BELOW_ALL, np.float32)
    return last, last[..., :num_classes].transpose(2, 0, 1)


@functools.cache
def find_kernels() -> Kernels | None:
    """The compiled loops; None where the installation has none, or they are switched off."""
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return Kernels(LIBRARY)
    except (OSError, AttributeError):  # there is none, or it is for another system
        return None


def in_bands(fill: Callable[[int, int], None], length: int, num_threads: int) -> None:
    """Call `fill` with the beginning and the end of as many parts of 0 to `length` as there are threads, at once."""
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
    os.register_at_fork(after_in_child=_threads.clear)  # a child has none of its parent's threads

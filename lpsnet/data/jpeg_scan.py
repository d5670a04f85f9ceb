"""Whether the compressed data of a JPEG file is whole, by the compiled loops of `jpeg_scan.c`.

Decoders only warn about data that is damaged or missing inside: they fill the rest with grey, or garble it. The loops
read the Huffman codes (ITU-T T.81) without decoding pixels, in about a fifth of the time of decoding. Where the package
was installed without a C compiler nothing is judged; the data check says so.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

LIBRARY = Path(__file__).with_name("jpeg_scan.bin")  # on every system, not a Python module; made by build_kernels.py
_WHOLE = 0
# state, as in jpeg_scan.c -> what is wrong
_PROBLEMS = {
    1: "its compressed data ends before the image does",
    2: "compressed data is left over where the image ends",
    3: "its compressed data holds a code that there is not",
}


def find_damage(data: bytes) -> str:
    """What is wrong with the compressed data of a JPEG file, in words; empty if nothing is, or it cannot be said.

    Args:
        data: the whole file. Arithmetic codes, lossless and hierarchical files are not judged.
    """
    state = _state()
    return "" if state is None else _PROBLEMS.get(state(data, len(data)), "")


def is_whole(data: bytes) -> bool:
    """Whether the compressed data of a JPEG file is known to be whole, so that decoding it would tell nothing more."""
    state = _state()
    return state is not None and state(data, len(data)) == _WHOLE


def is_judged() -> bool:
    """Whether the compiled loops are there."""
    return _state() is not None


@functools.cache
def _state() -> Any:
    """The compiled function; None if the installation has none."""
    try:
        function = ctypes.CDLL(str(LIBRARY)).lpsnet_jpeg_state
    except (OSError, AttributeError):  # missing, or for another system
        return None
    function.restype, function.argtypes = ctypes.c_int64, (ctypes.c_char_p, ctypes.c_int64)
    return function

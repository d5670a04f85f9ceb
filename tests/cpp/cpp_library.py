"""The C++ library of cpp/, built by CMake, and its C interface by ctypes."""

import ctypes
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
ARGUMENTS = "LPSNET_CMAKE_ARGS"  # environment variable: more arguments of CMake, such as where ONNX Runtime's header is


def build(folder: Path, *arguments: str) -> Path:
    """Configure and build cpp/ in a folder; skips the test where that cannot be."""
    for program in ("cmake", "c++", "cc"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}: apt-get install cmake g++")
    openvino = pytest.importorskip("openvino", reason="comes with: pip install 'lpsnet[openvino]'")
    place = Path(openvino.__file__).with_name("cmake")
    if not place.is_dir():
        pytest.skip("this package of OpenVINO holds no C++ library")
    more = shlex.split(os.environ.get(ARGUMENTS, ""))
    run("cmake", "-S", ROOT / "cpp", "-B", folder, f"-DOpenVINO_DIR={place}", *arguments, *more)
    run("cmake", "--build", folder, "--parallel", "2")
    return folder


def run(*command: str | Path, code: int = 0) -> str:
    """The output of a command that ends with `code`."""
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, f"{shlex.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout + done.stderr


class CImage(ctypes.Structure):
    """`lpsnet_image`."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("height", ctypes.c_int),
        ("width", ctypes.c_int),
        ("stride", ctypes.c_ssize_t),
        ("channels", ctypes.c_int),
        ("bits", ctypes.c_int),
    )

    @classmethod
    def of(cls, image: NDArray[Any]) -> Self:
        height, width, channels = image.shape
        return cls(image.ctypes.data, height, width, image.strides[0], channels, 8 * image.itemsize)


class COptions(ctypes.Structure):
    """`lpsnet_options`."""

    _fields_ = (
        ("runtime", ctypes.c_char_p),
        ("precision", ctypes.c_char_p),
        ("num_threads", ctypes.c_int),
        ("input_height", ctypes.c_int),
        ("input_width", ctypes.c_int),
        ("whole_input", ctypes.c_int),
    )


_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
# function -> types of its result and arguments
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "lpsnet_error": (_TEXT, ()),
    "lpsnet_open": (_POINTER, (_TEXT, _POINTER)),
    "lpsnet_close": (None, (_POINTER,)),
    "lpsnet_segment": (_INT, (_POINTER, _POINTER, _POINTER)),
    "lpsnet_logits": (_INT, (_POINTER, _POINTER, _POINTER, ctypes.c_size_t, _POINTER)),
    "lpsnet_overlay": (_INT, (_POINTER, _POINTER, _POINTER, ctypes.c_double, _POINTER)),
    "lpsnet_num_classes": (_INT, (_POINTER,)),
    "lpsnet_class_name": (_TEXT, (_POINTER, _INT)),
    "lpsnet_class_colour": (ctypes.c_uint32, (_POINTER, _INT)),
    "lpsnet_num_channels": (_INT, (_POINTER,)),
    "lpsnet_channel_name": (_TEXT, (_POINTER, _INT)),
    "lpsnet_bits": (_INT, (_POINTER,)),
    "lpsnet_licence": (_TEXT, (_POINTER,)),
    "lpsnet_engine": (_TEXT, (_POINTER,)),
    "lpsnet_precision": (_TEXT, (_POINTER,)),
    "lpsnet_path_inputs": (_INT, (_POINTER,)),
}


class LibraryError(Exception):
    """What `lpsnet_error` said."""


class Library:
    """The functions of a built library."""

    def __init__(self, path: Path) -> None:
        self.c = ctypes.CDLL(str(path))
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments

    def fail(self) -> LibraryError:
        return LibraryError(self.c.lpsnet_error().decode())

    def runtimes(self) -> str:
        """The engines it was built with, as it lists them."""
        self.c.lpsnet_open(b"", ctypes.byref(COptions(b"none")))
        return str(self.fail()).rpartition("built with ")[2]

    def open(
        self,
        model: Path,
        runtime: str | None = None,
        *,
        precision: str = "f32",
        num_threads: int = 1,
        input_size: tuple[int, int] | None = None,
        path_inputs: bool = True,
    ) -> "CSegmenter":
        name = None if runtime is None else runtime.encode()
        options = COptions(name, precision.encode(), num_threads, *(input_size or (0, 0)), int(not path_inputs))
        opened = self.c.lpsnet_open(os.fsencode(model), ctypes.byref(options))
        if not opened:
            raise self.fail()
        return CSegmenter(self, opened)


class CSegmenter:
    """An open segmenter; closed with the object."""

    def __init__(self, library: Library, opened: int) -> None:
        self.library, self.opened = library, opened

    def __del__(self) -> None:
        self.library.c.lpsnet_close(self.opened)

    def __call__(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        labels = np.full(image.shape[:2], 77, np.uint8)
        if self.library.c.lpsnet_segment(self.opened, ctypes.byref(CImage.of(image)), labels.ctypes.data):
            raise self.library.fail()
        return labels

    def logits(self, image: NDArray[Any]) -> NDArray[np.float32]:
        given, shape = CImage.of(image), (ctypes.c_int * 3)()
        if self.library.c.lpsnet_logits(self.opened, ctypes.byref(given), None, 0, shape):
            raise self.library.fail()
        logits = np.empty(tuple(shape), np.float32)
        if self.library.c.lpsnet_logits(self.opened, ctypes.byref(given), logits.ctypes.data, logits.size, shape):
            raise self.library.fail()
        return logits

    def overlay(self, image: NDArray[np.uint8], labels: NDArray[np.uint8], opacity: float) -> NDArray[np.uint8]:
        drawn = np.empty_like(image)
        given = ctypes.byref(CImage.of(image))
        if self.library.c.lpsnet_overlay(self.opened, given, labels.ctypes.data, opacity, drawn.ctypes.data):
            raise self.library.fail()
        return drawn

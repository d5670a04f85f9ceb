"""Reading images and label files, writing PNG.

Images are read as H x W x 3 uint8 RGB, label files as the numbers they hold. A file that is damaged or incomplete is an
error in one line, never an image that is partly grey. Images of other channels are read by `channels.py`.

The compressed data of a JPEG file is judged by the compiled loops of `jpeg_scan.c`: decoders only warn about data that
is damaged or missing inside, and fill the rest with grey, or garble it. The loops read the Huffman codes (ITU-T T.81)
without decoding pixels, in about a fifth of the time of decoding. Where the package was installed without a C compiler
nothing is judged; the data check says so.
"""

import contextlib
import ctypes
import functools
import os
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data import image_headers, images
from lpsnet.data.image_headers import ALLOWED_FORMATS, BrokenImageError, Header
from lpsnet.errors import DataError
from lpsnet.io import atomic_path, is_stream

LIBRARY = Path(__file__).with_name("jpeg_scan.bin")  # on every system, not a Python module; made by build_kernels.py
_WHOLE = 0
# state, as in images.c -> what is wrong
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


Image = NDArray[Any]  # H x W x 3 uint8 RGB; of other `Channels` H x W x C uint8 or uint16
Labels = NDArray[np.uint8]  # H x W class ids
Mask = NDArray[np.unsignedinteger[Any]]  # H x W uint8 or uint16 ids, or H x W x 3 uint8 RGB

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")  # formats that keep every number as it was written

MAX_PIXELS = 2**28  # larger images are refused unread; about 16,000 x 16,000
MAX_PIXELS_VARIABLE = "LPSNET_MAX_PIXELS"  # the environment variable that sets another limit

# EXIF orientation -> whether rows become columns, and OpenCV's code of the flip after it
_FLIPS = {2: (False, 1), 3: (False, -1), 4: (False, 0), 5: (True, None), 6: (True, 1), 7: (True, -1), 8: (True, 0)}
_PNG_GREY = b"\0"
_SILENT = 0
_opencv_log: Any = getattr(cv2.utils, "logging", cv2)  # in OpenCV 5; OpenCV 4 has the functions in cv2


def read_image(path: str | Path, *, max_pixels: int | None = None) -> Image:
    """Read an image.

    All kinds are converted to one: a rotation in the EXIF data is applied; grey becomes three equal channels; a palette
    is expanded; transparency is dropped and the colours under it are kept as stored; 16 bits a channel become 8
    (x / 257, rounded); CMYK JPEG is converted without a colour profile.

    Args:
        path: a PNG, JPEG, BMP, TIFF or WebP file; the content decides, not the suffix.
        max_pixels: refuse images that claim more pixels; default `LPSNET_MAX_PIXELS` of the environment, else 2**28.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: the file is missing, is a folder, holds no image, is cut off or damaged inside, claims too many
            pixels, or is a TIFF file of a kind that is not read (`image_headers.py`).
    """
    return decode_image(Path(path), *_read_checked(Path(path), max_pixels))


def decode_image(path: Path, data: bytes, header: Header) -> Image:
    """As `read_image`, of a file whose bytes and header are known (`read_file`)."""
    image = _decode_pixels(path, data, header)
    return _as_bytes(rotated(image, header.orientation), path)


def image_of(data: bytes, path: Path) -> Image:
    """The image in the bytes of a file, as `read_image`; `path` is named in messages."""
    return decode_image(path, data, check_header(path, data, None))


def top_level(path: Path, data: bytes, header: Header) -> int:
    """The largest number in an image file of 16 bits a channel, which may be of fewer bits: 4095 of 12."""
    return int(_decode_pixels(path, data, header).max())


def _decode_pixels(path: Path, data: bytes, header: Header) -> NDArray[Any]:
    """H x W x 3 BGR of 8 or 16 bits, as stored."""
    if header.format == "JPEG" and (problem := images.find_damage(data)):
        raise DataError(f"{path} is a damaged JPEG file: {problem}; take it from its source again, or leave it out")
    if header.tiff is not None:
        data = header.tiff.for_image()
    image = decode(path, data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION)
    check_size(path, image, header)
    return image


def read_mask(path: str | Path, *, expand_palette: bool = False, max_pixels: int | None = None) -> Mask:
    """Read a label file as the numbers it holds.

    A file with a palette gives the indices, not the colours, unless `expand_palette`; 1, 2 and 4 bits a pixel give
    0..1, 0..3 and 0..15. A rotation in the EXIF data is applied, as to images; TIFF files in which white is 0 are not
    inverted. Formats that change numbers (JPEG, WebP, and TIFF with such compression or of CMYK or YCbCr) are refused,
    and so are 16 bits a channel with more than one channel, which may hold ids or colours times 257.

    Returns:
        H x W uint8 or uint16 ids, or H x W x 3 uint8 RGB if the file holds colours (transparency is dropped).

    Raises:
        DataError: as `read_image`; also for a format other than PNG, BMP and TIFF, and as above.
    """
    return decode_mask(Path(path), *_read_checked(Path(path), max_pixels), expand_palette=expand_palette)


def decode_mask(path: Path, data: bytes, header: Header, *, expand_palette: bool = False) -> Mask:
    """As `read_mask`, of a file whose bytes and header are known (`read_file`)."""
    if header.format not in ("PNG", "BMP", "TIFF"):
        raise DataError(f"label file {path} is a {header.format} file, which changes ids; save labels as PNG")
    data = _for_labels(path, data, header, expand_palette=expand_palette)
    mask = decode(path, data, cv2.IMREAD_UNCHANGED)
    check_size(path, mask, header)
    mask = rotated(mask, header.orientation)
    if mask.ndim == 2 and mask.dtype in (np.uint8, np.uint16):
        return _true_values(mask, header)
    if mask.dtype == np.uint16:
        claim = f"label file {path} holds {mask.shape[2]} channels of 16 bits"
        raise DataError(f"{claim}; ids of 8 or 16 bits in one channel, or colours of 8 bits, are allowed; save it so")
    return _as_bytes(mask[..., :3], path)


def decode_bits(data: bytes, source: object) -> NDArray[np.bool_]:
    """The pixels that are set in a bitmap inside a label file: not transparent if it has transparency, else not 0.

    Args:
        data: of a PNG, BMP or TIFF file.
        source: named in messages.

    Returns:
        H x W.

    Raises:
        DataError: it is none of these, is cut off or claims too many pixels.
    """
    path = Path(str(source))
    header = check_header(path, data, None)
    if header.format not in ("PNG", "BMP", "TIFF"):
        raise DataError(f"{source}: a bitmap is a {header.format} file, which changes pixels")
    decoded = decode(path, data, cv2.IMREAD_UNCHANGED)
    check_size(path, decoded, header)
    is_set: NDArray[np.bool_] = decoded != 0
    if is_set.ndim == 2:
        return is_set
    return is_set[..., 3] if is_set.shape[2] == 4 else is_set[..., 0] | is_set[..., 1] | is_set[..., 2]


def read_file(path: str | Path) -> tuple[bytes, Header]:
    """The bytes of a complete image or label file, and its header; nothing is decoded.

    Raises:
        DataError: as `read_image`.
    """
    return _read_checked(Path(path), None)


def inspect_image(path: str | Path) -> Header:
    """The header of an image file; nothing is decoded.

    Raises:
        DataError: as `read_image`.
    """
    return read_file(path)[1]._replace(tiff=None)  # it holds the bytes of the whole file


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of an image as `read_image` gives it, from its header.

    Raises:
        DataError: as `read_image`.
    """
    return shown_size(inspect_image(path))


def shown_size(header: Header) -> tuple[int, int]:
    """(height, width) of an image with this header, after any EXIF rotation."""
    is_turned, _ = _FLIPS.get(header.orientation, (False, None))
    return (header.width, header.height) if is_turned else (header.height, header.width)


def write_png(path: str | Path, array: Mask) -> None:
    """Write a PNG file atomically.

    Args:
        path: the file; its folder is created if missing.
        array: H x W uint8 or uint16 (grey), or H x W x 3 uint8 RGB.

    Raises:
        DataError: the array is of another kind.
        RunError: the file cannot be written; see `atomic_path`.
    """
    path, array = Path(path), np.asarray(array)
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (grey or colour) or array.size == 0:
        allowed = "H x W uint8 or uint16, or H x W x 3 uint8, none empty"
        raise DataError(f"cannot write {path}: got {array.dtype} of shape {array.shape}; allowed: {allowed}")
    _, encoded = cv2.imencode(".png", cv2.cvtColor(array, cv2.COLOR_RGB2BGR) if colour else array)
    with atomic_path(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _read_checked(path: Path, max_pixels: int | None) -> tuple[bytes, Header]:
    """The bytes of a complete file that is not too large, and its header."""
    data = read_bytes(path)
    return data, check_header(path, data, max_pixels)


def check_header(path: Path, data: bytes, max_pixels: int | None) -> Header:
    """The header of a complete file that is not too large; `DataError` for others."""
    try:
        header = image_headers.read_header(data)
    except BrokenImageError as error:
        allowed = "" if isinstance(error, image_headers.UnreadKindError) else f"; allowed: {ALLOWED_FORMATS}"
        raise DataError(f"{path} {error}{allowed}") from None
    limit = pixel_limit() if max_pixels is None else max_pixels
    if header.width * header.height > limit:
        claim = f"{path} claims {header.width} x {header.height} pixels"
        raise DataError(f"{claim}, more than the limit of {limit:,}; {MAX_PIXELS_VARIABLE}=N sets another")
    return header


def read_bytes(path: Path) -> bytes:
    """The bytes of a file; `DataError` if it is missing, a folder, a device or not readable."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not an image; allowed: {ALLOWED_FORMATS}")
    if is_stream(path):
        raise DataError(f"{path} is a device, pipe or socket, not a file; allowed: {ALLOWED_FORMATS}")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; allowed: {ALLOWED_FORMATS}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # a null character in the name
        raise DataError(f"cannot read {str(path)!r}: {error}") from None


def pixel_limit() -> int:
    """The most pixels of an image: `LPSNET_MAX_PIXELS` of the environment, else `MAX_PIXELS`."""
    text = os.environ.get(MAX_PIXELS_VARIABLE, str(MAX_PIXELS))
    if not text.isdecimal() or int(text) < 1:
        raise DataError(f"{MAX_PIXELS_VARIABLE} is {text!r}; a whole number of pixels from 1 is allowed")
    return int(text)


def decode(path: Path, data: bytes, flags: int) -> NDArray[Any]:
    """What OpenCV makes of the bytes of a file; `DataError` if nothing."""
    with quiet_opencv:
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:
            image = None
    if image is None:
        raise DataError(f"{path} is damaged or of a kind that OpenCV cannot decode; allowed: {ALLOWED_FORMATS}")
    decoded: NDArray[Any] = image
    return decoded


def check_size(path: Path, image: NDArray[Any], header: Header) -> None:
    """Raise if the size decoded is not the one in the header, which was compared with the limit."""
    height, width = image.shape[:2]
    if (height, width) != (header.height, header.width):
        claim = f"{path} claims {header.width} x {header.height} pixels and holds {width} x {height}"
        raise DataError(f"{claim}; it is damaged; allowed: {ALLOWED_FORMATS}")


def rotated(image: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The image rotated by its EXIF orientation; unknown numbers mean upright, as in libtiff."""
    transposed, flip = _FLIPS.get(orientation, (False, None))
    image = cv2.transpose(image) if transposed else image
    return image if flip is None else cv2.flip(image, flip)


class _QuietOpenCV(contextlib.AbstractContextManager[None]):
    """Turns off OpenCV's own messages about bad files, for which an error is raised.

    The log level is global: the first thread to enter lowers it, the last one to leave restores it.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._level = threading.Lock(), 0, 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._level = _opencv_log.getLogLevel()
                _opencv_log.setLogLevel(_SILENT)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _opencv_log.setLogLevel(self._level)


quiet_opencv = _QuietOpenCV()


def _as_bytes(image: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """H x W x 3 BGR of 8 or 16 bits -> H x W x 3 uint8 RGB."""
    if image.dtype == np.uint16:
        image = ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)  # x / 257, rounded: 65535 -> 255
    if image.dtype != np.uint8:
        raise DataError(f"{path} holds {image.dtype} numbers; 8 or 16 bit integers are allowed")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb


def _true_values(mask: NDArray[Any], header: Header) -> Mask:
    """Undo OpenCV's scaling of 1, 2 and 4 bit grey to 0..255."""
    if header.format in ("PNG", "TIFF") and header.bit_depth < 8:
        mask = mask // np.uint8(255 // (2**header.bit_depth - 1))
    ids: Mask = np.ascontiguousarray(mask)
    return ids


def _for_labels(path: Path, data: bytes, header: Header, *, expand_palette: bool) -> bytes:
    """The same file without what OpenCV would apply to its numbers: palette, transparency, rotation."""
    if header.tiff is not None:
        try:
            return header.tiff.for_labels(expand_palette=expand_palette)
        except BrokenImageError as error:
            raise DataError(f"label file {path} {error}") from None
    if expand_palette or not (header.palette or header.content == "grey"):
        return data
    return _grey_png(data) if header.format == "PNG" else _grey_bmp(data)


def _grey_png(data: bytes) -> bytes:
    """A palette PNG with its colour type set to grey, as indices are stored exactly like grey levels."""
    kept = [image_headers.PNG_SIGNATURE]
    for kind, content in image_headers.png_chunks(data):
        if kind == b"IHDR":
            content = content[:9] + _PNG_GREY + content[10:]
        if kind in (b"IHDR", b"IDAT", b"IEND"):
            kept += [struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(kind + content))]
    return b"".join(kept)


def _grey_bmp(data: bytes) -> bytes:
    """A BMP of up to 8 bits with its palette set to index i -> grey i."""
    pixels, header_size = struct.unpack_from("<II", data, 10)
    bits, colours = struct.unpack_from("<H", data, 28)[0], struct.unpack_from("<I", data, 46)[0]
    start = 14 + header_size
    fitting = max(0, pixels - start) // 4  # a longer palette would overwrite pixels
    ramp = b"".join(bytes((level, level, level, 0)) for level in range(min(colours or 2**bits, 256, fitting)))
    return data[:start] + ramp + data[start + len(ramp) :]

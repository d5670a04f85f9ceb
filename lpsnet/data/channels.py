"""Images of other channels than RGB: 1 to 16 of 8 or 16 bits, in one file or in several.

They are read as the numbers they hold, never scaled: H x W x C. OpenCV decodes the kinds that it is known to decode
rightly, tifffile (extra `tiff`) all other TIFF files. Tried: OpenCV 5.0 refuses 5 channels and more and gives one of 2;
Pillow 13.0 reads no 6 channels of 16 bits; tifffile is NumPy and Python alone, and names what it cannot decode.
"""

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.data import image_headers, images
from lpsnet.data.image_headers import BrokenImageError
from lpsnet.data.images import Image
from lpsnet.errors import DataError, MissingDependencyError

RGB_NAMES = ("red", "green", "blue")
MAX_CHANNELS = 16
_NUM_RANKED = 1 << 16  # pixels that a stretch is measured on
_STRETCH = (1.0, 99.0)  # percent of the pixels that become black and white
_MAX_TILE = 2**24  # pixels of a strip or tile


@dataclass(frozen=True)
class Channels:
    """What the channels of an image are: RGB of 8 bits unless said otherwise.

    Attributes:
        names: one each, in the order of the channels; "red", "green" and "blue" are known by these names.
        bits: 8 or 16, of an array: numbers of fewer bits are kept as they are, never scaled.

    Raises:
        DataError: there are too few or too many, a name is empty or there twice, or the bits are others.
    """

    names: tuple[str, ...] = RGB_NAMES
    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CHANNELS:
            raise DataError(f"an image has 1 to {MAX_CHANNELS} channels; got {len(self.names)}")
        if len(set(self.names)) < len(self.names) or not all(
            name.strip() and name.isprintable() for name in self.names
        ):
            raise DataError(f"each channel has a name of its own; got {', '.join(map(repr, self.names))}")
        if self.bits not in (8, 16):
            raise DataError(f"a channel has 8 or 16 bits; got {self.bits}")

    @classmethod
    def numbered(cls, count: int, bits: int = 8) -> "Channels":
        """Channels without names of their own: `band_1`, `band_2`, …"""
        return cls(tuple(f"band_{number}" for number in range(1, count + 1)), bits)

    @property
    def is_rgb(self) -> bool:
        """Whether these are those of ordinary images, which are read by `read_image`."""
        return self == RGB

    @property
    def dtype(self) -> Any:
        """Of an image: uint8 or uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    @property
    def max_value(self) -> int:
        """The largest number that an image can hold: 255 or 65535."""
        return int(2**self.bits - 1)

    def __str__(self) -> str:
        count = len(self.names)
        return f"{count} channel{'s' * (count > 1)} of {self.bits} bits ({', '.join(self.names)})"

    def read(self, path: str | Path, *others: str | Path) -> Image:
        """The image in a file, or in several files of one size whose channels follow each other.

        Returns:
            H x W x C uint8 or uint16. For channels other than RGB of 8 bits, the numbers that the files hold.

        Raises:
            DataError: as `read_image`; also where the files do not hold these channels or differ in size.
            MissingDependencyError: a TIFF file needs a package that is not installed.
        """
        return images.read_image(path) if self.is_rgb and not others else self.check(stacked(path, *others), str(path))

    def size(self, path: str | Path) -> tuple[int, int]:
        """(height, width) of an image as `read` gives it; nothing is decoded. Errors as there."""
        return images.image_size(path) if self.is_rgb else bands_header(path)[0]

    def check(self, image: object, what: str = "an image") -> Image:
        """`image` as H x W x C, if it is an image of these channels (one channel may be H x W); `what` is it called.

        Raises:
            DataError: it has another shape or type.
        """
        wanted = f"H x W x {len(self.names)} {self.dtype} is expected: {self}"
        if not isinstance(image, np.ndarray):
            raise DataError(f"{what} is {type(image).__name__}; {wanted}")
        found = image[..., None] if image.ndim == 2 and len(self.names) == 1 else image
        if found.ndim != 3 or found.shape[2] != len(self.names) or found.size == 0:
            raise DataError(f"{what} has shape {image.shape}; {wanted}")
        if found.dtype != self.dtype:
            raise DataError(f"{what} holds {image.dtype} numbers; {wanted}")
        return found

    @property
    def shown(self) -> tuple[int, ...]:
        """The channels that are drawn as red, green and blue: those of these names, else the first three, or one."""
        if set(RGB_NAMES) <= set(self.names):
            return tuple(map(self.names.index, RGB_NAMES))
        return (0, 1, 2) if len(self.names) >= 3 else (0, 0, 0)

    @property
    def drawn(self) -> str:
        """How an image is drawn, in words; empty for RGB."""
        if self.is_rgb:
            return ""
        names = ", ".join(dict.fromkeys(self.names[index] for index in self.shown))
        if self.bits == 8 and set(RGB_NAMES) <= set(self.names):
            return f"images are drawn by their channels {names}"
        low, high = _STRETCH
        return f"images are drawn by {names}, stretched from the {low:g}st to the {high:g}th percentile of each image"

    def rendering(self, image: Image) -> Image:
        """The image to look at: H x W x 3 uint8 RGB, see `drawn`."""
        if self.is_rgb:
            return image
        if self.bits == 8 and set(RGB_NAMES) <= set(self.names):
            return np.ascontiguousarray(image[..., list(self.shown)])
        bands = {index: _stretched(image[..., index]) for index in set(self.shown)}
        return np.stack([bands[index] for index in self.shown], axis=-1)


RGB = Channels()


def require_rgb(channels: Channels, why: str) -> None:
    """DataError, with the reason, for other channels than RGB of 8 bits."""
    if not channels.is_rgb:
        raise DataError(f"{why}; here are {channels}")


def check_same_channels(model: Channels, data: Channels) -> None:
    """DataError, naming both, unless a model and a data set have the same channels in the same order."""
    if model != data:
        raise DataError(f"the model takes {model}, the data set has {data}; both must be the same, in the same order")


def _stretched(band: NDArray[Any]) -> NDArray[np.uint8]:
    """Its percentiles `_STRETCH` become 0 and 255."""
    some = band.ravel()[:: max(1, band.size // _NUM_RANKED)]
    low, high = np.percentile(some, _STRETCH)
    scaled = (band.astype(np.float32) - low) * (255 / max(high - low, 1))
    return np.asarray(scaled.round().clip(0, 255), np.uint8)


def stacked(path: str | Path, *others: str | Path) -> Image:
    """The channels of several files of one size as one image, H x W x C: of 16 bits if any file is, never scaled.

    Raises:
        DataError: as `read_bands`; or the files differ in size.
    """
    parts = [read_bands(each) for each in (path, *others)]
    for other, part in zip(others, parts[1:], strict=True):
        if part.shape[:2] != parts[0].shape[:2]:
            sizes = f"{parts[0].shape[0]}x{parts[0].shape[1]} and {other} {part.shape[0]}x{part.shape[1]}"
            raise DataError(f"image {path} is {sizes} (height x width); both must have the same size")
    return np.concatenate(parts, axis=2) if others else parts[0]


def read_bands(path: str | Path) -> Image:
    """The numbers that an image file holds: H x W x C uint8 or uint16, C 1 to 16, in the file's order (RGB, not BGR).

    A rotation in EXIF data is applied; transparency is a channel like others.

    Raises:
        DataError: as `read_image`; also for a palette, which holds no numbers of channels.
    """
    path = Path(path)
    data = images.read_bytes(path)
    if is_for_tifffile(data):
        return _read_tiff(path, data)
    header = images.check_header(path, data, None)
    if header.palette or header.content in ("CMYK", "grey+alpha"):
        raise DataError(f"{path} is a {header.content} image; its channels are not read: save it as grey, RGB or RGBA")
    if header.format == "JPEG" and (problem := images.find_damage(data)):
        raise DataError(f"{path} is a damaged JPEG file: {problem}; take it from its source again, or leave it out")
    decoded = images.decode(path, header.tiff.for_image() if header.tiff else data, cv2.IMREAD_UNCHANGED)
    images.check_size(path, decoded, header)
    decoded = images.rotated(decoded, header.orientation)
    if decoded.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path} holds {decoded.dtype} numbers; 8 or 16 bit integers are allowed")
    if decoded.ndim == 2:
        return decoded[..., None]
    return np.ascontiguousarray(decoded[..., [2, 1, 0, *range(3, decoded.shape[2])]])


def is_for_tifffile(data: bytes) -> bool:
    """Whether the bytes of a file are of a TIFF kind that only tifffile decodes rightly."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    try:
        image_headers.read_header(data)
    except BrokenImageError:
        return True  # such as of 6 channels, or a BigTIFF file
    return _num_pages(data) > 1


def _num_pages(data: bytes) -> int:
    """1, or 2 for a TIFF file with a second directory, which may hold another channel."""
    order = image_headers.byte_order(data)
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    end = place + 2 + 12 * count
    return 2 if any(data[end : end + 4]) else 1


def bands_header(path: str | Path) -> tuple[tuple[int, int], int]:
    """(height, width) and bits, 8 or 16, of an image as `read_bands` gives it; nothing is decoded. Errors as there."""
    path = Path(path)
    data = images.read_bytes(path)
    if not is_for_tifffile(data):
        header = images.check_header(path, data, None)
        return images.shown_size(header), 16 if header.bit_depth == 16 and header.format in ("PNG", "TIFF") else 8
    with _tiff_pages(path, data) as pages:
        return (pages[0].imagelength, pages[0].imagewidth), 8 * pages[0].dtype.itemsize


@contextlib.contextmanager
def _tiff_pages(path: Path, data: bytes) -> Iterator[list[Any]]:
    """The pages of a TIFF file that hold its channels: all of the first one's size and type."""
    try:
        import tifffile
    except ImportError:
        raise MissingDependencyError.for_extra("tifffile", "tiff") from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            first = file.pages[0]
            pages = [page for page in file.pages if (page.shape, page.dtype) == (first.shape, first.dtype)]
            pages = [page for page in pages if page is first or not (page.is_reduced or page.is_mask)]
            _check_pages(path, data, pages)
            yield pages
    except (DataError, MemoryError, MissingDependencyError):
        raise
    except Exception as error:  # of many kinds, for a damaged or hostile file
        reason = " ".join(str(error).split())[:120]
        if "imagecodecs" in reason:
            raise MissingDependencyError.for_extra("imagecodecs", "tiff") from None
        raise DataError(f"{path} is damaged or of a kind that tifffile cannot decode: {reason}") from None


def _check_pages(path: Path, data: bytes, pages: list[Any]) -> None:
    """Raise unless all that the pages claim is in the file, of a usable kind and not too large."""
    first, count = pages[0], len(pages) * pages[0].samplesperpixel
    claim = f"{path} claims {first.imagewidth} x {first.imagelength} pixels of {count} channels"
    if first.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)) or first.bitspersample not in (8, 16):
        kind = first.dtype or f"{first.bitspersample} bit numbers"
        raise DataError(f"{path} holds {kind}; unsigned integers of 8 or 16 bits are allowed")
    if first.imagedepth != 1 or first.photometric not in (1, 2) or not 1 <= count <= MAX_CHANNELS:
        raise DataError(f"{claim}; 1 to {MAX_CHANNELS} channels of grey (0 is black) or RGB and others are allowed")
    if first.tags.valueof(274, default=1) != 1:
        raise DataError(f"{path} is a TIFF file with an orientation, which is not applied; save it upright")
    tile = first.tilewidth * first.tilelength if first.is_tiled else first.imagewidth * first.rowsperstrip
    if (
        first.imagewidth * first.imagelength * max(1, count // 3) > images.pixel_limit()
        or tile * first.is_tiled > _MAX_TILE
    ):
        limit = f"more than the limit of {images.pixel_limit():,} for 3 channels"
        raise DataError(f"{claim}, {limit}; {images.MAX_PIXELS_VARIABLE}=N sets another")
    for page in pages:
        if any(start + size > len(data) for start, size in zip(page.dataoffsets, page.databytecounts, strict=True)):
            raise DataError(f"{path} is cut off: the file ends before the image does")


def _read_tiff(path: Path, data: bytes) -> Image:
    with _tiff_pages(path, data) as pages:
        parts = [page.asarray() for page in pages]
        parts = [
            np.moveaxis(part, 0, -1) if page.axes == "SYX" else part for page, part in zip(pages, parts, strict=True)
        ]
        image = np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)
    if image.shape[:2] != (pages[0].imagelength, pages[0].imagewidth):
        raise DataError(
            f"{path} is damaged: it holds {image.shape[1]} x {image.shape[0]} pixels, others than it claims"
        )
    return np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="), copy=False))

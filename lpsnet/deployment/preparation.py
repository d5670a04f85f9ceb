"""From a picture to what a network takes: checked, resized and normalised.

The whole chain uses one bilinear convention, that of the model's record. With align_corners, as in the paper's network
(NOTES, resizing), the corners of picture, network input and scores coincide, so that scores can be brought straight to
the picture's size, whatever size the network ran at. `cv2.resize` knows only the other convention.

A picture that is shrunk by two or more is first averaged over squares as wide as the sampling distance: bilinear
sampling alone would skip pixels, and with them the thin things in the picture.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.errors import DataError
from lpsnet.record import ModelRecord, Normalisation

Picture = NDArray[np.uint8]  # H x W x 3 RGB

MIN_INPUT = 32  # pixels; the smallest height and width that a network takes (model/network.py)


def prepare(image: Picture, record: ModelRecord, *, size: tuple[int, int] | None) -> NDArray[np.float32]:
    """What a network is given for a picture.

    Args:
        image: H x W x 3 uint8 RGB, at least 1 x 1.
        record: of the model; says how pictures are normalised and resized.
        size: (h, w) that the network runs at; None for the picture's own, but no less than `MIN_INPUT` each.

    Returns:
        1 x 3 x h x w float32, C order.

    Raises:
        DataError: `image` is no picture; the message says what to do.
    """
    check_picture(image)
    height, width = image.shape[:2]
    size = size or (max(height, MIN_INPUT), max(width, MIN_INPUT))
    return normalise(resize(image, size, align_corners=record.align_corners), record.normalisation)


def check_picture(image: object) -> None:
    """DataError, saying what to do, unless `image` is an H x W x 3 uint8 array with at least one pixel."""
    wanted = "a picture is an H x W x 3 uint8 RGB array"
    if not isinstance(image, np.ndarray):
        raise DataError(f"{wanted}; got {type(image).__name__}. Read a file with lpsnet.data.images.read_image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{wanted}; got shape {image.shape}{_shape_advice(image.shape)}")
    if image.dtype != np.uint8:
        advice = "; scale 0..1 by 255, round, then .astype(np.uint8)" if image.dtype.kind == "f" else ""
        raise DataError(f"{wanted} with values 0 to 255, not yet normalised; got {image.dtype}{advice}")
    if image.size == 0:
        raise DataError(f"{wanted} with at least one pixel; got shape {image.shape}")


def _shape_advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "; make grey RGB with np.stack([image] * 3, axis=-1)"
    if len(shape) == 4:
        return "; give one picture at a time"
    if len(shape) == 3 and shape[0] == 3:
        return "; bring the channels last with image.transpose(1, 2, 0)"
    if len(shape) == 3 and shape[2] == 4:
        return "; drop the transparency with image[..., :3]"
    return ""


def resize(image: Picture, size: tuple[int, int], *, align_corners: bool) -> Picture:
    """`image` brought to `size` (height, width) by bilinear sampling, with averaging before where it is halved or more.

    A new array, but `image` itself where it has that size.
    """
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    image = cv2.blur(image, (_window(width, size[1]), _window(height, size[0])), borderType=cv2.BORDER_REFLECT_101)
    (x_step, x_first), (y_step, y_first) = (
        _placement(source, target, align_corners) for source, target in ((width, size[1]), (height, size[0]))
    )
    to_source = np.array([[x_step, 0, x_first], [0, y_step, y_first]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, to_source, size[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[no-any-return]


def _placement(source: int, target: int, align_corners: bool) -> tuple[float, float]:
    """Distance of neighbouring target pixels along an axis, and the place of the first, both in source pixels."""
    if align_corners:  # the first and last pixels coincide
        return ((source - 1) / (target - 1) if target > 1 else 0.0), 0.0
    step = source / target
    return step, step / 2 - 0.5


def _window(source: int, target: int) -> int:
    """Width of the average: odd, so that nothing shifts, and 1, which changes nothing, for less than halving."""
    return source // target // 2 * 2 + 1


def normalise(image: Picture, normalisation: Normalisation) -> NDArray[np.float32]:
    """H x W x 3 uint8 to 1 x 3 x H x W float32: (x / 255 - mean) / std, looked up in a table of the 256 values."""
    mean, std = (np.array(values)[:, None] for values in (normalisation.mean, normalisation.std))
    tables = ((np.arange(256) / 255 - mean) / std).astype(np.float32)
    result = np.empty((1, 3, *image.shape[:2]), np.float32)
    planes = cv2.split(np.ascontiguousarray(image))
    for plane, table, out in zip(planes, tables, result[0], strict=True):
        cv2.LUT(plane, table, dst=out)
    return result

"""From an image to a network's input: checked, normalised and resized.

All resizing uses the bilinear convention of the model's record. With align_corners, as in the paper's network
(design-notes, 'Resizing'), the corners of image, network input and logits coincide, so logits can be resized directly
to the image's size, whatever size the network ran at. `cv2.resize` has only the other convention.

An image is normalised first, by a table of the 256 values of a byte, then resized in float32, channel by channel. With
OpenCV 5 that is as fast as resizing bytes first, and it loses nothing: rounding the paths' inputs to bytes changes the
label of 0.1 to 0.6 % of a street's pixels. So does resizing directly to a path's size if the image has another size
than the network's input, for 0.2 to 1.6 %: it takes two steps.

Images of other channels than RGB, of 8 or 16 bits, go the same way channel by channel, 16 bits without a table; the
compiled loops are for RGB alone.

The compiled loops (`kernels.py`) convert an image of the network's input size to all paths' inputs in one pass, in the
engine's own layout; bilinear sampling is linear, so normalising after it is the same.

An image that is shrunk by two or more is first averaged over squares as wide as the sampling distance, as bilinear
sampling alone would skip pixels, and thin objects. The network's own resizing for its paths (Section 3.1) does not
average, nor does `prepare_paths`.
"""

import functools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lpsnet.architecture import path_size
from lpsnet.data.channels import RGB, Channels
from lpsnet.data.images import Image
from lpsnet.errors import DataError, ModelFileError
from lpsnet.inference.engines import Layout
from lpsnet.inference.kernels import Axis, Kernels, find_kernels
from lpsnet.record import ModelRecord, Normalisation
from lpsnet.sampling import cells, spacing

Channel = NDArray[np.float32]  # H x W
Size = tuple[int, int]  # height, width
Number = TypeVar("Number", np.uint8, np.uint16, np.float32)

MIN_INPUT = 32  # pixels; the smallest height and width of a network's input (models/network.py)


def prepare(image: Image, record: ModelRecord, *, size: Size | None) -> NDArray[np.float32]:
    """The input of a network for an image.

    Args:
        image: H x W x 3 uint8 RGB, at least 1 x 1; of a model of other channels H x W x C uint8 or uint16.
        record: of the model, with normalisation and resizing convention.
        size: (h, w) that the network runs at; None: the image's own, but at least `MIN_INPUT` each.

    Returns:
        1 x C x h x w float32, C order.

    Raises:
        DataError: `image` is not an image; the message says what to do.
    """
    (whole,) = prepare_paths(image, record, size=size, ratios=[Fraction(1)])
    return whole


class Workspace:
    """Memory that is reused for images of the same size.

    Allocating it anew takes longer than all computations here: 10 ms instead of 5 for an image of 1024x2048 on two
    cores.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], kind: type[Number]) -> NDArray[Number]:
        """An uninitialised array: that of the last call with this name, if it has this shape."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, kind)
        return array


def prepare_paths(
    image: Image,
    record: ModelRecord,
    *,
    size: Size | None,
    ratios: Sequence[Fraction],
    layout: Layout = "nchw",
    workspace: Workspace | None = None,
) -> list[NDArray[Any]]:
    """The inputs of a network's paths for an image: the result of `prepare`, resized as the network does.

    Args and errors as for `prepare`; `ratios` are those of the paths. "nhwc_bf16" needs the compiled loops. With a
    workspace the results are in its memory, valid until its next use; only one caller may use it at a time.

    Returns:
        For every ratio 1 x C x h x w float32, (h, w) = `path_size(size, ratio)`, C order, in `layout`.
    """
    image = check_image(image, record.image_channels)
    height, width, channels_in = image.shape
    size = size or (max(height, MIN_INPUT), max(width, MIN_INPUT))
    memory = workspace or Workspace()
    sizes = [path_size(size, ratio) for ratio in ratios]
    shapes = [(1, channels_in, *each) if layout == "nchw" else (1, *each, channels_in) for each in sizes]
    kind: type[Any] = np.uint16 if layout == "nhwc_bf16" else np.float32
    results: list[NDArray[Any]] = [memory.array(f"path {path}", shape, kind) for path, shape in enumerate(shapes)]
    if size == (height, width) and record.image_channels.is_rgb and (kernels := find_kernels()):
        _sample_bytes(kernels, np.ascontiguousarray(image), results, sizes, layout, record)
    elif layout == "nchw":
        _resize_channels(image, results, record, size, memory)
    else:
        channels = [
            memory.array(f"channels of path {path}", (1, channels_in, *each), np.float32)
            for path, each in enumerate(sizes)
        ]
        _resize_channels(image, channels, record, size, memory)
        for path, (each, result) in enumerate(zip(channels, results, strict=True)):
            merged = result if layout == "nhwc" else memory.array(f"merged path {path}", result.shape, np.float32)
            cv2.merge(list(each[0]), merged[0])
            if layout == "nhwc_bf16":
                _loops().round(merged, result, num_threads=cv2.getNumThreads())
    return results


def _loops() -> Kernels:
    if (kernels := find_kernels()) is None:
        raise ModelFileError("inputs in bfloat16 need the compiled loops, and this installation has none")
    return kernels


def _resize_channels(
    image: Image, results: Sequence[NDArray[np.float32]], record: ModelRecord, size: Size, memory: Workspace
) -> None:
    """Fill the results (1 x C x h x w) with the image, normalised, resized to `size`, and from there to theirs."""
    height, width = image.shape[:2]
    own = next((path for path, result in enumerate(results) if result.shape[2:] == size), None)
    count = image.shape[2]
    whole = [memory.array("whole", size, np.float32)] * count if own is None else list(results[own][0])
    original = whole if size == (height, width) else [memory.array("original", (height, width), np.float32)] * count
    kind: type[Any] = image.dtype.type
    split = list(memory.array(f"{image.dtype} numbers", (count, height, width), kind))
    cv2.split(np.ascontiguousarray(image), split)
    for channel, values in enumerate(split):
        _normalise(values, record.normalisation, channel, original[channel])
        if original is not whole:
            _shrink_or_enlarge(original[channel], whole[channel], align_corners=record.align_corners)
        for path, result in enumerate(results):
            if result.shape[2:] == size and path != own:  # ratios near 1 may be rounded to the same size
                np.copyto(result[0, channel], whole[channel])
            elif path != own:
                _sample(whole[channel], result[0, channel], align_corners=record.align_corners)


def _sample_bytes(
    kernels: Kernels,
    image: Image,
    targets: Sequence[NDArray[Any]],
    sizes: Sequence[Size],
    layout: Layout,
    record: ModelRecord,
) -> None:
    """Fill the targets with the image, sampled at their sizes and normalised, on OpenCV's number of threads."""
    mean, std = (np.array(values) for values in (record.normalisation.mean, record.normalisation.std))
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    height, width = image.shape[:2]
    axes = [
        (_axis(height, target_height, record.align_corners), _axis(width, target_width, record.align_corners))
        for target_height, target_width in sizes
    ]
    kernels.sample(image, axes, scale, shift, targets, layout, num_threads=cv2.getNumThreads())


@functools.lru_cache(maxsize=64)
def _axis(source: int, target: int, align_corners: bool) -> Axis:
    """Per target pixel: the two source pixels around it, and the interpolation weight of the second."""
    lower, weight = cells(source, target, align_corners=align_corners)
    before = lower.astype(np.int32)
    return before, np.minimum(before + 1, source - 1), weight


def check_image(image: object, channels: Channels = RGB) -> Image:
    """`image` if it is an H x W x C array of these channels with at least one pixel; one channel may be H x W.

    Raises:
        DataError: it is not, saying what to do.
    """
    if not channels.is_rgb:
        return channels.check(image)
    wanted = "an image is an H x W x 3 uint8 RGB array"
    if not isinstance(image, np.ndarray):
        raise DataError(f"{wanted}; got {type(image).__name__}. Read a file with lpsnet.data.images.read_image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{wanted}; got shape {image.shape}{_shape_advice(image.shape)}")
    if image.dtype != np.uint8:
        advice = "; scale 0..1 by 255, round, then .astype(np.uint8)" if image.dtype.kind == "f" else ""
        raise DataError(f"{wanted} with values 0 to 255, not yet normalised; got {image.dtype}{advice}")
    if image.size == 0:
        raise DataError(f"{wanted} with at least one pixel; got shape {image.shape}")
    return image


def _shape_advice(shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "; make grey RGB with np.stack([image] * 3, axis=-1)"
    if len(shape) == 4:
        return "; give one image at a time"
    if len(shape) == 3 and shape[0] == 3:
        return "; bring the channels last with image.transpose(1, 2, 0)"
    if len(shape) == 3 and shape[2] == 4:
        return "; drop the transparency with image[..., :3]"
    return ""


def _normalise(values: NDArray[Any], normalisation: Normalisation, channel: int, target: Channel) -> None:
    """Fill `target` with the normalised numbers of a channel: bytes by a table, others by a multiplication."""
    mean, std, largest = normalisation.mean[channel], normalisation.std[channel], normalisation.max_value
    if values.dtype == np.uint8:
        table: NDArray[np.float32] = ((np.arange(256) / largest - mean) / std).astype(np.float32)
        cv2.LUT(values, table, dst=target)
        return
    np.multiply(values, np.float32(1 / (largest * std)), out=target)
    target -= np.float32(mean / std)


def sample_image(record: ModelRecord, size: Size, *, seed: int = 0) -> Image:
    """An image of noise with the mean and deviation that the record has for each channel: size x C uint8 or uint16."""
    channels, largest = record.image_channels, record.normalisation.max_value
    noise = np.random.default_rng(seed).standard_normal((*size, len(channels.names)), np.float32)
    numbers = (noise * np.array(record.normalisation.std) + np.array(record.normalisation.mean)) * largest
    return np.asarray(numbers.round().clip(0, largest), channels.dtype)


def _shrink_or_enlarge(channel: Channel, target: Channel, *, align_corners: bool) -> None:
    """Resize a channel into `target`, averaging first if it is halved or more."""
    windows = _window(channel.shape[1], target.shape[1]), _window(channel.shape[0], target.shape[0])
    if windows != (1, 1):
        channel = cv2.blur(channel, windows, borderType=cv2.BORDER_REFLECT_101)
    _sample(channel, target, align_corners=align_corners)


def _window(source: int, target: int) -> int:
    """Width of the average: odd, so that nothing shifts; 1 (no average) for less than halving."""
    return source // target // 2 * 2 + 1


def _sample(channel: Channel, target: Channel, *, align_corners: bool) -> None:
    """Fill `target` by bilinear sampling of `channel`."""
    (y_step, y_first), (x_step, x_first) = (
        spacing(*lengths, align_corners=align_corners) for lengths in zip(channel.shape, target.shape, strict=True)
    )
    to_source = np.array([[x_step, 0, x_first], [0, y_step, y_first]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = target.shape[::-1]
    cv2.warpAffine(channel, to_source, size, dst=target, flags=flags, borderMode=cv2.BORDER_REPLICATE)

"""The result of a segmenter: a label map that also carries its image, classes and logits; and how it is drawn.

Images are H x W x 3 uint8 RGB, label maps H x W uint8 class ids with `IGNORE_INDEX` for pixels without one.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from lpsnet.data.channels import RGB, Channels
from lpsnet.data.images import IMAGE_SUFFIXES, Image, Labels, write_png
from lpsnet.data.labels import IGNORE_INDEX, LabelSpace
from lpsnet.data.shapes import Outline, trace
from lpsnet.errors import DataError
from lpsnet.inference.label_map import Certainty, LogitField, PixelLogits

MIN_TEXT_HEIGHT, MAX_TEXT_HEIGHT = 6, 200  # pixels of a capital letter

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_CAPITAL = 22  # pixels of a capital letter at scale 1
_WHITE, _BLACK, _GREY = (255, 255, 255), (20, 20, 20), (120, 120, 120)


def colourise(labels: Labels, label_space: LabelSpace) -> Image:
    """Every pixel in the colour of its class; pixels without one are black.

    Args:
        labels: H x W uint8.
        label_space: source of the colours.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: this is not a label map, or it has ids that are not in the label space.
    """
    _check_labels(labels, label_space)
    table = np.zeros((256, 1, 3), np.uint8)
    table[: label_space.num_classes, 0] = label_space.colours
    return np.asarray(cv2.applyColorMap(labels, table))


def overlay(image: Image, labels: Labels, label_space: LabelSpace, *, opacity: float = 0.55) -> Image:
    """The image with the colours of the classes over it; pixels without a class show the image alone.

    Args:
        image: H x W x 3 uint8 RGB.
        labels: H x W uint8, as large as the image.
        label_space: source of the colours.
        opacity: of the colours, 0 (the image alone) to 1 (the colours alone).

    Returns:
        H x W x 3 uint8 RGB, a new array.

    Raises:
        DataError: wrong shape or type, different sizes, an id that is not in the label space, or opacity out of range.
    """
    if not 0 <= opacity <= 1:
        raise DataError(f"opacity lies between 0 and 1; got {opacity}")
    _check_image(image)
    colours = colourise(labels, label_space)
    if image.shape[:2] != labels.shape:
        sizes = f"{image.shape[0]}x{image.shape[1]} and {labels.shape[0]}x{labels.shape[1]}"
        raise DataError(f"image and label map differ in size: {sizes} (height x width); resize the label map")
    blended = cv2.addWeighted(image, 1 - opacity, colours, opacity, 0, dst=colours)
    unlabelled = np.equal(labels, IGNORE_INDEX).view(np.uint8)  # cv2.compare refuses a single pixel
    return np.asarray(cv2.copyTo(image, unlabelled, dst=blended))


def legend(
    label_space: LabelSpace,
    *,
    shares: Sequence[float] | None = None,
    width: int | None = None,
    text_height: int = 12,
) -> Image:
    """The classes' names beside patches of their colours, in columns, black on white.

    Letters that are not in OpenCV's font are written without their accents, or as question marks.

    Args:
        label_space: names and colours.
        shares: one number per class, 0 to 1, written as percent behind the name; NaN is written as a dash.
        width: of the result in pixels: as many columns as fit, and smaller text where not even one does. None: one
            column, as wide as needed.
        text_height: of a capital letter in pixels.

    Returns:
        H x W x 3 uint8 RGB.

    Raises:
        DataError: not one share per class, or a size out of range.
    """
    if not MIN_TEXT_HEIGHT <= text_height <= MAX_TEXT_HEIGHT:
        raise DataError(f"text_height is {MIN_TEXT_HEIGHT} to {MAX_TEXT_HEIGHT} pixels; got {text_height}")
    if width is not None and not 1 <= width <= 65_536:
        raise DataError(f"the width of a legend is 1 to 65536 pixels; got {width}")
    texts = _texts(label_space, shares)
    cell = _cell_width(texts, text_height)
    while width is not None and cell > width and text_height > 1:
        text_height -= 1
        cell = _cell_width(texts, text_height)
    columns = 1 if width is None else max(1, min(len(texts), width // cell))
    rows, row_height = math.ceil(len(texts) / columns), 2 * text_height
    canvas = np.full((rows * row_height + text_height, width or cell, 3), _WHITE, np.uint8)
    for number, (text, colour) in enumerate(zip(texts, label_space.colours, strict=True)):
        column, row = divmod(number, rows)
        _write_entry(canvas, (column * cell, row * row_height + text_height // 2), text, colour, text_height)
    return canvas


def side_by_side(*images: Image, gap: int = 4) -> Image:
    """Images of one height in a row, with `gap` white pixels between them.

    Raises:
        DataError: there is no image, one is not H x W x 3 uint8, or their heights differ.
    """
    for image in images:
        _check_image(image)
    if len({image.shape[0] for image in images}) != 1:
        heights = ", ".join(str(image.shape[0]) for image in images) or "no image"
        raise DataError(f"images side by side have the same height; got {heights}")
    space = np.full((images[0].shape[0], gap, 3), _WHITE, np.uint8)
    parts = [part for image in images for part in (space, image)][1:]
    return np.hstack(parts)


def _texts(label_space: LabelSpace, shares: Sequence[float] | None) -> list[str]:
    names = [_printable(name) for name in label_space.names]
    if shares is None:
        return names
    if len(shares) != len(names):
        raise DataError(f"a legend of {len(names)} classes takes {len(names)} shares; got {len(shares)}")
    percents = ("-" if math.isnan(share) else f"{100 * share:.1f} %" for share in shares)
    return [f"{name}  {percent}" for name, percent in zip(names, percents, strict=True)]


def _printable(name: str) -> str:
    """The name in the letters that OpenCV's font has: accents dropped, the rest as question marks."""
    letters = (letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))
    return "".join(letter if " " <= letter <= "~" else "?" for letter in letters)


def _cell_width(texts: Sequence[str], text_height: int) -> int:
    """Width of the widest entry in pixels: margin, patch, margin, text, margin."""
    scale, thickness = _pen(text_height)
    widest = max(cv2.getTextSize(text, _FONT, scale, thickness)[0][0] for text in texts)
    return int(widest) + 4 * text_height


def _pen(text_height: int) -> tuple[float, int]:
    return text_height / _FONT_CAPITAL, max(1, round(text_height / 12))


def _write_entry(
    canvas: Image, corner: tuple[int, int], text: str, colour: tuple[int, int, int], text_height: int
) -> None:
    scale, thickness = _pen(text_height)
    left, top = corner[0] + text_height // 2, corner[1] + text_height // 2
    end = (left + 2 * text_height, top + text_height)
    cv2.rectangle(canvas, (left, top), end, colour, cv2.FILLED)
    cv2.rectangle(canvas, (left, top), end, _GREY, 1)
    where = (end[0] + text_height // 2, top + text_height)
    cv2.putText(canvas, text, where, _FONT, scale, _BLACK, thickness, cv2.LINE_AA)


def _check_labels(labels: Labels, label_space: LabelSpace) -> None:
    if labels.ndim != 2 or labels.dtype != np.uint8 or labels.size == 0:
        raise DataError(f"a label map is H x W uint8; got {labels.shape} {labels.dtype}")
    if (labels + np.uint8(1)).max() > label_space.num_classes:  # bytes wrap: IGNORE_INDEX becomes 0
        unknown = [int(number) for number in np.unique(labels) if label_space.num_classes <= number != IGNORE_INDEX]
        allowed = f"0 to {label_space.num_classes - 1} and {IGNORE_INDEX} are allowed"
        raise DataError(f"label map has ids outside label space {label_space.name!r}: {unknown[:10]}; {allowed}")


def _check_image(image: Image) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise DataError(f"an image is H x W x 3 uint8; got {image.shape} {image.dtype}")


MAX_TOLERANCE = 1000  # pixels
MAX_NOTEBOOK_WIDTH = 1024  # pixels; wider images are shown smaller


class Segmentation(np.ndarray[tuple[int, int], np.dtype[np.uint8]]):
    """The label map of an image: H x W uint8 class ids, an ordinary array that carries its image and classes.

    Results of operations on it:

    - a crop, `result[100:200, :]`, any two slices, is the `Segmentation` of the same part of the image;
    - any other index, arithmetic and NumPy's functions give plain arrays and numbers;
    - `copy`, the module `copy` and `pickle` give a `Segmentation` with its image;
    - other arrays that NumPy derives from it (`reshape`, `T`, `astype`, …) belong to no image: arithmetic works, but
      `overlay`, `save` and `shares` raise. Use `labels` where a plain array is needed.

    The image is not copied: changing it changes what `overlay` shows. The network's logits are kept for `confidence`,
    K x h x w float32 at the network's output size (19 classes at an eighth of 1024x2048: 2.5 MB); who keeps many
    results without need of it keeps `result.labels`.

    Args:
        labels: H x W uint8 class ids.
        image: the image they were computed from: H x W x 3 uint8 RGB, or of other channels.
        label_space: names and colours of the classes.
        logits: they were computed from, for `confidence`; None if they are not known.
        channels: of the image; of others than RGB a rendering is made when it is first asked for.

    Raises:
        DataError: image and label map differ in size or have other shapes or types.
    """

    _image: Image | None
    _channels: Channels
    _label_space: LabelSpace | None
    _logits: PixelLogits | None
    _certainty: tuple[Certainty, Certainty] | None

    def __new__(
        cls,
        labels: Labels,
        image: Image,
        label_space: LabelSpace,
        logits: LogitField | PixelLogits | None = None,
        channels: Channels = RGB,
    ) -> Self:
        plain = np.asarray(labels)
        image = image if channels.is_rgb else channels.check(image)
        if plain.ndim != 2 or plain.dtype != np.uint8 or image.shape != (*plain.shape, len(channels.names)):
            got = f"{plain.shape} {plain.dtype} and {image.shape}"
            raise DataError(f"a label map is H x W uint8 and its image H x W x {len(channels.names)}; got {got}")
        self = plain.view(cls)
        self._image, self._label_space, self._channels = image, label_space, channels
        self._logits = logits if logits is None or isinstance(logits, PixelLogits) else PixelLogits.of(logits)
        if self._logits is not None and (self._logits.rows.size, self._logits.columns.size) != plain.shape:
            raise DataError(f"these logits are for {self._logits.field.size} pixels, the label map has {plain.shape}")
        return self

    def __array_finalize__(self, source: object) -> None:
        self._image = self._label_space = self._logits = self._certainty = None
        self._channels = RGB

    @property
    def labels(self) -> Labels:
        """The class ids as a plain array, H x W uint8; shares its memory."""
        return self.view(np.ndarray)

    @property
    def image(self) -> Image:
        """The image, H x W x 3 uint8 RGB; of other channels as `Channels.rendering` shows it."""
        return self._whole[0]

    @property
    def label_space(self) -> LabelSpace:
        """Names and colours of the classes."""
        return self._whole[1]

    @property
    def shares(self) -> dict[str, float]:
        """The fraction of the image's pixels, 0 to 1, of each class, in the order of the classes."""
        counts = np.bincount(self.labels.ravel(), minlength=self.label_space.num_classes)
        shares = (counts / max(self.size, 1)).tolist()
        return dict(zip(self.label_space.names, shares, strict=False))

    @property
    def logits(self) -> PixelLogits:
        """The network's logits at these pixels, computed where they are asked for.

        Raises:
            DataError: this array was not made by a segmenter, so they are not known.
        """
        if self._logits is None:
            raise DataError("the logits of this label map are not known; ask the segmenter's result, or a crop of it")
        return self._logits

    @property
    def confidence(self) -> Certainty:
        """The softmax probability of the best class at every pixel, H x W float32, above 0 to 1.

        Computed from the logits on first use and then kept, with `margin`; 8 bytes a pixel. It is the network's own
        estimate, usually too sure of itself; the order of pixels by it is worth more than its values.

        Raises:
            DataError: this array was not made by a segmenter, so its logits are not known.
        """
        return self._computed[0]

    @property
    def margin(self) -> Certainty:
        """The probability of the best class less that of the second, H x W float32, 0 to 1; as `confidence`."""
        return self._computed[1]

    @property
    def _computed(self) -> tuple[Certainty, Certainty]:
        if self._certainty is None:
            self._certainty = self.logits.certainty()
        return self._certainty

    def polygons(self, *, tolerance: float = 0.0) -> dict[str, list[Outline]]:
        """The outlines of all regions, polygons with holes, by class in the order of the classes that are present.

        Args:
            tolerance: how far, in pixels, an outline may be from the border of its pixels; 0 is exact.

        Raises:
            DataError: this array belongs to no image, or the tolerance is out of range.
        """
        if not 0 <= tolerance <= MAX_TOLERANCE:
            raise DataError(f"a tolerance is 0 to {MAX_TOLERANCE} pixels; got {tolerance}")
        names, found = self.label_space.names, dict[str, list[Outline]]()
        for outline in trace(np.ascontiguousarray(self.labels), tolerance=tolerance):
            found.setdefault(names[outline.label], []).append(outline)
        return found

    def overlay(self, *, opacity: float = 0.55, legend: bool = False) -> Image:
        """The image under the colours of its classes, H x W x 3 uint8 RGB.

        Args:
            opacity: of the colours, 0 (the image alone) to 1 (the colours alone).
            legend: add the names, colours and shares of the present classes below the image, which makes it higher.

        Raises:
            DataError: this array belongs to no image, or the opacity is out of range.
        """
        drawn = overlay(self.image, self.labels, self.label_space, opacity=opacity)
        return self._above_legend(drawn) if legend else drawn

    def save(self, path: str | Path, *, opacity: float = 0.55) -> tuple[Path, Path]:
        """Write `PATH.labels.png`, class ids as 8-bit grey, and `PATH.overlay.png`, as `lpsnet segment` does.

        Args:
            path: without suffix; the suffix of an image is removed. Missing folders are created.
            opacity: of the colours in the overlay, 0 to 1.

        Returns:
            The two files.

        Raises:
            DataError: this array belongs to no image, or the opacity is out of range.
            RunError: a file cannot be written.
        """
        path = Path(path)
        stem = path.with_suffix("") if path.suffix.lower() in IMAGE_SUFFIXES else path
        drawn = self.overlay(opacity=opacity)
        files = stem.with_name(f"{stem.name}.labels.png"), stem.with_name(f"{stem.name}.overlay.png")
        write_png(files[0], self.labels)
        write_png(files[1], drawn)
        return files

    def copy(self, order: Any = "C") -> Any:
        """A copy of the label map, with the same image."""
        labels = self.labels.copy(order)
        return labels if self._image is None else type(self)(labels, self.image, self.label_space, self._logits)

    def _repr_png_(self) -> bytes | None:
        """Shown in notebooks: the overlay above a legend with shares; nothing for arrays that belong to no image."""
        if self._image is None or not self.size:
            return None
        drawn = overlay(self.image, self.labels, self.label_space)
        height, width = drawn.shape[:2]
        if width > MAX_NOTEBOOK_WIDTH:
            size = MAX_NOTEBOOK_WIDTH, max(1, round(height * MAX_NOTEBOOK_WIDTH / width))
            drawn = np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
        _, encoded = cv2.imencode(".png", cv2.cvtColor(self._above_legend(drawn), cv2.COLOR_RGB2BGR))
        return encoded.tobytes()

    @property
    def _whole(self) -> tuple[Image, LabelSpace]:
        if self._image is None or self._label_space is None:
            advice = "ask the segmenter's result, or a crop of it"
            raise DataError(f"this array was made of a label map and belongs to no image itself; {advice}")
        if not self._channels.is_rgb:
            self._image, self._channels = self._channels.rendering(self._image), RGB
        return self._image, self._label_space

    def _above_legend(self, image: Image) -> Image:
        present = {name: share for name, share in self.shares.items() if share > 0}
        colours = dict(zip(self.label_space.names, self.label_space.colours, strict=True))
        if not present:
            return image
        space = LabelSpace.from_names(self.label_space.name, present, [colours[name] for name in present])
        below = legend(space, shares=list(present.values()), width=image.shape[1])
        return np.vstack([image, below])

    # Behaving as an ordinary array

    def __getitem__(self, key: Any) -> Any:
        part = self.labels[key]
        if self._image is None or not _is_crop(key):
            return part
        logits = None if self._logits is None else self._logits.cropped(key)
        return type(self)(part, self.image[key], self.label_space, logits)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.labels)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
        if out is not None:
            settings["out"] = tuple(map(_plain, out))
        result = getattr(ufunc, method)(*map(_plain, inputs), **settings)
        return result if out is None or len(out) != 1 else out[0]

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return func(*_plain(args), **_plain(kwargs))

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any] | None) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        if self._image is None:
            return self.labels.__reduce__()
        arrays = np.ascontiguousarray(self.labels), np.ascontiguousarray(self.image)
        return type(self), (*arrays, self._label_space, self._logits)


def _plain(value: Any) -> Any:
    """Plain arrays in place of segmentations, also inside lists, tuples and dictionaries."""
    if isinstance(value, Segmentation):
        return value.labels
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return {key: _plain(item) for key, item in value.items()} if type(value) is dict else value


def _is_crop(key: Any) -> bool:
    parts = key if isinstance(key, tuple) else (key,)
    return 1 <= len(parts) <= 2 and all(isinstance(part, slice) for part in parts)

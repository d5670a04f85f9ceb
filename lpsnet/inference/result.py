"""The result of a segmenter: the label map of an image, an array that also carries its image, classes and logits."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from lpsnet.data.images import IMAGE_SUFFIXES, Image, Labels, write_png
from lpsnet.data.labels import LabelSpace
from lpsnet.data.outlines import Outline, trace
from lpsnet.errors import DataError
from lpsnet.inference.confidence import Certainty, LogitField, PixelLogits
from lpsnet.inference.visualise import legend, overlay

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
        image: H x W x 3 uint8 RGB, the image they were computed from.
        label_space: names and colours of the classes.
        logits: they were computed from, for `confidence`; None if they are not known.

    Raises:
        DataError: image and label map differ in size or have other shapes or types.
    """

    _image: Image | None
    _label_space: LabelSpace | None
    _logits: PixelLogits | None
    _certainty: tuple[Certainty, Certainty] | None

    def __new__(
        cls, labels: Labels, image: Image, label_space: LabelSpace, logits: LogitField | PixelLogits | None = None
    ) -> Self:
        plain = np.asarray(labels)
        if plain.ndim != 2 or plain.dtype != np.uint8 or image.shape != (*plain.shape, 3):
            got = f"{plain.shape} {plain.dtype} and {image.shape}"
            raise DataError(f"a label map is H x W uint8 and its image H x W x 3; got {got}")
        self = plain.view(cls)
        self._image, self._label_space = image, label_space
        self._logits = logits if logits is None or isinstance(logits, PixelLogits) else PixelLogits.of(logits)
        if self._logits is not None and (self._logits.rows.size, self._logits.columns.size) != plain.shape:
            raise DataError(f"these logits are for {self._logits.field.size} pixels, the label map has {plain.shape}")
        return self

    def __array_finalize__(self, source: object) -> None:
        self._image = self._label_space = self._logits = self._certainty = None

    @property
    def labels(self) -> Labels:
        """The class ids as a plain array, H x W uint8; shares its memory."""
        return self.view(np.ndarray)

    @property
    def image(self) -> Image:
        """The image, H x W x 3 uint8 RGB."""
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
        return type(self)(part, self._image[key], self.label_space, logits)

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
        arrays = np.ascontiguousarray(self.labels), np.ascontiguousarray(self._image)
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

"""One image and its label file in the data check (`check.py`): everything that is wrong, and the results' types."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lpsnet.data import images
from lpsnet.data.channels import RGB, Channels
from lpsnet.data.decode import LabelDecoder, list_counts, mask_values
from lpsnet.data.image_headers import Header
from lpsnet.data.labels import IGNORE_INDEX, MAX_CLASSES
from lpsnet.data.shapes import Drawing
from lpsnet.data.split import Pair, Split
from lpsnet.errors import DataError

Severity = Literal["error", "warning", "note"]

# An error stops or spoils training; a warning may be intended; a note describes a conversion.
KINDS: dict[str, Severity] = {
    "cannot_open": "error",  # the text names no data set, or the files are laid out differently
    "doubtful_layout": "error",  # several folders or kinds of label files, or several label files of one image
    "missing_mask": "error",  # an image without its label file
    "missing_image": "warning",  # a label file without its image
    "unreadable": "error",  # an image or label file that is damaged or of a kind that is not read
    "size_differs": "error",  # an image and its label file of different height or width
    "unknown_values": "error",  # ids or colours in a label file that no class has
    "colours_for_ids": "error",  # a label file of colours where ids are expected
    "ids_for_colours": "error",  # a label file of ids where colours are expected
    "unlabelled_picture": "warning",  # an image in which no pixel has a label
    "absent_class": "warning",  # a class that never occurs in a split, or in none
    "similar_classes": "warning",  # classes whose names differ in case, blanks or dashes alone
    "duplicate_name": "error",  # images of one split with the same name
    "shared_picture": "warning",  # the same image in two splits: training on one spoils the evaluation on the other
    "shared_series": "warning",  # images of one film, by their names, in two splits: scores on the other flatter
    "repeated_picture": "note",  # the same image twice in one split
    "converted_pictures": "note",  # grey, 16 bit, transparent or otherwise unusual images, and what becomes of them
    "unlabelled_split": "warning",  # a split without label files
    "nothing_labelled": "error",  # a split with label files in which no pixel has a label
    "one_class": "warning",  # all labelled pixels are of one class
    "turned_apart": "warning",  # an image that its EXIF data turns, and a label file that it does not, or otherwise
    "channels": "note",  # channels other than RGB of 8 bits, with their range
    "constant_channel": "warning",  # a channel that has one value in all images
    "few_bits": "warning",  # images of 16 bits whose numbers are small, so that they are read as almost black
    "mixed_label_files": "warning",  # label files of which some hold ids in another way than the others
    "left_out": "note",  # images and label files beside those of the data set that belong to no split
    "unread_kind": "warning",  # files of other image formats beside the images
    "unjudged": "note",  # JPEG files, where damage inside cannot be noticed
    "label_files": "note",  # what was decided or left out when label files were read
    "stray_values": "warning",  # values of very few pixels in the label files of a folder that nobody described
    "uncovered": "note",  # the share of pixels that no shape covers
}


@dataclass(frozen=True)
class Finding:
    """One problem or remark.

    Attributes:
        kind: a key of `KINDS`.
        file: the file concerned, or the split if it is not a single file.
        message: one line with the problem and, if there is one, the remedy.
    """

    kind: str
    file: str
    message: str

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind]


@dataclass(frozen=True)
class SplitCounts:
    """What a split holds.

    Attributes:
        num_pictures: images in the split.
        num_labelled: images whose label file could be read.
        sizes: number of images by size, "HEIGHTxWIDTH" in pixels.
        class_pixels: number of pixels by class name, for all classes.
        ignored_pixels: number of pixels without a label.
    """

    num_pictures: int
    num_labelled: int
    sizes: Mapping[str, int]
    class_pixels: Mapping[str, int]
    ignored_pixels: int

    @property
    def class_percent(self) -> dict[str, float]:
        """The share of each class in the labelled pixels, in percent; all zero if there are none."""
        total = sum(self.class_pixels.values())
        return {name: 100 * count / total if total else 0.0 for name, count in self.class_pixels.items()}

    @property
    def ignored_percent(self) -> float:
        """The share of pixels without a label in all pixels of label files, in percent."""
        total = sum(self.class_pixels.values()) + self.ignored_pixels
        return 100 * self.ignored_pixels / total if total else 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        keys = ("num_pictures", "num_labelled", "sizes", "class_pixels", "class_percent", "ignored_percent")
        return {key: getattr(self, key) for key in keys}


@dataclass(frozen=True)
class Diagnosis:
    """The result of a data check.

    Attributes:
        spec: the text of the data set.
        findings: errors first, then warnings, then notes.
        counts: what each split holds.
        suggested_yaml: a description of the data set that can be opened and leaves out or repairs what was found, to
            be saved as a file; "" if there is none.
    """

    spec: str
    findings: list[Finding]
    counts: dict[str, SplitCounts] = field(default_factory=dict)
    suggested_yaml: str = ""

    @property
    def ok(self) -> bool:
        """Whether there are no errors."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        keys = ("kind", "severity", "file", "message")
        return {
            "data": self.spec,
            "ok": self.ok,
            "findings": [{key: getattr(item, key) for key in keys} for item in self.findings],
            "splits": {name: counts.to_dict() for name, counts in self.counts.items()},
            "suggested_yaml": self.suggested_yaml,
        }


# How images that are not plain RGB are converted (`images.read_image`), by the content in their header.
CONVERSIONS = {
    "grey": "grey; they are read as three equal channels",
    "grey+alpha": "grey with transparency; they are read as three equal channels, transparency is dropped",
    "colour+alpha": "RGB with transparency; transparency is dropped, the colours under it are kept",
    "palette": "palette images; they are read as RGB",
    "CMYK": "CMYK; they are converted to RGB without a colour profile",
    "16 bit": "of 16 bits a channel; they are divided by 257 to 8 bits",
    "rotated": "turned or mirrored by their EXIF data; they are read as viewers show them",
}
_LOSSY = (".jpg", ".jpeg", ".JPG", ".webp", ".gif")  # beside a label file that is missing
_DARK = 64  # of 255: what is read of 16 bits up to here was of 14 bits or fewer


MAX_VALUES = 2 * MAX_CLASSES  # kept for a file; a photograph in place of a label file has hundreds of thousands


@dataclass
class Report:
    """The result for one image and its label file.

    Attributes:
        pair: the files.
        findings: problems and remarks.
        digest: of the image file's bytes; None if it cannot be read.
        content: a key of `CONVERSIONS`, or "" for a plain RGB image.
        size: (height, width) of the image as it is read.
        format: of the image file, as in `Header`; "" if it cannot be read.
        orientation: of the image in its EXIF data, 1 to 8.
        lowest, highest: number in each channel of an image of other channels than RGB of 8 bits; empty for others.
        top: the largest number in an image of 16 bits a channel that is read as almost black; 0 for others.
        mask_kind: how the label file holds ids, in words; "" if there is no readable one.
        labels: pixels by class id; None if there is no usable label file.
        unknown: pixels by id or (r, g, b) without a class; the `MAX_VALUES` most frequent.
        other_values: pixels by (r, g, b) or id in a file of the wrong kind; the `MAX_VALUES` most frequent.
        uncovered: pixels that no shape covers, for label files with shapes.
    """

    pair: Pair
    findings: list[Finding] = field(default_factory=list)
    digest: bytes | None = None
    content: str = ""
    size: tuple[int, int] | None = None
    format: str = ""
    orientation: int = 1
    top: int = 0
    lowest: tuple[int, ...] = ()
    highest: tuple[int, ...] = ()
    mask_kind: str = ""
    labels: Mapping[int, int] | None = None
    unknown: Mapping[Any, int] = field(default_factory=dict)
    other_values: Mapping[Any, int] = field(default_factory=dict)
    uncovered: int = 0

    def find(self, kind: str, file: Path, message: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, str(file), message))


def inspect_pair(pair: Pair, decoder: LabelDecoder, channels: Channels = RGB) -> Report:
    """Check an image and its label file."""
    report = Report(pair)
    if channels.is_rgb:
        _inspect_image(report)
    else:
        _inspect_channels(report, channels)
    if pair.drawing is not None:
        _inspect_drawing(report, pair, pair.drawing)
    elif pair.mask is not None and not pair.mask.exists():
        report.find("missing_mask", pair.image, _missing(pair.image, pair.mask))
    elif pair.mask is not None and pair.rivals:
        _find_rivals(report)
    elif pair.mask is not None:
        _inspect_mask(report, pair.mask, decoder)
    return report


def _missing(image: Path, mask: Path) -> str:
    message = f"image {image} has no label file {mask}"
    lossy = next((path for suffix in _LOSSY if (path := mask.with_suffix(suffix)).is_file() and path != image), None)
    return f"{message}; {lossy} is of a format that changes ids: save labels as PNG" if lossy else message


def _find_rivals(report: Report) -> None:
    try:
        report.pair.refuse_rivals()
    except DataError as error:
        report.find("doubtful_layout", report.pair.image, str(error))


def inspect_sample(split: Split, index: int) -> Report:
    """Count the labels of a sample that is not a pair of files."""
    report = Report(Pair(split.names[index], Path(split.names[index]), None))
    try:
        _, image, labels = split[index]
    except DataError as error:
        report.find("unreadable", report.pair.image, str(error))
        return report
    pixels = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1).tolist()
    report.size, report.labels = image.shape[:2], {label: count for label, count in enumerate(pixels) if count}
    return report


def _inspect_image(report: Report) -> None:
    path = report.pair.image
    try:
        data, header = images.read_file(path)
        is_known = header.format == "JPEG" and header.content and images.is_whole(data)
        image = None if is_known else images.decode_image(path, data, header)  # takes four times as long
        report.digest = hashlib.blake2b(data, digest_size=16).digest()
    except DataError as error:
        report.find("unreadable", path, str(error))
        return
    report.size, report.format, report.orientation = images.shown_size(header), header.format, header.orientation
    report.content = _content(header)
    if header.bit_depth == 16 and image is not None and 0 < image.max() <= _DARK:
        report.top = images.top_level(path, data, header)


def _inspect_channels(report: Report, channels: Channels) -> None:
    """An image of other channels, which may be in several files."""
    paths = (report.pair.image, *report.pair.extra)
    try:
        image = channels.read(*paths)
        content = b"".join(images.read_bytes(path) for path in paths)
    except DataError as error:
        report.find("unreadable", report.pair.image, str(error))
        return
    report.digest = hashlib.blake2b(content, digest_size=16).digest()
    report.size = image.shape[0], image.shape[1]
    report.lowest, report.highest = (tuple(each((0, 1)).tolist()) for each in (image.min, image.max))


def _content(header: Header) -> str:
    if header.bit_depth == 16:
        return "16 bit"
    if header.orientation != 1:
        return "rotated"
    return header.content if header.content in CONVERSIONS else ""


def _inspect_mask(report: Report, path: Path, decoder: LabelDecoder) -> None:
    try:
        data, header = images.read_file(path)
        mask = images.decode_mask(path, data, header, expand_palette=bool(decoder.rgb))
    except DataError as error:
        report.find("unreadable", path, str(error))
        return
    report.mask_kind = _mask_kind(header, mask)
    _compare_turns(report, path, header, mask)
    _compare_sizes(report, path, mask.shape[0], mask.shape[1])
    try:
        report.labels, unknown = decoder.census(mask, source=path)
    except DataError as error:
        report.find("ids_for_colours" if decoder.rgb else "colours_for_ids", path, str(error))
        report.other_values = _most_frequent(mask_values(mask)[1])
        return
    if unknown:
        report.unknown = _most_frequent(unknown)
        what = "colours" if decoder.rgb else "ids"
        message = f"label file {path} holds {what} that no class has: {list_counts(unknown)}"
        report.find("unknown_values", path, message)
    elif set(report.labels) <= {IGNORE_INDEX}:
        report.find("unlabelled_picture", report.pair.image, f"no pixel of {report.pair.image} has a label in {path}")


def _mask_kind(header: Header, mask: images.Mask) -> str:
    """How a label file holds its numbers, where a program that writes it anew may change them."""
    if mask.ndim == 2 and 0 < header.bit_depth < 8:
        return f"numbers of {header.bit_depth} bit{'s' * (header.bit_depth > 1)}"
    if header.palette and mask.ndim == 2:
        return "indices into a palette"
    return "numbers of 8 or 16 bits" if mask.ndim == 2 else "colours"


def _compare_turns(report: Report, path: Path, header: Header, mask: images.Mask) -> None:
    """A half turn, or one of a square, that an image and its label file do not share is not seen in their sizes."""
    image = report.pair.image
    if report.size is None or header.orientation == report.orientation:
        return
    stored = report.size[::-1] if report.orientation >= 5 else report.size
    if (header.height, header.width) != stored or mask.shape[:2] != report.size:
        return  # the labels were drawn on the turned image, or the sizes tell
    turns = f"image {image} (EXIF orientation {report.orientation}) and its label file {path} ({header.orientation})"
    message = f"{turns} are turned differently as they are read: see that the labels lie on the image"
    report.find("turned_apart", image, message)


def _inspect_drawing(report: Report, pair: Pair, drawing: Drawing) -> None:
    size = drawing.size or report.size
    if size is None or pair.mask is None:
        return
    _compare_sizes(report, pair.mask, *size)
    try:
        labels, report.uncovered = drawing.counted(*size)
    except DataError as error:
        report.find("unreadable", pair.mask, str(error))
        return
    pixels = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1).tolist()
    report.labels = {label: count for label, count in enumerate(pixels) if count}
    if set(report.labels) <= {IGNORE_INDEX}:
        report.find("unlabelled_picture", pair.image, f"no pixel of {pair.image} has a label in {pair.mask}")


def _most_frequent(counts: Mapping[Any, int]) -> dict[Any, int]:
    """The `MAX_VALUES` largest counts; all, in their order, if there are no more."""
    return dict(counts) if len(counts) <= MAX_VALUES else dict(Counter(counts).most_common(MAX_VALUES))


def _compare_sizes(report: Report, path: Path, height: int, width: int) -> None:
    if report.size is None or report.size == (height, width):
        return
    image = f"image {report.pair.image} is {report.size[0]}x{report.size[1]}"
    message = f"{image}, its label file {path} {height}x{width} (height x width)"
    if report.orientation > 1 and report.size == (width, height):
        message += "; the image's EXIF data rotates it: rotate the label file too, or remove the EXIF data"
    report.find("size_differs", path, message)

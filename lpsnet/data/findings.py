"""What the doctor (`doctor.py`) reports: findings, counts of labels, and a description that repairs what it can."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lpsnet.data.labels import IGNORE_INDEX, LabelSpace

Severity = Literal["error", "warning", "note"]

# What can be found. An error stops training or spoils it; a warning may be meant; a note tells what will be done.
KINDS: dict[str, Severity] = {
    "cannot_open": "error",  # the text names no data set, or its files are not laid out as it says
    "missing_mask": "error",  # a picture without its label file
    "missing_image": "warning",  # a label file without its picture
    "unreadable": "error",  # a picture or label file that is damaged or of a kind that is not read
    "size_differs": "error",  # a picture and its label file of different height or width
    "unknown_values": "error",  # ids or colours in a label file that no class has
    "colours_for_ids": "error",  # a label file of colours where ids are promised
    "ids_for_colours": "error",  # a label file of ids where colours are promised
    "unlabelled_picture": "warning",  # a picture in which no pixel has a label
    "absent_class": "warning",  # a class that never occurs in a split, or in none
    "duplicate_name": "error",  # pictures of one split with the same name
    "shared_picture": "warning",  # the same picture in two splits: scores on one are then learnt from the other
    "repeated_picture": "note",  # the same picture twice in one split
    "converted_pictures": "note",  # grey, 16 bit, transparent or otherwise unusual pictures, and what becomes of them
    "unlabelled_split": "note",  # a split without label files
}


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: a key of `KINDS`.
        file: the file it is about, or the split if it is about no single file.
        message: one line that says what it is and, where there is one, the remedy.
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
        num_pictures: pictures in the split.
        num_labelled: pictures whose label file could be read.
        sizes: number of pictures by size, "HEIGHTxWIDTH" in pixels.
        class_pixels: number of pixels by class name; every class is there.
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
        return {
            "num_pictures": self.num_pictures,
            "num_labelled": self.num_labelled,
            "sizes": dict(self.sizes),
            "class_pixels": dict(self.class_pixels),
            "class_percent": self.class_percent,
            "ignored_percent": self.ignored_percent,
        }


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor has to say of a data set.

    Attributes:
        spec: the text it was asked about.
        findings: errors first, then warnings, then notes.
        counts: what each split holds.
        suggested_yaml: a description of the data set that opens and leaves out or repairs what was found, to be
            saved as a file; "" where none could be made.
    """

    spec: str
    findings: list[Finding]
    counts: dict[str, SplitCounts] = field(default_factory=dict)
    suggested_yaml: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found that stops or spoils training."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        findings = [
            {"kind": item.kind, "severity": item.severity, "file": item.file, "message": item.message}
            for item in self.findings
        ]
        splits = {name: counts.to_dict() for name, counts in self.counts.items()}
        return {
            "data": self.spec,
            "ok": self.ok,
            "findings": findings,
            "splits": splits,
            "suggested_yaml": self.suggested_yaml,
        }


def by_severity(findings: list[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes, each in the order they were found."""
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def class_counts(space: LabelSpace, pixels: Mapping[int, int]) -> tuple[dict[str, int], int]:
    """Pixels by class name, and pixels without a label, from pixels by class id."""
    return {name: pixels.get(index, 0) for index, name in enumerate(space.names)}, pixels.get(IGNORE_INDEX, 0)

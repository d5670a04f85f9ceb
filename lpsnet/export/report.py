"""What an export reports once the written file has been proved against the network it was made from."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One picture, scored by the network in torch and by the exported file.

    Attributes:
        picture: which: "noise", "smooth" or "picture 1", "picture 2", …
        size: height and width in pixels.
        score_difference: largest absolute difference of a score, as a share of the range of the network's scores.
        label_agreement: share of the picture's pixels with the same label, in percent.
    """

    picture: str
    size: tuple[int, int]
    score_difference: float
    label_agreement: float


@dataclass(frozen=True, slots=True)
class MiouCheck:
    """mIoU in percent on labelled pictures: of the network in torch (float32), and of the exported file.

    Attributes:
        split: name of the split.
        num_pictures: pictures scored.
        before: of the network.
        after: of the file.
    """

    split: str
    num_pictures: int
    before: float
    after: float

    @property
    def lost(self) -> float:
        """Points of mIoU lost; below 0 where the file scores higher."""
        return self.before - self.after

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "lost": self.lost}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """A file written and proved.

    Attributes:
        path: the file.
        format: what it was exported to, a name in `EXPORTERS`.
        precision: arithmetic of the file.
        size: (height, width) in pixels that the file is for; None if it takes any.
        num_bytes: size of the file.
        engine: what the file was checked with.
        checks: every comparison made.
        export_s: seconds for writing the file.
        verify_s: seconds for the comparisons.
        miou: before and after; None where no labelled pictures were given.
        num_calibration_pictures: pictures that an int8 file was calibrated on.
        engine_command: the command of the engine's own that takes the file further; empty where there is none.
    """

    path: Path
    format: str
    precision: str
    size: tuple[int, int] | None
    num_bytes: int
    engine: str
    checks: tuple[Check, ...]
    export_s: float
    verify_s: float
    miou: MiouCheck | None = None
    num_calibration_pictures: int = 0
    engine_command: tuple[str, ...] = ()

    @property
    def score_difference(self) -> float:
        """The largest of all checks."""
        return max(check.score_difference for check in self.checks)

    @property
    def label_agreement(self) -> float:
        """The smallest of all checks, in percent."""
        return min(check.label_agreement for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        summary = {"score_difference": self.score_difference, "label_agreement": self.label_agreement}
        miou = None if self.miou is None else self.miou.to_dict()
        lists = {"engine_command": list(self.engine_command)}
        return {**asdict(self), "path": str(self.path), "miou": miou, **lists, **summary}

"""Verification of exports: the written file, run by its engine, gives the logits and labels of the network in torch.

Both get the same normalised images: noise, which shows every difference in resizing; smooth random images, whose
labels form areas; and real ones, where given. With labelled images mIoU is compared too. A file takes its final name
only after the engine has given the network's own logits and labels (`write_proved`).
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Required, TypedDict, Unpack

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet import __version__
from lpsnet.data.images import Image
from lpsnet.data.split import Split
from lpsnet.errors import DataError, LpsnetError, MissingDependencyError, ModelFileError, unknown_name
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.export.quantise import Quantisation, Size, check_quantisation
from lpsnet.inference.engines import PRECISIONS, Precision, Session, SessionOptions, open_session
from lpsnet.inference.engines.pytorch import PyTorchSession
from lpsnet.inference.label_map import label_map
from lpsnet.inference.preprocess import prepare, sample_image
from lpsnet.inference.segmenter import Segmenter
from lpsnet.io import atomic_path
from lpsnet.models.any_network import AnyNetwork, Model
from lpsnet.models.network import MIN_INPUT
from lpsnet.models.reparameterise import fuse
from lpsnet.plugins import reason
from lpsnet.record import ModelRecord


@dataclass(frozen=True, slots=True)
class Check:
    """One image, scored by the network in torch and by the exported file.

    Attributes:
        image: which: "noise", "smooth" or "image 1", "image 2", …
        size: height and width in pixels.
        score_difference: largest absolute difference of a logit, as a share of the range of the network's logits.
        label_agreement: share of the image's pixels with the same label, in percent.
    """

    image: str
    size: tuple[int, int]
    score_difference: float
    label_agreement: float

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {"picture": values.pop("image"), **values}


@dataclass(frozen=True, slots=True)
class MiouCheck:
    """mIoU in percent on labelled images: of the network in torch (float32), and of the exported file.

    Attributes:
        split: name of the split.
        num_pictures: images scored.
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
        miou: before and after; None where no labelled images were given.
        num_calibration_pictures: images that an int8 file was calibrated on.
        engine_command: the command of the engine's own that takes the file further; empty where there is none.
        findings: what may keep a vendor's tool from taking the file, a line each; see `onnx.export_for_board`.
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
    findings: tuple[str, ...] = ()

    @property
    def score_difference(self) -> float:
        """The largest of all checks; ValueError where nothing was compared."""
        return max(check.score_difference for check in self.checks)

    @property
    def label_agreement(self) -> float:
        """The smallest of all checks, in percent; ValueError where nothing was compared."""
        return min(check.label_agreement for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        names = ("score_difference", "label_agreement")
        summary = {name: getattr(self, name) if self.checks else None for name in names}
        miou = None if self.miou is None else self.miou.to_dict()
        lists = {
            "checks": [check.to_dict() for check in self.checks],
            "engine_command": list(self.engine_command),
            "findings": list(self.findings),
        }
        return {**asdict(self), "path": str(self.path), "miou": miou, **lists, **summary}


# Sizes that no stride and no ratio divides, for files that take any size. A size that was frozen while the network was
# traced shows here.
ODD_SIZES: tuple[Size, ...] = ((33, 47), (333, 517))

_RANDOM = ("noise", "smooth")
_NO_FILE = Path("the network in torch")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an exported file may be from its network.

    Attributes:
        score_difference: largest absolute difference of a logit, as a share of the range of the network's logits.
        label_agreement: smallest share of pixels with the same label, in percent, on every image.
        elsewhere: the same on random images and at odd sizes, where it is another.
        miou_lost: most points of mIoU lost on labelled images.
    """

    score_difference: float
    label_agreement: float
    elsewhere: float | None = None
    miou_lost: float = 0.1


# Far above what rounding does, far below what an error does. Seen with ONNX Runtime over all blocks, interactions and
# 1 to 3 paths at sizes up to 1024x2048: at most 5e-5 (noise, path at ratio 1/2) and at least 99.996 %.
F32_BOUNDS = Bounds(score_difference=1e-3, label_agreement=99.9)

BOUNDS: Mapping[Precision, Bounds] = MappingProxyType(
    {
        "f32": F32_BOUNDS,
        # Weights rounded to 11 bits of mantissa. Seen over untrained networks of all blocks and interactions: at most
        # 7e-3 of the range, and the same label at 99.5 % of the pixels of noise, where all classes are close.
        "f16": Bounds(score_difference=2e-2, label_agreement=98.0, miou_lost=0.2),
        # The ranges are those of the images calibrated on; elsewhere it can only be seen that it is that network at
        # all. Seen on 110 images, networks of 27 mIoU on Cityscapes and 53 on CamVid: at most 0.1 of the range, and
        # the same label at 95 % of the pixels of every image, 97.8 % on average; elsewhere 0.3 and 67 %.
        "int8": Bounds(score_difference=0.5, label_agreement=90.0, elsewhere=50.0, miou_lost=1.0),
    }
)


def verify(
    net: Model,
    session: Session,
    *,
    record: ModelRecord,
    sizes: Sequence[Size],
    images: Sequence[Image] = (),
    bounds: Bounds = F32_BOUNDS,
) -> tuple[Check, ...]:
    """Compare an exported file with its network.

    Args:
        net: the network in evaluation mode, float32 on the CPU.
        session: the exported file, opened by its engine.
        record: of the file, for normalisation and resizing.
        sizes: (height, width) in pixels at which every image is compared.
        images: real ones, H x W x 3 uint8 RGB or of the record's channels, besides random ones.
        bounds: how far the two may be apart.

    Returns:
        What was found, a check for each image and size.

    Raises:
        ModelFileError: the two are farther apart than that, or the network's logits are not finite.
    """
    checks = []
    for name, image, size in _cases(sizes, images, record):
        check = _compare(net, session, prepare(image, record, size=size), name)
        _judge(check, bounds, session.engine)
        checks.append(check)
    return tuple(checks)


def compare_miou(
    net: Model, session: Session, split: Split, *, record: ModelRecord, size: Size | None, most_lost: float
) -> MiouCheck:
    """mIoU of a network and of the file exported from it, on the same labelled images.

    Args:
        net: in evaluation mode, float32 on the CPU; it may be brought into another memory layout.
        session, record: as for `verify`.
        split: labelled images of the network's classes.
        size: (height, width) in pixels that both run at; None for the record's, and else every image's own.
        most_lost: points of mIoU that the file may lose.

    Raises:
        ModelFileError: it loses more.
        DataError: the split cannot be read, has other classes or not one labelled pixel.
    """
    own = PyTorchSession(torch, net, SessionOptions(_NO_FILE), device="cpu", compiled=False)
    before, after = (
        evaluate(Segmenter.from_session(which, record, input_size=size), split, label_space=record.label_space).miou
        for which in (own, session)
    )
    check = MiouCheck(split.name, len(split), before, after)
    if np.isnan(before):
        raise DataError(f"split {split.name!r} has no labelled pixel, so no mIoU can be compared on it")
    if not check.lost <= most_lost:
        raise ModelFileError(
            f"the exported file has {after:.2f} mIoU on {split.name} where the network has {before:.2f}: "
            f"{check.lost:.2f} points lost, at most {most_lost:g} are allowed"
        )
    return check


def _cases(sizes: Sequence[Size], images: Sequence[Image], record: ModelRecord) -> Iterator[tuple[str, Image, Size]]:
    rng = np.random.default_rng(0)
    for size in sizes:
        if not record.image_channels.is_rgb:
            yield "noise", sample_image(record, size), size
            smooth = cv2.resize(sample_image(record, (6, 8), seed=1), size[::-1], interpolation=cv2.INTER_CUBIC)
            yield "smooth", smooth, size
            yield from ((f"image {number}", image, size) for number, image in enumerate(images, start=1))
            continue
        yield "noise", rng.integers(0, 256, (*size, 3), dtype=np.uint8), size
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        yield "smooth", cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), size
        for number, image in enumerate(images, start=1):
            yield f"image {number}", image, size


def _compare(net: Model, session: Session, image: NDArray[np.float32], name: str) -> Check:
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    if not np.isfinite(expected).all():
        raise ModelFileError("the network's logits are not finite, so its export cannot be checked; train it again")
    logits = session.run(image)
    size = image.shape[2], image.shape[3]
    if logits.shape != expected.shape:
        raise ModelFileError(
            f"{session.engine} gives logits of shape {logits.shape} for an image of {size[0]}x{size[1]} where the "
            f"network gives {expected.shape}"
        )
    spread = max(float(np.ptp(expected)), float(np.finfo(np.float32).tiny))
    agreement = 0.0
    if np.isfinite(logits).all():
        labels, own = (label_map(maps[0], size, align_corners=net.align_corners) for maps in (logits, expected))
        agreement = 100 * float((labels == own).mean())
    return Check(name, size, float(np.abs(logits - expected).max()) / spread, agreement)


def _judge(check: Check, bounds: Bounds, engine: str) -> None:
    """Raise unless the check is within the bounds; written so that nan is outside."""
    least = bounds.label_agreement
    if bounds.elsewhere is not None and (check.image in _RANDOM or check.size in ODD_SIZES):
        least = bounds.elsewhere
    if check.score_difference <= bounds.score_difference and check.label_agreement >= least:
        return
    height, width = check.size
    raise ModelFileError(
        f"the exported file is not the network: on {check.image} at {height}x{width}, {engine} differs by "
        f"{check.score_difference:.2g} of the range of the logits (at most {bounds.score_difference:g} is allowed) and "
        f"gives {check.label_agreement:.3f} % of the pixels the same label (at least {least:g} %)"
    )


class Request(NamedTuple):
    """What file is asked for: its record, size (None: any), precision, and for int8 how to quantise."""

    record: ModelRecord
    size: Size | None
    precision: Precision
    quantisation: Quantisation | None


Write = Callable[[Model, Path, Request], None]  # writes the file of a deployed network

NUM_COMPARED = 4  # images of the calibration that a quantised file is compared on, where no others are given
_CHECKED_SIZE = (256, 512)  # where neither the export nor the record names a size


@dataclass(frozen=True, slots=True)
class Format:
    """What a network can be exported to.

    Attributes:
        name: as in `EXPORTERS`.
        suffix: of its files.
        runtime: the engine that proves a file.
        precisions: what files there are.
    """

    name: str
    suffix: str
    runtime: str
    precisions: tuple[Precision, ...]


class Proof(TypedDict, total=False):
    """What a file is compared on besides random images: keywords of every exporter.

    Keys:
        images: real ones, H x W x 3 uint8 RGB each, for logits and labels.
        labelled: images with labels, on which mIoU is compared before and after; None for none.
        min_label_agreement: share of the pixels of a real image, in percent, that must keep their label.
        max_miou_loss: points of mIoU the file may lose. For both None is the bound of its precision (`BOUNDS`).
    """

    images: Sequence[Image]
    labelled: Split | None
    min_label_agreement: float | None
    max_miou_loss: float | None


class ExportOptions(Proof, total=False):
    """The keywords of every exporter, with the defaults of `write_proved`."""

    record: Required[ModelRecord]
    size: Size | None
    precision: Precision
    quantisation: Quantisation | None


def write_proved(
    net: Model,
    path: str | Path,
    *,
    format: Format,
    write: Write,
    record: ModelRecord,
    size: Size | None = None,
    precision: Precision = "f32",
    quantisation: Quantisation | None = None,
    **proof: Unpack[Proof],
) -> ExportReport:
    """Write a network in a format and verify the file; it does not exist if anything fails.

    Args:
        net: of any form, on any device; it is fused where it is not, and not touched.
        path: the file to write, with the format's suffix.
        format, write: the format, and what writes a network in it.
        record: of the network; what the network itself knows (architecture, form, size) is taken from there.
        size: (height, width) in pixels that the file is for; None for a file that takes any.
        precision: arithmetic of the file.
        quantisation: images to calibrate an int8 file on; needed for int8.
        proof: what the file is compared on; see `Proof`.

    Raises:
        ModelFileError: the record does not fit the network, the size is too small, int8 was asked for without
            images, or the file is not the network.
        MissingDependencyError: a package is not installed.
        RunError: the file cannot be written.
    """
    path = Path(path)
    check_options(net, path, format, record, size, precision)
    asked = {"label_agreement": proof.get("min_label_agreement"), "miou_lost": proof.get("max_miou_loss")}
    bounds = replace(BOUNDS[precision], **{name: value for name, value in asked.items() if value is not None})
    num_calibrated = len(check_quantisation(quantisation).images) if precision == "int8" else 0
    started = time.perf_counter()
    deployed = fuse(net).to("cpu", torch.float32)
    record = final_record(deployed, record, size)
    images, labelled = proof.get("images", ()), proof.get("labelled")
    if not len(images) and quantisation is not None:
        images = quantisation.images[:NUM_COMPARED]
    sizes = checked_sizes(record, size)
    with atomic_path(path) as temporary, one_line_errors(deployed, format.name, size or precision == "int8"):
        check_sizes(deployed, sizes, size)
        write(deployed, temporary, Request(record, size, precision, quantisation))
        written = time.perf_counter()
        session = _open(temporary, format, precision)
        checks = verify(deployed, session, record=record, sizes=sizes, images=images, bounds=bounds)
        verified, miou = time.perf_counter(), None
        if labelled is not None:
            miou = compare_miou(deployed, session, labelled, record=record, size=size, most_lost=bounds.miou_lost)
        return ExportReport(
            path=path,
            format=format.name,
            precision=precision,
            size=size,
            num_bytes=temporary.stat().st_size,
            engine=session.engine,
            checks=checks,
            export_s=written - started,
            verify_s=verified - written,
            miou=miou,
            num_calibration_pictures=num_calibrated,
        )


def check_sizes(deployed: Model, sizes: Sequence[Size], size: Size | None) -> None:
    """Raise unless a network of other code takes images of all sizes that its file is proved at."""
    for length in sizes if isinstance(deployed, AnyNetwork) else ():
        try:
            with torch.inference_mode():
                deployed(torch.zeros(1, deployed.in_channels, *length))
        except LpsnetError as error:
            hint = "" if size is not None else "; export it for a size that it takes: --size HxW"
            raise ModelFileError(f"{error}{hint}") from None


@contextlib.contextmanager
def one_line_errors(deployed: Model, to: str, is_last_resort: object) -> Iterator[None]:
    """Errors of exporters become one line where the network is of other code, which may be anything.

    The line names a file for one size as a way out, unless this one `is_last_resort`.
    """
    if not isinstance(deployed, AnyNetwork):
        yield
        return
    hint = "" if is_last_resort else "; a file for one size may be possible: --size HxW"
    try:
        yield
    except MissingDependencyError:
        raise
    except ModelFileError as error:
        raise ModelFileError(f"{error}{'' if '--size' in str(error) else hint}") from None
    except LpsnetError:
        raise
    except Exception as error:
        where = f"{deployed.title} cannot be exported to {to}"
        raise ModelFileError(f"{where}: {reason(error)}{hint}") from error


def final_record(deployed: Model, record: ModelRecord, size: Size | None) -> ModelRecord:
    """The record of the exported file: `record`, with what the network and the export know better."""
    own: dict[str, Any] = {name: getattr(deployed, name) for name in ("architecture", "block", "interaction", "form")}
    if isinstance(deployed, AnyNetwork):
        own |= {"network": deployed.network, "network_digest": deployed.digest}
    return record.model_copy(update={**own, "input_size": size or record.input_size, "lpsnet_version": __version__})


def checked_sizes(record: ModelRecord, size: Size | None) -> tuple[Size, ...]:
    """The sizes that a file is proved at: its own, or for a file that takes any the record's and odd ones."""
    return (size,) if size is not None else (record.input_size or _CHECKED_SIZE, *ODD_SIZES)


def _open(path: Path, format: Format, precision: Precision) -> Session:
    """The written file in its engine, computing in f32 where it can: a file in f16 is checked for its weights first of
    all. A quantised one computes in int8."""
    num_threads = torch.get_num_threads()
    if precision != "int8":
        with contextlib.suppress(ModelFileError):
            return open_session(format.runtime, SessionOptions(path, "f32", num_threads))
    return open_session(format.runtime, SessionOptions(path, precision, num_threads))


def check_options(
    net: Model, path: Path, format: Format, record: ModelRecord, size: Size | None, precision: Precision
) -> None:
    """Raise ModelFileError unless a file of that name, precision and size, with that record, can be one of `net`."""
    if path.suffix.lower() != format.suffix:
        raise ModelFileError(f"a model file for {format.name} ends in {format.suffix}; got {path}")
    if precision not in PRECISIONS:
        raise ModelFileError(unknown_name("precision", precision, format.precisions))
    if precision not in format.precisions:
        allowed = " or ".join(filter(None, (", ".join(format.precisions[:-1]), format.precisions[-1])))
        raise ModelFileError(f"files for {format.name} are exported in {allowed}; got {precision}")
    if record.label_space.num_classes != net.num_classes:
        raise ModelFileError(
            f"the record names {record.label_space.num_classes} classes, the network {net.num_classes}"
        )
    if record.align_corners != net.align_corners:
        raise ModelFileError(f"the record has align_corners={record.align_corners}, the network {net.align_corners}")
    if size is not None and min(size) < MIN_INPUT:
        raise ModelFileError(f"a network takes images from {MIN_INPUT}x{MIN_INPUT} up; got {size[0]}x{size[1]}")

"""The proof of an export: the written file, run by its engine, gives the scores and labels of the network in torch.

Both are given the same normalised pictures: noise, which makes the most of every difference in resizing; smooth random
pictures, whose labels form areas; and real ones, where there are any. On labelled ones mIoU is compared too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.data.split import Split
from lpsnet.errors import DataError, ModelFileError
from lpsnet.evaluation.evaluate import evaluate
from lpsnet.export.quantisation import Size
from lpsnet.export.report import Check, MiouCheck
from lpsnet.inference.engines import Precision, Session, SessionOptions
from lpsnet.inference.engines.pytorch import PyTorchSession
from lpsnet.inference.label_map import label_map
from lpsnet.inference.preprocess import Picture, prepare
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.network import Network
from lpsnet.record import ModelRecord

# Sizes that no stride and no ratio divides, for files that take any size. A size that was frozen while the network was
# traced shows here.
ODD_SIZES: tuple[Size, ...] = ((33, 47), (333, 517))

_RANDOM = ("noise", "smooth")
_NO_FILE = Path("the network in torch")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an exported file may be from its network.

    Attributes:
        score_difference: largest absolute difference of a score, as a share of the range of the network's scores.
        label_agreement: smallest share of pixels with the same label, in percent, on every picture.
        elsewhere: the same on random pictures and at odd sizes, where it is another.
        miou_lost: most points of mIoU lost on labelled pictures.
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
        # The ranges are those of the pictures calibrated on; elsewhere it can only be seen that it is that network at
        # all. Seen on 110 pictures, networks of 27 mIoU on Cityscapes and 53 on CamVid: at most 0.1 of the range, and
        # the same label at 95 % of the pixels of every picture, 97.8 % on average; elsewhere 0.3 and 67 %.
        "int8": Bounds(score_difference=0.5, label_agreement=90.0, elsewhere=50.0, miou_lost=1.0),
    }
)


def verify(
    net: Network,
    session: Session,
    *,
    record: ModelRecord,
    sizes: Sequence[Size],
    pictures: Sequence[Picture] = (),
    bounds: Bounds = F32_BOUNDS,
) -> tuple[Check, ...]:
    """Compare an exported file with its network.

    Args:
        net: the network in evaluation mode, float32 on the CPU.
        session: the exported file, opened by its engine.
        record: of the file; says how pictures are normalised and resized.
        sizes: (height, width) in pixels at which every picture is compared.
        pictures: real ones, H x W x 3 uint8 RGB each, besides random ones.
        bounds: how far the two may be apart.

    Returns:
        What was found, a check for each picture and size.

    Raises:
        ModelFileError: the two are farther apart than that, or the network's scores are not finite.
    """
    checks = []
    for name, picture, size in _cases(sizes, pictures):
        check = _compare(net, session, prepare(picture, record, size=size), name)
        _judge(check, bounds, session.engine)
        checks.append(check)
    return tuple(checks)


def compare_miou(
    net: Network, session: Session, split: Split, *, record: ModelRecord, size: Size | None, most_lost: float
) -> MiouCheck:
    """mIoU of a network and of the file exported from it, on the same labelled pictures.

    Args:
        net: in evaluation mode, float32 on the CPU; it may be brought into another memory layout.
        session, record: as for `verify`.
        split: labelled pictures of the network's classes.
        size: (height, width) in pixels that both run at; None for the record's, and else every picture's own.
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


def _cases(sizes: Sequence[Size], pictures: Sequence[Picture]) -> Iterator[tuple[str, Picture, Size]]:
    rng = np.random.default_rng(0)
    for size in sizes:
        yield "noise", rng.integers(0, 256, (*size, 3), dtype=np.uint8), size
        coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        yield "smooth", cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC), size
        for number, picture in enumerate(pictures, start=1):
            yield f"picture {number}", picture, size


def _compare(net: Network, session: Session, image: NDArray[np.float32], name: str) -> Check:
    with torch.inference_mode():
        expected = net(torch.from_numpy(image)).numpy()
    if not np.isfinite(expected).all():
        raise ModelFileError("the network's scores are not finite, so its export cannot be checked; train it again")
    scores = session.run(image)
    size = image.shape[2], image.shape[3]
    if scores.shape != expected.shape:
        raise ModelFileError(
            f"{session.engine} gives scores of shape {scores.shape} for a picture of {size[0]}x{size[1]} where the "
            f"network gives {expected.shape}"
        )
    spread = max(float(np.ptp(expected)), float(np.finfo(np.float32).tiny))
    agreement = _label_agreement(scores[0], expected[0], size, align_corners=net.align_corners)
    return Check(name, size, float(np.abs(scores - expected).max()) / spread, agreement)


def _label_agreement(
    scores: NDArray[np.float32], expected: NDArray[np.float32], size: Size, *, align_corners: bool
) -> float:
    if not np.isfinite(scores).all():
        return 0.0
    labels, expected_labels = (label_map(maps, size, align_corners=align_corners) for maps in (scores, expected))
    return 100 * float((labels == expected_labels).mean())


def _judge(check: Check, bounds: Bounds, engine: str) -> None:
    """Raise unless the check is within the bounds; written so that nan is outside."""
    least = bounds.label_agreement
    if bounds.elsewhere is not None and (check.picture in _RANDOM or check.size in ODD_SIZES):
        least = bounds.elsewhere
    if check.score_difference <= bounds.score_difference and check.label_agreement >= least:
        return
    height, width = check.size
    raise ModelFileError(
        f"the exported file is not the network: on {check.picture} at {height}x{width}, {engine} differs by "
        f"{check.score_difference:.2g} of the range of the scores (at most {bounds.score_difference:g} is allowed) and "
        f"gives {check.label_agreement:.3f} % of the pixels the same label (at least {least:g} %)"
    )

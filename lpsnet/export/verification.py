"""The proof of an export: the written file, run by its engine, gives the scores and labels of the network in torch.

Both are given the same normalised pictures: noise, which makes the most of every difference in resizing; smooth random
pictures, whose labels form areas; and real ones, where there are any.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from lpsnet.deployment.label_map import label_map
from lpsnet.deployment.preparation import Picture, prepare
from lpsnet.deployment.runtimes.session import Session
from lpsnet.errors import ModelFileError
from lpsnet.export.report import Check
from lpsnet.model.network import Network
from lpsnet.record import ModelRecord

Size = tuple[int, int]

# Sizes that no stride and no ratio divides, for files that take any size. A size that was frozen while the network was
# traced shows here.
ODD_SIZES: tuple[Size, ...] = ((33, 47), (333, 517))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far an exported file may be from its network.

    Attributes:
        score_difference: largest absolute difference of a score, as a share of the range of the network's scores.
        label_agreement: smallest share of pixels with the same label, in percent.
    """

    score_difference: float
    label_agreement: float


# Far above what rounding does, far below what an error does. Seen with ONNX Runtime over all blocks, interactions and
# 1 to 3 paths at sizes up to 1024x2048: at most 5e-5 (noise, path at ratio 1/2) and at least 99.996 %.
F32_BOUNDS = Bounds(score_difference=1e-3, label_agreement=99.9)


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
    if check.score_difference <= bounds.score_difference and check.label_agreement >= bounds.label_agreement:
        return
    height, width = check.size
    raise ModelFileError(
        f"the exported file is not the network: on {check.picture} at {height}x{width}, {engine} differs by "
        f"{check.score_difference:.2g} of the range of the scores (at most {bounds.score_difference:g} is allowed) and "
        f"gives {check.label_agreement:.3f} % of the pixels the same label (at least {bounds.label_agreement:g} %)"
    )

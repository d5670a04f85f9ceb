"""A short piece of the long runs: see `endurance.py` for hours of it; and many threads that share a segmenter."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from endurance import WORK, Held, growth, sampled

from lpsnet.export.export import export
from lpsnet.inference.segmenter import Segmenter
from lpsnet.models.checkpoint import default_record, save_checkpoint
from lpsnet.models.network import create_model
from lpsnet.models.reparameterise import fuse

TOLERANCE_MIB = 8


def test_growth_is_seen() -> None:
    leaking = [Held(100 + number, 5 + number // 10, 1) for number in range(100)]
    assert growth(leaking) == Held(45, 4, 0)
    assert growth([Held(100.0, 5, 1)] * 50) == Held(0, 0, 0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("work", "rounds"), [("segment", 16), ("train", 7)])
def test_memory_handles_and_threads_stay_flat(tmp_path: Path, work: str, rounds: int) -> None:
    grown = growth(sampled(WORK[work](tmp_path), rounds=rounds))
    assert grown.resident_mib < TOLERANCE_MIB
    assert grown.handles <= 0
    assert grown.threads <= 0


@pytest.mark.parametrize("suffix", [".onnx", ".openvino", ".ncnn", ".safetensors"])
def test_eight_threads_get_the_labels_of_one(tmp_path: Path, suffix: str) -> None:
    net, model = create_model("tiny", num_classes=5), tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_checkpoint(net, model)
    else:
        pytest.importorskip(suffix.lstrip(".").replace("onnx", "onnxruntime"))
        export(net, model, to=suffix.lstrip("."), record=default_record(fuse(net)))
    segmenter = Segmenter(model, num_threads=1)
    dice = np.random.default_rng(0)
    images = [dice.integers(0, 256, (40 + 7 * (n % 5), 50 + 3 * (n % 4), 3), dtype=np.uint8) for n in range(64)]
    alone = [segmenter(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(segmenter, images * 2))
    for given, expected in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(given, expected)

"""Memory of a network against sums worked out by hand."""

import pytest

from lpsnet.architecture import Architecture
from lpsnet.errors import LpsnetError
from lpsnet.models.profile import MIB, inference_memory_mib


def _numbers(text: str, size: tuple[int, int], **options: object) -> float:
    architecture = Architecture.parse(text)
    return inference_memory_mib(architecture, size=size, num_classes=19, **options) * MIB / 4


def test_the_tiny_network_by_hand() -> None:
    """The widest moment is the first convolution: the image, its half, Stage 1's output, and 16,091 weights."""
    image, half, stage_1 = 3 * 256 * 512, 3 * 128 * 256, 4 * 64 * 128
    tiny = "B=1,1,1,1,1;C=4,8,16,32,32;R=1/2"
    assert _numbers(tiny, (256, 512)) == image + half + stage_1 + 16_091


def test_wide_late_stages_decide_where_they_are_wider_than_the_image() -> None:
    """At R = 1 the image is no second tensor. The widest moment is the 900 channels of Stage 2 from the 8 of Stage 1.

    Stage 1 has 16 x 32 pixels, Stage 2 has 8 x 16; the image stays alive with the caller.
    """
    weights = 9 * (3 * 8 + 8 * 900 + 900 * 1 + 1 + 1) + (8 + 900 + 1 + 1 + 1) + 19 + 19
    expected = weights + 3 * 32 * 64 + 8 * 16 * 32 + 900 * 8 * 16
    assert _numbers("B=1,1,1,1,1;C=8,900,1,1,1;R=1", (32, 64)) == expected


def test_both_paths_are_alive_at_once() -> None:
    """The widest moment is Stage 2, when the outputs of Stage 1 of all paths are still there."""
    one = _numbers("B=1,1,1,1,1;C=4,8,16,32,32;R=1", (64, 128))
    two = _numbers("B=1,1,1,1,1;C=4,8,16,32,32;R=1,1", (64, 128))
    maps = 4 * 32 * 64 + 8 * 16 * 32
    assert one == 16_091 + 3 * 64 * 128 + maps
    assert two == one + maps + 16_091 - 19, "another path and its half of the head, but no other bias"


def test_half_the_bytes_are_half_the_memory_and_small_images_are_refused() -> None:
    architecture = Architecture.parse("B=1,1,1,1,1;C=4,8,16,32,32;R=1/2")
    options = {"size": (64, 64), "num_classes": 19}
    assert inference_memory_mib(architecture, **options) == 2 * inference_memory_mib(
        architecture, **options, bytes_per_number=2
    )
    with pytest.raises(LpsnetError, match="32x32"):
        inference_memory_mib(architecture, size=(16, 64), num_classes=19)

"""The outputs of a segmented image: against the images they are put together from."""

from pathlib import Path

import numpy as np
import pytest

from lpsnet.data.labels import CITYSCAPES, LabelSpace
from lpsnet.errors import DataError, LpsnetError
from lpsnet.inference.outputs import Style, check_outputs, check_video_outputs, draw, is_output
from lpsnet.inference.result import colourise, overlay

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
LABELS = RNG.integers(0, 19, (40, 60), dtype=np.uint8)


def test_products_by_hand() -> None:
    style = Style(CITYSCAPES, opacity=0.3)
    over = overlay(IMAGE, LABELS, CITYSCAPES, opacity=0.3)
    np.testing.assert_array_equal(draw("labels", IMAGE, LABELS, style), LABELS)
    np.testing.assert_array_equal(draw("overlay", IMAGE, LABELS, style), over)
    np.testing.assert_array_equal(draw("colours", IMAGE, LABELS, style), colourise(LABELS, CITYSCAPES))
    both = draw("side-by-side", IMAGE, LABELS, style)
    np.testing.assert_array_equal(both[:, :60], IMAGE)
    np.testing.assert_array_equal(both[:, -60:], over)


@pytest.mark.parametrize("output", ["overlay", "colours", "side-by-side"])
@pytest.mark.parametrize("num_classes", [1, 2, 3, 19])
def test_a_legend_stands_below_and_keeps_even_heights_even(output: str, num_classes: int) -> None:
    labels, space = LABELS % num_classes, LabelSpace.numbered(num_classes)
    plain = draw(output, IMAGE, labels, Style(space))
    with_legend = draw(output, IMAGE, labels, Style(space, legend=True))
    np.testing.assert_array_equal(with_legend[:40], plain)
    below = with_legend[40:]
    assert below.shape[0] > 0
    assert below.shape[0] % 2 == 0
    for colour in space.colours:
        assert (below == colour).all(axis=2).any()


def test_ids_have_no_legend() -> None:
    np.testing.assert_array_equal(draw("labels", IMAGE, LABELS, Style(CITYSCAPES, legend=True)), LABELS)


def test_names_that_there_are_not_get_the_nearest() -> None:
    assert check_outputs(["overlay", "labels", "overlay"]) == ("overlay", "labels")
    with pytest.raises(LpsnetError, match="did you mean 'overlay'"):
        check_outputs(["labels", "overlays"])
    assert check_outputs(["overlay,confidence", "coco"]) == ("overlay", "confidence", "margin", "coco")
    with pytest.raises(LpsnetError, match="margin is written for images, not for videos"):
        check_video_outputs(["labels", "margin"])
    check_video_outputs(["labels", "overlay"])
    with pytest.raises(DataError, match="logits"):
        draw("confidence", IMAGE, LABELS, Style(CITYSCAPES))
    with pytest.raises(LpsnetError, match="nothing to write"):
        check_outputs([])
    with pytest.raises(LpsnetError, match=r"opacity lies between 0 and 1; got 1\.5"):
        Style(CITYSCAPES, opacity=1.5)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.labels.png", True),
        ("a.b.overlay.mp4", True),
        ("a.side-by-side.part.mp4", True),
        ("a.labels.part.mkv", True),
        ("A.LABELS.PNG", True),
        ("labels.png", False),
        ("a.part.mp4", False),
        ("overlay.a.png", False),
        ("a.png", False),
    ],
)
def test_own_results_are_known_by_their_names(name: str, expected: bool) -> None:
    assert is_output(Path("folder.overlay") / name) == expected

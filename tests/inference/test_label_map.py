"""Labels against a bilinear upsampling in float64 written from the definition, torch's, and answers made by hand."""

import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from compiled import implementation  # noqa: F401 (all tests run with the compiled loops, and without)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lpsnet.errors import LpsnetError
from lpsnet.inference.label_map import label_map

_TOLERANCE = 1e-5  # of the largest difference between two classes at one place


def _weights(length: int, target: int, align_corners: bool) -> np.ndarray:
    """target x length float64: how much of each score is in each pixel, from the definition, one pixel at a time."""
    weights = np.zeros((target, length))
    for pixel in range(target):
        if align_corners:
            position = pixel * (length - 1) / (target - 1) if target > 1 else 0.0
        else:
            position = (pixel + 0.5) * length / target - 0.5
        position = min(max(position, 0.0), length - 1.0)
        weights[pixel] = np.maximum(0, 1 - np.abs(np.arange(length) - position))
    return weights


def _upsampled(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    rows = _weights(logits.shape[1], size[0], align_corners)
    columns = _weights(logits.shape[2], size[1], align_corners)
    return np.einsum("Yy,kyx,Xx->kYX", rows, logits.astype(np.float64), columns, optimize=True)


def _assert_largest(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> None:
    """Every label's score is the largest within the tolerance; so labels are the argmax where the best two differ."""
    labels = label_map(logits, size, align_corners=align_corners)
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert labels.max() < len(logits)
    full = _upsampled(logits, size, align_corners)
    chosen = np.take_along_axis(full, labels[None].astype(np.intp), axis=0)[0]
    spread = np.ptp(logits.astype(np.float64), axis=0).max()
    assert (full.max(axis=0) - chosen).max() <= _TOLERANCE * spread


def _made(kind: str, shape: tuple[int, int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(shape).astype(np.float32)
    return {
        "normal": lambda: normal,
        "two levels": lambda: (normal > 0).astype(np.float32),
        "few levels": lambda: rng.integers(-3, 4, shape).astype(np.float32),
        "offset": lambda: normal + np.float32(1000) * rng.standard_normal(shape[1:]).astype(np.float32),
        "one large": lambda: np.where(rng.random(shape) < 0.1, np.float32(1e4), normal),
        "tiny": lambda: normal * np.float32(1e-39),
        "huge": lambda: normal * np.float32(3e37),
        "ramp": lambda: normal[:, :1, :1] * np.arange(shape[2], dtype=np.float32) + normal[:, :, :1],
        "classes repeated": lambda: normal[np.arange(shape[0]) // 2],
    }[kind]()


_KINDS = ["normal", "two levels", "few levels", "offset", "one large", "tiny", "huge", "ramp", "classes repeated"]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(_KINDS),
    st.tuples(st.integers(1, 20), st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_labels_are_the_argmax_of_the_upsampled_scores(
    kind: str, shape: tuple[int, int, int], size: tuple[int, int], align_corners: bool, seed: int
) -> None:
    _assert_largest(_made(kind, shape, seed), size, align_corners)


_FLOATS = st.floats(-4, 4, width=16)
_ARRAYS = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=_FLOATS)
)


@settings(max_examples=200, deadline=None)
@given(_ARRAYS, st.tuples(st.integers(1, 24), st.integers(1, 24)), st.booleans())
@example(np.zeros((3, 2, 2), np.float32), (5, 5), True)
@example(np.float32([[[1, 0]], [[0, 1]]]), (4, 3), True)
def test_labels_of_any_logits(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> None:
    _assert_largest(logits, size, align_corners)


def _levels(shape: tuple[int, int, int], highest: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-highest, highest + 1, shape).astype(np.float32)


@settings(max_examples=300, deadline=None)
@given(
    st.tuples(st.integers(5, 24), st.integers(2, 7), st.integers(2, 7)),
    st.integers(2, 8),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_many_ties_at_pixels(
    shape: tuple[int, int, int], factor: int, highest: int, align_corners: bool, seed: int
) -> None:
    """Whole factors and few levels: many lines meet in the same point, and many pixels lie on such points."""
    size = tuple((length - 1) * factor + 1 if align_corners else length * factor for length in shape[1:])
    _assert_largest(_levels(shape, highest, seed), size, align_corners)


@pytest.mark.parametrize(
    ("shape", "size", "highest", "seed"),
    [
        ((17, 4, 5), (19, 25), 3, 365325217),
        ((20, 5, 6), (25, 31), 2, 3435843932),
    ],
)
def test_changes_that_rounding_would_put_out_of_order(
    shape: tuple[int, int, int], size: tuple[int, int], highest: int, seed: int
) -> None:
    """Found by search: three crossings in one point, whose places come out in another order in float32."""
    _assert_largest(_levels(shape, highest, seed), size, align_corners=True)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((19, 12, 24), (250, 501)),  # not whole-numbered
        ((19, 12, 24), (192, 384)),
        ((3, 12, 24), (12, 24)),  # as large
        ((11, 23, 30), (360, 480)),
        ((11, 40, 50), (13, 21)),  # smaller
        ((5, 40, 3), (11, 200)),  # smaller in one direction
        ((255, 5, 6), (64, 64)),
        ((7, 1, 1), (30, 40)),
        ((7, 1, 9), (30, 40)),
        ((7, 9, 1), (30, 40)),
        ((7, 9, 9), (1, 1)),
        ((4, 2, 2), (700, 900)),  # more than 255 pixels a score
        ((2, 3, 2), (9000, 2)),
    ],
)
def test_sizes(shape: tuple[int, int, int], size: tuple[int, int], align_corners: bool) -> None:
    _assert_largest(_made("normal", shape, seed=5), size, align_corners)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(97, 203), (8, 12), (5, 7), (1, 1)])
def test_agrees_with_torch_in_float64(size: tuple[int, int], align_corners: bool) -> None:
    torch = pytest.importorskip("torch")
    logits = _made("normal", (19, 8, 12), seed=2)
    double = torch.from_numpy(logits)[None].double()
    full = torch.nn.functional.interpolate(double, size, mode="bilinear", align_corners=align_corners)[0]
    best, second = full.topk(2, dim=0).values.numpy()
    sure = best - second > _TOLERANCE * np.ptp(logits)
    labels = label_map(logits, size, align_corners=align_corners)
    assert sure.mean() > 0.99
    np.testing.assert_array_equal(labels[sure], full.argmax(0).numpy()[sure])


def test_a_class_that_is_largest_at_no_score_wins_between_them() -> None:
    logits = np.float32([[[9, 0], [0, 0]], [[0, 0], [0, 9]], [[4, 4], [4, 4]]])
    labels = label_map(logits, (5, 5))
    assert labels.tolist() == [
        [0, 0, 0, 2, 2],  # 9, 6.75, 4.5, 2.25, 0 of class 0, against 4 all over
        [0, 0, 2, 2, 2],
        [0, 2, 2, 2, 1],
        [2, 2, 2, 1, 1],
        [2, 2, 1, 1, 1],
    ]


def test_a_class_wins_inside_a_cell_and_on_none_of_its_sides() -> None:
    corners = 8 * np.eye(4, dtype=np.float32).reshape(
        4, 2, 2
    )  # 4 and more of one on the sides, 2 of each in the middle
    logits = np.concatenate([corners, np.full((1, 2, 2), 3, np.float32)])
    labels = label_map(logits, (42, 42))
    assert labels[20, 20] == 4
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        assert (side < 4).all()
    _assert_largest(logits, (42, 42), align_corners=True)


def test_many_classes_cross_on_one_line() -> None:
    centres = np.arange(40, dtype=np.float32)  # tangents of a parabola: every one is the largest somewhere
    ends = np.float32([0, 39])
    logits = (2 * centres[:, None] * ends - centres[:, None] ** 2)[:, None, :]
    labels = label_map(logits, (3, 40 * 10))
    assert labels[0].tolist() == np.round(np.linspace(0, 39, 400)).tolist()
    assert label_map(logits.transpose(0, 2, 1), (400, 3))[:, 1].tolist() == labels[0].tolist()


@pytest.mark.parametrize("size", [(2, 3), (9, 9), (1, 1)])
def test_the_lowest_of_equal_classes(size: tuple[int, int]) -> None:
    assert not label_map(np.full((6, 2, 3), -7.5, np.float32), size).any()
    repeated = _made("normal", (3, 2, 3), seed=1)[[0, 1, 2, 0, 1, 2]]
    assert label_map(repeated, size).max() <= 2


def test_one_class() -> None:
    assert not label_map(_made("normal", (1, 4, 4), seed=0), (33, 44)).any()


def _between_numbers(logits: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The same numbers where maps, or the rows of a map, lie a number of bytes apart that is no multiple of four."""
    num_classes, height, width = logits.shape
    for row, between in ((4 * width, 1), (4 * width + 1, 4 - height % 4)):
        strides = (height * row + between, row, 4)
        view = np.ndarray(logits.shape, np.float32, bytearray(num_classes * strides[0]), strides=strides)
        view[...] = logits
        yield view


@pytest.mark.parametrize("size", [(50, 60), (5, 6)])
def test_any_strides_and_the_scores_are_left_as_they_are(size: tuple[int, int]) -> None:
    logits = _made("normal", (5, 7, 9), seed=3)
    expected = label_map(logits, size)
    channels_last = np.ascontiguousarray(logits.transpose(1, 2, 0)).transpose(2, 0, 1)
    spaced = np.zeros((5, 14, 27), np.float32)
    spaced[:, ::2, ::3] = logits
    flipped = np.ascontiguousarray(logits[:, ::-1, ::-1])[:, ::-1, ::-1]
    for view in (channels_last, spaced[:, ::2, ::3], flipped, *_between_numbers(logits)):
        view.flags.writeable = False
        np.testing.assert_array_equal(label_map(view, size), expected)


def test_labels_are_an_array_of_their_own() -> None:
    labels = label_map(_made("normal", (5, 3, 4), seed=3), (30, 40))
    assert labels.flags.c_contiguous
    assert labels.flags.writeable


def test_several_threads_at_once() -> None:
    logits = [_made("normal", (19, 12, 24), seed=seed) for seed in range(8)]
    alone = [label_map(each, (192, 384)) for each in logits]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: label_map(each, (192, 384)), logits))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("num_threads", [2, 3, 50])
@pytest.mark.parametrize("shape", [(19, 12, 24), (3, 1, 5), (7, 4, 1)])
def test_threads_share_the_work_and_change_nothing(shape: tuple[int, int, int], num_threads: int) -> None:
    logits = _made("normal", shape, seed=6)
    labels = label_map(logits, (101, 203), num_threads=num_threads)
    np.testing.assert_array_equal(labels, label_map(logits, (101, 203)))


@pytest.mark.parametrize("shape", [(19, 24, 48), (19, 360, 720)])
def test_the_full_score_map_is_never_built(shape: tuple[int, int, int]) -> None:
    logits = _made("normal", shape, seed=4)
    tracemalloc.start()
    try:
        labels = label_map(logits, (512, 1024))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    beside_the_logits = peak - logits.nbytes  # one copy of them is made
    assert beside_the_logits < 0.4 * 4 * len(logits) * labels.size


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [(50, 60), (3, 4)])
def test_scores_that_are_not_finite_are_refused(bad: float, size: tuple[int, int]) -> None:
    logits = _made("normal", (5, 7, 9), seed=3)
    logits[2, 3, 4] = bad
    with pytest.raises(LpsnetError, match="NaN, infinity"):
        label_map(logits, size)


def test_differences_beyond_float32_are_refused() -> None:
    with pytest.raises(LpsnetError, match="beyond float32"):
        label_map(np.float32([[[3e38]], [[-3e38]]]), (4, 4))


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((3, 2, 2)), "float32, not float64"),
        (np.zeros((3, 2, 2), np.float16), "float32, not float16"),
        ([[[1.0]]], "float32, not list"),
        (np.zeros((2, 2), np.float32), r"K x h x w .* got \(2, 2\)"),
        (np.zeros((1, 3, 2, 2), np.float32), r"got \(1, 3, 2, 2\)"),
        (np.zeros((0, 2, 2), np.float32), "K from 1 to 255"),
        (np.zeros((3, 0, 2), np.float32), "h, w at least 1"),
        (np.zeros((256, 2, 2), np.float32), r"got \(256, 2, 2\)"),
    ],
)
def test_wrong_logits_are_refused(logits: np.ndarray, message: str) -> None:
    with pytest.raises(LpsnetError, match=message) as raised:
        label_map(logits, (4, 4))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4,), (4, 4, 4), (4.0, 4), ("4", 4)])
def test_wrong_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(LpsnetError, match="height, width"):
        label_map(np.zeros((3, 2, 2), np.float32), size)


def test_sizes_may_be_of_numpy_integers() -> None:
    assert label_map(np.zeros((3, 2, 2), np.float32), tuple(np.int64([4, 5]))).shape == (4, 5)

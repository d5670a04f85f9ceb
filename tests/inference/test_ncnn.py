"""What is ncnn's own: containers, models written by hand, memory that is not its own, damaged files."""

import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ncnn")


from lpsnet.data.labels import CAMVID
from lpsnet.errors import DataError, ModelFileError
from lpsnet.inference.engines import Session, SessionOptions, open_session
from lpsnet.inference.model_file import read_container, write_container
from lpsnet.record import ModelRecord

RECORD = ModelRecord(architecture="tiny", label_space=CAMVID)

RELU = """7767517
2 2
Input   in0  0 1 in0 2=3
ReLU    r    1 1 in0 out0
"""
# a 1x1 convolution from 3 to 2 channels with bias behind a resize to twice the size (0=2: bilinear, 6=1: corners kept)
RESIZE = """7767517
3 3
Input       in0  0 1 in0 0=3 1=2 2=3
Interp      up   1 1 in0 big 0=2 1=2.0 2=2.0 6=1
Convolution c    1 1 big out0 0=2 1=1 5=1 6=6
"""
WEIGHT = np.array([[1, 0, 2], [0, -1, 0.5]], np.float32)
BIAS = np.array([10, 20], np.float32)
# ncnn keeps a flag of 4 bytes (0: float32) before the weights, none before the bias
WEIGHTS = struct.pack("<I", 0) + WEIGHT.tobytes() + BIAS.tobytes()


def opened(folder: Path, description: str, weights: bytes = b"", **options: object) -> Session:
    path = folder / "model.ncnn"
    write_container(path, description=description.encode(), weights=weights, record=RECORD)
    return open_session("ncnn", SessionOptions(path, **options))  # type: ignore[arg-type]


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 10


def test_a_layer_that_computes_in_place_does_not_reach_the_callers_image(tmp_path: Path) -> None:
    session = opened(tmp_path, RELU)
    images = ramp(2, 3, 4, 5)
    before = images.copy()
    np.testing.assert_array_equal(session.run(images), np.maximum(before, 0))
    np.testing.assert_array_equal(images, before)


def test_corners_stay_where_they_are(tmp_path: Path) -> None:
    """Bilinear, align_corners=True: rows 0, 1/3, 2/3, 1 and columns 0, 2/5, …, 2 of a ramp, which is its own result."""
    session = opened(tmp_path, RESIZE, WEIGHTS, num_threads=1)
    images = ramp(1, 3, 2, 3)
    rows, columns = np.linspace(0, 1, 4), np.linspace(0, 2, 6)
    big = np.stack([6 * c + 3 * rows[:, None] + columns[None] - 10 for c in range(3)])
    expected = np.einsum("kc,cyx->kyx", WEIGHT, big) + BIAS[:, None, None]
    np.testing.assert_allclose(session.run(images)[0], expected, rtol=1e-5, atol=1e-5)


def test_the_description_says_what_the_input_is(tmp_path: Path) -> None:
    session = opened(tmp_path, RESIZE, WEIGHTS)
    with pytest.raises(DataError, match="float32 any x 3 x 2 x 3; got float32 1 x 3 x 4 x 4"):
        session.run(ramp(1, 3, 4, 4))
    with pytest.raises(ModelFileError, match="was exported for 2 x 3"):
        opened(tmp_path, RESIZE, WEIGHTS, input_size=(4, 4))


def test_threads(tmp_path: Path) -> None:
    assert opened(tmp_path, RESIZE, WEIGHTS, num_threads=3).num_threads == 3
    assert (opened(tmp_path, RESIZE, WEIGHTS).num_threads or 0) >= 1


def test_bf16_rounds_to_eight_bits(tmp_path: Path) -> None:
    """3 + 1/512 and 3 are the same in bf16."""
    try:
        session = opened(tmp_path, RESIZE, WEIGHTS, precision="bf16")
    except ModelFileError:
        pytest.skip("this ncnn has no bf16")
    assert session.precision == "bf16"
    images = np.full((1, 3, 2, 3), 3, np.float32)
    np.testing.assert_array_equal(session.run(images + np.float32(1 / 512)), session.run(images))
    exact = opened(tmp_path, RESIZE, WEIGHTS)
    assert (exact.run(images + np.float32(1 / 512)) != exact.run(images)).any()


@pytest.mark.parametrize(
    ("description", "weights", "message"),
    [
        ("not a network\n", WEIGHTS, "not a network of ncnn"),
        ("7767517\n1 1\nReLU r one 1 a b\n", WEIGHTS, "not a network of ncnn"),
        (RESIZE.replace("Interp ", "Interpx"), WEIGHTS, "not a network of this ncnn"),
        (RESIZE.replace("7767517", "7767518"), WEIGHTS, "not a network of this ncnn"),
        (RESIZE.replace("Interp      up   1 1 in0 big", "pnnx.Expression up 1 1 in0 big"), WEIGHTS, "of this ncnn"),
        (RESIZE, WEIGHTS[:-4], "weights do not belong"),
        (RESIZE, WEIGHTS + bytes(4), "weights do not belong"),
        (RESIZE, b"", "weights do not belong"),
    ],
)
def test_what_does_not_fit_is_refused_and_crashes_nothing(
    tmp_path: Path, description: str, weights: bytes, message: str
) -> None:
    with pytest.raises(ModelFileError, match=message) as error:
        opened(tmp_path, description, weights)
    assert "model.ncnn" in str(error.value)
    assert "\n" not in str(error.value)


CONCATENATION = """7767517
3 3
Input  a 0 1 a
Input  b 0 1 b
Concat c 2 1 a b out0 0=0
"""


def test_several_inputs_are_given_in_their_order(tmp_path: Path) -> None:
    session = opened(tmp_path, CONCATENATION)
    first, second = ramp(2, 1, 2, 2), ramp(2, 2, 2, 2)
    np.testing.assert_array_equal(session.run(first, second), np.concatenate([first, second], axis=1))
    with pytest.raises(DataError, match="same number of images"):
        session.run(first, second[:1])


def test_a_run_that_ncnn_gives_up_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping:
        def create_extractor(self) -> "Stopping":
            return self

        def input(self, *_: object) -> None:
            pass

        def extract(self, _: str) -> tuple[int, None]:
            return -100, None

    session = opened(tmp_path, RELU)
    monkeypatch.setattr(session, "_net", Stopping())
    with pytest.raises(ModelFileError, match=r"ncnn cannot run .*model.ncnn: it stopped with code -100"):
        session.run(ramp(1, 3, 2, 2))


def test_a_quantised_network_says_int8(tmp_path: Path) -> None:
    """8=2 is ncnn's mark of a convolution with scales; after the bias, one an output channel, one for the input."""
    description = RESIZE.replace("5=1 6=6", "5=1 6=6 8=2")
    quantised = np.array([[127, 0, 127], [0, -127, 64]], np.int8)
    # flag of int8 weights, padded to 4 bytes; a scale is 127 over the largest value
    weights = struct.pack("<I", 0x000D4B38) + quantised.tobytes() + bytes(2) + BIAS.tobytes()
    weights += np.array([127, 127, 127 / 10], np.float32).tobytes()
    session = opened(tmp_path, description, weights, num_threads=1)
    assert session.precision == "int8"
    assert opened(tmp_path, description, weights, precision="int8").precision == "int8"
    given = session.run(np.full((1, 3, 2, 3), 5, np.float32))[0]
    np.testing.assert_allclose(given[0], 10 + 5 * (1 + 1), atol=0.2)
    np.testing.assert_allclose(given[1], 20 + 5 * (-1 + 0.5), atol=0.2)


def test_the_weights_are_the_containers(tmp_path: Path) -> None:
    opened(tmp_path, RESIZE, WEIGHTS)
    assert read_container(tmp_path / "model.ncnn") == (RESIZE.encode(), WEIGHTS)

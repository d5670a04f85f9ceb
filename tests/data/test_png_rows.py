"""PNG files written in parts: read by OpenCV and Pillow, and checked chunk by chunk."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lpsnet.data.image_rows import png_writer
from lpsnet.data.images import read_image, read_mask
from lpsnet.errors import DataError

RNG = np.random.default_rng(0)
KINDS = {
    "labels": RNG.integers(0, 256, (50, 37), dtype=np.uint8),
    "16 bits": RNG.integers(0, 65536, (50, 37), dtype=np.uint16),
    "colours": RNG.integers(0, 256, (50, 37, 3), dtype=np.uint8),
    "one pixel wide": RNG.integers(0, 256, (50, 1), dtype=np.uint8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuts", [[], [1], [7, 8, 40]])
def test_what_is_written_is_read(tmp_path: Path, kind: str, cuts: list[int]) -> None:
    pixels, path = KINDS[kind], tmp_path / "sub/a.png"
    with png_writer(path) as write:
        for rows in np.split(pixels, cuts):
            write(rows)
    found = read_image(path) if pixels.ndim == 3 else read_mask(path)  # these compare all checksums
    np.testing.assert_array_equal(found, pixels)
    assert found.dtype == pixels.dtype
    np.testing.assert_array_equal(np.asarray(Image.open(path)), pixels)
    if pixels.ndim == 2:
        np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), pixels)


def test_nothing_is_left_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"), png_writer(tmp_path / "a.png"):
        pass
    with pytest.raises(DataError, match="width"), png_writer(tmp_path / "a.png") as write:
        list(map(write, (KINDS["labels"], KINDS["colours"])))
    assert list(tmp_path.iterdir()) == []

"""Label files with shapes: no file outside of the folders is opened, nothing is expanded beyond the limit."""

import base64
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError

SECRET = np.full((4, 4, 3), 200, np.uint8)


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def labelme(name: str) -> dict[str, Any]:
    return {"shapes": [], "imagePath": name, "imageData": None, "imageHeight": 4, "imageWidth": 4}


@pytest.mark.parametrize("name", ["../secret.png", "{}/secret.png", "..\\secret.png", "inside/../../secret.png"])
def test_images_outside_of_the_folder_are_not_read(tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(tmp_path / "secret.png"), SECRET)
    name = name.format(tmp_path)
    folder = tmp_path / "set"
    write(folder / "a.json", labelme(name))
    write(
        folder / "b.json",
        {"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": [{"id": 1, "name": "x"}]},
    )
    cv2.imwrite(str(folder / "other.png"), SECRET)
    for text in (f"labelme:{folder}/a.json,names=x", f"coco:{folder}/b.json"):
        (pair,) = next(iter(open_dataset(text).parts.values())).pairs  # type: ignore[attr-defined]
        assert pair.image.parent == folder
        assert ".." not in pair.name
        assert not pair.image.exists()


def test_run_lengths_and_bitmaps_claim_what_they_like(tmp_path: Path) -> None:
    """Refused without the memory that they ask for."""
    cv2.imwrite(str(tmp_path / "a.png"), SECRET)
    header = base64.b64encode(cv2.imencode(".png", np.ones((4, 4), np.uint8))[1].tobytes().replace(
        (4).to_bytes(4) + (4).to_bytes(4), (10**6).to_bytes(4) + (10**6).to_bytes(4), 1)).decode()  # fmt: skip
    shape = {"label": "x", "points": [[0, 0], [1, 1]], "shape_type": "mask", "mask": header}
    runs = {"size": [10**6, 10**6], "counts": [0, 10**12]}
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "x"}],
            "annotations": [{"image_id": 1, "category_id": 1, "segmentation": runs}]}  # fmt: skip
    tracemalloc.start()
    for name, value in (("labelme", labelme("a.png") | {"shapes": [shape]}), ("coco", coco)):
        path = write(tmp_path / "labels.json", value)
        with pytest.raises(DataError):
            open_dataset(f"{name}:{path}")
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_a_compressed_bitmap_is_expanded_up_to_the_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lpsnet.data.formats.supervisely.MAX_PIXELS", 2**20)
    data = base64.b64encode(zlib.compress(bytes(2**28), 9)).decode()
    item = {"classTitle": "x", "geometryType": "bitmap", "bitmap": {"origin": [0, 0], "data": data}}
    write(tmp_path / "meta.json", {"classes": [{"title": "x"}]})
    write(tmp_path / "d/ann/a.png.json", {"size": {"height": 4, "width": 4}, "objects": [item]})
    (tmp_path / "d/img").mkdir()
    tracemalloc.start()
    with pytest.raises(DataError, match="its data"):
        open_dataset(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()


def test_entities_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "precious")
    entity = f'<!DOCTYPE a [<!ENTITY b SYSTEM "file://{secret}">]>'
    write(
        tmp_path / "set/annotations.xml",
        f'{entity}<annotations><image id="0" name="&b;" width="1" height="1"/></annotations>',
    )
    with pytest.raises(DataError, match="defines entities") as caught:
        open_dataset(f"cvat:{tmp_path}/set")
    assert "precious" not in str(caught.value)

"""`lpsnet data convert`: there and back; exact without a tolerance, IoU of 99 % and more with a small one."""

import json
from pathlib import Path
from xml.etree import ElementTree

import cv2
import label_files as files
import numpy as np
import pytest
from image_files import with_exif_orientation, write_image
from pycocotools.coco import COCO

from lpsnet.data import convert
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import WRITERS, Dataset, open_dataset
from lpsnet.data.labels import IGNORE_INDEX
from lpsnet.errors import DataError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'


def write(dataset: Dataset, to: str, folder: Path, **options: object) -> list[str]:
    splits = [dataset.split(name) for name in dataset.splits]
    return convert.convert(splits, dataset.label_space, WRITERS[to], folder, **options)  # type: ignore[arg-type]


def labels_of(dataset: Dataset) -> dict[tuple[str, str], np.ndarray]:
    return {(split, sample.name): sample.labels for split in dataset.splits for sample in dataset.split(split)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("place", [".", "masks", "up/.."])
def test_never_over_the_data_set_itself(scenes: Dataset, tmp_path: Path, place: str) -> None:
    """Its label files would be replaced by others, whose ids are in another order."""
    write(scenes, "masks", tmp_path)
    (tmp_path / "up").mkdir()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"holds the data set itself, such as .*\.png"):
        write(open_dataset(tmp_path), "masks", tmp_path / place, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    write(open_dataset(tmp_path), "masks", tmp_path / "new")  # a folder of its own inside is one


def test_a_tolerance_is_a_number(scenes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a tolerance is 0 to 1000 pixels; got nan"):
        write(scenes, "coco", tmp_path / "x", tolerance=float("nan"))
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    return open_dataset("scenes:size=96x160,num_train=3,num_val=2,seed=4")


@pytest.mark.parametrize("to", WRITERS)
def test_there_and_back_is_exact(scenes: Dataset, tmp_path: Path, to: str) -> None:
    """Every pixel, every image, the classes with their order; pixels without a label stay without one."""
    write(scenes, to, tmp_path / to)
    again = open_dataset(tmp_path / to)
    assert (again.splits, again.label_space.names) == (scenes.splits, scenes.label_space.names)
    before, after = labels_of(scenes), labels_of(again)
    assert before.keys() == after.keys()
    for key, labels in before.items():
        assert (labels == after[key]).all()
        assert (again.split(key[0]).image(0) == scenes.split(key[0]).image(0)).all()
    assert not [finding for finding in check_dataset(str(tmp_path / to)).findings if finding.severity == "error"]


@pytest.mark.parametrize("first", WRITERS)
def test_any_into_any(scenes: Dataset, tmp_path: Path, first: str) -> None:
    write(scenes, first, tmp_path / "first")
    wanted = labels_of(scenes)
    for second in WRITERS:
        write(open_dataset(tmp_path / "first"), second, tmp_path / second)
        found = labels_of(open_dataset(tmp_path / second))
        assert all((found[key] == labels).all() for key, labels in wanted.items())


@pytest.mark.parametrize("to", sorted(set(WRITERS) - {"masks"}))
def test_a_tolerance_keeps_every_class(tmp_path: Path, to: str) -> None:
    """IoU of 99 % or more for every class of the scenes at half a pixel, with fewer points."""
    dataset = open_dataset("scenes:size=256x512,num_train=2,num_val=1,seed=2")
    write(dataset, to, tmp_path / "fewer", tolerance=0.5)
    write(dataset, to, tmp_path / "exact")
    before, after = labels_of(dataset), labels_of(open_dataset(tmp_path / "fewer"))
    for label in range(dataset.label_space.num_classes):
        both = sum(((before[key] == label) & (after[key] == label)).sum() for key in before)
        either = sum(((before[key] == label) | (after[key] == label)).sum() for key in before)
        assert either
        assert both / either >= 0.99, (label, both / either)
    texts = [[path for path in (tmp_path / name).rglob("*") if path.suffix in (".json", ".txt", ".xml")]
             for name in ("fewer", "exact")]  # fmt: skip
    fewer, exact = (sum(path.stat().st_size for path in paths) for paths in texts)
    assert fewer < exact


def test_coco_as_pycocotools_reads_it(scenes: Dataset, tmp_path: Path) -> None:
    """Its own loader, categories, areas, boxes and masks: exact where run-length encoded, else but for outlines."""
    write(scenes, "coco", tmp_path)
    theirs = COCO(tmp_path / "annotations/instances_train.json")
    names = [category["name"] for category in theirs.loadCats(theirs.getCatIds())]
    assert names == list(scenes.label_space.names)
    num_runs = 0
    for number, sample in zip(theirs.getImgIds(), scenes.split("train"), strict=True):  # type: ignore[call-overload]
        drawn = np.full(sample.labels.shape, IGNORE_INDEX, np.uint8)
        for annotation in theirs.loadAnns(theirs.getAnnIds(imgIds=number)):
            mask = theirs.annToMask(annotation).astype(bool)
            left, top, width, height = annotation["bbox"]
            assert mask.sum() == pytest.approx(annotation["area"], abs=0.5 * (width + height) + 1)
            if isinstance(annotation["segmentation"], dict):
                num_runs += 1
                assert mask.sum() == annotation["area"]
                assert (sample.labels[mask] == annotation["category_id"] - 1).all()
            rows, columns = np.nonzero(mask)
            assert left <= columns.min() <= columns.max() < left + width
            assert top <= rows.min() <= rows.max() < top + height
            drawn[mask] = annotation["category_id"] - 1
        assert (drawn == sample.labels).mean() > 0.98
    assert num_runs


def test_holes_in_every_format(tmp_path: Path) -> None:
    """A ring of one class: its hole is written as each format has holes."""
    labels = np.full((8, 10), IGNORE_INDEX, np.uint8)
    labels[1:7, 1:9] = 0
    labels[3:5, 3:6] = IGNORE_INDEX
    files.save_image(tmp_path / "d/images/train/a.png", height=8, width=10)
    write_image(tmp_path / "d/masks/train/a.png", labels)
    files.save(tmp_path / "d/data.yaml", "names: [ring]\n")
    for to in WRITERS:
        write(open_dataset(tmp_path / "d"), to, tmp_path / to)
        assert (labels_of(open_dataset(tmp_path / to))["train", "a"] == labels).all()
    (annotation,) = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())["annotations"]
    assert annotation["segmentation"].keys() == {"size", "counts"}
    assert (annotation["bbox"], annotation["area"]) == ([1, 1, 8, 6], 42)
    (shape,) = json.loads((tmp_path / "labelme/images/train/a.json").read_text())["shapes"]
    assert (shape["shape_type"], shape["points"]) == ("mask", [[1, 1], [8, 6]])
    tree = ElementTree.parse(tmp_path / "cvat/annotations.xml")
    (mask,) = tree.iter("mask")
    assert [int(mask.get(key, "")) for key in ("left", "top", "width", "height")] == [1, 1, 8, 6]
    ((result,),) = [item["result"] for task in json.loads((tmp_path / "labelstudio/tasks.json").read_text())
                    for item in task["annotations"]]  # fmt: skip
    assert result["type"] == "brushlabels"
    assert len((tmp_path / "yolo/labels/train/a.txt").read_text().split()) == 1 + 2 * (4 + 4 + 2)


def test_names_in_folders_and_words_that_formats_have_a_meaning_for(tmp_path: Path) -> None:
    """A name with blanks, quotes and signs of XML; folders below a split; a split without labels."""
    name = 'side "walk" & <kerb>, é'
    for split in ("train", "val", "test"):
        files.save_image(tmp_path / f"d/images/{split}/ulm/a b.png")
        if split != "test":
            write_image(tmp_path / f"d/masks/{split}/ulm/a b.png", np.full((12, 16), 1, np.uint8))
    files.save(tmp_path / "d/data.yaml", json.dumps({"names": ["road", name]}))
    for to in WRITERS:
        write(open_dataset(tmp_path / "d"), to, tmp_path / to)
        again = open_dataset(tmp_path / to)
        assert again.label_space.names == ("road", name)
        assert len(again.split("train").names) == 1
        assert again.split("train").names[0].endswith("a b")
        assert (again.split("val").labels(0) == 1).all()
        assert (tmp_path / to / "images/test/ulm/a b.png").is_file()


def test_rotated_images_keep_their_labels(tmp_path: Path) -> None:
    """By EXIF: the image is copied as it is, and its labels are those of the upright one."""
    jpeg = bytes(cv2.imencode(".jpg", files.image())[1])
    (tmp_path / "d/images/train").mkdir(parents=True)
    (tmp_path / "d/images/train/a.jpg").write_bytes(with_exif_orientation(jpeg, 6))
    labels = np.zeros((16, 12), np.uint8)
    labels[:5, 3:] = 1
    write_image(tmp_path / "d/masks/train/a.png", labels)
    files.save(tmp_path / "d/data.yaml", "names: [road, car]\n")
    for to in WRITERS:
        write(open_dataset(tmp_path / "d"), to, tmp_path / to)
        (sample,) = open_dataset(tmp_path / to).split("train")  # type: ignore[misc]
        assert (sample.labels == labels).all()
        assert sample.image.shape == (16, 12, 3)


def test_a_folder_with_files_is_left_alone(scenes: Dataset, tmp_path: Path) -> None:
    files.save(tmp_path / "mine.txt", "precious")
    with pytest.raises(RunError, match="has files already; give another folder, or --overwrite"):
        write(scenes, "coco", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    write(scenes, "coco", tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "precious"
    with pytest.raises(RunError, match=r"mine.txt is a file; give a folder"):
        write(scenes, "coco", tmp_path / "mine.txt")
    with pytest.raises(DataError, match="a tolerance is 0 to 1000 pixels"):
        write(scenes, "coco", tmp_path / "new", tolerance=-1)


@pytest.mark.parametrize("to", WRITERS)
def test_a_folder_from_here(scenes: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    monkeypatch.chdir(tmp_path)
    write(scenes, to, Path("x/../y"))
    assert len(open_dataset(tmp_path / "y").split("train")) == 3
    assert len(open_dataset("y").split("val")) == 2


def test_progress_is_reported(scenes: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write(scenes, "yolo", tmp_path / "y", on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 5) for number in range(1, 6)]


def large(folder: Path, *, size: tuple[int, int] = (150, 230), suffix: str = ".tif") -> tuple[np.ndarray, np.ndarray]:
    """A data set of one image, for a TIFF file in tiles of 16x16, of which only a part is labelled."""
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (*size, 3), np.uint8), np.full(size, IGNORE_INDEX, np.uint8)
    labels[:80, :130] = rng.integers(0, 2, (80, 130))
    for kind in ("images", "masks"):
        (folder / kind / "train").mkdir(parents=True)
    if suffix == ".tif":
        options = {"tile": (16, 16), "compression": "zlib", "photometric": "rgb"}
        pytest.importorskip("tifffile").imwrite(folder / "images/train/a.tif", image, **options)
    else:
        write_image(folder / f"images/train/a{suffix}", image)
    write_image(folder / "masks/train/a.png", labels)
    (folder / "data.yaml").write_text("name: large\nnames: [one, two]\n")
    return image, labels


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_tiles_are_the_image(tmp_path: Path, suffix: str) -> None:
    """Laid out again by their names they are all of the labelled pixels, and their neighbours."""
    image, labels = large(tmp_path / "in", suffix=suffix)
    remarks = write(open_dataset(tmp_path / "in/data.yaml"), "masks", tmp_path / "out", tile=(64, 96))
    assert any(remark.startswith("4 tiles were cut, of 64x96 where the image is as large") for remark in remarks)
    assert any("5 tiles without a labelled pixel were left out, such as a_" in remark for remark in remarks)
    found, seen = np.full_like(labels, IGNORE_INDEX), np.zeros(labels.shape, bool)
    split = open_dataset(tmp_path / "out/data.yaml").split("train")
    for sample in split:  # type: ignore[attr-defined]
        top, left = map(int, sample.name.split("_")[1:])
        assert (top, left) in {(y, x) for y in (0, 64, 86) for x in (0, 96, 134)}
        place = slice(top, top + 64), slice(left, left + 96)
        assert sample.labels.shape == (64, 96)
        np.testing.assert_array_equal(sample.image, image[place])
        found[place], seen[place] = sample.labels, True
    np.testing.assert_array_equal(found, labels)
    assert seen[labels != IGNORE_INDEX].all()


def test_a_large_tiff_is_not_decoded_whole_for_its_tiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large(tmp_path / "in")
    decoded = []
    usual = convert.image_rows.TiffRows.read
    monkeypatch.setattr(
        convert.image_rows.TiffRows, "read", lambda self, top, end: decoded.append(end - top) or usual(self, top, end)
    )
    monkeypatch.setattr(convert.image_rows, "read_image", lambda *_: pytest.fail("read whole"))
    monkeypatch.setattr("lpsnet.data.split.FileSplit.image", lambda *_: pytest.fail("read whole"))
    write(open_dataset(tmp_path / "in/data.yaml"), "coco", tmp_path / "out", tile=(64, 96))
    assert decoded == [64, 64, 64]


def test_images_smaller_than_a_tile_stay_whole(scenes: Dataset, tmp_path: Path) -> None:
    write(scenes, "coco", tmp_path, tile=(128, 512))
    before, after = labels_of(scenes), labels_of(open_dataset(f"coco:{tmp_path}"))
    assert {(split, f"{name}_0_0") for split, name in before} == set(after)
    assert all((after[split, f"{name}_0_0"] == labels).all() for (split, name), labels in before.items())


def test_what_cannot_be_cut_into_tiles_is_refused(tmp_path: Path) -> None:
    large(tmp_path / "in", suffix=".png")
    write_image(tmp_path / "in/masks/train/a.png", np.zeros((20, 30), np.uint8))
    with pytest.raises(DataError, match="image a is 150x230 but its labels 20x30"):
        write(open_dataset(tmp_path / "in/data.yaml"), "masks", tmp_path / "out", tile=(64, 96))
    (tmp_path / "in/data.yaml").write_text("name: large\nnames: [one, two]\nchannels: [a, b]\n")
    with pytest.raises(DataError, match="tiles are cut from RGB images; here are"):
        write(open_dataset(tmp_path / "in/data.yaml"), "masks", tmp_path / "other", tile=(64, 96))

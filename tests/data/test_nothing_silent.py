"""Faults of data sets that were once passed over: each is told, in words of its own."""

import os
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_files import write_image, write_palette_png
from PIL import Image

from lpsnet.data import images, pairing
from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset
from lpsnet.data.inspection import Diagnosis
from lpsnet.data.split import FileSplit, usual_size
from lpsnet.errors import DataError

NAMES = "names: [road, car, sky]"


def photograph(seed: int, *size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*(size or (12, 16)), 3), dtype=np.uint8)


def ids(*values: int) -> np.ndarray:
    return np.resize(np.array(values, np.uint8), (12, 16))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val")):
        for index in range(3):
            write_image(tmp_path / "images" / split / f"{index}.png", photograph(10 * number + index))
            write_image(tmp_path / "masks" / split / f"{index}.png", ids(0, 1, 2))
    (tmp_path / "own.yaml").write_text(NAMES)
    return tmp_path


def told(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for finding in check(folder).findings:
        found.setdefault(finding.kind, []).append(finding.message)
    return found


def check(folder: Path) -> Diagnosis:
    return check_dataset(folder / "own.yaml")


def test_nothing_is_told_of_a_sound_one(folder: Path) -> None:
    assert told(folder) == {}


def test_two_label_files_of_one_image_are_never_chosen_between(folder: Path) -> None:
    write_image(folder / "masks" / "train" / "1.bmp", ids(2, 1, 0))
    messages = told(folder)
    assert list(messages) == ["doubtful_layout"]
    assert "1.png" in messages["doubtful_layout"][0]
    assert "1.bmp" in messages["doubtful_layout"][0]
    dataset = open_dataset(folder / "own.yaml")
    with pytest.raises(DataError, match=r"has 2 label files: .*keep one of them"):
        dataset.split("train")
    assert len(dataset.split("val")) == 3  # one bad name does not stop the others
    with pytest.raises(DataError, match="has 2 label files"):
        dataset.parts["train"].labels(1)
    assert np.array_equal(dataset.parts["train"].labels(0), ids(0, 1, 2))


def test_two_images_with_their_own_label_files_are_two(folder: Path) -> None:
    for suffix in (".png", ".bmp"):
        write_image(folder / "images" / "train" / f"twin{suffix}", photograph(len(suffix), 12, 16))
        write_image(folder / "masks" / "train" / f"twin{suffix}.png", ids({".png": 1, ".bmp": 2}[suffix]))
    write_image(folder / "images" / "train" / "twin.bmp", photograph(77))
    part = open_dataset(folder / "own.yaml").split("train")
    assert part.names[3:] == ("twin.bmp", "twin.png")
    assert [int(part.labels(index).max()) for index in (3, 4)] == [2, 1]


def test_a_label_file_of_a_lossy_format_is_named(folder: Path) -> None:
    (folder / "masks" / "val" / "2.png").unlink()
    write_image(folder / "masks" / "val" / "2.jpg", ids(0, 1, 2))
    (message,) = told(folder)["missing_mask"]
    assert "2.jpg is of a format that changes ids" in message


def test_label_files_that_are_all_of_a_lossy_format_are_named(folder: Path) -> None:
    for path in sorted((folder / "masks").rglob("*.png")):
        write_image(path.with_suffix(".jpg"), ids(0, 1, 2))
        path.unlink()
    (message,) = told(folder)["cannot_open"]
    assert "there are no label files (PNG, BMP or TIFF); " in message
    assert "/masks/train/0.jpg is of a format that changes ids: save labels as PNG" in message


def test_files_that_are_left_out_are_counted(folder: Path) -> None:
    for place in ("images/train/a.heic", "images/train/b.HEIC", "images/val/c.gif"):
        (folder / place).write_bytes(b"-")
    write_image(folder / "masks" / "validation" / "9.png", ids(0))  # of no split's name
    messages = told(folder)
    counts = [message.split(" (")[0] for message in messages["unread_kind"]]
    assert counts == [
        f"files of format {kind}, which is not read: {count}" for kind, count in ((".heic", 2), (".gif", 1))
    ]
    assert f"validation, images or label files that belong to no split: 1 (first: {folder}" in messages["left_out"][0]


def test_links_are_followed_once(folder: Path) -> None:
    (folder / "images" / "train").rename(folder / "elsewhere")
    (folder / "images" / "train").symlink_to(folder / "elsewhere", target_is_directory=True)
    (folder / "elsewhere" / "again").symlink_to(folder / "elsewhere", target_is_directory=True)
    assert open_dataset(folder / "own.yaml").split("train").names == ("0", "1", "2")
    assert told(folder) == {}


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_in_either_form(folder: Path, form: str) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    name = "Fußgänger é 1"
    write_image(folder / "images" / "val" / f"{unicodedata.normalize(form, name)}.png", photograph(5))
    write_image(folder / "masks" / "val" / f"{unicodedata.normalize(other, name)}.png", ids(2))
    part = open_dataset(folder / "own.yaml").split("val")
    assert part.names[-1] == unicodedata.normalize("NFC", name)
    assert part.labels(3).max() == 2
    (folder / "val.txt").write_text(f"images/val/{unicodedata.normalize(other, name)}.png\n", encoding="utf-8")
    (folder / "own.yaml").write_text(f"{NAMES}\nimages: {{val: val.txt}}\nmasks: {{val: masks/val}}")
    assert open_dataset(folder / "own.yaml").split("val").labels(0).max() == 2


def test_lists_with_blanks_in_names(tmp_path: Path) -> None:
    lines = {
        "a.png": ["a.png"],
        "my road/a 1.png": ["my road/a 1.png"],
        "a 1.png b 1.png": ["a 1.png", "b 1.png"],
        "a.jpg b.png": ["a.jpg", "b.png"],
        "a 1\tb 1": ["a 1", "b 1"],
        "2007_000032  1": ["2007_000032", "1"],
        "one two three": ["one two three"],
    }
    (tmp_path / "list.txt").write_text("\n\n".join(lines))
    assert pairing.read_list(tmp_path / "list.txt") == list(lines.values())


def test_a_bad_line_of_a_list_does_not_stop_the_others(folder: Path) -> None:
    (folder / "train.txt").write_text("images/train/0.png\nimages/train/gone.png\nimages/train/2.png\n")
    (folder / "own.yaml").write_text(f"{NAMES}\nimages: {{train: train.txt}}\nmasks: {{train: masks/train}}")
    messages = told(folder)
    assert len(messages["unreadable"]) == len(messages["missing_mask"]) == 1
    assert check(folder).counts["train"].num_labelled == 2


def test_sixteen_bits_that_hold_twelve(folder: Path) -> None:
    path = folder / "images" / "train" / "0.png"
    cv2.imwrite(str(path), np.linspace(0, 4095, 192).reshape(12, 16).astype(np.uint16))
    (message,) = told(folder)["few_bits"]
    assert "numbers up to 4095 alone (12 bits" in message
    assert message.endswith("multiply them by 16")


@pytest.mark.parametrize("kind", ["bits", "palette"])
def test_label_files_of_mixed_kinds(folder: Path, kind: str) -> None:
    path = folder / "masks" / "val" / "1.png"
    if kind == "bits":
        Image.fromarray(ids(0, 255)).convert("1").save(path)
    else:
        write_palette_png(path, ids(0, 1, 2).astype(int), [(level, level, level) for level in (0, 2, 3)])
    (message,) = told(folder)["mixed_label_files"]
    held = {"bits": "numbers of 1 bit", "palette": "indices into a palette"}[kind]
    assert message.startswith(f"1 of 6 label files hold {held} (first: {path}), 5 hold numbers of 8 or 16 bits")


def test_turns_that_sizes_do_not_show(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = folder / "images" / "train" / "0.png"
    Image.fromarray(photograph(50)).save(path, exif=exif.tobytes())
    messages = told(folder)
    assert "see that the labels lie on the image" in messages["turned_apart"][0]
    Image.fromarray(ids(0, 1, 2)).save(folder / "masks" / "train" / "0.png", exif=exif.tobytes())
    assert set(told(folder)) == {"converted_pictures"}


def test_nothing_to_learn(folder: Path) -> None:
    for path in (folder / "masks" / "train").iterdir():
        write_image(path, ids(255))
    assert told(folder)["nothing_labelled"] == [
        "no pixel of split 'train' has a label: there is nothing to learn in it"
    ]
    for path in (folder / "masks" / "val").iterdir():
        write_image(path, ids(1))
    assert "class 'car'" in told(folder)["one_class"][0]


def test_where_damage_cannot_be_noticed_that_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(folder / "images" / "train" / "0.jpg", photograph(1))
    (folder / "images" / "train" / "0.png").unlink()
    images._state.cache_clear()
    monkeypatch.setattr(images, "LIBRARY", folder / "none.bin")
    try:
        assert "damage inside of JPEG files (1) is not noticed" in told(folder)["unjudged"][0]
    finally:
        images._state.cache_clear()


def test_doubts_of_a_guess_stop_a_training(folder: Path) -> None:
    (folder / "own.yaml").unlink()
    assert check_dataset(folder).ok
    for split in ("train", "val"):
        for index in range(3):
            write_image(folder / "masks_old" / split / f"{index}.png", ids(2, 1, 0))
    with pytest.raises(DataError, match=r"several kinds of label files: masks/train/\*.png \(3\), masks_old/train/"):
        open_dataset(folder)
    diagnosis = check_dataset(folder)
    assert {finding.kind for finding in diagnosis.findings} >= {"doubtful_layout"}
    assert not diagnosis.ok
    assert "train: [masks/train]" in diagnosis.suggested_yaml


def test_an_unlabelled_split_of_a_guess_is_not_left_out(folder: Path) -> None:
    (folder / "own.yaml").unlink()
    write_image(folder / "images" / "test" / "7.png", photograph(99))
    diagnosis = check_dataset(folder)
    assert diagnosis.counts["test"].num_pictures == 1
    assert [finding.kind for finding in diagnosis.findings] == ["unlabelled_split"]


def test_runs_and_results_are_never_labels(folder: Path) -> None:
    (folder / "own.yaml").unlink()
    for index in range(3):
        write_image(folder / "images_run" / "train" / f"{index}.png", ids(0, 1))
        write_image(folder / "images" / "train" / f"{index}.labels.png", ids(0, 1))
    (folder / "images_run" / "train" / "run.json").write_text("{}")
    assert check_dataset(folder).ok
    assert open_dataset(folder).split("train").names == ("0", "1", "2")


@pytest.mark.parametrize("name", ["ultra.yaml", "own.yaml"])
def test_a_path_is_resolved_once(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "ultra.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\n{NAMES}")
    for place in (folder.parent, folder, folder / "images"):
        monkeypatch.chdir(place)
        assert check_dataset(os.path.relpath(folder / name)).ok, place


def test_the_usual_size_is_the_most_common(folder: Path) -> None:
    write_image(folder / "images" / "train" / "0.png", photograph(1, 90, 90))
    part = open_dataset(folder / "own.yaml").parts["train"]
    assert isinstance(part, FileSplit)
    assert usual_size(part) == (12, 16)


def renamed(folder: Path, **names: list[str]) -> None:
    for split, stems in names.items():
        for number, stem in enumerate(stems):
            for kind in ("images", "masks"):
                (folder / kind / split / f"{number}.png").rename(folder / kind / split / f"{stem}.png")


def test_a_film_in_two_splits_is_told(folder: Path) -> None:
    """As in CamVid, whose val is cut from a film of train."""
    renamed(folder, train=["0016E5_00390", "0006R0_f00930", "0016E5_00420"], val=["0016E5_07959", "0016E5_07961", "x"])
    (message,) = told(folder)["shared_series"]
    assert "same series: 0016E5 (2 and 2); scores" in message


def test_other_names_are_no_films(folder: Path) -> None:
    renamed(folder, train=["img_1", "img_2", "img_3"], val=["img_4", "img_5", "img_6"])
    assert told(folder) == {}
    renamed_back = {"train": ["ulm_000_01", "ulm_000_02", "bonn_1"], "val": ["aachen_1", "aachen_2", "a.b-3"]}
    for split, stems in renamed_back.items():
        for stem, path in zip(stems, sorted((folder / "images" / split).iterdir()), strict=True):
            mask = folder / "masks" / split / path.name
            path.rename(path.with_stem(stem))
            mask.rename(mask.with_stem(stem))
    assert told(folder) == {}

"""Generated data sets in many layouts, with the right answer by construction: read rightly, or told.

A case is a layout of folders, a way to name files, kinds of image and label files, an orientation, a way to open it and
at most one thing that is wrong. Every label map is its image's alone, and the image is drawn from it, so a wrong pair
or a turn is seen. `test_generated_layouts.py` tries a sample; all of them, with what was wrong:

    python tests/data/generated_layouts.py [--every N]
"""

import argparse
import itertools
import os
import shutil
import sys
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lpsnet.data.check import check_dataset
from lpsnet.data.dataset import open_dataset
from lpsnet.errors import DataError

SIZE = 24, 40  # rows and columns as shown
NUM_CLASSES = 4
SPLITS = {"train": 4, "val": 3}  # images of each

# images and label files, from split and name; a folder of its own for every split or not
LAYOUTS = {
    "kind first": ("images/{split}/{name}", "masks/{split}/{name}"),
    "split first": ("{split}/images/{name}", "{split}/masks/{name}"),
    "annot": ("{split}/{name}", "{split}annot/{name}"),
    "split in names": ("{split}_images/{name}", "{split}_labels/{name}"),
    "endings": ("images/{split}/{name}_rgb", "masks/{split}/{name}_gt"),
    "one folder": ("{split}/{name}", "{split}/{name}_mask"),
    "cities": ("images/{split}/ulm/{name}", "masks/{split}/ulm/{name}"),
    "flat": ("images/{name}", "masks/{name}"),
}
NAMES: dict[str, Callable[[str, int], str]] = {
    "own": lambda split, number: f"{split}{number}",
    "equal": lambda split, number: f"{number:04d}",  # in every split the same
    "growing": lambda split, number: str(10**number),  # 1, 10, 100
    "blanks": lambda split, number: f"{split} image {number}",
    "words": lambda split, number: f"{split}_ulm_{number:03d}",
    "equal words": lambda split, number: f"scene_{number:03d}_left",
    "dots": lambda split, number: f"{split}.v1.{number}",
    "accents": lambda split, number: f"straße é {split}{number}",
}
IMAGES = ("jpg", "png", "tif", "webp", "bmp", "progressive", "sixteen", "JPG")
MASKS = ("grey", "palette", "sixteen", "four bits", "tif", "bmp", "apart", "full name")
ORIENTATIONS = (1, 3, 6)
WAYS = ("folder", "description", "list", "relative")
# what is wrong -> kinds of findings of which one has to be there; none: it has to be read rightly all the same
FAULTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "own results": (),
    "hidden files": (),
    "linked folder": (),
    "test without labels": ("unlabelled_split", "left_out"),
    "older labels": ("doubtful_layout",),
    "two suffixes": ("doubtful_layout",),
    "label missing": ("missing_mask",),
    "image missing": ("missing_image", "missing_mask"),
    "one label turned": ("turned_apart",),
    "fewer bits": ("mixed_label_files", "unknown_values"),
    "image cut and ended": ("unreadable",),
    "label cut": ("unreadable",),
    "unread format": ("unread_kind",),
    "another size": ("size_differs",),
    "no labels": ("nothing_labelled", "one_class"),
}


@dataclass(frozen=True)
class Case:
    """One data set."""

    layout: str = "kind first"
    names: str = "own"
    image: str = "jpg"
    mask: str = "grey"
    orientation: int = 1
    way: str = "folder"
    fault: str = "nothing"

    def __str__(self) -> str:
        return ", ".join(map(str, vars(self).values()))


def cases() -> Iterator[Case]:
    """All that can be built."""
    for layout, names, fault in itertools.product(LAYOUTS, NAMES, FAULTS):
        for image, mask, orientation in itertools.product(IMAGES, MASKS, ORIENTATIONS):
            for way in WAYS:
                case = Case(layout, names, image, mask, orientation, way, fault)
                if is_possible(case):
                    yield case


def is_possible(case: Case) -> bool:
    turns = case.image not in ("bmp", "sixteen") and case.mask in ("grey", "apart", "full name")
    return (
        (case.orientation == 1 or turns)
        and (case.fault != "one label turned" or (turns and case.orientation == 1))
        and (case.fault != "image cut and ended" or case.image in ("jpg", "progressive", "JPG"))
        and (case.fault != "fewer bits" or case.mask != "four bits")
        and not (
            case.layout == "flat" and (case.way != "folder" or case.names.startswith("equal") or "test" in case.fault)
        )
        and not (case.mask == "full name" and case.layout in ("endings", "one folder"))
        and (case.mask != "apart" or case.names == "accents")
        and (case.way == "folder" or case.layout == "kind first")
        and not (case.way == "list" and case.fault in ("test without labels", "image missing"))
        and not (case.fault == "unread format" and case.way == "list")
        and not (case.fault == "older labels" and (case.way != "folder" or case.layout == "one folder"))
    )


@dataclass(frozen=True)
class Member:
    """An image with its files and its labels."""

    split: str
    image: Path
    mask: Path
    labels: np.ndarray


def drawn(number: int) -> np.ndarray:
    """Labels that no other number has."""
    small = np.random.default_rng(number).integers(0, NUM_CLASSES, (3, 5)).astype(np.uint8)
    small[0, :NUM_CLASSES] = range(NUM_CLASSES)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


def stored(shown: np.ndarray, orientation: int) -> np.ndarray:
    """What a file with this orientation holds of an image that is shown so."""
    return {1: shown, 3: np.rot90(shown, 2), 6: np.rot90(shown, 1)}[orientation].copy()


def exif(orientation: int) -> dict[str, bytes]:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return {"exif": tags.tobytes()} if orientation != 1 else {}


def save_image(path: Path, labels: np.ndarray, kind: str, orientation: int) -> Path:
    path = path.with_name(f"{path.name}.{ {'progressive': 'jpg', 'sixteen': 'png'}.get(kind, kind) }")
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(int(labels.sum())).integers(-12, 13, (*labels.shape, 3))
    rgb = np.clip(30 + 60 * labels.astype(int)[..., None] + noise, 0, 255).astype(np.uint8)
    if kind == "sixteen":
        cv2.imwrite(str(path), rgb[..., ::-1].astype(np.uint16) * 257)
        return path
    options = {"jpg": {"quality": 95}, "JPG": {"quality": 95}, "webp": {"lossless": True}}.get(kind, {})
    options = {"quality": 95, "progressive": True} if kind == "progressive" else options
    Image.fromarray(stored(rgb, orientation)).save(path, **options, **exif(orientation))
    return path


def save_mask(path: Path, labels: np.ndarray, kind: str, orientation: int) -> Path:
    path = path.with_name(f"{path.name}.{kind if kind in ('tif', 'bmp') else 'png'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "sixteen":
        cv2.imwrite(str(path), labels.astype(np.uint16))
        return path
    image = Image.fromarray(stored(labels, orientation))
    if kind in ("palette", "four bits"):
        image = Image.fromarray(labels, "P")
        image.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0, 0, 0, 200] + [9] * (0 if kind == "four bits" else 756))
    image.save(path, **({"bits": 4} if kind == "four bits" else {}), **exif(orientation))
    return path


def build(case: Case, root: Path) -> list[Member]:
    """Write a case's files, without a fault."""
    members = []
    for number, (split, index) in enumerate((s, i) for s, count in SPLITS.items() for i in range(count)):
        name = NAMES[case.names](split, number if case.layout == "flat" else index)
        where = [Path(root, text.format(split=split, name=name)) for text in LAYOUTS[case.layout]]
        image = save_image(where[0], drawn(number), case.image, case.orientation)
        place = where[1].with_name(image.name) if case.mask == "full name" else where[1]
        place = place.with_name(unicodedata.normalize("NFD", place.name)) if case.mask == "apart" else place
        mask = save_mask(place, drawn(number), case.mask, case.orientation)
        members.append(Member(split, image, mask, drawn(number)))
    return members


def spoil(case: Case, root: Path, members: list[Member]) -> None:
    """Put in what is wrong with a case."""
    victim, other = members[1], members[2]
    other_labels = (other.labels + 1) % NUM_CLASSES
    match case.fault:
        case "own results":
            folder = root / "segmented"
            for member in members:
                relative = member.image.relative_to(root)
                base = folder / relative.with_name(relative.stem)
                save_mask(base.with_name(f"{base.name}.labels"), other_labels, "grey", 1)
                save_mask(member.mask.with_name(f"{member.mask.stem}.labels"), other_labels, "grey", 1)
        case "hidden files":
            for member in members:
                member.image.with_name(f"._{member.image.name}").write_bytes(b"not an image")
                member.mask.with_name(f"._{member.mask.name}").write_bytes(b"not an image")
        case "linked folder":
            for folder in sorted({path.parent for member in members for path in (member.image, member.mask)}):
                moved = Path(f"{root}.elsewhere", folder.relative_to(root))
                moved.parent.mkdir(parents=True, exist_ok=True)
                folder.rename(moved)
                folder.symlink_to(moved, target_is_directory=True)
        case "test without labels":
            text = LAYOUTS[case.layout][0].format(split="test", name="t")
            save_image(root / text, drawn(99), case.image, case.orientation)
        case "older labels":
            for member in members:
                parts = list(member.mask.relative_to(root).parts)
                place = next(i for i, part in enumerate(parts) if "mask" in part or "annot" in part or "label" in part)
                parts[place] += "_old"
                save_mask(root.joinpath(*parts).with_suffix(""), other_labels, "grey", 1)
        case "two suffixes":
            save_mask(victim.mask.with_name(victim.mask.stem), other_labels, "bmp" if case.mask != "bmp" else "tif", 1)
        case "label missing":
            victim.mask.unlink()
        case "image missing":
            victim.image.unlink()
        case "one label turned":
            Image.fromarray(stored(victim.labels, 3)).save(victim.image.with_suffix(".tmp.png"))
            shutil.move(victim.image.with_suffix(".tmp.png"), victim.mask)
            image = Image.open(victim.image).copy()
            image.save(victim.image, **exif(3))
        case "fewer bits":
            two = (victim.labels > 1).astype(np.uint8) * 255
            Image.fromarray(two).convert("1").save(victim.mask)
        case "image cut and ended":
            data = victim.image.read_bytes()
            victim.image.write_bytes(data[: len(data) * 3 // 4] + b"\xff\xd9")
        case "label cut":
            victim.mask.write_bytes(victim.mask.read_bytes()[:-30])
        case "unread format":
            victim.image.with_name("phone.heic").write_bytes(b"an image of a telephone")
        case "another size":
            save_mask(victim.mask.with_name(victim.mask.stem), victim.labels[:-4], case.mask, case.orientation)
        case "no labels":
            for member in members:
                empty = np.full(SIZE, 255, np.uint8)
                Image.fromarray(empty).save(member.mask)


def describe(case: Case, root: Path, members: list[Member]) -> str:
    """The text to open a case with."""
    names = f"names: [{', '.join(f'class_{number}' for number in range(NUM_CLASSES))}]\n"
    if case.way == "folder":
        return str(root)
    if case.way == "description":
        (root / "own.yaml").write_text(names)
        return str(root / "own.yaml")
    if case.way == "list":
        for split in SPLITS:
            lines = [f"{member.image.relative_to(root)}\n" for member in members if member.split == split]
            (root / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
        masks = ", ".join(f"{split}: masks/{split}" for split in SPLITS)
        (root / "own.yaml").write_text(f"{names}images: {{train: train.txt, val: val.txt}}\nmasks: {{{masks}}}\n")
        return str(root / "own.yaml")
    (root / "set.yaml").write_text(f"path: .\ntrain: images/train\nval: images/val\n{names}")
    return os.path.relpath(root / "set.yaml")


def wrong(case: Case, root: Path) -> str:
    """What is wrong with how a case is read; empty if it is read rightly or told."""
    members = build(case, root)
    spoil(case, root, members)
    text = describe(case, root, members)
    found = check_dataset(text)
    kinds = {finding.kind for finding in found.findings}
    told = {finding.kind for finding in found.findings if finding.severity != "note"}
    told -= {"shared_series"} if case.layout == "flat" else set()  # `val_fraction` may cut a series in two
    wanted = FAULTS[case.fault]
    if wanted and not kinds & {*wanted, "cannot_open"}:
        return f"not told: {sorted(kinds)}"
    if not wanted and told:
        return f"told of what is right: {[finding.message for finding in found.findings if finding.kind in told][:2]}"
    try:
        opened = open_dataset(_suggested(case, root, found.suggested_yaml, text))
    except DataError as error:
        return "" if wanted else f"does not open: {error}"
    return _differences(case, opened, members, is_told=bool(told))


def _suggested(case: Case, root: Path, suggested: str, text: str) -> str:
    if case.way != "folder":
        return text
    (root / "suggested.yaml").write_text(suggested, encoding="utf-8")
    return str(root / "suggested.yaml")


def _differences(case: Case, opened: object, members: list[Member], *, is_told: bool) -> str:
    truth = {os.path.realpath(member.image): member for member in members}
    number = 0
    for name in opened.splits:  # type: ignore[attr-defined]
        split = opened.parts[name]  # type: ignore[attr-defined]
        for index, pair in enumerate(split.pairs):
            member = truth.get(os.path.realpath(pair.image))
            try:
                sample = split[index]
            except DataError:
                continue  # refused
            if member is None:
                return f"{pair.image} is no image of the data set"
            number += 1
            if case.layout != "flat" and name != member.split:
                return f"{pair.image} is in split {name}"
            if case.fault == "no labels":
                continue
            lies = np.mean(np.abs(sample.image[..., 0].astype(int) - 30 - 60 * member.labels) < 25)
            if lies < 0.9 and case.fault != "one label turned":
                return f"{pair.image} is read wrongly: {100 * lies:.0f} % of its pixels are right"
            if not np.array_equal(sample.labels, member.labels) and not is_told:
                return f"{pair.image} has other labels than its own, from {pair.mask}"
    return "" if number >= len(members) - 1 or is_told else f"{number} of {len(members)} images were read"


def run(case: Case) -> str:
    """`wrong` in a folder of its own; what it raised counts as wrong."""
    folder = Path(tempfile.mkdtemp(prefix="layout-"))
    try:
        return wrong(case, folder / "set")
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sample(count: int, seed: int) -> list[Case]:
    """Some cases: each fault with each layout and each way first, then random ones."""
    rng = np.random.default_rng(seed)
    everything = list(cases())
    shuffled = (everything[index] for index in rng.permutation(len(everything)))
    first = {(case.fault, case.way, case.layout): case for case in shuffled}
    chosen = list(first.values())
    picked = rng.permutation(len(chosen))[: min(count, len(chosen))]
    return [chosen[index] for index in picked]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--every", type=int, default=1, help="try one of so many cases")
    every = parser.parse_args().every
    failed = 0
    chosen = list(cases())[::every]
    for case in chosen:
        if problem := run(case):
            failed += 1
            print(f"{case}: {problem}")
    print(f"{failed} of {len(chosen)} data sets were read wrongly without a word, or refused wrongly")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())

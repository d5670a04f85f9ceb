"""Cityscapes (Cordts et al. 2016), paper Section 4.1: 2,975 training, 500 validation, 1,525 test images, 19 classes.

Two layouts are read:

- the official one: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` (or .jpg) and `gtFine/SPLIT/CITY/*_gtFine_KIND.png`;
- pairs of the same names in one folder, without folders for splits or cities; they make a split called "val".

KIND is `labelTrainIds` (train ids, 255 for no label) or `labelIds` (the 34 official ids): the one that more splits
have, and train ids if both are as frequent. A split without it has no labels.
"""

from pathlib import Path
from typing import Any

from lpsnet.data.description import Description
from lpsnet.data.labels import CITYSCAPES, IGNORE_INDEX
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

# The official ids (name: id, train id); 255 for the classes that take part in neither training nor scores.
OFFICIAL_IDS: dict[str, tuple[int, int]] = {
    "unlabeled": (0, 255),
    "ego vehicle": (1, 255),
    "rectification border": (2, 255),
    "out of roi": (3, 255),
    "static": (4, 255),
    "dynamic": (5, 255),
    "ground": (6, 255),
    "road": (7, 0),
    "sidewalk": (8, 1),
    "parking": (9, 255),
    "rail track": (10, 255),
    "building": (11, 2),
    "wall": (12, 3),
    "fence": (13, 4),
    "guard rail": (14, 255),
    "bridge": (15, 255),
    "tunnel": (16, 255),
    "pole": (17, 5),
    "polegroup": (18, 255),
    "traffic light": (19, 6),
    "traffic sign": (20, 7),
    "vegetation": (21, 8),
    "terrain": (22, 9),
    "sky": (23, 10),
    "person": (24, 11),
    "rider": (25, 12),
    "car": (26, 13),
    "truck": (27, 14),
    "bus": (28, 15),
    "caravan": (29, 255),
    "trailer": (30, 255),
    "train": (31, 16),
    "motorcycle": (32, 17),
    "bicycle": (33, 18),
}

_IMAGES, _MASKS = "leftImg8bit", "gtFine"
_IMAGE_SUFFIX = "_leftImg8bit"
_LABEL_IDS = "_gtFine_labelIds"
_KINDS = ("_gtFine_labelTrainIds", _LABEL_IDS)
_WANTED = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png with gtFine/SPLIT/CITY beside it, or such pairs in one folder"


def recognises(root: Path) -> bool:
    """Whether a folder holds images named as those of Cityscapes."""
    return any(find_images(root / images, ending=_IMAGE_SUFFIX) for images, _ in _folders(root).values())


def describe(root: Path) -> Description:
    """The description of a Cityscapes folder.

    Raises:
        DataError: neither layout is there.
    """
    folders = _folders(root)
    images = {name: pair[0] for name, pair in folders.items() if find_images(root / pair[0], ending=_IMAGE_SUFFIX)}
    if not images:
        raise DataError(f"no Cityscapes images in {root}; expected {_WANTED}")
    found = {kind: [name for name in images if find_images(root / folders[name][1], ending=kind)] for kind in _KINDS}
    kind = max(_KINDS, key=lambda kind: len(found[kind]))  # the first of those that are as frequent
    masks = {name: folders[name][1] for name in found[kind]}
    ids = {number: label for number, label in OFFICIAL_IDS.values() if label != IGNORE_INDEX}
    ignore = [number for number, label in OFFICIAL_IDS.values() if label == IGNORE_INDEX]
    values: dict[str, Any] = {"ids": ids, "ignore": ignore} if kind == _LABEL_IDS else {}
    return Description.of(
        CITYSCAPES, images=images, masks=masks, image_suffix=_IMAGE_SUFFIX, mask_suffix=kind, **values
    )


def _folders(root: Path) -> dict[str, tuple[str, str]]:
    """The folders of the images and of the label files, from the root, by split."""
    if not (root / _IMAGES).is_dir():
        return {"val": (".", ".")}
    names = [folder.name for folder in (root / _IMAGES).iterdir() if folder.is_dir()]
    return {name: (f"{_IMAGES}/{name}", f"{_MASKS}/{name}") for name in names}

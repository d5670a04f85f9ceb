"""Cityscapes (Cordts et al. 2016), paper Section 4.1: 2,975 training, 500 validation, 1,525 test images, 19 classes.

Two layouts are read:

- the official one: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` (or .jpg) and `gtFine/SPLIT/CITY/*_gtFine_KIND.png`;
- pairs of the same names in one folder, without folders for splits or cities; they make a split called "val".

KIND is `labelTrainIds` (train ids, 255 for no label) or `labelIds` (the 34 official ids): the one that more splits
have, and train ids if both are equally frequent. A split without it has no labels.
"""

from pathlib import Path
from typing import Any

from lpsnet.data.description import Description
from lpsnet.data.labels import CITYSCAPES, IGNORE_INDEX
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

TERMS = "trained on Cityscapes: for research, not for commercial use"
# In the order of the official ids; those that are no class of `CITYSCAPES` are not trained on or evaluated.
_OFFICIAL = (
    "unlabeled,ego vehicle,rectification border,out of roi,static,dynamic,ground,road,sidewalk,parking,rail track,"
    "building,wall,fence,guard rail,bridge,tunnel,pole,polegroup,traffic light,traffic sign,vegetation,terrain,sky,"
    "person,rider,car,truck,bus,caravan,trailer,train,motorcycle,bicycle"
)
_TRAIN_IDS = {name: number for number, name in enumerate(CITYSCAPES.names)}
OFFICIAL_IDS: dict[str, tuple[int, int]] = {  # name: official id, train id (255: not a class)
    name: (number, _TRAIN_IDS.get(name, IGNORE_INDEX)) for number, name in enumerate(_OFFICIAL.split(","))
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
        DataError: neither layout was found.
    """
    folders = _folders(root)
    images = {name: pair[0] for name, pair in folders.items() if find_images(root / pair[0], ending=_IMAGE_SUFFIX)}
    if not images:
        raise DataError(f"no Cityscapes images in {root}; expected {_WANTED}")
    found = {kind: [name for name in images if find_images(root / folders[name][1], ending=kind)] for kind in _KINDS}
    kind = max(_KINDS, key=lambda kind: len(found[kind]))  # the first one if they are equally frequent
    masks = {name: folders[name][1] for name in found[kind]}
    ids = {number: label for number, label in OFFICIAL_IDS.values() if label != IGNORE_INDEX}
    ignore = [number for number, label in OFFICIAL_IDS.values() if label == IGNORE_INDEX]
    values: dict[str, Any] = {"ids": ids, "ignore": ignore} if kind == _LABEL_IDS else {}
    return Description.of(
        CITYSCAPES, images=images, masks=masks, image_suffix=_IMAGE_SUFFIX, mask_suffix=kind, **values
    )


def _folders(root: Path) -> dict[str, tuple[str, str]]:
    """Split -> folders of its images and of its label files, from the root."""
    if not (root / _IMAGES).is_dir():
        return {"val": (".", ".")}
    names = [folder.name for folder in (root / _IMAGES).iterdir() if folder.is_dir()]
    return {name: (f"{_IMAGES}/{name}", f"{_MASKS}/{name}") for name in names}

"""BDD100K (Yu et al. 2018), paper Section 4.1: 7,000 training and 1,000 validation images, labels as in Cityscapes.

Two layouts are read, both with train ids and 255 for no label:

- `images/10k/SPLIT/*.jpg` with `labels/sem_seg/masks/SPLIT/*.png`;
- the older `seg/images/SPLIT/*.jpg` with `seg/labels/SPLIT/*_train_id.png`.
"""

from pathlib import Path

from lpsnet.data.description import Description
from lpsnet.data.labels import BDD100K
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

TERMS = "trained on BDD100K: its licence allows education, research and not-for-profit use"
# folder of the images, folder of the label files, ending of a label file's stem
_LAYOUTS = (("images/10k", "labels/sem_seg/masks", ""), ("seg/images", "seg/labels", "_train_id"))


def recognises(root: Path) -> bool:
    """Whether a folder has BDD100K's folders, with images in them."""
    return any(_split_folders(root / images) for images, _, _ in _LAYOUTS)


def describe(root: Path) -> Description:
    """The description of a BDD100K folder.

    Raises:
        DataError: neither layout was found.
    """
    for images, masks, ending in _LAYOUTS:
        if names := _split_folders(root / images):
            labelled = [name for name in names if find_images(root / masks / name, ending=ending)]
            return Description.of(
                BDD100K,
                images={name: f"{images}/{name}" for name in names},
                masks={name: f"{masks}/{name}" for name in labelled},
                mask_suffix=ending,
            )
    wanted = "images/10k/SPLIT with labels/sem_seg/masks/SPLIT, or seg/images/SPLIT with seg/labels/SPLIT"
    raise DataError(f"no BDD100K images in {root}; expected {wanted}")


def _split_folders(folder: Path) -> list[str]:
    return [split.name for split in folder.glob("*") if find_images(split)]

"""CamVid (Brostow et al. 2008), paper Section 4.1: 367 training, 101 validation, 233 test images, 11 classes.

Two layouts are read:

- as distributed with SegNet: `train.txt`, `val.txt` and `test.txt` with an image and a label file a line, 360 x 480;
  label files hold ids 0 to 10, and 11 for no label;
- the original release: `701_StillsRaw_full/*.png` and `LabeledApproved_full/*_L.png`, 720 x 960, labelled with 32
  colours, which become the 11 classes as SegNet grouped them. `train.txt`, `val.txt` and `test.txt` with a stem a line
  list the images of each split; without them the usual split by sequence and frame is used.
"""

import re
from pathlib import Path

from lpsnet.data.description import Description
from lpsnet.data.labels import CAMVID, Colour
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

TERMS = "trained on CamVid: for research, not for commercial use"
SPLITS = ("train", "val", "test")
SEGNET_VOID = 11

# The 32 classes of the original release with their colours, grouped into SegNet's 11; "Void" has none.
ORIGINAL_COLOURS: dict[str, dict[str, Colour]] = {
    "sky": {"Sky": (128, 128, 128)},
    "building": {
        "Building": (128, 0, 0),
        "Archway": (192, 0, 128),
        "Bridge": (0, 128, 64),
        "Tunnel": (64, 0, 64),
        "Wall": (64, 192, 0),
    },
    "pole": {"Column_Pole": (192, 192, 128), "TrafficCone": (0, 0, 64)},
    "road": {"Road": (128, 64, 128), "LaneMkgsDriv": (128, 0, 192), "LaneMkgsNonDriv": (192, 0, 64)},
    "pavement": {"Sidewalk": (0, 0, 192), "ParkingBlock": (64, 192, 128), "RoadShoulder": (128, 128, 192)},
    "tree": {"Tree": (128, 128, 0), "VegetationMisc": (192, 192, 0)},
    "sign": {"SignSymbol": (192, 128, 128), "Misc_Text": (128, 128, 64), "TrafficLight": (0, 64, 64)},
    "fence": {"Fence": (64, 64, 128)},
    "car": {
        "Car": (64, 0, 128),
        "SUVPickupTruck": (64, 128, 192),
        "Truck_Bus": (192, 128, 192),
        "Train": (192, 64, 128),
        "OtherMoving": (128, 64, 64),
    },
    "pedestrian": {
        "Pedestrian": (64, 64, 0),
        "Child": (192, 128, 64),
        "CartLuggagePram": (64, 0, 192),
        "Animal": (64, 128, 64),
    },
    "bicyclist": {"Bicyclist": (0, 128, 192), "MotorcycleScooter": (192, 0, 192)},
}

_IMAGES, _MASKS, _MASK_SUFFIX = "701_StillsRaw_full", "LabeledApproved_full", "_L"
_VAL_FRAMES = range(7959, 8160)  # of sequence 0016E5, the part taken at 15 frames a second
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")  # sequence and frame
_LAST_TRAIN_FRAME = 8520  # of sequence 0001TP; its second half is for testing


def recognises(root: Path) -> bool:
    """Whether a folder has one of CamVid's own folders; list files alone may belong to any data set."""
    if (root / _IMAGES).is_dir():
        return bool(_lists(root)) or all(_FRAME.fullmatch(path.stem) for path in find_images(root / _IMAGES))
    return (root / "trainannot").is_dir() and bool(_lists(root))


def describe(root: Path) -> Description:
    """The description of a CamVid folder.

    Raises:
        DataError: neither layout was found.
    """
    lists = _lists(root)
    if (root / _IMAGES).is_dir():
        return _describe_original(root, lists)
    if not lists:
        wanted = f"train.txt, val.txt, test.txt as SegNet has them, or {_IMAGES} and {_MASKS}"
        raise DataError(f"no CamVid images in {root}; expected {wanted}")
    return Description.of(CAMVID, images=lists, masks={}, ignore=[SEGNET_VOID])


def _lists(root: Path) -> dict[str, str]:
    return {name: f"{name}.txt" for name in SPLITS if (root / f"{name}.txt").is_file()}


def _describe_original(root: Path, lists: dict[str, str]) -> Description:
    """Stray colours at boundaries, which a few label files have, mean no label, as "Void" (0, 0, 0) does."""
    colour_map = {group: list(members.values()) for group, members in ORIGINAL_COLOURS.items()}
    values = {"colour_map": colour_map, "ignore": "others", "mask_suffix": _MASK_SUFFIX}
    if lists:
        return Description.of(CAMVID, images=_IMAGES, masks=_MASKS, lists=lists, **values)
    images: dict[str, list[str]] = {}
    for path in find_images(root / _IMAGES):
        images.setdefault(usual_split(path.stem), []).append(f"{_IMAGES}/{path.name}")
    return Description.of(CAMVID, images=images, masks=dict.fromkeys(images, _MASKS), **values)


def usual_split(stem: str) -> str:
    """The split an image of the original release is in, by its sequence and frame: "0016E5_07959" -> "val".

    Raises:
        DataError: the name is not one of CamVid's.
    """
    match = _FRAME.fullmatch(stem)
    if not match:
        raise DataError(f"{stem!r} is not an image of CamVid's release; add train.txt, val.txt and test.txt with stems")
    sequence, frame = match[1], int(match[2])
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame > _LAST_TRAIN_FRAME):
        return "test"
    return "val" if sequence == "0016E5" and frame in _VAL_FRAMES else "train"

"""Published data sets of masks: Cityscapes, CamVid, BDD100K, KITTI, ADE20K, Mapillary Vistas, Pascal VOC.

Each has a pair of functions, `recognises_X` and `describe_X`, which are rows of `FORMATS`:

- Cityscapes (Cordts et al. 2016), paper Section 4.1: 2,975 training, 500 validation, 1,525 test images, 19 classes. The
  official layout is `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` (or .jpg) and `gtFine/SPLIT/CITY/*_gtFine_KIND.png`;
  pairs of the same names in one folder, without folders for splits or cities, make a split called "val". KIND is
  `labelTrainIds` (train ids, 255 for no label) or `labelIds` (the 34 official ids): the one that more splits have, and
  train ids if both are equally frequent. A split without it has no labels.
- CamVid (Brostow et al. 2008), paper Section 4.1: 367 training, 101 validation, 233 test images, 11 classes. As
  distributed with SegNet: `train.txt`, `val.txt` and `test.txt` with an image and a label file a line, 360 x 480; label
  files hold ids 0 to 10, and 11 for no label. The original release: `701_StillsRaw_full/*.png` and
  `LabeledApproved_full/*_L.png`, 720 x 960, labelled with 32 colours, which become the 11 classes as SegNet grouped
  them; `train.txt`, `val.txt` and `test.txt` with a stem a line list the images of each split, and without them the
  usual split by sequence and frame is used.
- BDD100K (Yu et al. 2018), paper Section 4.1: `images/10k/SPLIT/*.jpg` with `labels/sem_seg/masks/SPLIT/*.png`, or the
  older `seg/images/SPLIT/*.jpg` with `seg/labels/SPLIT/*_train_id.png`; train ids as in Cityscapes, 255 for no label.
- KITTI (Alhaija et al. 2018): `training/image_2` and `training/semantic` with Cityscapes' official ids; the last fifth
  of the 200 images is `val`, `testing/image_2` is `test`.
- ADE20K (Zhou et al. 2017), scene parsing: `images/SPLIT` and `annotations/SPLIT` with ids 1 to 150, 0 for no label;
  `objectInfo150.txt`, which is part of the archive, names them.
- Mapillary Vistas (Neuhold et al. 2017): `training/images` with `training/labels` or the newest `training/v*/labels`;
  `config*.json` names the ids, of which those that are not evaluated mean no label.
- Pascal VOC (Everingham et al. 2010) and what labelme and CVAT export under that name: `JPEGImages`,
  `SegmentationClass` (indices of a palette; 255 means no label) and the lists in `ImageSets/Segmentation`. Classes:
  those of `labelmap.txt` (CVAT) or `class_names.txt` (labelme), else VOC's own, of which `background` is the first.
"""

import re
from pathlib import Path
from typing import Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from lpsnet.data import annotations
from lpsnet.data.description import Description
from lpsnet.data.images import MASK_SUFFIXES
from lpsnet.data.labels import BDD100K, CAMVID, CITYSCAPES, IGNORE_INDEX, Colour
from lpsnet.data.pairing import find_images
from lpsnet.errors import DataError

CITYSCAPES_TERMS = "trained on Cityscapes: for research, not for commercial use"
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


def recognises_cityscapes(root: Path) -> bool:
    """Whether a folder holds images named as those of Cityscapes."""
    return any(find_images(root / images, ending=_IMAGE_SUFFIX) for images, _ in _folders(root).values())


def describe_cityscapes(root: Path) -> Description:
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


CAMVID_TERMS = "trained on CamVid: for research, not for commercial use"
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

_CAMVID_IMAGES, _CAMVID_MASKS, _CAMVID_SUFFIX = "701_StillsRaw_full", "LabeledApproved_full", "_L"
_VAL_FRAMES = range(7959, 8160)  # of sequence 0016E5, the part taken at 15 frames a second
_FRAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)")  # sequence and frame
_LAST_TRAIN_FRAME = 8520  # of sequence 0001TP; its second half is for testing


def recognises_camvid(root: Path) -> bool:
    """Whether a folder has one of CamVid's own folders; list files alone may belong to any data set."""
    if (root / _CAMVID_IMAGES).is_dir():
        return bool(_lists(root)) or all(_FRAME.fullmatch(path.stem) for path in find_images(root / _CAMVID_IMAGES))
    return (root / "trainannot").is_dir() and bool(_lists(root))


def describe_camvid(root: Path) -> Description:
    """The description of a CamVid folder.

    Raises:
        DataError: neither layout was found.
    """
    lists = _lists(root)
    if (root / _CAMVID_IMAGES).is_dir():
        return _describe_original(root, lists)
    if not lists:
        wanted = f"train.txt, val.txt, test.txt as SegNet has them, or {_CAMVID_IMAGES} and {_CAMVID_MASKS}"
        raise DataError(f"no CamVid images in {root}; expected {wanted}")
    return Description.of(CAMVID, images=lists, masks={}, ignore=[SEGNET_VOID])


def _lists(root: Path) -> dict[str, str]:
    return {name: f"{name}.txt" for name in SPLITS if (root / f"{name}.txt").is_file()}


def _describe_original(root: Path, lists: dict[str, str]) -> Description:
    """Stray colours at boundaries, which a few label files have, mean no label, as "Void" (0, 0, 0) does."""
    colour_map = {group: list(members.values()) for group, members in ORIGINAL_COLOURS.items()}
    values = {"colour_map": colour_map, "ignore": "others", "mask_suffix": _CAMVID_SUFFIX}
    if lists:
        return Description.of(CAMVID, images=_CAMVID_IMAGES, masks=_CAMVID_MASKS, lists=lists, **values)
    images: dict[str, list[str]] = {}
    for path in find_images(root / _CAMVID_IMAGES):
        images.setdefault(usual_split(path.stem), []).append(f"{_CAMVID_IMAGES}/{path.name}")
    return Description.of(CAMVID, images=images, masks=dict.fromkeys(images, _CAMVID_MASKS), **values)


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


_SPLITS = {"training": "train", "validation": "val", "testing": "test"}

# BDD100K

BDD100K_TERMS = "trained on BDD100K: its licence allows education, research and not-for-profit use"
# folder of the images, folder of the label files, ending of a label file's stem
_LAYOUTS = (("images/10k", "labels/sem_seg/masks", ""), ("seg/images", "seg/labels", "_train_id"))


def recognises_bdd100k(root: Path) -> bool:
    """Whether a folder has BDD100K's folders, with images in them."""
    return any(_split_folders(root / images) for images, _, _ in _LAYOUTS)


def describe_bdd100k(root: Path) -> Description:
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


# KITTI

KITTI_TERMS = "trained on KITTI: CC BY-NC-SA 3.0, not for commercial use"
_KITTI_IMAGES, _KITTI_MASKS = "training/image_2", "training/semantic"


def recognises_kitti(root: Path) -> bool:
    """Whether a folder has the folders of KITTI's semantic benchmark."""
    return (root / _KITTI_IMAGES).is_dir() and (root / _KITTI_MASKS).is_dir()


def describe_kitti(root: Path) -> Description:
    """The description of a KITTI folder.

    Raises:
        DataError: the folders are not there, or hold fewer than two images.
    """
    found = find_images(root / _KITTI_IMAGES) if recognises_kitti(root) else []
    if len(found) < 2:
        raise DataError(f"no KITTI images in {root}; expected {_KITTI_IMAGES} with {_KITTI_MASKS}")
    first = len(found) - max(1, round(len(found) * annotations.VAL_FRACTION))
    places = [f"{_KITTI_IMAGES}/{path.relative_to(root / _KITTI_IMAGES).as_posix()}" for path in found]
    images: dict[str, Any] = {"train": places[:first], "val": places[first:]}
    images |= {"test": "testing/image_2"} if find_images(root / "testing/image_2") else {}
    masks = dict.fromkeys(("train", "val"), _KITTI_MASKS)
    ids = {number: label for number, label in OFFICIAL_IDS.values() if label != IGNORE_INDEX}
    ignore = [number for number, label in OFFICIAL_IDS.values() if label == IGNORE_INDEX]
    return Description.of(CITYSCAPES, images=images, masks=masks, ids=ids, ignore=ignore)


# ADE20K

ADE20K_TERMS = "trained on ADE20K: its images are for non-commercial research and education"
_ADE20K_NAMES = "objectInfo150.txt"


def recognises_ade20k(root: Path) -> bool:
    """Whether a folder has ADE20K's folders and its list of classes."""
    return (root / _ADE20K_NAMES).is_file() and (root / "annotations/training").is_dir()


def describe_ade20k(root: Path) -> Description:
    """The description of an ADE20K folder (`ADEChallengeData2016`).

    Raises:
        DataError: a folder or the list of classes is not there.
    """
    if not recognises_ade20k(root):
        raise DataError(
            f"no ADE20K images in {root}; expected images, annotations and {_ADE20K_NAMES}, as in its archive"
        )
    rows = [line.split("\t") for line in _lines(root / _ADE20K_NAMES)]
    synonyms = [row[-1].strip() for row in rows if row[0].strip().isdecimal()]
    short = [words.split(",")[0].strip() for words in synonyms]
    names = [words if short.count(name) > 1 else name for words, name in zip(synonyms, short, strict=True)]
    if len(names) != 150:
        raise DataError(f"{root / _ADE20K_NAMES} names {len(names)} classes; ADE20K has 150")
    found = {split: folder for folder, split in _SPLITS.items() if (root / "images" / folder).is_dir()}
    return Description(
        name="ade20k",
        names=names,
        images={split: f"images/{folder}" for split, folder in found.items()},
        masks={split: f"annotations/{folder}" for split, folder in found.items()
               if (root / "annotations" / folder).is_dir()},
        reduce_zero_label=True,
    )  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        return annotations.read_bytes(path).decode().splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path} is not a text file") from None


# Mapillary Vistas

MAPILLARY_TERMS = "trained on Mapillary Vistas: CC BY-NC-SA 4.0, research only without a commercial licence"


class _MapillaryLabel(TypedDict):
    name: str
    readable: str
    evaluate: bool
    color: NotRequired[tuple[int, int, int]]


class _MapillaryConfig(TypedDict):
    labels: list[_MapillaryLabel]


_CONFIG = TypeAdapter(_MapillaryConfig)


def recognises_mapillary(root: Path) -> bool:
    """Whether a folder has the folders and a configuration of Mapillary Vistas."""
    return bool(sorted(root.glob("config*.json"))) and bool(_mapillary_labels(root))


def describe_mapillary(root: Path) -> Description:
    """The description of a Mapillary Vistas folder.

    Raises:
        DataError: folders or the configuration are not there.
    """
    places = _mapillary_labels(root)
    version = Path(places[-1]).parts[1] if places and "/v" in places[-1] else ""
    names = [f"config_{version}.json"] if version else ["config.json", "config_v1.2.json"]
    config = next((root / name for name in names if (root / name).is_file()), None)
    if config is None:
        raise DataError(f"no Mapillary Vistas in {root}; expected training/images, training/labels and config.json")
    labels = annotations.read_json(config, _CONFIG)["labels"]
    readable = [label["readable"] for label in labels]
    words = readable if len(set(readable)) == len(readable) else [label["name"] for label in labels]
    classes = {number: word for number, word in enumerate(words) if labels[number]["evaluate"]}
    inner = f"{version}/labels" if version else "labels"
    found = {split: folder for folder, split in _SPLITS.items() if (root / folder / "images").is_dir()}
    labelled = {split: f"{folder}/{inner}" for split, folder in found.items() if (root / folder / inner).is_dir()}
    colours = {classes[number]: label["color"] for number, label in enumerate(labels)
               if number in classes and "color" in label}  # fmt: skip
    return Description(
        name=f"mapillary_{version}" if version else "mapillary",
        names=classes,
        colours=colours if len(colours) == len(classes) else None,
        images={split: f"{folder}/images" for split, folder in found.items()},
        masks=labelled,
        ignore=[number for number in range(len(labels)) if number not in classes],
    )


def _mapillary_labels(root: Path) -> list[str]:
    """Folders of training labels, the newest version last."""
    places = [root / "training/labels", *sorted((root / "training").glob("v*/labels"))]
    return [place.relative_to(root).as_posix() for place in places if place.is_dir()]


# Pascal VOC

VOC_TERMS = "trained on Pascal VOC: its images are from Flickr, under Flickr's terms of use"
_VOC_NAMES = (
    "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,"
    "pottedplant,sheep,sofa,train,tvmonitor"
)
_VOC_VOID = (224, 224, 192)  # the palette's colour of 255
_VOC_IMAGES, _VOC_LISTS = "JPEGImages", "ImageSets/Segmentation"
_VOC_OWN = (_VOC_LISTS, "labelmap.txt", "class_names.txt")  # without one of these, ids have no names
_VOC_MASKS = ("SegmentationClass", "SegmentationClassPNG")


def recognises_voc(root: Path) -> bool:
    """Whether a folder has Pascal VOC's folders, itself or (`VOCdevkit/VOC2012`) below."""
    return _voc_root(root) is not None


def _voc_root(root: Path) -> Path | None:
    roots = [root, *sorted(root.glob("VOC2*"), reverse=True), *sorted(root.glob("VOCdevkit/VOC2*"), reverse=True)]
    named = (folder for folder in roots if any((folder / name).exists() for name in _VOC_OWN))
    return next((folder for folder in named if (folder / _VOC_IMAGES).is_dir() and _voc_masks(folder)), None)


def _voc_masks(root: Path) -> str:
    """The folder of masks; "" if there is none."""
    found = (name for name in _VOC_MASKS if find_images(root / name, suffixes=MASK_SUFFIXES))
    return next(found, "")


def describe_voc(root: Path) -> Description:
    """The description of a Pascal VOC folder.

    Raises:
        DataError: its folders are not there.
    """
    inner = _voc_root(root)
    if inner is None:
        raise DataError(f"no Pascal VOC in {root}; expected {_VOC_IMAGES} and {_VOC_MASKS[0]} with PNGs in it")
    lists = {path.stem: f"{_VOC_LISTS}/{path.name}" for path in sorted((inner / _VOC_LISTS).glob("*.txt"))}
    lists = {name: place for name, place in lists.items() if name in _SPLITS.values()} or lists
    is_one = len(find_images(inner / _voc_masks(inner))) < 2
    undivided: dict[str, Any] = {} if is_one else {"val_fraction": annotations.VAL_FRACTION}
    values: dict[str, Any] = {"lists": lists} if len(lists) > 1 else undivided
    if len(lists) == 1 and next(iter(lists)) in _SPLITS.values():
        values = {"lists": lists}
    return Description(
        path=inner.relative_to(root).as_posix(),
        images=_VOC_IMAGES,
        masks=_voc_masks(inner),
        **values,
        **_voc_classes(inner),
    )


def _voc_classes(root: Path) -> dict[str, Any]:
    """From CVAT's `labelmap.txt` (NAME:R,G,B:parts:actions), labelme's `class_names.txt`, or VOC itself."""
    labelmap, class_names = root / "labelmap.txt", root / "class_names.txt"
    if labelmap.is_file():
        rows = [line.rsplit(":", 3) for line in _lines(labelmap) if line.strip() and not line.startswith("#")]
        if bad := [row for row in rows if len(row) != 4 or not re.fullmatch(r"\d{1,3},\d{1,3},\d{1,3}", row[1])]:
            raise DataError(f"{labelmap} has the line {':'.join(bad[0])[:60]!r}; NAME:R,G,B:parts:actions is expected")
        colours = {row[0]: [int(level) for level in row[1].split(",")] for row in rows}
        return {"colour_map": colours, "ignore": [] if list(_VOC_VOID) in colours.values() else [_VOC_VOID]}
    if class_names.is_file():
        return {
            "names": [line.strip() for line in _lines(class_names) if line.strip() and line.strip() != "__ignore__"]
        }
    return {"name": "voc", "names": _VOC_NAMES.split(",")}

"""The data check ("the doctor"): reads every file of a data set before training and reports all problems.

Examples are a mask of wrong ids, a validation image that is also in the training set, or a class that never occurs.
`check_dataset` also counts the labels and suggests a description that leaves out or repairs what it can.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from lpsnet.data import images, inspection
from lpsnet.data.dataset import NAMED, Dataset, build_dataset, label_format, open_dataset, open_path
from lpsnet.data.description import Description
from lpsnet.data.guess import class_map
from lpsnet.data.images import IMAGE_SUFFIXES
from lpsnet.data.inspection import Diagnosis, Finding, Report, SplitCounts
from lpsnet.data.labels import IGNORE_INDEX, MAX_CLASSES, Colour, LabelSpace
from lpsnet.data.split import NUM_MEASURED, FileSplit, Split, channel_statistics
from lpsnet.errors import DataError
from lpsnet.io import expand_home

_MANY = 64  # values without a class that are listed; if there are more, all of them mean no label
_BLACK = (0, 0, 0)
_SEVERITIES = ("error", "warning", "note")
UNREAD_SUFFIXES = (".heic", ".heif", ".avif", ".gif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".dng", ".exr", ".npy")
_SERIES_SHOWN = 5
_ALIKE = {"numbers of 8 or 16 bits", "colours"}  # kinds of label files that every program writes alike
_WRONG_KINDS = ("colours_for_ids", "ids_for_colours")


def suggest_yaml(dataset: Dataset, reports: Mapping[str, list[Report]]) -> str:
    """The text of a YAML file; "" for a data set without files, or if nothing usable is left."""
    if dataset.description is None:
        return ""
    everything = [report for members in reports.values() for report in members]
    values = {"path": "."} | _plain(dataset.description.model_dump(exclude_defaults=True))
    values["path"] = os.path.abspath(dataset.root / dataset.description.path)  # noqa: PTH100 - keeps links
    repaired = _repair_kind(values, everything, dataset.label_space)
    harmless = {"unknown_values", *(_WRONG_KINDS if repaired else ())}
    remarks = [*repaired, *_ignore_unknown(values, everything), *_exclude(values, reports, harmless)]
    remarks += [*dataset.doubts, *(finding.message for finding in _covering(dataset, reports))]
    text = "".join(f"# {line}\n" for line in [f"Suggested by 'lpsnet data check {dataset.spec}'.", *remarks])
    text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=118)
    return text if _opens(text, dataset) else ""


def _repair_kind(values: dict[str, Any], reports: list[Report], space: LabelSpace) -> list[str]:
    """If all label files hold colours instead of ids, or the reverse, describe these."""
    wrong = [report for report in reports if report.other_values]
    if not wrong or any(report.labels is not None for report in reports):
        return []
    found: Counter[Any] = sum((Counter(report.other_values) for report in wrong), Counter())
    if len(found) > MAX_CLASSES + 1:  # a photograph, or colours that were blended
        return []
    expected_colours = "colour_map" in values
    for key in ("ids", "ignore", "colour_map", "reduce_zero_label"):
        values.pop(key, None)
    return (_describe_ids if expected_colours else _describe_colours)(values, found, space)


def _describe_ids(values: dict[str, Any], found: Mapping[int, int], space: LabelSpace) -> list[str]:
    values["names"] = list(space.names)
    values["colours"] = [list(colour) for colour in space.colours]
    unknown = sorted(number for number in found if number >= space.num_classes and number != IGNORE_INDEX)
    if unknown:
        values["ignore"] = unknown
    return ["The label files hold ids: check that they are in the order of 'names'."]


def _describe_colours(values: dict[str, Any], found: Mapping[Colour, int], space: LabelSpace) -> list[str]:
    named = dict(zip(space.colours, space.names, strict=True))
    if set(found) <= {*named, _BLACK}:
        values["colour_map"] = {name: list(colour) for colour, name in named.items()}
        if _BLACK in found and _BLACK not in named:
            values["ignore"] = [list(_BLACK)]
        return ["The label files hold the colours of the classes."]
    for key in ("name", "names", "colours"):
        values.pop(key, None)
    values |= class_map(found, are_colours=True)
    return ["The label files hold colours: give the classes of 'colour_map' their names."]


def _ignore_unknown(values: dict[str, Any], reports: list[Report]) -> list[str]:
    unknown = sorted({value for report in reports for value in report.unknown})
    if not unknown:
        return []
    if len(unknown) > _MANY:
        values["ignore"] = "others"
        return [f"{_MANY} values and more in the label files have no class and mean no label here."]
    values["ignore"] = [*values.get("ignore", []), *map(_plain, unknown)]
    listed = ", ".join(map(str, unknown))
    return [f"No class has {listed}: they mean no label here; if they are classes, give them names."]


def _exclude(values: dict[str, Any], reports: Mapping[str, list[Report]], harmless: set[str]) -> list[str]:
    """Leave out images with an error that is not repaired, and those that share their name."""
    names = set()
    for members in reports.values():
        counts = Counter(report.pair.name for report in members)
        names |= {name for name, count in counts.items() if count > 1}
        for report in members:
            if any(item.severity == "error" and item.kind not in harmless for item in report.findings):
                names.add(report.pair.name)
    if not names:
        return []
    values["exclude"] = [*values.get("exclude", []), *sorted(names)]
    return [f"Left out ('exclude'), as they are unusable or not the only ones of their name: {len(names)} images."]


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _opens(text: str, dataset: Dataset) -> bool:
    try:
        description = Description.model_validate(yaml.safe_load(text))
        opened = build_dataset(dataset.spec, description, dataset.root)
        return all(len(opened.split(name)) for name in opened.splits)
    except (DataError, ValidationError):
        return False


Progress = Callable[[int, int], None]  # called with the number of images done and their total
Reports = Mapping[str, list[Report]]  # by split


def check_dataset(text: str | Path, *, on_progress: Progress | None = None) -> Diagnosis:
    """Check a data set. Its problems become findings, not errors.

    Args:
        text: as for `--data`; for any other folder, images and label files are found by names and contents.
        on_progress: called after every image with the number done and the total.
    """
    text = str(text)
    try:
        dataset = open_any(text)
    except DataError as error:
        return Diagnosis(text, [Finding("cannot_open", text, str(error))], suggested_yaml=_suggest_anyway(text))
    return check_opened(dataset, on_progress=on_progress)


def check_opened(dataset: Dataset, *, on_progress: Progress | None = None) -> Diagnosis:
    """`check_dataset` of a data set that is open."""
    reports = _examine(dataset, on_progress)
    findings = [item for members in reports.values() for report in members for item in report.findings]
    counts = {name: _count(dataset.label_space, members) for name, members in reports.items()}
    findings += [*_file_findings(dataset), *_same_images(reports), *_conversions(reports), *_covering(dataset, reports)]
    findings += [*_absent_classes(dataset, counts), *_kinds(reports), *_left_out(dataset)]
    findings += [*_shared_series(dataset), *_channels(dataset, reports), *_similar_names(dataset)]
    return Diagnosis(
        dataset.spec,
        sorted(findings, key=lambda item: _SEVERITIES.index(item.severity)),
        counts,
        suggest_yaml(dataset, reports),
    )


def open_any(text: str) -> Dataset:
    """`open_dataset`, which also takes a folder whose layout has to be guessed."""
    path = expand_home(text)
    if text and path.is_dir() and label_format(path) is None:
        return open_path(text, path)
    return open_dataset(text)


def _suggest_anyway(text: str) -> str:
    """A description of a folder that was opened as a preset but has another layout."""
    kind, _, rest = text.partition(":")
    root = expand_home(rest)
    if kind not in NAMED or not rest or not root.is_dir():
        return ""
    try:
        dataset = open_path(text, root)
    except DataError:
        return ""
    return suggest_yaml(dataset, _examine(dataset, None))


def _examine(dataset: Dataset, on_progress: Progress | None) -> dict[str, list[Report]]:
    """Check all samples, in threads: decoding releases Python's lock."""
    total, done = sum(map(len, dataset.parts.values())), 0
    reports: dict[str, list[Report]] = {}
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for name, split in dataset.parts.items():
            reports[name] = []
            for report in executor.map(_inspector(split), range(len(split))):
                reports[name].append(report)
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
    return reports


def _inspector(split: Split) -> Callable[[int], Report]:
    if isinstance(split, FileSplit):
        return lambda index: inspection.inspect_pair(split.pairs[index], split.decoder, split.channels)
    return lambda index: inspection.inspect_sample(split, index)


def _count(space: LabelSpace, reports: list[Report]) -> SplitCounts:
    pixels: Counter[int] = Counter()
    for report in reports:
        pixels.update(report.labels or {})
    sizes = Counter(f"{report.size[0]}x{report.size[1]}" for report in reports if report.size)
    by_class = {name: pixels[index] for index, name in enumerate(space.names)}
    labelled = sum(report.labels is not None for report in reports)
    return SplitCounts(len(reports), labelled, dict(sizes.most_common()), by_class, pixels[IGNORE_INDEX])


def _file_findings(dataset: Dataset) -> Iterator[Finding]:
    """What is doubtful in a guess, names used twice, label files without an image, and splits without labels."""
    for doubt in dataset.doubts:
        yield Finding("doubtful_layout", str(dataset.root), doubt)
    for split in dataset.parts.values():
        if not isinstance(split, FileSplit):
            continue
        files = defaultdict(list)
        for pair in split.pairs:
            files[pair.name].append(pair.image)
        for name, paths in files.items():
            if len(paths) > 1:
                listed = ", ".join(map(str, paths))
                message = f"split {split.name!r} has {len(paths)} images named {name!r}: {listed}; keep one of them"
                yield Finding("duplicate_name", str(paths[0]), message)
        for path in split.spare_masks:
            yield Finding("missing_image", str(path), f"label file {path} of split {split.name!r} has no image")
        if all(pair.mask is None for pair in split.pairs):
            message = f"split {split.name!r} has no label files; it can be segmented, not trained on or scored"
            yield Finding("unlabelled_split", split.name, message)


def _covering(dataset: Dataset, reports: Reports) -> Iterator[Finding]:
    """What was decided when label files with shapes were read, and the share of pixels that no shape covers."""
    for remark in dataset.remarks:
        yield Finding("label_files", dataset.spec, remark)
    for stray in dataset.strays:
        yield Finding("stray_values", dataset.spec, stray)
    background = dataset.description.background if dataset.description else None
    rule = "they have no label; `background: NAME` in a description, or ,background=NAME, makes them a class"
    rule = rule if background is None else f"they are {background!r}, as 'background' says"
    for name, members in reports.items():
        drawn = [report for report in members if report.pair.drawing is not None]
        total = sum(sum((report.labels or {}).values()) for report in drawn)
        if drawn and total:
            share = 100 * sum(report.uncovered for report in drawn) / total
            yield Finding("uncovered", name, f"{share:.2f} % of the pixels of split {name!r} are in no shape: {rule}")


def _same_images(reports: Reports) -> Iterator[Finding]:
    """Files with the same bytes; each is reported once, with the first one it repeats."""
    first: dict[bytes, tuple[str, Path]] = {}
    for split, members in reports.items():
        for report in members:
            path = report.pair.image
            if report.digest is None:
                continue
            other_split, other = first.setdefault(report.digest, (split, path))
            if other_split != split:
                message = f"{path} of split {split!r} is the same image as {other} of split {other_split!r}"
                yield Finding("shared_picture", str(path), message)
            elif other != path:
                yield Finding("repeated_picture", str(path), f"{path} is the same image as {other}, in one split")


_FRAME = re.compile(r"(?:[_\-. ]+f?\d+)+$")  # ends the name of a frame of a film: 0016E5_07959


def _shared_series(dataset: Dataset) -> Iterator[Finding]:
    """Films, by the names of their frames, of which a part is in 'train' and a part in 'val'.

    Nothing is said where all series are in both: the names are then no films' ("img_0001").
    """
    counts = {name: _series(dataset.parts[name].names) for name in ("train", "val") if name in dataset.parts}
    if len(counts) < 2:
        return
    shared = sorted(counts["train"].keys() & counts["val"].keys())
    if not shared or len(shared) == len(counts["train"].keys() | counts["val"].keys()):
        return
    listed = ", ".join(f"{name} ({counts['train'][name]} and {counts['val'][name]})" for name in shared[:_SERIES_SHOWN])
    more = f" and {len(shared) - _SERIES_SHOWN} more" if len(shared) > _SERIES_SHOWN else ""
    message = (
        f"by their names, 'train' and 'val' hold images of the same series: {listed}{more}; scores on neighbours of"
    )
    yield Finding("shared_series", "val", f"{message} training images flatter: put each series into one split")


def _series(names: Sequence[str]) -> Counter[str]:
    """The number of images by what their names have before the number of a frame."""
    found = ((name, _FRAME.search(name)) for name in (text.rpartition("/")[2] for text in names))
    return Counter(name[: match.start()] for name, match in found if match is not None and match.start() > 0)


def _conversions(reports: Reports) -> Iterator[Finding]:
    for split, members in reports.items():
        groups = defaultdict(list)
        for report in members:
            groups[report.content].append(report.pair.image)
        for content, paths in groups.items():
            if content:
                message = (
                    f"{len(paths)} of {len(members)} images of split {split!r} are {inspection.CONVERSIONS[content]}"
                )
                yield Finding("converted_pictures", str(paths[0]), f"{message} (first: {paths[0]})")


def _kinds(reports: Reports) -> Iterator[Finding]:
    """What only a look at all files of a kind tells."""
    everything = [report for members in reports.values() for report in members]
    dark = [report for report in everything if report.top]
    if dark:
        top, first = max(report.top for report in dark), dark[0].pair.image
        message = (
            f"{len(dark)} images of 16 bits hold numbers up to {top} alone ({top.bit_length()} bits; first: {first})"
        )
        scale = 2 ** (16 - top.bit_length())
        yield Finding(
            "few_bits",
            str(first),
            f"{message}: they are read as almost black; describe their `channels`, or multiply them by {scale}",
        )
    masks = [report for report in everything if report.mask_kind]
    counts = Counter(report.mask_kind for report in masks)
    usual = max(counts, key=lambda kind: counts[kind], default="")
    for kind, count in counts.items():
        if kind != usual and not {kind, usual} <= _ALIKE:
            path = next(report.pair.mask for report in masks if report.mask_kind == kind)
            message = f"{count} of {len(masks)} label files hold {kind} (first: {path}), {counts[usual]} hold {usual}"
            yield Finding("mixed_label_files", str(path), f"{message}: see that their ids mean the same")
    num_jpeg = sum(report.format == "JPEG" for report in everything)
    if num_jpeg and not images.is_judged():
        message = f"damage inside of JPEG files ({num_jpeg}) is not noticed: lpsnet was installed without a C compiler"
        yield Finding("unjudged", "all", message)


def _channels(dataset: Dataset, reports: Reports) -> Iterator[Finding]:
    """What other channels than RGB hold: their range in all images, mean and deviation as a training measures them."""
    split = dataset.parts.get("train") or next(iter(dataset.parts.values()))
    channels, first = split.channels, next(iter(split.names), "")
    read = [report for members in reports.values() for report in members if report.highest]
    if channels.is_rgb or not read:
        return
    lowest = [min(values) for values in zip(*(report.lowest for report in read), strict=True)]
    highest = [max(values) for values in zip(*(report.highest for report in read), strict=True)]
    bits = max(highest).bit_length()
    few = f": {bits} bit in {channels.bits}" if bits < channels.bits == 16 else ""
    yield Finding("channels", dataset.spec, f"images of {channels}, values up to {max(highest)}{few}")
    for name, low, high in zip(channels.names, lowest, highest, strict=True):
        if low == high:
            yield Finding("constant_channel", first, f"channel {name!r} is {low} in all images: it teaches nothing")
    with suppress(DataError):  # reported with its image
        found = channel_statistics(split)
        listed = (
            f"{name} {low} to {high}, {mean:.1f} ± {std:.1f}"
            for name, low, high, mean, std in zip(channels.names, lowest, highest, found.mean, found.std, strict=True)
        )
        count = min(len(split), NUM_MEASURED)
        message = f"channels, with mean and deviation of {count} images of split {split.name!r}: {'; '.join(listed)}"
        yield Finding("channels", split.name, message)


def _left_out(dataset: Dataset) -> Iterator[Finding]:
    """Files in and beside the folders of the data set that no split has, and those of formats that are not read."""
    splits = [split for split in dataset.parts.values() if isinstance(split, FileSplit)]
    used = {
        path for split in splits for pair in split.pairs for path in (pair.image, pair.mask, *pair.rivals, *pair.extra)
    }
    used |= {path for split in splits for path in split.spare_masks}
    left = [path for folder in _folders(used, dataset.root) for path in _listed(folder) if path not in used]
    left = [path for path in left if not _is_excluded(path, dataset)]
    for folder, paths in _grouped(left, lambda path: path.parent, IMAGE_SUFFIXES).items():
        message = f"in {folder}, images or label files that belong to no split: {len(paths)} (first: {paths[0]})"
        yield Finding("left_out", str(folder), message)
    for suffix, paths in _grouped(left, lambda path: path.suffix.lower(), UNREAD_SUFFIXES).items():
        message = f"files of format {suffix}, which is not read: {len(paths)} (first: {paths[0]}); save them as PNG"
        yield Finding("unread_kind", str(paths[0]), message)


def _folders(used: set[Path | None], root: Path) -> list[Path]:
    """The folders of these files, and the folders beside them, but for those in the root of the data set."""
    folders = {path.parent for path in used if path is not None}
    parents = {folder.parent for folder in folders if folder.parent.absolute() != root.absolute()} - folders
    parents = {parent for parent in parents if root.absolute() in parent.absolute().parents}
    beside = {path for parent in parents for path in _listed(parent) if path.is_dir()}
    return sorted(folder for folder in folders | beside if folder.is_dir())


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".")) if folder.is_dir() else []


def _is_excluded(path: Path, dataset: Dataset) -> bool:
    found = dataset.description
    names = {Path(name).name for name in found.exclude} if found else set()
    endings = (found.image_suffix, found.mask_suffix) if found else ()
    return any(path.stem.removesuffix(ending) in names for ending in endings)


def _grouped(paths: list[Path], key: Callable[[Path], Any], suffixes: tuple[str, ...]) -> dict[Any, list[Path]]:
    groups: dict[Any, list[Path]] = defaultdict(list)
    for path in paths:
        if path.suffix.lower() in suffixes:
            groups[key(path)].append(path)
    return groups


def _similar_names(dataset: Dataset) -> Iterator[Finding]:
    """Classes whose names differ in case, blanks or dashes alone: likely one class, spelt in several ways."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in dataset.label_space.names:
        groups[" ".join(re.split(r"[\s_-]+", name.casefold().strip()))].append(name)
    has_masks = dataset.description is not None and dataset.description.format == "masks"
    for names in groups.values():
        if len(names) > 1:
            listed = " and ".join(map(repr, names))
            remedy = f"if they are one class, merge them by {'`ids` or `colour_map`' if has_masks else '`labels`'}"
            yield Finding("similar_classes", dataset.spec, f"classes {listed} have almost the same name: {remedy}")


def _maybe_255(dataset: Dataset, absent: list[str], counts: Mapping[str, SplitCounts]) -> str:
    """What to do if 255 in the label files, which means no label, is the second of two classes; "" if it is not."""
    found = dataset.description
    if found is None or found.format != "masks" or found.colour_map or found.ignore or found.reduce_zero_label:
        return ""
    names = found.class_names()
    share = max((item.ignored_percent for item in counts.values()), default=0.0)
    if len(names) != 2 or len(absent) != 1 or not share or found.ids is not None or isinstance(found.names, dict):
        return ""
    table = {255 if name == absent[0] else number: name for number, name in enumerate(names)}
    listed = ", ".join(f"{number}: {name}" for number, name in sorted(table.items()))
    return f"; 255 in the label files means no label: if it is this class, write `names: {{{listed}}}`"


def _absent_classes(dataset: Dataset, counts: Mapping[str, SplitCounts]) -> Iterator[Finding]:
    space = dataset.label_space
    labelled = {name: item.class_pixels for name, item in counts.items() if item.num_labelled}
    for name in [name for name, pixels in labelled.items() if not any(pixels.values())]:
        yield Finding(
            "nothing_labelled", name, f"no pixel of split {name!r} has a label: there is nothing to learn in it"
        )
        del labelled[name]
    present = {label for pixels in labelled.values() for label, count in pixels.items() if count}
    if len(present) == 1:
        message = f"all labelled pixels are of class {next(iter(present))!r}: there is nothing to tell apart"
        yield Finding("one_class", "all", message)
    absent = [label for label in space.names if labelled and label not in present]
    for label in space.names:
        without = [name for name, pixels in labelled.items() if not pixels[label]]
        if without and len(without) == len(labelled):
            yield Finding("absent_class", "all", f"class {label!r} never occurs{_maybe_255(dataset, absent, counts)}")
        else:
            for name in without:
                yield Finding("absent_class", name, f"class {label!r} never occurs in split {name!r}")

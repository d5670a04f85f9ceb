"""A description of a data set that opens and repairs what can be repaired, for the doctor (`doctor.py`) to suggest."""

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from lpsnet.data.datasets import Dataset, described_dataset
from lpsnet.data.guess import class_map
from lpsnet.data.inspection import Report
from lpsnet.data.labels import IGNORE_INDEX, MAX_CLASSES, Colour, LabelSpace
from lpsnet.data.layouts.description import Description
from lpsnet.errors import DataError

_MANY = 64  # values without a class that are worth listing; beyond, all others mean no label
_BLACK = (0, 0, 0)
_WRONG_KINDS = ("colours_for_ids", "ids_for_colours")


def suggest_yaml(dataset: Dataset, reports: Mapping[str, list[Report]]) -> str:
    """The text of a YAML file, or "" for a data set of no files, or where no description of the usable rest opens."""
    if dataset.description is None:
        return ""
    everything = [report for members in reports.values() for report in members]
    values = {"path": "."} | _plain(dataset.description.model_dump(exclude_defaults=True))
    values["path"] = os.path.abspath(dataset.root / dataset.description.path)  # noqa: PTH100 - keeps links
    repaired = _repair_kind(values, everything, dataset.label_space)
    harmless = {"unknown_values", *(_WRONG_KINDS if repaired else ())}
    remarks = [*repaired, *_ignore_unknown(values, everything), *_exclude(values, reports, harmless)]
    text = "".join(f"# {line}\n" for line in [f"Suggested by 'lpsnet data check {dataset.spec}'.", *remarks])
    text += yaml.safe_dump(values, sort_keys=False, allow_unicode=True, default_flow_style=None, width=118)
    return text if _opens(text, dataset) else ""


def _repair_kind(values: dict[str, Any], reports: list[Report], space: LabelSpace) -> list[str]:
    """Where all label files hold colours instead of ids, or the reverse, describe what they hold."""
    wrong = [report for report in reports if report.other_values]
    if not wrong or any(report.labels is not None for report in reports):
        return []
    found: Counter[Any] = Counter()
    for report in wrong:
        found.update(report.other_values)
    if len(found) > MAX_CLASSES + 1:  # no labels: a photograph, or colours that were blended
        return []
    promised_colours = "colour_map" in values
    for key in ("ids", "ignore", "colour_map", "reduce_zero_label"):
        values.pop(key, None)
    return (_describe_ids if promised_colours else _describe_colours)(values, found, space)


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
    """Leave out pictures with an error that nothing above repairs, and those that share their name."""
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
    return [f"Left out ('exclude'), as they are unusable or not the only ones of their name: {len(names)} pictures."]


def _plain(value: Any) -> Any:
    """Tuples as lists, which YAML has."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _opens(text: str, dataset: Dataset) -> bool:
    try:
        description = Description.model_validate(yaml.safe_load(text))
        opened = described_dataset(dataset.spec, description, dataset.root)
        return all(len(opened.split(name)) for name in opened.splits)
    except (DataError, ValidationError):
        return False

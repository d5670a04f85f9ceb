"""A model card for the Hugging Face Hub, made from a model's record."""

from pathlib import PurePath
from typing import Any

import yaml

from lpsnet.record import ModelRecord

_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>|#"})


def model_card(record: ModelRecord, *, repo: str, file: str) -> str:
    """The text of a README.md: what the Hub reads between two lines of dashes, then Markdown.

    Args:
        record: of the model; what it does not say is left out.
        repo: "owner/model".
        file: name of the model file in the repository.
    """
    parts = [
        f"# {_text(repo.partition('/')[2])}",
        _introduction(record),
        f"## Use\n\n{_use(repo, file)}",
        f"## Classes\n\n{_classes(record)}",
        _section("Training", _training(record.training)),
        _section("Scores", _scores(record.scores)),
        _section("Terms", _text(record.licence)),
        f"Made with lpsnet {_text(record.lpsnet_version)}".rstrip() + ". The file carries this record in full.",
    ]
    return f"---\n{_metadata(file)}---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _metadata(file: str) -> str:
    values: dict[str, Any] = {
        "library_name": "lpsnet",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "real-time", "lps-net", PurePath(file).suffix.lstrip(".")],
        "license": "other",  # the Hub knows names of licences; a record holds a sentence
    }
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _introduction(record: ModelRecord) -> str:
    count = record.label_space.num_classes
    size = "x".join(map(str, record.input_size)) if record.input_size else "the picture's own size"
    network = f"`{record.architecture}`, {record.block}, {record.interaction}" if record.architecture else "not LPS-Net"
    return (
        f"A network for semantic segmentation of {count} classes ({_text(record.label_space.name)}), run at {size}.\n\n"
        f"Architecture: {network}."
    )


def _use(repo: str, file: str) -> str:
    return (
        "```sh\npip install 'lpsnet[hub]'\n"
        f"lpsnet segment photo.jpg --model hf://{repo}/{file} --out segmented\n```\n\n"
        f'```python\nimport lpsnet\n\nsegment = lpsnet.Segmenter("hf://{repo}/{file}")\n'
        "labels = segment(image)  # H x W x 3 uint8 RGB in, H x W uint8 class ids out\n```"
    )


def _classes(record: ModelRecord) -> str:
    rows = (
        f"| {number} | {_text(name)} | {_hex(*colour)} |"
        for number, (name, colour) in enumerate(zip(record.label_space.names, record.label_space.colours, strict=True))
    )
    return "\n".join(["| id | name | colour |", "| --- | --- | --- |", *rows])


def _hex(red: int, green: int, blue: int) -> str:
    return f"#{red:02x}{green:02x}{blue:02x}"


def _training(training: dict[str, Any]) -> str:
    recipe = training.get("recipe")
    facts = {
        "data": _without_place(training.get("data")),
        "split": training.get("split"),
        "pictures": training.get("num_pictures"),
        "recipe": recipe.get("name") if isinstance(recipe, dict) else None,
        "iterations": training.get("iterations"),
        "machine": training.get("machine"),
        "finished": training.get("finished"),
    }
    return "\n".join(f"- {name}: {_text(value)}" for name, value in facts.items() if value)


def _without_place(data: object) -> str | None:
    """The data set without the folder it lay in on the machine that trained."""
    if not isinstance(data, str):
        return None
    preset, _, rest = data.partition(":")
    return data if preset == "scenes" else preset if rest and len(preset) > 1 else PurePath(data).name


def _scores(scores: dict[str, Any]) -> str:
    rows = [
        f"| {_text(split)} | {figures['miou']:.2f} | {figures.get('num_images', '')} |"
        for split, figures in scores.items()
        if isinstance(figures, dict) and isinstance(figures.get("miou"), float)
    ]
    return "\n".join(["| on | mIoU, percent | pictures |", "| --- | --- | --- |", *rows]) if rows else ""


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def _text(value: object) -> str:
    """A value as one line of Markdown that means nothing but itself."""
    return " ".join(str(value).split()).translate(_MARKDOWN)

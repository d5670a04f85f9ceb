"""For maintainers: make a trained network one of the models that come with the package (`lpsnet/weights`).

One file a model, NAME.onnx with weights in f16: it runs without torch, and trainings and exports start from it. Each
has a line in SHA256SUMS, as `sha256sum --check` reads it.

    python tools/bundle_weights.py camvid_s=runs/camvid_s/model.safetensors
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lpsnet.export.onnx import export_onnx
from lpsnet.export.verify import ExportReport
from lpsnet.inference.hub import CHECKSUMS, sha256, weights_folder
from lpsnet.inference.model_file import read_record
from lpsnet.io import atomic_path
from lpsnet.models.checkpoint import load_checkpoint
from lpsnet.models.reparameterise import fuse
from lpsnet.record import ModelRecord


def bundle(name: str, checkpoint: Path, folder: Path, **changes: Any) -> ExportReport:
    """Write a checkpoint's network to `folder` as NAME.onnx, and the folder's checksums.

    Args:
        name: of the model, as `--model` will take it.
        checkpoint: in any form.
        folder: of the models.
        changes: fields of the record to be replaced, e.g. `scores`.

    Returns:
        How the ONNX file compares with the network.

    Raises:
        ModelFileError: the checkpoint is not usable, or the ONNX file is not the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = without_places(read_record(checkpoint).model_copy(update=changes))
    deployed = fuse(load_checkpoint(checkpoint)).half().float()  # weights that f16 holds exactly
    report = export_onnx(deployed, folder / f"{name}.onnx", record=record, weights="f16")
    write_checksums(folder)
    return report


def without_places(record: ModelRecord) -> ModelRecord:
    """The record with names in place of the paths of the machine it was made on, e.g. `camvid:CamVid`."""
    values = {field: _without_places(getattr(record, field)) for field in ("training", "scores")}
    return record.model_copy(update=values)


def _without_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_places(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_places(inner) for inner in value]
    if not isinstance(value, str):
        return value
    kind, colon, path = value.rpartition(":")
    return f"{kind}{colon}{Path(path).name}" if Path(path).is_absolute() else value


def write_checksums(folder: Path) -> None:
    """SHA256SUMS of all models in `folder`."""
    files = sorted(folder.glob("*.onnx"))
    with atomic_path(folder / CHECKSUMS) as temporary:
        temporary.write_text("".join(f"{sha256(file)}  {file.name}\n" for file in files), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; `arguments` are those of the process unless given."""
    parser = argparse.ArgumentParser(description="Put trained networks among the models that come with the package.")
    parser.add_argument("models", nargs="+", metavar="NAME=CHECKPOINT", help="name of a model and its checkpoint")
    parser.add_argument("--folder", type=Path, default=weights_folder(), help="of the models [%(default)s]")
    options = parser.parse_args(arguments)
    for argument in options.models:
        name, equals, checkpoint = argument.partition("=")
        if not (name and equals and checkpoint):
            parser.error(f"a model is given as NAME=CHECKPOINT; got {argument!r}")
        print(bundle(name, Path(checkpoint), options.folder))


if __name__ == "__main__":
    main()

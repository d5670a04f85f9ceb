"""Which file a model's name means: a path, one of the models that come with the package, or one on the Hub."""

import hashlib
from importlib import resources
from pathlib import Path

from lpsnet.deployment.hub.address import is_hub_address
from lpsnet.deployment.model_file import METADATA_READERS, check_model_file
from lpsnet.errors import ModelFileError, unknown_name

DEFAULT_MODEL = "camvid_m"  # streets; what is run where no model is named


CHECKSUMS = "SHA256SUMS"  # of the models' files, beside them; `sha256sum --check` reads it


def weights_folder() -> Path:
    """Where the models lie that come with the package."""
    return Path(str(resources.files("lpsnet") / "weights"))


def list_models() -> dict[str, Path]:
    """The models that come with the package: name to ONNX file, in the order of the names."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.onnx"))}


def check_sum(path: Path) -> Path:
    """`path`, a file that came with the package, if it is what was packed.

    Raises:
        ModelFileError: it is another, or is missing, or the list of checksums is.
    """
    check_model_file(path)
    try:
        lines = (path.parent / CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path.parent / CHECKSUMS} cannot be read: {error}; install lpsnet again") from None
    if f"{sha256(path)}  {path.name}" not in lines:
        raise ModelFileError(f"{path} is not the file that came with lpsnet; install lpsnet again")
    return path


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model(model: str | Path, *, preferred: str = ".onnx") -> Path:
    """The file of a model given by its path, the name of one that comes with the package, or an address on the Hub.

    Args:
        model: the path, name or address.
        preferred: the suffix of the file to take where a model is there in several formats.

    Raises:
        ModelFileError: there is neither a file nor a model of that name, or the file is empty.
    """
    if is_hub_address(model):
        from lpsnet.deployment.hub.download import download_model

        return check_model_file(download_model(str(model), preferred=preferred))
    path = Path(model)
    if path.exists() or _looks_like_a_path(str(model)):
        return check_model_file(path)
    bundled = list_models()
    if str(model) in bundled:
        return check_sum(bundled[str(model)].with_suffix(preferred))
    if not bundled:
        raise ModelFileError(f"no model file at {model}, and no models come with this installation")
    raise ModelFileError(f"{unknown_name('model', model, bundled)}, or the path of a model file")


def find_checkpoint(model: str | Path) -> Path:
    """The same of a checkpoint, to train on from or to export: of models in several formats, that in safetensors."""
    return find_model(model, preferred=".safetensors")


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix.lower() in METADATA_READERS

"""Which file a model's name means: a path, one of the models that come with the package, or one on the Hub."""

from importlib import resources
from pathlib import Path

from lpsnet.deployment.hub.address import is_hub_address
from lpsnet.deployment.model_file import METADATA_READERS, check_model_file
from lpsnet.errors import ModelFileError, unknown_name

DEFAULT_MODEL = "camvid_m_fine"  # streets; what is run where no model is named


def list_models() -> dict[str, Path]:
    """The models that come with the package: name to ONNX file, in the order of the names."""
    folder = Path(str(resources.files("lpsnet") / "weights"))
    return {path.stem: path for path in sorted(folder.glob("*.onnx"))}


def find_model(model: str | Path) -> Path:
    """The file of a model given by its path, the name of one that comes with the package, or an address on the Hub.

    Raises:
        ModelFileError: there is neither a file nor a model of that name, or the file is empty.
    """
    if is_hub_address(model):
        from lpsnet.deployment.hub.download import download_model

        return check_model_file(download_model(str(model)))
    path = Path(model)
    if path.exists() or _looks_like_a_path(str(model)):
        return check_model_file(path)
    bundled = list_models()
    if str(model) in bundled:
        return bundled[str(model)]
    if not bundled:
        raise ModelFileError(f"no model file at {model}, and no models come with this installation")
    raise ModelFileError(f"{unknown_name('model', model, bundled)}, or the path of a model file")


def _looks_like_a_path(text: str) -> bool:
    return "/" in text or "\\" in text or Path(text).suffix.lower() in METADATA_READERS

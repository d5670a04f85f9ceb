"""Getting a model file from the Hugging Face Hub. What was downloaded once is there without a network, too."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from lpsnet.deployment.hub.address import HubAddress
from lpsnet.deployment.hub.errors import hub_errors
from lpsnet.deployment.model_file import METADATA_READERS
from lpsnet.errors import ModelFileError


def download_model(address: str | HubAddress, *, preferred: str = ".onnx") -> Path:
    """The model file at an address, downloaded into the cache of huggingface_hub unless it is there.

    Args:
        address: of a repository or a file in one.
        preferred: the suffix of the file to take where a repository holds one of these beside others.

    Raises:
        ModelFileError: there is no such model, revision or file, which of several files is meant is not said, or the
            Hub cannot be reached; the message says what to do.
        MissingDependencyError: huggingface_hub is not installed; the message holds the install command.
    """
    if isinstance(address, str):
        address = HubAddress.parse(address)
    with hub_errors(address):
        from huggingface_hub import hf_hub_download

        file = address.file or choose_file(_list_files(address), address, preferred=preferred)
        return Path(hf_hub_download(address.repo, file, revision=address.revision))


def choose_file(files: Sequence[str], address: HubAddress, *, preferred: str = ".onnx") -> str:
    """The one model file among a repository's files, or the one with the preferred suffix among several.

    Raises:
        ModelFileError: there is none, or which one is meant is not clear.
    """
    models = [file for file in files if PurePosixPath(file).suffix.lower() in METADATA_READERS]
    chosen = [file for file in models if PurePosixPath(file).suffix.lower() == preferred] or models
    if not chosen:
        raise ModelFileError(f"{address} holds no model file ({', '.join(METADATA_READERS)})")
    if len(chosen) > 1:
        raise ModelFileError(f"{address} holds several model files; add one of them: {', '.join(sorted(chosen))}")
    return chosen[0]


def _list_files(address: HubAddress) -> list[str]:
    """The repository's files; where the Hub cannot be reached, those downloaded before."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return HfApi().list_repo_files(address.repo, revision=address.revision)
    except HfHubHTTPError:  # the Hub has answered
        raise
    except Exception as error:  # it has not: no network, or told not to ask
        try:
            folder = Path(snapshot_download(address.repo, revision=address.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

"""Addresses of models on the Hugging Face Hub: `hf://OWNER/MODEL[@REVISION][/FILE]`, as the Hub itself writes them."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Self
from urllib.parse import unquote

from lpsnet.deployment.model_file import METADATA_READERS
from lpsnet.errors import ModelFileError, unknown_name

SCHEME = "hf://"

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPO = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_ADDRESS = re.compile(rf"hf://(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[^/@\s]+))?(?:/(?P<file>\S.*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A model on the Hub.

    Attributes:
        repo: "owner/model".
        revision: branch, tag or commit; None for the main branch.
        file: place of the model file in the repository; None for the only one there is.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that a text is. A slash in a revision is written %2F.

        Raises:
            ModelFileError: it is no address, or names a file of no model format.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ModelFileError(f"a model on the Hub is hf://OWNER/MODEL[@REVISION][/FILE]; got {text!r}")
        revision, file = match["revision"], match["file"]
        if file is not None:
            _check_file(file, text)
        return cls(match["repo"], None if revision is None else unquote(revision), file)

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"{SCHEME}{self.repo}{revision}{'' if self.file is None else f'/{self.file}'}"


def is_hub_address(model: object) -> bool:
    """Whether a model is named by an address on the Hub."""
    return isinstance(model, str) and model.startswith(SCHEME)


def check_repo(repo: str) -> str:
    """`repo` if it is "owner/model"; ModelFileError otherwise."""
    repo = repo.removeprefix(SCHEME)
    if _REPO.fullmatch(repo) is None:
        raise ModelFileError(f"a repository on the Hub is OWNER/MODEL; got {repo!r}")
    return repo


def _check_file(file: str, text: str) -> None:
    if any(part in ("", ".", "..") for part in file.split("/")) or "\\" in file:
        raise ModelFileError(f"{text!r} names no file inside its repository")
    suffix = PurePosixPath(file).suffix
    if suffix.lower() not in METADATA_READERS:
        raise ModelFileError(f"{text}: {unknown_name('model file suffix', suffix, METADATA_READERS)}")

"""Where a model comes from: a path, a model shipped with the package, or the Hugging Face Hub; and pushing to the Hub.

On the Hub a model is `hf://OWNER/MODEL[@REVISION][/FILE]`. Downloads are cached and then work offline. A pushed model
gets a model card made from its record. Errors of the Hub become one line each.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Self
from urllib.parse import unquote

import yaml

from lpsnet.data.labels import LabelSpace
from lpsnet.errors import LpsnetError, MissingDependencyError, ModelFileError, unknown_name
from lpsnet.inference.engines import one_line
from lpsnet.inference.model_file import METADATA_READERS, check_model_file, read_record
from lpsnet.record import ModelRecord

DEFAULT_MODEL = "camvid_m"  # streets; used if no model is named
CHECKSUMS = "SHA256SUMS"  # of the shipped models, beside them; `sha256sum --check` reads it
SCHEME = "hf://"
CARD_NAME = "README.md"

_NAME = r"[A-Za-z0-9][\w.-]*"
_REPO = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_ADDRESS = re.compile(rf"hf://(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>[^/@\s]+))?(?:/(?P<file>\S.*))?", re.ASCII)
_MARKDOWN = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_{}[]<>|#"})
# name of an error class of huggingface_hub -> message; the first base class found here is used
_MESSAGES = {
    "GatedRepoError": "{what} asks for permission: request it on the model's page, then log in with: hf auth login",
    "RepositoryNotFoundError": "there is no {what} on the Hub, or it is private; log in to see it with: hf auth login",
    "RevisionNotFoundError": "{what} has no such revision; leave out @REVISION for the main branch",
    "LocalEntryNotFoundError": "{what} was not downloaded before, and the Hub cannot be reached; is there a network?",
    "EntryNotFoundError": "{what} is not among the repository's files",
    "LocalTokenNotFoundError": "the Hub wants to know who you are; log in with: hf auth login",
    "OfflineModeIsEnabled": "{what} was not downloaded before, and HF_HUB_OFFLINE forbids to ask the Hub",
}
_NOT_ALLOWED = (401, 403)


def weights_folder() -> Path:
    """The folder of the models shipped with the package."""
    return Path(str(resources.files("lpsnet") / "weights"))


def list_models() -> dict[str, Path]:
    """The models shipped with the package: name to ONNX file, sorted by name."""
    return {path.stem: path for path in sorted(weights_folder().glob("*.onnx"))}


def check_sum(path: Path) -> Path:
    """`path`, a file shipped with the package, if its checksum is right.

    Raises:
        ModelFileError: it is changed or missing, or the list of checksums is missing.
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
    """The file of a model: a path, the name of a model shipped with the package, or an address on the Hub.

    Args:
        model: the path, name or address.
        preferred: the suffix to choose if a model is available in several formats.

    Raises:
        ModelFileError: there is no file or model of that name, or the file is empty.
    """
    if is_hub_address(model):
        return check_model_file(download_model(str(model), preferred=preferred))
    path = Path(model)
    text = str(model)
    if path.exists() or "/" in text or "\\" in text or path.suffix.lower() in METADATA_READERS:
        return check_model_file(path)
    bundled = list_models()
    if text in bundled:
        return check_sum(bundled[text])
    if not bundled:
        raise ModelFileError(f"no model file at {model}, and no models come with this installation")
    raise ModelFileError(f"{unknown_name('model', model, bundled)}, or the path of a model file")


def starts_folder() -> Path:
    """The folder of the checkpoints shipped with the package, which have batch norms to train on."""
    return weights_folder() / "starts"


def find_checkpoint(model: str | Path) -> Path:
    """The file of a model to start a training from or to export, as for `find_model`; safetensors if there is one."""
    own = starts_folder() / f"{model}.safetensors"
    if own.parent == starts_folder() and own.exists():
        return check_sum(own)
    return find_model(model, preferred=".safetensors")


def bundled_name(path: str | Path) -> str | None:
    """The name of the model that comes with the package and whose file this is, or was in an earlier version."""
    path = Path(path)
    folders = path.parent.parts[:-1] if path.parent.name == starts_folder().name else path.parent.parts
    return path.stem if folders[-2:] == ("lpsnet", "weights") else None


def recorded_name(path: str | Path) -> str:
    """How the settings of a run name a model file: a bundled model by its name, any other by its path."""
    return bundled_name(path) or str(path)


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A model on the Hub.

    Attributes:
        repo: "owner/model".
        revision: branch, tag or commit; None for the main branch.
        file: path of the model file in the repository; None if there is only one.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse an address. A slash in a revision is written %2F.

        Raises:
            ModelFileError: it is not an address, or the file is not of a model format.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ModelFileError(f"a model on the Hub is hf://OWNER/MODEL[@REVISION][/FILE]; got {text!r}")
        revision, file = match["revision"], match["file"]
        if file is not None:
            if any(part in ("", ".", "..") for part in file.split("/")) or "\\" in file:
                raise ModelFileError(f"{text!r} names no file inside its repository")
            if (suffix := PurePosixPath(file).suffix).lower() not in METADATA_READERS:
                raise ModelFileError(f"{text}: {unknown_name('model file suffix', suffix, METADATA_READERS)}")
        return cls(match["repo"], None if revision is None else unquote(revision), file)

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"{SCHEME}{self.repo}{revision}{'' if self.file is None else f'/{self.file}'}"


def is_hub_address(model: object) -> bool:
    """Whether a model is given by an address on the Hub."""
    return isinstance(model, str) and model.startswith(SCHEME)


def check_repo(repo: str) -> str:
    """`repo` if it is "owner/model"; ModelFileError otherwise."""
    repo = repo.removeprefix(SCHEME)
    if _REPO.fullmatch(repo) is None:
        raise ModelFileError(f"a repository on the Hub is OWNER/MODEL; got {repo!r}")
    return repo


def download_model(address: str | HubAddress, *, preferred: str = ".onnx") -> Path:
    """The model file at an address, downloaded into the cache of huggingface_hub if missing.

    Args:
        address: of a repository or a file in it.
        preferred: the suffix to choose if the repository has several model files.

    Raises:
        ModelFileError: there is no such model, revision or file, several files match, or the Hub cannot be reached; the
            message says what to do.
        MissingDependencyError: huggingface_hub is not installed; the message holds the install command.
    """
    if isinstance(address, str):
        address = HubAddress.parse(address)
    with hub_errors(address):
        from huggingface_hub import hf_hub_download

        file = address.file or choose_file(_list_files(address), address, preferred=preferred)
        return Path(hf_hub_download(address.repo, file, revision=address.revision))


def choose_file(files: Sequence[str], address: HubAddress, *, preferred: str = ".onnx") -> str:
    """The only model file of a repository, or the only one with the preferred suffix.

    Raises:
        ModelFileError: there is none, or there are several.
    """
    models = [file for file in files if PurePosixPath(file).suffix.lower() in METADATA_READERS]
    chosen = [file for file in models if PurePosixPath(file).suffix.lower() == preferred] or models
    if not chosen:
        raise ModelFileError(f"{address} holds no model file ({', '.join(METADATA_READERS)})")
    if len(chosen) > 1:
        raise ModelFileError(f"{address} holds several model files; add one of them: {', '.join(sorted(chosen))}")
    return chosen[0]


def _list_files(address: HubAddress) -> list[str]:
    """The repository's files; if the Hub cannot be reached, those downloaded before."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return HfApi().list_repo_files(address.repo, revision=address.revision)
    except HfHubHTTPError:  # the Hub has answered
        raise
    except Exception as error:  # no network, or offline mode
        try:
            folder = Path(snapshot_download(address.repo, revision=address.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            raise error from None
        return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def push_to_hub(
    model: str | Path, repo: str, *, private: bool = False, keep_card: bool = False, message: str | None = None
) -> str:
    """Upload a model file and its card in one commit; the repository is created if missing.

    Args:
        model: a model file with a record, or the name of a model shipped with the package.
        repo: "owner/model".
        private: whether a newly created repository is private.
        keep_card: leave the repository's README.md unchanged.
        message: of the commit.

    Returns:
        The address of the model's page.

    Raises:
        ModelFileError: there is no such model file or it has no record, `repo` is invalid, the Hub cannot be reached,
            or you are not logged in; the message says what to do.
        MissingDependencyError: huggingface_hub is not installed; the message holds the install command.
    """
    repo = check_repo(repo)
    path = find_model(model)
    card = model_card(read_record(path), repo=repo, file=path.name).encode()
    with hub_errors(repo):
        from huggingface_hub import CommitOperationAdd, HfApi

        files: dict[str, Path | bytes] = {path.name: path} | ({} if keep_card else {CARD_NAME: card})
        api = HfApi()
        page = api.create_repo(repo, private=private, exist_ok=True)
        additions = [CommitOperationAdd(name, content) for name, content in files.items()]
        api.create_commit(repo, additions, commit_message=message or f"{path.name}, written by lpsnet")
        return str(page)


def model_card(record: ModelRecord, *, repo: str, file: str) -> str:
    """The text of a README.md: metadata for the Hub between two lines of dashes, then Markdown.

    Args:
        record: of the model; missing values are left out.
        repo: "owner/model".
        file: name of the model file in the repository.
    """
    sections = {
        "Use": _use(repo, file, record),
        "Classes": _classes(record.label_space),
        "Training": _training(record.training),
        "Scores": _scores(record.scores),
        "Terms": _text(record.licence),
    }
    space = record.label_space
    size = "x".join(map(str, record.input_size)) if record.input_size else "the image's own size"
    network = f"`{record.architecture}`, {record.block}, {record.interaction}" if record.architecture else "not LPS-Net"
    network = f"{_text(record.network)}, which is not LPS-Net" if record.network else network
    introduction = (
        f"A network for semantic segmentation of {space.num_classes} classes ({_text(space.name)}), run at {size}.\n\n"
        f"Architecture: {network}."
    )
    metadata = {
        "library_name": "lpsnet",
        "pipeline_tag": "image-segmentation",
        "tags": ["semantic-segmentation", "real-time", "lps-net", PurePath(file).suffix.lstrip(".")],
        "license": "other",  # the Hub expects a licence name; a record has a sentence
    }
    parts = [
        f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---",
        f"# {_text(repo.partition('/')[2])}",
        introduction,
        *(f"## {title}\n\n{text}" for title, text in sections.items() if text),
        f"Made with lpsnet {_text(record.lpsnet_version)}".rstrip() + ". The file carries this record in full.",
    ]
    return "\n\n".join(parts) + "\n"


def _use(repo: str, file: str, record: ModelRecord) -> str:
    channels = record.image_channels
    shape = "H x W x 3 uint8 RGB" if channels.is_rgb else f"H x W x {len(channels.names)} {channels.dtype}"
    taken = "" if channels.is_rgb else f"It takes images of {_text(str(channels))}.\n\n"
    return taken + (
        "```sh\npip install 'lpsnet[hub]'\n"
        f"lpsnet segment photo.jpg --model hf://{repo}/{file} --out segmented\n```\n\n"
        f'```python\nimport lpsnet\n\nsegment = lpsnet.Segmenter("hf://{repo}/{file}")\n'
        f"labels = segment(image)  # {shape} in, H x W uint8 class ids out\n```"
    )


def _classes(space: LabelSpace) -> str:
    rows = (
        f"| {number} | {_text(name)} | #{bytes(colour).hex()} |"
        for number, (name, colour) in enumerate(zip(space.names, space.colours, strict=True))
    )
    return "\n".join(["| id | name | colour |", "| --- | --- | --- |", *rows])


def _training(training: dict[str, Any]) -> str:
    recipe = training.get("recipe")
    facts = {
        "data": _without_place(training.get("data")),
        "split": training.get("split"),
        "images": training.get("num_pictures"),
        "recipe": recipe.get("name") if isinstance(recipe, dict) else None,
        "iterations": training.get("iterations"),
        "teacher": _teacher(training.get("teacher")),
        "machine": training.get("machine"),
        "finished": training.get("finished"),
    }
    return "\n".join(f"- {name}: {_text(value)}" for name, value in facts.items() if value)


def _teacher(facts: object) -> str | None:
    """The name of the model that taught, without its folder."""
    name = facts.get("model") if isinstance(facts, dict) else None
    return PurePath(name).name if isinstance(name, str) else None


def _without_place(data: object) -> str | None:
    """The data set without its folder on the machine that trained."""
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
    return "\n".join(["| on | mIoU, percent | images |", "| --- | --- | --- |", *rows]) if rows else ""


def _text(value: object) -> str:
    """A value as one line of escaped Markdown."""
    return " ".join(str(value).split()).translate(_MARKDOWN)


@contextlib.contextmanager
def hub_errors(what: object) -> Iterator[None]:
    """Convert errors of the Hub and its package about `what`.

    Raises:
        MissingDependencyError: huggingface_hub is not installed; the message holds the install command.
        ModelFileError: any other error.
    """
    try:
        yield
    except LpsnetError:
        raise
    except ModuleNotFoundError as error:
        raise (MissingDependencyError.from_import(error) or error) from None
    except Exception as error:  # errors of the package and the network have no common base
        raise ModelFileError(_message(error, what)) from None


def _message(error: Exception, what: object) -> str:
    for base in type(error).__mro__:
        if base.__name__ in _MESSAGES:
            return _MESSAGES[base.__name__].format(what=what)
    if getattr(getattr(error, "response", None), "status_code", None) in _NOT_ALLOWED:
        return f"the Hub does not let you write to {what}; log in with a token that may: hf auth login"
    return f"the Hub did not answer as expected for {what}: {one_line(error)}"

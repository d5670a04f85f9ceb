"""Putting a model onto the Hugging Face Hub, with a card made from its record."""

from pathlib import Path

from lpsnet.deployment.hub.address import check_repo
from lpsnet.deployment.hub.card import model_card
from lpsnet.deployment.hub.errors import hub_errors
from lpsnet.deployment.model_file import read_record
from lpsnet.deployment.models import find_model

CARD_NAME = "README.md"


def push_to_hub(
    model: str | Path, repo: str, *, private: bool = False, keep_card: bool = False, message: str | None = None
) -> str:
    """Upload a model file and its card in one commit; the repository is made where it is missing.

    Args:
        model: a model file with a record, or the name of a model that comes with the package.
        repo: "owner/model".
        private: whether a repository that is made is private.
        keep_card: leave the repository's README.md as it is.
        message: of the commit.

    Returns:
        The address of the model's page.

    Raises:
        ModelFileError: there is no such model file or it has no record, `repo` is no repository, the Hub cannot be
            reached, or it does not know you; the message says what to do.
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

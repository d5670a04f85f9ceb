"""What goes wrong with the Hugging Face Hub, in one line each."""

import contextlib
from collections.abc import Iterator

from lpsnet.deployment.runtimes.session import one_line
from lpsnet.errors import LpsnetError, MissingDependencyError, ModelFileError

# Name of an error of huggingface_hub -> what to tell; the first base of the error that is here counts
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


@contextlib.contextmanager
def hub_errors(what: object) -> Iterator[None]:
    """Turn errors of the Hub and of its package about `what` into ours.

    Raises:
        MissingDependencyError: huggingface_hub is not installed; the message holds the install command.
        ModelFileError: anything else went wrong.
    """
    try:
        yield
    except LpsnetError:
        raise
    except ModuleNotFoundError as error:
        raise (MissingDependencyError.from_import(error) or error) from None
    except Exception as error:  # those of the package and of the network have no common base
        raise ModelFileError(_message(error, what)) from None


def _message(error: Exception, what: object) -> str:
    for base in type(error).__mro__:
        if base.__name__ in _MESSAGES:
            return _MESSAGES[base.__name__].format(what=what)
    if getattr(getattr(error, "response", None), "status_code", None) in _NOT_ALLOWED:
        return f"the Hub does not let you write to {what}; log in with a token that may: hf auth login"
    return f"the Hub did not answer as expected for {what}: {one_line(error)}"

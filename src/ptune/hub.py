"""What an id on the Hugging Face Hub looks like, and why a call to the Hub failed."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?")
MESSAGE = "Upload adapter"  # the default commit message
SIGN_IN = "set HF_TOKEN or run `hf auth login`"


def parse_hub_id(name: str) -> tuple[str, str | None] | None:
    """Return (owner/name, revision) for `owner/name` or `owner/name@revision`, and None for anything else."""
    match = _ID.fullmatch(name)
    return (match[1], match[2]) if match else None


def why(err: Exception) -> str:
    """Return the reason why a call to the Hub failed, in one line.

    The libraries in between wrap one error in another. The one that the Hub's client raised says most.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    chain = list(_chain(err))
    http_error = next((error for error in chain if isinstance(error, HfHubHTTPError)), None)
    if isinstance(http_error, GatedRepoError):
        return f"its owner has to grant you access: ask for it at {constants.ENDPOINT}, and {SIGN_IN}"
    if isinstance(http_error, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has none by this name, or it is private and no token with access to it was given"
    if isinstance(http_error, RevisionNotFoundError):
        return "it has no such revision"
    if http_error is not None:
        return _describe_status(http_error.response.status_code, http_error.server_message)
    missing = any(isinstance(error, (LocalEntryNotFoundError, RevisionResolutionError)) for error in chain)
    cached = f", and it is not in the cache {constants.HF_HUB_CACHE}" if missing else ""
    if constants.is_offline_mode() and (missing or any(isinstance(error, OfflineModeIsEnabled) for error in chain)):
        return f"HF_HUB_OFFLINE is set{cached}"
    network_error = next((error for error in chain if isinstance(error, HTTPError)), None)
    if missing or network_error is not None:
        detail = f" ({_first_line(network_error)})" if network_error is not None else ""
        return f"{constants.ENDPOINT} cannot be reached{detail}{cached}"
    outer_and_inner = dict.fromkeys(map(_first_line, (chain[0], chain[-1])))
    return ": ".join(outer_and_inner)


def _describe_status(code: int, message: str | None) -> str:
    detail = f" ({' '.join(message.split())})" if message else ""
    if code == 401:
        return f"no token was given, or one that is not valid{detail}; {SIGN_IN}"
    if code == 403:
        return f"the token has no permission for it{detail}"
    return f"the Hub answered with status {code}{detail}"


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, the outermost first."""
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _first_line(err: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or else the name of its class."""
    lines = (line.strip().rstrip(".") for line in str(err).splitlines())
    return next(filter(None, lines), type(err).__name__)

"""The Hugging Face Hub, as all parts of ptune see it: what an id looks like, and why a call came to nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator

_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?")
MESSAGE = "Upload adapter"  # of a commit
SIGN_IN = "set HF_TOKEN or run `hf auth login`"


def parse_hub_id(name: str) -> tuple[str, str | None] | None:
    """(owner/name, revision) of `owner/name` or `owner/name@revision`; None where it is neither."""
    match = _ID.fullmatch(name)
    return (match[1], match[2]) if match else None


def why(err: Exception) -> str:
    """Why a call to the Hub failed, in one line.

    The libraries in between put errors around errors; the innermost that the Hub's client knows says most.
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
    answered = next((part for part in chain if isinstance(part, HfHubHTTPError)), None)
    if isinstance(answered, GatedRepoError):
        return f"its owner grants access to it: ask for it at {constants.ENDPOINT}, and {SIGN_IN}"
    if isinstance(answered, RepositoryNotFoundError):
        return f"{constants.ENDPOINT} has none by this name, or it is private and no token with access to it was given"
    if isinstance(answered, RevisionNotFoundError):
        return "it has no such revision"
    if answered is not None:
        return _status(answered.response.status_code, answered.server_message)
    missing = any(isinstance(part, (LocalEntryNotFoundError, RevisionResolutionError)) for part in chain)
    cached = f", and it is not in the cache {constants.HF_HUB_CACHE}" if missing else ""
    if constants.is_offline_mode() and (missing or any(isinstance(part, OfflineModeIsEnabled) for part in chain)):
        return f"HF_HUB_OFFLINE is set{cached}"
    lost = next((part for part in chain if isinstance(part, HTTPError)), None)
    if missing or lost is not None:
        detail = f" ({_first_line(lost)})" if lost is not None else ""
        return f"{constants.ENDPOINT} cannot be reached{detail}{cached}"
    said = dict.fromkeys(map(_first_line, (chain[0], chain[-1])))
    return ": ".join(said)


def _status(code: int, message: str | None) -> str:
    said = f" ({' '.join(message.split())})" if message else ""
    if code == 401:
        return f"no token was given, or one that is not valid{said}; {SIGN_IN}"
    if code == 403:
        return f"the token has no permission for it{said}"
    return f"the Hub answered with status {code}{said}"


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    while err is not None:
        yield err
        err = err.__cause__ or err.__context__


def _first_line(err: BaseException) -> str:
    lines = (line.strip().rstrip(".") for line in str(err).splitlines())
    return next(filter(None, lines), type(err).__name__)

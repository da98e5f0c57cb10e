"""What an id on the Hugging Face Hub looks like, which names are probably mistyped places, and why a call failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\S+))?")
MESSAGE = "Upload adapter"  # the default commit message
SIGN_IN = "set HF_TOKEN or run `hf auth login`"


def parse_hub_id(name: str) -> tuple[str, str | None] | None:
    """Return (owner/name, revision) for `owner/name` or `owner/name@revision`, and None for anything else."""
    match = _ID.fullmatch(name)
    return (match[1], match[2]) if match else None


def is_there(path: Path) -> bool:
    """Return whether there is a file or folder by this name, which may be one that no file can have."""
    try:
        return path.exists()
    except OSError:  # the name is too long
        return False


def mistyped(name: str, kind: Literal["model", "dataset"]) -> str | None:
    """Return the place that is meant by a name that looks like a Hub id; None if it may well be a Hub id.

    The Hub should not be asked for a mistyped folder: without a network, the answer takes half a minute. A repository
    that is in the Hub's cache is not mistyped.

    Args:
        name: a name that is not that of a file or folder.
        kind: what the name would stand for on the Hub.
    """
    return None if _is_cached(name, kind) else near_place(name)


def expanded(place: str | Path) -> Path:
    """Return a path with ~ replaced by the home folder. One of a user who is not known here stays as it is."""
    with suppress(RuntimeError):
        return Path(place).expanduser()
    return Path(place)


def near_place(name: str) -> str | None:
    """Return the file or folder here whose name is one typing error away from `name`; None if there is none."""
    path = expanded(name)
    near = [*_neighbours(path)]
    if path.parent.name:
        near += [folder / path.name for folder in _neighbours(path.parent) if is_there(folder / path.name)]
    return str(near[0]) if near else None


def hint(name: str) -> str:
    """Return the end of a message about a place that does not exist: what this name is, or which one may be meant."""
    path = expanded(name)
    if is_there(path):
        return f"; '{name}' is a {'folder' if path.is_dir() else 'file'}"
    near = near_place(name)
    return f"; did you mean '{near}'?" if near else ""


def _is_cached(name: str, kind: str) -> bool:
    from huggingface_hub import constants

    repository = "--".join([f"{kind}s", *name.split("/")[:2]])
    return (Path(constants.HF_HUB_CACHE) / repository).is_dir()


def _neighbours(path: Path) -> list[Path]:
    """Return what lies where a path would and has a name with one typing error less."""
    try:
        return sorted(other for other in path.parent.iterdir() if _is_typing_error(path.name, other.name))
    except OSError:
        return []


def _is_typing_error(typed: str, meant: str) -> bool:
    """Return whether two names differ by one letter, by two letters that changed places, or by upper and lower case.

    Two names of less than four letters are too often alike.
    """
    typed, meant = typed.lower(), meant.lower()
    if typed == meant or max(len(typed), len(meant)) < 4:
        return typed == meant
    same = next((i for i, (a, b) in enumerate(zip(typed, meant, strict=False)) if a != b), min(len(typed), len(meant)))
    rest, other = typed[same:], meant[same:]
    swapped = rest[1:2] + rest[:1] + rest[2:]
    return other in (rest[1:], swapped) or other[1:] in (rest, rest[1:])


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
    # The library `datasets` has the error's name in a text of its own.
    refused = any(isinstance(error, OfflineModeIsEnabled) or "OfflineMode" in str(error) for error in chain)
    if constants.is_offline_mode() and (missing or refused):
        return f"HF_HUB_OFFLINE is set{cached}"
    network_error = next((error for error in chain if isinstance(error, HTTPError)), None)
    if missing or network_error is not None:
        detail = f" ({_first_line(network_error)})" if network_error is not None else ""
        return f"{constants.ENDPOINT} cannot be reached{detail}{cached}"
    outer, inner = map(_first_line, (chain[0], chain[-1]))
    return outer if inner in outer else f"{outer}: {inner}"


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
    lines = [*filter(None, (line.strip().rstrip(".") for line in str(err).splitlines()))]
    if len(lines) > 1 and lines[0].endswith(":"):  # the reason is on the next one
        return f"{lines[0]} {lines[1]}"
    return lines[0] if lines else type(err).__name__

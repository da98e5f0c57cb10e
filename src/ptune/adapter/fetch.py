"""Find an adapter by name: a local folder, or a repository on the Hub, which is downloaded into the Hub's cache."""

from __future__ import annotations

from pathlib import Path

from ptune.adapter.layout import ADAPTER_FILES
from ptune.errors import AdapterError
from ptune.hub import hint, mistyped, parse_hub_id, why


def locate_adapter(name: str | Path) -> Path:
    """Return the folder of an adapter: a local one, or the cached copy of a Hub repository.

    Only the adapter's files are downloaded from a repository, all from the same commit. If the Hub cannot be reached,
    the copy in the cache is used.

    Args:
        name: a folder, or a Hub id: `owner/name` or `owner/name@revision`. A folder goes first.

    Raises:
        AdapterError: there is neither such a folder nor such a repository, or the repository cannot be downloaded and
            is not in the cache.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    hub_id = parse_hub_id(str(name))
    if hub_id is None or path.exists():
        raise AdapterError(f"adapter '{name}': there is no such folder{hint(str(name))}")
    near = None if hub_id[1] else mistyped(str(name), "model")
    if near:
        raise AdapterError(
            f"adapter '{name}': there is no such folder; did you mean '{near}'? A Hub id with a revision, such as "
            f"{name}@main, is not looked for here"
        )
    return _fetch(str(name), *hub_id)


def _fetch(name: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except (HTTPError, OSError, ValueError) as err:
        raise AdapterError(
            f"adapter '{name}' is not a local folder, and as a Hub id it could not be downloaded ({why(err)}); give "
            "the adapter's folder, or check the id and the network"
        ) from err

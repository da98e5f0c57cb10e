"""Where an adapter's name leads: a folder, or a repository of the Hub, which is fetched into the client's cache."""

from __future__ import annotations

from pathlib import Path

from ptune.adapter.layout import ADAPTER_FILES
from ptune.errors import AdapterError
from ptune.hub import parse_hub_id, why


def locate_adapter(name: str | Path) -> Path:
    """The folder of an adapter: a local one, else the cached copy of `owner/name` or `owner/name@revision`.

    Of a repository the adapter's own files are fetched, all of one commit. Where the Hub cannot be reached, what was
    fetched before is taken.

    Raises:
        AdapterError: there is no such folder, and no such repository within reach.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    found = parse_hub_id(str(name))
    if found is None or path.exists():
        raise AdapterError(f"adapter '{name}': there is no such folder")
    return _fetch(str(name), *found)


def _fetch(name: str, repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except (HTTPError, OSError, ValueError) as err:
        raise AdapterError(
            f"adapter '{name}' is no folder here, and as a Hub id it could not be fetched ({why(err)}); give an "
            "adapter's folder, or check the id and the network"
        ) from err

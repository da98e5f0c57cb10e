"""Find an adapter by name: a local folder, a folder of an object store, or a repository on the Hub.

What is not on this machine is copied into a cache: that of the Hub, or for URLs a folder of ptune's.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from ptune.adapter.layout import ADAPTER_FILES, STATE_FILE
from ptune.adapter.reading import check_file_size
from ptune.cache import cache_folder
from ptune.errors import AdapterError
from ptune.hub import hint, is_there, mistyped, parse_hub_id, why
from ptune.places import Place, RemotePath, UnreachableError, as_place

FOLDER = "adapters"  # in the cache
_TRIES = 5  # for an adapter that is replaced while it is copied

Versions = dict[str, tuple[int, str]]


def locate_adapter(name: str | Place, most: int | None = None) -> Path:
    """Return the folder of an adapter: a local one, or the cached copy of one behind a URL or of a Hub repository.

    Only the adapter's files are downloaded from a repository, all from the same commit. If the Hub cannot be reached,
    the copy in the cache is used. The files behind a URL are copied if the cache does not have these versions of them.

    Args:
        name: a folder, a URL such as s3://bucket/adapter, or a Hub id: `owner/name` or `owner/name@revision`. A folder
            goes first.
        most: bytes that a repository's files may have. None: as many as any adapter.

    Raises:
        AdapterError: there is neither such a folder nor such a repository, or the repository cannot be downloaded and
            is not in the cache.
        AdapterError: the URL cannot be reached, holds no adapter, or its files are larger than those of any adapter.
    """
    path = as_place(name)
    if isinstance(path, RemotePath):
        return _copy_of(path)
    there = is_there(path)
    if there and path.is_dir():
        return path
    hub_id = parse_hub_id(str(name))
    if hub_id is None or there:
        raise AdapterError(f"adapter '{name}': there is no such folder{hint(str(name))}")
    near = None if hub_id[1] else mistyped(str(name), "model")
    if near:
        raise AdapterError(
            f"adapter '{name}': there is no such folder; did you mean '{near}'? A Hub id with a revision, such as "
            f"{name}@main, is not looked for here"
        )
    return _fetch(str(name), *hub_id, most)


def _fetch(name: str, repository: str, revision: str | None, most: int | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        _check_repository(name, repository, revision, most)
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(ADAPTER_FILES)))
    except (HTTPError, OSError, ValueError) as err:
        raise AdapterError(
            f"adapter '{name}' is not a local folder, and as a Hub id it could not be downloaded ({why(err)}); give "
            "the adapter's folder, or check the id and the network"
        ) from err


def _check_repository(name: str, repository: str, revision: str | None, most: int | None) -> None:
    """Check the sizes of a repository's files before they are downloaded. Without a network nothing is checked.

    Raises:
        AdapterError: a file is larger than any adapter's, or all of them are larger than `most`.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        files = HfApi().model_info(repository, revision=revision, files_metadata=True).siblings or []
    except (HTTPError, OSError):
        return  # the download says what is wrong, or finds the copy in the cache
    sizes = {file.rfilename: file.size or 0 for file in files if file.rfilename in ADAPTER_FILES}
    for file_name, size in sizes.items():
        check_file_size(f"{name}/{file_name}", size)
    if most is not None and sum(sizes.values()) > most:
        raise AdapterError(f"adapter '{name}' has {sum(sizes.values())} bytes; at most {most} are taken")


def _copy_of(place: RemotePath) -> Path:
    """Return the copy of an adapter behind a URL in the cache. It is made if these versions of the files are not there.

    Raises:
        AdapterError: see `locate_adapter`.
    """
    try:
        for _ in range(_TRIES):
            versions = _versions(place)
            identity = hashlib.sha256(f"{place}\n{sorted(versions.items())}".encode()).hexdigest()[:32]
            folder = cache_folder() / FOLDER / identity
            if folder.is_dir() or _copy(place, versions, folder):
                return folder
    except UnreachableError as err:
        raise AdapterError(f"adapter '{place}' cannot be read: {err.strerror}") from err
    except OSError as err:
        raise AdapterError(
            f"adapter '{place}' cannot be copied to '{cache_folder()}': {err.strerror or err}; set PTUNE_CACHE to a "
            "folder that can be written"
        ) from err
    raise AdapterError(f"adapter '{place}': its files keep changing; try again when they have stopped")


def _versions(place: RemotePath) -> Versions:
    """Return the sizes and versions of an adapter's files.

    Raises:
        AdapterError: there are none, or a file is too large.
    """
    versions = place.sizes(ADAPTER_FILES) or place.sizes([STATE_FILE])
    if not versions:
        raise AdapterError(
            f"adapter '{place}': there is no such folder, or it holds none of {', '.join(ADAPTER_FILES)}; give the "
            "URL of a folder that an adapter was saved to"
        )
    for name, (size, _) in versions.items():
        check_file_size(f"{place}/{name}", size)
    return versions


def _copy(place: RemotePath, versions: Versions, folder: Path) -> bool:
    """Copy the files of an adapter to a folder, which appears once it is complete.

    Returns:
        False if the files have changed meanwhile, so that there may be old and new ones in the copy.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".copy-", dir=folder.parent))
    try:
        for name in versions:
            (place / name).download(temporary / name)
        if _versions(place) != versions:
            return False
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has made it meanwhile
                raise
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""Adapters to the Hugging Face Hub: one commit with the adapter's files and its card, or nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ptune.adapter.card import CARD_FILE, write_card
from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import ADAPTER_FILES
from ptune.errors import ConfigError, HubError
from ptune.hub import MESSAGE, why
from ptune.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)


def push(
    adapter: str | Path,
    repository: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    message: str = MESSAGE,
) -> str:
    """Publish an adapter on the Hub.

    The repository is made where there is none. The files go up in one commit; the card is the folder's own README.md,
    or else written from the record. Checkpoints, logs and whatever else is in the folder stay here.

    Args:
        adapter: its folder.
        repository: `owner/name`, or a name alone under the token's own user.
        private: make the repository private; one that is there must be so already.
        token: with write access. Default: HF_TOKEN, or the login that `hf auth login` stored.
        revision: branch to commit to, made from main where there is none. Default: main.
        message: of the commit.

    Returns:
        The address of the repository, or of the branch.

    Raises:
        AdapterError: there is none, or it is damaged. ConfigError: a token or message that cannot be one.
        HubError: no permission, no network, not a name, a public repository where a private one was asked for.
    """
    file = read_adapter(adapter)
    _check(token, message)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        api = HfApi(token=token, library_name="ptune", library_version=__version__)
        page = _push(api, file, repository, private, revision or None, message)
    except (HTTPError, OSError, ValueError, RuntimeError) as err:
        raise HubError(
            f"adapter '{adapter}' could not be pushed to '{repository}': {why(err)}. A push is one commit, which is "
            "there whole or not at all; it may be repeated"
        ) from err
    _warn_of_folder(file)
    return page


def _push(api: HfApi, file: AdapterFile, repository: str, private: bool, revision: str | None, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    page = api.create_repo(repository, private=private or None, exist_ok=True)
    repository = page.repo_id
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
    there = api.repo_info(repository, revision=revision)
    if private and not there.private:
        raise HubError(f"'{repository}' is there already and public; make it private in its settings, or take another")
    files = _files(file, repository)
    # What an older adapter left there would belong to other weights.
    stale = {sibling.rfilename for sibling in there.siblings or []} & {*ADAPTER_FILES} - {*files}
    api.create_commit(
        repository,
        [CommitOperationAdd(name, content) for name, content in files.items()]
        + [CommitOperationDelete(name) for name in sorted(stale)],
        commit_message=message,
        revision=revision,
        parent_commit=there.sha,  # nobody pushed in between
    )
    return f"{page}/tree/{revision}" if revision else str(page)


def _files(file: AdapterFile, repository: str) -> dict[str, bytes]:
    """What goes up, by name."""
    files = {name: file.folder / name for name in (*ADAPTER_FILES, CARD_FILE)}
    found = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    return {CARD_FILE: write_card(file, repository).encode(), **found}


def _check(token: str | None, message: str) -> None:
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise ConfigError("the token is empty or holds characters that no token has")  # it is not shown
    if not message.strip():
        raise ConfigError("the commit's message is empty; say what is new")


def _warn_of_folder(file: AdapterFile) -> None:
    name = file.record.backbone.name
    if name is not None and Path(name).is_absolute():
        logger.warning(
            "the adapter notes its backbone as the folder '%s', which others do not have: they name theirs with "
            "`backbone`. Train with a Hub id where there is one",
            name,
        )

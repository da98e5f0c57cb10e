"""Publish adapters on the Hugging Face Hub, as one commit with the adapter's files and its model card."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from ptune.adapter.card import CARD_FILE, write_card
from ptune.adapter.folder import AdapterFile, read_adapter
from ptune.adapter.layout import ADAPTER_FILES
from ptune.errors import AdapterError, ConfigError, HubError
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

    The repository is created if it does not exist. The files are uploaded in one commit. The model card is the
    README.md in the folder; if there is none, it is written from the record. Checkpoints, logs and other files in the
    folder are not uploaded.

    Args:
        adapter: the adapter's folder.
        repository: `owner/name`, or only a name, which belongs to the token's user.
        private: create a private repository. An existing repository must already be private.
        token: a token with write access. Default: HF_TOKEN, or the login that `hf auth login` stored.
        revision: branch to commit to, created from main if it does not exist. Default: main.
        message: commit message.

    Returns:
        The address of the repository, or of the branch.

    Raises:
        AdapterError: there is no such adapter, or it is damaged.
        ConfigError: the token has characters that no token has, or the message is empty.
        HubError: there is no permission or no network, the repository's name is not valid, or the repository is public
            although `private` was given.
    """
    file = read_adapter(adapter)
    if file.facts is not None:
        raise AdapterError(
            f"'{adapter}' holds the state of a model that transformers' Trainer saved, and no adapter; write one with "
            f"`ptune export {adapter} OUTPUT` and push that"
        )
    _check(token, message)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        api = HfApi(token=token, library_name="ptune", library_version=__version__)
        page = _push(api, file, repository, private, revision or None, message)
    except HFValidationError as err:
        raise HubError(
            f"adapter '{adapter}' could not be pushed to '{repository}': this is not a name for a repository; expected "
            "OWNER/NAME, or NAME, of letters, digits, '-', '_' and '.', with at most 96 characters"
        ) from err
    except (HTTPError, OSError, ValueError, RuntimeError) as err:
        raise HubError(
            f"adapter '{adapter}' could not be pushed to '{repository}': {why(err)}. A push is a single commit, which "
            "is published completely or not at all; you can safely push again"
        ) from err
    _warn_of_local_backbone(file)
    return page


def _push(api: HfApi, file: AdapterFile, repository: str, private: bool, revision: str | None, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    page = api.create_repo(repository, private=private or None, exist_ok=True)
    repository = page.repo_id
    if revision is not None:
        api.create_branch(repository, branch=revision, exist_ok=True)
    info = api.repo_info(repository, revision=revision)
    if private and not info.private:
        raise HubError(
            f"repository '{repository}' already exists and is public; make it private in its settings on the Hub, or "
            "choose another name"
        )
    files = _files(file, repository)
    # Other files of an older adapter would be read together with the new weights.
    stale = {sibling.rfilename for sibling in info.siblings or []} & {*ADAPTER_FILES} - {*files}
    api.create_commit(
        repository,
        [CommitOperationAdd(name, content) for name, content in files.items()]
        + [CommitOperationDelete(name) for name in sorted(stale)],
        commit_message=message,
        revision=revision,
        parent_commit=info.sha,  # fails if somebody else has pushed in between
    )
    return f"{page}/tree/{revision}" if revision else str(page)


def _files(file: AdapterFile, repository: str) -> dict[str, bytes]:
    """Return the contents of the files to upload, by name."""
    paths = {name: file.folder / name for name in (*ADAPTER_FILES, CARD_FILE)}
    contents = {name: path.read_bytes() for name, path in paths.items() if path.is_file()}
    return {CARD_FILE: write_card(file, repository).encode(), **contents}


def _check(token: str | None, message: str) -> None:
    """Check that a token and a commit message are possible ones.

    Raises:
        ConfigError: the token has characters that no token has, or the message is empty.
    """
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        # The token is a secret, so the error does not hold it.
        raise ConfigError(
            "the token is empty or holds characters that no token has; copy it again, or give none to use HF_TOKEN or "
            "the stored login",
            field="token",
            expected="printable ASCII characters without spaces",
        )
    if not message.strip():
        raise ConfigError(
            "the commit message is empty; describe the change, or give no message",
            field="message",
            value=message,
            expected="some text",
        )


def _warn_of_local_backbone(file: AdapterFile) -> None:
    """Log a warning if the adapter names its backbone by a local path, which others do not have."""
    name = file.record.backbone.name
    if name is not None and Path(name).is_absolute():
        logger.warning(
            "the adapter names its backbone by the local folder '%s', which others do not have; they must give "
            "`backbone` when they load it. Train with the backbone's Hub id if it has one",
            name,
        )

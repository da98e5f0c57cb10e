"""ptune push"""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from ptune.cli.options import Json, Place
from ptune.cli.terminal import Terminal
from ptune.hub import MESSAGE


def push(
    adapter: Place,
    repository: str,
    /,
    *,
    private: Annotated[bool, Parameter(negative=())] = False,
    revision: str | None = None,
    message: str = MESSAGE,
    token: str | None = None,
    json: Json = False,
) -> None:
    """Publish an adapter on the Hugging Face Hub, with a model card.

    The files of the adapter are uploaded in a single commit; other files in its folder are not. The model card is the
    folder's README.md if there is one, otherwise it is generated. The repository is created if it does not exist.

    Examples:
      ptune push reviews my-name/reviews
      ptune push reviews my-name/reviews --private
      ptune push reviews my-name/reviews --revision longer-texts --message "Texts of 512 tokens"
      ptune predict my-name/reviews --text "What a film."

    Parameters
    ----------
    adapter
        Folder of an adapter of ptune or PEFT.
    repository
        The repository: OWNER/NAME, or NAME for a repository of the token's owner.
    private
        Create the repository as a private one. A repository that exists must be private already.
    revision
        Branch to push to; it is created if it does not exist. Default: main.
    message
        The commit message.
    token
        Token with write access. Default: HF_TOKEN, or the login of `hf auth login`.
        Both are safer, because other users of the machine may see the options of a running command.
    """
    from ptune.adapter.push import push

    terminal = Terminal(json)
    url = push(adapter, repository, private=private, token=token, revision=revision, message=message)
    terminal.say(f"pushed to {url}")
    terminal.answer({"url": url})

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

    One commit takes the adapter's own files up, and nothing else of its folder. A README.md in the folder is taken as
    the card; else one is written from the record. The repository is made where there is none.

    Examples:
      ptune push reviews my-name/reviews
      ptune push reviews my-name/reviews --private
      ptune push reviews my-name/reviews --revision longer-texts --message "Texts of 512 tokens"
      ptune predict my-name/reviews --text "What a film."

    Parameters
    ----------
    adapter
        Folder of an adapter, ptune's or PEFT's.
    repository
        Where to: OWNER/NAME, or a NAME under the token's own user.
    private
        Make the repository private.
    revision
        Branch to push to; it is made where there is none. Default: main.
    message
        Message of the commit.
    token
        Token with write access. Default: HF_TOKEN, or the login of `hf auth login`; both are better, as others on the
        machine may see a running command's options.
    """
    from ptune.adapter.push import push

    terminal = Terminal(json)
    url = push(adapter, repository, private=private, token=token, revision=revision, message=message)
    terminal.say(f"pushed to {url}")
    terminal.answer({"url": url})

"""The tokenizer of a backbone, made whole: a padding token always, no limits of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptune.errors import BackboneError
from ptune.model.locate import Location

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Whatever a tokenizer may be made of, all of it at the top of a repository.
_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken"]


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside a backbone.

    Where it has no padding token, the end-of-text token pads: padding is
    masked and stands on the right, so which token it is does not matter.

    Raises:
        BackboneError: there is no tokenizer, or it has no token that could pad.
    """
    from huggingface_hub.errors import HTTPError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(_folder(location), **location.load_options())
    except (HTTPError, OSError, ValueError, KeyError, TypeError) as err:
        raise location.failure(err) from err
    if tokenizer.pad_token_id is None:
        substitute = tokenizer.eos_token or tokenizer.unk_token
        if substitute is None:
            raise BackboneError(f"the tokenizer of backbone '{location.name}' has no padding and no end token")
        tokenizer.pad_token = substitute
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # a tokenizer file may bring both; switched off here, no later call has to change them
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def _folder(location: Location) -> str:
    """Where the files are; those of a Hub id are fetched whole.

    By its id, transformers would ask the Hub for chat templates every time, and without a network wait for long.
    """
    if location.local:
        return location.path
    from huggingface_hub import snapshot_download

    return snapshot_download(location.path, revision=location.revision, allow_patterns=_FILES, ignore_patterns=["*/*"])

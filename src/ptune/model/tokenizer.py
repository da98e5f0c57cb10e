"""Load the tokenizer of a backbone. It always has a padding token, and it neither pads nor cuts by itself.

All that is made from the same files shares one tokenizer: it takes ten times the memory of an adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptune.errors import BackboneError
from ptune.model.locate import Location
from ptune.model.reading import reading
from ptune.model.shared import Shared, stamps

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The files that tokenizers consist of. They are at the top level of a repository.
_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken"]

_tokenizers: Shared[PreTrainedTokenizerBase] = Shared()


def load_tokenizer(location: Location) -> PreTrainedTokenizerBase:
    """Return the tokenizer that is stored with a backbone. It is shared, so it must not be changed.

    If it has no padding token, the end-of-text token is used. Padding is masked and
    on the right, so it does not matter which token it is.

    Raises:
        BackboneError: there is no tokenizer, or it has no token that can be used for padding.
    """
    with reading(location):
        folder = _folder(location)
    files = stamps(folder, [*_FILES, location.gguf_file] if location.gguf_file else _FILES)
    return _tokenizers.get((folder, location.gguf_file, files), lambda: _load(location, folder))


def _load(location: Location, folder: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with reading(location):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **location.load_options())
    if tokenizer.pad_token_id is None:
        substitute = tokenizer.eos_token or tokenizer.unk_token
        if substitute is None:
            raise BackboneError(
                f"the tokenizer of backbone '{location.name}' has no padding token, and no end-of-text or unknown "
                "token to use instead; add pad_token to its tokenizer_config.json"
            )
        tokenizer.pad_token = substitute
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # a tokenizer file may turn both on; turned off here, no later call has to do it
        backend.no_truncation()
        backend.no_padding()
    return tokenizer


def _folder(location: Location) -> str:
    """Return the folder of the tokenizer's files. The files of a Hub id are downloaded first.

    Given the id, transformers would ask the Hub for chat templates at every call, and without a network it would wait
    for a long time.
    """
    if location.local:
        return location.path
    from huggingface_hub import snapshot_download

    return snapshot_download(location.path, revision=location.revision, allow_patterns=_FILES, ignore_patterns=["*/*"])

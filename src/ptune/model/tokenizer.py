"""Load the tokenizer of a backbone. It always has a padding token, and it neither pads nor cuts by itself.

All that is made from the same files shares one tokenizer: it takes ten times the memory of an adapter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptune.model.backbone import Backbone
from ptune.model.locate import Location
from ptune.model.reading import reading
from ptune.model.shared import Shared, stamps
from ptune.model.vocabulary import check_vocabulary, settle_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The files that tokenizers consist of. They are at the top level of a repository.
_FILES = ["*.json", "*.txt", "*.model", "*.tiktoken"]

_tokenizers: Shared[PreTrainedTokenizerBase] = Shared()


def tokenizer_of(backbone: Backbone) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a backbone, checked against its word embeddings. It is shared and must not be changed.

    Raises:
        BackboneError: there is no tokenizer, or it does not suit the word embeddings; see `check_vocabulary`.
    """
    return load_tokenizer(backbone.location, len(backbone.word_embeddings.weight))


def load_tokenizer(location: Location, rows: int | None = None) -> PreTrainedTokenizerBase:
    """Return the tokenizer that is stored at a location. It is shared and must not be changed.

    If it has no padding token, the end-of-text token is used. Padding is masked and
    on the right, so it does not matter which token it is.

    Args:
        location: where to load from.
        rows: the number of word embeddings that the tokenizer has to suit; None: unknown.

    Raises:
        BackboneError: there is no tokenizer, or it does not suit the word embeddings.
    """
    with reading(location):
        folder = _folder(location)
    files = stamps(folder, [*_FILES, location.gguf_file] if location.gguf_file else _FILES)
    return _tokenizers.get((folder, location.gguf_file, files, rows), lambda: _load(location, folder, rows))


def _load(location: Location, folder: str, rows: int | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with reading(location):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **location.load_options())
    settle_tokens(tokenizer, rows)
    tokenizer.padding_side = tokenizer.truncation_side = "right"
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:  # a tokenizer file may turn both on; turned off here, no later call has to do it
        backend.no_truncation()
        backend.no_padding()
    if rows is not None:
        check_vocabulary(tokenizer, rows, location.name)
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

"""tokenizer.json with the cutting and padding of a classifier in it, and what transformers reads beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptune.errors import BackboneError
from ptune.inference.classifier import TextClassifier

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"


def check_tokenizer(classifier: TextClassifier) -> None:
    """Check that a classifier's tokenizer can be written as tokenizer.json.

    Raises:
        BackboneError: it is written in Python.
    """
    if getattr(classifier.encoder.tokenizer, "backend_tokenizer", None) is None:
        raise BackboneError(
            f"the tokenizer of backbone '{classifier.model.backbone.name}' is written in Python, so it cannot be "
            "exported as tokenizer.json, which other runtimes read. Serve the adapter with `ptune serve` instead, or "
            "train it on another backbone",
            field="to",
        )


def write_tokenizer(classifier: TextClassifier, folder: Path) -> None:
    """Write the files of a classifier's tokenizer to a folder.

    tokenizer.json pads each batch to its longest row, on the right. It also cuts rows to the classifier's length,
    unless the classifier has a template: there only the texts may be cut, and not the words behind them.
    """
    encoder = classifier.encoder
    encoder.tokenizer.save_pretrained(folder)
    tokenizer = plain_tokenizer(folder)
    tokenizer.no_truncation()
    if encoder.template is None:
        tokenizer.enable_truncation(encoder.max_length, strategy="longest_first", direction="right")
    pad = encoder.tokenizer.convert_ids_to_tokens(classifier.pad_id)
    tokenizer.enable_padding(direction="right", pad_id=classifier.pad_id, pad_token=pad)
    tokenizer.save(str(folder / FILE))
    path = folder / CONFIG_FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    config = {name: value for name, value in config.items() if name not in ("name_or_path", "is_local")}
    config |= {"model_max_length": encoder.max_length, "padding_side": "right", "truncation_side": "right"}
    # The class of transformers 4 and 5 that takes tokenizer.json as it is. Each knows others that the other does not.
    names = list(encoder.tokenizer.model_input_names)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": names}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a folder, as the library `tokenizers` reads it."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / FILE))


def encode(tokenizer: Tokenizer, rows: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the inputs of an exported model, as README.md makes them.

    Args:
        tokenizer: from `plain_tokenizer`.
        rows: texts or (text, text_pair).
        names: the names of the model's inputs.
    """
    import numpy as np

    encoded = tokenizer.encode_batch(rows)
    values = {
        "input_ids": [row.ids for row in encoded],
        "attention_mask": [row.attention_mask for row in encoded],
        "token_type_ids": [row.type_ids for row in encoded],
        "pair_position": [second_text(row) for row in encoded],
    }
    return {name: np.array(values[name], np.int64) for name in names}


def second_text(row: Any) -> int:
    """Return the position of the second text's first token, or the number of tokens if it has none."""
    sequences = row.sequence_ids
    return sequences.index(1) if 1 in sequences else sum(row.attention_mask)

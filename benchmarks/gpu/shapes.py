"""Models of three shapes with random weights, and a tokenizer of made-up words: nothing is downloaded.

What the weights are makes no difference to speed. The tokenizer splits text as BERT's does, so that its speed counts
in prediction as it would with a real vocabulary.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import SHAPES as COMMON_SHAPES
from common import clock

import ptune
from ptune.model.backbone import Backbone

VOCABULARY = 20_000  # what lengths.json's rows are drawn from, and a little less than BERT has
ADDED = 16  # embeddings left for the tokens that a family's tokenizer adds by itself
USUAL = ("the", "of", "and", "to", "in", "is", "that", "it")  # ptune refuses a tokenizer that knows no usual word
SHAPES: dict[str, dict[str, Any]] = {
    "minilm": {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 384,
        "intermediate_size": 1536,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "max_position_embeddings": 512,
    },
    "roberta-large": COMMON_SHAPES["roberta-large"],
    "qwen2-1.5b": {
        # Of the same sizes as Qwen2, but for a `qwen2` transformers would put its own tokenizer in place of ours.
        "model_type": "llama",
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
}
# What --short makes of each: every part is run, none is measured.
SMALL = {
    "vocab_size": VOCABULARY + ADDED,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def save_shape(name: str, folder: Path, short: bool) -> Path:
    """Write the configuration of a shape and a tokenizer for it; returns their folder."""
    from transformers import AutoConfig

    settings = SHAPES[name] | (SMALL if short else {})
    target = folder / name
    AutoConfig.for_model(**settings, pad_token_id=0).save_pretrained(target)
    save_tokenizer(target, settings["vocab_size"] - ADDED, segments=settings["model_type"] == "bert")
    return target


def load_shape(path: Path, dtype: str, device: torch.device) -> Backbone:
    """Build the backbone, its weights drawn on the device itself: on a CPU 1.5 billion of them take a minute."""
    with torch.device(device):
        return ptune.load_backbone(str(path), dtype=dtype, device=str(device), random_weights=True)


def save_tokenizer(folder: Path, size: int, segments: bool) -> None:
    """Write a WordPiece tokenizer with so many entries: words of two and three syllables, and a few usual ones."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprstv", "aeiou")]
    words = ("".join(parts) for count in (2, 3) for parts in itertools.product(syllables, repeat=count))
    entries = [*special, *itertools.islice(words, size - len(special) - len(USUAL)), *USUAL]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(entries)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if segments else ["input_ids", "attention_mask"]
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **names).save_pretrained(folder)


def peak_tflops(device: torch.device, size: int) -> float:
    """Measure 10^12 operations a second of a bfloat16 product of two square matrices, the median of ten."""
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(left)
    return 2 * size**3 / _median_seconds(device, lambda: torch.mm(left, right, out=out)) / 1e12


def copied_gigabytes(device: torch.device, size: int) -> float:
    """Measure gigabytes a second, read and written, of a copy inside of the device's memory, the median of ten."""
    source = torch.randn(size, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _median_seconds(device, lambda: target.copy_(source)) / 1e9


def _median_seconds(device: torch.device, run: Callable[[], object]) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(10):
        started = clock(device)
        run()
        times.append(clock(device) - started)
    return sorted(times)[5]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a part's results so far; whoever reads meanwhile sees the old file or the new one."""
    half = path.with_suffix(".part")
    half.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    half.replace(path)

"""A graph's linear layers in int8; attention, norms and residuals stay in floating point.

With AMX so do the layers that bring the feed-forward networks back to the
model's width: what they read has few large values and many small ones, and in
bfloat16 they take no longer there. Weights have a scale for each output,
activations one range for each layer. These ranges are taken from random tokens
under prompts of random tokens, so that a graph depends on no one's data and on
no adapter (docs/log.md: what that costs).
"""

from __future__ import annotations

import contextlib
import io
import logging
from typing import Any

import torch
from torch import Tensor

from ptune.backends.export import Variant, input_names, require
from ptune.model.backbone import Backbone
from ptune.model.loading import has_amx
from ptune.model.tokenizer import load_tokenizer

# What ranges are taken from: rows, their shortest and longest text, and prompts, in tokens.
ROWS, SHORTEST, LONGEST = 128, 4, 128
PROMPTS, VIRTUAL_TOKENS = 8, 32


def quantize_graph(graph: Any, backbone: Backbone, variant: Variant) -> Any:
    """The graph of a variant, from `export_graph`, in int8.

    Raises:
        ConfigError: NNCF is not installed.
    """
    nncf = require("nncf")
    nncf.set_log_level(logging.ERROR)
    with torch.no_grad():
        rows = _calibration_rows(backbone, variant)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars would stand among a command's answers
        return nncf.quantize(
            graph,
            nncf.Dataset(rows),
            subset_size=ROWS,
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=_kept(graph)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1),  # off
            ),
        )


def _kept(graph: Any) -> list[str]:
    """Names of the products that stay as they are: of attention, and with AMX those that narrow.

    The prompt is in the products of attention, and its scale is each adapter's own.
    """
    amx = has_amx()
    return [
        node.get_friendly_name()
        for node in graph.get_ops()
        if node.get_type_name() == "ScaledDotProductAttention"
        or (node.get_type_name() == "MatMul" and (not _has_weights(node) or (amx and _narrows(node))))
    ]


def _has_weights(product: Any) -> bool:
    return bool(product.input_value(1).get_node().get_type_name() == "Constant")


def _narrows(product: Any) -> bool:
    """Whether it gives fewer numbers than it reads."""
    read, given = product.input_value(0).get_partial_shape(), product.output(0).get_partial_shape()
    return bool(given[-1].get_length() < read[-1].get_length())


def _calibration_rows(backbone: Backbone, variant: Variant) -> list[dict[str, Any]]:
    """The graph's inputs for one row at a time, short ones as many as long ones."""
    generator = torch.Generator().manual_seed(0)
    prompts = [_prompt(backbone, variant, generator) for _ in range(PROMPTS)]
    special: list[int] = load_tokenizer(backbone.location)("")["input_ids"]
    longest = min(LONGEST, (backbone.max_positions or LONGEST) - VIRTUAL_TOKENS - len(special))
    rows = []
    for number in range(ROWS):
        length = round(SHORTEST * (longest / SHORTEST) ** (number / (ROWS - 1)))
        words = _random_tokens(backbone, length, generator).tolist()
        ids = torch.tensor([[*special[:1], *words, *special[1:]]])
        segments = [torch.zeros_like(ids)] if backbone.family.token_types else []
        read = [torch.tensor([ids.shape[1] - 1])] if variant.picked else []
        inputs = [ids, torch.ones_like(ids), prompts[number % PROMPTS], *segments, *read]
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        rows.append(dict(zip(input_names(backbone, variant), arrays, strict=True)))
    return rows


def _prompt(backbone: Backbone, variant: Variant, generator: torch.Generator) -> Tensor:
    """A prompt of random tokens: their embeddings, or the keys and values that the backbone has for them."""
    tokens = _random_tokens(backbone, VIRTUAL_TOKENS, generator)
    prompt = backbone.word_embeddings(tokens) if variant.entry.place == "input" else backbone.text_prompt(tokens)
    return prompt.unsqueeze(-3) if variant.by_row else prompt


def _random_tokens(backbone: Backbone, count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(backbone.word_embeddings.weight.shape[0], (count,), generator=generator)
